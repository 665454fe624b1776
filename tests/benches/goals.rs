//! The figures the project wants to reach, judged by what this run measured. A goal whose figures are missing
//! is not judged, and said to be.

use crate::contestants::{self, cloister, workerd};
use crate::report::{Goal, Key, Report};
use crate::stats::{self, Summary};
use crate::{cold, density, egress, registry, warm};

/// A comparison of two contestants in one case.
struct Versus {
    what: &'static str,
    group: &'static str,
    case: String,
    metric: &'static str,
    ours: &'static str,
    theirs: &'static str,
    wanted: Wanted,
}

#[derive(Clone, Copy)]
enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

impl Wanted {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::AtLeast(limit) => format!("at least {limit}{unit}"),
            Self::AtMost(limit) => format!("at most {limit}{unit}"),
        }
    }
}

/// Judges all goals.
pub(crate) fn judge(report: &mut Report) {
    for versus in comparisons() {
        let key =
            |contestant| Key { group: versus.group, case: &versus.case, contestant, metric: versus.metric };
        let ratio = stats::ratio(report.values(key(versus.ours)), report.values(key(versus.theirs)));
        let what = format!("{}: {} ÷ {}", versus.what, versus.ours, versus.theirs);
        add(report, what, versus.wanted, " ×", ratio.map(|r| r.median));
    }
    for (metric, pick) in
        [("p50", (|s: &Summary| s.median) as fn(&Summary) -> f64), ("p99", |s: &Summary| s.p99)]
    {
        let key = Key {
            group: cold::GROUP,
            case: cold::ALONE,
            contestant: cold::BLANK_STATIC_SDK,
            metric: cold::FIRST_BYTE,
        };
        let limit = if metric == "p50" { 2_000.0 } else { 5_000.0 };
        let value = stats::summary(report.values(key)).as_ref().map(pick);
        let what = format!("cold start to the first byte, {metric}: {}", cold::BLANK_STATIC_SDK);
        add(report, what, Wanted::AtMost(limit), " µs", value);
    }
    let most = [10_000, 5_000, 1_000, 100].into_iter().find_map(|count| {
        let case = density::case(count);
        let key =
            Key { group: density::GROUP, case: &case, contestant: density::PLATFORM, metric: density::TOTAL };
        stats::summary(report.values(key)).map(|s| (count, s.median))
    });
    let what = format!("memory of an idle Worker, {} live", most.map_or(0, |(count, _)| count));
    add(report, what, Wanted::AtMost(512.0), " KiB", most.map(|(_, kib)| kib));
    let rates: Vec<f64> = [10, 100_000]
        .iter()
        .filter_map(|count| {
            let case = registry::case(*count);
            let key = Key {
                group: registry::GROUP,
                case: &case,
                contestant: registry::NAME,
                metric: registry::RATE,
            };
            stats::summary(report.values(key)).map(|s| s.median)
        })
        .collect();
    let flat = if let [few, many] = rates.as_slice() { Some(many / few) } else { None };
    add(report, "requests a second with 100,000 deployed ÷ with 10".into(), Wanted::AtLeast(0.9), " ×", flat);
}

fn comparisons() -> Vec<Versus> {
    let warm = |what, metric, cell: crate::load::Cell, ours, theirs, wanted| Versus {
        what,
        group: warm::GROUP,
        case: cell.name(),
        metric,
        ours,
        theirs,
        wanted,
    };
    let (hop, bare) = (contestants::HOP, contestants::BARE);
    let (least, most) = (Wanted::AtLeast, Wanted::AtMost);
    let egress = |theirs, wanted| Versus {
        what: "egress filter",
        group: egress::GROUP,
        case: egress::case(32),
        metric: egress::RATE,
        ours: egress::CLOISTER,
        theirs,
        wanted,
    };
    vec![
        warm("one hop", warm::RATE, warm::MAIN, cloister::ROUTE_IPC, hop, least(1.4)),
        warm("one hop, moonshot", warm::RATE, warm::MAIN, cloister::ROUTE_IPC, bare, least(0.9)),
        warm("dispatch", warm::RATE, warm::MAIN, cloister::TAIL, workerd::DISPATCH, least(4.0)),
        warm("dispatch", warm::RATE, warm::MAIN, cloister::TAIL, hop, least(1.0)),
        warm("dispatch, moonshot", warm::RATE, warm::MAIN, cloister::TAIL, bare, least(0.6)),
        warm("p50 at 1 connection", warm::MEDIAN, warm::ALONE, cloister::ROUTE_IPC, hop, most(1.0)),
        egress(egress::SQUID, least(2.0)),
        egress(egress::TINYPROXY, least(2.0)),
        egress(egress::NGINX, least(1.0)),
    ]
}

fn add(report: &mut Report, what: String, wanted: Wanted, unit: &str, got: Option<f64>) {
    let (text, reached) = match got {
        Some(value) => (format!("{}{unit}", crate::report::short(value)), Some(wanted.holds(value))),
        // Of a partial run nobody wants to read what it left out.
        None if report.partial => return,
        None => ("not measured in this run".into(), None),
    };
    report.goal(Goal { what, wanted: wanted.text(unit), got: text, reached });
}
