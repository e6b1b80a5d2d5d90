//! Places where the kernel's own kprobes cannot go: before there is an int3 handler, while the kernel runs where it is not linked, and
//! the code that kprobes themselves are made of.

mod common;

use common::{assert_hits, image, instructions};
use qkprobe_tests::{Boot, BootResult, GuestKernel, Qemu};

/// The first code of the kernel, which runs once in a boot, on one vCPU.
const ONCE: [&str; 3] = ["startup_64", "x86_64_start_kernel", "start_kernel"];

/// Counts the first code; `smp` vCPUs.
#[track_caller]
fn check_first_code(qemu: Qemu, kernel: GuestKernel, append: &str, smp: u32) {
    let mut boot = Boot::new(qemu, kernel).smp(smp).append(&format!("quiet {append}")).script(["getppid 1000"]);
    let (mut inline, mut traced) = (Vec::new(), Vec::new());
    for name in ONCE {
        boot =
            boot.plugin_arg(format!("count=p:{name} {name}")).plugin_arg(format!("probe=p:{name}_trace {name} ip=%ip"));
        inline.push((name.to_owned(), 1));
        traced.push(format!("{name}_trace"));
    }
    // Further inside: up to the first place where control may leave the line.
    let insns = instructions(&image(kernel), "startup_64");
    for (offset, _) in insns.iter().take(4).skip(1) {
        let name = format!("startup_64_at_{offset}");
        boot = boot.plugin_arg(format!("count=p:{name} startup_64+{offset}"));
        inline.push((name, 1));
    }
    let boot = boot
        .plugin_arg("count=p:secondary secondary_startup_64")
        .plugin_arg("probe=p:secondary_trace secondary_startup_64")
        .plugin_arg("count=p:getppid __x64_sys_getppid")
        .run_ok();
    let what = format!("{qemu}, {}, {append}, {smp} vCPUs", kernel.name());
    let mut expected: Vec<(&str, u64)> = inline.iter().map(|(name, hits)| (name.as_str(), *hits)).collect();
    expected.extend(traced.iter().map(|name| (name.as_str(), 1)));
    let others = u64::from(smp - 1);
    expected.extend([("secondary", others), ("secondary_trace", others), ("getppid", 1000)]);
    assert_hits(&boot, &what, &expected);
    check_trace(&boot, &what, smp);
}

/// The records tell the order of the boot, and which vCPU ran what.
#[track_caller]
fn check_trace(boot: &BootResult, what: &str, smp: u32) {
    let records = common::trace_lines(&boot.trace);
    let events: Vec<_> = records.iter().map(|record| (record.event, record.cpu)).collect();
    let first = [("startup_64_trace", 0), ("x86_64_start_kernel_trace", 0), ("start_kernel_trace", 0)];
    assert_eq!(events.get(..3), Some(&first[..]), "{what}\n{}", boot.trace);
    let others: Vec<_> = (1..smp).map(|cpu| ("secondary_trace", cpu)).collect();
    assert_eq!(events.get(3..), Some(&others[..]), "{what}\n{}", boot.trace);
}

#[test]
fn first_code_wherever_the_kernel_lies() {
    for qemu in Qemu::selected() {
        check_first_code(qemu, GuestKernel::X86_64Cloud6_1, "", 1);
        check_first_code(qemu, GuestKernel::X86_64Cloud6_1, "nokaslr", 2);
        check_first_code(qemu, GuestKernel::X86_64Cloud6_12, "", 3);
        check_first_code(qemu, GuestKernel::X86_64Cloud7, "nokaslr", 1);
    }
    check_first_code(Qemu::V11_1, GuestKernel::X86_64Generic6_1, "nokaslr", 2);
    check_first_code(Qemu::V11_1, GuestKernel::X86_64Cloud7, "", 2);
}

/// What the kernel refuses to probe: entry code, noinstr, the way of a breakpoint, of an NMI and of a page fault, kprobes themselves.
const REFUSED: [&str; 16] = [
    "entry_SYSCALL_64",
    "asm_exc_page_fault",
    "exc_page_fault",
    "asm_exc_int3",
    "exc_int3",
    "do_int3",
    "kprobe_int3_handler",
    "get_kprobe",
    "notifier_call_chain",
    "raw_notifier_call_chain",
    "blocking_notifier_call_chain",
    "asm_exc_nmi",
    "exc_nmi",
    "default_do_nmi",
    "memcpy",
    "__switch_to_asm",
];

