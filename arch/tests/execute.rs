//! What the engine relies on of every ISA that can evaluate instructions out of line (`Arch::as_execute`). What an
//! instruction does in particular is tested in the ISA's folder, and against the host's CPU in `native.rs`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use proptest::prelude::*;
use qkprobe_arch::{
    Arch, Execute, ExecuteError, Executed, Flow, GuestAddr, InsnSlot, MAX_INSN_BYTES, Machine, NextPc, RegisterId,
    Role, Successors, all,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's duties are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Aligned for every ISA, and so that neither end of the address space is near.
const TEXT: GuestAddr = GuestAddr(0x1000_0000);

/// The largest access of any ISA: `stmw` of powerpc.
const MOST_BYTES: usize = 128;

/// What an instruction changes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Guest {
    registers: [u64; 256],
    /// The last store: where, and its bytes, filled up with zeroes.
    stored: Option<(GuestAddr, [u8; MOST_BYTES])>,
}

/// Any values, and takes every access but one.
#[derive(Debug)]
struct Any {
    guest: Guest,
    memory: [u8; MOST_BYTES],
    accesses: u32,
    /// The number of the access that fails.
    fails: u32,
    /// How many accesses would change something.
    changes: u32,
    /// The register that is not shown.
    withheld: Option<usize>,
}

impl Any {
    fn new(arch: &dyn Arch, seed: u64, fails: u32) -> Self {
        let mut seed = seed;
        let mut next = || {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            seed ^ seed >> 33
        };
        let bytes = |id: usize| arch.registers().get(id).map_or(8, |register| u32::from(register.bytes));
        let registers = std::array::from_fn(|id| next() & u64::MAX >> (64 - 8 * bytes(id)));
        let memory = std::array::from_fn(|_| next() as u8);
        let mut registers: [u64; 256] = registers;
        for id in next_program_counters() {
            registers[id] = TEXT.0 + 4;
        }
        Self { guest: Guest { registers, stored: None }, memory, accesses: 0, fails, changes: 0, withheld: None }
    }

    fn takes(&mut self) -> bool {
        let takes = self.accesses != self.fails;
        self.accesses += 1;
        takes
    }
}

impl Machine for Any {
    fn register(&mut self, RegisterId(id): RegisterId) -> Option<u64> {
        let takes = self.takes() && self.withheld != Some(usize::from(id));
        takes.then_some(self.guest.registers[usize::from(id)])
    }

    fn set_register(&mut self, RegisterId(id): RegisterId, value: u64) -> bool {
        self.changes += 1;
        let takes = self.takes();
        if takes {
            self.guest.registers[usize::from(id)] = value;
        }
        takes
    }

    fn read(&mut self, _addr: GuestAddr, bytes: &mut [u8]) -> bool {
        bytes.copy_from_slice(&self.memory[..bytes.len()]);
        self.takes()
    }

    fn write(&mut self, addr: GuestAddr, bytes: &[u8]) -> bool {
        self.changes += 1;
        let takes = self.takes();
        if takes {
            let mut stored = [0; MOST_BYTES];
            stored[..bytes.len()].copy_from_slice(bytes);
            self.guest.stored = Some((addr, stored));
        }
        takes
    }

    fn is_alone(&self) -> bool {
        true
    }
}

/// The ids that some ISA has for its next program counter: no delay slot is evaluated here.
fn next_program_counters() -> impl Iterator<Item = usize> {
    let registers = all().iter().flat_map(|arch| arch.registers().iter().enumerate());
    registers.filter(|(_, register)| register.role == Role::NextProgramCounter).map(|(id, _)| id)
}

const NONE_FAILS: u32 = u32::MAX;

fn able() -> impl Iterator<Item = (&'static dyn Arch, &'static dyn Execute)> {
    all().iter().filter_map(|arch| arch.as_execute().map(|execute| (*arch, execute)))
}

fn slots(text: &[u8]) -> impl Iterator<Item = (&'static dyn Execute, InsnSlot)> {
    able().filter_map(|(arch, execute)| Some((execute, InsnSlot::prepare(arch, TEXT, text).ok()?)))
}

