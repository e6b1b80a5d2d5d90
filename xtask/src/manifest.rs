//! What is complete in the cache: per item the stamp of the recipe that made it, its version, and each of its files.
//!
//! A file is checked by size and time of change, which takes milliseconds for the whole cache; `setup --verify`
//! compares the sha256.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::hash;

/// The content of `manifest.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) items: BTreeMap<String, Item>,
}

/// One finished folder of the cache.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Item {
    /// The hash of the recipe that made it; another recipe has another one.
    pub(crate) stamp: String,
    /// What it is, for people: `11.1.3`, `6.1.176-1`, ...
    pub(crate) version: String,
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    sha256: String,
    size: u64,
    /// Nanoseconds since 1970; 0 for a link.
    changed: i64,
}

impl Manifest {
    /// Reads the file; none, or one that makes no sense any more, is an empty manifest, so everything is made anew.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        match fs::read(path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// Writes the file as a whole or not at all.
    ///
    /// # Errors
    /// The cache is not writable, or the disk is full.
    pub(crate) fn save(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_vec_pretty(self).map_err(|error| error.to_string())?;
        let new = path.with_extension("json.new");
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, path))
            .map_err(|error| format!("{}: {error}", path.display()))
    }
}

impl Item {
    /// Describes a finished folder.
    ///
    /// # Errors
    /// A file in it cannot be read.
    pub(crate) fn describe(folder: &Path, stamp: String, version: String) -> Result<Self, String> {
        let mut files = BTreeMap::new();
        describe_folder(folder, "", &mut files).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self { stamp, version, files })
    }

    /// Whether the folder still is what it was, by size and time, or if `thorough` by content.
    pub(crate) fn matches(&self, folder: &Path, thorough: bool) -> bool {
        self.files.iter().all(|(name, entry)| {
            let path = folder.join(name);
            let Ok(metadata) = path.symlink_metadata() else { return false };
            if metadata.is_symlink() {
                return sha256(&path, true).is_ok_and(|found| found == entry.sha256);
            }
            let same = metadata.len() == entry.size && changed(&metadata) == entry.changed;
            same && (!thorough || sha256(&path, false).is_ok_and(|found| found == entry.sha256))
        })
    }
}

fn describe_folder(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Entry>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            describe_folder(&entry.path(), &format!("{name}/"), files)?;
            continue;
        }
        let link = metadata.is_symlink();
        let sha256 = sha256(&entry.path(), link)?;
        let (size, changed) = if link { (0, 0) } else { (metadata.len(), changed(&metadata)) };
        files.insert(name, Entry { sha256, size, changed });
    }
    Ok(())
}

/// The hash of a file's content, or of the text of a link.
fn sha256(path: &Path, link: bool) -> std::io::Result<String> {
    if link { Ok(hash::hex(fs::read_link(path)?.as_os_str().as_encoded_bytes())) } else { hash::file(path) }
}

fn changed(metadata: &fs::Metadata) -> i64 {
    metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec()
}
