//! `qkprobe run`, the commands that speak to a running guest, and the examples of every `--help`.

mod common;

use std::io::Read as _;
use std::process::Stdio;

use common::{Place, assert_harmless, signal, wait, wait_until};
use serde_json::Value;

const OPEN: &str = "p:open do_sys_openat2 file=+0($arg2):ustring";

#[test]
fn trace_console_summary_and_every_way_to_end() {
    let place = Place::new();
    place.initrd("openclose 3 /etc/none\nsay \u{1b}[31mred \u{9b}2J\n");
    let base = ["run", "-k", "vmlinuz", "--initrd", "initrd.img"];
    let run = |args: &[&str]| place.run(&[&base[..], args].concat());

    // The trace on standard output, everything else on standard error, and no byte of the guest as it is.
    let done = run(&[OPEN]).code(0);
    let opens: Vec<&str> = done.stdout.lines().filter(|line| line.ends_with("file=\"/etc/none\"")).collect();
    assert_eq!(opens.len(), 3, "{}", done.stdout);
    assert!(opens[0].contains(": open: (do_sys_openat2+0x0/0x170) file="), "{}", opens[0]);
    assert!(done.stderr.contains("\nguest | QK 2 ok say red \\xc2\\x9b2J\n"), "{}", done.stderr);
    assert!(done.stderr.contains("  kprobes/open  do_sys_openat2 "), "{}", done.stderr);
    assert_harmless(&done.stdout);
    assert_harmless(&done.stderr);

    // Files instead; the console's is byte for byte.
    place.write("probes.toml", format!("[[probe]]\ndef = '{OPEN}'\nfilter = 'file == \"/etc/none\"'\n"));
    let files =
        ["-c", "probes.toml", "--console", "console", "-o", "trace", "--format", "json", "--summary", "summary"];
    let done = run(&[&files[..], &["--", "-rtc", "base=utc"]].concat()).code(0);
    assert_eq!(done.stdout, "");
    let read = |name: &str| String::from_utf8(std::fs::read(place.path(name)).unwrap()).unwrap();
    assert!(read("console").contains("QK 2 ok say \u{1b}[31mred \u{9b}2J\r\n"));
    assert_eq!(read("trace").lines().filter(|line| line.contains(r#""event":"open""#)).count(), 3);
    let summary: Value = serde_json::from_str(&read("summary")).unwrap();
    assert_eq!(summary["probes"][0]["hits"], 3);

    // --until and --for end it; an --until that is not reached, a reboot, a probe's own status are told.
    run(&["-q", "--until", "open:hits>=3", OPEN]).code(0);
    run(&["-q", "--until", "open:hits>=300", OPEN]).code(12);
    run(&["-q", "--for", "500ms", OPEN]).code(0);
    run(&["-q", "p:start start_kernel do quit=33"]).code(33);
    place.initrd("write /proc/sysrq-trigger b\nsleep 100000\n");
    run(&["-q", OPEN]).code(10);
    place.assert_clean();
}

#[test]
fn mistakes_are_told_before_anything_starts() {
    let place = Place::new();
    place.initrd("");
    let run = |args: &[&str], code: i32| place.run(&[&["run"], args].concat()).code(code).stderr;
    let no_kernel = run(&[OPEN], 2);
    assert!(no_kernel.contains("name the image with --kernel FILE"), "{no_kernel}");
    let typo = run(&["-k", "vmlinuz", "p:open do_sys_opennat2"], 2);
    let wanted = "qkprobe: error: 'p:open do_sys_opennat2'\ntrace_kprobe: error: Invalid probed address or symbol\n  Command: \
                  p:open do_sys_opennat2\n                  ^\n";
    assert!(typo.starts_with(wanted) && typo.contains("did you mean"), "{typo}");
    let option = run(&["-k", "vmlinuz", "p vfs_read do skpi"], 2);
    assert!(option.contains("No such option: 'skpi'") && option.contains("did you mean skip?"), "{option}");
    place.write("bad.toml", "[[probe]]\ndfe = 'p f'\n");
    let key = run(&["-k", "vmlinuz", "-c", "bad.toml"], 2);
    assert!(key.contains("bad.toml:2:1: unknown key 'dfe'") && key.contains("did you mean def?"), "{key}");
    assert!(run(&["-k", "initrd.img", OPEN], 1).contains("seems to be an initramfs"));
    assert!(run(&["-k", "vmlinuz", "--arch", "vax", OPEN], 2).contains("these exist: x86_64, i386, ppc64le"));
    assert!(run(&["-k", "vmlinuz", "--arch", "ppc", OPEN], 1).contains("is a kernel for x86_64, not ppc"));
    assert!(run(&["-k", "vmlinuz", "--initrd", "none.img", OPEN], 1).contains("none.img: No such file"));
    assert!(run(&["-k", "vmlinuz", "--qemu", "11.9", OPEN], 1).contains("no qemu-system-x86_64 11.9 here; found: "));
    assert!(run(&["-k", "vmlinuz", "--qemu", "/nonexistent", OPEN], 1).contains("/nonexistent: "));
    assert!(run(&["-k", "vmlinuz", "--plugin", "none.so", OPEN], 1).contains("none.so: No such file"));
    assert!(run(&["-k", "vmlinuz", "--until", "x", OPEN], 2).contains("write EVENT:hits>=N"));
    assert!(run(&["-k", "vmlinuz", "--for", "soon", OPEN], 2).contains("write 10s, 250ms, 2m or 1h"));
    // The plugin's own words, and QEMU's.
    let old = run(&["-k", "vmlinuz", "--qemu", "10.0", "p vfs_read do override=0"], 1);
    assert!(old.contains("that came with QEMU 11.0"), "{old}");
    let qemu = run(&["-k", "vmlinuz", OPEN, "--", "-nonsense"], 1);
    assert!(qemu.contains("QEMU ended at once") && qemu.contains("-nonsense: invalid option"), "{qemu}");
    place.assert_clean();
}

#[test]
fn ctrl_c_ends_with_the_summary() {
    let place = Place::new();
    place.initrd("sleep 1000000\n");
    for (name, status) in [("INT", 130), ("TERM", 143)] {
        let mut command = place.qkprobe(&["run", "-k", "vmlinuz", "-i", "initrd.img", "--summary", "s.json", OPEN]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("a guest", || place.qemus().len() == 1);
        signal(child.id(), name);
        assert_eq!(wait(&mut child).code(), Some(status), "{name}");
        let summary: Value = serde_json::from_slice(&std::fs::read(place.path("s.json")).unwrap()).unwrap();
        assert_eq!(summary["probes"][0]["name"], "open", "{name}");
        place.assert_clean();
    }
}

/// On a terminal (that of util-linux' `script`) a line shows what the probes count, and goes at the end.
#[test]
fn the_status_line_is_for_terminals() {
    let place = Place::new();
    place.initrd("getppid 1000\nsleep 1000000\n");
    let line = format!(
        "{} run -k vmlinuz -i initrd.img --console console 'p:ppid __x64_sys_getppid do count'",
        env!("CARGO_BIN_EXE_qkprobe")
    );
    let mut command = place.command("script");
    command.args(["--quiet", "--return", "--command", &line, "typescript"]).env_remove("NO_COLOR").env("TERM", "xterm");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let shown = || String::from_utf8_lossy(&std::fs::read(place.path("typescript")).unwrap_or_default()).into_owned();
    wait_until("the line", || shown().contains("ppid 1000 ("));
    place.run(&["quit", "--guest", &place.qemus()[0].to_string()]).code(0);
    assert_eq!(wait(&mut child).code(), Some(0));
    let shown = shown();
    assert!(shown.contains(" s  running  ppid 1000 ("), "{shown}");
    let last = shown.rsplit('\r').find(|piece| piece.contains("ppid 1000")).unwrap();
    assert!(shown.rfind(last) < shown.rfind("\r\u{1b}[K"), "the line is taken away: {shown}");
    place.assert_clean();
}

/// An installed tree: the plugin is found in `../lib/qkprobe`, or beside the program.
#[test]
fn the_plugin_that_belongs_to_the_command_is_found() {
    let place = Place::new();
    let plugin = std::fs::read(qkprobe_tests::plugin_path().unwrap()).unwrap();
    let program = std::fs::read(env!("CARGO_BIN_EXE_qkprobe")).unwrap();
    for (bin, so) in [("a/bin/qkprobe", "a/lib/qkprobe/libqkprobe.so"), ("b/qkprobe", "b/libqkprobe.so")] {
        place.write(bin, &program);
        place.write(so, &plugin);
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(place.path(bin), executable).unwrap();
        let mut command = place.command(place.path(bin).to_str().unwrap());
        let output = command.env_remove("QKPROBE_PLUGIN").arg("doctor").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&format!("plugin: {}", place.path(so).canonicalize().unwrap().display())), "{text}");
        assert!(text.contains("QEMU 11.1.3") && text.contains("the plugin loads, API 7"), "{text}");
        // QEMU 10.0 has no registers for a SPARC, and for the others it has.
        let sparc = text.split("\n\n").find(|part| part.starts_with("sparc64: ")).unwrap();
        let registers = "arguments, filters, return and post probes";
        assert!(sparc.contains(&format!("  no     {registers} (needs QEMU 10.1)\n")), "{text}");
        assert_eq!(text.matches(&format!("  no     {registers}")).count(), 1, "{text}");
        // Two of them are 300 MB in a debug build.
        std::fs::remove_file(place.path(bin)).unwrap();
    }
    let mut command = place.qkprobe(&["doctor"]);
    let output = command.env("QKPROBE_PLUGIN", "/nonexistent.so").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("plugin: none. /nonexistent.so: No such file"));
    place.assert_clean();
}

/// The examples of a `--help`: lines below `Example:` or `Examples:` that begin with the program's name.
fn examples(help: &str) -> Vec<String> {
    let below = help.lines().skip_while(|line| !line.starts_with("Example"));
    let lines = below.filter_map(|line| line.strip_prefix("  qkprobe "));
    // A remark stands behind several blanks.
    lines.map(|line| line.split("      ").next().unwrap().trim_end().to_owned()).collect()
}

#[test]
fn every_example_of_every_help_works() {
    let place = Place::new();
    place.initrd("openclose 3 /etc/none\nuntil 2000 /proc/version never\n");
    place.write("probes.toml", format!("[[probe]]\ndef = '{OPEN}'\n"));
    place.write(
        "tests/boot.toml",
        format!("[test]\nend = 'done'\n[guest]\nappend = 'quiet'\n[[probe]]\ndef = '{OPEN}'\n"),
    );
    // The guest that the clients' examples speak to.
    place.write("guest.toml", "control = 'control.sock'\n");
    let script = b"say ready\nuntil 1000000 /proc/version never\n";
    let busy = qkprobe_harness::initramfs::Initramfs::new().file("/qk.script", 0o644, script);
    place.write("busy.img", busy.append_to(std::fs::read(place.path("initrd.img")).unwrap()).unwrap());
    let args = ["run", "-k", "vmlinuz", "-i", "busy.img", "-c", "guest.toml", "--console", "guest.console"];
    let mut guest = place.qkprobe(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the guest", || {
        std::fs::read(place.path("guest.console"))
            .is_ok_and(|text| String::from_utf8_lossy(&text).contains("ok say ready"))
    });

    let top = place.run(&["--help"]).code(0).stdout;
    let commands: Vec<&str> = top
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert_eq!(
        commands,
        [
            "run",
            "test",
            "add",
            "del",
            "enable",
            "disable",
            "list",
            "stat",
            "watch",
            "continue",
            "quit",
            "symbols",
            "check",
            "doctor",
            "completions",
            "man"
        ]
    );
    let mut order: Vec<&str> = commands.clone();
    // What `add` adds rests, is enabled again, and is deleted last; the guest ends at the very end.
    order.sort_by_key(|name| match *name {
        "add" => 0,
        "disable" => 1,
        "del" => 3,
        "quit" => 4,
        _ => 2,
    });
    let mut ran = 0;
    for name in order {
        let help = place.run(&[name, "--help"]).code(0).stdout;
        let list = examples(&help);
        assert!(!list.is_empty(), "{name} has no example:\n{help}");
        for example in list {
            let script = format!("\"$0\" {example}");
            let mut command = place.command("sh");
            command.args(["-c", &script, env!("CARGO_BIN_EXE_qkprobe")]).env("QKPROBE_GUEST", "control.sock");
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            // Outputs are short: no pipe fills.
            let status = wait(&mut child);
            let mut text = String::new();
            child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            assert!(status.success(), "{example}: {status}\n{text}");
            ran += 1;
        }
    }
    assert_eq!(ran, 28, "examples that were run");
    for example in examples(&top) {
        assert!(example.starts_with("run ") || example == "doctor", "{example} is not one of a command's own");
    }
    assert_eq!(wait(&mut guest).code(), Some(0));
    place.assert_clean();
}

