//! Lives of a guest that are not one boot from start to end on two threads: resets, panics, one thread for all vCPUs,
//! counted instructions, a stopped machine, a snapshot; and a hundred thousand probes.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use qkprobe_symbols::{GuestAddr, KernelImage};
use qkprobe_tests::{Boot, Cache, Gate, GuestKernel, PATIENCE, Qemu, Running, Threads, gate};

const KERNEL: GuestKernel = GuestKernel::X86_64Cloud6_1;
/// The monitor of [`with_monitor`], in the boot's folder, which is QEMU's.
const MONITOR: &str = "monitor.sock";

fn with_monitor(boot: Boot) -> Boot {
    boot.extra_args(["-monitor", &format!("unix:{MONITOR},server=on,wait=off")])
}

/// A command of the human monitor.
#[track_caller]
fn monitor(running: &Running, command: &str) {
    let path = running.folder().join(MONITOR);
    wait_for(|| path.exists(), "the monitor");
    let mut socket = UnixStream::connect(path).unwrap();
    socket.write_all(format!("{command}\n").as_bytes()).unwrap();
    // QEMU reads what came before the end of the connection, then takes the next one.
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let _ = std::io::copy(&mut socket, &mut std::io::sink());
}

#[track_caller]
fn wait_for(mut come: impl FnMut() -> bool, what: &str) {
    let start = Instant::now();
    while !come() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn wait_for_says(running: &Running, text: &str, times: usize) {
    wait_for(|| running.console().matches(text).count() == times, &format!("{text} for the {times}th time"));
}

/// The values of an argument, in the order of the records.
fn values<'a>(trace: &'a str, event: &str, key: &str) -> Vec<&'a str> {
    let (event, key) = (format!(": {event}: ("), format!(" {key}="));
    let value = |line: &'a str| line.split_once(&key)?.1.split(' ').next();
    trace.lines().filter(|line| line.contains(&event)).map(|line| value(line).unwrap()).collect()
}

/// Three boots in one QEMU: each has its own slide, and no count is lost.
#[test]
fn resets() {
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, KERNEL)
            .append("quiet")
            .script(["getppid 111", "say ready", "sleep 1000000"])
            // The harness says -no-reboot; what comes later wins.
            .extra_args(["-action", "reboot=reset"])
            .plugin_arg("probe=p:boot start_kernel ip=%ip banner=@linux_banner:string")
            .plugin_arg("count=p:boots start_kernel")
            .plugin_arg("count=p:early startup_64")
            .plugin_arg("count=p:counted __x64_sys_getppid")
            .plugin_arg("probe=p:traced __x64_sys_getppid ip=%ip");
        let running = with_monitor(boot).spawn().unwrap();
        wait_for_says(&running, "ok say ready", 1);
        for boots in [2, 3] {
            monitor(&running, "system_reset");
            wait_for_says(&running, "ok say ready", boots);
        }
        monitor(&running, "quit");
        let result = running.finish().unwrap();
        assert!(result.status.success(), "{qemu}: {}", result.stderr);
        let summary = result.summary();
        let hits = ["boots", "boot", "early", "counted", "traced"].map(|name| summary.probe(name).hits);
        assert_eq!(hits, [3, 3, 3, 333, 333], "{qemu}: {}", result.stderr);
        assert!(result.trace.ends_with("# end: 336 records written, 0 lost\n"), "{qemu}");
        // KASLR: three times the same slide is one in 200,000.
        let places = values(&result.trace, "boot", "ip");
        assert_eq!(places.len(), 3);
        assert!(places.iter().collect::<BTreeSet<_>>().len() > 1, "{qemu}: {places:?}");
        assert_eq!(values(&result.trace, "boot", "banner"), ["\"Linux"; 3], "{qemu}: {}", result.trace);
        let places = values(&result.trace, "traced", "ip");
        for boot in 0..3 {
            let same = places[111 * boot..111 * (boot + 1)].iter().all(|place| *place == places[111 * boot]);
            assert!(same, "{qemu}: one boot, one slide");
        }
    }
}

/// In little memory, KASLR often loads the kernel where it overlaps the place of the boot before.
#[test]
fn resets_in_little_memory() {
    const BOOTS: usize = 8;
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, KERNEL)
            .memory(128)
            .append("quiet")
            .script(["getppid 10", "say ready", "sleep 1000000"])
            .extra_args(["-action", "reboot=reset"])
            .plugin_arg("count=p:early startup_64")
            .plugin_arg("count=p:boots start_kernel")
            .plugin_arg("probe=p:traced __x64_sys_getppid banner=@linux_banner:string");
        let running = with_monitor(boot).spawn().unwrap();
        for boots in 1..=BOOTS {
            wait_for_says(&running, "ok say ready", boots);
            monitor(&running, if boots == BOOTS { "quit" } else { "system_reset" });
        }
        let result = running.finish().unwrap();
        let summary = result.summary();
        let hits = ["early", "boots", "traced"].map(|name| summary.probe(name).hits);
        assert_eq!(hits, [8, 8, 80], "{qemu}: {}", result.stderr);
        assert_eq!(values(&result.trace, "traced", "banner"), ["\"Linux"; 80], "{qemu}");
    }
}

