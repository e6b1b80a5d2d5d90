//! What several boot tests share: the image's own view of a kernel, and what the summary says beyond counts.
#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod gdb;
pub(crate) mod peer;
pub(crate) mod returns;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use qkprobe_arch::{Arch, Flow, GuestAddr, Insn};
use qkprobe_symbols::{KernelImage, Lookup};
pub(crate) use qkprobe_tests::PATIENCE;
use qkprobe_tests::{BootResult, Cache, GuestArch, GuestKernel, Running};
use serde_json::Value;

/// A plugin of the workspace, built as a user would. Its dependencies are those of the plugin's own release build.
#[track_caller]
pub(crate) fn built_plugin(package: &str) -> PathBuf {
    // The target folder of this test, which is not always the workspace's.
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder").to_owned();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--release", "-p", package, "--target-dir"]).arg(&target);
    assert!(cargo.status().expect("cargo runs").success(), "{package} builds");
    target.join("release").join(format!("lib{package}.so"))
}

/// The image that the guest boots, read on the host.
pub(crate) fn image(kernel: GuestKernel) -> KernelImage {
    KernelImage::load(&Cache::open().unwrap().kernel(kernel).unwrap()).unwrap()
}

/// The line of a script that waits until an x86 kernel has put a jump in the place of its kprobe's breakpoint: its list of kprobes says so
/// as soon as that is decided.
pub(crate) fn until_jump(place: &str) -> String {
    format!("untiltext 1000000 {place} e9")
}

/// Waits until QEMU's main loop waits for a vCPU: it has been asked to stop the machine, and a vCPU is held in a callback.
#[track_caller]
pub(crate) fn wait_for_stopping(running: &Running) {
    /// On x86_64, the only host that the set-up has QEMUs for.
    const FUTEX: &str = "202 ";
    let (pid, start) = (running.pid(), Instant::now());
    // Else it sleeps in poll(). It may take a lock for a moment, too.
    let mut waits = 0;
    while waits < 10 {
        assert!(start.elapsed() < PATIENCE, "QEMU does not stop the machine: {}", running.stderr());
        std::thread::sleep(Duration::from_millis(10));
        let call = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/syscall")).unwrap();
        waits = if call.starts_with(FUTEX) { waits + 1 } else { 0 };
    }
}

/// Where the image links a symbol that it has once, and the symbol's size.
#[track_caller]
pub(crate) fn symbol(image: &KernelImage, name: &str) -> (u64, u64) {
    match image.symbols.lookup(None, name) {
        Lookup::One(symbol) => (symbol.addr.0, symbol.size),
        other => panic!("{name}: {other:?}"),
    }
}

/// The instructions of a function with their offsets, from behind ENDBR to the padding behind the last return or jump.
#[track_caller]
pub(crate) fn instructions(image: &KernelImage, name: &str) -> Vec<(u64, Insn)> {
    instructions_of(GuestArch::X86_64, image, name)
}

/// The same for any architecture.
#[track_caller]
pub(crate) fn instructions_of(arch: GuestArch, image: &KernelImage, name: &str) -> Vec<(u64, Insn)> {
    // QEMU's name of 32-bit PowerPC.
    let name_of_arch = if arch == GuestArch::Ppc32 { "ppc" } else { arch.name() };
    let arch = qkprobe_arch::by_name(name_of_arch).unwrap();
    let (start, size) = symbol(image, name);
    let text = image.bytes(GuestAddr(start), usize::try_from(size).unwrap()).unwrap();
    let mut offset = usize::try_from(arch.entry_skip(text)).unwrap();
    let mut found = Vec::new();
    // Padding is nops (0x90, and the longer forms that begin with these bytes) or breakpoints.
    while offset < text.len() && !is_padding(arch, &text[offset..]) {
        let insn = arch.decode(GuestAddr(start + offset as u64), &text[offset..]).unwrap();
        found.push((offset as u64, insn));
        offset += usize::from(insn.len);
    }
    found
}

/// Only what fills up to the end: on x86 nops of any length and breakpoints; elsewhere words that are no instructions.
fn is_padding(arch: &dyn Arch, mut text: &[u8]) -> bool {
    if !matches!(arch.name(), "x86_64" | "i386") {
        return arch.decode(GuestAddr(0), text).is_err();
    }
    while !text.is_empty() {
        let nop = text.iter().position(|byte| !matches!(byte, 0x66 | 0x2e)).unwrap_or(text.len());
        if !(text[nop..].starts_with(&[0x0f, 0x1f]) || matches!(text.get(nop), Some(0x90 | 0xcc))) {
            return false;
        }
        let Ok(insn) = arch.decode(GuestAddr(0), text) else { return false };
        text = &text[usize::from(insn.len)..];
    }
    true
}

