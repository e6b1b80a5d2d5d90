//! Probes that change the guest: results that never were, instructions that do not happen or are others, registers and
//! memory with other values. The guest sees exactly that, as often as was asked for, and nothing else.

mod common;

use common::{assert_hits, field, image, instructions};
use qkprobe_arch::GuestAddr;
use qkprobe_symbols::KernelImage;
use qkprobe_tests::{Boot, BootResult, GuestKernel, Qemu, Threads};

const KERNEL: GuestKernel = GuestKernel::X86_64Cloud6_1;
const QEMU: Qemu = Qemu::V11_1;

/// What fork() of the C library asks for.
const FORK_FLAGS: &str = "flags==0x1200000";

const ENOENT: i64 = 2;

fn boot() -> Boot {
    Boot::new(QEMU, KERNEL)
}

/// A definition on opens of one file, `p` or `r`.
fn opens(kind: &str, name: &str, file: &str, options: &str) -> String {
    format!("probe={kind}:{name} do_sys_openat2 file=+0($arg2):ustring if file == \"{file}\" do {options}")
}

/// Opens that went well and that did not, of the `openclose` lines and their threads from line `line` of the script.
#[track_caller]
fn opened(boot: &BootResult, line: u32) -> (f64, f64) {
    let parts: Vec<_> = boot.qk_all("openclose").filter(|part| part.line == line).collect();
    assert!(!parts.is_empty(), "no openclose in line {line}:\n{}", boot.console);
    parts.iter().fold((0.0, 0.0), |(ok, err), part| (ok + part.number("ok"), err + part.number("err")))
}

#[track_caller]
fn assert_effects(boot: &BootResult, expected: &[(&str, u64)]) {
    let found: Vec<_> = expected.iter().map(|(name, _)| (*name, field(boot, name, "effects"))).collect();
    assert_eq!(found, expected, "{}", boot.stderr);
    for probe in &boot.summary().probes {
        assert_eq!((probe.missed, probe.dropped), (0, 0), "{probe:?}\n{}", boot.stderr);
    }
}

/// The offset of the one instruction of a function that has these bytes.
#[track_caller]
fn offset_of(image: &KernelImage, function: &str, bytes: &[u8]) -> u64 {
    let (start, _) = common::symbol(image, function);
    let has = |offset: u64| image.bytes(GuestAddr(start + offset), bytes.len()).is_some_and(|text| text == bytes);
    let found: Vec<u64> =
        instructions(image, function).into_iter().map(|(offset, _)| offset).filter(|at| has(*at)).collect();
    match found[..] {
        [one] => one,
        _ => panic!("{bytes:02x?} in {function}: {found:?}"),
    }
}

/// The offset of the one call from one function to another, and the offset behind it.
#[track_caller]
fn call_of(image: &KernelImage, function: &str, callee: &str) -> (u64, u64) {
    let target = GuestAddr(common::symbol(image, callee).0);
    let calls = instructions(image, function);
    let mut calls = calls.iter().filter(|(_, insn)| insn.flow == qkprobe_arch::Flow::Call { target });
    match (calls.next(), calls.next()) {
        (Some((offset, insn)), None) => (*offset, offset + u64::from(insn.len)),
        other => panic!("calls of {callee} in {function}: {other:?}"),
    }
}

/// The script of `one_file_is_not_there`; its first line opens what is missing.
const SCRIPT: [&str; 8] = [
    "threads 2 openclose 500 /init",
    "openclose 200 /proc/version",
    "threads 2 openclose 100 /etc/none",
    "threads 2 getppid 1000",
    "fork 20",
    "exec 5",
    "expect-fail cat /etc/none",
    "pipe 10",
];

