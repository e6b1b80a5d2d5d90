//! A guest and its code cache for tests: blocks of one instruction, translated when first executed.
//!
//! A block keeps only a weak reference to its site: executing one whose site is gone is a use after free in the real
//! plugin, and fails the test here.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use qkprobe_arch::GuestAddr;

use super::{CodeCache, Place, Probe, Reader, Registry, Site};
use crate::primitive::{AtomicBool, AtomicU64, Mutex, Ordering};

/// What a test probe does: count, and check that it is still registered.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) hits: AtomicU64,
    /// Cleared after `unregister` returned: a hit that still sees the probe then is a broken barrier.
    pub(crate) registered: AtomicBool,
}

/// A probe's tally, shared between the registry and the test.
pub(crate) type Payload = Arc<Tally>;

pub(crate) fn tally() -> Payload {
    Arc::new(Tally { hits: AtomicU64::new(0), registered: AtomicBool::new(true) })
}

impl Tally {
    pub(crate) fn count(&self) -> u64 {
        self.hits.load(Ordering::SeqCst)
    }
}

type Translated = Option<Weak<Site<Payload>>>;

/// The code cache's state, per address: nothing, or a block with or without a site.
#[derive(Debug)]
pub(crate) struct FakeCache {
    blocks: Vec<Mutex<Option<Translated>>>,
    pub(crate) hook: AtomicBool,
    pub(crate) translations: AtomicU64,
}

impl CodeCache for FakeCache {
    fn set_translation_hook(&self, on: bool) {
        assert_ne!(self.hook.swap(on, Ordering::SeqCst), on, "the hook is set once for each change");
    }

    fn retranslate(&self, place: Place) {
        *self.blocks[index(place)].lock() = None;
    }
}

fn index(place: Place) -> usize {
    ((place.addr().0 - BASE) / 4) as usize
}

const BASE: u64 = 0xffff_ffff_8100_0000;

/// The place of the N-th instruction.
pub(crate) fn place(n: usize) -> Place {
    Place::Image(GuestAddr(BASE + 4 * n as u64))
}

/// The guest: its code cache, and the registry that probes it.
#[derive(Debug)]
pub(crate) struct FakeGuest {
    pub(crate) cache: Arc<FakeCache>,
    pub(crate) registry: Registry<Payload>,
    /// Held shared while an instruction executes, exclusively for a flush: QEMU stops all vCPUs for it.
    #[cfg(not(feature = "shuttle"))]
    exclusive: parking_lot::RwLock<()>,
    #[cfg(feature = "shuttle")]
    exclusive: shuttle::sync::RwLock<()>,
}

impl FakeGuest {
    pub(crate) fn new(instructions: usize) -> Self {
        let cache = Arc::new(FakeCache {
            blocks: (0..instructions).map(|_| Mutex::new(None)).collect(),
            hook: AtomicBool::new(false),
            translations: AtomicU64::new(0),
        });
        Self { registry: Registry::new(Arc::clone(&cache) as Arc<_>), cache, exclusive: Default::default() }
    }

    fn shared(&self) -> impl Sized + '_ {
        #[cfg(not(feature = "shuttle"))]
        return self.exclusive.read();
        #[cfg(feature = "shuttle")]
        self.exclusive.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn alone(&self) -> impl Sized + '_ {
        #[cfg(not(feature = "shuttle"))]
        return self.exclusive.write();
        #[cfg(feature = "shuttle")]
        self.exclusive.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// QEMU flushes its code cache.
    pub(crate) fn flush(&self) {
        let _alone = self.alone();
        for block in &self.cache.blocks {
            *block.lock() = None;
        }
        self.registry.flushed();
    }

    /// Executes one instruction on a vCPU; returns how many probes fired.
    pub(crate) fn execute(&self, reader: &Reader, n: usize) -> usize {
        self.execute_with(reader, n, |_| {})
    }

    /// The same, with a handler that runs within each hit.
    pub(crate) fn execute_with(&self, reader: &Reader, n: usize, mut handler: impl FnMut(&Probe<Payload>)) -> usize {
        let _shared = self.shared();
        let block = {
            let mut block = self.cache.blocks[n].lock();
            block.get_or_insert_with(|| self.translate(reader, n)).clone()
        };
        let Some(site) = block else { return 0 };
        let site = site.upgrade().expect("a site outlives the blocks that hold its address");
        let guard = reader.pin();
        let mut fired = 0;
        let mut seen = BTreeSet::new();
        reader.set_in_handler(true);
        for probe in site.snapshot(&guard) {
            assert!(seen.insert(probe.id()), "a probe fires once an execution");
            if !probe.enabled() {
                continue;
            }
            handler(probe);
            assert!(probe.payload.registered.load(Ordering::SeqCst), "no hit after unregister returned");
            probe.payload.hits.fetch_add(1, Ordering::SeqCst);
            fired += 1;
        }
        reader.set_in_handler(false);
        fired
    }

    fn translate(&self, reader: &Reader, n: usize) -> Translated {
        self.cache.translations.fetch_add(1, Ordering::Relaxed);
        let guard = reader.pin();
        let mut found = None;
        self.registry.sites_on_page(place(n), &guard, |site| {
            if site.place() == place(n) {
                assert!(found.is_none(), "one site an address");
                found = Some(Arc::downgrade(site));
            }
        });
        found
    }

    /// Registers a probe that only tallies.
    pub(crate) fn probe(&self, n: usize) -> (super::ProbeId, Payload) {
        let payload = tally();
        let id = self
            .registry
            .register(place(n), Arc::clone(&payload), || Ok::<_, std::convert::Infallible>(None))
            .expect("nothing refuses");
        (id, payload)
    }

    /// Unregisters, and makes any later hit a failure.
    pub(crate) fn remove(&self, id: super::ProbeId, payload: &Payload) {
        self.registry.unregister(id).expect("registered");
        payload.registered.store(false, Ordering::SeqCst);
    }
}
