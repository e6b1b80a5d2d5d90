//! The guest's own kprobes, its function tracer and its jump labels rewrite the very instructions that are probed from outside. Both
//! sides count every execution.

mod common;

use common::{assert_hits, field, image, instructions, symbol};
use qkprobe_arch::{Flow, GuestAddr};
use qkprobe_tests::{Boot, BootResult, GuestKernel, Qemu};

const TRACING: &str = "/sys/kernel/tracing";
const PROFILE: &str = "/sys/kernel/tracing/kprobe_profile";
const KPROBES: &str = "/sys/kernel/debug/kprobes/list";

/// What the script showed of this file, each time that it did.
fn shown(boot: &BootResult, path: &str) -> Vec<String> {
    let content = |number: u32| {
        let (_, rest) = boot.console.split_once(&format!("QK {number} begin\n")).unwrap();
        rest.split_once(&format!("QK {number} end-of-file")).unwrap().0.to_owned()
    };
    boot.qk_all("cat").filter(|line| line.get("file") == Some(path)).map(|line| content(line.line)).collect()
}

/// Hits and misses of the guest's own probe, as `kprobe_profile` has them.
#[track_caller]
fn profile(text: &str, name: &str) -> (u64, u64) {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let line = text.lines().map(words).find(|words| words.first().is_some_and(|word| word == name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    (line[1].parse().unwrap(), line[2].parse().unwrap())
}

/// In getppid, `xor %edx,%edx; mov $1,%esi`: the second is as long as the jump of an optimised kprobe, the first is shorter.
fn two_moves(kernel: GuestKernel) -> (u64, u64) {
    let image = image(kernel);
    let (start, _) = symbol(&image, "__x64_sys_getppid");
    let found = instructions(&image, "__x64_sys_getppid").windows(2).find_map(|pair| {
        let text = image.bytes(GuestAddr(start + pair[0].0), 7)?;
        (text == [0x31, 0xd2, 0xbe, 1, 0, 0, 0]).then_some((pair[0].0, pair[1].0))
    });
    found.expect("the kernel has these two instructions")
}

#[track_caller]
fn check_own_kprobes(qemu: Qemu, kernel: GuestKernel) {
    let (short, long) = two_moves(kernel);
    let event = |name: &str, value: u32| format!("write {TRACING}/events/kprobes/{name}/enable {value}");
    let add = |text: String| format!("append {TRACING}/kprobe_events {text}");
    // The kernel takes its time until it knows that nobody is inside.
    let optimized = format!("until 20000 {KPROBES} [OPTIMIZED]");
    let script = [
        "getppid 500".to_owned(),
        // A breakpoint inside.
        "write /proc/sys/debug/kprobes-optimization 0".to_owned(),
        add(format!("p:inside __x64_sys_getppid+{long}")),
        event("inside", 1),
        "getppid 1000".to_owned(),
        // By way of ftrace at the entry, too.
        add("p:entry __x64_sys_getppid".to_owned()),
        event("entry", 1),
        "getppid 1000".to_owned(),
        format!("cat {KPROBES}"),
        // A jump instead of the breakpoint.
        "write /proc/sys/debug/kprobes-optimization 1".to_owned(),
        optimized.clone(),
        format!("cat {KPROBES}"),
        "getppid 1000".to_owned(),
        format!("cat {PROFILE}"),
        event("inside", 0),
        event("entry", 0),
        "getppid 500".to_owned(),
        // A jump that covers two instructions: the guest runs both in its own buffer.
        add(format!("p:wide __x64_sys_getppid+{short}")),
        event("wide", 1),
        optimized,
        format!("cat {KPROBES}"),
        "getppid 700".to_owned(),
        // This waits until the jump is away.
        "write /proc/sys/debug/kprobes-optimization 0".to_owned(),
        event("wide", 0),
        "getppid 300".to_owned(),
        format!("cat {PROFILE}"),
    ];
    let mut boot = Boot::new(qemu, kernel).append("quiet pti=off").script(script).plugin_arg("out=/dev/null");
    let offsets: Vec<u64> =
        instructions(&image(kernel), "__x64_sys_getppid").iter().map(|(offset, _)| *offset).collect();
    for offset in &offsets {
        boot = boot
            .plugin_arg(format!("count=p:at_{offset} __x64_sys_getppid+{offset}"))
            .plugin_arg(format!("probe=p:trace_{offset} __x64_sys_getppid+{offset} ax=%ax"));
    }
    let boot = boot.run_ok();
    let what = format!("{qemu}, {}", kernel.name());

    let kprobes = shown(&boot, KPROBES);
    assert!(!kprobes[0].contains("[OPTIMIZED]") && kprobes[0].contains("[FTRACE]"), "{what}: {}", kprobes[0]);
    assert!(kprobes[1].contains("[OPTIMIZED]") && kprobes[1].contains("[FTRACE]"), "{what}: {}", kprobes[1]);
    assert!(kprobes[2].contains("[OPTIMIZED]"), "{what}: {}", kprobes[2]);
    let profiles = shown(&boot, PROFILE);
    assert_eq!((profile(&profiles[0], "inside"), profile(&profiles[0], "entry")), ((3000, 0), (2000, 0)), "{what}");
    assert_eq!(profile(&profiles[1], "wide"), (700, 0), "{what}");

    for offset in offsets {
        // What the guest ran elsewhere, it did not run here.
        let hits = if offset == long { 5000 - 700 } else { 5000 };
        let (count, trace) = (format!("at_{offset}"), format!("trace_{offset}"));
        assert_hits(&boot, &what, &[(count.as_str(), hits), (trace.as_str(), hits)]);
        assert_eq!(field(&boot, &trace, "dropped"), 0, "{what}");
    }
}

#[test]
fn own_kprobes_of_every_kind_at_the_same_place() {
    for qemu in Qemu::selected() {
        check_own_kprobes(qemu, GuestKernel::X86_64Cloud6_1);
    }
    check_own_kprobes(Qemu::V11_1, GuestKernel::X86_64Cloud6_12);
    check_own_kprobes(Qemu::V10_0, GuestKernel::X86_64Cloud7);
}

/// The function tracer is switched on and off while two vCPUs run through the probed function.
#[test]
fn function_tracer_toggles_on_a_probed_function() {
    for qemu in Qemu::selected() {
        for kernel in [GuestKernel::X86_64Cloud6_1, GuestKernel::X86_64Cloud6_12] {
            // ftrace knows the function by the first of its names.
            let mut boot = Boot::new(qemu, kernel).smp(2).append("quiet pti=off").plugin_arg("out=/dev/null").script([
                format!("write {TRACING}/set_ftrace_filter __do_sys_getppid"),
                format!("background write-loop 2500 {TRACING}/current_tracer function ; nop"),
                "threads 2 getppid 200000".to_owned(),
                "wait".to_owned(),
                "getppid 100".to_owned(),
            ]);
            let offsets: Vec<u64> =
                instructions(&image(kernel), "__x64_sys_getppid").iter().map(|(offset, _)| *offset).collect();
            for offset in &offsets[..4] {
                boot = boot.plugin_arg(format!("count=p:at_{offset} __x64_sys_getppid+{offset}"));
            }
            let boot = boot.plugin_arg("probe=p:event __x64_sys_getppid").run_ok();
            let what = format!("{qemu}, {}", kernel.name());
            let toggles = boot.qk("write-loop");
            assert!(toggles.number("toggles") > 3.0 && toggles.number("errors") < 1.0, "{what}: {toggles:?}");
            let names: Vec<String> = offsets[..4].iter().map(|offset| format!("at_{offset}")).collect();
            let mut expected: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 400_100)).collect();
            expected.push(("event", 400_100));
            assert_hits(&boot, &what, &expected);
        }
    }
}

