//! Fuzz targets. A short random run in each `cargo test`; as long as one likes, led by coverage, with
//! `cargo bolero test -p qkprobe-lang fuzz::any_line` (`cargo install cargo-bolero`).
//!
//! Bytes up to 0x7f stand for themselves, the others for a piece of the languages, so that few bytes reach deep.

use std::time::Duration;

use qkprobe_lang::{Command, Config, Definition, Events, Filter, ProbeConfig, parse};

use crate::fake::{FakeGuest, FakeKernel};

const RUN: Duration = Duration::from_millis(1500);

/// Longer inputs parse less often.
const MAX_LEN: usize = 12;

const PIECES: [&str; 64] = [
    "p vfs_read ",
    "r vfs_read ",
    "p:g/e vfs_read ",
    "p vfs_read+9 ",
    "p:a nosuchmod:f ",
    "r16:x vfs_read ",
    " x=",
    " ",
    "%di",
    "%ax",
    "$arg1",
    "$arg7",
    "$retval",
    "$stack",
    "$stack1",
    "$nextpc",
    "$latency",
    "$entrytime",
    "@linux_proc_banner",
    "@0x1000",
    "+0(",
    "+u8(",
    "-8(",
    ")",
    "\\5",
    "\\\"text\"",
    ":u8",
    ":u32",
    ":s16",
    ":x64",
    ":string",
    ":ustring",
    ":symbol",
    ":symstr",
    ":b4@4/8",
    "[4]",
    " if ",
    " do ",
    "x == 1",
    "x ~ \"*do*\"",
    " && ",
    "(",
    "!",
    "CPU & CPUS{0-3}",
    " set:",
    "=",
    "=-1",
    "=0xff",
    "=-ENOENT",
    " skip",
    " post",
    " stop",
    " override=-2",
    " replace=90",
    " replace=nop",
    " quit=3",
    " nth=1",
    " times=2",
    " probability=50",
    " count",
    "\"",
    "'",
    " # ",
    "é",
];

const TOML_PIECES: [&str; 32] = [
    "[[probe]]\n",
    "def = \"p vfs_read\"\n",
    "def = '",
    "'\n",
    "\"\n",
    "p f x=%di if x==1 do skip",
    "filter = ",
    "when = ",
    "\"post\"",
    "true",
    "false",
    "set = ",
    "[",
    "]",
    "'%ax=5'",
    "override = ",
    "-2",
    "\"-ENOENT\"",
    "skip = ",
    "replace = ",
    "'0f 1f 00'",
    "quit = ",
    "nth = ",
    "times = ",
    "probability = ",
    "0x7fffffffffffffff",
    "control = ",
    "verify = ",
    "kernel = ",
    "slide = ",
    "\n",
    " do times=1",
];

fn expand(bytes: &[u8], pieces: &[&str]) -> String {
    let piece = |byte: &u8| match byte {
        0..=0x7f => char::from(*byte).to_string(),
        _ => pieces[usize::from(byte - 0x80) % pieces.len()].to_owned(),
    };
    bytes.iter().map(piece).collect()
}

fn definition_of(line: &str) -> Option<Definition> {
    match parse(line, &FakeKernel, &Events::new()) {
        Ok(Command::Add(definition)) => Some(definition),
        Ok(_) => None,
        Err(error) => {
            let _ = error.to_string();
            None
        }
    }
}

/// A definition is listed as a line that means the same. Two listings are no lines, as in the kernel: a name that was
/// made from a place that is no identifier, and what became longer than a line.
fn check_listing(definition: &Definition) {
    let listed = definition.to_string();
    if listed.len() > 4094 || !definition.event.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return;
    }
    let again = match parse(&listed, &FakeKernel, &Events::new()) {
        Ok(Command::Add(again)) => again,
        other => panic!("{listed}: {other:?}"),
    };
    assert_eq!((again.kind, &again.group, &again.event), (definition.kind, &definition.group, &definition.event));
    assert_eq!((&again.place, &again.args), (&definition.place, &definition.args));
    assert_eq!(again.to_string(), listed);
    let probe = ProbeConfig::from_line(&listed, String::new()).expect("no options");
    assert_eq!(probe, ProbeConfig::new(listed, ""));
}

fn check_line(line: &str) {
    let probe = match ProbeConfig::from_line(line, String::new()) {
        Ok(probe) => probe,
        Err(error) => {
            assert!(error.column.is_some_and(|column| column <= error.command.len()), "{error}");
            return;
        }
    };
    let Some(definition) = definition_of(&probe.def) else { return };
    check_listing(&definition);
    if let Some(filter) = &probe.filter
        && let Err(error) = Filter::compile(filter, &definition, &FakeKernel)
    {
        let _ = error.to_string();
    }
    match probe.compile_effects(&definition, &FakeKernel) {
        Ok(Some(effects)) => {
            let mut guest = FakeGuest::new().set("di", 0xffd).set("ax", 0x1000).poke(0xff0, &[1; 64]);
            for set in &effects.sets {
                set.apply(&mut guest);
            }
        }
        Ok(None) => {}
        Err(error) => assert!(error.column.is_some_and(|column| column <= error.command.len()), "{error}"),
    }
}

#[test]
fn any_line() {
    bolero::check!().with_test_time(RUN).with_max_len(MAX_LEN).for_each(|bytes: &[u8]| {
        let text = expand(bytes, &PIECES);
        // Random bytes alone seldom come past the first words.
        for head in [
            "",
            "p vfs_read x=",
            "r vfs_read x=%di:u32 do ",
            "p vfs_read x=%di do set:",
            "p vfs_read do set:%ax",
            "r vfs_read do set:+0($retval)",
            "p vfs_read x=%di if x",
        ] {
            check_line(&format!("{head}{text}"));
        }
        check_line(&String::from_utf8_lossy(bytes));
    });
}

#[test]
fn any_file() {
    bolero::check!().with_test_time(RUN).with_max_len(MAX_LEN).for_each(|bytes: &[u8]| {
        for text in [expand(bytes, &TOML_PIECES), String::from_utf8_lossy(bytes).into_owned()] {
            match Config::parse("a.toml", &text) {
                Ok(config) => assert!(config.probes.iter().all(|probe| probe.origin.starts_with("a.toml:"))),
                Err(error) => {
                    assert!(error.line >= 1 && error.column >= 1);
                    let _ = error.to_string();
                }
            }
        }
    });
}
