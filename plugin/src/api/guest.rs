//! The user's way to the plugin.
//!
//! Whatever takes a lock refuses handlers first: a handler keeps its grace period open, and who unregisters waits for that
//! with the lock held.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;
use std::time::{Duration, Instant};

use qkprobe_arch::GuestAddr;

use super::contain::{Contained, text_of};
use super::error::Error;
use super::prepare::{Against, GROUP, resolve};
use super::probe::{Kprobe, Kretprobe, Probe};
use crate::counters::Totals;
use crate::message::say;
use crate::primitive::Mutex;
use crate::probes::prepare::Refused;
use crate::probes::{Listed, Probes};
use crate::registry::ProbeId;
use crate::running::Plugin;

/// How long `unregister` looks for the end of handlers that no vCPU runs any more.
const PATIENCE: Duration = Duration::from_secs(1);

/// One registration. It stays registered when this is dropped; after `unregister` it names nothing, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProbeHandle {
    output: u32,
    id: ProbeId,
}

impl ProbeHandle {
    fn is(&self, probes: &Probes) -> bool {
        probes.list.get(&self.output).is_some_and(|probe| probe.id == Some(self.id))
    }
}

type ExitFn = Box<dyn FnOnce() + Send>;

/// The guest of this QEMU. There is one, for the whole life of the process; all methods may be called from any thread, and
/// those that say so also from handlers.
pub struct Guest {
    plugin: &'static Plugin,
    arguments: Vec<(String, String)>,
    exit: Mutex<Vec<ExitFn>>,
    /// What the handlers of each probe hold as long as they exist.
    handlers: Mutex<HashMap<ProbeId, Weak<Contained>>>,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("arguments", &self.arguments).finish_non_exhaustive()
    }
}

impl Guest {
    pub(super) fn new(plugin: &'static Plugin, arguments: Vec<(String, String)>) -> Self {
        Self { plugin, arguments, exit: Mutex::new(Vec::new()), handlers: Mutex::new(HashMap::new()) }
    }

    /// Registers a probe. When this returns, every execution from then on is seen; where no vCPU comes to a safepoint (the
    /// machine is stopped, or all sleep), it returns after a second and the probe arms as soon as one does.
    ///
    /// # Errors
    /// What is wrong with the place, or what this QEMU lacks; or that a handler asked.
    pub fn register(&self, probe: Kprobe) -> Result<ProbeHandle, Error> {
        self.one(probe.into())
    }

    /// Registers a return probe.
    ///
    /// # Errors
    /// As `register`; and the place must be a function's entry.
    pub fn register_kretprobe(&self, probe: Kretprobe) -> Result<ProbeHandle, Error> {
        self.one(probe.into())
    }

    fn one(&self, probe: Probe) -> Result<ProbeHandle, Error> {
        let handles = self.register_all([probe])?;
        handles.first().copied().ok_or(Error::NotRegistered)
    }

    /// Registers many at once, all or none: much faster than one by one. The handles are in the order of the probes.
    ///
    /// # Errors
    /// The first that is refused.
    pub fn register_all<P: Into<Probe>>(&self, probes: impl IntoIterator<Item = P>) -> Result<Vec<ProbeHandle>, Error> {
        self.refuse_handlers()?;
        // The user's iterator runs before any lock is taken.
        let asked: Vec<Probe> = probes.into_iter().map(Into::into).collect();
        let plugin = self.plugin;
        let handles = {
            let mut probes = plugin.probes.lock();
            let names = probes.list.values().filter(|probe| probe.output.group == GROUP);
            let names = names.map(|probe| probe.output.name.clone()).collect();
            let mut against = Against { target: plugin.target(), abilities: plugin.abilities(), names };
            let ready = asked.into_iter().map(|probe| against.prepare(probe)).collect::<Result<Vec<_>, _>>()?;
            let (prepared, contained): (Vec<_>, Vec<_>) = ready.into_iter().unzip();
            let added = plugin.insert(&mut probes, prepared).map_err(refused)?;
            let handles = added.iter().filter_map(|added| Some(ProbeHandle { output: added.output, id: added.id? }));
            let handles: Vec<_> = handles.collect();
            self.handlers.lock().extend(handles.iter().map(|handle| handle.id).zip(contained));
            handles
        };
        plugin.settle();
        Ok(handles)
    }

    /// Unregisters a probe. It is a barrier: when this returns, no handler of the probe runs or starts, and its closures are
    /// dropped. It waits for handlers that are running, so it must not be called with anything held that they wait for.
    ///
    /// # Errors
    /// It is unregistered already; or a handler asked.
    pub fn unregister(&self, handle: ProbeHandle) -> Result<(), Error> {
        if self.unregister_all([handle])? == 1 { Ok(()) } else { Err(Error::NotRegistered) }
    }

