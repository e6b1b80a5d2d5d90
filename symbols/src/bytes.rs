//! Reads of numbers at untrusted offsets: out of range is `None`, never a panic.

use qkprobe_arch::ByteOrder;

/// The 2-byte number at `offset`.
pub(crate) fn read_u16(bytes: &[u8], offset: usize, order: ByteOrder) -> Option<u16> {
    let raw = *bytes.get(offset..)?.first_chunk()?;
    Some(match order {
        ByteOrder::Little => u16::from_le_bytes(raw),
        ByteOrder::Big => u16::from_be_bytes(raw),
    })
}

/// The 4-byte number at `offset`.
pub(crate) fn read_u32(bytes: &[u8], offset: usize, order: ByteOrder) -> Option<u32> {
    let raw = *bytes.get(offset..)?.first_chunk()?;
    Some(match order {
        ByteOrder::Little => u32::from_le_bytes(raw),
        ByteOrder::Big => u32::from_be_bytes(raw),
    })
}

/// The number of one guest word (4 or 8 bytes) at `offset`.
pub(crate) fn read_word(bytes: &[u8], offset: usize, order: ByteOrder, word_bytes: usize) -> Option<u64> {
    if word_bytes == 4 {
        return read_u32(bytes, offset, order).map(u64::from);
    }
    let raw = *bytes.get(offset..)?.first_chunk()?;
    Some(match order {
        ByteOrder::Little => u64::from_le_bytes(raw),
        ByteOrder::Big => u64::from_be_bytes(raw),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_byte_order_and_stop_at_the_end() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(read_u16(&bytes, 6, ByteOrder::Little), Some(0x0807));
        assert_eq!(read_u16(&bytes, 7, ByteOrder::Little), None);
        assert_eq!(read_u32(&bytes, 1, ByteOrder::Big), Some(0x0203_0405));
        assert_eq!(read_word(&bytes, 0, ByteOrder::Big, 8), Some(0x0102_0304_0506_0708));
        assert_eq!(read_word(&bytes, 4, ByteOrder::Little, 4), Some(0x0807_0605));
        assert_eq!(read_u32(&bytes, usize::MAX, ByteOrder::Big), None);
    }
}
