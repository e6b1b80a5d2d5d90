//! 32-bit x86: what the other tests of this folder ask of x86_64 guests, asked of Debian's i386 kernel.

mod common;

use std::fmt::Write as _;
use std::time::Duration;

use qkprobe_arch::{Arch, GuestAddr, Insn};
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

/// What was compared.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
struct Verified {
    checked: u64,
    next_pc_only: u64,
    raced: u64,
    mismatches: u64,
}

const FUNCTIONS: &str = include_str!("verify/functions_i386.txt");

#[test]
fn executions_are_what_was_predicted() {
    let image = common::image(KERNEL);
    let mut probes = String::new();
    for function in FUNCTIONS.split_whitespace() {
        let (start, size) = common::symbol(&image, function);
        for (addr, _) in instructions(&image, start, size) {
            writeln!(probes, "[[probe]]\ndef = 'p:at_{addr:x} {addr:#x}'").unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("probes.toml");
    std::fs::write(&config, probes).unwrap();
    let boot: BootResult = Boot::new(Qemu::V11_1, KERNEL)
        .append("quiet")
        .script(["openclose 100 /init", "getppid 1000", "fork 10", "exec 2", "pipe 30"])
        .timeout(Duration::from_secs(300))
        .threads(Threads::Single)
        .extra_args(["-icount", "shift=0,sleep=off"])
        .plugin_arg("out=/dev/null")
        .plugin_arg("verify=on")
        .plugin_arg(format!("config={}", config.display()))
        .run_ok();
    let verified: Verified = serde_json::from_value(common::json(&boot)["verified"].clone()).unwrap();
    let told: Vec<&str> = boot.stderr.lines().filter(|line| line.starts_with("qkprobe: verify: ")).collect();
    eprintln!("{verified:?}");
    if std::env::var_os("QK_TOP").is_some() {
        let mut all: Vec<_> = boot.summary().probes.iter().map(|p| (p.hits, p.name.clone())).collect();
        all.sort();
        std::fs::write("/tmp/i386-scratch/hits.txt", format!("{all:#?}")).unwrap();
    }
    assert_eq!(verified.mismatches, 0, "{told:#?}");
    assert!(verified.checked >= 1_000_000, "{verified:?}");
    assert_eq!(verified.raced, 0);
    assert!(verified.next_pc_only < verified.checked / 4, "{verified:?}");
}
