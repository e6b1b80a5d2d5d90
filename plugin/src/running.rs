//! The running plugin: what QEMU's events do to it, what it has to say, and its end.

use crate::message::say;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use qkprobe_arch::{Arch, GuestAddr, InsnSlot, RegisterId, RegisterSource};
use qkprobe_lang::{Action, Backpressure};
use qkprobe_symbols::KernelImage;

use crate::counters::Counters;
use crate::engine::Event;
use crate::engine::hit::HitEnv;
use crate::engine::locate::{Locator, Verdict};
use crate::engine::translate::{self, Findings, TextChange};
use crate::engine::vcpu::Vcpu;
use crate::primitive::Mutex;
use crate::qemu::api::{Api, Id};
use crate::qemu::cache::{QemuCache, Stale};
use crate::qemu::entry::QemuEvents;
use crate::qemu::guest::VcpuGuest;
use crate::qemu::host_memory::HostAddr;
use crate::qemu::inline_count::InlineCounters;
use crate::qemu::vcpus::{QemuVcpu, Vcpus};
use crate::record::WriterHandle;
use crate::record::ring::Ring;
use crate::record::summary::{ProbeSummary, Summary};
use crate::registry::{Place, Registry, Site};
use crate::resolve::{ImageTarget, RuntimeNames};

/// How long the end of QEMU may wait for the records to be written.
const EXIT_PATIENCE: Duration = Duration::from_secs(10);

/// The QEMU that loaded us.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) api: &'static Api,
    pub(crate) id: Id,
    pub(crate) qemu: String,
    pub(crate) target: String,
    pub(crate) max_vcpus: usize,
}

/// A probe of this run.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) output: u32,
    pub(crate) action: Action,
    pub(crate) inline: Option<crate::qemu::inline_count::InlineCounter>,
}

/// What `install` hands to `begin`: nothing is registered before QEMU's callbacks find the plugin.
pub(crate) type Registrations = Vec<(Place, Event, bool)>;

/// Everything there is of this plugin.
#[derive(Debug)]
pub(crate) struct Plugin {
    pub(crate) machine: Machine,
    pub(crate) arch: &'static dyn Arch,
    pub(crate) registry: Registry<Event>,
    pub(crate) cache: Arc<QemuCache>,
    pub(crate) inline_counters: InlineCounters,
    pub(crate) locator: Option<Arc<Locator>>,
    pub(crate) vcpus: Vcpus,
    pub(crate) image: Option<Arc<KernelImage>>,
    pub(crate) counters: Counters,
    pub(crate) writer: WriterHandle,
    pub(crate) names: Arc<RuntimeNames>,
    pub(crate) backpressure: Backpressure,
    pub(crate) ring_bytes: usize,
    pub(crate) summary_file: Option<PathBuf>,
    pub(crate) listed: Vec<Listed>,
    /// All registers that definitions read.
    pub(crate) used_registers: BTreeSet<RegisterId>,
    pub(crate) problem: Mutex<Option<String>>,
    pub(crate) boundary_lost: Mutex<HashMap<Place, u64>>,
}

impl Plugin {
    /// Registers callbacks and probes. QEMU's callbacks find the plugin from here on.
    ///
    /// # Errors
    /// What the registry refuses.
    pub(crate) fn begin(&self, registrations: Registrations) -> Result<(), String> {
        self.cache.registrar().register_lifetime::<QemuEvents>();
        let target = ImageTarget { arch: self.arch, image: self.image.as_deref() };
        let (probes, enabled): (Vec<_>, Vec<_>) =
            registrations.into_iter().map(|(place, event, enabled)| ((place, event), enabled)).unzip();
        let slot = |place: Place, _: &Event| -> Result<Option<InsnSlot>, String> {
            let addr = place.addr();
            let known = matches!(place, Place::Image(_)) && target.has_text(addr);
            known
                .then(|| InsnSlot::prepare(self.arch, addr, target.slot_text(addr)))
                .transpose()
                .map_err(|error| format!("{addr}: {error}"))
        };
        let ids = self.registry.register_all(probes, slot).map_err(|error| error.to_string())?;
        for id in ids.into_iter().zip(enabled).filter_map(|(id, enabled)| (!enabled).then_some(id)) {
            self.registry.set_enabled(id, false).map_err(|error| error.to_string())?;
        }
        if !self.listed.is_empty() {
            watch_for_kvm();
        }
        Ok(())
    }

    pub(crate) fn vcpu(&self, index: u32) -> Option<&QemuVcpu> {
        self.vcpus.get(index)
    }

    /// A vCPU's thread has started.
    pub(crate) fn add_vcpu(&self, index: u32, make: impl FnOnce(Vcpu) -> QemuVcpu) {
        let ring = Arc::new(Ring::new(self.ring_bytes));
        self.writer.add_source(index, Arc::clone(&ring));
        let engine = Vcpu { index, ring, reader: self.registry.reader(), counters: self.counters.add_vcpu() };
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
        let used =
            self.used_registers.iter().filter_map(|id| Some((*id, self.arch.registers().get(usize::from(id.0))?)));
        let missing =
            used.filter(|(id, register)| matches!(register.source, RegisterSource::Qemu { .. }) && !guest.has(*id));
        let names: Vec<_> = missing.map(|(_, register)| register.name).collect();
        if !names.is_empty() {
            self.tell(format!("this QEMU does not show the registers {}: they read as a fault", names.join(", ")));
        }
    }

