//! sparc64: what the other tests of this folder ask of x86_64 guests, asked of Linux on sun4u, whose registers are windows,
//! whose branches have delay slots, and whose traps nest.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{TraceLine, assert_hits, field, image, symbol, trace_lines};
use qkprobe_arch::{Arch, Flow, GuestAddr, Insn};
use qkprobe_symbols::KernelImage;
use qkprobe_tests::{Boot, BootResult, GuestKernel, Qemu, Summary};

const KERNEL: GuestKernel = GuestKernel::Sparc64Sun4u6_1;
const QEMU: Qemu = Qemu::V11_1;

/// What fork() of the C library asks for: CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID. The signal is a number of its own.
const FORK_FLAGS: &str = "flags==0x1200000";

fn arch() -> &'static dyn Arch {
    qkprobe_arch::by_name("sparc64").unwrap()
}

fn boot(qemu: Qemu) -> Boot {
    Boot::new(qemu, KERNEL).append("quiet")
}

/// The word at a place of the image.
#[track_caller]
fn word(image: &KernelImage, addr: u64) -> u32 {
    u32::from_be_bytes(image.bytes(GuestAddr(addr), 4).unwrap().try_into().unwrap())
}

/// The instructions of a piece of text, by address.
fn instructions(image: &KernelImage, start: u64, len: u64) -> Vec<(u64, Insn)> {
    let insn = |addr: u64| arch().decode(GuestAddr(addr), &word(image, addr).to_be_bytes());
    (start..start + len).step_by(4).map_while(|addr| Some((addr, insn(addr).ok()?))).collect()
}

/// `name+0xoffset/0xsize`, behind the delay slots of the calls of a function in another: what it returns to.
fn behind_calls(image: &KernelImage, caller: &str, callee: &str) -> BTreeSet<String> {
    let ((start, size), (target, _)) = (symbol(image, caller), symbol(image, callee));
    let calls = |insn: &Insn| matches!(insn.flow, Flow::Call { target: called } if called.0 == target);
    let insns = instructions(image, start, size);
    let calls = insns.iter().filter(|(_, insn)| calls(insn));
    calls.map(|(addr, _)| format!("{caller}+{:#x}/{size:#x}", addr + 8 - start)).collect()
}

/// The value of an argument of a record.
#[track_caller]
fn value<'a>(line: &TraceLine<'a>, key: &str) -> &'a str {
    let found = line.args.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {key} in {line:?}"))
}

fn of<'a, 'b>(lines: &'b [TraceLine<'a>], event: &str) -> Vec<&'b TraceLine<'a>> {
    lines.iter().filter(|line| line.event == event).collect()
}

#[track_caller]
fn assert_none_lost(boot: &BootResult) {
    for probe in &boot.summary().probes {
        assert_eq!((probe.missed, probe.dropped), (0, 0), "{probe:?}\n{}", boot.stderr);
    }
}

