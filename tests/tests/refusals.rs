//! What must not start, and says why: QEMUs that cannot work, and mistakes of the user. One error, the place, the
//! remedy, before the guest runs its first instruction.
//!
//! Kernels that are not the one that boots are in here too: there the guest lives on.

#[path = "refusals/mistakes.rs"]
mod mistakes;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use mistakes::{MISTAKES, Mistake, mistakes_folder};
use qkprobe_symbols::{KernelImage, Lookup};
use qkprobe_tests::{Boot, BootResult, Cache, Gate, GuestKernel, PATIENCE, Qemu, gate, plugin_path};
use tempfile::TempDir;

/// The programs of [`Qemu::SUPPORTED`] whose guests the plugin does not know, and QEMU's names of them.
const UNSUPPORTED: [(&str, &str); 1] = [("qemu-system-sparc", "sparc")];

/// A QEMU that has ended, or was killed for not ending.
struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

/// Runs a command in `folder` to its end; kills what does not end.
fn run(mut command: Command, folder: &Path) -> Ended {
    let (stdout, stderr) = (folder.join("stdout.txt"), folder.join("stderr.txt"));
    command.stdin(Stdio::null()).current_dir(folder);
    command.stdout(fs::File::create(&stdout).unwrap()).stderr(fs::File::create(&stderr).unwrap());
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            break child.wait().unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    Ended { status, stdout: text(stdout), stderr: text(stderr) }
}

/// A QEMU that would boot the small kernel, with `-plugin PLUGIN,ARGS`; nothing is doubled or added.
fn qemu(qemu: Qemu, program: &str, options: &[&str], plugin_args: &[&OsStr]) -> Command {
    let cache = Cache::open().unwrap();
    let mut command = Command::new(cache.qemu(qemu, program).unwrap());
    command.args(options).args(["-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio", "-kernel"]);
    command.arg(cache.kernel(GuestKernel::X86_64Cloud6_1).unwrap()).args(["-append", "console=ttyS0 panic=-1"]);
    let mut plugin: OsString = plugin_path().unwrap().into();
    for arg in plugin_args {
        plugin.push(",");
        plugin.push(arg);
    }
    command.arg("-plugin").arg(plugin);
    command
}

