//! From decisions to a program: a balanced tree over ranges of numbers.
//!
//! Neighbouring numbers with the same fate are one range, and a call is found in log₂ steps. (A
//! kernel since 5.11 remembers which calls are allowed whatever their arguments and never runs the
//! program for them: only calls with conditions pay, and the installation, which checks and
//! translates each instruction.)

use super::bpf::{self, Instruction, plain};
use super::policy::{Decision, Table, Test, TestKind};
use super::{Action, Arch, MAX_INSTRUCTIONS, SeccompError};

/// The program of `table`; a number that is not in it gets `default`. A call by another
/// architecture's entry is killed.
pub(super) fn program(arch: Arch, table: &Table, default: Action) -> Result<Vec<Instruction>, SeccompError> {
    let mut ranges: Vec<(u32, Decision)> = vec![(0, Decision::Always(default))];
    let mut start = |number: u32, decision: &Decision| match ranges.last_mut() {
        Some((from, last)) if *from == number => *last = decision.clone(),
        _ => ranges.push((number, decision.clone())),
    };
    for (&number, decision) in table {
        start(number, decision);
        start(number + 1, &Decision::Always(default));
    }
    if let Some(first) = arch.foreign() {
        start(first, &Decision::Always(Action::Kill));
    }
    ranges.dedup_by(|later, earlier| later.1 == earlier.1);

    let mut out = vec![
        plain(bpf::LOAD, bpf::OFFSET_ARCH),
        Instruction { code: bpf::JUMP_EQUAL, jt: 1, jf: 0, k: arch.audit() },
        ret(Action::Kill),
        plain(bpf::LOAD, bpf::OFFSET_NUMBER),
    ];
    out.extend(tree(&ranges)?);
    if out.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLong("more instructions than the kernel takes"));
    }
    Ok(out)
}

const fn ret(action: Action) -> Instruction {
    plain(
        bpf::RETURN,
        match action {
            Action::Allow => 0x7fff_0000,
            Action::Errno(number) => 0x0005_0000 | number as u32,
            Action::Kill => 0x8000_0000,
        },
    )
}

fn tree(ranges: &[(u32, Decision)]) -> Result<Vec<Instruction>, SeccompError> {
    let (low, high) = match ranges {
        [] => return Ok(Vec::new()),
        [(_, decision)] => return leaf(decision),
        more => more.split_at(more.len() / 2),
    };
    let Some(&(boundary, _)) = high.first() else { return Ok(Vec::new()) };
    let (low, high) = (tree(low)?, tree(high)?);
    let mut out = Vec::with_capacity(2 + low.len() + high.len());
    match u8::try_from(low.len()) {
        Ok(jt) => out.push(Instruction { code: bpf::JUMP_NOT_BELOW, jt, jf: 0, k: boundary }),
        Err(_) => {
            // A conditional jump reaches 255 instructions, an unconditional one any number.
            let far = u32::try_from(low.len()).map_err(|_| SeccompError::TooLong("tree"))?;
            out.push(Instruction { code: bpf::JUMP_NOT_BELOW, jt: 0, jf: 1, k: boundary });
            out.push(plain(bpf::JUMP, far));
        }
    }
    out.extend(low);
    out.extend(high);
    Ok(out)
}

fn leaf(decision: &Decision) -> Result<Vec<Instruction>, SeccompError> {
    match decision {
        Decision::Always(action) => Ok(vec![ret(*action)]),
        Decision::ByArguments { cases, otherwise } => {
            let mut out = Vec::new();
            for (tests, action) in cases {
                out.extend(case(tests, *action)?);
            }
            out.push(ret(*otherwise));
            Ok(out)
        }
    }
}

/// The tests of one case, its action, and behind it whatever comes when a test fails.
fn case(tests: &[Test], action: Action) -> Result<Vec<Instruction>, SeccompError> {
    let too_long = |_| SeccompError::TooLong("a case with too many values");
    // Built from its end, so that the distance to the next case is known.
    let mut out = vec![ret(action)];
    for test in tests.iter().rev() {
        let load = plain(bpf::LOAD, bpf::offset_argument(test.arg));
        let fail = u8::try_from(out.len()).map_err(too_long)?;
        let mut code = vec![load];
        match &test.kind {
            TestKind::None(bits) => {
                code.push(Instruction { code: bpf::JUMP_SHARES_BITS, jt: fail, jf: 0, k: *bits });
            }
            TestKind::All(bits) => {
                code.push(plain(bpf::AND, *bits));
                code.push(Instruction { code: bpf::JUMP_EQUAL, jt: 0, jf: fail, k: *bits });
            }
            TestKind::OneOf(mask, values) => {
                if *mask != u32::MAX {
                    code.push(plain(bpf::AND, *mask));
                }
                for (index, value) in values.iter().enumerate() {
                    let rest = u8::try_from(values.len() - 1 - index).map_err(too_long)?;
                    let jf = if rest == 0 { fail } else { 0 };
                    code.push(Instruction { code: bpf::JUMP_EQUAL, jt: rest, jf, k: *value });
                }
            }
        }
        code.append(&mut out);
        out = code;
    }
    Ok(out)
}
