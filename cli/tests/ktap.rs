//! KTAP both ways: what is written is read back by the kernel's own reader, `kunit.py`, which counts as a person would; what
//! guests print is read as that reader reads it.

mod common;

use std::path::Path;
use std::time::Duration;

use common::{Place, assert_harmless, kunit_parse};
use qkprobe_harness::ImageTarget;
use qkprobe_harness::boot_test::expect::{Expectation, State};
use qkprobe_harness::boot_test::report::ktap;
use qkprobe_harness::boot_test::verdict::{ExpectationReport, GuestTest, Outcome, TestReport, Verdict};
use qkprobe_harness::boot_test::{TestFile, report};
use qkprobe_tests::Cache;
use serde_json::Value;

fn a_report(name: &str, verdict: Verdict, reason: &str) -> TestReport {
    TestReport {
        name: name.into(),
        file: "t/a.toml".into(),
        verdict,
        reason: reason.into(),
        ran: verdict != Verdict::Skipped,
        seconds: Duration::from_millis(1500),
        qemu: "11.1.3".into(),
        kernel: "Linux version 6.1".into(),
        arch: "x86_64".into(),
        seed: 7,
        attempts: vec![verdict],
        end: String::new(),
        expectations: Vec::new(),
        probes: Vec::new(),
        vcpus: Vec::new(),
        console: Vec::new(),
        stderr: Vec::new(),
    }
}

fn an_expectation(text: &str, held: Option<bool>, subtests: Vec<GuestTest>) -> ExpectationReport {
    let reason = (held == Some(false)).then(|| format!("found: {text}"));
    ExpectationReport { text: text.into(), line: 3, held, reason, events: vec![text.into()], subtests }
}

fn written(reports: &[TestReport]) -> String {
    let mut out = Vec::new();
    ktap::head(&mut out, reports.len(), 7).unwrap();
    for (report, number) in reports.iter().zip(1..) {
        ktap::test(&mut out, number, report).unwrap();
    }
    ktap::end(&mut out, reports).unwrap();
    String::from_utf8(out).unwrap()
}

/// What the kernel's reader counts of these tests.
#[track_caller]
fn counted(reports: &[TestReport]) -> (String, bool) {
    let text = written(reports);
    assert_harmless(&text);
    kunit_parse(&text)
}

#[test]
fn the_kernels_reader_counts_every_verdict() {
    let of = |verdict| a_report("name", verdict, "why");
    let one = |verdict| counted(&[of(verdict)]);
    assert_eq!(one(Verdict::Pass), ("Ran 1 tests: passed: 1".into(), true));
    assert_eq!(one(Verdict::Flaky), ("Ran 1 tests: passed: 1".into(), true));
    assert_eq!(one(Verdict::Skipped), ("Ran 1 tests: skipped: 1".into(), false));
    let bad = [
        Verdict::Fail,
        Verdict::Timeout,
        Verdict::Panic,
        Verdict::Oops,
        Verdict::Hang,
        Verdict::Reboot,
        Verdict::NeverBooted,
        Verdict::QemuFailed,
        Verdict::Interrupted,
    ];
    assert_eq!(counted(&bad.map(of)), ("Ran 9 tests: failed: 9".into(), false));
    let without_a_guest = bad.map(|verdict| TestReport { ran: false, ..of(verdict) });
    assert_eq!(counted(&without_a_guest), ("Ran 9 tests: failed: 9".into(), false));
    // Expectations that held do not hide a panic; of a flaky test's, all have held at last.
    let with = |verdict, held| TestReport {
        expectations: vec![
            an_expectation("a", Some(true), Vec::new()),
            an_expectation("b", Some(held), Vec::new()),
            an_expectation("c", None, Vec::new()),
        ],
        ..of(verdict)
    };
    let all = [
        with(Verdict::Pass, true),
        with(Verdict::Fail, false),
        with(Verdict::Fail, true),
        with(Verdict::Panic, true),
        with(Verdict::Flaky, false),
    ];
    assert_eq!(counted(&all), ("Ran 20 tests: passed: 12, failed: 3, skipped: 5".into(), false));
}

