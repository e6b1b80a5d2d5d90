//! A private folder for each guest: sockets, pipes and small files. It goes with the guest.
//!
//! Its name holds the process that made it, so that one that was killed without a chance to clean up is cleaned up after
//! by the next.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, test_kill_process};
use tempfile::TempDir;

const PREFIX: &str = "qkprobe-";
/// A socket's path has at most 107 bytes; the names in a folder need some of them.
const MAX_BASE: usize = 60;

/// A guest's folder. It is removed with the value, unless it is [kept](Folder::keep).
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    temporary: Option<TempDir>,
}

impl Folder {
    /// Makes a folder, mode 0700, in `$XDG_RUNTIME_DIR` where that is usable, else where temporary files are. For sockets,
    /// pipes and small files: the former is memory.
    pub(crate) fn small() -> io::Result<Self> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        Self::below(&runtime.filter(|path| is_usable(path)).unwrap_or_else(temporary_files))
    }

    /// The same where temporary files are, for traces.
    pub(crate) fn large() -> io::Result<Self> {
        Self::below(&temporary_files())
    }

    fn below(base: &Path) -> io::Result<Self> {
        sweep(base);
        let folder = tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir_in(base)?;
        Ok(Self { path: folder.path().to_owned(), temporary: Some(folder) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps it when the value goes, under another name: `qkprobe-kept-...`.
    ///
    /// # Errors
    /// It cannot be renamed; it is kept all the same, until the next guest starts after this process has ended.
    pub fn keep(&mut self) -> io::Result<()> {
        let Some(folder) = self.temporary.take() else { return Ok(()) };
        let old = folder.keep();
        let suffix = old.file_name().and_then(|name| name.to_str()?.rsplit('-').next()).unwrap_or_default();
        let new = old.with_file_name(format!("{PREFIX}kept-{suffix}"));
        fs::rename(&old, &new)?;
        self.path = new;
        Ok(())
    }
}

fn is_usable(path: &Path) -> bool {
    path.is_absolute() && path.is_dir() && path.as_os_str().len() <= MAX_BASE
}

fn temporary_files() -> PathBuf {
    Some(std::env::temp_dir()).filter(|path| is_usable(path)).unwrap_or_else(|| PathBuf::from("/tmp"))
}

/// Removes folders of this user whose maker is no more.
fn sweep(base: &Path) {
    let uid = rustix::process::getuid().as_raw();
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-')?.0.parse::<i32>().ok());
        let Some(maker) = maker.and_then(Pid::from_raw) else { continue };
        let is_dead = test_kill_process(maker) == Err(rustix::io::Errno::SRCH);
        // Not through a link that somebody else put there.
        let is_ours = entry.path().symlink_metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == uid);
        if is_dead && is_ours {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_dead_go_and_others_stay() {
        let base = tempfile::tempdir().expect("a folder");
        // The highest possible process ID of Linux is 4194304.
        for name in ["qkprobe-4194999-x", "qkprobe-notes", "other-4194999-x"] {
            fs::create_dir(base.path().join(name)).expect("made");
        }
        let mine = format!("qkprobe-{}-x", std::process::id());
        fs::create_dir(base.path().join(&mine)).expect("made");
        sweep(base.path());
        let mut left: Vec<_> =
            fs::read_dir(base.path()).expect("read").map(|entry| entry.expect("read").file_name()).collect();
        left.sort();
        assert_eq!(left, ["other-4194999-x", mine.as_str(), "qkprobe-notes"]);
    }

    #[test]
    fn a_folder_goes_unless_it_is_kept() {
        let base = tempfile::tempdir().expect("a folder");
        let gone = Folder::below(base.path()).expect("made").path().to_owned();
        assert!(!gone.exists());
        let mut folder = Folder::below(base.path()).expect("made");
        folder.keep().expect("renamed");
        let path = folder.path().to_owned();
        drop(folder);
        assert!(path.is_dir() && path.display().to_string().contains("/qkprobe-kept-"), "{}", path.display());
    }
}
