//! What every guest architecture owes, whatever its byte order, word size and registers, beside what its own test program shows.

use qkprobe_tests::{Boot, Guest, GuestArch, GuestKernel, Qemu};

fn boot(arch: GuestArch, qemu: Qemu) -> Boot {
    Boot::new(qemu, GuestKernel::of(arch)).plugin()
}

/// The function behind a system call.
fn syscall(arch: GuestArch, name: &str) -> String {
    match arch {
        GuestArch::I386 => format!("__ia32_sys_{name}"),
        _ => format!("sys_{name}"),
    }
}

/// A probe that is switched on and off in a running guest sees every call while it is on, and none while it is off.
fn switched_on_and_off_at_run_time(arch: GuestArch) {
    const CALLS: u64 = 20_000;
    let getppid = syscall(arch, "getppid");
    let boot = boot(arch, Qemu::V11_1)
        .plugin_arg(format!("probe=p:bench/ppid {getppid} a=$arg1"))
        .plugin_arg(format!("count=p:other/e {}", syscall(arch, "reboot")));
    let mut guest = Guest::start(boot, std::iter::repeat_n(format!("getppid {CALLS}"), 6));
    let mut expected = guest.client.hits("ppid");
    for _ in 0..3 {
        for (switch, calls) in [("enable", CALLS), ("disable", 0)] {
            assert_eq!(guest.client.switch(switch, "bench/"), 1, "{arch:?}: {switch}");
            guest.step();
            expected += calls;
            assert_eq!(guest.client.hits("ppid"), expected, "{arch:?}: after {switch}");
        }
    }
    let result = guest.finish();
    // The last step was without it, and the power goes off by the other probe's system call.
    let summary = result.summary();
    assert_eq!((summary.probe("ppid").hits, summary.probe("e").hits), (expected, 1), "{arch:?}: {}", result.stderr);
}

#[test]
fn an_i386_probe_is_switched_on_and_off_at_run_time() {
    switched_on_and_off_at_run_time(GuestArch::I386);
}

#[test]
fn a_ppc64le_probe_is_switched_on_and_off_at_run_time() {
    switched_on_and_off_at_run_time(GuestArch::Ppc64le);
}

#[test]
fn a_ppc64_probe_is_switched_on_and_off_at_run_time() {
    switched_on_and_off_at_run_time(GuestArch::Ppc64);
}

#[test]
fn a_ppc32_probe_is_switched_on_and_off_at_run_time() {
    switched_on_and_off_at_run_time(GuestArch::Ppc32);
}

#[test]
fn a_sparc64_probe_is_switched_on_and_off_at_run_time() {
    switched_on_and_off_at_run_time(GuestArch::Sparc64);
}
