//! Guests that run on this machine: every QEMU of this user that has the plugin with a control socket, whoever started it.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::is_option;
use crate::error::Error;
use crate::escape;

/// A QEMU with a control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its process ID.
    pub pid: u32,
    /// The socket.
    pub socket: PathBuf,
    /// The kernel that it boots, as its command line has it.
    pub kernel: String,
    /// What it is called: a boot test's name, or what `-name` says.
    pub name: Option<String>,
    /// How long it has run.
    pub age: Option<Duration>,
    /// The folder in which it was started.
    pub folder: Option<PathBuf>,
}

/// `3 min 12 s  test "boot"  /boot/vmlinuz  in /home/me`: what tells it from others, fit for a terminal.
impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, name, age, folder, .. } = self;
        let mut parts: Vec<String> = age.map(shown).into_iter().collect();
        parts.extend(name.as_ref().map(|name| format!("\"{name}\"")));
        parts.push(kernel.clone());
        parts.extend(folder.as_ref().map(|folder| format!("in {}", folder.display())));
        f.write_str(&escape::line(parts.join("  ").as_bytes()))
    }
}

/// `12 s`, `3 min 12 s`, `5 h 3 min`.
fn shown(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
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
    let Options { socket, kernel, name } = options_of(&args)?;
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).ok();
    let socket = if socket.is_absolute() { socket } else { folder.as_ref()?.join(socket) };
    Some(Found { pid, socket, kernel, name, age: age(pid), folder })
}

/// How long a process has run.
fn age(pid: u32) -> Option<Duration> {
    let up: f64 = fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
    // Field 22, of which the first two are before the parenthesis' end.
    let start: f64 = stat_field(pid, 19)?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    Duration::try_from_secs_f64(up - start / ticks).ok()
}

/// What a QEMU's command line says of its guest.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    socket: PathBuf,
    kernel: String,
    name: Option<String>,
}

fn options_of(args: &[String]) -> Option<Options> {
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
    let name = after("name").next().and_then(|option| {
        let parts = option.replace(",,", "\0");
        let first = parts.split(',').next().unwrap_or_default();
        let name = first.strip_prefix("guest=").unwrap_or(first).replace('\0', ",");
        Some(name).filter(|name| !name.is_empty())
    });
    Some(Options { socket: control, kernel: after("kernel").next().cloned().unwrap_or_default(), name })
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
        let line = |guest: &Found| format!("\n  --guest {}   {guest}", guest.pid);
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
    stat_field(pid, 1)?.parse().ok()
}

/// A field of a process' `stat`, counted from the state.
fn stat_field(pid: u32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    stat.rsplit(')').next()?.split_whitespace().nth(index).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let args = |line: &[&str]| -> Vec<String> { line.iter().map(|arg| (*arg).to_owned()).collect() };
        let line =
            args(&["q", "-kernel", "/boot/k", "--plugin", "/l.so,probe=p:a f a=$arg1,,b,control=/tmp/a,,b.sock"]);
        let wanted = |name: Option<&str>| Options {
            socket: "/tmp/a,b.sock".into(),
            kernel: "/boot/k".to_owned(),
            name: name.map(str::to_owned),
        };
        assert_eq!(options_of(&line), Some(wanted(None)));
        for (option, name) in [("boot,, twice", "boot, twice"), ("guest=vm,process=x", "vm")] {
            let named: Vec<_> = line.iter().cloned().chain(["-name".to_owned(), option.to_owned()]).collect();
            assert_eq!(options_of(&named), Some(wanted(Some(name))));
        }
        assert_eq!(options_of(&args(&["q", "-plugin", "/l.so,probe=p f x=control=no"])), None);
        assert_eq!(options_of(&args(&["q", "-plugin"])), None);
    }

    #[test]
    fn what_tells_guests_apart() {
        let guest = |name: Option<&str>, seconds| Found {
            pid: 7,
            socket: "/s".into(),
            kernel: "/boot/k".to_owned(),
            name: name.map(str::to_owned),
            age: Some(Duration::from_secs(seconds)),
            folder: Some("/home/me".into()),
        };
        assert_eq!(guest(Some("boot"), 59).to_string(), "59 s  \"boot\"  /boot/k  in /home/me");
        assert_eq!(guest(None, 192).to_string(), "3 min 12 s  /boot/k  in /home/me");
        assert_eq!(guest(Some("a\u{1b}"), 18_185).to_string(), "5 h 3 min  \"a\\x1b\"  /boot/k  in /home/me");
        // This process has just begun, by the clock of the machine.
        assert!(age(std::process::id()).is_some_and(|age| age < Duration::from_secs(3600)));
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
