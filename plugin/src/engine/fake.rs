//! A guest without QEMU, for the engine's tests: symbols, text, blocks, and the whole way to the trace. `fake_state` has its
//! registers and memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use qkprobe_arch::{Arch, GuestAddr};
use qkprobe_lang::{Action, Backpressure, Events, Format, Privilege, ProbeConfig};
use qkprobe_resolve::ImageTarget;
use qkprobe_symbols::{KernelImage, Machine, Segment, SymbolTable};

pub(crate) use super::fake_block::{FakeBlock, Found};
pub(crate) use super::fake_state::FakeState;
use super::hit::{After, HitEnv, Planted, Spot, arrive, hit, post};
use super::kprobe::{Access, Event, Handler, Kprobe, ReturnWork};
use super::pending::Pending;
use super::pending::landing::Landings;
use super::translate::{Where, translate};
use super::vcpu::Vcpu;
use super::verify::Verifier;
use super::{Serving, locate::Locator, now};
use crate::control::Feed;
use crate::counters::{Counters, Totals};
use crate::names::RuntimeNames;
use crate::primitive::Mutex;
use crate::probes::prepare::{Abilities, Prepared, place_of, prepare, slot_of};
use crate::qemu::api::Api;
use crate::record::format::Preamble;
use crate::record::ring::Ring;
use crate::record::sink::Sink;
use crate::record::writer::WriterConfig;
use crate::record::{Output, WriterHandle};
use crate::registry::{CodeCache, New, Place, ProbeId, Registry, Site};

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

pub(crate) fn arch() -> &'static dyn Arch {
    qkprobe_arch::by_name("x86_64").expect("x86_64 is always there")
}

#[derive(Debug)]
struct NoCache;

impl CodeCache for NoCache {
    fn set_translation_hook(&self, _on: bool) {}
    fn retranslate(&self, _place: Place) {}
}

/// The symbols of the made-up kernel.
pub(crate) const MAP: &str = "\
ffffffff81000000 T _text
ffffffff81000000 T _stext
ffffffff81000100 T do_one
ffffffff81000200 T do_two
ffffffff81000300 T caller
ffffffff81001000 T _etext
ffffffff81002000 D some_data
";
const TEXT: u64 = 0xffff_ffff_8100_0000;
pub(crate) const DO_ONE: u64 = TEXT + 0x100;
pub(crate) const DO_TWO: u64 = TEXT + 0x200;
pub(crate) const CALLER: u64 = TEXT + 0x300;

/// Its text, where it is not all nops.
const CODE: [(u64, &[u8]); 9] = [
    // do_one+0x0: nopl 0(%rax,%rax,1)
    (0x100, &[0x0f, 0x1f, 0x44, 0x00, 0x00]),
    // do_one+0x5: add $5,%rax
    (0x105, &[0x48, 0x83, 0xc0, 0x05]),
    // do_one+0x9: jne do_one+0x1b
    (0x109, &[0x75, 0x10]),
    // do_one+0xb: call do_two
    (0x10b, &[0xe8, 0xf0, 0x00, 0x00, 0x00]),
    // do_one+0x10: ret
    (0x110, &[0xc3]),
    // do_one+0x11: mov (%rdi),%rax
    (0x111, &[0x48, 0x8b, 0x07]),
    // do_one+0x14: ud2
    (0x114, &[0x0f, 0x0b]),
    // do_one+0x16: mov %rbx,(%rdi)
    (0x116, &[0x48, 0x89, 0x1f]),
    // do_two+0x20: ret
    (0x220, &[0xc3]),
];

unsafe extern "C" fn nothing() {}

/// A QEMU that has every function, none of which does anything: for what is decided by what there is.
pub(crate) fn api() -> Api {
    macro_rules! api {
        ($($required:ident)*; $($optional:ident)*) => {
            Api {
                level: 7,
                // SAFETY: a function pointer like any other; it is never called.
                $($required: unsafe { std::mem::transmute::<unsafe extern "C" fn(), _>(nothing) },)*
                // SAFETY: as above.
                $($optional: Some(unsafe { std::mem::transmute::<unsafe extern "C" fn(), _>(nothing) }),)*
            }
        };
    }
    #[allow(clippy::missing_transmute_annotations, reason = "the fields say it")]
    {
        api! {
            register_vcpu_tb_trans_cb register_vcpu_init_cb register_vcpu_resume_cb register_vcpu_syscall_ret_cb
            register_flush_cb register_atexit_cb reset register_vcpu_insn_exec_cb
            register_vcpu_insn_exec_inline_per_vcpu tb_n_insns tb_get_insn insn_vaddr insn_haddr insn_data
            get_registers read_register read_memory_vaddr scoreboard_new u64_sum g_byte_array_sized_new
            g_array_get_element_size g_array_free;
            write_memory_vaddr write_register read_memory_hwaddr write_memory_hwaddr translate_vaddr register_vcpu_discon_cb set_pc
        }
    }
}

