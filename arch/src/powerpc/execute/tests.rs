//! What the manual says, and what no user program of QEMU can show: modes, faults, traps, interrupts.
//! `arch/tests/powerpc.rs` has what every instruction leaves behind.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::fake::{Fake, HERE, MEMORY};
use crate::powerpc::{PPC, PPC64, PPC64LE};
use crate::{Arch, Execute, ExecuteError, Executed, GuestAddr, NextPc, RegisterId};

const BEHIND: u64 = HERE.0 + 4;
const NOT_SUPPORTED: Result<Executed, ExecuteError> = Err(ExecuteError::NotSupported { addr: HERE });

#[test]
fn counting_branches_count_down_whether_taken_or_not() {
    // bdnz .+0x40
    for (count, next, left) in [(2, HERE.0 + 0x40, 1), (1, BEHIND, 0), (0, HERE.0 + 0x40, u64::MAX)] {
        let mut fake = Fake::new(&PPC64).with("ctr", count);
        assert_eq!((fake.goes_to(0x4200_0040), fake.get("ctr")), (next, left), "{count}");
    }
    // The count is tested in the mode's width, and decremented whole.
    let mut fake = Fake::new(&PPC64).with("msr", 0).with("ctr", 0x1_0000_0001);
    assert_eq!((fake.goes_to(0x4200_0040), fake.get("ctr")), (BEHIND, 0x1_0000_0000));
    let mut fake = Fake::new(&PPC).with("ctr", 0);
    assert_eq!((fake.goes_to(0x4200_0040), fake.get("ctr")), (HERE.0 + 0x40, 0xffff_ffff));
    // bdnzt 4*cr1+eq,.+0x40: the count goes down although the condition is false.
    let mut fake = Fake::new(&PPC64).with("ctr", 2);
    assert_eq!((fake.goes_to(0x4106_0040), fake.get("ctr")), (BEHIND, 1));
}

#[test]
fn links_are_set_whether_taken_or_not() {
    // beql .+0x40
    for (ccr, next) in [(0x2000_0000, HERE.0 + 0x40), (0, BEHIND)] {
        let mut fake = Fake::new(&PPC64).with("ccr", ccr);
        assert_eq!((fake.goes_to(0x4182_0041), fake.get("link")), (next, BEHIND));
    }
    // blrl: the old link register is the target.
    let mut fake = Fake::new(&PPC64).with("link", 0xc000_1002);
    assert_eq!((fake.goes_to(0x4e80_0021), fake.get("link")), (0xc000_1000, BEHIND));
    // bctrl; bctar
    let mut fake = Fake::new(&PPC64).with("ctr", 0xc000_0000_0000_1234).with("tar", 0xc000_0000_0000_5678);
    assert_eq!((fake.goes_to(0x4e80_0421), fake.get("link")), (0xc000_0000_0000_1234, BEHIND));
    assert_eq!(fake.goes_to(0x4e80_0460), 0xc000_0000_0000_5678);
}

#[test]
fn the_mode_cuts_indirect_targets_and_addresses() {
    let narrow = || Fake::new(&PPC64).with("msr", 0);
    // blr
    assert_eq!(narrow().with("link", 0xdead_0000_c000_1000).goes_to(0x4e80_0020), 0xc000_1000);
    // lwz r3,4(r4)
    let mut fake = narrow().with("r4", 0xdead_0000_0000_0000 + MEMORY);
    fake.memory[4..8].copy_from_slice(&[1, 2, 3, 4]);
    assert_eq!(fake.goes_to(0x8064_0004), BEHIND);
    assert_eq!(fake.get("r3"), 0x0102_0304);
    // add. r3,r4,r5: the sum has 64 bits, CR0 is that of the low 32.
    let mut fake = narrow().with("r4", 0xffff_ffff).with("r5", 1);
    fake.goes_to(0x7c64_2a15);
    assert_eq!((fake.get("r3"), fake.get("ccr")), (0x1_0000_0000, 0x2000_0000));
    // addc r3,r4,r5: so is the carry.
    fake.goes_to(0x7c64_2814);
    assert_eq!(fake.get("xer"), 1 << 29);
    let mut fake = Fake::new(&PPC64).with("r4", 0xffff_ffff).with("r5", 1);
    fake.goes_to(0x7c64_2814);
    assert_eq!(fake.get("xer"), 0, "POWER8 and older have no carry of 32 bits");
    let mut fake = Fake::new(&PPC64).with("r4", 0xffff_ffff).with("r5", 1).with("pvr", 0x004e_1202);
    fake.goes_to(0x7c64_2814);
    assert_eq!(fake.get("xer"), 1 << 18, "POWER9 has");
}

