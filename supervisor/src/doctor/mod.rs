//! `cloister doctor`: what this machine can raise, and whether the configuration fits it.
//!
//! The walls are not guessed from version numbers: a launcher is started and a program of ours is
//! executed behind all of them, and what the kernel then says is what is told.

mod facts;
mod machine;
mod own_walls;
mod setup;
mod trial;
mod walls;

use std::path::Path;

pub(crate) use walls::missing as missing_walls;

use serde::Serialize;
pub(crate) use trial::Trial;

use facts::Facts;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// The machine or its kernel has no such thing; the platform works, with one defence less.
    Unavailable,
    /// The platform works, but look at it.
    Warning,
    /// Waived in the configuration: a wall is not there.
    Waived,
    /// Not there; the platform does not start, or not as configured.
    Missing,
    /// Could not be tried, because of something missing before it.
    Unknown,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// `setup`, `machine`, `supervisor` (its own walls) or `walls` (of Workers).
    pub group: &'static str,
    /// What was looked at.
    pub name: String,
    /// How it came out.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    fn new(group: &'static str, name: impl Into<String>, state: State, detail: impl Into<String>) -> Self {
        Self { group, name: name.into(), state, detail: detail.into(), fix: None }
    }

    fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}

/// What it was started as, which decides what it can raise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StartedAs {
    /// Root: every wall can be had.
    Root,
    /// An ordinary account: no uid of its own for each Worker, and the rest where the machine lets.
    User,
}

/// All checks.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What these checks were made as.
    pub started_as: StartedAs,
    /// True when every hard wall is there and nothing is missing.
    pub healthy: bool,
    /// The checks.
    pub checks: Vec<Check>,
}

/// Runs all checks; without a configuration file at `path` the defaults are checked. Blocks for as
/// long as a launcher takes to start.
#[must_use]
pub fn examine(path: &Path) -> Report {
    let mut checks = Vec::new();
    let config = setup::config(path, &mut checks);
    if let Some(config) = &config {
        setup::check(config, &mut checks);
    }
    let facts = Facts::gather();
    checks.extend(machine::judge(&facts));
    match &config {
        Some(config) => {
            own_walls::check(config, &mut checks);
            walls::check(config, &mut checks);
        }
        None => checks.push(Check::new(
            "walls",
            "all",
            State::Unknown,
            "not tried: the configuration has a mistake",
        )),
    }
    let healthy =
        checks.iter().all(|check| matches!(check.state, State::Ok | State::Unavailable | State::Warning));
    let started_as = if facts.root() { StartedAs::Root } else { StartedAs::User };
    Report { started_as, healthy, checks }
}

/// The report in words.
#[must_use]
pub fn words(report: &Report) -> String {
    let mut text = String::new();
    let mut group = "";
    for check in &report.checks {
        if check.group != group {
            group = check.group;
            text.push_str(&format!("{}{group}\n", if text.is_empty() { "" } else { "\n" }));
        }
        let mark = match check.state {
            State::Ok => "ok",
            State::Unavailable => "unavailable",
            State::Warning => "warning",
            State::Waived => "WAIVED",
            State::Missing => "MISSING",
            State::Unknown => "unknown",
        };
        text.push_str(&format!("  {mark:12} {:26} {}\n", check.name, check.detail));
        if let Some(fix) = &check.fix {
            text.push_str(&format!("  {:12} {:26} fix: {fix}\n", "", ""));
        }
    }
    let end =
        if report.healthy { "every hard wall is there" } else { "something is missing or waived: see above" };
    let without_root = match report.started_as {
        StartedAs::Root => "",
        StartedAs::User => " (as an ordinary account: root has more)",
    };
    text.push_str(&format!("\n{end}{without_root}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_up() -> Report {
        let fixed = Check::new("walls", "own-uid", State::Missing, "not root").fix("start as root");
        let checks = vec![Check::new("machine", "kernel", State::Ok, "6.12"), fixed];
        Report { started_as: StartedAs::User, healthy: false, checks }
    }

    #[test]
    fn the_shape_for_programs_stays() {
        let wanted = serde_json::json!({
            "started_as": "user",
            "healthy": false,
            "checks": [
                { "group": "machine", "name": "kernel", "state": "ok", "detail": "6.12" },
                { "group": "walls", "name": "own-uid", "state": "missing", "detail": "not root", "fix": "start as root" },
            ],
        });
        assert_eq!(serde_json::to_value(made_up()).unwrap(), wanted);
    }

    #[test]
    fn the_words_name_each_shortfall_with_its_fix() {
        let text = words(&made_up());
        let lines: Vec<_> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let wanted = [
            "machine",
            "ok kernel 6.12",
            "",
            "walls",
            "MISSING own-uid not root",
            "fix: start as root",
            "",
            "something is missing or waived: see above (as an ordinary account: root has more)",
        ];
        assert_eq!(lines, wanted, "{text}");
        let root = Report { started_as: StartedAs::Root, healthy: true, checks: Vec::new() };
        assert_eq!(words(&root), "\nevery hard wall is there\n");
    }

    #[test]
    fn a_mistake_in_the_configuration_is_told_and_is_not_healthy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cloister.toml");
        std::fs::write(&path, "[pool]\nblank = 1\n").unwrap();
        let report = examine(&path);
        assert!(!report.healthy);
        let text = words(&report);
        assert!(text.contains("pool.blank") && text.contains("MISSING"), "{text}");
        assert!(report.checks.iter().any(|check| check.group == "machine"));
    }
}
