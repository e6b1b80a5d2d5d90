//! 32-bit x86: what the other tests of this folder ask of x86_64 guests, asked of Debian's i386 kernel, a few boots in all.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use common::{TraceLine, assert_hits, field, image, int, of, symbol, trace_lines, value};
use qkprobe_arch::{Arch, Flow, GuestAddr, Insn};
use qkprobe_symbols::KernelImage;
use qkprobe_tests::{Boot, BootResult, GuestKernel, Qemu, Threads};

const KERNEL: GuestKernel = GuestKernel::I386Pae6_1;

fn arch() -> &'static dyn Arch {
    qkprobe_arch::by_name("i386").unwrap()
}

/// The instructions of `text` with their addresses, as far as it can be decoded.
fn instructions(image: &KernelImage, start: u64, len: u64) -> Vec<(u64, Insn)> {
    let text = image.bytes(GuestAddr(start), usize::try_from(len).unwrap()).unwrap();
    let mut offset = 0;
    let mut found = Vec::new();
    while let Ok(insn) = arch().decode(GuestAddr(start + offset as u64), &text[offset..]) {
        found.push((start + offset as u64, insn));
        offset += usize::from(insn.len);
    }
    found
}

/// The instructions of a function without branches, with their offsets: up to its return.
#[track_caller]
fn straight_line(image: &KernelImage, function: &str) -> Vec<(u64, Insn)> {
    let (start, size) = symbol(image, function);
    let mut found = Vec::new();
    for (addr, insn) in instructions(image, start, size) {
        found.push((addr - start, insn));
        match insn.flow {
            Flow::Next | Flow::Call { .. } => {}
            Flow::Return => return found,
            flow => panic!("{flow:?} in {function}"),
        }
    }
    panic!("{function} does not return");
}

/// The offset of the one call from one function to another, and the offset behind it.
#[track_caller]
fn call_of(image: &KernelImage, function: &str, callee: &str) -> (u64, u64) {
    let ((start, size), (target, _)) = (symbol(image, function), symbol(image, callee));
    let calls: Vec<_> = instructions(image, start, size)
        .into_iter()
        .filter(|(_, insn)| insn.flow == Flow::Call { target: GuestAddr(target) })
        .map(|(addr, insn)| (addr - start, addr - start + u64::from(insn.len)))
        .collect();
    assert_eq!(calls.len(), 1, "{function} calls {callee}: {calls:?}");
    calls[0]
}

/// `caller+0x6b/0xa0`: behind the one call of `callee`.
#[track_caller]
fn behind_call(image: &KernelImage, caller: &str, callee: &str) -> String {
    format!("{caller}+{:#x}/{:#x}", call_of(image, caller, callee).1, symbol(image, caller).1)
}

/// What fork() of the C library asks for.
const FORK_FLAGS: &str = "flags==0x1200000";
/// How often each of two threads calls getppid.
const CALLS: u64 = 5000;
/// Of two processes.
const CHILD_CALLS: u64 = 100;
const GETPPID: &str = "__ia32_sys_getppid";

