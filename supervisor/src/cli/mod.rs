//! The command line tool.

mod client;
mod deploy;
mod error;
mod namespace;
pub mod policy;
mod secret;
mod show;
mod walls;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use error::CliError;

use crate::doctor;
use crate::registry::Name;
use crate::serve::{self, exit};
use client::Client;
use show::Show;

const EXIT_STATUSES: &str = "Exit statuses: 0 done; 1 failed; 2 wrong command line; 3 mistake in a configuration or \
policy file; 4 state folder unusable; 5 address in use; 6 launcher or walls; 7 not enough privilege or no account; \
8 refused by the admin API; 9 admin API unreachable; 10 doctor found something wrong; 11 denied (policy test); 12 the kernel does not confirm a wall (worker inspect).";

/// Workers for Platforms for native binaries.
#[derive(Debug, Parser)]
#[command(name = "cloister", version, after_help = EXIT_STATUSES, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
struct Global {
    /// Print JSON for programs instead of text for people.
    #[arg(long, global = true)]
    json: bool,
    /// Unix socket of the admin API.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "CLOISTER_SOCKET",
        default_value = "/run/cloister/admin.sock"
    )]
    admin_socket: PathBuf,
    /// URL of the admin API (http:// or https://) instead of the socket; needs the token.
    #[arg(long, global = true, value_name = "URL", env = "CLOISTER_URL")]
    url: Option<String>,
    /// Token for --url; better given by the environment than on the command line.
    #[arg(long, global = true, value_name = "TOKEN", env = "CLOISTER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The platform's account, as in its cloister.toml.
    #[arg(long, global = true, value_name = "NAME", env = "CLOISTER_ACCOUNT", default_value = "default")]
    account: Name,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the platform.
    Serve {
        /// Configuration file.
        #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Upload a program as a Worker; 0 means that it was started behind its walls and answered.
    Deploy(Box<deploy::Deploy>),
    /// Dispatch namespaces.
    #[command(subcommand)]
    Namespace(namespace::Namespace),
    /// Workers.
    #[command(subcommand)]
    Worker(worker::Worker),
    /// Secrets of a Worker.
    #[command(subcommand)]
    Secret(secret::Secret),
    /// Tell what this machine can raise, and whether the configuration fits it; 0 only when every
    /// hard wall is there.
    Doctor {
        /// Configuration file.
        #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Egress policies: check files, and ask what they decide.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
}

/// Which Worker.
#[derive(Debug, Args)]
struct Target {
    /// Name of the Worker.
    name: Name,
    /// Its dispatch namespace; without, a Worker of the account (dispatch and outbound Workers).
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<Name>,
}

impl Target {
    /// Its path below the account.
    fn path(&self) -> String {
        script_path(self.namespace.as_ref(), &self.name)
    }

    fn shown(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.to_string(),
        }
    }
}

fn script_path(namespace: Option<&Name>, name: &Name) -> String {
    match namespace {
        Some(namespace) => format!("/workers/dispatch/namespaces/{namespace}/scripts/{name}"),
        None => format!("/workers/scripts/{name}"),
    }
}

/// Runs the command line; the exit status is documented in `--help`.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    let show = Show::new(global.json);
    if let Command::Policy(command) = &command {
        return policy::run(command, global.json);
    }
    match run(global, command, &show) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            show.error(&error);
            ExitCode::from(error.exit())
        }
    }
}

fn run(global: Global, command: Command, show: &Show) -> Result<(), CliError> {
    match command {
        Command::Serve { config } => Ok(serve::serve(&config)?),
        Command::Deploy(deploy) => ask(global, async |client| deploy.run(&client, show).await),
        Command::Namespace(namespace) => ask(global, async |client| namespace.run(&client, show).await),
        Command::Worker(worker) => ask(global, async |client| worker.run(&client, show).await),
        Command::Doctor { config } => {
            let report = doctor::examine(&config);
            show.line(&if show.json {
                serde_json::json!(report).to_string()
            } else {
                doctor::words(&report)
            });
            if report.healthy {
                Ok(())
            } else {
                Err(CliError::failed(exit::UNHEALTHY, "this machine or its configuration lacks something"))
            }
        }
        // Has exit statuses of its own; see `main`.
        Command::Policy(_) => Ok(()),
        Command::Secret(secret) => ask(global, async |client| secret.run(&client, show).await),
    }
}

/// Runs what talks to the admin API.
fn ask(global: Global, work: impl AsyncFnOnce(Client) -> Result<(), CliError>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(exit::FAILED, format!("no runtime: {error}")))?;
    let client = Client::new(&global.admin_socket, global.url.as_deref(), global.token, &global.account)?;
    runtime.block_on(work(client))
}
