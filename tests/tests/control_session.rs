//! What a session at the control socket shows: lists, counters, events, refusals, and the end.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use common::trace_lines;
use qkprobe_harness::summary::Quit;
use qkprobe_tests::{Boot, Guest, GuestKernel, Qemu};
use serde_json::{Value, json};

const KERNEL: GuestKernel = GuestKernel::X86_64Cloud6_1;
const GETPPID: &str = "__x64_sys_getppid";

fn boot(qemu: Qemu) -> Boot {
    Boot::new(qemu, KERNEL).append("quiet pti=off")
}

fn number(address: &Value) -> u64 {
    let digits = address.as_str().and_then(|text| text.strip_prefix("0x"));
    u64::from_str_radix(digits.unwrap_or_else(|| panic!("no address: {address}")), 16).unwrap()
}

/// Where the guest itself says that it has a symbol.
fn in_kallsyms(second_serial: &str, name: &str) -> u64 {
    let line = second_serial.lines().find(|line| line.split_whitespace().nth(2) == Some(name));
    u64::from_str_radix(line.unwrap().split_whitespace().next().unwrap(), 16).unwrap()
}

#[test]
fn list_profile_and_status() {
    for qemu in Qemu::selected() {
        for append in ["nokaslr", "kaslr"] {
            let boot = boot(qemu).append(append).plugin_arg(format!("count=p:first {GETPPID}")).script(["getppid 3"]);
            let mut guest = Guest::start(boot, ["getppid 40"]);
            let status = guest.client.status();
            assert_eq!(status["kernel_found"], true, "{qemu}: {status}");
            assert_eq!((&status["armed_sites"], &status["probes"]), (&json!(1), &json!(1)), "{qemu}: {status}");
            assert_eq!((&status["target"], &status["problem"]), (&json!("x86_64"), &Value::Null), "{qemu}: {status}");
            let slide = number(&status["slide"]);
            assert_eq!(slide == 0, append == "nokaslr", "{qemu}: {status}");
            let (linked, _) = common::symbol(&common::image(KERNEL), GETPPID);

            let added = guest.client.add(&format!("p:second {GETPPID} sp=%sp"));
            assert_eq!(number(&added["address"]), linked + slide, "{qemu}: {added}");
            let pending = guest.client.request(json!({"cmd": "add", "def": "p:later nomod:nofn"}));
            assert_eq!(
                (&pending["added"][0]["armed"], &pending["added"][0]["address"]),
                (&json!(false), &Value::Null),
                "{qemu}: {pending}"
            );
            guest.client.request(json!({"cmd": "add", "def": "r:back vfs_read $retval", "enabled": false}));
            guest.step();

            let list = guest.client.request(json!({"cmd": "list"}));
            let column = |key: &str| -> Vec<Value> {
                list["probes"].as_array().unwrap().iter().map(|line| line[key].clone()).collect()
            };
            assert_eq!(column("event"), ["first", "second", "later", "back"], "{qemu}");
            assert_eq!(column("type"), ["k", "k", "k", "r"], "{qemu}");
            assert_eq!(column("flags"), [json!([]), json!([]), json!(["PENDING"]), json!(["DISABLED"])], "{qemu}");
            assert_eq!(
                column("symbol"),
                ["__do_sys_getppid+0x0", "__do_sys_getppid+0x0", "nomod:nofn", "vfs_read+0x0"],
                "{qemu}"
            );
            let definitions = column("definition");
            assert_eq!(definitions[1], "p:kprobes/second __x64_sys_getppid sp=%sp", "{qemu}");
            assert_eq!(number(&column("address")[0]), linked + slide, "{qemu}");
            let hits: Vec<_> = guest.client.profile().into_iter().map(|counts| (counts.event, counts.hits)).collect();
            let expected = [("first", 43), ("second", 40), ("later", 0), ("back", 0)];
            assert_eq!(hits, expected.map(|(event, hits)| (event.to_owned(), hits)), "{qemu}");
            let _ = guest.finish();
        }
    }
}

/// The slide is what the guest's own list of symbols says.
#[test]
fn slide_is_what_the_guest_says() {
    for qemu in Qemu::selected() {
        let boot = boot(qemu)
            .second_serial()
            .script(["kallsyms /dev/ttyS1", "say ready.", "sleep 1000000"])
            .control()
            .plugin_arg(format!("count=p:first {GETPPID}"));
        let mut running = boot.spawn().unwrap();
        let mut client = qkprobe_tests::ControlClient::connect(&running);
        running.wait_for_console("ok say ready.", common::PATIENCE).unwrap();
        let slide = number(&client.status()["slide"]);
        client.request(json!({"cmd": "quit"}));
        let result = running.finish().unwrap();
        let (linked, _) = common::symbol(&common::image(KERNEL), GETPPID);
        assert_eq!(in_kallsyms(&result.second_serial, GETPPID), linked + slide, "{qemu}");
    }
}

