//! Expectations over events as the trace has them.

use std::path::Path;
use std::time::Duration;

use qkprobe_symbols::{GuestAddr, KernelImage, Machine, SymbolTable};

use super::expect::{Expectation, State};
use super::file::TestFile;
use crate::ImageTarget;
use crate::check::check;
use crate::event::Event;

const PROBES: &str = "[[probe]]\ndef = 'p:a f n=%di:u32 s=+0(%si):string'\n[[probe]]\ndef = 'p:b g'\n\
                      [[probe]]\ndef = 'r:ret f v=$retval ns=$latency'\n[[probe]]\ndef = 'p:c g'\naction = 'count'\n";

fn image() -> KernelImage {
    let rows = [("f", 0x1000), ("g", 0x2000), ("end", 0x3000)];
    let rows = rows.map(|(name, addr)| (GuestAddr(addr), 'T', name, None));
    KernelImage::from_parts(SymbolTable::from_rows(rows).expect("few"), Vec::new(), None, Machine::X86_64)
}

fn event(time: f64, name: &str, args: &str) -> Event {
    let line = format!(
        r#"{{"type":"event","time":{time},"cpu":0,"group":"kprobes","event":"{name}","place":"f+0x0/0x1000","args":{{{args}}}}}"#
    );
    Event::parse(&line).expect("an event")
}

fn compile(expect: &str) -> Result<Vec<Expectation>, String> {
    let file = TestFile::parse(Path::new("/t/x.toml"), &format!("{PROBES}[[expect]]\n{expect}\n"));
    let file = file.map_err(|error| error.to_string())?;
    let image = image();
    let target = ImageTarget { arch: qkprobe_arch::by_name("x86_64").expect("this build has it"), image: Some(&image) };
    let probes = check(&file.probes, &target).map_err(|mistakes| mistakes.join("\n"))?;
    Expectation::compile(&file.expect[0], &probes, &target)
}

/// What each of the expectation's parts says after these events.
fn judge(expect: &str, events: &[Event]) -> Vec<Result<(), String>> {
    let image = image();
    let target = ImageTarget { arch: qkprobe_arch::by_name("x86_64").expect("this build has it"), image: Some(&image) };
    let mut list = compile(expect).expect("compiles");
    for event in events {
        list.iter_mut().for_each(|one| one.event(event, &target));
    }
    list.iter_mut().for_each(Expectation::end);
    let verdict = |one: Expectation| match one.state() {
        State::Held => Ok(()),
        State::Broken(reason) => Err(reason.clone()),
        State::Open => panic!("undecided"),
    };
    list.into_iter().map(verdict).collect()
}

#[track_caller]
fn holds(expect: &str, events: &[Event]) {
    assert!(judge(expect, events).iter().all(Result::is_ok), "{expect}: {:?}", judge(expect, events));
}

#[track_caller]
fn fails(expect: &str, events: &[Event], reason: &str) {
    let found: Vec<_> = judge(expect, events).into_iter().filter_map(Result::err).collect();
    assert_eq!(found, [reason], "{expect}");
}

