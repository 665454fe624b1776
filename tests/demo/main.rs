//! `make demo`: a platform on 127.0.0.1:8080 from nothing, step by step, each answer checked.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a demo that can't go on says so and ends"
)]

mod act;
mod deploy;
mod show;

use std::process::ExitCode;

use cloister_tests::{Config, Origin, Platform, Port};
use show::Show;

const PORT: u16 = 8080;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let once = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [only] if only == "--once" => true,
        other => {
            println!(
                "usage: cloister-demo [--once]: a platform on 127.0.0.1:{PORT}, step by step, each answer checked"
            );
            return if other == ["--help"] { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    };
    if !nix::unistd::geteuid().is_root() {
        eprintln!("demo: run it as root: the walls (namespaces, cgroups, uids) can't be raised otherwise");
        return ExitCode::FAILURE;
    }
    let port = match Port::take(PORT) {
        Ok(port) => port,
        Err(error) => {
            eprintln!(
                "demo: 127.0.0.1:{PORT} can't be used ({error}): something listens there, another demo perhaps; stop it, then try again"
            );
            return ExitCode::FAILURE;
        }
    };
    let mut show = Show::new();
    show.title("Cloister: one supervisor, one launcher, and a process behind walls for each Worker");

    let origin = Origin::start();
    let config = Config::default()
        .route("host = \"*.staging.localhost\"\nworker = \"{1}\"\nnamespace = \"staging\"")
        .route("host = \"*.localhost\"\ndispatch = \"router\"");
    let mut platform = Platform::prepare_on(config, port);
    for (file, action, path) in [
        ("staging.toml", "allow", "/news/*"),
        ("production.toml", "outbound", "/partner/*"),
        ("account.toml", "allow", "/*"),
    ] {
        std::fs::write(platform.policy_folder().join(file), policy(&origin, action, path))
            .expect("writing a policy");
    }
    platform.run().await;

    deploy::everything(&platform, &show).await;
    act::play(&platform, &origin, &mut show).await;

    let wrong = show.wrong().len();
    show.title(if wrong == 0 { "Every answer was the right one." } else { "Some answers were wrong:" });
    for what in show.wrong() {
        println!("  {what}");
    }
    if !once && wrong == 0 {
        stay(&platform, &show).await;
    }
    // Checks that no process is left; the folder goes with it.
    drop(platform);
    show.fact("stopped", "no process, folder or socket is left");
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// An egress policy: one rule for one path of the origin, everything else is denied. Who dials
/// a private address must name its network; an outbound Worker dials in its own name, by account.toml.
fn policy(origin: &Origin, action: &str, path: &str) -> String {
    let (host, port) = (origin.address.ip(), origin.address.port());
    let networks = if action == "allow" { format!("networks = [\"{host}/32\"]\n") } else { String::new() };
    format!(
        "version = 1\nmode = \"enforce\"\ndefault = \"deny\"\n\n[[rule]]\nname = \"{action}\"\nhosts = [\"{host}\"]\n\
         ports = [{port}]\nschemes = [\"http\"]\nmethods = [\"GET\"]\npaths = [\"{path}\"]\n{networks}action = \"{action}\"\n"
    )
}

async fn stay(platform: &Platform, show: &Show) {
    show.title("It stays up. Deploy a binary of your own, from another terminal:");
    let tool = cloister_tests::program("cloister");
    println!("  export CLOISTER_SOCKET={}", platform.admin_socket().display());
    println!("  {} deploy --namespace production --name mine ./your-binary", tool.display());
    println!("  curl http://mine.localhost:{PORT}/");
    println!(
        "\n  Any static or dynamic Linux program that serves HTTP on $PORT will do; docs/WORKER-CONTRACT.md."
    );
    println!("  Ctrl-C ends it, and leaves nothing running.");
    tokio::signal::ctrl_c().await.expect("waiting for Ctrl-C");
    println!();
}
