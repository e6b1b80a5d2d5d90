//! What is left of probes that were removed: the guest's work before and after 1,000 probes on the code that it executes, added and
//! deleted by the control socket, beside the same in a boot that never had a probe.
//!
//! The script: the work; gate `add`; a little of everything, with the probes; gate `delete`; the work. The boot without probes passes the
//! same gates. Before the last one opens, the plugin has a second in which to take itself out of QEMU's translation (it waits 0.3 s for
//! another probe). Of both the second work counts, so that what a guest gathers as it runs (caches, longer lists) is in both.

use std::fs;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use qkprobe_arch::GuestAddr;
use qkprobe_tests::{BootResult, ControlClient, Gate, gate};
use serde_json::{Value, json};

use crate::arming::definitions;
use crate::bench::{Bench, Round, check, summary};
use crate::hits::GETPPID;
use crate::{overhead, places};

/// How many come and go.
const PROBES: usize = 1_000;
/// How many functions are taken at most, those that the work calls most, with their first blocks.
const FUNCTIONS: usize = 600;
/// For the guest to come up and to do its work.
const PATIENCE: Duration = Duration::from_secs(240);

/// For the plugin to leave QEMU's translation.
const SETTLE: Duration = Duration::from_secs(1);

/// What the guest does while the probes are there: little, for each system call hits dozens.
const PROBED: [&str; 3] = ["getppid 1000", "openclose 100 /etc/none", "fork 5"];

/// Never a probe: `never/...` is the second work, `never-before/...` the first.
pub(crate) fn never(bench: &Bench, round: &mut Round) -> Result<(), String> {
    measure(bench, round, "never", &[])
}

/// 1,000 probes between the works: `removed/...` and `removed-before/...`.
pub(crate) fn removed(bench: &Bench, round: &mut Round) -> Result<(), String> {
    let places = executed(bench)?;
    measure(bench, round, "removed", &definitions(&places))
}

/// The script's lines of the two works: from 1, as the init program counts.
fn works(lines: usize, between: usize) -> Result<[Range<u32>; 2], String> {
    let number = |line: usize| u32::try_from(line).map_err(|error| error.to_string());
    let second = number(1 + lines + between)?;
    Ok([1..number(1 + lines)?, second..second + number(lines)?])
}

fn measure(bench: &Bench, round: &mut Round, configuration: &str, probes: &[String]) -> Result<(), String> {
    let text = |error: qkprobe_tests::BootError| error.to_string();
    let work = overhead::work_lines(bench);
    let mut between = vec!["say worked.".to_owned(), gate("add"), "say added.".to_owned()];
    between.extend(PROBED.map(str::to_owned));
    between.extend(["say probed.".to_owned(), gate("delete"), "say deleted.".to_owned()]);
    let boot = bench.boot_with_plugin().control().gates().script(&work).script(&between).script(&work);
    let mut running = boot.spawn().map_err(text)?;
    let mut client = ControlClient::connect(&running);
    let mut ports = Gate::of(&running);
    running.wait_for_console("ok say worked.", PATIENCE).map_err(text)?;
    if !probes.is_empty() {
        let added = request(&mut client, json!({ "cmd": "add", "defs": probes }))?;
        let armed = count(&added["added"], |probe| probe["armed"] == true);
        if armed != probes.len() {
            round.notes.push(format!("{configuration}: {armed} of {} probes were armed at once", probes.len()));
        }
    }
    ports.open(&running, "add", "ok say added.");
    running.wait_for_console("ok say probed.", PATIENCE).map_err(text)?;
    if !probes.is_empty() {
        let removed = request(&mut client, json!({ "cmd": "delete", "event": "*" }))?;
        let hit = count(&removed["removed"], |probe| probe["hits"].as_u64() > Some(0));
        round.set(format!("{configuration}/probes"), hit as f64);
    }
    thread::sleep(SETTLE);
    ports.open(&running, "delete", "ok say deleted.");
    let boot = running.finish().map_err(text);
    let _ = fs::remove_file(bench.file("trace"));
    record(bench, round, configuration, &check(boot?)?, works(work.len(), between.len())?);
    Ok(())
}