#[test]
fn a_32_bit_cpu_keeps_32_bits() {
    // neg r3,r4; lis r3,-1; b .-0x40 around the end; lwzu r3,-8(r4)
    let mut fake = Fake::new(&PPC).with("r4", 1);
    fake.goes_to(0x7c64_00d0);
    assert_eq!(fake.get("r3"), 0xffff_ffff);
    fake.goes_to(0x3c60_ffff);
    assert_eq!(fake.get("r3"), 0xffff_0000);
    let low = GuestAddr(0x10);
    let slot = fake.slot(&[0x4bff_ffc0]);
    let far = crate::InsnSlot::prepare(&PPC, low, slot.bytes()).expect("an instruction");
    assert_eq!(PPC.next_pc(&far, low, &mut fake), Ok(NextPc::At(GuestAddr(0xffff_ffd0))));
    // What only 64-bit CPUs have: ld, std, mulld, sld, cmpd, rldicl, cntlzd, extsw, td (which does not trap)
    let double = [
        0xe861_0000,
        0xf861_0000,
        0x7c64_29d2,
        0x7c83_2836,
        0x7c23_2000,
        0x7883_0020,
        0x7c83_0074,
        0x7c83_07b4,
        0x7c83_2088,
    ];
    for word in double {
        assert_eq!(Fake::new(&PPC).execute(&[word]), NOT_SUPPORTED, "{word:x}");
    }
}

#[test]
fn true_conditions_trap_and_false_ones_do_not() {
    // tdnei r3,0; twllei r3,4; tweq r3,r4; tdgt r3,r4
    let cases = [(0x0b03_0000, 0, 1), (0x0cc3_0004, 5, 4), (0x7c83_2008, 1, 0), (0x7d03_2088, 0, 7)];
    for (word, passes, traps) in cases {
        let mut fake = Fake::new(&PPC64).with("r3", passes);
        assert_eq!(fake.goes_to(word), BEHIND, "{word:x}");
        let mut fake = Fake::new(&PPC64).with("r3", traps);
        assert_eq!(fake.next_pc(word), Ok(NextPc::Leaves), "{word:x}");
        assert_eq!(fake.execute(&[word]), NOT_SUPPORTED, "{word:x}");
        // The kernel's WARN_ON goes on behind it all the same.
        assert_eq!(fake.successors(&[word]).map(|successors| successors.first), Ok(GuestAddr(BEHIND)), "{word:x}");
    }
    // twlti r3,0: of the low word; tdlti r3,0
    let mut fake = Fake::new(&PPC64).with("r3", 0x8000_0000);
    assert_eq!(fake.next_pc(0x0e03_0000), Ok(NextPc::Leaves));
    assert_eq!(fake.next_pc(0x0a03_0000), Ok(NextPc::At(GuestAddr(BEHIND))));
}

#[test]
fn returns_from_interrupts_are_exact() {
    let mut fake = Fake::new(&PPC64)
        .with("srr0", 0xc000_0000_0012_3456)
        .with("srr1", 1 << 63)
        .with("hsrr0", 0x1000_0000_0000_1000)
        .with("hsrr1", 0)
        .with("link", 0x7fff_0000_1234)
        .with("ctr", 1 << 63);
    // rfid; hrfid, to 32-bit mode; rfscv
    let cases = [(0x4c00_0024, 0xc000_0000_0012_3454), (0x4c00_0224, 0x1000), (0x4c00_00a4, 0x7fff_0000_1234)];
    for (word, target) in cases {
        assert_eq!(fake.next_pc(word), Ok(NextPc::At(GuestAddr(target))), "{word:x}");
        let successors = fake.successors(&[word]).expect("successors");
        assert_eq!((successors.first, successors.second, successors.sp), (GuestAddr(target), None, MEMORY + 0x80));
        assert_eq!(fake.execute(&[word]), NOT_SUPPORTED, "{word:x}");
    }
    // rfi, rfci, rfdi, rfmci
    let mut fake = Fake::new(&PPC).with("srr0", 0x100).with("csrr0", 0x200).with("dsrr0", 0x300).with("mcsrr0", 0x400);
    for (word, target) in [(0x4c00_0064, 0x100), (0x4c00_0066, 0x200), (0x4c00_004e, 0x300), (0x4c00_004c, 0x400)] {
        assert_eq!(fake.next_pc(word), Ok(NextPc::At(GuestAddr(target))), "{word:x}");
    }
    // A CPU without the register.
    let mut fake = Fake::new(&PPC).without("csrr0");
    assert_eq!(fake.next_pc(0x4c00_0066), Err(ExecuteError::Register { name: "csrr0" }));
}

