//! Spelling: what is refused, with text, caret and errno; what is accepted. A `^` in a row marks the caret's place.

use qkprobe_lang::{Command, Events, Kind, parse};

use crate::fake::{FakeKernel, define};

/// `(line with the caret's place, text, errno)`.
const REFUSED: [(&str, &str, i32); 96] = [
    // Additions to the kernel's grammar.
    ("p vfs_read ^$latency", "$latency is known at a function's return only: use r:", 22),
    ("p vfs_read+9 x=^$entrytime", "$entrytime is known at a function's return only: use r:", 22),
    ("r vfs_read +0(^$latency)", "A time can not be dereferenced", 22),
    ("p vfs_read $nextpc:^string", "String accepts only memory argument", 22),
    ("p vfs_read ^$nextpcs", "Invalid $-variable specified", 22),
    // Maxactive.
    ("p^100 vfs_read", "Maxactive is only for function exit", 22),
    ("p^1:foo vfs_read", "Maxactive is only for function exit", 22),
    ("r^1a111 vfs_read", "Invalid maxactive number", 22),
    ("r^0 vfs_read", "Invalid maxactive number", 22),
    ("r^08:foo vfs_read", "Invalid maxactive number", 22),
    ("r^99999999999 vfs_read", "Invalid maxactive number", 22),
    ("r^4097 vfs_read", "Maxactive is too big", 22),
    // Places.
    ("p ^non_exist_func", "Invalid probed address or symbol", 22),
    ("p ^vfs_read-1", "Invalid probed address or symbol", 22),
    ("p ^vfs_read+0x100000000", "Invalid probed address or symbol", 22),
    ("p ^vfs_read+1000-1000", "Invalid probed address or symbol", 22),
    ("p ^vfs_read+", "Invalid probed address or symbol", 22),
    ("p ^0x10000000000000000", "Invalid probed address or symbol", 22),
    ("p ^ext4:nosuch", "Invalid probed address or symbol", 22),
    ("p ^name_show", "The symbol is not unique", 22),
    ("p vfs_read^%hoge", "Invalid probed address suffix", 22),
    ("p vfs_read^%return1", "Invalid probed address suffix", 22),
    ("p ^vfs_read+10%return", "Retprobe address must be an function entry", 22),
    ("r ^vfs_read+9", "Retprobe address must be an function entry", 22),
    ("r ^0xffffffff81445489", "Failed to register probe event", 22),
    ("p ^vfs_read+1", "Probe point is not an instruction boundary", 84),
    ("p ^0xffffffff81445481", "Probe point is not an instruction boundary", 84),
    ("p ^vfs_read @nosuchsym", "Invalid probed address or symbol", 2),
    ("p ^vfs_read +0(@nosuchsym+8):u8", "Invalid probed address or symbol", 2),
    ("p ^vfs_read @linux_proc_banner+x", "Failed to register probe event", 22),
    // Names.
    ("p:^/bar vfs_read", "Group name is not specified", 22),
    ("p:^ vfs_read", "Event name is not specified", 22),
    ("p:^9foo/bar vfs_read", "Group name must follow the same rules as C identifiers", 22),
    ("p:^a1234567890123456789012345678901234567890123456789012345678901234/bar vfs_read", "Group name is too long", 22),
    ("p:foo/^a123456789012345678901234567890123456789012345678901234567890123 vfs_read", "Event name is too long", 22),
    ("p:^a123456789012345678901234567890123456789012345678901234567890123 vfs_read", "Event name is too long", 22),
    ("p:foo/^bar.1 vfs_read", "Event name must follow the same rules as C identifiers", 22),
    ("p:^1bar vfs_read", "Event name must follow the same rules as C identifiers", 22),
    ("r10:foo/^a-b vfs_read", "Event name must follow the same rules as C identifiers", 22),
    // Variables.
    ("p vfs_read ^$retval", "$retval is not available on probe", 22),
    ("p vfs_read a=^$retvalx", "$retval is not available on probe", 22),
    ("r vfs_read ^$retvalx", "This variable is not found at this probe point", 2),
    ("p vfs_read ^$stack2049", "Invalid stack number", 22),
    ("p vfs_read ^$stackx", "Invalid $-variable specified", 22),
    ("p vfs_read ^$stack-1", "Invalid $-variable specified", 22),
    ("p vfs_read ^$stackp", "Invalid $-variable specified", 22),
    ("p vfs_read ^$nosuch", "Invalid $-variable specified", 22),
    ("p vfs_read ^$arg0", "Invalid argument number", 22),
    ("p vfs_read ^$arg2049", "Invalid argument number", 22),
    ("p vfs_read ^$arg", "Invalid $-variable specified", 22),
    ("p vfs_read a=^$argx", "Invalid $-variable specified", 22),
    ("p vfs_read+9 ^$arg1", "$arg* can be used only on function entry or exit", 22),
    ("p vfs_read+9 a=^$arg1", "$arg* can be used only on function entry or exit", 22),
    ("p vfs_read ^$arg*", "BTF is not available or not supported", 22),
    ("p vfs_read $arg1 ^$arg*", "BTF is not available or not supported", 22),
    ("p vfs_read $arg* ^$arg*", "$arg* can be used only once in the parameters", 22),
    ("p vfs_read ^$comm", "BTF is not available or not supported", 22),
    ("p vfs_read n=^$arg1:%pD", "BTF is not available or not supported", 22),
    ("p vfs_read+9 ^hoge", "BTF is not available or not supported", 22),
    // Fetches.
    ("p vfs_read ^%rax", "Invalid register name", 22),
    ("p vfs_read x=+0(^%):string", "Invalid register name", 22),
    ("p vfs_read ^@12345678abcde", "Invalid memory address", 22),
    ("p vfs_read ^@+10", "File offset is not available with kprobe", 22),
    ("p vfs_read a=\\^x", "Invalid immediate value", 22),
    ("p vfs_read a=\\^", "Invalid immediate value", 22),
    ("p vfs_read a=\\\"abcd^", "String is not closed with '\"'", 22),
    ("p vfs_read a=\\\"^", "String is not closed with '\"'", 22),
    ("p vfs_read ^+0@0)", "Dereference needs a brace", 22),
    ("p vfs_read +0(^+0@0))", "Dereference needs a brace", 22),
    ("p vfs_read ^+0ab1(@0)", "Invalid dereference offset", 22),
    ("p vfs_read ^+(@0)", "Invalid dereference offset", 22),
    ("p vfs_read +0(+0(@0^", "Dereference brace is not closed", 22),
    ("p vfs_read -8(%di^", "Dereference brace is not closed", 22),
    ("p vfs_read +0(^$comm)", "$comm can not be dereferenced", 22),
    ("p vfs_read +0(^\\\"abc\")", "$comm can not be dereferenced", 22),
    ("p vfs_read ^&1", "Invalid fetch argument", 22),
    ("p vfs_read a=^(x)", "Invalid fetch argument", 22),
    ("p vfs_read +0(^)", "Invalid fetch argument", 22),
    ("p vfs_read +0(^+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(@0))))))))))))))", "Dereference is too much nested", 22),
    // Types.
    ("p vfs_read +0(@11):u8[10^", "Array is not closed", 22),
    ("p vfs_read +0(@11):u8[10]^a", "Array has wrong suffix", 22),
    ("p vfs_read +0(@11):u8[^10a]", "Invalid array size", 22),
    ("p vfs_read +0(@11):u8[^]", "Invalid array size", 22),
    ("p vfs_read +0(@11):u8[^65]", "Array number is too big", 22),
    ("p vfs_read @11:^unknown_type", "Unknown type is specified", 22),
    ("p vfs_read @11:^", "Unknown type is specified", 22),
    ("p vfs_read @11:^b10@0/17", "Unknown type is specified", 22),
    ("p vfs_read @11:^b10@a/16", "Invalid bitfield", 22),
    ("p vfs_read @11:^b0@0/16", "Invalid bitfield", 22),
    ("p vfs_read %di:^string", "String accepts only memory argument", 22),
    ("p vfs_read $stack0:^u8[4]", "String accepts only memory argument", 22),
    ("p vfs_read \\1:^symstr", "Symbol String doesn't accept data/userdata", 22),
    ("p vfs_read \\\"foo\":^symstr", "$comm and immediate-string only accepts string type", 22),
    // Arguments.
    ("p vfs_read a=%di ^a=%si", "This argument name is already used", 22),
    ("p vfs_read ^a-b=%di", "Argument name must follow the same rules as C identifiers", 22),
    ("p vfs_read a=^", "No argument expression", 22),
];

