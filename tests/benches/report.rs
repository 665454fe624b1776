//! The figures of a run, as a table for people and as JSON for programs.

use std::collections::BTreeMap;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::context::{Context, Failure};
use crate::machine::{self, Machine};
use crate::stats::{self, Summary};

/// One figure of one contestant in one case, over all rounds.
#[derive(Debug, Serialize)]
struct Series {
    group: &'static str,
    case: String,
    contestant: String,
    metric: &'static str,
    /// In the order of the rounds: value `i` of two contestants was taken in the same round.
    values: Vec<f64>,
    summary: Option<Summary>,
    /// By reference contestant: the paired ratio to it.
    ratios: BTreeMap<String, Summary>,
}

/// A measurement's place: which part, which case, who, and what with its unit (`req/s`, `p50 µs`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key<'a> {
    pub(crate) group: &'static str,
    pub(crate) case: &'a str,
    pub(crate) contestant: &'a str,
    pub(crate) metric: &'static str,
}

/// Who or what was left out, and why.
#[derive(Debug, Serialize)]
struct Skipped {
    what: String,
    why: String,
}

/// One of the figures the project wants to reach, judged by this run.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) wanted: String,
    pub(crate) got: String,
    /// `None`: this run has no figures for it.
    pub(crate) reached: Option<bool>,
}

/// All that a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    command: String,
    started_unix_s: u64,
    quick: bool,
    /// Only some parts or contestants were asked for.
    pub(crate) partial: bool,
    machine: Machine,
    versions: BTreeMap<String, String>,
    skipped: Vec<Skipped>,
    goals: Vec<Goal>,
    notes: Vec<String>,
    series: Vec<Series>,
}

