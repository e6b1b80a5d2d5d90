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
        let (group, event) = event.split_once('/').map_or((None, event), |(group, event)| (Some(group), event));
        let is_it = |line: &&Value| line["event"] == event && group.is_none_or(|group| line["group"] == group);
        self.events.iter().filter(is_it).map(|line| &line["args"]).collect()
    }

    #[track_caller]
    fn hits(&self, probe: &str) -> u64 {
        self.counts.get(probe).unwrap_or_else(|| panic!("no {probe} in {:?}", self.counts)).0
    }
}

/// Boots with one of the files, and with more probes.
#[track_caller]
fn run(place: &Place, config: &str, script: &str, more: &[&str], status: i32) -> Ran {
    run_all(place, &[config], script, more, status)
}

/// Boots with some of the files at once.
#[track_caller]
fn run_all(place: &Place, configs: &[&str], script: &str, more: &[&str], status: i32) -> Ran {
    place.initrd(script);
    let configs: Vec<String> =
        configs.iter().map(|name| workspace().join("configs").join(name).display().to_string()).collect();
    let configs: Vec<&str> = configs.iter().flat_map(|config| ["-c", config]).collect();
    let args = ["run", "-q", "-k", "vmlinuz", "-i", "initrd.img", "--append", "quiet"];
    let args = [&args[..], &configs, &["--format", "json", "-o", "trace", "--summary", "summary.json"], more].concat();
    place.run(&args).code(status);
    Ran::read(place)
}

impl Ran {
    /// What a run left in its place.
    #[track_caller]
    fn read(place: &Place) -> Self {
        let trace = std::fs::read_to_string(place.path("trace")).unwrap();
        let events = trace.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let summary: Value = serde_json::from_slice(&std::fs::read(place.path("summary.json")).unwrap()).unwrap();
        let counts = summary["probes"].as_array().unwrap().iter().map(|probe| {
            let name = format!("{}/{}", probe["group"].as_str().unwrap(), probe["name"].as_str().unwrap());
            assert_eq!((&probe["missed"], &probe["dropped"]), (&0.into(), &0.into()), "{name}");
            (name, (probe["hits"].as_u64().unwrap(), probe["effects"].as_u64().unwrap()))
        });
        Self { events: events.filter(|line| line["type"] == "event").collect(), counts: counts.collect() }
    }
}

#[test]
fn what_the_boot_and_its_tasks_did() {
    let place = Place::new();
    let ran = run(&place, "boot.toml", "", &[], 0);
    for probe in ["first", "start", "arch", "rest", "init"] {
        assert_eq!(ran.hits(&format!("boot/{probe}")), 1, "{probe}");
    }
    assert_eq!(ran.named("boot/exec").iter().filter(|exec| exec["file"] == "/init").count(), 1);

    assert_initcalls(&run(&place, "initcalls.toml", "", &[], 0), 300);
    assert_tasks(&run(&place, "tasks.toml", "fork 4\nexec 2\n", &[], 0), 4 + 2, 2);
    place.assert_clean();
}

/// More than so many initcalls, one of which unpacks the initramfs.
#[track_caller]
fn assert_initcalls(ran: &Ran, more_than: usize) {
    let calls = ran.named("done");
    assert!(calls.len() > more_than, "{}", calls.len());
    let rootfs: Vec<_> =
        calls.iter().filter(|call| call["call"].as_str().unwrap().starts_with("populate_rootfs+0x0/")).collect();
    assert_eq!(rootfs.len(), 1);
    assert_eq!(rootfs[0]["result"], 0);
    let results = calls.iter().map(|call| call["result"].as_i64().unwrap());
    let bad = results.filter(|result| *result < 0 && *result != -19).count();
    assert_eq!(ran.named("initcall/failed").len(), bad);
    // Each probe reads the clock for itself.
    let slow = calls.iter().filter(|call| call["ns"].as_u64().unwrap() > 20_000_000).count();
    assert!(ran.named("initcall/slow").len().abs_diff(slow) <= 2, "{slow}");
}

/// The script made so many children, so many of which became other programs.
#[track_caller]
fn assert_tasks(ran: &Ran, made: usize, execs: usize) {
    // init itself, and those; the kernel's own helpers are not there, but it tries.
    assert_eq!(ran.named("task/exec").iter().filter(|exec| exec["file"] == "/init").count(), 1 + execs);
    // Who calls itself init first is process 1; its children are those that the script made.
    let name = ran.named("name").into_iter().find(|name| name["name"] == "init").unwrap();
    let children: Vec<_> = ran
        .named("fork")
        .into_iter()
        .filter(|fork| fork["parent"] == name["task"])
        .map(|fork| &fork["child"])
        .collect();
    assert_eq!(children.len(), made);
    let ended = |child: &Value| ran.named("exit").iter().any(|exit| exit["task"] == *child);
    assert!(children.iter().all(|child| ended(child)));
}

