//! Every file in configs/ does on a real kernel what it says.

mod common;

use std::collections::BTreeMap;
use std::process::Stdio;

use common::{Place, wait, wait_until, workspace};
use qkprobe_tests::{Cache, GuestArch, GuestKernel};
use serde_json::Value;

/// What a run with one of the files left.
struct Ran {
    events: Vec<Value>,
    /// Hits and effects, by GROUP/EVENT.
    counts: BTreeMap<String, (u64, u64)>,
}

impl Ran {
    fn named(&self, event: &str) -> Vec<&Value> {
        self.events.iter().filter(|line| line["event"] == event).map(|line| &line["args"]).collect()
    }

    #[track_caller]
    fn hits(&self, probe: &str) -> u64 {
        self.counts.get(probe).unwrap_or_else(|| panic!("no {probe} in {:?}", self.counts)).0
    }
}

/// Boots with one of the files, and with more probes.
#[track_caller]
fn run(place: &Place, config: &str, script: &str, more: &[&str], status: i32) -> Ran {
    place.initrd(script);
    let config = workspace().join("configs").join(config).display().to_string();
    let args = ["run", "-q", "-k", "vmlinuz", "-i", "initrd.img", "--append", "quiet", "-c", &config];
    let args = [&args[..], &["--format", "json", "-o", "trace", "--summary", "summary.json"], more].concat();
    place.run(&args).code(status);
    let trace = std::fs::read_to_string(place.path("trace")).unwrap();
    let events = trace.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let summary: Value = serde_json::from_slice(&std::fs::read(place.path("summary.json")).unwrap()).unwrap();
    let counts = summary["probes"].as_array().unwrap().iter().map(|probe| {
        let name = format!("{}/{}", probe["group"].as_str().unwrap(), probe["name"].as_str().unwrap());
        assert_eq!((&probe["missed"], &probe["dropped"]), (&0.into(), &0.into()), "{name}");
        (name, (probe["hits"].as_u64().unwrap(), probe["effects"].as_u64().unwrap()))
    });
    Ran { events: events.filter(|line| line["type"] == "event").collect(), counts: counts.collect() }
}

#[test]
fn what_the_boot_and_its_tasks_did() {
    let place = Place::new();
    let ran = run(&place, "boot.toml", "", &[], 0);
    for probe in ["first", "c_code", "start", "rest", "init"] {
        assert_eq!(ran.hits(&format!("boot/{probe}")), 1, "{probe}");
    }
    assert_eq!(ran.named("exec").iter().filter(|exec| exec["file"] == "/init").count(), 1);

    let ran = run(&place, "initcalls.toml", "", &[], 0);
    let calls = ran.named("done");
    assert!(calls.len() > 300, "{}", calls.len());
    let rootfs: Vec<_> =
        calls.iter().filter(|call| call["call"].as_str().unwrap().starts_with("populate_rootfs+0x0/")).collect();
    assert_eq!(rootfs.len(), 1);
    assert_eq!(rootfs[0]["result"], 0);
    let results = calls.iter().map(|call| call["result"].as_i64().unwrap());
    let bad = results.filter(|result| *result < 0 && *result != -19).count();
    assert_eq!(ran.named("failed").len(), bad);
    let slow = calls.iter().filter(|call| call["ns"].as_u64().unwrap() > 20_000_000).count();
    assert_eq!(ran.named("slow").len(), slow);

    let ran = run(&place, "tasks.toml", "fork 4\nexec 2\n", &[], 0);
    // init itself, and two more; the kernel's own helpers are not there, but it tries.
    assert_eq!(ran.named("exec").iter().filter(|exec| exec["file"] == "/init").count(), 3);
    // Who calls itself init first is process 1; its children are those that the script made.
    let name = ran.named("name").into_iter().find(|name| name["name"] == "init").unwrap();
    let children: Vec<_> = ran
        .named("fork")
        .into_iter()
        .filter(|fork| fork["parent"] == name["task"])
        .map(|fork| &fork["child"])
        .collect();
    assert_eq!(children.len(), 6);
    let ended = |child: &Value| ran.named("exit").iter().any(|exit| exit["task"] == *child);
    assert!(children.iter().all(|child| ended(child)));
    place.assert_clean();
}