#[test]
fn no_name_and_no_reason_breaks_the_kernels_reader() {
    let long = "\u{e4}#".repeat(3000);
    let hostile = [
        "#",
        "a # b",
        "a\\# b # SKIP",
        "a # SKIP b",
        "",
        " ",
        "   leading",
        "- dash",
        "ok 1",
        "ok 1 boot",
        "not ok 7 x # TODO",
        "1..9",
        "boot",
        "KTAP version 1",
        "TAP version 13",
        "Subtest: x",
        "# Subtest: x",
        "a\nok 2 b\nKTAP version 1\n1..7",
        "\r\u{b}\u{c}\u{1c}\u{85}\u{2028}x",
        "\u{1b}[2J\u{9b}31m",
        "gr\u{fc}\u{df} \u{202e}",
        "\\x23",
        "Kernel panic - not syncing: VFS: Unable to mount root fs",
        "reboot: System halted",
        "List of all partitions:",
        "kunit executor: x",
        long.as_str(),
    ];
    let guest = |text: &str, outcome| GuestTest {
        name: text.into(),
        outcome,
        reason: text.into(),
        subtests: vec![
            GuestTest { name: text.into(), outcome: Outcome::Skipped, reason: text.into(), subtests: Vec::new() },
            GuestTest { name: text.into(), outcome, reason: text.into(), subtests: Vec::new() },
        ],
    };
    let mut reports = Vec::new();
    for text in hostile {
        let mut failed = a_report(text, Verdict::Fail, text);
        for outcome in [Outcome::Ok, Outcome::NotOk] {
            failed.expectations.push(an_expectation(text, Some(outcome == Outcome::Ok), vec![guest(text, outcome)]));
        }
        failed.expectations.push(an_expectation(text, Some(true), Vec::new()));
        (failed.qemu, failed.kernel) = (text.into(), text.into());
        (failed.vcpus, failed.console, failed.stderr) = (vec![text.into()], vec![text.into()], vec![text.into()]);
        let skipped = a_report(text, Verdict::Skipped, text);
        let unstarted = TestReport { ran: false, ..a_report(text, Verdict::Fail, text) };
        reports.extend([failed, skipped, unstarted]);
    }
    // Each failed one: its guest's skipped, passed, skipped, failed; the third expectation; `boot`.
    assert_eq!(hostile.len(), 27);
    let wanted = "Ran 216 tests: passed: 81, failed: 54, skipped: 81";
    assert_eq!(counted(&reports), (wanted.into(), false));
    // One by one, lest two mistakes make up for each other.
    for report in reports.iter().filter(|report| report.ran) {
        let (counts, is_good) = counted(std::slice::from_ref(report));
        let wanted = "Ran 6 tests: passed: 3, failed: 1, skipped: 2";
        assert_eq!((counts.as_str(), is_good), (wanted, false), "{:?}", report.name);
    }
}

/// What an `[[expect]]` says of a console.
fn judged(expect: &str, console: &[u8]) -> (State, Vec<GuestTest>) {
    let file = TestFile::parse(Path::new("/t/a.toml"), &format!("[[expect]]\n{expect}\n")).unwrap();
    let target = ImageTarget { arch: qkprobe_arch::by_name("x86_64").unwrap(), image: None };
    let mut expectation = Expectation::compile(&file.expect[0], &[], &target).unwrap().remove(0);
    expectation.console(console, Duration::from_secs(1));
    expectation.end();
    (expectation.state().clone(), expectation.subtests())
}

/// How many without subtests have this outcome.
fn leaves(tests: &[GuestTest], outcome: Outcome) -> usize {
    let own = |test: &GuestTest| usize::from(test.subtests.is_empty() && test.outcome == outcome);
    tests.iter().map(|test| own(test) + leaves(&test.subtests, outcome)).sum()
}

