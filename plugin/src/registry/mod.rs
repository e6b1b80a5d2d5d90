//! Who is probed where: the seed of this project.
//!
//! The kernel patch of December 2005 that this follows serialised registration by a mutex, because look-ups from
//! the exception handler had become lock-free under RCU. Here: one `parking_lot::Mutex` for those who register and
//! unregister, `crossbeam-epoch` for translation and for hits, which never wait.
//!
//! A *probe* is what a user registered; a *site* is the one instrumentation point of an address, shared by all its
//! probes (the kernel's aggregate). A registration goes through these steps:
//! 1. under the mutex, look whether the address has a site;
//! 2. only when it has none (or one without a slot), prepare: decode, legality, the copy of the instruction;
//! 3. publish the new probe list; for the first probe also the table that translation reads;
//! 4. ask the code cache to translate the address again.
//!
//! Unregistration: disarm (unpublish), unlink, release the mutex, wait a grace period, return. After that no handler
//! of the probe runs or starts. The *site* is freed later, by `flushed`: a translated block holds its address until
//! QEMU flushes the code cache. Until then a new probe at the same address takes the site into use again, so that
//! there are never two instrumentations of one address.

#[cfg(all(test, not(feature = "shuttle")))]
mod enable_tests;
#[cfg(test)]
mod fake;
mod grace;
#[cfg(all(test, feature = "shuttle"))]
mod model;
mod site;
mod table;
#[cfg(all(test, not(feature = "shuttle")))]
mod tests;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crossbeam_epoch::{Collector, Guard, LocalHandle};
use qkprobe_arch::InsnSlot;

use crate::primitive::{AtomicU64, Mutex, Ordering, ThreadId, current_thread, preemption_point};
pub use site::{Place, Site, Text};
use table::Table;

/// The code cache as the registry sees it: QEMU, or a fake that tests drive. Called under the registry's mutex:
/// must neither wait for a vCPU nor call back.
pub trait CodeCache: Send + Sync {
    /// Turns the translation hook on or off: it is on only while a probe is armed.
    fn set_translation_hook(&self, on: bool);
    /// Blocks that contain this place must be translated again before they run the next time.
    fn retranslate(&self, place: Place);
}

/// Identifies one registration; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeId(u64);

/// Why the registry refuses.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError<E> {
    /// The id was never registered, or is unregistered already. The kernel: silently nothing, or `EINVAL`.
    #[error("no such probe is registered")]
    NotRegistered,
    /// A handler may not register or unregister: it would wait for itself. The kernel: would sleep in atomic context.
    #[error("not from within a probe handler")]
    FromHandler,
    /// The instruction slot could not be prepared.
    #[error(transparent)]
    Prepare(E),
}

/// A probe to register.
#[derive(Debug)]
pub struct New<P> {
    /// Where.
    pub place: Place,
    /// The engine's data.
    pub payload: P,
    /// A disabled probe is registered and silent.
    pub enabled: bool,
}

impl<P> New<P> {
    /// One that fires at once.
    pub fn enabled(place: Place, payload: P) -> Self {
        Self { place, payload, enabled: true }
    }
}

/// One user probe at its site. `P` is what the engine wants to know of it at a hit.
#[derive(Debug)]
pub struct Probe<P> {
    id: ProbeId,
    enabled: crate::primitive::AtomicBool,
    /// The engine's data.
    pub payload: P,
}

impl<P> Probe<P> {
    /// Whether the user wants it to fire.
    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Its registration.
    pub fn id(&self) -> ProbeId {
        self.id
    }

    /// A number that finds the probe again; never 0.
    pub(crate) fn token(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self) as usize
    }

    /// The probe of a token.
    ///
    /// # Safety
    /// The token came from `token` of a probe of this type, which whoever holds its last reference lets go only after a
    /// grace period that began when nobody could find the token any more; `guard` was pinned before it was found.
    pub(crate) unsafe fn from_token(token: usize, _guard: &Guard) -> &Self {
        let pointer = token as *const Self;
        // SAFETY: the caller vouches for it.
        unsafe { &*pointer }
    }
}

struct Writer<P> {
    /// All sites that exist, also those without probes that wait for a flush.
    sites: HashMap<Place, Arc<Site<P>>>,
    probes: HashMap<ProbeId, (Place, Arc<Probe<P>>)>,
    armed: usize,
    next_id: u64,
}

