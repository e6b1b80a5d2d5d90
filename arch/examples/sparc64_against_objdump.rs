//! Compares the decoder of sparc64 with GNU objdump on a whole kernel: every word's validity, every flow, every direct
//! target.
//!
//! ```text
//! sparc64-linux-gnu-objdump -d -z -m sparc:v9m8 vmlinux |
//!     cargo run --release -p qkprobe-arch --example sparc64_against_objdump
//! ```
//! Input lines are `ADDRESS:<tab>BYTES<tab>MNEMONIC OPERANDS`; others are passed over. `sparc:v9m8` is the largest
//! instruction set that objdump knows. Prints counts and the first 20 differences; exit status 1 when there is any.
//!
//! Known faults of objdump, which are passed over: 2.40 ignores the low bit of the condition code field of BPcc, which
//! makes the instruction an illegal one (manual, appendix A.7); many a word of a table in the text looks so.
//!
//! `--golden` prints what objdump says in the format of `arch/src/sparc64/golden/sparc64.txt` instead of comparing.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use qkprobe_arch::{Flow, GuestAddr};

const SHOWN: u64 = 20;

/// One line of objdump.
#[derive(Debug)]
struct Listed {
    addr: GuestAddr,
    bytes: Vec<u8>,
    text: String,
}

impl Listed {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(3, '\t');
        let addr = fields.next()?.trim().strip_suffix(':')?;
        let addr = GuestAddr(u64::from_str_radix(addr, 16).ok()?);
        let bytes = fields.next()?.split_ascii_whitespace().map(|byte| u8::from_str_radix(byte, 16));
        let bytes = bytes.collect::<Result<Vec<_>, _>>().ok()?;
        // Operands end where objdump's remarks begin (`! 40a000 <x>`, `<vfs_read+0x4>`).
        let text = fields.next()?;
        let text = text.split(['!', '<']).next().unwrap_or_default().split_ascii_whitespace();
        Some(Self { addr, bytes, text: text.collect::<Vec<_>>().join(" ") })
    }

    /// A BPcc on neither `%icc` nor `%xcc`.
    fn is_reserved(&self) -> bool {
        matches!(self.bytes[..], [first, second, ..] if first & 0xc1 == 0 && second & 0xd0 == 0x50)
    }

    /// The flow that the mnemonic means; `None` where objdump sees no instruction.
    fn flow(&self) -> Option<Flow> {
        if self.is_reserved() {
            return None;
        }
        let mut words = self.text.split(' ');
        let mnemonic = words.next().unwrap_or_default();
        let annuls = mnemonic.contains(",a");
        let (mnemonic, _) = mnemonic.split_once(',').unwrap_or((mnemonic, ""));
        let last = self.text.rsplit([' ', ',']).next().unwrap_or_default();
        let target = u64::from_str_radix(last.trim_start_matches("0x"), 16).map(GuestAddr);
        Some(match (mnemonic, target) {
            ("unknown" | ".word" | ".long" | "cb" | "cbn", _) => return None,
            ("call", _) if words.next().is_some_and(|operand| operand.starts_with('%')) => Flow::IndirectCall,
            ("call", Ok(target)) => Flow::Call { target },
            ("ret" | "retl", _) => Flow::Return,
            ("jmp", _) if ["%i7 + 0xc", "%o7 + 0xc"].iter().any(|place| self.text.ends_with(place)) => Flow::Return,
            ("return", _) if self.text.ends_with("%i7 + 8") => Flow::Return,
            ("jmp" | "jmpl" | "return", _) => Flow::IndirectJump,
            ("b" | "fb", Ok(target)) => Flow::Jump { target },
            ("bn" | "fbn", Ok(_)) if annuls => Flow::Jump { target: self.addr.wrapping_add(8) },
            ("bn" | "fbn", Ok(_)) => Flow::Next,
            ("illtrap" | "unimp" | "ta" | "sir" | "done" | "retry", _) => Flow::Trap,
            (branch, Ok(target)) if is_branch(branch) => Flow::Branch { target },
            _ => Flow::Next,
        })
    }
}

fn is_branch(mnemonic: &str) -> bool {
    let integer = ["b", "br", "fb", "cwb", "cxb"];
    const OTHERS: [&str; 2] = ["bmask", "bshuffle"];
    !OTHERS.contains(&mnemonic) && integer.iter().any(|start| mnemonic.starts_with(start))
}

const fn kind(flow: Flow) -> &'static str {
    match flow {
        Flow::Next => "next",
        Flow::Jump { .. } => "jump",
        Flow::Branch { .. } => "branch",
        Flow::IndirectJump => "indirect-jump",
        Flow::Call { .. } => "call",
        Flow::IndirectCall => "indirect-call",
        Flow::Return => "return",
        Flow::Trap => "trap",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn main() -> io::Result<ExitCode> {
    let golden = std::env::args().any(|argument| argument == "--golden");
    let arch = qkprobe_arch::by_name("sparc64").ok_or(io::ErrorKind::Unsupported)?;
    let mut out = io::stdout().lock();
    let (mut agreed, mut invalid, mut differing) = (BTreeMap::<&str, u64>::new(), 0_u64, 0_u64);
    for line in io::stdin().lock().lines() {
        let Some(listed) = Listed::parse(&line?) else { continue };
        let expected = listed.flow();
        let found = arch.decode(listed.addr, &listed.bytes);
        if golden {
            let flow = expected.map_or_else(|| "invalid".to_owned(), |flow| flow.to_string());
            writeln!(out, "{} {} 4 {flow} # {}", listed.addr, hex(&listed.bytes), listed.text)?;
            continue;
        }
        match (expected, found) {
            (None, Err(_)) => invalid += 1,
            (Some(flow), Ok(insn)) if insn.len == 4 && flow == insn.flow => *agreed.entry(kind(flow)).or_default() += 1,
            (expected, found) => {
                differing += 1;
                if differing <= SHOWN {
                    writeln!(
                        out,
                        "{}: {} {}: objdump {expected:?}, decoder {found:?}",
                        listed.addr,
                        hex(&listed.bytes),
                        listed.text
                    )?;
                }
            }
        }
    }
    if golden {
        return Ok(ExitCode::SUCCESS);
    }
    for (kind, count) in &agreed {
        writeln!(out, "{count:>10} {kind}")?;
    }
    let sum: u64 = agreed.values().sum();
    writeln!(out, "{sum:>10} agree, {invalid} are no instruction to both, {differing} differ")?;
    Ok(if differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
