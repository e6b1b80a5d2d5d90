//! sparc64: what the other tests of this folder ask of x86_64 guests, asked of Linux on sun4u, whose registers are windows:
//! counts, values, returns, changes, and what an older QEMU cannot do.

mod common;
#[path = "sparc64/guest.rs"]
mod guest;

use std::collections::BTreeSet;

use common::returns::{assert_all_accounted, assert_all_returned, assert_sleepers_are_pending, with_counts};
use common::{TraceLine, assert_hits, field, image, of, symbol, trace_lines, value};
use guest::{KERNEL, QEMU, assert_none_lost, boot, instructions, word};
use qkprobe_arch::{Flow, GuestAddr, Insn};
use qkprobe_symbols::KernelImage;
use qkprobe_tests::{BootResult, Qemu};

/// What fork() of the C library asks for: CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID. The signal is a number of its own.
const FORK_FLAGS: &str = "flags==0x1200000";

/// `name+0xoffset/0xsize`, behind the delay slots of the calls of a function in another: what it returns to.
fn behind_calls(image: &KernelImage, caller: &str, callee: &str) -> BTreeSet<String> {
    let ((start, size), (target, _)) = (symbol(image, caller), symbol(image, callee));
    let calls = |insn: &Insn| matches!(insn.flow, Flow::Call { target: called } if called.0 == target);
    let insns = instructions(image, start, size);
    let calls = insns.iter().filter(|(_, insn)| calls(insn));
    calls.map(|(addr, _)| format!("{caller}+{:#x}/{size:#x}", addr + 8 - start)).collect()
}

/// The first instruction of `sys_getppid` is a `save`: it is run again after each spill of a window, and interrupts come
/// before it. Each call is one hit of each instruction all the same.
#[test]
fn half_a_million_calls_are_counted_exactly() {
    const CALLS: u64 = 500_000;
    let image = image(KERNEL);
    let (start, size) = symbol(&image, "sys_getppid");
    // save %sp, -176, %sp
    assert_eq!(word(&image, start), 0x9de3_bf50);
    // Alone: nothing else is hit between two calls, so an interrupt before the entry meets what the last hit left.
    let alone = boot(QEMU)
        .script([format!("getppid {CALLS}")])
        .plugin_arg("probe=p:event sys_getppid pid=$arg1 sp=%sp")
        .plugin_arg("count=p:counted sys_getppid")
        .plugin_arg("out=/dev/null")
        .run_ok();
    assert_hits(&alone, "getppid alone", &[("event", CALLS), ("counted", CALLS)]);
    assert_eq!(common::json(&alone)["written"], CALLS, "records");
    assert_none_lost(&alone);
    let mut boot = boot(QEMU).script([format!("getppid {CALLS}")]).plugin_arg("count=p:counted sys_getppid");
    // Up to `return` and its slot; behind that is padding.
    let inside: Vec<(String, u64)> =
        (4..size).step_by(4).take(9).map(|offset| (format!("at_{offset}"), offset)).collect();
    let last = start + inside[7].1;
    // return %i7 + 8
    assert_eq!(word(&image, last), 0x81cf_e008, "{last:#x}");
    for (name, offset) in &inside {
        boot = boot.plugin_arg(format!("count=p:{name} sys_getppid+{offset}"));
    }
    let boot = boot.run_ok();
    let mut expected = vec![("counted", CALLS)];
    expected.extend(inside[..7].iter().map(|(name, _)| (name.as_str(), CALLS)));
    assert_hits(&boot, "getppid", &expected);
    assert_hits(&boot, "getppid", &[("at_32", CALLS), ("at_36", CALLS)]);
    assert_none_lost(&boot);
}

