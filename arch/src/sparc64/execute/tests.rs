#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::fake::{Fake, HERE, MEMORY, slot};
use crate::sparc64::Sparc64;
use crate::{BlockPlace, Execute, ExecuteError, GuestAddr, NextPc};

const NOP: u32 = 0x0100_0000;
const SP: u64 = MEMORY + 0x80 - 2047;

// All with a target 16 bytes on.
const BE: u32 = 0x0280_0004;
const BE_A: u32 = 0x2280_0004;
const BA: u32 = 0x1080_0004;
const BA_A: u32 = 0x3080_0004;
const BN: u32 = 0x0080_0004;
const BN_A: u32 = 0x2080_0004;
const BNE_XCC: u32 = 0x1268_0004;
const FBL: u32 = 0x0980_0004;
const BRZ_O0: u32 = 0x02c2_0004;
const BRZ_A_O0: u32 = 0x22c2_0004;
const CALL: u32 = 0x4000_0004;
/// cwbe %o0, 4, .+16
const CWBE: u32 = 0x12c2_2084;
/// cxbl %o0, %o1, .+16
const CXBL: u32 = 0x16e2_0089;

const RETL: u32 = 0x81c3_e008;
const RET: u32 = 0x81c7_e008;
/// return %i7 + 8
const RETURN: u32 = 0x81cf_e008;
/// call %g1
const CALL_G1: u32 = 0x9fc0_4000;
/// jmpl %o7 + 8, %o7
const SWAP_O7: u32 = 0x9fc3_e008;

const SAVE: u32 = 0x9de3_bf50;
const RESTORE: u32 = 0x81e8_0000;

const ZERO: u64 = 0x44;

fn not_supported<T>() -> Result<T, ExecuteError> {
    Err(ExecuteError::NotSupported { addr: GuestAddr(HERE) })
}

#[test]
fn in_a_copy_of_a_state_the_register_tells() {
    let mut delayed = Fake::new().with("npc", HERE + 0x400);
    assert_eq!(delayed.goes(NOP), 0x400);
    assert_eq!(delayed.ways(NOP), (0x400, None, SP));
    assert_eq!(delayed.goes(SAVE), 0x400);
    // A transfer there: first the target of the one before it.
    assert_eq!(delayed.goes(CALL), 0x400);
    // An annulled one there: what it annuls is at that target.
    assert_eq!(delayed.goes(BE_A), 0x404);
    assert_eq!(delayed.goes(BA_A), 16);
    assert_eq!(Sparc64.npc(GuestAddr(HERE), &mut delayed), Ok(Some(GuestAddr(HERE + 0x400))));
    assert_eq!(Fake::new().goes(NOP), 4);
    let hidden = Fake::new().without("npc").next_pc(NOP);
    assert_eq!(hidden, Err(ExecuteError::Register { name: "npc" }));
}

#[test]
fn behind_plain_instructions_the_address_tells() {
    for word in [NOP, SAVE, 0x8200_4002] {
        let mut fake = Fake::new().behind(word);
        assert_eq!(fake.goes(NOP), 4, "{word:#x}");
        assert_eq!(fake.ways(NOP), (4, None, SP), "{word:#x}");
        assert_eq!(Sparc64.npc(GuestAddr(HERE), &mut fake), Ok(Some(GuestAddr(HERE + 4))));
    }
}

#[test]
fn who_begins_a_block_goes_where_that_was_translated_for() {
    let mut fake = Fake::new().at(BlockPlace::First);
    for word in [NOP, SAVE, CALL, RETL, BE] {
        assert_eq!(fake.goes(word), 4, "{word:#x}");
    }
    assert_eq!(Sparc64.npc(GuestAddr(HERE), &mut fake), Ok(Some(GuestAddr(HERE + 4))));
    let mut delayed = Fake::new().with_ccr(ZERO).in_slot(HERE + 0x400);
    for word in [NOP, SAVE, CALL, RETL, BE] {
        assert_eq!(delayed.goes(word), 0x400, "{word:#x}");
        let (first, second, _) = delayed.ways(word);
        assert_eq!((first, second), (0x400, None), "{word:#x}");
    }
    assert_eq!(Sparc64.npc(GuestAddr(HERE), &mut delayed), Ok(Some(GuestAddr(HERE + 0x400))));
    // It annuls what is at the target of the transfer before it.
    assert_eq!(delayed.ways(BE_A), (0x400, Some(0x404), SP));
    assert_eq!((delayed.goes(BE_A), delayed.goes(BA_A)), (0x400, 16));
    assert_eq!(delayed.with_ccr(0).goes(BE_A), 0x404);
}

