//! Guests that run on this machine: every QEMU of this user that has the plugin with a control socket, whoever started it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::command::is_option;
use crate::error::Error;

/// A QEMU with a control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its process ID.
    pub pid: u32,
    /// The socket.
    pub socket: PathBuf,
    /// The kernel that it boots, as its command line has it.
    pub kernel: String,
}

/// All of them, by process ID.
#[must_use]
pub fn guests() -> Vec<Found> {
    let uid = rustix::process::getuid().as_raw();
    let mut found: Vec<Found> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.metadata().is_ok_and(|meta| meta.uid() == uid || uid == 0))
        .filter_map(|entry| guest(entry.file_name().to_str()?.parse().ok()?))
        .collect();
    found.sort_by_key(|guest| guest.pid);
    found
}

/// The guest of this process, if it is one.
fn guest(pid: u32) -> Option<Found> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let args: Vec<String> =
        bytes.split(|byte| *byte == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
    let (socket, kernel) = socket_of(&args)?;
    let socket =
        if socket.is_absolute() { socket } else { fs::read_link(format!("/proc/{pid}/cwd")).ok()?.join(socket) };
    Some(Found { pid, socket, kernel })
}

/// The socket and the kernel of QEMU's command line.
fn socket_of(args: &[String]) -> Option<(PathBuf, String)> {
    let after = |name: &'static str| {
        let pairs = args.iter().zip(args.iter().skip(1));
        pairs.filter(move |(arg, _)| is_option(arg.as_ref(), name)).map(|(_, value)| value)
    };
    let control = after("plugin").find_map(|option| {
        // A doubled comma is one.
        let parts = option.replace(",,", "\0");
        let value = parts.split(',').find_map(|part| part.strip_prefix("control="))?;
        Some(PathBuf::from(value.replace('\0', ",")))
    })?;
    Some((control, after("kernel").next().cloned().unwrap_or_default()))
}

/// The socket that the user means: a path, a process ID (QEMU's, or that of the qkprobe that started it); without either what
/// `QKPROBE_GUEST` says, or the one guest that runs.
///
/// # Errors
/// None, or several; the message lists them.
pub fn socket(wanted: Option<&str>) -> Result<PathBuf, Error> {
    let talk = |detail: String| Error::Talk { what: "--guest", detail };
    let variable = std::env::var("QKPROBE_GUEST").ok().filter(|text| !text.is_empty());
    let wanted = wanted.or(variable.as_deref());
    if let Some(path) = wanted.filter(|text| text.contains('/') || Path::new(text).exists()) {
        let path = PathBuf::from(path);
        return if path.exists() { Ok(path) } else { Err(talk(format!("{}: no such socket", path.display()))) };
    }
    let all = guests();
    let list = || {
        let line = |guest: &Found| format!("\n  --guest {}   {}", guest.pid, guest.kernel);
        if all.is_empty() { "; none runs".to_owned() } else { all.iter().map(line).collect() }
    };
    let Some(wanted) = wanted else {
        return match all.as_slice() {
            [one] => Ok(one.socket.clone()),
            [] => Err(talk(
                "no guest with a control socket runs: start one with `qkprobe run`, or give the plugin control=SOCKET"
                    .to_owned(),
            )),
            _ => Err(talk(format!("several guests run, name one:{}", list()))),
        };
    };
    let pid: u32 = wanted
        .parse()
        .map_err(|_| talk(format!("'{wanted}' is neither a socket's path nor a process ID{}", list())))?;
    let theirs = all.iter().find(|guest| guest.pid == pid || parent(guest.pid) == Some(pid));
    theirs.map(|guest| guest.socket.clone()).ok_or_else(|| talk(format!("no guest of process {pid}{}", list())))
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; behind it come the state and the parent.
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let args = |line: &[&str]| -> Vec<String> { line.iter().map(|arg| (*arg).to_owned()).collect() };
        let line =
            args(&["q", "-kernel", "/boot/k", "--plugin", "/l.so,probe=p:a f a=$arg1,,b,control=/tmp/a,,b.sock"]);
        assert_eq!(socket_of(&line), Some(("/tmp/a,b.sock".into(), "/boot/k".to_owned())));
        assert_eq!(socket_of(&args(&["q", "-plugin", "/l.so,probe=p f x=control=no"])), None);
        assert_eq!(socket_of(&args(&["q", "-plugin"])), None);
    }

    #[test]
    fn words_that_are_no_guest() {
        let text = |wanted| socket(Some(wanted)).expect_err("no guest").to_string();
        assert!(text("/nonexistent/x.sock").contains("no such socket"));
        assert!(text("abc").contains("neither a socket's path nor a process ID"));
        assert!(text("4194999").contains("no guest of process 4194999"));
        assert_eq!(parent(std::process::id()), Some(std::os::unix::process::parent_id()));
    }
}
