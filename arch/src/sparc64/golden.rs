//! The golden decode file: SPARC V9 and its extensions, one instruction a line, with its length and its flow.
//!
//! The expectations are another disassembler's. `golden/sparc64.s` is the list; with GNU binutils 2.40, in that folder:
//!
//! ```text
//! sparc64-linux-gnu-as -Av9m8 -64 sparc64.s -o list.o
//! sparc64-linux-gnu-objdump -d -z -m sparc:v9m8 --adjust-vma=0x404000 list.o |
//!     cargo run -p qkprobe-arch --example against_objdump -- --golden --isa sparc64 > sparc64.txt
//! ```
//! gave all of `sparc64.txt` but its head. `BLESS=1 cargo test` rewrites lengths and flows by this crate's decoder: the
//! difference is then the reviewer's to judge.

use std::fmt::Write;
use std::path::Path;

use super::Sparc64;
use crate::{Arch, GuestAddr};

const FILE: &str = "src/sparc64/golden/sparc64.txt";

/// `ADDRESS BYTES LENGTH FLOW # TEXT`, with what the decoder says for length and flow.
fn redecoded(line: &str) -> String {
    let (fields, text) = line.split_once(" # ").expect("a remark");
    let mut fields = fields.split(' ');
    let addr = fields.next().and_then(|addr| addr.strip_prefix("0x")).expect("an address");
    let addr = GuestAddr(u64::from_str_radix(addr, 16).expect("hexadecimal"));
    let digits = fields.next().expect("bytes");
    let word = u32::from_str_radix(digits, 16).expect("hexadecimal");
    match Sparc64.decode(addr, &word.to_be_bytes()) {
        Ok(insn) => format!("{addr} {digits} {} {} # {text}", insn.len, insn.flow),
        Err(_) => format!("{addr} {digits} 4 invalid # {text}"),
    }
}

#[test]
fn decodes_as_objdump_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let golden = std::fs::read_to_string(&path).expect("the golden file");
    let mut cases = 0;
    let mut found = String::new();
    for line in golden.lines() {
        if line.starts_with('#') {
            writeln!(found, "{line}").expect("a string takes all");
        } else {
            cases += 1;
            writeln!(found, "{}", redecoded(line)).expect("a string takes all");
        }
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &found).expect("the golden file is writable");
        return;
    }
    for (expected, found) in golden.lines().zip(found.lines()) {
        assert_eq!(expected, found);
    }
    assert!(cases >= 800, "{cases} cases are left");
}