#[test]
fn where_nothing_tells_nothing_is_said() {
    let mut fake = Fake::new().at(BlockPlace::Unknown);
    assert_eq!(fake.next_pc(NOP), not_supported());
    assert_eq!(fake.successors(NOP), not_supported());
    assert_eq!(Sparc64.npc(GuestAddr(HERE), &mut fake), not_supported());
    // Without a delay slot.
    assert_eq!(fake.goes(BA_A), 16);
}

#[test]
fn transfers_go_to_their_delay_slots() {
    for word in [BA, BN, BE, BNE_XCC, FBL, BRZ_O0, CALL, RETL, RET, RETURN, CALL_G1] {
        assert_eq!(Fake::new().goes(word), 4, "{word:#x}");
        let (first, second, _) = Fake::new().ways(word);
        assert_eq!((first, second), (4, None), "{word:#x}");
    }
}

#[test]
fn annulled_branches_skip_theirs() {
    assert_eq!(Fake::new().goes(BA_A), 16);
    assert_eq!(Fake::new().goes(BN_A), 8);
    assert_eq!(Fake::new().with_ccr(ZERO).goes(BE_A), 4);
    assert_eq!(Fake::new().with_ccr(0).goes(BE_A), 8);
    assert_eq!(Fake::new().with("o0", 0).goes(BRZ_A_O0), 4);
    assert_eq!(Fake::new().with("o0", 1).goes(BRZ_A_O0), 8);
    assert_eq!(Fake::new().ways(BA_A), (16, None, SP));
    assert_eq!(Fake::new().ways(BN_A), (8, None, SP));
    // Flags are not looked at.
    assert_eq!(Fake::new().without("tstate").ways(BE_A), (4, Some(8), SP));
    assert_eq!(Fake::new().with("o0", 1).ways(BRZ_A_O0), (8, None, SP));
}

/// Targets are 12 bytes from the delay slot.
#[test]
fn in_a_delay_slot_the_transfer_decides() {
    let goes = |before: u32, ccr| Fake::new().with_ccr(ccr).behind(before).goes(NOP);
    assert_eq!(goes(BE, ZERO), 12);
    assert_eq!(goes(BE, 0), 4);
    assert_eq!(goes(BE, 0x04), 12, "icc");
    assert_eq!(goes(BNE_XCC, 0x04), 12);
    assert_eq!(goes(BNE_XCC, 0x40), 4, "xcc");
    // Executed, so it was taken.
    assert_eq!(goes(BE_A, 0), 12);
    assert_eq!(goes(BA, 0), 12);
    assert_eq!(goes(BN, 0), 4);
    assert_eq!(goes(CALL, 0), 12);
    // Execution fell through.
    assert_eq!(goes(CWBE, 0), 4);
    let on_o0 = |value| Fake::new().with("o0", value).behind(BRZ_O0).goes(NOP);
    assert_eq!((on_o0(0), on_o0(1)), (12, 4));
    // fcc0 of FSR: less, greater.
    let on_fcc0 = |fcc: u64| Fake::new().with("fsr", fcc << 10).behind(FBL).goes(NOP);
    assert_eq!((on_fcc0(1), on_fcc0(2)), (12, 4));
    let both = Fake::new().without("tstate").behind(BE).ways(NOP);
    assert_eq!(both, (12, Some(4), SP));
    assert_eq!(Fake::new().with("o0", 1).behind(BRZ_O0).ways(NOP), (4, None, SP));
}

#[test]
fn in_the_delay_slot_of_an_indirect_jump_its_operands_tell() {
    let behind = |before: u32, name: &str| Fake::new().with(name, HERE + 0x100).behind(before).goes(NOP);
    assert_eq!(behind(RETL, "o7"), 0x108);
    assert_eq!(behind(RET, "in7"), 0x108);
    assert_eq!(behind(CALL_G1, "g1"), 0x100);
    // Its window is left.
    assert_eq!(behind(RETURN, "o7"), 0x108);
    assert_eq!(Fake::new().behind(SWAP_O7).next_pc(NOP), not_supported());
    assert_eq!(Fake::new().behind(SWAP_O7).successors(NOP), not_supported());
    // return %l0; return %i0 + %o0
    assert_eq!(Fake::new().behind(0x81cc_0000).next_pc(NOP), not_supported());
    assert_eq!(Fake::new().behind(0x81ce_0008).next_pc(NOP), not_supported());
}

