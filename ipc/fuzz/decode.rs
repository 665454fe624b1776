//! Everything that a hostile process may send through the decoders, as one function: the fuzz
//! target's and the smoke test's.

use cloister_ipc::control::Control;
use cloister_ipc::frame::FrameReader;
use cloister_ipc::launch::{FromBlank, FromLauncher, ToBlank, ToLauncher};
use cloister_ipc::limits::{CONTROL_BYTES, LAUNCH_BYTES};
use cloister_ipc::worker::{BodyEnd, FromWorker, ToWorker};
use cloister_ipc::{codec, head};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Decodes `bytes` as whatever its first byte says; the second cuts streams in pieces.
pub(crate) fn decode(bytes: &[u8]) {
    let [kind, cut, bytes @ ..] = bytes else { return };
    match kind % 8 {
        0 => frames::<FromWorker>(bytes, usize::from(*cut), &mut heads_of_worker),
        1 => frames::<ToWorker>(bytes, usize::from(*cut), &mut |_| {}),
        2 => block(bytes),
        3 => message::<ToLauncher>(bytes, LAUNCH_BYTES),
        4 => message::<FromLauncher>(bytes, LAUNCH_BYTES),
        5 => message::<ToBlank>(bytes, LAUNCH_BYTES),
        6 => message::<FromBlank>(bytes, LAUNCH_BYTES),
        _ => message::<Control>(bytes, CONTROL_BYTES),
    }
}

/// What is a message encodes to what it came from.
fn message<M: Serialize + DeserializeOwned>(bytes: &[u8], limit: usize) {
    if let Ok(message) = codec::decode::<M>(bytes, limit) {
        let again = codec::encode(&message, limit).expect("it fits, as it came from as many bytes");
        assert_eq!(again, bytes, "two encodings of one message");
    }
}

fn frames<M: Serialize + DeserializeOwned>(bytes: &[u8], cut: usize, look: &mut dyn FnMut(M)) {
    let mut reader = FrameReader::new();
    for piece in bytes.chunks(cut + 1) {
        reader.space().extend_from_slice(piece);
        loop {
            match reader.next_frame::<M>() {
                Ok(Some((message, _body))) => look(message),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

fn heads_of_worker(message: FromWorker) {
    match message {
        FromWorker::Response { head, .. } => block(&head.headers),
        FromWorker::Handoff { head: Some(head), .. } | FromWorker::Fetch { head, .. } => block(&head.headers),
        FromWorker::BodyEnd { end: BodyEnd::Complete { trailers, .. }, .. } => block(&trailers),
        _ => {}
    }
}

/// What decodes as a header block can be sent on.
fn block(bytes: &[u8]) {
    if let Ok(headers) = head::decode(bytes.to_vec()) {
        let again = head::encode(&headers).expect("it fits, as it came from as many bytes");
        assert_eq!(head::decode(again).expect("a block of our own"), headers);
    }
}
