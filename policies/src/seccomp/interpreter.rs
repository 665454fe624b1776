//! Runs a program as the kernel would (seccomp's subset of classic BPF), for the tests.

use super::Action;
use super::bpf;

/// A system call as a filter sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) arch: u32,
    pub(super) number: u32,
    pub(super) args: [u64; 6],
}

/// One run of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) action: Action,
    /// Instructions that were run.
    pub(super) steps: usize,
    /// An argument was looked at. Where the kernel sees that a program allows a call without, it remembers
    /// so and does not run it any more.
    pub(super) looked: bool,
}

/// What `program` answers.
pub(super) fn run(program: &[u8], call: Call) -> Action {
    trace(program, call).action
}

/// How `program` comes to its answer; panics where the kernel would have refused the program.
pub(super) fn trace(program: &[u8], call: Call) -> Run {
    let mut data = Vec::new();
    data.extend_from_slice(&call.number.to_le_bytes());
    data.extend_from_slice(&call.arch.to_le_bytes());
    data.extend_from_slice(&0u64.to_le_bytes());
    for arg in call.args {
        data.extend_from_slice(&arg.to_le_bytes());
    }
    let (mut at, mut a) = (0, 0u32);
    let (mut steps, mut looked) = (0, false);
    loop {
        steps += 1;
        let bytes = &program[at * bpf::INSTRUCTION_BYTES..][..bpf::INSTRUCTION_BYTES];
        let code = u16::from_ne_bytes([bytes[0], bytes[1]]);
        let (jt, jf) = (usize::from(bytes[2]), usize::from(bytes[3]));
        let k = u32::from_ne_bytes(bytes[4..8].try_into().unwrap());
        let branch = |taken: bool| at + 1 + if taken { jt } else { jf };
        at = match code {
            bpf::LOAD => {
                let offset = k as usize;
                assert_eq!(offset % 4, 0, "unaligned load");
                looked |= offset >= bpf::offset_argument(0) as usize;
                a = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
                at + 1
            }
            bpf::AND => {
                a &= k;
                at + 1
            }
            bpf::JUMP => at + 1 + k as usize,
            bpf::JUMP_EQUAL => branch(a == k),
            bpf::JUMP_NOT_BELOW => branch(a >= k),
            bpf::JUMP_SHARES_BITS => branch(a & k != 0),
            bpf::RETURN => return Run { action: action(k), steps, looked },
            other => panic!("instruction {other:#x} is not one that the compiler makes"),
        };
    }
}

fn action(value: u32) -> Action {
    match value & 0xffff_0000 {
        0x7fff_0000 => Action::Allow,
        0x0005_0000 => Action::Errno((value & 0xffff) as u16),
        0x8000_0000 => Action::Kill,
        other => panic!("action {other:#x}"),
    }
}