/// Every call that began has returned, is pending, or never returns; and none was missed.
#[track_caller]
fn assert_all_accounted(summary: &Summary, entries: &str, returns: &str) {
    let (entries, returns) = (summary.probe(entries), summary.probe(returns));
    let seen = returns.hits + returns.filtered + returns.pending + returns.abandoned;
    assert_eq!((seen, returns.missed, returns.dropped), (entries.hits, 0, 0), "{returns:?}, {entries:?}");
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
    let mut boot = boot(QEMU)
        .script([format!("getppid {CALLS}")])
        .plugin_arg("probe=p:event sys_getppid pid=$arg1 sp=%sp")
        .plugin_arg("count=p:counted sys_getppid")
        .plugin_arg("out=/dev/null");
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
    let mut expected = vec![("event", CALLS), ("counted", CALLS)];
    expected.extend(inside[..7].iter().map(|(name, _)| (name.as_str(), CALLS)));
    assert_hits(&boot, "getppid", &expected);
    assert_hits(&boot, "getppid", &[("at_32", CALLS), ("at_36", CALLS)]);
    assert_eq!(common::json(&boot)["written"], CALLS, "records");
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
    let mut boot = boot(QEMU).plugin_arg("out=/dev/null").script([
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
    for function in RETURN.iter().chain(&NEVER).chain(&["schedule"]) {
        boot = boot
            .plugin_arg(format!("count=p:p_{function} {function}"))
            .plugin_arg(format!("count=r:r_{function} {function}"));
    }
    let boot = boot.run_ok();
    let summary = boot.summary();
    let returns = |function: &str| summary.probe(&format!("r_{function}"));
    for function in RETURN.iter().chain(&NEVER).chain(&["schedule"]) {
        assert_all_accounted(&summary, &format!("p_{function}"), &format!("r_{function}"));
    }
    for function in RETURN {
        let probe = returns(function);
        assert!(probe.hits > 0 && (probe.pending, probe.abandoned) == (0, 0), "{probe:?}\n{}", boot.stderr);
    }
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
    // Who sleeps does it in schedule(). Between the count and the power-off a few kernel threads begin or end.
    let asleep = boot.qk("tasks").number("asleep") as u64;
    let schedule = returns("schedule");
    assert!(asleep > 10 && schedule.pending.abs_diff(asleep) <= 5, "{asleep} asleep: {schedule:?}");
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

/// Handlers at trap level 1 and the way into the kernel and out of it, with a probe before and behind each instruction.
#[test]
fn trap_handlers_under_load() {
    let image = image(KERNEL);
    let (table, _) = symbol(&image, "sparc64_ttable_tl0");
    // The kernel's spill and fill: 16 stores or loads, saved or restored, retry. And the two pieces of text around C code.
    let ((etrap, _), (etrap_end, _)) = (symbol(&image, "etrap"), symbol(&image, "etraptl1"));
    let ((rtrap, _), (rtrap_end, _)) = (symbol(&image, "rtrap"), symbol(&image, "to_kernel"));
    let pieces = [
        ("spill", table + 0x80 * 32, 18),
        ("fill", table + 0xc0 * 32, 18),
        ("etrap", etrap, (etrap_end - etrap) / 4),
        ("rtrap", rtrap, (rtrap_end - rtrap) / 4),
    ];
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("probes.toml");
    let mut probes = String::new();
    for (name, start, insns) in pieces {
        assert!((10..400).contains(&insns), "{name}: {insns}");
        for addr in (start..start + insns * 4).step_by(4) {
            let entry = |name: &str, rest: &str| {
                format!("[[probe]]\ndef = 'p:{name} {addr:#x} s=%sp i=%fp g=%g1 {rest}'\naction = 'count'\n")
            };
            let at = addr - start;
            probes += &entry(&format!("{name}_{at}"), "");
            // SPARC V9 manual, A.20, A.25, A.63: done and retry, illtrap, traps on condition.
            let word = word(&image, addr);
            let leaves =
                word & 0xc1f8_0000 == 0x81f0_0000 || word & 0xc1c0_0000 == 0 || word & 0xc1f8_0000 == 0x81d0_0000;
            // And wrpr %cwp: which stack pointer is seen then hangs on the window.
            if !leaves && word & 0xfff8_0000 != 0x9390_0000 {
                probes += &entry(&format!("{name}_{at}_post"), "do post");
            }
        }
    }
    std::fs::write(&config, probes).unwrap();
    let script = ["recurse 60 300", "openclose 2000 /init", "fork 20", "exec 5", "pipe 100", "getppid 5000"];
    let boot = boot(QEMU)
        .script(script)
        .plugin_arg("out=/dev/null")
        .plugin_arg(format!("config={}", config.display()))
        .run_ok();
    let summary = boot.summary();
    let hits = |name: String| summary.probe(&name).hits;
    for name in ["spill", "fill"] {
        let all: BTreeSet<u64> = (0..18).map(|at| hits(format!("{name}_{}", at * 4))).collect();
        let posts: BTreeSet<u64> = (0..17).map(|at| hits(format!("{name}_{}_post", at * 4))).collect();
        assert!(all.len() == 1 && all == posts, "{name}: {all:?}, behind {posts:?}");
        assert!(all.iter().all(|hits| *hits > 10_000), "{name}: {all:?}");
    }
    assert!(hits("etrap_0".to_owned()) > 100 && hits("rtrap_4".to_owned()) > 100, "{}", boot.stderr);
    assert_none_lost(&boot);
    let ran = summary.probes.iter().filter(|probe| probe.name.ends_with("_post") && probe.hits != 0).count();
    assert!(ran > 100, "{ran}");
}

/// A place that a static program leaves free, and the kernel's image does not reach.
const USER: u64 = 0x2000_0000;

/// A process has code where the kernel has its own: `nop; retl; nop` at the address of `sys_getppid`. An address of the image
/// means the kernel's code, whatever the privilege; any other may be a process's.
#[test]
fn user_code_at_the_kernels_addresses() {
    let (start, _) = symbol(&image(KERNEL), "sys_getppid");
    let boot = |qemu: Qemu| {
        boot(qemu).script([
            format!("usercode {start:#x} 3000"),
            "getppid 500".to_owned(),
            format!("usercode {USER:#x} 2000"),
        ])
    };
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("probes.toml");
    let probe = |name: &str, rest: &str| format!("[[probe]]\ndef = 'p:{name} sys_getppid'\n{rest}\n");
    let elsewhere = |name: &str, rest: &str| format!("[[probe]]\ndef = 'p:{name} {USER:#x}'\n{rest}\n");
    let toml = [
        probe("kernel", "action = 'count'"),
        probe("kernel_event", ""),
        probe("user", "privilege = 'user'\naction = 'count'"),
        probe("any", "privilege = 'any'\naction = 'count'"),
        elsewhere("kernel_elsewhere", "action = 'count'"),
        elsewhere("user_elsewhere", "privilege = 'user'\naction = 'count'"),
        elsewhere("user_event", "privilege = 'user'"),
        elsewhere("any_elsewhere", "privilege = 'any'\naction = 'count'"),
        "[[probe]]\ndef = 'r:returns sys_getppid'\naction = 'count'\n".to_owned(),
    ];
    std::fs::write(&config, toml.concat()).unwrap();
    let boot = boot(QEMU).plugin_arg(format!("config={}", config.display())).run_ok();
    let image = [("kernel", 500), ("kernel_event", 500), ("user", 0), ("any", 500), ("returns", 500)];
    assert_hits(&boot, "user code", &image);
    let elsewhere = [("kernel_elsewhere", 0), ("user_elsewhere", 2000), ("user_event", 2000), ("any_elsewhere", 2000)];
    assert_hits(&boot, "user code", &elsewhere);
    assert_none_lost(&boot);
    assert_eq!(trace_lines(&boot.trace).len(), 500 + 2000);
}

/// Behind a call is its delay slot, and only behind that the function; `return` leads to its slot as well.
#[test]
fn the_next_pc_behind_transfers_and_slots() {
    let image = image(KERNEL);
    let (start, _) = symbol(&image, "sys_getppid");
    let (callee, _) = symbol(&image, "__task_pid_nr_ns");
    let arch = arch().decode(GuestAddr(start + 0x14), &word(&image, start + 0x14).to_be_bytes()).unwrap();
    assert_eq!(arch.flow, Flow::Call { target: GuestAddr(callee) });
    let post = |name: &str, offset: u64| format!("probe=p:{name} sys_getppid+{offset} next=$nextpc:x64 do post");
    let boot = boot(QEMU)
        .script(["getppid 400"])
        .plugin_arg(post("save", 0))
        .plugin_arg(post("call", 0x14))
        .plugin_arg(post("slot", 0x18))
        .plugin_arg(post("behind", 0x1c))
        .plugin_arg(post("return", 0x20))
        .plugin_arg(post("last", 0x24))
        .run_ok();
    let names = ["save", "call", "slot", "behind", "return", "last"];
    assert_hits(&boot, "post", &names.map(|name| (name, 400)));
    assert_none_lost(&boot);
    let lines = trace_lines(&boot.trace);
    let next = |name: &str| of(&lines, name).iter().map(|line| value(line, "next").to_owned()).collect::<BTreeSet<_>>();
    let expected = [("save", start + 4), ("call", start + 0x18), ("slot", callee), ("behind", start + 0x20)];
    for (name, addr) in expected.into_iter().chain([("return", start + 0x24)]) {
        assert_eq!(next(name), BTreeSet::from([format!("{addr:#x}")]), "{name}");
    }
    // Back to the one caller: behind the `jmpl` of the system call and its slot.
    let (caller, _) = symbol(&image, "linux_sparc_syscall");
    assert_eq!(next("last"), BTreeSet::from([format!("{:#x}", caller + 0x3c)]));
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

/// What was compared.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
struct Verified {
    checked: u64,
    next_pc_only: u64,
    raced: u64,
    mismatches: u64,
}

/// Functions of that kernel that the script of the test runs often, but none more than 60,000 instructions. Measured with
/// counting probes.
const FUNCTIONS: &str = include_str!("verify/functions_sparc64.txt");

#[test]
fn executions_are_what_was_predicted() {
    let image = image(KERNEL);
    let mut probes = String::new();
    for function in FUNCTIONS.split_whitespace() {
        let (start, size) = symbol(&image, function);
        for (addr, _) in instructions(&image, start, size) {
            probes += &format!("[[probe]]\ndef = 'p:at_{addr:x} {addr:#x}'\n");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("probes.toml");
    std::fs::write(&config, probes).unwrap();
    let boot = boot(QEMU)
        .script(["openclose 300 /init", "getppid 2000", "fork 20", "exec 3", "pipe 50"])
        .timeout(Duration::from_secs(300))
        // The guest's clock counts its instructions: else a slow run has more timer interrupts, and is slower for it.
        .extra_args(["-icount", "shift=0,sleep=off"])
        .plugin_arg("out=/dev/null")
        .plugin_arg("verify=on")
        .plugin_arg(format!("config={}", config.display()))
        .run_ok();
    let verified: Verified = serde_json::from_value(common::json(&boot)["verified"].clone()).unwrap();
    let told: Vec<&str> = boot.stderr.lines().filter(|line| line.starts_with("qkprobe: verify: ")).collect();
    assert_eq!(verified.mismatches, 0, "{told:#?}");
    assert!(verified.checked >= 1_000_000 && verified.next_pc_only < verified.checked / 4, "{verified:?}");
    let hits: u64 = boot.summary().probes.iter().map(|probe| probe.hits).sum();
    let compared = verified.checked + verified.next_pc_only;
    eprintln!("{verified:?}, {hits} hits");
    // What an interrupt or a fault comes between, or what never goes on, is not compared.
    assert!(compared <= hits && compared >= hits - hits / 100, "{compared} of {hits}");
    // One vCPU: nobody else stores.
    assert_eq!(verified.raced, 0);
}
