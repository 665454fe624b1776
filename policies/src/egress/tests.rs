//! The policy as a whole: verdicts, refusals of files, and the bypasses that others fell for.

use http::Method;
use proptest::prelude::*;

use super::*;

fn policy(text: &str) -> Policy {
    Policy::parse("test.toml", text).unwrap_or_else(|error| panic!("{error}"))
}

fn problems(text: &str) -> Vec<String> {
    let error = Policy::parse("p.toml", text).expect_err("must be refused");
    error.to_string().lines().map(str::to_owned).collect()
}

/// `decision rule` of a request.
fn ask(policy: &Policy, method: &str, uri: &str) -> String {
    let Ok(uri) = uri.parse() else { return "invalid".into() };
    let Ok(target) = Target::from_uri(&uri) else { return "invalid".into() };
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let verdict = policy.judge(&target.asked(&method));
    format!("{} {}", verdict.decision.as_str(), verdict.rule_name())
}

fn tunnel(policy: &Policy, authority: &str) -> String {
    let (host, port) = split_authority(authority).unwrap();
    let asked = Asked { scheme: Scheme::Https, host: &host, port: port.unwrap(), content: Content::Tunnel };
    let verdict = policy.judge(&asked);
    format!("{} {}", verdict.decision.as_str(), verdict.rule_name())
}

const EXAMPLE: &str = include_str!("../../egress/example.toml");
const DEFAULT: &str = include_str!("../../egress/default.toml");

#[test]
fn the_shipped_files_say_what_they_say() {
    let closed = policy(DEFAULT);
    assert!(closed.rules().is_empty());
    assert_eq!(ask(&closed, "GET", "https://example.com/"), "deny default");
    let example = policy(EXAMPLE);
    for (method, uri, expected) in [
        ("POST", "https://api.stripe.com/v1/charges", "allow payments"),
        ("DELETE", "https://api.stripe.com/v1/charges", "deny default"),
        ("GET", "http://api.stripe.com/v1/charges", "outbound everything-else"),
        ("GET", "https://api.stripe.com/v2/", "outbound everything-else"),
        ("POST", "https://api.stripe.com:8443/v1/a", "deny default"),
        ("GET", "https://a.example.com/", "allow own-services"),
        ("POST", "https://a.example.com:8443/", "deny default"),
        ("GET", "https://a.example.com/admin", "deny no-admin"),
        ("GET", "https://a.example.com//x/../admin/%2e/", "deny no-admin"),
        ("GET", "https://a.example.com/x/..%2fadmin", "deny no-admin"),
        ("GET", "http://warehouse.internal:8080/", "allow warehouse"),
        ("POST", "http://warehouse.internal:80/", "deny default"),
        ("PUT", "https://elsewhere.org/", "deny default"),
    ] {
        assert_eq!(ask(&example, method, uri), expected, "{method} {uri}");
    }
    let warehouse = Target::from_uri(&"http://warehouse.internal:8080/".parse().unwrap()).unwrap();
    assert_eq!(example.judge(&warehouse.asked(&Method::GET)).networks().len(), 1);
}

#[test]
fn bypasses_of_other_filters() {
    let denied = policy(
        r#"version = 1
        default = "allow"
        [[rule]]
        name = "no"
        hosts = ["evil.com", "*.evil.com", "169.254.169.254"]
        action = "deny""#,
    );
    let allowed = policy(
        r#"version = 1
        [[rule]]
        name = "yes"
        hosts = ["good.com", "*.good.com"]
        action = "allow""#,
    );
    // Trailing dot, letter case, brackets, number forms, mapped addresses.
    for uri in [
        "http://evil.com./",
        "http://EVIL.COM/",
        "http://x.Evil.Com.:8080/",
        "http://169.254.169.254./",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0xa9.254.0xa9.254/",
        "http://0251.0376.0251.0376/",
        "http://169.254.43518/",
        "http://[::ffff:169.254.169.254]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[0:0:0:0:0:FFFF:A9FE:A9FE]/",
    ] {
        assert_eq!(ask(&denied, "GET", uri), "deny no", "{uri}");
    }
    for uri in [
        "http://good.com.evil.com/",
        "http://goodXcom/",
        "http://notgood.com/",
        "http://evil.com/?good.com",
        "http://evil.com/good.com",
        "http://good.com.:80.evil.com/",
        "http://good.com@evil.com/",
        "http://good.com:80@evil.com/",
        "http://good.com%2eevil.com/",
        "http://good.com%00.evil.com/",
        "http://[good.com]/",
        "http://good.com:443:80/",
    ] {
        assert!(!ask(&allowed, "GET", uri).starts_with("allow"), "{uri}");
    }
    assert_eq!(ask(&allowed, "GET", "http://GOOD.com.:8080/"), "allow yes");
}

