//! What a kprobe event of the guest's own kernel costs, in the same emulator and the same kind of loop, without any plugin.
//!
//! In one boot, for each kind: define the event, then in turns a loop with it disabled and one with it enabled, then read
//! `kprobe_profile`, then remove it. Two events at one address would share an aggregate and be slower, so there is only one at a time.

use crate::bench::{Bench, Round};
use crate::hits::{GETPPID, OPEN};
use crate::places;
use crate::stats::{differences, median};

const TRACING: &str = "/sys/kernel/tracing";

/// One kind of event.
#[derive(Debug)]
struct Kind {
    /// Its name here and in the guest.
    name: &'static str,
    /// `PLACE ARG...`
    definition: String,
    /// The line of the script that hits it `calls` times.
    line: String,
    calls: u32,
}

/// Kinds with the guest's ftrace (a place at a function's entry) and with a breakpoint (`int3`, inside of a function).
fn kinds(bench: &Bench) -> Result<Vec<Kind>, String> {
    let (image, arch, scale) = (&bench.image, bench.arch, bench.scale);
    let (getppid, open) = (places::middle(image, arch, GETPPID)?, places::middle(image, arch, OPEN)?);
    let inside = (format!("{GETPPID}+{getppid:#x}"), format!("{OPEN}+{open:#x}"));
    let three = "a=%di b=%si c=%dx";
    let string = "file=+0(%si):ustring";
    let in_getppid = |name, definition: String| {
        let calls = scale.guest_kprobe_getppid;
        Kind { name, definition, line: format!("getppid {calls}"), calls }
    };
    let in_open = |name, definition: String| {
        let calls = scale.guest_kprobe_openclose;
        Kind { name, definition, line: format!("openclose {calls} /etc/none"), calls }
    };
    Ok(vec![
        in_getppid("ftrace", GETPPID.to_owned()),
        in_getppid("ftrace_3", format!("{GETPPID} {three}")),
        in_open("ftrace_string", format!("{OPEN} {string}")),
        in_getppid("int3", inside.0.clone()),
        in_getppid("int3_3", format!("{} {three}", inside.0)),
        in_open("int3_string", format!("{} {string}", inside.1)),
    ])
}

/// `guest-kprobe/KIND`: nanoseconds for a hit. `plain/getppid` and `plain/openclose`: the loops of this guest without any probe.
pub(crate) fn measure(bench: &Bench, round: &mut Round) -> Result<(), String> {
    let kinds = kinds(bench)?;
    let repeats = bench.scale.repeats;
    // Else the kernel replaces breakpoints by jumps where it can, after a while.
    let mut script = vec!["write /proc/sys/debug/kprobes-optimization 0".to_owned()];
    // The loops of plain guest are as long as those of qkprobe, and first: no probe was there yet.
    let plain = [
        ("getppid", format!("getppid {}", bench.scale.getppid)),
        ("openclose", format!("openclose {} /etc/none", bench.scale.openclose)),
    ];
    for (_, line) in &plain {
        script.extend(std::iter::repeat_n(line.clone(), repeats + 1));
    }
    let mut places = Vec::new();
    for Kind { name, definition, line, .. } in &kinds {
        let enable = format!("{TRACING}/events/qk/{name}/enable");
        script.push(format!("append {TRACING}/kprobe_events p:qk/{name} {definition}"));
        // Both loops once to warm up, then in turns. Of each the number of its line in the script.
        let mut pairs = Vec::new();
        for _ in 0..=repeats {
            script.push(line.clone());
            let without = script.len();
            script.extend([format!("write {enable} 1"), line.clone()]);
            pairs.push((without, script.len()));
            script.push(format!("write {enable} 0"));
        }
        places.push(pairs);
        script.push(format!("cat {TRACING}/kprobe_profile"));
        script.push(format!("append {TRACING}/kprobe_events -:qk/{name}"));
    }

    let boot = bench.run(&bench.boot().script(&script))?;
    let time = |line: usize| {
        let line = boot.qk.iter().find(|report| report.line as usize == line && report.part.is_none());
        line.map(|line| line.number("ns")).ok_or("a loop did not report")
    };
    for (index, (command, _)) in plain.iter().enumerate() {
        let first = 2 + index * (repeats + 1);
        let times: Vec<f64> = (first + 1..=first + repeats).map(time).collect::<Result<_, _>>()?;
        round.set(format!("plain/{command}"), median(&times).unwrap_or(f64::NAN));
    }
    for (kind, pairs) in kinds.iter().zip(places) {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for &(line_without, line_with) in pairs.iter().skip(1) {
            without.push(time(line_without)?);
            with.push(time(line_with)?);
        }
        let expected = u64::from(kind.calls) * pairs.len() as u64;
        let (hits, missed) = profile(&boot.console, kind.name).ok_or("no kprobe_profile")?;
        if hits < expected {
            return Err(format!("{}: {hits} hits of {expected}, {missed} missed", kind.name));
        }
        round.set(format!("guest-kprobe/{}", kind.name), median(&differences(&with, &without)).unwrap_or(f64::NAN));
    }
    Ok(())
}

/// Hits and misses of an event, from a `kprobe_profile` on the console.
fn profile(console: &str, name: &str) -> Option<(u64, u64)> {
    let number = |word: Option<&str>| word?.parse().ok();
    console.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then_some(())?;
        Some((number(words.next())?, number(words.next())?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kprobe_profile() {
        let console = "QK 9 begin\n  int3_3                                         7               0\n\
                       \x20 int3                                       40000               2\nQK 9 end-of-file\n";
        assert_eq!(profile(console, "int3"), Some((40_000, 2)));
        assert_eq!(profile(console, "int3_3"), Some((7, 0)));
        assert_eq!(profile(console, "ftrace"), None);
    }
}
