//! A guest with much to do: nothing is missed, and nothing is left on the stack of a dead task.

use std::collections::BTreeMap;

use qkprobe_arch::{Flow, GuestAddr};
use qkprobe_symbols::{KernelImage, Lookup};
use qkprobe_tests::{Boot, BootResult, GuestKernel, Qemu, Threads};

use super::KERNEL;
use super::common::returns::assert_all_accounted;
use super::common::{image, instructions, symbol};

/// Functions that return, always.
const RETURN: [&str; 9] = [
    "do_sys_openat2",
    "vfs_read",
    "vfs_write",
    "__x64_sys_execve",
    "__x64_sys_clone",
    "__do_sys_clone",
    "__x64_sys_wait4",
    "__x64_sys_read",
    "kernel_clone",
];

/// Functions that never do.
const NEVER: [&str; 3] = ["__x64_sys_exit_group", "__x64_sys_exit", "do_exit"];

/// Two vCPUs with much to do: threads, processes, pipes, programs, in front and behind.
fn loaded(qemu: Qemu, kernel: GuestKernel, threads: Threads) -> BootResult {
    let image = image(kernel);
    let mut boot =
        Boot::new(qemu, kernel).smp(2).threads(threads).append("quiet").plugin_arg("out=/dev/null").script([
            "threads 2 openclose 300 /init",
            "background procs 3 pipe 200",
            "background fork 20",
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
    boot = boot.plugin_arg("count=p:dead do_task_dead");
    // Every way out of schedule(): into the return thunk, or into another function.
    let (start, size) = symbol(&image, "schedule");
    let leaves = |flow: Flow| match flow {
        Flow::Jump { target } | Flow::Branch { target } => !(start..start + size).contains(&target.0),
        Flow::Return => true,
        _ => false,
    };
    for (offset, _) in instructions(&image, "schedule").iter().filter(|(_, insn)| leaves(insn.flow)) {
        boot = boot.plugin_arg(format!("count=p:out_{offset} schedule+{offset}"));
    }
    boot.run_ok()
}

#[track_caller]
fn check_loaded(qemu: Qemu, kernel: GuestKernel, threads: Threads) {
    let boot = loaded(qemu, kernel, threads);
    let what = format!("{qemu}, {}, {threads:?}\n{}", kernel.name(), boot.stderr);
    let summary = boot.summary();
    let returns = |function: &str| summary.probe(&format!("r_{function}"));
    for function in RETURN.iter().chain(&NEVER).chain(&["schedule"]) {
        assert_all_accounted(&summary, &format!("p_{function}"), &format!("r_{function}"));
    }
    for function in RETURN {
        let probe = returns(function);
        assert!(probe.hits > 0 && (probe.pending, probe.abandoned) == (0, 0), "{probe:?}, {what}");
    }
    // 6 twice; 20 by the first task, 10 by each of two threads; a child of each background, 3 of procs, and as many of theirs.
    let forks = 12 + 20 + 20 + 2 + 3 + 3 + 2;
    assert_eq!(returns("__x64_sys_execve").hits, 12, "{what}");
    assert_eq!(returns("__x64_sys_clone").hits, forks, "{what}");
    assert_eq!(returns("__x64_sys_wait4").hits, forks, "{what}");
    // None stays on a dead task.
    let lost = |function: &str| (returns(function).hits, returns(function).pending, returns(function).abandoned);
    assert_eq!(lost("__x64_sys_exit_group"), (0, 0, forks), "{what}");
    // Two, two, and four threads.
    assert_eq!(lost("__x64_sys_exit"), (0, 0, 8), "{what}");
    // A kernel thread that ends when the power goes off may not come to its end.
    let (entered, dead) = (summary.probe("p_do_exit").hits, summary.probe("dead").hits);
    assert!(dead >= forks + 8 && entered - dead <= 1, "{what}");
    assert_eq!(lost("do_exit"), (0, entered - dead, dead), "{what}");

    let schedule = returns("schedule");
    let out: u64 = summary.probes.iter().filter(|probe| probe.name.starts_with("out_")).map(|probe| probe.hits).sum();
    assert_eq!((schedule.hits, schedule.abandoned), (out, 0), "{what}");
    // Who sleeps does it in schedule(). Between the count and the power-off a few kernel threads begin or end.
    let asleep = boot.qk("tasks").number("asleep") as u64;
    assert!(asleep > 20 && schedule.pending.abs_diff(asleep) <= 5, "{asleep} asleep: {schedule:?}, {what}");
}

#[test]
fn a_loaded_guest_with_two_vcpus() {
    for qemu in Qemu::selected() {
        check_loaded(qemu, KERNEL, Threads::Multi);
        check_loaded(qemu, KERNEL, Threads::Single);
    }
}

#[test]
fn a_loaded_guest_of_another_kernel() {
    check_loaded(Qemu::V11_1, GuestKernel::X86_64Cloud6_12, Threads::Multi);
    check_loaded(Qemu::V10_0, GuestKernel::X86_64Cloud7, Threads::Multi);
}

/// C functions from all over the kernel: those that begin with ftrace's call and whose name is theirs alone.
fn functions(image: &KernelImage, wanted: usize) -> Vec<String> {
    let ((fentry, _), (end, _)) = (symbol(image, "__fentry__"), symbol(image, "_etext"));
    let arch = qkprobe_arch::by_name("x86_64").unwrap();
    let begins = |addr: u64| {
        let insn = image.bytes(GuestAddr(addr), 5).and_then(|text| arch.decode(GuestAddr(addr), text).ok());
        insn.is_some_and(|insn| matches!(insn.flow, Flow::Call { target } if target.0 == fentry))
    };
    let mut by_address = BTreeMap::new();
    for symbol in image.symbols.iter().filter(|symbol| symbol.addr.0 < end && symbol.size >= 32) {
        let alone = matches!(image.symbols.lookup(None, symbol.name), Lookup::One(_));
        if alone && !symbol.name.contains('.') && begins(symbol.addr.0) {
            by_address.insert(symbol.addr.0, symbol.name.to_owned());
        }
    }
    let step = by_address.len() / wanted;
    by_address.into_values().step_by(step).take(wanted).collect()
}

#[test]
fn hundreds_of_functions_at_once() {
    const FUNCTIONS: usize = 400;
    let functions = functions(&image(KERNEL), FUNCTIONS);
    assert_eq!(functions.len(), FUNCTIONS);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("probes.toml");
    let text = |kind: &str, function: &str| {
        format!("[[probe]]\ndef = '{kind}:{kind}_{function} {function}'\naction = 'count'\n")
    };
    let text: String = functions.iter().map(|function| text("p", function) + &text("r", function)).collect();
    std::fs::write(&config, text).unwrap();
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, KERNEL)
            .smp(2)
            .append("quiet")
            .script([
                "threads 2 openclose 200 /init",
                "background procs 3 pipe 100",
                "procs 2 exec 6",
                "wait",
                "fork 20",
            ])
            .plugin_arg("out=/dev/null")
            .plugin_arg(format!("config={}", config.display()))
            .run_ok();
        let summary = boot.summary();
        for function in &functions {
            assert_all_accounted(&summary, &format!("p_{function}"), &format!("r_{function}"));
        }
        let returns = || summary.probes.iter().filter(|probe| probe.kind == "r");
        let (called, calls) =
            (returns().filter(|probe| probe.hits > 0).count(), returns().map(|probe| probe.hits).sum::<u64>());
        assert!(called > 50 && calls > 10_000, "{qemu}: {called} functions, {calls} calls");
        // What is pending is a sleeping task's, and most functions do not sleep.
        let pending: Vec<_> = returns().filter(|probe| probe.pending + probe.abandoned != 0).collect();
        assert!(pending.len() < 20, "{qemu}: {pending:?}");
    }
}
