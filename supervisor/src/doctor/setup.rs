//! The configuration and what it names.

use std::path::Path;

use super::{Check, State};
use crate::config::{Config, DEFAULT_PATH};
use crate::egress::Folder;
use crate::serve::{ServeError, runner_path, sandbox_policy};

const GROUP: &str = "setup";

/// Reads the configuration; the defaults when there is no file at the default place.
pub(super) fn config(path: &Path, checks: &mut Vec<Check>) -> Option<Config> {
    if path == Path::new(DEFAULT_PATH) && !path.exists() {
        let detail = format!("there is no {DEFAULT_PATH}: checking the defaults");
        checks.push(Check::new(GROUP, "configuration", State::Warning, detail));
        return Config::parse(path, "").ok();
    }
    match Config::load(path) {
        Ok(config) => {
            let detail = format!("{}: {} routes", path.display(), config.routing.routes.len());
            checks.push(Check::new(GROUP, "configuration", State::Ok, detail));
            Some(config)
        }
        Err(error) => {
            checks.push(Check::new(GROUP, "configuration", State::Missing, error.to_string()));
            None
        }
    }
}

/// Checks what the configuration names.
pub(super) fn check(config: &Config, checks: &mut Vec<Check>) {
    checks.push(account(config));
    checks.push(match runner_path(config) {
        Ok(path) if path.is_file() => Check::new(GROUP, "launcher", State::Ok, path.display().to_string()),
        Ok(path) => Check::new(GROUP, "launcher", State::Missing, format!("{} is not there", path.display()))
            .fix("install sandbox-runner beside cloister, or name it by sandbox.runner"),
        Err(error) => Check::new(GROUP, "launcher", State::Missing, error.to_string()),
    });
    checks.push(match sandbox_policy(config) {
        Ok(_) => Check::new(
            GROUP,
            "sandbox policy",
            State::Ok,
            shown(config.sandbox.policy.as_deref(), "the shipped one"),
        ),
        Err(ServeError::Step { why, .. }) => Check::new(GROUP, "sandbox policy", State::Missing, why),
        Err(error) => Check::new(GROUP, "sandbox policy", State::Missing, error.to_string()),
    });
    egress(config, checks);
    if config.listen.admin_tcp.as_ref().is_some_and(|tcp| !tcp.address.ip().is_loopback()) {
        checks.push(
            Check::new(GROUP, "admin API", State::Warning, "listens on TCP beyond this machine, without TLS")
                .fix("put a TLS proxy in front, or bind it to 127.0.0.1"),
        );
    }
}

fn shown(path: Option<&Path>, default: &str) -> String {
    path.map_or_else(|| default.to_owned(), |path| path.display().to_string())
}

fn account(config: &Config) -> Check {
    let own = nix::unistd::Uid::effective();
    if !own.is_root() {
        let name = nix::unistd::User::from_uid(own).ok().flatten().map_or_else(String::new, |user| user.name);
        return match &config.user {
            Some(user) if *user != name => {
                let detail = format!("this is uid {own}, which can't become `user` = {user:?}");
                Check::new(GROUP, "account", State::Missing, detail)
                    .fix("start it as root, or leave `user` out")
            }
            _ => Check::new(GROUP, "account", State::Ok, format!("stays uid {own} {name}")),
        };
    }
    let name = config.account_name();
    match nix::unistd::User::from_name(name) {
        Ok(Some(user)) if user.uid.is_root() => {
            Check::new(GROUP, "account", State::Missing, format!("{name} is root")).fix("name an account of its own by `user`")
        }
        Ok(Some(user)) if config.sandbox.uids.contains(&user.uid.as_raw()) => {
            let detail = format!("{name} (uid {}) lies among the uids of Workers", user.uid);
            Check::new(GROUP, "account", State::Missing, detail).fix("choose another sandbox.uid_base")
        }
        Ok(Some(user)) => Check::new(GROUP, "account", State::Ok, format!("{name}, uid {}", user.uid)),
        Ok(None) => Check::new(GROUP, "account", State::Missing, format!("there is no account {name}")).fix(format!(
            "useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin {name}"
        )),
        Err(error) => Check::new(GROUP, "account", State::Missing, error.to_string()),
    }
}

fn egress(config: &Config, checks: &mut Vec<Check>) {
    let Some(folder) = &config.egress.policy_dir else {
        checks.push(Check::new(
            GROUP,
            "egress policies",
            State::Warning,
            "no egress.policy_dir: nothing goes out",
        ));
        return;
    };
    let status = match Folder::open(Some(folder.clone())) {
        Ok(opened) => opened.status(),
        Err(error) => {
            checks.push(Check::new(
                GROUP,
                "egress policies",
                State::Missing,
                format!("{}: {error}", folder.display()),
            ));
            return;
        }
    };
    for policy in &status {
        if let Some(why) = &policy.refused {
            let file = folder.join(&policy.file);
            checks.push(
                Check::new(GROUP, "egress policy", State::Missing, why.clone())
                    .fix(format!("`cloister policy check {}` shows the place", file.display())),
            );
        }
    }
    let detail = format!("{} files in {}", status.len(), folder.display());
    checks.push(Check::new(GROUP, "egress policies", State::Ok, detail));
}
