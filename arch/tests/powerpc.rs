//! The powerpc executor against QEMU's: what qemu-user 10.0 left behind (`-cpu power10` for 64 bits, `e500mc` for 32) is
//! in `powerpc/ppc64.txt`, `ppc64le.txt` and `ppc.txt`, two states an instruction:
//!
//! `WORD[,SUFFIX] SEED DIRECTION CHANGES # TEXT`: the seed makes the state to start with, `taken` or `behind` says where
//! the instruction went, `r3=ff` what a register became, `+16=00ff` what the bytes at 16 of the memory became. What is
//! not named stayed. `arch/examples/powerpc_states.rs` says how the files are made, and compares any number of states.

#[path = "powerpc/states.rs"]
mod states;

use states::{Cpu, Listed};

/// The versions of the CPUs that the files are from.
const POWER10: u64 = 0x0080_0200;

/// Each line, and how many there are.
fn compare(isa: &str, version: u64, golden: &str) -> usize {
    let cpu = Cpu::new(isa, version);
    let mut differing = Vec::new();
    for line in golden.lines() {
        let (case, text) = line.split_once(" # ").expect("a remark");
        let mut fields = case.splitn(3, ' ');
        let words = fields.next().expect("words").split(',').map(|word| u32::from_str_radix(word, 16));
        let words = words.collect::<Result<_, _>>().expect("hexadecimal");
        let seed = fields.next().and_then(|seed| seed.parse().ok()).expect("a seed");
        let expected = fields.next().expect("an outcome");
        let listed = Listed { words, text: text.to_owned() };
        let before = states::place(&listed, seed, cpu);
        let found = match states::execute(&listed, &before, cpu) {
            Ok(after) => states::changes(&before, &after),
            Err(error) => error.to_string(),
        };
        if found != expected {
            differing.push(format!("{text}, seed {seed}: QEMU {expected}, executor {found}"));
        }
    }
    assert!(differing.is_empty(), "{isa}: {} differ:\n{}", differing.len(), differing.join("\n"));
    golden.lines().count()
}

#[test]
fn executes_as_qemu_does_ppc64() {
    assert!(compare("ppc64", POWER10, include_str!("powerpc/ppc64.txt")) >= 2000, "cases are left");
}

#[test]
fn executes_as_qemu_does_ppc64le() {
    assert!(compare("ppc64le", POWER10, include_str!("powerpc/ppc64le.txt")) >= 2000, "cases are left");
}

#[test]
fn executes_as_qemu_does_ppc() {
    assert!(compare("ppc", 0, include_str!("powerpc/ppc.txt")) >= 1200, "cases are left");
}
