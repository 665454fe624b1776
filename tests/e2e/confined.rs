//! The supervisor and the launcher as the kernel sees them while they serve.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cloister_tests::Platform;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{config, platform, platform_with, server, worker};

/// `/proc/PID/task/*/status`, a map for each thread.
fn threads(pid: i32) -> Vec<BTreeMap<String, String>> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // A thread may end between the listing and the reading.
    tasks
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok())
        .map(parse)
        .collect()
}

fn parse(status: String) -> BTreeMap<String, String> {
    let fields = status.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.trim().replace('\t', " "))).collect()
}

const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

#[tokio::test]
async fn every_thread_of_the_supervisor_is_behind_its_walls() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    worker("b").deploy(&platform).await;
    platform.http().get("http://a.test/").await.expect(200);
    let account = nix::unistd::User::from_name("cloister").unwrap().unwrap();
    let threads = threads(platform.pid());
    assert!(threads.len() >= 3, "data plane, control plane, launcher's: {}", threads.len());
    for thread in threads {
        let is = |field: &str| thread[field].as_str();
        assert_eq!((is("Seccomp"), is("Seccomp_filters")), ("2", "1"), "{thread:?}");
        assert_eq!(is("NoNewPrivs"), "1", "{thread:?}");
        for set in SETS {
            assert_eq!(is(set), "0000000000000000", "{set}: {thread:?}");
        }
        let ids = [account.uid.as_raw(); 4].map(|uid| uid.to_string()).join(" ");
        assert_eq!(is("Uid"), ids);
        assert_eq!(is("Groups"), account.gid.to_string());
    }
    assert!(platform.log().contains("walls of the supervisor"), "{}", platform.log());
}

/// The kernel's own word for it: what it keeps of the launcher's credentials.
#[tokio::test]
async fn the_launcher_has_the_listed_capabilities_and_a_filter() {
    let platform = platform().await;
    let threads = threads(platform.launcher());
    let [thread] = threads.as_slice() else { panic!("{} threads in the launcher", threads.len()) };
    let is = |field: &str| thread[field].as_str();
    // SYS_ADMIN, SYS_CHROOT, SYS_PTRACE, SETUID, SETGID, KILL (capabilities(7)).
    let kept = [21, 18, 19, 7, 6, 5].iter().fold(0_u64, |mask, capability| mask | 1 << capability);
    for (set, wanted) in [("CapPrm", kept), ("CapEff", kept), ("CapInh", 0), ("CapBnd", 0), ("CapAmb", 0)] {
        assert_eq!(is(set), format!("{wanted:016x}"), "{set}");
    }
    assert_eq!((is("Seccomp"), is("Seccomp_filters"), is("NoNewPrivs")), ("2", "1", "1"));
    // An empty root and an empty network.
    let root = format!("/proc/{}/root", platform.launcher());
    assert!(!std::path::Path::new(&root).join("etc/shadow").exists());
    let network = std::fs::read_to_string(format!("/proc/{}/net/dev", platform.launcher())).unwrap();
    let interfaces: Vec<_> =
        network.lines().skip(2).map(|line| line.trim().split(':').next().unwrap()).collect();
    assert!(interfaces.iter().all(|name| *name == "lo"), "{interfaces:?}");
}

/// An editor writes a new file and gives it the old one's name.
fn replace(path: &std::path::Path, change: impl FnOnce(String) -> String) {
    let new = path.with_extension("new");
    std::fs::write(&new, change(std::fs::read_to_string(path).unwrap())).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn a_replaced_configuration_is_read_on_hangup() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    platform.http().get("http://a.other/").await.expect_failure(404, 1042);
    let route = "\n[[route]]\nhost = \"*.other\"\nworker = \"{1}\"\nnamespace = \"production\"\n";
    replace(&platform.config_file(), |text| text + route);
    kill(Pid::from_raw(platform.pid()), Signal::SIGHUP).unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while platform.http().get("http://a.other/").await.status != 200 {
        assert!(Instant::now() < end, "{}", platform.log());
    }
}

#[tokio::test]
async fn its_walls_are_waived_by_name_and_that_is_told() {
    let waived = "[\"supervisor-landlock\", \"supervisor-seccomp\"]";
    let platform = platform_with(config().set("sandbox", "waive", waived)).await;
    for thread in threads(platform.pid()) {
        assert_eq!((thread["Seccomp"].as_str(), thread["NoNewPrivs"].as_str()), ("0", "1"));
    }
    let log = platform.log();
    assert!(log.contains("landlock: None, seccomp: None"), "{log}");
    let report =
        platform.cli(["--json", "doctor", "--config", platform.config_file().to_str().unwrap()]).await;
    let report = report.json();
    for name in ["supervisor-landlock", "supervisor-seccomp"] {
        assert_eq!(check(&report, name)["state"], "waived", "{report}");
    }
    let plain = Platform::prepare(config());
    let report =
        plain.cli(["--json", "doctor", "--config", plain.config_file().to_str().unwrap()]).await.json();
    for name in ["supervisor-landlock", "supervisor-seccomp"] {
        assert_eq!(check(&report, name)["state"], "ok", "{report}");
    }
}

fn check<'a>(report: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).expect(name)
}