/// Entries, returns and post probes, with arguments in registers and on the stack, in one boot.
#[track_caller]
fn check(qemu: Qemu, smp: u32, append: &str) {
    let image = image(KERNEL);
    let what = format!("{qemu}, {smp} vCPUs, {append}");
    let inside = straight_line(&image, GETPPID);
    assert!((10..30).contains(&inside.len()), "{inside:?}");
    let mut boot = Boot::new(qemu, KERNEL).smp(smp).append(&format!("quiet {append}")).script([
        // The last vCPU comes here first, and translates for all.
        format!("on {} getppid 100", smp - 1),
        format!("threads 2 getppid {CALLS}"),
        format!("procs 2 getppid {CHILD_CALLS}"),
        "threads 2 openclose 300 /etc/none".to_owned(),
        "openclose 200 /init".to_owned(),
        "fork 40".to_owned(),
        "exec 5".to_owned(),
        "epoll 20 4".to_owned(),
        "epoll 20 1".to_owned(),
        "threads 4 sleep 1500".to_owned(),
        "sleep 10".to_owned(),
        "pipe 50".to_owned(),
        "procs 1 time 100 fresh".to_owned(),
    ]);
    for (offset, _) in &inside {
        boot = boot
            .plugin_arg(format!("count=p:at_{offset} {GETPPID}+{offset}"))
            .plugin_arg(format!("count=p:post_{offset} {GETPPID}+{offset} do post"));
    }
    let (put, _) = symbol(&image, "__put_user_nocheck_4");
    // mov %eax,(%ecx)
    let text = image.bytes(GuestAddr(put), 16).unwrap();
    let store = put + text.windows(2).position(|bytes| bytes == [0x89, 0x01]).expect("the store") as u64;
    let time = "to=%cx:x32 if to >= 0x60000000 && to < 0x60064000";
    let boot = boot
        // The number of the system call lies in pt_regs.
        .plugin_arg(format!("count=p:number {GETPPID} nr=+44($arg1):u32 if nr == 64"))
        .plugin_arg(format!("count=r:result {GETPPID} ret=$retval:s32 if ret >= 0 && ret <= 1"))
        .plugin_arg("count=p:opens do_sys_openat2")
        .plugin_arg("probe=r:open do_sys_openat2 $retval:s32 dfd=$arg1:s32 file=+0($arg2):ustring flags=+0($arg3):x64")
        .plugin_arg("count=p:none do_sys_openat2 file=+0($arg2):ustring if file == \"/etc/none\"")
        .plugin_arg(format!("count=p:forks kernel_clone flags=+0($arg1):x64 if {FORK_FLAGS}"))
        .plugin_arg(format!("probe=p:fork kernel_clone%return flags=+0($arg1):x64 child=$retval:s32 if {FORK_FLAGS}"))
        .plugin_arg("probe=p:exec __ia32_sys_execve envp=+8($arg1):x32 argv=+4($arg1):x32")
        // The file's name and argv come in registers, then envp and flags on the stack.
        .plugin_arg("probe=p:common do_execveat_common fd=$arg1:s32 argv=$arg3 envp=$arg4 flags=$arg5 up=$stack1")
        .plugin_arg("count=r:execed __ia32_sys_execve ret=$retval:s32 if ret == 0")
        .plugin_arg("count=p:walks ep_loop_check_proc")
        .plugin_arg("probe=r:walk ep_loop_check_proc depth=$arg2:s32 ret=$retval:s32")
        .plugin_arg("count=r2:two ep_loop_check_proc")
        .plugin_arg("count=r3:beds __ia32_sys_clock_nanosleep_time32")
        .plugin_arg("count=r:sleepers __ia32_sys_clock_nanosleep_time32")
        .plugin_arg("count=r:exits __ia32_sys_exit_group")
        // Called by name and by way of a thunk that jumps: both return to the one who called the thunk.
        .plugin_arg("probe=r:read pipe_read ret=$retval:s32")
        .plugin_arg("probe=r:thunk __x86_indirect_thunk_ecx ret=$retval:s32 if ret == 1")
        .plugin_arg(format!("count=p:stores {store:#x} {time}"))
        .plugin_arg(format!("count=p:attempts {store:#x} {time} do attempts"))
        .plugin_arg(format!("count=p:stored {store:#x} {time} do post"))
        .plugin_arg(format!("count=p:behind {:#x} {time}", store + 2))
        .run_ok();
    let getppids = 100 + 2 * CALLS + 2 * CHILD_CALLS;
    let mut expected = vec![("number".to_owned(), getppids), ("result".to_owned(), getppids)];
    for (offset, _) in &inside {
        expected.push((format!("at_{offset}"), getppids));
        expected.push((format!("post_{offset}"), getppids));
    }
    let expected: Vec<(&str, u64)> = expected.iter().map(|(name, hits)| (name.as_str(), *hits)).collect();
    assert_hits(&boot, &what, &expected);
    // 40, one for each exec, the two of procs, the other end of the pipe, the one that stores the time.
    let forks = 40 + 5 + 2 + 1 + 1;
    assert_hits(&boot, &what, &[("none", 600), ("forks", forks), ("fork", forks), ("execed", 5), ("exits", 0)]);
    check_values(&boot, &image, &what);
    check_returns(&boot, &what, forks);
    // Each page is stored to twice: the first attempt faults.
    let stores = if qemu == Qemu::V11_1 { 100 } else { 200 };
    assert_hits(&boot, &what, &[("stores", stores), ("attempts", 200), ("stored", 100), ("behind", 100)]);
    assert_eq!(boot.qk("time").number("ok") as u64, 100, "{what}");
}

