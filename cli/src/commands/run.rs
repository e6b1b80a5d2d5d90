//! `qkprobe run`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use qkprobe_harness::control::Profile;
use qkprobe_harness::guest::{End, Guest};
use qkprobe_harness::streams::Happening;
use qkprobe_harness::{Boot, ImageTarget, boot, check};
use qkprobe_lang::{Config, Format, ProbeConfig};
use qkprobe_symbols::KernelImage;

use super::screen::Screen;
use super::{Interrupt, arch};
use crate::args::{BootArgs, Color, Run, TraceFormat, Until};
use crate::{Failure, Outcome};

const STATUS: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(20);

/// Exit statuses; the others are in `--help`.
const REBOOTED: u8 = 10;
const KILLED: u8 = 11;
const UNMET: u8 = 12;

/// What is said on the command line about the boot.
pub(crate) fn boot(args: &BootArgs, kernel: &Path) -> Result<Boot, Failure> {
    let mut boot = Boot::new(kernel);
    if let Some(name) = &args.arch {
        boot = boot.arch(arch(name)?);
    }
    if let Some(initrd) = &args.initrd {
        boot = boot.initrd(initrd);
    }
    if let Some(init) = &args.init {
        boot = boot.init(init);
    }
    if let Some(append) = &args.append {
        boot = boot.append(append);
    }
    if let Some(cpus) = args.smp {
        boot = boot.cpus(cpus);
    }
    if let Some(memory) = args.memory {
        boot = boot.memory(memory);
    }
    if let Some(qemu) = &args.qemu {
        boot = boot.qemu(qemu);
    }
    if let Some(plugin) = &args.plugin {
        boot = boot.plugin(plugin);
    }
    if let Some(seed) = args.seed {
        boot = boot.seed(seed);
    }
    Ok(boot)
}

/// A settings file, parsed here so that a mistake is told before anything starts.
pub(crate) fn read_config(path: &Path) -> Result<Config, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("-c {}: cannot be read: {error}", path.display())))?;
    Config::parse(&path.display().to_string(), &text).map_err(|error| Failure::usage(error.to_string()))
}

/// Checks every definition, if the ISA is one that this build decodes.
pub(crate) fn check_all(probes: &[ProbeConfig], boot: &Boot, image: &KernelImage) -> Result<(), Failure> {
    let Some(isa) = boot.arch_for(image)?.isa() else { return Ok(()) };
    check::check(probes, &ImageTarget { arch: isa, image: Some(image) })
        .map(drop)
        .map_err(|mistakes| Failure::usage(mistakes.join("\n")))
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    Ok(std::path::absolute(path)?)
}

/// Boots, shows, ends.
pub(crate) fn run(args: &Run, color: Color) -> Outcome {
    let configs: Vec<Config> = args.config.iter().map(|path| read_config(path)).collect::<Result<_, _>>()?;
    let mut probes: Vec<ProbeConfig> = Vec::new();
    for line in &args.definitions {
        let probe = ProbeConfig::from_line(line, format!("'{line}'"));
        probes.push(probe.map_err(|error| Failure::usage(format!("'{line}'\n{error}")))?);
    }
    probes.extend(configs.iter().flat_map(|config| config.probes.clone()));
    let kernel = args.boot.kernel.clone().or_else(|| configs.iter().find_map(|config| config.kernel.first().cloned()));
    let kernel = kernel.ok_or_else(|| {
        Failure::usage(
            "no kernel: name the image with --kernel FILE, or with kernel = \"FILE\" in a file given with -c",
        )
    })?;
    let image = Arc::new(KernelImage::load(&kernel).map_err(|error| Failure::new(error.to_string()))?);
    let boot = boot(&args.boot, &kernel)?.image(Arc::clone(&image));
    check_all(&probes, &boot, &image)?;
    let boot = outputs(boot, args, &configs)?;

    let interrupt = Interrupt::catch()?;
    let console = match &args.console {
        Some(path) => {
            let file = File::create(path);
            Some(file.map_err(|error| Failure::new(format!("--console {}: {error}", path.display())))?)
        }
        None => None,
    };
    let mut screen = Screen::new(color, args.quiet, console);
    let mut guest = boot.start()?;
    screen.note(&format!(
        "qkprobe: {} in {} (process {}), control socket {}",
        kernel.display(),
        guest.program().display(),
        guest.pid(),
        boot.control_path(&guest).display()
    ));
    let how = watch(args, &mut guest, &mut screen, &interrupt)?;
    screen.end();
    Ok(how)
}

