use std::path::Path;

use super::*;

const BASE: &str = r#"version = 1
[default]
memory_bytes = "128MiB"
pids = 64
cpu_percent = 100
tmp_bytes = 1048576
[ceiling]
memory_bytes = "1GiB"
pids = 128
cpu_percent = 200
tmp_bytes = "64MiB"
instances = 4
concurrency = 100
"#;

fn parse(text: &str) -> Result<SandboxPolicy, String> {
    SandboxPolicy::parse(Path::new("p.toml"), text).map_err(|error| error.to_string())
}

const SHOP: Who<'_> = Who { namespace: Some("production"), worker: "shop" };
const ROUTER: Who<'_> = Who { namespace: None, worker: "router" };

#[test]
fn the_shipped_policy_lowers_no_wall() {
    let policy = SandboxPolicy::shipped().unwrap();
    for who in [SHOP, ROUTER] {
        for waiver in [Waiver::Processes, Waiver::Jit, Waiver::Proc] {
            assert!(policy.permits(who, waiver).is_err());
        }
        let got = policy.resources(who, &Asked::default()).unwrap();
        assert_eq!(
            (got.memory_bytes, got.pids, got.cpu_percent, got.tmp_bytes),
            (128 << 20, 64, 100, 16 << 20)
        );
    }
}

#[test]
fn ceilings_hold_and_say_so() {
    let policy = parse(BASE).unwrap();
    let ask = |bytes| policy.resources(SHOP, &Asked { memory_bytes: Some(bytes), ..Asked::default() });
    assert_eq!(ask(1 << 30).unwrap().memory_bytes, 1 << 30);
    let error = ask((1 << 30) + 1).unwrap_err().to_string();
    assert!(error.contains("resources.memory_bytes") && error.contains("1073741824"), "{error}");
    assert!(ask(0).is_err());
    assert!(policy.resources(SHOP, &Asked { pids: Some(0), ..Asked::default() }).is_err());
    assert!(policy.resources(SHOP, &Asked { instances: Some(5), ..Asked::default() }).is_err());
}

#[test]
fn grants_reach_whom_they_name() {
    let policy = parse(&format!(
        "{BASE}[[grant]]\nnamespace = \"production\"\nworkers = [\"sh*\"]\nallow = [\"processes\"]\n\
         ceiling = {{ pids = 1000 }}\n[[grant]]\naccount = true\nallow = [\"jit\"]\n"
    ))
    .unwrap();
    assert!(policy.permits(SHOP, Waiver::Processes).is_ok());
    assert!(policy.permits(SHOP, Waiver::Jit).is_err());
    assert!(policy.permits(ROUTER, Waiver::Jit).is_ok());
    assert!(policy.permits(ROUTER, Waiver::Processes).is_err());
    assert!(policy.permits(Who { namespace: Some("staging"), ..SHOP }, Waiver::Processes).is_err());
    assert!(policy.permits(Who { worker: "other", ..SHOP }, Waiver::Processes).is_err());
    assert_eq!(policy.ceiling(SHOP).pids, 1000);
    assert_eq!(policy.ceiling(ROUTER).pids, 128);
    let error = policy.permits(SHOP, Waiver::Proc).unwrap_err().to_string();
    assert!(error.contains("granted here: processes"), "{error}");
}

#[test]
fn mistakes_are_placed_and_named() {
    for (text, wants) in [
        ("", vec!["p.toml:1:1", "version"]),
        (&BASE.replace("version = 1", "version = 2"), vec!["p.toml:1:11", "version", "allowed is 1"]),
        (&BASE.replace("pids = 64", "pid = 64"), vec!["p.toml:4", "pid", "expected one of"]),
        (
            &BASE.replace("\"128MiB\"", "\"128Mb\""),
            vec!["p.toml:3:16", "default.memory_bytes", "128Mb", "MiB"],
        ),
        (
            &BASE.replace("\"128MiB\"", "\"2GiB\""),
            vec!["p.toml:8:16", "ceiling.memory_bytes", "the least is"],
        ),
        (&BASE.replace("instances = 4", "instances = 0"), vec!["p.toml:12", "ceiling.instances"]),
        (&BASE.replace("tmp_bytes = 1048576", "tmp_bytes = -1"), vec!["p.toml:6", "tmp_bytes", "bytes"]),
        (&format!("{BASE}[[grant]]\nallow = [\"root\"]\n"), vec!["p.toml:15", "root", "processes"]),
        (&format!("{BASE}[[grant]]\nworkers = [\"a*b\"]\n"), vec!["p.toml:15", "grant[0].workers", "a*b"]),
        (&format!("{BASE}[[grant]]\naccount = false\n"), vec!["p.toml:15", "grant[0].account"]),
        ("version = ", vec!["p.toml:1"]),
    ] {
        let error = parse(text).unwrap_err();
        for want in wants {
            assert!(error.contains(want), "{error:?} lacks {want:?}");
        }
    }
}
