//! The walls of a process in words.

use serde_json::Value;

use super::show::{cell, printable};

/// Every wall that was really raised, a line each.
pub(super) fn told(walls: &Value) -> String {
    let enforced = &walls["enforced"];
    if !enforced.is_object() {
        return format!("  {walls:#}\n");
    }
    let mut text = String::new();
    let mut line = |wall: &str, what: String| text.push_str(&format!("  {wall:14} {}\n", printable(&what)));
    line("host uid", cell(walls.get("uid")));
    line("namespaces", pairs(&enforced["namespaces"]));
    line("mounts", list(&enforced["mounts"], |mount| both(mount, "point", "options", " ")));
    line("landlock", landlock(&enforced["landlock"]));
    line("seccomp", list(&enforced["seccomp"], seccomp));
    line(
        "privilege",
        format!(
            "capabilities {}, no_new_privs {}, securebits {}",
            cell(enforced.get("capabilities")),
            cell(enforced.get("no_new_privs")),
            cell(enforced.get("securebits"))
        ),
    );
    line("mitigations", list(&enforced["mitigations"], |one| both(one, "name", "state", " ")));
    line("cgroup", list(&enforced["cgroup"], |limit| both(limit, "file", "value", "=")));
    line(
        "rlimits",
        list(&enforced["rlimits"], |limit| format!("{}={}", cell(limit.get(0)), cell(limit.get(1)))),
    );
    line("waived", cell(enforced.get("waived")));
    text
}

/// What the kernel said of a live process.
pub(super) fn confirmed(process: &Value) -> String {
    let disagreements = disagreements(process);
    let hidden = cell(process.pointer("/kernel/not_shown")).replace(',', ", ");
    if disagreements.is_empty() {
        return format!("  the kernel confirms them (it does not tell of {hidden})\n");
    }
    let lines: Vec<_> = disagreements.iter().map(|one| format!("    {}\n", cell(Some(one)))).collect();
    format!("  THE KERNEL DISAGREES:\n{}", lines.concat())
}

/// Where the kernel does not confirm what was promised. An answer without the kernel's word confirms nothing.
pub(super) fn disagreements(process: &Value) -> Vec<Value> {
    match process["disagreements"].as_array() {
        Some(list) => list.clone(),
        None => vec!["the answer has nothing of the kernel: a supervisor of another version?".into()],
    }
}

fn list(value: &Value, one: impl FnMut(&Value) -> String) -> String {
    let all: Vec<_> = value.as_array().map(Vec::as_slice).unwrap_or_default().iter().map(one).collect();
    if all.is_empty() { "-".to_owned() } else { all.join("; ") }
}

fn both(value: &Value, first: &str, second: &str, between: &str) -> String {
    format!("{}{between}{}", cell(value.get(first)), cell(value.get(second)))
}

fn pairs(value: &Value) -> String {
    let pair = |(name, value): (&String, &Value)| format!("{name} {}", cell(Some(value)));
    value.as_object().map(|map| map.iter().map(pair).collect::<Vec<_>>().join(", ")).unwrap_or_default()
}

fn seccomp(program: &Value) -> String {
    format!("{} instructions, sha256 {}", cell(program.get("instructions")), cell(program.get("sha256")))
}

fn landlock(value: &Value) -> String {
    if value.is_null() {
        return "waived".to_owned();
    }
    let mask = |key: &str| format!("{:#x}", value[key].as_u64().unwrap_or(0));
    format!(
        "ABI {}, rights: files {}, TCP {}, scopes {}; not known to this kernel: {}",
        cell(value.get("abi")),
        mask("fs"),
        mask("net"),
        mask("scopes"),
        match cell(value.get("lacks")).as_str() {
            "" => "nothing",
            lacks => lacks,
        }
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn walls_of_any_age_are_told() {
        let old = json!({"enforced": {"namespaces": ["user"], "seccomp": [100, 200], "mounts": ["/ ro"]}});
        for walls in [json!(null), json!({"landlock": 7}), old] {
            assert!(!told(&walls).is_empty());
        }
        let new = json!({"uid": 7, "enforced": {
            "namespaces": {"user": 1, "pid": 2},
            "landlock": {"abi": 7, "fs": 255, "net": 3, "scopes": 3, "lacks": []},
            "seccomp": [{"instructions": 5, "sha256": "ab"}],
            "cgroup": [{"file": "pids.max", "value": "64"}],
        }});
        let text = told(&new);
        for word in ["pid 2, user 1", "ABI 7", "nothing", "5 instructions, sha256 ab", "pids.max=64"] {
            assert!(text.contains(word), "no {word:?} in {text}");
        }
    }

    #[test]
    fn a_disagreement_is_loud() {
        assert!(confirmed(&json!({"disagreements": []})).contains("confirms"));
        for none in [json!({}), json!(null), json!({"disagreements": null})] {
            assert!(confirmed(&none).contains("DISAGREES") && !disagreements(&none).is_empty());
        }
        let text = confirmed(&json!({"disagreements": ["seccomp: promised 3 filters, seen \u{1b}[0m"]}));
        assert!(text.contains("DISAGREES") && text.contains("promised 3") && !text.contains('\u{1b}'));
    }
}
