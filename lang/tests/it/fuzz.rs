//! Fuzz targets of the languages. `cargo test` runs the corpus (`__fuzz__/TARGET/corpus`) and some random inputs; `cargo xtask fuzz TARGET`
//! is led by coverage, as long as one likes.
//!
//! Bytes up to 0x7f stand for themselves, the others for a piece of the languages, so that few bytes reach deep.

use qkprobe_lang::{Command, Common, Config, Definition, Events, Filter, ProbeConfig, parse};

use crate::fake::{FakeGuest, FakeKernel, define, record};

/// Random inputs of one `cargo test`, of at most so many bytes: longer ones parse less often.
const RANDOM: usize = 2000;
const MAX_LEN: usize = 12;

/// What a line begins with, by the input's first byte: random bytes alone seldom come past the first words.
const HEADS: [&str; 8] = [
    "",
    "p vfs_read x=",
    "r vfs_read x=%di:u32 do ",
    "p vfs_read x=%di do set:",
    "p vfs_read do set:%ax",
    "r vfs_read do set:+0($retval)",
    "p vfs_read x=%di if x",
    "p vfs_read ",
];

const PIECES: [&str; 80] = [
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
    "p:",
    "r10:g/e",
    "%return",
    "+u8(%si)",
    "$arg*",
    "$comm",
    "\\",
    "0x10",
    "99999999999999999999",
    "\u{1f600}",
    "/",
    ":%pd",
    "->",
    "&",
    "a=",
    ":char[5]",
];

/// Of filters for [`FILTERED`].
const FILTER_PIECES: [&str; 48] = [
    "a",
    "s",
    "list",
    "sym",
    "few",
    "name",
    " == ",
    " != ",
    " ~ ",
    " < ",
    " <= ",
    " > ",
    " >= ",
    " & ",
    " && ",
    " || ",
    "!",
    "(",
    ")",
    "1",
    "-1",
    "0x",
    "0x8000000000000000",
    "18446744073709551615",
    "99999999999999999999",
    "\"*a[b-\"",
    "\"a*\"",
    "\"*a\"",
    "\"*a*\"",
    "\"?[!a-c]*\"",
    "\"",
    "'",
    "CPU",
    "cpu",
    "CPUS{",
    "CPUS{0-3}",
    "CPUS{1-9:2/4}",
    "}",
    "0-3",
    ",",
    ".function",
    " vfs_read",
    "vfs_read+0x10",
    "é",
    "__probe_ip",
    "COMM",
    "comm",
    "a == 1",
];

/// A definition with a field of each kind that filters treat differently.
const FILTERED: &str = "p vfs_read a=%di:s32 s=+0(%si):string list=+0(%si):u8[4] sym=%di:symbol few=+0(%si):b3@2/8 \
    name=+0(%si):symstr";

const TOML_PIECES: [&str; 48] = [
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
    "enabled = ",
    "attempts = ",
    "privilege = \"user\"",
    "interval = 3",
    "space = 4096",
    "seed = 1",
    "action = \"count\"",
    "out = \"x\"",
    "format = \"json\"",
    "backpressure = \"drop\"",
    "summary = \"s\"",
    "stop = true",
    ",",
    "{",
    "}",
    "[[[[[[[[",
];

fn expand(bytes: &[u8], pieces: &[&str]) -> String {
    let piece = |byte: &u8| match byte {
        0..=0x7f => char::from(*byte).to_string(),
        _ => pieces[usize::from(byte - 0x80) % pieces.len()].to_owned(),
    };
    bytes.iter().map(piece).collect()
}