/// The engine's parts, joined as `install` joins them.
pub(crate) struct Bench {
    pub(crate) registry: Registry<Kprobe>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) writer: WriterHandle,
    pub(crate) names: Arc<RuntimeNames>,
    pub(crate) locator: Option<Arc<Locator>>,
    pub(crate) pending: Arc<Pending>,
    pub(crate) landings: Landings,
    pub(crate) verifier: Option<Verifier>,
    /// The addresses whose code was dropped, in order.
    pub(crate) retranslated: Arc<Mutex<Vec<u64>>>,
    pub(crate) can_retranslate: Arc<AtomicBool>,
    pub(crate) retranslate: Box<dyn Fn(GuestAddr) -> bool + Send + Sync>,
    pub(crate) api: Api,
    image: Arc<KernelImage>,
    events: Events,
    pub(crate) backpressure: Backpressure,
    out: tempfile::NamedTempFile,
}

impl Bench {
    /// Symbols without text: what a probe is on is seen at translation.
    pub(crate) fn new(system_map: &str) -> Self {
        let image = KernelImage::parse("System.map", system_map.as_bytes().to_vec()).expect("valid");
        let locator = Some(Arc::new(Locator::new(&image, arch(), None)));
        Self::with_image(image, locator, Format::Ftrace)
    }

    /// With the text of `CODE`.
    pub(crate) fn with_text() -> Self {
        Self::with_text_as(Format::Ftrace)
    }

    pub(crate) fn with_text_as(format: Format) -> Self {
        let bare = KernelImage::parse("System.map", MAP.as_bytes().to_vec()).expect("valid");
        let locator = Some(Arc::new(Locator::new(&bare, arch(), None)));
        let mut bytes = vec![0x90; 0x1000];
        for (at, code) in CODE {
            bytes[at as usize..][..code.len()].copy_from_slice(code);
        }
        let segments =
            vec![Segment { addr: GuestAddr(TEXT), phys: 0x100_0000, bytes: bytes.as_slice().into(), executable: true }];
        let rows = MAP.lines().map(|line| {
            let mut words = line.split(' ');
            let mut word = || words.next().expect("three words");
            let addr = u64::from_str_radix(word(), 16).expect("hexadecimal");
            let kind = word().chars().next().expect("a letter");
            (GuestAddr(addr), kind, word(), None)
        });
        let symbols = SymbolTable::from_rows(rows).expect("few names");
        Self::with_image(KernelImage::from_parts(symbols, segments, None, Machine::X86_64), locator, format)
    }

    fn with_image(image: KernelImage, locator: Option<Arc<Locator>>, format: Format) -> Self {
        let image = Arc::new(image);
        let counters = Arc::new(Counters::new());
        let names = Arc::new(RuntimeNames { image: Some(Arc::clone(&image)), locator: locator.clone() });
        let out = tempfile::NamedTempFile::new().expect("a temporary file");
        let preamble = Preamble { qemu: "test".into(), api: 7, target: "x86_64", epoch: now() };
        let writer = WriterHandle::start(WriterConfig {
            sink: Sink::open(Some(out.path())).expect("writable"),
            format,
            preamble,
            names: Arc::clone(&names) as Arc<_>,
            counters: Arc::clone(&counters.writer),
            all_counters: Arc::clone(&counters),
            feed: Arc::new(Feed::new()),
        })
        .expect("a thread");
        let retranslated = Arc::new(Mutex::new(Vec::with_capacity(1 << 12)));
        let can_retranslate = Arc::new(AtomicBool::new(true));
        let (log, can) = (Arc::clone(&retranslated), Arc::clone(&can_retranslate));
        Self {
            registry: Registry::new(Arc::new(NoCache)),
            counters,
            writer,
            names,
            locator,
            pending: Arc::new(Pending::new(arch())),
            landings: Landings::new(false),
            verifier: None,
            retranslated,
            can_retranslate,
            retranslate: Box::new(move |addr| {
                log.lock().push(addr.0);
                can.load(Ordering::Relaxed)
            }),
            api: api(),
            image,
            events: Events::new(),
            backpressure: Backpressure::Lossless,
            out,
        }
    }

