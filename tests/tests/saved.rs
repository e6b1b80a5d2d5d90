//! A machine whose state was saved runs on in a new QEMU with the plugin, which then meets the kernel in the middle of its life.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::{assert_hits, trace_lines};
use qkprobe_tests::{Boot, GuestKernel, Qemu};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
/// In all boots: the second QEMU must have what the first one's state is of.
const SCRIPT: [&str; 4] = ["getppid 100", "busy 3000", "threads 2 getppid 1000", "openclose 50 /etc/none"];

/// A command of QMP; the last member of what it returns.
fn qmp(lines: &mut BufReader<UnixStream>, command: &Value) -> Value {
    writeln!(lines.get_mut(), "{command}").unwrap();
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let mut message: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert!(message.get("error").is_none(), "{command}: {message}");
        if let Some(value) = message.get_mut("return") {
            return value.take();
        }
    }
}

/// Boots without a plugin until the script computes, and saves the machine's state to a file.
fn save(boot: &Boot, state: &Path) {
    let mut running = boot.clone().extra_args(["-qmp", "unix:qmp.sock,server=on,wait=off"]).spawn().unwrap();
    running.wait_for_console("ok getppid n=100 ", PATIENCE).unwrap();
    let stream = UnixStream::connect(running.folder().join("qmp.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(stream);
    lines.read_line(&mut String::new()).unwrap();
    qmp(&mut lines, &json!({"execute": "qmp_capabilities"}));
    qmp(&mut lines, &json!({"execute": "migrate", "arguments": {"uri": format!("file:{}", state.display())}}));
    let start = Instant::now();
    while qmp(&mut lines, &json!({"execute": "query-migrate"}))["status"] != "completed" {
        assert!(start.elapsed() < PATIENCE, "the state is not saved");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(!running.console().contains("ok busy"), "the state was saved too late");
}

#[test]
fn probes_in_a_kernel_that_runs_already() {
    for qemu in Qemu::selected() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let boot = Boot::new(qemu, GuestKernel::X86_64Cloud6_1).smp(2).append("quiet").script(SCRIPT);
        save(&boot, &state);
        let result = boot
            .extra_args(["-incoming".to_owned(), format!("file:{}", state.display())])
            .plugin_arg("count=p:start start_kernel")
            .plugin_arg("count=p:counted __x64_sys_getppid")
            .plugin_arg("probe=p:traced __x64_sys_getppid")
            .plugin_arg("probe=r:opened do_sys_openat2 file=+0($arg2):ustring ret=$retval:s32 if file == \"/etc/none\"")
            .run();
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
