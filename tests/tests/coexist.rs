//! The guest's own kprobes, its function tracer and its jump labels rewrite the very instructions that are probed from outside. Both
//! sides count every execution.

mod common;

use common::{assert_hits, field, image, symbol, until_jump};
use qkprobe_arch::{Flow, GuestAddr};
use qkprobe_symbols::KernelImage;
use qkprobe_tests::{Boot, BootResult, GuestArch, GuestKernel, Qemu};

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

/// A guest, and where in its getppid there is something for a kprobe of its own.
struct Guest {
    kernel: GuestKernel,
    getppid: &'static str,
    /// What its own kprobes call that.
    own_name: &'static str,
    /// A register, as definitions name it.
    register: &'static str,
    /// `xor %reg,%reg; mov $1,%reg`: the second is as long as the jump of an optimised kprobe, the first is shorter.
    two_moves: &'static [u8],
    /// Its kprobes become jumps where they can.
    optimizes: bool,
    /// A kprobe at the entry goes by way of ftrace.
    by_ftrace: bool,
    /// Its tracepoints have jump labels; without them they load and compare.
    has_labels: bool,
}

const X86_64: Guest = Guest {
    kernel: GuestKernel::X86_64Cloud6_1,
    getppid: "__x64_sys_getppid",
    own_name: "__x64_sys_getppid",
    register: "%ax",
    two_moves: &[0x31, 0xd2, 0xbe, 1, 0, 0, 0],
    optimizes: true,
    by_ftrace: true,
    has_labels: true,
};
const I386: Guest = Guest {
    kernel: GuestKernel::I386Pae6_1,
    getppid: "__ia32_sys_getppid",
    own_name: "__ia32_sys_getppid",
    two_moves: &[0x31, 0xc9, 0xba, 1, 0, 0, 0],
    ..X86_64
};
/// `li r5,0; li r4,1`: every instruction is as long as the branch of an optimised kprobe.
const PPC64LE: Guest = Guest {
    kernel: GuestKernel::Ppc64le6_1,
    getppid: "sys_getppid",
    own_name: "sys_getppid",
    register: "%r3",
    two_moves: &[0, 0, 0xa0, 0x38, 1, 0, 0x80, 0x38],
    ..X86_64
};
/// The kernels that are built for these tests have no jump labels.
const PPC64: Guest = Guest {
    kernel: GuestKernel::Ppc64Pseries6_1,
    // Without the dot it is the function's descriptor.
    own_name: ".sys_getppid",
    two_moves: &[0x38, 0xa0, 0, 0, 0x38, 0x80, 0, 1],
    // The call of _mcount is not the first instruction.
    by_ftrace: false,
    has_labels: false,
    ..PPC64LE
};
const PPC32: Guest = Guest { kernel: GuestKernel::Ppc32Pmac6_1, own_name: "sys_getppid", ..PPC64 };
/// `ldx [%g4 + 0x398],%o0; clr %o2`.
const SPARC64: Guest = Guest {
    kernel: GuestKernel::Sparc64Sun4u6_1,
    own_name: "sys_getppid",
    register: "%o0",
    two_moves: &[0xd0, 0x59, 0x23, 0x98, 0x94, 0x10, 0x20, 0],
    optimizes: false,
    ..PPC64
};

impl Guest {
    /// The offsets of the instructions of getppid, up to its return and what is in its delay slot, or to the jump to a return:
    /// what follows is padding.
    fn offsets(&self) -> Vec<u64> {
        let arch = self.kernel.arch();
        let insns = common::instructions_of(arch, &image(self.kernel), self.getppid);
        let slot = usize::from(arch == GuestArch::Sparc64);
        let back = insns.iter().position(|(_, insn)| insn.flow == Flow::Return).map(|at| at + slot);
        let jump = || insns.iter().rposition(|(_, insn)| matches!(insn.flow, Flow::Jump { .. }));
        let end = back.or_else(jump).expect("it returns");
        insns[..=end].iter().map(|(offset, _)| *offset).collect()
    }

    /// The offsets of the two moves.
    fn moves(&self) -> (u64, u64) {
        let image = image(self.kernel);
        let (start, _) = symbol(&image, self.getppid);
        let offsets = self.offsets();
        let found = offsets
            .windows(2)
            .find(|pair| image.bytes(GuestAddr(start + pair[0]), self.two_moves.len()) == Some(self.two_moves));
        found.map(|pair| (pair[0], pair[1])).expect("the kernel has these two instructions")
    }

    /// The jump of an optimised kprobe covers more than the probed instruction.
    fn has_wide_jumps(&self) -> bool {
        matches!(self.kernel.arch(), GuestArch::X86_64 | GuestArch::I386)
    }

