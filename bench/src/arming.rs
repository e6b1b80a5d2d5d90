//! How long a change of the probes takes in a guest that is busy all the time: from the request on the control socket to its reply, when
//! the new code is in force on all vCPUs.
//!
//! The guest's vCPUs call `getppid` and never idle. One probe comes and goes at a time, on the function that they call and on functions
//! all over the kernel, in turns; then 1,000 come and go with one request each.

use std::thread;
use std::time::{Duration, Instant};

use qkprobe_arch::GuestAddr;
use qkprobe_tests::ControlClient;
use serde_json::{Value, json};

use crate::bench::{Bench, Round};
use crate::hits::GETPPID;
use crate::places;
use crate::stats::Five;

/// How many the rows `arm-1000` and `disarm-1000` speak of.
const MANY: usize = 1_000;
/// For the guest to come up, and for QEMU's end.
const PATIENCE: Duration = Duration::from_secs(120);
/// From the last line before the loops until all vCPUs are in them.
const SETTLE: Duration = Duration::from_millis(500);

/// Two vCPUs: `arm/...`.
pub(crate) fn two(bench: &Bench, round: &mut Round) -> Result<(), String> {
    measure(bench, round, "arm", 2)
}

/// One vCPU: `arm-1cpu/...`.
pub(crate) fn one(bench: &Bench, round: &mut Round) -> Result<(), String> {
    measure(bench, round, "arm-1cpu", 1)
}

/// The times of one kind of change, in milliseconds.
#[derive(Debug, Default)]
struct Times {
    add: Vec<f64>,
    delete: Vec<f64>,
    /// Probes that could not hit by the time of the reply.
    unarmed: usize,
    hits: u64,
}

/// Waits so long that the next request comes at another moment of the guest's timer, 250 times a second: code is changed where a vCPU takes
/// an interrupt, and a request right behind a reply would always wait for the whole period.
fn another_moment(number: usize) {
    /// Longer than a period; the step has no factor in common with it.
    const LONGEST: usize = 5_000;
    const STEP: usize = 3_079;
    thread::sleep(Duration::from_micros((number * STEP % LONGEST) as u64));
}

impl Times {
    /// Adds these probes and deletes them.
    fn change(&mut self, client: &mut ControlClient, definitions: &[String]) -> Result<(), String> {
        another_moment(2 * self.add.len());
        let (added, milliseconds) = timed(client, json!({ "cmd": "add", "defs": definitions }))?;
        self.add.push(milliseconds);
        let added = added["added"].as_array().map(Vec::as_slice).unwrap_or_default();
        if added.len() != definitions.len() {
            return Err(format!("{} probes of {} were added", added.len(), definitions.len()));
        }
        self.unarmed += added.iter().filter(|probe| probe["armed"] != true).count();
        another_moment(2 * self.add.len() + 1);
        let (removed, milliseconds) = timed(client, json!({ "cmd": "delete", "event": "*" }))?;
        self.delete.push(milliseconds);
        let removed = removed["removed"].as_array().map(Vec::as_slice).unwrap_or_default();
        if removed.len() != definitions.len() {
            return Err(format!("{} probes of {} were deleted", removed.len(), definitions.len()));
        }
        self.hits += removed.iter().filter_map(|probe| probe["hits"].as_u64()).sum::<u64>();
        Ok(())
    }

    /// `CONFIGURATION/KIND-add` and `-delete`: the median; with `-max` the longest.
    fn record(&self, round: &mut Round, configuration: &str, kind: &str) {
        for (what, times) in [("add", &self.add), ("delete", &self.delete)] {
            if let Some(five) = Five::of(times) {
                round.set(format!("{configuration}/{kind}-{what}"), five.median);
                round.set(format!("{configuration}/{kind}-{what}-max"), five.max);
            }
        }
        if self.unarmed != 0 {
            round.notes.push(format!(
                "{configuration}: {} probes ({kind}) were not armed when the reply to `add` came",
                self.unarmed
            ));
        }
    }
}

/// A request's result, and the milliseconds from sending it to its reply.
fn timed(client: &mut ControlClient, request: Value) -> Result<(Value, f64), String> {
    let start = Instant::now();
    let result = client.try_request(request).map_err(|error| error.to_string())?;
    Ok((result, start.elapsed().as_secs_f64() * 1e3))
}

fn measure(bench: &Bench, round: &mut Round, configuration: &str, cpus: u32) -> Result<(), String> {
    let text = |error: qkprobe_tests::BootError| error.to_string();
    let boot = bench.boot_with_plugin().control().smp(cpus);
    // For ever: QEMU is told to end.
    let mut running =
        boot.script(["say busy.".to_owned(), format!("threads {cpus} getppid {}", u32::MAX)]).spawn().map_err(text)?;
    running.wait_for_console("ok say busy.", PATIENCE).map_err(text)?;
    thread::sleep(SETTLE);
    let mut client = ControlClient::connect(&running);

    let functions = places::spread(&places::functions(&bench.image, bench.arch), bench.scale.arms.max(MANY));
    let all_over = |count: usize| places::spread(&functions, count);
    let (mut hot, mut cold, mut many) = (Times::default(), Times::default(), Times::default());
    for place in all_over(bench.scale.arms) {
        hot.change(&mut client, &[format!("p:hot {GETPPID}")])?;
        cold.change(&mut client, &definitions(&[place]))?;
    }
    let thousand = definitions(&all_over(MANY));
    for _ in 0..bench.scale.arms_of_many {
        many.change(&mut client, &thousand)?;
    }
    client.try_request(json!({ "cmd": "quit" })).map_err(|error| error.to_string())?;
    let end = running.finish().map_err(text)?;
    let _ = std::fs::remove_file(bench.file("trace"));
    if !end.status.success() {
        return Err(format!("QEMU ended with {}: {}", end.status, end.stderr.trim()));
    }

    hot.record(round, configuration, "hot");
    cold.record(round, configuration, "cold");
    many.record(round, configuration, "many");
    if hot.hits == 0 {
        round.notes.push(format!("{configuration}: no probe on {GETPPID} was hit, so the guest was not busy there"));
    }
    Ok(())
}

/// An event at each address.
pub(crate) fn definitions(addresses: &[GuestAddr]) -> Vec<String> {
    addresses.iter().enumerate().map(|(index, addr)| format!("p:n{index} {:#x}", addr.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_longest() {
        let mut round = Round::default();
        let times = Times { add: vec![0.5, 0.25, 9.0], delete: vec![1.0], unarmed: 0, hits: 1 };
        times.record(&mut round, "arm", "hot");
        let values: Vec<_> = round.iter().collect();
        assert_eq!(
            values,
            [("arm/hot-add", 0.5), ("arm/hot-add-max", 9.0), ("arm/hot-delete", 1.0), ("arm/hot-delete-max", 1.0)]
        );
        assert!(round.notes.is_empty());
        Times { unarmed: 2, ..Times::default() }.record(&mut round, "arm", "cold");
        assert_eq!(round.notes, ["arm: 2 probes (cold) were not armed when the reply to `add` came"]);
    }

    #[test]
    fn a_thousand_definitions_fit_into_a_request() {
        let addresses = [GuestAddr(0xffff_ffff_8100_0000); MANY];
        let request = json!({ "cmd": "add", "defs": definitions(&addresses), "id": u64::MAX }).to_string();
        assert!(request.starts_with(r#"{"cmd":"add","defs":["p:n0 0xffffffff81000000","p:n1 "#), "{request}");
        assert!(request.len() < 64 << 10, "{}", request.len());
    }
}
