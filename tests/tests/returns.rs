//! Return probes: each call returns once, with its values, to its true caller; in the kernel's order, through tail calls and
//! recursion, from one vCPU to another, and beside the guest's own kretprobes. What never returns is not waited for.

mod common;
#[path = "returns/loaded.rs"]
mod loaded;

use std::collections::{BTreeMap, BTreeSet};

use common::returns::{assert_all_accounted, assert_turns};
use common::{assert_hits, behind_call, image, instructions, int, of, symbol, trace_lines, value};
use qkprobe_arch::{Flow, GuestAddr};
use qkprobe_symbols::KernelImage;
use qkprobe_tests::{Boot, GuestKernel, Qemu};

const KERNEL: GuestKernel = GuestKernel::X86_64Cloud6_1;

/// What system calls come back to.
fn system_call_caller(image: &KernelImage) -> String {
    behind_call(image, "do_syscall_64", "x64_sys_call")
}

#[test]
fn every_call_returns_once_with_its_values() {
    let image = image(KERNEL);
    let (open_caller, caller) = (behind_call(&image, "__x64_sys_openat", "do_sys_openat2"), system_call_caller(&image));
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, KERNEL)
            .smp(2)
            .append("quiet pti=off")
            .script([
                "threads 2 getppid 1000",
                "procs 2 getppid 100",
                "threads 2 openclose 300 /etc/none",
                "openclose 200 /init",
                "fork 40",
                "exec 5",
                "threads 2 sleep 400",
            ])
            .plugin_arg("count=r:getppids __x64_sys_getppid")
            .plugin_arg("probe=r:getppid __x64_sys_getppid ret=$retval:s64 lat=$latency")
            .plugin_arg("count=p:entries do_sys_openat2")
            .plugin_arg(
                "probe=r:open do_sys_openat2 $retval:s32 dfd=$arg1:s32 file=+0($arg2):ustring flags=+0($arg3):x64",
            )
            .plugin_arg("count=r:none do_sys_openat2 ret=$retval:s64")
            .plugin_arg("filter=ret == -2")
            .plugin_arg("count=r:opened do_sys_openat2 file=+0($arg2):ustring ret=$retval:s64")
            .plugin_arg("filter=ret >= 0 && file == \"/init\"")
            .plugin_arg("probe=p:fork kernel_clone%return flags=+0($arg1):x64 child=$retval")
            .plugin_arg("filter=flags == 0x1200000")
            .plugin_arg("count=r:execs __x64_sys_execve ret=$retval:s32")
            .plugin_arg("filter=ret == 0")
            .plugin_arg("probe=r:slept __x64_sys_clock_nanosleep lat=$latency ret=$retval")
            .plugin_arg("filter=lat >= 200000000")
            .plugin_arg("count=r:short __x64_sys_clock_nanosleep lat=$latency")
            .plugin_arg("filter=lat < 200000000")
            .run_ok();
        // A child for each exec, and two of procs.
        let forks = 40 + 5 + 2;
        let expected =
            [("getppids", 2200), ("getppid", 2200), ("none", 600), ("opened", 200), ("fork", forks), ("execs", 5)];
        assert_hits(&boot, qemu.version(), &expected);
        assert_hits(&boot, qemu.version(), &[("slept", 2), ("short", 0)]);
        let summary = boot.summary();
        for name in ["open", "none", "opened"] {
            assert_all_accounted(&summary, "entries", name);
        }
        assert_eq!(summary.probe("short").filtered, 2, "{qemu}");
        assert_eq!(summary.probe("open").kind, "r", "{qemu}");

        let lines = trace_lines(&boot.trace);
        let getppid = of(&lines, "getppid");
        // Init has no parent, and is the others'.
        assert_eq!(getppid.iter().filter(|line| int(line, "ret") == 0).count(), 2000, "{qemu}");
        assert_eq!(getppid.iter().filter(|line| int(line, "ret") == 1).count(), 200, "{qemu}");
        let place = format!("{caller} <- __do_sys_getppid");
        for line in &getppid {
            assert_eq!(line.place, place, "{qemu}");
            assert!((1..10_000_000_000).contains(&int(line, "lat")), "{qemu}: {line:?}");
        }
        let open = of(&lines, "open");
        assert_eq!(open.len() as u64, summary.probe("open").hits, "{qemu}");
        let place = format!("{open_caller} <- do_sys_openat2");
        assert!(open.iter().all(|line| line.place == place), "{qemu}: {place}\n{}", boot.trace);
        let none = open.iter().filter(|line| line.args == " arg1=-2 dfd=-100 file=\"/etc/none\" flags=0x8000");
        assert_eq!(none.count(), 600, "{qemu}\n{}", boot.trace);
        let opened: Vec<i64> = open
            .iter()
            .filter(|line| line.args.ends_with(" dfd=-100 file=\"/init\" flags=0x8000"))
            .map(|line| int(line, "arg1"))
            .collect();
        // Each is closed before the next is opened.
        assert_eq!(opened, [opened[0]; 200], "{qemu}");
        assert!(opened[0] > 2, "{qemu}: {opened:?}");

        let fork = of(&lines, "fork");
        let children: BTreeSet<&str> = fork.iter().map(|line| value(line, "child")).collect();
        assert_eq!(children.len() as u64, forks, "{qemu}: each child has its own number");
        let place = format!("{} <- kernel_clone", behind_call(&image, "__do_sys_clone", "kernel_clone"));
        assert!(fork.iter().all(|line| line.place == place && line.args.starts_with(" flags=0x1200000 ")), "{fork:?}");
        assert!(of(&lines, "slept").iter().all(|line| value(line, "ret") == "0x0"), "{qemu}");
    }
}

