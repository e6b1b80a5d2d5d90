//! An instruction that faults and runs again is one execution. Where QEMU tells of exceptions (10.2 and later), it is one hit; before,
//! each attempt is one, as documented.

mod common;

use common::{symbol, trace_lines};
use qkprobe_arch::GuestAddr;
use qkprobe_tests::{Boot, BootResult, GuestKernel, Qemu};

const KERNEL: GuestKernel = GuestKernel::X86_64Cloud6_1;
const CALLS: u64 = 100;

/// `__put_user_8` stores to user space by one instruction, behind the label `__put_user_nocheck_8`: where, and how long it is.
fn store() -> (u64, u64) {
    let image = common::image(KERNEL);
    let (start, size) = symbol(&image, "__put_user_nocheck_8");
    let text = image.bytes(GuestAddr(start), usize::try_from(size).unwrap()).unwrap();
    let at = text.windows(3).position(|bytes| bytes == [0x48, 0x89, 0x01]);
    (at.expect("mov %rax,(%rcx)") as u64, 3)
}

/// The system call time() stores to pages in this state, one after the other: in a process on each vCPU.
fn boot(qemu: Qemu, state: &str, smp: u32) -> BootResult {
    let (offset, len) = store();
    let mov = format!("__put_user_nocheck_8+{offset}");
    let filter = "filter=to >= 0x700000000000 && to < 0x700000064000";
    Boot::new(qemu, KERNEL)
        .smp(smp)
        .append("quiet pti=off")
        .script([format!("procs {smp} time {CALLS} {state}")])
        .plugin_arg(format!("probe=p:stores {mov} to=%cx:x64"))
        .plugin_arg(filter)
        .plugin_arg(format!("probe=p:attempts {mov} to=%cx:x64 do attempts"))
        .plugin_arg(filter)
        .plugin_arg("probe=p:after __put_user_nocheck_8 to=%cx:x64 do post")
        .plugin_arg(filter)
        .plugin_arg(format!("probe=p:post {mov} to=%cx:x64 do post"))
        .plugin_arg(filter)
        // All of the guest's, without a filter.
        .plugin_arg("count=p:calls __put_user_nocheck_8")
        .plugin_arg(format!("count=p:all {mov}"))
        .plugin_arg(format!("count=p:all_attempts {mov} do attempts"))
        .plugin_arg(format!("count=p:behind __put_user_nocheck_8+{}", offset + len))
        .run_ok()
}

/// `faults`: how many of a process's stores fault and run again; `stored`: how many succeed at last.
#[track_caller]
fn check(qemu: Qemu, state: &str, smp: u32, faults: u64, stored: u64) {
    let boot = boot(qemu, state, smp);
    let what = format!("{qemu}, {state}, {smp} vCPUs\n{}", boot.stderr);
    for time in boot.qk_all("time") {
        assert_eq!((time.number("ok") as u64, time.number("efault") as u64), (stored, CALLS - stored), "{what}");
    }
    let summary = boot.summary();
    let hits = |name: &str| summary.probe(name).hits;
    let restarts_known = qemu == Qemu::V11_1;
    let processes = u64::from(smp);
    let (calls, attempts) = (processes * CALLS, processes * (CALLS + faults));
    let expected = (if restarts_known { calls } else { attempts }, attempts, processes * stored);
    assert_eq!((hits("stores"), hits("attempts"), hits("post")), expected, "{what}");
    assert_eq!(hits("after"), calls, "{what}");
    // The same for the whole boot, in which other stores fault, too.
    let restarts = hits("all_attempts") - hits("calls");
    assert!((attempts - calls..attempts - calls + 20).contains(&restarts), "{restarts}, {what}");
    assert_eq!(hits("all"), if restarts_known { hits("calls") } else { hits("all_attempts") }, "{what}");
    assert_eq!(hits("calls") - hits("behind"), calls - processes * stored, "{what}");
    for name in ["stores", "all", "attempts", "all_attempts"] {
        let reexecuted = if restarts_known { restarts } else { 0 };
        assert_eq!(summary.probe(name).reexecuted, reexecuted, "{name}, {what}");
    }
    assert!(summary.probes.iter().all(|probe| (probe.missed, probe.dropped) == (0, 0)), "{what}");

    let lines = trace_lines(&boot.trace);
    let each = |times: u64| {
        let page = |at: u64| format!(" to={:#x}", 0x7000_0000_0000 + at * 4096);
        (0..CALLS).flat_map(|at| (0..times).map(move |_| page(at))).collect::<Vec<_>>()
    };
    let attempts_each = 1 + faults / CALLS;
    for cpu in 0..smp {
        let places = |event: &str| {
            let lines = lines.iter().filter(|line| line.event == event && line.cpu == cpu);
            lines.map(|line| line.args).collect::<Vec<_>>()
        };
        assert_eq!(places("attempts"), each(attempts_each), "{what}");
        assert_eq!(places("stores"), each(if restarts_known { 1 } else { attempts_each }), "{what}");
    }
}

#[test]
fn a_store_to_an_untouched_page() {
    for qemu in Qemu::selected() {
        check(qemu, "fresh", 1, CALLS, CALLS);
        check(qemu, "fresh", 2, CALLS, CALLS);
    }
}

#[test]
fn a_store_that_ends_the_sharing_of_a_page() {
    for qemu in Qemu::selected() {
        check(qemu, "zero", 1, CALLS, CALLS);
    }
}

#[test]
fn a_store_that_does_not_fault() {
    for qemu in Qemu::selected() {
        check(qemu, "touched", 1, 0, CALLS);
    }
}

/// The kernel goes on elsewhere: the next call's store is not the old one again, though all is where it was.
#[test]
fn a_store_that_never_succeeds() {
    for qemu in Qemu::selected() {
        check(qemu, "readonly", 1, 0, 0);
        check(qemu, "unmapped", 2, 0, 0);
    }
}
