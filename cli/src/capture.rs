//! What a process writes to a pipe: read as it comes by a thread, kept for others to look at and to wait for.

use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// At least so much of the end is kept: a guest may write for ever.
const KEPT: usize = 4 << 20;

/// A pipe's reader, and what it has read.
#[derive(Debug)]
pub(crate) struct Capture {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.lock().ended = true;
        self.grown.notify_all();
    }
}

impl State {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > 2 * KEPT {
            let excess = self.bytes.len() - KEPT;
            self.bytes.drain(..excess);
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).replace('\r', "")
    }
}

impl Capture {
    /// Reads `from` to its end. `each` gets the bytes as they come, and then none; once it says false, reading stops.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn start(
        name: &str,
        mut from: impl Read + Send + 'static,
        mut each: impl FnMut(&[u8]) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let reader = thread::Builder::new().name(format!("qkprobe-{name}")).spawn({
            let shared = Arc::clone(&shared);
            move || {
                let mut buffer = vec![0; 4096];
                while let Ok(count @ 1..) = from.read(&mut buffer) {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    shared.lock().push(bytes);
                    shared.grown.notify_all();
                    if !each(bytes) {
                        return shared.end();
                    }
                }
                each(&[]);
                shared.end();
            }
        })?;
        Ok(Self { shared, reader: Some(reader) })
    }

    /// What came so far, the last 4 MiB of it at least.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.shared.lock().bytes.clone()
    }

    /// The same as text, without carriage returns.
    pub(crate) fn text(&self) -> String {
        self.shared.lock().text()
    }

    /// Waits until `text` is there, or was there before. False: it did not come, or cannot come any more.
    pub(crate) fn wait_for(&self, text: &str, patience: Duration) -> bool {
        let missing = |state: &mut State| !state.ended && !state.text().contains(text);
        let waited = self.shared.grown.wait_timeout_while(self.shared.lock(), patience, missing);
        waited.unwrap_or_else(PoisonError::into_inner).0.text().contains(text)
    }

    /// Whether the end was read.
    pub(crate) fn is_over(&self) -> bool {
        self.shared.lock().ended
    }

    /// Waits until everything was read. The writer must have ended.
    pub(crate) fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_text_that_comes_in_pieces_is_waited_for() {
        let (from, mut to) = io::pipe().expect("a pipe");
        let (send, got) = channel();
        let mut capture = Capture::start("test", from, move |bytes| send.send(bytes.to_vec()).is_ok()).expect("starts");
        // A character may be cut in two.
        for piece in ["on".as_bytes(), b"e\r", b"\ntw\xc3", b"\xb6"] {
            to.write_all(piece).expect("read");
            got.recv().expect("passed on");
        }
        assert!(capture.wait_for("one\ntw\u{f6}", Duration::from_secs(60)));
        assert!(!capture.wait_for("three", Duration::from_millis(20)) && !capture.is_over());
        drop(to);
        assert!(!capture.wait_for("three", Duration::from_secs(60)));
        capture.finish();
        assert!(capture.is_over());
        assert_eq!((capture.text().as_str(), capture.bytes().len()), ("one\ntw\u{f6}", 9));
        assert_eq!(got.recv(), Ok(Vec::new()), "the end");
    }

    #[test]
    fn the_end_is_kept_of_much() {
        let mut state = State::default();
        for byte in 0..4_u8 {
            state.push(&vec![byte; KEPT / 2 + 1]);
        }
        assert_eq!(state.bytes.len(), KEPT);
        assert_eq!((state.bytes.first(), state.bytes.last()), (Some(&2), Some(&3)));
    }
}
