//! The socket in the file system: only its owner can connect, and it never takes another one's place.
//!
//! Order: lock the folder; make the socket; set its mode *before* `bind`, because Linux creates the file with the mode
//! of the socket's own inode (`unix_bind_bsd`), so that no umask is changed under QEMU's other threads; bind; look at
//! the file; only then listen. Until `listen` nobody can connect, whatever the file's mode.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
const MODE: u32 = 0o600;

/// A listening socket and its file.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: OwnedFd,
    /// Absolute: QEMU may change its folder later.
    path: PathBuf,
    /// Device and inode: what is removed at the end must still be ours.
    identity: (u64, u64),
}

/// unix(7): `sun_path` has 108 bytes.
const LONGEST_PATH: usize = 107;

impl Listener {
    /// Binds and listens. A socket file that nobody listens on is replaced.
    ///
    /// # Errors
    /// One message: the path, the reason, what to do.
    pub(crate) fn bind(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let error = |what: &str, error: io::Error| format!("control={shown}: {what}: {error}");
        let absolute = std::path::absolute(path).map_err(|e| error("no such path", e))?;
        // The NUL behind it is part of `sun_path`, although Linux would do without.
        if path.as_os_str().len() > LONGEST_PATH {
            return Err(format!(
                "control={shown}: the path is too long for a UNIX socket ({LONGEST_PATH} bytes): use a shorter one"
            ));
        }
        let address = SocketAddrUnix::new(path).map_err(|errno| error("not a path of a UNIX socket", errno.into()))?;
        // Held until the socket listens: another QEMU that starts now must not take a bound socket for a dead one.
        let _lock = lock_folder(&absolute);
        let fd = new_socket().map_err(|e| error("cannot make a socket", e.into()))?;
        // Where a sandbox does not support it, the file's mode is changed below.
        let _ = fchmod(&fd, Mode::from_raw_mode(MODE));
        match net::bind(&fd, &address) {
            Err(Errno::ADDRINUSE) => {
                replace_dead(path, &address).map_err(|reason| format!("control={shown}: {reason}"))?;
                net::bind(&fd, &address)
            }
            other => other,
        }
        .map_err(|e| error("cannot make the socket", e.into()))?;
        // From here on the file is removed again if anything fails.
        let metadata = fs::symlink_metadata(&absolute).map_err(|e| error("the new socket is gone", e))?;
        let listener = Self { fd, path: absolute, identity: (metadata.dev(), metadata.ino()) };
        if !metadata.file_type().is_socket() {
            return Err(format!("control={shown}: somebody replaced the new socket"));
        }
        if metadata.mode() & 0o777 != MODE {
            fs::set_permissions(&listener.path, Permissions::from_mode(MODE))
                .map_err(|e| error("cannot keep others from connecting", e))?;
        }
        match fs::symlink_metadata(&listener.path) {
            Ok(now) if now.mode() & 0o777 == MODE => {}
            _ => return Err(format!("control={shown}: the file system cannot keep others from connecting")),
        }
        net::listen(&listener.fd, BACKLOG).map_err(|e| error("cannot listen", e.into()))?;
        Ok(listener)
    }

    /// The next client; `EAGAIN` if there is none.
    pub(super) fn accept(&self) -> Result<OwnedFd, Errno> {
        net::accept_with(&self.fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    }

    /// Removes the file if it is still ours. Later calls do nothing. While the socket is open, its inode is in use and
    /// nobody else's file can get its number.
    pub(super) fn remove(&self) {
        let ours = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.remove();
    }
}

fn new_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Keeps other qkprobes out while one binds. Best effort: a folder that cannot be read is not locked, and a lock that
/// somebody keeps is not waited for longer than a second.
fn lock_folder(path: &Path) -> Option<File> {
    let folder = File::open(path.parent()?).ok()?;
    for _ in 0..100 {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(folder),
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(Duration::from_millis(10)),
            Err(_) => return None,
        }
    }
    None
}

/// Removes a socket file that nobody listens on.
fn replace_dead(path: &Path, address: &SocketAddrUnix) -> Result<(), String> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("cannot look at the file: {error}")),
    };
    if !kind.is_socket() {
        let kind = match kind {
            kind if kind.is_dir() => "a folder",
            kind if kind.is_symlink() => "a symbolic link",
            kind if kind.is_fifo() => "a pipe",
            kind if kind.is_file() => "a file",
            _ => "something else",
        };
        return Err(format!("the path exists and is {kind}, not a socket: remove it or name another path"));
    }
    let probe = new_socket().map_err(|errno| format!("cannot make a socket: {}", io::Error::from(errno)))?;
    match net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("nobody listens on the old socket, but it cannot be removed: {error}"))
            }
            _ => Ok(()),
        },
        Err(Errno::NOENT) => Ok(()),
        // A full queue of connections is somebody who listens.
        Ok(()) | Err(Errno::AGAIN) => {
            Err("somebody listens on this socket, another QEMU perhaps: name another path".to_owned())
        }
        Err(errno) => {
            let error = io::Error::from(errno);
            Err(format!("the socket exists and may be in use: {error}: remove it or name another path"))
        }
    }
}
