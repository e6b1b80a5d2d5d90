//! `cargo xtask bench`: what a probe costs, side by side with the guest's own kprobes and with gdb, in one run.
//!
//! [`rows`] says what is compared and what the design promises. In each round every configuration that a row needs is
//! measured once ([`overhead`], [`hits`], [`guest_kprobe`], [`gdb`], [`registration`], [`arming`], [`removal`], all on [`bench`] and
//! [`places`]): A B C, A B C, so that a machine that gets slower or faster does so for all of them. [`stats`] and [`report`] make the table. A bound that does not hold is
//! told, it does not fail the run.

mod arming;
mod bench;
mod gdb;
mod guest_kprobe;
mod hits;
mod machine;
mod overhead;
mod places;
mod registration;
mod removal;
mod report;
mod rows;
mod stats;

use std::any::Any;
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use qkprobe_tests::Qemu;

use bench::{Bench, GUEST, Round, Scale};
use machine::Machine;
use report::Report;
use rows::{CONFIGURATIONS, Configuration, ROWS, Row};

#[derive(Debug, Parser)]
#[command(name = "qkprobe-bench", about = "What a probe costs, side by side with kprobes and gdb", after_help = EXAMPLES)]
struct Options {
    /// How often everything is measured
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Short loops, to see whether it works: the numbers mean little
    #[arg(long)]
    quick: bool,
    /// Which QEMU
    #[arg(long, value_name = "VERSION", default_value = "11.1", value_parser = ["10.0", "11.1"])]
    qemu: String,
    /// Only this row; may be given several times
    #[arg(long, value_name = "ROW", value_parser = row_names())]
    only: Vec<String>,
    /// Write the table to docs/benchmarks.md instead of printing it
    #[arg(long)]
    write: bool,
    /// Also write everything, each round's values too, to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples, each behind `cargo xtask bench --`:
  --quick                       does it work?
  --write                       measure, for docs/benchmarks.md
  --only event --only gdb --rounds 3";

fn row_names() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.name).collect()
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let qemu = Qemu::from_version(&options.qemu).ok_or_else(|| format!("no QEMU {}", options.qemu))?;
    let rows: Vec<&Row> =
        ROWS.iter().filter(|row| options.only.is_empty() || options.only.iter().any(|name| name == row.name)).collect();
    let needed = |configuration: &&Configuration| rows.iter().any(|row| row.needs.contains(&configuration.name));
    let configurations: Vec<&Configuration> = CONFIGURATIONS.iter().filter(needed).collect();
    let bench = Bench::open(qemu, GUEST, if options.quick { Scale::QUICK } else { Scale::FULL })?;
    let mut machine = Machine::describe(&bench.cache, qemu, GUEST);
    let (rounds, failures) = measure(&bench, options.rounds, &configurations);
    machine.measured();

    let report = Report::new(machine, options.quick, &rows, &rounds, &failures);
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        write(path, &(json + "\n"))?;
    }
    if options.write {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).join("docs");
        fs::create_dir_all(&docs).map_err(|error| format!("{}: {error}", docs.display()))?;
        write(&docs.join("benchmarks.md"), &report.markdown())
    } else {
        print!("{}", report.markdown());
        Ok(())
    }
}

/// How often a configuration may fail before it is not tried again: what hangs would do so in all rounds.
const TRIES: u32 = 2;

/// All rounds, and the first failure of each configuration that failed: the others go on.
fn measure(
    bench: &Bench,
    count: u32,
    configurations: &[&Configuration],
) -> (Vec<Round>, BTreeMap<&'static str, String>) {
    let mut failures: BTreeMap<&'static str, (u32, String)> = BTreeMap::new();
    let rounds = (1..=count).map(|number| {
        let mut round = Round::default();
        for Configuration { name, run } in configurations {
            if failures.get(name).is_some_and(|(count, _)| *count >= TRIES) {
                continue;
            }
            eprint!("round {number}/{count}: {name} ... ");
            let start = Instant::now();
            // What the tests' crate offers panics where it fails; half a round is a round in which values are missing.
            let ran = catch_unwind(AssertUnwindSafe(|| run(bench, &mut round)));
            match ran.unwrap_or_else(|panic| Err(said(&*panic))) {
                Ok(()) => eprintln!("{:.1} s", start.elapsed().as_secs_f32()),
                Err(error) => {
                    eprintln!("failed: {error}");
                    failures.entry(*name).or_insert((0, error)).0 += 1;
                }
            }
        }
        round
    });
    let rounds = rounds.collect();
    (rounds, failures.into_iter().map(|(name, (_, error))| (name, error)).collect())
}

/// What a panic had to say.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic").to_owned()
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_text() {
        let text = |run: fn()| said(&*catch_unwind(run).unwrap_err());
        assert_eq!(text(|| panic!("gone")), "gone");
        assert_eq!(text(|| panic!("{} lines", 3)), "3 lines");
    }
}
