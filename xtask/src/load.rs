//! Busy loops, for tests of tests: threads of this process, so that they end with it, however it ends.

use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// Loops that run until it is dropped.
#[derive(Debug)]
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Load {
    /// Starts so many.
    pub(crate) fn start(loops: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let threads = (0..loops).map(|_| {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                let mut rounds = 0_u64;
                while !over.load(Ordering::Relaxed) {
                    rounds = hint::black_box(rounds.wrapping_add(1));
                }
                rounds
            })
        });
        Self { threads: threads.collect(), over }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::Load;

    #[test]
    fn they_run_until_the_end_and_no_longer() {
        let load = Load::start(3);
        let over = std::sync::Arc::clone(&load.over);
        assert!(load.threads.len() == 3 && load.threads.iter().all(|thread| !thread.is_finished()));
        drop(load);
        assert!(over.load(Ordering::Relaxed));
        // Nobody else has it: the threads are gone.
        assert_eq!(std::sync::Arc::strong_count(&over), 1);
    }
}