/// The logs that the kernel tests its reader with, and what that reader counts: passed, failed, skipped. It says "crashed" of
/// what is missing, and calls the missing result of a suite and the suite itself two; here that is a failure for each plan.
const LOGS: [(&str, [usize; 3], &str); 18] = [
    ("test_config_printk_time", [10, 0, 0], ""),
    ("test_insufficient_memory", [0, 0, 0], "no KTAP on the console"),
    ("test_interrupted_tap_output", [10, 0, 0], ""),
    ("test_is_test_passed-all_passed", [10, 0, 0], ""),
    ("test_is_test_passed-all_passed_nested", [7, 0, 0], ""),
    ("test_is_test_passed-failure", [9, 1, 0], "1 of 10 failed: "),
    ("test_is_test_passed-kselftest", [2, 0, 0], ""),
    ("test_is_test_passed-missing_plan", [10, 0, 0], ""),
    ("test_is_test_passed-no_tests_run_no_header", [0, 0, 0], "no KTAP on the console"),
    ("test_is_test_passed-no_tests_run_with_header", [0, 0, 0], "no result came"),
    ("test_multiple_prefixes", [10, 0, 0], ""),
    ("test_output_isolated_correctly", [2, 0, 0], ""),
    ("test_output_with_prefix_isolated_correctly", [10, 0, 0], ""),
    ("test_pound_no_prefix", [10, 0, 0], ""),
    ("test_pound_sign", [10, 0, 0], ""),
    ("test_skip_all_tests", [0, 0, 5], "nothing ran: 5 skipped"),
    ("test_skip_tests", [4, 0, 1], ""),
    ("test_strip_hyphen", [2, 0, 0], ""),
];

#[test]
fn the_kernels_own_logs_are_read_as_its_reader_reads_them() {
    let folder = Cache::open().unwrap().kunit().unwrap().with_file_name("test_data");
    for (name, wanted, reason) in LOGS {
        let console = std::fs::read(folder.join(format!("{name}.log"))).unwrap();
        let (state, tests) = judged("ktap = 'pass'", &console);
        let found = [Outcome::Ok, Outcome::NotOk, Outcome::Skipped].map(|outcome| leaves(&tests, outcome));
        assert_eq!(found, wanted, "{name}: {tests:#?}");
        match &state {
            State::Held => assert_eq!(reason, "", "{name}"),
            State::Broken(found) => assert!(!reason.is_empty() && found.starts_with(reason), "{name}: {found}"),
            State::Open => panic!("{name}: undecided"),
        }
        let [passed, failed, skipped] = wanted;
        let parts = [("passed", passed), ("failed", failed), ("skipped", skipped)];
        let parts: Vec<String> =
            parts.iter().filter(|(_, count)| *count > 0).map(|(word, count)| format!("{word}: {count}")).collect();
        let (counts, _) = kunit_parse(&String::from_utf8_lossy(&console));
        let errors = if parts.is_empty() { "errors: 1" } else { "" };
        assert_eq!(counts, format!("Ran {} tests: {}{errors}", passed + failed + skipped, parts.join(", ")), "{name}");
    }
    let console = std::fs::read(folder.join("test_kernel_panic_interrupt.log")).unwrap();
    let (state, tests) = judged("ktap = 'pass'", &console);
    assert_eq!(leaves(&tests, Outcome::Ok), 8);
    let State::Broken(reason) = state else { panic!("{tests:?}") };
    assert!(reason.contains("string-stream-test.2 results are missing"), "{reason}");
}

