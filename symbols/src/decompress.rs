//! Unpacking with a limit. The method is recognised by its magic; whatever follows the compressed stream (the kernel
//! build appends the unpacked size) is left alone.

use std::io::Read;

use crate::MAX_IMAGE_BYTES;
use crate::error::ErrorKind;
use crate::lzop;

/// A method that Linux kernels are packed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Gzip,
    Xz,
    /// The "legacy" frame, which is what `lz4 -l` in the kernel's build writes.
    Lz4,
    Zstd,
    /// The format before xz.
    Lzma,
    Bzip2,
    /// LZO in the container of `lzop`.
    Lzo,
}

/// All of them, for messages.
pub(crate) const METHOD_NAMES: &str = "gzip, bzip2, lzma, xz, lzo, lz4, zstd";

/// The block size of the legacy LZ4 frame.
const LZ4_BLOCK_BYTES: usize = 8 << 20;
/// The most that xz and lzma may use for themselves: kernels are packed with dictionaries of at most 128 MiB.
const LZMA_MEMORY_BYTES: u64 = 300 << 20;

impl Method {
    /// The method whose magic `bytes` begin with.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x02, 0x21, 0x4c, 0x18, ..] => Some(Self::Lz4),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Some(Self::Bzip2),
            // Properties byte lc=3 lp=0 pb=2, and a dictionary of a power of two: the low bytes are zero.
            [0x5d, 0, 0, _, _, ..] => Some(Self::Lzma),
            _ if bytes.starts_with(lzop::MAGIC) => Some(Self::Lzo),
            _ => None,
        }
    }

    /// The name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Lzma => "lzma",
            Self::Bzip2 => "bzip2",
            Self::Lzo => "lzo",
        }
    }

    /// Unpacks the stream that `bytes` begin with. `offset` is where it lies in the file, for messages.
    ///
    /// # Errors
    /// Corrupt or cut short, or more than [`MAX_IMAGE_BYTES`].
    pub(crate) fn unpack(self, bytes: &[u8], offset: usize) -> Result<Vec<u8>, ErrorKind> {
        self.unpack_at_most(MAX_IMAGE_BYTES, bytes, offset)
    }

    fn unpack_at_most(self, limit: usize, bytes: &[u8], offset: usize) -> Result<Vec<u8>, ErrorKind> {
        let failed = |reason: String| ErrorKind::Unpack { method: self.name(), offset, reason };
        let told = |error| match error {
            Failure::TooBig => too_big(limit),
            Failure::Corrupt(reason) => failed(reason),
        };
        let xz = |stream: Result<liblzma::stream::Stream, liblzma::stream::Error>| match stream {
            Ok(stream) => self.read_all(limit, liblzma::bufread::XzDecoder::new_stream(bytes, stream), offset),
            Err(error) => Err(failed(error.to_string())),
        };
        match self {
            Self::Gzip => self.read_all(limit, flate2::bufread::GzDecoder::new(bytes), offset),
            Self::Bzip2 => self.read_all(limit, bzip2::bufread::BzDecoder::new(bytes), offset),
            Self::Xz => xz(liblzma::stream::Stream::new_stream_decoder(LZMA_MEMORY_BYTES, 0)),
            Self::Lzma => xz(liblzma::stream::Stream::new_lzma_decoder(LZMA_MEMORY_BYTES)),
            Self::Zstd => match ruzstd::decoding::StreamingDecoder::new(bytes) {
                Ok(decoder) => self.read_all(limit, decoder, offset),
                Err(error) => Err(failed(error.to_string())),
            },
            Self::Lz4 => unpack_lz4_legacy(limit, bytes).map_err(told),
            Self::Lzo => lzop::unpack(limit, bytes).map_err(told),
        }
    }

    fn read_all(self, limit: usize, reader: impl Read, offset: usize) -> Result<Vec<u8>, ErrorKind> {
        let mut unpacked = Vec::new();
        reader.take(limit as u64 + 1).read_to_end(&mut unpacked).map_err(|error| ErrorKind::Unpack {
            method: self.name(),
            offset,
            reason: error.to_string(),
        })?;
        if unpacked.is_empty() {
            return Err(ErrorKind::Unpack { method: self.name(), offset, reason: "there is nothing in it".into() });
        }
        if unpacked.len() > limit { Err(too_big(limit)) } else { Ok(unpacked) }
    }
}

fn too_big(limit: usize) -> ErrorKind {
    ErrorKind::TooBig { what: "unpacks to", limit, advice: "unpack it, and give the vmlinux" }
}

