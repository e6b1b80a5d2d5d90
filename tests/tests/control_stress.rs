//! Thousands of probes come and go in a busy guest, while a few that stay must not lose a hit.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use qkprobe_symbols::KernelImage;
use qkprobe_tests::{Boot, ControlClient, Guest, GuestKernel, Qemu};
use serde_json::json;

const KERNEL: GuestKernel = GuestKernel::X86_64Cloud6_1;
const GETPPID: &str = "__x64_sys_getppid";

/// Where the randomness begins; printed by a test that fails.
const SEED: u64 = 0x2545_f491_4f6c_dd1d;

/// Numbers that look random (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}

/// Where a function that can be traced calls, until the kernel makes that call a nop when it boots.
const TRACER: &str = "__fentry__";

/// Entries of functions that the kernel has once, in the order of addresses.
fn function_entries(image: &KernelImage, most: usize) -> Vec<String> {
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let (tracer, _) = common::symbol(image, TRACER);
    let mut found = Vec::new();
    for symbol in image.symbols.iter() {
        let entry = image.bytes(symbol.addr, 5).is_some_and(|bytes| {
            let to = i32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
            bytes[0] == 0xe8 && symbol.addr.0.wrapping_add(5).wrapping_add_signed(i64::from(to)) == tracer
        });
        let unique = matches!(image.symbols.lookup(None, symbol.name), qkprobe_symbols::Lookup::One(_));
        if entry && unique && plain(symbol.name) && symbol.name != GETPPID && !symbol.name.ends_with("getppid") {
            found.push(symbol.name.to_string());
        }
    }
    let step = (found.len() / most).max(1);
    found.into_iter().step_by(step).take(most).collect()
}

/// The resident memory of QEMU in KiB.
fn resident(qemu: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{qemu}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What the clients of a stress did.
#[derive(Default)]
struct Done {
    qemu: u32,
    /// Resident memory when a quarter was done.
    early: AtomicU64,
    added: AtomicU64,
    deleted: AtomicU64,
    refused: AtomicU64,
    unarmed: AtomicU64,
    hits: AtomicU64,
}

/// Adds and deletes probes of all kinds at `places`, in so many requests, or until somebody else has failed.
fn churn(client: &mut ControlClient, worker: u64, requests: u64, places: &[String], stop: &AtomicBool, done: &Done) {
    let mut random = Random(SEED ^ (worker << 32));
    let mut live: Vec<String> = Vec::new();
    let mut number = 0;
    for request in 0..requests {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if worker == 0 && request == requests / 4 {
            done.early.store(resident(done.qemu), Ordering::Relaxed);
        }
        if live.len() > 300 || (!live.is_empty() && random.below(2) == 0) {
            let many = if random.below(8) == 0 { 40 } else { 1 };
            for _ in 0..many.min(live.len()) {
                let event = live.swap_remove(random.below(live.len()));
                let removed = client.delete(&event);
                assert_eq!(removed.len(), 1, "{event}");
                done.hits.fetch_add(removed[0].hits, Ordering::Relaxed);
                done.deleted.fetch_add(1, Ordering::Relaxed);
            }
            continue;
        }
        let many = if random.below(8) == 0 { 40 } else { 1 };
        let mut names = Vec::new();
        let defs: Vec<_> = (0..many)
            .map(|_| {
                number += 1;
                let (name, place) = (format!("w{worker}_{number}"), &places[random.below(places.len())]);
                names.push(name.clone());
                match random.below(4) {
                    0 => json!({"def": format!("p:{name} {place}"), "action": "count"}),
                    1 => json!({"def": format!("p:{name} {place} di=%di sp=%sp")}),
                    2 => json!({"def": format!("r:{name} {place} $retval")}),
                    _ => json!({"def": format!("p:{name} {place} ax=%ax"), "when": "post"}),
                }
            })
            .collect();
        match client.try_request(json!({"cmd": "add", "defs": defs})) {
            Ok(result) => {
                let unarmed = result["added"].as_array().unwrap().iter().filter(|one| one["armed"] != true).count();
                done.unarmed.fetch_add(unarmed as u64, Ordering::Relaxed);
                done.added.fetch_add(many, Ordering::Relaxed);
                live.append(&mut names);
            }
            // Some first instructions trap on purpose: no post there.
            Err(error) => {
                assert_eq!(error.code, "EOPNOTSUPP", "{error}");
                done.refused.fetch_add(many, Ordering::Relaxed);
            }
        }
    }
    for event in live {
        client.delete(&event);
        done.deleted.fetch_add(1, Ordering::Relaxed);
    }
}

#[track_caller]
fn stress(qemu: Qemu, requests: u64) {
    const CLIENTS: u64 = 4;
    const CALLS: u64 = 20_000;
    const STEPS: usize = 24;
    let places = function_entries(&common::image(KERNEL), 10_000);
    assert!(places.len() > 9000, "{}", places.len());
    let boot = Boot::new(qemu, KERNEL)
        .smp(2)
        .append("quiet pti=off")
        // What grows for good reasons must not hide what leaks: all the guest's memory is there from the start, and translated
        // code fills its cache soon.
        .code_cache(32)
        .extra_args(["-object", "memory-backend-ram,id=ram,size=512M,prealloc=on", "-machine", "memory-backend=ram"])
        .plugin_arg("out=/dev/null")
        .plugin_arg(format!("count=p:inline {GETPPID}"))
        .plugin_arg(format!("count=p:callback {GETPPID} nr=+120($arg1):u64"))
        .plugin_arg("filter=nr==110")
        .plugin_arg(format!("probe=p:event {GETPPID} sp=%sp"))
        .plugin_arg(format!("probe=r:return {GETPPID} $retval"));
    let work = "background procs 2 fork 1000000\nbackground openclose 1000000000 /etc/none".to_owned();
    let calls = (0..STEPS).map(|_| format!("threads 2 getppid {}", CALLS / 2));
    let mut guest = Guest::start(boot, std::iter::once(work).chain(calls));
    guest.step();
    let mut stepped = 0;
    let (stop, done, workers) =
        (AtomicBool::new(false), Done { qemu: guest.running().pid(), ..Done::default() }, AtomicU64::new(CLIENTS));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for worker in 0..CLIENTS {
            let mut client = guest.connect();
            let (places, stop, done, workers) = (&places, &stop, &done, &workers);
            scope.spawn(move || {
                // A worker that fails must not leave the others at work.
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    churn(&mut client, worker, requests / CLIENTS, places, stop, done);
                }));
                workers.fetch_sub(1, Ordering::Relaxed);
                if let Err(panic) = result {
                    stop.store(true, Ordering::Relaxed);
                    std::panic::resume_unwind(panic);
                }
            });
        }
        while workers.load(Ordering::Relaxed) != 0 {
            if stepped < STEPS {
                guest.step();
                stepped += 1;
            } else {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    });
    let took = start.elapsed();
    let (early, late) = (done.early.load(Ordering::Relaxed), resident(done.qemu));
    let status = guest.client.status();
    assert_eq!(status["probes"], 4, "{qemu}: {status}");
    let during = stepped;
    while stepped < STEPS {
        guest.step();
        stepped += 1;
    }
    let result = guest.finish();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{qemu}: {:.1} s, {during} of {STEPS} steps meanwhile, {} added, {} deleted, {} refused, {} not armed at once, {} hits; resident {early} kB at a quarter, \
         {late} kB at the end, {:+} kB",
        took.as_secs_f64(),
        count(&done.added),
        count(&done.deleted),
        count(&done.refused),
        count(&done.unarmed),
        count(&done.hits),
        late as i64 - early as i64
    );
    let expected = CALLS * STEPS as u64;
    let all = ["inline", "callback", "event", "return"].map(|name| (name, expected));
    common::assert_hits(&result, qemu.version(), &all);
    for name in ["inline", "callback", "event", "return"] {
        let probe = result.summary().probe(name).clone();
        assert_eq!((probe.missed, probe.dropped), (0, 0), "{qemu}: {probe:?}");
    }
    assert!(late < early + (32 << 10), "{qemu}: resident memory grew from {early} kB to {late} kB");
    assert_eq!(count(&done.added), count(&done.deleted), "{qemu}");
    assert!(!result.stderr.contains("internal error"), "{}", result.stderr);
}