#[test]
fn what_traps_on_purpose_leaves() {
    // sc; scv 0; trap; twui r0,0; attn; rfebb 1; nap
    for word in [0x4400_0002, 0x4400_0001, 0x7fe0_0008, 0x0fe0_0000, 0x0000_0200, 0x4c00_0924, 0x4c00_0364] {
        let mut fake = Fake::new(&PPC64LE);
        assert_eq!(fake.next_pc(word), Ok(NextPc::Leaves), "{word:x}");
        assert_eq!(fake.execute(&[word]), NOT_SUPPORTED, "{word:x}");
        assert!(!fake.has_successor(&[word]), "{word:x}");
    }
}

/// P2: nothing here may come between a reservation and its store.
#[test]
fn reservations_are_never_executed() {
    // lwarx r3,0,r4; ldarx; lbarx; lharx; lqarx r4,0,r6; stwcx. r3,0,r4; stdcx.; stbcx.; sthcx.; stqcx. r4,0,r6
    let words = [
        0x7c60_2028,
        0x7c60_20a8,
        0x7c60_2068,
        0x7c60_20e8,
        0x7c80_3228,
        0x7c60_212d,
        0x7c60_21ad,
        0x7c60_256d,
        0x7c60_25ad,
        0x7c80_316d,
    ];
    for word in words {
        let mut fake = Fake::new(&PPC64).with("r4", MEMORY).with("r6", MEMORY);
        let before = fake.clone();
        assert_eq!(fake.execute(&[word]), NOT_SUPPORTED, "{word:x}");
        assert_eq!(fake, before, "{word:x}");
        assert!(fake.has_successor(&[word]), "{word:x}");
    }
}

#[test]
fn what_else_is_not_executed() {
    let words: [(&str, u32); 16] = [
        ("lfd f1,0(r1)", 0xc821_0000),
        ("stfd f1,0(r1)", 0xd821_0000),
        ("fadd f1,f2,f3", 0xfc22_182a),
        ("lvx v1,0,r4", 0x7c20_20ce),
        ("vxor v1,v1,v1", 0x1021_0cc4),
        ("lxvd2x vs1,0,r4", 0x7c20_2698),
        ("mtmsrd r3,1", 0x7c61_0164),
        ("mfspr r3,sprg1", 0x7c71_42a6),
        ("mtspr tar,r3", 0x7c6f_cba6),
        ("dcbz 0,r4", 0x7c00_27ec),
        ("divd r3,r4,r5, by 0", 0x7c64_2bd2),
        ("modud r3,r4,r5, by 0", 0x7c64_2a12),
        ("lwzu r4,4(r4): RA is RT", 0x8484_0004),
        ("stwu r3,4(0): RA is 0", 0x9460_0004),
        ("lmw r3,0(r4): RA is loaded", 0xb864_0000),
        ("mfocrf of two fields", 0x7c73_0026),
    ];
    for (text, word) in words {
        let mut fake = Fake::new(&PPC64).with("r4", MEMORY);
        assert_eq!(fake.execute(&[word]), NOT_SUPPORTED, "{text}");
    }
    // lmw r29,0(r4): little-endian CPUs raise an alignment interrupt.
    assert_eq!(Fake::new(&PPC64LE).with("r4", MEMORY).execute(&[0xbba4_0000]), NOT_SUPPORTED);
    assert!(Fake::new(&PPC64).with("r4", MEMORY).execute(&[0xbba4_0000]).is_ok());
    // pld r3,0(r4),1: relative, and a base.
    assert_eq!(Fake::new(&PPC64).execute(&[0x0410_0000, 0xe464_0000]), NOT_SUPPORTED);
}

