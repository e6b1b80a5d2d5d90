//! The library in ordinary tests: boot a guest, add probes, wait for events, assert.

mod common;

use std::time::Duration;

use common::PATIENCE;
use qkprobe_harness::guest::End;
use qkprobe_harness::{Boot, Error};
use qkprobe_tests::{Cache, Gate, GuestArch, GuestKernel, Qemu, gate, gate_device, plugin_path};

fn boot(script: &str) -> Boot {
    let cache = Cache::open().unwrap();
    Boot::new(cache.kernel(GuestKernel::X86_64Cloud6_1).unwrap())
        .qemu(cache.qemu(Qemu::V11_1, "qemu-system-x86_64").unwrap())
        .plugin(plugin_path().unwrap())
        .initrd(cache.initramfs(GuestArch::X86_64).unwrap())
        .file("/qk.script", script)
        .append("quiet")
        .cpus(2)
}

#[test]
fn events_console_counts_and_the_end() {
    let mut guest = boot(&format!("openclose 2 /one\nsay between\n{}\nfork 3\n", gate("added")))
        .in_own_folder()
        .second_serial(gate_device(false))
        .probe("p:open do_sys_openat2 file=+0($arg2):ustring")
        .start()
        .unwrap();
    let one = guest.event(PATIENCE, |event| event.text("file").as_deref() == Some("/one")).unwrap();
    assert_eq!((one.event.as_str(), one.place.as_str()), ("open", "do_sys_openat2+0x0/0x170"));
    guest.wait_for_console("ok say between", PATIENCE).unwrap();
    guest.add("r:fork kernel_clone pid=$retval:s32").unwrap();
    let opened = || guest.console().contains("ok until");
    assert!(Gate::within(guest.folder(), || None).open_until("added", opened), "{}", guest.console());
    let fork = guest.event(PATIENCE, |event| event.event == "fork").unwrap();
    assert!(fork.number("pid").unwrap() > 1, "{fork}");
    let refused = guest.add("p:x nowhere").unwrap_err();
    assert!(matches!(&refused, Error::Refused { code, .. } if code == "ENOENT" || code == "EINVAL"), "{refused}");
    assert_eq!(guest.wait_for_end(PATIENCE).unwrap(), End::PowerOff);
    let summary = guest.summary().unwrap();
    let hits = |name: &str| summary.probes.iter().find(|probe| probe.name == name).unwrap().hits;
    assert_eq!(hits("fork"), 3);
    assert!(hits("open") >= 2);
}

#[test]
fn what_does_not_come_is_told_and_nothing_is_left() {
    let mut guest = boot("say here\nsleep 1000000\n").start().unwrap();
    guest.wait_for_console("ok say here", PATIENCE).unwrap();
    let error = guest.event(Duration::from_millis(300), |_| true).unwrap_err().to_string();
    assert!(error.starts_with("the event did not come within 0.3 s") && error.contains("QK 1 ok say here"), "{error}");
    let (pid, folder) = (guest.pid(), guest.folder().to_owned());
    assert!(folder.join("control.sock").exists());
    drop(guest);
    assert!(!folder.exists() && !std::path::Path::new(&format!("/proc/{pid}")).exists());

    let mut guest = boot("").start().unwrap();
    let error = guest.wait_for_console("never", PATIENCE).unwrap_err().to_string();
    assert!(error.starts_with("the guest ended (power-off) before \"never\" on the console"), "{error}");
    let error = boot("").probe("p:x vfs_raed").start().unwrap_err().to_string();
    assert!(error.contains("Invalid probed address or symbol") && error.contains("did you mean"), "{error}");
}

/// A static program as init, in an initramfs made for the boot.
#[test]
fn an_init_program() {
    let cache = Cache::open().unwrap();
    let init = cache.root().join("init/x86_64/init");
    let mut guest = Boot::new(cache.kernel(GuestKernel::X86_64Cloud6_1).unwrap())
        .qemu("11.1")
        .plugin(plugin_path().unwrap())
        .init(init)
        .file("/qk.script", "cat /some/where/file\n")
        .file("/some/where/file", "found it\n")
        .append("quiet")
        .start()
        .unwrap();
    guest.wait_for_console("found it", PATIENCE).unwrap();
    assert_eq!(guest.wait_for_end(PATIENCE).unwrap(), End::PowerOff);
}

/// With nothing but what was asked for: the machine runs at once, and the trace is a file in the kernel's format.
#[test]
fn a_qemu_that_runs_by_itself() {
    let run = boot("openclose 2 /one\n").probe("p:open do_sys_openat2 file=+0($arg2):ustring if file == \"/one\"");
    let run = run.launch().unwrap();
    run.wait_for_console("QK 1 ok openclose", PATIENCE).unwrap();
    assert!(!run.folder().join("qmp.sock").exists() && !run.folder().join("control.sock").exists());
    let left = run.finish(PATIENCE).unwrap();
    assert!(left.status.success(), "{}", left.stderr);
    assert_eq!(left.summary().unwrap().probe("open").hits, 2);
    let trace = std::fs::read_to_string(left.folder.path().join("trace")).unwrap();
    assert_eq!(trace.matches(": open: (do_sys_openat2+0x0/0x170) file=\"/one\"").count(), 2, "{trace}");
}
