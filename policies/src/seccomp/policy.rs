//! The policy files put together and checked: every call with what happens to it.

use std::collections::BTreeMap;

use super::data::{self, Numbers, Value};
use super::{Arch, Contract, Profile, SeccompError};

/// What a filter does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It happens.
    Allow,
    /// It fails with this error number (0: it returns 0, and nothing happens).
    Errno(u16),
    /// The whole process is killed with SIGSYS.
    Kill,
}

impl Action {
    pub(super) const ENOSYS: Self = Self::Errno(38);

    /// Nothing happens, and the caller hears that it did.
    pub const NOTHING: Self = Self::Errno(0);
    pub(super) const EPERM: Self = Self::Errno(1);
}

/// What happens to one system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Whatever its arguments.
    Always(Action),
    /// The first case whose tests all hold decides, else `otherwise`.
    ByArguments {
        /// In order.
        cases: Vec<(Vec<Test>, Action)>,
        /// When no case holds.
        otherwise: Action,
    },
}

impl Decision {
    /// What happens to a call with these arguments.
    #[must_use]
    pub fn of(&self, args: &[u64; 6]) -> Action {
        match self {
            Self::Always(action) => *action,
            Self::ByArguments { cases, otherwise } => {
                let case = cases.iter().find(|(tests, _)| tests.iter().all(|test| test.holds(args)));
                case.map_or(*otherwise, |(_, action)| *action)
            }
        }
    }
}

impl Decision {
    /// The same, but what is only said to happen happens.
    fn honest(self) -> Self {
        let honest = |action| if action == Action::NOTHING { Action::Allow } else { action };
        match self {
            Self::Always(action) => Self::Always(honest(action)),
            Self::ByArguments { cases, otherwise } => Self::ByArguments {
                cases: cases.into_iter().map(|(tests, action)| (tests, honest(action))).collect(),
                otherwise: honest(otherwise),
            },
        }
    }

    /// What this refuses, and else `next`. `None` when it allows in a case: then `next` would not be asked.
    fn before(self, next: Self) -> Option<Self> {
        let Self::ByArguments { mut cases, otherwise: Action::Allow } = self else { return None };
        if cases.iter().any(|(_, action)| *action == Action::Allow) {
            return None;
        }
        let otherwise = match next {
            Self::Always(action) => action,
            Self::ByArguments { cases: more, otherwise } => {
                cases.extend(more);
                otherwise
            }
        };
        Some(Self::ByArguments { cases, otherwise })
    }
}

/// A test on the low 32 bits of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// Which argument, 0 to 5.
    pub arg: u8,
    /// How.
    pub kind: TestKind,
}

impl Test {
    /// Whether these arguments pass it.
    #[must_use]
    pub fn holds(&self, args: &[u64; 6]) -> bool {
        let value = args.get(usize::from(self.arg)).map_or(0, |value| *value & u64::from(u32::MAX));
        match &self.kind {
            TestKind::OneOf(mask, values) => {
                values.iter().any(|wanted| value & u64::from(*mask) == u64::from(*wanted))
            }
            TestKind::All(bits) => value & u64::from(*bits) == u64::from(*bits),
            TestKind::None(bits) => value & u64::from(*bits) == 0,
        }
    }
}

/// How an argument is tested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestKind {
    /// Under this mask it equals one of these.
    OneOf(u32, Vec<u32>),
    /// All of these bits are set.
    All(u32),
    /// None of these bits is set.
    None(u32),
}

/// Decisions by number.
pub(super) type Table = BTreeMap<u32, Decision>;

/// The tables of a profile.
#[derive(Debug)]
pub(super) struct Policy {
    /// What a Worker may; what is not in it fails with ENOSYS.
    pub(super) worker: Table,
    /// The same, loosened by `launch.toml`, and without calls that only seem to happen: a blank could be told by them
    /// that it has raised a wall.
    pub(super) base: Table,
    /// What is loosened in `base`, put back, and `deny/`; what is not in it is allowed.
    pub(super) last: Table,
}

macro_rules! file {
    ($name:literal) => {
        ($name, include_str!(concat!("../../seccomp/", $name)))
    };
}

