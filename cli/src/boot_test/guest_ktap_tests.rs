//! The guest's own KTAP in the forms that consoles have it in.

use super::guest_ktap::{Counts, GuestKtap, Suite};
use super::verdict::{GuestTest, Outcome};

fn read(text: &str) -> GuestKtap {
    read_suite(text, None)
}

fn read_suite(text: &str, suite: Option<&str>) -> GuestKtap {
    let mut ktap = GuestKtap::new(suite.map(|name| Suite::Name(name.to_owned())));
    // A console comes in pieces of any size.
    text.as_bytes().chunks(7).for_each(|piece| ktap.bytes(piece));
    ktap.finish();
    ktap
}

/// `name:outcome(subtests)`
fn tree(tests: &[GuestTest]) -> String {
    let one = |test: &GuestTest| {
        let sign = match test.outcome {
            Outcome::Ok => "+",
            Outcome::NotOk => "-",
            Outcome::Skipped => "s",
        };
        let below = if test.subtests.is_empty() { String::new() } else { format!("({})", tree(&test.subtests)) };
        format!("{sign}{}{below}", test.name)
    };
    tests.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn reads(text: &str, wanted: &str, judged: Result<(), &str>) {
    let ktap = read(text);
    assert_eq!((tree(&ktap.tests()).as_str(), ktap.judge()), (wanted, judged.map_err(str::to_owned)), "{text}");
}

const SUITES: &str = "KTAP version 1\n1..2\n    KTAP version 1\n    # Subtest: s\n    1..2\n    ok 1 a\n    ok 2 b # SKIP no\n\
                      # s: pass:1 fail:0 skip:1 total:2\nok 1 s\n    KTAP version 1\n    # Subtest: t\n    1..1\n";

#[test]
fn suites_of_kunit() {
    reads(&format!("{SUITES}    ok 1 c\nok 2 t\n"), "+s(+a sb) +t(+c)", Ok(()));
    reads(
        &format!("{SUITES}    # c: EXPECTATION FAILED\n    not ok 1 c\nnot ok 2 t\n"),
        "+s(+a sb) -t(-c)",
        Err("1 of 3 failed: t.c"),
    );
    // Time stamps, the log's callers and levels, and lines of others between.
    let stamped = |text: &str| {
        text.lines().map(|line| format!("[    1.234567][    T1] {line}\r\nnoise ok 9 x\n")).collect::<String>()
    };
    reads(&stamped(&format!("{SUITES}    ok 1 c\nok 2 t\n")), "+s(+a sb) +t(+c)", Ok(()));
    // Before 6.2 suites had no version line, and their names a dash.
    let old = "TAP version 14\n1..1\n\t# Subtest: s\n\t1..2\n\tok 1 - a\n\tok 2 - b\nok 1 - s\n";
    reads(old, "+s(+a +b)", Ok(()));
}

#[test]
fn what_was_cut_off_did_not_pass() {
    reads(SUITES, "+s(+a sb) -t(-1 result is missing)", Err("1 of 3 failed: t.1 result is missing"));
    let crashed = "KTAP version 1\n1..3\n  KTAP version 1\n  1..5\n  ok 1 a\n  ok 2 b\n  ok 3 c\nBUG: kernel NULL pointer dereference\n";
    reads(
        crashed,
        "-a test(+a +b +c -2 results are missing) -2 results are missing",
        Err("4 of 7 failed: a test.2 results are missing, 2 results are missing"),
    );
    // The second suite begins though the first did not end.
    let next = "KTAP version 1\n1..2\n  KTAP version 1\n  # Subtest: s\n  1..2\n  ok 1 a\n  KTAP version 1\n  # Subtest: t\n  1..1\n  ok 1 b\nok 2 t\n";
    reads(next, "-s(+a -1 result is missing) +t(+b)", Err("1 of 3 failed: s.1 result is missing"));
    // A test that fails by itself though its subtests passed, and one that passes though they did not.
    reads("KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  ok 1 a\nnot ok 1 s\n", "-s(+a)", Err("1 of 2 failed: s"));
    reads(
        "KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  not ok 1 a\nok 1 s\n",
        "-s(-a)",
        Err("1 of 1 failed: s.a"),
    );
    reads(
        "TAP version 13\n1..3\nok 1 a\nBail out! no /proc\n",
        "+a -Bail out! -1 result is missing",
        Err("2 of 3 failed: Bail out!, 1 result is missing"),
    );
    // The kernel starts again, and says the same once more.
    let twice = "[    1.0] KTAP version 1\n[    1.0] 1..2\n[    1.0] ok 1 a\n[    0.9] KTAP version 1\n[    0.9] 1..1\n[    0.9] ok 1 a\n";
    reads(twice, "+a -1 result is missing +a", Err("1 of 3 failed: 1 result is missing"));
}

#[test]
fn programs() {
    // Several outputs one after the other, without a plan, with one at the end, with a prefix.
    let programs = "$ ./a\nTAP version 13\nok 1 a\nok 2 b\nTAP version 13\nok 1 c\n1..1\nok 9 late\n# KTAP version 1\n# 1..1\n# ok 1 d\n";
    reads(programs, "+a +b +c +d", Ok(()));
    reads("TAP version 13\n1..0 # SKIP not root\n", "sall", Err("nothing ran: 1 skipped"));
    reads("TAP version 13\n1..2\nok 1 a # SKIP x\nnot ok 2 b # SKIP y\n", "sa sb", Err("nothing ran: 2 skipped"));
    reads("TAP version 13\n1..2\nok 1 a\nnot ok 2 b # XFAIL known\n", "+a +b", Ok(()));
    // The kernel's and a program's at once.
    let both =
        "TAP version 13\n1..2\nok 1 insmod\n[    9.1] KTAP version 1\n[    9.1] 1..1\nok 2 rmmod\n[    9.2] ok 1 a\n";
    reads(both, "+insmod +rmmod +a", Ok(()));
    for (text, reason) in [
        ("", "no KTAP on the console"),
        ("ok 1 a\n1..1\n", "no KTAP on the console"),
        ("the KTAP version 1 of\n", "no KTAP on the console"),
        ("KTAP version 1\n1..0\n", "no result came"),
        ("KTAP version 1\n", "no result came"),
    ] {
        reads(text, "", Err(reason));
    }
}

#[test]
fn one_suite_of_many() {
    let failing = format!("{SUITES}    not ok 1 c\nnot ok 2 t\n");
    let judged = |text: &str, suite| {
        let ktap = read_suite(text, Some(suite));
        (tree(&ktap.tests()), ktap.judge())
    };
    assert_eq!(judged(&failing, "s"), ("+s(+a sb)".to_owned(), Ok(())));
    // What is cut off behind it is not its fault.
    assert_eq!(judged(SUITES, "s"), ("+s(+a sb)".to_owned(), Ok(())));
    assert_eq!(judged(&failing, "t"), ("-t(-c)".to_owned(), Err("1 of 1 failed: t.c".to_owned())));
    assert_eq!(judged(SUITES, "t").1, Err("1 of 1 failed: t.1 result is missing".to_owned()));
    assert_eq!(judged(&failing, "u"), (String::new(), Err("no such suite; there came s, t".to_owned())));
    let mut regex = GuestKtap::new(Some(Suite::Regex(regex::Regex::new("^[st]$").unwrap())));
    regex.bytes(failing.as_bytes());
    assert_eq!(regex.judge(), Err("1 of 3 failed: t.c".to_owned()));
}

#[test]
fn while_the_guest_runs() {
    let mut ktap = GuestKtap::new(None);
    ktap.bytes(SUITES.as_bytes());
    assert_eq!((ktap.is_complete(), ktap.judge()), (false, Err("no result came".to_owned())));
    ktap.bytes(b"    ok 1 c\nok 2 t");
    assert!(!ktap.is_complete());
    ktap.bytes(b"\n");
    assert_eq!((ktap.is_complete(), ktap.judge()), (true, Ok(())));
}

#[test]
fn a_hostile_console_has_bounds() {
    // Results, names, levels, lines and documents without end.
    let mut ktap = GuestKtap::new(None);
    ktap.bytes(b"KTAP version 1\n1..18446744073709551615\n");
    ktap.bytes(format!("not ok 1 {}\n", "x".repeat(5000)).as_bytes());
    for number in 2..=11_000 {
        ktap.bytes(format!("not ok {number} x\n").as_bytes());
    }
    ktap.finish();
    let tests = ktap.tests();
    assert_eq!((tests.len(), tests[0].name.len()), (10_001, 203));
    assert_eq!(tests[10_000].name, "18446744073709541615 more");
    assert!(ktap.judge().is_err());

    let mut ktap = GuestKtap::new(None);
    for level in 0..1000 {
        ktap.bytes(format!("{}KTAP version 1\n", " ".repeat(level)).as_bytes());
    }
    for _ in 0..11_000 {
        ktap.bytes(b"KTAP version 1\n1..9\n");
    }
    ktap.bytes(&vec![b'x'; 1 << 20]);
    ktap.bytes(b"\nKTAP version 1\n1..1\nok 1 the end\n");
    ktap.finish();
    assert!(ktap.tests().len() <= 10_001 && ktap.is_complete());

    let mut ktap = read_suite("", Some("one"));
    for _ in 0..11_000 {
        ktap.bytes(b"KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  ok 1 a\nok 1 other\n");
    }
    ktap.bytes(b"KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  ok 1 \x1b[2J\xff\nok 1 one\n");
    assert_eq!((tree(&ktap.tests()).as_str(), ktap.judge()), ("+one(+\\x1b[2J\\xff)", Ok(())));
    assert_eq!(ktap.counts(), Counts { passed: 1, failed: 0, skipped: 0 });
}
