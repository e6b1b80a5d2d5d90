//! The running plugin: what QEMU's events do to it, and what it has to say.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

use qkprobe_arch::{Arch, GuestAddr, NoSuchSymbol, Paging, RegisterId, RegisterSource};
use qkprobe_lang::{Backpressure, Events, Halt, Space};
use qkprobe_symbols::KernelImage;

use crate::control::{ControlServer, Feed, Listener};
use crate::counters::Counters;
use crate::ending::Quit;
use crate::engine::hit::{After, Halted, HitEnv};
use crate::engine::kprobe::{Access, Kprobe};
use crate::engine::locate::{Locator, Verdict};
use crate::engine::pending::Pending;
use crate::engine::pending::landing::Landings;
use crate::engine::translate::{self, Findings, TextChange, Where};
use crate::engine::vcpu::Vcpu;
use crate::engine::verify::Verifier;
use crate::halt::{HeldVcpu, Holds};
use crate::message::say;
use crate::names::RuntimeNames;
use crate::primitive::Mutex;
use crate::probes::Probes;
use crate::probes::prepare::Prepared;
use crate::qemu::api::{Api, Id};
use crate::qemu::cache::{HostPlace, QemuCache, Stale};
use crate::qemu::delay_slots::DelaySlots;
use crate::qemu::entry::QemuEvents;
use crate::qemu::guest::VcpuGuest;
use crate::qemu::host_memory::{self, HostAddr};
use crate::qemu::inline_count::InlineCounters;
use crate::qemu::memory::Translation;
use crate::qemu::shapes::Registrar;
use crate::qemu::vcpus::{QemuVcpu, Vcpus};
use crate::record::ring::Ring;
use crate::record::{Notice, WriterHandle};
use crate::registry::{Place, Registry, Site};

/// The QEMU that loaded us.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) api: &'static Api,
    pub(crate) id: Id,
    pub(crate) qemu: String,
    pub(crate) target: String,
    pub(crate) max_vcpus: usize,
}

/// Everything there is of this plugin.
#[derive(Debug)]
pub(crate) struct Plugin {
    pub(crate) machine: Machine,
    pub(crate) arch: &'static dyn Arch,
    pub(crate) registry: Registry<Kprobe>,
    pub(crate) pending: Pending,
    pub(crate) landings: Landings,
    /// What callbacks at landings may do: `Access` as a number.
    landing_access: AtomicU8,
    /// The engine's own probes are where tasks begin and where they end.
    pub(crate) knows_tasks: AtomicBool,
    pub(crate) verifier: Option<Verifier>,
    pub(crate) holds: Holds,
    pub(crate) cache: Arc<QemuCache>,
    pub(crate) inline_counters: InlineCounters,
    pub(crate) delay_slots: DelaySlots,
    pub(crate) locator: Option<Arc<Locator>>,
    pub(crate) paging: Result<Option<Arc<dyn Paging>>, NoSuchSymbol>,
    pub(crate) vcpus: Vcpus,
    pub(crate) image: Option<Arc<KernelImage>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) writer: WriterHandle,
    pub(crate) names: Arc<RuntimeNames>,
    pub(crate) backpressure: Backpressure,
    pub(crate) ring_bytes: usize,
    pub(crate) summary_file: Option<PathBuf>,
    pub(crate) control_path: Option<PathBuf>,
    /// The control socket until `begin`.
    listener: Mutex<Option<Listener>>,
    pub(crate) control: OnceLock<ControlServer>,
    pub(crate) probes: Mutex<Probes>,
    /// All registers that definitions read.
    pub(crate) used_registers: Mutex<BTreeSet<RegisterId>>,
    pub(crate) ended: Once,
    /// Set once, by the first who ends QEMU.
    pub(crate) quit: OnceLock<Quit>,
    pub(crate) problem: Mutex<Option<String>>,
    /// That is that another kernel runs.
    other_kernel: AtomicBool,
    pub(crate) boundary_lost: Mutex<HashMap<Place, u64>>,
}

