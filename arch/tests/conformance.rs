//! One set of questions for every ISA of `qkprobe_arch::all()`. What an ISA says in particular is tested in its folder;
//! here is what the engine relies on without knowing which ISA it talks to.

use std::collections::HashSet;

use proptest::prelude::*;
use qkprobe_arch::{
    AddressSpace, Arch, ArgumentPlace, BoundaryError, ByteOrder, DecodeError, GuestAddr, InsnSlot, MAX_INSN_BYTES,
    PhysicalMemory, Register, RegisterId, RegisterSource, ReturnPlace, Role, all, by_name, for_kernel,
};

/// Aligned for every ISA, and so that neither end of the address space is near.
const TEXT: GuestAddr = GuestAddr(0x1000_0000);

fn register(arch: &dyn Arch, RegisterId(id): RegisterId) -> &'static Register {
    let name = arch.name();
    arch.registers().get(usize::from(id)).unwrap_or_else(|| panic!("{name}: register {id} is beyond the table"))
}

#[test]
fn each_isa_is_found_by_its_own_name_only() {
    let names: HashSet<&str> = all().iter().map(|arch| arch.name()).collect();
    assert_eq!(names.len(), all().len());
    for arch in all() {
        assert_eq!(by_name(arch.name()).map(Arch::name), Some(arch.name()));
        let found = for_kernel(arch.target(), Some(arch.byte_order()));
        assert_eq!(found.map(Arch::name), Some(arch.name()));
    }
    assert!(by_name("").is_none());
    assert!(by_name("pdp11").is_none());
}

#[test]
fn words_are_4_or_8_bytes() {
    for arch in all() {
        assert!(matches!(arch.word_bytes(), 4 | 8), "{}", arch.name());
    }
}

/// Only QEMU's own program counter has no name: see `Arch::block_pc`.
fn is_unnamed(arch: &dyn Arch, index: usize) -> bool {
    arch.block_pc().is_some_and(|RegisterId(id)| usize::from(id) == index)
}

#[test]
fn register_names_are_unique_and_lead_back() {
    for arch in all() {
        let isa = arch.name();
        let mut seen = HashSet::new();
        for (index, register) in arch.registers().iter().enumerate() {
            if is_unnamed(*arch, index) {
                continue;
            }
            assert!(seen.insert(register.name), "{isa}: {} occurs twice", register.name);
            let found = arch.register(register.name).map(|RegisterId(id)| usize::from(id));
            assert_eq!(found, Some(index), "{isa}: {}", register.name);
        }
        assert!(arch.register("").is_none(), "{isa}");
        assert!(arch.register("no such register").is_none(), "{isa}");
    }
}

#[test]
fn register_names_are_what_a_definition_can_hold() {
    for arch in all() {
        for (index, register) in arch.registers().iter().enumerate() {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            let named = !register.name.is_empty() || is_unnamed(*arch, index);
            assert!(named && register.name.bytes().all(plain), "{}: {register:?}", arch.name());
            assert!(matches!(register.bytes, 1 | 2 | 4 | 8), "{}: {register:?}", arch.name());
        }
    }
}

#[test]
fn the_roles_that_the_engine_needs_are_there_once() {
    for arch in all() {
        let isa = arch.name();
        let having = |role| arch.registers().iter().filter(|register| register.role == role).count();
        assert_eq!(having(Role::ProgramCounter), 1, "{isa}");
        assert_eq!(having(Role::StackPointer), 1, "{isa}");
        assert_eq!(register(*arch, arch.stack_pointer()).role, Role::StackPointer, "{isa}");
        // The result may share its register with the first argument.
        let result = register(*arch, arch.return_value());
        assert!(matches!(result.role, Role::ReturnValue | Role::Argument(_)), "{isa}: {result:?}");
        assert_eq!(usize::from(result.bytes), arch.word_bytes(), "{isa}: {result:?}");
        let source = register(*arch, arch.privilege_register()).source;
        assert!(matches!(source, RegisterSource::Qemu { .. }), "{isa}: the privilege must be read");
        let program_counter = arch.registers().iter().find(|register| register.role == Role::ProgramCounter);
        let source = program_counter.map(|register| register.source);
        assert_eq!(source, Some(RegisterSource::ProbeAddress), "{isa}: QEMU's own is stale in a callback");
    }
}