#[test]
fn refused() {
    for (row, text, errno) in REFUSED {
        let column = row.find('^').expect("a caret");
        let line = row.replacen('^', "", 1);
        let error = match parse(&line, &FakeKernel, &Events::new()) {
            Ok(answer) => panic!("{line}: accepted: {answer:?}"),
            Err(error) => error,
        };
        assert_eq!((error.text.as_ref(), error.column, error.errno), (text, Some(column), errno), "{row}\n{error}");
        assert_eq!(error.command, line);
    }
}

/// The text is that of Linux 6.15 and newer. The caret stands under the first argument, also where the place has an offset.
#[test]
fn too_many_arguments() {
    for (definition, column) in [("p vfs_read", 11), ("r:g/e vfs_read%return", 22), ("p vfs_read+9", 13)] {
        let line = format!("{definition}{}", " %di".repeat(129));
        let error = parse(&line, &FakeKernel, &Events::new()).expect_err(definition);
        assert_eq!(
            error.to_string(),
            format!(
                "trace_kprobe: error: Too many arguments are specified\n  Command: {line}\n           {:column$}^\n  help: at most 128",
                ""
            )
        );
        assert_eq!(error.errno, 7);
    }
}

#[test]
fn errors_without_an_entry_in_the_log() {
    for (line, errno) in [
        ("x vfs_read", 22),
        ("p", 22),
        ("r:foo", 22),
        ("p /bin/sh:0x10", 22),
        ("-", 22),
        ("-:", 22),
        ("-foo", 22),
        ("-:nosuch", 2),
        ("-:kprobes/nosuch", 2),
        ("-:/nosuch", 2),
        ("-:nosuch/", 2),
    ] {
        let error = parse(line, &FakeKernel, &Events::new()).expect_err(line);
        assert_eq!((error.column, error.errno), (None, errno), "{error}");
    }
}

