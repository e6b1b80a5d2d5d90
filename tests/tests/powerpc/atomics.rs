//! What the kernel's own kprobes break on powerpc: the soft mask of interrupts, which a breakpoint changes, and
//! reservations, which a breakpoint loses.

use qkprobe_symbols::KernelImage;
use qkprobe_tests::{BootResult, GuestKernel, Qemu};

use crate::common::{assert_hits, field, image, trace_lines};
use crate::{KERNELS, boot, entry, words};

/// `irqs_disabled()` in a warning: `lbz rN,MASK(r13); clrldi rN,rN,63; tdnei rN,0`, in registers r9 and above. The offset of
/// the load.
#[track_caller]
fn soft_mask_load(image: &KernelImage, function: &str) -> u64 {
    let code = words(image, function);
    let found = code.windows(3).find(|code| {
        let [load, clear, trap] = [code[0].1, code[1].1, code[2].1];
        load & 0xfc1f_0000 == 0x880d_0000 && clear & 0xfc00_ffff == 0x7800_07e0 && trap & 0xffe0_ffff == 0x0b00_0000
    });
    found.unwrap_or_else(|| panic!("{function} loads no soft mask"))[0].0
}

/// With a kprobe of the kernel's own there, each exit warns (`WARN_ON(irqs_disabled())`).
#[test]
fn p1_the_soft_mask_is_the_interrupted_codes() {
    for kernel in [GuestKernel::Ppc64le6_1, GuestKernel::Ppc64Pseries6_1] {
        let image = image(kernel);
        let load = soft_mask_load(&image, "do_exit");
        let boot: BootResult = boot(Qemu::V11_1, kernel, 2)
            // Warnings are to be seen.
            .append("loglevel=7")
            .script(["fork 6", "cat /proc/sys/kernel/tainted"])
            .plugin_arg(format!("probe=p:load do_exit+{load} r9=%r9 r13=%r13 sp=$stack"))
            .plugin_arg(format!("probe=p:loaded do_exit+{load} mask=%r9 do post"))
            .plugin_arg(format!("probe=p:masked do_exit+{} mask=%r9", load + 8))
            .plugin_arg("count=p:entered do_exit")
            .plugin_arg("count=p:exits sys_exit_group")
            .run_ok();
        let what = kernel.name();
        assert_hits(&boot, what, &[("exits", 6)]);
        let all = boot.summary().probe("entered").hits;
        assert!(all >= 6, "{what}: {all}");
        assert_hits(&boot, what, &[("load", all), ("loaded", all), ("masked", all)]);
        let lines = trace_lines(&boot.trace);
        let enabled = lines.iter().filter(|line| line.event != "load" && line.args == " mask=0x0").count();
        assert_eq!(enabled as u64, 2 * all, "{what}: {}", boot.trace);
        assert!(!boot.console.contains("cut here") && !boot.console.contains("do_exit"), "{}", boot.console);
        assert_eq!(boot.file("/proc/sys/kernel/tainted"), "0\n", "{what}");
    }
}

/// One loop from `l?arx` to the branch back behind `st?cx.`: the offsets of both and of that branch.
#[derive(Clone, Copy, Debug)]
struct Reservation {
    load: u64,
    store: u64,
    back: u64,
}

/// The first one of a function (Power ISA 3.1, Book II, 4.6.2: opcode 31, extended 20 and 150, or 84 and 214).
#[track_caller]
fn reservation(image: &KernelImage, function: &str) -> Reservation {
    let code = words(image, function);
    let is = |word: u32, extended: [u32; 2]| word >> 26 == 31 && extended.contains(&(word >> 1 & 0x3ff));
    let load = code.iter().find(|(_, word)| is(*word, [20, 84])).expect("a load with reservation").0;
    let store = code.iter().find(|(at, word)| *at > load && is(*word, [150, 214])).expect("its store").0;
    // bne to the load.
    let back = store + 4;
    let branch = code.iter().find(|(at, _)| *at == back).unwrap().1;
    assert_eq!((branch >> 26, back - load), (16, u64::from(0x1_0000 - (branch & 0xfffc))), "{function}: {branch:08x}");
    Reservation { load, store, back }
}

/// Each instruction of `_raw_spin_lock`, those between load and store with reading of registers; and of the loop that sets a
/// task's flag at the end of time().
#[track_caller]
fn check_reservations(qemu: Qemu, kernel: GuestKernel, smp: u32) {
    let image = image(kernel);
    let time = if kernel == GuestKernel::Ppc32Pmac6_1 { "sys_time32" } else { "sys_time" };
    let mut boot = boot(qemu, kernel, smp).plugin_arg("out=/dev/null").script([
        "background procs 2 pipe 100",
        "threads 2 openclose 300 /init",
        "procs 2 time 50 touched",
        "wait",
        "fork 10",
    ]);
    let mut expected = Vec::new();
    for (function, short) in [("_raw_spin_lock", "lock"), (time, "time")] {
        let (start, _) = crate::common::symbol(&image, function);
        let skip = entry(&image, function) - start;
        let Reservation { load, store, back } = reservation(&image, function);
        for (offset, _) in words(&image, function).into_iter().filter(|(offset, _)| *offset >= skip) {
            let inside = (load..=back).contains(&offset);
            let reads = if inside { "probe" } else { "count" };
            let registers = if inside { " r9=%r9 r10=%r10 cr=%ccr" } else { "" };
            boot = boot.plugin_arg(format!("{reads}=p:{short}_{offset} {function}+{offset}{registers}"));
        }
        expected.push((short, skip, load, store, back));
    }
    let boot = boot.plugin_arg("count=p:locks _raw_spin_lock").plugin_arg(format!("count=p:times {time}")).run_ok();
    let what = format!("{qemu}, {}, {smp} vCPUs\n{}", kernel.name(), boot.stderr);
    let hits = |short: &str, offset: u64| boot.summary().probe(&format!("{short}_{offset}")).hits;
    for (short, skip, load, store, back) in expected {
        let all = boot.summary().probe(if short == "lock" { "locks" } else { "times" }).hits;
        assert!(all >= if short == "lock" { 5_000 } else { 100 }, "{short}: {all}, {what}");
        assert_eq!(hits(short, skip), all, "{what}");
        assert_eq!(hits(short, store), hits(short, back), "{what}");
        // A store that failed is tried again from the load: so many more loads than entries.
        let again = hits(short, back) - hits(short, back + 4);
        assert_eq!(hits(short, load), hits(short, load - 4) + again, "{short}, {what}");
        assert!(again <= all / 100, "{short}: {again} stores of {all} failed, {what}");
        if short == "lock" {
            assert_eq!(hits(short, load - 4), all, "{what}");
            // isync, and behind it those that found the lock taken.
            assert_eq!(hits(short, back + 8), all, "{what}");
        }
    }
    for probe in &boot.summary().probes {
        assert_eq!((probe.missed, field(&boot, &probe.name, "dropped")), (0, 0), "{what}: {probe:?}");
    }
}

#[test]
fn p2_reservations_hold() {
    for (kernel, smp) in KERNELS {
        check_reservations(Qemu::V11_1, kernel, smp);
    }
    check_reservations(Qemu::V10_0, GuestKernel::Ppc64le6_1, 2);
}
