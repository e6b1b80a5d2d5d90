//! The instructions of a function, from another source than the decoder under test: objdump on x86 ([`x86`]), and where all
//! instructions have one length the few words that matter, by the manuals ([`powerpc`], [`sparc64`]).

mod powerpc;
mod sparc64;
mod x86;

use std::collections::BTreeSet;

use qkprobe_symbols::{GuestAddr, KernelImage};
use qkprobe_tests::GuestArch;

use crate::functions::Function;

/// What an instruction does, as far as it decides what can be said of counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Changes registers or the kernel's stack, cannot fault, and goes on at the next one.
    Plain,
    /// Goes on at the next one, or faults; or the kernel may have put another one there.
    Other,
    /// Goes there, or to the next one.
    Branch(u64),
    /// Goes there.
    Jump(u64),
    /// Goes to a place that the code does not tell.
    Indirect,
    /// Goes back to the caller.
    Return,
    /// Goes to another function, and comes back behind it.
    Call,
}

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Insn {
    /// Its distance from the function's symbol.
    pub(crate) offset: u64,
    pub(crate) kind: Kind,
}

/// A function's instructions.
#[derive(Clone, Debug)]
pub(crate) struct Code {
    pub(crate) insns: Vec<Insn>,
    /// It was made by a C compiler, so nobody comes into its middle from elsewhere.
    pub(crate) is_c: bool,
    /// Where the instruction goes that stands behind it, so that it can be the other part of a branch.
    has_slots: bool,
}

impl Code {
    /// Pairs of instructions of which both are executed whenever one of them is: nothing but [`Kind::Plain`] ones from the first
    /// to before the second, and nobody jumps between. `targets` are the places where somebody comes from elsewhere.
    pub(crate) fn pairs(&self, function: &Function, targets: &BTreeSet<u64>) -> Vec<(u64, u64)> {
        let mut pairs = Vec::new();
        let inside: BTreeSet<u64> = self.insns.iter().filter_map(|insn| insn.kind.target()).collect();
        let is_target = |addr: u64| targets.contains(&addr) || inside.contains(&addr);
        for (first, insn) in self.insns.iter().enumerate() {
            let in_slot = first.checked_sub(1).and_then(|before| self.insns.get(before));
            if self.has_slots && in_slot.is_none_or(|before| !matches!(before.kind, Kind::Plain | Kind::Other)) {
                continue;
            }
            let mut last = None;
            for window in self.insns.get(first..).unwrap_or_default().windows(2) {
                let [this, next] = window else { break };
                if this.kind != Kind::Plain || is_target(function.addr + next.offset) {
                    break;
                }
                last = Some(next.offset);
            }
            pairs.extend(last.map(|last| (insn.offset, last)));
        }
        pairs
    }

    /// Whether all its jumps go to places within it, or to where others begin. Else somebody may come back from elsewhere.
    pub(crate) fn is_closed(&self, function: &Function, is_begin: impl Fn(u64) -> bool) -> bool {
        let inside = function.addr..function.addr + function.size;
        let mut targets = self.insns.iter().filter_map(|insn| insn.kind.target());
        targets.all(|target| inside.contains(&target) || is_begin(target))
    }

    /// Every instruction by which a call of the function ends, if that is known: returns, and jumps to the begin of others.
    pub(crate) fn exits(&self, function: &Function, is_begin: impl Fn(u64) -> bool) -> Option<Vec<u64>> {
        let inside = function.addr..function.addr + function.size;
        let mut exits = Vec::new();
        for insn in &self.insns {
            match insn.kind {
                Kind::Return => exits.push(insn.offset),
                Kind::Jump(target) if !inside.contains(&target) && is_begin(target) => exits.push(insn.offset),
                Kind::Jump(target) | Kind::Branch(target) if target == function.addr || !inside.contains(&target) => {
                    return None;
                }
                Kind::Indirect => return None,
                _ => {}
            }
        }
        (self.is_c && !exits.is_empty()).then_some(exits)
    }
}

impl Kind {
    /// Where it goes, if that is told.
    pub(crate) fn target(self) -> Option<u64> {
        match self {
            Self::Branch(target) | Self::Jump(target) => Some(target),
            _ => None,
        }
    }
}

/// The instructions of these functions, in their order; none where they cannot be told.
///
/// # Errors
/// objdump is missing or does not say what it used to.
pub(crate) fn read(arch: GuestArch, image: &KernelImage, functions: &[Function]) -> Result<Vec<Option<Code>>, String> {
    let bytes =
        |function: &Function| image.bytes(GuestAddr(function.addr), usize::try_from(function.size).unwrap_or(0));
    let words = |function: &Function| {
        let word = |bytes: &[u8]| {
            let bytes: [u8; 4] = bytes.try_into().unwrap_or_default();
            if arch == GuestArch::Ppc64le { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }
        };
        Some(bytes(function)?.chunks_exact(4).map(word).collect::<Vec<u32>>())
    };
    Ok(match arch {
        GuestArch::X86_64 | GuestArch::I386 => x86::read(arch == GuestArch::X86_64, functions, bytes)?,
        GuestArch::Sparc64 => functions.iter().map(|f| words(f).map(|words| sparc64::read(f.addr, &words))).collect(),
        _ => functions.iter().map(|f| words(f).map(|words| powerpc::read(f.addr, &words))).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(kinds: &[Kind], has_slots: bool) -> Code {
        let insns = (0u64..).zip(kinds).map(|(place, kind)| Insn { offset: place * 4, kind: *kind }).collect();
        Code { insns, is_c: true, has_slots }
    }

    const FUNCTION: Function = Function { name: String::new(), addr: 0x1000, size: 0x20 };

    #[test]
    fn pairs_end_at_targets_and_at_what_may_fault() {
        use Kind::{Branch, Other, Plain, Return};
        let straight = code(&[Plain, Plain, Other, Plain, Return], false);
        assert_eq!(straight.pairs(&FUNCTION, &BTreeSet::new()), [(0, 8), (4, 8), (12, 16)]);
        let elsewhere = BTreeSet::from([0x1008]);
        assert_eq!(straight.pairs(&FUNCTION, &elsewhere), [(0, 4), (12, 16)]);
        // Somebody jumps to the second one.
        let jumped = code(&[Plain, Plain, Branch(0x1004)], false);
        assert_eq!(jumped.pairs(&FUNCTION, &BTreeSet::new()), [(4, 8)]);
        // What stands in the slot of a branch goes where the branch goes.
        let slots = code(&[Plain, Branch(0x1000), Plain, Plain, Plain], true);
        assert_eq!(slots.pairs(&FUNCTION, &BTreeSet::new()), [(12, 16)]);
    }

    #[test]
    fn exits_of_what_is_understood() {
        use Kind::{Branch, Indirect, Jump, Plain, Return};
        let begin = |addr| addr == 0x2000;
        assert_eq!(code(&[Plain, Return, Jump(0x2000)], false).exits(&FUNCTION, begin), Some(vec![4, 8]));
        assert_eq!(code(&[Branch(0x1008), Return, Plain, Jump(0x1004)], false).exits(&FUNCTION, begin), Some(vec![4]));
        for unknown in [Jump(0x3000), Branch(0x2000), Indirect, Branch(0x1000)] {
            assert_eq!(code(&[unknown, Return], false).exits(&FUNCTION, begin), None, "{unknown:?}");
        }
        assert_eq!(code(&[Plain], false).exits(&FUNCTION, begin), None);
    }
}
