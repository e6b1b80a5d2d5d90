//! Records come in the order of their timestamps over all vCPUs, all of them, or as many fewer as the summary says.

mod common;

use std::fs::File;
use std::io::Read;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::{PATIENCE, assert_hits, field, trace_lines};
use qkprobe_tests::{Boot, ControlClient, GuestKernel, Qemu, Threads};

const KERNEL: GuestKernel = GuestKernel::X86_64Cloud6_1;

#[test]
fn timestamps_never_decrease_over_two_vcpus() {
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, KERNEL)
            .smp(2)
            .append("quiet pti=off")
            .script(["threads 2 getppid 20000", "procs 2 openclose 5000 /init", "pipe 500", "migrate 200"])
            .plugin_arg("probe=p:getppid __x64_sys_getppid")
            .plugin_arg("probe=p:read __x64_sys_read")
            .plugin_arg("probe=p:write __x64_sys_write")
            .plugin_arg("probe=p:open __x64_sys_openat sp=$stack")
            .plugin_arg("probe=p:close __x64_sys_close sp=$stack")
            .run_ok();
        let lines = trace_lines(&boot.trace);
        let count = |event: &str| lines.iter().filter(|line| line.event == event).count();
        assert_eq!(count("getppid"), 40_000, "{qemu}");
        assert!(count("open") >= 10_000 && count("close") >= 10_000, "{qemu}");
        assert!(count("read") >= 1000 && count("write") >= 1000, "{qemu}");
        for pair in lines.windows(2) {
            assert!(pair[0].time <= pair[1].time, "{qemu}: {:?} before {:?}", pair[0], pair[1]);
        }
        for name in ["getppid", "read", "write", "open", "close"] {
            assert_eq!(boot.summary().probe(name).hits, count(name) as u64, "{qemu}: {name}");
        }
        let cpus =
            |event: &str| lines.iter().filter(|line| line.event == event).map(|line| line.cpu).collect::<Vec<_>>();
        assert_eq!(cpus("getppid").iter().filter(|cpu| **cpu == 0).count(), 20_000, "{qemu}");
        // A task that moves there and back: records of both vCPUs in turn, whoever is quicker.
        let changes = cpus("read").windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(changes >= 200, "{qemu}: {changes}");
        check_pairs(&lines, qemu);
    }
}