/// Strings, numbers, return values and callers.
#[track_caller]
fn check_values(boot: &BootResult, image: &KernelImage, what: &str) {
    let lines = trace_lines(&boot.trace);
    let open = of(&lines, "open");
    let place = format!("{} <- do_sys_openat2", behind_call(image, "__ia32_sys_openat", "do_sys_openat2"));
    let ours = |file: &str| -> Vec<i64> {
        let file = format!("\"{file}\"");
        let ours = open.iter().filter(|line| value(line, "file") == file && value(line, "dfd") == "-100");
        ours.inspect(|line| assert_eq!(line.place, place, "{what}")).map(|line| int(line, "arg1")).collect()
    };
    assert_eq!(ours("/etc/none"), [-2; 600], "{what}");
    let opened = ours("/init");
    // Each is closed before the next is opened.
    assert_eq!(opened, [opened[0]; 200], "{what}");
    assert!(opened[0] > 2, "{what}");
    let children: BTreeSet<&str> = of(&lines, "fork").iter().map(|line| value(line, "child")).collect();
    assert_eq!(children.len(), of(&lines, "fork").len(), "{what}: each child has its own number");
    assert!(children.iter().all(|child| child.parse::<u32>().is_ok_and(|child| child > 1)), "{what}: {children:?}");
    // Records of one task, in turns, but that two vCPUs mix them with others'.
    let (exec, common) = (of(&lines, "exec"), of(&lines, "common"));
    assert_eq!((exec.len(), common.len()), (5, 5), "{what}");
    for (exec, common) in exec.iter().zip(common) {
        assert_eq!((value(common, "fd"), value(common, "flags")), ("-100", "0x0"), "{what}");
        for key in ["envp", "argv"] {
            assert_eq!(value(exec, key), value(common, key), "{what}: {key}");
            assert!(value(exec, key).len() > "0x0".len(), "{what}: {exec:?}");
        }
        assert_eq!(value(common, "up"), value(common, "envp"), "{what}");
    }
}

/// Recursion, `maxactive`, jumps at the end, and what never returns.
#[track_caller]
fn check_returns(boot: &BootResult, what: &str, forks: u64) {
    let summary = boot.summary();
    // The chain of four is made by walks of 1, 2 and 3; then 20 of 4 each, and 20 of 1.
    let all = 1 + 2 + 3 + 20 * 4 + 20;
    let two = 1 + 2 + 2 + 20 * 2 + 20;
    assert_hits(boot, what, &[("walks", all), ("walk", all), ("two", two), ("sleepers", 5), ("beds", 4)]);
    let missed = ["walk", "two", "sleepers", "beds"].map(|name| summary.probe(name).missed);
    assert_eq!(missed, [0, all - two, 0, 1], "{what}");
    for name in ["result", "open", "walk", "two", "sleepers", "beds", "fork"] {
        let probe = summary.probe(name);
        assert_eq!((probe.pending, probe.abandoned, probe.dropped), (0, 0, 0), "{what}: {probe:?}");
    }
    let open = summary.probe("open");
    assert_eq!((open.hits, open.missed), (summary.probe("opens").hits, 0), "{what}");
    // None stays on a dead task.
    let exits = summary.probe("exits");
    assert_eq!((exits.pending, exits.abandoned), (0, forks), "{what}");
    let lines = trace_lines(&boot.trace);
    let walks: Vec<_> = of(&lines, "walk").iter().map(|line| (int(line, "depth"), int(line, "ret"))).collect();
    // The innermost returns first.
    assert_eq!(walks[..6], [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)], "{what}");
    for walk in walks[6..86].chunks(4) {
        assert_eq!(walk, [(3, 0), (2, 1), (1, 2), (0, 3)], "{what}");
    }
    // One byte at a time: the function that the thunk jumped to returns first, both to its caller.
    let reads: Vec<_> =
        (0..lines.len()).filter(|at| lines[*at].event == "read" && int(&lines[*at], "ret") == 1).collect();
    assert!(reads.len() >= 50, "{what}: {} reads", reads.len());
    for at in reads {
        let read = &lines[at];
        let thunk = lines[at..].iter().find(|line| line.event == "thunk" && line.cpu == read.cpu);
        let caller = |line: &TraceLine<'_>| line.place.split_once(" <- ").map(|(caller, _)| caller.to_owned());
        assert_eq!(thunk.and_then(caller), caller(read), "{what}: {read:?}");
        assert!(read.place.starts_with("vfs_read+"), "{what}: {read:?}");
    }
}

