//! Fuzz targets: `arguments` here, `control` in `control::decode_tests`. `cargo test` runs the corpus (`__fuzz__/TARGET/corpus`) and some
//! random inputs; `cargo xtask fuzz TARGET` is led by coverage, as long as one likes.

use crate::args::{Settings, asks_for_kvm, kernel_of_command_line};

/// Random inputs of one `cargo test`, of at most so many bytes.
pub(crate) const RANDOM: usize = 2000;
pub(crate) const MAX_LEN: usize = 24;

/// Pieces of arguments, QEMU's and the plugin's.
const PIECES: [&str; 56] = [
    "kernel=",
    "probe=",
    "count=",
    "filter=",
    "out=",
    "format=",
    "summary=",
    "backpressure=",
    "control=",
    "verify=",
    "slide=",
    "file=",
    "arg=",
    "probe=p:e vfs_read x=%di",
    "count=r:c vfs_read",
    "on",
    "off",
    "ftrace",
    "json",
    "lossless",
    "drop",
    "0x",
    "ffffffffffffffff",
    "auto",
    "=",
    ",",
    " if ",
    " do ",
    "x == 1",
    "skip",
    "override=-2",
    "count",
    "user",
    "nth=3",
    "quit=256",
    "-kernel",
    "--kernel",
    "-M",
    "-machine",
    "-accel",
    "-enable-kvm",
    "kvm",
    "tcg",
    "kvm:tcg",
    "pc,accel=",
    "kernel=a,b",
    "verify",
    "control",
    "é",
    "\u{9b}",
    "p",
    ":",
    "/",
    "\\",
    "\"",
    "'",
];

/// Bytes up to 0x7f stand for themselves, the others for a piece, so that few bytes reach deep.
pub(crate) fn expand(bytes: &[u8], pieces: &[&str]) -> String {
    let piece = |byte: &u8| match byte {
        0..=0x7f => char::from(*byte).to_string(),
        _ => pieces[usize::from(byte - 0x80) % pieces.len()].to_owned(),
    };
    bytes.iter().map(piece).collect()
}

/// One argument a line. None names a file of settings: what is in there is the target `config`.
fn check(text: &str) {
    let args: Vec<String> = text.lines().filter(|line| !line.starts_with("config=")).map(str::to_owned).collect();
    let definitions = args.iter().filter(|arg| arg.starts_with("probe=") || arg.starts_with("count=")).count();
    match Settings::parse(&args) {
        Ok(settings) => assert_eq!(settings.probes.len(), definitions),
        Err(error) => assert!(!error.is_empty()),
    }
    let kernel = kernel_of_command_line(&args).map(|path| path.display().to_string());
    assert!(kernel.is_none_or(|kernel| args.iter().any(|arg| arg.contains(&kernel))));
    let _ = asks_for_kvm(&args);
}

#[test]
fn arguments() {
    bolero::check!(name = "arguments").with_iterations(RANDOM).with_max_len(MAX_LEN).for_each(|bytes: &[u8]| {
        check(&expand(bytes, &PIECES));
        check(&String::from_utf8_lossy(bytes));
    });
}
