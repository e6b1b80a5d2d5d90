//! Decoding: words of four bytes, and since ISA 3.1, on 64-bit CPUs, pairs of a prefix and a suffix.
//!
//! A pair that crosses a 64-byte line raises an alignment interrupt where it runs (Power ISA 3.1B Book I, section 1.6.3);
//! it is decoded all the same: the text says what it says.

use super::opcodes;
use super::word::Word;
use crate::{BoundaryError, ByteOrder, DecodeError, Flow, GuestAddr, Insn};

/// The primary opcode of a prefix.
const PREFIX: u32 = 1;
/// Every instruction starts on a multiple of this.
const ALIGN: u64 = 4;

/// What decoding hangs on besides the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode {
    pub(super) order: ByteOrder,
    /// A 64-bit kernel: addresses have 64 bits, and prefixes exist.
    pub(super) is_64: bool,
}

/// An instruction, split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    /// Of a pair.
    pub(super) prefix: Option<Word>,
    /// The word, or the suffix of a pair.
    pub(super) word: Word,
}

impl Mode {
    fn word(self, bytes: &[u8], index: usize) -> Option<Word> {
        let bytes = bytes.get(4 * index..4 * index + 4)?;
        u32::try_from(self.order.number(bytes)).ok().map(Word)
    }

    /// A 32-bit kernel has no addresses above 4 GiB.
    pub(super) fn address(self, addr: u64) -> GuestAddr {
        GuestAddr(if self.is_64 { addr } else { addr & 0xffff_ffff })
    }

    pub(super) fn instruction(self, addr: GuestAddr, bytes: &[u8]) -> Result<Instruction, DecodeError> {
        let cut = DecodeError::CutShort { addr };
        let first = self.word(bytes, 0).ok_or(cut)?;
        if self.is_64 && first.opcode() == PREFIX {
            let suffix = self.word(bytes, 1).ok_or(cut)?;
            let is_valid = is_pair(first, suffix);
            return is_valid
                .then_some(Instruction { prefix: Some(first), word: suffix })
                .ok_or(DecodeError::Invalid { addr });
        }
        let is_valid = opcodes::is_valid(first.0);
        is_valid.then_some(Instruction { prefix: None, word: first }).ok_or(DecodeError::Invalid { addr })
    }

    pub(super) fn decode(self, addr: GuestAddr, bytes: &[u8]) -> Result<Insn, DecodeError> {
        let instruction = self.instruction(addr, bytes)?;
        Ok(match instruction.prefix {
            Some(_) => Insn { len: 8, flow: Flow::Next },
            None => Insn { len: 4, flow: self.flow(addr, instruction.word) },
        })
    }

    pub(super) fn flow(self, addr: GuestAddr, word: Word) -> Flow {
        match word.opcode() {
            // attn; sc, scv
            0 | 17 => Flow::Trap,
            // tdi, twi
            2 | 3 if always_traps(word.t()) => Flow::Trap,
            16 => {
                let target = self.target(addr, word, word.short_displacement());
                match (always_branches(word.t()), word.last()) {
                    (true, true) => Flow::Call { target },
                    (true, false) => Flow::Jump { target },
                    // With a link as well: it is a call only when it is taken.
                    (false, _) => Flow::Branch { target },
                }
            }
            18 => {
                let target = self.target(addr, word, word.long_displacement());
                if word.last() { Flow::Call { target } } else { Flow::Jump { target } }
            }
            19 => register_branch(word),
            // tw, td; ehpriv
            31 => match word.extended() {
                4 | 68 if always_traps(word.t()) => Flow::Trap,
                270 => Flow::Trap,
                _ => Flow::Next,
            },
            _ => Flow::Next,
        }
    }

    fn target(self, addr: GuestAddr, word: Word, displacement: i64) -> GuestAddr {
        let base = if word.is_absolute() { 0 } else { addr.0 };
        self.address(base.wrapping_add_signed(displacement))
    }

    pub(super) fn check_boundary(self, start: GuestAddr, text: &[u8], offset: u64) -> Result<(), BoundaryError> {
        let addr = start.wrapping_add(offset);
        if !offset.is_multiple_of(ALIGN) {
            return Err(BoundaryError::Unaligned { addr, align: 4 });
        }
        // No suffix looks like a prefix, so that the word before tells.
        let before = usize::try_from(offset).ok().and_then(|offset| text.get(offset.checked_sub(4)?..));
        let start = GuestAddr(addr.0.wrapping_sub(ALIGN));
        match before.map(|text| self.decode(start, text)) {
            Some(Ok(Insn { len, .. })) if u64::from(len) > ALIGN => Err(BoundaryError::Inside { addr, start, len }),
            _ => Ok(()),
        }
    }
}

