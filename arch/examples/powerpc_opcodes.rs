//! Compares the opcode table of powerpc with GNU objdump: every value of the low 11 bits of every primary opcode, with
//! many operands each.
//!
//! ```text
//! cargo run --release -p qkprobe-arch --example powerpc_opcodes -- --words > words
//! for cpu in power10 power9 power8 power7 power6 power4 e500 e500mc e5500 e6500 a2 476 titan 7450 403 405 440 464 cell \
//!         e300 booke 821 860; do
//!     powerpc64-linux-gnu-objdump -b binary -m powerpc:common64 -EB -M $cpu -D -z words
//! done | cargo run --release -p qkprobe-arch --example powerpc_opcodes
//! ```
//! An extended opcode is one when objdump knows it with some operands for some CPU. Prints the differences; exit status 1
//! when there is any.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use qkprobe_arch::GuestAddr;

/// Primary opcode and low 11 bits.
type Opcode = (u32, u32);

fn opcode(word: u32) -> Opcode {
    (word >> 26, word & 0x7ff)
}

/// Bits 6 to 20: none, all, each alone, registers that differ, each RA (which extends some opcodes further), the time base, and
/// some at random. Few for primary opcodes whose low bits are a displacement.
fn operands(primary: u32) -> Vec<u32> {
    if !matches!(primary, 0 | 4..=6 | 9 | 17 | 19 | 22 | 30 | 31 | 56..=63) {
        return vec![0, 0x7fff, 3 << 10 | 4 << 5 | 5, 31 << 10];
    }
    let registers =
        [(2, 0, 0), (0, 1, 0), (1, 1, 0), (3, 4, 5), (8, 9, 10), (31, 0, 0), (1, 2, 16), (6, 7, 8), (0, 0, 31)];
    let mut operands = vec![0, 0x7fff];
    operands.extend((0..15).map(|bit| 1 << bit));
    operands.extend(registers.map(|(t, a, b)| t << 10 | a << 5 | b));
    operands.extend((0..32).map(|a| 2 << 10 | a << 5 | 6));
    operands.push(3 << 10 | 12 << 5 | 8);
    operands.extend((1_u32..40).map(|number| number.wrapping_mul(0x9e37_79b9) >> 17));
    operands
}

fn main() -> io::Result<ExitCode> {
    // Opcode 1 is the prefixes'.
    let primary = (0..64).filter(|primary| *primary != 1);
    let words = primary.flat_map(|primary| (0..0x800).map(move |low| primary << 26 | low));
    if std::env::args().any(|argument| argument == "--words") {
        let mut out = io::BufWriter::new(io::stdout().lock());
        for word in words {
            for operands in operands(word >> 26) {
                out.write_all(&(word | operands << 11).to_be_bytes())?;
            }
        }
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut known: BTreeSet<Opcode> = BTreeSet::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let mut fields = line.split('\t').skip(1);
        let (Some(bytes), Some(text)) = (fields.next(), fields.next()) else { continue };
        let word = bytes
            .split_ascii_whitespace()
            .try_fold(0_u32, |word, byte| u32::from_str_radix(byte, 16).map(|byte| word << 8 | byte));
        if let Ok(word) = word
            && !text.starts_with(".long")
        {
            known.insert(opcode(word));
        }
    }
    let arch = qkprobe_arch::by_name("ppc64").ok_or(io::ErrorKind::Unsupported)?;
    let mut differing = 0;
    for word in words {
        let found = arch.decode(GuestAddr(0), &word.to_be_bytes()).is_ok();
        let (primary, low) = opcode(word);
        if found != known.contains(&(primary, low)) {
            differing += 1;
            println!("primary opcode {primary}, low bits {low:#x}: decoder {found}");
        }
    }
    println!("{} are instructions to objdump, {differing} differ", known.len());
    Ok(if differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
