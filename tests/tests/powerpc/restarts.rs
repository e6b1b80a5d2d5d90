//! A store of the kernel's that faults and runs again is one execution: 11.1 tells of exceptions, 10.0 counts each attempt.

use qkprobe_tests::{GuestKernel, Qemu};

use crate::common::{image, trace_lines};
use crate::{KERNELS, boot, is_64, offset_of};

const CALLS: u64 = 100;

/// The system call time() stores to pages in this state, one after the other: in a process on each vCPU. `faults`: how often
/// the kernel has to do something for each; `stored`: how many succeed at last.
#[track_caller]
fn check(qemu: Qemu, kernel: GuestKernel, state: &str, smp: u32, faults: u64, stored: u64) {
    let image = image(kernel);
    // `put_user` is inline: std r3,0(r31); stw r4,0(r31), the low half of a time of 64 bits.
    let (function, store) = if is_64(kernel) { ("sys_time", 0xf87f_0000) } else { ("sys_time32", 0x909f_0000) };
    let offset = offset_of(&image, function, u32::MAX, store);
    let place = format!("{function}+{offset}");
    let boot = boot(qemu, kernel, smp)
        .script([format!("procs {smp} time {CALLS} {state}")])
        .plugin_arg(format!("probe=p:stores {place} to=%r31:x64"))
        .plugin_arg(format!("probe=p:attempts {place} to=%r31:x64 do attempts"))
        .plugin_arg(format!("count=p:post {place} do post"))
        .plugin_arg(format!("count=p:before {function}+{}", offset - 4))
        .plugin_arg(format!("count=p:behind {function}+{}", offset + 4))
        .plugin_arg(format!("count=r:calls {function}"))
        .run_ok();
    let what = format!("{qemu}, {}, {state}, {smp} vCPUs\n{}", kernel.name(), boot.stderr);
    for time in boot.qk_all("time") {
        assert_eq!((time.number("ok") as u64, time.number("efault") as u64), (stored, CALLS - stored), "{what}");
    }
    let summary = boot.summary();
    let hits = |name: &str| summary.probe(name).hits;
    let restarts_known = qemu == Qemu::V11_1;
    let processes = u64::from(smp);
    let calls = processes * CALLS;
    assert_eq!((hits("before"), hits("calls"), hits("behind")), (calls, calls, processes * stored), "{what}");
    let attempts = hits("attempts");
    // Where the hash table is the big-endian kernel's, a missing segment is a fault too: one for a process, and perhaps others
    // each time that it was away from its CPU, which the host decides.
    let segments = attempts - calls * (1 + faults);
    let most = if kernel == GuestKernel::Ppc64Pseries6_1 { calls } else { 0 };
    assert!(segments <= most, "{segments}, {what}");
    let stores = if restarts_known { calls } else { attempts };
    assert_eq!((hits("stores"), hits("post")), (stores, processes * stored), "{what}");
    for name in ["stores", "attempts"] {
        let reexecuted = if restarts_known { attempts - calls } else { 0 };
        assert_eq!(summary.probe(name).reexecuted, reexecuted, "{name}, {what}");
    }
    assert!(summary.probes.iter().all(|probe| (probe.missed, probe.dropped) == (0, 0)), "{what}");
    let base = if is_64(kernel) { 0x700_0000_0000 } else { 0x6000_0000 };
    let page = if kernel == GuestKernel::Ppc64le6_1 { 65536 } else { 4096 };
    let pages: Vec<String> = (0..CALLS).map(|at| format!(" to={:#x}", base + at * page)).collect();
    let lines = trace_lines(&boot.trace);
    for cpu in 0..smp {
        let places = |event: &str| {
            lines.iter().filter(|line| line.event == event && line.cpu == cpu).map(|line| line.args).collect::<Vec<_>>()
        };
        let mut attempts = places("attempts");
        attempts.dedup();
        assert_eq!(attempts, pages, "{what}");
        let mut stores = places("stores");
        if !restarts_known {
            stores.dedup();
        }
        assert_eq!(stores, pages, "{what}");
    }
}

/// How often the kernel has to do something until a page can be written. It maps the page; and where there is a hash table of
/// translations, what was used is put there when it is missed the next time.
fn misses(kernel: GuestKernel) -> u64 {
    if kernel == GuestKernel::Ppc64le6_1 { 1 } else { 2 }
}

#[test]
fn a_store_to_an_untouched_page() {
    for (kernel, smp) in KERNELS {
        for qemu in Qemu::selected() {
            check(qemu, kernel, "fresh", smp, misses(kernel), CALLS);
        }
    }
}

#[test]
fn a_store_that_ends_the_sharing_of_a_page() {
    for (kernel, _) in KERNELS {
        check(Qemu::V11_1, kernel, "zero", 1, misses(kernel), CALLS);
    }
}

#[test]
fn a_store_that_does_not_fault() {
    for (kernel, _) in KERNELS {
        check(Qemu::V11_1, kernel, "touched", 1, 0, CALLS);
    }
}

/// The kernel goes on elsewhere: the next call's store is not the old one again, though all is where it was.
#[test]
fn a_store_that_never_succeeds() {
    for (kernel, smp) in KERNELS {
        check(Qemu::V11_1, kernel, "readonly", 1, 0, 0);
        check(Qemu::V11_1, kernel, "unmapped", smp, 0, 0);
    }
}