/// The guest dies; what led there is told, to the last function.
#[test]
fn panic() {
    for qemu in Qemu::selected() {
        let result = Boot::new(qemu, KERNEL)
            .append("quiet")
            .script(["panic"])
            .plugin_arg("probe=p:crash sysrq_handle_crash key=%di:x32")
            .plugin_arg("probe=p:panic panic format=+0($arg1):string")
            .plugin_arg("probe=p:restart emergency_restart")
            .plugin_arg("probe=p:machine native_machine_emergency_restart")
            .run();
        assert!(result.console.contains("Kernel panic - not syncing: sysrq triggered crash"), "{}", result.console);
        let events: Vec<_> = result.trace.lines().filter(|line| !line.starts_with('#')).collect();
        let places: Vec<_> = events.iter().map(|line| line.split(": ").nth(1).unwrap()).collect();
        assert_eq!(places, ["crash", "panic", "restart", "machine"], "{qemu}: {}", result.trace);
        assert!(events[0].ends_with(" key=0x63"), "{}", events[0]);
        assert!(events[1].ends_with(r#" format="sysrq triggered crash\n""#), "{}", events[1]);
        assert!(result.trace.ends_with("# end: 4 records written, 0 lost\n"), "{qemu}");
    }
}

/// QEMU gives the index of the vCPU that translated the block: a record claims none, and the user is told.
#[test]
fn two_vcpus_on_one_thread() {
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, KERNEL)
            .smp(2)
            .threads(Threads::Single)
            .append("quiet")
            .script(["threads 2 getppid 1000"])
            .plugin_arg("count=p:counted __x64_sys_getppid")
            .plugin_arg("probe=p:traced __x64_sys_getppid regs=%di");
        let result = boot.run_ok();
        let summary = result.summary();
        assert_eq!((summary.probe("counted").hits, summary.probe("traced").hits), (2000, 2000), "{qemu}");
        // Each of the two guest threads has its own saved registers on its stack, whatever CPU number a record shows.
        let stacks = values(&result.trace, "traced", "regs");
        let (first, one) = (stacks[0], stacks.iter().filter(|regs| **regs == stacks[0]).count());
        assert_eq!((stacks.len(), one), (2000, 1000), "{qemu}: {first}");
        assert!(result.trace.ends_with("# end: 2000 records written, 0 lost\n"), "{qemu}");
        assert_eq!(result.trace.matches("           <...>-0       [---] ..... ").count(), 2000, "{qemu}");
        assert_eq!(result.stderr.matches("records show no CPU").count(), 1, "{qemu}: {}", result.stderr);
        let result = boot.plugin_arg("format=json").run_ok();
        assert_eq!(result.trace.matches(",\"cpu\":null,").count(), 2000, "{qemu}");
    }
}

#[test]
fn counted_instructions() {
    for qemu in Qemu::selected() {
        let result = Boot::new(qemu, KERNEL)
            .threads(Threads::Single)
            .extra_args(["-icount", "shift=auto"])
            .append("quiet")
            .script(["getppid 1000"])
            .plugin_arg("count=p:counted __x64_sys_getppid")
            .plugin_arg("probe=p:traced __x64_sys_getppid di=%di")
            .run_ok();
        let summary = result.summary();
        assert_eq!((summary.probe("counted").hits, summary.probe("traced").hits), (1000, 1000), "{qemu}");
        assert_eq!(result.trace.matches(": traced: (__do_sys_getppid+0x0/0x40) di=0xff").count(), 1000, "{qemu}");
    }
}

#[test]
fn a_machine_that_never_runs() {
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, KERNEL).extra_args(["-S"]).plugin_arg("probe=p:boot start_kernel");
        let running = with_monitor(boot).spawn().unwrap();
        monitor(&running, "quit");
        let result = running.finish().unwrap();
        assert!(result.status.success(), "{qemu}: {}", result.stderr);
        assert_eq!((result.console.as_str(), result.summary().probe("boot").hits), ("", 0));
        assert!(result.trace.ends_with("# end: 0 records written, 0 lost\n"), "{qemu}");
    }
}

