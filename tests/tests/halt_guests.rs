//! `stop` and `quit` on every guest: one boot holds its vCPU at a page fault and in the middle of counted system calls, is
//! looked at through the control socket and QEMU's gdbstub each time, goes on, and ends with the status that a probe says.
//! What else they can do is in `halt.rs`.

mod common;

use std::time::{Duration, Instant};

use common::gdb::Gdb;
use common::{PATIENCE, assert_hits, field, symbol, trace_lines, wait_for_stopping};
use qkprobe_tests::{Boot, ControlClient, GuestArch, GuestKernel, Qemu, Running};
use serde_json::{Value, json};

/// A vCPU that is held stays where it is; looked at after this time.
const WHILE: Duration = Duration::from_millis(300);

/// What differs between the guests.
struct Place {
    arch: GuestArch,
    /// The names of the system calls' functions begin so.
    syscall: &'static str,
    /// How far behind a function's symbol it is entered, and how long its first instruction is.
    skip: u64,
    first: u64,
    /// Where execution is behind getppid's first block: at the function that it calls first.
    callee: &'static str,
    tick: &'static str,
    /// The timer's interrupt enters the kernel here; as linked, or physically.
    timer: &'static [u64],
    /// The stack pointer as definitions name it.
    sp: &'static str,
    /// gdb's numbers of the program counter, of the stack pointer and of the second argument's register.
    numbers: [u32; 3],
}

const I386: Place = Place {
    arch: GuestArch::I386,
    syscall: "__ia32_sys_",
    skip: 0,
    // The call of __fentry__, which is a nop by now.
    first: 5,
    callee: "__rcu_read_lock",
    tick: "sysvec_apic_timer_interrupt",
    timer: &[],
    sp: "%sp",
    // eip, esp, edx.
    numbers: [8, 4, 2],
};
const PPC64LE: Place = Place {
    arch: GuestArch::Ppc64le,
    syscall: "sys_",
    // ELFv2 ABI, 3.6.4: two instructions set up r2 for callers from elsewhere.
    skip: 8,
    first: 4,
    callee: "__task_pid_nr_ns",
    tick: "timer_interrupt",
    // Power ISA 3.1, 7.5: the decrementer's vector, in real mode and in virtual mode.
    timer: &[0x900, 0xc000_0000_0000_4900],
    sp: "%r1",
    // nip, r1, r4.
    numbers: [64, 1, 4],
};
const PPC64: Place = Place { arch: GuestArch::Ppc64, skip: 0, ..PPC64LE };
const PPC32: Place = Place { arch: GuestArch::Ppc32, ..PPC64 };
const SPARC64: Place = Place {
    arch: GuestArch::Sparc64,
    sp: "%sp",
    // Trap 0x4e, interrupt level 14.
    timer: &[0x42_09c0],
    // pc, o6, o1.
    numbers: [80, 14, 9],
    ..PPC64
};