/// Where trace, summary and control socket go.
fn outputs(mut boot: Boot, args: &Run, configs: &[Config]) -> Result<Boot, Failure> {
    for line in &args.definitions {
        boot = boot.probe(line);
    }
    for path in &args.config {
        boot = boot.plugin_arg(format!("config={}", absolute(path)?.display()));
    }
    if !args.symbols.is_empty() {
        let kernel = args.boot.kernel.iter().chain(configs.iter().flat_map(|config| &config.kernel)).next();
        for file in kernel.into_iter().chain(&args.symbols) {
            boot = boot.plugin_arg(format!("kernel={}", absolute(file)?.display()));
        }
    }
    let format = match args.format {
        TraceFormat::Json => boot::TraceFormat::Json,
        TraceFormat::Ftrace if configs.iter().any(|config| config.format == Some(Format::Json)) => {
            boot::TraceFormat::Json
        }
        TraceFormat::Ftrace => boot::TraceFormat::Ftrace,
    };
    boot = boot.format(format);
    let from_file = |pick: fn(&Config) -> &Option<PathBuf>| configs.iter().find_map(|config| pick(config).clone());
    if let Some(out) = args.out.clone().or_else(|| from_file(|config| &config.out)) {
        boot = boot.plugin_arg(format!("out={}", absolute(&out)?.display()));
    }
    if let Some(summary) = args.summary.clone().or_else(|| from_file(|config| &config.summary)) {
        boot = boot.plugin_arg(format!("summary={}", absolute(&summary)?.display()));
    }
    if let Some(control) = from_file(|config| &config.control) {
        boot = boot.control(absolute(&control)?);
    }
    if args.drop {
        boot = boot.plugin_arg("backpressure=drop");
    }
    Ok(boot.qemu_args(args.qemu_args.iter().cloned()))
}

/// Shows what happens until there is a reason to end.
fn watch(args: &Run, guest: &mut Guest, screen: &mut Screen, interrupt: &Interrupt) -> Outcome {
    let mut counts = Counts::default();
    let (mut next_look, mut next_status) = (Instant::now(), Instant::now());
    let mut last_output = Instant::now();
    let status = loop {
        let over = guest.is_over();
        match guest.next(POLL) {
            Some(happening) => {
                last_output = Instant::now();
                show(screen, &happening)?;
            }
            None if over => break ended(args, guest, &counts),
            None => {}
        }
        if last_output.elapsed() > LOOK {
            screen.flush();
        }
        if let Some(status) = interrupt.status() {
            break status;
        }
        if screen.closed || args.limit.is_some_and(|limit| guest.elapsed() >= limit) {
            break 0;
        }
        if args.until.is_some() && Instant::now() >= next_look {
            next_look = Instant::now() + LOOK;
            counts.read(guest);
            if args.until.as_ref().is_some_and(|until| counts.meets(until)) {
                break 0;
            }
        }
        if Instant::now() >= next_status && !args.quiet {
            next_status = Instant::now() + STATUS;
            counts.read(guest);
            screen.set_status(counts.status(guest));
        }
    };
    screen.set_status(String::new());
    let mut failure = None;
    guest.stop(|happening| failure = failure.take().or(show(screen, happening).err()));
    failure.map_or(Ok(status), Err)
}