/// A tracepoint's nop becomes a jump and a nop again, under a probe, while children are made on two vCPUs.
#[test]
fn jump_label_under_a_probe() {
    let kernel = GuestKernel::X86_64Cloud6_1;
    let clone = image(kernel);
    let (start, _) = symbol(&clone, "kernel_clone");
    let insns = instructions(&clone, "kernel_clone");
    let is_label = |offset: u64| clone.bytes(GuestAddr(start + offset), 5) == Some(&[0x0f, 0x1f, 0x44, 0, 0]);
    let labels: Vec<usize> = (1..insns.len()).filter(|index| is_label(insns[*index].0)).collect();
    // sched_process_fork's is the first: every child that could be made passes it.
    let label = labels[0];
    assert!(insns[label - 1].1.flow == Flow::Next && insns[label + 1].1.flow == Flow::Next, "{insns:?}");
    let (before, at, behind) = (insns[label - 1].0, insns[label].0, insns[label + 1].0);
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, kernel)
            .smp(2)
            .append("quiet pti=off")
            .script([
                format!("background write-loop 2500 {TRACING}/events/sched/sched_process_fork/enable 1 ; 0"),
                "procs 2 fork 500".to_owned(),
                "wait".to_owned(),
                "fork 20".to_owned(),
            ])
            .plugin_arg("count=p:entry kernel_clone")
            .plugin_arg("count=p:forks kernel_clone flags=+0($arg1):x64")
            .plugin_arg("filter=flags==0x1200000")
            .plugin_arg(format!("count=p:before kernel_clone+{before}"))
            .plugin_arg(format!("count=p:at kernel_clone+{at}"))
            .plugin_arg(format!("probe=p:at_too kernel_clone+{at}"))
            .plugin_arg(format!("count=p:behind kernel_clone+{behind}"))
            .run_ok();
        let toggles = boot.qk("write-loop");
        assert!(toggles.number("toggles") > 3.0 && toggles.number("errors") < 1.0, "{qemu}: {toggles:?}");
        // The background process, two of procs, their children, and twenty.
        assert_hits(&boot, qemu.version(), &[("forks", 1 + 2 + 1000 + 20)]);
        let all = boot.summary().probe("entry").hits;
        assert!(all > 1023, "{qemu}: {all}");
        assert_hits(&boot, qemu.version(), &[("before", all), ("at", all), ("at_too", all), ("behind", all)]);
    }
}
