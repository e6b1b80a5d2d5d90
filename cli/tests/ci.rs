//! What a CI and a bisection get from `qkprobe test`: no success of a run in which nothing ran, and what GitHub shows.

mod common;

use std::process::Command;

use common::{Done, Place, assert_harmless};

/// `[test]`, without its end: the machine may be slow.
const PATIENT: &str =
    "[test]\ntimeout = '170s'\nhang = '160s'\n[guest]\nappend = 'quiet'\n[[probe]]\ndef = 'p:open do_sys_openat2'\n";

/// A place with three tests, two of which cannot run here, and no QEMU.
fn place() -> Place {
    let place = Place::new();
    place.initrd("openclose 1 /etc/none\n");
    let open = "[[probe]]\ndef = 'p:open do_sys_openat2'\n";
    place.write("tests/1-runs.toml", PATIENT.replace("[guest]", "end = 'done'\n[guest]"));
    place.write("tests/2-too-old.toml", format!("[test]\nneeds_qemu = '99.0'\n{open}"));
    place.write("tests/3-skip.toml", format!("[test]\nskip = 'not yet'\n{open}"));
    place.write("empty/README", "");
    place
}

const BASE: [&str; 5] = ["test", "-k", "vmlinuz", "-i", "initrd.img"];

fn run(place: &Place, args: &[&str]) -> Done {
    place.run(&[&BASE[..], args].concat())
}

/// Without a QEMU anywhere.
fn without_qemu(place: &Place, args: &[&str], code: i32) -> Done {
    let args = [&BASE[..], args].concat();
    let mut command = place.qkprobe(&args);
    command.env("PATH", "/nonexistent").env("HOME", "/nonexistent").env_remove("XDG_CACHE_HOME");
    Done::new(&args, command.output().unwrap()).code(code)
}

#[test]
fn nothing_ran_is_no_success() {
    let place = place();
    let nothing = |args: &[&str], code: i32, text: &str| {
        let done = run(&place, args).code(code);
        assert!(done.stderr.contains(text), "{args:?}: {}", done.stderr);
        done
    };
    let one = "qkprobe: error: nothing ran: the only test was skipped: QEMU 11.1.3 is older than 99.0.0 (--allow-skip";
    let done = nothing(&["tests/2-too-old.toml"], 5, one);
    assert!(
        done.stdout.contains("\n# nothing ran: the only test was skipped: QEMU 11.1.3 is older"),
        "{}",
        done.stdout
    );
    nothing(&["tests/3-skip.toml"], 5, "nothing ran: the only test was skipped: not yet");
    let both = ["tests/2-too-old.toml", "tests/3-skip.toml"];
    nothing(&both, 5, "nothing ran: all 2 tests were skipped; the first: QEMU 11.1.3 is older");
    nothing(&["--filter", "nonesuch", "tests"], 5, "--filter nonesuch: no test has this in its name");
    nothing(&["empty"], 5, "empty: no boot test (*.toml with [test]) in there");
    nothing(&["tests", "empty"], 5, "empty: no boot test");
    nothing(&["--list", "empty"], 5, "empty: no boot test");
    let done = without_qemu(&place, &["tests/1-runs.toml", "--json", "r.json"], 5);
    assert!(done.stderr.contains("nothing ran: the only test was skipped: "), "{}", done.stderr);
    assert!(done.stderr.contains("qemu-system-x86_64"), "{}", done.stderr);
    assert!(place.path("r.json").metadata().unwrap().len() > 100, "reports are written all the same");

    // Who wants it otherwise, is warned.
    let done = nothing(&[&both[..], &["--allow-skip"]].concat(), 0, "qkprobe: warning: nothing ran: all 2 tests");
    assert!(!done.stderr.contains("error"), "{}", done.stderr);
    nothing(&["--allow-skip", "empty"], 0, "qkprobe: warning: empty: no boot test");
    nothing(&["--allow-skip", "--filter", "nonesuch", "tests"], 0, "qkprobe: warning: --filter nonesuch");
    without_qemu(&place, &["--allow-skip", "tests"], 0);

    // A test that ran is enough; a mistake is still one.
    let done = run(&place, &["tests"]).code(0);
    assert!(done.stdout.ends_with("\n# 1 pass, 2 skipped\n"), "{}", done.stdout);
    run(&place, &["--allow-skip", "nonesuch"]).code(2);
    place.write("broken.toml", "[tset]\n");
    run(&place, &["--allow-skip", "broken.toml"]).code(2);
    place.assert_clean();
}

#[test]
fn a_matrix_may_have_more_shards_than_tests() {
    let place = place();
    let shard = |part: &'static str, code: i32| run(&place, &["--shard", part, "tests"]).code(code);
    assert!(shard("1/4", 0).stdout.ends_with("\n# 1 pass\n"));
    // Its only test is skipped for what this machine lacks: that may be so for all of the matrix.
    assert!(shard("2/4", 5).stderr.contains("nothing ran: the only test was skipped: QEMU 11.1.3 is older"));
    // Nobody wanted these to run: a test that its author skips, and none at all.
    assert!(shard("3/4", 0).stderr.contains("qkprobe: warning: nothing ran: the only test was skipped: not yet"));
    let done = shard("4/4", 0);
    assert!(done.stderr.contains("qkprobe: warning: nothing ran: there is no test"), "{}", done.stderr);
    assert!(done.stdout.starts_with("KTAP version 1\n1..0\n"), "{}", done.stdout);
    // If no part has anything to run, the matrix has tested nothing.
    run(&place, &["--shard", "1/2", "tests/3-skip.toml"]).code(5);
    place.assert_clean();
}