/// The instruction before `offset` in a function of this name and size: a call of what returned, or of what ended in a jump there.
fn is_behind_call(image: &KernelImage, known: &mut BTreeMap<String, bool>, caller: &str) -> bool {
    if let Some(known) = known.get(caller) {
        return *known;
    }
    let parts = caller.split_once("+0x").and_then(|(name, rest)| Some((name, rest.split_once("/0x")?)));
    let (name, (offset, size)) = parts.unwrap_or_else(|| panic!("no place in the kernel: {caller}"));
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let (offset, size) = (hex(offset), hex(size));
    let arch = qkprobe_arch::by_name("x86_64").unwrap();
    let found = image.symbols.iter().filter(|symbol| symbol.name == name && symbol.size == size).any(|symbol| {
        let text = image.bytes(symbol.addr, usize::try_from(size).unwrap()).unwrap();
        let mut at = 0;
        while at < offset {
            let bytes = &text[usize::try_from(at).unwrap()..];
            let Ok(insn) = arch.decode(GuestAddr(symbol.addr.0 + at), bytes) else { return false };
            at += u64::from(insn.len);
            if at == offset {
                return matches!(insn.flow, Flow::Call { .. } | Flow::IndirectCall);
            }
        }
        false
    });
    known.insert(caller.to_owned(), found);
    found
}

#[test]
fn callers_are_where_the_image_has_calls() {
    let image = image(KERNEL);
    for qemu in Qemu::selected() {
        let functions = ["schedule", "vfs_read", "vfs_write", "kmem_cache_alloc", "kfree", "wake_up_process"];
        let mut boot = Boot::new(qemu, KERNEL).smp(2).append("quiet pti=off").script(["pipe 50", "fork 10", "exec 2"]);
        for function in functions {
            boot = boot
                .plugin_arg(format!("probe=r:r_{function} {function}"))
                .plugin_arg(format!("count=p:p_{function} {function}"));
        }
        let boot = boot.run_ok();
        let (summary, mut known) = (boot.summary(), BTreeMap::new());
        let lines = trace_lines(&boot.trace);
        for function in functions {
            assert_all_accounted(&summary, &format!("p_{function}"), &format!("r_{function}"));
            let (mut callers, suffix) = (BTreeSet::new(), format!(" <- {function}"));
            for line in of(&lines, &format!("r_{function}")) {
                let caller = line.place.strip_suffix(&suffix).unwrap_or_else(|| panic!("{qemu}: {line:?}"));
                assert!(is_behind_call(&image, &mut known, caller), "{qemu}: {line:?}");
                callers.insert(caller);
            }
            assert!(!callers.is_empty(), "{qemu}: {function}");
        }
        assert!(known.len() > 50, "{qemu}: {known:?}");
    }
}