fn record(bench: &Bench, round: &mut Round, configuration: &str, boot: &BootResult, [first, second]: [Range<u32>; 2]) {
    overhead::record_lines(round, &format!("{configuration}-before"), bench, boot, first);
    overhead::record_lines(round, configuration, bench, boot, second);
}

fn request(client: &mut ControlClient, request: Value) -> Result<Value, String> {
    client.try_request(request).map_err(|error| error.to_string())
}

/// How many of a list are so.
fn count(list: &Value, is: impl Fn(&Value) -> bool) -> usize {
    list.as_array().map_or(0, |list| list.iter().filter(|one| is(one)).count())
}

/// 1,000 instructions that the work executes: those of [`GETPPID`], and the first blocks of the functions that are called most.
fn executed(bench: &Bench) -> Result<Vec<GuestAddr>, String> {
    let path = bench.file("executed");
    if let Ok(text) = fs::read_to_string(&path) {
        return Ok(text.lines().filter_map(|line| line.parse().ok()).map(GuestAddr).collect());
    }
    eprintln!("    looking for {PROBES} instructions that the work executes");
    let entries = places::functions(&bench.image, bench.arch);
    let all = bench.file("entries.toml");
    fs::write(&all, places::toml(&entries, "count")).map_err(|error| error.to_string())?;
    let hits_of = |lines: &[String]| -> Result<Vec<u64>, String> {
        let boot = bench.boot_with_plugin().plugin_arg(format!("config={}", all.display()));
        Ok(summary(&bench.run(&boot.script(lines))?)?.probes.iter().map(|probe| probe.hits).collect())
    };
    // What only the start of the guest executes is in both.
    let (start, worked) = (hits_of(&[])?, hits_of(&PROBED.map(str::to_owned))?);
    let hits = worked.iter().zip(&start).map(|(worked, start)| worked.saturating_sub(*start));
    let hits: Vec<_> = entries.iter().copied().zip(hits).collect();
    let mut chosen: Vec<GuestAddr> =
        places::straight_line(&bench.image, bench.arch, GETPPID)?.into_iter().map(|(addr, _)| addr).collect();
    let blocks = most_executed(hits, FUNCTIONS);
    for addr in blocks.into_iter().flat_map(|entry| places::first_block(&bench.image, bench.arch, entry)) {
        if !chosen.contains(&addr) {
            chosen.push(addr);
        }
    }
    if chosen.len() < PROBES {
        return Err(format!("only {} instructions are surely executed, {PROBES} are needed", chosen.len()));
    }
    chosen.truncate(PROBES);
    let text: Vec<String> = chosen.iter().map(|addr| addr.0.to_string()).collect();
    fs::write(&path, text.join("\n")).map_err(|error| error.to_string())?;
    Ok(chosen)
}

/// The places with the most hits, without those that have none.
fn most_executed(mut hits: Vec<(GuestAddr, u64)>, count: usize) -> Vec<GuestAddr> {
    hits.retain(|(_, hits)| *hits != 0);
    hits.sort_by_key(|(addr, hits)| (std::cmp::Reverse(*hits), addr.0));
    hits.into_iter().take(count).map(|(addr, _)| addr).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_works() {
        // w w w b b w w w
        assert_eq!(works(3, 2), Ok([1..4, 6..9]));
    }

    #[test]
    fn places_by_hits() {
        let hits = [(1, 5), (2, 0), (3, 7), (4, 5), (5, 1)].map(|(addr, hits)| (GuestAddr(addr), hits));
        assert_eq!(most_executed(hits.to_vec(), 3), [GuestAddr(3), GuestAddr(1), GuestAddr(4)]);
        assert_eq!(most_executed(hits.to_vec(), 9).len(), 4);
    }

    #[test]
    fn counts_of_a_reply() {
        let list = json!([{ "armed": true }, { "armed": false }, { "armed": true }]);
        assert_eq!(count(&list, |probe| probe["armed"] == true), 2);
        assert_eq!(count(&Value::Null, |_| true), 0);
    }
}