/// What `install` hands to `Plugin::new`.
pub(crate) struct Parts {
    pub(crate) machine: Machine,
    pub(crate) arch: &'static dyn Arch,
    pub(crate) locator: Option<Arc<Locator>>,
    pub(crate) paging: Result<Option<Arc<dyn Paging>>, NoSuchSymbol>,
    pub(crate) image: Option<Arc<KernelImage>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) writer: WriterHandle,
    pub(crate) names: Arc<RuntimeNames>,
    pub(crate) backpressure: Backpressure,
    pub(crate) ring_bytes: usize,
    pub(crate) summary_file: Option<PathBuf>,
    pub(crate) control_path: Option<PathBuf>,
    pub(crate) control: Option<Listener>,
    pub(crate) verify: bool,
}

impl Plugin {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { machine, arch, .. } = parts;
        let cache = Arc::new(QemuCache::new(Registrar { api: machine.api, id: machine.id }));
        Self {
            registry: Registry::new(Arc::clone(&cache) as Arc<_>),
            pending: Pending::new(arch),
            landings: Landings::new(machine.api.drops_code_by_reset()),
            landing_access: AtomicU8::new(0),
            knows_tasks: AtomicBool::new(false),
            verifier: parts.verify.then(Verifier::default),
            holds: Holds::default(),
            cache,
            inline_counters: InlineCounters::new(machine.api),
            delay_slots: DelaySlots::default(),
            vcpus: Vcpus::new(machine.max_vcpus),
            machine,
            arch,
            locator: parts.locator,
            paging: parts.paging,
            image: parts.image,
            counters: parts.counters,
            feed: parts.feed,
            writer: parts.writer,
            names: parts.names,
            backpressure: parts.backpressure,
            ring_bytes: parts.ring_bytes,
            summary_file: parts.summary_file,
            control_path: parts.control_path,
            listener: Mutex::new(parts.control),
            control: OnceLock::new(),
            probes: Mutex::new(Probes::default()),
            used_registers: Mutex::new(BTreeSet::new()),
            ended: Once::new(),
            quit: OnceLock::new(),
            problem: Mutex::new(None),
            other_kernel: AtomicBool::new(false),
            boundary_lost: Mutex::new(HashMap::new()),
        }
    }

    /// Registers callbacks and probes, and opens the control socket. QEMU's callbacks find the plugin from here on.
    ///
    /// # Errors
    /// What the registry refuses, or the socket.
    pub(crate) fn begin(&'static self, events: Events, prepared: Vec<Prepared>) -> Result<(), String> {
        self.cache.registrar.register_lifetime::<QemuEvents>();
        self.cache.start_waker()?;
        let watch = !prepared.is_empty();
        {
            let mut probes = self.probes.lock();
            self.insert(&mut probes, prepared).map_err(|refused| refused.message)?;
            probes.events = events;
        }
        if let (Some(path), Some(listener)) = (&self.control_path, self.listener.lock().take()) {
            let server = ControlServer::serve(path, listener, Arc::new(self), Arc::clone(&self.feed))?;
            let _ = self.control.set(server);
        }
        if watch {
            watch_for_kvm();
        }
        Ok(())
    }

    /// How a vCPU's addresses become memory.
    pub(crate) fn translation(&self, vcpu: u32) -> Translation {
        if self.arch.as_translate().is_none() {
            return Translation::Qemu { lock: self.arch.user_memory_lock() };
        }
        // The kernel numbers its CPUs as QEMU does, unless a firmware skips some.
        Translation::Walk { paging: self.paging.clone().ok().flatten(), cpu: vcpu }
    }

    pub(crate) fn landing_access(&self) -> Access {
        if self.landing_access.load(Ordering::Relaxed) == 0 { Access::Read } else { Access::Write }
    }

    /// Callbacks at landings may write from here on. Returns whether that is new.
    pub(crate) fn raise_landing_access(&self) -> bool {
        self.landing_access.swap(1, Ordering::Relaxed) == 0
    }

    /// Whether the kernel of `kernel=` runs where it is known.
    pub(crate) fn is_located(&self) -> bool {
        self.locator.as_ref().is_some_and(|locator| locator.slide().is_some())
    }

    pub(crate) fn vcpu(&self, index: u32) -> Option<&QemuVcpu> {
        self.vcpus.get(index)
    }

    /// A vCPU's thread has started.
    pub(crate) fn add_vcpu(&self, index: u32, make: impl FnOnce(Vcpu) -> QemuVcpu) {
        let ring = Arc::new(Ring::new(self.ring_bytes));
        self.writer.add_source(index, Arc::clone(&ring));
        let engine = Vcpu::new(index, ring, self.registry.reader(), self.counters.add_vcpu());
        self.vcpus.set(index, make(engine));
        if self.vcpus.share_a_thread() && !self.writer.forget_cpus() {
            say!(
                "qkprobe: one thread runs several vCPUs, and QEMU does not tell which of them hits: records show no CPU, and a \
                 filter on one never passes. -accel tcg,thread=multi tells them apart."
            );
        }
    }

    /// Tells when a definition reads a register that this QEMU does not show.
    pub(crate) fn check_registers(&self, guest: &VcpuGuest) {
        let used = self.used_registers.lock();
        let used = used.iter().filter_map(|id| Some((*id, self.arch.registers().get(usize::from(id.0))?)));
        let missing =
            used.filter(|(id, register)| matches!(register.source, RegisterSource::Qemu { .. }) && !guest.has(*id));
        let names: Vec<_> = missing.map(|(_, register)| register.name).collect();
        if !names.is_empty() {
            self.tell(format!("this QEMU does not show the registers {}: they read as a fault", names.join(", ")));
        }
    }

    #[inline]
    pub(crate) fn hit_env<'a>(&'a self, retranslate: &'a dyn Fn(GuestAddr) -> bool) -> HitEnv<'a> {
        HitEnv {
            arch: self.arch,
            registry: &self.registry,
            vcpus: self.machine.max_vcpus,
            cpus_known: !self.vcpus.share_a_thread(),
            locator: self.locator.as_deref(),
            slide: self.locator.as_ref().and_then(|locator| locator.slide()),
            writer: &self.writer,
            backpressure: self.backpressure,
            names: &*self.names,
            pending: &self.pending,
            landings: &self.landings,
            retranslate,
            verifier: self.verifier.as_ref(),
        }
    }

    /// A block is being translated.
    pub(crate) fn translated(&self, block: &mut impl translate::Block) {
        let at = Where {
            arch: self.arch,
            registry: &self.registry,
            locator: self.locator.as_deref(),
            landings: &self.landings,
            landing_access: self.landing_access(),
            verify: self.verifier.is_some(),
            exceptions: self.machine.api.register_vcpu_discon_cb.is_some(),
        };
        self.vcpus.with_reader(&self.registry, |reader| {
            let mut findings = self;
            translate::translate(at, reader, block, &mut findings);
        });
    }

    /// Where code lies in the host's memory, on a vCPU's thread.
    pub(crate) fn host_of(&self, guest: &VcpuGuest, vaddr: GuestAddr) -> HostPlace {
        let locator = self.locator.as_ref();
        if let Some((linked, locator)) = locator.and_then(|locator| Some((locator.linked(vaddr)?, locator)))
            && let Some((_, host)) = locator.running(linked)
        {
            return HostPlace::Known(host);
        }
        let Some(physical) = guest.physical(Space::Kernel, vaddr) else {
            let mut byte = [0];
            return if guest.read(Space::Kernel, vaddr, &mut byte) { HostPlace::Unknown } else { HostPlace::Unmapped };
        };
        match self.host_of_ram(guest, physical) {
            Some(host) if agree(guest, vaddr, host, 16.min(PAGE - vaddr.0 as usize % PAGE)) => HostPlace::Known(host),
            _ => HostPlace::Unknown,
        }
    }

    /// Whether the guest's code at a virtual address is what lies at the host's.
    pub(crate) fn is_same(&self, guest: &VcpuGuest, vaddr: GuestAddr, host: HostAddr) -> bool {
        agree(guest, vaddr, host, 4.min(PAGE - vaddr.0 as usize % PAGE))
    }

    /// Where a place of the kernel lies in physical and in the host's memory. RAM is contiguous for the host as far as it is for
    /// the guest; whether the two hold the same elsewhere is to be looked at.
    fn ram_of_kernel(&self, guest: &VcpuGuest) -> Option<(u64, HostAddr)> {
        let (start, host) = self.locator.as_ref()?.start_running()?;
        Some((guest.physical(Space::Kernel, start)?, host))
    }

    fn host_of_ram(&self, guest: &VcpuGuest, physical: u64) -> Option<HostAddr> {
        let (start, host) = self.ram_of_kernel(guest)?;
        Some(HostAddr(host.0.wrapping_add(physical.wrapping_sub(start) as usize)))
    }

    /// The physical address of a place in the host's memory.
    pub(crate) fn physical_of(&self, guest: &VcpuGuest, host: HostAddr) -> Option<u64> {
        let (start, start_host) = self.ram_of_kernel(guest)?;
        Some(start.wrapping_add(host.0.wrapping_sub(start_host.0) as u64))
    }

    /// Where a page of data lies in the host's memory, if that is certain: all of it reads the same on both sides.
    #[cold]
    pub(crate) fn host_of_page(&self, guest: &VcpuGuest, page: GuestAddr) -> Option<HostAddr> {
        let host = self.host_of_ram(guest, guest.physical(Space::Kernel, page)?)?;
        agree(guest, page, host, PAGE).then_some(host)
    }

    /// Whether the engine sees tasks begin and end.
    #[inline]
    pub(crate) fn knows_tasks(&self) -> bool {
        self.knows_tasks.load(Ordering::Relaxed)
    }

    /// The code of a landing, by its key.
    pub(crate) fn stale_landing(&self, key: GuestAddr) -> Stale {
        let running = self.locator.as_ref().and_then(|locator| locator.running(key));
        running.map_or(Stale { vaddr: key, host: None }, |(vaddr, host)| Stale { vaddr, host: Some(host) })
    }

    /// When a hit is over: what is to be done before the vCPU goes on, and where it goes on.
    pub(crate) fn after_hit(&'static self, state: &QemuVcpu, place: Option<Place>, after: After) -> Option<u64> {
        let Some(Halted { halt, output, addr, may_leave }) = after.halt else { return after.jump.map(|addr| addr.0) };
        let held = HeldVcpu { vcpu: state.engine.index, output, addr };
        if let Halt::Quit(status) = halt {
            self.quit_machine(status, Some(output));
            // Nothing runs after this hit.
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        // Leaving the block here lets QEMU stop exactly at the instruction; its hit is over.
        if let Some(place) = place.filter(|place| may_leave && after.jump.is_none() && self.may_leave_at(*place)) {
            self.holds.begin(held);
            state.engine.will_resume_at(place, addr, state.guest.register(self.arch.stack_pointer()));
            return Some(addr.0);
        }
        self.holds.hold(held);
        after.jump.map(|addr| addr.0)
    }

    /// A vCPU that is held comes round again and again, so that QEMU can stop it or end: where it goes round to.
    #[cold]
    pub(crate) fn still_held(&self, state: &QemuVcpu, place: Place) -> Option<u64> {
        if !self.holds.is_held(state.engine.index) {
            return None;
        }
        let addr = state.engine.stopped_at(place, state.guest.register(self.arch.stack_pointer()))?;
        std::thread::sleep(Duration::from_millis(1));
        Some(addr.0)
    }

    fn runtime(&self, place: Place) -> GuestAddr {
        self.hit_env(&|_| false).runtime(place)
    }

    /// Whether a block can be left before this instruction without losing flags that QEMU has not stored yet.
    fn may_leave_at(&self, place: Place) -> bool {
        self.machine.api.set_pc.is_some() && self.target().flags_are_dead(place.addr())
    }

    /// Says something once, and again in the summary. Returns whether nothing was said before.
    fn tell(&self, text: String) -> bool {
        let mut problem = self.problem.lock();
        let first = problem.is_none();
        if first {
            say!("qkprobe: {text}");
            *problem = Some(text);
        }
        first
    }

    pub(crate) fn own_banner(&self) -> String {
        let banner = self.image.as_ref().and_then(|image| image.banner.as_deref());
        crate::probes::prepare::plain(banner.unwrap_or("unknown").trim_end())
    }

    /// Another kernel ran, and it has loaded the one that is probed.
    fn withdraw_other_kernel(&self) {
        if self.other_kernel.swap(false, Ordering::Relaxed) {
            *self.problem.lock() = None;
            say!("qkprobe: the kernel that kernel= names runs now, so its probes are armed");
        }
    }

    /// The kernel was found: blocks of it that were translated before that have no callbacks yet.
    fn catch_up(&self, locator: &Locator) {
        let stale = locator.take_unrecognised().into_iter().filter_map(|(vaddr, host)| {
            let linked = Place::Image(locator.image_addr(host)?);
            let sites = self.vcpus.with_reader(&self.registry, |reader| {
                let mut places = Vec::new();
                self.registry.sites_on_page(linked, &reader.pin(), |site| places.push(site.place()));
                places
            });
            let offset = |place: Place| place.addr().wrapping_offset_from(linked.addr());
            let at = |place: Place| Stale {
                vaddr: vaddr.wrapping_add(offset(place)),
                host: Some(HostAddr(host.0.wrapping_add(offset(place) as usize))),
            };
            Some(sites.into_iter().map(at).collect::<Vec<_>>())
        });
        self.cache.request(stale.flatten().collect::<Vec<_>>());
    }
}

