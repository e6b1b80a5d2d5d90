//! Probes that halt: a vCPU that is held until the control client says go on, for QEMU's monitor and for gdb; and the
//! end of QEMU with a status of the probe's own.

mod common;

use std::time::{Duration, Instant};

use common::gdb::Gdb;
use common::peer::{Peer, with_qmp};
use common::{PATIENCE, assert_hits, field, wait_for_stopping};
use qkprobe_arch::Flow;
use qkprobe_tests::{Boot, GuestArch, GuestKernel, Qemu, Threads};
use serde_json::{Value, json};

const KERNEL: GuestKernel = GuestKernel::X86_64Cloud6_1;
/// A vCPU that is held stays where it is; looked at after this time.
const WHILE: Duration = Duration::from_millis(300);

impl Peer {
    fn held(&mut self) -> Vec<Value> {
        self.control(&json!({"cmd": "status"}))["held"].as_array().unwrap().clone()
    }

    /// Waits until so many vCPUs are held.
    #[track_caller]
    fn wait_for_held(&mut self, count: usize) -> Vec<Value> {
        let start = Instant::now();
        loop {
            let held = self.held();
            if held.len() == count {
                return held;
            }
            assert!(start.elapsed() < PATIENCE, "{held:?}, not {count}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn go_on(&mut self) {
        assert_eq!(self.control(&json!({"cmd": "continue"})), json!({"released": 1}));
    }

    fn hits(&mut self, event: &str) -> u64 {
        let profile = self.control(&json!({"cmd": "profile"}));
        let probes = profile["probes"].as_array().unwrap();
        probes.iter().find(|probe| probe["event"] == event).unwrap()["hits"].as_u64().unwrap()
    }

    /// A register of the first vCPU, as the monitor shows it.
    fn register(&mut self, name: &str) -> u64 {
        let text = self.qmp("human-monitor-command", &json!({"command-line": "info registers"}));
        let text = text.as_str().unwrap();
        let value = text.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        u64::from_str_radix(value.unwrap_or_else(|| panic!("no {name} in {text}")), 16).unwrap()
    }
}

fn boot(qemu: Qemu) -> Boot {
    Boot::new(qemu, KERNEL).append("quiet").plugin_arg("control=control.sock")
}

fn address(held: &Value) -> u64 {
    u64::from_str_radix(held["address"].as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap()
}

/// Where a probe's place is in the guest that runs, by the slide that the control socket tells.
#[track_caller]
fn runtime(control: &mut Peer, linked: u64) -> u64 {
    let slide = control.control(&json!({"cmd": "status"}))["slide"].as_str().unwrap().to_owned();
    linked + u64::from_str_radix(slide.strip_prefix("0x").unwrap(), 16).unwrap()
}

#[test]
fn a_vcpu_is_held_until_it_is_told_to_go_on() {
    let (linked, _) = common::symbol(&common::image(KERNEL), "__x64_sys_getppid");
    for qemu in Qemu::selected() {
        for smp in [1, 2] {
            let last = smp - 1;
            let mut running = boot(qemu)
                .smp(smp)
                .script([format!("on {last} getppid 100"), format!("on {last} getppid 100"), "say done".to_owned()])
                .plugin_arg("count=p:older __x64_sys_getppid")
                .plugin_arg("count=p:stop __x64_sys_getppid do stop interval=50 times=3")
                .plugin_arg("count=p:newer __x64_sys_getppid")
                .spawn()
                .unwrap();
            let mut control = Peer::connect(&mut running, "control.sock");
            for stop in 1..=3 {
                let held = control.wait_for_held(1);
                let expected = json!({
                    "vcpu": last,
                    "group": "kprobes",
                    "event": "stop",
                    "address": format!("{:#x}", runtime(&mut control, linked)),
                    "symbol": "__do_sys_getppid+0x0/0x40",
                });
                assert_eq!(held, [expected], "{qemu}, {smp} vCPUs");
                std::thread::sleep(WHILE);
                assert_eq!(control.held(), held);
                let hits = ["older", "stop", "newer"].map(|event| control.hits(event));
                assert_eq!(hits, [50 * stop; 3], "{qemu}, {smp} vCPUs");
                assert!(!running.console().contains("done"));
                control.go_on();
            }
            let result = running.finish().unwrap();
            result.assert_ok();
            assert_hits(&result, qemu.version(), &[("older", 200), ("stop", 200), ("newer", 200)]);
            assert_eq!(field(&result, "stop", "effects"), 3, "{qemu}");
        }
    }
}

/// A monitor that stops the machine while a vCPU is held finds it at the probed instruction, once it may go on. The
/// instruction is reached twice then, and counted once.
#[test]
fn the_monitor_finds_the_probed_instruction() {
    let image = common::image(KERNEL);
    let (getppid, _) = common::symbol(&image, "__x64_sys_getppid");
    let (openat, _) = common::symbol(&image, "__x64_sys_openat");
    let branch = common::instructions(&image, "__x64_sys_openat");
    let branch = branch.iter().find(|(_, insn)| matches!(insn.flow, Flow::Branch { .. })).unwrap();
    let (branch, behind) = (branch.0, branch.0 + u64::from(branch.1.len));
    // Where the machine stands then: at the instruction; without the right to set the program counter, and where flags
    // would be lost, at the next block.
    let (lock, _) = common::symbol(&image, "__rcu_read_lock");
    let cases = [
        (Qemu::V11_1, "__x64_sys_getppid".to_owned(), getppid, getppid),
        (Qemu::V11_1, format!("__x64_sys_openat+{branch}"), openat + branch, openat + behind),
        (Qemu::V10_0, "__x64_sys_getppid".to_owned(), getppid, lock),
    ];
    let selected = Qemu::selected();
    for (qemu, place, held_at, stopped_at) in cases.into_iter().filter(|(qemu, ..)| selected.contains(qemu)) {
        let what = format!("{qemu}, {place}");
        let mut running = with_qmp(boot(qemu))
            .script(["getppid 100", "openclose 100 /etc/none"])
            .plugin_arg(format!("count=p:stop {place} do stop nth=50"))
            .plugin_arg(format!("count=p:other {place}"))
            .spawn()
            .unwrap();
        let mut control = Peer::connect(&mut running, "control.sock");
        let mut qmp = Peer::connect(&mut running, "qmp.sock");
        qmp.qmp("qmp_capabilities", &json!({}));
        let held = control.wait_for_held(1);
        let held_at = runtime(&mut control, held_at);
        assert_eq!(address(&held[0]), held_at, "{what}");
        let stopped_at = runtime(&mut control, stopped_at);
        if held_at == stopped_at {
            // The vCPU comes round all the time, and stops there; or where a timer's interrupt is served, which returns.
            let start = Instant::now();
            while qmp.qmp("stop", &json!({})) == json!({}) && qmp.register("RIP") != stopped_at {
                assert!(start.elapsed() < PATIENCE, "{what}: never at {stopped_at:#x}");
                qmp.qmp("cont", &json!({}));
                std::thread::sleep(Duration::from_millis(17));
            }
            control.go_on();
        } else {
            // QEMU answers when all vCPUs have stopped, so the held one must go on for that.
            qmp.send(&json!({"execute": "stop"}));
            wait_for_stopping(&running);
            control.go_on();
            assert_eq!(qmp.reply("stop"), json!({}), "{what}");
        }
        assert_eq!(qmp.qmp("query-status", &json!({}))["status"], "paused", "{what}");
        assert_eq!(qmp.register("RIP"), stopped_at, "{what}");
        assert_eq!((control.held(), control.hits("stop")), (vec![], 50), "{what}");
        std::thread::sleep(WHILE);
        assert_eq!(control.hits("other"), 50, "{what}: the machine is stopped");
        qmp.qmp("cont", &json!({}));
        let result = running.finish().unwrap();
        result.assert_ok();
        // The C library opens nothing: what the init program opens is opened by its script, but for the script itself.
        let hits = result.summary().probe("stop").hits;
        let expected = if place.contains("getppid") { 100..=100 } else { 100..=110 };
        assert!(expected.contains(&hits), "{what}: {hits}");
        assert_hits(&result, &what, &[("other", hits)]);
    }
}

/// As the monitor, and then instruction by instruction.
#[test]
fn gdb_steps_from_the_probed_instruction() {
    /// gdb's number of it.
    const RIP: u32 = 16;
    let (getppid, _) = common::symbol(&common::image(KERNEL), "__x64_sys_getppid");
    let mut running = boot(Qemu::V11_1)
        .script(["getppid 100"])
        .plugin_arg("count=p:stop __x64_sys_getppid do stop nth=50")
        .plugin_arg("count=p:second __x64_sys_getppid+5")
        .extra_args(["-gdb", "unix:gdb.sock,server=on,wait=off"])
        .spawn()
        .unwrap();
    let mut control = Peer::connect(&mut running, "control.sock");
    control.wait_for_held(1);
    // Who connects stops the machine.
    let mut gdb = Gdb::connect(&running);
    let entry = runtime(&mut control, getppid);
    gdb.stop_at(GuestArch::X86_64, RIP, entry, "gdb");
    control.go_on();
    let mut at = vec![gdb.register(GuestArch::X86_64, RIP)];
    for _ in 0..2 {
        let stopped = gdb.ask("s");
        assert!(stopped.starts_with("T05"), "{stopped}");
        at.push(gdb.register(GuestArch::X86_64, RIP));
    }
    // A call of 5 bytes, which is a nop by now, and a push of one byte.
    assert_eq!(at, [entry, entry + 5, entry + 6]);
    assert_eq!(gdb.ask("D"), "OK");
    let result = running.finish().unwrap();
    result.assert_ok();
    assert_hits(&result, "gdb", &[("stop", 100), ("second", 100)]);
}

/// Two vCPUs at a time, and released one by one.
#[test]
fn each_vcpu_is_held_by_itself() {
    let mut running = boot(Qemu::V11_1)
        .smp(2)
        .script(["threads 2 getppid 10"])
        .plugin_arg("count=p:stop __x64_sys_getppid do stop times=2")
        .spawn()
        .unwrap();
    let mut control = Peer::connect(&mut running, "control.sock");
    let held = control.wait_for_held(2);
    let mut vcpus: Vec<_> = held.iter().map(|held| held["vcpu"].as_u64().unwrap()).collect();
    vcpus.sort_unstable();
    assert_eq!(vcpus, [0, 1]);
    assert_eq!(control.control(&json!({"cmd": "continue", "vcpu": 7})), json!({"released": 0}));
    assert_eq!(control.control(&json!({"cmd": "continue", "vcpu": 1})), json!({"released": 1}));
    assert_eq!(control.wait_for_held(1)[0]["vcpu"], 0);
    control.go_on();
    let result = running.finish().unwrap();
    result.assert_ok();
    assert_hits(&result, "two", &[("stop", 20)]);
}

/// The control client can end a QEMU whose vCPU is held.
#[test]
fn quit_ends_a_guest_that_is_held() {
    for qemu in Qemu::selected() {
        let mut running = boot(qemu)
            .script(["getppid 10", "say never"])
            .plugin_arg("probe=p:stop __x64_sys_getppid do stop nth=5")
            .spawn()
            .unwrap();
        let mut control = Peer::connect(&mut running, "control.sock");
        control.wait_for_held(1);
        assert_eq!(control.control(&json!({"cmd": "quit", "status": 9})), json!({"status": 9}));
        let result = running.finish().unwrap();
        assert_eq!(result.status.code(), Some(9), "{qemu}\n{}", result.stderr);
        assert!(result.trace.ends_with(" lost\n"), "{qemu}: {}", result.trace);
        assert!(!result.console.contains("never"), "{qemu}");
    }
}

#[test]
fn quit_is_the_exit_status_and_loses_nothing() {
    for qemu in Qemu::selected() {
        for (status, smp, threads, format, place) in [
            (42, 2, Threads::Multi, "ftrace", "p:quit __x64_sys_sethostname"),
            (255, 2, Threads::Multi, "json", "r:quit __x64_sys_sethostname"),
            (0, 1, Threads::Multi, "ftrace", "p:quit __x64_sys_sethostname"),
            (3, 2, Threads::Single, "json", "p:quit __x64_sys_sethostname+5 a=%ax if a != 1"),
        ] {
            let what = format!("{qemu}, status {status}, {smp} vCPUs, {threads:?}, {format}, {place}");
            let options = if place.contains(" if ") { "post" } else { "" };
            let result = boot(qemu)
                .smp(smp)
                .threads(threads)
                .script(["threads 2 getppid 5000", "sethost bye", "say never"])
                .plugin_arg("probe=p:ppid __x64_sys_getppid nr=+120($arg1):u64")
                .plugin_arg(format!("probe={place} do {options} quit={status}"))
                .plugin_arg(format!("format={format}"))
                .run();
            assert_eq!(result.status.code(), Some(status), "{what}\n{}", result.stderr);
            assert_hits(&result, &what, &[("ppid", 10_000), ("quit", 1)]);
            assert_eq!(field(&result, "quit", "effects"), 1, "{what}");
            let (records, end) = match format {
                "json" => (result.trace.matches("\"event\":\"ppid\"").count(), "\"type\":\"end\""),
                _ => (result.trace.matches(" ppid: (").count(), "# end: 10001 records written, 0 lost"),
            };
            assert_eq!(records, 10_000, "{what}");
            let last = result.trace.lines().last().unwrap();
            assert!(last.contains(end) && result.trace.ends_with('\n'), "{what}: {last}");
            assert!(!result.folder().join("control.sock").exists(), "{what}");
            assert!(!result.console.contains("never"), "{what}: the guest went on\n{}", result.console);
        }
    }
}
