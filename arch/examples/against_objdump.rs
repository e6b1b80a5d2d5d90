//! Compares `qkprobe_arch`'s decoder with GNU objdump on a whole kernel: every length, every direct target, every flow.
//!
//! ```text
//! objdump -d -M intel64 --insn-width=16 vmlinux | cargo run --release -p qkprobe-arch --example against_objdump
//! powerpc64le-linux-gnu-objdump -d -z vmlinux |
//!     cargo run --release -p qkprobe-arch --example against_objdump -- --isa ppc64le
//! objdump -d --insn-width=16 vmlinux | cargo run --release -p qkprobe-arch --example against_objdump -- --isa i386
//! sparc64-linux-gnu-objdump -d -z -m sparc:v9m8 vmlinux |
//!     cargo run --release -p qkprobe-arch --example against_objdump -- --isa sparc64
//! ```
//! Input lines are `ADDRESS:<tab>BYTES<tab>MNEMONIC OPERANDS`; others are passed over. `intel64`, because the decoder
//! follows Intel where the vendors differ; `sparc:v9m8` is the largest set of sparc64 that objdump knows. Each instruction is decoded at the address that objdump gives, with the text
//! that follows it in view. Prints counts and the first 20 differences; exit status 1 when there is any.
//!
//! `--golden` prints what objdump says in the format of `arch/src/x86/golden/*.txt` instead of comparing.
//!
//! Known faults of objdump that show as differences: 2.40 does not know FRED's `lkgs` and shows it as `(bad)`. On powerpc they
//! are words of data in the text (jump tables, code of the other byte order): some are instructions of POWER to objdump
//! (`dozi`), and in some it minds reserved fields, which the decoder does not look at. 26 in Debian's 6.1 powerpc64le kernel.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

#[path = "against_objdump/powerpc.rs"]
mod powerpc;
#[path = "against_objdump/sparc64.rs"]
mod sparc64;

use qkprobe_arch::{Arch, Flow, GuestAddr, Insn, MAX_INSN_BYTES};

const SHOWN: u64 = 20;

/// What a line of objdump means.
type FlowOf = fn(&Listed) -> Option<Flow>;

/// One line of objdump.
#[derive(Debug)]
struct Listed {
    addr: u64,
    bytes: Vec<u8>,
    text: String,
}

impl Listed {
    /// `remarks`: what objdump's remarks begin with (`# 0xffffffff82c354b8`, `<vfs_read+0x4>`, on sparc64 `! 40a000`).
    fn parse(line: &str, remarks: [char; 2]) -> Option<Self> {
        let mut fields = line.splitn(3, '\t');
        let addr = fields.next()?.trim().strip_suffix(':')?;
        let addr = u64::from_str_radix(addr, 16).ok()?;
        let bytes: Result<Vec<u8>, _> =
            fields.next()?.split_ascii_whitespace().map(|byte| u8::from_str_radix(byte, 16)).collect();
        let text = fields.next().unwrap_or_default();
        let text = text.split(remarks).next().unwrap_or_default().split_ascii_whitespace();
        Some(Self { addr, bytes: bytes.ok()?, text: text.collect::<Vec<_>>().join(" ") })
    }

    /// objdump takes `fwait` for a prefix of the FPU instruction behind it; to the CPU these are two instructions.
    fn split_fwait(self) -> Vec<Self> {
        const FWAIT: u8 = 0x9b;
        match self.bytes.split_first() {
            Some((&FWAIT, rest)) if !rest.is_empty() => {
                let rest = Self { addr: self.addr + 1, bytes: rest.to_vec(), text: self.text };
                vec![Self { addr: self.addr, bytes: vec![FWAIT], text: "fwait".to_owned() }, rest]
            }
            _ => vec![self],
        }
    }

    fn end(&self) -> u64 {
        self.addr + self.bytes.len() as u64
    }

    /// The flow that the mnemonic means; `None` where objdump sees no instruction.
    fn flow(&self) -> Option<Flow> {
        let mut words = self.text.split(' ').skip_while(|word| is_prefix(word));
        // `je,pn`: a branch hint.
        let mnemonic = words.next().unwrap_or_default().split(',').next().unwrap_or_default();
        let operand = words.next().unwrap_or_default();
        let target = u64::from_str_radix(operand.trim_start_matches("0x"), 16).map(GuestAddr);
        Some(match (mnemonic, target) {
            ("(bad)", _) => return None,
            ("jmp" | "jmpq", _) if operand.starts_with('*') => Flow::IndirectJump,
            ("call" | "callq", _) if operand.starts_with('*') => Flow::IndirectCall,
            ("jmp" | "jmpq", Ok(target)) => Flow::Jump { target },
            ("call" | "callq", Ok(target)) => Flow::Call { target },
            ("loop" | "loope" | "loopne" | "loopw" | "loopew" | "loopnew" | "xbegin" | "xbeginq", Ok(target)) => {
                Flow::Branch { target }
            }
            (jcc, Ok(target)) if jcc.starts_with('j') => Flow::Branch { target },
            ("ret" | "retq" | "retw", _) => Flow::Return,
            (mnemonic, _) if leaves_the_line(mnemonic) => Flow::Trap,
            _ => Flow::Next,
        })
    }
}

fn is_prefix(word: &str) -> bool {
    const PREFIXES: [&str; 18] = [
        "addr16", "addr32", "bnd", "cs", "data16", "ds", "es", "fs", "gs", "lock", "notrack", "rep", "repnz", "repz",
        "rex", "ss", "xacquire", "xrelease",
    ];
    PREFIXES.contains(&word) || word.starts_with("rex.")
}