impl Findings for &Plugin {
    fn verdict(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Found => {
                self.withdraw_other_kernel();
                if let Ok(Some(paging)) = &self.paging {
                    paging.forget();
                }
                if let Some(locator) = &self.locator {
                    self.catch_up(locator);
                }
            }
            Verdict::OtherKernel(banner) => {
                let told = self.tell(format!(
                    "the guest runs another kernel than kernel= names, so no probe can arm\n  running: {}\n  \
                     kernel=: {}\n  Give the image of the running kernel with kernel=FILE.",
                    crate::probes::prepare::plain(&banner),
                    self.own_banner()
                ));
                self.other_kernel.store(told, Ordering::Relaxed);
            }
            Verdict::SymbolsDoNotFit => {
                self.tell(
                "the symbols do not fit the kernel that runs: its functions start elsewhere. Boot with nokaslr, give \
                 slide=0xN, or better give the kernel image itself with kernel=FILE (its slide is found by itself)"
                    .to_owned(),
            );
            }
        }
    }

    fn text_changed(&mut self, site: &Site<Kprobe>, change: TextChange) {
        let text = match change {
            TextChange::Changed(slot) => format!("now {}", hex(slot.bytes())),
            TextChange::Back(slot) => format!("an instruction again: {}", hex(slot.bytes())),
            TextChange::Gone => {
                *self.boundary_lost.lock().entry(site.place()).or_insert(0) += 1;
                "the inside of another instruction: probes here cannot fire [GONE]".to_owned()
            }
        };
        let mut place = String::new();
        let addr = self.runtime(site.place());
        if !qkprobe_lang::SymbolNames::name(&*self.names, addr.0, &mut place) {
            place = addr.to_string();
        }
        let place = crate::probes::prepare::plain(&place);
        self.writer.notice(Notice { time: crate::engine::now(), kind: "text", place, text });
    }
}

const PAGE: usize = 4096;

/// Whether guest and host hold the same there.
fn agree(guest: &VcpuGuest, vaddr: GuestAddr, host: HostAddr, len: usize) -> bool {
    let (mut ours, mut theirs) = ([0; PAGE], [0; PAGE]);
    let (Some(ours), Some(theirs)) = (ours.get_mut(..len), theirs.get_mut(..len)) else { return false };
    host_memory::read(host, ours) && guest.read(Space::Kernel, vaddr, theirs) && ours == theirs
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// `-accel kvm -accel tcg` and defaults of wrappers: only the running process tells which one was taken.
fn watch_for_kvm() {
    let watch = || {
        std::thread::sleep(Duration::from_secs(1));
        let fds = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let mut targets = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        if targets.any(|target| target.as_os_str() == "anon_inode:kvm-vm") {
            say!(
                "qkprobe: the accelerator is KVM: it runs the guest without translating it, so no probe can fire. Use -accel tcg."
            );
        }
    };
    let _ = std::thread::Builder::new().name("qkprobe-watch".into()).spawn(watch);
}
