//! Return probes. The return address is in the link register, and the stack pointer is the same before and after.

use std::collections::BTreeSet;

use qkprobe_symbols::KernelImage;
use qkprobe_tests::{GuestKernel, Qemu};

use crate::common::returns::{self, Loaded, assert_turns};
use crate::common::{assert_hits, image, int, symbol, trace_lines, value};
use crate::{BLR, KERNELS, behind_calls, boot, branch, words};

/// Newest first at the entry, oldest first at the return, and then the caller's next instruction.
#[test]
fn order_and_callers() {
    for qemu in Qemu::selected() {
        for (kernel, _) in KERNELS {
            let image = image(kernel);
            let (_, size) = symbol(&image, "sys_openat");
            let behind = behind_calls(&image, "sys_openat", "do_sys_openat2");
            let mut boot = boot(qemu, kernel, 1).script(["openclose 300 /etc/none", "getppid 300"]);
            for offset in &behind {
                boot = boot.plugin_arg(format!("probe=p:behind_{offset} sys_openat+{offset}"));
            }
            for probe in ["p:p1", "r:r2", "p:p3", "r:r4", "r:r5", "p:p6"] {
                let result = if probe.starts_with('r') { " ret=$retval:s32" } else { "" };
                boot = boot.plugin_arg(format!("probe={probe} do_sys_openat2{result}"));
            }
            let boot = boot
                .plugin_arg("probe=r:first sys_getppid ret=$retval:s32")
                .plugin_arg("probe=p:second sys_getppid")
                .plugin_arg("probe=r:third sys_getppid lat=$latency")
                .run_ok();
            let what = format!("{qemu}, {}", kernel.name());
            let lines = trace_lines(&boot.trace);
            assert_turns(&lines, &["p6", "p3", "p1", "r2", "r4", "r5", "behind"], 300);
            assert_turns(&lines, &["second", "first", "third"], 300);
            assert!(lines.is_sorted_by_key(|line| line.time), "{what}");
            assert_hits(&boot, &what, &[("first", 300), ("second", 300), ("third", 300)]);
            let opens = boot.summary().probe("p1").hits;
            for name in ["r2", "p3", "r4", "r5", "p6"] {
                assert_hits(&boot, &what, &[(name, opens)]);
            }
            let dot = if kernel == GuestKernel::Ppc64Pseries6_1 { "." } else { "" };
            let places: BTreeSet<String> = behind
                .iter()
                .map(|offset| format!("{dot}sys_openat+{offset:#x}/{size:#x} <- {dot}do_sys_openat2"))
                .collect();
            let missing = lines.iter().filter(|line| line.event == "r4" && int(line, "ret") == -2);
            let missing: Vec<_> = missing.map(|line| line.place).collect();
            assert_eq!(missing.len(), 300, "{what}");
            assert!(missing.iter().all(|place| places.contains(*place)), "{what}: {missing:?}, not {places:?}");
            // Init has no parent.
            assert_eq!(boot.trace.matches(" ret=0\n").count(), 300, "{what}");
        }
    }
}

/// Two functions of which one ends in a jump to the other: both return to the caller of the outer one, the inner first.
#[test]
fn a_tail_call_returns_for_all() {
    for qemu in Qemu::selected() {
        for kernel in [GuestKernel::Ppc64le6_1, GuestKernel::Ppc64Pseries6_1] {
            let image = image(kernel);
            let ((start, _), inner) = (symbol(&image, "sys_clone"), crate::entry(&image, "__do_sys_clone"));
            let jumps = |(offset, word): &(u64, u32)| branch(start + offset, *word) == Some((inner, false));
            assert_eq!(words(&image, "sys_clone").iter().filter(|line| jumps(line)).count(), 1);
            let boot = boot(qemu, kernel, 1)
                .script(["fork 100"])
                .plugin_arg("probe=r:outer sys_clone ret=$retval lat=$latency")
                .plugin_arg("probe=p:enter_outer sys_clone")
                .plugin_arg("probe=r:inner __do_sys_clone ret=$retval lat=$latency")
                .plugin_arg("probe=p:enter_inner __do_sys_clone")
                // Of registers and number: 120 is clone.
                .plugin_arg("probe=r:all system_call_exception nr=$arg2:s32 ret=$retval lat=$latency if nr == 120")
                .plugin_arg("probe=r:outer_too sys_clone ret=$retval lat=$latency")
                .run_ok();
            let what = format!("{qemu}, {}", kernel.name());
            let lines = trace_lines(&boot.trace);
            let turn = ["enter_outer", "enter_inner", "inner", "outer", "outer_too", "all"];
            assert_turns(&lines, &turn, 100);
            assert_hits(&boot, &what, &turn.map(|name| (name, 100)));
            let dot = if kernel == GuestKernel::Ppc64Pseries6_1 { "." } else { "" };
            for turn in lines.chunks(turn.len()) {
                let returns = &turn[2..5];
                let callers: BTreeSet<&str> =
                    returns.iter().map(|line| line.place.split_once(" <- ").unwrap().0).collect();
                let caller = callers.first().unwrap();
                assert_eq!(callers.len(), 1, "{what}: {returns:?}");
                assert!(caller.starts_with(&format!("{dot}system_call_exception+0x")), "{what}: {returns:?}");
                let values: BTreeSet<&str> = turn[2..].iter().map(|line| value(line, "ret")).collect();
                assert_eq!(values.len(), 1, "{what}: {turn:?}");
                let latencies: Vec<i64> = returns.iter().map(|line| int(line, "lat")).collect();
                assert!(latencies[0] < latencies[1], "{what}: {returns:?}");
            }
        }
    }
}

