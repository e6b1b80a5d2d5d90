//! The command on every architecture but x86_64, which the other tests are about: what it boots is what the image says.

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use common::{Place, assert_harmless, workspace};
use qkprobe_tests::GuestArch;
use serde_json::Value;

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect()
}

/// Two guests at once are enough: one whose firmware is slow must not be taken for one that hangs.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The files in `machines/`, and what becomes of each; the oops is told with the function that dies.
fn ends_badly(arch: GuestArch, name: &str, die: &str, in_clock: &[&str], in_user: &[&str]) {
    let _turn = turn();
    let place = Place::of(arch);
    place.initrd("");
    let folder = format!("{}/tests/machines", env!("CARGO_MANIFEST_DIR"));
    let done =
        place.run(&["test", "-k", "vmlinuz", "-i", "initrd.img", "-j", "2", "--json", "r.json", &folder]).code(1);
    place.assert_clean();
    assert_harmless(&done.stdout);
    assert!(done.stdout.ends_with("# 1 panic, 1 oops, 2 hang\n"), "{}", done.stdout);
    let report: Value = serde_json::from_slice(&std::fs::read(place.path("r.json")).unwrap()).unwrap();
    let tests = report["tests"].as_array().unwrap();
    let [panic, oops, clock, user] = tests.as_slice() else { panic!("{tests:?}") };
    assert!(tests.iter().all(|test| test["arch"] == name), "{tests:?}");

    assert_eq!(panic["verdict"], "panic", "{panic}");
    assert!(panic["reason"].as_str().unwrap().ends_with(" s: sysrq triggered crash"), "{panic}");
    let console = strings(&panic["console"]);
    let said = |text: &str| console.iter().filter(|line| line.contains(text)).count();
    assert_eq!((said("QK 1 ok say before"), said("] Kernel panic - not syncing: sysrq triggered crash")), (1, 1));

    assert_eq!(oops["verdict"], "oops", "{oops}");
    assert!(oops["reason"].as_str().unwrap().contains(&format!(" s ({die}+0x")), "{oops}");

    // One vCPU, and where it is: in the kernel by name, in a program by address.
    assert_eq!((&clock["verdict"], &user["verdict"]), (&"hang".into(), &"hang".into()), "{clock} {user}");
    for (test, wanted) in [(clock, in_clock), (user, in_user)] {
        let vcpus = strings(&test["vcpus"]);
        let [vcpu] = vcpus.as_slice() else { panic!("{vcpus:?}") };
        assert!(vcpu.starts_with("vCPU 0: ") && wanted.iter().any(|text| vcpu.contains(text)), "{vcpu}");
    }
    assert!(strings(&clock["console"]).iter().any(|line| line.contains("QK 1 ok say before")), "{clock}");
}

#[test]
fn ppc64le_ends_badly() {
    // A soft-disabled interrupt is none that the machine refuses: that they are off is not told here.
    let user = ["(user code)", "decrementer"];
    ends_badly(GuestArch::Ppc64le, "ppc64le", "die", &["ktime_get"], &user);
}

#[test]
fn sparc64_ends_badly() {
    let clock = ["ktime_get_update_offsets_now", "ktime_get"];
    // A tick that is about to be handled stands before the next instruction of the program.
    ends_badly(GuestArch::Sparc64, "sparc64", "die_if_kernel", &clock, &["(user code)", "tl0_irq14"]);
}

/// A string of a program and a return value by the same definitions, and the test that every kernel passes.
fn sees_the_same(arch: GuestArch) {
    let place = Place::of(arch);
    place.initrd("openclose 3 /etc/none\n");
    let probes = [
        "p:open do_sys_openat2 file=+0($arg2):ustring if file == \"/etc/none\"",
        "r:opened do_sys_openat2 file=+0($arg2):ustring fd=$retval:s32 if file == \"/etc/none\"",
    ];
    let args = ["run", "-k", "vmlinuz", "-i", "initrd.img", "--append", "quiet", "--format", "json"];
    let done = place.run(&[&args[..], &["--summary", "summary"], &probes].concat()).code(0);
    let events: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let args = |event: &str| -> Vec<&Value> {
        events.iter().filter(|line| line["event"] == event).map(|line| &line["args"]).collect()
    };
    let (open, opened) = (args("open"), args("opened"));
    assert_eq!((open.len(), opened.len()), (3, 3), "{arch:?}: {}", done.stdout);
    assert!(open.iter().chain(&opened).all(|args| args["file"] == "/etc/none"), "{arch:?}: {open:?}");
    assert!(opened.iter().all(|args| args["fd"] == -2), "{arch:?}: {opened:?}");
    assert!(done.stderr.contains("guest | QK 1 ok openclose n=3 ok=0 err=3 "), "{arch:?}: {}", done.stderr);
    let summary: Value = serde_json::from_slice(&std::fs::read(place.path("summary")).unwrap()).unwrap();
    for probe in summary["probes"].as_array().unwrap() {
        assert_eq!((&probe["missed"], &probe["dropped"]), (&0.into(), &0.into()), "{arch:?}: {probe}");
    }

    let file = workspace().join("configs/tests/boot.toml").display().to_string();
    let done = place.run(&["test", "-k", "vmlinuz", "-i", "initrd.img", &file]).code(0);
    assert!(done.stdout.contains("\nok 1 the kernel boots # "), "{arch:?}: {}", done.stdout);
    place.assert_clean();
}

#[test]
fn the_same_probes_everywhere() {
    let _turn = turn();
    let boot = |archs: &[GuestArch]| archs.iter().for_each(|arch| sees_the_same(*arch));
    thread::scope(|scope| {
        scope.spawn(|| boot(&[GuestArch::I386, GuestArch::Ppc64, GuestArch::Ppc64le]));
        scope.spawn(|| boot(&[GuestArch::Ppc32, GuestArch::Sparc64]));
    });
}
