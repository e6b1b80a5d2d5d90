//! Clients that do not read, do not stop, lie, or vanish: nobody else notices.

use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::feed::MAILBOX;
use super::tests::{Peer, Server, eventually};
use super::*;

const LINE: &str =
    r#"{"type":"event","time":1.000000000,"cpu":0,"group":"g","event":"e","place":"f+0x0/0x10","args":{}}"#;

#[test]
fn a_slow_subscriber_loses_and_is_told_and_others_do_not() {
    let server = Server::start();
    let (mut slow, mut quick) = (server.connect(), server.connect());
    assert_eq!(slow.ask(r#"{"cmd": "subscribe"}"#)["ok"], true);
    assert_eq!(quick.ask(r#"{"cmd": "subscribe"}"#)["ok"], true);
    const LINES: u64 = 20_000;
    let received = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&received);
    let reader = thread::spawn(move || {
        for number in 0..LINES {
            assert_eq!(quick.next().expect("a line")["number"], number);
            count.store(number, Ordering::Relaxed);
        }
        quick
    });
    let event = |number: u64| format!("{{\"type\":\"event\",\"number\":{number},\"padding\":\"{:80}\"}}\n", "");
    for number in 0..LINES {
        server.feed.publish("g", "e", event(number).as_bytes());
        // At the pace of the one who reads: what is under way fits into one mailbox.
        eventually(|| number - received.load(Ordering::Relaxed).min(number) < 1000 || reader.is_finished());
    }
    let _quick = reader.join().expect("nothing is lost");
    // Every line is either there or counted, and the count stands where the lines are missing.
    let (mut next, mut lost) = (0, 0);
    while next < LINES {
        let line = slow.next().expect("a line");
        match line["type"].as_str() {
            Some("event") => {
                assert_eq!(line["number"], next);
                next += 1;
            }
            _ => {
                let records = line["records"].as_u64().expect("a number");
                assert_eq!(line, json!({"type": "lost", "records": records}));
                next += records;
                lost += records;
            }
        }
    }
    assert!(lost > 10_000, "{lost}");
    server.feed.publish("g", "e", b"{\"type\":\"event\"}");
    assert_eq!(slow.next(), Some(json!({"type": "event"})));
}

#[test]
fn a_mailbox_is_bounded_and_its_count_stands_where_lines_are_missing() {
    let wake = Arc::new(Wake::new().expect("an eventfd"));
    let mailbox = Arc::new(feed::Mailbox::new(wake));
    let feed = Feed::new();
    feed.subscribe(&mailbox, feed::Filter::new(None));
    let big = vec![b'x'; MAILBOX];
    feed.publish("g", "e", &big);
    let half = vec![b'y'; MAILBOX / 2];
    feed.publish("g", "e", &half);
    feed.publish("g", "e", &half);
    feed.publish("g", "e", b"z");
    let mut out = Vec::new();
    assert!(mailbox.take(&mut out));
    assert!(out.len() <= MAILBOX, "{}", out.len());
    let text = String::from_utf8(out).expect("text");
    let lines: Vec<_> = text.lines().map(|line| &line[..line.len().min(40)]).collect();
    assert_eq!(lines, [r#"{"type":"lost","records":1}"#, &"y".repeat(40), r#"{"type":"lost","records":1}"#, "z",]);
    let mut out = Vec::new();
    assert!(!mailbox.take(&mut out));
    assert!(out.is_empty());
}

/// Sends until the server takes no more; returns how many bytes it took.
fn flood(peer: &mut Peer, request: &str, most: usize) -> usize {
    let block = request.repeat((16 << 10) / request.len() + 1);
    peer.stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let mut sent = 0;
    while sent < most {
        match peer.stream.write(block.as_bytes()) {
            Ok(count) => sent += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => break,
            Err(error) => panic!("{error}"),
        }
    }
    sent
}

#[test]
fn who_asks_without_reading_is_not_read_from() {
    let patience = Duration::from_millis(1500);
    let server = Server::start_with(Limits { patience, ..LIMITS });
    let mut peer = Peer::silent(&server.path);
    let start = Instant::now();
    let sent = flood(&mut peer, "{\"cmd\":\"list\"}\n", 1 << 30);
    // What the two socket buffers hold, and one inbox.
    assert!(sent < 4 << 20, "{sent}");
    let calls = server.fake.calls.load(Ordering::Relaxed);
    assert!(calls < 20_000, "{calls}");
    // Another one does not notice.
    assert_eq!(server.connect().ask(r#"{"cmd": "version"}"#)["ok"], true);
    server.wait_for_clients(0);
    assert!(start.elapsed() >= patience, "{:?}", start.elapsed());
    // Whole lines, as far as they were sent, then the end.
    let mut text = Vec::new();
    let _ = peer.reader.read_to_end(&mut text);
    let whole = text.iter().rposition(|byte| *byte == b'\n').expect("lines");
    for line in text[..whole].split(|byte| *byte == b'\n') {
        serde_json::from_slice::<Value>(line).expect("a whole line");
    }
}

#[test]
fn who_reads_slowly_gets_all_replies() {
    let server = Server::start();
    let mut peer = server.connect();
    let mut writer = peer.stream.try_clone().expect("a copy");
    let asked = thread::spawn(move || {
        for number in 0..5000 {
            writer.write_all(format!("{{\"id\":{number},\"cmd\":\"list\"}}\n").as_bytes()).expect("sends");
        }
    });
    for number in 0..5000 {
        assert_eq!(peer.next().expect("a reply")["id"], number);
        if number % 1000 == 0 {
            thread::sleep(Duration::from_millis(20));
        }
    }
    asked.join().expect("all were sent");
}

#[test]
fn an_endless_line_is_cut() {
    let server = Server::start();
    let mut peer = server.connect();
    let sent = flood(&mut peer, "x", 1 << 30);
    assert!(sent < 4 << 20, "{sent}");
    let reply = peer.next().expect("the reason");
    assert_eq!(reply["error"]["code"], "EMSGSIZE");
    assert_eq!(peer.next(), None);
    server.wait_for_clients(0);
    // The longest line is one that fits.
    let mut peer = server.connect();
    let request = format!("{{\"cmd\":\"add\",\"def\":\"p {}\"}}", "x".repeat((64 << 10) - 24));
    assert_eq!(request.len(), 64 << 10);
    assert_eq!(peer.ask(&request)["ok"], true);
    assert_eq!(peer.ask(format!("{request} "))["error"]["code"], "EMSGSIZE");
    assert_eq!(peer.next(), None);
}

#[test]
fn a_33rd_client_is_told_and_closed() {
    let server = Server::start();
    let mut peers: Vec<_> = (0..32).map(|_| server.connect()).collect();
    let mut late = Peer::silent(&server.path);
    let reply = late.next().expect("the reason");
    assert_eq!(reply["error"]["code"], "EBUSY");
    assert_eq!(reply["error"]["message"], "32 clients are connected: no more are possible");
    assert_eq!(late.next(), None);
    for peer in &mut peers {
        assert_eq!(peer.ask(r#"{"cmd": "version"}"#)["ok"], true);
    }
    peers.pop();
    server.wait_for_clients(31);
    server.connect();
}

#[test]
fn a_panic_closes_only_its_client() {
    let server = Server::start();
    let mut other = server.connect();
    let mut peer = server.connect();
    peer.ask(r#"{"cmd": "subscribe"}"#);
    peer.send("p panic\n");
    assert_eq!(peer.next(), None);
    eventually(|| !server.feed.wanted());
    assert_eq!(other.ask(r#"{"cmd": "version"}"#)["ok"], true);
    assert_eq!(server.connect().ask(r#"{"cmd": "version"}"#)["ok"], true);
}

#[test]
fn who_is_killed_during_a_reply_is_forgotten() {
    let server = Server::start();
    for _ in 0..50 {
        let mut peer = Peer::silent(&server.path);
        peer.ask(r#"{"cmd": "subscribe"}"#);
        peer.send("{\"cmd\":\"list\"}\n".repeat(100));
        server.feed.publish("g", "e", LINE.as_bytes());
    }
    server.wait_for_clients(0);
    assert!(!server.feed.wanted());
}

#[test]
fn stop_does_not_wait_for_stuck_clients() {
    let server = Server::start();
    let mut full = Peer::silent(&server.path);
    full.send("{\"cmd\":\"subscribe\"}\n");
    eventually(|| server.feed.wanted());
    for _ in 0..20_000 {
        server.feed.publish("g", "e", LINE.as_bytes());
    }
    let mut inside = server.connect();
    inside.send("p hang\n");
    let _idle = server.connect();
    // The server is inside the backend's call, and stays there until after the end.
    eventually(|| server.fake.hang.has_begun());
    server.control.stop();
    assert_eq!(server.clients(), 1, "only the one inside is left");
    assert!(!server.path.exists());
    server.fake.hang.go_on();
    server.wait_for_clients(0);
    // Once more, with nobody left.
    server.control.stop();
}

#[test]
fn fifty_clients_come_and_go_while_events_flow() {
    let server = Server::start();
    let stop = AtomicBool::new(false);
    let seed = 0x9e37_79b9_7f4a_7c15_u64;
    thread::scope(|scope| {
        let (server, stop) = (&server, &stop);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                server.feed.publish("g", "e", LINE.as_bytes());
                thread::sleep(Duration::from_micros(20));
            }
        });
        for index in 0..50_u64 {
            scope.spawn(move || {
                let mut random = seed.wrapping_mul(index + 1);
                let mut next = move |below: u64| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random % below
                };
                while !stop.load(Ordering::Relaxed) {
                    let mut peer = Peer::silent(&server.path);
                    peer.stream.set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout");
                    for _ in 0..next(4) {
                        // Those that are turned away cannot send.
                        let _ = match next(6) {
                            0 => peer.stream.write_all(b"{\"cmd\":\"subscribe\"}\n"),
                            1 => peer.stream.write_all(b"{\"cmd\":\"unsubscribe\"}\n"),
                            2 => peer.stream.write_all(b"{\"cmd\":\"li"),
                            3 => peer.stream.shutdown(std::net::Shutdown::Write),
                            4 => peer.stream.read(&mut [0; 512]).map(drop),
                            _ => peer.stream.write_all(b"{\"cmd\":\"list\"}\np x\n-:open\n"),
                        };
                    }
                    thread::sleep(Duration::from_millis(next(10)));
                }
            });
        }
        thread::sleep(Duration::from_secs(2));
        stop.store(true, Ordering::Relaxed);
    });
    server.wait_for_clients(0);
    assert!(!server.feed.wanted());
    assert_eq!(server.connect().ask(r#"{"cmd": "version"}"#)["ok"], true);
}

#[test]
fn a_subscriber_is_not_woken_for_every_line() {
    let wake = Arc::new(Wake::new().expect("an eventfd"));
    let mailbox = Arc::new(feed::Mailbox::new(Arc::clone(&wake)));
    let feed = Feed::new();
    feed.subscribe(&mailbox, feed::Filter::new(None));
    // Wake-ups since the last look, while 200 lines come.
    let wakes = || {
        (0..200).for_each(|_| feed.publish("g", "e", LINE.as_bytes()));
        let mut count = [0; 8];
        rustix::io::read(&*wake, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    };
    let mut out = Vec::new();
    assert_eq!(wakes(), 1);
    // Who found something looks again by himself, until he finds nothing.
    assert!(mailbox.take(&mut out));
    assert_eq!(wakes(), 0);
    assert!(mailbox.take(&mut out) && !mailbox.take(&mut out));
    assert_eq!(wakes(), 1);
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 400);
}
