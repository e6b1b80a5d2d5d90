//! Writes initramfs archives: `cpio` in its `newc` form (Linux `Documentation/driver-api/early-userspace/buffer-format.rst`).
//! The kernel unpacks archives that follow one another, so files are added to an initrd by appending an archive.

use std::collections::BTreeSet;
use std::io;

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;

/// One archive under construction. Folders above a file or device are added with it.
#[derive(Debug, Default)]
pub struct Initramfs {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
    is_too_large: bool,
}

impl Initramfs {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An archive with a static program as `/init`, and the console that the kernel opens for it.
    #[must_use]
    pub fn with_init(program: &[u8]) -> Self {
        Self::new().char_device("/dev/console", 5, 1).file("/init", 0o755, program)
    }

    /// Adds a file with its permissions (`0o755`, ...).
    #[must_use]
    pub fn file(self, path: &str, permissions: u32, data: &[u8]) -> Self {
        self.node(path, S_IFREG | permissions, (0, 0), data)
    }

    /// Adds a character device.
    #[must_use]
    pub fn char_device(self, path: &str, major: u32, minor: u32) -> Self {
        self.node(path, S_IFCHR | 0o600, (major, minor), &[])
    }

    /// The archive's bytes, with the trailer that ends it.
    ///
    /// # Errors
    /// A file has more than newc's 32 bits for a size.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        if self.is_too_large { Err(io::Error::other("too large for an initramfs")) } else { Ok(self.bytes) }
    }

    /// What [`Initramfs::finish`] gives, behind other archives.
    ///
    /// # Errors
    /// As there.
    pub fn append_to(self, mut archives: Vec<u8>) -> io::Result<Vec<u8>> {
        archives.resize(archives.len().next_multiple_of(4), 0);
        archives.extend(self.finish()?);
        Ok(archives)
    }

    fn node(mut self, path: &str, mode: u32, device: (u32, u32), data: &[u8]) -> Self {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            let folder = path.get(..at).unwrap_or_default();
            if !folder.is_empty() && self.folders.insert(folder.to_owned()) {
                self.entry(folder, S_IFDIR | 0o755, (0, 0), &[]);
            }
        }
        self.entry(path, mode, device, data);
        self
    }

    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), data: &[u8]) {
        let (Ok(size), Ok(name_size)) = (u32::try_from(data.len()), u32::try_from(path.len() + 1)) else {
            self.is_too_large = true;
            return;
        };
        let inode = self.entries;
        self.entries += 1;
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    /// Names and data are padded so that the next thing starts at a multiple of 4 of the archive.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Initramfs;

    #[test]
    fn files_with_their_folders_are_byte_for_byte_newc() {
        let archive = Initramfs::new().file("/a/b", 0o644, b"x\n").file("/a/c", 0o755, b"").finish().expect("small");
        let expected: &[u8] = b"\
            070701\
            00000000000041ed000000000000000000000001000000000000000000000000000000000000000000000000\
            0000000200000000\
            a\0\
            070701\
            00000001000081a4000000000000000000000001000000000000000200000000000000000000000000000000\
            0000000400000000\
            a/b\0\0\0\
            x\n\0\0\
            070701\
            00000002000081ed000000000000000000000001000000000000000000000000000000000000000000000000\
            0000000400000000\
            a/c\0\0\0\
            070701\
            00000003000000000000000000000000000000010000000000000000\
            000000000000000000000000000000000000000b00000000\
            TRAILER!!!\0\0\0\0";
        assert_eq!(String::from_utf8_lossy(&archive), String::from_utf8_lossy(expected));
    }

    #[test]
    fn archives_follow_one_another_at_multiples_of_4() {
        let both = Initramfs::new().append_to(b"odd".to_vec()).expect("small");
        assert!(both.starts_with(b"odd\x00070701"));
        assert_eq!(both.len() % 4, 0);
    }
}