fn show(screen: &mut Screen, happening: &Happening) -> Result<(), Failure> {
    match happening {
        Happening::Console(bytes) => return screen.console(bytes),
        Happening::Trace(line) => {
            // The explanation of the columns is for files.
            let is_head =
                line.starts_with('#') && !["# text", "# lost", "# end"].iter().any(|notice| line.starts_with(notice));
            if !is_head {
                screen.trace(line);
            }
        }
        Happening::Stderr(line) => screen.note(&qkprobe_harness::escape::line(line.as_bytes())),
        Happening::Machine(_) => {}
    }
    Ok(())
}

/// The exit status for a guest that ended by itself.
fn ended(args: &Run, guest: &Guest, counts: &Counts) -> u8 {
    let summary = guest.summary();
    let met = |until: &Until| {
        let probes = summary.iter().flat_map(|summary| &summary.probes);
        let hits = probes.filter(|probe| until.event == probe.name);
        let hits = hits.filter(|probe| until.group.as_ref().is_none_or(|group| *group == probe.group));
        counts.meets(until) || hits.map(|probe| probe.hits).sum::<u64>() >= until.hits
    };
    match (guest.end(), &args.until) {
        (Some(End::PowerOff), Some(until)) if met(until) => 0,
        (Some(End::PowerOff | End::Reset), Some(_)) => UNMET,
        (Some(End::PowerOff | End::Ended) | None, _) => 0,
        (Some(End::Reset), None) => REBOOTED,
        (Some(End::Killed(_)), _) => KILLED,
        (Some(End::Exit(status)), _) => u8::try_from(status).unwrap_or(1),
    }
}

/// Hits so far, and when.
#[derive(Debug, Default)]
struct Counts {
    now: Vec<Profile>,
    at: Option<Instant>,
    before: Vec<Profile>,
    before_at: Option<Instant>,
    held: Vec<String>,
    found: bool,
}

impl Counts {
    fn read(&mut self, guest: &mut Guest) {
        let Ok(control) = guest.control() else { return };
        // A guest that has just ended does not answer: what was read last stays.
        let Ok(profile) = control.profile() else { return };
        if let Ok(status) = control.status() {
            self.found = status.kernel_found;
            self.held = status.held.iter().map(|held| format!("vCPU {} held by {}", held.vcpu, held.event)).collect();
        }
        if self.before_at.is_none_or(|at| at.elapsed() >= STATUS) {
            self.before = std::mem::take(&mut self.now);
            self.before_at = self.at;
        }
        self.now = profile;
        self.at = Some(Instant::now());
    }

    fn meets(&self, until: &Until) -> bool {
        let probes = self.now.iter().filter(|probe| probe.event == until.event);
        let probes = probes.filter(|probe| until.group.as_ref().is_none_or(|group| *group == probe.group));
        probes.map(|probe| probe.hits).sum::<u64>() >= until.hits
    }

    /// `12.3 s  running  open 412 (30/s)  faults 1873 (200/s)`.
    fn status(&self, guest: &Guest) -> String {
        let state = match (self.held.first(), self.found) {
            (Some(held), _) => held.clone(),
            (None, true) => "running".to_owned(),
            (None, false) => "starting".to_owned(),
        };
        let mut text = format!("{:.1} s  {state}", guest.elapsed().as_secs_f64());
        let seconds = self.before_at.zip(self.at).map(|(before, now)| now.duration_since(before).as_secs_f64());
        for probe in &self.now {
            let same = |other: &&Profile| other.event == probe.event && other.group == probe.group;
            let before = self.before.iter().find(same).map(|other| other.hits);
            text += &format!("  {} {}", probe.event, probe.hits);
            if let (Some(before), Some(seconds @ 0.01..)) = (before, seconds) {
                text += &format!(" ({:.0}/s)", probe.hits.saturating_sub(before) as f64 / seconds);
            }
        }
        text
    }
}
