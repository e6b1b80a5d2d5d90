//! The sparc64 executor against a CPU: short programs from random states, and the states that they left.
//!
//! `sparc64/cases.s` holds the programs; `sparc64/harness.c` runs each from 12 states, which it computes from a number
//! as `Cpu::new` does, and prints what has changed. With Debian's gcc 12 for sparc64 and QEMU 7.2's user emulation,
//! which translates these instructions by other code than the versions that plugins with registers run in, in that
//! folder:
//!
//! ```text
//! sparc64-linux-gnu-gcc -static -O1 -Wa,-undeclared-regs -z noexecstack -Wl,--section-start=.slot=0x400000 \
//!     -Wl,--section-start=.buffer=0x500000 harness.c cases.s -o harness
//! qemu-sparc64-static harness > states.txt
//! ```
//! Here the programs run instruction by instruction: nPC is read where QEMU would begin a block (as a copy of a state
//! has it), and behind that the instruction before is handed over.

use std::fmt::Write;

use qkprobe_arch::{
    Arch, BlockPlace, Execute, Executed, Flow, GuestAddr, InsnSlot, Machine, NextPc, RegisterId, Successors, by_name,
};

const STATES: &str = include_str!("sparc64/states.txt");
const SLOT: u64 = 0x40_0400;
const BUFFER: u64 = 0x50_0000;
const MOST_STEPS: usize = 200;
const STALE: u64 = 0xdead_beef_dead_beef;

/// splitmix64
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn value(&mut self, last: u64) -> u64 {
        const SPECIAL: [u64; 8] =
            [1, u64::MAX, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, i64::MAX as u64, 1 << 63, 0x1_0000_0000];
        let (kind, value) = (self.next() & 7, self.next());
        match kind {
            0 | 1 => value,
            2 => value & 0xffff_ffff,
            3 => i64::from(value as i32) as u64,
            4 => value & 0x3f,
            5 => SPECIAL[(value & 7) as usize],
            6 => last,
            _ => 0,
        }
    }
}

#[derive(Clone)]
struct Cpu {
    /// By number, as the ids of general registers are.
    registers: [u64; 32],
    y: u64,
    ccr: u64,
    memory: [u8; 256],
    /// What is read as nPC, and whether that can be relied on.
    npc: u64,
    place: BlockPlace,
    ids: Ids,
}

#[derive(Clone, Copy)]
struct Ids {
    y: RegisterId,
    state: RegisterId,
    npc: RegisterId,
}

impl Cpu {
    fn new(seed: u64) -> Self {
        let arch = by_name("sparc64").expect("the ISA");
        let id = |name| arch.register(name).expect("a register");
        let ids = Ids { y: id("y"), state: id("tstate"), npc: id("npc") };
        let mut random = Random(seed);
        let mut registers = [0; 32];
        let mut last = 0;
        for register in registers.iter_mut().skip(1) {
            last = random.value(last);
            *register = last;
        }
        let (y, ccr) = (random.next() & 0xffff_ffff, random.next() & 0xff);
        let mut memory = [0; 256];
        for word in memory.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next().to_be_bytes());
        }
        registers[7] = 0;
        registers[14] = BUFFER + 0x80 - 2047;
        registers[24] = BUFFER + 0x40;
        registers[25] = BUFFER + 0x80;
        registers[26] = registers[26] % 8 * 8;
        registers[27] = 0_u64.wrapping_sub(registers[27] % 8 * 8);
        registers[28] = SLOT + 0x20;
        Self { registers, y, ccr, memory, npc: SLOT + 4, place: BlockPlace::Exact, ids }
    }

    fn range(&self, GuestAddr(addr): GuestAddr, len: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(addr.checked_sub(BUFFER)?).ok()?;
        (start + len <= self.memory.len()).then_some(start..start + len)
    }

    /// What `harness.c` prints of the changes.
    fn changes_since(&self, before: &Self) -> String {
        let arch = by_name("sparc64").expect("the ISA");
        let mut text = String::new();
        let pairs = self.registers.iter().zip(&before.registers).zip(arch.registers());
        let registers = pairs.map(|((now, then), register)| (register.name, *now, *then));
        let others = [("y", self.y, before.y), ("ccr", self.ccr, before.ccr)];
        for (name, now, then) in registers.chain(others).skip(1) {
            if now != then && name != "g7" {
                write!(text, " {name}={now:x}").expect("a string takes all");
            }
        }
        let words = self.memory.chunks_exact(8).zip(before.memory.chunks_exact(8)).enumerate();
        for (index, (now, _)) in words.filter(|(_, (now, then))| now != then) {
            let now = u64::from_be_bytes(now.try_into().expect("8 bytes"));
            write!(text, " +{:x}={now:x}", 8 * index).expect("a string takes all");
        }
        text
    }
}

impl Machine for Cpu {
    fn register(&mut self, id: RegisterId) -> Option<u64> {
        match id {
            id if id == self.ids.y => Some(self.y),
            id if id == self.ids.state => Some(self.ccr << 32 | 0x82 << 24),
            id if id == self.ids.npc => Some(self.npc),
            RegisterId(id) => self.registers.get(usize::from(id)).copied(),
        }
    }

