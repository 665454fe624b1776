//! The committed cost of a request: system calls by part of the hop, and instructions, which do not depend on the machine's speed.

use std::collections::BTreeMap;
use std::path::Path;

use crate::context::Failure;
use crate::cost;
use crate::instructions::INSTRUCTIONS;
use crate::report::Report;

/// What a part may cost more than the baseline says: batching depends a little on timing.
const TOLERANCE: f64 = 1.10;
/// And by this many calls a request, so that a part with hardly any is not judged by its noise.
const SLACK: f64 = 0.1;

/// System calls and instructions, by what of whom.
fn costs(report: &Report) -> BTreeMap<String, f64> {
    let of = |metric| {
        report.medians(cost::GROUP, metric).into_iter().map(move |(k, v)| (format!("{metric}, {k}"), v))
    };
    of(cost::CALLS).chain(of(INSTRUCTIONS)).collect()
}

/// Writes the run's costs.
pub(crate) fn write(report: &Report, path: &Path) -> Result<(), Failure> {
    let mut costs = costs(report);
    costs.retain(|name, _| name.contains("cloister"));
    costs.values_mut().for_each(|calls| *calls = (*calls * 100.0).round() / 100.0);
    if costs.is_empty() {
        return Err("nothing to write: the run has no costs of Cloister's parts (--group cost)".into());
    }
    std::fs::write(path, serde_json::to_string_pretty(&costs)? + "\n")?;
    Ok(())
}

/// Compares the run's costs with the file's.
pub(crate) fn check(report: &Report, path: &Path) -> Result<(), Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let baseline: BTreeMap<String, f64> = serde_json::from_str(&text)?;
    let worse = worse(&baseline, &costs(report));
    if worse.is_empty() {
        println!("no part costs more than {} says", path.display());
        return Ok(());
    }
    Err(format!("cost of a request, against {}:\n{}", path.display(), worse.join("\n")).into())
}

fn worse(baseline: &BTreeMap<String, f64>, now: &BTreeMap<String, f64>) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, before) in baseline {
        match now.get(name) {
            None => lines.push(format!("{name}: was {before}, not measured now")),
            Some(now) if *now > (before * TOLERANCE).max(before + SLACK) => {
                lines.push(format!("{name}: was {before}, is {now:.2}"));
            }
            Some(_) => {}
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_and_missing_are_worse() {
        let of = |list: &[(&str, f64)]| {
            list.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect::<BTreeMap<_, _>>()
        };
        let before = of(&[("a", 4.0), ("b", 0.02), ("c", 1.0)]);
        assert!(worse(&before, &of(&[("a", 4.3), ("b", 0.1), ("c", 0.5)])).is_empty());
        let worse = worse(&before, &of(&[("a", 4.5), ("b", 0.02)]));
        assert_eq!(worse.len(), 2);
    }
}