/// In each of the two processes of `procs`, opens and closes alternate. A kernel stack is one thread's; where a call begins on it is random.
#[track_caller]
fn check_pairs(lines: &[common::TraceLine<'_>], qemu: Qemu) {
    let stack = |args: &str| u64::from_str_radix(args.rsplit_once("sp=0x").unwrap().1, 16).unwrap() >> 14;
    let mut by_stack = std::collections::BTreeMap::<u64, Vec<&str>>::new();
    for line in lines.iter().filter(|line| matches!(line.event, "open" | "close")) {
        by_stack.entry(stack(line.args)).or_default().push(line.event);
    }
    let mut processes = 0;
    for events in by_stack.values() {
        let first = events.iter().position(|event| *event == "open").unwrap_or(0);
        if events.len() - first < 10_000 {
            continue;
        }
        processes += 1;
        let pairs = events[first..first + 10_000].chunks(2);
        let wrong = pairs.enumerate().find(|(_, pair)| *pair != ["open", "close"]);
        assert_eq!(wrong, None, "{qemu}");
    }
    assert_eq!(processes, 2, "{qemu}");
}

#[test]
fn nothing_is_lost_when_the_reader_is_slow() {
    for (qemu, threads) in [(Qemu::V11_1, Threads::Multi), (Qemu::V10_0, Threads::Single)] {
        let (boot, trace) = read_slowly(qemu, threads, "lossless");
        let lines = trace_lines(&trace);
        assert_eq!(lines.len(), 60_000, "{qemu}");
        assert_hits(&boot, qemu.version(), &[("getppid", 60_000)]);
        assert_eq!((field(&boot, "getppid", "dropped"), &common::json(&boot)["written"]), (0, &60_000.into()));
        assert_eq!(trace.lines().last(), Some("# end: 60000 records written, 0 lost"), "{qemu}");
        assert!(lines.is_sorted_by_key(|line| line.time), "{qemu}");
    }
}

#[test]
fn what_is_dropped_is_counted() {
    for qemu in Qemu::selected() {
        let (boot, trace) = read_slowly(qemu, Threads::Multi, "drop");
        let lines = trace_lines(&trace);
        let dropped = field(&boot, "getppid", "dropped");
        assert_hits(&boot, qemu.version(), &[("getppid", 60_000)]);
        assert!(dropped > 0, "{qemu}: the reader was not slow enough");
        assert_eq!(lines.len() as u64 + dropped, 60_000, "{qemu}");
        assert_eq!(common::json(&boot)["written"], lines.len() as u64, "{qemu}");
        assert!(lines.is_sorted_by_key(|line| line.time), "{qemu}");
    }
}

/// Where one host thread runs all vCPUs, QEMU does not tell which of them hits: then no number is shown, rather than a
/// wrong one, and all hits are there all the same.
#[test]
fn no_cpu_is_shown_with_one_thread() {
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, KERNEL)
            .smp(2)
            .threads(Threads::Single)
            .append("quiet pti=off")
            .script(["on 1 getppid 100", "threads 2 getppid 5000", "on 0 getppid 100"])
            .plugin_arg("probe=p:getppid __x64_sys_getppid")
            .plugin_arg("probe=p:cpu1 __x64_sys_getppid")
            .plugin_arg("filter=CPU == 1")
            .run_ok();
        assert_hits(&boot, qemu.version(), &[("getppid", 10_200), ("cpu1", 0)]);
        let lines = boot.trace.lines().filter(|line| line.starts_with("           <...>-0       [---] ..... "));
        assert_eq!(lines.count(), 10_200, "{qemu}");
        assert!(boot.stderr.contains("QEMU does not tell which of them hits"), "{qemu}: {}", boot.stderr);
    }
}

/// 60000 calls on two vCPUs into a pipe, out of which nobody reads until pipe and rings are full: the guest stands still then, or has
/// dropped records. Long ones fill a ring sooner.
fn read_slowly(qemu: Qemu, threads: Threads, backpressure: &str) -> (qkprobe_tests::BootResult, String) {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (full, go_on) = mpsc::channel::<()>();
    let reader = thread::spawn({
        let pipe = pipe.clone();
        move || {
            let mut pipe = File::open(pipe).unwrap();
            let mut trace = vec![0; 1024];
            let head = pipe.read(&mut trace).unwrap();
            trace.truncate(head);
            // A test that has failed meanwhile sends nothing.
            let _ = go_on.recv();
            pipe.read_to_end(&mut trace).unwrap();
            String::from_utf8(trace).unwrap()
        }
    });
    let running = Boot::new(qemu, KERNEL)
        .smp(2)
        .threads(threads)
        .append("quiet pti=off")
        .script(["threads 2 getppid 30000"])
        .control()
        .plugin_arg(format!("out={}", pipe.display()))
        .plugin_arg(format!("backpressure={backpressure}"))
        .plugin_arg("probe=p:getppid __x64_sys_getppid regs=+0($arg1):x64[20]")
        .spawn()
        .unwrap();
    let mut client = ControlClient::connect(&running);
    let start = Instant::now();
    let stands_still = |client: &mut ControlClient| {
        let before = client.hits("getppid");
        thread::sleep(Duration::from_secs(1));
        before > 0 && client.hits("getppid") == before
    };
    let is_full = |client: &mut ControlClient| match backpressure {
        "drop" => client.profile()[0].dropped > 0,
        _ => stands_still(client),
    };
    while !is_full(&mut client) {
        assert!(start.elapsed() < PATIENCE, "{qemu}: {:?}", client.profile());
    }
    assert!(backpressure == "drop" || client.hits("getppid") < 60_000, "{qemu}: all that was hit fits into the rings");
    full.send(()).unwrap();
    let boot = running.finish().unwrap();
    boot.assert_ok();
    (boot, reader.join().unwrap())
}
