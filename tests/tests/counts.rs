//! Every execution is counted once: not one more, not one less. By inline counters and by callbacks, at entries and inside functions,
//! on one vCPU and on two, wherever the kernel lies, and whatever its page tables do between user and kernel mode.

mod common;

use common::{assert_hits, field, image, instructions};
use qkprobe_arch::Flow;
use qkprobe_tests::{Boot, BootResult, GuestKernel, Qemu, Threads};

/// A guest to count in.
#[derive(Clone, Copy, Debug)]
struct Case {
    kernel: GuestKernel,
    smp: u32,
    threads: Threads,
    append: &'static str,
    /// How often each of two threads calls getppid.
    calls: u64,
}

const fn case(kernel: GuestKernel, smp: u32, threads: Threads, append: &'static str, calls: u64) -> Case {
    Case { kernel, smp, threads, append, calls }
}

/// What fork() and pthread_create() of the C library ask for; kernel threads ask for other things.
const FORK_FLAGS: &str = "flags==0x1200000";
const THREAD_FLAGS: &str = "flags==0x3d0f00";

impl Case {
    /// Boots with one probe of each kind on getppid, one on each of its instructions, and more on opens and children.
    #[track_caller]
    fn check(self, qemu: Qemu) {
        let calls = self.calls;
        let inside: Vec<(String, u64)> = instructions(&image(self.kernel), "__x64_sys_getppid")
            .into_iter()
            .map(|(offset, insn)| {
                // A call comes back; the last one goes to the return thunk.
                let straight = matches!(insn.flow, Flow::Next | Flow::Call { .. } | Flow::Jump { .. } | Flow::Return);
                assert!(straight, "{insn:?} at {offset}");
                (format!("at_{offset}"), offset)
            })
            .collect();
        assert!((10..30).contains(&inside.len()), "{inside:?}");
        let mut boot = Boot::new(qemu, self.kernel)
            .smp(self.smp)
            .threads(self.threads)
            .append(&format!("quiet {}", self.append))
            .script([
                // The last vCPU comes here first, and translates for all.
                format!("on {} getppid 100", self.smp - 1),
                format!("threads 2 getppid {calls}"),
                "procs 3 getppid 100".to_owned(),
                "threads 2 openclose 1000 /etc/none".to_owned(),
                "openclose 500 /init".to_owned(),
                "fork 40".to_owned(),
                "exec 5".to_owned(),
            ]);
        for (name, offset) in &inside {
            boot = boot.plugin_arg(format!("count=p:{name} __x64_sys_getppid+{offset}"));
        }
        let boot = with_common_probes(boot).run_ok();
        let what = format!("{qemu}, {self:?}");
        let getppids = 2 * calls + 400;
        let inside: Vec<(&str, u64)> = inside.iter().map(|(name, _)| (name.as_str(), getppids)).collect();
        assert_hits(&boot, &what, &inside);
        assert_common(&boot, &what, getppids);
        // 40, one for each exec, and three processes of procs; twice two threads.
        assert_hits(&boot, &what, &[("none", 2000), ("init", 500), ("forks", 48), ("threads", 4), ("execs", 5)]);
    }
}

/// Several probes of several kinds on getppid's entry, and some on what else the script does.
fn with_common_probes(boot: Boot) -> Boot {
    boot.plugin_arg("out=/dev/null")
        .plugin_arg("count=p:inline __x64_sys_getppid")
        .plugin_arg("count=p:inline_too __x64_sys_getppid")
        .plugin_arg("probe=p:event __x64_sys_getppid")
        .plugin_arg("count=p:filtered __x64_sys_getppid nr=+120($arg1):u64")
        .plugin_arg("filter=nr==110")
        .plugin_arg("count=p:never __x64_sys_getppid nr=+120($arg1):u64")
        .plugin_arg("filter=nr!=110")
        .plugin_arg("count=p:none do_sys_openat2 file=+0($arg2):ustring")
        .plugin_arg("filter=file == \"/etc/none\"")
        .plugin_arg("count=p:init do_sys_openat2 file=+0($arg2):ustring")
        .plugin_arg("filter=file == \"/init\"")
        .plugin_arg("count=p:forks kernel_clone flags=+0($arg1):x64")
        .plugin_arg(format!("filter={FORK_FLAGS}"))
        .plugin_arg("count=p:threads kernel_clone flags=+0($arg1):x64")
        .plugin_arg(format!("filter={THREAD_FLAGS}"))
        .plugin_arg("count=p:execs __x64_sys_execve")
}

