//! The results as Markdown for people and JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::bench::Round;
use crate::machine::Machine;
use crate::rows::{Bound, Row, Unit};
use crate::stats::{Five, median};

/// All results.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    pub(crate) quick: bool,
    pub(crate) rows: Vec<RowResult>,
    /// The median over the rounds of each value that was measured, by `CONFIGURATION/WHAT`.
    pub(crate) measured: BTreeMap<String, f64>,
    pub(crate) notes: Vec<String>,
}

/// One row's results.
#[derive(Debug, Serialize)]
pub(crate) struct RowResult {
    name: &'static str,
    what: &'static str,
    unit: Unit,
    /// One value for each round that gave one.
    values: Vec<f64>,
    summary: Option<Five>,
    bound: Option<Bound>,
    held: Option<bool>,
    /// Why there are no values.
    missing: Option<String>,
}

impl RowResult {
    /// `failures`: the configurations that could not be measured, and why.
    pub(crate) fn new(row: &Row, rounds: &[Round], failures: &BTreeMap<&'static str, String>) -> Self {
        let values: Vec<f64> = rounds.iter().filter_map(|round| row.value(round)).filter(|v| v.is_finite()).collect();
        let summary = Five::of(&values);
        let held = row.bound.zip(summary).map(|(bound, summary)| bound.holds(summary.median));
        let missing = summary.is_none().then(|| {
            let failed = row.needs.iter().find_map(|need| failures.get_key_value(need));
            failed.map_or_else(
                || "noise: no round left a positive cost to divide by".to_owned(),
                |(name, why)| format!("{name}: {why}"),
            )
        });
        Self { name: row.name, what: row.what, unit: row.unit, values, summary, bound: row.bound, held, missing }
    }
}

impl RowResult {
    /// Whether another run may well judge otherwise: the bound lies between the quartiles, or the cost is none at all.
    fn is_noise(&self) -> bool {
        let (Some(bound), Some(summary)) = (self.bound, self.summary) else { return false };
        bound.holds(summary.q1) != bound.holds(summary.q3) || summary.median <= 0.0
    }
}

impl Report {
    /// Puts the results together.
    pub(crate) fn new(
        machine: Machine,
        quick: bool,
        rows: &[&Row],
        rounds: &[Round],
        failures: &BTreeMap<&'static str, String>,
    ) -> Self {
        let mut by_name: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (name, value) in rounds.iter().flat_map(Round::iter) {
            by_name.entry(name.to_owned()).or_default().push(value);
        }
        let measured = by_name.into_iter().filter_map(|(name, values)| Some((name, median(&values)?))).collect();
        let mut notes: Vec<String> = Vec::new();
        let failed =
            failures.iter().map(|(name, why)| format!("{name} failed in at least one round: {}", one_line(why)));
        let told = rounds
            .iter()
            .enumerate()
            .flat_map(|(index, round)| round.notes.iter().map(move |note| format!("round {}: {note}", index + 1)));
        notes.extend(failed.chain(told));
        let rows = rows.iter().map(|row| RowResult::new(row, rounds, failures)).collect();
        Self { machine, rounds: rounds.len(), quick, rows, measured, notes }
    }

    /// The document.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_markdown(&mut text);
        text
    }

    fn write_markdown(&self, to: &mut String) -> std::fmt::Result {
        let Machine { date, cpu, cores, kernel, qemu, guest, rustc, revision, load_before, load_after } = &self.machine;
        writeln!(to, "# Benchmarks\n")?;
        writeln!(
            to,
            "Written by `cargo xtask bench -- --write`; how it measures: [measuring.md](measuring.md). All numbers are of one run, in which \
             everything was measured {} time(s), in turn.\n",
            self.rounds
        )?;
        if self.quick {
            writeln!(to, "**A quick run: it shows that everything works; the numbers mean little.**\n")?;
        }
        writeln!(to, "| | |\n| --- | --- |")?;
        let lines = [
            ("Date", date),
            ("CPU", &format!("{cpu}, {cores} cores")),
            ("Host kernel", kernel),
            ("QEMU", qemu),
            ("Guest kernel", guest),
            ("rustc", rustc),
            ("Revision", revision),
            ("Load before", load_before),
            ("Load after", load_after),
        ];
        for (name, value) in lines {
            writeln!(to, "| {name} | {} |", cell(value))?;
        }

        writeln!(to, "\n## Results\n")?;
        writeln!(to, "The bound is the design's; whether it held is judged by the median.\n")?;
        writeln!(to, "| row | what | median | quartiles | min .. max | rounds | bound | held |")?;
        writeln!(to, "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |")?;
        for row in &self.rows {
            let RowResult { name, what, unit, values, summary, .. } = row;
            let bound = row.bound.map_or(String::new(), |bound| match bound {
                Bound::AtMost(value) => format!("≤ {}", bound_number(*unit, value)),
                Bound::AtLeast(value) => format!("≥ {}", bound_number(*unit, value)),
            });
            let held = match row.held {
                None => String::new(),
                Some(held) => {
                    let word = if held { "yes" } else { "**no**" };
                    format!("{word}{}", if row.is_noise() { " (within the noise)" } else { "" })
                }
            };
            match summary {
                Some(Five { min, q1, median, q3, max }) => {
                    let [min, q1, q3, max] = [min, q1, q3, max].map(|value| number(*unit, *value));
                    let (median, rounds) = (number(*unit, *median) + suffix(*unit), values.len());
                    writeln!(
                        to,
                        "| `{name}` | {what} | {median} | {q1} .. {q3} | {min} .. {max} | {rounds} | {bound} | {held} |"
                    )?;
                }
                None => {
                    let why = cell(row.missing.as_deref().unwrap_or_default());
                    writeln!(to, "| `{name}` | {what} | left out: {why} | | | 0 | {bound} | |")?;
                }
            }
        }

        writeln!(to, "\n## What was measured\n")?;
        writeln!(
            to,
            "Medians over the rounds: nanoseconds for a call (`work`: milliseconds for all of it; `memtouch`: nanoseconds for a word;"
        )?;
        writeln!(
            to,
            "`register`, `arm`: milliseconds, `hot` on code that is being executed, `cold` all over the kernel, `many` 1,000 at once; `hits`,"
        )?;
        writeln!(
            to,
            "`checked`: how many in a call; `probes`: how many, of `removed` those that were hit; `...-before`: before the probes came).\n"
        )?;
        writeln!(to, "| what | median |\n| --- | ---: |")?;
        for (name, value) in &self.measured {
            let value = if name.ends_with("/work") { value / 1e6 } else { *value };
            let digits = if value.abs() < 10.0 { 2 } else { 1 };
            writeln!(to, "| `{name}` | {value:.digits$} |")?;
        }
        if !self.notes.is_empty() {
            writeln!(to, "\n## Notes\n")?;
            for note in &self.notes {
                writeln!(to, "- {}", one_line(note))?;
            }
        }
        Ok(())
    }
}