/// The kernel walks a chain of epoll instances by recursion; and four tasks sleep at once.
#[test]
fn recursion_and_maxactive() {
    for qemu in Qemu::selected() {
        for (kernel, smp) in KERNELS {
            let boot = boot(qemu, kernel, smp)
                .script(["epoll 20 4", "epoll 20 1", "threads 4 sleep 2000", "sleep 10"])
                .plugin_arg("count=p:entries ep_loop_check_proc")
                .plugin_arg("probe=r:all ep_loop_check_proc depth=$arg2:s32 ret=$retval:s32")
                .plugin_arg("count=r2:two ep_loop_check_proc")
                .plugin_arg("count=r100:hundred ep_loop_check_proc")
                .plugin_arg("count=r1:outermost ep_loop_check_proc depth=$arg2:s32 if depth == 0")
                .plugin_arg("count=p:sleeps hrtimer_nanosleep")
                .plugin_arg("count=r:sleepers hrtimer_nanosleep")
                .plugin_arg("count=r3:three_beds hrtimer_nanosleep")
                .run_ok();
            let what = format!("{qemu}, {}", kernel.name());
            // The chain of four is made by walks of 1, 2 and 3; then 20 of 4 each, and 20 of 1.
            let (walks, all, two) = (43, 106, 65);
            assert_hits(&boot, &what, &[("entries", all), ("all", all), ("two", two), ("hundred", all)]);
            assert_hits(&boot, &what, &[("outermost", walks), ("sleeps", 5), ("sleepers", 5), ("three_beds", 4)]);
            let summary = boot.summary();
            let missed =
                ["all", "two", "hundred", "outermost", "sleepers", "three_beds"].map(|name| summary.probe(name).missed);
            assert_eq!(missed, [0, all - two, 0, all - walks, 0, 1], "{what}");
            assert!(summary.probes.iter().all(|probe| (probe.pending, probe.abandoned) == (0, 0)), "{what}");
            // The innermost returns first. The kernel counts the levels below.
            let lines = trace_lines(&boot.trace);
            let all: Vec<_> = lines.iter().map(|line| (int(line, "depth"), int(line, "ret"))).collect();
            assert_eq!(all[..6], [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)], "{what}");
            for walk in all[6..86].chunks(4) {
                assert_eq!(walk, [(3, 0), (2, 1), (1, 2), (0, 3)], "{what}");
            }
            assert_eq!(all[86..], [(0, 0); 20], "{what}");
        }
    }
}

/// Functions that return, always.
const RETURN: [&str; 8] =
    ["do_sys_openat2", "vfs_read", "vfs_write", "sys_execve", "sys_clone", "sys_wait4", "sys_read", "kernel_clone"];

/// The ways out of a function: returns, and jumps elsewhere.
#[track_caller]
fn ways_out(image: &KernelImage, function: &str) -> Vec<u64> {
    let (start, size) = symbol(image, function);
    let leaves = |offset: u64, word: u32| match branch(start + offset, word) {
        Some((target, link)) => !link && !(start..start + size).contains(&target),
        None => word == BLR,
    };
    words(image, function).iter().filter(|(offset, word)| leaves(*offset, *word)).map(|(offset, _)| *offset).collect()
}

#[track_caller]
fn check_loaded(qemu: Qemu, kernel: GuestKernel, smp: u32) {
    let ways_out = ways_out(&image(kernel), "schedule");
    let loaded = Loaded { call: "sys_", returning: &RETURN, ways_out, asleep: 10 };
    loaded.check(&format!("{qemu}, {}", kernel.name()), boot(qemu, kernel, smp));
}

#[test]
fn a_loaded_guest() {
    for (kernel, smp) in KERNELS {
        check_loaded(Qemu::V11_1, kernel, smp);
    }
    check_loaded(Qemu::V10_0, GuestKernel::Ppc64le6_1, 2);
}

#[test]
fn a_task_dies_in_a_probed_function() {
    for (kernel, smp) in KERNELS {
        returns::a_task_dies_in_a_probed_function(kernel.name(), boot(Qemu::V11_1, kernel, smp), None);
    }
}

/// The kernel takes return probes some instructions behind a function's begin, where the link register may be gone: they never fire,
/// or late. Here only an entry is taken: the symbol's, and with ELFv2 the one that direct calls use.
#[test]
fn p4_only_entries_have_return_probes() {
    for (kernel, _) in KERNELS {
        let local = kernel == GuestKernel::Ppc64le6_1;
        for offset in [4, 8, 12, 16] {
            let boot = boot(Qemu::V11_1, kernel, 1)
                .script(["openclose 50 /etc/none"])
                .plugin_arg(format!("count=r:late do_sys_openat2+{offset} ret=$retval:s32 if ret == -2"));
            if local && offset == 8 {
                assert_hits(&boot.run_ok(), kernel.name(), &[("late", 50)]);
                continue;
            }
            let boot = boot.run();
            assert!(!boot.status.success(), "{}+{offset}", kernel.name());
            let why = "Retprobe address must be an function entry";
            assert!(boot.stderr.contains(why), "{}+{offset}: {}", kernel.name(), boot.stderr);
        }
    }
}
