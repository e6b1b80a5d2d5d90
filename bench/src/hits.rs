//! What a hit of qkprobe costs: the same loop with a probe on its way and with a probe elsewhere, in boots that follow one another.
//!
//! The probe elsewhere is there because any armed probe makes QEMU translate for a plugin, which costs by itself: that is measured as a
//! row of its own, not once more with each hit.

use qkprobe_tests::Boot;

use crate::bench::{Bench, Round, summary};
use crate::places;

/// The function that a `getppid` calls once.
pub(crate) const GETPPID: &str = "__x64_sys_getppid";
/// The function that an `openclose` calls once.
pub(crate) const OPEN: &str = "do_sys_openat2";
/// A function that no loop of ours calls.
const ELSEWHERE: &str = "__x64_sys_reboot";

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

    fn script(self, bench: &Bench, boot: Boot) -> Boot {
        let line = match self {
            Self::Getppid => format!("getppid {}", bench.scale.getppid),
            Self::Open => format!("openclose {} /etc/none", bench.scale.openclose),
        };
        boot.script(std::iter::repeat_n(line, bench.scale.repeats + 1))
    }
}

/// A probe is armed, and not on the way of the loops.
pub(crate) fn elsewhere(bench: &Bench, round: &mut Round) -> Result<(), String> {
    let boot = bench.boot_with_plugin().plugin_arg(format!("probe=p:elsewhere {ELSEWHERE}"));
    let boot = bench.run(&Loop::Open.script(bench, Loop::Getppid.script(bench, boot)))?;
    round.set_loops("elsewhere", &boot);
    Ok(())
}

/// One probe that only counts.
pub(crate) fn count(bench: &Bench, round: &mut Round) -> Result<(), String> {
    with(bench, round, "count", Loop::Getppid, &[format!("count=p:e {GETPPID}")])
}

/// A counting probe on each instruction of the function: many hits in one call, so that the difference is well above the noise.
pub(crate) fn count_all(bench: &Bench, round: &mut Round) -> Result<(), String> {
    let line = places::straight_line(&bench.image, bench.arch, GETPPID)?;
    let probe = |(index, addr): (usize, u64)| format!("count=p:e{index} {addr:#x}");
    let probes: Vec<String> = line.iter().map(|(addr, _)| addr.0).enumerate().map(probe).collect();
    with(bench, round, "count-all", Loop::Getppid, &probes)
}

/// An event without arguments.
pub(crate) fn event(bench: &Bench, round: &mut Round) -> Result<(), String> {
    with(bench, round, "event", Loop::Getppid, &[format!("probe=p:e {GETPPID}")])
}

/// An event with three registers.
pub(crate) fn registers(bench: &Bench, round: &mut Round) -> Result<(), String> {
    with(bench, round, "event-3", Loop::Getppid, &[format!("probe=p:e {GETPPID} a=%di b=%si c=%dx")])
}

/// An event with a string of user memory. The loop that opens files is too long to show a few hundred nanoseconds, so the
/// string is what the caller's stack pointer points to, taken from `pt_regs` (offset 152 on x86_64): one dereference more
/// than a system call's own argument needs.
pub(crate) fn string(bench: &Bench, round: &mut Round) -> Result<(), String> {
    with(bench, round, "event-string", Loop::Getppid, &[format!("probe=p:e {GETPPID} s=+0(+152($arg1)):ustring")])
}

/// Runs the loop with these arguments of the plugin: `NAME/LOOP`, and `NAME/hits` in one call.
fn with(bench: &Bench, round: &mut Round, name: &str, what: Loop, arguments: &[String]) -> Result<(), String> {
    let boot = arguments.iter().fold(bench.boot_with_plugin(), |boot, argument| boot.plugin_arg(argument));
    let boot = bench.run(&what.script(bench, boot))?;
    round.set_loops(name, &boot);
    let calls: f64 = boot.qk_all(what.command()).map(|line| line.number("n")).sum();
    let probes = summary(&boot)?.probes;
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
    Ok(())
}