#[test]
fn one_file_is_not_there() {
    for (append, threads, options) in [
        // With the address layout randomised.
        ("quiet pti=on", Threads::Multi, Some("override=-ENOENT")),
        ("quiet pti=on", Threads::Multi, None),
        ("quiet nokaslr pti=off", Threads::Single, Some("override=-2")),
    ] {
        // From the oldest to the newest.
        let boot = boot().smp(2).threads(threads).append(append).script(SCRIPT);
        let mut boot = boot.plugin_arg(opens("p", "older", "/init", "count"));
        if let Some(options) = options {
            boot = boot.plugin_arg(opens("p", "inject", "/init", &format!("count {options}")));
        }
        let boot = boot
            .plugin_arg(opens("p", "newer", "/init", "count"))
            .plugin_arg("count=p:inside do_filp_open name=+0(+0($arg2)):string if name == \"/init\"")
            .plugin_arg(opens("p", "version", "/proc/version", "count"))
            .plugin_arg(opens("p", "none", "/etc/none", "count"))
            .plugin_arg("count=p:ppids __x64_sys_getppid")
            .plugin_arg(format!("count=p:forks kernel_clone flags=+0($arg1):x64 if {FORK_FLAGS}"))
            .plugin_arg("count=p:execs __x64_sys_execve")
            .run_ok();
        let there = if options.is_some() { 0 } else { 1000 };
        assert_eq!(opened(&boot, 1), (there as f64, 1000.0 - there as f64), "{append} {options:?}");
        assert_eq!(opened(&boot, 2), (200.0, 0.0));
        assert_eq!(opened(&boot, 3), (0.0, 200.0));
        let expected = [
            ("older", there),
            ("newer", 1000),
            // The kernel opens for itself what it executes: the first program, and five more.
            ("inside", there + 6),
            ("version", 200),
            ("none", 201),
            ("ppids", 2000),
            // 20, one for each exec, one for the pipe's other end.
            ("forks", 26),
            ("execs", 5),
        ];
        assert_hits(&boot, append, &expected);
        if options.is_some() {
            assert_hits(&boot, append, &[("inject", 1000)]);
            assert_effects(&boot, &[("inject", 1000)]);
        }
    }
}

/// What a program of the guest gets is the error that was asked for.
#[test]
fn the_error_is_the_one_that_was_asked_for() {
    let errors = ["EIO", "EMFILE", "ENOMEM", "EWOULDBLOCK"];
    let mut boot = boot().append("quiet").script(errors.map(|error| format!("expect-fail cat /proc/{error}")));
    for error in errors {
        boot = boot.plugin_arg(opens("p", error, &format!("/proc/{error}"), &format!("override=-{error}")));
    }
    let boot = boot.run_ok();
    let found: Vec<_> = boot.qk_all("expect-fail").filter_map(|line| line.get("errno")).collect();
    // The C library names this number otherwise.
    assert_eq!(found, ["EIO", "EMFILE", "ENOMEM", "EAGAIN"]);
    assert_effects(&boot, &errors.map(|error| (error, 1)));
}

/// Which of a file's opens fail, by the attributes: computed from the kernel's `fault-injection.rst`, and for the dice
/// with another program's SplitMix64.
const ATTRIBUTES: [(&str, &str, &[u32]); 10] = [
    ("/proc/version", "nth=3", &[3]),
    ("/proc/uptime", "times=5", &[1, 2, 3, 4, 5]),
    ("/proc/stat", "interval=20", &[20, 40, 60, 80, 100]),
    ("/proc/meminfo", "space=96", &[97, 98, 99, 100]),
    ("/proc/cmdline", "space=10 interval=3 times=4", &[13, 16, 19, 22]),
    ("/proc/devices", "times=0", &[]),
    (
        "/proc/filesystems",
        "probability=30 seed=7",
        &[2, 6, 9, 11, 22, 27, 32, 34, 37, 39, 40, 44, 45, 53, 54, 56, 72, 77, 85, 86, 88, 90, 92, 97],
    ),
    ("/proc/iomem", "probability=30 seed=7 times=3", &[2, 6, 9]),
    (
        "/proc/ioports",
        "probability=30 seed=8",
        &[
            5, 9, 14, 17, 18, 22, 26, 27, 28, 32, 33, 37, 39, 43, 46, 49, 50, 51, 55, 56, 58, 61, 65, 74, 82, 83, 87,
            93, 100,
        ],
    ),
    ("/init", "probability=0", &[]),
];

