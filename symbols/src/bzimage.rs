//! x86 bzImage: the boot header says where the packed vmlinux lies (Linux `Documentation/arch/x86/boot.rst`).

use qkprobe_arch::ByteOrder;

use crate::bytes::{beginning, read_u16, read_u32};
use crate::decompress::{METHOD_NAMES, Method};
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
    let cut = |what, offset: usize| ErrorKind::CutShort { what, offset: offset as u64, have: bytes.len() as u64 };
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
        Some(method) => {
            let unpacked = method.unpack(payload, offset)?;
            // The boot code itself relies on it (`arch/x86/boot/compressed/mkpiggy.c`), and lz4 has no checksum.
            let stated = payload.len().checked_sub(4).and_then(|at| read_u32(payload, at, ByteOrder::Little));
            if stated.map(|stated| stated as usize) != Some(unpacked.len()) {
                let reason = format!(
                    "{} bytes came out, and its last 4 bytes say {}",
                    unpacked.len(),
                    stated.unwrap_or_default()
                );
                return Err(ErrorKind::Unpack { method: method.name(), offset, reason });
            }
            Ok(unpacked)
        }
        None if payload.starts_with(b"\x7fELF") => Ok(payload.to_vec()),
        None => Err(unusable(format!(
            "its payload at {offset:#x} begins with {}, which is no ELF file and none of {METHOD_NAMES}",
            beginning(payload)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Layout, PerCpu, bzimage, stripped_kernel};
    use crate::{KernelImage, Machine};

    /// By LZ4, as that has no checksum. The size is appended.
    fn packed() -> Vec<u8> {
        let kernel = stripped_kernel(Layout::Behind, PerCpu::Plain, 5);
        let mut payload = crate::decompress::tests::pack(crate::decompress::Method::Lz4, &kernel);
        payload.extend(u32::try_from(kernel.len()).unwrap().to_le_bytes());
        bzimage(&payload)
    }

    #[test]
    fn opens_to_the_kernel_inside() {
        let image = KernelImage::parse("vmlinuz", packed()).unwrap();
        assert_eq!((image.machine, image.symbols.len()), (Machine::X86_64, 14));
        let plain = bzimage(&stripped_kernel(Layout::Behind, PerCpu::Plain, 5));
        assert_eq!(KernelImage::parse("vmlinuz", plain).unwrap().symbols.len(), 14);
    }

    #[test]
    fn headers_that_lie() {
        let with = |offset: usize, bytes: &[u8]| {
            let mut bad = packed();
            bad[offset..offset + bytes.len()].copy_from_slice(bytes);
            KernelImage::parse("vmlinuz", bad).unwrap_err().to_string()
        };
        assert!(with(0x206, &[0x07, 0x02]).contains("boot protocol 2.07"));
        assert!(with(0x248, &[0xff; 4]).contains("the packed kernel"));
        assert!(with(0x24c, &[0xff; 4]).contains("the packed kernel"));
        assert!(with(0x248, &[0; 4]).contains("none of gzip, bzip2"));
        assert!(with(0x24c, &[20, 0, 0, 0]).contains("lz4 data at byte 0x410"));
        let size = packed().len() - 16 - 4;
        assert!(with(size, &[1, 2, 0, 0]).contains("513"));
        // 0 sectors mean 4.
        assert!(with(0x1f1, &[0]).contains("at byte 0xa10"));
        let mut short = packed();
        short.truncate(0x240);
        assert!(KernelImage::parse("vmlinuz", short).unwrap_err().to_string().contains("the boot header"));
    }
}
