//! Probes that change the guest: QEMU 11.1.

use qkprobe_symbols::ByteOrder;
use qkprobe_tests::{BootResult, GuestKernel, Qemu};

use crate::common::{assert_hits, field, image, symbol, trace_lines};
use crate::{KERNELS, behind_calls, boot, is_64};

const QEMU: Qemu = Qemu::V11_1;

/// A definition on opens of one file, `p` or `r`.
fn opens(kind: &str, name: &str, file: &str, options: &str) -> String {
    format!("probe={kind}:{name} do_sys_openat2 file=+0($arg2):ustring if file == \"{file}\" do {options}")
}

/// Opens that went well and that did not, of the `openclose` lines and their threads from line `line` of the script.
#[track_caller]
fn opened(boot: &BootResult, line: u32) -> (u64, u64) {
    let parts: Vec<_> = boot.qk_all("openclose").filter(|part| part.line == line).collect();
    assert!(!parts.is_empty(), "no openclose in line {line}:\n{}", boot.console);
    parts.iter().fold((0, 0), |(ok, err), part| (ok + part.number("ok") as u64, err + part.number("err") as u64))
}

#[track_caller]
fn assert_effects(what: &str, boot: &BootResult, expected: &[(&str, u64)]) {
    let found: Vec<_> = expected.iter().map(|(name, _)| (*name, field(boot, name, "effects"))).collect();
    assert_eq!(found, expected, "{what}\n{}", boot.stderr);
    for probe in &boot.summary().probes {
        assert_eq!((probe.missed, probe.dropped), (0, 0), "{what}: {probe:?}\n{}", boot.stderr);
    }
}

#[test]
fn one_file_is_not_there() {
    for (kernel, smp) in KERNELS {
        let boot = boot(QEMU, kernel, smp)
            .script([
                "threads 2 openclose 500 /init",
                "openclose 200 /proc/version",
                "threads 2 openclose 100 /etc/none",
                "threads 2 getppid 1000",
                "exec 5",
                "expect-fail cat /proc/uptime",
                "expect-fail cat /proc/stat",
            ])
            .plugin_arg(opens("p", "older", "/init", "count"))
            .plugin_arg(opens("p", "inject", "/init", "count override=-2"))
            .plugin_arg(opens("p", "newer", "/init", "count"))
            .plugin_arg("count=p:inside do_filp_open name=+0(+0($arg2)):string if name == \"/init\"")
            .plugin_arg(opens("p", "version", "/proc/version", "count"))
            .plugin_arg(opens("p", "none", "/etc/none", "count"))
            .plugin_arg(opens("p", "io", "/proc/uptime", "count override=-EIO"))
            // The oldest comes first at a return.
            .plugin_arg(opens("r", "access", "/proc/stat", "count set:$retval=-EACCES"))
            .plugin_arg("count=p:ppids sys_getppid")
            .plugin_arg("count=p:execs sys_execve")
            .plugin_arg("probe=r:result do_sys_openat2 file=+0($arg2):ustring ret=$retval:s32 if file == \"/init\"")
            .run_ok();
        let what = kernel.name();
        assert_eq!([1, 2, 3].map(|line| opened(&boot, line)), [(0, 1000), (200, 0), (0, 200)], "{what}");
        let errors: Vec<_> = boot.qk_all("expect-fail").filter_map(|line| line.get("errno")).collect();
        assert_eq!(errors, ["EIO", "EACCES"], "{what}");
        // The kernel opens for itself what it executes: the first program, and five more.
        let expected =
            [("older", 0), ("inject", 1000), ("newer", 1000), ("inside", 6), ("version", 200), ("none", 200)];
        assert_hits(&boot, what, &expected);
        assert_hits(&boot, what, &[("io", 1), ("access", 1), ("ppids", 2000), ("execs", 5)]);
        assert_effects(what, &boot, &[("inject", 1000), ("io", 1), ("access", 1)]);
        // Newer than the one that ended it, so it saw the call and its return.
        assert_eq!(boot.trace.matches(" file=\"/init\" ret=-2\n").count(), 1000, "{what}");
    }
}

