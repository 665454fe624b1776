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
    let once = std::env::args().any(|argument| argument == "--once");
    if !nix::unistd::geteuid().is_root() {
        eprintln!("demo: run it as root: the walls (namespaces, cgroups, uids) can't be raised otherwise");
        return ExitCode::FAILURE;
    }
    let port = match Port::take(PORT) {
        Ok(port) => port,
        Err(error) => {
            eprintln!(
                "demo: 127.0.0.1:{PORT} can't be used ({error}): stop what listens there, then try again"
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
    std::fs::write(platform.policy_folder().join("production.toml"), policy(&origin))
        .expect("writing a policy");
    std::fs::write(platform.policy_folder().join("account.toml"), account_policy(&origin))
        .expect("writing a policy");
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

/// What user Workers of `production` may ask of the outside.
fn policy(origin: &Origin) -> String {
    let (host, port) = (origin.address.ip(), origin.address.port());
    let rule = |name: &str, path: &str, action: &str| {
        format!(
            "[[rule]]\nname = \"{name}\"\nhosts = [\"{host}\"]\nports = [{port}]\nschemes = [\"http\"]\n\
             methods = [\"GET\"]\npaths = [\"{path}\"]\n{action}\n\n"
        )
    };
    format!(
        "version = 1\nmode = \"enforce\"\ndefault = \"deny\"\n\n{}{}",
        rule("news", "/news/*", &format!("action = \"allow\"\nnetworks = [\"{host}/32\"]")),
        rule("partner", "/partner/*", "action = \"outbound\"")
    )
}

/// What the platform's own Workers may: the outbound Worker asks in its own name.
fn account_policy(origin: &Origin) -> String {
    let (host, port) = (origin.address.ip(), origin.address.port());
    format!(
        "version = 1\n\n[[rule]]\nname = \"origin\"\nhosts = [\"{host}\"]\nports = [{port}]\n\
         networks = [\"{host}/32\"]\naction = \"allow\"\n"
    )
}

async fn stay(platform: &Platform, show: &Show) {
    show.title("It stays up. Deploy a binary of your own, from another terminal:");
    let tool = cloister_tests::program("cloister");
    println!("  export CLOISTER_SOCKET={}", platform.admin_socket().display());
    println!("  {} deploy --namespace production mine ./your-binary", tool.display());
    println!("  curl http://mine.localhost:{PORT}/");
    println!(
        "\n  Any static or dynamic Linux program that serves HTTP on $PORT will do; docs/WORKER-CONTRACT.md."
    );
    println!("  Ctrl-C ends it, and leaves nothing running.");
    tokio::signal::ctrl_c().await.expect("waiting for Ctrl-C");
    println!();
}
