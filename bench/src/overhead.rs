//! What a guest pays for a plugin whose probes it does not hit: the same work without plugin, with a plugin that has no probe, with the
//! empty plugin, with 1,000 armed probes.

use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use qkprobe_tests::{Boot, BootResult};

use crate::bench::{Bench, Round, summary};
use crate::places;

/// How many probes "armed and not hit" are.
const ARMED: usize = 1_000;
/// How many places are tried to find so many that the work does not execute.
const CANDIDATES: usize = 4_000;
/// MB that `memtouch` walks over: more than a TLB of QEMU holds at first.
const MEGABYTES: u32 = 16;

/// Guest without a plugin.
pub(crate) fn guest(bench: &Bench, round: &mut Round) -> Result<(), String> {
    let boot = bench.run(&work(bench, bench.boot()))?;
    record(round, "guest", bench, &boot);
    Ok(())
}

/// Plugin loaded, no probe.
pub(crate) fn loaded(bench: &Bench, round: &mut Round) -> Result<(), String> {
    let boot = bench.run(&work(bench, bench.boot_with_plugin()))?;
    record(round, "loaded", bench, &boot);
    Ok(())
}

/// The empty plugin.
pub(crate) fn empty(bench: &Bench, round: &mut Round) -> Result<(), String> {
    let boot = bench.run(&work(bench, bench.boot().plugin_file(bench.empty_plugin()?)))?;
    record(round, "empty", bench, &boot);
    Ok(())
}

/// 1,000 probes that are not hit.
pub(crate) fn armed(bench: &Bench, round: &mut Round) -> Result<(), String> {
    let config = armed_config(bench)?;
    let boot = bench.boot_with_plugin().plugin_arg(format!("config={}", config.display()));
    let boot = bench.run(&work(bench, boot))?;
    record(round, "armed", bench, &boot);
    let probes = summary(&boot)?.probes;
    let hit: Vec<_> = probes.iter().filter(|probe| probe.hits != 0).collect();
    round.set("armed/probes", probes.len() as f64);
    if !hit.is_empty() {
        let hits: u64 = hit.iter().map(|probe| probe.hits).sum();
        round.notes.push(format!("{} of the {} probes were hit, {hits} times in all", hit.len(), probes.len()));
    }
    Ok(())
}

/// The fixed work: memory, system calls, path look-ups, forks, each several times.
fn work(bench: &Bench, boot: Boot) -> Boot {
    boot.script(work_lines(bench))
}

/// The script of the work.
pub(crate) fn work_lines(bench: &Bench) -> Vec<String> {
    let scale = bench.scale;
    let once = [
        format!("memtouch {MEGABYTES} {}", scale.memtouch_rounds),
        format!("getppid {}", scale.getppid),
        format!("openclose {} /etc/none", scale.openclose),
        format!("fork {}", scale.forks),
    ];
    once.iter().cycle().take(once.len() * (scale.repeats + 1)).cloned().collect()
}

fn record(round: &mut Round, configuration: &str, bench: &Bench, boot: &BootResult) {
    record_lines(round, configuration, bench, boot, 1..u32::MAX);
}

/// The loops of a work in these lines of the script, and `CONFIGURATION/work`: all of one work.
pub(crate) fn record_lines(
    round: &mut Round,
    configuration: &str,
    bench: &Bench,
    boot: &BootResult,
    lines: Range<u32>,
) {
    round.set_loops_in(configuration, boot, lines);
    let scale = bench.scale;
    let words = f64::from(MEGABYTES) * f64::from(1 << 17) * f64::from(scale.memtouch_rounds);
    let parts = [
        ("memtouch", words),
        ("getppid", f64::from(scale.getppid)),
        ("openclose", f64::from(scale.openclose)),
        ("fork", f64::from(scale.forks)),
    ];
    let time = |(part, n): (&str, f64)| Some(round.get(&format!("{configuration}/{part}"))? * n);
    if let Some(total) = parts.into_iter().map(time).sum::<Option<f64>>() {
        round.set(format!("{configuration}/work"), total);
    }
}

/// A TOML file with 1,000 probes on functions that the work does not execute: all over the kernel's text, so also on pages that it does execute.
fn armed_config(bench: &Bench) -> Result<PathBuf, String> {
    let path = bench.file("armed.toml");
    if path.exists() {
        return Ok(path);
    }
    eprintln!("    looking for {ARMED} functions that the work does not execute");
    let entries = places::functions(&bench.image, bench.arch);
    let candidates = places::spread(&entries, CANDIDATES);
    let all = bench.file("candidates.toml");
    fs::write(&all, places::toml(&candidates, "count")).map_err(|error| error.to_string())?;
    let boot = bench.boot_with_plugin().plugin_arg(format!("config={}", all.display()));
    let counted = summary(&bench.run(&work(bench, boot))?)?.probes;
    let never = candidates.iter().zip(&counted).filter(|(_, probe)| probe.hits == 0);
    let never: Vec<_> = never.map(|(place, _)| *place).collect();
    let chosen = places::spread(&never, ARMED);
    if chosen.len() < ARMED {
        let mut text = format!("only {} of {} functions are not executed", chosen.len(), candidates.len());
        let _ = write!(text, ", {ARMED} are needed");
        return Err(text);
    }
    fs::write(&path, places::toml(&chosen, "trace")).map_err(|error| error.to_string())?;
    Ok(path)
}
