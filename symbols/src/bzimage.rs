//! x86 bzImage: the boot header says where the packed vmlinux lies (Linux `Documentation/arch/x86/boot.rst`).

use qkprobe_arch::ByteOrder;

use crate::bytes::{read_u16, read_u32};
use crate::decompress::Method;
use crate::error::ErrorKind;

/// Offsets of the boot header's fields.
const SETUP_SECTS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const HEADER_MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// Does the file begin with an x86 Linux boot sector?
pub(crate) fn is_bzimage(bytes: &[u8]) -> bool {
    bytes.get(HEADER_MAGIC..HEADER_MAGIC + 4) == Some(b"HdrS")
        && bytes.get(BOOT_FLAG..BOOT_FLAG + 2) == Some(&[0x55, 0xaa])
}

/// The vmlinux inside.
///
/// # Errors
/// The header points nowhere, the protocol is older than Linux 2.6.26, or the payload is corrupt.
pub(crate) fn unpack(bytes: &[u8]) -> Result<Vec<u8>, ErrorKind> {
    let unusable = |what: String| ErrorKind::BzImage(what);
    let cut = |what, offset: usize| ErrorKind::CutShort { what, offset: offset as u64, have: bytes.len() };
    let field = |offset| read_u32(bytes, offset, ByteOrder::Little).ok_or_else(|| cut("the boot header", offset));
    let version = read_u16(bytes, VERSION, ByteOrder::Little).ok_or_else(|| cut("the boot header", VERSION))?;
    if version < 0x208 {
        return Err(unusable(format!(
            "boot protocol {}.{:02} does not say where the kernel lies, 2.08 (Linux 2.6.26) and later do",
            version >> 8,
            version & 0xff
        )));
    }
    let setup_sectors = match bytes.get(SETUP_SECTS) {
        // For historical reasons.
        Some(0) => 4,
        Some(count) => usize::from(*count),
        None => return Err(cut("the boot header", SETUP_SECTS)),
    };
    let offset = (setup_sectors + 1) * 512 + field(PAYLOAD_OFFSET)? as usize;
    let length = field(PAYLOAD_LENGTH)? as usize;
    let payload =
        bytes.get(offset..).and_then(|rest| rest.get(..length)).ok_or_else(|| cut("the packed kernel", offset))?;
    match Method::of(payload) {
        Some(method) => method.unpack(payload, offset),
        None if payload.starts_with(b"\x7fELF") => Ok(payload.to_vec()),
        None => Err(unusable(format!(
            "its payload at {offset:#x} begins with {:02x?}, which is none of gzip, xz, lz4, zstd, lzma, bzip2, ELF",
            payload.get(..6).unwrap_or(payload)
        ))),
    }
}
