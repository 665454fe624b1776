//! From a deployed version to what the launcher and the blank are told.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use cloister_ipc::control::{CONTROL_ENV, CONTROL_FD};
use cloister_ipc::launch::{
    CgroupSpec, Enforced, Failure, NetworkSpec, PROXY_PORT, Spec, Stage, Start, WORKER_PORT, Wall,
};
use rustix::fs::{Mode, OFlags};
use serde_bytes::ByteBuf;
use sha2::{Digest as _, Sha256};

use super::StartError;
use super::filters::{self, Filters, Profile};
use crate::registry::{Allow, Binding, Contract, Deployed, HttpSocket, Linkage};

/// Sockets that come with an `http` blank. Each is a descriptor of the supervisor for as long as the
/// Worker lives.
const SOCKETS: u8 = 2;

/// Smallest class of `/app` sizes, bytes.
const APP_CLASS: u64 = 1 << 20;

/// What a start needs.
pub(super) struct Plan {
    pub(super) spec: Arc<Spec>,
    pub(super) start: Start,
    pub(super) binary: OwnedFd,
    pub(super) files: Option<OwnedFd>,
    /// Of the two programs, in the order they are installed.
    seccomp_sha256: [String; 2],
}

impl Plan {
    pub(super) fn new(deployed: &Deployed, filters: &Filters) -> Result<Self, StartError> {
        let http = deployed.contract == Contract::Http;
        let jit = deployed.allow.contains(&Allow::Jit);
        let processes = deployed.allow.contains(&Allow::Processes);
        let contract = if http { filters::Contract::Http } else { filters::Contract::Ipc };
        let programs = filters.get(Profile { contract, processes, jit })?;
        let interpreter = match &deployed.linkage {
            Linkage::Static => None,
            Linkage::Dynamic { interpreter } => Some(interpreter.to_string_lossy().into_owned()),
        };
        let resources = deployed.resources;
        let spec = Spec {
            libraries: interpreter.is_some(),
            proc: deployed.allow.contains(&Allow::Proc),
            network: http.then_some(NetworkSpec { sockets: SOCKETS }),
            tmp_bytes: resources.tmp_bytes,
            app_bytes: deployed.files.as_ref().map_or(0, |files| app_class(files.bytes)),
            cgroup: CgroupSpec {
                memory_bytes: resources.memory_bytes,
                pids: resources.pids,
                cpu_percent: resources.cpu_percent,
                cpu_weight: 100,
            },
            jit,
            processes,
            base: programs.base.clone(),
        };
        let listen = (http && deployed.socket == HttpSocket::Inherit).then_some(WORKER_PORT);
        let start = Start {
            argv: arguments(deployed),
            env: environment(deployed),
            interpreter,
            bind: if http { vec![WORKER_PORT] } else { Vec::new() },
            // Not its own port: connections that it never accepts count against nobody, not its cgroup either.
            connect: if http { vec![PROXY_PORT] } else { Vec::new() },
            listen,
            control: !http,
            files: deployed.files.is_some(),
            last: programs.last.clone(),
        };
        if let Some(text) = start.argv.iter().chain(&start.env).find(|text| text.contains('\0')) {
            let name: String = text.chars().take_while(|c| *c != '=' && *c != '\0').collect();
            return Err(StartError::Arguments(format!("{name:?} has a NUL byte in it; take it out")));
        }
        Ok(Self {
            spec: Arc::new(spec),
            start,
            binary: open_binary(&deployed.binary)?,
            files: deployed.files.as_ref().map(|files| open_files(&files.path)).transpose()?,
            seccomp_sha256: programs.sha256.clone(),
        })
    }
}

impl Plan {
    /// What the process enforces, with the hashes of its filters.
    ///
    /// # Errors
    /// It is behind others than were made for it.
    pub(super) fn attest(&self, enforced: Enforced, filters: &[ByteBuf]) -> Result<Enforced, StartError> {
        let [base, last] = &self.seccomp_sha256;
        attest(enforced, filters, [(&self.spec.base, base), (&self.start.last, last)])
    }
}

