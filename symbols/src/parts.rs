//! A file of which only those parts are read that are asked for.
//!
//! It is not mapped: whoever truncates a mapped file ends the process that reads it, and that may be QEMU with a guest.

use std::cell::Cell;
use std::fs::File;
use std::ops::Range;

use object::{ReadCache, ReadRef};

/// The parts that were read; they stay in memory as long as this does.
pub(crate) struct Parts {
    read: ReadCache<File>,
    /// How many bytes may still be read. Sizes in the file are untrusted, and the file may be sparse.
    left: Cell<u64>,
}

impl Parts {
    /// Of a file that can be sought; `limit` is how many bytes may be read altogether.
    pub(crate) fn new(file: File, limit: usize) -> Self {
        Self { read: ReadCache::new(file), left: Cell::new(limit as u64) }
    }

    fn spend(&self, bytes: u64) -> Result<(), ()> {
        self.left.set(self.left.get().checked_sub(bytes).ok_or(())?);
        Ok(())
    }
}

impl<'a> ReadRef<'a> for &'a Parts {
    fn len(self) -> Result<u64, ()> {
        self.read.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        self.spend(size)?;
        self.read.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        let found = self.read.read_bytes_at_until(range, delimiter)?;
        self.spend(found.len() as u64)?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn reads_what_is_there_up_to_the_limit() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789\0abc").unwrap();
        // Sparse: a large file of which little is there.
        file.set_len(1 << 40).unwrap();
        let parts = Parts::new(file, 20);
        assert_eq!((&parts).len(), Ok(1 << 40));
        assert_eq!((&parts).read_bytes_at(2, 4), Ok(b"2345".as_slice()));
        assert_eq!((&parts).read_bytes_at_until(0..100, 0), Ok(b"0123456789".as_slice()));
        assert_eq!((&parts).read_bytes_at(0, 7), Err(()), "14 of 20 are used");
        assert_eq!((&parts).read_bytes_at(0, 1 << 39), Err(()));
        assert_eq!((&parts).read_bytes_at(0, 6), Ok(b"012345".as_slice()));
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let parts = Parts::new(file.reopen().unwrap(), 1 << 20);
        assert_eq!((&parts).len(), Ok(1 << 20));
        file.as_file().set_len(1 << 10).unwrap();
        assert_eq!((&parts).read_bytes_at(1 << 12, 16), Err(()));
    }
}
