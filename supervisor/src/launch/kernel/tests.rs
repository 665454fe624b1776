//! Every kind of lie is found, and the truth is not called one.

use cloister_ipc::launch::{
    CgroupLimit, CgroupMode, CgroupSpec, Enforced, KernelView, Machine, Mitigation, MitigationState,
    MountEnforced, NAMESPACES, SeccompEnforced, Wall,
};

use super::{Inspection, Walls};

const STATUS: &str = "Name:\tUid:\t0\t0\n\
Umask:\t0022\nState:\tS (sleeping)\nNSpid:\t4711\t1\nUid:\t300007\t300007\t300007\t300007\n\
Gid:\t300007\t300007\t300007\t300007\nGroups:\t \nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n\
Seccomp:\t2\nSeccomp_filters:\t3\nSpeculation_Store_Bypass:\tthread force mitigated\n\
SpeculationIndirectBranch:\tconditional force disabled\n";

const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units     \n\
Max cpu time              unlimited            unlimited            seconds   \n\
Max processes             64                   64                   processes \n\
Max open files            1023                 1023                 files     \n\
Max core file size        1                    1                    bytes     \n\
Max nice priority         0                    0                    \n";

const MOUNTS: &str = "\
90 80 0:40 / / ro,nosuid,noexec,relatime - tmpfs tmpfs rw,size=8192k,mode=755\n\
91 90 0:41 / /tmp rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=1024k,uid=300007\n\
92 90 0:42 / /app rw,nosuid,nodev,noexec - tmpfs tmpfs rw,size=1024k\n\
93 92 0:42 / /app ro,nosuid,nodev,noexec - tmpfs tmpfs rw,size=1024k\n\
94 90 8:1 /usr/lib /usr/lib ro,nosuid,nodev,relatime master:1 - ext4 /dev/sda1 rw\n";

fn promised() -> Walls {
    let on = |name: &str| Mitigation { name: name.into(), state: MitigationState::On };
    let limit = |file: &str, value: &str| CgroupLimit { file: file.into(), value: value.into() };
    let enforced = Enforced {
        namespaces: NAMESPACES.iter().map(|name| (*name).to_owned()).zip(101..).collect(),
        seccomp: vec![SeccompEnforced::default(); 3],
        no_new_privs: true,
        mitigations: ["unreadable-binary", "store-bypass", "indirect-branch", "core-scheduling"]
            .map(on)
            .to_vec(),
        rlimits: vec![("nproc".into(), 64), ("nofile".into(), 1023), ("nice".into(), 0), ("core".into(), 1)],
        mounts: vec![
            MountEnforced::new("/", "ro,nosuid,noexec"),
            MountEnforced::new("/usr/lib", "ro,nosuid,nodev"),
            MountEnforced::new("/tmp", "rw,nosuid,nodev,noexec,size=1024k"),
            MountEnforced::new("/app", "rw,nosuid,nodev,noexec,size=1024k"),
            MountEnforced::new("/app", "ro,nosuid,nodev,noexec"),
        ],
        cgroup: vec![limit("memory.max", "67108864"), limit("pids.max", "64")],
        ..Enforced::default()
    };
    Walls {
        pid: 4711,
        uid: 300_007,
        machine: Machine {
            memory_folder: None,
            landlock_abi: 7,
            landlock_lacks: Vec::new(),
            cgroup: CgroupMode::V2,
            own_uid: true,
        },
        enforced,
        cgroup: CgroupSpec { memory_bytes: 64 << 20, pids: 64, cpu_percent: 100, cpu_weight: 100 },
        tmp_bytes: 1 << 20,
    }
}

fn view() -> KernelView {
    KernelView {
        status: STATUS.into(),
        limits: LIMITS.into(),
        mountinfo: MOUNTS.into(),
        cgroup: "0::/system.slice/cloister-launchers/cloister.5.6/9\n".into(),
        namespaces: (101..108).collect(),
        launcher_namespaces: (1..8).collect(),
        cgroup_folder: Some("cloister-launchers/cloister.5.6/9".into()),
        cgroup_limits: promised().enforced.cgroup,
        uid: 300_007,
        proc_owner: 0,
        core_cookie: Some(0xabc),
    }
}

