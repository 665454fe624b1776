//! A validated policy, and its verdict on a request.

use std::sync::Arc;

use ipnet::IpNet;

use super::asked::{Asked, Content};
use super::error::PolicyError;
use super::rule::{Action, Fit, Mismatch, Rule};

/// Largest policy file, bytes.
pub const POLICY_BYTES: usize = 1 << 20;

/// A validated policy.
#[derive(Debug)]
pub struct Policy {
    pub(super) mode: Mode,
    pub(super) allow_by_default: bool,
    pub(super) rules: Vec<Rule>,
}

/// Whether verdicts bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They do.
    Enforce,
    /// What would be denied passes, and is reported. Addresses are refused all the same.
    Report,
}

/// The verdict on one request and the rule that gave it.
#[must_use = "a verdict that nobody looks at lets everything pass"]
#[derive(Debug, Clone, Copy)]
pub struct Verdict<'p> {
    /// What to do.
    pub decision: Decision<'p>,
    /// The rule that matched; `None` is the policy's default.
    pub rule: Option<&'p Rule>,
    /// Set when the policy only reports and this would have been denied.
    pub reported: bool,
    /// Why it is (or would have been) denied.
    pub refusal: Option<Refusal>,
}

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'p> {
    /// Send it.
    Allow,
    /// Refuse it.
    Deny,
    /// Hand it to the dispatch call's outbound Worker, or else to this one of the account.
    Outbound(Option<&'p Arc<str>>),
}

impl Decision<'_> {
    /// One word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Outbound(_) => "outbound",
        }
    }
}

/// Why something is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A rule says so.
    #[error("the rule denies it")]
    Rule,
    /// No rule matches.
    #[error("no rule matches it, and what no rule matches is denied")]
    Default,
    /// A tunnel hides what the rule judges by.
    #[error(
        "CONNECT hides the request from the rule's `{0}`: send the absolute https:// URI to the proxy instead, or use the SDK"
    )]
    Tunnel(&'static str),
}

/// Name of the rule when none matched.
pub const DEFAULT_RULE: &str = "default";

impl Verdict<'_> {
    /// Name of the rule that gave it, [`DEFAULT_RULE`] when none matched.
    #[must_use]
    pub fn rule_name(&self) -> &str {
        self.rule.map_or(DEFAULT_RULE, |rule| &rule.name)
    }

    /// Networks that may be dialled though they are not global.
    #[must_use]
    pub fn networks(&self) -> &[IpNet] {
        self.rule.map_or(&[], |rule| &rule.networks)
    }

    /// Whether it deserves a line in the log; a refusal always does.
    #[must_use]
    pub fn log(&self) -> bool {
        self.refusal.is_some() || self.rule.is_none_or(|rule| rule.log)
    }
}

/// A rule that was looked at, for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// The rule.
    pub rule: Arc<str>,
    /// What about the request it does not match; `None` for the rule that gave the verdict.
    pub mismatch: Option<Mismatch>,
}

impl Policy {
    /// The policy that denies everything.
    #[must_use]
    pub const fn closed() -> Self {
        Self { mode: Mode::Enforce, allow_by_default: false, rules: Vec::new() }
    }

    /// Reads and validates a policy file; `file` is its name in errors.
    ///
    /// # Errors
    /// [`PolicyError`] lists what is wrong and where. There is no half-valid policy.
    pub fn parse(file: &str, text: &str) -> Result<Self, PolicyError> {
        super::validate::policy(text).map_err(|problems| PolicyError::new(file, text, problems))
    }

    /// Judges a request: the first rule that matches decides, or else the default.
    pub fn judge(&self, asked: &Asked<'_>) -> Verdict<'_> {
        let mut verdict = self.judge_strictly(asked);
        if self.mode == Mode::Report && verdict.decision == Decision::Deny {
            verdict.decision = Decision::Allow;
            verdict.reported = true;
        }
        verdict
    }

    fn judge_strictly(&self, asked: &Asked<'_>) -> Verdict<'_> {
        for rule in &self.rules {
            let (decision, refusal) = match rule.fit(asked) {
                Fit::Differs(_) => continue,
                Fit::CannotJudge(key) => (Decision::Deny, Some(Refusal::Tunnel(key))),
                Fit::Matches => match rule.action() {
                    Action::Allow => (Decision::Allow, None),
                    Action::Deny => (Decision::Deny, Some(Refusal::Rule)),
                    Action::Outbound(worker) => (Decision::Outbound(worker.as_ref()), None),
                },
            };
            return Verdict { decision, rule: Some(rule), reported: false, refusal };
        }
        let (decision, refusal) = match self.allow_by_default {
            true => (Decision::Allow, None),
            false => (Decision::Deny, Some(Refusal::Default)),
        };
        Verdict { decision, rule: None, reported: false, refusal }
    }

    /// The rules that [`Policy::judge`] looks at, up to the one that decides.
    #[must_use]
    pub fn explain(&self, asked: &Asked<'_>) -> Vec<Step> {
        let mut steps = Vec::new();
        for rule in &self.rules {
            let mismatch = match rule.fit(asked) {
                Fit::Differs(mismatch) => Some(mismatch),
                Fit::Matches | Fit::CannotJudge(_) => None,
            };
            steps.push(Step { rule: rule.name.clone(), mismatch });
            if mismatch.is_none() {
                break;
            }
        }
        steps
    }

    /// The path to send in place of the one that was asked for: a policy that has rules about
    /// paths sends the form it judged, so that the server cannot read another.
    #[must_use]
    pub fn path_to_send<'a>(&self, asked: &Asked<'a>) -> Option<&'a str> {
        match asked.content {
            Content::Request { path, .. } if self.rules.iter().any(|rule| !rule.paths.is_empty()) => {
                Some(path.as_str())
            }
            _ => None,
        }
    }

    /// Whether verdicts bind.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}
