//! Probes that come, go, rest and wake while the guest runs: counts are exact from the reply on.

mod common;

use common::trace_lines;
use qkprobe_tests::{Boot, BootResult, ControlClient, Gate, GuestKernel, Qemu, Running, gate};
use serde_json::json;

const KERNEL: GuestKernel = GuestKernel::X86_64Cloud6_1;
const GETPPID: &str = "__x64_sys_getppid";

/// A guest whose script is in the test's hands, step by step: behind gate `i` it does line `i` and says so.
struct Guest {
    running: Option<Running>,
    gate: Gate,
    client: ControlClient,
    step: usize,
}

impl Guest {
    /// Boots; the guest waits at its first gate.
    #[track_caller]
    fn start<S: AsRef<str>>(boot: Boot, steps: impl IntoIterator<Item = S>) -> Self {
        // QEMU 10.0 has no other safepoint than a vCPU that goes to sleep or wakes up: this one does, a hundred times a
        // second, whatever the script does.
        let tick = "background expect-fail until 1000000 /proc/version never";
        let mut script = vec![tick.to_owned(), "say ready.".to_owned()];
        for (index, step) in steps.into_iter().enumerate() {
            script.extend([gate(&index.to_string()), step.as_ref().to_owned(), format!("say done-{index}.")]);
        }
        let mut running = boot.gates().control().script(script).spawn().unwrap();
        let client = ControlClient::connect(&running);
        running.wait_for_console("ok say ready.", std::time::Duration::from_secs(60)).unwrap();
        let gate = Gate::of(&running);
        Self { running: Some(running), gate, client, step: 0 }
    }

    /// Lets the guest do the next line.
    #[track_caller]
    fn step(&mut self) {
        let name = self.step.to_string();
        self.gate.open(self.running.as_ref().unwrap(), &name, &format!("ok say done-{name}."));
        self.step += 1;
    }

    #[track_caller]
    fn finish(mut self) -> BootResult {
        let running = self.running.take().unwrap();
        let result = running.finish().unwrap();
        result.assert_ok();
        result
    }
}

impl Drop for Guest {
    /// A failed test shows what QEMU has to say.
    fn drop(&mut self) {
        if let Some(running) = self.running.as_mut().filter(|_| std::thread::panicking()) {
            let stderr = std::fs::read_to_string(running.folder().join("stderr")).unwrap_or_default();
            eprintln!("QEMU: {:?}\n{stderr}{}", running.try_wait(), running.console());
        }
    }
}

fn boot(qemu: Qemu) -> Boot {
    Boot::new(qemu, KERNEL).append("quiet")
}

/// How many records of an event the trace has.
fn records(boot: &BootResult, event: &str) -> usize {
    trace_lines(&boot.trace).iter().filter(|line| line.event == event).count()
}

/// No probe at the start: the kernel has not been looked for yet, and all its code has been translated.
#[test]
fn the_first_probe_comes_in_a_running_guest() {
    for qemu in Qemu::selected() {
        for append in ["pti=off", "nokaslr pti=on"] {
            let boot = boot(qemu).append(append).script(["getppid 2000"]);
            let mut guest = Guest::start(boot, ["getppid 1000", "getppid 1000"]);
            guest.client.add(&format!("p:first {GETPPID} sp=%sp"));
            guest.step();
            assert_eq!(guest.client.hits("first"), 1000, "{qemu}, {append}");
            assert_eq!(guest.client.delete("first")[0].hits, 1000, "{qemu}, {append}");
            guest.step();
            let result = guest.finish();
            assert_eq!(records(&result, "first"), 1000, "{qemu}, {append}");
            assert!(result.summary().probes.is_empty(), "{qemu}, {append}");
        }
    }
}

/// Fifty lives of each kind of probe, every time at the same place.
#[test]
fn fifty_times_added_and_deleted() {
    const TIMES: usize = 50;
    for qemu in Qemu::selected() {
        let calls = |time: usize| 10 + time as u64 % 7;
        let steps = (0..2 * TIMES).map(|step| format!("getppid {}", calls(step / 2)));
        let mut guest = Guest::start(boot(qemu).smp(2).append("pti=on"), steps);
        for time in 0..TIMES {
            let (client, name) = (&mut guest.client, format!("t{time}"));
            let count = json!({"def": format!("p:count_{name} {GETPPID}"), "action": "count"});
            let post = json!({"def": format!("p:post_{name} {GETPPID} ax=%ax"), "when": "post"});
            client.add_with(count);
            client.add(&format!("p:event_{name} {GETPPID} di=%di nr=+120($arg1):u64"));
            client.add(&format!("r:return_{name} {GETPPID} $retval"));
            client.add_with(post);
            guest.step();
            let mut found = Vec::new();
            for kind in ["count", "event", "return", "post"] {
                let removed = guest.client.delete(&format!("{kind}_{name}"));
                found.extend(removed.iter().map(|counts| (kind, counts.hits, counts.missed, counts.dropped)));
            }
            let n = calls(time);
            let expected = ["count", "event", "return", "post"].map(|kind| (kind, n, 0, 0));
            assert_eq!(found, expected, "{qemu}, time {time}");
            // And nobody is there to see these.
            guest.step();
        }
        let status = guest.client.status();
        assert_eq!((&status["armed_sites"], &status["probes"]), (&json!(0), &json!(0)), "{qemu}: {status}");
        let result = guest.finish();
        for time in 0..TIMES {
            for kind in ["event", "return", "post"] {
                let name = format!("{kind}_t{time}");
                assert_eq!(records(&result, &name) as u64, calls(time), "{qemu}: {name}");
            }
        }
        assert_eq!(trace_lines(&result.trace).iter().filter(|line| line.event.starts_with("count")).count(), 0);
    }
}