#[test]
fn files_and_faults() {
    let place = Place::new();
    let script = "openclose 3 /etc/none\nopenclose 2 /init\nopenclose 2 /etc/hostname\n";
    let ran = run(&place, "failing-opens.toml", script, &["p:calls do_sys_openat2 do count"], 0);
    assert_failing_opens(&ran);

    let ran = run(&place, "opens.toml", script, &[], 0);
    assert_eq!(ran.hits("files/etc"), 5);
    assert!(ran.hits("files/open") >= 8);

    assert_reads(&run(&place, "slow-reads.toml", "cat /proc/kallsyms\n", &["r:all vfs_read do count"], 0));

    let ran = run(&place, "faults.toml", "time 7 fresh\n", &[], 0);
    assert_pages(&ran, 0x7000_0000_0000, 0x1000);
    place.assert_clean();
}

/// The script opens a file three times that is not there.
#[track_caller]
fn assert_failing_opens(ran: &Ran) {
    let none: Vec<_> = ran.named("opens/failed").into_iter().filter(|open| open["file"] == "/etc/none").collect();
    assert_eq!(none.len(), 3);
    assert!(none.iter().all(|open| open["error"] == -2), "{none:?}");
    assert!(ran.named("opens/failed").iter().all(|open| open["file"] != "/init"));
    assert_eq!(ran.hits("opens/all"), ran.hits("kprobes/calls"));
}

/// The script makes the kernel read some hundred times.
#[track_caller]
fn assert_reads(ran: &Ran) {
    let steps = ["below_10us", "below_100us", "below_1ms", "below_10ms", "from_10ms"]
        .map(|step| ran.hits(&format!("read/{step}")));
    // Each probe reads the clock for itself, so a call that takes just as long as a step may be in both or in none.
    let all = ran.hits("kprobes/all");
    assert!(steps.iter().sum::<u64>().abs_diff(all) <= all / 50, "{steps:?} of {all}");
    assert!(all > 400, "{all}");
    assert!(ran.hits("read/slow").abs_diff(steps[4]) <= all / 50, "{} of {steps:?}", ran.hits("read/slow"));
}

