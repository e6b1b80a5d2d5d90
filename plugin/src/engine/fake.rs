//! A guest without QEMU, for the engine's tests: symbols, registers, memory, blocks, and the whole way to the text.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use qkprobe_arch::{Arch, GuestAddr, RegisterId};
use qkprobe_lang::{Action, Backpressure, Command, Events, Filter, Format, Privilege};
use qkprobe_symbols::KernelImage;

use super::hit::{GuestState, HitEnv, hit};
use super::translate::{Block, Findings, TextChange, translate};
use super::vcpu::Vcpu;
use super::{Event, Serving, locate::Locator, locate::Verdict, now};
use crate::counters::{Counters, Totals};
use crate::qemu::host_memory::HostAddr;
use crate::record::format::Preamble;
use crate::record::ring::Ring;
use crate::record::sink::Sink;
use crate::record::writer::WriterConfig;
use crate::record::{Output, WriterHandle};
use crate::registry::{CodeCache, Place, ProbeId, Registry, Site};
use crate::resolve::{ImageTarget, RuntimeNames};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's duties are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of the calling thread so far.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

/// Registers hold their index; memory below 0x1000 faults, `hello` lies at 0x7000, zeroes elsewhere.
#[derive(Debug)]
pub(crate) struct FakeState {
    pub(crate) privileged: bool,
}

impl GuestState for FakeState {
    fn register(&self, id: RegisterId) -> Option<u64> {
        if id == arch().privilege_register() {
            return Some(if self.privileged { 0x10 } else { 0x33 });
        }
        Some(0x7000 + u64::from(id.0) * 0x1_0000 - if id == arch().register("si")? { 13 * 0x1_0000 } else { 0 })
    }

    fn read(&self, addr: GuestAddr, out: &mut [u8]) -> bool {
        if addr.0 < 0x1000 {
            return false;
        }
        for (offset, byte) in out.iter_mut().enumerate() {
            *byte = match addr.0 + offset as u64 {
                at @ 0x7000..0x7005 => b"hello"[(at - 0x7000) as usize],
                _ => 0,
            };
        }
        true
    }
}

pub(crate) fn arch() -> &'static dyn Arch {
    qkprobe_arch::by_target("x86_64").expect("x86_64 is always there")
}

#[derive(Debug)]
struct NoCache;

impl CodeCache for NoCache {
    fn set_translation_hook(&self, _on: bool) {}
    fn retranslate(&self, _place: Place) {}
}

/// The engine's parts, joined as `install` joins them.
pub(crate) struct Bench {
    pub(crate) registry: Registry<Event>,
    pub(crate) counters: Counters,
    pub(crate) writer: WriterHandle,
    pub(crate) names: Arc<RuntimeNames>,
    pub(crate) locator: Option<Arc<Locator>>,
    image: Arc<KernelImage>,
    events: Events,
    pub(crate) backpressure: Backpressure,
    out: tempfile::NamedTempFile,
}

impl Bench {
    pub(crate) fn new(system_map: &str) -> Self {
        let image = KernelImage::parse("System.map", system_map.as_bytes().to_vec()).expect("valid");
        let locator = Some(Arc::new(Locator::new(&image, arch(), None)));
        Self::with_image(image, locator)
    }

    pub(crate) fn with_image(image: KernelImage, locator: Option<Arc<Locator>>) -> Self {
        let image = Arc::new(image);
        let counters = Counters::new();
        let names = Arc::new(RuntimeNames { image: Some(Arc::clone(&image)), locator: locator.clone() });
        let out = tempfile::NamedTempFile::new().expect("a temporary file");
        let preamble = Preamble { qemu: "test".into(), api: 7, target: "x86_64", epoch: now() };
        let writer = WriterHandle::start(WriterConfig {
            sink: Sink::open(Some(out.path())).expect("writable"),
            format: Format::Ftrace,
            preamble,
            names: Arc::clone(&names) as Arc<_>,
            counters: Arc::clone(&counters.writer),
        })
        .expect("a thread");
        Self {
            registry: Registry::new(Arc::new(NoCache)),
            counters,
            writer,
            names,
            locator,
            image,
            events: Events::new(),
            backpressure: Backpressure::Lossless,
            out,
        }
    }

    pub(crate) fn probe(&mut self, definition: &str, change: impl FnOnce(&mut Event)) -> (ProbeId, u32) {
        self.probe_filtered(definition, None, change)
    }

