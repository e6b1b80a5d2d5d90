//! How much of a kernel's code `Execute` evaluates: the share of instructions that `execute` supports, and of those that
//! have a successor, and what is missing, the most frequent first.
//!
//! ```text
//! objdump -d -M intel64 --insn-width=16 -j .text vmlinux | cargo run --release -p qkprobe-arch --example coverage
//! powerpc64le-linux-gnu-objdump -d -j .text vmlinux |
//!     cargo run --release -p qkprobe-arch --example coverage -- --isa ppc64le
//! ```
//! Counts instructions of the text, not executions. What the machine's values decide (a fault, a division by zero, a
//! conditional trap) is no lack: the machine here maps everything, and holds ones (but for rDX of x86, so that
//! divisions fit) or zeroes; one of them has to do.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

use qkprobe_arch::{Execute, ExecuteError, GuestAddr, InsnSlot, Machine, RegisterId};

/// The same number everywhere, and one zero; takes everything.
#[derive(Debug)]
struct Same {
    value: u64,
    zero: Option<RegisterId>,
}

impl Machine for Same {
    fn register(&mut self, id: RegisterId) -> Option<u64> {
        Some(if Some(id) == self.zero { 0 } else { self.value })
    }

    fn set_register(&mut self, _: RegisterId, _: u64) -> bool {
        true
    }

    fn read(&mut self, _: GuestAddr, bytes: &mut [u8]) -> bool {
        bytes.fill(0);
        if let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        true
    }

    fn write(&mut self, _: GuestAddr, _: &[u8]) -> bool {
        true
    }

    fn is_alone(&self) -> bool {
        true
    }
}

/// Address, bytes and mnemonic of a line of objdump.
fn parse(line: &str) -> Option<(GuestAddr, Vec<u8>, String)> {
    let mut fields = line.splitn(3, '\t');
    let addr = u64::from_str_radix(fields.next()?.trim().strip_suffix(':')?, 16).ok()?;
    let bytes = fields.next()?.split_ascii_whitespace().map(|byte| u8::from_str_radix(byte, 16));
    let bytes = bytes.collect::<Result<Vec<_>, _>>().ok()?;
    let text: Vec<&str> = fields.next()?.split_ascii_whitespace().collect();
    let is_prefix = |word: &&&str| ["lock", "rep", "repz", "repnz"].contains(*word);
    let words = text.iter().take_while(is_prefix).chain(text.iter().skip_while(is_prefix).take(1));
    Some((GuestAddr(addr), bytes, words.copied().collect::<Vec<_>>().join(" ")))
}

/// Those that the question was answered with no for.
#[derive(Debug, Default)]
struct Missing {
    total: u64,
    by_mnemonic: BTreeMap<String, u64>,
}

impl Missing {
    fn add(&mut self, mnemonic: &str) {
        self.total += 1;
        *self.by_mnemonic.entry(mnemonic.to_owned()).or_default() += 1;
    }

    fn print(&self, what: &str, of: u64, out: &mut impl Write) -> io::Result<()> {
        let share = 100.0 * (of - self.total) as f64 / of as f64;
        writeln!(out, "{what}: {} of {of} instructions ({share:.3} %); missing:", of - self.total)?;
        let mut sorted: Vec<_> = self.by_mnemonic.iter().collect();
        sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (mnemonic, count) in sorted.into_iter().take(60) {
            writeln!(out, "{count:>10} {mnemonic}")?;
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    let isa = std::env::args().skip_while(|argument| argument != "--isa").nth(1);
    let arch = qkprobe_arch::by_name(isa.as_deref().unwrap_or("x86_64")).ok_or(io::ErrorKind::Unsupported)?;
    let execute: &dyn Execute = arch.as_execute().ok_or(io::ErrorKind::Unsupported)?;
    let mut machines = [1, 0].map(|value| Same { value, zero: arch.register("dx") });
    let (mut total, mut executed, mut succeeded) = (0, Missing::default(), Missing::default());
    for line in io::stdin().lock().lines() {
        let Some((addr, bytes, mnemonic)) = parse(&line?) else { continue };
        // What objdump sees no instruction in, and the padding between functions.
        let Ok(slot) = InsnSlot::prepare(arch, addr, &bytes) else { continue };
        if mnemonic == "int3" {
            continue;
        }
        total += 1;
        let is_lacking =
            |machine| matches!(execute.execute(&slot, addr, machine), Err(ExecuteError::NotSupported { .. }));
        if machines.iter_mut().all(|machine| is_lacking(machine)) {
            executed.add(&mnemonic);
        }
        if !execute.has_successor(&slot, addr) {
            succeeded.add(&mnemonic);
        }
    }
    let mut out = io::stdout().lock();
    executed.print("executed", total, &mut out)?;
    succeeded.print("with a successor", total, &mut out)
}