#[test]
fn register_arguments_come_first_and_have_their_roles() {
    for arch in all() {
        let isa = arch.name();
        assert_eq!(arch.argument(0), None, "{isa}");
        let mut seen = HashSet::new();
        let mut in_registers = true;
        for n in 1..=20_u8 {
            match arch.argument(u32::from(n)) {
                Some(ArgumentPlace::Register(id)) => {
                    assert!(in_registers, "{isa}: argument {n} is in a register again");
                    assert!(seen.insert(id), "{isa}: argument {n} shares its register");
                    assert_eq!(register(*arch, id).role, Role::Argument(n), "{isa}: argument {n}");
                }
                _ => in_registers = false,
            }
        }
        let roles = arch.registers().iter().filter(|register| matches!(register.role, Role::Argument(_))).count();
        assert_eq!(roles, seen.len(), "{isa}: a register has the role of an argument that is elsewhere");
        assert!(!seen.is_empty(), "{isa}");
    }
}

#[test]
fn stack_arguments_follow_one_another_word_by_word() {
    for arch in all() {
        let isa = arch.name();
        let mut last = None;
        for n in 1..=20 {
            let place = arch.argument(n);
            if let Some(ArgumentPlace::Stack { offset }) = place {
                assert_eq!(offset % arch.word_bytes() as u64, 0, "{isa}: argument {n}");
                assert!(offset < arch.thread_size(), "{isa}: argument {n}");
                if let Some(last) = last {
                    assert_eq!(offset - last, arch.word_bytes() as u64, "{isa}: argument {n}");
                }
                last = Some(offset);
            } else {
                assert_eq!(last, None, "{isa}: argument {n} left the stack");
            }
        }
    }
}

#[test]
fn stacks_are_aligned_powers_of_two() {
    for arch in all() {
        let size = arch.thread_size();
        assert!(size.is_power_of_two() && (4096..=1 << 20).contains(&size), "{}: {size}", arch.name());
        assert!(arch.stack_bias() < 4096, "{}", arch.name());
    }
}

#[test]
fn a_return_is_found_and_leaves_the_stack_no_deeper() {
    for arch in all() {
        let isa = arch.name();
        let top = 0x1000_0000;
        let sp = top - arch.stack_bias();
        let word = arch.word_bytes() as u64;
        match arch.return_place() {
            ReturnPlace::Stack => assert_eq!(arch.sp_after_return(sp), sp + word, "{isa}"),
            ReturnPlace::Register(id) | ReturnPlace::RegisterPlus(id, _) => {
                assert_eq!(arch.sp_after_return(sp), sp, "{isa}");
                assert_eq!(usize::from(register(*arch, id).bytes), arch.word_bytes(), "{isa}");
            }
        }
        // Where memory is found by a walk, that may not be possible yet, and the frame can only tell against a restart.
        let unread = arch.is_restart(sp, GuestAddr(0x4000), &mut |_| None);
        assert_eq!(unread, arch.as_translate().is_some(), "{isa}: nothing can be read");
        let mut lowest = top;
        arch.is_restart(sp, GuestAddr(0x4000), &mut |addr| {
            lowest = lowest.min(addr.0);
            Some(0)
        });
        assert!(lowest <= top && lowest % word == 0, "{isa}: {lowest:#x}");
    }
}

#[test]
fn tasks_end_and_start_somewhere() {
    for arch in all() {
        for symbols in [arch.task_end_symbols(), arch.task_start_symbols()] {
            assert!(!symbols.is_empty() && symbols.iter().all(|symbol| !symbol.is_empty()), "{}", arch.name());
        }
    }
}

#[test]
fn handlers_may_write_what_computes_and_not_what_steers() {
    for arch in all() {
        let isa = arch.name();
        for (index, register) in (0..).zip(arch.registers()) {
            let writable = arch.writable(RegisterId(index));
            let expected = match (register.role, register.source) {
                (Role::ProgramCounter | Role::NextProgramCounter, _)
                | (_, RegisterSource::ProbeAddress | RegisterSource::Constant(_)) => false,
                (Role::Other, _) => continue,
                _ => true,
            };
            assert_eq!(writable, expected, "{isa}: {}", register.name);
        }
        assert!(!arch.writable(RegisterId(u8::MAX)), "{isa}: beyond the table");
    }
}

#[test]
fn the_image_lies_where_addresses_may() {
    for arch in all() {
        let region = arch.image_region();
        assert!(!region.is_empty(), "{}", arch.name());
        if arch.word_bytes() == 4 {
            assert!(*region.end() <= u64::from(u32::MAX), "{}", arch.name());
        }
    }
}