#[test]
fn entries_newest_first_and_returns_oldest_first() {
    let image = image(KERNEL);
    let behind = behind_call(&image, "__x64_sys_openat", "do_sys_openat2");
    let behind = behind.split('/').next().unwrap();
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, KERNEL)
            .append("quiet pti=off")
            .script(["openclose 300 /etc/none", "getppid 300"])
            // The caller's instruction at the return address comes after the return, whoever was first.
            .plugin_arg(format!("probe=p:behind_1 {behind}"))
            .plugin_arg("probe=p:p1 do_sys_openat2")
            .plugin_arg("probe=r:r2 do_sys_openat2")
            .plugin_arg("probe=p:p3 do_sys_openat2")
            .plugin_arg("probe=r:r4 do_sys_openat2")
            .plugin_arg("probe=r:r5 do_sys_openat2")
            .plugin_arg("probe=p:p6 do_sys_openat2")
            .plugin_arg(format!("probe=p:behind_7 {behind}"))
            .plugin_arg("probe=r:first __x64_sys_getppid")
            .plugin_arg("probe=p:second __x64_sys_getppid")
            .plugin_arg("probe=r:third __x64_sys_getppid")
            .run_ok();
        let lines = trace_lines(&boot.trace);
        assert_turns(&lines, &["p6", "p3", "p1", "r2", "r4", "r5", "behind_7", "behind_1"], 300);
        assert_turns(&lines, &["second", "first", "third"], 300);
        assert!(lines.is_sorted_by_key(|line| line.time), "{qemu}");
        assert_hits(&boot, qemu.version(), &[("first", 300), ("second", 300), ("third", 300)]);
        let opens = boot.summary().probe("p1").hits;
        for name in ["r2", "p3", "r4", "r5", "p6", "behind_1", "behind_7"] {
            assert_hits(&boot, qemu.version(), &[(name, opens)]);
        }
    }
}

#[test]
fn a_tail_call_returns_for_all() {
    let image = image(KERNEL);
    let jumps_to = |function: &str, other: &str| {
        let (target, _) = symbol(&image, other);
        instructions(&image, function).iter().any(
            |(_, insn)| matches!(insn.flow, Flow::Jump { target: to } | Flow::Branch { target: to } if to.0 == target),
        )
    };
    assert!(jumps_to("x64_sys_call", "__x64_sys_clone") && jumps_to("__x64_sys_clone", "__do_sys_clone"));
    let caller = system_call_caller(&image);
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, KERNEL)
            .append("quiet pti=off")
            .script(["fork 100"])
            .plugin_arg("probe=r:outer __x64_sys_clone ret=$retval lat=$latency")
            .plugin_arg("probe=p:enter_outer __x64_sys_clone")
            .plugin_arg("probe=r:inner __do_sys_clone ret=$retval lat=$latency")
            .plugin_arg("probe=p:enter_inner __do_sys_clone")
            .plugin_arg("probe=r:all x64_sys_call nr=$arg2:s32 ret=$retval lat=$latency")
            .plugin_arg("filter=nr == 56")
            .plugin_arg("probe=r:outer_too __x64_sys_clone ret=$retval lat=$latency")
            .run_ok();
        let lines = trace_lines(&boot.trace);
        let turn = ["enter_outer", "enter_inner", "inner", "outer", "outer_too", "all"];
        assert_turns(&lines, &turn, 100);
        assert_hits(&boot, qemu.version(), &turn.map(|name| (name, 100)));
        for turn in lines.chunks(turn.len()) {
            let returns = &turn[2..];
            let places: Vec<&str> = returns.iter().map(|line| line.place.split_once(" <- ").unwrap().0).collect();
            assert_eq!(places, [caller.as_str(); 4], "{qemu}: all return to the one who called the outermost");
            let values: BTreeSet<&str> = returns.iter().map(|line| value(line, "ret")).collect();
            assert_eq!(values.len(), 1, "{qemu}: {returns:?}");
            let latencies: Vec<i64> = returns.iter().map(|line| int(line, "lat")).collect();
            assert!(latencies[0] < latencies[1] && latencies[1] < latencies[3], "{qemu}: {returns:?}");
        }
    }
}

