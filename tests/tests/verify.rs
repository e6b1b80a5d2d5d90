//! `verify=on` over real code: what `arch` predicts of an instruction from its copy (registers, memory, where it goes)
//! is what QEMU does. Millions of executions, and not one mismatch.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Instant;

use qkprobe_arch::GuestAddr;
use qkprobe_symbols::KernelImage;
use qkprobe_tests::{Boot, BootResult, GuestKernel, Qemu, Threads};

const KERNEL: GuestKernel = GuestKernel::X86_64Cloud6_1;

/// Functions of that kernel that a boot and [`SCRIPT`] run often, but none more than 140,000 instructions: the hottest
/// loops (bignum arithmetic, string functions) would leave no time for others. None repeats an instruction (`rep`):
/// with QEMU's clock of instructions each repetition is a hit. Measured with counting probes.
const FUNCTIONS: &str = include_str!("verify/functions.txt");

/// What the measurement ran.
const SCRIPT: [&str; 5] = ["openclose 300 /init", "getppid 3000", "fork 20", "exec 5", "pipe 100"];

/// What was compared.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
struct Verified {
    checked: u64,
    next_pc_only: u64,
    raced: u64,
    mismatches: u64,
}

/// A boot with these probes and `verify=on`, and what it compared; the guest must not notice.
#[track_caller]
fn verify(boot: Boot, probes: &str) -> (Verified, BootResult) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("probes.toml");
    std::fs::write(&config, probes).unwrap();
    let start = Instant::now();
    let boot = boot
        // The guest's clock counts its instructions: else a slow run has more timer interrupts, and is slower for it.
        .threads(Threads::Single)
        .extra_args(["-icount", "shift=0,sleep=off"])
        .plugin_arg("out=/dev/null")
        .plugin_arg("verify=on")
        .plugin_arg(format!("config={}", config.display()))
        .run_ok();
    let verified: Verified = serde_json::from_value(common::json(&boot)["verified"].clone()).unwrap();
    let told: Vec<&str> = boot.stderr.lines().filter(|line| line.starts_with("qkprobe: verify: ")).collect();
    eprintln!("{} probes, {:.1} s: {verified:?}", boot.summary().probes.len(), start.elapsed().as_secs_f64());
    assert_eq!(verified.mismatches, 0, "{told:#?}");
    (verified, boot)
}

/// A probe on each instruction of `text`, as far as it can be decoded.
fn probe_text(image: &KernelImage, start: u64, len: u64, probes: &mut String) {
    let arch = qkprobe_arch::by_name("x86_64").unwrap();
    let text = image.bytes(GuestAddr(start), usize::try_from(len).unwrap()).unwrap();
    let mut offset = 0;
    while let Ok(insn) = arch.decode(GuestAddr(start + offset as u64), &text[offset..]) {
        let addr = start + offset as u64;
        writeln!(probes, "[[probe]]\ndef = 'p:at_{addr:x} {addr:#x}'").unwrap();
        offset += usize::from(insn.len);
    }
}

#[test]
fn ten_million_executions_of_a_kernel() {
    let image = common::image(KERNEL);
    let mut probes = String::new();
    let functions: Vec<&str> = FUNCTIONS.split_whitespace().collect();
    assert!(functions.len() >= 150, "{}", functions.len());
    for function in functions {
        let (start, size) = common::symbol(&image, function);
        probe_text(&image, start, size, &mut probes);
    }
    let boot = Boot::new(Qemu::V11_1, KERNEL).append("quiet").script(SCRIPT);
    let (verified, boot) = verify(boot, &probes);
    assert!(verified.checked >= 10_000_000 && verified.next_pc_only < verified.checked / 4, "{verified:?}");
    // One vCPU: nobody else stores.
    assert_eq!(verified.raced, 0);
    let hits: u64 = boot.summary().probes.iter().map(|probe| probe.hits).sum();
    let compared = verified.checked + verified.next_pc_only;
    // What an interrupt or a fault comes between, or what never goes on, is not compared.
    assert!(compared <= hits && compared >= hits - hits / 100, "{compared} of {hits}");
}

/// All that a kernel runs only once: from the first instruction on, without the layout that it has later.
#[test]
fn the_code_that_runs_once() {
    let image = common::image(KERNEL);
    let (begin, _) = common::symbol(&image, "_sinittext");
    let (end, _) = common::symbol(&image, "_einittext");
    let functions: BTreeSet<(u64, u64)> = image
        .symbols
        .iter()
        .filter(|symbol| symbol.text && (begin..end).contains(&symbol.addr.0) && symbol.size <= 600)
        .map(|symbol| (symbol.addr.0, symbol.size))
        .chain([common::symbol(&image, "startup_64")])
        .collect();
    let mut probes = String::new();
    // A third of them, startup_64 is the first: a test of half a minute.
    for (start, size) in functions.into_iter().step_by(3) {
        probe_text(&image, start, size, &mut probes);
    }
    let (verified, boot) = verify(Boot::new(Qemu::V11_1, KERNEL).append("quiet").script(["getppid 10"]), &probes);
    let ran = boot.summary().probes.iter().filter(|probe| probe.hits != 0).count();
    assert!(ran > 5_000 && verified.checked > 50_000, "{ran} instructions ran: {verified:?}");
}

/// Loops, far transfers, string instructions, faults, traps: what the guest without a kernel has one of each.
#[test]
fn every_instruction_of_the_guest_without_a_kernel() {
    let image = common::image(GuestKernel::X86_64Bare);
    let mut probes = String::new();
    let is_snippet = |name: &str| name.starts_with("snip_") && !name.contains('.');
    let snippets = image.symbols.iter().filter(|symbol| is_snippet(symbol.name));
    for (name, start) in snippets.map(|symbol| (symbol.name, symbol.addr.0)) {
        let (end, _) = common::symbol(&image, &format!("{name}.end"));
        probe_text(&image, start, end - start, &mut probes);
    }
    let guest = || Boot::new(Qemu::V11_1, GuestKernel::X86_64Bare).memory(128);
    let expected = guest().run_ok().console;
    let (verified, boot) = verify(guest(), &probes);
    assert_eq!(boot.console, expected, "the guest noticed");
    assert!(verified.checked > 9_000, "{verified:?}");
}
