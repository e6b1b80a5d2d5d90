//! A machine whose state was saved runs on in a new QEMU with the plugin, which then meets the kernel in the middle of its life.

mod common;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::peer::{Peer, with_qmp};
use common::{PATIENCE, assert_hits, trace_lines};
use qkprobe_tests::{Boot, Gate, GuestKernel, Qemu, gate};
use serde_json::json;

/// In all boots: the second QEMU must have what the first one's state is of.
fn boot(qemu: Qemu) -> Boot {
    // One computes when the state is saved, the other sleeps and wakes again and again.
    let first = ["getppid 100", "background busy 1000000", "say ready"];
    let boot = Boot::new(qemu, GuestKernel::X86_64Cloud6_1).smp(2).append("quiet").gates().script(first);
    boot.script([&gate("restored"), "threads 2 getppid 1000", "openclose 50 /etc/none"])
}

/// Boots without a plugin until the guest computes, and saves the machine's state to a file.
fn save(boot: &Boot, state: &Path) {
    let mut running = with_qmp(boot.clone()).spawn().unwrap();
    running.wait_for_console("ok say ready", PATIENCE).unwrap();
    let mut monitor = Peer::connect(&mut running, "qmp.sock");
    monitor.qmp("qmp_capabilities", &json!({}));
    monitor.qmp("migrate", &json!({"uri": format!("file:{}", state.display())}));
    let start = Instant::now();
    while monitor.qmp("query-migrate", &json!({}))["status"] != "completed" {
        assert!(start.elapsed() < PATIENCE, "the state is not saved");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn probes_in_a_kernel_that_runs_already() {
    for qemu in Qemu::selected() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let boot = boot(qemu);
        save(&boot, &state);
        let running = boot
            .extra_args(["-incoming".to_owned(), format!("file:{}", state.display())])
            .plugin_arg("count=p:start start_kernel")
            .plugin_arg("count=p:counted __x64_sys_getppid")
            .plugin_arg("probe=p:traced __x64_sys_getppid")
            .plugin_arg("probe=r:opened do_sys_openat2 file=+0($arg2):ustring ret=$retval:s32 if file == \"/etc/none\"")
            .spawn()
            .unwrap();
        Gate::of(&running).open(&running, "restored", "ok openclose");
        let result = running.finish().unwrap();
        let what = format!("{qemu}\n{}\n{}", result.stderr, result.console);
        assert!(result.console.contains("ok openclose n=50 ok=0 err=50 "), "{what}");
        // What came before the state was saved is not seen.
        assert!(!result.console.contains("ok getppid n=100 "), "{what}");
        let expected = [("start", 0), ("counted", 2000), ("traced", 2000), ("opened", 50)];
        assert_hits(&result, &what, &expected);
        let records = trace_lines(&result.trace);
        let mut opened = records.iter().filter(|record| record.event == "opened");
        assert!(opened.all(|record| record.args == " file=\"/etc/none\" ret=-2"), "{what}");
        let cpus = |event: &str, cpu: u32| records.iter().any(|record| record.event == event && record.cpu == cpu);
        assert!(cpus("traced", 0) && cpus("traced", 1), "{what}: both vCPUs");
    }
}