#[test]
fn the_attributes_choose_the_hits() {
    let mut boot = boot().append("quiet").script(ATTRIBUTES.map(|(file, ..)| format!("openclose 100 {file}")));
    for (index, (file, attributes, _)) in ATTRIBUTES.iter().enumerate() {
        boot = boot.plugin_arg(opens("p", &format!("a{index}"), file, &format!("count override=-ENOENT {attributes}")));
    }
    let boot = boot.plugin_arg("probe=r:result do_sys_openat2 file=+0($arg2):ustring ret=$retval:s64").run_ok();
    let records = common::trace_lines(&boot.trace);
    for (index, (file, attributes, expected)) in ATTRIBUTES.iter().enumerate() {
        let start = format!(" file=\"{file}\" ret=");
        let results: Vec<i64> = records
            .iter()
            .filter(|record| record.event == "result")
            .filter_map(|record| record.args.strip_prefix(&start)?.parse().ok())
            .collect();
        assert_eq!(results.len(), 100, "{file}, {attributes}");
        let failed: Vec<u32> =
            (1..).zip(&results).filter(|(_, result)| **result == -ENOENT).map(|(hit, _)| hit).collect();
        assert_eq!(failed, *expected, "{file}, {attributes}");
        assert!(results.iter().all(|result| *result == -ENOENT || *result >= 0), "{file}, {attributes}: {results:?}");
        let effects = expected.len() as u64;
        assert_effects(&boot, &[(&format!("a{index}"), effects)]);
        assert_eq!(opened(&boot, index as u32 + 1), (100.0 - effects as f64, effects as f64), "{file}, {attributes}");
    }
}

/// Two vCPUs hit at the same time, and share the attributes.
#[test]
fn the_attributes_are_exact_on_two_vcpus() {
    let files = ["/init", "/proc/version", "/proc/uptime", "/proc/stat"];
    let boot = boot()
        .smp(2)
        .append("quiet")
        .script(files.map(|file| format!("threads 2 openclose 2000 {file}")))
        .plugin_arg(opens("p", "times", "/init", "count override=-ENOENT times=500"))
        .plugin_arg(opens("p", "interval", "/proc/version", "count override=-ENOENT interval=4"))
        .plugin_arg(opens("p", "nth", "/proc/uptime", "count override=-ENOENT nth=1234"))
        .plugin_arg(opens("p", "dice", "/proc/stat", "count override=-ENOENT probability=25 seed=3"))
        .run_ok();
    let failed: Vec<f64> = (1..=4).map(|line| opened(&boot, line).1).collect();
    assert_eq!(failed[..3], [500.0, 1000.0, 1.0]);
    assert_effects(&boot, &[("times", 500), ("interval", 1000), ("nth", 1), ("dice", failed[3] as u64)]);
    // Binomial, 4000 times 0.25: 7 standard deviations are 192.
    assert!((808.0..=1192.0).contains(&failed[3]), "{failed:?}");
}

/// At one place the newest probe comes first; the one that changes the flow is the last. A return probe that saw the
/// call sees its result, once, whoever made it.
#[test]
fn the_newest_comes_first_and_a_changed_flow_ends_it() {
    let boot = boot()
        .smp(2)
        .append("quiet pti=on")
        .script(["threads 2 openclose 50 /init"])
        .plugin_arg(opens("p", "oldest", "/init", "count"))
        .plugin_arg(opens("r", "late", "/init", "count"))
        .plugin_arg(opens("p", "second", "/init", "count override=-EIO"))
        .plugin_arg(opens("p", "first", "/init", "count override=-EPERM interval=2"))
        .plugin_arg("probe=r:result do_sys_openat2 file=+0($arg2):ustring ret=$retval:s64 if file == \"/init\"")
        .plugin_arg(opens("p", "newest", "/init", "count"))
        .run_ok();
    let expected = [("oldest", 0), ("late", 0), ("second", 50), ("first", 100), ("result", 100), ("newest", 100)];
    assert_hits(&boot, "order", &expected);
    assert_effects(&boot, &[("first", 50), ("second", 50)]);
    assert_eq!(opened(&boot, 1), (0.0, 100.0));
    let results = |value: &str| boot.trace.matches(&format!(" file=\"/init\" ret={value}\n")).count();
    assert_eq!((results("-1"), results("-5")), (50, 50), "{}", boot.trace);
}