#[test]
fn hits() {
    let two = [event(1.0, "a", r#""n":1,"s":"x""#), event(2.0, "a", r#""n":2,"s":"y""#)];
    holds("event = 'a'", &two);
    holds("event = 'a'\nhits = 2", &two);
    holds("event = 'kprobes/a if s == \"y\"'\nhits = 1", &two);
    holds("never = 'b'", &two);
    holds("event = 'a'\nhits = '<=2'", &two);
    fails("event = 'a'\nhits = 1", &two, "2 hits");
    fails("event = 'a'\nhits = '3..4'", &two, "2 hits");
    fails("event = 'b'", &two, "0 hits");
    fails("never = 'a if n > 1'", &two, "1 hit");
}

#[test]
fn arguments_return_values_and_latencies() {
    let two = [event(1.0, "a", r#""n":1,"s":"x""#), event(2.0, "a", r#""n":2,"s":null"#)];
    holds("event = 'a'\nall = 'n < 3'", &two);
    fails("event = 'a'\nall = 's ~ \"*\"'", &two, "hit 2 does not pass");
    fails("event = 'b'\nall = '__probe_ip != 0'", &two, "no hit");
    let ret = |value: &str, ns: u64| event(1.0, "ret", &format!(r#""v":"{value}","ns":{ns}"#));
    let returns = [ret("0xfffffffffffffffe", 10), ret("0xfffffffffffffffe", 30)];
    holds("event = 'ret'\nretval = '-ENOENT'", &returns);
    holds("event = 'ret'\nretval = '< 0'\nhits = 2", &returns);
    fails("event = 'ret'\nretval = 0", &returns, "return 1 is -2");
    holds("event = 'ret'\nlatency = { p50 = '10ns', max = '30ns' }", &returns);
    fails("event = 'ret'\nlatency = { p50 = '9ns', max = '30ns' }", &returns, "p50 is 10 ns of 2 calls");
}

#[test]
fn order() {
    let (a, b) = (event(1.0, "a", r#""n":1,"s":"x""#), event(2.0, "b", ""));
    let (ab, ba) = ([a.clone(), b.clone()], [b.clone(), a.clone()]);
    holds("event = 'a'\nbefore = 'b'", &ab);
    fails("event = 'a'\nbefore = 'b'", &ba, "b hit first");
    fails("event = 'a'\nbefore = 'b'", &[], "a did not hit");
    holds("event = 'b'\nafter = 'a'", &ab);
    fails("event = 'b'\nafter = 'a'", &ba, "b hit first");
    let many = [a.clone(), b.clone(), b.clone(), a.clone(), b.clone()];
    holds("sequence = ['a', 'b', 'a if n == 1', 'b']", &many);
    fails("sequence = ['b', 'a', 'a']", &many, "2 of 3 came, then no a");
}

#[test]
fn time() {
    let (early, late) = (event(1.0, "a", r#""n":1,"s":"x""#), event(9.0, "a", r#""n":1,"s":"x""#));
    holds("event = 'a'\nwithin = '5s'", &[early.clone(), late.clone()]);
    fails("event = 'a'\nwithin = '5s'", std::slice::from_ref(&late), "0 hits by 5.00 s");
    holds("never = 'a'\nwithin = '5s'", std::slice::from_ref(&late));
    holds("event = 'a'\nhits = 1\nwithin = '5s'", &[early, late]);
    let mut console = compile("console = '/^login:/'\nwithin = '2s'").expect("compiles").remove(0);
    console.console(b"x login:\r\nlog", Duration::from_secs(1));
    assert_eq!(*console.state(), State::Open);
    console.console(b"in: ", Duration::from_secs(2));
    assert_eq!(*console.state(), State::Held);
    let mut late = compile("console = 'login:'\nwithin = '2s'").expect("compiles").remove(0);
    late.console(b"login: ", Duration::from_secs(3));
    assert_eq!(*late.state(), State::Broken("it does not by 2.00 s".to_owned()));
}

#[test]
fn probes_that_only_count() {
    let mut list = compile("event = 'c'\nhits = '2..3'").expect("compiles");
    let one = &mut list[0];
    one.totals(|is_it| if is_it("kprobes", "c") { 2 } else { 0 }, Duration::ZERO);
    assert!(one.is_content() && *one.state() == State::Open);
    one.totals(|_| 4, Duration::ZERO);
    assert_eq!(*one.state(), State::Broken("4 hits".to_owned()));
    for (expect, reason) in [
        ("event = 'c'\nall = '__probe_ip == 1'", "'all': 'c' only counts: it has no events"),
        ("event = 'c if __probe_ip == 1'", "'c' only counts: give the filter to the probe itself"),
        ("sequence = ['a', 'c']", "'c' only counts: it has no events to be ordered"),
    ] {
        assert_eq!(compile(expect).expect_err("refused"), reason);
    }
}

#[test]
fn what_the_test_does_not_have() {
    assert_eq!(compile("event = 'aa'").expect_err("refused"), "no probe 'aa': did you mean a?");
    assert_eq!(compile("never = 'zzz'").expect_err("refused"), "no probe 'zzz': this test has a, b, ret, c");
    let error = compile("event = 'a if m == 1'").expect_err("refused");
    assert!(error.starts_with("event filter parse error: error: Field not found"), "{error}");
    assert!(compile("event = 'a'\nretval = 0").expect_err("refused").contains("'a' does not fetch $retval"));
    assert!(compile("console = '/(/'").expect_err("refused").contains("unclosed"));
}