impl Ended {
    /// Refused before the guest ran: exactly one error of the plugin, with these words in this order.
    #[track_caller]
    fn assert_refused(&self, what: &str, says: &[&str]) {
        let Self { status, stdout, stderr } = self;
        let context = format!("{what}: {status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
        assert!(status.code().is_some_and(|code| code != 0), "{context}");
        assert_eq!(stdout, "", "{context}");
        let errors = stderr.lines().filter(|line| line.starts_with("qkprobe: error: ")).count();
        assert_eq!(errors, 1, "{context}");
        assert_eq!(stderr.matches("Could not load plugin").count(), 1, "{context}");
        for never in ["panicked", "RUST_BACKTRACE", "internal error", "stack backtrace", "# tracer"] {
            assert!(!stderr.contains(never), "{never}: {context}");
        }
        let mut rest = stderr.as_str();
        for word in says {
            let at = rest.find(word).unwrap_or_else(|| panic!("no {word:?} (in this order): {context}"));
            rest = &rest[at + word.len()..];
        }
    }
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("qkprobe-refusal-").tempdir().unwrap()
}

#[test]
fn too_old_a_qemu() {
    let folder = folder();
    let says = ["has plugin API 1: qkprobe needs 9.2 (API 4) or newer", "Install a newer QEMU"];
    let machine = ["-M", "pc", "-accel", "tcg"];
    let ended = run(qemu(Qemu::V7_2, "qemu-system-x86_64", &machine, &[OsStr::new("probe=p vfs_read")]), folder.path());
    ended.assert_refused("system", &["qkprobe: error: QEMU 7.2.", says[0], says[1]]);
    let mut user = Command::new(Cache::open().unwrap().qemu(Qemu::V7_2, "qemu-x86_64").unwrap());
    user.arg("-plugin").arg(plugin_path().unwrap()).arg("/bin/true");
    run(user, folder.path()).assert_refused("user mode", &["qkprobe: error: QEMU ", says[0], says[1]]);
}

#[test]
fn targets_that_are_not_supported() {
    let folder = folder();
    for version in Qemu::selected() {
        for (program, target) in UNSUPPORTED {
            let mut command = Command::new(Cache::open().unwrap().qemu(version, program).unwrap());
            command.args(["-nodefaults", "-nographic", "-serial", "stdio", "-accel", "tcg", "-plugin"]);
            command.arg(plugin_path().unwrap());
            let says = [&*format!("error: target {target}: not supported. This version knows "), "x86_64"];
            run(command, folder.path()).assert_refused(program, &says);
        }
    }
}

/// Where this user may not use KVM, QEMU says so itself, before it loads a plugin.
#[test]
fn kvm_is_refused_by_the_command_line_alone() {
    let folder = folder();
    let usable = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    for version in Qemu::selected() {
        for options in [
            &["-M", "pc", "-accel", "kvm"][..],
            &["-M", "pc", "-enable-kvm"],
            &["-M", "pc,accel=kvm"],
            &["-machine", "accel=kvm"],
            &["--machine", "pc", "--accel", "kvm"],
        ] {
            let says = ["error: the accelerator is KVM, which runs the guest without translating it", "Use -accel tcg"];
            let command = qemu(version, "qemu-system-x86_64", options, &[OsStr::new("probe=p vfs_read")]);
            let ended = run(command, folder.path());
            if usable {
                ended.assert_refused(&format!("{options:?}"), &says);
            } else {
                let Ended { status, stdout, stderr, .. } = ended;
                let refused =
                    status.code() == Some(1) && stdout.is_empty() && stderr.contains("failed to initialize kvm");
                assert!(refused, "{options:?}: {status}\n{stdout}\n{stderr}");
            }
        }
    }
}

/// Another name of the same file; QEMU takes the arguments of several `-plugin` options with the same name together.
#[test]
fn loaded_twice() {
    let folder = folder();
    std::os::unix::fs::symlink(plugin_path().unwrap(), folder.path().join("again.so")).unwrap();
    for version in Qemu::selected() {
        let args = [OsStr::new("out=trace"), OsStr::new("probe=p vfs_read")];
        let mut command = qemu(version, "qemu-system-x86_64", &["-M", "pc", "-accel", "tcg"], &args);
        command.args(["-plugin", "./again.so"]);
        run(command, folder.path()).assert_refused("twice", &["error: loaded twice: give all probe= arguments to one"]);
    }
    let more = format!("{},count=p:second __x64_sys_getppid", plugin_path().unwrap().display());
    let result = Boot::new(Qemu::V11_1, GuestKernel::X86_64Cloud6_1)
        .script(["getppid 321"])
        .plugin_arg("count=p:first __x64_sys_getppid")
        .extra_args(["-plugin", &more])
        .run_ok();
    assert_eq!((result.summary().probe("first").hits, result.summary().probe("second").hits), (321, 321));
}

#[test]
fn mistakes_end_qemu_with_one_clear_error() {
    let folder = mistakes_folder();
    let mut failed = Vec::new();
    for Mistake { args, says } in MISTAKES {
        let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        let command = qemu(Qemu::V11_1, "qemu-system-x86_64", &["-M", "pc", "-accel", "tcg"], &args);
        let ended = run(command, folder.path());
        // All of the table, then the verdict: one wrong message does not hide the others.
        let check = std::panic::catch_unwind(|| ended.assert_refused(&format!("{args:?}"), says));
        failed.extend(check.err().map(|_| args));
    }
    assert!(failed.is_empty(), "{} of {}: {failed:?}", failed.len(), MISTAKES.len());
}

#[test]
fn bytes_that_are_no_utf8() {
    let folder = mistakes_folder();
    for (arg, says) in [
        (&b"probe=p:x vfs_read\xff\xfe"[..], &["error: probe=p:x vfs_read", "Invalid probed address or symbol"][..]),
        (b"probe=p:\xff vfs_read", &["Event name must follow the same rules as C identifiers"]),
        (b"kernel=\xff\xfe", &["kernel=", "cannot be read: No such file"]),
        (b"\xff\xfe=1", &["no such argument. These exist:"]),
        (b"\xff", &["no such argument. These exist:"]),
    ] {
        let arg = OsStr::from_bytes(arg);
        let command = qemu(Qemu::V11_1, "qemu-system-x86_64", &["-M", "pc", "-accel", "tcg"], &[arg]);
        run(command, folder.path()).assert_refused(&format!("{arg:?}"), says);
    }
}

#[test]
fn one_mistake_among_two_hundred_arguments() {
    let folder = folder();
    let probes: Vec<String> = (0..200).map(|n| format!("probe=p:e{n} vfs_read+0 a=%{}", ["ax", "bx"][n % 2])).collect();
    let mut args: Vec<&OsStr> = probes.iter().map(OsStr::new).collect();
    args[150] = OsStr::new("probe=p:e150 vfs_raed");
    let command = qemu(Qemu::V11_1, "qemu-system-x86_64", &["-M", "pc", "-accel", "tcg"], &args);
    run(command, folder.path()).assert_refused("200", &["error: probe=p:e150 vfs_raed", "did you mean vfs_read"]);
}

/// What QEMU 10.0 cannot do, with the version that can.
#[test]
fn what_an_older_qemu_cannot_do() {
    let registers = "QEMU 10.0.2 does not let a plugin set registers and memory: that came with QEMU 10.1";
    let counter = "QEMU 10.0.2 does not let a plugin set the program counter: that came with QEMU 11.0";
    let folder = folder();
    for (arg, says) in [
        ("probe=p:x vfs_read do set:%ax=5", registers),
        ("probe=p:x vfs_read do set:+0(%di):u8=5", registers),
        ("probe=p:x vfs_read+5 do post set:%ax=5", registers),
        ("probe=r:x vfs_read do set:$retval=-EIO", registers),
        ("probe=p:x vfs_read do override=-EIO", counter),
        ("probe=p:x vfs_read+5 do skip", counter),
        ("probe=p:x vfs_read+5 do replace=nop", counter),
        ("probe=p:x vfs_read+5 do replace=90 set:%ax=5", counter),
        ("verify=on", "verify=on: QEMU 10.0.2 does not tell devices from memory: that came with 10.1"),
    ] {
        let args = [OsStr::new(arg), OsStr::new("probe=p:other vfs_write")];
        let command = qemu(Qemu::V10_0, "qemu-system-x86_64", &["-M", "pc", "-accel", "tcg"], &args);
        run(command, folder.path()).assert_refused(arg, &[says]);
    }
}

/// `-kernel` of QEMU is what the plugin takes when nobody says `kernel=`: a disk image boots without.
#[test]
fn no_kernel_at_all() {
    let folder = folder();
    let mut command = Command::new(Cache::open().unwrap().qemu(Qemu::V11_1, "qemu-system-x86_64").unwrap());
    command.args(["-nodefaults", "-nographic", "-serial", "stdio", "-accel", "tcg", "-plugin"]);
    let mut plugin: OsString = plugin_path().unwrap().into();
    plugin.push(",probe=p vfs_read");
    command.arg(plugin);
    run(command, folder.path()).assert_refused("none", &["no kernel: name the guest's kernel with kernel=FILE"]);
}

/// Boots; waits for `text` on QEMU's stderr, which comes before the guest's first program has done anything; lets it go on.
#[track_caller]
fn told_before_the_script(boot: Boot, script: &str, text: &str) -> BootResult {
    let running = boot.gates().script([gate("told"), script.to_owned()]).spawn().unwrap();
    running.wait_for_stderr(text, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    Gate::of(&running).open(&running, "told", "QK end");
    running.finish().unwrap()
}

/// The guest did its script, the probes counted nothing, and the reason is in the summary.
#[track_caller]
fn assert_lived_on(result: &BootResult, problem: &str) {
    result.assert_ok();
    assert_eq!(result.summary().probe("x").hits, 0, "{}", result.stderr);
    let text = fs::read_to_string(result.folder().join("summary.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let told = json["problem"].as_str().unwrap_or_else(|| panic!("no problem in {text}"));
    assert!(told.contains(problem), "{told}");
    // Once when it is found and once at the end.
    assert_eq!(result.stderr.matches(problem).count(), 2, "{}", result.stderr);
    assert!(!result.stderr.contains("panicked"), "{}", result.stderr);
}

const V6_1: GuestKernel = GuestKernel::X86_64Cloud6_1;
const V6_12: GuestKernel = GuestKernel::X86_64Cloud6_12;

fn banner(kernel: GuestKernel) -> &'static str {
    if kernel == V6_1 { "Linux version 6.1.0-" } else { "Linux version 6.12." }
}

/// A boot of one kernel with another given as `kernel=`.
fn boot_with_other(qemu: Qemu, boots: GuestKernel, given: GuestKernel) -> Boot {
    Boot::new(qemu, boots)
        .plugin_arg(format!("kernel={}", Cache::open().unwrap().kernel(given).unwrap().display()))
        .plugin_arg("probe=p:x vfs_read")
}

#[test]
fn another_kernel_runs() {
    for qemu in Qemu::selected() {
        for (boots, given, append) in [(V6_1, V6_12, ""), (V6_12, V6_1, ""), (V6_1, V6_12, "nokaslr")] {
            let boot = boot_with_other(qemu, boots, given).append(append);
            let result = told_before_the_script(boot, "getppid 100", "runs another kernel");
            assert_lived_on(&result, "the guest runs another kernel than kernel= names, so no probe can arm");
            for line in [format!("\n  kernel=: {}", banner(given)), format!("\n  running: {}", banner(boots))] {
                assert_eq!(result.stderr.matches(&line).count(), 2, "{qemu}: {}", result.stderr);
            }
            assert!(result.stderr.contains("Give the image of the running kernel with kernel=FILE."));
        }
    }
}

/// A System.map of a kernel, as its package would have it.
fn system_map(kernel: GuestKernel) -> String {
    let image = KernelImage::load(&Cache::open().unwrap().kernel(kernel).unwrap()).unwrap();
    let Lookup::One(text) = image.symbols.lookup(None, "_text") else { panic!("one _text") };
    assert_eq!(text.addr.0, 0xffff_ffff_8100_0000);
    let line =
        |symbol: qkprobe_symbols::Symbol<'_>| format!("{:016x} {} {}\n", symbol.addr.0, symbol.kind, symbol.name);
    image.symbols.iter().map(line).collect()
}

/// A boot with only a System.map to go by.
fn boot_with_map(qemu: Qemu, map: &str, folder: &Path, append: &str) -> Boot {
    let path = folder.join("System.map");
    fs::write(&path, map).unwrap();
    Boot::new(qemu, GuestKernel::X86_64Cloud6_1)
        .append(append)
        .plugin_arg(format!("kernel={}", path.display()))
        .plugin_arg("probe=p:x __x64_sys_getppid")
        .plugin_arg("count=p:x_count __x64_sys_getppid")
}

#[test]
fn symbols_alone_of_the_right_kernel() {
    let folder = folder();
    let map = system_map(GuestKernel::X86_64Cloud6_1);
    for qemu in Qemu::selected() {
        let result = boot_with_map(qemu, &map, folder.path(), "nokaslr").script(["getppid 1234"]).run_ok();
        let summary = result.summary();
        assert_eq!((summary.probe("x").hits, summary.probe("x_count").hits), (1234, 1234), "{qemu}: {}", result.stderr);
        assert_eq!(result.trace.matches(" x: (__do_sys_getppid+0x0/0x40)\n").count(), 1234);
        assert!(!result.stderr.contains("do not fit"), "{qemu}: {}", result.stderr);
    }
}

#[test]
fn symbols_alone_that_do_not_fit() {
    let folder = folder();
    let right = system_map(GuestKernel::X86_64Cloud6_1);
    let other = system_map(GuestKernel::X86_64Cloud6_12);
    for qemu in Qemu::selected() {
        for (map, append) in [(&right, ""), (&other, "nokaslr"), (&other, "")] {
            let boot = boot_with_map(qemu, map, folder.path(), append);
            let result = told_before_the_script(boot, "getppid 1234", "do not fit the kernel that runs");
            result.assert_ok();
            for words in ["Boot with nokaslr", "slide=0xN", "kernel=FILE"] {
                assert!(result.stderr.contains(words), "{qemu}: {}", result.stderr);
            }
            assert_lived_on(&result, "the symbols do not fit the kernel that runs");
        }
    }
}
