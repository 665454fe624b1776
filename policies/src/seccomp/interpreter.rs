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

/// What `program` answers; panics where the kernel would have refused the program.
pub(super) fn run(program: &[u8], call: Call) -> Action {
    let mut data = Vec::new();
    data.extend_from_slice(&call.number.to_le_bytes());
    data.extend_from_slice(&call.arch.to_le_bytes());
    data.extend_from_slice(&0u64.to_le_bytes());
    for arg in call.args {
        data.extend_from_slice(&arg.to_le_bytes());
    }
    let (mut at, mut a) = (0, 0u32);
    loop {
        let bytes = &program[at * bpf::INSTRUCTION_BYTES..][..bpf::INSTRUCTION_BYTES];
        let code = u16::from_ne_bytes([bytes[0], bytes[1]]);
        let (jt, jf) = (usize::from(bytes[2]), usize::from(bytes[3]));
        let k = u32::from_ne_bytes(bytes[4..8].try_into().unwrap());
        let branch = |taken: bool| at + 1 + if taken { jt } else { jf };
        at = match code {
            bpf::LOAD => {
                let offset = k as usize;
                assert_eq!(offset % 4, 0, "unaligned load");
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
            bpf::RETURN => return action(k),
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