#[test]
fn help_says_what_to_do() {
    let help = |line: &str| parse(line, &FakeKernel, &Events::new()).expect_err(line).help.expect("a help");
    assert_eq!(help("p vfs_raed"), "did you mean vfs_read?");
    assert_eq!(help("p vfs_read %rax"), "kprobe events call it %ax");
    assert_eq!(help("p vfs_read %flgas"), "did you mean %flags?");
    assert_eq!(help("p vfs_read +0(%di):sting"), "did you mean string?");
    assert_eq!(help("p name_show"), "give one of its addresses: 0x1000, 0x2000");
    assert_eq!(help("p vfs_read $comm"), "$comm is not available yet: it needs the guest's current task");
    let shown = parse("p  vfs_read   %rax # comment", &FakeKernel, &Events::new()).expect_err("bad").to_string();
    assert_eq!(
        shown,
        "trace_kprobe: error: Invalid register name
  Command: p vfs_read %rax
                      ^
  help: kprobe events call it %ax"
    );
}

#[test]
fn accepted() {
    for line in [
        "p vfs_read",
        "p vfs_read+0",
        "p vfs_read+4",
        "p vfs_read+0x9",
        "pfoo vfs_read",
        "p:foo vfs_read",
        "p:foo/bar vfs_read",
        "p:foo.bar vfs_read",
        "p:foo/ vfs_read",
        "p:foo-x/bar vfs_read",
        "p 0xffffffff81445480",
        "p 18446744071583847552",
        "p 0x1000",
        "p nosuchmod:func",
        "p nosuchmod:func+8 %di",
        "r nosuchmod:func $retval $arg1",
        "r vfs_read",
        "r4096:x vfs_read",
        "r0x10:x vfs_read",
        "r vfs_read+4",
        "r 0xffffffff81445480 $retval",
        "p vfs_read%return $retval",
        "p 0xffffffff81445480 $arg1",
        "p vfs_read $stack $stack0 $stack2048 $stack010",
        "p vfs_read $arg1 $arg7 $arg2048",
        "p vfs_read @0 @0x10 @linux_proc_banner @linux_proc_banner+8 @linux_proc_banner-8",
        "p vfs_read +0(%di) -8(%di) +u0(%di) -u8(%di) +0x10(+8(%di))",
        "p vfs_read ++5(%di) +-5(%di) +0(%di)behind",
        "p vfs_read \\1 \\-1 \\+1 \\0x10 \\\"text\" \\\"\"",
        "p vfs_read %di:u8 %di:s16 %di:x32 %di:x64 %di:char %di:symbol %di:symstr",
        "p vfs_read +0(%di):string +0(%di):ustring +u0(%di):string \\0:string \\\"x\":string",
        "p vfs_read +0(%di):u8[64] +0(%di):string[64] +u0(%di):u8[2] @0:s32[0x4]",
        "p vfs_read %di:b1@0/8 %di:b64@0/64 +0(%di):b4@4/8[2]",
        "p vfs_read +0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(@0)))))))))))))",
        "p vfs_read a23456789012345678901234567890ab=%di",
        "  p vfs_read %di  # comment",
        "p vfs_read %di\n",
    ] {
        assert!(matches!(parse(line, &FakeKernel, &Events::new()), Ok(Command::Add(_))), "{line}");
    }
    let arguments = format!("p vfs_read{}", " %di".repeat(128));
    assert_eq!(define(&arguments).args.len(), 128);
}