#[test]
fn no_text_is_cut_short_and_no_entry() {
    for arch in all() {
        let isa = arch.name();
        let cut = DecodeError::CutShort { addr: TEXT };
        assert_eq!(arch.decode(TEXT, &[]), Err(cut), "{isa}");
        assert_eq!(InsnSlot::prepare(*arch, TEXT, &[]), Err(cut), "{isa}");
        assert_eq!(arch.check_boundary(TEXT, &[], 0), Ok(()), "{isa}: the start is a boundary");
        assert_eq!(arch.entry_skip(&[]), 0, "{isa}");
        assert!(!arch.looks_like_entry(&[]), "{isa}");
    }
}

#[test]
fn byte_orders_are_each_others_mirror() {
    for arch in all() {
        let order = arch.byte_order();
        let mirror = match order {
            ByteOrder::Little => ByteOrder::Big,
            ByteOrder::Big => ByteOrder::Little,
        };
        let first_is = match order {
            ByteOrder::Little => 0x01,
            ByteOrder::Big => 0x0100_0000,
        };
        assert_eq!(order.number(&[1, 0, 0, 0]), first_is, "{}", arch.name());
        assert_eq!(mirror.number(&[0, 0, 0, 1]), first_is, "{}", arch.name());
    }
}

/// Where a plain walk of `decode` from the start of `text` finds instructions, and what ended it.
fn walk(arch: &dyn Arch, text: &[u8]) -> (Vec<usize>, Option<DecodeError>) {
    let mut starts = Vec::new();
    let mut at = 0;
    while at < text.len() {
        starts.push(at);
        match arch.decode(TEXT.wrapping_add(at as u64), &text[at..]) {
            Ok(insn) => at += usize::from(insn.len),
            Err(error) => return (starts, Some(error)),
        }
    }
    starts.push(at);
    (starts, None)
}

/// No random text holds the signature of an emulation prefix, which `check_boundary` of x86 knows and `decode` does not.
fn any_text(len: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..=len)
        .prop_filter("an emulation prefix", |text| !text.windows(3).any(|window| window == b"xen" || window == b"kvm"))
}

/// Some value at each address: a page's address below 2^40 where an entry may point on, one that the reading comes near again, or
/// whatever bits the masks leave.
struct Noise {
    seed: u64,
    masks: [u64; 2],
    reads: u32,
}