/// Waits until the one vCPU is held; returns by whom, where, and how often each of these probes has hit.
#[track_caller]
fn wait_for_held(control: &mut ControlClient, running: &mut Running, event: &str) -> u64 {
    let start = Instant::now();
    loop {
        let held = control.status()["held"].clone();
        if let Some(held) = held.as_array().unwrap().first() {
            assert_eq!(held["event"], event);
            return number(&held["address"]);
        }
        assert!(running.try_wait().unwrap().is_none() && start.elapsed() < PATIENCE, "{event}: {}", running.console());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A number as the control socket writes addresses.
#[track_caller]
fn number(text: &Value) -> u64 {
    u64::from_str_radix(text.as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap()
}

fn check(qemu: Qemu, place: &Place) {
    let kernel = GuestKernel::of(place.arch);
    let image = common::image(kernel);
    let entry = |name: &str| symbol(&image, name).0 + place.skip;
    let what = format!("{qemu}, {}", kernel.name());
    let (getppid, sethostname) = (format!("{}getppid", place.syscall), format!("{}sethostname", place.syscall));
    let exact = qemu == Qemu::V11_1;
    let mut running = Boot::new(qemu, kernel)
        .append("quiet")
        .script(["getppid 100", "procs 2 getppid 2000", "sethost bye", "say never"])
        .control()
        .plugin_arg("probe=p:fault handle_mm_fault addr=$arg2:x64 do stop nth=20")
        .plugin_arg(format!("count=p:older {getppid}"))
        // Interrupts are served while the vCPU is held, and have probes of their own.
        .plugin_arg(format!("probe=p:tick {} sp={}", place.tick, place.sp))
        .plugin_arg(format!("probe=p:stop {getppid} sp={}:x64 do stop nth=50", place.sp))
        .plugin_arg(format!("count=p:second {getppid}+{}", place.skip + place.first))
        .plugin_arg(format!("probe=p:quit {sethostname} do quit=42"))
        .extra_args(["-gdb", "unix:gdb.sock,server=on,wait=off"])
        .spawn()
        .unwrap();
    let mut control = ControlClient::connect(&running);
    let mut seen = Vec::new();
    for (event, function, hits, register) in
        [("fault", "handle_mm_fault", 20, place.numbers[2]), ("stop", getppid.as_str(), 50, place.numbers[1])]
    {
        let held_at = wait_for_held(&mut control, &mut running, event);
        let slide = number(&control.status()["slide"]);
        assert_eq!(held_at, entry(function) + slide, "{what}: {event}");
        std::thread::sleep(WHILE);
        assert_eq!(control.hits(event), hits, "{what}: {event}");
        let mut gdb = Gdb::connect(&running);
        if exact {
            // The machine stops at once.
            gdb.stop_at(place.arch, place.numbers[0], held_at, &what);
            seen.push(gdb.register(place.arch, register));
        } else {
            wait_for_stopping(&running);
        }
        assert_eq!(control.request(json!({"cmd": "continue"})), json!({"released": 1}), "{what}: {event}");
        assert_eq!(control.status()["held"], json!([]), "{what}: {event}");
        if event == "stop" {
            let pc = gdb.register(place.arch, place.numbers[0]);
            if exact {
                assert_eq!(control.hits("second"), 49, "{what}: the machine is stopped");
                assert!(gdb.ask("s").starts_with("T05"), "{what}");
                assert_eq!(gdb.register(place.arch, place.numbers[0]), held_at + place.first, "{what}");
            } else {
                // It could be stopped where the block ended.
                let callee = symbol(&image, place.callee).0 + slide;
                assert!(pc == callee || place.timer.contains(&pc), "{what}: {pc:#x}");
            }
            assert_eq!(["older", "stop"].map(|event| control.hits(event)), [50, 50], "{what}");
        }
        assert_eq!(gdb.ask("D"), "OK", "{what}: {event}");
    }
    let result = running.finish().unwrap();
    assert_eq!(result.status.code(), Some(42), "{what}\n{}\n{}", result.stderr, result.console);
    assert_hits(&result, &what, &[("older", 4100), ("stop", 4100), ("second", 4100), ("quit", 1)]);
    for event in ["fault", "stop", "quit"] {
        assert_eq!(field(&result, event, "effects"), 1, "{what}: {event}");
        assert_eq!(field(&result, event, "dropped"), 0, "{what}: {event}");
    }
    assert!(!result.console.contains("never"), "{what}: the guest went on");
    let lines = trace_lines(&result.trace);
    let of = |event: &str| lines.iter().filter(|line| line.event == event).map(|line| line.args).collect::<Vec<_>>();
    let (faults, stops) = (of("fault"), of("stop"));
    assert_eq!((stops.len(), of("quit").len()), (4100, 1), "{what}");
    assert_eq!(faults.len() as u64, result.summary().probe("fault").hits, "{what}");
    let end = format!("# end: {} records written, 0 lost\n", lines.len());
    assert!(result.trace.ends_with(&end), "{what}: {:?}", result.trace.lines().last());
    if exact {
        // The registers that gdb saw are those of the records.
        assert_eq!(
            (faults[19], stops[49]),
            (&*format!(" addr={:#x}", seen[0]), &*format!(" sp={:#x}", seen[1])),
            "{what}"
        );
        assert!(faults.iter().any(|fault| *fault != faults[19]), "{what}");
    }
}

/// Before QEMU 10.1 there are no registers of a SPARC, so nothing tells the kernel from a program at the same address.
fn check_refused() {
    for option in ["stop", "quit=42"] {
        let definition = format!("probe=p:x sys_getppid do {option}");
        let result = Boot::new(Qemu::V10_0, GuestKernel::of(GuestArch::Sparc64)).plugin_arg(definition).run();
        assert!(!result.status.success(), "{option}");
        let says = "QEMU 10.0.2 shows neither registers nor memory of a sparc64 guest: that came with QEMU 10.1";
        assert!(result.stderr.contains(says), "{option}: {}", result.stderr);
    }
}

fn check_all(place: &Place) {
    for qemu in Qemu::selected() {
        if place.arch == GuestArch::Sparc64 && qemu == Qemu::V10_0 {
            check_refused();
            continue;
        }
        check(qemu, place);
    }
}

#[test]
fn i386_is_held_and_ended() {
    check_all(&I386);
}

#[test]
fn ppc64le_is_held_and_ended() {
    check_all(&PPC64LE);
}

#[test]
fn ppc64_is_held_and_ended() {
    check_all(&PPC64);
}

#[test]
fn ppc32_is_held_and_ended() {
    check_all(&PPC32);
}

#[test]
fn sparc64_is_held_and_ended() {
    check_all(&SPARC64);
}