/// Registers before and after an instruction, memory by pointers of the guest's and by a symbol of the image.
#[test]
fn registers_and_memory_are_set() {
    for (kernel, _) in KERNELS {
        // `pt_regs` begins with the general registers: r4 is the name, r5 are the flags.
        let word = if is_64(kernel) { 8 } else { 4 };
        let (name, flags) = (4 * word, 5 * word);
        let path = format!("file=+0(+{name}($arg1)):ustring");
        let files = ["version", "uptime", "stat", "cmdline"];
        let boot = boot(QEMU, kernel, 1)
            .script(files.map(|file| format!("expect-fail cat /proc/{file}")))
            .script(["getppid 10", "cat /proc/sys/kernel/pid_max", "openclose 10 /proc/version"])
            .plugin_arg(opens("p", "arg", "/proc/version", "count set:$arg2=0 times=1"))
            .plugin_arg(opens("p", "reg", "/proc/uptime", "count set:%r4=0x10"))
            // O_DIRECTORY.
            .plugin_arg(format!(
                "count=p:mem sys_openat {path} if file == \"/proc/stat\" do set:+{flags}($arg1)=0x4000"
            ))
            // A byte of the program's own memory: /proc/Xmdline.
            .plugin_arg(format!(
                "count=p:user sys_openat {path} if file == \"/proc/cmdline\" do set:+6(+{name}($arg1)):u8=0x58"
            ))
            .plugin_arg("count=p:sym sys_getppid do set:@pid_max:u32=12345 nth=7")
            .run_ok();
        let what = kernel.name();
        let errors: Vec<_> = boot.qk_all("expect-fail").filter_map(|line| line.get("errno")).collect();
        assert_eq!(errors, ["EFAULT", "EFAULT", "ENOTDIR", "ENOENT"], "{what}\n{}", boot.stderr);
        assert_eq!(boot.file("/proc/sys/kernel/pid_max"), "12345\n", "{what}");
        assert_eq!(opened(&boot, 7), (10, 0), "{what}");
        assert_effects(what, &boot, &[("arg", 1), ("reg", 1), ("mem", 1), ("user", 1), ("sym", 1)]);
    }
}

/// The one call in getppid does not happen, or what follows it is another instruction.
#[test]
fn instructions_are_skipped_and_replaced() {
    for (kernel, smp) in KERNELS {
        let image = image(kernel);
        let behind = behind_calls(&image, "sys_getppid", "__task_pid_nr_ns");
        let [behind] = behind[..] else { panic!("{behind:?}") };
        let call = behind - 4;
        let caller = symbol(&image, "sys_getppid").0 + behind;
        // li r3,0x1234
        let li = if image.byte_order == Some(ByteOrder::Little) { "34126038" } else { "38601234" };
        let texts = if is_64(kernel) { "readtext sys_getppid 64" } else { "readtext sys_getppid 56" };
        let script = [texts, "threads 2 getppid 500", "getppid 10", texts];
        let boot = |with: bool| {
            let mut boot = boot(QEMU, kernel, smp)
                .script(script)
                .plugin_arg(format!("count=p:called __task_pid_nr_ns from=%link if from == {caller:#x}"))
                .plugin_arg("probe=r:result sys_getppid r=$retval:s32");
            for arg in [
                format!("count=p:skip sys_getppid+{call} do skip set:%r3=0x777 times=200"),
                format!("count=p:nop sys_getppid+{call} do replace=nop set:%r3=0x778 space=900 interval=10"),
                format!("count=p:li sys_getppid+{call} do replace={li} space=800 times=50"),
            ] {
                boot = if with { boot.plugin_arg(arg) } else { boot };
            }
            boot.run_ok()
        };
        let what = kernel.name();
        let (without, with) = (boot(false), boot(true));
        assert_hits(&without, what, &[("called", 1010), ("result", 1010)]);
        // The newest comes first: hits 801 to 850 are another's, so that `nop` sees 960, and of those 910, ..., 960.
        assert_effects(what, &with, &[("skip", 200), ("nop", 6), ("li", 50)]);
        assert_hits(&with, what, &[("called", 1010 - 256), ("result", 1010), ("li", 1010), ("nop", 960)]);
        let lines = trace_lines(&with.trace);
        let results = |value: &str| lines.iter().filter(|line| line.args == format!(" r={value}")).count();
        assert_eq!(["1911", "1912", "4660", "0"].map(results), [200, 6, 50, 1010 - 256], "{what}");
        let texts: Vec<_> =
            without.qk_all("readtext").chain(with.qk_all("readtext")).map(|line| line.get("fnv1a")).collect();
        assert_eq!(texts.len(), 4);
        assert!(texts.iter().all(|text| text.is_some() && *text == texts[0]), "{what}: {texts:?}");
        assert_eq!(kernel == GuestKernel::Ppc32Pmac6_1, smp == 1);
    }
}