impl PhysicalMemory for Noise {
    fn read(&mut self, physical: u64, bytes: &mut [u8]) -> bool {
        self.reads += 1;
        let [some, most] = self.masks;
        let value = ((physical / 8) ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) & (some | most);
        let value = if value & 1 == 0 { value & !0x1fff & 0xff_ffff_ffff } else { value };
        let word = if value & 2 == 0 { value } else { physical & !0x3f_ffff };
        for (byte, place) in word.to_be_bytes().iter().zip(bytes) {
            *place = *byte;
        }
        !physical.is_multiple_of(7)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoding_anything_stays_within_the_text(addr: u64, text in any_text(40)) {
        for arch in all() {
            if let Ok(insn) = arch.decode(GuestAddr(addr), &text) {
                prop_assert!(insn.len > 0, "{}", arch.name());
                prop_assert!(usize::from(insn.len) <= text.len().min(MAX_INSN_BYTES), "{}: {insn:?}", arch.name());
            }
        }
    }

    #[test]
    fn an_instruction_needs_no_more_than_its_own_bytes(text in any_text(40)) {
        for arch in all() {
            let Ok(insn) = arch.decode(TEXT, &text) else { continue };
            let (own, _) = text.split_at(usize::from(insn.len));
            prop_assert_eq!(arch.decode(TEXT, own), Ok(insn), "{}", arch.name());
            for cut in 0..own.len() {
                prop_assert_eq!(arch.decode(TEXT, &own[..cut]), Err(DecodeError::CutShort { addr: TEXT }), "{}", arch.name());
            }
        }
    }

    #[test]
    fn enough_text_is_never_cut_short(text in proptest::collection::vec(any::<u8>(), MAX_INSN_BYTES)) {
        for arch in all() {
            let cut = Err(DecodeError::CutShort { addr: TEXT });
            prop_assert_ne!(arch.decode(TEXT, &text), cut, "{}", arch.name());
        }
    }

    #[test]
    fn a_slot_holds_the_text(text in any_text(40)) {
        for arch in all() {
            match (arch.decode(TEXT, &text), InsnSlot::prepare(*arch, TEXT, &text)) {
                (Ok(insn), Ok(slot)) => {
                    prop_assert_eq!(slot.insn, insn, "{}", arch.name());
                    prop_assert_eq!(slot.bytes(), &text[..usize::from(insn.len)], "{}", arch.name());
                }
                (Err(decode), Err(prepare)) => prop_assert_eq!(decode, prepare, "{}", arch.name()),
                (decode, prepare) => prop_assert!(false, "{}: {decode:?} against {prepare:?}", arch.name()),
            }
        }
    }

    #[test]
    fn boundaries_are_where_instructions_start(text in any_text(64)) {
        for arch in all() {
            let (starts, ended_by) = walk(*arch, &text);
            let walked = starts.last().copied().unwrap_or_default();
            // An ISA that asks only alignment goes on behind text that is no instruction.
            let fixed_width = matches!(arch.check_boundary(TEXT, &text, 1), Err(BoundaryError::Unaligned { .. }));
            for offset in 0..text.len() {
                let found = arch.check_boundary(TEXT, &text, offset as u64);
                match found {
                    Ok(()) => {
                        let behind = fixed_width && offset > walked;
                        prop_assert!(behind || starts.contains(&offset), "{}: {offset}", arch.name());
                    }
                    Err(BoundaryError::Inside { addr, start, len }) => {
                        prop_assert_eq!(addr, TEXT.wrapping_add(offset as u64), "{}", arch.name());
                        let start = usize::try_from(start.wrapping_offset_from(TEXT)).expect("small");
                        let behind = fixed_width && start > walked;
                        prop_assert!(behind || starts.contains(&start), "{}: {start}", arch.name());
                        prop_assert!(start < offset && offset < start + usize::from(len), "{}: {offset}", arch.name());
                    }
                    Err(BoundaryError::Unaligned { align, .. }) => {
                        prop_assert_ne!(offset % usize::from(align), 0, "{}: {}", arch.name(), offset);
                    }
                    // An ISA that walks stops where the plain walk stops.
                    Err(BoundaryError::Decode(error)) => {
                        prop_assert!(offset > walked, "{}: {offset}", arch.name());
                        prop_assert_eq!(Some(error), ended_by, "{}", arch.name());
                    }
                }
            }
            for start in starts {
                prop_assert_eq!(arch.check_boundary(TEXT, &text, start as u64), Ok(()), "{}", arch.name());
            }
        }
    }

    #[test]
    fn an_entry_starts_on_a_boundary(text in any_text(16)) {
        for arch in all() {
            let skip = arch.entry_skip(&text);
            prop_assert!(skip <= text.len() as u64, "{}", arch.name());
            prop_assert_eq!(arch.check_boundary(TEXT, &text, skip), Ok(()), "{}", arch.name());
        }
    }

    #[test]
    fn privilege_answers_any_value(addr: u64, value: u64) {
        for arch in all() {
            // No value panics: what a guest's registers hold is the guest's choice.
            let _ = (arch.privilege(GuestAddr(addr)), arch.is_privileged(value));
        }
    }

    #[test]
    fn page_walks_end_whatever_memory_holds(seed: u64, addr: u64, cpu: u32, symbols: u64, masks: [u64; 2]) {
        let mut memory = Noise { seed, masks, reads: 0 };
        let symbol = |name: &str| {
            let sum = name.bytes().fold(symbols, |sum, byte| sum.rotate_left(7) ^ u64::from(byte));
            Some(GuestAddr(if symbols & 1 == 0 { 0x40_0000 + sum % 0x100_0000 / 8 * 8 } else { sum }))
        };
        for arch in all() {
            let Some(translate) = arch.as_translate() else { continue };
            let paging = translate.paging(&symbol).expect("every symbol is there");
            prop_assert!(paging.page_bytes().is_power_of_two(), "{}", arch.name());
            for space in [AddressSpace::Kernel, AddressSpace::User] {
                memory.reads = 0;
                let _ = paging.physical(GuestAddr(addr), space, cpu, &mut memory);
                prop_assert!(memory.reads < 100, "{}: {} reads", arch.name(), memory.reads);
            }
            paging.forget();
        }
    }

    #[test]
    fn numbers_invert_to_bytes(value: u64, len in 0_usize..=8) {
        let mask = if len == 8 { u64::MAX } else { (1 << (8 * len)) - 1 };
        prop_assert_eq!(ByteOrder::Little.number(&value.to_le_bytes()[..len]), value & mask);
        prop_assert_eq!(ByteOrder::Big.number(&value.to_be_bytes()[8 - len..]), value & mask);
    }
}
