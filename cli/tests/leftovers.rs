//! However a run ends, no process, no socket and no file is left.

mod common;

use std::process::Stdio;
use std::time::Duration;

use common::{Place, signal, wait, wait_until};
use serde_json::Value;

const TESTS: usize = 20;

/// Twenty tests of a guest that powers off at once, or of one that never would.
fn twenty(place: &Place, script: &str) {
    place.initrd(script);
    for number in 0..TESTS {
        let name = format!("tests/{number:02}.toml");
        place.write(&name, "[guest]\nappend = 'quiet'\n[[probe]]\ndef = 'p:open do_sys_openat2'\n");
    }
}

const ARGS: [&str; 9] = ["test", "-k", "vmlinuz", "-i", "initrd.img", "-j", "2", "--json", "r.json"];

fn totals(place: &Place) -> Value {
    let report: Value = serde_json::from_slice(&std::fs::read(place.path("r.json")).unwrap()).unwrap();
    report["totals"].clone()
}

#[test]
fn twenty_tests_two_at_a_time() {
    let place = Place::new();
    twenty(&place, "openclose 1 /init\n");
    place.run(&[&ARGS[..], &["tests"]].concat()).code(0);
    assert_eq!(totals(&place), serde_json::json!({ "pass": 20 }));
    place.assert_clean();
}

#[test]
fn interrupted_by_ctrl_c_and_by_sigterm() {
    for (name, status) in [("INT", 130), ("TERM", 143)] {
        let place = Place::new();
        twenty(&place, "sleep 1000000\n");
        let mut child = place.qkprobe(&[&ARGS[..], &["tests"]].concat()).stdout(Stdio::null()).spawn().unwrap();
        wait_until("two guests", || place.qemus().len() == 2);
        // Not in the middle of their start only.
        std::thread::sleep(Duration::from_millis(if name == "INT" { 50 } else { 2500 }));
        signal(child.id(), name);
        assert_eq!(wait(&mut child).code(), Some(status), "{name}");
        assert_eq!(totals(&place), serde_json::json!({ "interrupted": 20 }), "{name}");
        place.assert_clean();
    }
}

#[test]
fn a_guest_that_is_killed_and_a_command_that_is_killed() {
    let place = Place::new();
    place.initrd("sleep 1000000\n");
    place.write("one.toml", "[guest]\nappend = 'quiet'\n[[probe]]\ndef = 'p:open do_sys_openat2'\n");
    let args = ["test", "-k", "vmlinuz", "-i", "initrd.img", "--json", "r.json", "one.toml"];
    let mut child = place.qkprobe(&args).stdout(Stdio::null()).spawn().unwrap();
    wait_until("a guest", || place.qemus().len() == 1);
    wait_until("its control socket", || place.has_socket());
    std::thread::sleep(Duration::from_secs(1));
    signal(place.qemus()[0], "KILL");
    assert_eq!(wait(&mut child).code(), Some(1));
    let report: Value = serde_json::from_slice(&std::fs::read(place.path("r.json")).unwrap()).unwrap();
    assert_eq!(report["tests"][0]["verdict"], "qemu-failed");
    // On a slow machine it has not answered yet.
    let reason = report["tests"][0]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("QEMU was killed by signal 9 ") || reason.starts_with("QEMU ended at once (signal 9 "),
        "{reason}"
    );
    place.assert_clean();

    // One that gets no chance takes its guests with it, and the next one removes what it left.
    let mut child = place.qkprobe(&args).stdout(Stdio::null()).spawn().unwrap();
    wait_until("a guest", || place.qemus().len() == 1);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the end of its guest", || place.qemus().is_empty());
    place.initrd("");
    place.run(&args).code(0);
    place.assert_clean();
}
