//! The container that `lzop` writes, which is what CONFIG_KERNEL_LZO packs with: a header, then blocks, big-endian.
//!
//! | part | fields |
//! | --- | --- |
//! | header | magic, version, library's version, version needed to unpack, method, level, flags, [filter], mode, time (8 bytes), length of a file name, file name, checksum; [extra field: length, data, checksum] |
//! | block | unpacked length (0 ends the stream), packed length, [checksums of the unpacked and of the packed data], data |
//!
//! A block that does not shrink is stored as it is. Each flag below says that a part in brackets is there.

use qkprobe_arch::ByteOrder;

use crate::bytes::{read_u16, read_u32};
use crate::decompress::Failure;

/// What the file begins with.
pub(crate) const MAGIC: &[u8] = b"\x89LZO\0\r\n\x1a\n";

const ADLER32_UNPACKED: u32 = 1;
const ADLER32_PACKED: u32 = 2;
const EXTRA_FIELD: u32 = 0x40;
const CRC32_UNPACKED: u32 = 0x100;
const CRC32_PACKED: u32 = 0x200;
const MULTIPART: u32 = 0x400;
const FILTER: u32 = 0x800;
/// The header's checksum is a CRC-32, not an Adler-32.
const CRC32_HEADER: u32 = 0x1000;
/// LZO1X_1, LZO1X_1(15), LZO1X_999: one format.
const METHODS: std::ops::RangeInclusive<u8> = 1..=3;
/// The version from which on `version needed`, `level` and the upper half of the time are there.
const VERSION_WITH_LEVEL: u16 = 0x0940;
/// lzop's own limit.
const MAX_BLOCK_BYTES: usize = 64 << 20;

/// Reads from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Failure> {
        let (front, rest) =
            self.0.split_at_checked(count).ok_or_else(|| Failure::Corrupt("it ends in the middle".into()))?;
        self.0 = rest;
        Ok(front)
    }

    fn byte(&mut self) -> Result<u8, Failure> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    fn half(&mut self) -> Result<u16, Failure> {
        Ok(read_u16(self.take(2)?, 0, ByteOrder::Big).unwrap_or_default())
    }

    fn word(&mut self) -> Result<u32, Failure> {
        Ok(read_u32(self.take(4)?, 0, ByteOrder::Big).unwrap_or_default())
    }
}

/// Unpacks what `bytes`, which begin with [`MAGIC`], hold. What follows the stream is left alone.
///
/// # Errors
/// Corrupt, or more than `limit` bytes.
pub(crate) fn unpack(limit: usize, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let corrupt = |what: String| Err(Failure::Corrupt(what));
    let mut reader = Reader(bytes);
    let flags = header(&mut reader)?;
    let mut unpacked = Vec::new();
    loop {
        let length = reader.word()? as usize;
        if length == 0 {
            break;
        }
        let packed_length = reader.word()? as usize;
        if length > MAX_BLOCK_BYTES || packed_length > length {
            return corrupt(format!("a block of {packed_length} bytes that unpacks to {length}"));
        }
        let mut checksum = |flag: u32| if flags & flag == 0 { Ok(None) } else { reader.word().map(Some) };
        let (adler, crc) = (checksum(ADLER32_UNPACKED)?, checksum(CRC32_UNPACKED)?);
        if packed_length < length {
            // Of the packed data; those of the unpacked data say more.
            checksum(ADLER32_PACKED)?;
            checksum(CRC32_PACKED)?;
        }
        let data = reader.take(packed_length)?;
        let start = unpacked.len();
        if start + length > limit {
            return Err(Failure::TooBig);
        }
        if packed_length == length {
            unpacked.extend_from_slice(data);
        } else {
            unpacked.resize(start + length, 0);
            let block = unpacked.get_mut(start..).unwrap_or_default();
            match lzokay::decompress::decompress(data, block) {
                Ok(count) if count == length => {}
                Ok(count) => return corrupt(format!("a block of {length} bytes unpacks to {count}")),
                Err(error) => return corrupt(error.to_string()),
            }
        }
        let block = unpacked.get(start..).unwrap_or_default();
        if adler.is_some_and(|sum| sum != adler32(block)) || crc.is_some_and(|sum| sum != crc32(block)) {
            return corrupt(format!("the checksum of the block at {start:#x} is wrong"));
        }
    }
    if unpacked.is_empty() {
        return corrupt("there is nothing in it".into());
    }
    Ok(unpacked)
}

