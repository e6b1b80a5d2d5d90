//! The x86 executor against the host's own CPU, in 64-bit code and in 32-bit code.
//!
//! `native/x86_64.txt` and `native/i386.txt` list the instructions, one a line: bytes, and objdump's text. Each runs in a stub
//! with random registers, flags and memory, and in `Execute::execute`; registers, memory, the defined flags and the next PC
//! must come out the same. `native/x86_64.s` and `native/i386.s` are the lists' sources, and say what a new line must heed;
//! with GNU binutils 2.40, in that folder:
//!
//! ```text
//! as --64 x86_64.s -o list.o
//! objdump -d -z -M intel64 --insn-width=16 list.o |
//!     cargo run -p qkprobe-arch --example against_objdump -- --golden |
//!     sed 's/^[^ ]* \([^ ]*\) .* # /\1 # /' > x86_64.txt
//! as --32 i386.s -o list.o
//! objdump -d -z --insn-width=16 list.o |
//!     cargo run -p qkprobe-arch --example against_objdump -- --golden i386 |
//!     sed 's/^[^ ]* \([^ ]*\) .* # /\1 # /' > i386.txt
//! ```
//! `PROPTEST_CASES` sets how many random states an instruction runs with.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

#[path = "native/cpu.rs"]
mod cpu;
#[path = "native/state.rs"]
mod state;

use std::cell::Cell;

use iced_x86::{CpuidFeature, Decoder, DecoderOptions, Instruction};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use qkprobe_arch::{Execute, GuestAddr, InsnSlot, NextPc, Successors, by_name};

use cpu::{Cpu, State, has_code_of_32_bits};
use state::{Model, Random, place};

const LIST_64: &str = include_str!("native/x86_64.txt");
const LIST_32: &str = include_str!("native/i386.txt");

fn list(text: &'static str) -> impl Iterator<Item = (Vec<u8>, &'static str)> {
    text.lines().map(|line| {
        let (digits, text) = line.split_once(" # ").expect("a remark");
        let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
        (bytes.collect::<Result<_, _>>().expect("hexadecimal"), text)
    })
}

fn decode(bits: u32, bytes: &[u8], addr: u64) -> Instruction {
    let instruction = Decoder::with_ip(bits, bytes, addr, DecoderOptions::NONE).decode();
    assert_eq!(instruction.len(), bytes.len(), "{bytes:x?}");
    instruction
}

/// Has the host's CPU the instruction? `false` for what needs a feature that is not asked for here.
fn is_native(instruction: &Instruction) -> bool {
    instruction.cpuid_features().iter().all(|feature| match feature {
        CpuidFeature::BMI1 => std::is_x86_feature_detected!("bmi1"),
        CpuidFeature::BMI2 => std::is_x86_feature_detected!("bmi2"),
        CpuidFeature::POPCNT => std::is_x86_feature_detected!("popcnt"),
        // Prefetches run as nops where they are not known.
        _ => true,
    })
}

/// One instruction with one state: the CPU first, then the executor.
fn compare(cpu: &Cpu, execute: &dyn Execute, slot: &InsnSlot, before: &State) -> Result<(), TestCaseError> {
    let native = cpu.run(before);
    let mut model = Model::new(execute, cpu, before);
    let addr = GuestAddr(cpu.insn_addr());
    let next = execute.next_pc(slot, addr, &mut model);
    let successors = execute.successors(slot, addr, &mut model);
    let mut untouched = before.clone();
    untouched.next = 0;
    prop_assert!(model.state() == untouched, "an evaluation changed the machine");
    let executed = execute.execute(slot, addr, &mut model);
    let executed = executed.map_err(|error| TestCaseError::fail(format!("not executed: {error}")))?;
    prop_assert_eq!(next, Ok(NextPc::At(executed.next)));
    if let Ok(Successors { first, second, sp }) = successors {
        let places = [Some(first), second].map(|place| place.map(|GuestAddr(addr)| addr));
        prop_assert!(places.contains(&Some(native.next)), "{:#x} is not of {:x?}", native.next, places);
        prop_assert_eq!(sp, native.registers[4], "the stack pointer of successors");
    } else {
        prop_assert!(!execute.has_successor(slot, addr), "{:?}", successors);
    }
    let mut found = model.state();
    found.next = executed.next.0;
    // What the manual leaves open is the CPU's to choose.
    found.flags = found.flags & !executed.undefined_flags | native.flags & executed.undefined_flags;
    prop_assert_eq!(found.registers, native.registers, "registers rax rcx rdx rbx rsp rbp rsi rdi r8..r15");
    prop_assert_eq!(found.flags, native.flags, "flags");
    prop_assert_eq!(found.next, native.next, "next pc");
    let differs = found.memory.iter().zip(&native.memory).position(|(found, native)| found != native);
    prop_assert_eq!(differs, None, "memory");
    Ok(())
}

/// The instructions of a list on the CPU, and in the executor of that name.
fn check(name: &str, bits: u32, text: &'static str, at_least: u32) {
    let arch = by_name(name).expect("the ISA");
    let execute = arch.as_execute().expect("the ability");
    let mut cpu = Cpu::new(bits);
    let mut instructions = 0_u32;
    let comparisons = Cell::new(0_u32);
    let mut failures = Vec::new();
    for (bytes, text) in list(text) {
        let addr = cpu.insn_addr();
        let instruction = decode(bits, &bytes, addr);
        if !is_native(&instruction) {
            println!("{text}: not of this CPU");
            continue;
        }
        cpu.load(&bytes, &instruction);
        let slot = InsnSlot::prepare(arch, GuestAddr(addr), &bytes).expect("an instruction");
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        let mut runner = TestRunner::new(config);
        let outcome = runner.run(&Random::strategy(), |random| {
            comparisons.set(comparisons.get() + 1);
            compare(&cpu, execute, &slot, &place(&instruction, &random, &cpu))
        });
        instructions += 1;
        if let Err(error) = outcome {
            failures.push(format!("{bytes:02x?} {text}: {error}"));
        }
    }
    println!("{instructions} instructions, {} comparisons", comparisons.get());
    assert!(failures.is_empty(), "{} of {instructions}:\n{}", failures.len(), failures.join("\n"));
    assert!(instructions >= at_least, "{instructions} instructions are left");
}

#[test]
fn executes_as_the_cpu_does() {
    check("x86_64", 64, LIST_64, 1700);
}

#[test]
fn executes_32_bits_as_the_cpu_does() {
    if has_code_of_32_bits() {
        check("i386", 32, LIST_32, 1250);
    } else {
        println!("this kernel has no segment for 32-bit code");
    }
}
