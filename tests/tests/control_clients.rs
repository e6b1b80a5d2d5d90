//! Clients that are stuck, broken, too many or gone: neither the guest nor an honest client suffers.

mod common;

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use qkprobe_tests::{Boot, ControlClient, Guest, GuestKernel, PATIENCE, Qemu, Running};
use serde_json::json;

const KERNEL: GuestKernel = GuestKernel::X86_64Cloud6_1;
const GETPPID: &str = "__x64_sys_getppid";

/// A guest with an event on getppid and all its memory in use from the start, so that QEMU's memory tells of leaks.
fn boot(qemu: Qemu) -> Boot {
    Boot::new(qemu, KERNEL)
        .append("quiet pti=off")
        .code_cache(32)
        .memory(256)
        .extra_args(["-object", "memory-backend-ram,id=ram,size=256M,prealloc=on", "-machine", "memory-backend=ram"])
        .plugin_arg("out=/dev/null")
        .plugin_arg(format!("probe=p:event {GETPPID} sp=%sp nr=+120($arg1):u64"))
        .plugin_arg(format!("count=p:count {GETPPID}"))
}

/// The resident memory of QEMU in KiB.
fn resident(running: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A client that is served: those that went a moment ago may still be.
#[track_caller]
fn when_there_is_room(running: &Running) -> ControlClient {
    let start = Instant::now();
    loop {
        let mut client = ControlClient::connect_silently(running);
        if client.line().is_some_and(|line| line["protocol"] == 1) {
            return client;
        }
        assert!(start.elapsed() < PATIENCE, "no room for a client");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Counts the events and the lost ones until `total` are accounted for.
#[track_caller]
fn account(client: &mut ControlClient, total: u64) -> (u64, u64) {
    let (mut events, mut lost) = (0, 0);
    while events + lost < total {
        let line = client.event();
        match line["type"].as_str() {
            Some("event") => events += 1,
            Some("lost") => lost += line["records"].as_u64().unwrap(),
            _ => {}
        }
    }
    assert_eq!(events + lost, total);
    (events, lost)
}

/// A million events while one subscriber reads nothing, one reads, and one takes its time.
#[test]
fn a_subscriber_that_does_not_read() {
    const EVENTS: u64 = 1_000_000;
    for qemu in Qemu::selected() {
        let calls = format!("getppid {EVENTS}");
        let mut guest = Guest::start(boot(qemu), ["getppid 100000", &calls, "getppid 1"]);
        let start = Instant::now();
        guest.step();
        let alone = start.elapsed();
        let (mut stuck, mut reads) = (guest.connect(), guest.connect());
        stuck.request(json!({"cmd": "subscribe"}));
        reads.request(json!({"cmd": "subscribe"}));
        let reader = std::thread::spawn(move || account(&mut reads, EVENTS));
        let (before, start) = (resident(guest.running()), Instant::now());
        guest.step();
        let took = start.elapsed();
        let after = resident(guest.running());
        let (events, lost) = reader.join().unwrap();
        println!(
            "{qemu}: {EVENTS} events in {took:?} (100000 without subscribers in {alone:?}), one reader got {events} and \
             lost {lost}; resident {before} kB before, {after} kB after"
        );
        assert_eq!(guest.client.hits("event"), EVENTS + 100_000, "{qemu}");
        assert!(after < before + (64 << 10), "{qemu}: {before} kB grew to {after} kB");
        drop(stuck);
        guest.step();
        let result = guest.finish();
        common::assert_hits(&result, qemu.version(), &[("event", EVENTS + 100_001), ("count", EVENTS + 100_001)]);
        assert_eq!(common::field(&result, "event", "dropped"), 0, "{qemu}");
    }
}

/// Bytes that are no requests, lines without end, and clients that leave in the middle of everything.
#[test]
fn garbage_and_sudden_ends() {
    for qemu in Qemu::selected() {
        let mut guest = Guest::start(boot(qemu).smp(2), ["background getppid 1000000000", "sleep 1"]);
        guest.step();
        // What a request may not be.
        let mut client = guest.connect();
        let long = vec![b'x'; 1 << 20];
        let _ = client.socket().write_all(&long);
        let refusal = client.line().unwrap();
        assert_eq!(refusal["error"]["code"], "EMSGSIZE", "{qemu}: {refusal}");
        assert_eq!(client.line(), None, "{qemu}");
        let mut client = guest.connect();
        for garbage in
            [&b"\xff\xfe\n"[..], b"{\n", b"[1]\n", b"{\"cmd\": 7}\n", b"\0\0\0\n", b"quit\n", b"GET / HTTP/1.1\n"]
        {
            client.socket().write_all(garbage).unwrap();
            let refusal = client.line().unwrap();
            assert_eq!(refusal["ok"], false, "{qemu}: {refusal}");
        }
        assert_eq!(client.status()["probes"], 2, "{qemu}: it is still served");
        // Clients that go while their reply is made, or never read it.
        for round in 0..40 {
            let mut client = when_there_is_room(guest.running());
            let defs: Vec<_> = (0..200).map(|i| format!("p:gone_{round}_{i} {GETPPID} a=%ax")).collect();
            client.send(json!({"cmd": "add", "defs": defs}));
            if round % 2 == 0 {
                client.send(json!({"cmd": "list"}));
                client.send(json!({"cmd": "subscribe"}));
            }
            drop(client);
        }
        // They are obeyed all the same, one after the other.
        let start = Instant::now();
        while guest.client.status()["probes"] != json!(2 + 40 * 200) {
            assert!(start.elapsed() < PATIENCE, "{qemu}: {}", guest.client.status());
            std::thread::sleep(Duration::from_millis(20));
        }
        let removed = guest.client.request(json!({"cmd": "delete", "event": "*"}));
        assert_eq!(removed["removed"].as_array().unwrap().len(), 2 + 40 * 200, "{qemu}");
        let status = guest.client.status();
        assert_eq!((&status["armed_sites"], &status["probes"]), (&json!(0), &json!(0)), "{qemu}: {status}");
        guest.step();
        let result = guest.finish();
        assert!(!result.stderr.contains("internal error"), "{qemu}: {}", result.stderr);
    }
}

#[test]
fn forty_connections() {
    let qemu = Qemu::V11_1;
    let mut guest = Guest::start(boot(qemu), ["getppid 10"]);
    let mut clients: Vec<_> = (0..40).map(|_| ControlClient::connect_silently(guest.running())).collect();
    let greetings: Vec<_> = clients.iter_mut().map(|client| client.line().unwrap()).collect();
    let turned_away = greetings.iter().filter(|line| line["error"]["code"] == "EBUSY").count();
    let served = greetings.iter().filter(|line| line["protocol"] == 1).count();
    // The guest's own client is the first of 32.
    assert_eq!((served, turned_away), (31, 9), "{greetings:?}");
    for (client, _) in clients.iter_mut().zip(&greetings).filter(|(_, line)| line["protocol"] == 1) {
        assert_eq!(client.status()["probes"], 2);
    }
    drop(clients);
    drop(when_there_is_room(guest.running()));
    let mut silent = ControlClient::connect_silently(guest.running());
    guest.step();
    let mut rest = Vec::new();
    let result = guest.finish();
    // At the end every client is closed.
    let _ = silent.line();
    assert_eq!(silent.socket().read_to_end(&mut rest).unwrap_or(0), 0);
    common::assert_hits(&result, qemu.version(), &[("event", 10), ("count", 10)]);
}