#[test]
fn a_faulting_access_changes_nothing() {
    // ldu r3,0x40(r4); stdu r3,0x40(r4)
    for word in [0xe864_0041, 0xf864_0041] {
        let mut fake = Fake::new(&PPC64).with("r4", MEMORY + 0x100);
        let fault = Err(ExecuteError::Fault { addr: GuestAddr(MEMORY + 0x140) });
        assert_eq!(fake.execute(&[word]), fault, "{word:x}");
        assert_eq!(fake.get("r4"), MEMORY + 0x100, "{word:x}");
    }
    // stdu r3,8(r4): memory that is not writable
    let mut fake = Fake::new(&PPC64).with("r4", MEMORY);
    fake.is_writable = false;
    assert_eq!(fake.execute(&[0xf864_0009]), Err(ExecuteError::Fault { addr: GuestAddr(MEMORY + 8) }));
    assert_eq!(fake.get("r4"), MEMORY);
    // dcbst 0,r4
    assert_eq!(Fake::new(&PPC64).execute(&[0x7c00_206c]), Err(ExecuteError::Fault { addr: GuestAddr(0) }));
    // lbz r3,0(r4) where the register cannot be set
    let mut fake = Fake::new(&PPC64).with("r4", MEMORY);
    fake.fixed = Some("r3");
    assert_eq!(fake.execute(&[0x8864_0000]), Err(ExecuteError::Register { name: "r3" }));
    // stbu r3,1(r4) where the base cannot be
    fake.fixed = Some("r4");
    let before = fake.clone();
    assert_eq!(fake.execute(&[0x9c64_0001]), Err(ExecuteError::Register { name: "r4" }));
    assert_eq!(fake, before);
}

#[test]
fn only_what_is_needed_is_read() {
    // add r3,r4,r5 needs neither MSR nor CR nor XER.
    let mut fake = Fake::new(&PPC64).without("msr").without("ccr").without("xer").without("pvr");
    assert_eq!(fake.execute(&[0x7c64_2a14]).map(|executed| executed.next), Ok(GuestAddr(BEHIND)));
    // b, bl
    assert_eq!(fake.goes_to(0x4800_0040), HERE.0 + 0x40);
    // cmpd r3,r4 changes a part of CR.
    assert_eq!(Fake::new(&PPC64).without("ccr").execute(&[0x7c23_2000]), Err(ExecuteError::Register { name: "ccr" }));
}

#[test]
fn successors_tell_the_stack_pointer_without_memory() {
    let sp = MEMORY + 0x80;
    let cases: [(&str, &[u32], u64); 12] = [
        ("stdu r1,-0x60(r1)", &[0xf821_ffa1], sp - 0x60),
        ("stwu r1,-0x20(r1)", &[0x9421_ffe0], sp - 0x20),
        ("stdux r1,r1,r12", &[0x7c21_616a], sp + 0x10),
        ("addi r1,r1,0x60", &[0x3821_0060], sp + 0x60),
        ("mr r1,r12", &[0x7d81_6378], 0x10),
        ("ld r3,0(r1)", &[0xe861_0000], sp),
        ("std r3,0(r1)", &[0xf861_0000], sp),
        ("lvx v1,r1,r9", &[0x7c21_48ce], sp),
        ("lfd f1,8(r1)", &[0xc821_0008], sp),
        ("mtsprg 1,r1", &[0x7c31_43a6], sp),
        ("isel r3,r1,r4,eq", &[0x7c61_209e], sp),
        ("crand lt,gt,eq", &[0x4c01_1202], sp),
    ];
    for (text, words, expected) in cases {
        // 0x10 in r12; CR withheld.
        let mut fake = Fake::new(&PPC64).with("r12", 0x10).without("ccr");
        let successors = fake.successors(words).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((successors.first, successors.second), (GuestAddr(BEHIND), None), "{text}");
        assert_eq!((successors.sp, fake.reads), (expected, 0), "{text}");
        assert!(fake.has_successor(words), "{text}");
    }
    // ld r1,0(r1)
    let mut fake = Fake::new(&PPC64);
    fake.memory[0x80..0x88].copy_from_slice(&0xc000_0000_0123_4560_u64.to_be_bytes());
    assert_eq!(fake.successors(&[0xe821_0000]).map(|successors| successors.sp), Ok(0xc000_0000_0123_4560));
    // mfsprg r1,1; isel r1,r3,r4,eq
    for words in [[0x7c31_42a6], [0x7c23_209e]] {
        assert!(!fake.has_successor(&words), "{words:x?}");
        assert!(fake.successors(&words).is_err(), "{words:x?}");
    }
}