#[track_caller]
fn assert_common(boot: &BootResult, what: &str, getppids: u64) {
    let all =
        [("inline", getppids), ("inline_too", getppids), ("event", getppids), ("filtered", getppids), ("never", 0)];
    assert_hits(boot, what, &all);
    assert_eq!(field(boot, "never", "filtered"), getppids, "{what}");
    assert_eq!(common::json(boot)["written"], getppids, "{what}: records");
    for probe in &boot.summary().probes {
        assert_eq!((probe.missed, probe.dropped), (0, 0), "{what}: {probe:?}");
    }
}

#[test]
fn million_calls_on_one_vcpu() {
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, GuestKernel::X86_64Cloud6_1).append("quiet pti=off").script([
            "getppid 1000000",
            "openclose 100000 /etc/none",
            "openclose 1000 /init",
            "fork 200",
            "pipe 3",
        ]);
        let boot = with_common_probes(boot).run_ok();
        assert_common(&boot, qemu.version(), 1_000_000);
        let rest = [("none", 100_000), ("init", 1000), ("forks", 201), ("threads", 0), ("execs", 0)];
        assert_hits(&boot, qemu.version(), &rest);
    }
}

#[test]
fn two_vcpus_with_a_thread_each() {
    for qemu in Qemu::selected() {
        case(GuestKernel::X86_64Cloud6_1, 2, Threads::Multi, "pti=off", 100_000).check(qemu);
        case(GuestKernel::X86_64Cloud6_12, 2, Threads::Multi, "nokaslr pti=on", 10_000).check(qemu);
    }
}

#[test]
fn two_vcpus_in_one_thread() {
    for qemu in Qemu::selected() {
        case(GuestKernel::X86_64Cloud6_1, 2, Threads::Single, "nokaslr pti=off", 50_000).check(qemu);
    }
}

#[test]
fn every_kernel_on_one_vcpu() {
    for qemu in Qemu::selected() {
        case(GuestKernel::X86_64Generic6_1, 1, Threads::Multi, "pti=on", 50_000).check(qemu);
        case(GuestKernel::X86_64Cloud6_12, 1, Threads::Multi, "pti=off", 50_000).check(qemu);
        case(GuestKernel::X86_64Cloud7, 1, Threads::Multi, "", 50_000).check(qemu);
    }
}

/// The flow of control inside a function with branches: what goes in must come out.
#[test]
fn branches_add_up() {
    let kernel = GuestKernel::X86_64Cloud6_1;
    let insns = instructions(&image(kernel), "do_sys_openat2");
    let (start, size) = common::symbol(&image(kernel), "do_sys_openat2");
    let inside = |target: u64| target.checked_sub(start).filter(|offset| *offset < size);
    let mut boot = Boot::new(Qemu::V11_1, kernel)
        .append("quiet pti=off")
        .script(["openclose 1000 /etc/none", "openclose 2000 /init", "openclose 300 /proc/none/none"])
        .plugin_arg("probe=p:where do_sys_openat2 file=+0($arg2):ustring");
    for (offset, _) in &insns {
        boot = boot.plugin_arg(format!("count=p:at_{offset} do_sys_openat2+{offset}"));
    }
    let boot = boot.run_ok();
    let summary = boot.summary();
    let hits = |offset: u64| summary.probe(&format!("at_{offset}")).hits;
    let (mut left, mut joins, mut branches) = (0, Vec::new(), 0);
    for (offset, insn) in &insns {
        match insn.flow {
            Flow::Jump { target } | Flow::Branch { target } => match inside(target.0) {
                Some(target) => joins.push(target),
                None => left += hits(*offset),
            },
            Flow::Return => left += hits(*offset),
            _ => {}
        }
        branches += usize::from(matches!(insn.flow, Flow::Branch { .. }));
    }
    assert!(branches > 3, "{insns:?}");
    let opens = hits(insns[0].0);
    assert!(opens >= 3300, "{opens}");
    assert_eq!((opens, summary.probe("where").hits), (left, opens), "every call comes out once\n{}", boot.stderr);
    for pair in insns.windows(2) {
        let ((before, insn), (after, _)) = (pair[0], pair[1]);
        if common::falls_through(insn.flow) && !joins.contains(&after) {
            assert_eq!(hits(before), hits(after), "from +{before} to +{after}\n{}", boot.stderr);
        }
    }
}
