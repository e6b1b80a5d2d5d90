//! A machine that starts again: the same probes count in the next kernel, wherever that is loaded, from its first code on; what was awaited in
//! the one before never comes.

mod common;

use std::collections::BTreeSet;

use common::{assert_hits, field, json, trace_lines};
use qkprobe_tests::{Boot, GuestArch, GuestKernel, Qemu};

/// How many times the machine starts until it is ended at the next `start_kernel`.
const STARTS: u64 = 3;
const CALLS: u64 = 1000;
const OPENS: u64 = 100;

/// The guest crashes at the end of its script, and QEMU resets the machine.
#[track_caller]
fn check(qemu: Qemu, kernel: GuestKernel, smp: u32, getppid: &str, first: &str) {
    let pc = if kernel.arch() == GuestArch::X86_64 { "%ip" } else { "%nip" };
    let what = format!("{qemu}, {}, {smp} vCPUs", kernel.name());
    let result = Boot::new(qemu, kernel)
        .smp(smp)
        .append("quiet")
        .extra_args(["-action", "reboot=reset,panic=none"])
        .script([format!("getppid {CALLS}"), format!("openclose {OPENS} /etc/none"), "panic".to_owned()])
        .plugin_arg(format!("count=p:first {first}"))
        .plugin_arg(format!("probe=p:over start_kernel at={pc}:x64 do quit=0 nth={}", STARTS + 1))
        .plugin_arg(format!("count=p:counted {getppid}"))
        .plugin_arg(format!("probe=p:traced {getppid}"))
        .plugin_arg("probe=r:opened do_sys_openat2 file=+0($arg2):ustring ret=$retval:s32 if file == \"/etc/none\"")
        .plugin_arg("count=r:crashed panic")
        .run();
    assert_eq!(result.status.code(), Some(0), "{what}\n{}", result.stderr);
    let done = |line: &str| result.console.matches(line).count() as u64;
    assert_eq!(done(&format!("ok getppid n={CALLS} ")), STARTS, "{what}\n{}", result.console);
    let expected = [
        ("first", STARTS + 1),
        ("over", STARTS + 1),
        ("counted", STARTS * CALLS),
        ("traced", STARTS * CALLS),
        ("opened", STARTS * OPENS),
        ("crashed", 0),
    ];
    assert_hits(&result, &what, &expected);
    assert_eq!(field(&result, "crashed", "pending") + field(&result, "crashed", "abandoned"), STARTS, "{what}");
    assert!(result.summary().probes.iter().all(|probe| (probe.missed, probe.dropped) == (0, 0)), "{what}");
    let records = trace_lines(&result.trace);
    let of = |event: &'static str| records.iter().filter(move |record| record.event == event);
    let odd = of("opened").find(|record| record.args != " file=\"/etc/none\" ret=-2");
    assert_eq!(odd, None, "{what}");
    // `__x64_sys_getppid` has another name, `__do_sys_getppid`.
    let places: BTreeSet<&str> = of("traced").map(|record| record.place).collect();
    assert!(places.len() == 1 && places.iter().all(|place| place.contains("sys_getppid+0x")), "{what}: {places:?}");
    // Where each kernel began; the summary knows the last.
    let starts: Vec<&str> = of("over").map(|record| record.args).collect();
    let address = json(&result)["probes"][1]["address"].as_str().map(|address| format!(" at={address}"));
    assert_eq!(starts.last().copied(), address.as_deref(), "{what}");
    let moved = starts.iter().any(|start| *start != starts[0]);
    assert_eq!(moved, kernel.arch() == GuestArch::X86_64, "{what}: {starts:?}");
}

#[test]
fn probes_outlive_a_reset_of_a_kernel_that_moves() {
    for qemu in Qemu::selected() {
        check(qemu, GuestKernel::X86_64Cloud6_1, 2, "__x64_sys_getppid", "startup_64");
    }
}

#[test]
fn probes_outlive_a_reset_on_powerpc() {
    check(Qemu::V11_1, GuestKernel::Ppc64le6_1, 2, "sys_getppid", "start_here_common");
}
