//! Places where the image has no instruction and the running kernel has one, because it patches itself when it boots.

mod common;

use qkprobe_tests::{Boot, Guest, GuestKernel, Qemu};
use serde_json::json;

const KERNEL: GuestKernel = GuestKernel::X86_64Cloud6_1;

/// `do_exit+47` is a call of 6 bytes through `pv_ops` in the image; what runs is `pushf`, `pop %rax` and a nop of 4 bytes.
#[test]
fn a_call_that_becomes_three_instructions() {
    let qemu = Qemu::V11_1;
    let boot = ["47", "48", "49", "51"].iter().fold(Boot::new(qemu, KERNEL).append("quiet"), |boot, offset| {
        boot.plugin_arg(format!("count=p:at{offset} do_exit+{offset}"))
    });
    let mut guest = Guest::start(boot, ["fork 20", "fork 30"]);
    guest.step();
    guest.client.add("p:late do_exit+48 ax=%ax");
    let refused = guest.client.try_request(json!({"cmd": "add", "def": "p:bad do_exit+51"})).unwrap_err();
    assert_eq!(refused.errno, 84, "{refused:?}");
    assert!(refused.message.contains("error: Probe point is not an instruction boundary\n"), "{refused:?}");
    assert!(refused.message.contains("(4 bytes), in the running kernel"), "{refused:?}");
    guest.step();
    let result = guest.finish();
    let summary = result.summary();
    let hits = ["at47", "at48", "at49", "at51"].map(|name| summary.probe(name).hits);
    assert!(hits[0] >= 50, "{hits:?}");
    assert_eq!(hits, [hits[0], hits[0], hits[0], 0]);
    assert!(summary.probe("late").hits >= 30, "{}", result.stderr);
    let gone = result.trace.lines().filter(|line| line.contains("do_exit+0x33/") && line.contains("[GONE]")).count();
    assert_eq!(gone, 1, "{}", result.trace);
}