fn guest() -> FakeGuest {
    FakeGuest::new().set("di", 0xffd).set("si", 0x1000).set("ax", 0x1000).poke(0xff0, &[b'a'; 64])
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

/// Whatever a ring may hold is printed as text, and as JSON.
fn check_print(definition: &Definition, record: &[u8]) {
    let (mut text, mut json) = (Vec::new(), Vec::new());
    definition.print_ftrace(record, &FakeKernel, &mut text);
    definition.print_json(record, &FakeKernel, &mut json);
    assert!(String::from_utf8(text).is_ok() && String::from_utf8(json).is_ok());
}

fn check_probe(probe: &ProbeConfig, noise: &[u8]) {
    let Some(definition) = definition_of(&probe.def) else { return };
    check_listing(&definition);
    let recorded = record(&definition, &mut guest());
    assert!(recorded.len() <= definition.program.max_len());
    check_print(&definition, &recorded);
    check_print(&definition, noise);
    if let Some(filter) = &probe.filter {
        check_filter(filter, &definition, &recorded, noise);
    }
    match probe.compile_effects(&definition, &FakeKernel) {
        Ok(Some(effects)) => {
            let mut guest = guest();
            for set in &effects.sets {
                set.apply(&mut guest);
            }
        }
        Ok(None) => {}
        Err(error) => assert!(error.column.is_none_or(|column| column <= error.command.len()), "{error}"),
    }
}

/// What is listed of a filter lets the same through.
fn check_filter(text: &str, definition: &Definition, recorded: &[u8], noise: &[u8]) {
    let filter = match Filter::compile(text, definition, &FakeKernel) {
        Ok(filter) => filter,
        Err(error) => {
            // The kernel counts from one, and what it misses after a word is one behind it.
            assert!(error.column <= error.command.len() + 2, "{error}");
            return;
        }
    };
    let listed = filter.to_string();
    let again = Filter::compile(&listed, definition, &FakeKernel).unwrap_or_else(|error| panic!("{listed}: {error}"));
    for record in [recorded, noise] {
        for common in [Common { ip: 0, cpu: 0 }, Common { ip: u64::MAX, cpu: u32::MAX }] {
            let passes = filter.matches(record, &common, &FakeKernel);
            assert_eq!(passes, again.matches(record, &common, &FakeKernel), "{text} {listed}");
        }
    }
}

fn check_line(line: &str, noise: &[u8]) {
    match ProbeConfig::from_line(line, String::new()) {
        Ok(probe) => check_probe(&probe, noise),
        Err(error) => assert!(error.column.is_some_and(|column| column <= error.command.len()), "{error}"),
    }
}

/// A line of `kprobe_events` with `if` and `do`.
#[test]
fn definitions() {
    bolero::check!(name = "definitions").with_iterations(RANDOM).with_max_len(MAX_LEN).for_each(|bytes: &[u8]| {
        let Some((head, rest)) = bytes.split_first() else { return };
        check_line(&format!("{}{}", HEADS[usize::from(*head) % HEADS.len()], expand(rest, &PIECES)), rest);
        check_line(&String::from_utf8_lossy(bytes), bytes);
    });
}

#[test]
fn filters() {
    let definition = define(FILTERED);
    let recorded = record(&definition, &mut guest());
    bolero::check!(name = "filters").with_iterations(RANDOM).with_max_len(MAX_LEN).for_each(|bytes: &[u8]| {
        check_filter(&expand(bytes, &FILTER_PIECES), &definition, &recorded, bytes);
        check_filter(&String::from_utf8_lossy(bytes), &definition, &recorded, bytes);
    });
}

/// A TOML file, and what its probes say.
#[test]
fn config() {
    bolero::check!(name = "config").with_iterations(RANDOM).with_max_len(MAX_LEN).for_each(|bytes: &[u8]| {
        for text in [expand(bytes, &TOML_PIECES), String::from_utf8_lossy(bytes).into_owned()] {
            match Config::parse("a.toml", &text) {
                Ok(config) => {
                    assert!(config.probes.iter().all(|probe| probe.origin.starts_with("a.toml:")));
                    config.probes.iter().for_each(|probe| check_probe(probe, bytes));
                }
                Err(error) => {
                    assert!(error.line >= 1 && error.column >= 1);
                    let _ = error.to_string();
                }
            }
        }
    });
}