/// Where a function goes on after its one call of another: `caller+0x6a/0xa0`.
#[track_caller]
pub(crate) fn behind_call(image: &KernelImage, caller: &str, callee: &str) -> String {
    let ((_, size), (target, _)) = (symbol(image, caller), symbol(image, callee));
    let calls = |insn: &Insn| matches!(insn.flow, Flow::Call { target: called } if called.0 == target);
    let found: Vec<u64> = instructions(image, caller)
        .iter()
        .filter(|(_, insn)| calls(insn))
        .map(|(offset, insn)| offset + u64::from(insn.len))
        .collect();
    assert_eq!(found.len(), 1, "{caller} calls {callee}");
    format!("{caller}+{:#x}/{size:#x}", found[0])
}

/// Whether execution goes on behind the instruction, always.
pub(crate) fn falls_through(flow: Flow) -> bool {
    matches!(flow, Flow::Next | Flow::Call { .. })
}

/// A number of the summary as the plugin wrote it: `field` of the probe `name`.
#[track_caller]
pub(crate) fn field(boot: &BootResult, name: &str, field: &str) -> u64 {
    let summary = json(boot);
    let probe = summary["probes"].as_array().unwrap().iter().find(|probe| probe["name"] == name);
    probe.unwrap_or_else(|| panic!("no {name} in {summary}"))[field].as_u64().unwrap()
}

/// The whole summary.
#[track_caller]
pub(crate) fn json(boot: &BootResult) -> Value {
    serde_json::from_str(&std::fs::read_to_string(boot.folder().join("summary.json")).unwrap()).unwrap()
}

/// Asserts each probe's hits, all of them in one message.
#[track_caller]
pub(crate) fn assert_hits(boot: &BootResult, what: &str, expected: &[(&str, u64)]) {
    let summary = boot.summary();
    let found: Vec<_> = expected.iter().map(|(name, _)| (*name, summary.probe(name).hits)).collect();
    assert_eq!(found, expected, "{what}\n{}", boot.stderr);
}

/// One line of the trace in ftrace's form, taken apart as strictly as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceLine<'a> {
    /// The vCPU; `u32::MAX` for `---`, where QEMU does not tell.
    pub(crate) cpu: u32,
    /// Microseconds since the machine was made.
    pub(crate) time: u64,
    /// The event's name.
    pub(crate) event: &'a str,
    /// What stands in the brackets: `symbol+0xoffset/0xsize`.
    pub(crate) place: &'a str,
    /// ` name=value ...`, with its first blank.
    pub(crate) args: &'a str,
}

/// The records of a trace; every other line must be a comment.
#[track_caller]
pub(crate) fn trace_lines(trace: &str) -> Vec<TraceLine<'_>> {
    let lines = trace.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| trace_line(line).unwrap_or_else(|| panic!("no trace line: {line:?}"))).collect()
}

/// The records of an event.
pub(crate) fn of<'a, 'b>(lines: &'b [TraceLine<'a>], event: &str) -> Vec<&'b TraceLine<'a>> {
    lines.iter().filter(|line| line.event == event).collect()
}

/// The value of an argument of a record.
#[track_caller]
pub(crate) fn value<'a>(line: &TraceLine<'a>, key: &str) -> &'a str {
    let found = line.args.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {key} in {line:?}"))
}

/// The same, of a signed number.
#[track_caller]
pub(crate) fn int(line: &TraceLine<'_>, key: &str) -> i64 {
    value(line, key).parse().unwrap_or_else(|error| panic!("{key} of {line:?}: {error}"))
}

/// `%16s-%-7d [%03d] FLAGS %12s: EVENT: (PLACE) NAME=VALUE...`, with `<...>-0` for the task and dots for the flags.
pub(crate) fn trace_line(line: &str) -> Option<TraceLine<'_>> {
    let rest = line.strip_prefix("           <...>-0       [")?;
    let (cpu, rest) = rest.split_once("] ..... ")?;
    let (time, rest) = rest.split_at_checked(12)?;
    let (seconds, micros) = time.trim_start_matches(' ').split_once('.')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let cpu =
        if cpu == "---" { u32::MAX } else { Some(cpu).filter(|cpu| cpu.len() == 3 && digits(cpu))?.parse().ok()? };
    if micros.len() != 6 || !digits(micros) || !digits(seconds) || seconds.is_empty() {
        return None;
    }
    let (event, rest) = rest.strip_prefix(": ")?.split_once(": (")?;
    let (place, args) = rest.split_once(')')?;
    if !(args.is_empty() || args.starts_with(' ')) || event.contains(' ') {
        return None;
    }
    let time = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
    Some(TraceLine { cpu, time, event, place, args })
}