#[test]
fn a_couple_of_transfers_goes_to_the_first_target() {
    assert_eq!(Fake::new().behind(CALL).goes(RETL), 12);
    assert_eq!(Fake::new().behind(BA).goes(BA), 12);
    let two = Fake::new().behind(BE).ways(BA);
    assert_eq!((two.0, two.1), (12, Some(4)));
    // Four places.
    assert_eq!(Fake::new().behind(BE).successors(BE_A), not_supported());
}

#[test]
fn a_compare_and_branch_has_no_delay_slot() {
    let on = |o0: u64, o1: u64| Fake::new().with("o0", o0).with("o1", o1);
    assert_eq!(on(4, 0).goes(CWBE), 16);
    assert_eq!(on(5, 0).goes(CWBE), 4);
    // The low half alone.
    assert_eq!(on(0x1_0000_0004, 0).goes(CWBE), 16);
    assert_eq!(on(u64::MAX, 0).goes(CXBL), 16);
    assert_eq!(on(0, u64::MAX).goes(CXBL), 4);
    assert_eq!(on(5, 0).ways(CWBE), (4, None, SP));
    assert_eq!(on(4, 0).ways(CWBE), (16, None, SP));
}

#[test]
fn the_stack_pointer_follows_the_windows() {
    let fake = || Fake::new().with("fp", 0x1111).with("o0", 0x2222);
    let sp = |word| fake().ways(word).2;
    assert_eq!(sp(SAVE), SP - 176);
    assert_eq!(sp(RESTORE), 0x1111);
    assert_eq!(sp(RETURN), 0x1111);
    // restore %o0, 8, %o6: of the window that is left, into the other; restore %o0, 8, %o0
    assert_eq!(sp(0x9dea_2008), 0x222a);
    assert_eq!(sp(0x91ea_2008), 0x1111);
    // In the delay slot of `ret`.
    assert_eq!(fake().with("in7", HERE - 0x200).behind(RET).ways(RESTORE), (-0x1f8, None, 0x1111));
    // add %sp, -64, %sp; mov %o0, %sp; add %sp, -64, %o0; ldd [%sp + 2047], %f14
    assert_eq!(sp(0x9c03_bfc0), SP - 64);
    assert_eq!(sp(0x9c10_0008), 0x2222);
    assert_eq!(sp(0x9003_bfc0), SP);
    assert_eq!(sp(0xdd1b_a7ff), SP);
    // save %sp, -176, %g1; wrpr %g1, %cwp; move %icc, %o0, %sp
    for word in [0x83e3_bf50, 0x9390_4000, 0x9d64_4008] {
        assert_eq!(fake().successors(word), not_supported(), "{word:#x}");
        assert!(!Sparc64.has_successor(&slot(word), GuestAddr(HERE)), "{word:#x}");
    }
    assert!(Sparc64.has_successor(&slot(SAVE), GuestAddr(HERE)));
}

#[test]
fn traps_leave() {
    // ta 0x6d; illtrap; done; retry; sir 1
    for word in [0x91d0_206d, 0, 0x81f0_0000, 0x83f0_0000, 0x9f80_2001] {
        assert_eq!(Fake::new().next_pc(word), Ok(NextPc::Leaves), "{word:#x}");
        assert_eq!(Fake::new().successors(word), not_supported(), "{word:#x}");
        assert_eq!(Fake::new().execute(word), not_supported(), "{word:#x}");
        assert!(!Sparc64.has_successor(&slot(word), GuestAddr(HERE)), "{word:#x}");
    }
    // te 5; tn 0
    assert_eq!(Fake::new().goes(0x83d0_2005), 4);
    assert_eq!(Fake::new().goes(0x81d0_2000), 4);
}

#[test]
fn windows_are_not_executed() {
    // And: flushw; saved; wrpr %g0, 15, %pil; rdpr %pstate, %g1; ldda [%g1] #ASI_AIUS, %g2; stxa %g1, [%g2] 0x11; fadds
    for word in [
        SAVE,
        RESTORE,
        RETURN,
        0x8158_0000,
        0x8188_0000,
        0x9190_200f,
        0x8351_8000,
        0xc498_4220,
        0xc2f0_8220,
        0x81a0_0820,
    ] {
        let mut fake = Fake::new();
        let before = fake.clone();
        assert_eq!(fake.execute(word), not_supported(), "{word:#x}");
        assert_eq!(fake, before, "{word:#x}");
    }
}

