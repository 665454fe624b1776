//! Classic BPF as seccomp takes it (linux/filter.h, linux/seccomp.h).

/// Bytes of one instruction.
pub(super) const INSTRUCTION_BYTES: usize = 8;

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) jt: u8,
    pub(super) jf: u8,
    pub(super) k: u32,
}

/// Load the word at offset `k` of `struct seccomp_data`.
pub(super) const LOAD: u16 = 0x20;
/// AND with `k`.
pub(super) const AND: u16 = 0x54;
/// Jump by `k`.
pub(super) const JUMP: u16 = 0x05;
/// By `jt` when equal to `k`, else by `jf`.
pub(super) const JUMP_EQUAL: u16 = 0x15;
/// By `jt` when not below `k`, else by `jf`.
pub(super) const JUMP_NOT_BELOW: u16 = 0x35;
/// By `jt` when it shares bits with `k`, else by `jf`.
pub(super) const JUMP_SHARES_BITS: u16 = 0x45;
/// End with `k`.
pub(super) const RETURN: u16 = 0x06;

/// Offset of `seccomp_data.nr`.
pub(super) const OFFSET_NUMBER: u32 = 0;
/// Offset of `seccomp_data.arch`.
pub(super) const OFFSET_ARCH: u32 = 4;

/// Offset of the low 32 bits of an argument (little-endian machines only).
pub(super) const fn offset_argument(index: u8) -> u32 {
    16 + 8 * index as u32
}

/// An instruction that is no conditional jump.
pub(super) const fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// The program as the kernel reads it.
pub(super) fn to_bytes(program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * INSTRUCTION_BYTES);
    for instruction in program {
        bytes.extend_from_slice(&instruction.code.to_ne_bytes());
        bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
        bytes.extend_from_slice(&instruction.k.to_ne_bytes());
    }
    bytes
}