/// Compares the filters, to the byte, with those that were made (and their hashes). The first of all is
/// the launcher's own.
fn attest(
    mut enforced: Enforced,
    filters: &[ByteBuf],
    made: [(&[u8], &str); 2],
) -> Result<Enforced, StartError> {
    let inherited = filters.first().map(|program| hex::encode(Sha256::digest(program)));
    let hashes = inherited.into_iter().chain(made.map(|(_, sha256)| sha256.to_owned()));
    let told = enforced.seccomp.iter().map(|program| program.instructions as usize);
    let same = filters.iter().skip(1).map(|program| program.as_slice()).eq(made.map(|(program, _)| program))
        && told.eq(filters.iter().map(|program| program.len() / 8));
    if !same {
        let what = format!("the process has other filters than were made for it: {:?}", enforced.seccomp);
        return Err(StartError::Failed(Failure { stage: Stage::Wall(Wall::Seccomp), errno: 0, what }));
    }
    for (program, sha256) in enforced.seccomp.iter_mut().zip(hashes) {
        program.sha256 = sha256;
    }
    Ok(enforced)
}

/// Sizes of `/app` come in powers of four, so that Workers with files share blanks too.
fn app_class(bytes: u64) -> u64 {
    let mut class = APP_CLASS;
    while class < bytes.saturating_add(64 << 10) && class < u64::MAX / 4 {
        class *= 4;
    }
    class
}

fn arguments(deployed: &Deployed) -> Vec<String> {
    let port = WORKER_PORT.to_string();
    let rest = deployed.args.iter().map(|argument| argument.replace("${PORT}", &port));
    std::iter::once(deployed.id.name.to_string()).chain(rest).collect()
}

fn environment(deployed: &Deployed) -> Vec<String> {
    let mut env: BTreeMap<&str, String> = BTreeMap::new();
    if deployed.contract == Contract::Http {
        for (name, binding) in &deployed.bindings {
            if let Binding::PlainText(text) | Binding::Secret(text) | Binding::Json(text) = binding {
                env.insert(name, text.clone());
            }
        }
        let proxy = format!("http://127.0.0.1:{PROXY_PORT}");
        for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
            env.insert(name, proxy.clone());
        }
        env.insert("PORT", WORKER_PORT.to_string());
        if deployed.socket == HttpSocket::Inherit {
            env.insert("LISTEN_FDS", "1".into());
            env.insert("LISTEN_PID", "1".into());
        }
    } else {
        env.insert(CONTROL_ENV, CONTROL_FD.to_string());
    }
    env.insert("HOME", "/tmp".into());
    env.insert("TMPDIR", "/tmp".into());
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Opens a binary without reading it (`O_PATH`): its mode is 0111, so that nobody but root can.
fn open_binary(path: &Path) -> Result<OwnedFd, StartError> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        .map_err(|error| StartError::File { path: path.into(), error: error.to_string() })
}

fn open_files(path: &Path) -> Result<OwnedFd, StartError> {
    let file = File::open(path);
    file.map(OwnedFd::from).map_err(|error| StartError::File { path: path.into(), error: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_app_come_in_classes() {
        assert_eq!(app_class(0), 1 << 20);
        assert_eq!(app_class(1 << 20), 4 << 20);
        assert_eq!(app_class(5 << 20), 16 << 20);
        assert!(app_class(u64::MAX) > 1 << 60);
    }

    #[test]
    fn only_the_filters_that_were_made_are_attested() {
        use cloister_ipc::launch::SeccompEnforced;
        let program = |byte: u8| vec![byte; 16];
        let report = |filters: &[Vec<u8>], instructions: u32| {
            let seccomp = vec![SeccompEnforced { instructions, ..Default::default() }; filters.len()];
            let filters: Vec<_> = filters.iter().cloned().map(ByteBuf::from).collect();
            let made = [(&[2; 16][..], "second"), (&[3; 16][..], "third")];
            attest(Enforced { seccomp, ..Enforced::default() }, &filters, made)
        };
        let whole = report(&[program(1), program(2), program(3)], 2).unwrap();
        let hashes: Vec<_> = whole.seccomp.iter().map(|program| program.sha256.as_str()).collect();
        assert_eq!(hashes, [hex::encode(Sha256::digest(program(1))).as_str(), "second", "third"]);
        for (filters, instructions) in [
            (vec![program(1), program(3), program(2)], 2),
            (vec![program(1), program(2), program(4)], 2),
            (vec![program(1), program(2)], 2),
            (vec![program(2), program(3)], 2),
            (vec![program(1), program(2), program(3), program(3)], 2),
            (vec![program(1), program(2), program(3)], 3),
            (vec![], 0),
        ] {
            assert!(report(&filters, instructions).is_err(), "{filters:?}");
        }
    }
}