/// All probes of one guest.
pub struct Registry<P: Send + Sync + 'static> {
    writer: Mutex<Writer<P>>,
    table: Table<P>,
    collector: Collector,
    cache: Arc<dyn CodeCache>,
    readers: Mutex<Vec<Arc<ReaderState>>>,
    grace_periods: AtomicU64,
}

impl<P: Send + Sync + 'static> std::fmt::Debug for Registry<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// What others may know of a reader.
#[derive(Debug)]
struct ReaderState {
    thread: ThreadId,
    in_handler: std::sync::atomic::AtomicBool,
}

/// One thread's (vCPU's) way into the lock-free side. Made where the thread starts, so that a hit touches no
/// thread-local storage.
#[derive(Debug)]
pub struct Reader {
    handle: LocalHandle,
    state: Arc<ReaderState>,
}

impl Reader {
    /// Enters a hit or a translation: what is loaded under the guard stays until it is dropped.
    #[inline]
    pub fn pin(&self) -> Guard {
        self.handle.pin()
    }

    /// Marks the run of handlers, so that a handler that wants to register is refused instead of waiting for itself.
    #[inline]
    pub fn set_in_handler(&self, on: bool) {
        // Only this thread reads it for itself: no ordering needed.
        self.state.in_handler.store(on, std::sync::atomic::Ordering::Relaxed);
    }
}

