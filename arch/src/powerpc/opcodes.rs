//! Which words are instructions: one bit for each value of the low 11 bits (the extended opcode and the record bit) of
//! the primary opcodes that have many.
//!
//! The table is the union of what QEMU's CPU models have: Power ISA 3.1B appendix "Opcode Maps" with what earlier versions
//! had, Book E and the e500's SPE ("EREF: A Programmer's Reference Manual for Freescale Power Architecture Processors"),
//! the embedded 40x and 44x. POWER's own, which no kernel runs on any more, the paired singles of game consoles, and VLE
//! are not in it. It was enumerated with GNU binutils 2.40: a bit is set where objdump knows at least one setting of the operands for
//! one of the processors `-M power10 power9 power8 power7 power6 power4 e500 e500mc e5500 e6500 a2 476 titan 7450 403 405 440
//! 464 cell e300 booke 821 860`. `arch/examples/powerpc_opcodes.rs` compares it again.
//!
//! Operands do not count: CPUs ignore the reserved fields of what they know, and so does this table.

/// 2048 bits, the lowest first.
type Low11 = [u64; 32];

const fn has(bits: &Low11, low: u32) -> bool {
    bits[(low as usize >> 6) & 31] >> (low & 63) & 1 == 1
}

/// Is it an instruction of one word? Prefixes (primary opcode 1) are none.
pub(super) const fn is_valid(word: u32) -> bool {
    let low = word & 0x7ff;
    match word >> 26 {
        // Support processor attention.
        0 => low == 0x200,
        1 | 5 | 9 | 22 => false,
        4 => has(&VECTOR, low),
        // lxvp, stxvp
        6 => word & 0xe == 0,
        // `sc` has bit 30, `scv` bit 31.
        17 => matches!(word & 3, 1 | 2),
        19 => has(&BRANCH, low),
        // The last six of the eight rotates by 3-bit opcode are two by 4 bits.
        30 => word & 0x1c <= 0xc || matches!(word & 0x1e, 0x10 | 0x12),
        31 => has(&INTEGER, low),
        // ld, ldu, lwa; std, stdu, stq
        58 | 62 => word & 3 != 3,
        59 => has(&FLOAT_SINGLE, low),
        60 => has(&VECTOR_SCALAR, low),
        63 => has(&FLOAT_DOUBLE, low),
        _ => true,
    }
}

/// Primary opcode 4: VMX, SPE, and the multiply-accumulates of the 40x.
#[rustfmt::skip]
static VECTOR: Low11 = [
    0xf80b_ffff_fff3_fdf7, 0xf80b_ffff_fff3_d5f7, 0xf80b_ffff_fff0_dbf5, 0xf80b_ffff_fff0_c9f5,
    0xf80b_ffff_fff3_ddb7, 0xf80b_ffff_fff3_d5b7, 0xf80b_ffff_fff0_fdb5, 0xf80b_ffff_fff0_eff4,
    0xf91f_ffff_fff6_ff77, 0xff0b_ffff_fff0_f557, 0xf90b_ffff_ffff_ffff, 0xfdff_ffff_ffff_fff7,
    0xfb3b_ffff_fff3_ff7f, 0xf80b_ffff_fff3_f557, 0xf80b_ffff_fff0_bfd5, 0xf80b_ffff_fff0_efd4,
    0xf80b_ffff_ffb0_bfdf, 0xfb0b_ffff_ffb8_fddf, 0xf80b_efff_ffb0_01df, 0xf80b_efff_ffb0_5fdf,
    0xf80b_ffff_ffb0_bbff, 0xf80b_efff_ffb8_fbff, 0xf80b_ffff_ffb0_bbff, 0xf80b_efff_ffb8_fbfb,
    0xf80b_efff_ffb0_29d7, 0xf80b_efff_ffb0_6357, 0xf80b_efff_ffb0_39d5, 0xf80b_efff_ffb0_48d6,
    0xf80b_efff_ffb0_29df, 0xf80b_efff_ffb0_20dd, 0xf80b_efff_ffb0_39df, 0xf80b_efff_ffb0_08de,
];

/// Primary opcode 19: branches through registers, CR logic, returns from interrupts.
#[rustfmt::skip]
static BRANCH: Low11 = [
    0x0000_0013_0000_0031, 0x0000_0050_0000_5034, 0x0000_0010_0000_0030, 0x0000_0000_0000_1030,
    0x0000_1010_0000_0034, 0x0000_0000_0000_0030, 0x0000_0000_0000_1034, 0x0000_0000_0000_0034,
    0x0000_0010_0000_0034, 0x0000_0010_0000_0034, 0x0000_0000_0000_0030, 0x0000_0010_0000_0030,
    0x0000_0010_0000_0030, 0x0000_0010_0000_0034, 0x0000_0010_0000_0034, 0x0000_0010_0000_0030,
    0x0000_0003_0000_0030, 0x0000_0003_0000_0030, 0x0000_0000_0000_0030, 0x0000_0000_0000_0030,
    0x0000_0000_0000_0030, 0x0000_0000_0000_0030, 0x0000_0000_0000_0030, 0x0000_0000_0000_0030,
    0x0000_0000_0000_0030, 0x0000_0000_0000_0030, 0x0000_0000_0000_0030, 0x0000_0000_0000_0030,
    0x0000_0000_0000_0030, 0x0000_0000_0000_0030, 0x0000_0000_0000_0030, 0x0000_0000_0000_0030,
];

