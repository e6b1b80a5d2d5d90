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

/// What a file or payload begins with, for messages: text in quotes, else the bytes.
pub(crate) fn beginning(bytes: &[u8]) -> String {
    let start = bytes.get(..16).unwrap_or(bytes);
    let line = start.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
    if line.len() >= 4 && line.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        return format!("{:?}", String::from_utf8_lossy(line));
    }
    let bytes: Vec<String> = start.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("the bytes {}", bytes.join(" "))
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

    #[test]
    fn a_beginning_is_told_as_text_where_it_is_text() {
        assert_eq!(beginning(b"root:x:0:0:root:/root:/bin/bash\n"), "\"root:x:0:0:root:\"");
        assert_eq!(beginning(b"#!/bin/sh\nexec x"), "\"#!/bin/sh\"");
        assert_eq!(beginning(b"say \"hi\"\tno"), "\"say \\\"hi\\\"\\tno\"");
        assert_eq!(beginning(b"\x04\x22\x4d\x18\x64\x70\xb9\0\xff"), "the bytes 04 22 4d 18 64 70 b9 00");
        assert_eq!(beginning(b"\xc3\xa4\xc3\xb6\xc3\xbc"), "the bytes c3 a4 c3 b6 c3 bc");
        assert_eq!(beginning(b"MZ"), "the bytes 4d 5a");
    }
}
