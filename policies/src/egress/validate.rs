//! From what is written to what is meant: every problem is found and named, none is guessed away.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

use http::{HeaderName, Method};
use ipnet::IpNet;
use toml::Spanned;

use super::asked::Scheme;
use super::error::Problem;
use super::header::{HeaderTemplate, is_reserved};
use super::host::HostPattern;
use super::path::PathPattern;
use super::policy::{DEFAULT_RULE, Mode, POLICY_BYTES, Policy};
use super::raw::{List, RawAction, RawDefault, RawMode, RawPolicy, RawRule, RawScheme, RawSize};
use super::rule::{Action, Rule};

/// Reads and validates `text`.
pub(super) fn policy(text: &str) -> Result<Policy, Vec<Problem>> {
    if text.len() > POLICY_BYTES {
        let message = format!("the file has {} bytes, {POLICY_BYTES} are the limit", text.len());
        return Err(vec![Problem::new(text, 0..0, "", message)]);
    }
    let raw = super::raw::read(text).map_err(|problem| vec![problem])?;
    let mut check = Check { text, problems: Vec::new() };
    let policy = check.policy(raw);
    check.problems.sort_by_key(Problem::start);
    if check.problems.is_empty() { Ok(policy) } else { Err(check.problems) }
}

struct Check<'t> {
    text: &'t str,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn problem(&mut self, span: Range<usize>, key: &str, message: impl Into<String>, allowed: &str) {
        let problem = Problem::new(self.text, span, key, message);
        self.problems.push(if allowed.is_empty() { problem } else { problem.allow(allowed) });
    }

    fn policy(&mut self, raw: RawPolicy) -> Policy {
        if *raw.version.get_ref() != 1 {
            let message = format!("version {} is not known", raw.version.get_ref());
            self.problem(raw.version.span(), "version", message, "1");
        }
        let mut names = HashSet::new();
        let mut rules = Vec::with_capacity(raw.rules.len());
        for (index, raw) in raw.rules.into_iter().enumerate() {
            let key = format!("rule[{index}]");
            let name_span = raw.name.span();
            let rule = self.rule(&key, raw);
            if !names.insert(Arc::clone(&rule.name)) {
                let message = format!("another rule is named {:?} too", rule.name);
                self.problem(name_span, &format!("{key}.name"), message, "");
            }
            rules.push(rule);
        }
        Policy {
            mode: match raw.mode {
                RawMode::Enforce => Mode::Enforce,
                RawMode::Report => Mode::Report,
            },
            allow_by_default: matches!(raw.default, RawDefault::Allow),
            rules,
        }
    }

    fn rule(&mut self, key: &str, raw: RawRule) -> Rule {
        let at = |name: &str| format!("{key}.{name}");
        self.keys_fit_the_action(key, &raw);
        let name = self.name(&at("name"), &raw.name);
        let action = match raw.action.get_ref() {
            RawAction::Allow => Action::Allow,
            RawAction::Deny => Action::Deny,
            RawAction::Outbound => Action::Outbound(
                raw.outbound_worker.map(|worker| Arc::from(self.worker(&at("outbound_worker"), &worker))),
            ),
        };
        let schemes = |scheme: &RawScheme| match scheme {
            RawScheme::Http => Ok(Scheme::Http),
            RawScheme::Https => Ok(Scheme::Https),
        };
        let mut rule = Rule {
            name,
            hosts: self.list(&at("hosts"), Some(raw.hosts), "a name, `*.name`, an address, `*`", |host| {
                HostPattern::parse(host).map_err(|error| error.to_string())
            }),
            ports: self.list(&at("ports"), raw.ports, "1 to 65535", port),
            schemes: self.list(&at("schemes"), raw.schemes, "http, https", schemes),
            methods: self.list(
                &at("methods"),
                raw.methods,
                "method names in upper case, not CONNECT",
                method,
            ),
            paths: self.list(&at("paths"), raw.paths, "`/a/b`, `/a/*`, `/a/*/b`", |path| {
                PathPattern::parse(path).map_err(|error| error.to_string())
            }),
            action,
            networks: self.list(&at("networks"), raw.networks, "networks as 10.0.0.0/8 or fd00::/8", network),
            remove_headers: self
                .list(&at("remove_headers"), raw.remove_headers, "", |name: &String| header(name)),
            set_headers: Vec::new(),
            log: raw.log.unwrap_or(true),
            requests_per_second: None,
            response_bytes: None,
        };
        for (name, value) in raw.set_headers.map(Spanned::into_inner).unwrap_or_default() {
            let key = format!("{key}.set_headers.{}", name.get_ref());
            let parsed = header(name.get_ref());
            let template = HeaderTemplate::parse(value.get_ref());
            match (parsed, template) {
                (Ok(parsed), Ok(_)) if rule.set_headers.iter().any(|(other, _)| *other == parsed) => {
                    self.problem(name.span(), &key, format!("header {parsed} is set twice"), "");
                }
                (Ok(name), Ok(template)) => rule.set_headers.push((name, template)),
                (Err(error), _) => self.problem(name.span(), &key, error, ""),
                (_, Err(error)) => self.problem(value.span(), &key, error.to_string(), ""),
            }
        }
        if let Some(limits) = raw.limits.map(Spanned::into_inner) {
            if let Some(rate) = limits.requests_per_second {
                let parsed = u32::try_from(*rate.get_ref()).ok().and_then(NonZeroU32::new);
                rule.requests_per_second = parsed;
                if parsed.is_none() {
                    let message = format!("{} is out of range", rate.get_ref());
                    self.problem(rate.span(), &at("limits.requests_per_second"), message, "1 to 4294967295");
                }
            }
            if let Some(bytes) = limits.response_bytes {
                match size(bytes.get_ref()) {
                    Some(parsed) => rule.response_bytes = Some(parsed),
                    None => {
                        let allowed = "a number of bytes, or a number with B, KiB, MiB or GiB; at least 1";
                        self.problem(bytes.span(), &at("limits.response_bytes"), "not a size", allowed);
                    }
                }
            }
        }
        rule
    }

    /// A key that would do nothing with this action is an error, not an ornament.
    fn keys_fit_the_action(&mut self, key: &str, raw: &RawRule) {
        let present = [
            ("outbound_worker", raw.outbound_worker.as_ref().map(Spanned::span)),
            ("networks", raw.networks.as_ref().map(Spanned::span)),
            ("set_headers", raw.set_headers.as_ref().map(Spanned::span)),
            ("remove_headers", raw.remove_headers.as_ref().map(Spanned::span)),
            ("limits", raw.limits.as_ref().map(Spanned::span)),
        ];
        let (action, useless, allowed): (_, &[_], _) = match raw.action.get_ref() {
            RawAction::Allow => ("allow", &["outbound_worker"], "with action = \"outbound\""),
            RawAction::Deny => (
                "deny",
                &["outbound_worker", "networks", "set_headers", "remove_headers", "limits"],
                "with action = \"allow\" or \"outbound\"",
            ),
            RawAction::Outbound => ("outbound", &["networks"], "in the outbound Worker's own policy"),
        };
        for (name, span) in present {
            if let Some(span) = span.filter(|_| useless.contains(&name)) {
                let message = format!("has no meaning with action = {action:?}");
                self.problem(span, &format!("{key}.{name}"), message, allowed);
            }
        }
        if raw.log == Some(false) && *raw.action.get_ref() == RawAction::Deny {
            let message = "a refusal is always logged, `log = false` has no meaning with action = \"deny\"";
            self.problem(raw.action.span(), &format!("{key}.log"), message, "true");
        }
    }

    fn name(&mut self, key: &str, name: &Spanned<String>) -> Arc<str> {
        let text = name.get_ref();
        let valid = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_. ".contains(&b))
            && text != DEFAULT_RULE;
        if !valid {
            let allowed = "1 to 64 letters, digits, `-`, `_`, `.`, spaces; not `default`";
            self.problem(name.span(), key, format!("{text:?} is not a rule name"), allowed);
        }
        text.as_str().into()
    }

    fn worker(&mut self, key: &str, name: &Spanned<String>) -> String {
        let text = name.get_ref();
        let valid = (1..=255).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if !valid {
            let message = format!("{text:?} is not the name of a Worker of the account");
            self.problem(name.span(), key, message, "letters, digits, `-`, `_`");
        }
        text.clone()
    }

    fn list<R, T>(
        &mut self,
        key: &str,
        list: Option<List<R>>,
        allowed: &str,
        parse: impl Fn(&R) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(list) = list else { return Vec::new() };
        if list.get_ref().is_empty() {
            self.problem(list.span(), key, "the list is empty, so the rule could never match", allowed);
        }
        let mut parsed = Vec::with_capacity(list.get_ref().len());
        for (index, item) in list.into_inner().into_iter().enumerate() {
            match parse(item.get_ref()) {
                Ok(value) => parsed.push(value),
                Err(error) => self.problem(item.span(), &format!("{key}[{index}]"), error, allowed),
            }
        }
        parsed
    }
}