    /// A line, as a user writes it behind `probe=`; its name is shown as its place.
    pub(crate) fn probe(&mut self, line: &str) -> (ProbeId, u32) {
        self.probe_with(line, |_| {})
    }

    pub(crate) fn probe_with(&mut self, line: &str, change: impl FnOnce(&mut Kprobe)) -> (ProbeId, u32) {
        let prepared = self.prepare(line).expect("valid");
        let Prepared { place, mut output, handler, access, privilege, attempts, enabled, .. } = prepared;
        if let Some(definition) = &output.definition {
            output.place = definition.place.text.clone();
        }
        let output = self.output(output);
        let mut kprobe = Kprobe { output, privilege, access, inline: None, attempts, handler };
        change(&mut kprobe);
        let new = New { place: place.expect("resolved"), payload: kprobe, enabled };
        (self.register(new), output)
    }

    /// What `line` is refused with, or what it became.
    pub(crate) fn prepare(&mut self, line: &str) -> Result<Prepared, crate::probes::prepare::Refused> {
        let config = ProbeConfig::from_line(line, "test".to_owned()).expect("valid options");
        let target = ImageTarget { arch: arch(), image: Some(&self.image) };
        let abilities =
            Abilities { api: &self.api, qemu: "test", control: true, exact_stop: false, unfound: None, locator: None };
        let mut prepared = prepare(&[config], &mut self.events, &target, abilities)?;
        Ok(prepared.pop().expect("an addition"))
    }

    /// What a Rust program would register: no definition.
    pub(crate) fn handler(&mut self, addr: u64, access: Access, handler: Handler) -> (ProbeId, u32) {
        let output = self.output(Output {
            definition: None,
            name: "handler".to_owned(),
            group: "rust".to_owned(),
            place: format!("{addr:#x}"),
            function: None,
            module: None,
            address: Some(addr),
            in_image: true,
            reserved: false,
        });
        (self.add(addr, output, access, handler), output)
    }

    /// Another one that counts where one counts already, while vCPUs run.
    pub(crate) fn add_like(&self, addr: u64, output: u32, handler: Handler) -> ProbeId {
        self.add(addr, output, Access::Read, handler)
    }

    fn add(&self, addr: u64, output: u32, access: Access, handler: Handler) -> ProbeId {
        let kprobe = Kprobe { output, privilege: Privilege::Kernel, access, inline: None, attempts: false, handler };
        let place = place_of(GuestAddr(addr), &ImageTarget { arch: arch(), image: Some(&self.image) });
        self.register(New::enabled(place, kprobe))
    }

    fn output(&self, output: Output) -> u32 {
        let index = self.writer.add_output(Arc::new(output));
        self.counters.grow(index as usize + 1);
        index
    }

    fn register(&self, new: New<Kprobe>) -> ProbeId {
        let target = ImageTarget { arch: arch(), image: Some(&self.image) };
        let slot = |place, _: &Kprobe| Ok::<_, std::convert::Infallible>(slot_of(place, &target));
        self.registry.register_all([new], slot).expect("nothing refuses")[0]
    }

    /// Unregisters as the plugin does: afterwards nothing refers to the probe.
    pub(crate) fn remove(&self, id: ProbeId) {
        let gone = self.registry.unregister(id).expect("registered");
        let token = gone.token();
        self.pending.forget(|instance| instance.token == token, |_| {});
        self.registry.synchronize();
        self.landings.retire(|keep| {
            self.pending.each(|instance| {
                keep(GuestAddr(instance.first));
                keep(GuestAddr(instance.second));
            });
        });
    }

    pub(crate) fn vcpu(&self, index: u32, ring_bytes: usize) -> Vcpu {
        let ring = Arc::new(Ring::new(ring_bytes));
        self.writer.add_source(index, Arc::clone(&ring));
        Vcpu::new(index, ring, self.registry.reader(), self.counters.add_vcpu())
    }

