//! sparc64: probes where the kernel's own kprobes lose the guest: delay slots, handlers at trap level 1, the way into the
//! kernel and out of it; code of processes at the kernel's addresses; and `verify=on` over the hot functions.

mod common;
#[path = "sparc64/guest.rs"]
mod guest;

use std::collections::BTreeSet;

use common::{assert_hits, image, of, symbol, trace_lines, value};
use guest::{KERNEL, QEMU, arch, assert_none_lost, boot, instructions, word};
use qkprobe_arch::{Flow, GuestAddr};
use qkprobe_tests::Qemu;

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

/// This kernel dies itself of the way out of a process that had an oops (see ARCHITECTURE.md), so the function in which it
/// would is passed over.
#[test]
fn a_task_dies_in_a_probed_function() {
    let boot = boot(QEMU).plugin_arg("count=p:robust exit_robust_list do override=0");
    common::returns::a_task_dies_in_a_probed_function("sparc64", boot, Some("do_sparc64_fault"));
}
