//! What a hit of qkprobe costs: the same loop with a probe on its way and without, in turn, in one boot: two boots differ by more than a
//! hit costs.
//!
//! The probe is switched on and off by the control socket. Another one stays armed elsewhere, because any armed probe makes QEMU translate
//! for a plugin, which costs by itself: that is measured as a row of its own, not once more with each hit.

use std::fs;

use qkprobe_tests::{Boot, BootResult, Guest};
use serde_json::{Value, json};

use crate::bench::{Bench, Round, check, summary};
use crate::places;
use crate::stats::median;

/// The function that a `getppid` of the guest of most rows calls once.
pub(crate) const GETPPID: &str = "__x64_sys_getppid";
/// The function that an `openclose` calls once.
pub(crate) const OPEN: &str = "do_sys_openat2";
/// A function that no loop of ours calls.
fn elsewhere_probe(bench: &Bench) -> String {
    format!("probe=p:other/elsewhere {}", bench.syscall("reboot"))
}

/// The loop to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loop {
    Getppid,
    Open,
}

impl Loop {
    const fn command(self) -> &'static str {
        match self {
            Self::Getppid => "getppid",
            Self::Open => "openclose",
        }
    }

    /// The line of the script.
    fn line(self, bench: &Bench) -> String {
        match self {
            Self::Getppid => format!("getppid {}", bench.scale.getppid),
            Self::Open => format!("openclose {} /etc/none", bench.scale.openclose),
        }
    }

    fn script(self, bench: &Bench, boot: Boot) -> Boot {
        boot.script(std::iter::repeat_n(self.line(bench), bench.scale.repeats + 1))
    }
}

/// The group of the probes that are measured.
const GROUP: &str = "bench/";

/// A probe is armed, and not on the way of the loops.
pub(crate) fn elsewhere(bench: &Bench, round: &mut Round) -> Result<(), String> {
    let boot = bench.boot_with_plugin().plugin_arg(elsewhere_probe(bench));
    let boot = bench.run(&Loop::Open.script(bench, Loop::Getppid.script(bench, boot)))?;
    round.set_loops("elsewhere", &boot);
    Ok(())
}

/// One probe that only counts.
pub(crate) fn count(bench: &Bench, round: &mut Round) -> Result<(), String> {
    with(bench, round, "count", Loop::Getppid, &[format!("count=p:bench/e {}", bench.getppid())])
}

/// A counting probe on each instruction of the function: many hits in one call, so that the difference is well above the noise.
pub(crate) fn count_all(bench: &Bench, round: &mut Round) -> Result<(), String> {
    with(bench, round, "count-all", Loop::Getppid, &count_each(bench)?)
}

/// An event without arguments.
pub(crate) fn event(bench: &Bench, round: &mut Round) -> Result<(), String> {
    with(bench, round, "event", Loop::Getppid, &[format!("probe=p:bench/e {}", bench.getppid())])
}

/// An event with three registers.
pub(crate) fn registers(bench: &Bench, round: &mut Round) -> Result<(), String> {
    with(
        bench,
        round,
        "event-3",
        Loop::Getppid,
        &[format!("probe=p:bench/e {} a=$arg1 b=$arg2 c=$arg3", bench.getppid())],
    )
}

/// An event with a string of user memory. The loop that opens files is too long to show a few hundred nanoseconds, so the
/// string is what the caller's stack pointer points to, taken from `pt_regs` (offset 152 on x86_64): one dereference more
/// than a system call's own argument needs.
pub(crate) fn string(bench: &Bench, round: &mut Round) -> Result<(), String> {
    with(
        bench,
        round,
        "event-string",
        Loop::Getppid,
        &[format!("probe=p:bench/e {} s=+0(+152($arg1)):ustring", bench.getppid())],
    )
}

/// An event behind an instruction in the middle of its block: the callback is at the next instruction.
pub(crate) fn post(bench: &Bench, round: &mut Round) -> Result<(), String> {
    let offset = places::middle(&bench.image, bench.arch, &bench.getppid())?;
    with(bench, round, "post", Loop::Getppid, &[format!("probe=p:bench/e {}+{offset:#x} do post", bench.getppid())])
}

/// An event behind an instruction that goes elsewhere: the callback is where it lands.
pub(crate) fn post_landing(bench: &Bench, round: &mut Round) -> Result<(), String> {
    let offset = places::transfer(&bench.image, bench.arch, &bench.getppid())?;
    with(
        bench,
        round,
        "post-landing",
        Loop::Getppid,
        &[format!("probe=p:bench/e {}+{offset:#x} do post", bench.getppid())],
    )
}

/// A call and its return, with the value and the time between them.
pub(crate) fn returned(bench: &Bench, round: &mut Round) -> Result<(), String> {
    with(
        bench,
        round,
        "return",
        Loop::Getppid,
        &[format!("probe=r:bench/e {} ret=$retval:s64 ns=$latency", bench.getppid())],
    )
}

/// A call and its return, only counted.
pub(crate) fn return_count(bench: &Bench, round: &mut Round) -> Result<(), String> {
    with(bench, round, "return-count", Loop::Getppid, &[format!("count=r:bench/e {}", bench.getppid())])
}

/// The function does not run.
pub(crate) fn overridden(bench: &Bench, round: &mut Round) -> Result<(), String> {
    let boot = with_boot(
        bench,
        round,
        "override",
        Loop::Getppid,
        &[format!("count=p:bench/e {} do override=1", bench.getppid())],
    )?;
    tell_effects(round, "override", &boot)
}

