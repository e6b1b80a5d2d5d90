//! The harness itself, without a plugin.

use std::time::Duration;

use qkprobe_harness::Error;
use qkprobe_symbols::KernelImage;
use qkprobe_tests::{Boot, BootError, Cache, Gate, GuestArch, GuestKernel, PATIENCE, Qemu, Signal, gate};

#[test]
fn script_is_done_line_by_line() {
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, GuestKernel::X86_64Cloud6_1)
            .smp(2)
            .append("nokaslr")
            .second_serial()
            .script([
                "# a comment, then an empty line",
                "",
                "uname",
                "getppid 1000",
                "openclose 10 /init",
                "openclose 5 /etc/none",
                "threads 2 getppid 500",
                "procs 3 openclose 2 /init",
                "fork 3",
                "exec 2",
                "pipe 5",
                "background sleep 50",
                "write /proc/sys/kernel/domainname quite, a name",
                "cat /proc/sys/kernel/domainname",
                "expect-fail write /proc/none text",
                "expect-fail usercode 0xffffffff81000000 1",
                "usercode 0x400000f0 7",
                "write-loop 200 /proc/sys/kernel/domainname one ; two",
                "write-trunc /file text",
                "append /file more",
                "cat /file",
                "sethost other",
                "memtouch 1 2",
                "busy 5",
                "readtext _stext 4096",
                "readtext 0xffffffff81000000 0x1000",
                "kallsyms /dev/ttyS1",
                "wait",
                "say all done",
            ])
            .run_ok();
        assert_eq!(boot.qk("uname").get("cpus"), Some("2"));
        assert_eq!((boot.qk("getppid").line, boot.qk("getppid").get("n")), (4, Some("1000")));
        assert!(boot.qk("getppid").number("ns") > 1.0);
        let opens: Vec<_> =
            boot.qk_all("openclose").map(|line| (line.line, line.part, line.get("ok"), line.get("err"))).collect();
        assert_eq!(opens[..2], [(5, None, Some("10"), Some("0")), (6, None, Some("0"), Some("5"))]);
        assert_eq!(opens[4], (8, Some(2), Some("2"), Some("0")));
        let threads: Vec<_> = boot.qk_all("getppid").filter(|line| line.line == 7).map(|line| line.part).collect();
        assert_eq!(threads, [Some(0), Some(1)]);
        assert_eq!(boot.file("/proc/sys/kernel/domainname"), "quite, a name\n");
        assert_eq!(boot.file("/file"), "text\nmore\n");
        assert_eq!(boot.qk("expect-fail").text, "write errno=ENOENT");
        assert_eq!(boot.qk("usercode").get("n"), Some("7"));
        assert!(boot.qk("write-loop").number("toggles") > 1.0);
        assert_eq!((boot.qk("sleep").line, boot.qk("sleep").part), (12, Some(0)));
        let texts: Vec<_> = boot.qk_all("readtext").map(|line| line.get("fnv1a").unwrap()).collect();
        assert_eq!(texts[0], texts[1], "without KASLR, _stext is at the usual address");
        assert!(boot.second_serial.contains("ffffffff81000000 T _stext\n"), "{} bytes", boot.second_serial.len());
        assert_eq!(boot.qk("say").text, "all done");
    }
}

#[test]
fn failures_are_reported_and_the_script_goes_on() {
    let boot = Boot::new(Qemu::V11_1, GuestKernel::X86_64Cloud6_1)
        .script(["cat /none", "say on", "nonsense", "say never"])
        .run();
    assert!(boot.status.success());
    assert_eq!((boot.qk("cat").ok, boot.qk("cat").text.as_str()), (false, "ENOENT"));
    assert!(boot.qk("say").ok);
    assert!(!boot.qk("nonsense").ok);
    assert_eq!(boot.qk_all("say").count(), 1, "an unknown command ends the script");
    assert!(boot.reached_end());
}

