//! Names for requests: ray ids and trace contexts.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one("ray"));
}

/// Unpredictable enough for a name, not for a secret (splitmix64, seeded by the system).
fn random() -> u64 {
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Eight digits at once: each byte of a word becomes one.
fn eight_digits(number: u32) -> [u8; 8] {
    let spread = u64::from(number);
    let spread = (spread | (spread << 16)) & 0x0000_ffff_0000_ffff;
    let spread = (spread | (spread << 8)) & 0x00ff_00ff_00ff_00ff;
    let spread = (spread | (spread << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 in each byte that is a letter: 10 and more.
    let letters = ((spread + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (spread + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'9' - 1)).to_be_bytes()
}

fn hexadecimal(number: u64) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h] = eight_digits((number >> 32) as u32);
    let [i, j, k, l, m, n, o, p] = eight_digits((number & 0xffff_ffff) as u32);
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// An id for a client's request: 16 hexadecimal digits.
pub(super) fn ray() -> Arc<str> {
    let digits = hexadecimal(random());
    std::str::from_utf8(&digits).unwrap_or_default().into()
}

/// Keeps a valid `traceparent` (W3C Trace Context), makes one otherwise.
pub(super) fn trace(headers: &mut HeaderMap) {
    if headers.get(&TRACEPARENT).is_some_and(|value| is_traceparent(value.as_bytes())) {
        return;
    }
    let mut text = [b'-'; 55];
    let parts: [(usize, &[u8]); 5] = [
        (0, b"00"),
        (3, &hexadecimal(random() | 1)),
        (19, &hexadecimal(random())),
        (36, &hexadecimal(random() | 1)),
        (53, b"01"),
    ];
    for (at, part) in parts {
        if let Some(place) = text.get_mut(at..at + part.len()) {
            place.copy_from_slice(part);
        }
    }
    if let Ok(value) = HeaderValue::from_bytes(&text) {
        headers.insert(TRACEPARENT, value);
    }
}

fn is_traceparent(value: &[u8]) -> bool {
    let digits = |range: std::ops::Range<usize>| {
        value.get(range).is_some_and(|part| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    };
    let dashes = [2, 35, 52].iter().all(|at| value.get(*at) == Some(&b'-'));
    let zero = |range: std::ops::Range<usize>| {
        value.get(range).is_some_and(|part| part.iter().all(|byte| *byte == b'0'))
    };
    value.len() == 55
        && dashes
        && digits(0..2)
        && digits(3..35)
        && digits(36..52)
        && digits(53..55)
        && !zero(3..35)
        && !zero(36..52)
        && value.get(0..2) != Some(b"ff")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_kept_when_it_is_one() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(good));
        trace(&mut headers);
        assert_eq!(headers[TRACEPARENT], good);
        for bad in ["", "00-0-0-0", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"] {
            headers.insert(TRACEPARENT, HeaderValue::from_static(bad));
            trace(&mut headers);
            assert!(is_traceparent(headers[TRACEPARENT].as_bytes()), "{:?}", headers[TRACEPARENT]);
            assert_ne!(headers[TRACEPARENT], bad);
        }
    }

    #[test]
    fn digits_are_the_number() {
        for number in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef, random()] {
            assert_eq!(hexadecimal(number), format!("{number:016x}").as_bytes());
        }
    }

    #[test]
    fn rays_differ() {
        assert_ne!(ray(), ray());
        assert_eq!(ray().len(), 16);
    }
}
