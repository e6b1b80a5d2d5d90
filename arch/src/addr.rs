//! Guest addresses as a type of their own, so that they never mix with host pointers or lengths.

use std::fmt;

/// A virtual address of the guest. 32-bit guests use the low half.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GuestAddr(pub u64);

impl GuestAddr {
    /// The address `bytes` further on; wraps as the guest's own arithmetic does.
    #[must_use]
    pub const fn wrapping_add(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// How many bytes `self` lies above `base`; wraps.
    #[must_use]
    pub const fn wrapping_offset_from(self, base: Self) -> u64 {
        self.0.wrapping_sub(base.0)
    }
}

impl fmt::Debug for GuestAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for GuestAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Byte order of a guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

impl ByteOrder {
    /// An unsigned number of `bytes.len()` (at most 8; further bytes are ignored) bytes.
    #[inline]
    #[must_use]
    pub fn number(self, bytes: &[u8]) -> u64 {
        // What hits read most.
        if let Ok(bytes) = <[u8; 8]>::try_from(bytes) {
            return match self {
                Self::Little => u64::from_le_bytes(bytes),
                Self::Big => u64::from_be_bytes(bytes),
            };
        }
        self.number_of_any(bytes)
    }

    fn number_of_any(self, bytes: &[u8]) -> u64 {
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        let bytes = &bytes[..bytes.len().min(8)];
        match self {
            Self::Little => bytes.iter().rev().fold(0, fold),
            Self::Big => bytes.iter().fold(0, fold),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_byte_order() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!(ByteOrder::Little.number(&bytes[..4]), 0x0403_0201);
        assert_eq!(ByteOrder::Big.number(&bytes[..4]), 0x0102_0304);
        assert_eq!(ByteOrder::Little.number(&bytes), 0x0807_0605_0403_0201);
        assert_eq!(ByteOrder::Big.number(&bytes), 0x0102_0304_0506_0708);
        assert_eq!(ByteOrder::Little.number(&[]), 0);
        assert_eq!(ByteOrder::Big.number(&[0xff]), 0xff);
    }

    #[test]
    fn addresses_wrap_and_print_as_hexadecimal() {
        let last = GuestAddr(u64::MAX);
        assert_eq!(last.wrapping_add(2), GuestAddr(1));
        assert_eq!(GuestAddr(1).wrapping_offset_from(last), 2);
        assert_eq!(format!("{last} {last:?}"), "0xffffffffffffffff 0xffffffffffffffff");
    }
}