    /// A counting and a recording probe on every instruction of getppid.
    fn with_probes(&self, mut boot: Boot) -> Boot {
        let Self { getppid, register, .. } = self;
        for offset in self.offsets() {
            boot = boot
                .plugin_arg(format!("count=p:at_{offset} {getppid}+{offset}"))
                .plugin_arg(format!("probe=p:trace_{offset} {getppid}+{offset} value={register}"));
        }
        boot.plugin_arg("out=/dev/null")
    }
}

/// The guest's own kprobes, of every kind, while getppid is called [`CALLS`] times.
fn own_kprobes(guest: &Guest) -> Vec<String> {
    let (short, long) = guest.moves();
    let getppid = guest.own_name;
    let event = |name: &str, value: u32| format!("write {TRACING}/events/kprobes/{name}/enable {value}");
    let add = |text: String| format!("append {TRACING}/kprobe_events {text}");
    let optimization = |value: u32| format!("write /proc/sys/debug/kprobes-optimization {value}");
    // Elsewhere the jump is as long as the instruction in whose place it is.
    let jump = if guest.has_wide_jumps() { until_jump(&format!("{getppid}+{short}")) } else { String::new() };
    let optimized = |offset: u64| format!("until 1000000 {KPROBES} getppid+{offset:#x}    [OPTIMIZED]");
    let script = vec![
        "getppid 500".to_owned(),
        // A breakpoint inside.
        optimization(0),
        add(format!("p:inside {getppid}+{long}")),
        event("inside", 1),
        "getppid 1000".to_owned(),
        // By way of ftrace at the entry, too.
        add(format!("p:entry {getppid}")),
        event("entry", 1),
        "getppid 1000".to_owned(),
        format!("cat {KPROBES}"),
        // A jump instead of the breakpoint.
        optimization(1),
        optimized(long),
        format!("cat {KPROBES}"),
        "getppid 1000".to_owned(),
        format!("cat {PROFILE}"),
        // This waits until the jump is away.
        optimization(0),
        event("inside", 0),
        event("entry", 0),
        "getppid 500".to_owned(),
        // A jump that covers two instructions: the guest runs both in its own buffer.
        optimization(1),
        add(format!("p:wide {getppid}+{short}")),
        event("wide", 1),
        optimized(short),
        jump,
        format!("cat {KPROBES}"),
        "getppid 700".to_owned(),
        optimization(0),
        event("wide", 0),
        "getppid 300".to_owned(),
        format!("cat {PROFILE}"),
    ];
    let is_about_jumps = |line: &String| line.contains("kprobes-optimization") || line.starts_with("until");
    script.into_iter().filter(|line| !line.is_empty() && (guest.optimizes || !is_about_jumps(line))).collect()
}

/// How often they call getppid, and how often of these the guest runs the second move in a buffer of its own.
const CALLS: u64 = 5000;
const ELSEWHERE: u64 = 700;

/// What the guest counted, and what the probes did; getppid was called `more` times besides.
#[track_caller]
fn assert_own_kprobes(guest: &Guest, boot: &BootResult, what: &str, more: u64) {
    let kprobes = shown(boot, KPROBES);
    let has = |list: &str, flag: &str| list.lines().any(|line| line.contains("getppid+") && line.ends_with(flag));
    let is = |list: &str| (has(list, "[OPTIMIZED]"), has(list, "[FTRACE]"));
    assert_eq!(is(&kprobes[0]), (false, guest.by_ftrace), "{what}: {}", kprobes[0]);
    assert_eq!(is(&kprobes[1]), (guest.optimizes, guest.by_ftrace), "{what}: {}", kprobes[1]);
    assert_eq!(is(&kprobes[2]).0, guest.optimizes, "{what}: {}", kprobes[2]);
    let profiles = shown(boot, PROFILE);
    assert_eq!((profile(&profiles[0], "inside"), profile(&profiles[0], "entry")), ((3000, 0), (2000, 0)), "{what}");
    assert_eq!(profile(&profiles[1], "wide"), (ELSEWHERE, 0), "{what}");
    let (_, long) = guest.moves();
    for offset in guest.offsets() {
        // What the guest ran elsewhere, it did not run here.
        let elsewhere = if offset == long && guest.has_wide_jumps() { ELSEWHERE } else { 0 };
        let hits = CALLS - elsewhere + more;
        let (count, trace) = (format!("at_{offset}"), format!("trace_{offset}"));
        assert_hits(boot, what, &[(count.as_str(), hits), (trace.as_str(), hits)]);
        assert_eq!(field(boot, &trace, "dropped"), 0, "{what}");
    }
}

#[track_caller]
fn check_own_kprobes(qemu: Qemu, kernel: GuestKernel) {
    let guest = Guest { kernel, ..X86_64 };
    let boot = Boot::new(qemu, kernel).append("quiet pti=off").script(own_kprobes(&guest));
    let boot = guest.with_probes(boot).run_ok();
    assert_own_kprobes(&guest, &boot, &format!("{qemu}, {}", kernel.name()), 0);
}

