//! Writes initramfs archives: `cpio` in its `newc` form, as the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst` describes it.
//!
//! The kernel unpacks several archives one after the other, so a boot's own script is a second small archive behind
//! the one that everybody shares.

/// What a node is; the values are `st_mode`'s.
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;

/// One archive under construction.
#[derive(Debug, Default)]
pub struct Initramfs {
    bytes: Vec<u8>,
    entries: u32,
}

impl Initramfs {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder.
    #[must_use]
    pub fn dir(mut self, path: &str) -> Self {
        self.entry(path, S_IFDIR | 0o755, (0, 0), &[]);
        self
    }

    /// Adds a file with its permissions (`0o755`, ...).
    #[must_use]
    pub fn file(mut self, path: &str, permissions: u32, data: &[u8]) -> Self {
        self.entry(path, S_IFREG | permissions, (0, 0), data);
        self
    }

    /// Adds a character device.
    #[must_use]
    pub fn char_device(mut self, path: &str, major: u32, minor: u32) -> Self {
        self.entry(path, S_IFCHR | 0o600, (major, minor), &[]);
        self
    }

    /// The archive's bytes, with the trailer that ends it.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), data: &[u8]) {
        let path = path.trim_start_matches('/');
        let size = u32::try_from(data.len()).expect("newc has 32 bits for a file's size");
        let name_size = u32::try_from(path.len() + 1).expect("a short path");
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
    fn one_file_is_byte_for_byte_newc() {
        let archive = Initramfs::new().file("/qk.script", 0o644, b"uname\n").finish();
        let expected: &[u8] = b"\
            070701\
            00000000000081a40000000000000000000000010000000000000006\
            000000000000000000000000000000000000000a00000000\
            qk.script\0\
            uname\n\0\0\
            070701\
            00000001000000000000000000000000000000010000000000000000\
            000000000000000000000000000000000000000b00000000\
            TRAILER!!!\0\0\0\0";
        assert_eq!(archive, expected);
    }
}
