//! `verify=on` over boots: what is predicted of each instruction of the kernel's busiest functions is what QEMU does.

use std::fmt::Write as _;

use qkprobe_symbols::{GuestAddr, KernelImage};
use qkprobe_tests::{GuestKernel, Qemu, Threads};

use crate::common::{image, json, symbol};
use crate::{boot, entry, is_64, words};

/// Functions that all three kernels have, and that a boot and the script run some thousand instructions of, but none more than
/// 30,000: the busiest loops would leave no time for others. Measured with counting probes.
const FUNCTIONS: &str = include_str!("functions.txt");

/// What was compared.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
struct Verified {
    checked: u64,
    next_pc_only: u64,
    raced: u64,
    mismatches: u64,
}

/// A probe on each instruction of a function, from where direct calls enter.
fn probe_all(image: &KernelImage, kernel: GuestKernel, function: &str, probes: &mut String) {
    let arch = qkprobe_arch::by_name(if is_64(kernel) { kernel.arch().name() } else { "ppc" }).unwrap();
    let ((start, _), first) = (symbol(image, function), entry(image, function));
    for addr in words(image, function).iter().map(|(offset, _)| start + offset).filter(|addr| *addr >= first) {
        let bytes = image.bytes(GuestAddr(addr), 4).unwrap();
        // The first word that is no instruction is the table of a jump, or ends the function.
        if arch.decode(GuestAddr(addr), bytes).is_err() {
            return;
        }
        writeln!(probes, "[[probe]]\ndef = 'p:at_{addr:x} {addr:#x}'").unwrap();
    }
}

#[track_caller]
fn check(kernel: GuestKernel) -> Verified {
    let image = image(kernel);
    let mut probes = String::new();
    for function in FUNCTIONS.split_whitespace() {
        probe_all(&image, kernel, function, &mut probes);
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("probes.toml");
    std::fs::write(&config, probes).unwrap();
    let boot = boot(Qemu::V11_1, kernel, 1)
        .script(["openclose 100 /init", "getppid 500", "fork 10", "exec 2", "pipe 30"])
        .threads(Threads::Single)
        // The guest's clock counts its instructions: else a slow run has more timer interrupts, and is slower for it.
        .extra_args(["-icount", "shift=0,sleep=off"])
        .plugin_arg("out=/dev/null")
        .plugin_arg("verify=on")
        .plugin_arg(format!("config={}", config.display()))
        .run_ok();
    let verified: Verified = serde_json::from_value(json(&boot)["verified"].clone()).unwrap();
    let told: Vec<&str> = boot.stderr.lines().filter(|line| line.starts_with("qkprobe: verify: ")).collect();
    let what = format!("{}: {} probes, {:?}, {verified:?}", kernel.name(), boot.summary().probes.len(), boot.duration);
    eprintln!("{what}");
    assert_eq!((verified.mismatches, verified.raced), (0, 0), "{what}\n{told:#?}");
    assert!(verified.next_pc_only < verified.checked / 4, "{what}");
    verified
}

#[test]
fn a_million_executions_are_what_was_predicted() {
    let kernels = [GuestKernel::Ppc64le6_1, GuestKernel::Ppc64Pseries6_1, GuestKernel::Ppc32Pmac6_1];
    let all: u64 = kernels.map(|kernel| check(kernel).checked).iter().sum();
    assert!(all >= 1_000_000, "{all}");
}
