//! Test files: what they say, and how their mistakes are told.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{TestFile, WantedEnd};

fn parse(text: &str) -> Result<TestFile, String> {
    TestFile::parse(Path::new("/t/boot.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn a_whole_file() {
    let file = parse(
        "[guest]\nkernel = 'vmlinuz'\ncpus = 2\nfiles = { '/qk.script' = \"a\\nb\" }\n[test]\ntimeout = '90s'\nend = 'hit:off'\n\
         needs_qemu = '11.0'\n[[probe]]\ndef = 'p:off kernel_power_off'\n[[expect]]\nevent = 'off'\nhits = 1\nwithin = '60s'\n\
         [[expect]]\nevent = 'ret'\nretval = '-ENOENT'\nlatency = { p99 = '10ms' }\n",
    )
    .expect("good");
    assert_eq!((file.name.as_str(), file.guest.cpus, file.probes.len()), ("boot", Some(2), 1));
    assert_eq!(file.guest.kernel.as_deref(), Some(Path::new("/t/vmlinuz")));
    assert_eq!(file.guest.files["/qk.script"], "a\nb");
    assert_eq!(file.test.end, WantedEnd::Hit("off".into()));
    assert_eq!(file.test.timeout(), Duration::from_secs(90));
    assert_eq!(file.expect.iter().map(|expect| expect.line).collect::<Vec<_>>(), [11, 15]);
    assert_eq!(file.expect[1].spec.retval.as_ref().map(|it| it.text.as_str()), Some("-ENOENT"));
    assert_eq!(file.probes[0].origin, "/t/boot.toml:10");
}

#[test]
fn quantities_are_numbers_or_texts_and_symbols_one_file_or_more() {
    let file =
        parse("[test]\ntimeout = 60\nhang = 0.5\n[guest]\nmemory = '1G'\nsymbols = 'System.map'\n").expect("good");
    assert_eq!((file.test.timeout(), file.test.hang()), (Duration::from_secs(60), Duration::from_millis(500)));
    assert_eq!((file.guest.memory, file.guest.symbols), (Some(1024), vec![PathBuf::from("/t/System.map")]));
    let file = parse("[guest]\nmemory = 256\nsymbols = ['a', '/b']\n").expect("good");
    assert_eq!((file.guest.memory, file.guest.symbols), (Some(256), vec!["/t/a".into(), "/b".into()]));
    let text = |file: &str| parse(file).expect_err("bad");
    assert!(text("[guest]\nmemory = 8\n").contains("needs 16M at least"));
    assert!(text("[guest]\nmemory = 'much'\n").contains("write 1G, 512M, or a number of MB"));
    assert!(text("[test]\ntimeout = true\n").contains("a number, or a text with its unit"));
    assert!(text("[guest]\nsymbols = 3\n").contains("must be a file, or a list of files"));
}

#[test]
fn mistakes_are_told_with_line_caret_and_what_was_meant() {
    assert_eq!(
        parse("[guest]\nkernal = 'x'\n").expect_err("bad"),
        "/t/boot.toml:2:1: unknown key 'kernal'\n 2 | kernal = 'x'\n   | ^\n  help: did you mean kernel?"
    );
    let text = |file: &str| parse(file).expect_err("bad");
    assert!(text("[tset]\n").contains("unknown key 'tset'\n") && text("[tset]\n").contains("did you mean test?"));
    assert!(text("[test]\nend = 'poweroff'\n").contains("'poweroff' is no end: write power-off, reboot"));
    assert!(text("[test]\ntimeout = '5 parsecs'\n").contains("is no time"));
    assert!(
        text("[[expect]]\nhits = 1\n").contains("about one of event, never, sequence, console or ktap; this has none")
    );
    assert!(text("[[expect]]\nnever = 'a'\nhits = 1\n").contains("'hits' belongs to 'event'"));
    assert!(text("[[expect]]\nconsole = 'a'\nsuite = 'b'\n").contains("'suite' belongs to 'ktap'"));
    assert!(text("[[expect]]\nktap = 'fail'\n").contains("unknown variant `fail`, expected `pass`"));
    assert!(text("[[expect]]\nevent = 'a'\nhits = 'many'\n").contains("'many' is no number of hits"));
    assert!(text("[[expect]]\nevent = 'a'\nretval = 'ENOENTRY'\n").contains("is no return value"));
    assert!(text("[[expect]]\nevent = 'a'\nlatency = {}\n").contains("has no bound"));
    let probe = text("\n\n[[probe]]\ndef = 'p f'\nfitler = 'x'\n");
    assert!(probe.starts_with("/t/boot.toml:5:1: unknown key 'fitler'") && probe.contains("did you mean filter?"));
}
