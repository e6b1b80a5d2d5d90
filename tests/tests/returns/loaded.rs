//! A guest with much to do: nothing is missed, and nothing is left on the stack of a dead task.

use std::collections::BTreeMap;

use qkprobe_arch::{Flow, GuestAddr};
use qkprobe_symbols::{KernelImage, Lookup};
use qkprobe_tests::{Boot, GuestKernel, Qemu, Threads};

use super::KERNEL;
use super::common::returns::{FORKS, Loaded, assert_all_accounted};
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

/// Every way out of schedule(): into the return thunk, or into another function.
fn ways_out(image: &KernelImage) -> Vec<u64> {
    let (start, size) = symbol(image, "schedule");
    let leaves = |flow: Flow| match flow {
        Flow::Jump { target } | Flow::Branch { target } => !(start..start + size).contains(&target.0),
        Flow::Return => true,
        _ => false,
    };
    let insns = instructions(image, "schedule");
    insns.iter().filter(|(_, insn)| leaves(insn.flow)).map(|(offset, _)| *offset).collect()
}

#[track_caller]
fn check_loaded(qemu: Qemu, kernel: GuestKernel, threads: Threads) {
    let boot = Boot::new(qemu, kernel).smp(2).threads(threads).append("quiet");
    let what = format!("{qemu}, {}, {threads:?}", kernel.name());
    let ways_out = ways_out(&image(kernel));
    let summary = Loaded { call: "__x64_sys_", returning: &RETURN, ways_out, asleep: 20 }.check(&what, boot);
    assert_eq!(summary.probe("r___x64_sys_clone").hits, FORKS, "{what}");
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
