//! Mistakes that a user may make, and what is said of each.

use std::fs;
use std::process::Command;

use qkprobe_tests::{Cache, GuestKernel};
use tempfile::TempDir;

/// A mistake: the arguments behind `-plugin PLUGIN`, and what the error says, in order. QEMU runs in a folder with the
/// files of [`mistakes_folder`].
pub(crate) struct Mistake {
    pub(crate) args: &'static [&'static str],
    pub(crate) says: &'static [&'static str],
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

pub(crate) const MISTAKES: &[Mistake] = &[
    // Definitions.
    bad(&["probe=p:x vfs_raed"], &["probe=p:x vfs_raed", "Invalid probed address or symbol", "did you mean vfs_read"]),
    bad(&["count=p:x vfs_raed"], &["count=p:x vfs_raed", "Invalid probed address or symbol", "did you mean vfs_read"]),
    bad(&["probe=p:x vfs_read+1"], &["not an instruction boundary", "inside the instruction at 0x", "(5 bytes)"]),
    bad(&["probe=p:x 0xffffffff81000001"], &["not an instruction boundary", "at 0xffffffff81000000 (7 bytes)"]),
    bad(&["probe=p:x linux_banner"], &["Failed to register", "help: linux_banner is data, not code"]),
    bad(
        &["probe=p:x match_id"],
        &["Invalid probed address or symbol", "help: the compiler made match_id.isra.0 of it"],
    ),
    bad(
        &["probe=p:x measure_residency_fn.isra.0"],
        &["Invalid probed address or symbol", "help: this kernel has measure_residency_fn.constprop.0.isra.0"],
    ),
    bad(&["probe=p:x cpu_debug_store"], &["Invalid probed address or symbol", "0x1000 lies in no function"]),
    bad(&["probe=p:x vfs_read a=@cpu_debug_store"], &["Invalid probed address", "cpu_debug_store stands for 0x1000"]),
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
    bad(&["config=good.toml", "probe=p:x vfs_raed"], &["probe=p:x vfs_raed", "did you mean vfs_read"]),
    bad(&["config=huge.toml"], &["huge.toml:2", "The line is too long", "help: at most 4094 bytes"]),
    bad(&["config=long.toml"], &["long.toml:2", "The line is too long", "help: at most 4094 bytes"]),
    // Filters.
    bad(&["filter=a==1", "probe=p:x vfs_read a=%ax"], &["filter=: stands after the probe= or count="]),
    bad(&["probe=p:x vfs_read a=%ax", "filter=b==1"], &["probe=p:x vfs_read a=%ax", "Field not found", "b==1", "^"]),
    bad(&["probe=p:x vfs_read a=%ax", "filter=a=="], &["Invalid value (did you forget quotes)?", "^"]),
    bad(&["probe=p:x vfs_read a=%ax", "filter=(a==1"], &["Too many '('", "^"]),
    bad(&["probe=p:x vfs_read a=%ax", "filter=a ~ \"x\""], &["Expecting numeric field", "^"]),
    bad(
        &["probe=p:x vfs_read a=%ax", "filter=a.function == vfs_raed"],
        &["event filter parse error: error: Function not found", "^", "help: did you mean vfs_read?"],
    ),
    bad(
        &["probe=p:x vfs_read a=%ax", "filter=a.function == pfn_to_mfn"],
        &["Function not found", "help: the compiler made pfn_to_mfn.part.0"],
    ),
    bad(&["probe=p:x vfs_read a=%ax", "filter=a==1", "filter=a==2"], &["filter=: stands after", "once"]),
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
    bad(&["config=definition.toml"], &["definition.toml:3", "Invalid probed address", "did you mean vfs_read"]),
    // Kernels.
    bad(&["kernel=none"], &["kernel=none: ", "cannot be read: No such file or directory"]),
    bad(&["kernel=."], &["kernel=.: ", "is a directory; give the file in it: vmlinux, vmlinuz, System.map"]),
    bad(&["kernel=empty"], &["kernel=empty: ", "is empty; ", FORMS]),
    bad(&["kernel=garbage"], &["kernel=garbage: ", "seems to be no kernel (it begins with the bytes c7 28 19", FORMS]),
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
pub(crate) fn mistakes_folder() -> TempDir {
    let folder = super::folder();
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
