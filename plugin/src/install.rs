//! From arguments to a running plugin, and from there to the summary.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use qkprobe_arch::{Arch, GuestAddr, InsnSlot, RegisterSource};
use qkprobe_lang::{
    Backpressure, Command, Definition, Events, Filter, Format, Kind, NamedAddr, Privilege, ProbeConfig,
};
use qkprobe_symbols::{KernelImage, Machine as ImageMachine};

use crate::args::{self, Settings};
use crate::counters::Counters;
use crate::engine::hit::HitEnv;
use crate::engine::locate::{Locator, Verdict};
use crate::engine::translate::{self, Findings, TextChange};
use crate::engine::vcpu::Vcpu;
use crate::engine::{Event, now};
use crate::primitive::Mutex;
use crate::qemu::api::{Api, Id};
use crate::qemu::cache::{QemuCache, Stale};
use crate::qemu::entry::QemuEvents;
use crate::qemu::guest::VcpuGuest;
use crate::qemu::host_memory::HostAddr;
use crate::qemu::inline_count::InlineCounters;
use crate::qemu::vcpus::{QemuVcpu, Vcpus};
use crate::record::format::Preamble;
use crate::record::ring::Ring;
use crate::record::sink::Sink;
use crate::record::summary::{ProbeSummary, Summary};
use crate::record::writer::WriterConfig;
use crate::record::{Output, WriterHandle};
use crate::registry::{Place, Registry, Site};
use crate::resolve::{ImageTarget, RuntimeNames};

/// A vCPU's ring: room for some ten thousand records. Its pages are touched only as far as they are used.
const RING_BYTES: usize = 1 << 20;
/// How long the end of QEMU may wait for the records to be written.
const EXIT_PATIENCE: Duration = Duration::from_secs(10);
/// The least room of a record in a ring's size.
const RECORDS_A_RING: usize = 8;

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
struct Listed {
    output: u32,
    inline: Option<crate::qemu::inline_count::InlineCounter>,
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
    vcpus: Vcpus,
    image: Option<Arc<KernelImage>>,
    counters: Counters,
    writer: WriterHandle,
    names: Arc<RuntimeNames>,
    backpressure: Backpressure,
    ring_bytes: usize,
    summary_file: Option<PathBuf>,
    listed: Vec<Listed>,
    problem: Mutex<Option<String>>,
    boundary_lost: Mutex<HashMap<Place, u64>>,
}

/// Makes the plugin from QEMU's arguments.
///
/// # Errors
/// One message: what is wrong, where, and what to do.
pub(crate) fn install(machine: Machine, arguments: &[String]) -> Result<(Plugin, Registrations), String> {
    let arch = qkprobe_arch::by_target(&machine.target).ok_or_else(|| {
        let known: Vec<_> = qkprobe_arch::all().iter().map(|arch| arch.name()).collect();
        format!("target {}: not supported. This version knows {}", machine.target, known.join(", "))
    })?;
    let command_line = args::qemu_command_line();
    if args::asks_for_kvm(&command_line) {
        return Err("the accelerator is KVM, which runs the guest without translating it: probes need \
                    translation\nUse -accel tcg (slower, and every instruction can be probed)."
            .into());
    }
    let settings = Settings::parse(arguments)?;
    let image = load_image(&settings, &command_line)?.map(Arc::new);
    if let Some(image) = &image {
        check_machine(image, arch)?;
    }
    let target = ImageTarget { arch, image: image.as_deref() };
    let probes = definitions(&settings.probes, &target)?;
    let locator = image.as_deref().map(|image| Arc::new(Locator::new(image, arch, settings.slide)));
    let names = Arc::new(RuntimeNames { image: image.clone(), locator: locator.clone() });

    let counters = Counters::new();
    let format = settings.format.unwrap_or(Format::Ftrace);
    let preamble = Preamble { qemu: machine.qemu.clone(), api: machine.api.level, target: arch.name(), epoch: now() };
    let sink = Sink::open(settings.out.as_deref())?;
    if let Some(path) = &settings.summary {
        // Now, not after a long run: can it be written?
        std::fs::write(path, "")
            .map_err(|error| format!("summary={}: cannot create the file: {error}", path.display()))?;
    }
    let writer = WriterHandle::start(WriterConfig {
        sink,
        format,
        preamble,
        names: Arc::clone(&names) as Arc<_>,
        counters: Arc::clone(&counters.writer),
    })?;

    let inline_counters = InlineCounters::new(machine.api);
    counters.grow(probes.len());
    let mut registrations = Vec::with_capacity(probes.len());
    let mut listed = Vec::with_capacity(probes.len());
    let mut longest = 0;
    for probe in probes {
        let place = probe.place(&target);
        let output = writer.add_output(Arc::new(probe.output(&target)));
        longest = longest.max(probe.definition.program.max_len());
        let mut event = Event {
            output,
            definition: probe.definition,
            filter: probe.filter,
            action: probe.config.action,
            privilege: probe.config.privilege,
            inline: None,
        };
        if event.counts_only() && probe.config.enabled && event.privilege != Privilege::User {
            event.inline = Some(inline_counters.allocate());
        }
        listed.push(Listed { output, inline: event.inline });
        if let Some(place) = place {
            registrations.push((place, event, probe.config.enabled));
        }
    }
    let cache = Arc::new(QemuCache::new(machine.api, machine.id));
    let plugin = Plugin {
        registry: Registry::new(Arc::clone(&cache) as Arc<_>),
        vcpus: Vcpus::new(machine.max_vcpus),
        machine,
        arch,
        cache,
        inline_counters,
        locator,
        image,
        counters,
        writer,
        names,
        backpressure: settings.backpressure.unwrap_or(Backpressure::Lossless),
        ring_bytes: RING_BYTES.max(longest.saturating_mul(RECORDS_A_RING)),
        summary_file: settings.summary,
        listed,
        problem: Mutex::new(None),
        boundary_lost: Mutex::new(HashMap::new()),
    };
    Ok((plugin, registrations))
}

