//! What docs/tutorial.md shows is what happens.

mod common;

use std::thread;

use common::{Done, Place, workspace};
use qkprobe_tests::{Cache, GuestArch};

/// The text of the first block of this language behind a heading.
fn block<'t>(text: &'t str, heading: &str, fence: &str) -> &'t str {
    let section = text.split_once(heading).unwrap_or_else(|| panic!("no {heading}")).1;
    let start = section.split_once(fence).unwrap_or_else(|| panic!("no {fence} in {heading}")).1;
    start.split_once("\n```").unwrap().0
}

#[test]
fn from_a_failing_test_to_one_that_passes() {
    let text = std::fs::read_to_string(workspace().join("docs/tutorial.md")).unwrap();
    let place = Place::new();
    place.initrd("");
    let section = text.split_once("## A test").unwrap().1;
    let test = block(&text, "## A test", "```toml\n");
    place.write("boot.toml", test);
    let run =
        |code| place.run(&["test", "--kernel", "vmlinuz", "--initrd", "initrd.img", "boot.toml"]).code(code).stdout;
    let shown = block(section, "It does not:", "```\n");
    let failed = run(1);
    // What is the same in each run: not the times, the seed, and the kernel's version.
    let fixed = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| {
            let begins = ["KTAP", "1..", "# boot.toml:", "#   QK", "ok", "not ok"];
            begins.iter().any(|begin| line.trim_start().starts_with(begin)) || *line == "# console:"
        });
        lines.map(|line| line.split(" ns=").next().unwrap().to_owned()).collect()
    };
    let shown: Vec<_> = fixed(shown);
    assert_eq!(shown.len(), 13, "{shown:?}");
    // The first line of the guest's own stands behind what the firmware left.
    let found: Vec<_> = fixed(&failed);
    assert!(shown.iter().filter(|line| !line.contains("QK begin")).all(|line| found.contains(line)), "{failed}");
    let event = failed.lines().find(|line| line.contains(" opened (")).unwrap();
    assert!(event.ends_with(r#"<- do_sys_openat2+0x0/0x170) fd="0xfffffffffffffffe" file="/etc/none""#), "{event}");

    let changed = test.replace("retval = \">= 0\"", "retval = \"-ENOENT\"");
    assert_ne!(changed, test);
    place.write("boot.toml", changed);
    let passed = run(0);
    assert!(passed.contains("\nok 1 boot # ") && passed.ends_with("# 1 pass\n"), "{passed}");

    // The hang that it shows.
    place.write("boot.toml", "[test]\nhang = '15s'\n[guest]\nfiles = { '/qk.script' = \"sleep 1000000\\n\" }\n[[probe]]\ndef = 'p:open do_sys_openat2'\n");
    let hang = run(1);
    assert!(hang.contains("\nnot ok 1 boot # TIMEOUT hang: no hit and nothing on the console for 15.0 s\n"), "{hang}");
    assert!(hang.lines().any(|line| line.starts_with("# vCPU 0: ") && line.ends_with(" (halted)")), "{hang}");

    // The mistake that it shows.
    let typo = place.run(&["run", "--kernel", "vmlinuz", "p:open do_sys_opennat2"]).code(2).stderr;
    assert_eq!(typo.trim_end(), block(&text, "told before anything starts", "do_sys_opennat2'\n").trim_end());
    place.assert_clean();
}

/// The same file with the kernels of two other architectures, by the commands that it shows.
#[test]
fn another_architecture_is_another_image() {
    let text = std::fs::read_to_string(workspace().join("docs/tutorial.md")).unwrap();
    let test = block(&text, "## A test", "```toml\n");
    let section = text.split_once("## Another architecture").unwrap().1;
    let commands = block(section, "", "```\n").lines();
    let events = block(section, "names what is there:", "```\n").lines();
    assert_eq!((commands.clone().count(), events.clone().count()), (2, 2));
    let cache = Cache::open().unwrap().root().display().to_string();
    thread::scope(|scope| {
        for ((command, event), arch) in commands.zip(events).zip([GuestArch::Ppc64le, GuestArch::Sparc64]) {
            let cache = &cache;
            scope.spawn(move || {
                let words: Vec<String> =
                    command.split(' ').map(|word| word.replace("~/.cache/qkprobe", cache)).collect();
                let [program, args @ ..] = words.as_slice() else { panic!("{command}") };
                assert_eq!(program, "qkprobe");
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let place = Place::of(arch);
                let run = |test: &str, code| -> Done {
                    place.write("boot.toml", test);
                    place.run(&args).code(code)
                };
                let failed = run(test, 1).stdout;
                // The time is not the same each time.
                let event = event.split_once(" cpu0 ").unwrap().1;
                let found = |line: &str| line.starts_with("#   ") && line.ends_with(&format!(" cpu0 {event}"));
                assert_eq!(failed.lines().filter(|line| found(line)).count(), 1, "{failed}");
                assert!(
                    failed.contains("\nnot ok 1 boot # fail: ") && failed.contains("; found: return 1 is -2\n"),
                    "{failed}"
                );
                let passed = run(&test.replace("retval = \">= 0\"", "retval = \"-ENOENT\""), 0).stdout;
                assert!(passed.contains("\nok 1 boot # ") && passed.ends_with("# 1 pass\n"), "{passed}");
                place.assert_clean();
            });
        }
    });
}