#[test]
fn refusals_have_the_kernels_words() {
    let qemu = Qemu::V11_1;
    let mut guest = Guest::start(boot(qemu), ["getppid 1"]);
    let refused = [
        ("p:x nowhere", "EINVAL", "Invalid probed address or symbol"),
        ("p:x vfs_read+1", "EILSEQ", "Probe point is not an instruction boundary"),
        ("p:x vfs_read a=%nope", "EINVAL", "Invalid register name"),
        ("r:x vfs_read+8", "EINVAL", "Retprobe address must be an function entry"),
        ("p:x vfs_read a=$arg1:zz", "EINVAL", "Unknown type is specified"),
    ];
    for (definition, code, text) in refused {
        let error = guest.client.try_request(json!({"cmd": "add", "def": definition})).unwrap_err();
        assert_eq!(error.code, code, "{definition}: {error}");
        assert!(error.message.contains(text) && error.message.contains('^'), "{definition}: {error}");
    }
    // All or none.
    let both = json!({"cmd": "add", "defs": [format!("p:good {GETPPID}"), "p:bad nowhere"]});
    assert_eq!(guest.client.try_request(both).unwrap_err().code, "EINVAL");
    for cmd in ["delete", "enable", "disable"] {
        let error = guest.client.try_request(json!({"cmd": cmd, "event": "good"})).unwrap_err();
        assert_eq!((error.code.as_str(), error.errno), ("ENOENT", 2), "{cmd}: {error}");
    }
    guest.client.add(&format!("p:good {GETPPID}"));
    let again = guest.client.try_request(json!({"cmd": "add", "def": format!("p:good {GETPPID}")})).unwrap_err();
    assert_eq!((again.code.as_str(), again.errno), ("EEXIST", 17), "{again}");
    let status = guest.client.status();
    assert_eq!((&status["armed_sites"], &status["probes"]), (&json!(1), &json!(1)), "{status}");
    guest.step();
    assert_eq!(guest.client.delete("*")[0].hits, 1);
    let _ = guest.finish();
}

#[test]
fn subscribers_get_the_events_that_they_chose() {
    for qemu in Qemu::selected() {
        let mut guest = Guest::start(boot(qemu), ["getppid 20", "getppid 5"]);
        let (mut chosen, mut all) = (guest.connect(), guest.connect());
        guest.client.add(&format!("p:one {GETPPID} nr=+120($arg1):u64"));
        guest.client.add(&format!("p:two {GETPPID} sp=%sp"));
        chosen.request(json!({"cmd": "subscribe", "events": ["one"]}));
        all.request(json!({"cmd": "subscribe"}));
        guest.step();
        let events: Vec<_> = (0..20).map(|_| chosen.event()).collect();
        let right = |event: &Value| {
            event["type"] == "event"
                && event["event"] == "one"
                && event["group"] == "kprobes"
                && event["args"]["nr"] == 110
        };
        assert!(events.iter().all(right), "{qemu}: {events:?}");
        let both: Vec<_> = (0..40).map(|_| all.event()["event"].as_str().unwrap().to_owned()).collect();
        assert_eq!(both.iter().filter(|event| *event == "two").count(), 20, "{qemu}: {both:?}");
        assert_eq!(chosen.request(json!({"cmd": "unsubscribe"}))["was_subscribed"], true);
        guest.step();
        let five: Vec<_> = (0..10).map(|_| all.event()["event"].as_str().unwrap().to_owned()).collect();
        assert_eq!(five.iter().filter(|event| *event == "one").count(), 5, "{qemu}: {five:?}");
        assert_eq!(chosen.status()["probes"], 2, "{qemu}");
        assert_eq!(chosen.take_events(), [Value::Null; 0], "{qemu}: nothing after unsubscribe");
        let result = guest.finish();
        assert_eq!(trace_lines(&result.trace).len(), 50, "{qemu}");
    }
}