fn leaves_the_line(mnemonic: &str) -> bool {
    const TRAPS: [&str; 23] = [
        "eretu", "erets", "int", "int1", "int3", "into", "rsm", "seamcall", "seamret", "skinit", "syscall", "sysenter",
        "tdcall", "ud0", "ud1", "ud2", "uiret", "vmcall", "vmgexit", "vmlaunch", "vmmcall", "vmresume", "vmrun",
    ];
    const FAR_OR_BACK: [&str; 6] = ["lcall", "ljmp", "lret", "iret", "sysret", "sysexit"];
    TRAPS.contains(&mnemonic) || FAR_OR_BACK.iter().any(|start| mnemonic.starts_with(start))
}

#[derive(Debug, Default)]
struct Tally {
    agreed: BTreeMap<&'static str, u64>,
    not_instructions: u64,
    differing: u64,
}

impl Tally {
    fn compare(&mut self, arch: &dyn Arch, flow: FlowOf, listed: &Listed, text: &[u8]) -> io::Result<()> {
        let expected = flow(listed).map(|flow| (listed.bytes.len(), flow));
        let found = arch.decode(GuestAddr(listed.addr), text);
        match (expected, found) {
            (None, Err(_)) => self.not_instructions += 1,
            (Some((len, flow)), Ok(insn)) if len == usize::from(insn.len) && flow == insn.flow => {
                *self.agreed.entry(kind(flow)).or_default() += 1;
            }
            (_, found) => {
                self.differing += 1;
                if self.differing <= SHOWN {
                    show(listed, expected, found, &mut io::stdout().lock())?;
                }
            }
        }
        Ok(())
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        for (kind, count) in &self.agreed {
            writeln!(out, "{count:>10} {kind}")?;
        }
        let agreed: u64 = self.agreed.values().sum();
        writeln!(
            out,
            "{agreed:>10} agree, {} are no instruction to both, {} differ",
            self.not_instructions, self.differing
        )
    }
}

fn show(
    listed: &Listed,
    expected: Option<(usize, Flow)>,
    found: Result<Insn, qkprobe_arch::DecodeError>,
    out: &mut impl Write,
) -> io::Result<()> {
    write!(out, "{:#x}: {} {}: objdump ", listed.addr, hex(&listed.bytes), listed.text)?;
    match expected {
        Some((len, flow)) => write!(out, "{len} {flow}")?,
        None => write!(out, "no instruction")?,
    }
    match found {
        Ok(insn) => writeln!(out, ", decoder {} {}", insn.len, insn.flow),
        Err(error) => writeln!(out, ", decoder {error}"),
    }
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
    let isa = std::env::args().skip_while(|argument| argument != "--isa").nth(1);
    let isa = isa.as_deref().unwrap_or("x86_64");
    let arch = qkprobe_arch::by_name(isa).ok_or(io::ErrorKind::Unsupported)?;
    let (split, flow): (fn(Listed) -> Vec<Listed>, FlowOf) = match isa {
        "x86_64" | "i386" => (Listed::split_fwait, Listed::flow),
        "sparc64" => (|listed| vec![listed], sparc64::flow),
        _ => (|listed| vec![listed], powerpc::flow),
    };
    let remarks = if isa == "sparc64" { ['!', '<'] } else { ['#', '<'] };
    let mut tally = Tally::default();
    // Instructions whose following text is not read yet, and the text from the first of them on.
    let mut waiting: VecDeque<Listed> = VecDeque::new();
    let mut text: VecDeque<u8> = VecDeque::new();
    let mut drain = |waiting: &mut VecDeque<Listed>, text: &mut VecDeque<u8>, keep: usize| -> io::Result<()> {
        while text.len() > keep {
            let Some(listed) = waiting.pop_front() else { break };
            let view: Vec<u8> = text.iter().copied().take(MAX_INSN_BYTES).collect();
            tally.compare(arch, flow, &listed, &view)?;
            text.drain(..listed.bytes.len());
        }
        Ok(())
    };
    let mut handle = |listed: Listed| -> io::Result<()> {
        if golden {
            let flow = flow(&listed).map_or_else(|| "invalid".to_owned(), |flow| flow.to_string());
            println!("{:#x} {} {} {flow} # {}", listed.addr, hex(&listed.bytes), listed.bytes.len(), listed.text);
            return Ok(());
        }
        if waiting.back().is_some_and(|last| last.end() != listed.addr) {
            drain(&mut waiting, &mut text, 0)?;
        }
        text.extend(&listed.bytes);
        waiting.push_back(listed);
        drain(&mut waiting, &mut text, 2 * MAX_INSN_BYTES)
    };
    let mut last: Option<Listed> = None;
    for line in io::stdin().lock().lines() {
        for listed in Listed::parse(&line?, remarks).into_iter().flat_map(split) {
            match &mut last {
                // The suffix of a prefixed instruction has a line of its own, without text.
                Some(last) if listed.text.is_empty() => last.bytes.extend(listed.bytes),
                _ => last.replace(listed).map_or(Ok(()), &mut handle)?,
            }
        }
    }
    last.map_or(Ok(()), &mut handle)?;
    drain(&mut waiting, &mut text, 0)?;
    if !golden {
        tally.print(&mut io::stdout().lock())?;
    }
    Ok(if tally.differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
