//! Compares the powerpc executor with QEMU: each instruction of a list runs with random states in qemu-user and in
//! `Execute::execute`, and registers, memory and direction must come out the same.
//!
//! `arch/tests/powerpc/list.s` is the list, `runner.s` there the program that runs its instructions. With GNU binutils 2.40, in
//! that folder, for `ppc64` (`ppc64le`: `powerpc64le-`, `-mlittle`, `elf64lppc`; `ppc`: `powerpc-`, `-a32`, no `WIDE`,
//! `elf32ppclinux`):
//!
//! ```text
//! powerpc64-linux-gnu-as -a64 -mbig -many --defsym WIDE=1 runner.s -o runner.o
//! powerpc64-linux-gnu-ld -m elf64ppc -z max-page-size=4096 -e _start --section-start=.state=0x3000 \
//!     --section-start=.code=0x11000 -Ttext 0x10000 runner.o -o runner
//! powerpc64-linux-gnu-as -a64 -mbig -mpower10 --defsym WIDE=1 list.s -o list.o
//! powerpc64-linux-gnu-objdump -d -z -M power10 list.o |
//!     cargo run --release -p qkprobe-arch --example powerpc_states -- ppc64 00800200 1000 qemu-ppc64 -cpu power10 runner
//! ```
//! The arguments: the ISA, the CPU's PVR (0 on 32 bits), the number of states of each instruction, and the command.
//! `--golden` before them prints the outcomes in the format of `arch/tests/powerpc/ppc64.txt`, which `cargo test` compares.
//! QEMU 10.0 or later: before, it lacks some of ISA 3.1.

#[path = "../tests/powerpc/states.rs"]
mod states;

use std::io::{self, BufRead, Read, Write};
use std::process::{Command, ExitCode, Stdio};

use qkprobe_arch::ByteOrder;
use states::{CCR, CTR, Cpu, LINK, Listed, MEMORY_BYTES, REGISTERS, State, TAR, XER};

/// Differences shown.
const SHOWN: u64 = 40;
/// Attempts to find a state in which the instruction has a result (a division).
const ATTEMPTS: u64 = 50;

/// One instruction, one state, and where it came from.
struct Case {
    listed: usize,
    seed: u64,
    before: State,
    expected: State,
}

fn parse(line: &str, order: ByteOrder) -> Option<Listed> {
    let mut fields = line.split('\t');
    fields.next()?.trim().strip_suffix(':')?;
    let bytes: Result<Vec<u8>, _> =
        fields.next()?.split_ascii_whitespace().map(|byte| u8::from_str_radix(byte, 16)).collect();
    let words = bytes.ok()?.chunks_exact(4).map(|bytes| order.number(bytes) as u32).collect();
    let text = fields.next().unwrap_or_default();
    let text = text.split(['<', '#']).next().unwrap_or_default().split_ascii_whitespace();
    Some(Listed { words, text: text.collect::<Vec<_>>().join(" ") })
}

/// A prefixed instruction takes two lines.
fn read_list(order: ByteOrder) -> io::Result<Vec<Listed>> {
    let mut list: Vec<Listed> = Vec::new();
    for line in io::stdin().lock().lines() {
        let Some(listed) = parse(&line?, order) else { continue };
        match list.last_mut() {
            Some(last) if listed.text.is_empty() => last.words.extend(listed.words),
            _ => list.push(listed),
        }
    }
    Ok(list)
}

struct Wire {
    order: ByteOrder,
    word_bytes: usize,
}

impl Wire {
    fn put(&self, out: &mut Vec<u8>, value: u64, bytes: usize) {
        match self.order {
            ByteOrder::Big => out.extend_from_slice(&value.to_be_bytes()[8 - bytes..]),
            ByteOrder::Little => out.extend_from_slice(&value.to_le_bytes()[..bytes]),
        }
    }

    fn encode(&self, listed: &Listed, state: &State, out: &mut Vec<u8>) {
        /// `nop`, behind an instruction of one word.
        const NOP: u32 = 0x6000_0000;
        for register in &state.registers {
            self.put(out, *register, self.word_bytes);
        }
        for index in 0..2 {
            let word = listed.words.get(index).copied().unwrap_or(NOP);
            self.put(out, word.into(), 4);
        }
        out.extend_from_slice(&state.memory);
    }