    pub(crate) fn env(&self) -> HitEnv<'_> {
        HitEnv {
            arch: arch(),
            registry: &self.registry,
            vcpus: 2,
            cpus_known: true,
            locator: None,
            slide: Some(0),
            writer: &self.writer,
            backpressure: self.backpressure,
            names: &*self.names,
            pending: &self.pending,
            landings: &self.landings,
            retranslate: &*self.retranslate,
            verifier: self.verifier.as_ref(),
        }
    }

    /// Executes the instruction at a linked address once; its block goes on behind it.
    pub(crate) fn execute(&self, vcpu: &Vcpu, addr: u64, state: &FakeState, serving: Serving) -> After {
        let site = self.site(vcpu, addr).expect("armed");
        let planted = Planted { serving, lands: false, restarts: true, spot: Spot::Any };
        hit(&self.env(), vcpu, &site, state, planted).unwrap_or_default()
    }

    /// The same where the block ends behind it.
    pub(crate) fn execute_last(&self, vcpu: &Vcpu, addr: u64, state: &FakeState) -> After {
        let site = self.site(vcpu, addr).expect("armed");
        let planted = Planted { serving: Serving::Plain, lands: true, restarts: true, spot: Spot::Any };
        hit(&self.env(), vcpu, &site, state, planted).unwrap_or_default()
    }

    /// The instruction at this address has run, and its block goes on.
    pub(crate) fn behind(&self, vcpu: &Vcpu, addr: u64, state: &FakeState) -> After {
        let site = self.site(vcpu, addr).expect("armed");
        post(&self.env(), vcpu, &site, state, Serving::Plain).unwrap_or_default()
    }

    /// Execution comes to this address: false where nothing is planted.
    pub(crate) fn arrive(&self, vcpu: &Vcpu, addr: u64, state: &FakeState) -> bool {
        let landing = self.landings.get(GuestAddr(addr));
        if let Some(landing) = landing {
            arrive(&self.env(), vcpu, landing, state);
        }
        landing.is_some()
    }

    pub(crate) fn site(&self, vcpu: &Vcpu, addr: u64) -> Option<Arc<Site<Kprobe>>> {
        let place = place_of(GuestAddr(addr), &ImageTarget { arch: arch(), image: Some(&self.image) });
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

    /// How many instances are awaited.
    pub(crate) fn awaited(&self) -> usize {
        let mut count = 0;
        self.pending.each(|_| count += 1);
        count
    }

    /// Ends the writer and returns the lines that are no comments.
    pub(crate) fn finish(&self) -> Vec<String> {
        let lines = self.finish_whole();
        assert!(lines.last().is_some_and(|line| line.starts_with("# end: ")), "the last line is there");
        lines.into_iter().filter(|line| !line.starts_with('#')).collect()
    }

    /// All lines.
    pub(crate) fn finish_whole(&self) -> Vec<String> {
        assert!(self.writer.finish(std::time::Duration::from_secs(120)), "the writer ends");
        let text = std::fs::read_to_string(self.out.path()).expect("written");
        text.lines().map(str::to_owned).collect()
    }

    /// What stands behind the time of each record.
    pub(crate) fn events(&self) -> Vec<String> {
        self.finish().iter().map(|line| split(line).2.to_owned()).collect()
    }

    /// Translates a block and returns what was planted and found.
    pub(crate) fn translate(&self, vcpu: &Vcpu, block: FakeBlock) -> (FakeBlock, Found) {
        self.translate_for(arch(), vcpu, block)
    }

    /// The same for another ISA: for probes by number.
    pub(crate) fn translate_for(&self, arch: &dyn Arch, vcpu: &Vcpu, mut block: FakeBlock) -> (FakeBlock, Found) {
        let mut found = Found::default();
        let at = Where {
            arch,
            registry: &self.registry,
            locator: self.locator.as_deref(),
            landings: &self.landings,
            landing_access: Access::Write,
            exceptions: true,
            verify: self.verifier.is_some(),
        };
        translate(at, &vcpu.reader, &mut block, &mut found);
        (block, found)
    }
}

/// What stands before the time, the time, and what stands behind it.
pub(crate) fn split(line: &str) -> (&str, f64, &str) {
    let (head, rest) = line.split_at(37);
    let (time, event) = rest.split_once(": ").expect("a colon behind the time");
    (head, time.trim().parse().expect("a time"), event)
}

/// Makes a definition only count.
pub(crate) fn count(kprobe: &mut Kprobe) {
    event_of(kprobe).action = Action::Count;
}

/// The definition at work in a probe.
pub(crate) fn event_of(kprobe: &mut Kprobe) -> &mut Event {
    match &mut kprobe.handler {
        Handler::Pre(event) | Handler::Post(event) => event,
        Handler::Return(kretprobe) => match &mut kretprobe.work {
            ReturnWork::Event(event) => event,
            ReturnWork::Handlers(_) => panic!("no definition"),
        },
        Handler::Step(_) | Handler::Watch(_) => panic!("no definition"),
    }
}
