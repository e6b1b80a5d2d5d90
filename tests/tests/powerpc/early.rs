//! Code without translation: before the kernel turns it on, and at the vectors.

use qkprobe_tests::{BootResult, GuestKernel, Qemu};

use crate::boot;
use crate::common::{assert_hits, trace_lines};

/// MSR[IR] and MSR[DR].
const TRANSLATION: u64 = 0x30;

/// Counts and records each of these places, with MSR.
fn run(qemu: Qemu, kernel: GuestKernel, smp: u32, places: &[&str]) -> BootResult {
    let mut boot = boot(qemu, kernel, smp).script(["getppid 1000", "fork 10"]);
    for place in places {
        boot = boot
            .plugin_arg(format!("count=p:{place} {place}"))
            .plugin_arg(format!("probe=p:{place}_trace {place} msr=%msr nip=%nip"));
    }
    let boot = boot.run_ok();
    for place in places {
        let hits = |name: &str| boot.summary().probe(name).hits;
        assert_eq!(hits(place), hits(&format!("{place}_trace")), "{place}: {}", boot.stderr);
    }
    boot
}

/// MSR at each record of a place, in order.
#[track_caller]
fn states(boot: &BootResult, place: &str) -> Vec<u64> {
    let event = format!("{place}_trace");
    let lines = trace_lines(&boot.trace);
    let lines = lines.iter().filter(|line| line.event == event);
    let state = |args: &str| {
        let (digits, _) = args.strip_prefix(" msr=0x")?.split_once(" nip=")?;
        u64::from_str_radix(digits, 16).ok()
    };
    lines.map(|line| state(line.args).unwrap_or_else(|| panic!("{line:?}"))).collect()
}

#[track_caller]
fn assert_translation(boot: &BootResult, places: &[&str], expected: u64) {
    for place in places {
        let states = states(boot, place);
        assert!(!states.is_empty(), "{place}");
        assert!(states.iter().all(|msr| msr & TRANSLATION == expected), "{place}: {states:x?}");
    }
}

#[test]
fn from_the_firmware_to_the_kernel() {
    // In this order, and without translation: the firmware starts the kernel, which asks it for everything and starts itself.
    let real = ["__boot_from_prom", "prom_init", "__after_prom_start", "early_setup"];
    let others = ["generic_secondary_smp_init", "__secondary_start"];
    let vectors = ["exc_virt_0x4300_data_access", "data_access_common_virt"];
    let ticks = ["exc_virt_0x4900_decrementer", "decrementer_common_virt"];
    let calls = ["system_call_common", "system_call_vectored_common", "system_call_exception"];
    let mut places = vec!["__start", "start_kernel", "start_secondary", "sys_getppid"];
    for more in [&real[..], &others, &vectors, &ticks, &calls] {
        places.extend_from_slice(more);
    }
    for qemu in Qemu::selected() {
        for kernel in [GuestKernel::Ppc64le6_1, GuestKernel::Ppc64Pseries6_1] {
            let boot = run(qemu, kernel, 2, &places);
            let what = format!("{qemu}, {}", kernel.name());
            assert_hits(&boot, &what, &real.map(|place| (place, 1)));
            assert_hits(&boot, &what, &others.map(|place| (place, 1)));
            assert_hits(&boot, &what, &[("__start", 2), ("start_kernel", 1), ("start_secondary", 1)]);
            assert_hits(&boot, &what, &[("sys_getppid", 1000)]);
            assert_translation(&boot, &real, 0);
            assert_translation(&boot, &["__start", "generic_secondary_smp_init"], 0);
            assert_translation(&boot, &["start_kernel", "start_secondary", "sys_getppid"], TRANSLATION);
            let order: Vec<&str> = trace_lines(&boot.trace)
                .iter()
                .filter_map(|line| line.event.strip_suffix("_trace"))
                .filter(|place| *place == "start_kernel" || real.contains(place))
                .collect();
            assert_eq!(order, [&real[..], &["start_kernel"]].concat(), "{what}");
            let hits = |place: &str| boot.summary().probe(place).hits;
            // Each system call comes by one of two ways: sc, or scv.
            let [sc, scv, all] = calls.map(hits);
            assert!(sc + scv == all && all > 1040, "{what}: {sc} + {scv} = {all}");
            for [vector, common] in [vectors, ticks] {
                assert_eq!(hits(vector), hits(common), "{what}: {vector}");
                assert!(hits(vector) > 10, "{what}: {vector}");
                assert_translation(&boot, &[vector, common], TRANSLATION);
            }
        }
    }
}

/// On 32 bits the vectors run without translation at all times.
#[test]
fn vectors_of_a_32_bit_kernel() {
    let once = ["_start", "early_init", "initial_bats", "machine_init", "turn_on_mmu", "start_here", "start_kernel"];
    let real = ["SystemCall", "DataAccess", "InstructionAccess", "Decrementer", "HardwareInterrupt", "hash_page"];
    let translated =
        ["DataAccess_virt", "transfer_to_syscall", "system_call_exception", "sys_getppid", "timer_interrupt"];
    let places = [&once[..], &real, &translated, &["__start"]].concat();
    for qemu in Qemu::selected() {
        let boot = run(qemu, GuestKernel::Ppc32Pmac6_1, 1, &places);
        let what = qemu.version();
        assert_hits(&boot, what, &once.map(|place| (place, 1)));
        assert_hits(&boot, what, &[("__start", 2), ("sys_getppid", 1000)]);
        // OpenBIOS translates one to one; the kernel turns that off, and its own on.
        assert_eq!(states(&boot, "_start")[0] & TRANSLATION, TRANSLATION, "{what}");
        assert_translation(&boot, &real, 0);
        assert_translation(&boot, &translated, TRANSLATION);
        assert_translation(&boot, &["turn_on_mmu"], 0);
        assert_translation(&boot, &["start_kernel"], TRANSLATION);
        let hits = |place: &str| boot.summary().probe(place).hits;
        let calls = ["SystemCall", "transfer_to_syscall", "system_call_exception"].map(hits);
        assert!(calls[0] > 1040 && calls == [calls[0]; 3], "{what}: {calls:?}");
        assert_eq!(hits("Decrementer"), hits("timer_interrupt"), "{what}");
        assert!(hits("DataAccess") >= hits("DataAccess_virt") && hits("DataAccess_virt") > 20, "{what}");
        for place in real {
            assert!(hits(place) > 20, "{what}: {place}");
        }
    }
}
