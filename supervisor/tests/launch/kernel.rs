//! What is reported of a process against what the kernel says of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cloister_supervisor::launch::CgroupMode;
use cloister_supervisor::registry::{Allow, Contract, Digest, Files, Linkage};

use crate::{Bench, deployed, probe};

#[tokio::test]
async fn the_kernel_sees_the_walls_that_are_reported() {
    let bench = Bench::start(0);
    let process = bench.launcher.start(&Arc::new(deployed(Contract::Http, "spin"))).await.unwrap();
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", process.pid())).unwrap();
    let walls = process.walls();
    let status = read("status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), vec![walls.uid.to_string(); 4]);
    assert_eq!(field("Gid:"), vec![walls.uid.to_string(); 4]);
    assert!(field("Groups:").is_empty());
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), (vec!["1".into()], vec!["2".into()]));
    assert_eq!(field("Seccomp_filters:"), [walls.enforced.seccomp.len().to_string()]);
    assert_eq!(field("NSpid:").last().map(String::as_str), Some("1"));
    assert_eq!((field("SigBlk:"), field("SigIgn:")), (vec!["0".repeat(16)], vec!["0".repeat(16)]));
    assert_eq!(walls.enforced.namespaces.len(), 7);
    for (name, id) in &walls.enforced.namespaces {
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        let own = of(&process.pid().to_string());
        assert_eq!(own.to_str().unwrap(), format!("{name}:[{id}]"));
        assert_ne!(own, of("self"), "{name}");
    }
    let mounts = read("mountinfo");
    assert_eq!(mounts.lines().count(), 2, "{mounts}");
    for controller in ["memory", "pids", "cpu"] {
        let cgroups = read("cgroup");
        let inside = cgroups.lines().any(|line| {
            let controllers = line.split(':').nth(1).unwrap_or_default();
            let unified = controllers.is_empty() && walls.machine.cgroup == CgroupMode::V2;
            (unified || controllers.split(',').any(|name| name == controller)) && line.contains("/cloister.")
        });
        assert!(inside, "{controller}: {cgroups}");
    }
    let limits = read("limits");
    for (name, value) in [("Max open files", 1023), ("Max core file size", 1), ("Max processes", 64)] {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let values: Vec<u64> = line.split_whitespace().take(2).map(|text| text.parse().unwrap()).collect();
        assert_eq!(values, [value, value], "{name}");
    }
    let landlock = walls.enforced.landlock.as_ref().unwrap();
    assert!(landlock.full && landlock.abi > 0 && landlock.fs != 0);
    for program in &walls.enforced.seccomp {
        assert!(program.instructions > 10 && program.sha256.len() == 64, "{program:?}");
    }
    let limit = |file: &str| walls.enforced.cgroup.iter().find(|limit| limit.file == file);
    assert_eq!(limit("pids.max").unwrap().value, "64");
    let memory = limit("memory.max").or_else(|| limit("memory.limit_in_bytes")).unwrap();
    assert_eq!(memory.value, (64u64 << 20).to_string());
    println!("{}", serde_json::to_string_pretty(walls).unwrap());
    drop(process);
    bench.end().await;
}

/// Every kind of root, both contracts: the kernel confirms what was promised; and a limit that is
/// changed behind the launcher's back is told.
#[tokio::test]
async fn the_kernel_confirms_every_shape_of_worker() {
    let bench = Bench::start(0);
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("files.tar");
    let tar = ["tar", "--format=ustar", "-T", "/dev/null", "-cf"];
    assert!(Command::new(tar[0]).args(&tar[1..]).arg(&archive).status().unwrap().success());
    let digest = Digest::parse(&"1".repeat(64)).unwrap();
    for (contract, dynamic, proc, files) in [
        (Contract::Http, false, false, false),
        (Contract::Ipc, false, false, false),
        (Contract::Http, true, true, true),
        (Contract::Ipc, false, true, false),
        (Contract::Http, false, false, true),
    ] {
        let mut worker = deployed(contract, "spin");
        if dynamic {
            worker.binary = probe(false);
            worker.linkage = Linkage::Dynamic { interpreter: "/lib64/ld-linux-x86-64.so.2".into() };
        }
        if proc {
            worker.allow.insert(Allow::Proc);
        }
        worker.files = files.then(|| Files { digest: digest.clone(), path: archive.clone(), bytes: 4096 });
        let process = bench.launcher.start(&Arc::new(worker)).await.unwrap();
        let seen = process.inspect().await.unwrap();
        assert_eq!(seen.disagreements, Vec::<String>::new(), "{seen:#?}");
        let kernel = seen.kernel.unwrap();
        let shown = std::fs::read_to_string(format!("/proc/{}/mountinfo", process.pid())).unwrap();
        assert_eq!(kernel.mounts.len(), shown.lines().count());
        assert_eq!(kernel.status["NSpid"], format!("{} 1", process.pid()));

        let pids = cgroup_file(process.pid(), "pids", "pids.max");
        std::fs::write(&pids, "65").unwrap();
        let seen = process.inspect().await.unwrap();
        assert_eq!(seen.disagreements, ["cgroup: promised pids.max = 64, seen 65"], "{}", pids.display());
        process.kill();
        process.exited().await;
        assert!(process.inspect().await.is_none(), "it is over");
    }
    bench.end().await;
}

/// A file of the cgroup of a process that bounds what `controller` says.
fn cgroup_file(pid: i32, controller: &str, file: &str) -> PathBuf {
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let of_it = controllers.split(',').any(|name| name == controller) || own.lines().count() == 1;
        of_it.then(|| path.trim_start_matches('/').to_owned())
    });
    let path = path.unwrap();
    let roots = ["", controller, "unified"].map(|name| Path::new("/sys/fs/cgroup").join(name));
    let found = roots.iter().map(|root| root.join(&path).join(file)).find(|path| path.exists());
    found.expect("a file of this limit")
}

/// A process of ours that enters a Worker's user namespace finds that it may hold no further one:
/// what stops whoever gets past seccomp.
#[tokio::test]
async fn no_user_namespace_can_be_made_inside_even_without_seccomp() {
    let bench = Bench::start(0);
    let process = bench.launcher.start(&Arc::new(deployed(Contract::Http, "spin"))).await.unwrap();
    let enter = |command: &[&str]| {
        let pid = process.pid().to_string();
        let all = ["--user", "--preserve-credentials", "--target", &pid];
        let output = Command::new("nsenter").args(all).args(command).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).trim().to_owned())
    };
    let file = "/proc/sys/user/max_user_namespaces";
    assert_eq!(enter(&["cat", file]), (true, "0".into()));
    assert_ne!(std::fs::read_to_string(file).unwrap().trim(), "0", "outside it is as it was");
    let (made, why) = enter(&["unshare", "--user", "true"]);
    assert!(!made && why.contains("No space left on device"), "{why}");
    drop(process);
    bench.end().await;
}