fn number(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Ratio => format!("{value:.3}"),
        Unit::Nanoseconds | Unit::Factor if value.abs() < 1000.0 => format!("{value:.1}"),
        Unit::Milliseconds if value.abs() < 100.0 => format!("{value:.2}"),
        Unit::Nanoseconds | Unit::Factor | Unit::Milliseconds => format!("{value:.0}"),
    }
}

fn bound_number(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Ratio => format!("{value:.2}"),
        _ => format!("{value:.0}{}", suffix(unit)),
    }
}

const fn suffix(unit: Unit) -> &'static str {
    match unit {
        Unit::Ratio => "",
        Unit::Factor => " ×",
        Unit::Nanoseconds => " ns",
        Unit::Milliseconds => " ms",
    }
}

/// How much of an error's text a table or a list shows.
const SHOWN: usize = 300;

/// Text that stays within its line.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

/// Text that stays within its cell of a table.
fn cell(text: &str) -> String {
    one_line(text).replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::ROWS;

    fn machine() -> Machine {
        let text = || "x".to_owned();
        Machine {
            date: text(),
            cpu: "A|B".to_owned(),
            cores: 2,
            kernel: text(),
            qemu: text(),
            guest: text(),
            rustc: text(),
            revision: text(),
            load_before: text(),
            load_after: text(),
        }
    }

    fn round(with: f64) -> Round {
        let mut round = Round::default();
        round.set("loaded/work", with);
        round.set("guest/work", 100.0);
        round
    }

    #[test]
    fn rows_of_the_table() {
        let rows: Vec<&Row> = ROWS.iter().filter(|row| ["loaded", "gdb"].contains(&row.name)).collect();
        let failures = BTreeMap::from([("gdb", "gdb: not\nfound".to_owned())]);
        let text =
            Report::new(machine(), true, &rows, &[round(100.0), round(100.5), round(104.0)], &failures).markdown();
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap();
        assert_eq!(
            line("| `loaded`"),
            "| `loaded` | Guest with the plugin loaded and no probe, over a guest without plugin | 1.005 | 1.002 .. 1.022 | \
             1.000 .. 1.040 | 3 | ≤ 1.01 | yes (within the noise) |"
        );
        assert_eq!(
            line("| `gdb`"),
            "| `gdb` | gdb's hardware breakpoint that continues | left out: gdb: gdb: not found | | | 0 |  | |"
        );
        assert_eq!(line("| CPU"), "| CPU | A\\|B, 2 cores |");
        assert!(text.contains("A quick run"));
    }

    #[test]
    fn a_bound_that_does_not_hold_is_only_told() {
        let rows: Vec<&Row> = ROWS.iter().filter(|row| row.name == "loaded").collect();
        let report = Report::new(machine(), false, &rows, &[round(120.0)], &BTreeMap::new());
        assert!(report.markdown().contains("| ≤ 1.01 | **no** |"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["rows"][0]["held"], false);
        assert_eq!(json["rows"][0]["bound"]["at-most"], 1.01);
        assert_eq!(json["rows"][0]["values"][0], 1.2);
    }

    #[test]
    fn numbers() {
        assert_eq!(number(Unit::Ratio, 1.0049), "1.005");
        assert_eq!(number(Unit::Nanoseconds, 4.26), "4.3");
        assert_eq!(number(Unit::Nanoseconds, 112_345.6), "112346");
        assert_eq!(number(Unit::Milliseconds, 0.254), "0.25");
        assert_eq!(number(Unit::Milliseconds, 628.3), "628");
        assert_eq!(bound_number(Unit::Factor, 10.0), "10 ×");
        assert_eq!(bound_number(Unit::Ratio, 1.03), "1.03");
    }
}
