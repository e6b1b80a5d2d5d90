//! Every execution is counted once, and arguments, strings and results are what they are.

use qkprobe_tests::{Boot, BootResult, GuestKernel, Qemu};

use crate::common::{assert_hits, field, image, json, trace_lines};
use crate::{BLR, KERNELS, boot, entry, is_64, words};

/// What fork() and pthread_create() of the C library ask for; kernel threads ask for other things.
const FORK_FLAGS: &str = "flags==0x1200000";
const THREAD_FLAGS: &str = "flags==0x3d0f00";

/// Probes of several kinds on getppid, and some on what else the script does.
fn with_probes(mut boot: Boot, kernel: GuestKernel) -> Boot {
    // The system call's number is in r0, the first of `pt_regs`, which is the argument.
    let number = if is_64(kernel) { "nr=+0($arg1):u64" } else { "nr=+0($arg1):u32" };
    for arg in [
        "out=/dev/null",
        "count=p:inline sys_getppid",
        "count=p:inline_too sys_getppid",
        "probe=p:event sys_getppid",
        &format!("count=p:filtered sys_getppid {number} if nr == 64"),
        &format!("count=p:never sys_getppid {number} if nr != 64"),
        "count=p:opens do_sys_openat2",
        "count=p:none do_sys_openat2 file=+0($arg2):ustring if file == \"/etc/none\"",
        "count=p:init do_sys_openat2 file=+0($arg2):ustring if file == \"/init\"",
        "count=r:not_there do_sys_openat2 ret=$retval:s32 if ret == -2",
        &format!("count=p:forks kernel_clone flags=+0($arg1):x64 if {FORK_FLAGS}"),
        &format!("count=p:threads kernel_clone flags=+0($arg1):x64 if {THREAD_FLAGS}"),
        "count=p:execs sys_execve",
    ] {
        boot = boot.plugin_arg(arg);
    }
    boot
}

/// Whether this QEMU can read what a program's pointer points to. Debian's kernel locks itself out of user memory by the
/// register AMR, and before QEMU 10.1 a plugin cannot write registers to open it.
fn reads_user_memory(qemu: Qemu, kernel: GuestKernel) -> bool {
    qemu == Qemu::V11_1 || kernel != GuestKernel::Ppc64le6_1
}

#[track_caller]
fn check(qemu: Qemu, kernel: GuestKernel, smp: u32, getppids: u64) {
    let calls = getppids / u64::from(smp);
    let mut boot = with_probes(boot(qemu, kernel, smp), kernel).script([
        // The last vCPU comes here first, and translates for all.
        format!("on {} getppid 100", smp - 1),
        format!("threads {smp} getppid {calls}"),
        "procs 3 getppid 100".to_owned(),
        "threads 2 openclose 1000 /etc/none".to_owned(),
        "openclose 500 /init".to_owned(),
        "fork 40".to_owned(),
        "exec 5".to_owned(),
    ]);
    // All of getppid is one line, with one call inside.
    let image = image(kernel);
    let (start, _) = crate::common::symbol(&image, "sys_getppid");
    let skip = entry(&image, "sys_getppid") - start;
    let code = words(&image, "sys_getppid");
    // What follows the return is padding.
    let last = code.iter().rposition(|(_, word)| *word == BLR).unwrap();
    let inside: Vec<u64> = code[..=last].iter().map(|(offset, _)| *offset).filter(|at| *at >= skip).collect();
    assert!((14..=15).contains(&inside.len()), "{inside:?}");
    for offset in &inside {
        boot = boot.plugin_arg(format!("count=p:at_{offset} sys_getppid+{offset}"));
    }
    let boot = boot.run_ok();
    let what = format!("{qemu}, {}, {smp} vCPUs", kernel.name());
    let all = getppids + 400;
    let inside: Vec<(String, u64)> = inside.iter().map(|offset| (format!("at_{offset}"), all)).collect();
    let inside: Vec<(&str, u64)> = inside.iter().map(|(name, hits)| (name.as_str(), *hits)).collect();
    assert_hits(&boot, &what, &inside);
    let expected = [("inline", all), ("inline_too", all), ("event", all), ("filtered", all), ("never", 0)];
    assert_hits(&boot, &what, &expected);
    assert_eq!((field(&boot, "never", "filtered"), json(&boot)["written"].as_u64()), (all, Some(all)), "{what}");
    // 40, one for each exec, and three processes of procs; two threads, and one for each vCPU.
    let threads = 2 + u64::from(smp);
    assert_hits(&boot, &what, &[("forks", 48), ("threads", threads), ("execs", 5), ("not_there", 2000)]);
    let (none, init) = if reads_user_memory(qemu, kernel) { (2000, 500) } else { (0, 0) };
    assert_hits(&boot, &what, &[("none", none), ("init", init)]);
    assert_eq!(field(&boot, "none", "filtered") + none, boot.summary().probe("opens").hits, "{what}");
    for probe in &boot.summary().probes {
        assert_eq!((probe.missed, probe.dropped), (0, 0), "{what}: {probe:?}");
    }
}