/// Passes the header; returns the flags.
fn header(reader: &mut Reader<'_>) -> Result<u32, Failure> {
    let corrupt = |what: String| Err(Failure::Corrupt(what));
    let whole = reader.0;
    reader.take(MAGIC.len())?;
    let version = reader.half()?;
    reader.half()?;
    if version >= VERSION_WITH_LEVEL {
        reader.half()?;
    }
    let method = reader.byte()?;
    if !METHODS.contains(&method) {
        return corrupt(format!("its method is {method}, and lzop knows 1 to 3"));
    }
    if version >= VERSION_WITH_LEVEL {
        reader.byte()?;
    }
    let flags = reader.word()?;
    if flags & (FILTER | MULTIPART) != 0 {
        return corrupt("it is filtered or one of several parts, which no kernel is".into());
    }
    // Mode and time.
    reader.take(if version >= VERSION_WITH_LEVEL { 12 } else { 8 })?;
    let name = usize::from(reader.byte()?);
    reader.take(name)?;
    let covered = whole.len() - reader.0.len();
    let sum = reader.word()?;
    let data = whole.get(MAGIC.len()..covered).unwrap_or_default();
    if sum != if flags & CRC32_HEADER == 0 { adler32(data) } else { crc32(data) } {
        return corrupt("the checksum of its header is wrong".into());
    }
    if flags & EXTRA_FIELD != 0 {
        let length = reader.word()? as usize;
        reader.take(length)?;
        reader.word()?;
    }
    Ok(flags)
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(bytes);
    sum.sum()
}

/// Adler-32 (RFC 1950).
fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65521;
    let (mut low, mut high) = (1u32, 0u32);
    // As many as can be added before 32 bits overflow.
    for chunk in bytes.chunks(5552) {
        for byte in chunk {
            low += u32::from(*byte);
            high += low;
        }
        low %= MODULUS;
        high %= MODULUS;
    }
    high << 16 | low
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The container without a name or checksums of blocks, as `lzop -F` writes it.
    pub(crate) fn pack(bytes: &[u8]) -> Vec<u8> {
        let mut header = vec![0x10, 0x40, 0x20, 0xa0, 0x09, 0x40, 3, 9];
        header.extend(CRC32_HEADER.to_be_bytes());
        header.extend([0; 13]);
        let sum = crc32(&header);
        let mut packed = [MAGIC, &header, &sum.to_be_bytes()].concat();
        for block in bytes.chunks(256 << 10) {
            let small = lzokay::compress::compress(block).unwrap();
            let small = if small.len() < block.len() { small } else { block.to_vec() };
            for length in [block.len(), small.len()] {
                packed.extend(u32::try_from(length).unwrap().to_be_bytes());
            }
            packed.extend(small);
        }
        packed.extend([0; 4]);
        packed
    }

    /// `(seq 1 700; head -c 3000 /dev/zero; echo end)`.
    fn sample() -> Vec<u8> {
        let numbers: String = (1..=700).map(|number| format!("{number}\n")).collect();
        [numbers.as_bytes(), &[0; 3000], b"end\n"].concat()
    }

    /// Written by lzop 1.04: `lzop -9`, with the file's name, and `lzop -1 --crc32` of standard input.
    const BY_LZOP: [&[u8]; 2] = [include_bytes!("golden/lzop-9.lzo"), include_bytes!("golden/lzop-1-crc.lzo")];

    #[test]
    fn what_lzop_wrote_is_read() {
        for packed in BY_LZOP {
            assert_eq!(unpack(1 << 20, packed).unwrap(), sample());
            let followed = [packed, b"what follows"].concat();
            assert_eq!(unpack(1 << 20, &followed).unwrap(), sample());
            assert!(matches!(unpack(5695, packed), Err(Failure::TooBig)));
        }
    }

    #[test]
    fn a_wrong_bit_is_found_out() {
        for packed in BY_LZOP {
            let (mut wrong, mut found) = (0, 0);
            for at in MAGIC.len()..packed.len() - 4 {
                for bit in 0..8 {
                    let mut bad = packed.to_vec();
                    bad[at] ^= 1 << bit;
                    // A match of other text that says the same does no harm.
                    let harmless = unpack(1 << 20, &bad).is_ok_and(|unpacked| unpacked == sample());
                    wrong += u32::from(!harmless && unpack(1 << 20, &bad).is_ok());
                    found += u32::from(!harmless);
                }
            }
            assert_eq!(wrong, 0);
            assert!(found * 100 > packed.len() as u32 * 8 * 95, "{found} of {}", packed.len() * 8);
            for length in MAGIC.len()..packed.len() {
                assert!(unpack(1 << 20, &packed[..length]).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn sizes_that_lie_take_no_memory() {
        let block = pack(&sample())[..pack(&[1]).len() - 4 - 1 - 8].to_vec();
        for (length, packed, says) in [(0xffff_ffffu32, 5u32, "a block of 5 bytes"), (10, 11, "a block of 11 bytes")] {
            let bad = [block.as_slice(), &length.to_be_bytes(), &packed.to_be_bytes(), &[0; 11]].concat();
            let Err(Failure::Corrupt(reason)) = unpack(1 << 20, &bad) else { panic!("{length}") };
            assert!(reason.contains(says), "{reason}");
        }
        let big = [block.as_slice(), &(64u32 << 20).to_be_bytes(), &5u32.to_be_bytes(), &[0; 5]].concat();
        assert!(matches!(unpack(1 << 20, &big), Err(Failure::TooBig)));
    }

    #[test]
    fn adler32_of_known_texts() {
        // As zlib has them.
        assert_eq!(adler32(b""), 1);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
        assert_eq!(adler32(&[0xff; 100_000]), 0x149a_302c);
    }
}