fn load_image(settings: &Settings, command_line: &[String]) -> Result<Option<KernelImage>, String> {
    let mut files: Vec<PathBuf> = settings.kernels.clone();
    let given = !files.is_empty();
    files.extend(args::kernel_of_command_line(command_line).filter(|_| !given));
    let mut image: Option<KernelImage> = None;
    for file in &files {
        let hint = if given { "" } else { "\n(the file behind QEMU's -kernel; name another with kernel=FILE)" };
        let next = KernelImage::load(file).map_err(|error| format!("kernel={}: {error}{hint}", file.display()))?;
        match &mut image {
            None => image = Some(next),
            Some(image) => add_symbols(image, next).map_err(|error| format!("kernel={}: {error}", file.display()))?,
        }
    }
    if image.is_none() && !settings.probes.is_empty() {
        return Err("no kernel: name the guest's kernel with kernel=FILE (vmlinux, bzImage, System.map or a copy of \
                    /proc/kallsyms); only with QEMU's -kernel it is found by itself"
            .into());
    }
    Ok(image)
}

/// A second file: its symbols, and its text when the first had none.
fn add_symbols(image: &mut KernelImage, next: KernelImage) -> Result<(), String> {
    if image.segments.is_empty() {
        let symbols = std::mem::replace(image, next).symbols;
        return image.symbols.merge(&symbols).map_err(|error| error.to_string());
    }
    image.symbols.merge(&next.symbols).map_err(|error| error.to_string())
}

fn check_machine(image: &KernelImage, arch: &dyn Arch) -> Result<(), String> {
    let target = match image.machine {
        ImageMachine::I386 => "i386",
        ImageMachine::X86_64 => "x86_64",
        ImageMachine::Ppc => "ppc",
        ImageMachine::Ppc64 => "ppc64",
        ImageMachine::Sparc64 => "sparc64",
        ImageMachine::Other(_) => "another machine",
        ImageMachine::Unknown => return Ok(()),
    };
    if target != arch.name() {
        return Err(format!(
            "the kernel is for {target}, but this QEMU runs {}: give the right one with kernel=",
            arch.name()
        ));
    }
    Ok(())
}

struct Parsed<'a> {
    definition: Arc<Definition>,
    /// `None` where everything passes.
    filter: Option<Filter>,
    config: &'a ProbeConfig,
}

fn definitions<'a>(probes: &'a [ProbeConfig], target: &ImageTarget<'_>) -> Result<Vec<Parsed<'a>>, String> {
    let mut events = Events::default();
    let mut parsed: Vec<Parsed<'a>> = Vec::new();
    for config in probes {
        let origin = &config.origin;
        let command =
            qkprobe_lang::parse(&config.def, target, &events).map_err(|error| format!("{origin}\n{error}"))?;
        match command {
            Command::Nothing => {}
            Command::Delete(delete) => {
                for gone in events.matching(&delete) {
                    events.remove(&gone);
                    parsed.retain(|probe| !Arc::ptr_eq(&probe.definition, &gone));
                }
            }
            Command::Add(definition) => {
                if matches!(definition.kind, Kind::Kretprobe { .. }) {
                    return Err(format!("{origin}\nreturn probes are parsed, but cannot run yet: use a p: definition"));
                }
                let filter = config.filter.as_deref().map(|text| Filter::compile(text, &definition));
                let filter = filter.transpose().map_err(|error| format!("{origin}\n{error}"))?;
                let definition = Arc::new(definition);
                events.insert(Arc::clone(&definition));
                parsed.push(Parsed { definition, filter: filter.filter(|filter| !filter.is_none()), config });
            }
        }
    }
    if parsed.len() > crate::counters::MAX_OUTPUTS {
        return Err(format!("{} probes: at most {} are possible", parsed.len(), crate::counters::MAX_OUTPUTS));
    }
    Ok(parsed)
}

