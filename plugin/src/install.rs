//! From arguments to a plugin that is ready to run: settings, image, definitions, outputs.

use crate::running::{Listed, Machine, Plugin, Registrations};
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use qkprobe_arch::Arch;
use qkprobe_lang::{
    Backpressure, Command, Definition, Events, Filter, Format, Kind, NamedAddr, Privilege, ProbeConfig,
};
use qkprobe_symbols::{KernelImage, Machine as ImageMachine};

use crate::args::{self, Settings};
use crate::counters::Counters;
use crate::engine::locate::Locator;
use crate::engine::{Event, now};
use crate::primitive::Mutex;
use crate::qemu::cache::QemuCache;
use crate::qemu::inline_count::InlineCounters;
use crate::qemu::vcpus::Vcpus;
use crate::record::format::Preamble;
use crate::record::sink::Sink;
use crate::record::writer::WriterConfig;
use crate::record::{Output, WriterHandle};
use crate::registry::{Place, Registry};
use crate::resolve::{ImageTarget, RuntimeNames};

/// A vCPU's ring: room for some ten thousand records. Its pages are touched only as far as they are used.
const RING_BYTES: usize = 1 << 20;
/// The least room of a record in a ring's size.
const RECORDS_A_RING: usize = 8;

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
    let mut used_registers = BTreeSet::new();
    // One counter an address: see `translate::plant_site`.
    let mut inline_by_place = HashMap::new();
    for probe in probes {
        let place = probe.place(&target);
        let output = writer.add_output(Arc::new(probe.output(&target)));
        longest = longest.max(probe.definition.program.max_len());
        used_registers.extend(probe.definition.program.registers());
        let mut event = Event {
            output,
            definition: probe.definition,
            filter: probe.filter,
            action: probe.config.action,
            privilege: probe.config.privilege,
            inline: None,
        };
        if event.counts_only() && probe.config.enabled && event.privilege != Privilege::User {
            event.inline =
                place.map(|place| *inline_by_place.entry(place).or_insert_with(|| inline_counters.allocate()));
        }
        listed.push(Listed { output, action: event.action, inline: event.inline });
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
        used_registers,
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
        let next =
            KernelImage::load(file).map_err(|error| format!("kernel={}: {}{hint}", file.display(), error.kind))?;
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
        let place = plain(&place);
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

/// Text from an image or a guest, fit for a terminal and for JSON as it stands.
pub(crate) fn plain(text: &str) -> String {
    let fits = |c: char| (c.is_ascii_graphic() || c == ' ') && c != '"' && c != '\\';
    text.chars().map(|c| if fits(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_says_cannot_reach_the_terminal() {
        assert_eq!(plain("do_one+0x0/0x10 [mod]"), "do_one+0x0/0x10 [mod]");
        assert_eq!(plain("a\u{1b}[31m\"b\\c\n\u{e4}"), "a?[31m?b?c??");
    }
}
