//! Two rows of the table in `bare/rows.rs` that take a whole kernel: what the kernel's own kprobes get wrong at context switches, and at
//! the first instruction that they emulate.

mod common;

use common::{falls_through, image, instructions, of, trace_lines, value};
use qkprobe_arch::Flow;
use qkprobe_tests::{Boot, BootResult, GuestKernel, Qemu};

/// Switches more often than anything: who reads from a pipe waits, and is woken.
const LOAD: [&str; 6] =
    ["pipe 500", "procs 2 pipe 100", "fork 20", "threads 3 sleep 20", "threads 2 getppid 500", "exec 3"];

/// A return probe on the function that goes from one task's stack to another's. A kernel with IBT would have to refuse its own
/// kretprobes there, and does not.
#[test]
fn x4_every_call_of_switch_to_returns_once() {
    for (qemu, kernel) in [
        (Qemu::V11_1, GuestKernel::X86_64Cloud6_1),
        (Qemu::V10_0, GuestKernel::X86_64Cloud6_12),
        (Qemu::V11_1, GuestKernel::X86_64Cloud7),
    ] {
        for smp in [1, 4] {
            let boot = Boot::new(qemu, kernel)
                .smp(smp)
                .append("quiet")
                .script(LOAD)
                .plugin_arg("count=p:entries __switch_to")
                .plugin_arg("count=r:returns __switch_to")
                .plugin_arg("count=r:results __switch_to next=$arg2 ret=$retval:x64 if ret != 0")
                .run_ok();
            let what = format!("{qemu}, {}, {smp} vCPUs\n{}", kernel.name(), boot.stderr);
            let summary = boot.summary();
            let (entries, returns) = (summary.probe("entries").hits, summary.probe("returns"));
            // Each of 500 bytes there and back waits, if there is one vCPU.
            assert!(entries >= if smp == 1 { 1000 } else { 100 }, "{entries}, {what}");
            assert_eq!(
                (returns.hits, returns.missed, returns.pending, returns.abandoned),
                (entries, 0, 0, 0),
                "{what}"
            );
            // It returns the task that went.
            assert_eq!(summary.probe("results").hits, entries, "{what}");
        }
    }
}

/// What the guest says it switched, each time that the script showed it.
fn ctxt(boot: &BootResult) -> Vec<i64> {
    let numbers = boot.console.lines().filter_map(|line| line.strip_prefix("ctxt "));
    numbers.map(|number| number.parse().unwrap()).collect()
}

/// Between two looks at `/proc/stat` there are as many switches as the kernel counts there.
#[test]
fn x4_switches_are_those_of_proc_stat() {
    for (qemu, smp) in [(Qemu::V10_0, 1), (Qemu::V11_1, 1), (Qemu::V11_1, 2)] {
        let boot = Boot::new(qemu, GuestKernel::X86_64Cloud6_1)
            .smp(smp)
            .append("quiet")
            .script(["cat /proc/stat"])
            .script(LOAD)
            .script(["cat /proc/stat"])
            .plugin_arg("probe=p:look do_sys_openat2 file=+0($arg2):ustring if file == \"/proc/stat\"")
            .plugin_arg("probe=p:sum nr_context_switches")
            .plugin_arg("probe=p:switch __switch_to prev=$arg1 next=$arg2")
            .plugin_arg("probe=r:switched __switch_to prev=$retval")
            .run_ok();
        let what = format!("{qemu}, {smp} vCPUs");
        let [before, after] = ctxt(&boot)[..] else { panic!("{what}: {}", boot.console) };
        let lines = trace_lines(&boot.trace);
        let looks: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].event == "look").collect();
        let [first, second] = looks[..] else { panic!("{what}: {looks:?}") };
        // The file is made again if it did not fit.
        let last_sum = |from: usize, to: usize| (from..to).rfind(|at| lines[*at].event == "sum").unwrap();
        let (from, to) = (last_sum(first, second), last_sum(second, lines.len()));
        let switches = lines[from..to].iter().filter(|line| line.event == "switch").count() as i64;
        // The other vCPU may have counted one that it has not begun.
        assert!((switches - (after - before)).abs() < i64::from(smp), "{what}: {switches}, {before} to {after}");
        assert!(smp > 1 || switches >= 1000, "{what}: {switches}");
        // Every one returns what went, before the next one on its vCPU.
        let switched = of(&lines, "switched");
        let entered = of(&lines, "switch");
        for cpu in 0..smp {
            let went = |line: &&&common::TraceLine<'_>| line.cpu == cpu;
            let entered: Vec<&str> = entered.iter().filter(went).map(|line| value(line, "prev")).collect();
            let returned: Vec<&str> = switched.iter().filter(went).map(|line| value(line, "prev")).collect();
            assert_eq!(entered, returned, "{what}: vCPU {cpu}");
        }
    }
}

/// Where a kprobe of the kernel's own would emulate: every call, jump and return of a function.
#[test]
fn x5_nothing_is_said_at_emulated_instructions() {
    for kernel in [GuestKernel::X86_64Cloud6_12, GuestKernel::X86_64Cloud7] {
        let image = image(kernel);
        let mut boot = Boot::new(Qemu::V11_1, kernel)
            .append("loglevel=7")
            .script(["openclose 100 /init", "cat /proc/sys/kernel/tainted"]);
        let insns = instructions(&image, "do_sys_openat2");
        let emulated: Vec<u64> =
            insns.iter().filter(|(_, insn)| insn.flow != Flow::Next).map(|(offset, _)| *offset).collect();
        assert!(emulated.len() > 10 && insns.iter().any(|(_, insn)| !falls_through(insn.flow)), "{emulated:?}");
        for offset in &emulated {
            boot = boot.plugin_arg(format!("count=p:at_{offset} do_sys_openat2+{offset}"));
        }
        let boot = boot.run_ok();
        let hit = boot.summary().probes.iter().filter(|probe| probe.hits >= 100).count();
        assert!(hit >= 5, "{}: {}", kernel.name(), boot.stderr);
        let warning = boot.console.lines().find(|line| line.contains("WARNING") || line.contains("thunk"));
        assert_eq!((warning, boot.file("/proc/sys/kernel/tainted")), (None, "0\n"), "{}", kernel.name());
    }
}
