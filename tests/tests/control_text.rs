//! The guest rewrites its own text under probes: subscribers and the trace are told, lists show what is gone, and no
//! execution is missed.

mod common;

use common::{image, instructions, symbol, until_jump};
use qkprobe_arch::GuestAddr;
use qkprobe_tests::{Boot, Guest, GuestKernel, Qemu};
use serde_json::{Value, json};

const KERNEL: GuestKernel = GuestKernel::X86_64Cloud6_1;
const GETPPID: &str = "__x64_sys_getppid";
const TRACING: &str = "/sys/kernel/tracing";
const KPROBES: &str = "/sys/kernel/debug/kprobes/list";
const OPTIMIZATION: &str = "/proc/sys/debug/kprobes-optimization";

/// In getppid, `xor %edx,%edx; mov $1,%esi`: a jump over the first, of two bytes, covers the second's begin.
fn two_moves() -> (u64, u64) {
    let image = image(KERNEL);
    let (start, _) = symbol(&image, GETPPID);
    let found = instructions(&image, GETPPID).windows(2).find_map(|pair| {
        let text = image.bytes(GuestAddr(start + pair[0].0), 7)?;
        (text == [0x31, 0xd2, 0xbe, 1, 0, 0, 0]).then_some((pair[0].0, pair[1].0))
    });
    found.expect("the kernel has these two instructions")
}

/// Flags of a probe, as `list` shows them.
#[track_caller]
fn flags(guest: &mut Guest, event: &str) -> Value {
    let list = guest.client.request(json!({"cmd": "list"}));
    let probes = list["probes"].as_array().unwrap();
    probes.iter().find(|probe| probe["event"] == event).unwrap()["flags"].clone()
}

#[test]
fn gone_and_back() {
    let (short, long) = two_moves();
    for qemu in Qemu::selected() {
        let steps = [
            "getppid 500".to_owned(),
            [
                format!("append {TRACING}/kprobe_events p:wide {GETPPID}+{short}"),
                format!("write {TRACING}/events/kprobes/wide/enable 1"),
                format!("until 1000000 {KPROBES} [OPTIMIZED]"),
                until_jump(&format!("{GETPPID}+{short}")),
                "getppid 700".to_owned(),
            ]
            .join("\n"),
            [
                // This waits until the jump is away.
                format!("write {OPTIMIZATION} 0"),
                format!("write {TRACING}/events/kprobes/wide/enable 0"),
                "getppid 300".to_owned(),
            ]
            .join("\n"),
            "getppid 5".to_owned(),
        ];
        let boot = Boot::new(qemu, KERNEL).append("quiet pti=off").script([format!("write {OPTIMIZATION} 1")]);
        let mut guest = Guest::start(boot, steps);
        let mut watcher = guest.connect();
        watcher.request(json!({"cmd": "subscribe", "events": ["none"]}));
        guest.client.add(&format!("p:inside {GETPPID}+{long} si=%si"));
        guest.client.add_with(json!({"def": format!("p:counted {GETPPID}+{long}"), "action": "count"}));
        guest.client.add(&format!("p:first {GETPPID}+{short}"));
        guest.step();
        assert_eq!(flags(&mut guest, "inside"), json!([]), "{qemu}");
        guest.step();
        assert_eq!(flags(&mut guest, "inside"), json!(["GONE"]), "{qemu}");
        assert_eq!((guest.client.hits("inside"), guest.client.hits("counted")), (500, 500), "{qemu}");
        // The jump begins at the place of the other, which goes on.
        assert_eq!((flags(&mut guest, "first"), guest.client.hits("first")), (json!([]), 1200), "{qemu}");
        // One that comes to a place that is gone waits for it like those that were there.
        guest.client.request(json!({"cmd": "add", "def": format!("p:late {GETPPID}+{long}")}));
        guest.step();
        assert_eq!(flags(&mut guest, "inside"), json!([]), "{qemu}");
        let hits = ["inside", "counted", "first", "late"].map(|event| guest.client.hits(event));
        assert_eq!(hits, [800, 800, 1500, 300], "{qemu}");
        // The watcher chose an event that does not exist, and gets the notices.
        let mut texts = Vec::new();
        while !texts.iter().any(|text: &String| text.starts_with("an instruction again: be 01 00 00 00")) {
            let notice = watcher.event();
            assert_eq!(notice["type"], "text", "{qemu}: {notice}, after {texts:?}");
            texts.push(notice["text"].as_str().unwrap().to_owned());
        }
        assert!(texts.iter().any(|text| text.contains("[GONE]")), "{qemu}: {texts:?}");
        guest.step();
        let result = guest.finish();
        let told = result.trace.lines().filter(|line| line.starts_with("# text: ")).count();
        assert!(told >= texts.len(), "{qemu}: {}", result.trace);
        assert!(common::trace_lines(&result.trace).len() as u64 >= 805 + 1505 + 305, "{qemu}");
    }
}

/// The guest's function tracer makes a call of the probed nop, and takes it away.
#[test]
fn function_tracer_comes_and_goes() {
    for qemu in Qemu::selected() {
        let steps = [
            format!("write {TRACING}/current_tracer function\ngetppid 1000"),
            format!("write {TRACING}/current_tracer nop\ngetppid 100"),
            "getppid 10".to_owned(),
        ];
        let boot = Boot::new(qemu, KERNEL)
            .append("quiet pti=off")
            .script([format!("write {TRACING}/set_ftrace_filter __do_sys_getppid"), "getppid 10000".to_owned()])
            .plugin_arg(format!("count=p:counted {GETPPID}"));
        let mut guest = Guest::start(boot, steps);
        let mut watcher = guest.connect();
        watcher.request(json!({"cmd": "subscribe", "events": ["none"]}));
        guest.client.add(&format!("p:event {GETPPID} sp=%sp"));
        guest.client.add(&format!("r:return {GETPPID} $retval"));
        guest.step();
        assert_eq!(["event", "return"].map(|event| guest.client.hits(event)), [1000, 1000], "{qemu}");
        guest.step();
        // Added while and after the text changes: the copy is of what runs.
        guest.client.add_with(json!({"def": format!("p:post {GETPPID}"), "when": "post"}));
        guest.step();
        let result = guest.finish();
        let all = [("counted", 11_110), ("event", 1110), ("return", 1110), ("post", 10)];
        common::assert_hits(&result, qemu.version(), &all);
        let notices: Vec<_> = result.trace.lines().filter(|line| line.starts_with("# text: ")).collect();
        let entry = |line: &&&str| line.contains("__do_sys_getppid+0x0");
        assert!(notices.iter().filter(entry).any(|line| line.contains("now e8 ")), "{qemu}: {notices:?}");
        assert!(notices.iter().filter(entry).any(|line| line.contains("now 0f 1f 44 00 00")), "{qemu}: {notices:?}");
    }
}
