//! Probes that come and go while no vCPU runs: in a guest that sleeps, and in a machine that the monitor has stopped.

mod common;

use common::PATIENCE;
use common::peer::{Peer, with_qmp};
use qkprobe_tests::{Boot, ControlClient, Gate, GuestKernel, Qemu, gate};
use serde_json::json;

/// A kernel, its vCPUs, and the system call `getppid`. (The vCPUs of sun4u and of a PowerMac never sleep: QEMU runs them all
/// in one thread, or the CPU has nothing to sleep with.)
const GUESTS: [(GuestKernel, u32, &str); 3] = [
    (GuestKernel::X86_64Cloud6_1, 1, "__x64_sys_getppid"),
    (GuestKernel::X86_64Cloud6_1, 2, "__x64_sys_getppid"),
    (GuestKernel::Ppc64le6_1, 2, "sys_getppid"),
];
const TIMES: usize = 20;

/// Adds a probe, which arms by itself: the plugin wakes the vCPUs for that.
#[track_caller]
fn add(client: &mut ControlClient, def: &str) {
    client.add_with(json!({"def": def, "action": "count"}));
}

#[test]
fn probes_arm_where_nothing_runs() {
    for qemu in Qemu::selected() {
        for (kernel, smp, place) in GUESTS {
            let what = format!("{qemu}, {kernel:?}, {smp} vCPUs");
            let boot = with_qmp(Boot::new(qemu, kernel)).smp(smp).append("quiet").gates().control();
            // Without the first one, the kernel would be looked for when it runs.
            let boot = boot.plugin_arg("count=p:early start_kernel");
            let script =
                ["say ready.", &gate("0"), "getppid 100", "say done-0.", &gate("1"), "getppid 1000", "say done-1."];
            let mut running = boot.script(script).spawn().unwrap();
            let mut client = ControlClient::connect(&running);
            let mut qmp = Peer::connect(&mut running, "qmp.sock");
            qmp.qmp("qmp_capabilities", &json!({}));
            running.wait_for_console("ok say ready.", PATIENCE).unwrap();
            let mut gates = Gate::of(&running);

            // The guest sleeps until its gate opens.
            for time in 0..TIMES {
                add(&mut client, &format!("p:t{time} {place}"));
                assert_eq!(client.delete(&format!("t{time}"))[0].hits, 0, "{what}");
            }
            add(&mut client, &format!("p:asleep {place}"));
            qmp.qmp("stop", &json!({}));
            for time in 0..TIMES {
                add(&mut client, &format!("p:t{time} vfs_read"));
                assert_eq!(client.delete(&format!("t{time}"))[0].hits, 0, "{what}");
            }
            add(&mut client, &format!("p:stopped {place}"));
            qmp.qmp("cont", &json!({}));
            gates.open(&running, "0", "ok say done-0.");
            for event in ["asleep", "stopped"] {
                assert_eq!(client.hits(event), 100, "{what}: {event}");
                client.delete(event);
            }
            gates.open(&running, "1", "ok say done-1.");
            let result = running.finish().unwrap();
            result.assert_ok();
            common::assert_hits(&result, &what, &[("early", 1)]);
        }
    }
}