#[test]
fn opens_and_forks_with_names_results_and_kernel_strings() {
    let image = image(KERNEL);
    let version = qkprobe_tests::Cache::open().unwrap().kernel_version(KERNEL).unwrap();
    let boot = boot(QEMU)
        .script(["openclose 2000 /etc/none", "openclose 500 /init", "fork 40", "exec 5", "getppid 3"])
        .plugin_arg("count=p:entries do_sys_openat2")
        .plugin_arg("count=p:none do_sys_openat2 file=+0($arg2):ustring")
        .plugin_arg("filter=file == \"/etc/none\"")
        .plugin_arg("probe=r:open do_sys_openat2 ret=$retval:s32 dfd=$arg1:s32 file=+0($arg2):ustring")
        .plugin_arg("probe=p:fork kernel_clone%return flags=+0($arg1):x64 child=$retval:u32")
        .plugin_arg(format!("filter={FORK_FLAGS}"))
        .plugin_arg("count=p:execs sys_execve")
        .plugin_arg("probe=p:banner sys_getppid text=@linux_banner:string")
        .run_ok();
    // A child for each exec.
    assert_hits(&boot, "opens", &[("none", 2000), ("fork", 45), ("execs", 5), ("banner", 3)]);
    assert_all_accounted(&boot.summary(), "entries", "open");
    assert_none_lost(&boot);
    let lines = trace_lines(&boot.trace);
    let callers = behind_calls(&image, "sys_openat", "do_sys_openat2");
    assert_eq!(callers.len(), 2, "{callers:?}");
    let opens = of(&lines, "open");
    assert!(opens.len() >= 2500 && opens.len() < 2600, "{}", opens.len());
    for line in &opens {
        let caller = line.place.strip_suffix(" <- do_sys_openat2");
        assert!(caller.is_some_and(|caller| callers.contains(caller)), "{callers:?}: {line:?}");
    }
    let none = opens.iter().filter(|line| line.args == " ret=-2 dfd=-100 file=\"/etc/none\"");
    assert_eq!(none.count(), 2000, "{}", boot.trace);
    let opened: Vec<&str> = opens
        .iter()
        .filter(|line| line.args.ends_with(" dfd=-100 file=\"/init\""))
        .map(|line| value(line, "ret"))
        .collect();
    // Each is closed before the next is opened.
    assert_eq!(opened, vec![opened[0]; 500]);
    assert!(opened[0].parse::<u32>().is_ok_and(|number| number > 2), "{opened:?}");
    let children: BTreeSet<&str> = of(&lines, "fork").iter().map(|line| value(line, "child")).collect();
    assert_eq!(children.len(), 45, "each child has its own number");
    for line in of(&lines, "banner") {
        assert!(line.args.starts_with(&format!(" text=\"Linux version {version} (")), "{line:?}");
    }
}

/// Strings of user space, a million of them: by the page tables, so that nothing of the MMU changes.
#[test]
fn a_million_strings_do_not_disturb_the_guest() {
    const SCRIPT: [&str; 5] =
        ["openclose 100000 /etc/none", "recurse 40 500", "fork 10", "openclose 2000 /init", "cat /proc/cmdline"];
    let facts = |boot: &BootResult| -> Vec<String> {
        // All that the script reports, but for times.
        let timed = |word: &&str| !(word.starts_with("ns=") || word.starts_with("ms="));
        let lines = boot.console.lines().filter(|line| line.starts_with("QK "));
        lines.map(|line| line.split(' ').filter(timed).collect::<Vec<_>>().join(" ")).collect()
    };
    let without = boot(QEMU).script(SCRIPT).run_ok();
    let strings: String = (0..10).map(|at| format!(" s{at}=+0($arg2):ustring")).collect();
    let with = boot(QEMU)
        .script(SCRIPT)
        .plugin_arg("out=/dev/null")
        .plugin_arg(format!("probe=p:open do_sys_openat2{strings}"))
        .plugin_arg("count=p:none do_sys_openat2 file=+0($arg2):ustring")
        .plugin_arg("filter=file == \"/etc/none\"")
        .run_ok();
    assert_eq!(facts(&with), facts(&without));
    assert!(facts(&with).len() > SCRIPT.len(), "{}", with.console);
    assert_hits(&with, "strings", &[("none", 100_000)]);
    assert!(with.summary().probe("open").hits >= 102_000);
    assert_none_lost(&with);
}

