//! Another plugin counts the same places: `tests/plugins/oracle`, made with the high-level API of the crate `qemu-plugin`, which shares no
//! code with qkprobe. Both are loaded in one QEMU, and their counts agree to the last execution.
//!
//! That crate fixes the plugin API when it is built, so this is QEMU 10.0 alone; and its closures are not made for several vCPUs. Both see
//! what QEMU executes, and may differ where an instruction is executed twice, which qkprobe tells (docs/probes.md): the functions here
//! touch no user memory, and kernel memory that is always mapped.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use common::{image, instructions_of, symbol};
use qkprobe_arch::GuestAddr;
use qkprobe_symbols::KernelImage;
use qkprobe_tests::{Boot, BootResult, GuestKernel, Qemu};

/// Opens, a child's life, a pipe, and the timer's interrupt, which comes when it likes. None that x86 rewrites at boot: `do_exit` has
/// paravirt calls, in place of which the guest runs instructions that begin where none of the image does.
const FUNCTIONS: [&str; 7] = [
    "do_sys_openat2",
    "kernel_clone",
    "wake_up_new_task",
    "exit_files",
    "pipe_write",
    "pipe_read",
    "update_process_times",
];

/// What the oracle saw: address and executions.
fn told(boot: &BootResult) -> BTreeMap<u64, u64> {
    let lines = boot.stderr.lines().filter_map(|line| line.strip_prefix("ORACLE 0x")?.split_once(' '));
    lines.map(|(addr, count)| (u64::from_str_radix(addr, 16).unwrap(), count.parse().unwrap())).collect()
}

fn named(image: &KernelImage, addr: u64) -> String {
    let found = image.symbols.containing(GuestAddr(addr));
    found.map_or_else(|| format!("{addr:#x}"), |(symbol, offset)| format!("{}+{offset:#x}", symbol.name))
}

/// Boots with a probe on every instruction of `getppid` and of [`FUNCTIONS`].
#[track_caller]
fn both_count_the_same(kernel: GuestKernel, getppid: &str) {
    let image = image(kernel);
    let (mut config, mut ranges) = (String::new(), Vec::new());
    let mut probed = 0;
    for function in FUNCTIONS.into_iter().chain([getppid]) {
        let instructions = instructions_of(kernel.arch(), &image, function);
        let (start, size) = symbol(&image, function);
        ranges.push(format!("{:x}-{:x}", start + instructions[0].0, start + size));
        for (index, (offset, _)) in instructions.iter().enumerate() {
            // Inline counters and callbacks in turns.
            let action = ["count", "trace"][index % 2];
            let place = format!("p:{function}_{offset} {function}+{offset}");
            writeln!(config, "[[probe]]\ndef = \"{place}\"\naction = \"{action}\"").unwrap();
        }
        probed += instructions.len();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("probes.toml");
    std::fs::write(&file, config).unwrap();
    let oracle = common::built_plugin("oracle");
    let boot = Boot::new(Qemu::V10_0, kernel)
        .append("nokaslr quiet no_timer_check")
        .plugin_arg(format!("config={}", file.display()))
        .plugin_arg("out=/dev/null")
        .extra_args(["-plugin".to_owned(), format!("{},ranges={}", oracle.display(), ranges.join(":"))])
        .script(["getppid 3000", "openclose 300 /qk.script", "openclose 200 /no/such/file", "fork 40", "pipe 500"])
        .run_ok();
    let oracle = told(&boot);
    let summary = boot.summary();
    assert_eq!(summary.probes.len(), probed, "{}", boot.stderr);
    assert_eq!(summary.problem, None, "{}", boot.stderr);
    let mut ours = BTreeMap::new();
    for probe in &summary.probes {
        assert_eq!((probe.missed, probe.dropped), (0, 0), "{probe:?}");
        assert_eq!(ours.insert(probe.address.unwrap(), probe.hits), None, "{probe:?}");
    }
    // What was never translated the oracle does not list.
    ours.retain(|addr, hits| *hits != 0 || oracle.contains_key(addr));
    let differ: Vec<String> = ours
        .keys()
        .chain(oracle.keys())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .filter(|addr| ours.get(addr) != oracle.get(addr))
        .map(|addr| format!("{}: {:?}, the oracle {:?}", named(&image, *addr), ours.get(addr), oracle.get(addr)))
        .collect();
    assert!(differ.is_empty(), "{}: {differ:#?}", kernel.name());
    let executed = oracle.values().filter(|count| **count != 0).count();
    let executions: u64 = oracle.values().sum();
    println!("{}: {probed} instructions, {executed} executed, {executions} executions", kernel.name());
    assert!(executed > 300, "{executed} of {probed}");
    let hits = |name: &str| summary.probes.iter().find(|probe| probe.name.starts_with(name)).map(|probe| probe.hits);
    // The first instruction of each, by what the script does: exactly, or at least.
    assert_eq!(hits(&format!("{getppid}_")), Some(3000));
    let least = [
        ("do_sys_openat2_", 500),
        ("kernel_clone_", 40),
        ("exit_files_", 40),
        ("pipe_write_", 1000),
        ("pipe_read_", 1000),
    ];
    for (name, least) in least {
        assert!(hits(name).is_some_and(|hits| hits >= least), "{name}: {:?}", hits(name));
    }
    assert!(hits("update_process_times_").is_some_and(|hits| hits > 0));
}

#[test]
fn another_plugin_counts_the_same_in_x86_64() {
    both_count_the_same(GuestKernel::X86_64Cloud6_1, "__x64_sys_getppid");
}

#[test]
fn another_plugin_counts_the_same_in_i386() {
    both_count_the_same(GuestKernel::I386Pae6_1, "__ia32_sys_getppid");
}

#[test]
fn another_plugin_counts_the_same_in_ppc64le() {
    both_count_the_same(GuestKernel::Ppc64le6_1, "sys_getppid");
}