#[test]
fn calls_leave_their_own_address() {
    assert_eq!(Fake::new().after(CALL).get("o7"), HERE);
    assert_eq!(Fake::new().with("g1", 0x1000).after(CALL_G1).get("o7"), HERE);
    // jmpl %g1, %l0; rd %pc, %g1
    assert_eq!(Fake::new().after(0xa1c0_4000).get("l0"), HERE);
    assert_eq!(Fake::new().after(0x8341_4000).get("g1"), HERE);
    assert_eq!(Fake::new().after(RETL).get("o7"), 0);
}

#[test]
fn flags_of_additions_and_subtractions() {
    // addcc %o0, %o1, %o2; subcc; addccc; subccc
    let run = |word, a: u64, b: u64, ccr| {
        let after = Fake::new().with("o0", a).with("o1", b).with_ccr(ccr).after(word);
        (after.get("o2"), after.ccr())
    };
    const ADDCC: u32 = 0x9482_0009;
    const SUBCC: u32 = 0x94a2_0009;
    assert_eq!(run(ADDCC, 1, 2, 0), (3, 0));
    assert_eq!(run(ADDCC, 0xffff_ffff, 1, 0), (0x1_0000_0000, 0x05));
    assert_eq!(run(ADDCC, u64::MAX, 1, 0), (0, 0x55));
    assert_eq!(run(ADDCC, 0x7fff_ffff, 1, 0), (0x8000_0000, 0x0a));
    assert_eq!(run(ADDCC, i64::MAX as u64, 1, 0), (1 << 63, 0xa5));
    assert_eq!(run(SUBCC, 1, 1, 0xff), (0, 0x44));
    assert_eq!(run(SUBCC, 0, 1, 0), (u64::MAX, 0x99));
    assert_eq!(run(SUBCC, 1 << 63, 1, 0), (i64::MAX as u64, 0x29));
    assert_eq!(run(0x94c2_0009, 1, 2, 0x01), (4, 0));
    assert_eq!(run(0x94e2_0009, 2, 1, 0x01), (0, 0x44));
    // Of %tstate nothing else changes.
    assert_eq!(Fake::new().with_ccr(0xff).after(ADDCC).get("tstate"), 0x44_8000_1600);
}

/// The manual and QEMU differ about what is shifted out of the lower half.
#[test]
fn a_shift_of_32_bits_keeps_to_them() {
    // sll %o0, 8, %o1; sllx
    assert_eq!(Fake::new().with("o0", 0x12_3456).after(0x932a_2008).get("o1"), 0x1234_5600);
    assert_eq!(Fake::new().with("o0", 0x0112_3456).execute(0x932a_2008), not_supported());
    assert_eq!(Fake::new().with("o0", 0x0112_3456).after(0x932a_3008).get("o1"), 0x1_1234_5600);
}

#[test]
fn memory_is_big_endian_and_aligned() {
    let mut fake = Fake::new().with("o0", MEMORY).with("o1", 0x0102_0304_0506_0708);
    // stx %o1, [%o0]; sth %o1, [%o0 + 8]; stb; ldsb [%o0 + 9], %o2; lduw [%o0 + 4], %o2
    fake = fake.after(0xd272_0000).after(0xd232_2008);
    assert_eq!(fake.memory[..10], [1, 2, 3, 4, 5, 6, 7, 8, 7, 8]);
    fake.memory[9] = 0x80;
    fake = fake.after(0xd44a_2009);
    assert_eq!(fake.get("o2"), 0xffff_ffff_ffff_ff80);
    fake = fake.after(0xd402_2004);
    assert_eq!(fake.get("o2"), 0x0506_0708);
    // ldd [%o0], %o2: into %o2 and %o3; and into an odd register
    fake = fake.after(0xd41a_0000);
    assert_eq!((fake.get("o2"), fake.get("o3")), (0x0102_0304, 0x0506_0708));
    assert_eq!(fake.execute(0xd61a_0000), not_supported());
    // ldx [%o0 + 4], %o2; ldx [%g1], %o2
    assert_eq!(fake.execute(0xd45a_2004), not_supported());
    assert_eq!(fake.execute(0xd458_4000), Err(ExecuteError::Fault { addr: GuestAddr(0) }));
}