/// A return probe's value set by another one: the oldest comes first at a return, so the newer one sees what it set.
#[test]
fn a_result_is_set_at_the_return() {
    let boot = boot()
        .smp(2)
        .append("quiet pti=on")
        .script(["threads 2 openclose 50 /init", "expect-fail cat /proc/version", "getppid 10"])
        .plugin_arg("probe=r:before do_sys_openat2 file=+0($arg2):ustring ret=$retval:s64 if file == \"/init\"")
        .plugin_arg(opens("r", "set", "/init", "count set:$retval=-EACCES"))
        .plugin_arg("probe=r:after do_sys_openat2 file=+0($arg2):ustring ret=$retval:s64 if file == \"/init\"")
        .plugin_arg(opens("r", "cat", "/proc/version", "count set:$retval=-EROFS"))
        .plugin_arg("probe=r:ppid __x64_sys_getppid do count set:%ax=77 times=4")
        .plugin_arg("probe=r:ppid_after __x64_sys_getppid r=$retval:u64")
        .run_ok();
    assert_eq!(opened(&boot, 1), (0.0, 100.0));
    assert_eq!(boot.qk("expect-fail").get("errno"), Some("EROFS"));
    assert_effects(&boot, &[("set", 100), ("cat", 1), ("ppid", 4)]);
    let records = common::trace_lines(&boot.trace);
    let of = |event: &str| -> Vec<&str> {
        records.iter().filter(|record| record.event == event).map(|record| record.args).collect()
    };
    assert_eq!(of("after"), [" file=\"/init\" ret=-13"; 100]);
    let before = of("before");
    assert_eq!(before.len(), 100);
    // The file was opened: a small number.
    let number = |args: &&str| args.strip_prefix(" file=\"/init\" ret=")?.parse::<u32>().ok();
    assert!(before.iter().all(|args| number(args).is_some_and(|fd| fd < 1024)), "{before:?}");
    assert_eq!(of("ppid_after"), [[" r=77"; 4].as_slice(), &[" r=0"; 6]].concat());
}

/// Registers before and after an instruction, memory by pointers of the guest's and by a symbol of the image.
#[test]
fn registers_and_memory_are_set() {
    let image = image(KERNEL);
    // mov 0x60(%rdi),%rdx: the flags of the open.
    let flags = offset_of(&image, "__x64_sys_openat", &[0x48, 0x8b, 0x57, 0x60]);
    let path = "file=+0(+104($arg1)):ustring";
    let inside = "file=+0(+104(%di)):ustring";
    let files = ["version", "uptime", "stat", "meminfo", "cmdline"];
    let boot = boot()
        .append("quiet")
        .script(files.map(|file| format!("expect-fail cat /proc/{file}")))
        .script(["getppid 10", "cat /proc/sys/kernel/pid_max", "openclose 10 /proc/version"])
        // The name, as an argument and as a register.
        .plugin_arg(opens("p", "arg", "/proc/version", "count set:$arg2=0 times=1"))
        .plugin_arg(opens("p", "reg", "/proc/uptime", "count set:%si=0x10"))
        // The saved registers: 0x10000 is O_DIRECTORY. 104 and 96 are regs->si and regs->dx.
        .plugin_arg(format!("count=p:mem __x64_sys_openat {path} if file == \"/proc/stat\" do set:+96($arg1)=0x10000"))
        .plugin_arg(format!(
            "count=p:post __x64_sys_openat+{flags} {inside} if file == \"/proc/meminfo\" do post set:%dx=0x10000"
        ))
        // A byte of the program's own memory: /proc/Xmdline.
        .plugin_arg(format!(
            "count=p:user __x64_sys_openat {path} if file == \"/proc/cmdline\" do set:+6(+104($arg1)):u8=0x58"
        ))
        .plugin_arg("count=p:sym __x64_sys_getppid do set:@pid_max:u32=12345 nth=7")
        // Nothing is there.
        .plugin_arg("count=p:hole __x64_sys_getppid do set:+0(+0x7000000000000000($arg1)):u64=1 times=3")
        .run_ok();
    let found: Vec<_> = boot.qk_all("expect-fail").filter_map(|line| line.get("errno")).collect();
    assert_eq!(found, ["EFAULT", "EFAULT", "ENOTDIR", "ENOTDIR", "ENOENT"], "{}", boot.stderr);
    assert_eq!(boot.file("/proc/sys/kernel/pid_max"), "12345\n");
    assert_eq!(opened(&boot, 8), (10.0, 0.0));
    let effects = [("arg", 1), ("reg", 1), ("mem", 1), ("post", 1), ("user", 1), ("sym", 1), ("hole", 0)];
    let found: Vec<_> = effects.iter().map(|(name, _)| (*name, field(&boot, name, "effects"))).collect();
    assert_eq!(found, effects, "{}", boot.stderr);
    assert_eq!(field(&boot, "hole", "missed"), 3, "{}", boot.stderr);
}