#[test]
fn successors_of_branches_are_both_places() {
    let mut fake = Fake::new(&PPC64).with("link", 0xc000_1000).with("ctr", 0xc000_2000).without("ccr");
    let mut places = |word: u32| fake.successors(&[word]).map(|found| (found.first.0, found.second.map(|addr| addr.0)));
    // beq .+0x40; bdnz .+0x40; beq .+4; b .+0x40; bl .+0x40; bcl 20,31,.+4
    assert_eq!(places(0x4182_0040), Ok((HERE.0 + 0x40, Some(BEHIND))));
    assert_eq!(places(0x4200_0040), Ok((HERE.0 + 0x40, Some(BEHIND))));
    assert_eq!(places(0x4182_0004), Ok((BEHIND, None)));
    assert_eq!(places(0x4800_0040), Ok((HERE.0 + 0x40, None)));
    assert_eq!(places(0x4800_0041), Ok((HERE.0 + 0x40, None)));
    assert_eq!(places(0x429f_0005), Ok((BEHIND, None)));
    // blr; beqlr; bctr; bctrl
    assert_eq!(places(0x4e80_0020), Ok((0xc000_1000, None)));
    assert_eq!(places(0x4d82_0020), Ok((0xc000_1000, Some(BEHIND))));
    assert_eq!(places(0x4e80_0420), Ok((0xc000_2000, None)));
    assert_eq!(places(0x4e80_0421), Ok((0xc000_2000, None)));
    // bcctr that counts down what it jumps to
    assert_eq!(places(0x4c00_0420), Err(ExecuteError::NotSupported { addr: HERE }));
}

#[test]
fn prefixed_instructions_are_eight_bytes() {
    // pli r3,0x123456789; pla r3,0x10 (relative); pld r3,0x1_0000_0008(r4)
    let mut fake = Fake::new(&PPC64LE).with("r4", MEMORY.wrapping_sub(0x1_0000_0000));
    fake.memory[8..16].copy_from_slice(&0x1122_3344_5566_7788_u64.to_le_bytes());
    let next = HERE.0 + 8;
    assert_eq!(fake.execute(&[0x0601_2345, 0x3860_6789]).map(|executed| executed.next.0), Ok(next));
    assert_eq!(fake.get("r3"), 0x1_2345_6789);
    assert_eq!(fake.execute(&[0x0610_0000, 0x3860_0010]).map(|executed| executed.next.0), Ok(next));
    assert_eq!(fake.get("r3"), HERE.0 + 0x10);
    assert_eq!(fake.execute(&[0x0401_0000, 0xe464_0008]).map(|executed| executed.next.0), Ok(next));
    assert_eq!(fake.get("r3"), 0x1122_3344_5566_7788);
}

#[test]
fn xer_takes_what_can_be_seen_again() {
    // mtxer r3
    const MTXER: u32 = 0x7c61_03a6;
    let mut fake = Fake::new(&PPC64).with("r3", 0xe00c_007f).with("pvr", 0x0080_0200);
    fake.goes_to(MTXER);
    assert_eq!(fake.get("xer"), 0xe00c_007f);
    let mut fake = Fake::new(&PPC64).with("r3", 0xe00c_007f).with("pvr", 0x004d_0200);
    fake.goes_to(MTXER);
    assert_eq!(fake.get("xer"), 0xe000_007f);
    assert_eq!(Fake::new(&PPC64).with("r3", 0x100).execute(&[MTXER]), NOT_SUPPORTED);
}

#[test]
fn flags_are_registers_like_the_others() {
    let fake = Fake::new(&PPC64);
    // beq
    let slot = fake.slot(&[0x4182_0040]);
    assert!(PPC64.flags_are_exact() && !PPC64.reads_flags(&slot, HERE));
    assert!(PPC64.flags_dead_after(slot.bytes(), HERE, &(0..0)));
    assert_eq!(PPC64.nop(), [0x60, 0, 0, 0]);
    assert_eq!(PPC64LE.nop(), [0, 0, 0, 0x60]);
    assert_eq!(PPC.register("ccr"), Some(RegisterId(37)));
}
