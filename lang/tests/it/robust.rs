//! Whatever is typed or recorded: no panic, no endless loop.

use proptest::prelude::*;
use qkprobe_lang::{Common, Config, Events, Filter, parse};

use crate::fake::{FakeGuest, FakeKernel, define};

/// Pieces of definitions, so that random lines come far.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(" "),
        Just("p"),
        Just("r"),
        Just("p:"),
        Just("r10:g/e"),
        Just("-:"),
        Just("vfs_read"),
        Just("%return"),
        Just("+0("),
        Just("+u8("),
        Just("-"),
        Just(")"),
        Just("%di"),
        Just("%"),
        Just("$arg1"),
        Just("$arg*"),
        Just("$stack"),
        Just("$retval"),
        Just("$comm"),
        Just("@"),
        Just("@linux_proc_banner"),
        Just("\\"),
        Just("\\\"x\""),
        Just("="),
        Just("a="),
        Just(":"),
        Just(":string"),
        Just(":b4@4/8"),
        Just("[4]"),
        Just("["),
        Just("]"),
        Just("0x10"),
        Just("99999999999999999999"),
        Just("#"),
        Just("é"),
        Just("\u{1f600}"),
        Just("/"),
        Just("."),
        Just(":symstr"),
        Just(":%pd"),
        Just("->"),
        Just("&"),
    ]
    .prop_map(str::to_owned)
}

/// Pieces of filters.
fn filter_piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(" "),
        Just("a"),
        Just("s"),
        Just("=="),
        Just("!="),
        Just("~"),
        Just("<="),
        Just("&"),
        Just("&&"),
        Just("||"),
        Just("!"),
        Just("("),
        Just(")"),
        Just("1"),
        Just("-1"),
        Just("0x"),
        Just("\"*a[b-\""),
        Just("\""),
        Just("'"),
        Just("CPU"),
        Just("CPUS"),
        Just("{"),
        Just("}"),
        Just("0-3"),
        Just(".function"),
        Just("é"),
        Just("__probe_ip"),
        Just("COMM"),
    ]
    .prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_line(line in ".{0,200}") {
        let _ = parse(&line, &FakeKernel, &Events::new()).map_err(|error| error.to_string());
    }

    #[test]
    fn any_likely_line(pieces in proptest::collection::vec(piece(), 0..24)) {
        let line = format!("p vfs_read {}", pieces.concat());
        for line in [&line, &pieces.concat()] {
            let _ = parse(line, &FakeKernel, &Events::new()).map_err(|error| error.to_string());
        }
    }

    #[test]
    fn any_program_runs(pieces in proptest::collection::vec(piece(), 0..8), fill in any::<u64>()) {
        let line = format!("p vfs_read x={}", pieces.concat());
        if let Ok(qkprobe_lang::Command::Add(definition)) = parse(&line, &FakeKernel, &Events::new()) {
            let mut guest = FakeGuest::new().set("di", fill).poke(fill, b"abc");
            let mut out = vec![0; definition.program.max_len()];
            let len = definition.program.run(&mut guest, &mut out);
            let mut text = Vec::new();
            definition.print_ftrace(&out[..len], &FakeKernel, &mut text);
            definition.print_json(&out[..len], &FakeKernel, &mut text);
            prop_assert!(String::from_utf8(text).is_ok());
        }
    }

    #[test]
    fn any_filter(text in ".{0,100}", pieces in proptest::collection::vec(filter_piece(), 0..16), record in any::<[u8; 20]>()) {
        let definition = define("p vfs_read a=%di:s32 s=+0(%si):string");
        for text in [text, pieces.concat()] {
            match Filter::compile(&text, &definition, &FakeKernel) {
                Ok(filter) => { let _ = filter.matches(&record, &Common { ip: 0, cpu: 0 }, &FakeKernel); }
                Err(error) => { let _ = error.to_string(); }
            }
        }
    }

    #[test]
    fn any_record(record in proptest::collection::vec(any::<u8>(), 0..100)) {
        let definition = define("p vfs_read %di +0(%si):string[3] %di:symstr +0(%si):char[5] +0(%si):b3@2/8");
        let mut text = Vec::new();
        definition.print_ftrace(&record, &FakeKernel, &mut text);
        definition.print_json(&record, &FakeKernel, &mut text);
        prop_assert!(String::from_utf8(text).is_ok());
    }

    #[test]
    fn any_toml(text in ".{0,200}", key in "[a-z]{1,10}", value in "[0-9a-z\"'\\[\\]{}=., \n]{0,40}") {
        let _ = Config::parse("a.toml", &text).map_err(|error| error.to_string());
        let text = format!("[[probe]]\n{key} = {value}\n");
        let _ = Config::parse("a.toml", &text).map_err(|error| error.to_string());
    }
}

#[test]
fn hostile_toml_depth() {
    let _ = Config::parse("a.toml", &format!("kernel = {}", "[".repeat(100_000)));
}