/// Why blocks give nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// More than the limit.
    TooBig,
    /// Corrupt, cut short, or of a kind that no kernel has.
    Corrupt(String),
}

/// Magic, then blocks: a little-endian length and that many packed bytes, each unpacking to at most 8 MiB. The
/// frame has no end mark: it ends with the file, or where a length does not fit, which is the unpacked size that
/// the kernel's build appends.
fn unpack_lz4_legacy(limit: usize, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut unpacked = Vec::new();
    let mut rest = bytes.get(4..).unwrap_or_default();
    let mut block = vec![0; LZ4_BLOCK_BYTES];
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = u32::from_le_bytes(*length);
        let Some((packed, next)) = after.split_at_checked(length as usize) else {
            if after.is_empty() && unpacked.len() as u64 & 0xffff_ffff == u64::from(length) {
                break;
            }
            return Err(Failure::Corrupt(format!("a block of {length} bytes, but only {} are left", after.len())));
        };
        let count = lz4_flex::block::decompress_into(packed, &mut block)
            .map_err(|error| Failure::Corrupt(error.to_string()))?;
        if unpacked.len() + count > limit {
            return Err(Failure::TooBig);
        }
        unpacked.extend_from_slice(block.get(..count).unwrap_or_default());
        rest = next;
    }
    if unpacked.is_empty() || (1..4).contains(&rest.len()) {
        return Err(Failure::Corrupt("it ends in the middle of a block's length".into()));
    }
    Ok(unpacked)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    /// What a kernel's build offers (`init/Kconfig`), but for no packing at all.
    pub(crate) const METHODS: [Method; 7] =
        [Method::Gzip, Method::Xz, Method::Lz4, Method::Zstd, Method::Lzma, Method::Bzip2, Method::Lzo];

    /// Packs as the kernel's build does, without the appended size.
    pub(crate) fn pack(method: Method, bytes: &[u8]) -> Vec<u8> {
        let encode = |stream: liblzma::stream::Stream| {
            let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        match method {
            Method::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Method::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Method::Xz => encode(liblzma::stream::Stream::new_easy_encoder(1, liblzma::stream::Check::Crc32).unwrap()),
            Method::Lzma => {
                let options = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
                encode(liblzma::stream::Stream::new_lzma_encoder(&options).unwrap())
            }
            Method::Lzo => crate::lzop::tests::pack(bytes),
            Method::Zstd => ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest),
            Method::Lz4 => {
                let mut packed = vec![0x02, 0x21, 0x4c, 0x18];
                for block in bytes.chunks(LZ4_BLOCK_BYTES) {
                    let block = lz4_flex::block::compress(block);
                    packed.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
                    packed.extend(block);
                }
                packed
            }
        }
    }

    fn sample() -> Vec<u8> {
        (0..100_000u32).flat_map(|number| (number / 7 * number % 251).to_le_bytes()).collect()
    }

    #[test]
    fn every_method_with_and_without_what_follows() {
        let sample = sample();
        for method in METHODS {
            let mut packed = pack(method, &sample);
            assert_eq!(Method::of(&packed), Some(method));
            assert!(method.unpack(&packed, 0).unwrap() == sample, "{method:?}");
            packed.extend(400_000u32.to_le_bytes());
            assert!(method.unpack(&packed, 0).unwrap() == sample, "{method:?} with its size appended");
        }
    }

    #[test]
    fn several_lz4_blocks() {
        let long: Vec<u8> = sample().into_iter().cycle().take(LZ4_BLOCK_BYTES + 5).collect();
        assert!(Method::Lz4.unpack(&pack(Method::Lz4, &long), 0).unwrap() == long);
    }

    #[test]
    fn a_stream_cut_short_is_an_error_that_names_method_and_place() {
        for method in METHODS {
            let packed = pack(method, &sample());
            for cut in [7, 30, packed.len() / 2, packed.len() - 20] {
                let error = method.unpack(&packed[..cut], 0x1234).unwrap_err().to_string();
                assert!(error.contains(method.name()) && error.contains("0x1234"), "{method:?} at {cut}: {error}");
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let zeros = vec![0; 1_000_000];
        for method in METHODS {
            let packed = pack(method, &zeros);
            assert!(packed.len() < 20_000, "{method:?} packs zeros well");
            let error = method.unpack_at_most(999_999, &packed, 0).unwrap_err();
            assert!(matches!(error, ErrorKind::TooBig { limit: 999_999, .. }), "{method:?}: {error}");
            assert_eq!(method.unpack_at_most(1_000_000, &packed, 0).unwrap().len(), 1_000_000);
        }
    }
}
