//! A Worker's standard output and error, line by line, bounded.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

use super::{Detail, Event, Telemetry};
use crate::registry::Deployed;

/// Longest line kept, in bytes; the rest of it is dropped.
const LINE_BYTES: usize = 2048;

/// Lines taken from one process in a second; more are counted and dropped.
const LINES_A_SECOND: u32 = 200;

/// Cuts bytes into bounded lines.
#[derive(Debug, Default)]
pub struct LineReader {
    line: Vec<u8>,
}

impl LineReader {
    /// Takes bytes, calls `each` for every whole line.
    pub fn take(&mut self, bytes: &[u8], mut each: impl FnMut(String)) {
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
    let Ok(mut pipe) = Receiver::from_owned_fd(pipe) else { return };
    let mut lines = LineReader::default();
    let mut buffer = vec![0; 4096];
    let mut allowance = Allowance::default();
    let record = |line: String| {
        telemetry.record(Event {
            time: SystemTime::now(),
            worker: deployed.id.clone(),
            version: Arc::clone(&deployed.version),
            detail: Detail::Output { stream, line },
        });
    };
    while let Ok(count) = pipe.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        lines.take(buffer.get(..count).unwrap_or_default(), |line| allowance.pass(line, &record));
    }
    if let Some(line) = lines.finish() {
        allowance.pass(line, &record);
    }
}

/// Lets so many lines a second pass, and tells how many did not.
#[derive(Default)]
struct Allowance {
    since: Option<std::time::Instant>,
    passed: u32,
    dropped: u64,
}

impl Allowance {
    fn pass(&mut self, line: String, record: &impl Fn(String)) {
        let now = std::time::Instant::now();
        if self.since.is_none_or(|since| now.duration_since(since).as_secs() >= 1) {
            if self.dropped > 0 {
                record(format!("({} lines dropped)", self.dropped));
            }
            *self = Self { since: Some(now), passed: 0, dropped: 0 };
        }
        if self.passed < LINES_A_SECOND {
            self.passed += 1;
            record(line);
        } else {
            self.dropped += 1;
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
    }

    #[test]
    fn what_is_over_the_allowance_is_counted_and_told() {
        use std::cell::RefCell;
        use std::time::{Duration, Instant};

        let seen = RefCell::new(Vec::new());
        let record = |line| seen.borrow_mut().push(line);
        let mut allowance = Allowance::default();
        for number in 0..LINES_A_SECOND + 50 {
            allowance.pass(number.to_string(), &record);
            // A second that does not end, however slow this is.
            allowance.since = Some(Instant::now() + Duration::from_secs(3600));
        }
        let passed = usize::try_from(LINES_A_SECOND).unwrap();
        assert_eq!(seen.borrow().len(), passed);
        assert_eq!(seen.borrow().last(), Some(&(LINES_A_SECOND - 1).to_string()));
        allowance.since = Some(Instant::now() - Duration::from_secs(1));
        allowance.pass("next".into(), &record);
        assert_eq!(seen.borrow()[passed..], ["(50 lines dropped)", "next"]);
        // Told once, and the next second has all of its lines.
        allowance.since = Some(Instant::now() + Duration::from_secs(3600));
        for _ in 1..LINES_A_SECOND + 7 {
            allowance.pass("more".into(), &record);
        }
        assert_eq!(seen.borrow().len(), 2 * passed + 1);
        assert_eq!(allowance.dropped, 7);
    }
}
