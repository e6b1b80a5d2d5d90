//! sha256 of texts and files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// The sha256 of some bytes, in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    to_text(&Sha256::digest(bytes))
}

/// The sha256 of a file's content, in hexadecimal.
pub(crate) fn file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(to_text(&hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

fn to_text(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn known_digest() {
        assert_eq!(super::hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
