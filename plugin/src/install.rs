//! From arguments to a plugin that is ready to run: settings, image, definitions, outputs.

use std::path::PathBuf;
use std::sync::Arc;

use qkprobe_arch::Arch;
use qkprobe_lang::{Backpressure, Events, Format};
use qkprobe_resolve::ImageTarget;
use qkprobe_symbols::{KernelImage, Machine as ImageMachine};

use crate::args::{self, Settings};
use crate::control::{Feed, Listener};
use crate::counters::Counters;
use crate::engine::locate::Locator;
use crate::engine::now;
use crate::names::RuntimeNames;
use crate::probes::prepare::{Abilities, Prepared, prepare, prepare_watches};
use crate::record::WriterHandle;
use crate::record::format::Preamble;
use crate::record::sink::Sink;
use crate::record::writer::WriterConfig;
use crate::running::{Machine, Parts, Plugin};

/// A vCPU's ring: room for some ten thousand records, and for several of the longest there can be. Its pages are touched
/// only as far as they are used.
const RING_BYTES: usize = 1 << 20;
const _: () = assert!(RING_BYTES >= 8 * (qkprobe_lang::MAX_TAIL_BYTES + (8 << 10)));

/// Makes the plugin from QEMU's arguments.
///
/// # Errors
/// One message: what is wrong, where, and what to do.
pub(crate) fn install(machine: Machine, arguments: &[String]) -> Result<(Plugin, Events, Vec<Prepared>), String> {
    if qkprobe_arch::for_kernel(&machine.target, None).is_none() {
        let mut known: Vec<_> = qkprobe_arch::all().iter().map(|arch| arch.target()).collect();
        known.dedup();
        return Err(format!("target {}: not supported. This version knows {}", machine.target, known.join(", ")));
    }
    let command_line = args::qemu_command_line();
    if args::asks_for_kvm(&command_line) {
        return Err("the accelerator is KVM, which runs the guest without translating it: probes need \
                    translation\nUse -accel tcg (slower, and every instruction can be probed)."
            .into());
    }
    let settings = Settings::parse(arguments)?;
    let image = load_image(&settings, &command_line)?.map(Arc::new);
    let arch = arch_of(&machine.target, image.as_deref())?;
    let target = ImageTarget { arch, image: image.as_deref() };
    let mut events = Events::default();
    let paging: Result<Option<Arc<_>>, _> = target.paging().map(|paging| paging.map(Arc::from));
    let abilities = Abilities {
        api: machine.api,
        qemu: &machine.qemu,
        control: settings.control.is_some(),
        exact_stop: machine.api.set_pc.is_some(),
        unfound: paging.as_ref().err().copied(),
        locator: None,
    };
    let mut probes = prepare(&settings.probes, &mut events, &target, abilities).map_err(|refused| refused.message)?;
    probes.extend(prepare_watches(&settings.watches, &target, abilities));
    if settings.verify && machine.api.translate_vaddr.is_none() {
        return Err(format!("verify=on: QEMU {} does not tell devices from memory: that came with 10.1", machine.qemu));
    }
    let locator = image.as_deref().map(|image| Arc::new(Locator::new(image, arch, settings.slide)));
    let names = Arc::new(RuntimeNames { image: image.clone(), locator: locator.clone() });

    let counters = Arc::new(Counters::new());
    let feed = Arc::new(Feed::new());
    let format = settings.format.unwrap_or(Format::Ftrace);
    let preamble = Preamble { qemu: machine.qemu.clone(), api: machine.api.level, target: arch.name(), epoch: now() };
    let control = settings.control.as_deref().map(Listener::bind).transpose()?;
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
        all_counters: Arc::clone(&counters),
        feed: Arc::clone(&feed),
    })?;
    let plugin = Plugin::new(Parts {
        machine,
        arch,
        locator,
        paging,
        image,
        counters,
        feed,
        writer,
        names,
        backpressure: settings.backpressure.unwrap_or(Backpressure::Lossless),
        ring_bytes: RING_BYTES,
        summary_file: settings.summary,
        control_path: settings.control,
        control,
        verify: settings.verify,
    });
    Ok((plugin, events, probes))
}

fn load_image(settings: &Settings, command_line: &[String]) -> Result<Option<KernelImage>, String> {
    let mut files: Vec<PathBuf> = settings.kernels.clone();
    let given = !files.is_empty();
    files.extend(args::kernel_of_command_line(command_line).filter(|_| !given));
    let hint = if given { "" } else { "\n(the file after QEMU's -kernel; name another with kernel=FILE)" };
    let image = files.split_first().map(|(first, more)| KernelImage::load_all(first, more)).transpose();
    let image = image.map_err(|error| format!("kernel={}: {}{hint}", error.file, error.kind))?;
    if image.is_none() && !settings.probes.is_empty() {
        return Err("no kernel: name the guest's kernel with kernel=FILE (vmlinux, bzImage, System.map or a copy of \
                    /proc/kallsyms); only with QEMU's -kernel it is found by itself"
            .into());
    }
    Ok(image)
}

/// The ISA that the kernel is for, when this QEMU runs it.
fn arch_of(target: &str, image: Option<&KernelImage>) -> Result<&'static dyn Arch, String> {
    let wanted = match image.map_or(ImageMachine::Unknown, |image| image.machine) {
        ImageMachine::I386 => "i386",
        ImageMachine::X86_64 => "x86_64",
        ImageMachine::Ppc => "ppc",
        ImageMachine::Ppc64 => "ppc64",
        ImageMachine::Sparc64 => "sparc64",
        ImageMachine::Other(_) => "another machine",
        ImageMachine::Unknown => target,
    };
    let order = image.and_then(|image| image.byte_order);
    qkprobe_arch::for_kernel(target, order).filter(|_| wanted == target).ok_or_else(|| {
        format!("the kernel is for {wanted}, but this QEMU runs {target}: give the right one with kernel=")
    })
}
