//! Probes that come, go, rest and wake while the guest runs: counts are exact from the reply on.

mod common;

use common::trace_lines;
use qkprobe_tests::{Boot, BootResult, Guest, GuestKernel, Qemu};
use serde_json::json;

const KERNEL: GuestKernel = GuestKernel::X86_64Cloud6_1;
const GETPPID: &str = "__x64_sys_getppid";

fn boot(qemu: Qemu) -> Boot {
    Boot::new(qemu, KERNEL).append("quiet")
}

/// How many records of an event the trace has.
fn records(boot: &BootResult, event: &str) -> usize {
    trace_lines(&boot.trace).iter().filter(|line| line.event == event).count()
}

/// No probe at the start: the kernel has not been looked for yet, and all its code has been translated.
#[test]
fn the_first_probe_comes_in_a_running_guest() {
    for qemu in Qemu::selected() {
        for append in ["pti=off", "nokaslr pti=on"] {
            let boot = boot(qemu).append(append).script(["getppid 2000"]);
            let mut guest = Guest::start(boot, ["getppid 1000", "getppid 1000"]);
            guest.client.add(&format!("p:first {GETPPID} sp=%sp"));
            guest.step();
            assert_eq!(guest.client.hits("first"), 1000, "{qemu}, {append}");
            assert_eq!(guest.client.delete("first")[0].hits, 1000, "{qemu}, {append}");
            guest.step();
            let result = guest.finish();
            assert_eq!(records(&result, "first"), 1000, "{qemu}, {append}");
            assert!(result.summary().probes.is_empty(), "{qemu}, {append}");
        }
    }
}

/// Fifty lives of each kind of probe, every time at the same place.
#[test]
fn fifty_times_added_and_deleted() {
    const TIMES: usize = 50;
    for qemu in Qemu::selected() {
        let calls = |time: usize| 10 + time as u64 % 7;
        let steps = (0..2 * TIMES).map(|step| format!("getppid {}", calls(step / 2)));
        let mut guest = Guest::start(boot(qemu).smp(2).append("pti=on"), steps);
        for time in 0..TIMES {
            let (client, name) = (&mut guest.client, format!("t{time}"));
            let count = json!({"def": format!("p:count_{name} {GETPPID}"), "action": "count"});
            let post = json!({"def": format!("p:post_{name} {GETPPID} ax=%ax"), "when": "post"});
            client.add_with(count);
            client.add(&format!("p:event_{name} {GETPPID} di=%di nr=+120($arg1):u64"));
            client.add(&format!("r:return_{name} {GETPPID} $retval"));
            client.add_with(post);
            guest.step();
            let mut found = Vec::new();
            for kind in ["count", "event", "return", "post"] {
                let removed = guest.client.delete(&format!("{kind}_{name}"));
                found.extend(removed.iter().map(|counts| (kind, counts.hits, counts.missed, counts.dropped)));
            }
            let n = calls(time);
            let expected = ["count", "event", "return", "post"].map(|kind| (kind, n, 0, 0));
            assert_eq!(found, expected, "{qemu}, time {time}");
            // And nobody is there to see these.
            guest.step();
        }
        let status = guest.client.status();
        assert_eq!((&status["armed_sites"], &status["probes"]), (&json!(0), &json!(0)), "{qemu}: {status}");
        let result = guest.finish();
        for time in 0..TIMES {
            for kind in ["event", "return", "post"] {
                let name = format!("{kind}_t{time}");
                assert_eq!(records(&result, &name) as u64, calls(time), "{qemu}: {name}");
            }
        }
        assert_eq!(trace_lines(&result.trace).iter().filter(|line| line.event.starts_with("count")).count(), 0);
    }
}

/// Probes that rest count nothing, and those beside them count everything.
#[test]
fn disabled_and_enabled_while_the_guest_runs() {
    let second = common::instructions(&common::image(KERNEL), GETPPID)[1].0;
    for qemu in Qemu::selected() {
        let boot = boot(qemu)
            .append("pti=off")
            .plugin_arg(format!("count=p:stays {GETPPID}"))
            .plugin_arg(format!("count=p:count {GETPPID}"))
            .plugin_arg(format!("probe=p:event {GETPPID} sp=%sp"))
            .plugin_arg(format!("probe=r:return {GETPPID} $retval"))
            .plugin_arg(format!("count=p:alone {GETPPID}+{second}"));
        let mut guest = Guest::start(boot, (0..6).map(|step| format!("getppid {}", 10u64.pow(step))));
        let set = |guest: &mut Guest, cmd: &str, event: &str| {
            assert_eq!(guest.client.switch(cmd, event), 1, "{qemu}: {cmd} {event}");
        };
        guest.step();
        set(&mut guest, "disable", "count");
        set(&mut guest, "disable", "alone");
        guest.step();
        set(&mut guest, "enable", "count");
        set(&mut guest, "disable", "event");
        guest.step();
        set(&mut guest, "disable", "return");
        set(&mut guest, "enable", "alone");
        guest.step();
        set(&mut guest, "enable", "event");
        set(&mut guest, "disable", "stays");
        set(&mut guest, "disable", "count");
        guest.step();
        set(&mut guest, "enable", "return");
        set(&mut guest, "enable", "stays");
        guest.step();
        let result = guest.finish();
        // A digit for each step, the last one first.
        let all = [("stays", 101_111), ("count", 1_101), ("event", 110_011), ("return", 100_111), ("alone", 111_001)];
        common::assert_hits(&result, qemu.version(), &all);
        assert_eq!((records(&result, "event"), records(&result, "return")), (110_011, 100_111), "{qemu}");
        let missed = |probe: &qkprobe_tests::ProbeSummary| (probe.missed, probe.dropped) == (0, 0);
        assert!(result.summary().probes.iter().all(missed), "{qemu}: {:?}", result.summary());
    }
}

/// A probe that was disabled while the code cache was flushed is still the same probe.
#[test]
fn disabled_from_the_start() {
    for qemu in Qemu::selected() {
        let mut guest = Guest::start(boot(qemu), ["getppid 100", "getppid 10", "getppid 1"]);
        guest.client.request(json!({"cmd": "add", "def": format!("p:rests {GETPPID}"), "enabled": false}));
        guest.client.add("p:other do_sys_openat2");
        guest.step();
        guest.client.switch("enable", "rests");
        guest.step();
        guest.client.delete("other");
        assert_eq!(guest.client.delete("rests")[0].hits, 10, "{qemu}");
        guest.step();
        assert_eq!(records(&guest.finish(), "rests"), 10, "{qemu}");
    }
}