    #[inline]
    pub(crate) fn hit_env(&self) -> HitEnv<'_> {
        HitEnv {
            arch: self.arch,
            cpus_known: !self.vcpus.share_a_thread(),
            slide: self.locator.as_ref().and_then(|locator| locator.slide()),
            writer: &self.writer,
            backpressure: self.backpressure,
            names: &*self.names,
        }
    }

    /// A block is being translated.
    pub(crate) fn translated(&self, block: &mut impl translate::Block) {
        self.vcpus.with_reader(&self.registry, |reader| {
            let mut findings = self;
            translate::translate(self.arch, &self.registry, reader, self.locator.as_deref(), block, &mut findings);
        });
    }

    /// Says something once, and again in the summary.
    fn tell(&self, text: String) {
        let mut problem = self.problem.lock();
        if problem.is_none() {
            say!("qkprobe: {text}");
            *problem = Some(text);
        }
    }

    /// QEMU ends: write what there is, then the summary.
    pub(crate) fn exit(&self) {
        let drained = self.writer.finish(EXIT_PATIENCE);
        let summary = self.summary(drained);
        if !drained {
            say!(
                "qkprobe: records could not be written within {} s: {} are lost",
                EXIT_PATIENCE.as_secs(),
                summary.lost
            );
        }
        crate::message::tell(format_args!("{}", summary.to_table()));
        if let Some(path) = &self.summary_file
            && let Err(error) = write_whole(path, &summary.to_json())
        {
            say!("qkprobe: summary={}: {error}", path.display());
        }
    }

    /// `drained`: the writer has written or given up every record. If it stands still, all that it has not written is
    /// lost.
    fn summary(&self, drained: bool) -> Summary {
        let slide = self.locator.as_ref().and_then(|locator| locator.slide());
        let boundary_lost = self.boundary_lost.lock();
        let outputs = self.writer.outputs();
        let probes = self.listed.iter().zip(&outputs).map(|(listed, output)| {
            let totals = self.counters.totals(listed.output);
            let inline = listed.inline.map_or(0, |counter| self.inline_counters.sum(counter));
            let runtime = |addr: u64| if output.in_image { addr.wrapping_add(slide.unwrap_or(0)) } else { addr };
            let place = output.address.map(|addr| match output.in_image {
                true => Place::Image(GuestAddr(addr)),
                false => Place::Virtual(GuestAddr(addr)),
            });
            ProbeSummary {
                name: output.name.clone(),
                group: output.group.clone(),
                kind: "p",
                place: output.definition.place.text.clone(),
                address: output.address.map(|addr| format!("{:#x}", runtime(addr))),
                hits: totals.hits + inline,
                filtered: totals.filtered,
                missed: 0,
                dropped: match listed.action {
                    Action::Trace if !drained => totals.hits.saturating_sub(totals.written),
                    _ => totals.dropped,
                },
                boundary_lost: place.and_then(|place| boundary_lost.get(&place).copied()).unwrap_or(0),
            }
        });
        let probes: Vec<_> = probes.collect();
        let (written, mut lost) = self.writer.totals();
        if !drained {
            lost = probes.iter().map(|probe| probe.dropped).sum();
        }
        Summary {
            qemu: self.machine.qemu.clone(),
            api: self.machine.api.level,
            target: self.machine.target.clone(),
            slide: slide.map(|slide| format!("{slide:#x}")),
            problem: self.problem.lock().clone(),
            written,
            lost,
            probes,
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
                host: HostAddr(host.0.wrapping_add(offset(place) as usize)),
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
                if let Some(locator) = &self.locator {
                    self.catch_up(locator);
                }
            }
            Verdict::OtherKernel(banner) => {
                let ours = self.image.as_ref().and_then(|image| image.banner.clone());
                let ours = ours.unwrap_or_else(|| "unknown".to_owned());
                let running = banner
                    .map_or_else(String::new, |banner| format!("\n  running: {}", crate::install::plain(&banner)));
                self.tell(format!(
                    "the guest runs another kernel than kernel= names, so no probe can arm{running}\n  \
                     kernel=: {}\n  Give the image of the running kernel with kernel=FILE.",
                    crate::install::plain(ours.trim_end())
                ));
            }
            Verdict::SymbolsDoNotFit => self.tell(
                "the symbols do not fit the kernel that runs: its functions start elsewhere. Boot with nokaslr, give \
                 slide=0xN, or better give the kernel image itself with kernel=FILE (its slide is found by itself)"
                    .to_owned(),
            ),
        }
    }

    fn text_changed(&mut self, site: &Site<Event>, change: TextChange) {
        if change == TextChange::NoBoundary {
            *self.boundary_lost.lock().entry(site.place()).or_insert(0) += 1;
        }
    }
}

/// A file is either the old one or the whole new one, also when the disk is full. A link stays, and its target is
/// written; what is no file (a pipe, a terminal) is written to.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if std::fs::metadata(&target).is_ok_and(|metadata| !metadata.is_file()) {
        return std::fs::write(target, text);
    }
    let mut temporary = target.clone().into_os_string();
    temporary.push(".tmp");
    std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, &target)).inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
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