#[test]
fn a_tunnel_is_judged_by_host_and_port_alone() {
    let policy = policy(
        r#"version = 1
        [[rule]]
        name = "no-ssh"
        hosts = ["*"]
        ports = [22]
        action = "deny"
        [[rule]]
        name = "plain-only"
        hosts = ["plain.com"]
        schemes = ["http"]
        action = "allow"
        [[rule]]
        name = "paths"
        hosts = ["paths.com"]
        paths = ["/v1/*"]
        action = "allow"
        [[rule]]
        name = "headers"
        hosts = ["headers.com"]
        action = "allow"
        remove_headers = ["cookie"]
        [[rule]]
        name = "outbound"
        hosts = ["out.com"]
        action = "outbound"
        [[rule]]
        name = "open"
        hosts = ["*"]
        ports = [443]
        action = "allow""#,
    );
    for (authority, expected) in [
        ("a.com:443", "allow open"),
        ("plain.com:443", "allow open"),
        ("plain.com:80", "deny default"),
        ("a.com:22", "deny no-ssh"),
        ("paths.com:443", "deny paths"),
        ("headers.com:443", "deny headers"),
        ("out.com:443", "deny outbound"),
    ] {
        assert_eq!(tunnel(&policy, authority), expected, "{authority}");
    }
}

#[test]
fn report_lets_pass_and_says_so() {
    let policy = policy("version = 1\nmode = \"report\"");
    let target = Target::from_uri(&"http://a.com/".parse().unwrap()).unwrap();
    let verdict = policy.judge(&target.asked(&Method::GET));
    assert_eq!(verdict.decision, Decision::Allow);
    assert!(verdict.reported && verdict.log());
    assert_eq!(verdict.refusal, Some(Refusal::Default));
}

#[test]
fn the_path_that_was_judged_is_the_one_that_is_sent() {
    let with = policy(EXAMPLE);
    let without = policy("version = 1\ndefault = \"allow\"");
    let target = Target::from_uri(&"http://a.com//b/../c".parse().unwrap()).unwrap();
    assert_eq!(with.path_to_send(&target.asked(&Method::GET)), Some("/c"));
    assert_eq!(without.path_to_send(&target.asked(&Method::GET)), None);
}

#[test]
fn an_explanation_ends_with_the_rule_that_decides() {
    let example = policy(EXAMPLE);
    let target = Target::from_uri(&"https://a.example.com/".parse().unwrap()).unwrap();
    let steps = example.explain(&target.asked(&Method::GET));
    let found: Vec<_> = steps.iter().map(|step| (&*step.rule, step.mismatch)).collect();
    assert_eq!(
        found,
        [("no-admin", Some(Mismatch::Path)), ("payments", Some(Mismatch::Host)), ("own-services", None)]
    );
}

#[test]
fn errors_name_place_key_and_what_is_allowed() {
    for (text, expected) in [
        ("", "p.toml:1:1: missing field `version`"),
        ("version = 2", "p.toml:1:11: version: version 2 is not known (allowed: 1)"),
        ("version = ", "p.toml:1:11:"),
        (
            "version = 1\nmodus = 1",
            "p.toml:2:1: modus: unknown field `modus` (allowed: version, mode, default, rule)",
        ),
        (
            "version = 1\nmode = \"off\"",
            "p.toml:2:8: mode: unknown variant `off` (allowed: enforce or report)",
        ),
        (
            "version = 1\n[[rule]]\nname = \"a\"\nhosts = [\"a\"]\naction = \"alow\"",
            "p.toml:5:10: rule[0].action: unknown variant `alow` (allowed: allow, deny, outbound)",
        ),
        (
            "version = 1\n[[rule]]\nname = \"a\"\nhosts = [\"a\"]\naction = \"allow\"\n[rule.limits]\nburst = 1",
            "p.toml:7:1: rule[0].limits.burst: unknown field `burst` (allowed: requests_per_second or response_bytes)",
        ),
        (
            "version = 1\n[[rule]]\nname = \"a\"\naction = \"allow\"",
            "p.toml:2:1: rule[0]: missing field `hosts`",
        ),
    ] {
        let found = problems(text);
        assert!(found[0].starts_with(expected), "{text:?}\n found {:?}\n wanted {expected:?}", found[0]);
    }
}

