use std::path::Path;

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/cloister/cloister.toml"), text)
}

/// The error's text, which must start with the file and place.
fn wrong(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn an_empty_file_is_a_whole_configuration() {
    let config = parse("").unwrap();
    assert_eq!((config.account_name(), &config.user), ("cloister", &None));
    assert_eq!(config.sandbox.uids, 200_000..265_536);
    assert!(config.routing.routes.is_empty());
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_what_is_allowed() {
    let error = wrong("state = \"/x\"\n[pool]\nblank = 3\n");
    assert!(error.starts_with("/etc/cloister/cloister.toml:3:1: pool.blank"), "{error}");
    assert!(error.contains("expected one of `blanks`"), "{error}");
}

#[test]
fn a_wrong_type_is_named_with_its_place() {
    let error = wrong("[pool]\nblanks = \"many\"\n");
    assert!(error.starts_with("/etc/cloister/cloister.toml:2:10: pool.blanks: "), "{error}");
}

#[test]
fn broken_toml_is_named_with_its_place() {
    let error = wrong("state = \"/x\"\nuser = \n");
    assert!(error.starts_with("/etc/cloister/cloister.toml:2:"), "{error}");
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let config = parse("state = \"data\"\n[egress]\npolicy_dir = \"egress\"\n").unwrap();
    assert_eq!(config.state, Path::new("/etc/cloister/data"));
    assert_eq!(config.egress.policy_dir.unwrap(), Path::new("/etc/cloister/egress"));
}

#[test]
fn routes() {
    let config = parse(
        "[[route]]\nhost = \"*.Example.com\"\npath = \"/v1/*\"\nheaders = { x-a = \"b\" }\n\
         worker = \"{1}\"\nnamespace = \"production\"\nlimits = { cpu_ms = 50 }\n\
         rate_limit = { requests_per_second = 50, burst = 100 }\n\
         [[route]]\ndispatch = \"router\"\n",
    )
    .unwrap();
    let [first, second] = config.routing.routes.as_slice() else { panic!() };
    assert_eq!(first.host.matches("shop.example.COM."), Some("shop"));
    assert_eq!(first.host.matches("a.shop.example.com"), None);
    assert_eq!(first.host.matches(".example.com"), None);
    assert!(first.path.matches("/v1/x") && !first.path.matches("/v1") && !first.path.matches("/v2/"));
    let RouteTarget::Worker { worker, .. } = &first.target else { panic!() };
    assert_eq!(worker.resolve("Shop").unwrap().as_str(), "shop");
    assert_eq!(worker.resolve("-"), None);
    assert_eq!(second.host.matches("anything"), Some(""));
}

#[test]
fn mistakes_across_keys() {
    for (text, says) in [
        ("[[route]]\nhost = \"a\"\n", "needs either dispatch"),
        ("[[route]]\ndispatch = \"a\"\nworker = \"b\"\nnamespace = \"c\"\n", "needs either dispatch"),
        ("[[route]]\nhost=\"a\"\nworker = \"{1}\"\nnamespace = \"c\"\n", "needs a host with a wildcard"),
        ("[[route]]\nhost = \"a*.b\"\ndispatch = \"a\"\n", "is not a host pattern"),
        ("[[route]]\npath = \"v1\"\ndispatch = \"a\"\n", "is not a path pattern"),
        ("[[route]]\nheaders = { \"a b\" = \"c\" }\ndispatch = \"a\"\n", "is not a header name"),
        ("[listen]\nadmin_tcp = \"127.0.0.1:1\"\n", "needs listen.admin_token_file"),
        ("[listen]\nadmin_token_file = \"t\"\n", "without listen.admin_tcp"),
        ("[listen]\nhttp = [\"localhost\"]\n", "listen.http[0]"),
        ("[runtime]\nthreads = 0\n", "1 to 256"),
        ("[sandbox]\nuid_base = 0\n", "1000 and more"),
        ("[sandbox]\nuid_base = 4294967290\nuid_count = 100\n", "allowed are"),
        ("[sandbox]\nwaive = [\"seccomp\"]\n", "can't be waived, allowed are own-uid, landlock"),
        ("[telemetry]\nlog = \"a=loud\"\n", "allowed are a level"),
        ("[limits]\ncpu = 3\n", "expected one of `cpu_ms`"),
        ("account = \"A B\"\n", "is not a name"),
    ] {
        let error = wrong(text);
        assert!(error.contains(says), "{text}: {error}");
        assert!(error.starts_with("/etc/cloister/cloister.toml:"), "{error}");
    }
}