#[test]
fn the_truth_is_believed() {
    let agreed = Inspection::new(&promised(), &view());
    assert_eq!(agreed.disagreements, Vec::<String>::new());
    assert_eq!(agreed.kernel.unwrap().status["Uid"], "300007 300007 300007 300007");
}

#[test]
fn what_a_process_may_change_by_itself_is_no_lie() {
    let mut stricter = view();
    stricter.status = stricter.status.replace("Seccomp_filters:\t3", "Seccomp_filters:\t4");
    stricter.limits = stricter.limits.replace("1023 ", "100  ");
    assert_eq!(Inspection::new(&promised(), &stricter).disagreements, Vec::<String>::new());
}

/// Which text, what of it, what instead.
type Lie = (fn(&mut KernelView) -> &mut String, &'static str, &'static str);

#[test]
fn every_altered_text_is_found_and_named() {
    let status: fn(&mut KernelView) -> &mut String = |view| &mut view.status;
    let mounts: fn(&mut KernelView) -> &mut String = |view| &mut view.mountinfo;
    let limits: fn(&mut KernelView) -> &mut String = |view| &mut view.limits;
    let cgroup: fn(&mut KernelView) -> &mut String = |view| &mut view.cgroup;
    let lies: [(Lie, Wall, &str); 30] = [
        ((status, "Uid:\t300007\t300007", "Uid:\t300007\t0"), Wall::OwnUid, "300007 0 300007"),
        ((status, "Gid:\t300007", "Gid:\t0"), Wall::OwnUid, "\"0 300007"),
        ((status, "Groups:\t ", "Groups:\t0 27 "), Wall::OwnUid, "0 27"),
        ((status, "CapInh:\t0000000000000000", "CapInh:\t0000000000000001"), Wall::Privilege, "CapInh"),
        ((status, "CapPrm:\t0000000000000000", "CapPrm:\t0000000000000400"), Wall::Privilege, "CapPrm"),
        ((status, "CapEff:\t0000000000000000", "CapEff:\t000001ffffffffff"), Wall::Privilege, "1ffffffffff"),
        ((status, "CapBnd:\t0000000000000000", "CapBnd:\t0000000000200000"), Wall::Privilege, "CapBnd"),
        ((status, "CapAmb:\t0000000000000000", "CapAmb:\t0000000000200000"), Wall::Privilege, "CapAmb"),
        ((status, "CapEff:\t0000000000000000\n", ""), Wall::Privilege, "seen \"nothing\""),
        ((status, "NoNewPrivs:\t1", "NoNewPrivs:\t0"), Wall::Privilege, "NoNewPrivs \"1\", seen \"0\""),
        ((status, "Seccomp:\t2", "Seccomp:\t0"), Wall::Seccomp, "seen \"0\""),
        ((status, "Seccomp_filters:\t3", "Seccomp_filters:\t2"), Wall::Seccomp, "3 filters, seen 2"),
        ((status, "Seccomp_filters:\t3\n", ""), Wall::Seccomp, "seen nothing"),
        ((status, "NSpid:\t4711\t1", "NSpid:\t4711"), Wall::Namespaces, "4711"),
        ((status, "NSpid:\t4711\t1", "NSpid:\t4711\t11"), Wall::Namespaces, "4711 11"),
        ((status, "thread force mitigated", "thread vulnerable"), Wall::Speculation, "thread vulnerable"),
        ((status, "conditional force disabled", "always enabled"), Wall::Speculation, "always enabled"),
        ((mounts, " / / ro,", " / / rw,"), Wall::Root, "/ with ro,nosuid,noexec, seen rw"),
        ((mounts, "/tmp rw,nosuid,nodev,noexec,", "/tmp rw,nosuid,nodev,"), Wall::Root, "/tmp with"),
        ((mounts, "size=1024k,uid", "size=4096k,uid"), Wall::Root, "size=4096k"),
        ((mounts, "93 92 0:42 / /app ro,", "93 92 0:42 / /app rw,"), Wall::Root, "/app with ro"),
        ((mounts, "93 92 0:42 / /app ro", "93 92 0:42 / /proc ro"), Wall::Root, "no such mount, seen /proc"),
        ((mounts, "94 90 8:1 /usr/lib", "garbage 94 90"), Wall::Root, "1 mounts at /usr/lib, seen 0"),
        (
            (limits, "1023                 1023", "1023                 4096"),
            Wall::Rlimits,
            "1023, seen 4096",
        ),
        ((limits, "64                   64", "64                   unlimited"), Wall::Rlimits, "unlimited"),
        (
            (limits, "1                    1 ", "1                    0 "),
            Wall::Rlimits,
            "core exactly 1, seen 0",
        ),
        ((limits, "Max open files", "Max closed files"), Wall::Rlimits, "nofile at most 1023, seen nothing"),
        ((cgroup, "/9\n", "/8\n"), Wall::Cgroup, "cloister.5.6/8"),
        ((cgroup, "0::/system", "7:cpu:/system"), Wall::Cgroup, "memory bounded"),
        ((cgroup, "/cloister-launchers/cloister.5.6/9", "/"), Wall::Cgroup, "seen /system.slice/"),
    ];
    for ((text, from, to), wall, words) in lies {
        let mut altered = view();
        let text = text(&mut altered);
        assert!(text.contains(from), "{from:?} is not in {text}");
        *text = text.replacen(from, to, 1);
        found(&Inspection::new(&promised(), &altered), wall, words);
    }
}