#[test]
fn own_kprobes_of_every_kind_at_the_same_place() {
    for qemu in Qemu::selected() {
        check_own_kprobes(qemu, GuestKernel::X86_64Cloud6_1);
    }
    check_own_kprobes(Qemu::V11_1, GuestKernel::X86_64Cloud6_12);
    check_own_kprobes(Qemu::V10_0, GuestKernel::X86_64Cloud7);
}

/// The function tracer of getppid is switched on and off for a while, and two vCPUs call it, each so often; then one calls it
/// 100 times.
fn toggled_tracer(ms: u32, calls: u64) -> Vec<String> {
    vec![
        // ftrace knows the function by the first of its names.
        format!("write {TRACING}/set_ftrace_filter *sys_getppid"),
        format!("background write-loop {ms} {TRACING}/current_tracer function ; nop"),
        format!("threads 2 getppid {calls}"),
        "wait".to_owned(),
        "getppid 100".to_owned(),
    ]
}

/// sched_process_fork is switched on and off, and two vCPUs make so many children each; then 20 more.
fn toggled_tracepoint(ms: u32, children: u64) -> Vec<String> {
    vec![
        format!("background write-loop {ms} {TRACING}/events/sched/sched_process_fork/enable 1 ; 0"),
        format!("procs 2 fork {children}"),
        "wait".to_owned(),
        "fork 20".to_owned(),
    ]
}

#[track_caller]
fn assert_toggled(boot: &BootResult, what: &str) {
    let loops: Vec<_> = boot.qk_all("write-loop").collect();
    assert!(!loops.is_empty(), "{what}");
    for toggles in loops {
        assert!(toggles.number("toggles") >= 4.0 && toggles.number("errors") < 1.0, "{what}: {toggles:?}");
    }
}

/// The function tracer is switched on and off while two vCPUs run through the probed function.
#[test]
fn function_tracer_toggles_on_a_probed_function() {
    for qemu in Qemu::selected() {
        for kernel in [GuestKernel::X86_64Cloud6_1, GuestKernel::X86_64Cloud6_12] {
            let mut boot = Boot::new(qemu, kernel).smp(2).append("quiet pti=off").plugin_arg("out=/dev/null");
            boot = boot.script(toggled_tracer(2500, 200_000));
            let offsets = Guest { kernel, ..X86_64 }.offsets();
            for offset in &offsets[..4] {
                boot = boot.plugin_arg(format!("count=p:at_{offset} __x64_sys_getppid+{offset}"));
            }
            let boot = boot.plugin_arg("probe=p:event __x64_sys_getppid").run_ok();
            let what = format!("{qemu}, {}", kernel.name());
            assert_toggled(&boot, &what);
            let names: Vec<String> = offsets[..4].iter().map(|offset| format!("at_{offset}")).collect();
            let mut expected: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 400_100)).collect();
            expected.push(("event", 400_100));
            assert_hits(&boot, &what, &expected);
        }
    }
}

/// Offsets in kernel_clone.
struct Label {
    before: u64,
    at: u64,
    behind: u64,
    /// Where the jump goes, if its code does not come back to `behind`.
    outside: Option<u64>,
}

/// sched_process_fork's jump label, which every child that could be made passes.
fn jump_label(guest: &Guest) -> Label {
    let mut outside = None;
    let (arch, image) = (guest.kernel.arch(), image(guest.kernel));
    let (start, _) = symbol(&image, "kernel_clone");
    let insns = common::instructions_of(arch, &image, "kernel_clone");
    let label = match arch {
        GuestArch::Ppc64le => {
            let (label, target) = label_of(&image, "__tracepoint_sched_process_fork", "kernel_clone");
            outside = Some(target - start);
            let label = label - start;
            insns.iter().position(|(offset, _)| *offset == label)
        }
        _ => {
            // The first nop of this length.
            let nop: &[u8] =
                if arch == GuestArch::I386 { &[0x3e, 0x8d, 0x74, 0x26, 0] } else { &[0x0f, 0x1f, 0x44, 0, 0] };
            (1..insns.len()).find(|index| image.bytes(GuestAddr(start + insns[*index].0), 5) == Some(nop))
        }
    };
    let label = label.expect("kernel_clone has a jump label");
    assert!(insns[label - 1].1.flow == Flow::Next && insns[label + 1].1.flow == Flow::Next, "{insns:?}");
    let [before, at, behind] = [label - 1, label, label + 1].map(|index| insns[index].0);
    Label { before, at, behind, outside }
}

