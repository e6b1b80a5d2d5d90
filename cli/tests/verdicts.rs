//! `qkprobe test` over guests that do everything a guest can do wrong: each verdict is told from the others.

mod common;

use common::{Place, assert_harmless, kunit_parse};
use serde_json::Value;

/// The files in `verdicts/`, and what becomes of them.
const VERDICTS: [(&str, &str, &str); 19] = [
    ("01-pass", "pass", ""),
    ("02-fail-hits", "fail", "expected: open if file == \"/etc/none\" hits exactly 3; found: 2 hits"),
    ("03-fail-never-hit", "fail", "the probe kprobes/crash never hit: say never, or hits = 0, if that is meant"),
    ("04-panic", "panic", "sysrq triggered crash"),
    ("05-oops", "oops", "the guest's kernel had an oops at "),
    ("06-hang-interrupts-off", "hang", "no hit and nothing on the console for 15.0 s"),
    ("07-hang-user", "hang", "no hit and nothing on the console for 15.0 s"),
    ("08-reboot", "reboot", "the guest rebooted, and had to end by power-off"),
    ("09-reboot-loop", "reboot", "the guest reboots in a loop: its kernel started 3 times"),
    ("10-garbage", "fail", "expected: the console says never to be seen; found: it does not"),
    ("11-early-power-off", "fail", "found: 1 of 2 came, then no open if file == \"/second\""),
    ("12-never-booted", "never-booted", "after 2 s the kernel had not started"),
    ("13-qemu-failed", "qemu-failed", "QEMU ended at once (exit status: 1)"),
    ("14-skipped", "skipped", "QEMU 11.1.3 is older than 99.0.0"),
    ("15-timeout", "timeout", "it took longer than 10.0 s"),
    ("16-end-at-hit", "pass", ""),
    ("17-panic-wanted", "pass", ""),
    ("18-injected-fault", "pass", ""),
    ("19-quit-probe", "pass", ""),
];

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect()
}

