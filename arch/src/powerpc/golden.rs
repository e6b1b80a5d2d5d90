//! The golden decode files: what kernels are made of, one instruction a line, with its length and its flow.
//!
//! The expectations are another disassembler's. `golden/powerpc.s` is the list; with GNU binutils 2.40, in that folder:
//!
//! ```text
//! powerpc64le-linux-gnu-as -a64 -mlittle -mpower10 -many -mregnames --defsym WIDE=1 powerpc.s -o list.o
//! powerpc64le-linux-gnu-objdump -d -z -M power10 -M any --adjust-vma=0xc000000000100000 list.o |
//!     cargo run -p qkprobe-arch --example against_objdump -- --golden --isa ppc64le > ppc64le.txt
//! ```
//! (`ppc64`: `powerpc64-` and `-mbig`; `ppc`: `powerpc-`, `-a32 -mbig -many -mregnames` without `WIDE`, `-M e500`, 0xc0100000)
//! gave every byte, length, target and text. `BLESS=1 cargo test` rewrites lengths and flows by this crate's decoder: the
//! difference is then the reviewer's to judge.

use std::fmt::Write;
use std::path::Path;

use super::{PPC, PPC64, PPC64LE, Powerpc};
use crate::{Arch, DecodeError, GuestAddr};

/// `ADDRESS BYTES LENGTH FLOW # TEXT`, with what the decoder says for length and flow.
fn redecoded(isa: &Powerpc, line: &str) -> String {
    let (fields, text) = line.split_once(" # ").expect("a remark");
    let mut fields = fields.split(' ');
    let addr = fields.next().and_then(|addr| addr.strip_prefix("0x")).expect("an address");
    let addr = GuestAddr(u64::from_str_radix(addr, 16).expect("hexadecimal"));
    let digits = fields.next().expect("bytes");
    let bytes: Vec<u8> = (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal"))
        .collect();
    match isa.decode(addr, &bytes) {
        Ok(insn) => format!("{addr} {digits} {} {} # {text}", insn.len, insn.flow),
        Err(DecodeError::Invalid { .. }) => format!("{addr} {digits} {} invalid # {text}", bytes.len()),
        Err(error) => format!("{addr} {digits} {error} # {text}"),
    }
}

fn compare(isa: &Powerpc, least: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/powerpc/golden/{}.txt", isa.name()));
    let golden = std::fs::read_to_string(&path).expect("the golden file");
    let mut found = String::new();
    for line in golden.lines() {
        writeln!(found, "{}", redecoded(isa, line)).expect("a string takes all");
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &found).expect("the golden file is writable");
        return;
    }
    for (expected, found) in golden.lines().zip(found.lines()) {
        assert_eq!(expected, found);
    }
    let cases = golden.lines().count();
    assert!(cases >= least, "{cases} cases are left");
}

#[test]
fn decodes_as_objdump_does_ppc64le() {
    compare(&PPC64LE, 430);
}

#[test]
fn decodes_as_objdump_does_ppc64() {
    compare(&PPC64, 430);
}

#[test]
fn decodes_as_objdump_does_ppc() {
    compare(&PPC, 380);
}