/// `QKPROBE_STRESS_REQUESTS` makes it longer.
#[test]
fn ten_thousand_places_in_a_busy_guest() {
    let requests = std::env::var("QKPROBE_STRESS_REQUESTS").map_or(4000, |text| text.parse().unwrap());
    for qemu in Qemu::selected() {
        // The older one drops all translated code each time.
        stress(qemu, if qemu == Qemu::V10_0 { requests / 8 } else { requests });
    }
}

/// How long it takes from the request to the reply; nothing but that it ends is asserted.
#[test]
fn how_long_an_add_takes() {
    for qemu in Qemu::selected() {
        let times = if qemu == Qemu::V10_0 { 40 } else { 200 };
        let boot = Boot::new(qemu, KERNEL).smp(2).append("quiet pti=off").plugin_arg("out=/dev/null");
        let work = "background procs 2 openclose 100000000 /etc/none\nbackground pipe 10000000".to_owned();
        let mut guest = Guest::start(boot, [work, "getppid 1".to_owned()]);
        guest.step();
        let mut took = Vec::new();
        let mut armed = 0;
        for time in 0..times {
            let definition = format!("p:t{time} do_sys_openat2 file=+0($arg2):ustring");
            let start = Instant::now();
            let result = guest.client.request(json!({"cmd": "add", "def": definition}));
            took.push(start.elapsed());
            armed += usize::from(result["added"][0]["armed"] == true);
            guest.client.delete(&format!("t{time}"));
        }
        took.sort();
        println!(
            "{qemu}: from add to its reply: median {:?}, 90 % {:?}, most {:?}; {armed} of {times} armed",
            took[times / 2],
            took[times * 9 / 10],
            took[times - 1]
        );
        let status = guest.client.status();
        assert_eq!((&status["armed_sites"], &status["probes"]), (&json!(0), &json!(0)), "{qemu}: {status}");
        guest.step();
        let _ = guest.finish();
    }
}
