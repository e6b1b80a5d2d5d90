//! What must not start, and says why: QEMUs that cannot work, and mistakes of the user. One error, the place, the
//! remedy, before the guest runs its first instruction.
//!
//! Kernels that are not the one that boots are in here too: there the guest lives on.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use qkprobe_symbols::{KernelImage, Lookup};
use qkprobe_tests::{Boot, BootResult, Cache, GuestKernel, Qemu, Running, plugin_path};
use tempfile::TempDir;

/// The programs of [`Qemu::SUPPORTED`] whose guests the plugin does not know, and QEMU's names of them.
const UNSUPPORTED: [(&str, &str); 1] = [("qemu-system-sparc", "sparc")];

/// A refusal takes no longer, even on a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// A QEMU that has ended, or was killed for not ending.
struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
    took: Duration,
}

/// Runs a command in `folder` to its end; kills it after four times [`SOON`].
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
        if start.elapsed() > 4 * SOON {
            child.kill().unwrap();
            break child.wait().unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    Ended { status, took: start.elapsed(), stdout: text(stdout), stderr: text(stderr) }
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
        let Self { status, stdout, stderr, took } = self;
        let context = format!("{what}: {status} after {took:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
        assert!(status.code().is_some_and(|code| code != 0), "{context}");
        assert!(*took < SOON, "{context}");
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

#[test]
fn kvm_is_refused_by_the_command_line_alone() {
    let folder = folder();
    for version in Qemu::selected() {
        for options in [
            &["-M", "pc", "-accel", "kvm"][..],
            &["-M", "pc", "-enable-kvm"],
            &["-M", "pc,accel=kvm"],
            &["-machine", "accel=kvm"],
            &["--machine", "pc", "--accel", "kvm"],
        ] {
            let says = ["error: the accelerator is KVM, which runs the guest without translating it", "Use -accel tcg"];
            run(qemu(version, "qemu-system-x86_64", options, &[OsStr::new("probe=p vfs_read")]), folder.path())
                .assert_refused(&format!("{options:?}"), &says);
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

/// A mistake: the arguments behind `-plugin PLUGIN`, and what the error says, in order. QEMU runs in a folder with the
/// files of [`mistakes_folder`].
struct Mistake {
    args: &'static [&'static str],
    says: &'static [&'static str],
}

const fn bad(args: &'static [&'static str], says: &'static [&'static str]) -> Mistake {
    Mistake { args, says }
}

/// Each is kept from the entry on.
const MANY_SAVED: &str = "probe=r:x vfs_read a=$arg1 b=$arg2 c=$arg3 d=$arg4 e=$arg5 f=$arg6 g=$arg7 h=$arg8 i=$arg9 \
                          j=$arg10 k=$arg11";
/// 108 bytes.
const LONG_PATH: &str = "control=\
    /1234567/1234567/1234567/1234567/1234567/1234567/1234567/1234567/1234567/1234567/1234567/1234567/1234567/123";

const CUT: &str = "cut short or corrupt";
const FORMS: &str = "give a vmlinux, a vmlinuz, a System.map or a copy of /proc/kallsyms";

const MISTAKES: &[Mistake] = &[
    // Definitions.
    bad(&["probe=p:x vfs_raed"], &["probe=p:x vfs_raed", "Invalid probed address or symbol", "did you mean vfs_read?"]),
    bad(&["count=p:x vfs_raed"], &["count=p:x vfs_raed", "Invalid probed address or symbol", "did you mean vfs_read?"]),
    bad(&["probe=p:x vfs_read+1"], &["not an instruction boundary", "inside the instruction at 0x", "(5 bytes)"]),
    bad(&["probe=p:x 0xffffffff81000001"], &["not an instruction boundary", "at 0xffffffff81000000 (7 bytes)"]),
    bad(&["probe=p:x linux_banner"], &["Failed to register", "help: linux_banner is data, not code"]),
    bad(&["probe=p:x"], &["No place to probe", "help: write p[:[GROUP/]EVENT] [MOD:]SYM[+OFF]|ADDR"]),
    bad(&["probe=x:y vfs_read"], &["Unknown kind of probe", "help: a line begins with p (probe)"]),
    bad(&["probe=p:1x vfs_read"], &["Event name must follow the same rules as C identifiers", "p:1x vfs_read", "^"]),
    bad(&["probe=p:a/b/c vfs_read"], &["Event name must follow", "^"]),
    bad(
        &["probe=r:x vfs_read+5"],
        &["Retprobe address must be an function entry", "^", "give its name without an offset"],
    ),
    bad(&["probe=r0:x vfs_read"], &["Invalid maxactive number", "r0:x vfs_read", "^"]),
    bad(&["probe=r99999:x vfs_read"], &["Maxactive is too big", "^", "help: at most 4096 pending calls"]),
    bad(&["probe=-:x"], &["No such probe event", "-:x"]),
    bad(&["probe=p:x vfs_read %rax"], &["Invalid register name", "^", "help: kprobe events call it %ax"]),
    bad(&["probe=p:x vfs_read a=%xx"], &["Invalid register name", "did you mean %"]),
    bad(&["probe=p:x vfs_read a=$retval"], &["$retval is not available on probe", "only a return probe has a result"]),
    bad(&["probe=p:x vfs_read a=$arg0"], &["Invalid argument number", "^"]),
    bad(&["probe=p:x vfs_read a=%ax:u99"], &["Unknown type is specified", "a=%ax:u99", "^"]),
    bad(&["probe=p:x vfs_read a=+0(%ax"], &["Dereference brace is not closed", "^"]),
    bad(&["probe=p:x vfs_read a=%ax:string"], &["String accepts only memory argument", "+0(FETCH):string"]),
    bad(
        &["probe=p:x vfs_read a=@vfs_raed"],
        &["Invalid probed address or symbol", "^", "argument a: no symbol 'vfs_raed'"],
    ),
    bad(&["probe=p:x vfs_read a=%ax:u8[65]"], &["Array number is too big", "help: at most 64 elements"]),
    bad(&["probe=p:x vfs_read a=%ax a=%bx"], &["This argument name is already used", "^"]),
    bad(&["probe=p:x vfs_read file"], &["BTF is not available", "use $argN or %REG"]),
    bad(&["config=good.toml", "probe=p:x vfs_raed"], &["probe=p:x vfs_raed", "did you mean vfs_read?"]),
    bad(&["config=huge.toml"], &["huge.toml:2", "The line is too long", "help: at most 4094 bytes"]),
    bad(&["config=long.toml"], &["long.toml:2", "The line is too long", "help: at most 4094 bytes"]),
    // Filters.
    bad(&["filter=a==1", "probe=p:x vfs_read a=%ax"], &["filter=: stands behind the probe= or count="]),
    bad(&["probe=p:x vfs_read a=%ax", "filter=b==1"], &["probe=p:x vfs_read a=%ax", "Field not found", "b==1", "^"]),
    bad(&["probe=p:x vfs_read a=%ax", "filter=a=="], &["Invalid value (did you forget quotes)?", "^"]),
    bad(&["probe=p:x vfs_read a=%ax", "filter=(a==1"], &["Too many '('", "^"]),
    bad(&["probe=p:x vfs_read a=%ax", "filter=a ~ \"x\""], &["Expecting numeric field", "^"]),
    bad(&["probe=p:x vfs_read a=%ax", "filter=a==1", "filter=a==2"], &["filter=: stands behind", "once"]),
    // Options of a line.
    bad(
        &["probe=p:x vfs_read do skpi"],
        &["No such option: 'skpi'", "p:x vfs_read do skpi", "^", "did you mean skip?"],
    ),
    bad(&["probe=p:x vfs_read do "], &["'do' needs an option", "^", "options are: "]),
    bad(&["probe=p:x vfs_read if do skip"], &["'if' needs a filter", "^"]),
    bad(&["probe=if x==1"], &["A definition must stand before 'if' and 'do'", "^"]),
    bad(&["probe=p:x vfs_read do skip if x==1"], &["No such option: 'if'", "^", "the filter stands before 'do'"]),
    bad(
        &["probe=p:x vfs_read a=%ax if a==1", "filter=a==1"],
        &["filter=a==1: the definition before it says 'if' already"],
    ),
    bad(&["probe=p:x vfs_read do skip skip"], &["'skip' is given twice", "^"]),
    bad(&["probe=p:x vfs_read do skip=1"], &["'skip' takes no value", "^"]),
    bad(&["probe=p:x vfs_read do override"], &["'override' needs a value", "^", "write override=VALUE"]),
    bad(&["probe=p:x vfs_read do override="], &["'override=' needs a value", "^"]),
    bad(&["probe=p:x vfs_read do skip replace=nop"], &["'skip' and 'replace' exclude each other", "^"]),
    bad(&["probe=p:x vfs_read do override=1 skip"], &["'override' and 'skip' exclude each other", "^"]),
    bad(&["control=c", "probe=p:x vfs_read do stop quit=1"], &["'stop' and 'quit' exclude each other", "^"]),
    bad(
        &["probe=p:x vfs_read do times=3"],
        &["'times' says at which hits an effect happens", "has none", "effects are set"],
    ),
    bad(&["probe=p:x vfs_read do nth=0 skip"], &["'nth' must be 1 to ", "not 0", "^", "hits are counted from 1"]),
    bad(&["probe=p:x vfs_read do times=-2 skip"], &["'times' must be -1 to ", "not -2", "^", "-1 is no limit"]),
    bad(
        &["probe=p:x vfs_read do probability=101 skip"],
        &["'probability' must be 0 to 100, not 101", "it is in percent"],
    ),
    bad(&["probe=p:x vfs_read do interval=0 skip"], &["'interval' must be 1 to ", "not 0", "^"]),
    bad(&["probe=p:x vfs_read do quit=300"], &["'quit' must be 0 to 255, not 300", "^", "exit status of a process"]),
    bad(&["probe=p:x vfs_read do quit=-1"], &["'quit' must be 0 to 255, not -1", "^"]),
    bad(&["probe=p:x vfs_read do quit"], &["'quit' needs a value", "^"]),
    // Effects.
    bad(&["probe=p:x vfs_read do set:%ax"], &["'%ax' sets nothing", "^", "write LVALUE=VALUE: %ax=5"]),
    bad(&["probe=p:x vfs_read do set:%xx=5"], &["Invalid register name", "set:%xx=5", "^", "did you mean %"]),
    bad(&["probe=p:x vfs_read do set:%ip=5"], &["%ip can not be set", "^", "skip, replace= or override="]),
    bad(
        &["probe=p:x vfs_read do set:%cs=1"],
        &["%cs can not be set", "^", "does not change what this register stands for"],
    ),
    bad(&["probe=p:x vfs_read do set:%ax=5x"], &["'5x' is no number", "^", "a number is 5, -1, 0x1f or -ENOENT"]),
    bad(&["probe=p:x vfs_read do set:%ax=-ENOET"], &["'ENOET' is no error of Linux", "^", "did you mean -ENOENT?"]),
    bad(&["probe=p:x vfs_read do set:%ax:u8=1"], &["A register is set as a whole", "^", "leave the type out"]),
    bad(&["probe=p:x vfs_read do set:$retval=5"], &["$retval is not available on probe", "^", "only a return probe"]),
    bad(&["probe=p:x vfs_read do set:+0(%di):u8=256"], &["The value does not fit", "^", "hold 0 to 255"]),
    bad(&["probe=p:x vfs_read do set:+0(%di):string=5"], &["Only a number can be set", "^", "u8 to u64, s8 to s64"]),
    bad(&["probe=p:x vfs_read do set:@vfs_raed:u8=1"], &["Invalid probed address or symbol", "^", "vfs_raed"]),
    bad(&["probe=r:x vfs_read do set:$arg1=5"], &["$arg1 can not be set", "^", "set it at the entry, by a probe p:"]),
    bad(&["probe=p:x vfs_read do override=x"], &["'x' is no number", "^"]),
    bad(&["probe=p:x vfs_read do override=-ENOET"], &["'ENOET' is no error of Linux", "^", "did you mean -ENOENT?"]),
    bad(&["probe=p:x vfs_read do override=18446744073709551616"], &["is no number", "^", "of at most 64 bits"]),
    bad(
        &["probe=p:x vfs_read+5 do override=1"],
        &["Override needs a function's entry", "^", "without an offset, or use skip"],
    ),
    bad(
        &["probe=r:x vfs_read do override=1"],
        &["A return probe has no instruction to go around", "^", "set:$retval=VALUE"],
    ),
    bad(&["probe=r:x vfs_read do skip"], &["A return probe has no instruction to go around", "^"]),
    bad(&["probe=r:x vfs_read do post"], &["A return probe is on no side of an instruction", "^", "leave 'post' out"]),
    bad(&["probe=r:x vfs_read do user"], &["a return probe is for the kernel's own functions"]),
    bad(&[MANY_SAVED], &["too many different $argN at a return: at most 10"]),
    bad(&["probe=p:x vfs_read do post skip"], &["'skip' acts before the instruction", "^", "leave 'post' out"]),
    bad(&["probe=p:x vfs_read do post override=1"], &["'override' acts before the instruction", "^"]),
    bad(&["probe=p:x vfs_read do post replace=nop"], &["'replace' acts before the instruction", "^"]),
    bad(&["probe=p:x vfs_read do replace=zz"], &["'zz' is neither 'nop' nor bytes in hexadecimal", "^"]),
    bad(&["probe=p:x vfs_read do replace=909"], &["'909' has 3 digits: a byte has two", "^"]),
    bad(
        &["probe=p:x vfs_read do replace=9090"],
        &["The instruction has 1 of the 2 bytes", "^", "one instruction replaces one"],
    ),
    bad(&["probe=p:x vfs_read do replace=0f"], &["The instruction has more than 1 bytes", "^"]),
    bad(&["probe=p:x vfs_read do replace=06"], &["These bytes are no instruction of x86_64", "^"]),
    bad(&["probe=p:x vfs_read do replace=f4"], &["replace: this instruction cannot be executed out of line"]),
    bad(&["probe=p:x vfs_read do replace=0f94c0"], &["replace: the new instruction reads flags"]),
    // Behind it is the branch that reads what the instruction before it computed.
    bad(&["probe=p:x vfs_read+39 do skip"], &["may read flags that an instruction before it", "set registers instead"]),
    bad(&["probe=p:x vfs_read+39 do replace=nop"], &["may read flags that an instruction before it"]),
    bad(&["probe=p:x int3_selftest_ip do post"], &["post: the instruction at ", "nothing runs after it"]),
    bad(&["probe=p:x vfs_read do stop"], &["stop: nobody could tell the guest to go on: give control=SOCKET"]),
    // The socket, and what it must not replace.
    bad(
        &["control=empty"],
        &["control=empty: the path exists and is a file, not a socket", "remove it or name another"],
    ),
    bad(&["control=."], &["control=.: the path exists and is a folder, not a socket"]),
    bad(&["control=link"], &["control=link: the path exists and is a symbolic link, not a socket"]),
    bad(&["control=none/c"], &["control=none/c: cannot make the socket: No such file or directory"]),
    bad(&[LONG_PATH], &["the path is too long for a UNIX socket (107 bytes)"]),
    bad(&["control"], &["control: needs a value: control=SOCKET"]),
    bad(&["verify=maybe"], &["verify=maybe: must be one of on, off"]),
    // TOML.
    bad(&["config=none.toml"], &["config=none.toml: cannot read: No such file"]),
    bad(&["config=."], &["config=.: cannot read: Is a directory"]),
    bad(&["config=binary.toml"], &["config=binary.toml: cannot read: ", "UTF-8"]),
    bad(&["config=syntax.toml"], &["syntax.toml:2:", " 2 | def = \"p:x vfs_read", "^"]),
    bad(&["config=key.toml"], &["key.toml:1:1: unknown key 'sumary'", "sumary = ", "^", "did you mean summary?"]),
    bad(&["config=probe-key.toml"], &["probe-key.toml:3:1: unknown key 'filtre'", "did you mean filter?"]),
    bad(&["config=type.toml"], &["type.toml:1:7: 'out' must be a string, not integer", "out = 7", "^"]),
    bad(&["config=table.toml"], &["table.toml:1:", "'probe' must be a list of tables", "[[probe]] with two brackets"]),
    bad(&["config=no-def.toml"], &["no-def.toml:1:", "this probe has no 'def'", "a line of kprobe_events"]),
    bad(
        &["config=choice.toml"],
        &["choice.toml:1:", "'format' must be \"ftrace\" or \"json\"", "did you mean \"json\"?"],
    ),
    bad(&["config=effect-key.toml"], &["effect-key.toml:3:1: unknown key 'overrride'", "^", "did you mean override?"]),
    bad(&["config=range.toml"], &["range.toml:3:15: 'probability' must be 0 to 100, not 101", "it is in percent"]),
    bad(&["config=exclude.toml"], &["exclude.toml:4:8: 'quit' and 'stop' exclude each other", "stop = true", "^"]),
    bad(&["config=definition.toml"], &["definition.toml:3", "Invalid probed address", "did you mean vfs_read?"]),
    // Kernels.
    bad(&["kernel=none"], &["kernel=none: ", "cannot be read: No such file or directory"]),
    bad(&["kernel=."], &["kernel=.: ", "is a directory; give the file in it: vmlinux, vmlinuz, System.map"]),
    bad(&["kernel=empty"], &["kernel=empty: ", "is empty; ", FORMS]),
    bad(&["kernel=garbage"], &["kernel=garbage: ", "seems to be no kernel (it begins with [c7, 28, 19", FORMS]),
    bad(&["kernel=half"], &["kernel=half: ", CUT, "copy it again"]),
    bad(&["kernel=stub"], &["kernel=stub: ", "as Debian ships it; give the vmlinuz of the same kernel instead"]),
    bad(
        &["kernel=hidden"],
        &["kernel=hidden: ", "every address in this kallsyms text is 0", "sudo cat /proc/kallsyms"],
    ),
    bad(&["kernel=mangled"], &["kernel=mangled: ", "line 2 is not `ADDRESS TYPE NAME [MODULE]`", "unchanged"]),
    bad(&["kernel=initrd"], &["kernel=initrd: ", "an initramfs (a cpio archive); give the kernel", "not its initrd"]),
    bad(&["kernel=ppc64"], &["the kernel is for ppc64, but this QEMU runs x86_64: give the right one with kernel="]),
    bad(&["kernel=text", "kernel=none"], &["kernel=none: ", "cannot be read"]),
    // Arguments.
    bad(&["prob=p:x vfs_read"], &["prob: no such argument. These exist:", "probe='p:NAME", "doubled"]),
    bad(&["probe=p:x", "y vfs_read"], &["y vfs_read: no such argument", "A comma inside a value is doubled"]),
    bad(
        &["probe=p:x vfs_read,", "probe=p:y vfs_write"],
        &["error: probe=p:x vfs_read,probe=p:y vfs_write", "^", "help: "],
    ),
    bad(&["probe="], &["probe=: the value is empty: probe='p:NAME PLACE ARG... [if FILTER] [do OPTION...]'"]),
    bad(&["probe"], &["probe: needs a value: probe='p:NAME PLACE ARG... [if FILTER] [do OPTION...]'"]),
    bad(&["kernel="], &["kernel=: the value is empty: kernel=FILE: vmlinux, bzImage, System.map"]),
    bad(&["out="], &["out=: the value is empty: out=FILE"]),
    bad(&["config"], &["config: needs a value: config=FILE.toml"]),
    bad(&["format=xml"], &["format=xml: must be one of ftrace, json"]),
    bad(&["backpressure=maybe"], &["backpressure=maybe: must be one of lossless, drop"]),
    bad(&["slide=12zz"], &["slide=12zz: not a hexadecimal number: slide=0xN"]),
    bad(&["slide=0x10000000000000000"], &["slide=0x10000000000000000: not a hexadecimal number"]),
    bad(&["out=none/trace"], &["out=none/trace: cannot create the file: No such file or directory"]),
    bad(&["out=."], &["out=.: cannot create the file: Is a directory"]),
    bad(&["summary=none/s"], &["summary=none/s: cannot create the file: No such file or directory"]),
    bad(&["summary=."], &["summary=.: cannot create the file: Is a directory"]),
];

/// The files that the mistakes name.
fn mistakes_folder() -> TempDir {
    let folder = folder();
    let write = |name: &str, data: &[u8]| fs::write(folder.path().join(name), data).unwrap();
    let cache = Cache::open().unwrap();
    write("good.toml", b"[[probe]]\ndef = \"p:good vfs_write\"\n");
    write("huge.toml", format!("[[probe]]\ndef = \"p:x vfs_read a={}\"\n", "9".repeat(100_000)).as_bytes());
    write("long.toml", format!("[[probe]]\ndef = \"p:x vfs_read{}\"\n", " %ax".repeat(100_000)).as_bytes());
    write("binary.toml", b"out = \"\xff\xfe\"\n");
    write("syntax.toml", b"[[probe]]\ndef = \"p:x vfs_read\n");
    write("key.toml", b"sumary = \"trace\"\n");
    write("probe-key.toml", b"[[probe]]\ndef = \"p:x vfs_read a=%ax\"\nfiltre = \"a==1\"\n");
    write("type.toml", b"out = 7\n");
    write("table.toml", b"[probe]\ndef = \"p:x vfs_read\"\n");
    write("no-def.toml", b"[[probe]]\nfilter = \"a==1\"\n");
    write("choice.toml", b"format = \"jsn\"\n");
    write("effect-key.toml", b"[[probe]]\ndef = \"p:x vfs_read\"\noverrride = 5\n");
    write("range.toml", b"[[probe]]\ndef = \"p:x vfs_read\"\nprobability = 101\nskip = true\n");
    write("exclude.toml", b"[[probe]]\ndef = \"p:x vfs_read\"\nquit = 1\nstop = true\n");
    std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
    write("definition.toml", b"# first\n[[probe]]\ndef = \"p:x vfs_raed\"\n");
    write("empty", b"");
    write("garbage", &(0..100_000_u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 11) as u8 ^ 0xc7).collect::<Vec<_>>());
    let kernel = fs::read(cache.kernel(GuestKernel::X86_64Cloud6_1).unwrap()).unwrap();
    write("half", &kernel[..kernel.len() / 2]);
    write("stub", b"ffffffffffffffff B The real System.map is in the linux-image-6.1.0-50-cloud-amd64-dbg package\n");
    write("hidden", b"0000000000000000 T _text\n0000000000000000 T vfs_read\n0000000000000000 t x\t[ext4]\n");
    write("mangled", b"ffffffff81000000 T _text\nffffffff81000010 vfs_read\n");
    write("text", b"ffffffff81000000 T _text\nffffffff81000010 T vfs_read\n");
    write("initrd", &fs::read(cache.initramfs(GuestKernel::X86_64Cloud6_1.arch()).unwrap()).unwrap());
    // Any program with symbols, said to be for another machine (the ELF header's e_machine).
    write("main.c", b"int main(void) { return 0; }\n");
    let gcc = Command::new("gcc").args(["-o", "ppc64", "main.c"]).current_dir(folder.path()).status().unwrap();
    assert!(gcc.success());
    let mut program = fs::read(folder.path().join("ppc64")).unwrap();
    program[18] = 21;
    write("ppc64", &program);
    folder
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
    run(command, folder.path()).assert_refused("200", &["error: probe=p:e150 vfs_raed", "did you mean vfs_read?"]);
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

/// The newest time that the guest's kernel printed, in seconds of its own clock.
fn kernel_time(console: &str) -> f64 {
    let stamp = |line: &str| line.strip_prefix('[')?.split_once(']')?.0.trim().parse().ok();
    console.lines().filter_map(stamp).fold(0.0, f64::max)
}

/// Waits for `text` on QEMU's stderr; returns the kernel's clock then.
#[track_caller]
fn wait_for_stderr(running: &Running, text: &str) -> f64 {
    running.wait_for_stderr(text, Duration::from_secs(60)).unwrap_or_else(|error| panic!("{error}"));
    kernel_time(&running.console())
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
        .script(["getppid 100"])
        .plugin_arg(format!("kernel={}", Cache::open().unwrap().kernel(given).unwrap().display()))
        .plugin_arg("probe=p:x vfs_read")
}

#[test]
fn another_kernel_runs() {
    for qemu in Qemu::selected() {
        for (boots, given, append) in [(V6_1, V6_12, ""), (V6_12, V6_1, ""), (V6_1, V6_12, "nokaslr")] {
            let running = boot_with_other(qemu, boots, given).append(append).spawn().unwrap();
            let time = wait_for_stderr(&running, "runs another kernel");
            assert!(time < 1.0, "{qemu}: told {time} s into the kernel's life");
            let result = running.finish().unwrap();
            assert_lived_on(&result, "the guest runs another kernel than kernel= names, so no probe can arm");
            let line = format!("\n  kernel=: {}", banner(given));
            assert_eq!(result.stderr.matches(&line).count(), 2, "{qemu}: {}", result.stderr);
            assert!(result.stderr.contains("Give the image of the running kernel with kernel=FILE."));
        }
    }
}

#[test]
fn another_kernel_is_named() {
    for qemu in Qemu::selected() {
        for (boots, given) in [(V6_1, V6_12), (V6_12, V6_1)] {
            let result = boot_with_other(qemu, boots, given).run_ok();
            let line = format!("\n  running: {}", banner(boots));
            assert_eq!(result.stderr.matches(&line).count(), 2, "{qemu}: {}", result.stderr);
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
        .script(["getppid 1234"])
        .plugin_arg(format!("kernel={}", path.display()))
        .plugin_arg("probe=p:x __x64_sys_getppid")
        .plugin_arg("count=p:x_count __x64_sys_getppid")
}

#[test]
fn symbols_alone_of_the_right_kernel() {
    let folder = folder();
    let map = system_map(GuestKernel::X86_64Cloud6_1);
    for qemu in Qemu::selected() {
        let result = boot_with_map(qemu, &map, folder.path(), "nokaslr").run_ok();
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
            let running = boot_with_map(qemu, map, folder.path(), append).spawn().unwrap();
            let time = wait_for_stderr(&running, "do not fit the kernel that runs");
            assert!(time < 1.0, "{qemu}, {append:?}: told {time} s into the kernel's life");
            let result = running.finish().unwrap();
            result.assert_ok();
            for words in ["Boot with nokaslr", "slide=0xN", "kernel=FILE"] {
                assert!(result.stderr.contains(words), "{qemu}: {}", result.stderr);
            }
            assert_lived_on(&result, "the symbols do not fit the kernel that runs");
        }
    }
}