/// A register is set, one that the function does not read: all system calls have one argument, in `%di`.
pub(crate) fn set(bench: &Bench, round: &mut Round) -> Result<(), String> {
    let boot =
        with_boot(bench, round, "set", Loop::Getppid, &[format!("count=p:bench/e {} do set:%si=0", bench.getppid())])?;
    tell_effects(round, "set", &boot)
}

/// Each instruction of the function is compared with what its copy predicts.
pub(crate) fn verify(bench: &Bench, round: &mut Round) -> Result<(), String> {
    let mut arguments = count_each(bench)?;
    arguments.push("verify=on".to_owned());
    let boot = with_boot(bench, round, "verify", Loop::Getppid, &arguments)?;
    let verified = &summary_json(&boot)?["verified"];
    let number = |key: &str| verified[key].as_f64().ok_or_else(|| format!("no {key} in the summary: {verified}"));
    let calls: f64 = boot.qk_all("getppid").map(|line| line.number("n")).sum();
    round.set("verify/checked", (number("checked")? / calls).round());
    if number("mismatches")? != 0.0 {
        round.notes.push(format!("verify: {verified}"));
    }
    Ok(())
}

/// A counting probe on each instruction that a call surely executes.
fn count_each(bench: &Bench) -> Result<Vec<String>, String> {
    let line = places::straight_line(&bench.image, bench.arch, &bench.getppid())?;
    let probe = |(index, addr): (usize, u64)| format!("count=p:bench/e{index} {addr:#x}");
    Ok(line.iter().map(|(addr, _)| addr.0).enumerate().map(probe).collect())
}

/// The whole summary, for what [`summary`] does not know.
fn summary_json(boot: &BootResult) -> Result<Value, String> {
    let text =
        fs::read_to_string(boot.folder().join("summary.json")).map_err(|error| format!("no summary: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("the summary: {error}"))
}

/// Notes hits that had no effect.
fn tell_effects(round: &mut Round, name: &str, boot: &BootResult) -> Result<(), String> {
    let summary = summary(boot)?;
    let probe = summary.probes.first().ok_or("no probe")?;
    if probe.effects != probe.hits {
        round.notes.push(format!("{name}: {} of {} hits had their effect", probe.effects, probe.hits));
    }
    Ok(())
}

/// Runs the loop with these arguments of the plugin: `NAME/LOOP` with the probes, `NAME/LOOP-without`, and `NAME/LOOP-more`, the
/// difference; `NAME/hits` in one call.
fn with(bench: &Bench, round: &mut Round, name: &str, what: Loop, arguments: &[String]) -> Result<(), String> {
    with_boot(bench, round, name, what, arguments).map(drop)
}

/// The same for those who want to see what the boot left.
fn with_boot(
    bench: &Bench,
    round: &mut Round,
    name: &str,
    what: Loop,
    arguments: &[String],
) -> Result<BootResult, String> {
    let boot = arguments.iter().fold(bench.boot_with_plugin(), |boot, argument| boot.plugin_arg(argument));
    let boot = alternately(bench, boot.plugin_arg(elsewhere_probe(bench)), what)?;
    let times: Vec<f64> = boot.qk_all(what.command()).map(|line| line.number("ns")).collect();
    let pairs: Vec<_> = times.chunks_exact(2).skip(1).map(|pair| (pair[0], pair[1])).collect();
    let mut set = |suffix: &str, values: Vec<f64>| {
        if let Some(value) = median(&values) {
            round.set(format!("{name}/{}{suffix}", what.command()), value);
        }
    };
    set("", pairs.iter().map(|(with, _)| *with).collect());
    set("-without", pairs.iter().map(|(_, without)| *without).collect());
    set("-more", pairs.iter().map(|(with, without)| with - without).collect());

    let calls: f64 = boot.qk_all(what.command()).step_by(2).map(|line| line.number("n")).sum();
    let probes: Vec<_> = summary(&boot)?.probes.into_iter().filter(|probe| probe.name != "elsewhere").collect();
    let hits: u64 = probes.iter().map(|probe| probe.hits).sum();
    let (missed, dropped) = probes.iter().fold((0, 0), |sum, probe| (sum.0 + probe.missed, sum.1 + probe.dropped));
    // Some files are opened by the init program itself.
    let per_call = (hits as f64 / calls).round();
    round.set(format!("{name}/hits"), per_call);
    if probes.iter().any(|probe| (probe.hits as f64) < calls) {
        round.notes.push(format!("{name}: {hits} hits of {} probes in {calls} calls", probes.len()));
    }
    if missed != 0 || dropped != 0 {
        round.notes.push(format!("{name}: {missed} missed, {dropped} of {hits} records dropped"));
    }
    if per_call == 0.0 {
        return Err(format!("no hit in {calls} calls"));
    }
    Ok(boot)
}

/// The loop with the probes, without them, and so on; both once more than they count, to warm up.
fn alternately(bench: &Bench, boot: Boot, what: Loop) -> Result<BootResult, String> {
    let pairs = bench.scale.repeats + 1;
    let mut guest = Guest::start(boot, std::iter::repeat_n(what.line(bench), 2 * pairs));
    for _ in 0..pairs {
        for switch in ["enable", "disable"] {
            let request = json!({ "cmd": switch, "event": GROUP });
            guest.client.try_request(request).map_err(|error| error.to_string())?;
            guest.step();
        }
    }
    let result = guest.end();
    // Hundreds of megabytes, if there was a probe.
    let _ = fs::remove_file(bench.file("trace"));
    check(result)
}