const CONSTANTS: (&str, &str) = file!("constants.toml");
const COMMON: (&str, &str) = file!("common.toml");
const HTTP: (&str, &str) = file!("http.toml");
const IPC: (&str, &str) = file!("ipc.toml");
const PROCESSES: (&str, &str) = file!("waivers/processes.toml");
const JIT: (&str, &str) = file!("waivers/jit.toml");
const LAUNCH: (&str, &str) = file!("launch.toml");
const DENY: (&str, &str) = file!("deny/always.toml");
const DENY_WITHOUT_JIT: (&str, &str) = file!("deny/without-jit.toml");
const DENY_WITH_JIT: (&str, &str) = file!("deny/with-jit.toml");
const SUPERVISOR: (&str, &str) = file!("supervisor.toml");

/// What the supervisor may call after its start; what is not in it fails with EPERM.
pub(super) fn supervisor(arch: Arch) -> Result<Table, SeccompError> {
    Reader::new(arch)?.union(std::iter::once(SUPERVISOR).chain(arch.files().supervisor))
}

/// What the second filter refuses whatever the first allows.
pub(super) fn denied(arch: Arch, profile: &Profile) -> Result<Table, SeccompError> {
    let by_waiver = if profile.jit { DENY_WITH_JIT } else { DENY_WITHOUT_JIT };
    Reader::new(arch)?.union([DENY, by_waiver].into_iter())
}

impl Policy {
    /// Puts the files of `profile` together.
    pub(super) fn compose(arch: Arch, profile: &Profile) -> Result<Self, SeccompError> {
        let files = arch.files();
        let reader = Reader::new(arch)?;
        let contract = match profile.contract {
            Contract::Http => HTTP,
            Contract::Ipc => IPC,
        };
        let mut worker = reader.union([Some(COMMON), files.legacy, Some(contract)].into_iter().flatten())?;
        let waivers = [
            profile.processes.then_some(PROCESSES),
            files.processes.filter(|_| profile.processes),
            profile.jit.then_some(JIT),
        ];
        for file in waivers.into_iter().flatten() {
            for (name, number, decision) in reader.read(file)? {
                if worker.insert(number, decision).is_none() {
                    return Err(composition(file.0, name, "is waived, but nothing refuses it"));
                }
            }
        }
        Self::around(arch, profile, worker)
    }

    /// The two filters around what a Worker may.
    pub(super) fn around(arch: Arch, profile: &Profile, mut worker: Table) -> Result<Self, SeccompError> {
        let (mut base, mut last) = (worker.clone(), denied(arch, profile)?);
        let mut loosened = Vec::new();
        for (number, decision) in &mut base {
            let honest = decision.clone().honest();
            if *decision != honest {
                *decision = honest;
                loosened.push(*number);
            }
        }
        for (_, number, decision) in Reader::new(arch)?.read(LAUNCH)? {
            base.insert(number, decision);
            loosened.push(number);
        }
        for number in loosened {
            let wanted = worker.entry(number).or_insert(Decision::Always(Action::ENOSYS)).clone();
            let both = match last.remove(&number) {
                None => wanted,
                Some(denied) => denied.before(wanted).ok_or_else(|| {
                    let name = super::arch::name(arch, number).unwrap_or_default().to_owned();
                    composition(
                        DENY.0,
                        name,
                        "is put back by the second filter: deny it by cases, and allow else",
                    )
                })?,
            };
            last.insert(number, both);
        }
        Ok(Self { worker, base, last })
    }
}

fn composition(file: &'static str, syscall: String, reason: &'static str) -> SeccompError {
    SeccompError::Composition { file, syscall, reason }
}

/// Turns names into numbers.
struct Reader {
    constants: Numbers,
    syscalls: Numbers,
    arch: Arch,
}

impl Reader {
    fn new(arch: Arch) -> Result<Self, SeccompError> {
        let syscalls = data::parse(arch.files().numbers)?;
        Ok(Self { constants: data::parse(CONSTANTS)?, syscalls, arch })
    }

    /// Files of which none may name a call of another.
    fn union(
        &self,
        files: impl Iterator<Item = (&'static str, &'static str)>,
    ) -> Result<Table, SeccompError> {
        let mut table = Table::new();
        for file in files {
            for (name, number, decision) in self.read(file)? {
                if table.insert(number, decision).is_some() {
                    return Err(composition(file.0, name, "is in another file already"));
                }
            }
        }
        Ok(table)
    }