/// Instructions of getppid that do not happen, or are others: what comes out, in order of the calls.
#[test]
fn instructions_are_skipped_and_replaced() {
    let image = image(KERNEL);
    let function = "__x64_sys_getppid";
    let (call, behind) = call_of(&image, function, "__task_pid_nr_ns");
    // mov %eax,%ebx: the result of that call is kept.
    let keep = offset_of(&image, function, &[0x89, 0xc3]);
    assert_eq!(keep, behind);
    let caller = common::symbol(&image, function).0 + behind;
    let text = format!("readtext {function} 64");
    let boot = |smp: u32| {
        Boot::new(QEMU, KERNEL)
            .smp(smp)
            .append("quiet nokaslr pti=on")
            .script([text.as_str(), "threads 2 getppid 500", "on 0 getppid 10", text.as_str()])
            .plugin_arg(format!("count=p:called __task_pid_nr_ns from=+0(%sp):x64 if from == {caller:#x}"))
            .plugin_arg("probe=r:result __x64_sys_getppid r=$retval:s64")
    };
    let texts = |boot: &BootResult| -> Vec<String> {
        boot.qk_all("readtext").map(|line| line.get("fnv1a").unwrap().to_owned()).collect()
    };
    let without = boot(2).run_ok();
    assert_hits(&without, "without", &[("called", 1010), ("result", 1010)]);
    let boot = boot(2)
        // The call does not happen, and its result is another.
        .plugin_arg(format!("count=p:skip {function}+{call} do skip set:%ax=0x777 times=200"))
        .plugin_arg(format!("count=p:nop {function}+{call} do replace=nop set:%ax=0x778 space=900 interval=10"))
        // mov $0x1234,%ebx: it is longer than what it replaces.
        .plugin_arg(format!("count=p:longer {function}+{keep} do replace=bb34120000 times=50"))
        // nopl 0(%rax): the result is what %rbx held.
        .plugin_arg(format!("count=p:set {function}+{keep} do replace=\"b3 7f\" set:%bx=0 space=1000 times=3"))
        .run_ok();
    // nop is newer than skip: it hits first, and changes hits 910, 920, ..., 1010.
    assert_effects(&boot, &[("skip", 200), ("nop", 11), ("longer", 50), ("set", 3)]);
    assert_hits(
        &boot,
        "with",
        &[("called", 1010 - 211), ("result", 1010), ("nop", 1010), ("set", 1010), ("longer", 1007)],
    );
    let results = |value: i64| boot.trace.matches(&format!(" r={value}\n")).count();
    // 50 of the first 200 were replaced behind it.
    assert_eq!((results(0x777), results(0x1234), results(0x7f)), (150, 50, 3), "{}", boot.trace);
    let texts = [texts(&without), texts(&boot)].concat();
    assert_eq!(texts.len(), 4);
    assert!(texts.iter().all(|text| *text == texts[0]), "the guest read other text: {texts:?}");
}