fn port(port: &i64) -> Result<u16, String> {
    u16::try_from(*port).ok().filter(|port| *port != 0).ok_or_else(|| format!("{port} is not a port"))
}

fn method(text: &String) -> Result<Method, String> {
    match Method::from_bytes(text.as_bytes()) {
        Ok(method) if method != Method::CONNECT && !text.bytes().any(|b| b.is_ascii_lowercase()) => {
            Ok(method)
        }
        _ => Err(format!("{text:?} is not a method")),
    }
}

fn network(text: &String) -> Result<IpNet, String> {
    let network: IpNet = text.parse().map_err(|_| format!("{text:?} is not a network"))?;
    if network.prefix_len() == 0 {
        return Err(format!("{text} is every address: name the networks that are meant"));
    }
    if network.trunc() != network {
        return Err(format!("{text} has bits behind its prefix, write {}", network.trunc()));
    }
    Ok(network)
}

fn header(text: &str) -> Result<HeaderName, String> {
    let name =
        HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("{text:?} is not a header name"))?;
    if is_reserved(&name) {
        return Err(format!("header {name} is the filter's own, no rule may touch it"));
    }
    Ok(name)
}

fn size(raw: &RawSize) -> Option<u64> {
    let bytes = match raw {
        RawSize::Bytes(bytes) => u64::try_from(*bytes).ok()?,
        RawSize::Text(text) => {
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            let (number, unit) = text.split_at_checked(digits)?;
            let shift = match unit.trim_start() {
                "B" => 0,
                "KiB" => 10,
                "MiB" => 20,
                "GiB" => 30,
                _ => return None,
            };
            number.parse::<u64>().ok()?.checked_mul(1 << shift)?
        }
    };
    (bytes > 0).then_some(bytes)
}