/// Probes of `watch=` are those of who started QEMU: no client sees or changes them, and their records are for those alone who
/// name their group.
#[test]
fn watch_probes_are_nobody_elses() {
    for qemu in Qemu::selected() {
        let own = [
            format!("watch=p:tool/calls {GETPPID} nr=+120($arg1):u64"),
            "watch=p:tool/none no_such_function".to_owned(),
            format!("probe=p:calls {GETPPID}"),
        ];
        let boot = own.into_iter().fold(boot(qemu), Boot::plugin_arg);
        let mut guest = Guest::start(boot, ["getppid 20"]);
        let (mut tool, mut all) = (guest.connect(), guest.connect());
        tool.request(json!({"cmd": "subscribe", "events": ["tool/"]}));
        all.request(json!({"cmd": "subscribe"}));
        assert_eq!(guest.client.status()["probes"], 1, "{qemu}");
        let list = guest.client.request(json!({"cmd": "list"}));
        assert_eq!(list["probes"].as_array().unwrap().len(), 1, "{qemu}: {list}");
        assert_eq!(guest.client.profile().len(), 1, "{qemu}");
        for event in ["tool/calls", "tool/", "-:tool/calls"] {
            for cmd in ["delete", "disable", "enable"] {
                let error = guest.client.try_request(json!({"cmd": cmd, "event": event})).unwrap_err();
                assert_eq!((error.code.as_str(), error.errno), ("ENOENT", 2), "{qemu}: {cmd} {event}: {error}");
            }
        }
        let error = guest.client.try_request(json!({"cmd": "add", "def": "p:tool/panic panic"})).unwrap_err();
        assert_eq!((error.code.as_str(), error.errno), ("EBUSY", 16), "{qemu}: {error}");
        assert_eq!(guest.client.request(json!({"cmd": "disable", "event": "calls"}))["count"], 1, "{qemu}");
        assert_eq!(guest.client.request(json!({"cmd": "disable", "event": "*"}))["count"], 1, "{qemu}");
        assert_eq!(guest.client.request(json!({"cmd": "enable", "event": "*"}))["count"], 1, "{qemu}");
        assert_eq!(guest.client.delete("calls").len(), 1, "{qemu}");
        assert_eq!(guest.client.request(json!({"cmd": "delete", "event": "*"}))["removed"], json!([]), "{qemu}");
        guest.client.add(&format!("p:late {GETPPID}"));
        guest.step();
        for _ in 0..20 {
            let event = tool.event();
            assert_eq!(
                (&event["group"], &event["event"], &event["args"]["nr"]),
                (&json!("tool"), &json!("calls"), &json!(110)),
                "{qemu}: {event}"
            );
            assert_eq!(all.event()["event"], "late", "{qemu}");
        }
        let result = guest.finish();
        assert_eq!(trace_lines(&result.trace).len(), 20, "{qemu}");
        assert!(!result.stderr.contains("tool/calls"), "{qemu}: {}", result.stderr);
        let summary: Value = serde_json::from_slice(&fs::read(result.folder().join("summary.json")).unwrap()).unwrap();
        assert_eq!(summary["watched"], json!([{"group": "tool", "name": "calls", "hits": 20}]), "{qemu}");
        assert_eq!(summary["probes"][0]["name"], "late", "{qemu}");
    }
}

#[test]
fn quit_ends_qemu_with_its_status_and_a_whole_trace() {
    for qemu in Qemu::selected() {
        let boot = boot(qemu).plugin_arg(format!("probe=p:x {GETPPID} sp=%sp"));
        let mut guest = Guest::start(boot, ["getppid 100000000"]);
        let socket = guest.running().folder().join("control.sock");
        let mode = fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{qemu}");
        let mut watcher = guest.connect();
        watcher.request(json!({"cmd": "subscribe"}));
        guest.begin_step("ok until");
        // In the middle of it.
        while guest.client.hits("x") < 1000 {}
        assert_eq!(guest.client.request(json!({"cmd": "quit", "status": 7}))["status"], 7, "{qemu}");
        while watcher.line().is_some() {}
        let result = guest.end();
        assert_eq!(result.status.code(), Some(7), "{qemu}: {}", result.stderr);
        assert!(!result.folder().join("control.sock").exists(), "{qemu}: the socket is gone");
        let (lines, summary) = (trace_lines(&result.trace).len(), result.summary());
        // The vCPU runs on while QEMU ends; what it hits then is no record, and counted as such.
        let x = summary.probe("x");
        assert_eq!(summary.quit, Some(Quit { status: 7, by: None }), "{qemu}");
        assert_eq!((x.hits, x.dropped), (lines as u64, 0), "{qemu}: {x:?}");
        assert!(lines >= 1000, "{qemu}: {lines}");
        assert!(result.trace.ends_with(&format!("# end: {lines} records written, 0 lost\n")), "{qemu}");
    }
}
