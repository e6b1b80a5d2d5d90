//! The golden decode file: what a kernel is made of, one instruction a line, with its length and its flow.
//!
//! The expectations are another disassembler's. `golden/x86_64.s` and `golden/i386.s` are the lists; with GNU binutils 2.40,
//! in that folder:
//!
//! ```text
//! as --64 x86_64.s -o list.o
//! objdump -d -z -M intel64 --insn-width=16 --adjust-vma=0xffffffff81000000 list.o |
//!     cargo run -p qkprobe-arch --example against_objdump -- --golden > x86_64.txt
//! as --32 i386.s -o list.o
//! objdump -d -z --insn-width=16 --adjust-vma=0xc1000000 list.o |
//!     cargo run -p qkprobe-arch --example against_objdump -- --golden i386 > i386.txt
//! ```
//! gave every byte, length, target and text; the heads were put there by hand. `BLESS=1 cargo test`
//! rewrites lengths and flows by this crate's decoder: the difference is then the reviewer's to judge.

use std::fmt::Write;
use std::path::Path;

use super::{X86, X86_32, X86_64};
use crate::{Arch, GuestAddr};

/// `ADDRESS BYTES LENGTH FLOW # TEXT`, with what the decoder says for length and flow.
fn redecoded(arch: &X86, line: &str) -> String {
    let (fields, text) = line.split_once(" # ").expect("a remark");
    let mut fields = fields.split(' ');
    let addr = fields.next().and_then(|addr| addr.strip_prefix("0x")).expect("an address");
    let addr = GuestAddr(u64::from_str_radix(addr, 16).expect("hexadecimal"));
    let digits = fields.next().expect("bytes");
    let bytes: Vec<u8> = (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal"))
        .collect();
    match arch.decode(addr, &bytes) {
        Ok(insn) => format!("{addr} {digits} {} {} # {text}", insn.len, insn.flow),
        Err(error) => format!("{addr} {digits} {error} # {text}"),
    }
}

fn check(arch: &X86, at_least: usize) {
    let file = format!("src/x86/golden/{}.txt", arch.name());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let golden = std::fs::read_to_string(&path).expect("the golden file");
    let mut cases = 0;
    let mut found = String::new();
    for line in golden.lines() {
        if line.starts_with('#') {
            writeln!(found, "{line}").expect("a string takes all");
        } else {
            cases += 1;
            writeln!(found, "{}", redecoded(arch, line)).expect("a string takes all");
        }
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &found).expect("the golden file is writable");
        return;
    }
    for (expected, found) in golden.lines().zip(found.lines()) {
        assert_eq!(expected, found);
    }
    assert!(cases >= at_least, "{cases} cases are left");
}

#[test]
fn decodes_as_objdump_does() {
    check(&X86_64, 450);
}

#[test]
fn decodes_32_bits_as_objdump_does() {
    check(&X86_32, 400);
}