impl<P: Send + Sync + 'static> Registry<P> {
    /// An empty registry over a code cache.
    pub fn new(cache: Arc<dyn CodeCache>) -> Self {
        Self {
            writer: Mutex::new(Writer { sites: HashMap::new(), probes: HashMap::new(), armed: 0, next_id: 1 }),
            table: Table::new(),
            collector: Collector::new(),
            cache,
            readers: Mutex::new(Vec::new()),
            grace_periods: AtomicU64::new(0),
        }
    }

    /// A reader for the calling thread.
    pub fn reader(&self) -> Reader {
        let state =
            Arc::new(ReaderState { thread: current_thread(), in_handler: std::sync::atomic::AtomicBool::new(false) });
        self.readers.lock().push(Arc::clone(&state));
        Reader { handle: self.collector.register(), state }
    }

    /// Registers one probe. `prepare` makes the slot and runs only for the first probe at an address.
    ///
    /// # Errors
    /// What `prepare` says; or that a handler asked.
    pub fn register<E>(
        &self,
        place: Place,
        payload: P,
        prepare: impl FnOnce() -> Result<Option<InsnSlot>, E>,
    ) -> Result<ProbeId, RegistryError<E>> {
        let mut prepare = Some(prepare);
        let ids = self.register_all(std::iter::once(New::enabled(place, payload)), |_, _| {
            prepare.take().map_or(Ok(None), |f| f())
        })?;
        ids.first().copied().ok_or(RegistryError::NotRegistered)
    }

    /// Registers many, all or none, with one new table.
    ///
    /// # Errors
    /// The first that `prepare` refuses; nothing is registered then.
    pub fn register_all<E>(
        &self,
        probes: impl IntoIterator<Item = New<P>>,
        mut prepare: impl FnMut(Place, &P) -> Result<Option<InsnSlot>, E>,
    ) -> Result<Vec<ProbeId>, RegistryError<E>> {
        self.refuse_handlers()?;
        let guard = self.collector.register().pin();
        let mut writer = self.writer.lock();
        // First everything that can fail, into sites of our own; then, without failure, publication.
        let mut fresh: HashMap<Place, Arc<Site<P>>> = HashMap::new();
        let mut accepted = Vec::new();
        for New { place, payload, enabled } in probes {
            if !writer.sites.contains_key(&place)
                && let Entry::Vacant(vacant) = fresh.entry(place)
            {
                let slot = prepare(place, &payload).map_err(RegistryError::Prepare)?;
                vacant.insert(Arc::new(Site::new(place, slot)));
            }
            accepted.push((place, payload, enabled));
        }
        writer.sites.extend(fresh);

        let mut by_place: HashMap<Place, Vec<Arc<Probe<P>>>> = HashMap::new();
        let mut ids = Vec::with_capacity(accepted.len());
        for (place, payload, enabled) in accepted {
            let id = ProbeId(writer.next_id);
            writer.next_id += 1;
            let probe = Arc::new(Probe { id, enabled: crate::primitive::AtomicBool::new(enabled), payload });
            writer.probes.insert(id, (place, Arc::clone(&probe)));
            by_place.entry(place).or_default().push(probe);
            ids.push(id);
        }
        let mut changed = Vec::with_capacity(by_place.len());
        for (place, joining) in by_place {
            let Some(site) = writer.sites.get(&place).cloned() else { continue };
            // Newest first: the order in which pre handlers run.
            let mut list: Vec<_> = joining.into_iter().rev().collect();
            list.extend(site.snapshot(&guard).iter().cloned());
            site.publish(list, &guard);
            preemption_point();
            changed.push(site);
        }
        self.rearm(&mut writer, changed, &guard);
        Ok(ids)
    }

    /// The probes of these sites changed: arms, disarms, and has the code translated again for what it needs now. A site
    /// is armed while one of its probes is enabled.
    fn rearm(&self, writer: &mut Writer<P>, sites: Vec<Arc<Site<P>>>, guard: &Guard) {
        let (mut arm, mut disarm, mut joined) = (Vec::new(), Vec::new(), Vec::new());
        for site in sites {
            let wanted = site.snapshot(guard).iter().any(|probe| probe.enabled());
            match (site.set_armed(wanted), wanted) {
                (true, true) => arm.push(site),
                (true, false) => disarm.push(site),
                // A block may have been instrumented for what its probes needed so far (an inline counter only).
                (false, true) => joined.push(site.place()),
                (false, false) => {}
            }
        }
        self.arm(writer, arm, guard);
        joined.into_iter().for_each(|place| self.cache.retranslate(place));
        self.disarm(writer, &disarm, guard);
    }

    fn arm(&self, writer: &mut Writer<P>, sites: Vec<Arc<Site<P>>>, guard: &Guard) {
        if sites.is_empty() {
            return;
        }
        let places: Vec<_> = sites.iter().map(|site| site.place()).collect();
        if writer.armed == 0 {
            self.cache.set_translation_hook(true);
        }
        writer.armed += sites.len();
        self.table.insert(sites, guard);
        preemption_point();
        for place in places {
            self.cache.retranslate(place);
        }
    }

    /// Unregisters one probe; a barrier: afterwards no handler of it runs or starts.
    ///
    /// # Errors
    /// Unknown or already unregistered; or that a handler asked.
    pub fn unregister(&self, id: ProbeId) -> Result<Arc<Probe<P>>, RegistryError<std::convert::Infallible>> {
        self.refuse_handlers()?;
        let gone = {
            let guard = self.collector.register().pin();
            let mut writer = self.writer.lock();
            self.unlink(&mut writer, &[id], &guard)
        };
        let gone = gone.into_iter().next().ok_or(RegistryError::NotRegistered)?;
        self.synchronize();
        Ok(gone)
    }

    /// Unregisters many with one grace period, and returns those that were registered; the other ids are skipped.
    ///
    /// # Errors
    /// That a handler asked.
    pub fn unregister_all(
        &self,
        ids: &[ProbeId],
    ) -> Result<Vec<Arc<Probe<P>>>, RegistryError<std::convert::Infallible>> {
        self.refuse_handlers()?;
        let gone = {
            let guard = self.collector.register().pin();
            let mut writer = self.writer.lock();
            self.unlink(&mut writer, ids, &guard)
        };
        if !gone.is_empty() {
            self.synchronize();
        }
        Ok(gone)
    }

    fn unlink(&self, writer: &mut Writer<P>, ids: &[ProbeId], guard: &Guard) -> Vec<Arc<Probe<P>>> {
        let mut gone = Vec::with_capacity(ids.len());
        let mut by_place: HashMap<Place, HashSet<ProbeId>> = HashMap::new();
        for id in ids {
            let Some((place, probe)) = writer.probes.remove(id) else { continue };
            by_place.entry(place).or_default().insert(*id);
            gone.push(probe);
        }
        let mut changed = Vec::with_capacity(by_place.len());
        for (place, ids) in by_place {
            let Some(site) = writer.sites.get(&place).cloned() else { continue };
            let list = site.snapshot(guard).iter().filter(|probe| !ids.contains(&probe.id)).cloned().collect();
            site.publish(list, guard);
            preemption_point();
            changed.push(site);
        }
        self.rearm(writer, changed, guard);
        gone
    }

    fn disarm(&self, writer: &mut Writer<P>, sites: &[Arc<Site<P>>], guard: &Guard) {
        if sites.is_empty() {
            return;
        }
        self.table.remove(sites, guard);
        writer.armed -= sites.len();
        preemption_point();
        for site in sites {
            self.cache.retranslate(site.place());
        }
        if writer.armed == 0 {
            self.cache.set_translation_hook(false);
        }
    }

    /// Sets what the user wishes: a disabled probe stays registered and silent. Where none is enabled, the site is
    /// disarmed.
    ///
    /// # Errors
    /// Unknown or already unregistered.
    pub fn set_enabled(&self, id: ProbeId, on: bool) -> Result<(), RegistryError<std::convert::Infallible>> {
        let guard = self.collector.register().pin();
        let mut writer = self.writer.lock();
        let (place, probe) = writer.probes.get(&id).ok_or(RegistryError::NotRegistered)?;
        probe.enabled.store(on, Ordering::Relaxed);
        let site = writer.sites.get(place).cloned();
        self.rearm(&mut writer, site.into_iter().collect(), &guard);
        Ok(())
    }

    /// A registered probe's site.
    pub fn site_of(&self, id: ProbeId) -> Option<Arc<Site<P>>> {
        let writer = self.writer.lock();
        let (place, _) = writer.probes.get(&id)?;
        writer.sites.get(place).cloned()
    }

    /// QEMU flushed the code cache, with all vCPUs stopped: no block holds a site any more, so those without probes go.
    pub fn flushed(&self) {
        let guard = self.collector.register().pin();
        let mut writer = self.writer.lock();
        let (used, unused): (HashMap<_, _>, HashMap<_, _>) =
            writer.sites.drain().partition(|(_, site)| !site.snapshot(&guard).is_empty());
        writer.sites = used;
        drop(writer);
        if !unused.is_empty() {
            // The second grace period: a hit that began before the flush may still look at the site.
            guard.defer(move || drop(unused));
            guard.flush();
        }
    }

    /// Calls `visit` for each armed site on this page, in the order of addresses.
    #[inline]
    pub fn sites_on_page(&self, page: Place, guard: &Guard, visit: impl FnMut(&Arc<Site<P>>)) {
        preemption_point();
        self.table.page(page, guard).iter().for_each(visit);
    }

    /// Whether any armed site lies between the two places, both on one page.
    #[inline]
    pub fn any_site_between(&self, first: Place, last: Place, guard: &Guard) -> bool {
        self.table.page(first, guard).iter().any(|site| (first..=last).contains(&site.place()))
    }

    /// Waits until every hit and translation that began before has ended.
    pub fn synchronize(&self) {
        self.grace_periods.fetch_add(1, Ordering::Relaxed);
        grace::synchronize(&self.collector);
    }

    /// How many sites exist (armed, or waiting for a flush), are armed, and how many grace periods were waited for.
    pub fn counts(&self) -> Counts {
        let writer = self.writer.lock();
        Counts {
            sites: writer.sites.len(),
            armed: writer.armed,
            probes: writer.probes.len(),
            grace_periods: self.grace_periods.load(Ordering::Relaxed),
        }
    }

    fn refuse_handlers<E>(&self) -> Result<(), RegistryError<E>> {
        let me = current_thread();
        let mut readers = self.readers.lock();
        readers.retain(|state| Arc::strong_count(state) > 1);
        let asked = |state: &Arc<ReaderState>| {
            state.thread == me && state.in_handler.load(std::sync::atomic::Ordering::Relaxed)
        };
        if readers.iter().any(asked) { Err(RegistryError::FromHandler) } else { Ok(()) }
    }
}

/// What a registry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Sites that exist: one an address, however many probes.
    pub sites: usize,
    /// Sites with probes.
    pub armed: usize,
    /// Probes.
    pub probes: usize,
    /// Grace periods waited for so far.
    pub grace_periods: u64,
}

impl<P: Send + Sync + 'static> Drop for Registry<P> {
    fn drop(&mut self) {
        let guard = self.collector.register().pin();
        self.table.clear(&guard);
        guard.flush();
    }
}