/// The plugin first sees the guest in the middle of its life: a snapshot of a machine that ran without it.
#[test]
fn a_snapshot_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = folder.path().join("snapshot");
    let boot = |qemu| {
        let script = ["say saved", &gate("restored"), "getppid 222", "say done"];
        with_monitor(Boot::new(qemu, KERNEL).append("quiet").gates().script(script))
    };
    for qemu in Qemu::selected() {
        let mut running = boot(qemu).spawn().unwrap();
        running.wait_for_console("ok say saved", PATIENCE).unwrap();
        // Stops the machine, and waits until all is in the file.
        monitor(&running, &format!("migrate file:{}", snapshot.display()));
        monitor(&running, "quit");
        assert!(running.finish().unwrap().status.success());
        let running = boot(qemu)
            .extra_args(["-incoming", &format!("file:{}", snapshot.display())])
            .plugin_arg("count=p:counted __x64_sys_getppid")
            .plugin_arg("probe=p:traced __x64_sys_getppid ip=%ip banner=@linux_banner:string")
            .plugin_arg("count=p:boot start_kernel")
            .spawn()
            .unwrap();
        Gate::of(&running).open(&running, "restored", "ok say done");
        let result = running.finish().unwrap();
        assert!(result.status.success() && result.reached_end(), "{qemu}: {}{}", result.console, result.stderr);
        let summary = result.summary();
        let hits = ["counted", "traced", "boot"].map(|name| summary.probe(name).hits);
        assert_eq!(hits, [222, 222, 0], "{qemu}: {}", result.stderr);
        assert_eq!(values(&result.trace, "traced", "banner"), ["\"Linux"; 222], "{qemu}");
    }
}

/// Places for `count` probes: every function of the kernel, and the second instruction of each that begins with the
/// call of ftrace; round again, as several probes at one place are as good. Returns TOML files of `per_file` probes.
fn many_probes(count: usize, per_file: usize) -> Vec<String> {
    let image = KernelImage::load(&Cache::open().unwrap().kernel(KERNEL).unwrap()).unwrap();
    let has = |addr: u64, bytes: &[u8]| image.bytes(GuestAddr(addr), bytes.len()) == Some(bytes);
    let functions: BTreeSet<u64> = image
        .symbols
        .iter()
        .filter(|symbol| symbol.text && symbol.size > 0 && image.bytes(symbol.addr, 16).is_some())
        .map(|symbol| symbol.addr.0)
        .collect();
    let seconds = functions.iter().filter(|addr| has(**addr, &[0xe8])).map(|addr| addr + 5);
    let places: BTreeSet<u64> = functions.iter().copied().chain(seconds).collect();
    let places: Vec<u64> = places.iter().copied().cycle().take(count).collect();
    let mut index = 0;
    let mut probe = |addr: &u64| {
        index += 1;
        format!("[[probe]]\ndef = \"p:e{index} {addr:#x}\"\naction = \"count\"\n")
    };
    places.chunks(per_file).map(|chunk| chunk.iter().map(&mut probe).collect()).collect()
}

/// The same as `config=` arguments, with the files in `folder`.
fn many_configs(folder: &Path, count: usize, per_file: usize) -> Vec<String> {
    let write = |(index, text): (usize, String)| {
        let path = folder.join(format!("{index}.toml"));
        fs::write(&path, text).unwrap();
        format!("config={}", path.display())
    };
    many_probes(count, per_file).into_iter().enumerate().map(write).collect()
}

/// Measures and reports; asserts only that all are there and count.
#[test]
fn a_hundred_thousand_probes() {
    let folder = tempfile::tempdir().unwrap();
    let configs = many_configs(folder.path(), 100_000, 100);
    for qemu in Qemu::selected() {
        let boot = |configs: &[String]| {
            let boot = Boot::new(qemu, KERNEL)
                .append("quiet")
                .script(["getppid 10000", "openclose 10000 /init"])
                .plugin_arg("count=p:getppid __x64_sys_getppid");
            let start = Instant::now();
            let mut running = configs.iter().cloned().fold(boot, Boot::plugin_arg).spawn().unwrap();
            running.wait_for_console("SeaBIOS", PATIENCE).unwrap();
            let loaded = start.elapsed();
            let result = running.finish().unwrap();
            result.assert_ok();
            println!(
                "{qemu}, {} config files: firmware after {loaded:.2?}, end after {:.2?}, {} ns a getppid, {} ns an open",
                configs.len(),
                result.duration,
                result.qk("getppid").number("ns"),
                result.qk("openclose").number("ns")
            );
            result
        };
        boot(&[]);
        let result = boot(&configs);
        let summary = result.summary();
        assert_eq!(summary.probes.len(), 100_001);
        let at = summary.probe("getppid").address;
        let same: Vec<_> = summary.probes.iter().filter(|probe| probe.address == at).map(|probe| probe.hits).collect();
        assert!(same.len() > 1 && same.iter().all(|hits| *hits == 10_000), "{qemu}: {same:?}");
        let hit = summary.probes.iter().filter(|probe| probe.hits > 0).count();
        assert!(hit > 10_000, "{qemu}: {hit}");
        println!("    {hit} were hit, {} times", summary.probes.iter().map(|probe| probe.hits).sum::<u64>());
    }
}

/// The same in one file.
#[test]
fn a_hundred_thousand_probes_in_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let configs = many_configs(folder.path(), 100_000, 100_000);
    let boot = Boot::new(Qemu::V11_1, KERNEL).extra_args(["-S"]).plugin_arg(&configs[0]);
    let running = with_monitor(boot).spawn().unwrap();
    monitor(&running, "quit");
    let result = running.finish().unwrap();
    assert!(result.status.success(), "{}", result.stderr);
    assert_eq!(result.summary().probes.len(), 100_000);
    println!("ended after {:.2?}", result.duration);
}