/// The script touched seven pages from here on, one after the other.
#[track_caller]
fn assert_pages(ran: &Ran, start: u64, page: u64) {
    let number = |text: &Value| u64::from_str_radix(text.as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap();
    let range = start..start + 7 * page;
    let pages: Vec<_> =
        ran.named("handled").into_iter().filter(|fault| range.contains(&number(&fault["addr"]))).collect();
    let addresses: Vec<u64> = pages.iter().map(|fault| number(&fault["addr"])).collect();
    assert_eq!(addresses, (0..7).map(|index| start + index * page).collect::<Vec<_>>());
    assert!(pages.iter().all(|fault| fault["ns"].as_u64().unwrap() > 0 && fault["result"] == "0x0"), "{pages:?}");
    assert_eq!(ran.hits("fault/bad"), 0);
}

#[test]
fn counters_the_scheduler_injection_and_ends() {
    let place = Place::new();
    assert_counts(&run(&place, "counts.toml", "fork 5\n", &["p:clones kernel_clone do count"], 0), 10);

    let ran = run_all(&place, &["sched.toml", "switches.toml"], "pipe 20\n", &[], 0);
    assert_scheduled(&ran);
    assert_switches(&ran);

    inject_and_stop(&place);
    let ran = run(&place, "panic.toml", "panic\n", &[], 70);
    assert_panicked(&ran);
    place.assert_clean();
}

#[track_caller]
fn assert_counts(ran: &Ran, interrupts: u64) {
    assert_eq!(ran.hits("count/forks"), ran.hits("kprobes/clones"));
    for (probe, least) in [("forks", 5), ("faults", 40), ("switches", 50)] {
        assert!(ran.hits(&format!("count/{probe}")) > least, "{probe}: {:?}", ran.counts);
    }
    assert!(ran.hits("count/interrupts") >= interrupts, "{:?}", ran.counts);
}

/// A byte there and back, at least twenty times, on one vCPU.
#[track_caller]
fn assert_scheduled(ran: &Ran) {
    assert!(ran.hits("sched/schedule") > 40 && ran.hits("sched/woken") > 40, "{:?}", ran.counts);
    assert!(ran.hits("sched/woken") <= ran.hits("sched/wakeups"));
}

#[track_caller]
fn assert_switches(ran: &Ran) {
    assert!(ran.hits("sched/switch") > 40, "{:?}", ran.counts);
    let pairs = ran.named("switch").into_iter().map(|switch| (&switch["prev"], &switch["next"])).collect::<Vec<_>>();
    assert!(pairs.windows(2).all(|two| two[0].1 == two[1].0), "on one vCPU who comes is who goes next");
}

/// A crash by sysrq, which is an oops on the way.
#[track_caller]
fn assert_panicked(ran: &Ran) {
    let formats: Vec<_> = ran.named("panic").into_iter().map(|panic| panic["format"].clone()).collect();
    assert_eq!(formats, ["sysrq triggered crash\n"]);
    assert_eq!((ran.hits("bad/panic"), ran.hits("oom/kill"), ran.hits("bad/oops"), ran.hits("bad/die")), (1, 0, 0, 0));
}

/// Two files of which one must not be there; then the guest is held at a third until somebody says `continue`.
#[track_caller]
fn inject_and_stop(place: &Place) {
    place.initrd("openclose 2 /etc/hosts\nopenclose 1 /init\nopenclose 1 /etc/stop\nsay behind\n");
    let configs = ["inject.toml", "stop.toml"].map(|name| workspace().join("configs").join(name).display().to_string());
    let args = ["run", "-k", "vmlinuz", "-i", "initrd.img", "--console", "console", "--format", "json", "-o", "trace"];
    let more = ["-c", &configs[0], "-c", &configs[1], "--summary", "summary.json"];
    let mut child =
        place.qkprobe(&[&args[..], &more].concat()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let guest = child.id().to_string();
    wait_until("a vCPU that is held", || place.run(&["continue", "-g", &guest]).stdout == "1 released\n");
    assert_eq!(wait(&mut child).code(), Some(0));
    assert!(String::from_utf8_lossy(&std::fs::read(place.path("console")).unwrap()).contains("ok say behind"));
    let ran = Ran::read(place);
    assert_eq!(ran.counts["inject/no_hosts"], (2, 2));
    assert_eq!(ran.counts["inject/mount"].1, 1);
    assert_eq!(ran.counts["stop/open"], (1, 1));
    assert!(ran.named("mount").len() >= 3);
}

/// All files on another guest, in two boots.
#[track_caller]
fn all_files(arch: GuestArch, initcalls: usize, page: u64) {
    const SCRIPT: &str = "fork 4\nexec 2\nopenclose 3 /etc/none\nopenclose 2 /init\nopenclose 2 /etc/hostname\n\
                          time 7 fresh\npipe 250\npanic\n";
    let place = Place::of(arch);
    let mut configs = vec![
        "boot.toml",
        "initcalls.toml",
        "tasks.toml",
        "failing-opens.toml",
        "opens.toml",
        "slow-reads.toml",
        "faults.toml",
        "counts.toml",
        "sched.toml",
        "panic.toml",
    ];
    if arch != GuestArch::Sparc64 {
        configs.push("switches.toml");
    }
    let more = ["p:calls do_sys_openat2 do count", "r:all vfs_read do count", "p:clones kernel_clone do count"];
    let ran = run_all(&place, &configs, SCRIPT, &more, 70);
    for probe in ["start", "arch", "rest", "init"] {
        assert_eq!(ran.hits(&format!("boot/{probe}")), 1, "{probe}");
    }
    // The firmware enters a powerpc kernel there, and the kernel itself once more.
    assert_eq!(ran.hits("boot/first"), if arch == GuestArch::Sparc64 { 1 } else { 2 });
    assert_initcalls(&ran, initcalls);
    // The other end of the pipe is a child, too.
    assert_tasks(&ran, 4 + 2 + 1, 2);
    assert_failing_opens(&ran);
    assert_eq!(ran.hits("files/etc"), 5);
    assert_reads(&ran);
    assert_pages(&ran, 0x700_0000_0000, page);
    // The console of pseries is polled, and nothing else interrupts one vCPU.
    assert_counts(&ran, if arch == GuestArch::Ppc64le { 0 } else { 10 });
    assert_scheduled(&ran);
    if arch != GuestArch::Sparc64 {
        assert_switches(&ran);
    }
    assert_panicked(&ran);
    inject_and_stop(&place);
    place.assert_clean();
}

#[test]
fn all_files_on_ppc64le() {
    all_files(GuestArch::Ppc64le, 300, 0x1_0000);
}

#[test]
fn all_files_on_sparc64() {
    all_files(GuestArch::Sparc64, 100, 0x2000);
}

const TEST: [&str; 7] = ["test", "-k", "vmlinuz", "-i", "initrd.img", "-j", "2"];

/// All tests pass.
#[track_caller]
fn pass_all(place: &Place) {
    place.initrd("openclose 1 /init\n");
    let tests = workspace().join("configs/tests").display().to_string();
    let done = place.run(&[&TEST[..], &[&tests]].concat()).code(0);
    assert!(done.stdout.ends_with("# 3 pass\n"), "{}", done.stdout);
}

#[test]
fn tests_to_copy_on_other_guests() {
    for arch in [GuestArch::Ppc64le, GuestArch::Sparc64] {
        let place = Place::of(arch);
        pass_all(&place);
        place.assert_clean();
    }
}

#[test]
fn tests_to_copy() {
    let place = Place::new();
    pass_all(&place);
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
    let done = place.run(&[&TEST[..], &["changed"]].concat()).code(1);
    assert!(done.stdout.contains("not ok 1 the kernel boots # reboot: "), "{}", done.stdout);
    assert!(done.stdout.contains("not ok 2 first call # reboot: "), "{}", done.stdout);
    assert!(done.stdout.contains("not ok 3 pipes survive a failed allocation # fail: "), "{}", done.stdout);
    place.assert_clean();
}

/// What a kernel has no function for: sparc64's switch_to is a macro.
fn absent(arch: GuestArch) -> &'static [&'static str] {
    match arch {
        GuestArch::Sparc64 => &["__switch_to"],
        _ => &[],
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
    assert_eq!((probes.len(), tests.len()), (13, 3), "a new file needs a test above");
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
