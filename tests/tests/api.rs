//! The Rust API, through two plugins built on it: `tests/plugins/api_check`, which does what each test asks for and says
//! what it saw as `API key=value`, and `examples/open_watch`.

mod common;

use std::path::Path;
use std::process::Command;

use common::built_plugin;
use qkprobe_tests::{Boot, BootResult, Gate, GuestKernel, PATIENCE, Qemu, gate};

const KERNEL: GuestKernel = GuestKernel::X86_64Cloud6_1;

fn check(qemu: Qemu, what: &str) -> Boot {
    check_on(KERNEL, qemu, what)
}

fn check_on(kernel: GuestKernel, qemu: Qemu, what: &str) -> Boot {
    Boot::new(qemu, kernel)
        // A busy host may keep the timer from the kernel for so long that it gives up.
        .append("nokaslr quiet no_timer_check")
        .plugin_file(built_plugin("api_check"))
        .plugin_arg(format!("x-do={what}"))
}

/// What the plugin said about `key`.
#[track_caller]
fn said<'a>(boot: &'a BootResult, key: &str) -> &'a str {
    let prefix = format!("API {key}=");
    let found = boot.stderr.lines().find_map(|line| line.strip_prefix(&prefix));
    found.unwrap_or_else(|| panic!("nothing about {key}:\n{}", boot.stderr))
}

#[track_caller]
fn assert_said(boot: &BootResult, qemu: Qemu, expected: &[(&str, &str)]) {
    let found: Vec<_> = expected.iter().map(|(key, _)| (*key, said(boot, key))).collect();
    assert_eq!(found, expected, "{qemu}\n{}", boot.stderr);
}

#[track_caller]
fn number(boot: &BootResult, key: &str) -> u64 {
    said(boot, key).parse().unwrap_or_else(|error| panic!("{key}: {error}\n{}", boot.stderr))
}

/// The symbols that `nm` shows with these options: the letter of its kind, and its name.
fn symbols(options: &[&str], plugin: &Path) -> Vec<(String, String)> {
    let shown = Command::new("nm").args(options).arg(plugin).output().expect("nm runs");
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let words = shown
        .lines()
        .filter_map(|line| line.trim_start_matches(|it: char| it.is_ascii_hexdigit()).trim().split_once(' '));
    words.map(|(kind, name)| (kind.to_owned(), name.to_owned())).collect()
}

/// Has QEMU's entry points, once; and the functions of QEMU's that it wants at load time.
fn entry_points_and_wants(plugin: &Path) -> (Vec<String>, Vec<String>) {
    let of_qemu = |options: &[&str]| {
        let names = symbols(options, plugin).into_iter().map(|(_, name)| name);
        let mut names: Vec<_> = names.filter(|name| name.starts_with("qemu_plugin")).collect();
        names.sort_unstable();
        names
    };
    (of_qemu(&["-D", "--defined-only"]), of_qemu(&["-D", "--undefined-only"]))
}

/// Functions of the crate `qemu-plugin`, by their mangled names.
fn of_the_crate(plugin: &Path) -> usize {
    symbols(&[], plugin).iter().filter(|(_, name)| name.contains("11qemu_plugin")).count()
}

/// A plugin has QEMU's entry points, and the constructor that makes one .so fit several QEMUs. Of the crate `qemu-plugin` it has the types
/// alone: that crate's entry points and functions would tie it to one plugin API.
#[test]
fn entry_points_are_exported_and_nothing_is_wanted() {
    for plugin in [qkprobe_tests::plugin_path().unwrap(), built_plugin("api_check"), built_plugin("open_watch")] {
        let (entry_points, wants) = entry_points_and_wants(&plugin);
        assert_eq!(entry_points, ["qemu_plugin_install", "qemu_plugin_version"], "{}", plugin.display());
        assert!(wants.is_empty() && of_the_crate(&plugin) == 0, "{}: {wants:?}", plugin.display());
    }
    // It would be seen: here is one that uses the crate's functions.
    let oracle = built_plugin("oracle");
    let (_, wants) = entry_points_and_wants(&oracle);
    assert!(wants.contains(&"qemu_plugin_register_vcpu_insn_exec_cb".to_owned()), "{wants:?}");
    assert!(of_the_crate(&oracle) > 10);
}