/// Each of them counted and recorded while it runs; a kprobe of the guest's own makes the breakpoints.
#[track_caller]
fn check_refused(qemu: Qemu, kernel: GuestKernel) {
    let offset = instructions(&image(kernel), "__x64_sys_getppid")[2].0;
    let mut boot = Boot::new(qemu, kernel).smp(2).append("quiet pti=off").script([
        // Traces of all CPUs are no lines of ours.
        "write /proc/sys/kernel/printk 1".to_owned(),
        "write /proc/sys/debug/kprobes-optimization 0".to_owned(),
        format!("append /sys/kernel/tracing/kprobe_events p:own __x64_sys_getppid+{offset}"),
        "write /sys/kernel/tracing/events/kprobes/own/enable 1".to_owned(),
        "getppid 1000".to_owned(),
        "write /sys/kernel/tracing/events/kprobes/own/enable 0".to_owned(),
        "write /proc/sysrq-trigger l".to_owned(),
        "sleep 100".to_owned(),
        "write /proc/sysrq-trigger l".to_owned(),
        "sleep 100".to_owned(),
        "fork 10".to_owned(),
        "cat /sys/kernel/tracing/kprobe_profile".to_owned(),
    ]);
    for name in REFUSED {
        boot = boot
            .plugin_arg(format!("count=p:{name} {name}"))
            .plugin_arg(format!("probe=p:{name}_too {name} sp=$stack"));
    }
    let boot = boot.plugin_arg("out=/dev/null").run_ok();
    let what = format!("{qemu}, {}", kernel.name());
    assert_eq!(
        boot.file("/sys/kernel/tracing/kprobe_profile").split_whitespace().collect::<Vec<_>>(),
        ["own", "1000", "0"]
    );
    let summary = boot.summary();
    let hits = |name: &str| summary.probe(name).hits;
    for name in REFUSED {
        assert_eq!(hits(name), hits(&format!("{name}_too")), "{what}: {name}\n{}", boot.stderr);
    }
    assert!(hits("entry_SYSCALL_64") > 1000, "{what}\n{}", boot.stderr);
    assert!(hits("memcpy") > 100, "{what}\n{}", boot.stderr);
    assert!(hits("raw_notifier_call_chain") > 10, "{what}\n{}", boot.stderr);
    assert!(hits("blocking_notifier_call_chain") >= 1, "at least when the power goes off: {what}\n{}", boot.stderr);
    // 6.1 has a copy of this one that nothing calls: it is inlined everywhere. So is do_int3, in all of these kernels.
    assert_eq!(hits("notifier_call_chain") > 10, kernel != GuestKernel::X86_64Cloud6_1, "{what}\n{}", boot.stderr);
    assert_eq!(hits("do_int3"), 0, "{what}\n{}", boot.stderr);
    assert!(hits("exc_page_fault") > 20 && hits("__switch_to_asm") > 100, "{what}\n{}", boot.stderr);
    assert_eq!(hits("asm_exc_page_fault"), hits("exc_page_fault"), "{what}\n{}", boot.stderr);
    // The kernel's patching of its own text makes breakpoints, too; how many are run into is chance. Kprobes see few of them.
    assert!(hits("asm_exc_int3") >= hits("kprobe_int3_handler"), "{what}\n{}", boot.stderr);
    assert!((1000..1200).contains(&hits("kprobe_int3_handler")), "{what}\n{}", boot.stderr);
    assert_eq!(hits("asm_exc_int3"), hits("exc_int3"), "{what}\n{}", boot.stderr);
    assert!(hits("get_kprobe") >= 1000, "{what}\n{}", boot.stderr);
    // Each "l" sends one to the other CPU.
    let nmis = [("asm_exc_nmi", 2), ("exc_nmi", 2), ("default_do_nmi", 2)];
    assert_hits(&boot, &what, &nmis);
}

#[test]
fn code_that_the_kernel_itself_refuses_to_probe() {
    for qemu in Qemu::selected() {
        check_refused(qemu, GuestKernel::X86_64Cloud6_1);
    }
    check_refused(Qemu::V11_1, GuestKernel::X86_64Cloud6_12);
    check_refused(Qemu::V10_0, GuestKernel::X86_64Cloud7);
}
