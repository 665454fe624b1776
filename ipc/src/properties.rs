//! Properties of everything on the wire: what is sent comes back, whatever way the bytes are cut,
//! and nothing that is not a message becomes one.

use std::fmt::Debug;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

use crate::codec::{self, CodecError};
use crate::control::Control;
use crate::frame::{self, FrameError, FrameReader};
use crate::head::{self, HeadError};
use crate::launch::{FromBlank, FromLauncher, ToBlank, ToLauncher};
use crate::limits::{
    CONTROL_BYTES, HEADER_BLOCK_BYTES, HEADER_FIELDS, INLINE_BODY_BYTES, LAUNCH_BYTES, MESSAGE_BYTES,
};
use crate::worker::{FromWorker, ResponseHead, ToWorker, WorkerBody};

/// A message comes back as it was, and neither cut nor with something behind it.
fn comes_back<M: Serialize + DeserializeOwned + PartialEq + Debug>(
    message: &M,
    limit: usize,
) -> Result<(), TestCaseError> {
    let mut bytes = codec::encode(message, limit).unwrap();
    prop_assert_eq!(&codec::decode::<M>(&bytes, limit).unwrap(), message);
    prop_assert!(codec::encode(message, bytes.len().saturating_sub(1)).is_err());
    for end in (0..bytes.len()).step_by(1 + bytes.len() / 64) {
        prop_assert!(codec::decode::<M>(&bytes[..end], limit).is_err());
    }
    bytes.push(0);
    prop_assert!(matches!(codec::decode::<M>(&bytes, limit), Err(CodecError::Trailing(1))));
    Ok(())
}

/// Reads `bytes` in pieces that end at `cuts`.
fn read_in_pieces<M: DeserializeOwned>(
    bytes: &[u8],
    cuts: &[usize],
) -> Result<(Vec<(M, Bytes)>, bool), FrameError> {
    let mut reader = FrameReader::new();
    let mut frames = Vec::new();
    let mut start = 0;
    for end in cuts.iter().copied().chain([bytes.len()]) {
        reader.space().extend_from_slice(&bytes[start..end]);
        start = end;
        while let Some(frame) = reader.next_frame()? {
            frames.push(frame);
        }
    }
    Ok((frames, reader.is_empty()))
}

fn header_map() -> impl Strategy<Value = HeaderMap> {
    let field = ("[a-z0-9!#$%&'*+.^_`|~-]{1,20}", vec(any::<u8>(), 0..40));
    vec(field, 0..30).prop_map(|fields| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
            }
        }
        headers
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn messages_to_workers_come_back(message: ToWorker) {
        comes_back(&message, MESSAGE_BYTES)?;
    }

    #[test]
    fn messages_from_workers_come_back(message: FromWorker) {
        comes_back(&message, MESSAGE_BYTES)?;
    }

    #[test]
    fn control_records_come_back(record: Control) {
        comes_back(&record, CONTROL_BYTES)?;
    }

    #[test]
    fn launcher_messages_come_back(
        to_launcher: ToLauncher, from_launcher: FromLauncher, to_blank: ToBlank, from_blank: FromBlank,
    ) {
        comes_back(&to_launcher, LAUNCH_BYTES)?;
        comes_back(&from_launcher, LAUNCH_BYTES)?;
        comes_back(&to_blank, LAUNCH_BYTES)?;
        comes_back(&from_blank, LAUNCH_BYTES)?;
    }

    #[test]
    fn frames_come_back_however_they_are_cut(
        frames in vec((any::<FromWorker>(), vec(any::<u8>(), 0..200)), 1..8),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut bytes = Vec::new();
        for (message, body) in &frames {
            frame::append(message, body, &mut bytes).unwrap();
        }
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let (read, whole) = read_in_pieces::<FromWorker>(&bytes, &cuts).unwrap();
        prop_assert!(whole);
        prop_assert_eq!(read.len(), frames.len());
        for ((message, body), (sent, sent_body)) in read.iter().zip(&frames) {
            prop_assert_eq!(message, sent);
            prop_assert_eq!(body, sent_body);
        }
    }

    #[test]
    fn a_frame_is_read_wherever_it_is_cut(message: ToWorker, body in vec(any::<u8>(), 0..20)) {
        let mut bytes = Vec::new();
        frame::append(&message, &body, &mut bytes).unwrap();
        // Everywhere in what is short, else around the prefix and in steps.
        let step = 1 + bytes.len() / 200;
        for cut in (0..=bytes.len()).filter(|cut| *cut < 24 || cut % step == 0) {
            let (read, whole) = read_in_pieces::<ToWorker>(&bytes, &[cut]).unwrap();
            prop_assert!(whole);
            prop_assert_eq!(&read, &[(message.clone(), Bytes::from(body.clone()))]);
            // What is not all there is not a frame.
            let (read, whole) = read_in_pieces::<ToWorker>(&bytes[..cut], &[]).unwrap();
            prop_assert_eq!(read.is_empty(), cut < bytes.len());
            prop_assert_eq!(whole, cut == 0 || cut == bytes.len());
        }
    }

    #[test]
    fn one_changed_byte_never_panics(message: FromWorker, at: prop::sample::Index, to: u8) {
        let mut bytes = Vec::new();
        frame::append(&message, b"body", &mut bytes).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok((read, _)) = read_in_pieces::<FromWorker>(&bytes, &[]) {
            for (message, _) in read {
                comes_back(&message, MESSAGE_BYTES)?;
            }
        }
    }

    #[test]
    fn a_block_is_of_no_other_headers(headers in header_map(), at in 0..1_000_000_usize, byte in 1..=255_u8) {
        let mut block = head::encode(&headers).unwrap();
        block.push(0);
        prop_assert!(!head::is_block_of(&headers, &block));
        block.pop();
        if !block.is_empty() {
            prop_assert!(!head::is_block_of(&headers, &block[..block.len() - 1]));
            let at = at % block.len();
            block[at] ^= byte;
            prop_assert!(!head::is_block_of(&headers, &block));
        }
    }

    #[test]
    fn header_blocks_come_back(headers in header_map()) {
        let block = head::encode(&headers).unwrap();
        let decoded = head::decode(block.clone()).unwrap();
        prop_assert_eq!(&decoded, &headers);
        prop_assert_eq!(head::encode(&decoded).unwrap().len(), block.len());
        prop_assert!(head::is_block_of(&decoded, &block));

    }

    #[test]
    fn a_block_that_decodes_is_valid_http(block in vec(any::<u8>(), 0..200)) {
        if let Ok(headers) = head::decode(block) {
            for (name, value) in &headers {
                prop_assert!(!name.as_str().is_empty());
                prop_assert!(name.as_str().bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'));
                prop_assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
            }
        }
    }
}