#[test]
fn nesting_ends_where_the_kernels_program_is_full() {
    let nest =
        |depth: usize, inside: &str| format!("p vfs_read x={}{inside}{}", "+0(".repeat(depth), ")".repeat(depth));
    for (depth, inside) in [(13, "@0"), (14, "%di")] {
        assert!(parse(&nest(depth, inside), &FakeKernel, &Events::new()).is_ok(), "{depth} {inside}");
        let error = parse(&nest(depth + 1, inside), &FakeKernel, &Events::new()).expect_err("too deep");
        assert_eq!(error.text, "Dereference is too much nested");
    }
}

#[test]
fn long_things() {
    // A comment counts as well: the kernel cuts it off later.
    let line = format!("p vfs_read #{}", "x".repeat(4094 - 12));
    assert!(parse(&line, &FakeKernel, &Events::new()).is_ok());
    let error = parse(&format!("{line}x"), &FakeKernel, &Events::new()).expect_err("too long");
    assert_eq!((error.errno, error.column), (22, None));
    let body = |len: usize| format!("p vfs_read x=\\\"{}\"", "y".repeat(len - 3));
    assert!(parse(&body(63), &FakeKernel, &Events::new()).is_ok());
    let error = parse(&body(64), &FakeKernel, &Events::new()).expect_err("too long");
    assert_eq!((error.text.as_ref(), error.errno, error.column), ("Argument expression is too long", 7, Some(13)));
    let big = format!("p vfs_read{}", " +0(%di):u64[64]".repeat(7));
    let error = parse(&big, &FakeKernel, &Events::new()).expect_err("too big");
    assert_eq!((error.text.as_ref(), error.errno), ("Event too big (too many fields?)", 7));
    assert_eq!(error.column, Some(11 + 6 * 16));
}

#[test]
fn what_a_definition_says() {
    let definition = define("r16:g/e vfs_read $retval:s64 $arg2");
    assert_eq!(definition.kind, Kind::Kretprobe { maxactive: Some(16) });
    assert_eq!((definition.group.as_str(), definition.event.as_str()), ("g", "e"));
    assert_eq!(definition.args[1].name, "arg2");
    assert!(definition.entry.is_some());
    assert_eq!(definition.place.address.expect("known").0, 0xffff_ffff_8144_5484);
    assert!(definition.place.at_entry);
    let pending = define("p nosuchmod:func+8 %di");
    assert_eq!((pending.place.text.as_str(), pending.place.address), ("nosuchmod:func+8", None));
    assert_eq!(pending.event, "p_nosuchmod_func_8");
    assert_eq!(define("p foo.isra.0").event, "p_foo_isra_0_0");
    assert_eq!(define("p 0xffffffff81445489").to_string(), "p:kprobes/p_0xffffffff81445489 0xffffffff81445489");
}

/// What users bring along from elsewhere, and what the shell left of it, comes with the way to write it here.
#[test]
fn natural_mistakes_have_a_hint() {
    for (line, help) in [
        ("p vfs_read +0():ustring", "in double quotes the shell takes $arg1 for a variable of its own"),
        ("p vfs_read a=", "in double quotes the shell takes $arg1 for a variable of its own"),
        ("p vfs_read a=+8(+0()):u32", "in double quotes the shell takes $arg1 for a variable of its own"),
        ("kprobe:vfs_read", "bpftrace's kprobe:vfs_read is written p vfs_read"),
        ("kretprobe:vfs_read", "bpftrace's kretprobe:vfs_read is written r vfs_read"),
        ("fentry:vfs_read", "bpftrace's fentry:vfs_read is written p vfs_read"),
        ("f:x vfs_read", "a function probe (f) is written p:x vfs_read"),
        ("f vfs_read%return $retval", "a function probe (f) is written r vfs_read"),
        ("f8:g/x vfs_read%return", "a function probe (f) is written r:g/x vfs_read"),
        ("tracepoint:sched", "a line begins with p (probe), r (return probe), -: (delete) or #"),
    ] {
        let error = parse(line, &FakeKernel, &Events::new()).expect_err(line);
        assert!(error.help.as_deref().is_some_and(|found| found.contains(help)), "{line}: {error}");
    }
}