#[test]
fn recursion_and_maxactive() {
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, KERNEL)
            .smp(2)
            .append("quiet pti=off")
            .script(["epoll 20 4", "epoll 20 1", "threads 4 sleep 1500", "sleep 10"])
            .plugin_arg("count=p:entries ep_loop_check_proc")
            .plugin_arg("probe=r:all ep_loop_check_proc depth=$arg2:s32 ret=$retval:s32")
            .plugin_arg("count=r2:two ep_loop_check_proc")
            .plugin_arg("count=r100:hundred ep_loop_check_proc")
            .plugin_arg("count=r1:outermost ep_loop_check_proc depth=$arg2:s32")
            .plugin_arg("filter=depth == 0")
            .plugin_arg("count=p:sleeps __x64_sys_clock_nanosleep")
            .plugin_arg("count=r:sleepers __x64_sys_clock_nanosleep")
            .plugin_arg("count=r3:three_beds __x64_sys_clock_nanosleep")
            .run_ok();
        // The chain of four is made by walks of 1, 2 and 3; then 20 of 4 each, and 20 of 1.
        let walks = 3 + 20 + 20;
        let all = 1 + 2 + 3 + 20 * 4 + 20;
        let two = 1 + 2 + 2 + 20 * 2 + 20;
        assert_hits(&boot, qemu.version(), &[("entries", all), ("all", all), ("two", two), ("hundred", all)]);
        assert_hits(&boot, qemu.version(), &[("outermost", walks), ("sleeps", 5), ("sleepers", 5), ("three_beds", 4)]);
        let summary = boot.summary();
        let missed =
            ["all", "two", "hundred", "outermost", "sleepers", "three_beds"].map(|name| summary.probe(name).missed);
        assert_eq!(missed, [0, all - two, 0, all - walks, 0, 1], "{qemu}");
        assert!(summary.probes.iter().all(|probe| (probe.pending, probe.abandoned) == (0, 0)), "{qemu}: {summary:?}");
        // The innermost returns first. The kernel counts the levels below.
        let lines = trace_lines(&boot.trace);
        let all: Vec<_> = lines.iter().map(|line| (int(line, "depth"), int(line, "ret"))).collect();
        assert_eq!(all[..6], [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)], "{qemu}");
        for walk in all[6..86].chunks(4) {
            assert_eq!(walk, [(3, 0), (2, 1), (1, 2), (0, 3)], "{qemu}");
        }
        assert_eq!(all[86..], [(0, 0); 20], "{qemu}");
        let places: BTreeSet<&str> = lines.iter().map(|line| line.place.split_once('+').unwrap().0).collect();
        assert_eq!(places, BTreeSet::from(["do_epoll_ctl", "ep_loop_check_proc"]), "{qemu}");
    }
}

/// In the guest without a kernel: ten calls deep, mutual recursion, tail calls, and three frames that a jump leaves behind.
#[test]
fn recursion_and_unwinding_without_a_kernel() {
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, GuestKernel::X86_64Bare)
            .memory(128)
            .plugin_arg("count=p:entries snip_recursion.self")
            .plugin_arg("probe=r:self snip_recursion.self ret=$retval:s32")
            .plugin_arg("count=r4:four snip_recursion.self")
            .plugin_arg("count=r:even snip_recursion_pair.even")
            .plugin_arg("count=r:odd snip_recursion_pair.odd")
            .plugin_arg("count=r3:pair_three snip_recursion_pair.even")
            .plugin_arg("count=r:tail_caller snip_tail_call")
            .plugin_arg("count=r:tail_callee snip_tail_callee")
            .plugin_arg("count=r:tail_middle snip_tail_call.tail")
            .plugin_arg("count=r:unwound_1 snip_unwind.first")
            .plugin_arg("count=r:unwound_2 snip_unwind.second")
            .plugin_arg("count=r:unwound_3 snip_unwind.third")
            .plugin_arg("count=r2:unwound_too snip_unwind.third")
            .plugin_arg("count=r:unwinder snip_unwind")
            // The stack is seen from further up only when somebody waits there: the last of the frames, too, is gone then.
            .plugin_arg("count=r:later snip_nops")
            .run_ok();
        let expected = [
            ("entries", 100),
            ("self", 100),
            ("four", 40),
            // Seven levels in turns, and the eighth that ends it: four of each, three times.
            ("even", 12),
            ("odd", 12),
            ("pair_three", 9),
            ("tail_caller", 10),
            ("tail_callee", 10),
            ("tail_middle", 10),
            ("unwound_1", 0),
            ("unwound_2", 0),
            ("unwound_3", 0),
            ("unwound_too", 0),
            ("unwinder", 10),
            ("later", 10),
        ];
        assert_hits(&boot, qemu.version(), &expected);
        let summary = boot.summary();
        for probe in &summary.probes {
            let missed = match probe.name.as_str() {
                "four" => 60,
                "pair_three" => 3,
                _ => 0,
            };
            let abandoned = if probe.name.starts_with("unwound") { 10 } else { 0 };
            assert_eq!((probe.missed, probe.abandoned, probe.pending), (missed, abandoned, 0), "{qemu}: {probe:?}");
        }
        let lines = trace_lines(&boot.trace);
        // Nine add one each, on the way back.
        for run in lines.chunks(10) {
            let values: Vec<i64> = run.iter().map(|line| int(line, "ret")).collect();
            assert_eq!(values, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], "{qemu}");
        }
    }
}

const TRACING: &str = "/sys/kernel/tracing";