type Change = fn(&mut KernelView);

#[test]
fn every_altered_number_is_found_and_named() {
    let lies: [(Change, Wall, &str); 9] = [
        (|view| view.uid = 5, Wall::OwnUid, "uid 300007, seen uid 5"),
        (|view| view.proc_owner = 300_007, Wall::Privilege, "not dumpable"),
        (|view| view.namespaces[3] = 999, Wall::Namespaces, "net namespace 104, seen 999"),
        (|view| view.launcher_namespaces[0] = 101, Wall::Namespaces, "user namespace of its own"),
        (|view| view.namespaces.truncate(2), Wall::Namespaces, "cgroup namespace 107, seen nothing"),
        (|view| view.cgroup_limits[0].value = "max".into(), Wall::Cgroup, "memory.max = 67108864, seen max"),
        (|view| view.cgroup_limits.truncate(1), Wall::Cgroup, "pids.max = 64, seen nothing"),
        (|view| view.cgroup_folder = None, Wall::Cgroup, "a folder of its own"),
        (|view| view.core_cookie = Some(0), Wall::CoreScheduling, "a cookie, seen none"),
    ];
    for (lie, wall, words) in lies {
        let mut altered = view();
        lie(&mut altered);
        found(&Inspection::new(&promised(), &altered), wall, words);
    }
}

#[test]
fn limits_that_nobody_wrote_are_no_limits() {
    let mut walls = promised();
    walls.enforced.cgroup.clear();
    found(&Inspection::new(&walls, &view()), Wall::Cgroup, "none written");
}

#[test]
fn what_is_waived_is_not_missed() {
    let (mut walls, mut seen) = (promised(), view());
    walls.machine.cgroup = CgroupMode::None;
    walls.machine.own_uid = false;
    walls.enforced.cgroup.clear();
    walls.enforced.mitigations.clear();
    seen.cgroup = "0::/\n".into();
    (seen.cgroup_folder, seen.core_cookie) = (None, None);
    seen.status = seen.status.replace("Groups:\t ", "Groups:\t27 ");
    assert_eq!(Inspection::new(&walls, &seen).disagreements, Vec::<String>::new());
}

#[track_caller]
fn found(inspection: &Inspection, wall: Wall, words: &str) {
    let all = &inspection.disagreements;
    let right =
        |one: &&String| one.starts_with(wall.name()) && one.contains(words) && one.contains(", seen ");
    assert!(all.iter().any(|one| right(&one)), "no {words:?} about {wall} in {all:#?}");
}