#[test]
fn atomic_instructions_need_to_be_alone() {
    let mut fake = Fake::new().with("o0", MEMORY).with("o1", 5).with("o2", 7);
    fake.memory[7] = 5;
    // casx [%o0], %o1, %o2; ldstub [%o0], %o2; swap [%o0], %o2
    for word in [0xd5f2_1009, 0xd46a_0000, 0xd47a_0000] {
        let mut shared = Fake { is_alone: false, ..fake.clone() };
        assert_eq!(shared.execute(word), not_supported(), "{word:#x}");
    }
    let after = fake.clone().after(0xd5f2_1009);
    assert_eq!((after.get("o2"), after.memory[7]), (5, 7));
    let after = fake.with("o1", 6).after(0xd5f2_1009);
    assert_eq!((after.get("o2"), after.memory[7]), (5, 5));
}

#[test]
fn what_fails_changes_nothing() {
    let mut fake = Fake { is_writable: false, ..Fake::new().with("o0", MEMORY).with("o2", 7) };
    let before = fake.clone();
    assert_eq!(fake.execute(0xd47a_0000), Err(ExecuteError::Fault { addr: GuestAddr(MEMORY) }));
    assert_eq!(fake, before);
    // udivx %o0, %g0, %o1
    assert_eq!(fake.execute(0x926a_0000), not_supported());
    assert_eq!(fake, before);
}

#[test]
fn g0_is_zero() {
    // add %g0, 5, %g0; addcc %g0, %g0, %g0
    assert_eq!(Fake::new().with("g0", 9).after(0x8000_2005).get("g0"), 9);
    assert_eq!(Fake::new().with("g0", 9).after(0x8080_0000).ccr(), ZERO);
}

#[test]
fn instructions_that_read_flags_say_so() {
    let reads = |word| Sparc64.reads_flags(&slot(word), GuestAddr(HERE));
    // addc; subccc; move %icc; rd %ccr; rd %asi; te 5; ldxa [%g1] %asi, %g1
    assert!(
        [BE, BE_A, BNE_XCC, 0x9442_0009, 0x94e2_0009, 0x9d64_4008, 0x8340_8000, 0x8340_c000, 0x83d0_2005, 0xc2d8_6000]
            .map(reads)
            .iter()
            .all(|reads| *reads)
    );
    // ta; movre; movfe; rd %y; ldxa [%g1] 0x80, %g1
    assert!(
        [NOP, BA, BN, BRZ_O0, FBL, CWBE, CALL, 0x91d0_206d, 0x9578_4409, 0x9562_4008, 0x8340_0000, 0xc2d8_5000]
            .map(reads)
            .iter()
            .all(|reads| !reads)
    );
}

#[test]
fn flags_die_where_they_are_overwritten_or_a_function_ends() {
    let dead = |words: &[u32]| {
        let text: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        Sparc64.flags_dead_after(&text, GuestAddr(HERE), &(HERE..HERE + 0x100))
    };
    const CMP: u32 = 0x80a2_0009;
    const ADDC: u32 = 0x9442_0009;
    assert!(dead(&[NOP, CMP]));
    assert!(!dead(&[NOP, ADDC, CMP]));
    assert!(!dead(&[NOP, BE, NOP, CMP]));
    assert!(!dead(&[NOP, NOP]), "the text ends");
    assert!(dead(&[RETL, NOP]));
    assert!(!dead(&[RETL, ADDC]), "in the delay slot");
    assert!(dead(&[CALL, NOP]));
    assert!(!dead(&[CALL]));
    // ba over what reads; its delay slot counts.
    assert!(dead(&[BA, NOP, ADDC, ADDC, CMP]));
    assert!(!dead(&[BA, ADDC, NOP, NOP, CMP]));
    assert!(dead(&[BA, CMP, NOP, NOP, ADDC]));
    assert!(dead(&[BA_A, ADDC, NOP, NOP, CMP]));
    // ta 0x6d; retry; brz
    assert!(!dead(&[0x91d0_206d, CMP]));
    assert!(!dead(&[0x83f0_0000, CMP]));
    assert!(!dead(&[BRZ_O0, NOP, CMP]));
    // A jump out of the function.
    assert!(dead(&[0x1080_0100, NOP]));
}