    /// Unregisters many with one grace period, and says how many of them were registered.
    ///
    /// # Errors
    /// A handler asked.
    pub fn unregister_all(&self, handles: impl IntoIterator<Item = ProbeHandle>) -> Result<usize, Error> {
        self.refuse_handlers()?;
        let handles: Vec<_> = handles.into_iter().collect();
        let choose = |probes: &Probes| {
            let mut outputs: Vec<_> = handles.iter().filter(|it| it.is(probes)).map(|it| it.output).collect();
            outputs.sort_unstable();
            outputs.dedup();
            outputs
        };
        let gone = self.plugin.remove_those(choose).map_err(refused)?;
        let contained: Vec<_> = {
            let mut kept = self.handlers.lock();
            handles.iter().filter_map(|handle| kept.remove(&handle.id)).collect()
        };
        // The last probe lists that named them may be on another thread's pile of garbage still.
        let start = Instant::now();
        while contained.iter().any(|it| it.strong_count() != 0) && start.elapsed() < PATIENCE {
            self.plugin.registry.synchronize();
            std::thread::yield_now();
        }
        Ok(gone.len())
    }

    /// Lets a probe fire that was registered or made silent before; does nothing to one that fires.
    ///
    /// # Errors
    /// It is unregistered; or a handler asked.
    pub fn enable(&self, handle: ProbeHandle) -> Result<(), Error> {
        self.set_enabled(handle, true)
    }

    /// Makes a probe silent. No barrier: a handler that runs goes on, and calls that are pending are still reported.
    ///
    /// # Errors
    /// It is unregistered; or a handler asked.
    pub fn disable(&self, handle: ProbeHandle) -> Result<(), Error> {
        self.set_enabled(handle, false)
    }

    fn set_enabled(&self, handle: ProbeHandle, on: bool) -> Result<(), Error> {
        self.refuse_handlers()?;
        let mut found = false;
        let choose = |probes: &Probes| {
            found = handle.is(probes);
            if found { vec![handle.output] } else { Vec::new() }
        };
        self.plugin.set_enabled_those(choose, on);
        if found { Ok(()) } else { Err(Error::NotRegistered) }
    }

    /// How often a probe has fired: of a return probe, how many calls have returned.
    ///
    /// # Errors
    /// It is unregistered; or a handler asked.
    pub fn hits(&self, handle: ProbeHandle) -> Result<u64, Error> {
        self.totals(handle).map(|totals| totals.hits)
    }

    /// How often it could not: calls beyond `maxactive`, instructions whose end could not be awaited.
    ///
    /// # Errors
    /// It is unregistered; or a handler asked.
    pub fn nmissed(&self, handle: ProbeHandle) -> Result<u64, Error> {
        self.totals(handle).map(|totals| totals.missed)
    }

    fn totals(&self, handle: ProbeHandle) -> Result<Totals, Error> {
        self.refuse_handlers()?;
        let probes = self.plugin.probes.lock();
        let probe: Option<&Listed> = probes.list.get(&handle.output).filter(|_| handle.is(&probes));
        probe.map(|probe| self.plugin.totals(handle.output, probe)).ok_or(Error::NotRegistered)
    }

    /// The arguments that are the plugin's own, in their order and without the `x-` that they begin with:
    /// `-plugin libmine.so,x-limit=10` gives `("limit", "10")`. May be called from handlers.
    #[must_use]
    pub fn args(&self) -> &[(String, String)] {
        &self.arguments
    }

    /// The value of the last argument `x-KEY`. May be called from handlers.
    #[must_use]
    pub fn arg(&self, key: &str) -> Option<&str> {
        self.arguments.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Where `[MOD:]SYM[+OFF]` is, as linked. May be called from handlers.
    ///
    /// # Errors
    /// There is no such symbol, or several.
    pub fn symbol(&self, name: &str) -> Result<GuestAddr, Error> {
        let (addr, offset) = resolve(name, &self.plugin.target())?;
        Ok(addr.wrapping_add(offset))
    }

    /// Where a linked address is in the running guest; `None` as long as its kernel has not been seen running. May be called
    /// from handlers.
    #[must_use]
    pub fn runtime(&self, linked: GuestAddr) -> Option<GuestAddr> {
        let slide = self.plugin.locator.as_ref()?.slide()?;
        Some(linked.wrapping_add(slide))
    }

    /// The guest's ISA, as QEMU spells it: `x86_64`. May be called from handlers.
    #[must_use]
    pub fn arch(&self) -> &'static str {
        self.plugin.arch.name()
    }

    /// Has a closure run when QEMU ends, before the summary: in the order in which they were given, on the thread that ends
    /// QEMU. Handlers may still run meanwhile.
    pub fn on_exit(&self, run: impl FnOnce() + Send + 'static) {
        self.exit.lock().push(Box::new(run));
    }

    pub(super) fn end(&self) {
        let closures = std::mem::take(&mut *self.exit.lock());
        for run in closures {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                say!("qkprobe: a closure of on_exit panicked: {}", text_of(&*panic));
            }
        }
    }

    fn refuse_handlers(&self) -> Result<(), Error> {
        // Nothing to unregister: only the question whether this thread may.
        self.plugin.registry.unregister_all(&[]).map(drop).map_err(|_| Error::FromHandler)
    }
}

/// What only the registration itself can refuse.
fn refused(refused: Refused) -> Error {
    let Refused { errno, message } = refused;
    match errno {
        libc::ENOSPC => Error::NoSpace { what: message },
        libc::EILSEQ => {
            let (place, what) = message.split_once(": ").unwrap_or(("", &message));
            Error::NotBoundary { place: place.to_owned(), what: what.to_owned() }
        }
        _ => Error::FromHandler,
    }
}