#[test]
fn every_problem_of_a_rule_is_told_at_once() {
    let found = problems(
        r#"version = 1
[[rule]]
name = "de/fault"
hosts = ["a b", "*.ok.com", "x*"]
ports = [0, 443, 70000]
methods = ["get", "CONNECT"]
paths = ["v1", "/a//b"]
networks = ["10.0.0.1/8", "0.0.0.0/0", "ten"]
set_headers = { host = "x", a = "${env:X}", b = "ok", B = "twice" }
remove_headers = ["content-length"]
action = "allow"
outbound_worker = "x"
[rule.limits]
requests_per_second = 0
response_bytes = "10MB"
[[rule]]
name = "same"
hosts = []
action = "deny"
networks = ["10.0.0.0/8"]
[[rule]]
name = "same"
hosts = ["a.com"]
action = "outbound"
networks = ["10.0.0.0/8"]
"#,
    );
    let keys: Vec<_> = found.iter().map(|line| line.split(':').nth(3).unwrap().trim()).collect();
    assert_eq!(
        keys,
        [
            "rule[0].name",
            "rule[0].hosts[0]",
            "rule[0].hosts[2]",
            "rule[0].ports[0]",
            "rule[0].ports[2]",
            "rule[0].methods[0]",
            "rule[0].methods[1]",
            "rule[0].paths[0]",
            "rule[0].paths[1]",
            "rule[0].networks[0]",
            "rule[0].networks[1]",
            "rule[0].networks[2]",
            "rule[0].set_headers.host",
            "rule[0].set_headers.a",
            "rule[0].set_headers.b",
            "rule[0].remove_headers[0]",
            "rule[0].outbound_worker",
            "rule[0].limits.requests_per_second",
            "rule[0].limits.response_bytes",
            "rule[1].hosts",
            "rule[1].networks",
            "rule[2].name",
            "rule[2].networks",
        ],
        "{found:#?}"
    );
    assert!(found.iter().all(|line| line.starts_with("p.toml:")));
}

#[test]
fn sizes() {
    for (text, expected) in [
        ("1", Some(1)),
        ("\"10MiB\"", Some(10 << 20)),
        ("\"3 KiB\"", Some(3 << 10)),
        ("\"7B\"", Some(7)),
        ("\"1GiB\"", Some(1 << 30)),
        ("0", None),
        ("-1", None),
        ("\"10\"", None),
        ("\"MiB\"", None),
        ("\"99999999999GiB\"", None),
        ("1.5", None),
    ] {
        let text = format!(
            "version = 1\n[[rule]]\nname = \"a\"\nhosts = [\"a\"]\naction = \"allow\"\nlimits = {{ response_bytes = {text} }}"
        );
        let parsed = Policy::parse("p", &text).ok().and_then(|policy| policy.rules()[0].response_bytes);
        assert_eq!(parsed, expected, "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = Policy::parse("p.toml", &text);
    }

    #[test]
    fn no_mutation_of_the_example_panics(cut in 0..EXAMPLE.len(), insert in "[\\PC\n]{0,3}") {
        if EXAMPLE.is_char_boundary(cut) {
            let (before, after) = EXAMPLE.split_at(cut);
            if let Err(error) = Policy::parse("p.toml", &format!("{before}{insert}{after}")) {
                prop_assert!(!error.problems().is_empty());
                prop_assert!(error.problems().iter().all(|problem| problem.line >= 1 && problem.column >= 1));
            }
        }
    }

    #[test]
    fn an_empty_policy_allows_nothing(uri in "https?://[a-z0-9.:@%\\[\\]-]{1,30}/[a-z./%]{0,10}") {
        prop_assert!(!ask(&Policy::closed(), "GET", &uri).starts_with("allow"));
    }

    #[test]
    fn only_the_named_host_is_ever_allowed(uri in "https?://(good|evil|[.@:%]|\\.com|[A-Z0-9]){1,6}/") {
        let policy = policy("version = 1\n[[rule]]\nname = \"a\"\nhosts = [\"good.com\"]\naction = \"allow\"");
        if ask(&policy, "GET", &uri).starts_with("allow") {
            let parsed: http::Uri = uri.parse().unwrap();
            let host = parsed.host().unwrap().trim_end_matches('.').to_ascii_lowercase();
            prop_assert_eq!(host, "good.com");
        }
    }
}
