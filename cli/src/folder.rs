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

/// Makes a new folder, mode 0700.
///
/// # Errors
/// What the system says.
pub(crate) fn private() -> io::Result<TempDir> {
    let base = base();
    sweep(&base);
    tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir_in(base)
}

/// `$XDG_RUNTIME_DIR` where it is usable, else the folder for temporary files.
fn base() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let usable = |path: &PathBuf| path.is_absolute() && path.is_dir() && path.as_os_str().len() <= MAX_BASE;
    let temporary = std::env::temp_dir();
    let fallback = if usable(&temporary) { temporary } else { PathBuf::from("/tmp") };
    runtime.filter(usable).unwrap_or(fallback)
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
}