#[test]
fn files_and_faults() {
    let place = Place::new();
    let script = "openclose 3 /etc/none\nopenclose 2 /init\nopenclose 2 /etc/hostname\n";
    let ran = run(&place, "failing-opens.toml", script, &["p:calls do_sys_openat2 do count"], 0);
    let none: Vec<_> = ran.named("failed").into_iter().filter(|open| open["file"] == "/etc/none").collect();
    assert_eq!(none.len(), 3);
    assert!(none.iter().all(|open| open["error"] == -2), "{none:?}");
    assert!(ran.named("failed").iter().all(|open| open["file"] != "/init"));
    assert_eq!(ran.hits("opens/all"), ran.hits("kprobes/calls"));

    let ran = run(&place, "opens.toml", script, &[], 0);
    assert_eq!(ran.hits("files/etc"), 5);
    assert!(ran.hits("files/open") >= 8);

    let ran = run(&place, "slow-reads.toml", "cat /proc/kallsyms\n", &["r:all vfs_read do count"], 0);
    let steps = ["below_10us", "below_100us", "below_1ms", "below_10ms", "from_10ms"]
        .map(|step| ran.hits(&format!("read/{step}")));
    // Each probe reads the clock for itself, so a call that takes just as long as a step may be in both or in none.
    let all = ran.hits("kprobes/all");
    assert!(steps.iter().sum::<u64>().abs_diff(all) <= all / 50, "{steps:?} of {all}");
    assert!(ran.hits("kprobes/all") > 500, "a file of some megabytes, 4 KiB at a time");
    assert_eq!(ran.hits("read/slow"), steps[4]);

    let ran = run(&place, "faults.toml", "time 7 fresh\n", &[], 0);
    let pages: Vec<_> = ran
        .named("handled")
        .into_iter()
        .filter(|fault| fault["addr"].as_str().unwrap().starts_with("0x70000000"))
        .collect();
    let addresses: Vec<_> = pages.iter().map(|fault| fault["addr"].as_str().unwrap().to_owned()).collect();
    assert_eq!(addresses, (0..7).map(|page| format!("0x70000000{page}000")).collect::<Vec<_>>());
    assert!(pages.iter().all(|fault| fault["ns"].as_u64().unwrap() > 0 && fault["result"] == "0x0"), "{pages:?}");
    assert_eq!(ran.hits("fault/bad"), 0);
    place.assert_clean();
}

#[test]
fn counters_the_scheduler_injection_and_ends() {
    let place = Place::new();
    let ran = run(&place, "counts.toml", "fork 5\n", &["p:clones kernel_clone do count"], 0);
    assert_eq!(ran.hits("count/forks"), ran.hits("kprobes/clones"));
    assert!(ran.hits("count/forks") > 5 && ran.hits("count/faults") > 50 && ran.hits("count/switches") > 50);

    let ran = run(&place, "sched.toml", "pipe 20\n", &[], 0);
    // A byte there and back, twenty times, on one vCPU.
    assert!(ran.hits("sched/switch") > 40 && ran.hits("sched/woken") > 40, "{:?}", ran.counts);
    assert!(ran.hits("sched/woken") <= ran.hits("sched/wakeups"));
    let pairs = ran.named("switch").into_iter().map(|switch| (&switch["prev"], &switch["next"])).collect::<Vec<_>>();
    assert!(pairs.windows(2).all(|two| two[0].1 == two[1].0), "on one vCPU who comes is who goes next");

    let ran = run(&place, "inject.toml", "openclose 2 /etc/hosts\nopenclose 1 /init\n", &[], 0);
    assert_eq!(ran.counts["inject/no_hosts"], (2, 2));
    assert_eq!(ran.counts["inject/mount"].1, 1);
    assert!(ran.named("mount").len() >= 3);

    let ran = run(&place, "panic.toml", "panic\n", &[], 70);
    assert_eq!(ran.named("panic")[0]["format"], "sysrq triggered crash\n");
    assert_eq!((ran.hits("bad/panic"), ran.hits("oom/kill"), ran.hits("bad/oops")), (1, 0, 0));

    // It holds the guest at the file until somebody says `continue`.
    place.initrd("openclose 1 /etc/stop\nsay behind\n");
    let config = workspace().join("configs/stop.toml").display().to_string();
    let args = ["run", "-k", "vmlinuz", "-i", "initrd.img", "-c", &config, "--console", "console"];
    let mut child = place.qkprobe(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let guest = child.id().to_string();
    wait_until("a vCPU that is held", || place.run(&["continue", "-g", &guest]).stdout == "1 released\n");
    assert_eq!(wait(&mut child).code(), Some(0));
    assert!(String::from_utf8_lossy(&std::fs::read(place.path("console")).unwrap()).contains("ok say behind"));
    place.assert_clean();
}

#[test]
fn tests_to_copy() {
    let place = Place::new();
    place.initrd("openclose 1 /init\n");
    let tests = workspace().join("configs/tests").display().to_string();
    let base = ["test", "-k", "vmlinuz", "-i", "initrd.img", "-j", "2"];
    let done = place.run(&[&base[..], &[&tests]].concat()).code(0);
    assert!(done.stdout.ends_with("# 3 pass\n"), "{}", done.stdout);
    // And each can fail.
    place.initrd("write /proc/sysrq-trigger b\nsleep 100000\n");
    let change = |name: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(workspace().join("configs/tests").join(name)).unwrap();
        assert!(text.contains(from), "{name}: {from}");
        place.write(&format!("changed/{name}"), text.replace(from, to));
    };
    change("boot.toml", "[test]", "[test]");
    change("pipe-faults.toml", "nth = 3", "nth = 100");
    change("first-call.toml", "p:first vfs_write count=$arg3:u64", "p:first kernel_kexec");
    let done = place.run(&[&base[..], &["changed"]].concat()).code(1);
    assert!(done.stdout.contains("not ok 1 the kernel boots # reboot: "), "{}", done.stdout);
    assert!(done.stdout.contains("not ok 2 first call # reboot: "), "{}", done.stdout);
    assert!(done.stdout.contains("not ok 3 pipes survive a failed allocation # fail: "), "{}", done.stdout);
    place.assert_clean();
}