#[test]
fn the_limits_of_a_frame_are_exact() {
    let message = FromWorker::Done { id: 1 };
    let mut bytes = Vec::new();
    frame::append(&message, &vec![7; INLINE_BODY_BYTES], &mut bytes).unwrap();
    let (read, whole) = read_in_pieces::<FromWorker>(&bytes, &[]).unwrap();
    assert_eq!((read.len(), read[0].1.len(), whole), (1, INLINE_BODY_BYTES, true));
    let mut untouched = vec![1];
    let error = frame::append(&message, &vec![7; INLINE_BODY_BYTES + 1], &mut untouched);
    assert!(matches!(error, Err(FrameError::Body(_))));
    let long = FromWorker::Exception { id: 1, message: "x".repeat(MESSAGE_BYTES) };
    assert!(matches!(frame::append(&long, &[], &mut untouched), Err(FrameError::Codec(_))));
    assert_eq!(untouched, [1]);

    // Lengths are refused as soon as they are there.
    let claim = |message: usize, body: usize| {
        let mut prefix = u32::try_from(message).unwrap().to_le_bytes().to_vec();
        prefix.extend(u32::try_from(body).unwrap().to_le_bytes());
        read_in_pieces::<FromWorker>(&prefix, &[]).map(|(read, _)| read.len())
    };
    assert_eq!(claim(MESSAGE_BYTES, INLINE_BODY_BYTES).unwrap(), 0);
    assert!(matches!(claim(MESSAGE_BYTES + 1, 0), Err(FrameError::Message(_))));
    assert!(matches!(claim(1, INLINE_BODY_BYTES + 1), Err(FrameError::Body(_))));
    assert!(matches!(claim(u32::MAX as usize, u32::MAX as usize), Err(FrameError::Message(_))));
}

#[test]
fn the_limits_of_a_header_block_are_exact() {
    let field = |name: &str, value: &[u8]| {
        let mut block = u16::try_from(name.len()).unwrap().to_le_bytes().to_vec();
        block.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
        block.extend(name.as_bytes());
        block.extend(value);
        block
    };
    assert_eq!(head::decode(field("a", b"").repeat(HEADER_FIELDS)).unwrap().len(), HEADER_FIELDS);
    assert!(matches!(head::decode(field("a", b"").repeat(HEADER_FIELDS + 1)), Err(HeadError::TooMany)));
    let longest = field("a", &vec![b'v'; HEADER_BLOCK_BYTES - 5]);
    assert!(head::decode(longest.clone()).is_ok());
    assert!(matches!(head::decode([longest, vec![0]].concat()), Err(HeadError::TooLong(_))));
    let whole = field("name", b"value");
    for end in 1..whole.len() {
        assert!(matches!(head::decode(whole[..end].to_vec()), Err(HeadError::Truncated)));
    }
    assert!(matches!(head::decode(field("", b"value")), Err(HeadError::Name(_))));
    for name in ["a b", "a:", "a\r\n", "ä"] {
        assert!(matches!(head::decode(field(name, b"value")), Err(HeadError::Name(_))), "{name:?}");
    }
    for value in [&b"a\r\nb: c"[..], b"\0", b"a\nb"] {
        assert!(matches!(head::decode(field("name", value)), Err(HeadError::Value(_))), "{value:?}");
    }
}

/// What is on the wire, spelled out: it changes only together with [`PROTOCOL`](crate::PROTOCOL).
#[test]
fn the_encoding_is_this() {
    let message = FromWorker::Response {
        id: 7,
        head: ResponseHead { status: 200, headers: b"\x01\0\x01\0ab".to_vec() },
        body: WorkerBody::Inline,
        wait_until: false,
    };
    let mut bytes = Vec::new();
    frame::append(&message, b"hi", &mut bytes).unwrap();
    let expected: &[&[u8]] = &[
        &[33, 0, 0, 0, 2, 0, 0, 0],                        // lengths of message and body
        &[1, 0, 0, 0],                                     // Response
        &[7, 0, 0, 0, 0, 0, 0, 0],                         // id
        &[200, 0],                                         // status
        &[6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, b'a', b'b'], // headers
        &[1, 0, 0, 0],                                     // Inline
        &[0],                                              // wait_until
        b"hi",
    ];
    assert_eq!(bytes, expected.concat());
}
