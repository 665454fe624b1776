//! A bounded, repeatable run of the fuzz target: random bytes, and real messages with damage. And
//! what decoding costs in memory. One test, since allocations are counted for the whole process.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test says by panicking that it failed

#[path = "../fuzz/decode.rs"]
mod decode;

use std::alloc::System;

use cloister_ipc::frame;
use cloister_ipc::limits::{INLINE_BODY_BYTES, MESSAGE_BYTES};
use cloister_ipc::worker::{
    BodyEnd, BodyRef, DispatchOptions, FromWorker, RequestHead, ResponseHead, Target, WorkerBody,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Numbers that look random and are the same each time (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[7]
    }
}

/// Real frames of a Worker.
fn real() -> Vec<u8> {
    let block = b"\x04\x00\x05\x00namevalue".to_vec();
    let head = RequestHead { method: "GET".into(), uri: "http://a.example/".into(), headers: block.clone() };
    let options =
        DispatchOptions { args: "{}".into(), outbound: vec![("a".into(), "1".into())], ..Default::default() };
    let target = Target::Dispatch { binding: "D".into(), worker: "w".into(), options };
    let messages = [
        FromWorker::Hello { protocol: 1 },
        FromWorker::Response {
            id: 1,
            head: ResponseHead { status: 200, headers: block.clone() },
            body: WorkerBody::Stream { length: Some(5) },
            wait_until: true,
        },
        FromWorker::Fetch { fetch: 1, request: 1, target, head, body: WorkerBody::Inline },
        FromWorker::BodyEnd {
            body: BodyRef::Response(1),
            end: BodyEnd::Complete { bytes: 5, trailers: block },
        },
        FromWorker::Exception { id: 2, message: "no".into() },
    ];
    let mut bytes = vec![0, 7];
    for message in &messages {
        frame::append(message, b"body", &mut bytes).unwrap();
    }
    bytes
}

#[test]
fn any_bytes_are_decoded_or_refused_in_bounded_memory() {
    let mut numbers = Numbers(0x0C10_157E_0000_0001);
    let real = real();
    // A read's room, a frame of the longest kind that is waited for, a few times what the bytes
    // justify, and the 1 MiB that serde reserves at most for a list, until it fails: never what is
    // claimed.
    let bound = (1 << 20) + 2 * (MESSAGE_BYTES + INLINE_BODY_BYTES);
    let mut most = 0;
    for round in 0..30_000 {
        let mut bytes = if round % 2 == 0 {
            let length = numbers.below(300);
            (0..length).map(|_| numbers.byte()).collect()
        } else {
            let mut bytes = real.clone();
            for _ in 0..numbers.below(4) {
                let at = numbers.below(bytes.len());
                bytes[at] = numbers.byte();
            }
            bytes.truncate(bytes.len() - numbers.below(40));
            bytes
        };
        if let Some(first) = bytes.first_mut() {
            // Real frames are a Worker's; random bytes are everybody's.
            *first = if round % 2 == 0 { *first } else { 0 };
        }
        let region = Region::new(ALLOCATOR);
        decode::decode(&bytes);
        let allocated = region.change().bytes_allocated;
        most = most.max(allocated);
        assert!(allocated < bound, "{allocated} bytes allocated for {bytes:?}");
    }
    // The claims that would hurt most.
    for kind in 2..8 {
        for length in [u64::MAX, u64::from(u32::MAX), 1 << 20, 1 << 18] {
            let mut bytes = vec![kind, 0, 0, 0, 0, 0];
            bytes.extend(length.to_le_bytes().repeat(8));
            let region = Region::new(ALLOCATOR);
            decode::decode(&bytes);
            let allocated = region.change().bytes_allocated;
            most = most.max(allocated);
            assert!(allocated < bound, "{allocated} bytes allocated for a claim of {length}");
        }
    }
    println!("{most} bytes allocated at most, {bound} allowed");
}