#[test]
fn every_verdict_is_told_from_the_others() {
    let place = Place::new();
    place.initrd("");
    let folder = format!("{}/tests/verdicts", env!("CARGO_MANIFEST_DIR"));
    let args = ["test", "--kernel", "vmlinuz", "-i", "initrd.img", "-j", "2", "--seed", "42", "--json", "r.json"];
    let done = place.run(&[&args[..], &["--junit", "r.xml", &folder]].concat()).code(1);
    place.assert_clean();

    let report: Value = serde_json::from_slice(&std::fs::read(place.path("r.json")).unwrap()).unwrap();
    assert_eq!((&report["version"], &report["seed"]), (&1.into(), &42.into()));
    let tests = report["tests"].as_array().unwrap();
    let found: Vec<_> =
        tests.iter().map(|test| (test["name"].as_str().unwrap(), test["verdict"].as_str().unwrap())).collect();
    let wanted: Vec<_> = VERDICTS.iter().map(|(name, verdict, _)| (*name, *verdict)).collect();
    assert_eq!(found, wanted, "{}", done.stdout);
    for (test, (name, _, reason)) in tests.iter().zip(VERDICTS) {
        let text = test["reason"].as_str().unwrap();
        assert!(text.contains(reason) && text.is_empty() == reason.is_empty(), "{name}: {text}");
        assert_eq!(test["seed"], 42, "{name}");
        assert_eq!(test["qemu"], "11.1.3", "{name}");
        assert!(test["kernel"].as_str().unwrap().starts_with("Linux version 6.1."), "{name}");
    }
    let test = |name: &str| tests.iter().find(|test| test["name"] == name).unwrap();

    // The events that decided.
    let events = strings(&test("02-fail-hits")["expectations"][0]["events"]);
    assert_eq!(events.len(), 2);
    assert!(
        events.iter().all(|event| event.ends_with("open (do_sys_openat2+0x0/0x170) file=\"/etc/none\"")),
        "{events:?}"
    );
    // A hang shows where each vCPU was; one that spins with interrupts off is not one that waits.
    let vcpus = strings(&test("06-hang-interrupts-off")["vcpus"]);
    let [vcpu] = vcpus.as_slice() else { panic!("{vcpus:?}") };
    assert!(vcpu.starts_with("vCPU 0: native_queued_spin_lock_slowpath+0x"), "{vcpu}");
    assert!(vcpu.ends_with("(interrupts off)"), "{vcpu}");
    let vcpus = strings(&test("07-hang-user")["vcpus"]);
    assert!(vcpus[0].contains("(halted)") && !vcpus[0].contains("interrupts off"), "{vcpus:?}");
    // A panic shows the console's end.
    let console = strings(&test("04-panic")["console"]);
    assert!(
        console.iter().any(|line| line.contains("Kernel panic - not syncing: sysrq triggered crash")),
        "{console:?}"
    );
    // Every probe is counted, those that have no records too.
    let probes = test("01-pass")["probes"].as_array().unwrap();
    let hits = |event: &str| probes.iter().find(|probe| probe["event"] == event).unwrap()["hits"].as_u64();
    assert_eq!((hits("ppid"), hits("off"), hits("crash")), (Some(50), Some(1), Some(0)));

    assert_harmless(&done.stdout);
    assert_harmless(&done.stderr);
    let ktap: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(&ktap[..3], ["KTAP version 1", "1..19", concat!("# qkprobe ", env!("CARGO_PKG_VERSION"), ", seed 42")]);
    let results: Vec<_> = ktap.iter().filter(|line| !line.starts_with(['#', ' '])).skip(2).collect();
    for ((line, number), (name, verdict, _)) in results.iter().zip(1..).zip(VERDICTS) {
        let good = matches!(verdict, "pass" | "skipped");
        let begin = format!("{} {number} {name} # ", if good { "ok" } else { "not ok" });
        assert!(line.starts_with(&begin), "{line}");
    }
    assert_eq!(results.len(), 19);
    for (number, directive) in
        [(6, "TIMEOUT hang: "), (13, "ERROR qemu-failed: "), (14, "SKIP "), (15, "TIMEOUT it took ")]
    {
        let (_, remark) = results[number - 1].split_once(" # ").unwrap();
        assert!(remark.starts_with(directive), "{remark}");
    }
    // Expectations, and `boot` for each guest that was started: 01-pass alone has 12 and 1.
    let counts = "Ran 35 tests: passed: 21, failed: 13, skipped: 1";
    assert_eq!(kunit_parse(&done.stdout), (counts.to_owned(), false), "{}", done.stdout);
    let last =
        "# 5 pass, 4 fail, 1 timeout, 1 panic, 1 oops, 2 hang, 2 reboot, 1 never-booted, 1 qemu-failed, 1 skipped";
    assert_eq!(ktap.last(), Some(&last));

    let xml = std::fs::read_to_string(place.path("r.xml")).unwrap();
    assert_harmless(&xml);
    assert!(xml.contains(r#"<testsuite name="qkprobe" tests="19" disabled="1" errors="1" failures="12">"#), "{xml}");
    assert!(xml.contains(r#"/verdicts/02-fail-hits.toml" line=""#), "{xml}");
    assert!(xml.contains(r#"<property name="qemu" value="11.1.3"/>"#) && xml.contains(r#"type="hang""#), "{xml}");
}

/// A test that passes at the second attempt is flaky, and says so; with `--flaky-fails` it does not count.
#[test]
fn flaky_is_not_passed() {
    let place = Place::new();
    place.initrd("openclose 1 /first\n");
    // The seed, which each attempt counts up, throws the dice of the fault injection.
    place.write(
        "flaky.toml",
        "[guest]\nappend = 'quiet'\n[[probe]]\ndef = 'p:deny do_sys_openat2 file=+0($arg2):ustring'\nfilter = 'file == \"/first\"'\n\
         override = '-EACCES'\nprobability = 50\n[[probe]]\n\
         def = 'r:opened do_sys_openat2 file=+0($arg2):ustring fd=$retval'\n\
         [[expect]]\nevent = 'opened if file == \"/first\"'\nretval = '-EACCES'\n",
    );
    let args = |seed: &'static str| {
        ["test", "-k", "vmlinuz", "-i", "initrd.img", "--json", "r.json", "flaky.toml", "--seed", seed]
    };
    place.run(&args(FAILS)).code(1);
    place.run(&args(PASSES)).code(0);
    let retried = [&args(FAILS)[..], &["--retries", "2"]].concat();
    let done = place.run(&retried).code(0);
    let line = "ok 1 flaky # flaky: passed at attempt 2; first: fail: expected: every opened if file == \"/first\" returns -EACCES";
    assert!(done.stdout.contains(line), "{}", done.stdout);
    let report: Value = serde_json::from_slice(&std::fs::read(place.path("r.json")).unwrap()).unwrap();
    assert_eq!(strings(&report["tests"][0]["attempts"]), ["fail", "pass"]);
    assert_eq!(report["tests"][0]["seed"].to_string(), PASSES);
    place.run(&[&retried[..], &["--flaky-fails"]].concat()).code(1);
    place.assert_clean();
}

/// Seeds that follow each other, of which the first spares the first hit.
const FAILS: &str = "2";
const PASSES: &str = "3";