/// Those that no test below boots.
#[test]
fn every_other_kernel_boots() {
    let others = || GuestKernel::ALL.into_iter().filter(|kernel| GuestKernel::of(kernel.arch()) != *kernel);
    assert_eq!(others().count(), 3);
    for qemu in Qemu::selected() {
        for kernel in others() {
            let boot = Boot::new(qemu, kernel).append("quiet").script(["uname"]).run_ok();
            let release = boot.qk("uname").get("release").unwrap();
            let version = kernel.name().split('-').nth(1).unwrap();
            assert!(release.starts_with(&format!("{version}.")), "{release} in {}", kernel.name());
            assert_eq!(boot.qk("uname").get("cpus"), Some("1"), "{}", kernel.name());
        }
    }
}

/// What `uname` says of each machine, and a place where no process may have code.
const MACHINES: [(GuestArch, &str, &str); 6] = [
    (GuestArch::X86_64, "x86_64", "0xffffffff81000000"),
    (GuestArch::I386, "i686", "0xc1000000"),
    (GuestArch::Ppc64le, "ppc64le", "0xc000000000000000"),
    (GuestArch::Ppc64, "ppc64", "0xc000000000000000"),
    (GuestArch::Ppc32, "ppc", "0xc0000000"),
    (GuestArch::Sparc64, "sparc64", "0xfffff80000000000"),
];

/// Where a kernel that is not moved has its banner. By content: Debian's i386 kernels name only functions.
fn banner(kernel: GuestKernel) -> String {
    let image = KernelImage::load(&Cache::open().unwrap().kernel(kernel).unwrap()).unwrap();
    let text = image.banner.unwrap().into_bytes();
    let mut places = image.segments.iter().filter_map(|segment| {
        let offset = segment.bytes.windows(text.len()).position(|window| window == text)?;
        Some(segment.addr.0 + offset as u64)
    });
    format!("{:#x}", places.next().unwrap())
}

#[test]
fn every_guest_does_the_same_script() {
    // FNV-1a of "Linux version 6.".
    let (done, linux_banner) = (["openclose", "time"], "d5941ae07614e4eb");
    for qemu in Qemu::selected() {
        for (arch, machine, kernels) in MACHINES {
            let cpus = arch.max_cpus().min(2);
            let banner = banner(GuestKernel::of(arch));
            let boot = Boot::new(qemu, GuestKernel::of(arch))
                .smp(cpus)
                .append("nokaslr")
                .second_serial()
                .script([
                    "uname",
                    "getppid 1000",
                    "openclose 10 /init",
                    "openclose 5 /etc/none",
                    "openmany 3 /etc/none",
                    "openhex across 2f696e6974",
                    "openhex cut 2f696e6974",
                    "threads 2 getppid 500",
                    "procs 3 openclose 2 /init",
                    "fork 3",
                    "exec 2",
                    "pipe 5",
                    "migrate 4",
                    "epoll 3 4",
                    "recurse 0 2",
                    "recurse 7 2",
                    "recurse 100 50",
                    "recurse 5000 2",
                    &format!("expect-fail usercode {kernels} 1"),
                    "usercode 0x20000f0 7",
                    "time 3 fresh",
                    "time 3 unmapped",
                    "memtouch 1 2",
                    "busy 5",
                    "tasks",
                    &format!("readtext {banner} 16"),
                    "readtext _stext 16",
                    "cat /sys/class/tty/console/active",
                    "write /proc/sys/kernel/kptr_restrict 0",
                    "kallsyms /dev/ttyS1",
                    "cat /sys/kernel/tracing/current_tracer",
                ])
                .run_ok();
            let what = format!("{qemu}, {machine}");
            let version = GuestKernel::of(arch).name().split('-').nth(1).unwrap();
            let release = boot.qk("uname").get("release").unwrap();
            assert!(release.starts_with(&format!("{version}.")), "{release} in {what}");
            assert_eq!(boot.qk("uname").get("machine"), Some(machine), "{what}");
            assert_eq!(boot.qk("uname").get("cpus"), Some(cpus.to_string().as_str()), "{what}");
            let [opens, times] = done.map(|command| {
                boot.qk_all(command)
                    .map(|line| line.get("ok").and_then(|ok| ok.parse::<u32>().ok()).unwrap())
                    .collect::<Vec<_>>()
            });
            assert_eq!((opens, times), (vec![10, 0, 2, 2, 2], vec![3, 0]), "{what}");
            let errors: Vec<_> = boot.qk_all("openhex").map(|line| line.get("errno").unwrap()).collect();
            assert_eq!(errors, ["0", "EFAULT"], "{what}");
            assert_eq!(boot.qk("migrate").number("moved") > 0.0, cpus > 1, "{what}");
            let texts: Vec<_> = boot.qk_all("readtext").map(|line| line.get("fnv1a").unwrap()).collect();
            assert_eq!(texts[0], linux_banner, "{what}");
            assert_ne!(texts[1], linux_banner, "{what}");
            assert!(boot.file("/sys/class/tty/console/active").starts_with(arch.console()), "{what}");
            assert!(boot.second_serial.lines().any(|line| line.ends_with(" _etext")), "{what}");
            assert_eq!(boot.file("/sys/kernel/tracing/current_tracer"), "nop\n", "{what}");
        }
    }
}