/// The address of a key's jump label in a function, and where it jumps to, by the image's table of them (Linux `struct jump_entry`: code and target
/// relative to themselves, 32 bits each, then the key, 64 bits).
fn label_of(image: &KernelImage, key: &str, function: &str) -> (u64, u64) {
    let ((start, _), (end, _)) = (symbol(image, "__start___jump_table"), symbol(image, "__stop___jump_table"));
    let ((from, size), (key, _)) = (symbol(image, function), symbol(image, key));
    let relative = |at: u64, len: usize| {
        let mut number = [0; 8];
        number[..len].copy_from_slice(image.bytes(GuestAddr(at), len).expect("the image has its jump table"));
        let shift = 64 - 8 * len;
        at.wrapping_add_signed((i64::from_le_bytes(number) << shift) >> shift)
    };
    // `struct tracepoint` begins with a name and the key; the key's low bits are flags.
    let is_it =
        |entry: &u64| (from..from + size).contains(&relative(*entry, 4)) && relative(entry + 8, 8) & !3 == key + 8;
    let entry = (start..end).step_by(16).find(is_it).expect("the function has the jump label");
    (relative(entry, 4), relative(entry + 4, 4))
}

/// Probes on a jump label and around it, and on who makes children.
fn with_label_probes(guest: &Guest, boot: Boot) -> Boot {
    let Label { before, at, behind, outside } = jump_label(guest);
    let outside = outside.map(|outside| format!("count=p:outside kernel_clone+{outside}"));
    outside
        .into_iter()
        .fold(boot, Boot::plugin_arg)
        .plugin_arg("count=p:entry kernel_clone")
        .plugin_arg("count=p:forks kernel_clone flags=+0($arg1):x64")
        .plugin_arg("filter=flags==0x1200000")
        .plugin_arg(format!("count=p:before kernel_clone+{before}"))
        .plugin_arg(format!("count=p:at kernel_clone+{at}"))
        .plugin_arg(format!("probe=p:at_too kernel_clone+{at}"))
        .plugin_arg(format!("count=p:behind kernel_clone+{behind}"))
}

/// So many children were made by fork.
#[track_caller]
fn assert_label(boot: &BootResult, what: &str, forks: u64) {
    assert_hits(boot, what, &[("forks", forks)]);
    let all = boot.summary().probe("entry").hits;
    assert!(all > forks, "{what}: {all}");
    assert_hits(boot, what, &[("before", all), ("at", all), ("at_too", all)]);
    let summary = boot.summary();
    let outside = summary.probes.iter().find(|probe| probe.name == "outside").map(|probe| probe.hits);
    assert_eq!(summary.probe("behind").hits + outside.unwrap_or(0), all, "{what}: {outside:?}");
    assert_ne!(outside, Some(0), "{what}");
}

/// A tracepoint's nop becomes a jump and a nop again, under a probe, while children are made on two vCPUs.
#[test]
fn jump_label_under_a_probe() {
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, X86_64.kernel).smp(2).append("quiet pti=off").script(toggled_tracepoint(2500, 500));
        let boot = with_label_probes(&X86_64, boot).run_ok();
        assert_toggled(&boot, qemu.version());
        // The background process, two of procs, their children, and twenty.
        assert_label(&boot, qemu.version(), 1 + 2 + 1000 + 20);
    }
}

/// All of it in one boot: kprobes, the function tracer, a jump label.
#[track_caller]
fn check_all(guest: &Guest) {
    for qemu in Qemu::selected() {
        if (guest.kernel.arch(), qemu) == (GuestArch::Sparc64, Qemu::V10_0) {
            // It shows no registers, so nothing could be recorded of them.
            continue;
        }
        let mut boot = Boot::new(qemu, guest.kernel)
            .smp(guest.kernel.arch().max_cpus().min(2))
            .append("quiet")
            .script(own_kprobes(guest))
            .script(toggled_tracer(1500, 50_000));
        if guest.has_labels {
            boot = with_label_probes(guest, boot.script(toggled_tracepoint(1500, 200)));
        }
        let boot = guest.with_probes(boot).run_ok();
        let what = format!("{qemu}, {}", guest.kernel.name());
        assert_own_kprobes(guest, &boot, &what, 100_100);
        assert_toggled(&boot, &what);
        if guest.has_labels {
            // Two background processes.
            assert_label(&boot, &what, 2 + 2 + 400 + 20);
        }
    }
}

#[test]
fn everything_of_an_i386_guest() {
    check_all(&I386);
}

#[test]
fn everything_of_a_ppc64le_guest() {
    check_all(&PPC64LE);
}

#[test]
fn everything_of_a_ppc64_guest() {
    check_all(&PPC64);
}

#[test]
fn everything_of_a_ppc32_guest() {
    check_all(&PPC32);
}

#[test]
fn everything_of_a_sparc64_guest() {
    check_all(&SPARC64);
}