/// Primary opcode 31: integers, memory by index, system.
#[rustfmt::skip]
static INTEGER: Low11 = [
    0x57f3_5750_cfff_5101, 0x5370_57c0_dc03_5001, 0x4000_5350_ffdc_4100, 0x4310_43d0_dc03_4008,
    0x4550_64d1_df33_5041, 0x0150_74d4_dc10_5040, 0x4140_62d0_dc33_6001, 0x4100_50d0_dcff_5001,
    0x4310_5350_df74_54c0, 0x4310_50d0_dc00_4440, 0x0000_7450_df00_14c0, 0x0010_7450_d300_4000,
    0x4300_72d0_dfcc_54c1, 0x0300_50d0_dcdc_2441, 0x0300_1050_dccc_14c1, 0x0110_0010_d0cc_5041,
    0x00f3_5500_c333_5041, 0x0070_5000_c003_5440, 0x4000_5440_c300_5441, 0x0000_4000_c003_5440,
    0x0000_5570_e333_4040, 0x0000_6030_e010_4440, 0x4000_6430_d333_5440, 0x0000_5070_e0ff_5440,
    0x4033_5410_ef74_5400, 0x00f3_3440_ef00_4440, 0x0000_5470_e300_1400, 0x00f0_5410_e300_0400,
    0x4030_5470_efcc_6000, 0x0030_3410_efdc_5440, 0x4030_5490_c3cc_1400, 0x4000_1410_e3cc_1400,
];

/// Primary opcode 59: single and decimal floating point, MMA.
#[rustfmt::skip]
static FLOAT_SINGLE: Low11 = [
    0xff3f_3f30_5555_00f0, 0xff0c_0000_0000_00f0, 0xff0c_0000_5555_00f0, 0xff0c_0000_5555_00f0,
    0xff0c_0000_5555_0010, 0xff0c_0000_5555_0010, 0xff0c_0000_5555_0010, 0xff0c_0000_5555_00d0,
    0xff0c_0000_0000_00f0, 0xff0c_0000_5500_00f0, 0xff0c_0000_0055_00f0, 0xff0c_0000_0055_00f0,
    0xff0c_0000_5500_0000, 0xff0c_0000_5500_0000, 0xff0c_0000_0055_0000, 0xff0c_0000_0055_00c0,
    0xff0c_0000_0000_00f0, 0xff0c_0000_0000_00f0, 0xff0c_0000_0055_00f0, 0xff0c_0000_0055_00f0,
    0xff0c_0000_0000_0010, 0xff0c_0000_0000_0050, 0xff0c_0000_0055_0010, 0xff0c_0000_0055_00d0,
    0xff0c_0000_0000_00f0, 0xff0c_0000_0000_00f0, 0xff0c_0000_3055_00f0, 0xff0c_0000_0055_00f0,
    0xff0c_0000_0000_0000, 0xff0c_0000_0000_0000, 0xff0c_0000_3055_0000, 0xff0c_0000_0055_00c0,
];

/// Primary opcode 60: VSX.
#[rustfmt::skip]
static VECTOR_SCALAR: Low11 = [
    0xffff_ff00_ffff_ffff, 0xffff_0f00_ffff_ffff, 0xffff_0000_ffff_ffff, 0xffff_0000_00ff_ffff,
    0xffff_ffff_55ff_ffff, 0xffff_0fff_55ff_ffff, 0xffff_f5f0_00ff_ffff, 0xffff_55f0_55ff_ffff,
    0xffff_ffff_ffff_ffff, 0xffff_0fff_ffff_ffff, 0xffff_f5ff_ffff_ffff, 0xffff_55ff_00f3_ffff,
    0xffff_ffff_ffff_ffff, 0xffff_0fff_ffff_ffff, 0xffff_f5ff_ff00_ffff, 0xffff_55ff_0000_ffff,
    0xffff_f0f0_00ff_ffff, 0xffff_00f0_00ff_ffff, 0xffff_050f_00ff_ffff, 0xffff_000f_00ff_ffff,
    0xffff_f0ff_00ff_ffff, 0xffff_f0ff_00ff_ffff, 0xffff_05ff_00ff_ffff, 0xffff_00ff_00ff_ff00,
    0xffff_00ff_ff00_ffff, 0xffff_00ff_ff00_ffff, 0xffff_ffff_ff00_ffff, 0xffff_ffff_0000_ffff,
    0xffff_3fff_ff00_ffff, 0xffff_ffff_ff00_ffff, 0xffff_ffff_ff00_ffff, 0xffff_ffff_0000_ffff,
];

/// Primary opcode 63: double, quad and decimal floating point.
#[rustfmt::skip]
static FLOAT_DOUBLE: Low11 = [
    0xff3f_ff30_f303_0ff1, 0xff0c_c000_0003_37f1, 0xff0c_c000_0003_31f1, 0xff0c_c000_0000_01f0,
    0xff0c_c000_f003_3111, 0xff0c_c000_0000_0111, 0xff0c_c000_0000_0110, 0xff0c_c000_0000_01d0,
    0xff0c_c000_0003_0cf0, 0xff0c_c000_0000_04f0, 0xff0c_c000_0000_00f0, 0xff0c_c000_0000_00f0,
    0xff0c_c000_0003_0300, 0xff0c_c000_0003_0300, 0xff0c_c000_0003_0300, 0xff0c_c000_0003_03c0,
    0xff0c_c000_0000_0ff0, 0xff0c_c000_0000_07f0, 0xff0c_c000_0000_c0f0, 0xff0c_c000_0000_00f0,
    0xff0c_c000_0000_0110, 0xff0c_c000_0000_0150, 0xff0c_c000_0000_c110, 0xff0c_c000_0000_01d0,
    0xff0c_c000_0000_0cf0, 0xff0c_c000_f000_07f0, 0xff0c_c000_3000_13f0, 0xff0c_c000_0000_01f0,
    0xff0c_c000_0000_0000, 0xff0c_c000_f000_0000, 0xff0c_c000_3000_1000, 0xff0c_c000_0000_00d0,
];
