//! The instruction that is executed in another's place: spelt in hexadecimal, decoded when its probe is known.

use std::fmt;

use qkprobe_arch::{DecodeError, MAX_INSN_BYTES};

use super::Shown;
use crate::command::Definition;
use crate::diag::Diagnostic;
use crate::target::Target;

/// The longest instruction of any guest (x86).
const MAX_BYTES: usize = 15;

/// What is executed in place of the probed instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// Nothing; the guest goes on behind the instruction.
    Nop,
    /// One instruction of the guest, 1 to 15 bytes.
    Bytes(Box<[u8]>),
}

/// As in an option: `nop`, `0f1f00`.
impl fmt::Display for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nop => f.write_str("nop"),
            Self::Bytes(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

impl Replacement {
    /// Reads `nop`, or bytes in hexadecimal, with blanks between them or without.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.trim() == "nop" {
            return Ok(Self::Nop);
        }
        let mut bytes = Vec::new();
        for group in text.split_ascii_whitespace() {
            let digits: Option<Vec<u8>> =
                group.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
            let digits = digits.ok_or_else(|| format!("'{group}' is neither 'nop' nor bytes in hexadecimal"))?;
            if digits.len() % 2 != 0 {
                return Err(format!("'{group}' has {} digits: a byte has two", digits.len()));
            }
            bytes.extend(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)));
        }
        match bytes.len() {
            0 => Err("the instruction's bytes are missing".to_owned()),
            1..=MAX_BYTES => Ok(Self::Bytes(bytes.into())),
            len => Err(format!("{len} bytes: an instruction has at most {MAX_BYTES}")),
        }
    }

    /// Checks that the bytes are one instruction.
    pub(super) fn check(&self, shown: &Shown, definition: &Definition, target: &dyn Target) -> Result<(), Diagnostic> {
        let Self::Bytes(bytes) = self else { return Ok(()) };
        let at = "replace=".len();
        let addr = definition.place.address.unwrap_or_default();
        let is_beginning = |bytes: &[u8]| {
            let mut longer = [0; MAX_INSN_BYTES];
            longer.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            target.arch().decode(addr, &longer).is_ok()
        };
        match target.arch().decode(addr, bytes) {
            Ok(insn) if usize::from(insn.len) == bytes.len() => Ok(()),
            Ok(insn) => {
                let len = usize::from(insn.len);
                let text = format!("The instruction has {len} of the {} bytes", bytes.len());
                Err(shown
                    .error(at + len * 2, text)
                    .with_help("one instruction replaces one: leave out what follows it"))
            }
            // A decoder may miss bytes before it sees that nothing could follow.
            Err(DecodeError::CutShort { .. }) if is_beginning(bytes) => {
                Err(shown.error(at + bytes.len() * 2, format!("The instruction has more than {} bytes", bytes.len())))
            }
            Err(_) => Err(shown.error(at, format!("These bytes are no instruction of {}", target.arch().name()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        let bytes = |list: &[u8]| Ok(Replacement::Bytes(list.into()));
        assert_eq!(Replacement::parse("nop"), Ok(Replacement::Nop));
        assert_eq!(Replacement::parse("0f 1f 00"), bytes(&[0x0f, 0x1f, 0x00]));
        assert_eq!(Replacement::parse("0F1f00"), bytes(&[0x0f, 0x1f, 0x00]));
        for (text, error) in [
            ("", "the instruction's bytes are missing"),
            ("0f 1", "'1' has 1 digits: a byte has two"),
            ("0fx1", "'0fx1' is neither 'nop' nor bytes in hexadecimal"),
            ("00000000000000000000000000000000", "16 bytes: an instruction has at most 15"),
        ] {
            assert_eq!(Replacement::parse(text), Err(error.to_owned()), "{text}");
        }
    }
}