#[test]
fn every_execution_counts_once() {
    for qemu in Qemu::selected() {
        for (kernel, smp) in KERNELS {
            check(qemu, kernel, smp, 100_000);
        }
    }
    check(Qemu::V11_1, GuestKernel::Ppc64le6_1, 1, 100_000);
}

/// Strings of the kernel's own and of programs, numbers in the guest's byte order, results.
#[track_caller]
fn check_values(qemu: Qemu, kernel: GuestKernel) {
    let boot: BootResult = boot(qemu, kernel, 1)
        .script(["openclose 3 /etc/none", "openclose 2 /init", "sethost powerful", "cat /proc/version"])
        .plugin_arg("probe=p:open do_sys_openat2 dfd=$arg1:s32 file=+0($arg2):ustring flags=+0($arg3):x64")
        .plugin_arg("probe=r:opened do_sys_openat2 ret=$retval:s32 dfd=$arg1:s32 sp=$stack")
        .plugin_arg("probe=p:banner sys_sethostname banner=@linux_banner:string nip=%nip msr=%msr r1=%r1 sp=$stack")
        .plugin_arg("probe=r:named sys_sethostname ret=$retval:s32")
        .run_ok();
    let what = format!("{qemu}, {}", kernel.name());
    let lines = trace_lines(&boot.trace);
    let of = |event: &str| lines.iter().filter(|line| line.event == event).map(|line| line.args).collect::<Vec<_>>();
    // O_LARGEFILE, which a 64-bit kernel adds.
    let flags = if is_64(kernel) { 0x1_0000 } else { 0 };
    let line = |file: &str| format!(" dfd=-100 file={file} flags={flags:#x}");
    let opens = of("open");
    if reads_user_memory(qemu, kernel) {
        let (none, init) = (line("\"/etc/none\""), line("\"/init\""));
        let expected = [&none, &none, &none, &init, &init];
        assert_eq!(opens.windows(5).filter(|window| *window == expected).count(), 1, "{what}: {opens:#?}");
    } else {
        assert!(opens.len() >= 5 && opens.iter().all(|args| *args == line("(fault)")), "{what}: {opens:#?}");
    }
    let results: Vec<&str> = of("opened").iter().filter_map(|args| args.split(' ').nth(1)).collect();
    let missing = results.windows(3).filter(|window| *window == ["ret=-2"; 3]).count();
    assert_eq!(missing, 1, "{what}: {results:?}");

    let banners = of("banner");
    let version = boot.file("/proc/version").trim_end_matches('\n');
    assert!(version.starts_with("Linux version 6.1."), "{what}: {version}");
    let (banner, registers) = banners[0].split_once("\\n\" ").unwrap_or_else(|| panic!("{what}: {banners:?}"));
    assert_eq!(banner, format!(" banner=\"{version}"), "{what}");
    let registers: Vec<(&str, u64)> = registers
        .split(' ')
        .map(|word| word.split_once("=0x").unwrap())
        .map(|(name, digits)| (name, u64::from_str_radix(digits, 16).unwrap()))
        .collect();
    let [("nip", nip), ("msr", msr), ("r1", r1), ("sp", sp)] = registers[..] else { panic!("{what}: {registers:x?}") };
    assert_eq!(nip, entry(&image(kernel), "sys_sethostname"), "{what}");
    // Interrupts on, no user mode, both translations on; 64 bits and little endian where they should be.
    assert_eq!(msr & 0xc030, 0x8030, "{what}: {msr:#x}");
    assert_eq!((msr >> 63 == 1, msr & 1 == 1), (is_64(kernel), kernel == GuestKernel::Ppc64le6_1), "{what}: {msr:#x}");
    assert_eq!((r1, r1 >= 0xc000_0000), (sp, true), "{what}: {r1:#x}");
    assert_eq!(of("named"), [" ret=0"], "{what}");
}

#[test]
fn values_are_what_they_are() {
    for qemu in Qemu::selected() {
        for (kernel, _) in KERNELS {
            check_values(qemu, kernel);
        }
    }
}