    fn decode(&self, bytes: &[u8]) -> State {
        let (memory, words) = bytes.split_at(MEMORY_BYTES);
        let mut words = words.chunks_exact(self.word_bytes).map(|bytes| self.order.number(bytes));
        let mut registers = [0; REGISTERS];
        for (register, word) in registers.iter_mut().zip(&mut words) {
            *register = word;
        }
        if self.word_bytes == 4 {
            registers[TAR] = 0;
        }
        State { registers, memory: memory.try_into().expect("256 bytes"), is_taken: words.next() == Some(1) }
    }

    fn answer_bytes(&self) -> usize {
        MEMORY_BYTES + (REGISTERS + 1) * self.word_bytes
    }
}

/// The cases of one instruction; an instruction without any is a fault.
fn cases(listed: &Listed, index: usize, states: u64, cpu: Cpu) -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    let mut last = None;
    for seed in 0..states * ATTEMPTS {
        let before = states::place(listed, seed, cpu);
        match states::execute(listed, &before, cpu) {
            Ok(expected) => cases.push(Case { listed: index, seed, before, expected }),
            Err(error) => last = Some(error),
        }
        if cases.len() as u64 == states {
            return Ok(cases);
        }
    }
    Err(format!("{}: {last:?}", listed.text))
}

fn run(command: &[String], input: Vec<u8>) -> io::Result<Vec<u8>> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let mut output = Vec::new();
    stdout.read_to_end(&mut output)?;
    // What it did not read it died of.
    let _ = writer.join();
    child.wait()?;
    Ok(output)
}

fn main() -> io::Result<ExitCode> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let golden = arguments.first().is_some_and(|first| first == "--golden");
    if golden {
        arguments.remove(0);
    }
    let [isa, version, states, command @ ..] = arguments.as_slice() else {
        return Err(io::Error::other("arguments: ISA PVR STATES COMMAND..."));
    };
    let version = u64::from_str_radix(version, 16).map_err(io::Error::other)?;
    let states: u64 = states.parse().map_err(io::Error::other)?;
    let cpu = Cpu::new(isa, version);
    let wire = Wire { order: cpu.arch.byte_order(), word_bytes: cpu.arch.word_bytes() };
    let list = read_list(wire.order)?;
    let (mut compared, mut differing, mut failed) = (0_u64, 0_u64, 0_u64);
    for (index, listed) in list.iter().enumerate() {
        let cases = match cases(listed, index, states, cpu) {
            Ok(cases) => cases,
            Err(error) => {
                failed += 1;
                println!("not executed: {error}");
                continue;
            }
        };
        let mut input = Vec::new();
        for case in &cases {
            wire.encode(&list[case.listed], &case.before, &mut input);
        }
        let output = run(command, input)?;
        let answers = output.chunks_exact(wire.answer_bytes());
        if answers.len() != cases.len() {
            failed += 1;
            println!("{}: QEMU ended after {} of {} states", listed.text, answers.len(), cases.len());
        }
        for (case, answer) in cases.iter().zip(answers) {
            compared += 1;
            let found = wire.decode(answer);
            if golden {
                let words: Vec<String> = listed.words.iter().map(|word| format!("{word:08x}")).collect();
                let changes = states::changes(&case.before, &found);
                println!("{} {} {changes} # {}", words.join(","), case.seed, listed.text);
            }
            if found != case.expected {
                differing += 1;
                if differing <= SHOWN && !golden {
                    let [ctr, link, xer, ccr] = [CTR, LINK, XER, CCR].map(|index| case.before.registers[index]);
                    println!(
                        "{} seed {}: QEMU {}, executor {} (ctr {ctr:x} link {link:x} xer {xer:x} ccr {ccr:x})",
                        listed.text,
                        case.seed,
                        states::changes(&case.before, &found),
                        states::changes(&case.before, &case.expected),
                    );
                }
            }
        }
    }
    if !golden {
        println!("{} instructions, {compared} comparisons, {differing} differ, {failed} failed", list.len());
    }
    Ok(if differing + failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