/// What the clients say about a guest.
#[test]
fn clients() {
    let place = Place::new();
    place.initrd("say ready\nuntil 1000000 /proc/version never\n");
    place.write("guest.toml", "control = 'control.sock'\n");
    let args = ["run", "-k", "vmlinuz", "-i", "initrd.img", "-c", "guest.toml", "--console", "console"];
    let mut guest = place.qkprobe(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the guest", || {
        std::fs::read(place.path("console")).is_ok_and(|text| String::from_utf8_lossy(&text).contains("ok say ready"))
    });
    let by_socket = |args: &[&str]| place.run(&[args, &["-g", "./control.sock"]].concat());
    let added = by_socket(&["add", OPEN, "r:read vfs_read count=$retval:s64"]).code(0).stdout;
    let lines: Vec<_> = added.lines().collect();
    assert!(
        lines[0].starts_with("kprobes/open at 0xffffffff") && lines[1].starts_with("kprobes/read at 0xffff"),
        "{added}"
    );
    let bad = by_socket(&["add", "p:x nowhere"]).code(1).stderr;
    assert!(bad.contains("Invalid probed address or symbol\n  Command: p:x nowhere\n"), "{bad}");
    let list = by_socket(&["list"]).code(0).stdout;
    assert!(list.contains("kprobes/open  k     0xffffffff") && list.contains("file=+0($arg2):ustring"), "{list}");
    assert_eq!(by_socket(&["disable", "read"]).code(0).stdout, "1 disabled\n");
    assert!(by_socket(&["list"]).code(0).stdout.contains("DISABLED"));
    assert!(by_socket(&["enable", "raed"]).code(1).stderr.contains("No such probe event: raed"));
    assert_eq!(by_socket(&["enable", "read", "open"]).code(0).stdout, "2 enabled\n");
    let watched = by_socket(&["watch", "--lines", "2", "open"]).code(0).stdout;
    assert_eq!(watched.lines().count(), 2);
    assert!(
        watched.lines().all(|line| line.ends_with("open (do_sys_openat2+0x0/0x170) file=\"/proc/version\"")),
        "{watched}"
    );
    let json = by_socket(&["watch", "--json", "--lines", "1"]).code(0).stdout;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["type"], "event");

    // By QEMU's process ID, and by that of the qkprobe that started it.
    let stat = |pid: u32| place.run(&["stat", "--json", "--guest", &pid.to_string()]).code(0).stdout;
    for pid in [place.qemus()[0], guest.id()] {
        let profile: Value = serde_json::from_str(&stat(pid)).unwrap();
        assert!(profile[0]["hits"].as_u64().unwrap() > 0, "{profile}");
    }
    let rates = by_socket(&["stat", "--every", "300ms", "--times", "2"]).code(0).stdout;
    assert_eq!(rates.lines().filter(|line| line.starts_with("EVENT ")).count(), 2, "{rates}");

    // A shell asks for guests and for events.
    let complete = |words: &[&str], index: &str| {
        let mut command = place.qkprobe(&[&["--", "qkprobe"], words].concat());
        command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n");
        let output = command.env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "true").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(complete(&["stat", "--guest", ""], "3").lines().any(|line| line == place.qemus()[0].to_string()));
    assert!(complete(&["del", "op"], "2").lines().any(|line| line == "open"));
    assert_eq!(complete(&["disa"], "1"), "disable");

    let removed = by_socket(&["del", "kprobes/"]).code(0).stdout;
    assert!(removed.contains("kprobes/open: ") && removed.contains(" hits, 0 missed, 0 dropped"), "{removed}");
    by_socket(&["quit", "--status", "5"]).code(0);
    assert_eq!(wait(&mut guest).code(), Some(5));
    assert!(by_socket(&["stat"]).code(1).stderr.contains("control.sock: no such socket"));
    place.assert_clean();
}
