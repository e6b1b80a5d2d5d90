//! The vCPUs of the machine, each used by its own thread only.

use std::cell::{Cell, OnceCell};
use std::collections::HashSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ThreadId;

use super::guest::VcpuGuest;
use crate::engine::kprobe::Kprobe;
use crate::engine::vcpu::Vcpu;
use crate::primitive::Mutex;
use crate::registry::{Reader, Registry};

thread_local! {
    /// The vCPU that this thread runs.
    static HERE: Cell<Option<u32>> = const { Cell::new(None) };
}

/// One vCPU as QEMU's callbacks see it.
#[derive(Debug)]
pub(crate) struct QemuVcpu {
    pub(crate) engine: Vcpu,
    pub(crate) guest: VcpuGuest,
}

#[derive(Debug)]
struct Slot(QemuVcpu);

// SAFETY: a vCPU's slot is filled in its init callback and used in its hit callbacks, which all come on the one thread
// that runs the vCPU (one thread for all vCPUs with thread=single); `Vcpus::get` is called from there only.
unsafe impl Send for Slot {}
// SAFETY: as above.
unsafe impl Sync for Slot {}

/// All vCPUs, by QEMU's index.
#[derive(Debug)]
pub(crate) struct Vcpus {
    slots: Box<[OnceLock<Slot>]>,
    /// The threads that run vCPUs.
    threads: Mutex<HashSet<ThreadId>>,
    /// Two vCPUs run on one thread (thread=single, -icount). QEMU then translates for one vCPU and runs the block on all:
    /// the index that callbacks get is that of the vCPU that translated, and inline counters of a vCPU above 0 write
    /// beside their scoreboard (QEMU's accel/tcg/plugin-gen.c, `gen_cpu_index`).
    shared: AtomicBool,
}

impl Vcpus {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            slots: (0..max).map(|_| OnceLock::new()).collect(),
            threads: Mutex::new(HashSet::new()),
            shared: AtomicBool::new(false),
        }
    }

    /// A vCPU's own state. Only in a callback of that vCPU.
    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<&QemuVcpu> {
        self.slots.get(index as usize)?.get().map(|slot| &slot.0)
    }

    /// Whether one thread runs several vCPUs, so that their index cannot be trusted.
    #[inline]
    pub(crate) fn share_a_thread(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// A vCPU of the calling thread, where QEMU does not say which one it is about: any will do where one thread runs several,
    /// because its registers are read by handles that are the same for all, of the one that is running.
    pub(crate) fn here(&self) -> Option<&QemuVcpu> {
        self.get(HERE.get()?)
    }

    /// In the vCPU's init callback.
    pub(crate) fn set(&self, index: u32, vcpu: QemuVcpu) {
        HERE.set(Some(index));
        if !self.threads.lock().insert(std::thread::current().id()) {
            self.shared.store(true, Ordering::Relaxed);
        }
        if let Some(slot) = self.slots.get(index as usize) {
            let _ = slot.set(Slot(vcpu));
        }
    }

    /// Runs `body` with a reader of the calling thread: translation callbacks do not say which vCPU they are for.
    pub(crate) fn with_reader<R>(&self, registry: &Registry<Kprobe>, body: impl FnOnce(&Reader) -> R) -> R {
        thread_local! {
            static READER: OnceCell<Reader> = const { OnceCell::new() };
        }
        // There is one registry in a process, so a thread's reader always belongs to it.
        READER.with(|reader| body(reader.get_or_init(|| registry.reader())))
    }
}