fn register_branch(word: Word) -> Flow {
    match (word.extended(), word.last()) {
        // bclr; one that is conditional too.
        (16, false) => Flow::Return,
        // bcctr, bctar
        (528 | 560, false) => Flow::IndirectJump,
        (16 | 528 | 560, true) => Flow::IndirectCall,
        // rfid, rfmci, rfdi, rfi, rfci, rfscv, rfgi, rfebb, hrfid, urfid
        (18 | 38 | 39 | 50 | 51 | 82 | 102 | 146 | 274 | 306, _) => Flow::Trap,
        // dnh halts for a debugger; doze, nap, sleep and rvwinkle end in the system reset interrupt.
        (198 | 402 | 434 | 466 | 498, _) => Flow::Trap,
        _ => Flow::Next,
    }
}

/// BO: neither CTR nor a bit of CR decides (Power ISA 3.1B Book I, section 2.4, figure 40).
pub(super) const fn always_branches(bo: u32) -> bool {
    bo & 0b10100 == 0b10100
}

/// TO: less, greater and equal, signed, or the same unsigned, cover all values. Among them are `trap` and the kernel's BUG
/// (`twui`); its BUG_ON and WARN_ON (`tdnei`, `twnei`, ...) go on as a rule.
pub(super) const fn always_traps(to: u32) -> bool {
    to & 0b11100 == 0b11100 || to & 0b00111 == 0b00111
}

/// Power ISA 3.1B Book I, section 1.6.3 "Instruction Prefix Formats", and the opcode maps of suffixes.
fn is_pair(prefix: Word, suffix: Word) -> bool {
    let kind = prefix.0 >> 24 & 3;
    let subtype = prefix.0 >> 20 & 15;
    let is_word = || opcodes::is_valid(suffix.0);
    match kind {
        // 8LS: plwa, plxsd, plxssp, pstxsd, pstxssp, plxv (50, 51), pstxv (54, 55), plq, pld, plxvp, pstq, pstd, pstxvp.
        0 => subtype & 8 == 0 && matches!(suffix.opcode(), 41..=43 | 46 | 47 | 50 | 51 | 54..=58 | 60..=62),
        // 8RR: xxsplti32dx (0, 1), xxspltidp, xxspltiw by bits 11 to 14; xxblendv*; xxpermx, xxeval by bits 26 and 27.
        1 if subtype == 0 => match suffix.opcode() {
            32 => suffix.0 >> 17 & 15 <= 3,
            33 => true,
            34 => suffix.0 >> 4 & 3 <= 1,
            _ => false,
        },
        // MLS: paddi, plwz, plbz, pstw, pstb, plhz, plha, psth, plfs, plfd, pstfs, pstfd.
        2 => subtype & 8 == 0 && matches!(suffix.opcode(), 14 | 32 | 34 | 36 | 38 | 40 | 42 | 44 | 48 | 50 | 52 | 54),
        // MRR: pnop, before anything but what changes the flow.
        3 if subtype == 0 => !matches!(suffix.opcode(), 1 | 16..=19),
        // MMIRR: the outer products of MMA.
        3 if subtype == 9 => suffix.opcode() == 59 && is_word(),
        _ => false,
    }
}

/// Loads, stores, and what works on cache blocks by address.
pub(super) fn accesses_memory(Instruction { prefix, word }: Instruction) -> bool {
    if let Some(prefix) = prefix {
        // 8LS; MLS but for paddi.
        return matches!((prefix.0 >> 24 & 3, word.opcode()), (0, _) | (2, 15..));
    }
    match word.opcode() {
        // evldd to evstwwo of SPE
        4 => matches!(word.0 & 0x7ff, 0x300..=0x33f),
        6 | 32..=58 | 61 | 62 => true,
        31 => indexed_accesses_memory(word.extended()),
        _ => false,
    }
}

