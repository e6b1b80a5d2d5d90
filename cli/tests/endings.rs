//! How a guest ends and what is said of it: by itself, by a probe, by somebody; and a QEMU that refuses or dies.

mod common;

use std::process::Stdio;

use common::{Done, Place, signal, wait_until};
use qkprobe_harness::guest::End;
use qkprobe_harness::{Boot, summary};
use qkprobe_tests::{Cache, GuestArch, GuestKernel, Qemu};
use serde_json::{Value, json};

const OPEN: &str = "p:open do_sys_openat2 file=+0($arg2):ustring";

/// The last line, without the time.
#[track_caller]
fn last(done: &Done) -> &str {
    let line = done.stderr.lines().last().unwrap_or_default();
    let told = line.strip_prefix("qkprobe: after ").and_then(|rest| rest.split_once(" s: "));
    told.unwrap_or_else(|| panic!("no ending:\n{}", done.stderr)).1
}

/// Whether the text is these pieces, with a number between each two.
fn is(text: &str, pieces: &[&str]) -> bool {
    let mut rest = text;
    for piece in pieces {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let Some(after) = rest.strip_prefix(piece) else { return false };
        rest = after;
    }
    rest.is_empty()
}

/// A QEMU that refuses its command line after the plugin has loaded: its own words, and no verdict on the kernel.
#[test]
fn a_qemu_that_refuses_has_its_own_words() {
    let place = Place::new();
    place.initrd("");
    for (args, words) in [
        (["-device", "nosuchdev"], "-device nosuchdev: 'nosuchdev' is not a valid device model name"),
        (["-machine", "pc,nosuch=on"], "Property 'pc-i440fx-11.1-machine.nosuch' not found"),
        (["-drive", "file=/nonexistent.img"], "Could not open '/nonexistent.img': No such file or directory"),
        (["-m", "60T"], "cannot set up guest memory 'pc.ram': Cannot allocate memory"),
    ] {
        let run = [&["run", "-k", "vmlinuz", "-i", "initrd.img", OPEN, "--"][..], &args].concat();
        let done = place.run(&run).code(1);
        assert!(done.stderr.starts_with("qkprobe: error: QEMU ended at once (exit status: 1)\n"), "{}", done.stderr);
        assert!(done.stderr.contains(words), "{args:?}: {}", done.stderr);
        assert!(!done.stderr.contains("plugin API"), "{}", done.stderr);
        let list = args.map(|arg| format!("'{arg}'")).join(", ");
        place.write("boot.toml", format!("[guest]\nargs = [{list}]\n[[probe]]\ndef = '{OPEN}'\n"));
        place.run(&["test", "-k", "vmlinuz", "-i", "initrd.img", "--json", "r.json", "boot.toml"]).code(1);
        let report: Value = serde_json::from_slice(&std::fs::read(place.path("r.json")).unwrap()).unwrap();
        let test = &report["tests"][0];
        assert_eq!(test["verdict"], "qemu-failed", "{args:?}: {test}");
        assert!(test["reason"].as_str().unwrap().contains(words), "{args:?}: {test}");
    }
    // The plugin's own words are no failure of QEMU's.
    for args in [&["-enable-kvm"][..], &["-machine", "accel=kvm"], &["-accel", "kvm"]] {
        let run = [&["run", "-k", "vmlinuz", OPEN, "--"][..], args].concat();
        let kvm = place.run(&run).code(1).stderr;
        assert!(
            kvm.starts_with("qkprobe: error: the accelerator is KVM, which runs the guest without translating it"),
            "{kvm}"
        );
        assert!(kvm.contains("Use -accel tcg"), "{kvm}");
    }
    place.assert_clean();
}

