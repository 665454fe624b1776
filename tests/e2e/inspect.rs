//! `cloister worker inspect` against what this test reads of the same process as root.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cloister_tests::Platform;
use serde_json::{Value, json};

use crate::{platform, server, worker};

fn read(pid: i64, name: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap()
}

fn status(pid: i64) -> BTreeMap<String, String> {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let status = read(pid, "status");
    let fields = status.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), words(value))).collect()
}

/// The only live process of a Worker, as the command tells it; the command must succeed.
async fn inspected(platform: &Platform, name: &str) -> Value {
    let said = platform.cli(["--json", "worker", "inspect", name, "-n", "production"]).await.ok().json();
    let processes = said["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 1, "{said:#}");
    processes[0].clone()
}

/// Everything that is told holds, by this test's own eyes.
fn verify(process: &Value) {
    assert_eq!(process["disagreements"], json!([]), "{process:#}");
    let pid = process["pid"].as_i64().unwrap();
    let (kernel, walls) = (&process["kernel"], &process["walls"]);
    let enforced = &walls["enforced"];
    let own = status(pid);
    for (field, seen) in kernel["status"].as_object().unwrap() {
        assert_eq!(seen.as_str(), own.get(field).map(String::as_str), "{field}");
    }
    assert_eq!(kernel["status"]["Uid"], json!([walls["uid"].to_string().as_str(); 4].join(" ")));
    assert_eq!(own["CapEff"], "0000000000000000");
    let filters = enforced["seccomp"].as_array().unwrap();
    assert_eq!((filters.len().to_string(), "2"), (own["Seccomp_filters"].clone(), own["Seccomp"].as_str()));
    for filter in filters {
        let sha256 = filter["sha256"].as_str().unwrap();
        assert!(sha256.len() == 64 && filter["instructions"].as_u64().unwrap() > 10, "{filter}");
    }
    let namespaces = enforced["namespaces"].as_object().unwrap();
    assert_eq!(namespaces.len(), 7);
    for (name, id) in namespaces {
        let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_eq!(link(&pid.to_string()).to_str().unwrap(), format!("{name}:[{id}]"));
        assert_ne!(link(&pid.to_string()), link("self"));
        assert_eq!(&kernel["namespaces"][name], id);
    }
    let points = |mounts: &Value| {
        let mounts = mounts.as_array().unwrap().iter();
        let mut points: Vec<_> = mounts.map(|mount| mount["point"].as_str().unwrap().to_owned()).collect();
        points.sort();
        points
    };
    let mut seen: Vec<_> =
        read(pid, "mountinfo").lines().map(|line| line.split(' ').nth(4).unwrap().to_owned()).collect();
    seen.sort();
    assert_eq!((points(&kernel["mounts"]), points(&enforced["mounts"])), (seen.clone(), seen));
    let (file, value) = pids_limit(pid);
    let told = |limits: &Value| {
        let limits = limits.as_array().unwrap().iter();
        limits.filter(|limit| limit["file"] == "pids.max").map(|limit| limit["value"].clone()).next()
    };
    assert_eq!(told(&kernel["cgroup_limits"]), Some(json!(value)), "{}", file.display());
    assert_eq!(told(&enforced["cgroup"]), Some(json!(value)));
    assert!(enforced["landlock"]["abi"].as_i64().unwrap() > 0 && enforced["landlock"]["lacks"].is_array());
}

/// The file that bounds the number of tasks of a process, and what it says.
fn pids_limit(pid: i64) -> (PathBuf, String) {
    let cgroups = read(pid, "cgroup");
    let own = cgroups.lines().find_map(|line| line.split_once(":pids:").map(|(_, path)| ("pids", path)));
    let unified = || cgroups.lines().find_map(|line| Some(("", line.strip_prefix("0::")?)));
    let (folder, path) = own.or_else(unified).unwrap();
    let file = PathBuf::from(format!("/sys/fs/cgroup/{folder}{path}/pids.max"));
    let value = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    (file, value)
}

#[tokio::test]
async fn what_is_told_of_a_live_worker_is_what_the_kernel_says() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    worker("b").deploy(&platform).await;
    for name in ["a", "b"] {
        platform.http().get(&format!("http://{name}.test/")).await.expect(200);
        let process = inspected(&platform, name).await;
        assert_eq!(platform.workers_named(name), [i32::try_from(process["pid"].as_i64().unwrap()).unwrap()]);
        verify(&process);
        let text = platform.cli(["worker", "inspect", name, "-n", "production"]).await.ok().out;
        for words in ["the kernel confirms them", "sha256", "pids.max=", "ABI"] {
            assert!(text.contains(words), "no {words:?} in {text}");
        }
        assert!(!text.contains("DISAGREES"), "{text}");
    }
    let one = platform.cli(["--json", "worker", "versions", "a", "-n", "production"]).await.ok().json();
    let kept = &one[0]["walls"]["enforced"];
    assert!(kept["seccomp"][2]["sha256"].is_string() && kept["namespaces"]["net"].is_u64(), "{one:#}");
    assert!(!kept["cgroup"].as_array().unwrap().is_empty() && kept["landlock"]["fs"].is_u64(), "{one:#}");
}

/// Root changes a limit behind the platform's back: it is told, loudly, with a status of its own.
#[tokio::test]
async fn a_wall_that_is_not_as_promised_is_told() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    platform.http().get("http://a.test/").await.expect(200);
    let process = inspected(&platform, "a").await;
    let (file, value) = pids_limit(process["pid"].as_i64().unwrap());
    std::fs::write(&file, "max").unwrap();
    let sentence = format!("cgroup: promised pids.max = {value}, seen max");
    let said = platform.cli(["--json", "worker", "inspect", "a", "-n", "production"]).await;
    assert_eq!(said.status.code(), Some(12), "{}{}", said.out, said.err);
    assert_eq!(said.json()["processes"][0]["disagreements"], json!([sentence]));
    let said = platform.cli(["worker", "inspect", "a", "-n", "production"]).await;
    assert_eq!(said.status.code(), Some(12));
    assert!(said.out.contains("THE KERNEL DISAGREES") && said.out.contains(&sentence), "{}", said.out);
    assert!(said.err.contains("does not confirm 1 "), "{}", said.err);
}
