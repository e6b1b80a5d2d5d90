//! What comes from a guest, in one queue: console, trace, QEMU's own words, the monitor's events.
//!
//! The queue is bounded: if nobody looks, the trace's pipe fills and the plugin holds the guest (or drops, if so asked).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use serde_json::Value;

use crate::event::Event;

/// Something that a guest or its QEMU did.
#[derive(Clone, Debug)]
pub enum Happening {
    /// Bytes on the console, as they came.
    Console(Vec<u8>),
    /// A line of the trace, without its line break.
    Trace(String),
    /// A line that QEMU or the plugin wrote to standard error.
    Stderr(String),
    /// A hit of this crate's own probes: see [`Boot::watch`](crate::Boot::watch).
    Watched(Event),
    /// An event of QEMU's monitor.
    Machine(Value),
}

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// A longer line is passed on in pieces: a guest decides how long a line of its console is, and a record has its limit.
const MAX_LINE: usize = 1 << 20;

/// The reading end of the pipe that the plugin writes its trace to.
#[derive(Debug)]
pub(crate) struct TracePipe {
    /// QEMU has ended: what is in the pipe now is all.
    ended: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl TracePipe {
    /// Makes the pipe at `path` and reads it. This end is opened for writing too, so that the plugin's opening and closing are
    /// no end of file.
    pub(crate) fn open(path: &Path, to: SyncSender<Happening>) -> io::Result<Self> {
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let pipe = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
        // A larger one holds the guest less often; it is no matter if the system refuses.
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe, 1 << 20);
        let ended = Arc::new(AtomicBool::new(false));
        let reader = thread::Builder::new().name("qkprobe-trace".into()).spawn({
            let ended = Arc::clone(&ended);
            move || read_trace(File::from(pipe), &ended, &to)
        })?;
        Ok(Self { ended, reader: Some(reader) })
    }

    /// Waits until everything that was written has been passed on.
    pub(crate) fn finish(&mut self) {
        self.ended.store(true, Ordering::Release);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    /// Whether the reader is done.
    pub(crate) fn is_finished(&self) -> bool {
        self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Says that QEMU has ended; see [`TracePipe::is_finished`].
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

fn read_trace(mut pipe: File, ended: &AtomicBool, to: &SyncSender<Happening>) {
    let mut lines = Lines::default();
    let mut buffer = vec![0; CHUNK];
    loop {
        // Pairs with the store in `end`: the writer was dead before the pipe is found empty.
        let last = ended.load(Ordering::Acquire);
        match pipe.read(&mut buffer) {
            Ok(count @ 1..) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                if !lines.feed(bytes, |line| to.send(Happening::Trace(line)).is_ok()) {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !last => wait_readable(&pipe),
            _ => break,
        }
    }
    // Without a line break the last one was cut by a kill: nobody can read half a record.
}

fn wait_readable(pipe: &impl AsFd) {
    let mut fds = [PollFd::new(pipe, PollFlags::IN)];
    // Its outcome is what the next read says.
    let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }));
}

/// Takes lines out of bytes.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Hands each whole line on; false when nobody wants more.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut to: impl FnMut(String) -> bool) -> bool {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.pending.extend_from_slice(piece);
            let whole = piece.ends_with(b"\n");
            if whole || self.pending.len() > MAX_LINE {
                let line = self.pending.strip_suffix(b"\n").unwrap_or(&self.pending);
                let line = String::from_utf8_lossy(line).into_owned();
                self.pending.clear();
                if !to(line) {
                    return false;
                }
            }
        }
        true
    }

    /// Hands the last one on, if it has no line break; false when nobody wants it.
    pub(crate) fn end(&mut self, mut to: impl FnMut(String) -> bool) -> bool {
        let last = std::mem::take(&mut self.pending);
        last.is_empty() || to(String::from_utf8_lossy(&last).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole() {
        let mut lines = Lines::default();
        let mut got = Vec::new();
        for bytes in [b"ab".as_slice(), b"c\nd\n\n", b"e\xff"] {
            assert!(lines.feed(bytes, |line| {
                got.push(line);
                true
            }));
        }
        assert!(lines.end(|line| {
            got.push(line);
            true
        }));
        assert_eq!(got, ["abc", "d", "", "e\u{fffd}"]);
        let mut long = Lines::default();
        let mut count = 0;
        assert!(long.feed(&vec![b'x'; MAX_LINE + 1], |_| {
            count += 1;
            true
        }));
        assert_eq!(count, 1, "a line without an end does not grow for ever");
    }
}