/// Functions that return, always; functions that never do.
const RETURN: [&str; 8] =
    ["do_sys_openat2", "vfs_read", "vfs_write", "sys_execve", "sys_clone", "sys_wait4", "ksys_read", "kernel_clone"];
const NEVER: [&str; 2] = ["sys_exit_group", "do_exit"];

/// Windows are spilled and filled between a call and its return, in the kernel and in processes; tasks take turns.
#[test]
fn returns_in_a_loaded_guest() {
    let functions = || RETURN.into_iter().chain(NEVER).chain(["schedule"]);
    let boot = boot(QEMU).plugin_arg("out=/dev/null").script([
        "openclose 300 /init",
        "background procs 3 pipe 100",
        "background fork 20",
        "background recurse 60 2000",
        "procs 2 exec 6",
        "threads 2 fork 10",
        "wait",
        "threads 4 sleep 100",
        "tasks",
    ]);
    let boot = with_counts(boot, functions()).run_ok();
    let summary = boot.summary();
    let returns = |function: &str| summary.probe(&format!("r_{function}"));
    for function in functions() {
        assert_all_accounted(&summary, &format!("p_{function}"), &format!("r_{function}"));
    }
    assert_all_returned(&boot.stderr, &summary, &RETURN);
    // 6 twice; 20 by the first task, 10 by each of two threads; a child of each background, 3 and 2 of procs, and as many of the
    // three pipes.
    let forks = 12 + 20 + 20 + 3 + 3 + 2 + 3;
    assert_eq!(returns("sys_execve").hits, 12, "{}", boot.stderr);
    // And six threads.
    assert_eq!(returns("sys_clone").hits, forks + 6, "{}", boot.stderr);
    assert_eq!(returns("sys_wait4").hits, forks, "{}", boot.stderr);
    for function in NEVER {
        assert_eq!(returns(function).hits, 0, "{function}");
    }
    assert_sleepers_are_pending(&boot.stderr, &boot, &summary, 10);
    let schedule = returns("schedule");
    assert_eq!(schedule.abandoned, 0, "{schedule:?}");
}

/// A process deeper in calls than there are windows, with a system call at the bottom; a recursion of the kernel's own.
#[test]
fn recursion_maxactive_and_tail_calls() {
    let image = image(KERNEL);
    // sys_clone: flushw; ba,a to sparc_clone, with its last instruction in the slot.
    let (target, _) = symbol(&image, "sparc_clone");
    let (clone, _) = symbol(&image, "sys_clone");
    assert!(
        instructions(&image, clone, 12).iter().any(|(_, insn)| insn.flow == Flow::Jump { target: GuestAddr(target) })
    );
    let boot = boot(QEMU)
        .script(["recurse 100 50", "epoll 20 4", "epoll 20 1", "threads 4 sleep 1000", "fork 30"])
        .plugin_arg("count=r:ppid sys_getppid")
        .plugin_arg("count=p:entries ep_loop_check_proc")
        .plugin_arg("probe=r:all ep_loop_check_proc depth=$arg2:s32 ret=$retval:s32")
        .plugin_arg("count=r2:two ep_loop_check_proc")
        .plugin_arg("count=r3:three_beds sys_clock_nanosleep")
        .plugin_arg("probe=r:outer sys_clone ret=$retval:s32 lat=$latency")
        .plugin_arg("probe=r:inner sparc_clone ret=$retval:s32 lat=$latency")
        .run_ok();
    let walks = 3 + 20 + 20;
    let all = 1 + 2 + 3 + 20 * 4 + 20;
    let two = 1 + 2 + 2 + 20 * 2 + 20;
    assert_hits(&boot, "recursion", &[("ppid", 50), ("entries", all), ("all", all), ("two", two), ("three_beds", 3)]);
    // 30, and four threads.
    assert_hits(&boot, "tail calls", &[("outer", 34), ("inner", 34)]);
    let summary = boot.summary();
    let missed = ["ppid", "all", "two", "three_beds", "outer", "inner"].map(|name| summary.probe(name).missed);
    assert_eq!(missed, [0, 0, all - two, 1, 0, 0]);
    assert!(summary.probes.iter().all(|probe| (probe.pending, probe.abandoned) == (0, 0)), "{summary:?}");
    let lines = trace_lines(&boot.trace);
    // The innermost returns first.
    let depths: Vec<_> = of(&lines, "all").iter().map(|line| value(line, "depth")).collect();
    assert_eq!(depths.len() as u64, all);
    assert_eq!(depths[..6], ["0", "1", "0", "2", "1", "0"]);
    assert!(depths[6..86].chunks(4).all(|walk| walk == ["3", "2", "1", "0"]), "{depths:?}");
    assert_eq!(depths.iter().filter(|depth| **depth == "0").count(), walks);
    // A tail call returns for both, to the one who called the outer one.
    let clones: Vec<_> = lines.iter().filter(|line| line.event == "outer" || line.event == "inner").collect();
    for pair in clones.chunks(2) {
        assert_eq!((pair[0].event, pair[1].event), ("inner", "outer"));
        assert_eq!(value(pair[0], "ret"), value(pair[1], "ret"));
        let caller = |line: &TraceLine<'_>| line.place.split_once(" <- ").unwrap().0.to_owned();
        assert_eq!(caller(pair[0]), caller(pair[1]));
        assert!(value(pair[0], "lat").parse::<u64>().unwrap() < value(pair[1], "lat").parse::<u64>().unwrap());
    }
}