/// One that somebody kills, or that gives up by `abort()`.
#[test]
fn a_qemu_that_is_killed() {
    let place = Place::new();
    place.initrd("sleep 1000000\n");
    place.write("boot.toml", format!("[[probe]]\ndef = '{OPEN}'\n"));
    for (name, told) in [
        ("KILL", "signal 9 (SIGKILL: by somebody, or for want of memory)"),
        ("ABRT", "signal 6 (SIGABRT: it gave up by abort())"),
    ] {
        for command in ["run", "test"] {
            let mut args = vec![command, "-k", "vmlinuz", "-i", "initrd.img"];
            args.extend(if command == "run" { vec![OPEN] } else { vec!["boot.toml", "--json", "r.json"] });
            let child = place.qkprobe(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            wait_until("a guest", || place.has_socket() && place.qemus().len() == 1);
            signal(place.qemus()[0], name);
            let output = child.wait_with_output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            match command {
                // It may be hit before it has begun.
                "run" if output.status.code() == Some(1) => {
                    assert_eq!(stderr, format!("qkprobe: error: QEMU ended at once ({told})\n"));
                }
                "run" => {
                    assert_eq!(output.status.code(), Some(11), "{stderr}");
                    assert!(stderr.ends_with(&format!(" s: QEMU was killed by {told}\n")), "{stderr}");
                }
                _ => {
                    assert_eq!(output.status.code(), Some(1), "{stderr}");
                    let report: Value = serde_json::from_slice(&std::fs::read(place.path("r.json")).unwrap()).unwrap();
                    let test = &report["tests"][0];
                    assert_eq!(test["verdict"], "qemu-failed", "{test}");
                    assert!(test["reason"].as_str().unwrap().contains(told), "{test}");
                }
            }
        }
    }
    place.assert_clean();
}

/// The last line of `run` says how the guest ended, and why.
#[test]
fn run_says_last_how_the_guest_ended() {
    let place = Place::new();
    place.initrd("");
    let run = |args: &[&str], code| place.run(&[&["run", "-q", "-k", "vmlinuz"], args].concat()).code(code);
    let with_initrd = |args: &[&str], code| run(&[&["-i", "initrd.img"], args].concat(), code);

    let no_root = run(&["--cpus", "1", "--memory", "0.5G"], 10);
    let panic = "VFS: Unable to mount root fs on unknown-block(";
    let advice = ") (the guest has no --initrd and no --init to start from)";
    let begin = "the guest's kernel panicked and rebooted: panic at ";
    assert!(is(last(&no_root), &[begin, &format!(" s: {panic}"), ",", advice]), "{}", last(&no_root));
    assert!(!no_root.stdout.contains("panic") && !no_root.stderr.contains("qkprobe_watch"), "{}", no_root.stderr);

    let off = with_initrd(&[OPEN], 0);
    assert_eq!(last(&off), "the guest turned its power off");
    // SeaBIOS' sequences are none of the text.
    let shown = place.run(&["run", "-k", "vmlinuz", "-i", "initrd.img", OPEN]).code(0);
    assert!(shown.stderr.contains("guest | SeaBIOS (version "), "{}", shown.stderr);
    assert!(!shown.stderr.contains("\\x1b"), "{}", shown.stderr);
    let quit = with_initrd(&["p:start start_kernel do quit=33"], 33);
    assert_eq!(last(&quit), "the probe kprobes/start ended QEMU with status 33");
    let until = with_initrd(&["--until", "open:hits>=1", OPEN], 0);
    assert!(
        is(last(&until), &["open has hit ", " times as --until says; the guest was running"])
            || last(&until) == "open has hit once as --until says; the guest was running",
        "{}",
        last(&until)
    );
    place.initrd("write /proc/sysrq-trigger b\nsleep 100000\n");
    assert_eq!(last(&with_initrd(&[OPEN], 10)), "the guest rebooted");
    place.assert_clean();
}

/// What a probe's `quit` says cannot be taken for a status of `run`'s own, nor a client's.
#[test]
fn statuses_are_told_apart() {
    let place = Place::new();
    let refused = place.run(&["run", "-k", "vmlinuz", "p:start start_kernel do quit=10"]).code(2).stderr;
    assert!(refused.contains("quit=10: `run` has a meaning of its own for this exit status"), "{refused}");
    place.write("quit.toml", "[[probe]]\ndef = 'p:start start_kernel'\nquit = 12\n");
    let refused = place.run(&["run", "-k", "vmlinuz", "-c", "quit.toml"]).code(2).stderr;
    assert!(refused.contains("quit.toml:2\nquit=12: "), "{refused}");

    let misspelled = place.run(&["run", "-k", "vmlinuz", "--until", "opne:hits>=3", OPEN]).code(2).stderr;
    let told = "qkprobe: error: --until: no probe has the event 'opne'; did you mean open?\n";
    assert_eq!(misspelled, told);
    let group = place.run(&["run", "-k", "vmlinuz", "--until", "x/open:hits>=3", OPEN]).code(2).stderr;
    assert!(group.contains("no probe has the event 'x/open'; these exist: kprobes/open"), "{group}");
    let none = place.run(&["run", "-k", "vmlinuz", "--until", "open:hits>=3"]).code(2).stderr;
    assert!(none.contains("no probe has the event 'open'; there is no probe that could hit"), "{none}");

    place.initrd("say ready\nsleep 1000000\n");
    place.write("guest.toml", "control = 'control.sock'\n");
    let args = ["run", "-k", "vmlinuz", "-i", "initrd.img", "-c", "guest.toml", "--console", "console"];
    let child = place.qkprobe(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the guest", || {
        std::fs::read(place.path("console")).is_ok_and(|text| String::from_utf8_lossy(&text).contains("ok say ready"))
    });
    place.run(&["quit", "--status", "10", "-g", "./control.sock"]).code(0);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(13), "{stderr}");
    assert!(stderr.ends_with(" s: a client ended QEMU with status 10\n"), "{stderr}");
    place.assert_clean();
}

/// A client that deletes and disables everything does not take away what sees a panic.
#[test]
fn a_panic_is_seen_after_everything_was_deleted() {
    let cache = Cache::open().unwrap();
    let kernel = cache.kernel(GuestKernel::X86_64Cloud6_1).unwrap();
    let mut guest = Boot::new(kernel)
        .qemu(cache.qemu(Qemu::V11_1, GuestArch::X86_64.qemu_program()).unwrap())
        .plugin(qkprobe_tests::plugin_path().unwrap())
        .initrd(cache.initramfs(GuestArch::X86_64).unwrap())
        .file("/qk.script", "say ready\nuntil 1000000 /proc/version never\n")
        .append("unknown_nmi_panic")
        .probe(OPEN)
        .watch()
        .start()
        .unwrap();
    guest.wait_for_console("ok say ready", common::PATIENCE).unwrap();
    let control = guest.control().unwrap();
    assert_eq!(control.profile().unwrap().len(), 1);
    for cmd in ["disable", "delete", "delete"] {
        control.request(json!({ "cmd": cmd, "event": "*" })).unwrap();
    }
    assert_eq!(control.profile().unwrap(), []);
    guest.monitor("nmi").unwrap();
    assert_eq!(guest.wait_for_end(common::PATIENCE).unwrap(), End::Reset);
    guest.stop(|_| {});
    let seen = guest.watched();
    assert_eq!((seen.starts, seen.panic.is_some()), (1, true));
    let ending = guest.ending().unwrap();
    assert!(
        is(&ending, &["the guest's kernel panicked and rebooted: panic at ", " s: NMI: Not continuing"]),
        "{ending}"
    );
    let watched: Vec<summary::WatchSummary> = guest.summary().unwrap().watched;
    assert!(watched.iter().any(|probe| probe.name == "panic" && probe.hits > 0), "{watched:?}");
}