/// Places of x86_64 alone, or of parts that a kernel was built without (the network): the others are everywhere.
fn absent(arch: GuestArch) -> &'static [&'static str] {
    match arch {
        GuestArch::X86_64 => &[],
        GuestArch::I386 => &["startup_64", "x86_64_start_kernel"],
        GuestArch::Ppc64le => {
            &["common_interrupt", "exc_page_fault", "exc_page_fault", "startup_64", "x86_64_start_kernel"]
        }
        GuestArch::Ppc64 | GuestArch::Ppc32 => &[
            "__alloc_skb",
            "common_interrupt",
            "exc_page_fault",
            "exc_page_fault",
            "startup_64",
            "x86_64_start_kernel",
        ],
        GuestArch::Sparc64 => &[
            "__alloc_skb",
            "__switch_to",
            "common_interrupt",
            "die",
            "exc_page_fault",
            "exc_page_fault",
            "startup_64",
            "x86_64_start_kernel",
        ],
    }
}

/// Every kernel of the set-up has every place but those; nothing else is wrong with a definition.
#[test]
fn every_definition_is_good_on_every_kernel() {
    let place = Place::new();
    let cache = Cache::open().unwrap();
    let list = |folder: &str| {
        let entries = std::fs::read_dir(workspace().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        entries
            .filter(|path| path.extension().is_some_and(|it| it == "toml"))
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
    };
    let (probes, tests) = (list("configs"), list("configs/tests"));
    assert_eq!((probes.len(), tests.len()), (12, 3), "a new file needs a test above");
    for kernel in GuestKernel::ALL {
        let image = cache.kernel(kernel).unwrap().display().to_string();
        let files: Vec<&str> = probes.iter().chain(&tests).map(String::as_str).collect();
        let wanted = absent(kernel.arch());
        let done = place.run(&[&["check", "-k", &image], &files[..]].concat()).code(i32::from(!wanted.is_empty()));
        if wanted.is_empty() {
            assert_eq!(done.stdout, "56 definitions are good\n", "{kernel:?}");
            continue;
        }
        let lines = done.stderr.lines();
        let mut missing: Vec<&str> =
            lines.clone().filter_map(|line| line.trim().strip_prefix("Command: ")?.split(' ').nth(1)).collect();
        missing.sort_unstable();
        assert_eq!(missing, wanted, "{kernel:?}");
        let unknown = lines.filter(|line| *line == "trace_kprobe: error: Invalid probed address or symbol").count();
        assert_eq!(unknown, wanted.len(), "{kernel:?}: {}", done.stderr);
    }
}