/// Opens that went well and that did not, of line `line` of the script.
#[track_caller]
fn opened(boot: &BootResult, line: u32) -> (f64, f64) {
    let line = boot.qk_all("openclose").find(|part| part.line == line).unwrap();
    (line.number("ok"), line.number("err"))
}

#[test]
fn results_registers_and_instructions_are_changed() {
    let image = image(KERNEL);
    let (start, _) = symbol(&image, "sys_getppid");
    // mov 1, %o1, in the slot of the call; mov %o0, %i0, behind it.
    assert_eq!((word(&image, start + 0x18), word(&image, start + 0x1c)), (0x9210_2001, 0xb010_0008));
    let opens = |kind: &str, name: &str, file: &str, options: &str| {
        format!("probe={kind}:{name} do_sys_openat2 file=+0($arg2):ustring if file == \"{file}\" do {options}")
    };
    let boot = boot(QEMU)
        .script([
            "openclose 200 /init",
            "openclose 100 /proc/version",
            "openclose 50 /proc/stat",
            "getppid 1000",
            "expect-fail cat /proc/uptime",
            "fork 5",
        ])
        .plugin_arg(opens("p", "override", "/init", "count override=-ENOENT"))
        .plugin_arg(opens("r", "set", "/proc/version", "count set:$retval=-EACCES"))
        .plugin_arg(opens("p", "arg", "/proc/uptime", "count set:$arg2=0"))
        .plugin_arg("count=p:skip sys_getppid+0x1c do skip set:%in0=0x777 times=100")
        .plugin_arg("count=p:nop sys_getppid+0x1c do replace=nop set:%in0=0x778 space=500 times=10")
        // In a delay slot: QEMU would forget the call.
        .plugin_arg("count=p:slot sys_getppid+0x18 do skip times=7")
        .plugin_arg("probe=r:result sys_getppid r=$retval:s64")
        .run_ok();
    assert_eq!((opened(&boot, 1), opened(&boot, 2), opened(&boot, 3)), ((0.0, 200.0), (0.0, 100.0), (50.0, 0.0)));
    assert_eq!(boot.qk("expect-fail").get("errno"), Some("EFAULT"));
    let effects = ["override", "set", "arg", "skip", "nop", "slot"].map(|name| field(&boot, name, "effects"));
    assert_eq!(effects, [200, 100, 1, 100, 10, 0], "{}", boot.stderr);
    assert_eq!((field(&boot, "slot", "missed"), field(&boot, "skip", "missed")), (7, 0), "{}", boot.stderr);
    assert_hits(&boot, "getppid", &[("result", 1000)]);
    let results = |value: i64| boot.trace.matches(&format!(" r={value}\n")).count();
    assert_eq!((results(0x777), results(0x778), results(0)), (100, 10, 890), "{}", boot.trace);
}