impl Parsed<'_> {
    /// Image addresses follow the kernel; anything else is a virtual address as it is.
    fn place(&self, target: &ImageTarget<'_>) -> Option<Place> {
        let addr = self.definition.place.address?;
        let in_image = target.has_text(addr) || (target.is_text_free() && target.in_kernel(addr));
        Some(if in_image { Place::Image(addr) } else { Place::Virtual(addr) })
    }

    fn output(&self, target: &ImageTarget<'_>) -> Output {
        use qkprobe_lang::Target as _;
        let address = self.definition.place.address;
        let place = address.map_or_else(
            || self.definition.place.text.clone(),
            |addr| match target.name_of(addr) {
                Some(NamedAddr { symbol, offset, size, module }) => {
                    let module = module.map(|module| format!(" [{module}]")).unwrap_or_default();
                    format!("{symbol}+{offset:#x}/{size:#x}{module}")
                }
                None => format!("{addr}"),
            },
        );
        Output {
            name: self.definition.event.clone(),
            group: self.definition.group.clone(),
            place,
            address: address.map(|addr| addr.0),
            in_image: matches!(self.place(target), Some(Place::Image(_))),
            definition: Arc::clone(&self.definition),
        }
    }
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
    }

    /// Tells when a definition reads a register that this QEMU does not show.
    pub(crate) fn check_registers(&self, guest: &VcpuGuest) {
        let missing = |register: &&qkprobe_arch::Register| {
            let id = self.arch.register(register.name);
            matches!(register.source, RegisterSource::Qemu { .. }) && !id.is_some_and(|id| guest.has(id))
        };
        let names: Vec<_> = self.arch.registers().iter().filter(missing).map(|register| register.name).collect();
        if !names.is_empty() {
            self.tell(format!("this QEMU does not show the registers {}: they read as a fault", names.join(", ")));
        }
    }

    #[inline]
    pub(crate) fn hit_env(&self) -> HitEnv<'_> {
        HitEnv {
            arch: self.arch,
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
            eprintln!("qkprobe: {text}");
            *problem = Some(text);
        }
    }

    /// QEMU ends: write what there is, then the summary.
    pub(crate) fn exit(&self) {
        let drained = self.writer.finish(EXIT_PATIENCE);
        if !drained {
            eprintln!("qkprobe: the records could not be written within {} s: some are lost", EXIT_PATIENCE.as_secs());
        }
        let summary = self.summary();
        eprint!("{}", summary.to_table());
        if let Some(path) = &self.summary_file
            && let Err(error) = write_whole(path, &summary.to_json())
        {
            eprintln!("qkprobe: summary={}: {error}", path.display());
        }
    }

    fn summary(&self) -> Summary {
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
                dropped: totals.dropped,
                boundary_lost: place.and_then(|place| boundary_lost.get(&place).copied()).unwrap_or(0),
            }
        });
        let (written, lost) = self.writer.totals();
        Summary {
            qemu: self.machine.qemu.clone(),
            api: self.machine.api.level,
            target: self.machine.target.clone(),
            slide: slide.map(|slide| format!("{slide:#x}")),
            problem: self.problem.lock().clone(),
            written,
            lost,
            probes: probes.collect(),
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
                let running = banner.map_or_else(String::new, |banner| format!("\n  running: {banner}"));
                self.tell(format!(
                    "the guest runs another kernel than kernel= names, so no probe can arm{running}\n  \
                     kernel=: {}\n  Give the image of the running kernel with kernel=FILE.",
                    ours.trim_end()
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

/// A file that is either the old one or the whole new one, also when the disk is full.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, path)).inspect_err(|_| {
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
            eprintln!(
                "qkprobe: the accelerator is KVM: it runs the guest without translating it, so no probe can fire. Use -accel tcg."
            );
        }
    };
    let _ = std::thread::Builder::new().name("qkprobe-watch".into()).spawn(watch);
}
