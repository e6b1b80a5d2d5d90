//! Writes initramfs archives: `cpio` in its `newc` form (Linux `Documentation/driver-api/early-userspace/buffer-format.rst`).
//! The kernel unpacks archives that follow one another, so files are added to an initrd by appending an archive.

use std::collections::BTreeSet;
use std::io;

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;

/// One archive under construction.
#[derive(Debug, Default)]
pub struct Initramfs {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

impl Initramfs {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An archive with a static program as `/init`, and the console that the kernel opens for it.
    ///
    /// # Errors
    /// The program has more than 4 GiB.
    pub fn with_init(program: &[u8]) -> io::Result<Self> {
        let mut archive = Self::new();
        archive.folder("dev")?;
        archive.entry("dev/console", S_IFCHR | 0o600, (5, 1), &[])?;
        archive.file("/init", 0o755, program)?;
        Ok(archive)
    }

    /// Adds a file with its permissions (`0o755`, ...), and the folders above it.
    ///
    /// # Errors
    /// More than newc's 32 bits for a size.
    pub fn file(&mut self, path: &str, permissions: u32, data: &[u8]) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            self.folder(path.get(..at).unwrap_or_default())?;
        }
        self.entry(path, S_IFREG | permissions, (0, 0), data)
    }

    fn folder(&mut self, path: &str) -> io::Result<()> {
        if path.is_empty() || !self.folders.insert(path.to_owned()) {
            return Ok(());
        }
        self.entry(path, S_IFDIR | 0o755, (0, 0), &[])
    }

    /// The archive's bytes, with the trailer that ends it.
    ///
    /// # Errors
    /// Never in practice: the trailer is small.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), data: &[u8]) -> io::Result<()> {
        let narrow = |len: usize| u32::try_from(len).map_err(|_| io::Error::other("too large for an initramfs"));
        let (size, name_size) = (narrow(data.len())?, narrow(path.len() + 1)?);
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
        Ok(())
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
    fn a_file_and_its_folder_are_newc() {
        let mut archive = Initramfs::new();
        archive.file("/a/b", 0o644, b"x\n").expect("small");
        let expected: &[u8] = b"\
            070701\
            00000000000041ed000000000000000000000001000000000000000000000000000000000000000000000000\
            0000000200000000\
            a\0\
            070701\
            00000001000081a4000000000000000000000001000000000000000200000000000000000000000000000000\
            0000000400000000\
            a/b\0\0\0\
            x\n\0\0";
        assert_eq!(String::from_utf8_lossy(&archive.bytes), String::from_utf8_lossy(expected));
        let whole = archive.finish().expect("small");
        assert!(whole.ends_with(b"TRAILER!!!\0\0\0\0"));
        assert_eq!(whole.len() % 4, 0);
    }
}