/// The map of opcode 31 has the accesses in columns: the low five bits.
fn indexed_accesses_memory(extended: u32) -> bool {
    match extended & 31 {
        // VMX and external PID; VSX; lbarx and its kin; ldx, lwzcix and string forms; byte-reversed and cache blocks;
        // lwzx and its kin; external PID.
        7 | 12 | 13 | 20 | 21 | 23 | 29 | 31 => true,
        // dcbst, dcbf, lwbrx, icbi, dcbz, stwcx., ...; not tlbsync, sync, eieio.
        22 => !matches!(extended, 566 | 598 | 854),
        // lwat, ldat, stwat, stdat, copy, paste.; the lower ones shift.
        6 => extended >= 512,
        // hashst, hashchk, and the privileged ones.
        18 => matches!(extended, 658 | 690 | 722 | 754),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: GuestAddr = GuestAddr(0xc000_0000_0010_0000);
    const LITTLE: Mode = Mode { order: ByteOrder::Little, is_64: true };
    const BIG: Mode = Mode { order: ByteOrder::Big, is_64: true };
    const NARROW: Mode = Mode { order: ByteOrder::Big, is_64: false };

    fn big(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn flow(word: u32) -> Flow {
        BIG.decode(HERE, &word.to_be_bytes()).expect("an instruction").flow
    }

    #[test]
    fn the_byte_order_is_the_kernels() {
        // blr
        let word = 0x4e80_0020_u32;
        let expected = Ok(Insn { len: 4, flow: Flow::Return });
        assert_eq!(LITTLE.decode(HERE, &word.to_le_bytes()), expected);
        assert_eq!(BIG.decode(HERE, &word.to_be_bytes()), expected);
        assert_ne!(LITTLE.decode(HERE, &word.to_be_bytes()), expected);
    }

    #[test]
    fn targets_wrap_in_the_width_of_addresses() {
        // ba -0x100: objdump 2.40 shows it without its upper half.
        assert_eq!(flow(0x4bff_ff02), Flow::Jump { target: GuestAddr(0xffff_ffff_ffff_ff00) });
        let narrow =
            |addr, word: u32| NARROW.decode(GuestAddr(addr), &word.to_be_bytes()).expect("an instruction").flow;
        assert_eq!(narrow(0xc010_0000, 0x4bff_ff02), Flow::Jump { target: GuestAddr(0xffff_ff00) });
        // b .-0x100; b .+0x100
        assert_eq!(narrow(0x10, 0x4bff_ff00), Flow::Jump { target: GuestAddr(0xffff_ff10) });
        assert_eq!(narrow(0xffff_fff0, 0x4800_0100), Flow::Jump { target: GuestAddr(0xf0) });
    }

    #[test]
    fn transfers_are_told_apart() {
        let target = HERE.wrapping_add(0x40);
        // b; bl; beq; beql; bdnz; bcl 20,31
        assert_eq!(flow(0x4800_0040), Flow::Jump { target });
        assert_eq!(flow(0x4800_0041), Flow::Call { target });
        assert_eq!(flow(0x4182_0040), Flow::Branch { target });
        assert_eq!(flow(0x4182_0041), Flow::Branch { target });
        assert_eq!(flow(0x4200_0040), Flow::Branch { target });
        assert_eq!(flow(0x429f_0041), Flow::Call { target });
        // blr; beqlr; blrl; bctr; bctrl; bctar; bctarl
        assert_eq!(flow(0x4e80_0020), Flow::Return);
        assert_eq!(flow(0x4d82_0020), Flow::Return);
        assert_eq!(flow(0x4e80_0021), Flow::IndirectCall);
        assert_eq!(flow(0x4e80_0420), Flow::IndirectJump);
        assert_eq!(flow(0x4e80_0421), Flow::IndirectCall);
        assert_eq!(flow(0x4e80_0460), Flow::IndirectJump);
        assert_eq!(flow(0x4e80_0461), Flow::IndirectCall);
    }

    #[test]
    fn only_what_always_traps_is_a_trap() {
        // trap; twui r0,0; tdui r0,0; sc; scv 0; rfid; attn
        for word in [0x7fe0_0008, 0x0fe0_0000, 0x0be0_0000, 0x4400_0002, 0x4400_0001, 0x4c00_0024, 0x0000_0200] {
            assert_eq!(flow(word), Flow::Trap, "{word:x}");
        }
        // tdnei r3,0; twllei r3,4; tw 30,r3,r4 with one bit of TO less than all that matter: tw 27; isync; stop; wait
        for word in [0x0b03_0000, 0x0cc3_0004, 0x7f63_2008, 0x4c00_012c, 0x4c00_02e4, 0x7c00_003c] {
            assert_eq!(flow(word), Flow::Next, "{word:x}");
        }
    }

    #[test]
    fn prefixed_instructions_exist_on_64_bits() {
        // pld r3,0(r4)
        let pld = big(&[0x0400_0000, 0xe464_0000]);
        assert_eq!(BIG.decode(HERE, &pld), Ok(Insn { len: 8, flow: Flow::Next }));
        // Across a 64-byte line as well.
        let crossing = HERE.wrapping_add(0x3c);
        assert_eq!(BIG.decode(crossing, &pld), Ok(Insn { len: 8, flow: Flow::Next }));
        assert_eq!(BIG.decode(HERE, &pld[..4]), Err(DecodeError::CutShort { addr: HERE }));
        assert_eq!(NARROW.decode(HERE, &pld), Err(DecodeError::Invalid { addr: HERE }));
        // 8LS with lbz; pnop before b; MLS with a prefix; a reserved type of prefix; MMIRR with fadds
        let none = [
            [0x0400_0000, 0x8864_0000],
            [0x0700_0000, 0x4800_0000],
            [0x0600_0000, 0x0600_0000],
            [0x0720_0000, 0x6000_0000],
            [0x0790_0000, 0x6000_0000],
        ];
        for words in none {
            assert_eq!(BIG.decode(HERE, &big(&words)), Err(DecodeError::Invalid { addr: HERE }), "{words:x?}");
        }
    }

    #[test]
    fn boundaries_are_words_but_no_suffixes() {
        // nop; pld r3,0(r4); blr
        let text = big(&[0x6000_0000, 0x0400_0000, 0xe464_0000, 0x4e80_0020]);
        let found: Vec<u64> = (0..16).filter(|offset| BIG.check_boundary(HERE, &text, *offset).is_ok()).collect();
        assert_eq!(found, [0, 4, 12]);
        let start = HERE.wrapping_add(4);
        let inside = BoundaryError::Inside { addr: HERE.wrapping_add(8), start, len: 8 };
        assert_eq!(BIG.check_boundary(HERE, &text, 8), Err(inside));
        let unaligned = BoundaryError::Unaligned { addr: HERE.wrapping_add(6), align: 4 };
        assert_eq!(BIG.check_boundary(HERE, &text, 6), Err(unaligned));
        assert_eq!(NARROW.check_boundary(HERE, &text, 8), Ok(()));
        assert_eq!(BIG.check_boundary(HERE, &text, u64::MAX - 3), Ok(()), "nobody knows the text");
    }

    #[test]
    fn accesses_are_told_from_arithmetic() {
        let accesses = |words: &[u32]| accesses_memory(BIG.instruction(HERE, &big(words)).expect("an instruction"));
        let yes: [(&str, &[u32]); 22] = [
            ("lwz", &[0x8064_0000]),
            ("stdu", &[0xf821_ffa1]),
            ("lmw", &[0xbba4_0000]),
            ("lq", &[0xe0c3_0000]),
            ("lfd", &[0xc821_0000]),
            ("lxv", &[0xf421_0001]),
            ("lxvp", &[0x1840_0000]),
            ("ldx", &[0x7c64_282a]),
            ("lwzx", &[0x7c64_282e]),
            ("lbzux", &[0x7c64_28ee]),
            ("lwarx", &[0x7c60_2028]),
            ("stwcx.", &[0x7c60_212d]),
            ("lwbrx", &[0x7c64_2c2c]),
            ("lvx", &[0x7c20_20ce]),
            ("lxvd2x", &[0x7c20_2698]),
            ("lfdx", &[0x7c20_24ae]),
            ("dcbz", &[0x7c00_27ec]),
            ("icbi", &[0x7c00_27ac]),
            ("lwepx", &[0x7c60_203e]),
            ("evldd", &[0x1064_0b01]),
            ("pld", &[0x0400_0000, 0xe464_0000]),
            ("plbz", &[0x0600_0000, 0x8864_0000]),
        ];
        for (text, words) in yes {
            assert!(accesses(words), "{text}");
        }
        let no: [(&str, &[u32]); 14] = [
            ("nop", &[0x6000_0000]),
            ("mflr r0", &[0x7c08_02a6]),
            ("add", &[0x7c64_2a14]),
            ("mulld", &[0x7c64_29d2]),
            ("srad", &[0x7c83_2e34]),
            ("isel", &[0x7c64_289e]),
            ("sync", &[0x7c00_04ac]),
            ("eieio", &[0x7c00_06ac]),
            ("bl", &[0x4800_0041]),
            ("lvsl", &[0x7c20_200c]),
            ("fadd", &[0xfc22_182a]),
            ("mtspr", &[0x7c68_03a6]),
            ("pli", &[0x0601_2345, 0x3860_6789]),
            ("pnop", &[0x0700_0000, 0x0000_0000]),
        ];
        for (text, words) in no {
            // A suffix of zeroes is that of pnop.
            assert!(!accesses(words), "{text}");
        }
    }
}
