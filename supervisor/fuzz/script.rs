//! Bytes read as what a Worker says: every choice is a byte of the input, so that a fuzzer can steer.

use cloister_ipc::frame;
use cloister_ipc::worker::{
    BodyEnd, BodyRef, DispatchOptions, FromWorker, RequestHead, ResponseHead, Target, WorkerBody,
};
use cloister_ipc::{PROTOCOL, limits};

/// What is left of the input; zeros behind its end.
pub(crate) struct Script<'a>(&'a [u8]);

/// What the Worker knows of the conversation, to say something that makes sense: most mistakes end it,
/// so only a Worker that makes few of them gets far.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Requests that it was sent and has not answered.
    pub(crate) open: Vec<u64>,
    /// Requests whose body is held, and was not asked for.
    pub(crate) held: Vec<u64>,
    /// One message in so many is a mistake, at most 256.
    pub(crate) care: usize,
    /// Requests that were sent at all.
    pub(crate) requests: u64,
    /// Those whose answer it is still to write.
    streaming: Vec<u64>,
    /// Those whose `wait_until` work goes on.
    waiting: Vec<u64>,
    /// The last fetch.
    fetch: u64,
}

impl<'a> Script<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// One time in `times`.
    pub(crate) fn rarely(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    /// Some of the input as it is.
    pub(crate) fn raw(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (raw, rest) = self.0.split_at(length);
        self.0 = rest;
        raw
    }

    /// A length around those that matter.
    pub(crate) fn length(&mut self) -> usize {
        let small = self.below(64);
        [small, small * 1000, limits::INLINE_BODY_BYTES, limits::INLINE_BODY_BYTES + 1][self.below(4)]
    }

    /// An id: most are near to what was given out.
    fn id(&mut self) -> u64 {
        match self.byte() {
            choice @ 0..=199 => u64::from(choice % 6) + 1,
            200..=219 => 0,
            220..=239 => u64::from(self.byte()),
            _ => u64::MAX - u64::from(self.byte() % 2),
        }
    }

    fn body_ref(&mut self) -> BodyRef {
        let id = self.id();
        match self.below(6) {
            0 => BodyRef::Request(id),
            1 => BodyRef::Response(id),
            2 => BodyRef::FetchRequest(id),
            3 => BodyRef::FetchResponse(id),
            4 => BodyRef::Tunnel(id),
            _ => BodyRef::FetchTunnel(id),
        }
    }

    fn announced(&mut self) -> Option<u64> {
        [None, Some(0), Some(5), Some(10), Some(u64::MAX)][self.below(5)]
    }

    fn body(&mut self) -> WorkerBody {
        match self.below(8) {
            0 | 1 => WorkerBody::Empty,
            2 | 3 => WorkerBody::Inline,
            4 | 5 => WorkerBody::Stream { length: self.announced() },
            6 => WorkerBody::Forward(self.body_ref()),
            _ => WorkerBody::Tunnel,
        }
    }

    fn block(&mut self) -> Vec<u8> {
        match self.below(12) {
            0 => field("x", b"a\r\nset-cookie: stolen=1"),
            1 => field("bad name", b"x"),
            2 => field("content-length", b"99999999999999999999"),
            3 => field("transfer-encoding", b"chunked, chunked"),
            4 => self.raw().to_vec(),
            5 => field("x", b"y").repeat(257),
            6 => field("x", &vec![b'y'; 60_000]),
            7 => field("cloister-dispatch", b"../../x"),
            _ => field("content-type", b"text/plain"),
        }
    }

    fn text(&mut self) -> String {
        match self.below(12) {
            0 => String::new(),
            1 => "x".repeat(9000),
            2 => "/only/a/path".into(),
            3 => "http://[::1".into(),
            4 => "http://a b/".into(),
            5 => String::from_utf8_lossy(self.raw()).into_owned(),
            6 => "file:///etc/passwd".into(),
            // What the test's own filter answers is in the path.
            other => format!("http://example.com/{other}"),
        }
    }

    fn target(&mut self) -> Target {
        match self.below(4) {
            0 | 1 => Target::Egress,
            2 => Target::Service { binding: self.text() },
            _ => Target::Dispatch {
                binding: self.text(),
                worker: self.text(),
                options: DispatchOptions { args: self.text(), ..DispatchOptions::default() },
            },
        }
    }

    fn request(&mut self) -> RequestHead {
        let method = ["GET", "POST", "CONNECT", "G ET", ""][self.below(5)];
        RequestHead { method: method.into(), uri: self.text(), headers: self.block() }
    }

    fn message(&mut self) -> FromWorker {
        let wait_until = self.rarely(4);
        match self.below(16) {
            0..=4 => {
                let status = [200, 204, 304, 404, 101, 100, 42, 1000, 999][self.below(9)];
                let head = ResponseHead { status, headers: self.block() };
                FromWorker::Response { id: self.id(), head, body: self.body(), wait_until }
            }
            5 => {
                let (id, target) = (self.id(), self.target());
                let head = if self.rarely(2) { None } else { Some(self.request()) };
                FromWorker::Handoff { id, target, head, body: self.body(), wait_until }
            }
            6 => FromWorker::Exception { id: self.id(), message: self.text() },
            7..=9 => {
                let (fetch, request, target) = (self.id(), self.id(), self.target());
                FromWorker::Fetch { fetch, request, target, head: self.request(), body: self.body() }
            }
            10 => FromWorker::Open { body: self.body_ref() },
            11 => FromWorker::Discard { body: self.body_ref() },
            12 => {
                let bytes = [0, 5, 10, u64::MAX][self.below(4)];
                let end = if self.rarely(3) {
                    BodyEnd::Aborted
                } else {
                    let trailers = if self.rarely(2) { self.block() } else { Vec::new() };
                    BodyEnd::Complete { bytes, trailers }
                };
                FromWorker::BodyEnd { body: self.body_ref(), end }
            }
            13 => FromWorker::CancelFetch { fetch: self.id() },
            14 => FromWorker::Done { id: self.id() },
            _ => FromWorker::Hello { protocol: [PROTOCOL, 0, u16::MAX][self.below(3)] },
        }
    }

    /// A message that is right, as far as the Worker can know.
    fn sensible(&mut self, known: &mut Known) -> Option<FromWorker> {
        let headers = |script: &mut Self| {
            if script.rarely(4) { field("content-type", b"text/plain") } else { Vec::new() }
        };
        let among = |script: &mut Self, ids: &[u64]| ids[script.below(ids.len())];
        let (open, streaming, waiting) =
            (!known.open.is_empty(), !known.streaming.is_empty(), !known.waiting.is_empty());
        Some(match self.below(12) {
            0..=2 if open => {
                let id = known.open.swap_remove(self.below(known.open.len()));
                let wait_until = self.rarely(4);
                let body = match self.below(6) {
                    0 => WorkerBody::Empty,
                    1 => WorkerBody::Inline,
                    2 => self.forward(known, id),
                    _ => WorkerBody::Stream { length: [None, Some(5)][self.below(2)] },
                };
                if matches!(body, WorkerBody::Stream { .. }) {
                    known.streaming.push(id);
                }
                if wait_until {
                    known.waiting.push(id);
                }
                let head = ResponseHead { status: 200, headers: headers(self) };
                FromWorker::Response { id, head, body, wait_until }
            }
            3..=5 if open => {
                known.fetch += 1;
                let uri = format!("http://example.com/{}", 6 + self.below(6));
                let head = RequestHead { method: "POST".into(), uri, headers: headers(self) };
                let body = match self.below(4) {
                    0 => WorkerBody::Stream { length: None },
                    1 => WorkerBody::Inline,
                    _ => WorkerBody::Empty,
                };
                let request = among(self, &known.open);
                FromWorker::Fetch { fetch: known.fetch, request, target: Target::Egress, head, body }
            }
            6 if streaming => {
                let id = known.streaming.swap_remove(self.below(known.streaming.len()));
                let end = if self.rarely(4) {
                    BodyEnd::Aborted
                } else {
                    BodyEnd::Complete { bytes: [5, 5, 0][self.below(3)], trailers: headers(self) }
                };
                FromWorker::BodyEnd { body: BodyRef::Response(id), end }
            }
            7 if waiting => {
                FromWorker::Done { id: known.waiting.swap_remove(self.below(known.waiting.len())) }
            }
            8 if known.requests > 0 => {
                let id = self.sent(known);
                known.held.retain(|held| *held != id);
                FromWorker::Discard { body: BodyRef::Request(id) }
            }
            9 if known.fetch > 0 => FromWorker::Open { body: BodyRef::FetchResponse(self.fetched(known)) },
            10 if known.fetch > 0 => FromWorker::CancelFetch { fetch: self.fetched(known) },
            11 if open => {
                let id = known.open.swap_remove(self.below(known.open.len()));
                if self.rarely(2) {
                    return Some(FromWorker::Exception { id, message: "it failed".into() });
                }
                let target = Target::Service { binding: "SERVICE".into() };
                let head =
                    RequestHead { method: "GET".into(), uri: "http://x/".into(), headers: headers(self) };
                FromWorker::Handoff {
                    id,
                    target,
                    head: (!self.rarely(2)).then_some(head),
                    body: WorkerBody::Forward(BodyRef::Request(id)),
                    wait_until: false,
                }
            }
            _ if !known.held.is_empty() => {
                let id = known.held.swap_remove(self.below(known.held.len()));
                FromWorker::Open { body: BodyRef::Request(id) }
            }
            _ => return None,
        })
    }

    /// The request's own body where it is still held.
    fn forward(&self, known: &mut Known, id: u64) -> WorkerBody {
        match known.held.iter().position(|held| *held == id) {
            Some(at) => WorkerBody::Forward(BodyRef::Request(known.held.swap_remove(at))),
            None => WorkerBody::Empty,
        }
    }

    fn sent(&mut self, known: &Known) -> u64 {
        u64::from(self.byte()) % known.requests + 1
    }

    fn fetched(&mut self, known: &Known) -> u64 {
        u64::from(self.byte()) % known.fetch + 1
    }

    /// A whole frame; empty when what was chosen can't be encoded.
    pub(crate) fn frame(&mut self, known: &mut Known) -> Vec<u8> {
        let message = if self.rarely(known.care) { Some(self.message()) } else { self.sensible(known) };
        let Some(message) = message else { return Vec::new() };
        let inline = matches!(
            message,
            FromWorker::Response { body: WorkerBody::Inline, .. }
                | FromWorker::Handoff { body: WorkerBody::Inline, .. }
                | FromWorker::Fetch { body: WorkerBody::Inline, .. }
        );
        let length =
            if inline || self.rarely(256) { self.length().min(limits::INLINE_BODY_BYTES) } else { 0 };
        let mut out = Vec::new();
        // A message that is too long leaves nothing.
        let _ = frame::append(&message, &vec![b'b'; length], &mut out);
        out
    }

    /// A frame with a byte changed, cut, or made longer.
    pub(crate) fn damaged_frame(&mut self, known: &mut Known) -> Vec<u8> {
        let mut frame = self.frame(known);
        let at = (self.below(256) * 256 + self.below(256)) % frame.len().max(1);
        match self.below(4) {
            0 => frame.truncate(at),
            1 => frame.insert(at, self.byte()),
            // Where lengths, ids and kinds are.
            2 => {
                let at = at % 24;
                let change = self.byte().max(1);
                frame.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= change);
            }
            _ => {
                let change = self.byte().max(1);
                frame.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= change);
            }
        }
        frame
    }
}

/// One field of a header block.
fn field(name: &str, value: &[u8]) -> Vec<u8> {
    let mut block = u16::try_from(name.len()).unwrap().to_le_bytes().to_vec();
    block.extend_from_slice(&u16::try_from(value.len()).unwrap().to_le_bytes());
    block.extend_from_slice(name.as_bytes());
    block.extend_from_slice(value);
    block
}