/// And a panic ends QEMU.
#[test]
fn every_guest_stops_at_its_gates() {
    for qemu in Qemu::selected() {
        for (arch, machine, _) in MACHINES {
            let script = [gate("one"), "say first".into(), gate("two"), "say second".into(), "panic".into()];
            let running =
                Boot::new(qemu, GuestKernel::of(arch)).append("quiet").gates().script(script).spawn().unwrap();
            let mut gates = Gate::of(&running);
            gates.open(&running, "one", "ok say first");
            assert!(!running.console().contains("ok say second"), "{qemu}, {machine}");
            gates.open(&running, "two", "ok say second");
            let boot = running.finish().unwrap();
            let what = format!("{qemu}, {machine}: {}", boot.console);
            assert!(boot.console.contains("Kernel panic - not syncing: sysrq triggered crash"), "{what}");
            assert!(!boot.reached_end(), "{what}");
        }
    }
}

#[test]
fn oldest_qemu_boots() {
    let boot = Boot::new(Qemu::V7_2, GuestKernel::X86_64Cloud6_1).append("quiet").script(["getppid 1000"]).run_ok();
    assert_eq!(boot.qk("getppid").get("n"), Some("1000"));
}

#[test]
fn running_guest_takes_signals() {
    let boot =
        Boot::new(Qemu::V11_1, GuestKernel::X86_64Cloud6_1).append("quiet").script(["say here", "sleep 1000000"]);
    for signal in [Signal::Terminate, Signal::Kill] {
        let mut running = boot.spawn().unwrap();
        running.wait_for_console("QK 1 ok say here", PATIENCE).unwrap();
        assert!(running.try_wait().unwrap().is_none());
        running.signal(signal).unwrap();
        let result = running.finish().unwrap();
        assert_eq!(result.status.success(), signal == Signal::Terminate, "{}", result.status);
        assert!(!result.reached_end());
    }
}

#[test]
fn time_is_limited() {
    let boot = Boot::new(Qemu::V11_1, GuestKernel::X86_64Cloud6_1).script(["say here", "sleep 1000000"]);
    let error = boot.clone().timeout(Duration::from_secs(1)).try_run().unwrap_err();
    assert!(matches!(error, BootError::Guest(Error::Timeout { .. })), "{error}");
    let mut running = boot.spawn().unwrap();
    let (pid, folder) = (running.pid(), running.folder().to_owned());
    let error = running.wait_for_console("never", Duration::from_millis(1500)).unwrap_err();
    assert!(error.to_string().contains("\"never\" on the console did not come within 1.5 s"), "{error}");
    drop(running);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!folder.exists());
}
