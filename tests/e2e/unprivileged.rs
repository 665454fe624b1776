//! `cloister serve` started as an ordinary uid.

use cloister_tests::{Config, Platform};

use crate::{config, server, worker};

fn waiving(walls: &str) -> Config {
    config().set("sandbox", "waive", format!("[{walls}]"))
}

/// A Worker of each contract answers.
async fn serves(platform: &Platform) {
    platform.namespace("production").await;
    server("a").deploy(platform).await;
    worker("b").deploy(platform).await;
    platform.http().get("http://a.test/").await.expect(200);
    platform.http().get("http://b.test/").await.expect(200);
}

/// What the first live process of a Worker really stands behind.
async fn walls(platform: &Platform, name: &str) -> serde_json::Value {
    let mut one = platform.cli(["--json", "worker", "inspect", name, "-n", "production"]).await.ok().json();
    one["processes"][0]["walls"].take()
}

#[tokio::test]
async fn refused_with_every_missing_wall_and_what_to_do() {
    let mut platform = Platform::prepare_unprivileged(config(), false);
    let status = platform.try_run().await.unwrap_err();
    assert_eq!(status.code(), Some(6), "{}", platform.log());
    let log = platform.log();
    for words in ["wall own-uid", "wall cgroup", "Delegate=yes", "sandbox.waive = [\"own-uid\", \"cgroup\"]"]
    {
        assert!(log.contains(words), "no {words:?} in {log}");
    }
    // Each by itself.
    let mut platform = Platform::prepare_unprivileged(waiving("\"own-uid\""), false);
    assert_eq!(platform.try_run().await.unwrap_err().code(), Some(6));
    assert!(platform.log().contains("1 walls can't be raised"), "{}", platform.log());
}

#[tokio::test]
async fn serves_without_the_walls_that_are_waived() {
    let mut platform = Platform::prepare_unprivileged(waiving("\"own-uid\", \"cgroup\""), false);
    platform.run().await;
    serves(&platform).await;
    let own = std::fs::read_to_string(format!("/proc/{}/status", platform.pid())).unwrap();
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000"] {
        assert!(own.contains(line), "no {line:?} in {own}");
    }
    for name in ["a", "b"] {
        let walls = walls(&platform, name).await;
        assert_eq!(walls["enforced"]["capabilities"], 0, "{walls}");
        assert_eq!(walls["enforced"]["no_new_privs"], true, "{walls}");
        assert!(walls["enforced"]["landlock"]["full"].as_bool().unwrap(), "{walls}");
        assert_eq!(walls["enforced"]["namespaces"].as_object().unwrap().len(), 7, "{walls}");
        assert_eq!(
            (&walls["machine"]["own_uid"], &walls["machine"]["cgroup"]),
            (&false.into(), &"none".into())
        );
    }
    // A second start finds the state that is its own.
    assert!(platform.stop().success());
    platform.run().await;
    platform.http().get("http://a.test/").await.expect(200);
}

/// The server makes a thread for each connection. The kernel counts them for the Worker's user namespace,
/// so that neither a shared uid nor the lack of a cgroup leaves them unbounded.
#[tokio::test]
async fn threads_are_bounded_where_nothing_else_bounds_them() {
    let mut platform = Platform::prepare_unprivileged(waiving("\"own-uid\", \"cgroup\""), false);
    platform.run().await;
    platform.namespace("production").await;
    for name in ["a", "b"] {
        server(name).cloister("resources", serde_json::json!({ "pids": 12 })).deploy(&platform).await;
    }
    let http = platform.http();
    // Longer than it takes to ask for all of them, also on a busy machine.
    let answers = futures_util::future::join_all((0..40).map(|_| http.get("http://a.test/sleep/3000"))).await;
    let well = answers.iter().filter(|answer| answer.status == 200).count();
    assert!((6..12).contains(&well), "{well} of 40 at a time with 12 threads at most");
    // Another's threads are not counted with its own.
    let (busy, free) = tokio::join!(
        futures_util::future::join_all((0..6).map(|_| http.get("http://a.test/sleep/500"))),
        futures_util::future::join_all((0..8).map(|_| http.get("http://b.test/sleep/100"))),
    );
    assert!(busy.iter().chain(&free).all(|answer| answer.status == 200));
}

#[tokio::test]
async fn delegated_cgroups_are_a_wall() {
    let mut platform = Platform::prepare_unprivileged(waiving("\"own-uid\""), true);
    platform.run().await;
    serves(&platform).await;
    let machine = walls(&platform, "a").await["machine"].take();
    assert!(machine["cgroup"] == "v1" || machine["cgroup"] == "v2", "{machine}");
    // Really: its process is in a folder with the limits of its own.
    let pid = platform.workers_named("a")[0];
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = cgroups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let controllers = fields.nth(1)?;
        let path = fields.next()?.trim_start_matches('/');
        match (machine["cgroup"].as_str()?, controllers) {
            ("v2", "") => Some(format!("/sys/fs/cgroup/{path}/pids.max")),
            ("v1", "pids") => Some(format!("/sys/fs/cgroup/pids/{path}/pids.max")),
            _ => None,
        }
    });
    assert_eq!(std::fs::read_to_string(path.unwrap()).unwrap().trim(), "64", "{cgroups}");
    assert!(cgroups.contains("/cloister-launchers/"), "{cgroups}");
}

#[tokio::test]
async fn another_account_can_not_be_had() {
    let mut platform = Platform::prepare_unprivileged(config().set("", "user", "\"cloister\""), false);
    assert_eq!(platform.try_run().await.unwrap_err().code(), Some(7));
    assert!(platform.log().contains("only root can become another account"), "{}", platform.log());
}