impl Report {
    pub(crate) fn new(context: &Context) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let report = Self {
            command: std::env::args().collect::<Vec<_>>().join(" "),
            started_unix_s: now.map_or(0, |d| d.as_secs()),
            quick: context.options.quick,
            partial: !(context.options.groups.is_empty() && context.options.only.is_empty()),
            machine: Machine::read(),
            versions: machine::versions(context),
            skipped: Vec::new(),
            goals: Vec::new(),
            notes: Vec::new(),
            series: Vec::new(),
        };
        eprintln!("{}", report.machine.line());
        report
    }

    /// Notes that something was left out.
    pub(crate) fn skip(&mut self, what: &str, why: &str) {
        eprintln!("SKIPPED: {what}: {why}");
        if !self.skipped.iter().any(|s| s.what == what) {
            self.skipped.push(Skipped { what: what.into(), why: why.into() });
        }
    }

    /// Adds a value.
    pub(crate) fn add(&mut self, key: Key<'_>, value: f64) {
        let found = self.series.iter_mut().find(|s| {
            s.group == key.group
                && s.case == key.case
                && s.contestant == key.contestant
                && s.metric == key.metric
        });
        if let Some(series) = found {
            series.values.push(value);
            return;
        }
        self.series.push(Series {
            group: key.group,
            case: key.case.into(),
            contestant: key.contestant.into(),
            metric: key.metric,
            values: vec![value],
            summary: None,
            ratios: BTreeMap::new(),
        });
    }

    /// The values of a series, empty when there is none.
    pub(crate) fn values(&self, key: Key<'_>) -> &[f64] {
        let found = self.series.iter().find(|s| {
            s.group == key.group
                && s.case == key.case
                && s.contestant == key.contestant
                && s.metric == key.metric
        });
        found.map_or(&[], |series| &series.values)
    }

    /// Every series of a metric: `case: contestant` and its median.
    pub(crate) fn medians(&self, group: &str, metric: &str) -> BTreeMap<String, f64> {
        let series = self.series.iter().filter(|s| s.group == group && s.metric == metric);
        series
            .filter_map(|s| {
                Some((format!("{}: {}", s.case, s.contestant), stats::summary(&s.values)?.median))
            })
            .collect()
    }

    /// Fills in, for every series of `metric` in `group`, the ratio to each of `references`.
    pub(crate) fn compare(&mut self, group: &'static str, metric: &'static str, references: &[&str]) {
        for reference in references {
            let cases: BTreeMap<String, Vec<f64>> = self
                .series
                .iter()
                .filter(|s| s.group == group && s.metric == metric && s.contestant == *reference)
                .map(|s| (s.case.clone(), s.values.clone()))
                .collect();
            for series in self.series.iter_mut().filter(|s| s.group == group && s.metric == metric) {
                let Some(values) = cases.get(&series.case) else { continue };
                if let Some(ratio) = stats::ratio(&series.values, values) {
                    series.ratios.insert((*reference).into(), ratio);
                }
            }
        }
    }

    /// Adds a line of detail, printed below the tables.
    pub(crate) fn note(&mut self, line: &str) {
        self.notes.push(line.into());
    }

    /// Adds a verdict.
    pub(crate) fn goal(&mut self, goal: Goal) {
        self.goals.push(goal);
    }

    /// Writes the JSON.
    pub(crate) fn save(&mut self, path: &Path) -> Result<(), Failure> {
        for series in &mut self.series {
            series.summary = stats::summary(&series.values);
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    /// Prints the tables.
    pub(crate) fn print(&self) {
        println!("machine: {}", self.machine.line());
        for (program, version) in &self.versions {
            println!("  {program}: {version}");
        }
        println!("command: {}", self.command);
        println!("cells: median (min – max) over the rounds; ratios are paired by round\n");
        let mut cases: Vec<(&str, &str)> = Vec::new();
        for series in &self.series {
            if !cases.contains(&(series.group, &series.case)) {
                cases.push((series.group, &series.case));
            }
        }
        for (group, case) in cases {
            println!("{}\n", self.table(group, case));
        }
        if !self.goals.is_empty() {
            println!("{}\n", self.goals_table());
        }
        for note in &self.notes {
            println!("{note}");
        }
        for skipped in &self.skipped {
            let first = skipped.why.lines().next().unwrap_or_default();
            println!("SKIPPED: {}: {first}", skipped.what);
        }
    }

    fn table(&self, group: &str, case: &str) -> Table {
        let series: Vec<&Series> =
            self.series.iter().filter(|s| s.group == group && s.case == case).collect();
        let (mut rows, mut columns, mut references) = (Vec::new(), Vec::new(), Vec::new());
        for s in &series {
            push_new(&mut rows, s.contestant.as_str());
            push_new(&mut columns, s.metric);
            s.ratios.keys().for_each(|r| push_new(&mut references, (s.metric, r.as_str())));
        }
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        let mut header = vec![format!("{group}: {case}")];
        header.extend(columns.iter().map(ToString::to_string));
        header.extend(references.iter().map(|(metric, reference)| format!("{metric} ÷ {reference}")));
        table.set_header(header);
        for row in rows {
            let of = |metric: &str| series.iter().find(|s| s.contestant == row && s.metric == metric);
            let mut cells = vec![row.to_owned()];
            for metric in &columns {
                cells.push(
                    of(metric).and_then(|s| stats::summary(&s.values)).map_or("-".into(), |s| spread(&s)),
                );
            }
            for (metric, reference) in &references {
                let ratio = of(metric).and_then(|s| s.ratios.get(*reference));
                cells.push(
                    ratio.map_or("-".into(), |r| format!("{:.2} ({:.2} – {:.2})", r.median, r.min, r.max)),
                );
            }
            table.add_row(cells);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    fn goals_table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header(["goal", "wanted", "got", ""]);
        for goal in &self.goals {
            let verdict = match goal.reached {
                Some(true) => "reached",
                Some(false) => "MISSED",
                None => "?",
            };
            table.add_row([goal.what.as_str(), &goal.wanted, &goal.got, verdict]);
        }
        table
    }
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// `median (min – max)`; for long series `median, p99 (min – max)`.
fn spread(s: &Summary) -> String {
    let range = format!("({} – {})", short(s.min), short(s.max));
    if s.n >= 20 {
        format!("{}, p99 {} {range}", short(s.median), short(s.p99))
    } else {
        format!("{} {range}", short(s.median))
    }
}

/// A value with as many digits as mean something.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