#[test]
fn calls_and_returns_on_one_vcpu() {
    for qemu in Qemu::selected() {
        check(qemu, 1, if qemu == Qemu::V11_1 { "" } else { "nokaslr" });
    }
}

#[test]
fn calls_and_returns_on_two_vcpus() {
    for qemu in Qemu::selected() {
        check(qemu, 2, if qemu == Qemu::V11_1 { "nokaslr" } else { "" });
    }
}

/// Results that never were, instructions that do not happen or are others, registers with other values, and where execution
/// is after each kind of transfer.
#[test]
fn the_flow_is_changed_and_followed() {
    let image = image(KERNEL);
    let (call, behind) = call_of(&image, GETPPID, "__task_pid_nr_ns");
    let (start, _) = symbol(&image, GETPPID);
    // mov %eax,%ebx: the result of that call is kept.
    assert_eq!(image.bytes(GuestAddr(start + behind), 2), Some(&[0x89, 0xc3][..]));
    let inside = straight_line(&image, GETPPID);
    let (ret, _) = inside.last().copied().unwrap();
    let (callee, _) = symbol(&image, "__task_pid_nr_ns");
    let text = format!("readtext {GETPPID} 64");
    let opens = |name: &str, file: &str, options: &str| {
        format!("count=p:{name} do_sys_openat2 file=+0($arg2):ustring if file == \"{file}\" do {options}")
    };
    // The one `iret` of this kernel: to the user with another stack pointer, to the kernel with the same one.
    let (entry, size) = symbol(&image, "restore_all_switch_stack");
    let returns: Vec<u64> = instructions(&image, entry, size)
        .into_iter()
        .filter(|(_, insn)| insn.flow == Flow::Trap)
        .map(|(addr, _)| addr - entry)
        .collect();
    assert_eq!(returns.len(), 1, "{returns:?}");
    let iret = returns[0];
    let boot = Boot::new(Qemu::V11_1, KERNEL)
        .smp(2)
        .append("quiet nokaslr")
        .script([
            text.as_str(),
            "threads 2 getppid 500",
            text.as_str(),
            "threads 2 openclose 100 /init",
            "expect-fail cat /proc/version",
            "expect-fail cat /proc/uptime",
            "fork 10",
        ])
        .plugin_arg(format!("count=p:called __task_pid_nr_ns from=+0(%sp):x32 if from == {:#x}", start + behind))
        .plugin_arg(format!("probe=r:result {GETPPID} r=$retval:s32"))
        .plugin_arg(format!("count=p:skip {GETPPID}+{call} do skip set:%ax=0x777 times=200"))
        // mov $0x1234,%ebx: it is longer than what it replaces.
        .plugin_arg(format!("count=p:longer {GETPPID}+{behind} do replace=bb34120000 times=50"))
        .plugin_arg(format!("probe=p:after_call {GETPPID}+{call} next=$nextpc:x32 ip=%ip:x32 sp0=+0(%sp):x32 do post"))
        .plugin_arg(format!("probe=p:after_ret {GETPPID}+{ret} next=$nextpc:x32 do post"))
        .plugin_arg(format!("count=p:irets restore_all_switch_stack+{iret}"))
        .plugin_arg(format!("count=p:after_irets restore_all_switch_stack+{iret} do post"))
        .plugin_arg(opens("inject", "/init", "override=-ENOENT times=150"))
        .plugin_arg(opens("error", "/proc/version", "override=-EMFILE"))
        .plugin_arg(opens("pointer", "/proc/uptime", "set:$arg2=0x10"))
        .run_ok();
    let hits = [("called", 800), ("result", 1000), ("skip", 1000), ("longer", 1000), ("inject", 200)];
    assert_hits(&boot, "flow", &hits);
    for (name, effects) in [("skip", 200), ("longer", 50), ("inject", 150), ("error", 1), ("pointer", 1)] {
        assert_eq!(field(&boot, name, "effects"), effects, "{name}: {}", boot.stderr);
    }
    let (lines, results) =
        (trace_lines(&boot.trace), |value: i64| boot.trace.matches(&format!(" r={value}\n")).count());
    // 50 of the first 200 were replaced behind it.
    assert_eq!((results(0x777), results(0x1234)), (150, 50), "{}", boot.trace);
    let after_call = format!(" next={callee:#x} ip={callee:#x} sp0={:#x}", start + behind);
    let calls: Vec<&str> = of(&lines, "after_call").iter().map(|line| line.args).collect();
    assert!(calls.len() == 800 && calls.iter().all(|call| *call == after_call), "not {after_call}: {:?}", calls[0]);
    let (caller, size) = symbol(&image, "ia32_sys_call");
    let after_ret = of(&lines, "after_ret");
    assert_eq!(after_ret.len(), 1000);
    for line in after_ret {
        let next = u64::from_str_radix(value(line, "next").trim_start_matches("0x"), 16).unwrap();
        assert!((caller..caller + size).contains(&next), "{line:?}");
    }
    // Where the user's page is not there yet, the fault returns to the same place once more; and what no page table maps
    // cannot be watched.
    let (summary, irets) = (boot.summary(), boot.summary().probe("irets").hits);
    let after = summary.probe("after_irets");
    assert!(irets > 1000 && after.hits >= irets - irets / 10 && after.missed <= irets / 100, "{after:?} of {irets}");
    let told = after.hits + after.reexecuted + after.missed;
    assert!(told <= irets && told >= irets - irets / 100, "{after:?} of {irets}");
    let texts: Vec<_> = boot.qk_all("readtext").map(|line| line.get("fnv1a").unwrap()).collect();
    assert!(texts.len() == 2 && texts[0] == texts[1], "the guest read other text: {texts:?}");
    let failed: f64 = boot.qk_all("openclose").map(|line| line.number("err")).sum();
    assert_eq!(failed, 150.0);
    let errors: Vec<_> = boot.qk_all("expect-fail").filter_map(|line| line.get("errno")).collect();
    assert_eq!(errors, ["EMFILE", "EFAULT"]);
}

