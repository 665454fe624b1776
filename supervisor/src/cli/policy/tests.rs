//! Verdicts, exit codes, and what makes no question.

use super::*;

const POLICY: &str = r#"version = 1
[[rule]]
name = "no-admin"
hosts = ["api.test"]
paths = ["/admin/*"]
action = "deny"
[[rule]]
name = "api"
hosts = ["api.test", "10.0.0.9"]
methods = ["GET"]
action = "allow"
networks = ["10.0.0.0/24"]
[[rule]]
name = "rest"
hosts = ["*.test"]
action = "outbound"
outbound_worker = "out"
"#;

struct Policies(tempfile::TempDir);

impl Policies {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("default.toml"), POLICY).unwrap();
        std::fs::write(folder.path().join("broken.toml"), "version = 1\nmodus = 2\n").unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn ask(&self, url: &str, method: &str, addresses: &[&str]) -> Report {
        let addresses: Vec<_> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        test(&self.path("default.toml"), url, method, None, &addresses).unwrap_or_else(Report::from)
    }
}

#[test]
fn the_verdict_the_rule_and_the_exit_code() {
    let policies = Policies::new();
    for (url, method, addresses, code, verdict, rule) in [
        ("http://API.test./", "GET", &[][..], 0, "allow", "api"),
        ("http://api.test/", "GET", &["10.0.0.7"], 0, "allow", "api"),
        ("http://api.test/", "GET", &["10.0.1.7"], DENIED, "deny", "api"),
        ("http://api.test/", "GET", &["10.0.1.7", "8.8.8.8"], 0, "allow", "api"),
        ("http://10.0.0.9/", "GET", &[], 0, "allow", "api"),
        ("http://0xa.9/", "GET", &[], 0, "allow", "api"),
        ("http://api.test/x/..%2fadmin/", "GET", &[], DENIED, "deny", "no-admin"),
        ("http://api.test/", "POST", &[], 0, "outbound", "rest"),
        ("http://evil.org/", "GET", &[], DENIED, "deny", "default"),
        ("https://api.test/", "CONNECT", &[], DENIED, "deny", "no-admin"),
    ] {
        let report = policies.ask(url, method, addresses);
        assert_eq!(report.code, code, "{method} {url}: {}", report.text);
        assert_eq!(report.json["verdict"], verdict, "{method} {url}: {}", report.text);
        assert_eq!(report.json["rule"], rule, "{method} {url}: {}", report.text);
        assert!(report.text.starts_with(&format!("{verdict}, by rule {rule:?}")), "{}", report.text);
    }
}

#[test]
fn what_makes_no_question() {
    let policies = Policies::new();
    for (url, method) in [("no url", "GET"), ("/x", "GET"), ("ftp://a/", "GET"), ("http://a/", "G T")] {
        assert_eq!(policies.ask(url, method, &[]).code, INVALID, "{url}");
    }
    let ask = |file: &str, worker| {
        test(&policies.path(file), "http://api.test/", "GET", worker, &[]).unwrap_or_else(Report::from)
    };
    let broken = ask("broken.toml", None);
    assert_eq!(broken.code, INVALID);
    assert_eq!(broken.json["problems"][0]["key"], "modus");
    assert!(broken.text.contains("modus = 2"), "{}", broken.text);
    assert_eq!(ask("missing.toml", None).code, INVALID);
    assert_eq!(ask("default.toml", Some("a/b")).json["applies"], true);
    assert_eq!(ask("", None).code, INVALID);
    assert_eq!(ask("", Some("broken/b")).code, INVALID);
    assert_eq!(ask("", Some("shops/b")).code, 0);
}

#[test]
fn a_file_judges_by_its_name() {
    for (file, worker, expected) in [
        ("p/default.toml", "a/b", true),
        ("p/a.toml", "a/b", true),
        ("p/a/b.toml", "a/b", true),
        ("p/a/c.toml", "a/b", false),
        ("p/b.toml", "a/b", false),
        ("p/account.toml", "b", true),
        ("p/account/b.toml", "b", true),
        ("p/a.toml", "b", false),
        ("p/account.toml", "account/b", false),
        ("x.toml", "a/b", false),
    ] {
        assert_eq!(applies(Path::new(file), &worker_id(worker)), expected, "{file} {worker}");
    }
}

#[test]
fn checking_files_and_folders() {
    let policies = Policies::new();
    let good = check(&[policies.path("default.toml")]);
    assert_eq!((good.code, good.json[0]["rules"].as_u64()), (0, Some(3)));
    let all = check(&[policies.path("")]);
    assert_eq!(all.code, INVALID);
    assert_eq!(all.json.as_array().unwrap().len(), 2);
    assert!(all.text.contains("default.toml: valid, 3 rules, mode enforce"), "{}", all.text);
    assert_eq!(check(&[policies.path("missing.toml")]).code, INVALID);
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(check(&[empty.path().to_owned()]).code, INVALID);
}