    pub(crate) fn probe_filtered(
        &mut self,
        definition: &str,
        filter: Option<&str>,
        change: impl FnOnce(&mut Event),
    ) -> (ProbeId, u32) {
        let target = ImageTarget { arch: arch(), image: Some(&self.image) };
        let command = qkprobe_lang::parse(definition, &target, &self.events).expect("valid");
        let Command::Add(definition) = command else { panic!("an addition") };
        let definition = Arc::new(definition);
        self.events.insert(Arc::clone(&definition));
        let address = definition.place.address.expect("resolved");
        let output = self.writer.add_output(Arc::new(Output {
            definition: Arc::clone(&definition),
            name: definition.event.clone(),
            group: definition.group.clone(),
            place: definition.place.text.clone(),
            address: Some(address.0),
            in_image: matches!(place_of(address.0), Place::Image(_)),
        }));
        self.counters.grow(output as usize + 1);
        let filter = filter.map(|text| Filter::compile(text, &definition).expect("valid"));
        let mut event =
            Event { output, definition, filter, action: Action::Trace, privilege: Privilege::Kernel, inline: None };
        change(&mut event);
        let id = self
            .registry
            .register(place_of(address.0), event, || Ok::<_, std::convert::Infallible>(None))
            .expect("nothing refuses");
        (id, output)
    }

    pub(crate) fn vcpu(&self, index: u32, ring_bytes: usize) -> Vcpu {
        let ring = Arc::new(Ring::new(ring_bytes));
        self.writer.add_source(index, Arc::clone(&ring));
        Vcpu { index, ring, reader: self.registry.reader(), counters: self.counters.add_vcpu() }
    }

    pub(crate) fn env(&self) -> HitEnv<'_> {
        HitEnv {
            arch: arch(),
            cpus_known: true,
            slide: Some(0),
            writer: &self.writer,
            backpressure: self.backpressure,
            names: &*self.names,
        }
    }

    /// Executes the instruction at a linked address once.
    pub(crate) fn execute(&self, vcpu: &Vcpu, addr: u64, state: &FakeState, serving: Serving) {
        let site = self.site(vcpu, addr).expect("armed");
        hit(&self.env(), vcpu, &site, state, serving);
    }

    pub(crate) fn site(&self, vcpu: &Vcpu, addr: u64) -> Option<Arc<Site<Event>>> {
        let place = place_of(addr);
        let mut found = None;
        self.registry.sites_on_page(place, &vcpu.reader.pin(), |site| {
            if site.place() == place {
                found = Some(Arc::clone(site));
            }
        });
        found
    }

    pub(crate) fn totals(&self, output: u32) -> Totals {
        self.counters.totals(output)
    }

    /// Ends the writer and returns the lines that are no comments.
    pub(crate) fn finish(&self) -> Vec<String> {
        assert!(self.writer.finish(std::time::Duration::from_secs(20)), "the writer ends");
        let text = std::fs::read_to_string(self.out.path()).expect("written");
        assert!(text.lines().last().is_some_and(|line| line.starts_with("# end: ")), "the last line is there");
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    /// Translates a block and returns what was planted and found.
    pub(crate) fn translate(&self, vcpu: &Vcpu, mut block: FakeBlock) -> (FakeBlock, Found) {
        let mut found = Found::default();
        translate(arch(), &self.registry, &vcpu.reader, self.locator.as_deref(), &mut block, &mut found);
        (block, found)
    }
}

/// The upper half is the image's, the lower half is not.
fn place_of(addr: u64) -> Place {
    if addr >> 63 == 1 { Place::Image(GuestAddr(addr)) } else { Place::Virtual(GuestAddr(addr)) }
}

/// A block of instructions, with where they are for the guest and the host.
#[derive(Debug, Default)]
pub(crate) struct FakeBlock {
    pub(crate) vaddr: u64,
    pub(crate) host: Option<usize>,
    pub(crate) insns: Vec<Vec<u8>>,
    /// (index, linked address, how it is served)
    pub(crate) callbacks: Vec<(usize, u64, Serving)>,
    /// QEMU's inline counters are not to be trusted.
    pub(crate) no_counters: bool,
    pub(crate) counts: Vec<usize>,
}

impl FakeBlock {
    fn offset(&self, index: usize) -> u64 {
        self.insns[..index].iter().map(|insn| insn.len() as u64).sum()
    }
}

impl Block for FakeBlock {
    fn len(&self) -> usize {
        self.insns.len()
    }

    fn vaddr(&self, index: usize) -> GuestAddr {
        GuestAddr(self.vaddr + self.offset(index))
    }

    fn host(&self, index: usize) -> Option<HostAddr> {
        self.host.map(|host| HostAddr(host + self.offset(index) as usize))
    }

    fn bytes(&self, index: usize, out: &mut [u8]) -> usize {
        let len = self.insns[index].len().min(out.len());
        out[..len].copy_from_slice(&self.insns[index][..len]);
        len
    }

    fn plant_callback(&mut self, index: usize, site: &Site<Event>, serving: Serving) {
        self.callbacks.push((index, site.place().addr().0, serving));
    }

    fn can_count(&self) -> bool {
        !self.no_counters
    }

    fn plant_count(&mut self, index: usize, _counter: crate::qemu::inline_count::InlineCounter) {
        self.counts.push(index);
    }
}

/// What a translation reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) changes: Vec<(u64, TextChange)>,
}

impl Findings for Found {
    fn verdict(&mut self, verdict: Verdict) {
        self.verdicts.push(verdict);
    }

    fn text_changed(&mut self, site: &Site<Event>, change: TextChange) {
        self.changes.push((site.place().addr().0, change));
    }
}