/// What was compared.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
struct Verified {
    checked: u64,
    next_pc_only: u64,
    raced: u64,
    mismatches: u64,
}

/// Functions that a boot and a short script run often, none more than 30,000 instructions; and the code that enters and
/// leaves the kernel.
const FUNCTIONS: &str = include_str!("verify/functions_i386.txt");

#[test]
fn a_million_executions_are_what_was_predicted() {
    let image = image(KERNEL);
    let mut probes = String::new();
    for function in FUNCTIONS.split_whitespace() {
        let (start, size) = symbol(&image, function);
        // An interrupt returns to anywhere: from then on that would be awaited, in loops that take all the time.
        let goes_on = |insn: &Insn| insn.flow != Flow::Trap;
        for (addr, _) in instructions(&image, start, size).into_iter().filter(|(_, insn)| goes_on(insn)) {
            writeln!(probes, "[[probe]]\ndef = 'p:at_{addr:x} {addr:#x}'").unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("probes.toml");
    std::fs::write(&config, probes).unwrap();
    let boot = Boot::new(Qemu::V11_1, KERNEL)
        .append("quiet")
        .script(["openclose 100 /init", "getppid 1000", "fork 10", "exec 2", "pipe 30"])
        // As in `verify.rs`: else a slow run has more timer interrupts, and is slower for it. 16 ns an instruction, because
        // this kernel waits a long time for devices that are not there.
        .threads(Threads::Single)
        .extra_args(["-icount", "shift=4,sleep=off"])
        .plugin_arg("out=/dev/null")
        .plugin_arg("verify=on")
        .plugin_arg(format!("config={}", config.display()))
        .run_ok();
    let verified: Verified = serde_json::from_value(common::json(&boot)["verified"].clone()).unwrap();
    let told: Vec<&str> = boot.stderr.lines().filter(|line| line.starts_with("qkprobe: verify: ")).collect();
    eprintln!("{verified:?}");
    assert_eq!(verified.mismatches, 0, "{told:#?}");
    assert!(verified.checked >= 1_000_000, "{verified:?}");
    // One vCPU: nobody else stores.
    assert_eq!(verified.raced, 0);
    assert!(verified.next_pc_only < verified.checked / 4, "{verified:?}");
}