/// Every handler sees each of 10^5 calls, with the right next PC, argument, data and result.
#[track_caller]
fn see_every_call(qemu: Qemu, kernel: GuestKernel, getppid: &str, arch: &str) {
    let boot = check_on(kernel, qemu, "counts")
        .plugin_arg("x-more=a,b")
        .plugin_arg(format!("count=p:by_line {getppid}"))
        .script(["getppid 100000"])
        .run_ok();
    let calls = "100000";
    assert_said(
        &boot,
        qemu,
        &[
            ("pre", calls),
            ("post", calls),
            ("entry", calls),
            ("return", calls),
            ("hits", "[Some(100000), Some(100000), Some(0), Some(100000)]"),
            ("nmissed", "Some(0)"),
            ("arch", arch),
            ("args", r#"[("do", "counts"), ("more", "a,b")]"#),
            ("slid", "true"),
        ],
    );
    // Rust probes stand in the summary beside the others.
    let summary = boot.summary();
    let hits = |name: &str| summary.probe(name).hits;
    let names = [getppid, &format!("{getppid}__return"), "silent", "only_counts", "by_line"];
    assert_eq!(names.map(hits), [100_000, 100_000, 0, 100_000, 100_000], "{}", boot.stderr);
    assert!(boot.stderr.contains("rust/only_counts "), "{}", boot.stderr);
    assert_eq!(boot.trace.lines().filter(|line| !line.starts_with('#')).count(), 0, "no records");
}

#[test]
fn handlers_see_every_call() {
    for qemu in Qemu::selected() {
        see_every_call(qemu, KERNEL, "__x64_sys_getppid", "x86_64");
    }
}

/// The others, and what the API calls them.
const OTHERS: [(GuestKernel, &str, &str); 5] = [
    (GuestKernel::I386Pae6_1, "__ia32_sys_getppid", "i386"),
    (GuestKernel::Ppc64le6_1, "sys_getppid", "ppc64le"),
    (GuestKernel::Ppc64Pseries6_1, "sys_getppid", "ppc64"),
    (GuestKernel::Ppc32Pmac6_1, "sys_getppid", "ppc"),
    (GuestKernel::Sparc64Sun4u6_1, "sys_getppid", "sparc64"),
];

#[test]
fn handlers_see_every_call_of_every_guest() {
    for (kernel, getppid, arch) in OTHERS {
        for qemu in Qemu::selected() {
            if (kernel, qemu) != (GuestKernel::Sparc64Sun4u6_1, Qemu::V10_0) {
                see_every_call(qemu, kernel, getppid, arch);
                continue;
            }
            // Post and return handlers need what this QEMU does not show.
            let refused = check_on(kernel, qemu, "counts").run();
            let says = "QEMU 10.0.2 shows neither registers nor memory of a sparc64 guest: that came with QEMU 10.1";
            assert!(!refused.status.success() && refused.stderr.contains(says), "{}", refused.stderr);
        }
    }
}

/// Each refusal has the kernel's errno, and refuses without a trace.
#[test]
fn refusals_have_the_kernels_errno() {
    for qemu in Qemu::selected() {
        let boot = check(qemu, "errors").script(["getppid 10"]).run_ok();
        let errno = |key: &str| said(&boot, key).split(' ').next().unwrap_or_default().to_owned();
        let expected = [
            ("unknown", "2"),
            ("module", "2"),
            ("data", "22"),
            ("boundary", "84"),
            ("offset", "22"),
            ("outside", "2"),
            ("entry", "22"),
            ("unique", "99"),
            ("big", "7"),
            ("none", "22"),
            ("name", "22"),
            ("post", "ok"),
            ("taken", "17"),
            ("batch", "84"),
            ("batch_ok", "3"),
            ("unregister", "true"),
            ("again", "22"),
            ("hits_again", "22"),
            ("enable_again", "22"),
            ("reused", "false"),
            ("all", "2"),
        ];
        let found: Vec<_> = expected.iter().map(|(key, _)| (*key, errno(key))).collect();
        let expected: Vec<_> = expected.iter().map(|(key, errno)| (*key, (*errno).to_owned())).collect();
        assert_eq!(found, expected, "{qemu}\n{}", boot.stderr);
        assert!(said(&boot, "unknown").contains("did you mean vfs_read"), "{}", boot.stderr);
        let (state, flow) = (said(&boot, "state"), said(&boot, "flow"));
        match qemu {
            Qemu::V11_1 => assert_eq!((state, flow), ("ok", "ok"), "{}", boot.stderr),
            Qemu::V7_2 | Qemu::V10_0 => {
                assert!(state.starts_with("95 ") && state.contains("10.1"), "{}", boot.stderr);
                assert!(flow.starts_with("95 ") && flow.contains("11.0"), "{}", boot.stderr);
            }
        }
        assert!(!boot.stderr.contains("panicked"), "{}", boot.stderr);
        assert!(!boot.stderr.contains("rust/vfs_write"), "nothing of the batch is there\n{}", boot.stderr);
    }
}

/// A thread registers, disables, enables and unregisters between counted calls: all counts are exact, and what a handler
/// holds is dropped when `unregister` returns.
#[test]
fn probes_come_and_go_at_run_time() {
    for qemu in Qemu::selected() {
        let steps = [("registered", 5000), ("disabled", 500), ("enabled", 1000), ("unregistered", 200)];
        let script = steps.map(|(ready, calls)| format!("{}\ngetppid {calls}\nsay after-{ready}.", gate(ready)));
        let boot = check(qemu, "comes-and-goes").smp(2).gates().script(["getppid 1000"]).script(script);
        let running = boot.spawn().unwrap();
        let mut gates = Gate::of(&running);
        for (ready, _) in steps {
            running
                .wait_for_stderr(&format!("API ready={ready}\n"), PATIENCE)
                .unwrap_or_else(|error| panic!("{error}"));
            gates.open(&running, ready, &format!("ok say after-{ready}."));
        }
        let boot = running.finish().unwrap();
        boot.assert_ok();
        let times = ["register_ms", "unregister_ms"].map(|key| number(&boot, key));
        println!("{qemu}: register, unregister in a guest that sleeps: {times:?} ms");
        assert_said(
            &boot,
            qemu,
            &[
                ("gone", "2"),
                ("strong", "1"),
                // The first is disabled for 500 calls; then nothing of either is called any more.
                ("own", "[6000, 6000, 6500, 6500]"),
                ("base", "7700"),
                ("after", "[6000, 6000, 6500, 6500]"),
            ],
        );
    }
}

/// The same as fast as possible, while two vCPUs hit the place: nothing is lost in between and nothing runs afterwards.
#[test]
fn unregister_is_a_barrier_under_load() {
    for qemu in Qemu::selected() {
        // They call until the power goes off.
        let script = ["background procs 2 getppid 4000000000", &gate("over")];
        let running = check(qemu, "hammer").smp(2).gates().script(script).spawn().unwrap();
        running.wait_for_stderr("API seen=", PATIENCE).unwrap_or_else(|error| panic!("{error}"));
        Gate::of(&running).open(&running, "over", "QK end");
        let boot = running.finish().unwrap();
        boot.assert_ok();
        println!("{qemu}: {} rounds of {} us", number(&boot, "rounds"), number(&boot, "round_us"));
        assert_said(&boot, qemu, &[("hammer", "lost=0 late=0 held=0"), ("rounds", "60")]);
        assert!(number(&boot, "seen") > 100, "{qemu}\n{}", boot.stderr);
    }
}

/// A handler that would wait for itself is refused; what needs no waiting is answered.
#[test]
fn a_handler_may_not_register() {
    for qemu in Qemu::selected() {
        let boot = check(qemu, "from-handler").script(["getppid 1000"]).run_ok();
        assert_said(&boot, qemu, &[("refused", "1000"), ("allowed", "1000"), ("other", "Ok(0)")]);
    }
}

/// A panic ends the handlers of its probe, and nothing else.
#[test]
fn a_panic_silences_its_probe() {
    for qemu in Qemu::selected() {
        let boot = check(qemu, "panics").script(["getppid 1000", "say alive"]).run_ok();
        assert_said(&boot, qemu, &[("good", "1000"), ("bad", "100")]);
        let told = boot.stderr.matches("a handler of rust/bad panicked: the hundredth hit").count();
        assert_eq!(told, 1, "{}", boot.stderr);
        assert!(boot.stderr.contains("a closure of on_exit panicked: at exit"), "{}", boot.stderr);
        assert_eq!(boot.summary().probe("good").hits, 1000);
    }
}

/// An error or a panic of the set-up function ends QEMU with its text.
#[test]
fn a_failing_set_up_ends_qemu() {
    for qemu in Qemu::selected() {
        let failed = check(qemu, "fails").run();
        assert!(!failed.status.success());
        assert!(
            failed.stderr.contains("qkprobe: error: vfs_read+0x1: no instruction begins here"),
            "{}",
            failed.stderr
        );
        let panicked = check(qemu, "set-up-panics").run();
        assert!(!panicked.status.success());
        assert!(panicked.stderr.contains("the set-up function panicked: asked for"), "{}", panicked.stderr);
    }
}

/// A pre handler returns to the caller by itself: the function does not run, and neither the older probe nor a post handler.
#[test]
fn a_handler_answers_for_the_function() {
    for qemu in Qemu::selected() {
        let boot = check(qemu, "jumps").script(["getppid 1000"]).run_ok();
        match qemu {
            Qemu::V11_1 => assert_said(&boot, qemu, &[("older", "0"), ("post", "0"), ("jumped", "1000")]),
            Qemu::V7_2 | Qemu::V10_0 => {
                assert_said(&boot, qemu, &[("older", "1000"), ("post", "1000"), ("jumped", "0")]);
                assert!(said(&boot, "refused").starts_with("95 "), "{}", boot.stderr);
            }
        }
    }
}

/// The example counts what the script opens.
#[track_caller]
fn watches_opens(qemu: Qemu, kernel: GuestKernel) {
    let what = format!("{qemu}, {}", kernel.name());
    let boot = Boot::new(qemu, kernel)
        .append("quiet no_timer_check")
        .plugin_file(built_plugin("open_watch"))
        .plugin_arg("x-slowest=3")
        .script(["openclose 700 /qk.script", "openclose 300 /no/such/file"])
        .run_ok();
    let line = boot.stderr.lines().find(|line| line.starts_with("open_watch: ") && line.contains(" calls"));
    let line = line.unwrap_or_else(|| panic!("{what}: no report\n{}", boot.stderr));
    let count = |field: &str| {
        let found = line.trim_start_matches("open_watch: ").split(", ").find(|text| text.contains(field));
        let number = found.and_then(|text| text.split(' ').find_map(|word| word.parse::<u64>().ok()));
        number.unwrap_or_else(|| panic!("{what}: no {field} in {line}"))
    };
    // The kernel and init open a few more.
    assert!((700..720).contains(&count("opened")), "{what}: {line}");
    assert!(line.contains(", 30") && line.contains(" errno 2"), "{what}: {line}");
    assert_eq!(count("calls"), boot.summary().probe("do_sys_openat2__return").hits, "{what}: {line}");
    assert!(!line.contains("not awaited") && !line.contains("traced"), "{what}: {line}");
    println!("{what}: {}", boot.stderr);
    let slowest: Vec<&str> = boot.stderr.lines().filter_map(|line| line.split_once(" us  ").map(|it| it.1)).collect();
    assert_eq!(slowest.len(), 3, "{what}: {}", boot.stderr);
    assert!(slowest.iter().all(|path| path.starts_with('/')), "{what}: {slowest:?}");
}

#[test]
fn the_example_watches_opens() {
    for qemu in Qemu::selected() {
        watches_opens(qemu, KERNEL);
    }
}

#[test]
fn the_example_watches_opens_of_every_guest() {
    for (kernel, ..) in OTHERS {
        watches_opens(Qemu::V11_1, kernel);
    }
}
