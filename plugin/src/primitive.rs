//! The synchronisation primitives of the registry and the ring: `parking_lot` and `std`, or shuttle's when a model checker
//! drives the code (`--features shuttle`). Shuttle runs one thread at a time, so it finds what goes wrong in some order of the
//! threads' steps, and takes every access for sequentially consistent: an ordering that is too weak is for ThreadSanitizer to find
//! (CONTRIBUTING.md).

#[cfg(feature = "shuttle")]
mod imp {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    pub(crate) use shuttle::thread::ThreadId;

    pub(crate) fn current_thread() -> ThreadId {
        shuttle::thread::current().id()
    }

    /// `parking_lot::Mutex`'s shape over shuttle's mutex.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    /// Runs a scenario under thousands of schedules, switching threads at each lock, atomic and marked point.
    #[cfg(test)]
    pub(crate) fn check(scenario: impl Fn() + Send + Sync + 'static) {
        const SCHEDULES: usize = 3000;
        let scenario = std::sync::Arc::new(scenario);
        let random = std::sync::Arc::clone(&scenario);
        shuttle::check_random(move || random(), SCHEDULES);
        // Few, well-placed switches find ordering errors that uniform randomness rarely meets.
        shuttle::check_pct(move || scenario(), SCHEDULES, 3);
    }

    /// A place where another thread may run. `crossbeam-epoch` and plain memory are not instrumented, so the code says where.
    pub(crate) fn preemption_point() {
        shuttle::thread::yield_now();
    }

    /// Lets others run while waiting for them.
    pub(crate) fn relax(_round: u32) {
        shuttle::thread::yield_now();
    }
}

#[cfg(not(feature = "shuttle"))]
mod imp {
    pub(crate) use parking_lot::Mutex;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    pub(crate) use std::thread::ThreadId;

    pub(crate) fn current_thread() -> ThreadId {
        std::thread::current().id()
    }

    /// A place where a model checker may switch threads; nothing otherwise.
    #[inline(always)]
    pub(crate) fn preemption_point() {}

    /// Lets others run while waiting for them: first by yielding, then by short sleeps.
    pub(crate) fn relax(round: u32) {
        if round < 64 {
            std::thread::yield_now();
        } else {
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    }
}

pub(crate) use imp::*;