#[test]
fn guests_that_print_ktap() {
    let place = Place::new();
    place.initrd("");
    let kernel = |lines: &[&str]| lines.iter().map(|line| format!("write /dev/kmsg <1>{line}\n")).collect::<String>();
    let suite = ["KTAP version 1", "1..1", "    KTAP version 1", "    # Subtest: qk-suite"];
    let ended = ["    1..3", "    ok 1 first", "    ok 2 second", "    ok 3 third # SKIP not here", "ok 1 qk-suite"];
    let cut = ["    1..5", "    ok 1 first", "random: crng init done", "    ok 2 second", "    ok 3 third"];
    let test = |name: &str, end: &str, script: String, program: &str, more: &str| {
        let files = format!("files = {{ '/qk.script' = '''\n{script}''', '/ktap' = '''\n{program}''' }}");
        let text = format!(
            "[test]\nend = '{end}'\ntimeout = '170s'\nhang = '160s'\n[guest]\n{files}\n[[expect]]\nktap = 'pass'\n{more}"
        );
        place.write(&format!("tests/{name}.toml"), text);
    };
    let program = "TAP version 13\n1..2\nok 1 selftests: a\nnot ok 2 selftests: b # XFAIL known\n";
    let one_suite = "[[expect]]\nktap = 'pass'\nsuite = 'qk-suite'\n";
    test("1-pass", "power-off", kernel(&[&suite[..], &ended].concat()) + "cat /ktap\n", program, one_suite);
    let program = "TAP version 13\n1..3\n# a\nok 1 one\nnot ok 2 two # TIMEOUT 45 seconds\nok 3 three\n";
    test("2-fail", "power-off", "cat /ktap\n".to_owned(), program, "");
    test("3-cut", "panic", kernel(&[&suite[..], &cut].concat()) + "panic\n", "", "");
    test("4-none", "done", String::new(), "", "[[expect]]\nconsole = 'QK end'\n");
    let args = ["test", "-k", "vmlinuz", "-i", "initrd.img", "-j", "2", "--seed", "1", "--json", "r.json", "tests"];
    let done = place.run(&args).code(1);
    place.assert_clean();

    let json: Value = serde_json::from_slice(&std::fs::read(place.path("r.json")).unwrap()).unwrap();
    let found: Vec<(&str, &str)> = json["tests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|test| (test["verdict"].as_str().unwrap(), test["reason"].as_str().unwrap()))
        .collect();
    let wanted = "expected: the guest's KTAP passes; found: ";
    assert_eq!(found[0], ("pass", ""), "{}", done.stdout);
    assert_eq!(found[1], ("fail", format!("{wanted}1 of 3 failed: two").as_str()));
    // Of the suite; its plan is the only one that is not fulfilled.
    assert_eq!(found[2], ("fail", format!("{wanted}2 of 5 failed: qk-suite.2 results are missing").as_str()));
    assert_eq!(found[3], ("fail", format!("{wanted}no KTAP on the console").as_str()));
    let subtests = &json["tests"][1]["expectations"][0]["subtests"];
    assert_eq!((&subtests[1]["name"], &subtests[1]["outcome"]), (&"two".into(), &"not-ok".into()));
    assert_eq!(subtests[1]["reason"], "TIMEOUT 45 seconds");

    let lines: Vec<&str> = done.stdout.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let first = "  KTAP version 1
  1..3
    KTAP version 1
    1..3
      KTAP version 1
      1..3
      ok 1 first
      ok 2 second
      ok 3 third # SKIP not here
    ok 1 qk-suite
    ok 2 selftests: a
    ok 3 selftests: b # XFAIL known
  ok 1 the guest's KTAP passes
    KTAP version 1
    1..1
      KTAP version 1
      1..3
      ok 1 first
      ok 2 second
      ok 3 third # SKIP not here
    ok 1 qk-suite
  ok 2 the guest's KTAP suite qk-suite passes
  ok 3 boot";
    assert_eq!(lines[2..25].join("\n"), first, "{}", done.stdout);
    let (counts, is_good) = kunit_parse(&done.stdout);
    assert_eq!(
        (counts.as_str(), is_good),
        ("Ran 21 tests: passed: 16, failed: 3, skipped: 2", false),
        "{}",
        done.stdout
    );
    assert_eq!(report::totals(&[]), "no test");
}
