//! A Worker's standard output and error, line by line, bounded.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::net::unix::pipe::Receiver;

use super::{Detail, Event, Telemetry};
use crate::registry::Deployed;
use crate::second::Second;

/// Longest line kept, in bytes; the rest of it is dropped.
const LINE_BYTES: usize = 2048;

/// Read at once.
const READ_BYTES: usize = 16 << 10;

/// Lines taken from one stream of a process in a second; more are counted and dropped.
const LINES_A_SECOND: u32 = 200;

/// Bytes read from one stream of a process in a second. Who writes more waits for its pipe: to throw them away
/// costs the data plane's thread time that others' requests need.
const BYTES_A_SECOND: usize = 4 << 20;

/// Cuts bytes into bounded lines.
#[derive(Debug, Default)]
pub struct LineReader {
    line: Vec<u8>,
    /// The line's start was skipped: so is its rest.
    cut: bool,
}

impl LineReader {
    /// Counts the lines that end in `bytes` and throws them away.
    fn skip(&mut self, bytes: &[u8]) -> u64 {
        self.line.clear();
        self.cut = !bytes.ends_with(b"\n");
        memchr::memchr_iter(b'\n', bytes).count() as u64
    }

    /// Takes bytes, calls `each` for every whole line.
    pub fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(String)) {
        if self.cut {
            let Some(end) = memchr::memchr(b'\n', bytes) else { return };
            self.cut = false;
            bytes = bytes.get(end + 1..).unwrap_or_default();
        }
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = part.strip_suffix(b"\n");
            let kept = text.unwrap_or(part);
            let room = LINE_BYTES.saturating_sub(self.line.len());
            self.line.extend_from_slice(kept.get(..room.min(kept.len())).unwrap_or_default());
            if text.is_some() {
                each(String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned());
            }
        }
    }

    /// The last line, when it has no end.
    #[must_use]
    pub fn finish(self) -> Option<String> {
        (!self.line.is_empty()).then(|| String::from_utf8_lossy(&self.line).into_owned())
    }
}

/// Reads `pipe` until its end. `stream` names it.
pub async fn capture(telemetry: Telemetry, deployed: Arc<Deployed>, stream: &'static str, pipe: OwnedFd) {
    let Ok(pipe) = Receiver::from_owned_fd(pipe) else { return };
    let mut lines = LineReader::default();
    let mut allowance = Allowance::default();
    let record = |line: String| {
        telemetry.record(Event {
            time: SystemTime::now(),
            worker: deployed.id.clone(),
            version: Arc::clone(&deployed.version),
            detail: Detail::Output { stream, line },
        });
    };
    while pipe.readable().await.is_ok() {
        match take(&pipe, &mut lines, &mut allowance, &record) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        if allowance.bytes >= BYTES_A_SECOND {
            tokio::time::sleep(allowance.lines.left(Instant::now())).await;
        }
    }
    if let Some(line) = lines.finish() {
        allowance.pass(line, Instant::now(), &record);
    }
    allowance.tell(&record);
}

/// Takes what is there. The buffer is on the stack: for nearly all of its life a stream says nothing.
fn take(
    pipe: &Receiver,
    lines: &mut LineReader,
    allowance: &mut Allowance,
    record: &impl Fn(String),
) -> io::Result<usize> {
    let mut buffer = [0; READ_BYTES];
    let count = pipe.try_read(&mut buffer)?;
    let bytes = buffer.get(..count).unwrap_or_default();
    let now = Instant::now();
    allowance.turn(now, record);
    allowance.bytes += count;
    if allowance.lines.is_used_up(LINES_A_SECOND) {
        allowance.lines.leave_out(lines.skip(bytes));
    } else {
        lines.take(bytes, |line| allowance.pass(line, now, record));
    }
    Ok(count)
}

/// Lets so many lines a second pass, and tells how many did not.
#[derive(Default)]
struct Allowance {
    lines: Second,
    bytes: usize,
}

impl Allowance {
    /// Begins a new second when the last is over.
    fn turn(&mut self, now: Instant, record: &impl Fn(String)) {
        if self.lines.turn(now) {
            self.tell(record);
            self.bytes = 0;
        }
    }

    fn tell(&mut self, record: &impl Fn(String)) {
        match self.lines.left_out() {
            0 => {}
            dropped => record(format!("({dropped} lines dropped)")),
        }
    }

    fn pass(&mut self, line: String, now: Instant, record: &impl Fn(String)) {
        self.turn(now, record);
        if self.lines.takes(now, LINES_A_SECOND) {
            record(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_their_ends_and_at_the_limit() {
        let mut lines = LineReader::default();
        let mut seen = Vec::new();
        lines.take(b"one\ntw", |line| seen.push(line));
        lines.take(b"o\n\n", |line| seen.push(line));
        assert_eq!(seen, ["one", "two", ""]);
        lines.take(&vec![b'x'; 3 * LINE_BYTES], |line| seen.push(line));
        lines.take(b"\nend", |line| seen.push(line));
        assert_eq!(seen[3].len(), LINE_BYTES);
        assert_eq!(lines.finish().as_deref(), Some("end"));
        let mut lines = LineReader::default();
        lines.take(b"begun", |line| panic!("{line}"));
        assert_eq!(lines.skip(b"a\nb\nhalf"), 2);
        lines.take(b"still half", |line| panic!("{line}"));
        let mut seen = Vec::new();
        lines.take(b" a line\nwhole\n", |line| seen.push(line));
        assert_eq!(seen, ["whole"], "a line of which a part was thrown away is no line");
    }

    #[test]
    fn what_is_over_the_allowance_is_counted_and_told() {
        use std::cell::RefCell;
        use std::time::Duration;

        let seen = RefCell::new(Vec::new());
        let record = |line| seen.borrow_mut().push(line);
        let (mut allowance, now) = (Allowance::default(), Instant::now());
        for number in 0..LINES_A_SECOND + 50 {
            allowance.pass(number.to_string(), now, &record);
        }
        let passed = usize::try_from(LINES_A_SECOND).unwrap();
        assert_eq!(seen.borrow().len(), passed);
        assert_eq!(seen.borrow().last(), Some(&(LINES_A_SECOND - 1).to_string()));
        let next = now + Duration::from_secs(1);
        allowance.pass("next".into(), next, &record);
        assert_eq!(seen.borrow()[passed..], ["(50 lines dropped)", "next"]);
        // Told once, and the next second has all of its lines.
        for _ in 1..LINES_A_SECOND + 7 {
            allowance.pass("more".into(), next, &record);
        }
        assert_eq!(seen.borrow().len(), 2 * passed + 1);
        assert_eq!(allowance.lines.left_out(), 7);
    }
}