#[test]
fn the_ability_is_the_same_isas() {
    for (arch, execute) in able() {
        assert_eq!(arch.name(), execute.name());
    }
}

#[test]
fn a_nop_only_goes_on() {
    for (arch, execute) in able() {
        let isa = arch.name();
        let slot = InsnSlot::prepare(arch, TEXT, execute.nop()).expect("an instruction");
        assert_eq!(slot.bytes(), execute.nop(), "{isa}");
        let next = TEXT.wrapping_add(execute.nop().len() as u64);
        let mut machine = Any::new(arch, 1, NONE_FAILS);
        assert_eq!(execute.next_pc(&slot, TEXT, &mut machine), Ok(NextPc::At(next)), "{isa}");
        let executed = execute.execute(&slot, TEXT, &mut machine);
        assert_eq!(executed, Ok(Executed { next, undefined_flags: 0 }), "{isa}");
        assert_eq!(machine.changes, 0, "{isa}");
        assert!(!execute.reads_flags(&slot, TEXT), "{isa}");
    }
}

fn any_text() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), MAX_INSN_BYTES)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16384, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn next_pc_is_where_execution_goes(text in any_text(), seed: u64) {
        for (execute, slot) in slots(&text) {
            let isa = execute.name();
            let mut machine = Any::new(execute, seed, NONE_FAILS);
            let before = machine.guest.clone();
            let next = execute.next_pc(&slot, TEXT, &mut machine);
            prop_assert_eq!(machine.changes, 0, "{}: next_pc changes nothing", isa);
            let executed = execute.execute(&slot, TEXT, &mut machine);
            match executed {
                Ok(Executed { next: at, .. }) => prop_assert_eq!(next, Ok(NextPc::At(at)), "{}", isa),
                Err(_) => prop_assert_eq!(&machine.guest, &before, "{}: an error changes nothing", isa),
            }
            let behind = TEXT.wrapping_add(u64::from(slot.insn.len));
            match (slot.insn.flow, next) {
                (Flow::Trap, Ok(NextPc::Leaves)) => prop_assert!(!execute.has_successor(&slot, TEXT), "{isa}"),
                (Flow::Trap, next) => prop_assert!(next.is_ok() && execute.has_successor(&slot, TEXT), "{isa}"),
                (Flow::Next, Ok(NextPc::At(at))) => prop_assert_eq!(at, behind, "{}", isa),
                // The delay slot, or where it is annulled, behind it.
                (_, Ok(NextPc::At(at))) if execute.has_delay_slot(&slot, TEXT) => {
                    prop_assert!(at == behind || at == behind.wrapping_add(4), "{isa}: {at}");
                }
                (Flow::Jump { target } | Flow::Call { target }, Ok(NextPc::At(at))) => {
                    prop_assert_eq!(at, target, "{}", isa);
                }
                (Flow::Branch { target }, Ok(NextPc::At(at))) => prop_assert!(at == target || at == behind, "{isa}"),
                (Flow::Next | Flow::IndirectJump | Flow::IndirectCall | Flow::Return, _) => {}
                (Flow::Jump { .. } | Flow::Call { .. } | Flow::Branch { .. }, other) => {
                    let refused = Err(ExecuteError::NotSupported { addr: TEXT });
                    prop_assert_eq!(other, refused, "{}: direct targets need no memory", isa);
                }
            }
        }
    }

    #[test]
    fn successors_hold_what_execution_does(text in any_text(), seed: u64) {
        for (execute, slot) in slots(&text) {
            let isa = execute.name();
            let id = |role| execute.registers().iter().position(|register| register.role == role).expect("a register");
            let mut machine = Any::new(execute, seed, NONE_FAILS);
            machine.withheld = Some(id(Role::Flags));
            let found = execute.successors(&slot, TEXT, &mut machine);
            prop_assert_eq!(machine.changes, 0, "{}: successors changes nothing", isa);
            if execute.has_successor(&slot, TEXT) {
                prop_assert!(found.is_ok(), "{isa}: without flags {found:?}");
            }
            let Ok(Successors { first, second, sp }) = found else { continue };
            prop_assert_ne!(Some(first), second, "{}", isa);
            machine.withheld = None;
            let is_one = |place| first == place || second == Some(place);
            if let Ok(NextPc::At(next)) = execute.next_pc(&slot, TEXT, &mut machine) {
                prop_assert!(is_one(next), "{isa}: {next}, not {first} or {second:?}");
            }
            if let Ok(Executed { next, .. }) = execute.execute(&slot, TEXT, &mut machine) {
                prop_assert!(is_one(next), "{isa}: {next}, not {first} or {second:?}");
                prop_assert_eq!(machine.guest.registers[usize::from(execute.stack_pointer().0)], sp, "{}", isa);
            }
        }
    }

    #[test]
    fn deadness_answers_any_text(text in any_text(), addr: u64) {
        for (_, execute) in able() {
            let dead = execute.flags_dead_after(&[], GuestAddr(addr), &(0..0));
            prop_assert!(!dead || execute.flags_are_exact(), "{}: nothing proves nothing", execute.name());
            let _ = execute.flags_dead_after(&text, GuestAddr(addr), &(0..0));
        }
    }

    #[test]
    fn what_fails_half_way_changes_nothing(text in any_text(), seed: u64, fails in 0_u32..12) {
        for (execute, slot) in slots(&text) {
            let mut machine = Any::new(execute, seed, fails);
            let before = machine.guest.clone();
            if execute.execute(&slot, TEXT, &mut machine).is_err() {
                prop_assert_eq!(&machine.guest, &before, "{}", execute.name());
            }
        }
    }

    #[test]
    fn the_program_counter_is_only_returned(text in any_text(), seed: u64) {
        for (execute, slot) in slots(&text) {
            let counter = execute.registers().iter().position(|register| register.role == Role::ProgramCounter);
            let counter = counter.expect("a program counter");
            let mut machine = Any::new(execute, seed, NONE_FAILS);
            let before = machine.guest.registers[counter];
            let _ = execute.execute(&slot, TEXT, &mut machine);
            prop_assert_eq!(machine.guest.registers[counter], before, "{}", execute.name());
        }
    }

    /// When an instruction does not read the flags, no flag makes a difference to what it does.
    #[test]
    fn flags_matter_only_where_they_are_said_to(text in any_text(), seed: u64, flags: u64) {
        for (execute, slot) in slots(&text) {
            if execute.flags_are_exact() || execute.reads_flags(&slot, TEXT) {
                continue;
            }
            let id = execute.registers().iter().position(|register| register.role == Role::Flags).expect("flags");
            let run = |flags: u64| {
                let mut machine = Any::new(execute, seed, NONE_FAILS);
                machine.guest.registers[id] = flags;
                let executed = execute.execute(&slot, TEXT, &mut machine);
                machine.guest.registers[id] = 0;
                (executed, machine.guest)
            };
            prop_assert_eq!(run(0), run(flags), "{}", execute.name());
        }
    }

    #[test]
    fn nothing_is_allocated(text in any_text(), seed: u64) {
        for (execute, slot) in slots(&text) {
            let mut machine = Any::new(execute, seed, NONE_FAILS);
            let before = ALLOCATIONS.with(Cell::get);
            let next = execute.next_pc(&slot, TEXT, &mut machine);
            let executed = execute.execute(&slot, TEXT, &mut machine);
            let reads = execute.reads_flags(&slot, TEXT);
            let successors = execute.successors(&slot, TEXT, &mut machine);
            let has_successor = execute.has_successor(&slot, TEXT);
            let are_dead = execute.flags_dead_after(&text, TEXT, &(0..0));
            let after = ALLOCATIONS.with(Cell::get);
            prop_assert_eq!(after, before, "{}: {:?} {:?}", execute.name(), next, executed);
            let _ = std::hint::black_box((reads, successors, has_successor, are_dead));
        }
    }
}