    fn read(
        &self,
        source: (&'static str, &'static str),
    ) -> Result<Vec<(String, u32, Decision)>, SeccompError> {
        let file: data::File = data::parse(source)?;
        let name = source.0;
        let mut out: Vec<(String, u32, Decision)> = Vec::new();
        let mut add = |syscall: String, why: &str, decision: Decision| {
            let Some(&number) = self.syscalls.get(&syscall) else {
                return Err(unknown(name, syscall, "a system call of this machine"));
            };
            if self.arch.foreign().is_some_and(|first| number >= first) {
                return Err(unknown(name, syscall, "in the machine's own table"));
            }
            if why.trim().is_empty() {
                return Err(composition(name, syscall, "does not say why"));
            }
            if out.iter().any(|(_, known, _)| *known == number) {
                return Err(composition(name, syscall, "is in this file twice"));
            }
            out.push((syscall, number, decision));
            Ok(())
        };
        for (syscall, why) in file.allow {
            add(syscall, &why, Decision::Always(Action::Allow))?;
        }
        for (errno, calls) in file.refuse {
            let action = self.action(name, &errno)?;
            for (syscall, why) in calls {
                add(syscall, &why, Decision::Always(action))?;
            }
        }
        for (syscall, why) in file.kill {
            add(syscall, &why, Decision::Always(Action::Kill))?;
        }
        for rule in file.rule {
            let otherwise = self.action(name, &rule.otherwise)?;
            let mut cases = Vec::new();
            for case in &rule.cases {
                let tests = self.tests(name, &rule.syscall, &case.when)?;
                cases.push((tests, self.action(name, &case.then)?));
            }
            let decision = if cases.is_empty() {
                Decision::Always(otherwise)
            } else {
                Decision::ByArguments { cases, otherwise }
            };
            add(rule.syscall, &rule.why, decision)?;
        }
        Ok(out)
    }

    fn action(&self, file: &'static str, text: &str) -> Result<Action, SeccompError> {
        match text {
            "allow" => Ok(Action::Allow),
            "kill" => Ok(Action::Kill),
            "nothing" => Ok(Action::NOTHING),
            errno => self
                .constants
                .get(errno)
                .filter(|_| errno.starts_with('E'))
                .and_then(|&number| u16::try_from(number).ok())
                .map(Action::Errno)
                .ok_or_else(|| unknown(file, errno.to_owned(), "allow, kill, nothing or an error number")),
        }
    }

    fn tests(
        &self,
        file: &'static str,
        syscall: &str,
        conditions: &[data::Condition],
    ) -> Result<Vec<Test>, SeccompError> {
        let bad = |reason| SeccompError::Condition { file, syscall: syscall.to_owned(), reason };
        let mut tests = Vec::new();
        for condition in conditions {
            let arg = condition.arg;
            if arg > 5 {
                return Err(bad("a system call has arguments 0 to 5"));
            }
            let before = tests.len();
            if let Some(values) = &condition.one_of {
                let mask = condition.field.as_ref().map_or(Ok(u32::MAX), |mask| self.value(file, mask))?;
                let values = values.iter().map(|v| self.value(file, v)).collect::<Result<Vec<_>, _>>()?;
                if values.is_empty() || values.iter().any(|value| value & !mask != 0) {
                    return Err(bad("`in` needs values, inside the mask `field`"));
                }
                tests.push(Test { arg, kind: TestKind::OneOf(mask, values) });
            } else if condition.field.is_some() {
                return Err(bad("`field` goes with `in`"));
            }
            if let Some(bits) = &condition.all {
                tests.push(Test { arg, kind: TestKind::All(self.bits(file, bits)?) });
            }
            if let Some(bits) = &condition.none {
                tests.push(Test { arg, kind: TestKind::None(self.bits(file, bits)?) });
            }
            if tests.len() == before {
                return Err(bad("a condition needs `in`, `all` or `none`"));
            }
        }
        if tests.is_empty() {
            return Err(bad("a case needs conditions"));
        }
        Ok(tests)
    }

    fn bits(&self, file: &'static str, values: &[Value]) -> Result<u32, SeccompError> {
        values.iter().try_fold(0, |bits, value| Ok(bits | self.value(file, value)?))
    }

    fn value(&self, file: &'static str, value: &Value) -> Result<u32, SeccompError> {
        match value {
            Value::Number(number) => Ok(*number),
            Value::Name(name) => self
                .constants
                .get(name)
                .copied()
                .ok_or_else(|| unknown(file, name.clone(), "a number or the name of a constant")),
        }
    }
}

fn unknown(file: &'static str, name: String, what: &'static str) -> SeccompError {
    SeccompError::Unknown { file, name, what }
}
