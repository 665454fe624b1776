//! The first message of a TLS client, read strictly: for whom is it?
//!
//! Anything unusual is refused rather than understood, since the server behind might understand it
//! otherwise: a hello in several records, doubled extensions, lengths that don't add up.

/// Longest TLS record's content, bytes.
pub(super) const RECORD_BYTES: usize = 16 << 10;
/// Its header, bytes.
pub(super) const HEADER_BYTES: usize = 5;

/// The parts of a ClientHello that are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientHello {
    /// The name in the server name indication.
    pub(super) server_name: Option<String>,
}

/// Why these bytes are not an acceptable ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum HelloError {
    #[error("what passes a tunnel must be TLS")]
    NotTls,
    #[error("the TLS ClientHello is malformed")]
    Malformed,
    #[error("the TLS ClientHello comes in several records")]
    Fragmented,
    #[error("the TLS ClientHello hides the server name (ECH)")]
    Encrypted,
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
/// Encrypted ClientHello, and its draft forerunner ESNI.
const ENCRYPTED: [u16; 2] = [0xfe0d, 0xffce];

/// Length of the record's content, from its header.
pub(super) fn record_length(header: [u8; HEADER_BYTES]) -> Result<usize, HelloError> {
    let [kind, major, _, high, low] = header;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if kind != HANDSHAKE || major != 3 {
        return Err(HelloError::NotTls);
    }
    if length == 0 || length > RECORD_BYTES { Err(HelloError::Malformed) } else { Ok(length) }
}

/// Reads the content of the first record.
pub(super) fn parse(record: &[u8]) -> Result<ClientHello, HelloError> {
    let mut record = Bytes(record);
    if record.byte()? != CLIENT_HELLO {
        return Err(HelloError::NotTls);
    }
    let [high, middle, low] = record.array()?;
    let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    match length.cmp(&record.0.len()) {
        std::cmp::Ordering::Less => return Err(HelloError::Malformed),
        std::cmp::Ordering::Greater => return Err(HelloError::Fragmented),
        std::cmp::Ordering::Equal => {}
    }
    let mut hello = record;
    hello.take(2 + 32)?; // version, random
    let session = hello.byte()?;
    hello.take(session.into())?;
    let ciphers = hello.short()?;
    hello.take(ciphers.into())?;
    let compression = hello.byte()?;
    hello.take(compression.into())?;
    let mut extensions = hello.list()?;
    hello.finish()?;

    let mut server_name = None;
    let mut seen = Vec::new();
    while !extensions.0.is_empty() {
        let kind = extensions.short()?;
        let content = extensions.list()?;
        if seen.contains(&kind) {
            return Err(HelloError::Malformed);
        }
        seen.push(kind);
        if ENCRYPTED.contains(&kind) {
            return Err(HelloError::Encrypted);
        }
        if kind == SERVER_NAME {
            server_name = Some(name(content)?);
        }
    }
    Ok(ClientHello { server_name })
}

/// The one host name of a server name indication.
fn name(mut content: Bytes<'_>) -> Result<String, HelloError> {
    const HOST_NAME: u8 = 0;
    let mut names = content.list()?;
    content.finish()?;
    if names.byte()? != HOST_NAME {
        return Err(HelloError::Malformed);
    }
    let name = names.list()?;
    names.finish()?;
    match std::str::from_utf8(name.0) {
        Ok(name) if !name.is_empty() && name.is_ascii() => Ok(name.to_owned()),
        _ => Err(HelloError::Malformed),
    }
}

/// Bytes not yet read.
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], HelloError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(HelloError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], HelloError> {
        self.take(N)?.try_into().map_err(|_| HelloError::Malformed)
    }

    fn byte(&mut self) -> Result<u8, HelloError> {
        self.array().map(|[byte]| byte)
    }

    fn short(&mut self) -> Result<u16, HelloError> {
        self.array().map(u16::from_be_bytes)
    }

    /// What stands behind a length of two bytes.
    fn list(&mut self) -> Result<Self, HelloError> {
        let length = self.short()?;
        self.take(length.into()).map(Bytes)
    }

    fn finish(&self) -> Result<(), HelloError> {
        if self.0.is_empty() { Ok(()) } else { Err(HelloError::Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    /// What rustls sends for `name`.
    fn real(name: &'static str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let mut sent = Vec::new();
        client.write_tls(&mut sent).unwrap();
        let length = record_length(sent[..5].try_into().unwrap()).unwrap();
        assert_eq!(length, sent.len() - 5);
        sent.split_off(5)
    }

    /// A hello with these extensions.
    fn made(extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let mut list = Vec::new();
        for (kind, content) in extensions {
            list.extend(kind.to_be_bytes());
            list.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
            list.extend(*content);
        }
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(u16::try_from(list.len()).unwrap().to_be_bytes());
        body.extend(list);
        let mut hello = vec![1, 0];
        hello.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        hello.extend(body);
        hello
    }

    const SNI: &[u8] = &[0, 6, 0, 0, 3, b'a', b'.', b'b'];

    #[test]
    fn real_ones() {
        assert_eq!(parse(&real("api.example.com")).unwrap().server_name.unwrap(), "api.example.com");
        assert_eq!(parse(&real("127.0.0.1")).unwrap().server_name, None);
    }

    #[test]
    fn odd_ones() {
        assert_eq!(parse(&made(&[(0, SNI)])).unwrap().server_name.unwrap(), "a.b");
        assert_eq!(parse(&made(&[])).unwrap().server_name, None);
        assert_eq!(parse(&made(&[(0, SNI), (0, SNI)])), Err(HelloError::Malformed));
        assert_eq!(parse(&made(&[(0, SNI), (0xfe0d, &[0])])), Err(HelloError::Encrypted));
        assert_eq!(parse(&made(&[(0xffce, &[])])), Err(HelloError::Encrypted));
        let two_names = [0, 12, 0, 0, 3, b'a', b'.', b'b', 0, 0, 3, b'c', b'.', b'd'];
        assert_eq!(parse(&made(&[(0, &two_names)])), Err(HelloError::Malformed));
        assert_eq!(parse(&made(&[(0, &[0, 3, 0, 0, 0])])), Err(HelloError::Malformed));
        assert_eq!(parse(&made(&[(0, &[0, 4, 0, 0, 1, 0xff])])), Err(HelloError::Malformed));
        let mut longer = made(&[]);
        longer.push(0);
        assert_eq!(parse(&longer), Err(HelloError::Malformed));
        let hello = made(&[(0, SNI)]);
        assert_eq!(parse(&hello[..hello.len() - 1]), Err(HelloError::Fragmented));
        assert_eq!(record_length(*b"GET /"), Err(HelloError::NotTls));
        assert_eq!(record_length([22, 2, 0, 1, 0]), Err(HelloError::NotTls));
        assert_eq!(record_length([22, 3, 1, 0x40, 1]), Err(HelloError::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_change_panics_or_gains_a_name(at in 0usize..80, value: u8) {
            let mut hello = made(&[(0, SNI), (10, &[0, 2, 0, 29])]);
            if let Some(byte) = hello.get_mut(at) { *byte = value; }
            if let Ok(ClientHello { server_name: Some(name) }) = parse(&hello) {
                prop_assert!(name.is_ascii() && !name.is_empty());
            }
        }
    }
}
