//! What needs no guest: symbols, check, completions, man pages, and mistakes in test files.

mod common;

use common::Place;

#[test]
fn symbols() {
    let place = Place::new();
    let text = place.run(&["symbols", "vmlinuz", "do_sys_openat?"]).code(0).stdout;
    let [line] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    let words: Vec<_> = line.split_whitespace().collect();
    // 0x170 bytes, as the kernel itself shows in its traces.
    assert_eq!((&words[1..], words[0].len()), (&["t", "368", "do_sys_openat2"][..], 16));
    let json = place.run(&["symbols", "--functions", "--json", "vmlinuz", "vfs_read"]).code(0).stdout;
    let symbol: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&symbol["name"], &symbol["text"], &symbol["module"]), (&"vfs_read".into(), &true.into(), &().into()));
    assert!(place.run(&["symbols", "vmlinuz", "vfs_raed"]).code(1).stderr.contains("did you mean vfs_read"));
    assert!(
        place.run(&["symbols", "-f", "vmlinuz", "jiffies"]).code(1).stderr.contains("no function matches 'jiffies'")
    );
}

/// Whoever reads a listing may go before its end, or before its beginning: that is no error, and nothing is said of it.
#[test]
fn a_reader_that_goes_is_no_error() {
    let place = Place::new();
    place.write("tests/a.toml", "[test]\nname = 'a'\n");
    let listings = [
        "symbols vmlinuz",
        "symbols --json vmlinuz",
        "check -k vmlinuz --def 'p vfs_read'",
        "completions bash",
        "completions zsh",
        "completions fish",
        "test --list tests",
        "doctor",
        "--help",
        "run --help",
        "--version",
    ];
    for listing in listings {
        // A pipe whose reader is gone before anything is written.
        let script = format!("(sleep 0.2; \"$0\" {listing}; echo $? > status) | exec true");
        let output = place.command("sh").args(["-c", &script, env!("CARGO_BIN_EXE_qkprobe")]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{listing}");
        common::wait_until("the status", || std::fs::read(place.path("status")).is_ok_and(|text| !text.is_empty()));
        assert_eq!(std::fs::read_to_string(place.path("status")).unwrap(), "0\n", "{listing}");
        std::fs::remove_file(place.path("status")).unwrap();
    }
    let mut command = place.command("sh");
    let script = "\"$0\" symbols vmlinuz | head -n 1";
    let output = command.args(["-c", script, env!("CARGO_BIN_EXE_qkprobe")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1);
}

/// An image that names nothing (kallsyms destroyed), and the System.map of the same build.
#[test]
fn symbols_that_lie_elsewhere() {
    let place = Place::new();
    let (image, map) = place.without_names();
    place.write("vmlinux", image);
    place.write("System.map", map);
    let check =
        |args: &[&str]| place.run(&[&["check", "-k", "vmlinux", "--def", "p:a vfs_read+9 $arg1"], args].concat());
    // The place is inside of a function: text and symbols are both needed.
    let alone = check(&[]).code(1).stderr;
    assert!(alone.contains("give a vmlinux that is not stripped, its System.map"), "{alone}");
    assert_eq!(check(&["--symbols", "System.map"]).stdout, "");
    let inside = place.run(&["check", "-k", "vmlinux", "--symbols", "System.map", "--def", "p:a vfs_read+1"]).code(1);
    assert!(inside.stderr.contains("Probe point is not an instruction boundary"), "{}", inside.stderr);
    place.write("test.toml", "[guest]\nkernel = 'vmlinux'\nsymbols = 'System.map'\n[[probe]]\ndef = 'p:d vfs_open'\n");
    assert_eq!(place.run(&["check", "test.toml"]).code(0).stdout, "1 definition is good\n");
    place.write("probes.toml", "kernel = ['vmlinux', 'System.map']\n[[probe]]\ndef = 'p:d vfs_open'\n");
    assert_eq!(place.run(&["check", "probes.toml"]).code(0).stdout, "1 definition is good\n");
}

/// Mistakes that users make by nature: each is told with what to write.
#[test]
fn natural_mistakes_have_a_hint() {
    let place = Place::new();
    place.write("boot.toml", "[test]\nname = 'a'\n[[probe]]\ndef = 'p vfs_read'\n");
    place.write("vfs.list", "# reads\np:a vfs_read\np:b vfs_raed\n");
    let run = |args: &[&str]| place.run(&[&["run", "-k", "vmlinuz"], args].concat()).code(2).stderr;
    for (args, told) in [
        (&["p:x do_sys_openat2 file=+0():ustring"][..], "put the definition in single quotes"),
        (&["p vfs_*"], "`qkprobe symbols -f IMAGE 'vfs_*'` lists what fits"),
        (&["p snd_pcm_open"], "write MODULE:SYMBOL, and give a copy of the guest's /proc/kallsyms (--symbols FILE"),
        (&["p:open sys_openat"], "did you mean __x64_sys_openat"),
        (&["kprobe:vfs_read"], "bpftrace's kprobe:vfs_read is written p vfs_read"),
        (&["f:x vfs_read"], "a function probe (f) is written p:x vfs_read"),
        (&["p:x do_sys_openat2 file=+0($arg2):ustring if file = \"/x\""], "help: equality is written =="),
        (&["-c", "boot.toml"], "this is a boot test: run it with `qkprobe test boot.toml`"),
        (&["-c", "vfs.list"], "vfs.list:3\ntrace_kprobe: error: Invalid probed address or symbol"),
        (&["--memory", "much"], "'much' is no size: write 1G, 512M, or a number of MB"),
        (&["--memory", "8"], "'8' is too little: a guest needs 16M at least"),
    ] {
        let text = run(args);
        assert!(text.contains(told), "{args:?}: {text}");
    }
    let help = place.run(&["run", "--help"]).code(0).stdout;
    for part in ["[default: 1]", "[alias: --cpus]", "[default: 512M; ppc: 256M]", "KASLR differs all the same"] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

/// What `doctor` finds, `run` finds: a QEMU of the set-up's cache with nothing in `$PATH`.
#[test]
fn one_search_for_qemu() {
    let place = Place::new();
    let empty = place.path("empty");
    std::fs::create_dir(&empty).unwrap();
    let alone = |args: &[&str], cache: Option<&str>| {
        let mut command = place.qkprobe(args);
        command.env("PATH", &empty);
        if let Some(cache) = cache {
            command.env("XDG_CACHE_HOME", place.path(cache)).env_remove("HOME");
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, doctor, _) = alone(&["doctor"], None);
    assert_eq!(status, Some(0), "{doctor}");
    let x86_64: Vec<&str> = doctor.split("\n\n").filter(|part| part.starts_with("x86_64: ")).collect();
    assert!(x86_64.iter().any(|part| part.contains("x86_64: QEMU 11.1.3, ")), "{doctor}");
    let taken = doctor.split("x86_64: QEMU 11.1.3, ").nth(1).unwrap().split("x86_64: QEMU").next().unwrap();
    assert!(taken.contains("  taken  where no --qemu names another\n"), "{doctor}");
    let (status, _, stderr) = alone(&["run", "-k", "vmlinuz", "-q", "--for", "10ms", "p vfs_read"], None);
    assert_eq!(status, Some(0), "{stderr}");
    assert!(stderr.contains(" in ") && stderr.contains("/qemu/11.1/"), "{stderr}");
    let (status, _, stderr) = alone(&["run", "-k", "vmlinuz", "p vfs_read"], Some("none"));
    assert_eq!(status, Some(1), "{stderr}");
    let none = place.path("none/qkprobe/qemu");
    let told =
        format!("qkprobe: error: qemu-system-x86_64 was not found in $PATH nor in {}: install it", none.display());
    assert!(stderr.starts_with(&told), "{stderr}");
    let (status, doctor, _) = alone(&["doctor"], Some("none"));
    assert_eq!(status, Some(1));
    assert!(doctor.contains("x86_64: qemu-system-x86_64 was not found in $PATH nor in "), "{doctor}");
}

#[test]
fn check() {
    let place = Place::new();
    place.write("good.toml", "[[probe]]\ndef = 'p:a vfs_read n=$arg3'\nfilter = 'n > 3'\n");
    place.write("good.txt", "# as for kprobe_events\np:b vfs_write+5 %ax\nr:c vfs_read $retval if arg1 < 5\n-:b\n");
    place.write("test.toml", "[guest]\nkernel = 'vmlinuz'\n[[probe]]\ndef = 'p:d vfs_open'\n");
    let good = place.run(&["check", "-k", "vmlinuz", "good.toml", "good.txt"]).code(0).stdout;
    assert_eq!(good, "2 definitions are good\n");
    assert_eq!(place.run(&["check", "test.toml"]).code(0).stdout, "1 definition is good\n");
    assert!(place.run(&["check", "good.toml"]).code(2).stderr.contains("--kernel: no kernel image is named"));
    place.write(
        "bad.txt",
        "p:a vfs_raed\np:b vfs_read+1\np:c vfs_read %rax\nr:d vfs_read+9\np:e vfs_read n=$arg1:u99\np:f vfs_read if x == 1\nr:g vfs_read do user\n",
    );
    let bad = place.run(&["check", "-k", "vmlinuz", "bad.txt"]).code(1).stderr;
    for (line, error) in [
        (1, "Invalid probed address or symbol"),
        (2, "Probe point is not an instruction boundary"),
        (3, "Invalid register name"),
        (4, "Retprobe address must be an function entry"),
        (5, "Unknown type is specified"),
        (6, "Field not found"),
        // What the plugin has against a definition without asking QEMU.
        (7, "a return probe is for the kernel's own functions"),
    ] {
        let place = format!("bad.txt:{line}\n");
        let after = bad.split_once(&place).unwrap_or_else(|| panic!("no {place} in {bad}")).1;
        assert!(after.lines().next().unwrap().contains(error), "{line}: {error}\n{bad}");
    }
    assert!(bad.starts_with("qkprobe: error: 7 mistakes\n"), "{bad}");
    // What a boot test expects of its probes is a part of it.
    place.write(
        "bad.toml",
        "[[probe]]\ndef = 'p:a vfs_read n=$arg3'\n[[expect]]\nevent = 'a if m > 1'\n[[expect]]\nnever = 'b'\n",
    );
    let bad = place.run(&["check", "-k", "vmlinuz", "bad.toml"]).code(1).stderr;
    assert!(bad.contains("bad.toml:3\nevent filter parse error: error: Field not found"), "{bad}");
    assert!(bad.contains("bad.toml:5\nno probe 'b': did you mean a?"), "{bad}");
}

/// Names as GCC made them, and numbers that are addresses of no kernel although its table of symbols has them.
#[test]
fn names_that_compilers_make_and_symbols_that_are_no_addresses() {
    let place = Place::new();
    let good = [
        "p:a match_id.isra.0",
        "p:b measure_residency_fn.constprop.0.isra.0",
        "p:c topa_alloc.constprop.0",
        "p:d name_to_dev_t.cold",
        "p:e vfs_statfs.part.0.isra.0",
        "p:f vfs_statfs",
        "p:g 0x1000",
        "p:h vfs_read a=$arg2 if a.function != vfs_statfs.part.0.isra.0",
    ];
    place.write("good.txt", good.join("\n"));
    assert_eq!(place.run(&["check", "-k", "vmlinuz", "good.txt"]).code(0).stdout, "8 definitions are good\n");
    for (definition, help) in [
        ("p topa_alloc", "the compiler made topa_alloc.constprop.0 of it"),
        ("p topa_alloc.isra.0", "this kernel has topa_alloc.constprop.0"),
        ("p fixed_percpu_data", "0x0 lies in no function of the kernel"),
    ] {
        let text = place.run(&["check", "-k", "vmlinuz", "--def", definition]).code(1).stderr;
        assert!(text.contains("error: Invalid probed address or symbol\n") && text.contains(help), "{text}");
    }
}

#[test]
fn mistakes_in_test_files_stop_everything_before_a_guest_starts() {
    let place = Place::new();
    place.write("tests/a.toml", "[test]\nname = 'a'\n");
    place.write("tests/b/c.toml", "[test]\nend = 'off'\n");
    place.write("tests/probes.toml", "[[probe]]\ndef = 'p f'\n");
    let text = place.run(&["test", "-k", "vmlinuz", "tests"]).code(2).stderr;
    assert!(text.contains("tests/b/c.toml:2:7: 'off' is no end") && !text.contains("probes.toml"), "{text}");
    place.write("tests/b/c.toml", "[test]\nname = 'c'\n");
    let list = |args: &[&str]| place.run(&[&["test", "--list", "tests"], args].concat()).code(0).stdout;
    assert_eq!(list(&[]), "a\ttests/a.toml\nc\ttests/b/c.toml\n");
    assert_eq!(list(&["--shard", "2/2"]), "c\ttests/b/c.toml\n");
    assert_eq!(list(&["--filter", "a"]), "a\ttests/a.toml\n");
    let text = |args: &[&str]| place.run(&[&["test"], args].concat()).code(2).stderr;
    assert!(text(&["none.toml"]).contains("none.toml: cannot be read: No such file"));
    assert!(text(&["-k", "none", "tests"]).contains("--kernel none: No such file"));
    // A test that tests nothing is no pass, and neither is one without a kernel.
    let done = place.run(&["test", "tests/a.toml"]).code(1);
    assert!(done.stdout.contains("not ok 1 a # ERROR fail: no kernel: give --kernel FILE"), "{}", done.stdout);
    assert!(
        place.run(&["test", "--junit", "/nonexistent/x", "tests"]).code(1).stderr.contains("--junit /nonexistent/x: ")
    );
}

#[test]
fn completions_and_man_pages() {
    let place = Place::new();
    for (shell, part) in [("bash", "complete -o"), ("zsh", "#compdef qkprobe"), ("fish", "complete --keep-order")] {
        let script = place.run(&["completions", shell]).code(0).stdout;
        assert!(script.contains(part), "{shell}: {script}");
    }
    place.run(&["man", "man1"]).code(0);
    let mut pages: Vec<_> = std::fs::read_dir(place.path("man1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    for page in ["qkprobe.1", "qkprobe-run.1", "qkprobe-test.1", "qkprobe-symbols.1"] {
        assert!(pages.contains(&page.to_owned()), "{pages:?}");
    }
    let run = std::fs::read_to_string(place.path("man1/qkprobe-run.1")).unwrap();
    assert!(run.contains(".TH qkprobe-run 1") && run.contains("\\-\\-until"), "{run}");
}