#[test]
fn a_bisection_skips_what_cannot_be_judged() {
    let place = place();
    let bisect = |args: &[&str], code: i32| run(&place, &[&["--bisect"], args].concat()).code(code);
    bisect(&["tests"], 0);
    place.write("bad.toml", format!("{PATIENT}[[expect]]\nnever = 'open'\n"));
    bisect(&["bad.toml"], 1);
    place.write("lacks.toml", "[[probe]]\ndef = 'p:open nonesuch_function'\n");
    place.write("qemu.toml", "[guest]\nargs = ['-nosuchoption']\n[[probe]]\ndef = 'p:open do_sys_openat2'\n");
    for args in
        [&["lacks.toml"][..], &["qemu.toml"], &["tests/1-runs.toml", "qemu.toml"], &["tests/3-skip.toml"], &["empty"]]
    {
        bisect(args, 125);
    }
    run(&place, &["lacks.toml"]).code(1);
    // What is bad is bad, whatever else cannot be told.
    bisect(&["bad.toml", "lacks.toml", "qemu.toml"], 1);
    without_qemu(&place, &["--bisect", "tests"], 125);
    // A kernel that was not built is no bad one; a mistake ends the bisection.
    place.run(&["test", "--bisect", "-k", "not-built", "-i", "initrd.img", "tests"]).code(125);
    place.run(&["test", "-k", "not-built", "-i", "initrd.img", "tests"]).code(2);
    place.run(&["test", "--bisect", "-k", "vmlinuz", "-i", "nonesuch.img", "tests"]).code(128);
    bisect(&["nonesuch.toml"], 128);
    let both = bisect(&["--allow-skip", "tests"], 2);
    assert!(both.stderr.contains("cannot be used with"), "{}", both.stderr);
    place.assert_clean();
}

#[test]
fn github_gets_annotations_and_a_summary() {
    let place = place();
    let expects =
        "[[expect]]\nnever = 'open'\n[[expect]]\nevent = 'open'\nhits = '<=1'\n[[expect]]\nconsole = '50%: a,b'\n";
    let probe = PATIENT.replace("[guest]", "name = 'bad, 100%'\n[guest]");
    place.write("tests/0-bad.toml", format!("{probe}{expects}"));
    place.write("summary.md", "# Before\n");
    let args = [&BASE[..], &["--seed", "5", "--junit", "r.xml", "tests"]].concat();
    let command = |summary: &str| -> Command {
        let mut command = place.qkprobe(&args);
        command.env("GITHUB_ACTIONS", "true").env("GITHUB_WORKSPACE", place.folder.path());
        command.env("GITHUB_STEP_SUMMARY", place.path(summary));
        command
    };
    let done = Done::new(&args, command("summary.md").output().unwrap()).code(1);
    let annotations: Vec<&str> = done.stderr.lines().filter(|line| line.starts_with("::")).collect();
    let begin = "::error file=tests/0-bad.toml,line=";
    let title = "title=bad%2C 100%25%3A fail::expected: ";
    assert_eq!(annotations.len(), 3, "{}", done.stderr);
    assert_eq!(annotations[0], format!("{begin}9,{title}open never hits; found: 1 hit"));
    assert_eq!(annotations[1], format!("{begin}11,{title}open hits at most 1; found: 2 hits"));
    assert_eq!(annotations[2], format!("{begin}14,{title}the console says 50%25: a,b; found: it does not"));
    assert!(!done.stdout.contains("::error"), "{}", done.stdout);
    let summary = std::fs::read_to_string(place.path("summary.md")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let head = format!(
        "# Before\n### qkprobe test: 1 pass, 1 fail, 2 skipped\n\nqkprobe {version}, QEMU 11.1.3, seed 5\n\n\
         | | test | verdict | seconds | |\n| --- | --- | --- | ---: | --- |\n| \u{274c} | bad, 100&#37; | fail | "
    );
    assert!(summary.starts_with(&head), "{summary}");
    let skipped = summary.lines().find(|line| line.contains("| 2&#45;too&#45;old | skipped | ")).unwrap();
    assert!(skipped.ends_with(" | QEMU 11.1.3 is older than 99.0.0 |"), "{summary}");
    assert!(summary.contains("\ntests/0-bad.toml:9: expected: open never hits; found: 1 hit\n"), "{summary}");
    assert_harmless(&summary);
    let xml = std::fs::read_to_string(place.path("r.xml")).unwrap();
    let case = r#"<testcase name="bad, 100%" classname="tests/0-bad.toml" time=""#;
    assert!(xml.contains(case) && xml.contains(r#" file="tests/0-bad.toml" line="9">"#), "{xml}");

    // A summary that cannot be written is no failure of a test, and outside of GitHub there is none.
    let args = [&BASE[..], &["tests/1-runs.toml"]].concat();
    let mut broken = place.qkprobe(&args);
    broken.env("GITHUB_ACTIONS", "true").env("GITHUB_STEP_SUMMARY", "/nonexistent/summary");
    let done = Done::new(&args, broken.output().unwrap()).code(0);
    assert!(
        done.stderr.contains("qkprobe: warning: GITHUB_STEP_SUMMARY /nonexistent/summary: No such file"),
        "{}",
        done.stderr
    );
    let done = place.run(&[&BASE[..], &["tests/2-too-old.toml", "--allow-skip"]].concat()).code(0);
    assert!(!done.stderr.contains("::"), "{}", done.stderr);
    place.assert_clean();
}
