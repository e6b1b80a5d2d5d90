//! A probe on kernel code is one on kernel code only: user programs may have code at the same addresses.

mod common;

use std::fs;

use common::{assert_hits, field};
use qkprobe_tests::{Boot, GuestKernel, Qemu};

/// Any low address that a static program leaves free.
const USER: u64 = 0x4000_00f0;
/// Where the kernel is loaded, and runs identity mapped, without KASLR: the physical address of its first segment.
const LOADED: u64 = 0x0100_0000;

#[test]
fn user_code_fires_only_probes_that_ask_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("probes.toml");
    let probe = |name: &str, place: &str, rest: &str| format!("[[probe]]\ndef = \"p:{name} {place}\"\n{rest}\n");
    let user = format!("{USER:#x}");
    let toml = [
        probe("kernel", &user, ""),
        probe("kernel_count", &user, "action = \"count\""),
        probe("user", &user, "privilege = \"user\""),
        probe("user_count", &user, "privilege = \"user\"\naction = \"count\""),
        probe("any", &user, "privilege = \"any\""),
        probe("any_count", &user, "privilege = \"any\"\naction = \"count\""),
        // The second nop of the code.
        probe("user_inside", &format!("{:#x}", USER + 1), "privilege = \"user\"\naction = \"count\""),
        probe("sys_user", "__x64_sys_getppid", "privilege = \"user\"\naction = \"count\""),
        probe("sys_user_trace", "__x64_sys_getppid", "privilege = \"user\""),
        probe("sys_kernel", "__x64_sys_getppid", "action = \"count\""),
        probe("sys_any", "__x64_sys_getppid", "privilege = \"any\"\naction = \"count\""),
        probe("off", "__x64_sys_getppid", "enabled = false"),
        probe("startup", "startup_64", ""),
        probe("startup_count", "startup_64", "action = \"count\""),
        probe("startup_user", "startup_64", "privilege = \"user\"\naction = \"count\""),
    ];
    fs::write(&config, toml.concat()).unwrap();
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, GuestKernel::X86_64Cloud6_1)
            .append("quiet nokaslr pti=off")
            .smp(2)
            .script([
                format!("usercode {USER:#x} 1000"),
                format!("threads 1 usercode {USER:#x} 100"),
                // The same virtual address at which the kernel's first instruction ran.
                format!("usercode {LOADED:#x} 500"),
                "getppid 2000".to_owned(),
            ])
            .plugin_arg(format!("config={}", config.display()))
            .run_ok();
        let expected = [
            ("kernel", 0),
            ("kernel_count", 0),
            ("user", 1100),
            ("user_count", 1100),
            ("any", 1100),
            ("any_count", 1100),
            ("user_inside", 1100),
            ("sys_user", 0),
            ("sys_user_trace", 0),
            ("sys_kernel", 2000),
            ("sys_any", 2000),
            ("off", 0),
            ("startup", 1),
            ("startup_count", 1),
            ("startup_user", 0),
        ];
        assert_hits(&boot, qemu.version(), &expected);
        assert_eq!(field(&boot, "kernel", "filtered"), 0);
        let records = common::trace_lines(&boot.trace);
        let user_places: Vec<_> =
            records.iter().filter(|record| record.event == "user").map(|record| record.place).collect();
        assert_eq!((user_places.len(), user_places[0]), (1100, "0x400000f0"), "{qemu}");
    }
}

/// The vsyscall page is user code in the kernel's half of the address space. Today's kernels emulate a call to it by a page fault, so
/// nothing there executes; what does not execute must not count, whoever it belongs to.
#[test]
fn calls_to_the_vsyscall_page_execute_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("probes.toml");
    // time(), which the vsyscall page has as its second function.
    let probe = |name: &str, rest: &str| format!("[[probe]]\ndef = \"p:{name} 0xffffffffff600400\"\n{rest}\n");
    let toml = [
        probe("kernel", ""),
        probe("kernel_count", "action = \"count\""),
        probe("user", "privilege = \"user\""),
        probe("any", "privilege = \"any\"\naction = \"count\""),
        "[[probe]]\ndef = \"p:emulated emulate_vsyscall\"\n".to_owned(),
    ];
    fs::write(&config, toml.concat()).unwrap();
    for (qemu, mode) in [(Qemu::V10_0, "emulate"), (Qemu::V11_1, "xonly")] {
        let boot = Boot::new(qemu, GuestKernel::X86_64Cloud6_1)
            .append(&format!("quiet nokaslr pti=off vsyscall={mode}"))
            .script(["call 0xffffffffff600400 100", "getppid 100"])
            .plugin_arg(format!("config={}", config.display()))
            .plugin_arg("count=p:getppid __x64_sys_getppid")
            .run_ok();
        let expected =
            [("kernel", 0), ("kernel_count", 0), ("user", 0), ("any", 0), ("emulated", 100), ("getppid", 100)];
        assert_hits(&boot, qemu.version(), &expected);
    }
}