/// The guest replaces the return address on the stack with its trampoline's; we say who called.
#[test]
fn beside_the_guests_own_kretprobes() {
    let caller = behind_call(&image(KERNEL), "__x64_sys_openat", "do_sys_openat2");
    for qemu in Qemu::selected() {
        let enable = |value: u32| format!("write {TRACING}/events/kprobes/enable {value}");
        let append = |text: &str| format!("append {TRACING}/kprobe_events {text}");
        let boot = Boot::new(qemu, KERNEL)
            .append("quiet pti=off")
            .script([
                "openclose 100 /etc/none".to_owned(),
                append("r:own1 do_sys_openat2 ret=$retval:s32"),
                append("r:own2 do_sys_openat2 ret=$retval:s32"),
                append("p:own3 do_sys_openat2"),
                enable(1),
                "openclose 200 /etc/none".to_owned(),
                enable(0),
                "openclose 30 /etc/none".to_owned(),
                format!("cat {TRACING}/kprobe_profile"),
                // What came last is enough.
                format!("cat {TRACING}/trace"),
            ])
            .plugin_arg("count=p:entries do_sys_openat2")
            .plugin_arg("probe=r:open do_sys_openat2 ret=$retval:s32")
            .plugin_arg("count=r:none do_sys_openat2 ret=$retval:s32")
            .plugin_arg("filter=ret == -2")
            .run_ok();
        assert_hits(&boot, qemu.version(), &[("none", 330)]);
        assert_all_accounted(&boot.summary(), "entries", "open");
        assert_eq!(boot.summary().probe("open").pending, 0, "{qemu}");
        // 200, and the open of the file that ended it.
        let profile = boot.file(&format!("{TRACING}/kprobe_profile"));
        for own in ["own1", "own2", "own3"] {
            let words: Vec<&str> = profile
                .lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>())
                .find(|words| words.first() == Some(&own))
                .unwrap_or_else(|| panic!("{qemu}: no {own} in {profile}"));
            assert_eq!(words[1..], ["201", "0"], "{qemu}: {own}");
        }
        // Of the guest's two, the older one sees the other's trampoline.
        let theirs = boot.file(&format!("{TRACING}/trace"));
        let ends = |text: &str| theirs.lines().filter(|line| line.ends_with(text)).count();
        assert_eq!(ends("own1: ([unknown/kretprobe'd] <- do_sys_openat2) ret=-2"), 200, "{qemu}\n{theirs}");
        assert_eq!(ends(&format!("own2: ({caller} <- do_sys_openat2) ret=-2")), 200, "{qemu}\n{theirs}");
        let place = format!("{caller} <- do_sys_openat2");
        let lines = trace_lines(&boot.trace);
        assert!(lines.iter().all(|line| line.place == place), "{qemu}: not {place}\n{}", boot.trace);
    }
}

/// Each call begins on one vCPU and returns on the other.
#[test]
fn a_task_that_sleeps_here_and_wakes_there() {
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, KERNEL)
            .smp(2)
            .append("quiet pti=off")
            .script(["migrate 200"])
            .plugin_arg("probe=p:enter ksys_read fd=$arg1:s32")
            .plugin_arg("filter=fd == 77")
            .plugin_arg("probe=r:leave ksys_read fd=$arg1:s32 ret=$retval:s32")
            .plugin_arg("filter=fd == 77")
            .plugin_arg("count=p:schedules schedule")
            .plugin_arg("count=r:scheduled schedule")
            .plugin_arg("count=p:reads pipe_read")
            .plugin_arg("count=r:read pipe_read")
            .run_ok();
        assert_eq!(boot.qk("migrate").get("moved"), Some("200"), "{qemu}");
        // The last read finds the end of the pipe.
        assert_hits(&boot, qemu.version(), &[("enter", 201), ("leave", 201)]);
        let summary = boot.summary();
        assert_all_accounted(&summary, "schedules", "scheduled");
        assert_all_accounted(&summary, "reads", "read");
        assert_eq!((summary.probe("read").pending, summary.probe("read").abandoned), (0, 0), "{qemu}");
        assert_eq!(summary.probe("scheduled").abandoned, 0, "{qemu}");
        let lines = trace_lines(&boot.trace);
        assert_turns(&lines, &["enter", "leave"], 201);
        let calls: Vec<(u32, u32, i64)> =
            lines.chunks(2).map(|call| (call[0].cpu, call[1].cpu, int(&call[1], "ret"))).collect();
        for (at, call) in calls[..200].iter().enumerate() {
            let here = u32::try_from(at % 2).unwrap();
            assert_eq!(*call, (here, 1 - here, 1), "{qemu}: call {at}");
        }
        assert_eq!(calls[200].2, 0, "{qemu}");
    }
}