    fn set_register(&mut self, id: RegisterId, value: u64) -> bool {
        match id {
            id if id == self.ids.y => self.y = value,
            id if id == self.ids.state => self.ccr = value >> 32,
            RegisterId(id) => {
                let Some(register) = self.registers.get_mut(usize::from(id)) else { return false };
                *register = value;
            }
        }
        true
    }

    fn read(&mut self, addr: GuestAddr, bytes: &mut [u8]) -> bool {
        let Some(range) = self.range(addr, bytes.len()) else { return false };
        bytes.copy_from_slice(&self.memory[range]);
        true
    }

    fn write(&mut self, addr: GuestAddr, bytes: &[u8]) -> bool {
        let Some(range) = self.range(addr, bytes.len()) else { return false };
        self.memory[range].copy_from_slice(bytes);
        true
    }

    fn place(&mut self) -> BlockPlace {
        self.place
    }

    fn is_alone(&self) -> bool {
        true
    }
}

/// Runs the program until it is left at its end, in blocks that end where QEMU's do: behind a delay slot, and at a
/// branch that annuls. With `alone`, each instruction is a block of its own, as it is where a delay slot lies on
/// another page.
fn run(words: &[u32], cpu: &mut Cpu, execute: &dyn Execute, alone: bool) -> Result<(), String> {
    let end = SLOT + 4 * words.len() as u64;
    let mut pc = SLOT;
    for _ in 0..MOST_STEPS {
        if pc == end {
            return Ok(());
        }
        let addr = GuestAddr(pc);
        let word = words[usize::try_from((pc - SLOT) / 4).expect("small")];
        let slot = InsnSlot::prepare(execute_arch(execute), addr, &word.to_be_bytes()).map_err(|e| e.to_string())?;
        let delayed = execute.npc(addr, cpu).map_err(|error| error.to_string())?.expect("the ISA has one").0;
        let target = target(&slot, addr, delayed, cpu, execute);
        let next = execute.next_pc(&slot, addr, cpu);
        let Successors { first, second, sp } =
            execute.successors(&slot, addr, cpu).map_err(|error| format!("successors at {addr}: {error}"))?;
        let Executed { next: at, undefined_flags: 0 } =
            execute.execute(&slot, addr, cpu).map_err(|error| format!("at {addr}: {error}"))?
        else {
            return Err("undefined flags".into());
        };
        if next != Ok(NextPc::At(at)) || (first != at && second != Some(at)) || sp != cpu.registers[14] {
            return Err(format!(
                "at {addr}: went to {at}, {next:?} predicted, successors {first} {second:?}, sp {sp:#x}"
            ));
        }
        // Whether the next instruction is in the same block.
        let goes_on = at.0 == pc + 4 && delayed == pc + 4 && target.is_none_or(|_| execute.has_delay_slot(&slot, addr));
        if goes_on && !alone && !annuls(word) {
            (cpu.place, cpu.npc) = (BlockPlace::Behind(slot), STALE);
        } else {
            let npc = if at.0 == delayed { target.unwrap_or(at.0 + 4) } else { at.0 + 4 };
            (cpu.place, cpu.npc) = (BlockPlace::Exact, npc);
        }
        pc = at.0;
    }
    Err("does not end".into())
}

fn execute_arch(execute: &dyn Execute) -> &'static dyn Arch {
    by_name(execute.name()).expect("the ISA")
}

/// The annul bit of branches.
fn annuls(word: u32) -> bool {
    word >> 30 == 0 && word & 1 << 29 != 0
}

/// Where a transfer that is taken leads after its delay slot, by the manual: asked of the executor as its delay slot
/// would.
fn target(slot: &InsnSlot, addr: GuestAddr, delayed: u64, cpu: &Cpu, execute: &dyn Execute) -> Option<u64> {
    if matches!(slot.insn.flow, Flow::Next) {
        return None;
    }
    assert_eq!(delayed, addr.0 + 4, "no couples here");
    let mut after = Cpu { place: BlockPlace::Behind(*slot), npc: STALE, ..cpu.clone() };
    execute.npc(addr.wrapping_add(4), &mut after).expect("known").map(|npc| npc.0)
}

#[test]
fn programs_leave_what_they_leave_on_a_cpu() {
    let execute = by_name("sparc64").and_then(Arch::as_execute).expect("the ability");
    assert!(STATES.starts_with("# slot 0x400400 buffer 0x500000\n"));
    let mut failures = Vec::new();
    let mut cases = 0;
    for line in STATES.lines().skip(1) {
        let (seed, rest) = line.split_once(' ').expect("a seed and words");
        let (words, changes) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
        let words: Vec<u32> = words.split(',').map(|word| u32::from_str_radix(word, 16).expect("a word")).collect();
        for alone in [false, true] {
            cases += 1;
            let before = Cpu::new(seed.parse().expect("a number"));
            let mut cpu = before.clone();
            let outcome = run(&words, &mut cpu, execute, alone);
            let found = cpu.changes_since(&before);
            if outcome.is_err() || found != changes {
                failures.push(format!("{line}\n  alone {alone}: {outcome:?}{found}"));
            }
        }
    }
    let shown = failures.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} of {cases}:\n{shown}", failures.len());
    assert!(cases >= 6000, "{cases} cases are left");
}
