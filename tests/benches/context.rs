//! What a run is told, and where it finds things.

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};

/// Whatever stops a run or a contestant, in words.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One part of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// Requests a second and latency of live contestants.
    Warm,
    /// Starts of a process, from asking to the first byte.
    Cold,
    /// Outgoing requests through the egress filter and through forward proxies.
    Egress,
    /// CPU time, system calls and instructions of one request.
    Cost,
    /// Memory of live idle Workers.
    Density,
    /// Many Workers deployed.
    Registry,
    /// A quiet Worker beside a bad neighbour.
    Isolation,
}

impl Group {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
            Self::Cost => "cost",
            Self::Density => "density",
            Self::Registry => "registry",
            Self::Isolation => "isolation",
            Self::Egress => "egress",
        }
    }
}

/// Measures Cloister beside its peers on this machine. `make bench` builds and starts it.
#[derive(Debug, Parser)]
#[command(name = "cloister-bench", version)]
pub(crate) struct Options {
    /// At most three minutes: few cells, few rounds. Shows the direction, not the figure.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these parts (default: all).
    #[arg(long = "group", value_enum)]
    pub(crate) groups: Vec<Group>,
    /// Only contestants whose name contains one of these.
    #[arg(long = "only")]
    pub(crate) only: Vec<String>,
    /// Rounds: how often the whole interleaved series is repeated (default: 3; quick 2).
    #[arg(long)]
    pub(crate) rounds: Option<u32>,
    /// Seconds of each cell of the warm table (default: 2; quick 1).
    #[arg(long)]
    pub(crate) seconds: Option<u32>,
    /// Workers deployed in the registry part (default: 100,000; quick 200).
    #[arg(long)]
    pub(crate) deployed: Option<usize>,
    /// Folder of the release binaries.
    #[arg(long, default_value = "target/release")]
    pub(crate) bin: PathBuf,
    /// Folder of the statically linked Workers.
    #[arg(long, default_value = "target/x86_64-unknown-linux-gnu/release")]
    pub(crate) static_bin: PathBuf,
    /// Folder that tests/benches/peers/install.sh filled.
    #[arg(long, default_value = "target/bench/peers")]
    pub(crate) peers: PathBuf,
    /// Compares the cost part with this file; a part that costs more fails the run.
    #[arg(long)]
    pub(crate) check: Option<PathBuf>,
    /// Writes the cost part to this file, for --check.
    #[arg(long)]
    pub(crate) write: Option<PathBuf>,
    /// Where the figures go as JSON.
    #[arg(long, default_value = "target/bench/bench.json")]
    pub(crate) json: PathBuf,
}

/// A run.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) options: Options,
    /// Sockets, configuration files and logs of this run.
    pub(crate) work: tempfile::TempDir,
}

impl Context {
    pub(crate) fn new(options: Options) -> Result<Self, Failure> {
        let work = tempfile::Builder::new().prefix("cloister-bench-").tempdir()?;
        // Peers started as root run their workers as nobody, who must reach the upstream's socket.
        let open = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        std::fs::set_permissions(work.path(), open)?;
        Ok(Self { options, work })
    }

    /// The parts to run, in order.
    pub(crate) fn groups(&self) -> Vec<Group> {
        let all = Group::value_variants();
        all.iter()
            .copied()
            .filter(|g| self.options.groups.is_empty() || self.options.groups.contains(g))
            .collect()
    }

    /// Rounds of an interleaved series.
    pub(crate) fn rounds(&self) -> u32 {
        self.options.rounds.unwrap_or(if self.options.quick { 2 } else { 3 }).max(1)
    }

    /// Seconds of a warm cell.
    pub(crate) fn seconds(&self) -> u32 {
        self.options.seconds.unwrap_or(if self.options.quick { 1 } else { 2 }).max(1)
    }

    /// Whether a contestant of that name takes part.
    pub(crate) fn takes_part(&self, name: &str) -> bool {
        self.options.only.is_empty() || self.options.only.iter().any(|part| name.contains(part.as_str()))
    }

    /// A release binary of this workspace.
    pub(crate) fn binary(&self, name: &str) -> Result<PathBuf, Failure> {
        existing(&self.options.bin.join(name), "make bench builds it")
    }

    /// A statically linked Worker.
    pub(crate) fn static_binary(&self, name: &str) -> Result<PathBuf, Failure> {
        existing(&self.options.static_bin.join(name), "make bench builds it")
    }

    /// A file in this run's folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// The program of a peer: from npm's folder for workerd, else from `PATH` and the sbin folders.
    pub(crate) fn peer(&self, program: &str) -> Result<PathBuf, Failure> {
        let hint = "tests/benches/peers/install.sh gets it";
        if program == "workerd" {
            let inside = "npm/node_modules/@cloudflare/workerd-linux-64/bin/workerd";
            return existing(&self.options.peers.join(inside), hint);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        folders.extend([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
        let found = folders.iter().map(|folder| folder.join(program)).find(|path| path.is_file());
        found.ok_or_else(|| format!("{program} is not installed ({hint})").into())
    }
}

fn existing(path: &Path, hint: &str) -> Result<PathBuf, Failure> {
    match path.canonicalize() {
        Ok(path) => Ok(path),
        Err(error) => Err(format!("{}: {error} ({hint})", path.display()).into()),
    }
}
