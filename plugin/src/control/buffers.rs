//! The two directions of a client's connection: lines that come in, bytes that go out. Both are bounded.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::protocol::MAX_LINE;

/// Bytes read at a time.
const CHUNK: usize = 16 << 10;
/// A larger buffer is given back once it is sent.
const KEEP: usize = 1 << 20;

/// A line is longer than [`MAX_LINE`].
#[derive(Debug)]
pub(super) struct TooLong;

/// Bytes from the client, cut into lines. Holds at most one chunk more than a line.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// Where the next line starts.
    start: usize,
    /// Up to where there is no line break, so that no byte is looked at twice.
    scanned: usize,
    /// The client sends no more.
    ended: bool,
}

impl Inbox {
    /// The next whole line; behind the end also one without a line break.
    ///
    /// # Errors
    /// The line is too long, whole or not.
    pub(super) fn next_line(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let unseen = self.bytes.get(self.scanned..).unwrap_or_default();
        let end = match unseen.iter().position(|byte| *byte == b'\n') {
            Some(at) => self.scanned + at,
            None if self.bytes.len() - self.start > MAX_LINE => return Err(TooLong),
            None if self.ended && self.start < self.bytes.len() => self.bytes.len(),
            None => {
                self.scanned = self.bytes.len();
                return Ok(None);
            }
        };
        let line = self.bytes.get(self.start..end).unwrap_or_default();
        if line.len() > MAX_LINE {
            return Err(TooLong);
        }
        let line = line.to_vec();
        self.start = (end + 1).min(self.bytes.len());
        self.scanned = self.start;
        Ok(Some(line))
    }

    /// Reads once. To be called only when there is no whole line.
    pub(super) fn fill(&mut self, from: impl AsFd) {
        self.bytes.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        let mut chunk = [0; CHUNK];
        match rustix::io::read(from, &mut chunk) {
            // ECONNRESET and the like: the client is gone, and what it sent before was read.
            Ok(0) => self.ended = true,
            Ok(count) => self.bytes.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.ended = true,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }
}

/// Bytes for the client. Filled only when empty, so it is bounded by one reply and one mailbox.
#[derive(Debug)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    /// When the client last took something, or the first byte was put in.
    moved: Instant,
    /// The client receives no more: what is put in is thrown away. It may still have sent requests.
    closed: bool,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), sent: 0, moved: Instant::now(), closed: false }
    }

    /// Lets lines be appended.
    pub(super) fn put<T>(&mut self, fill: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if self.bytes.is_empty() {
            self.moved = Instant::now();
        }
        let result = fill(&mut self.bytes);
        if self.closed {
            self.clear();
        }
        result
    }

    /// Sends what the client takes now. No SIGPIPE: what QEMU does at one is not ours to change.
    pub(super) fn send(&mut self, to: impl AsFd) {
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match send(&to, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => {
                    self.sent += count;
                    self.moved = Instant::now();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.closed = true,
            }
            if self.closed {
                break;
            }
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.sent = 0;
        self.bytes.clear();
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How long the client has taken nothing of what waits for it.
    pub(super) fn stuck_for(&self) -> Duration {
        if self.is_empty() { Duration::ZERO } else { self.moved.elapsed() }
    }
}