/// The first code of the kernel, and the handlers of traps: by name and by address.
#[test]
fn the_first_instruction_and_the_trap_table() {
    let image = image(KERNEL);
    assert_eq!(symbol(&image, "_start").0, 0x40_4000);
    let (table, _) = symbol(&image, "sparc64_ttable_tl0");
    for qemu in Qemu::selected() {
        let boot = boot(qemu)
            .script(["getppid 1000", "recurse 60 300", "fork 10"])
            .plugin_arg("count=p:first 0x404000")
            .plugin_arg("probe=p:first_too 0x404000")
            .plugin_arg("count=p:start start_kernel")
            .plugin_arg("probe=p:start_too start_kernel")
            // Trap 0x16d is the system call; 0x80 spills a window of the kernel, 0xc0 fills it.
            .plugin_arg(format!("count=p:calls {:#x}", table + 0x16d * 32))
            .plugin_arg("count=p:etrap etrap")
            .plugin_arg(format!("count=p:spill {:#x}", table + 0x80 * 32))
            .plugin_arg(format!("count=p:fill {:#x}", table + 0xc0 * 32))
            .plugin_arg(format!("count=p:miss {:#x}", table + 0x68 * 32))
            .plugin_arg("count=p:ppid sys_getppid+4")
            .run_ok();
        let once = [("first", 1), ("first_too", 1), ("start", 1), ("start_too", 1)];
        assert_hits(&boot, qemu.version(), &once);
        let summary = boot.summary();
        let hits = |name: &str| summary.probe(name).hits;
        assert_eq!(hits("ppid"), 1300, "{qemu}");
        // All but those that the script asks for are few.
        assert!((1300..4000).contains(&hits("calls")), "{qemu}\n{}", boot.stderr);
        for (name, least) in [("spill", 10_000), ("fill", 10_000), ("etrap", 50), ("miss", 50)] {
            assert!(hits(name) > least, "{qemu}: {name}\n{}", boot.stderr);
        }
        let events: Vec<&str> = trace_lines(&boot.trace).iter().map(|line| line.event).collect();
        assert_eq!(events, ["first_too", "start_too"], "{qemu}");
    }
}

/// QEMU 10.0 shows neither registers nor memory: what needs them is refused, and says why.
#[test]
fn what_an_older_qemu_cannot_do_is_refused() {
    let refused = [
        "probe=p:e sys_getppid a=$arg1",
        "probe=p:e sys_getppid a=@linux_banner:string",
        "probe=r:e sys_getppid",
        "count=p:e sys_getppid do post",
        "count=p:e sys_getppid do override=-ENOENT",
        "count=p:e sys_getppid+0x1c do skip",
    ];
    for arg in refused {
        let boot = boot(Qemu::V10_0).plugin_arg(arg).run();
        assert!(!boot.status.success(), "{arg}");
        assert!(boot.stderr.contains("QEMU 10.0.2"), "{arg}: {}", boot.stderr);
        let why = [
            "shows neither registers nor memory of a sparc64 guest: that came with QEMU 10.1",
            "does not let a plugin set",
        ];
        assert!(why.iter().any(|why| boot.stderr.contains(why)), "{arg}: {}", boot.stderr);
    }
    let boot = boot(Qemu::V10_0)
        .script(["getppid 20000", "fork 20"])
        .plugin_arg("count=p:counted sys_getppid+4")
        .plugin_arg("probe=p:recorded sys_getppid+4")
        .plugin_arg("count=p:forks sys_clone+4")
        .run_ok();
    assert_hits(&boot, "10.0", &[("counted", 20_000), ("recorded", 20_000), ("forks", 20)]);
    assert_none_lost(&boot);
    assert_eq!(trace_lines(&boot.trace).len(), 20_000);
}
