//! `qkprobe run`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use qkprobe_harness::control::Profile;
use qkprobe_harness::guest::Guest;
use qkprobe_harness::streams::Happening;
use qkprobe_harness::{Boot, ImageTarget, boot, boot_test, check, positions, units};
use qkprobe_lang::{Config, Format, ProbeConfig};
use qkprobe_symbols::KernelImage;

use super::screen::Screen;
use super::{Interrupt, arch, status};
use crate::args::{BootArgs, Color, Run, TraceFormat, Until};
use crate::{Failure, Outcome};

const STATUS: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(20);

/// How long a guest may be silent before the end of a run says so.
const SILENCE: Duration = Duration::from_secs(5);

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
    for file in &args.symbols {
        boot = boot.symbols(file);
    }
    Ok(boot)
}

/// A file of probes, parsed here so that a mistake is told before anything starts.
pub(crate) fn read_config(path: &Path) -> Result<Config, Failure> {
    let text = qkprobe_lang::read_text(path)
        .map_err(|error| Failure::usage(format!("-c {}: cannot be read: {error}", path.display())))?;
    if boot_test::is_test(&text) {
        let path = path.display();
        return Err(Failure::usage(format!("-c {path}: this is a boot test: run it with `qkprobe test {path}`")));
    }
    Config::parse(&path.display().to_string(), &text).map_err(|error| Failure::usage(error.to_string()))
}

/// Checks every definition, and that the event of `--until` is one of them, if the ISA is one that this build decodes.
fn check_all(args: &Run, probes: &[ProbeConfig], boot: &Boot, image: &KernelImage) -> Result<(), Failure> {
    probes.iter().try_for_each(status::check)?;
    let Some(isa) = boot.arch_for(image)?.isa() else { return Ok(()) };
    let checked = check::check(probes, &ImageTarget { arch: isa, image: Some(image) })
        .map_err(|mistakes| Failure::usage(mistakes.join("\n")))?;
    let Some(until) = &args.until else { return Ok(()) };
    let events: Vec<_> = checked.iter().map(|one| (&*one.definition.group, &*one.definition.event)).collect();
    if events.iter().any(|(group, event)| until.means(group, event)) {
        return Ok(());
    }
    let near = units::nearest(&until.event, events.iter().map(|(_, event)| *event));
    let names: Vec<_> = events.iter().map(|(group, event)| format!("{group}/{event}")).collect();
    let hint = match near {
        Some(near) if near != until.event => format!("did you mean {near}?"),
        _ if names.is_empty() => "there is no probe that could hit".to_owned(),
        _ => format!("these exist: {}", names.join(", ")),
    };
    Err(Failure::usage(format!("--until: no probe has the event '{until}'; {hint}")))
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
    // The plugin takes those of the files too.
    let others = configs.iter().flat_map(|config| &config.kernel).filter(|other| **other != kernel);
    let symbols: Vec<PathBuf> = args.boot.symbols.iter().chain(others).cloned().collect();
    let image = KernelImage::load_all(&kernel, &symbols).map_err(|error| Failure::new(error.to_string()))?;
    let image = Arc::new(image);
    let boot = boot(&args.boot, &kernel)?.image(Arc::clone(&image)).watch();
    check_all(args, &probes, &boot, &image)?;
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
    let (status, how) = watch(args, &mut guest, &mut screen, &interrupt)?;
    screen.end();
    screen.note(&format!("qkprobe: after {:.1} s: {how}", guest.elapsed().as_secs_f64()));
    Ok(status)
}

/// Where trace, summary and control socket go.
fn outputs(mut boot: Boot, args: &Run, configs: &[Config]) -> Result<Boot, Failure> {
    for line in &args.definitions {
        boot = boot.probe(line);
    }
    for path in &args.config {
        boot = boot.plugin_arg(format!("config={}", absolute(path)?.display()));
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

/// Shows what happens until there is a reason to end: the exit status, and how the guest ended.
fn watch(args: &Run, guest: &mut Guest, screen: &mut Screen, interrupt: &Interrupt) -> Result<(u8, String), Failure> {
    let mut counts = Counts::default();
    let (mut next_look, mut next_status) = (Instant::now(), Instant::now());
    let mut last_output = Instant::now();
    // The status, and why this side ends it; `None`: the guest ended by itself.
    let reason = loop {
        let over = guest.is_over();
        match guest.next(POLL) {
            Some(happening) => {
                last_output = Instant::now();
                show(screen, &happening)?;
            }
            None if over => break None,
            None => {}
        }
        if last_output.elapsed() > LOOK {
            screen.flush();
        }
        if let Some(status) = interrupt.status() {
            break Some((status, "interrupted".to_owned()));
        }
        if screen.closed {
            break Some((0, "nobody reads the trace any more".to_owned()));
        }
        if args.limit.is_some_and(|limit| guest.elapsed() >= limit) {
            break Some((0, "the time of --for is over".to_owned()));
        }
        if let Some(until) = args.until.as_ref().filter(|_| Instant::now() >= next_look) {
            next_look = Instant::now() + LOOK;
            counts.read(guest);
            if counts.meets(until) {
                break Some((0, format!("{until} has hit {} as --until says", times(counts.hits(until)))));
            }
        }
        if Instant::now() >= next_status {
            next_status = Instant::now() + STATUS;
            counts.read(guest);
            if !args.quiet {
                screen.set_status(counts.status(guest));
            }
        }
    };
    screen.set_status(String::new());
    let silence = last_output.max(counts.changed.unwrap_or(last_output)).elapsed();
    let silence = reason.as_ref().filter(|_| silence >= SILENCE).map(|_| silent(guest, silence));
    let mut failure = None;
    guest.stop(|happening| failure = failure.take().or(show(screen, happening).err()));
    failure.map_or(Ok(()), Err)?;
    let told = guest.ending().unwrap_or_default();
    Ok(match reason {
        None => (status::of(args, guest, &counts), told),
        Some((status, why)) => (status, format!("{why}; {told}{}", silence.unwrap_or_default())),
    })
}

/// What a guest that does nothing looks like.
fn silent(guest: &mut Guest, time: Duration) -> String {
    let mut text = format!(", with no hit and nothing on the console for the last {:.1} s", time.as_secs_f64());
    for place in positions::of(guest).into_iter().flatten() {
        text += &format!("\nqkprobe:   {place}");
    }
    text
}

/// `once`, `3 times`.
fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
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
        Happening::Watched(_) | Happening::Machine(_) => {}
    }
    Ok(())
}

/// Hits so far, and when.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    now: Vec<Profile>,
    /// When one of them was last seen to grow.
    changed: Option<Instant>,
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
        let total = |list: &[Profile]| list.iter().map(|probe| probe.hits).sum::<u64>();
        if total(&profile) != total(&self.now) {
            self.changed = Some(Instant::now());
        }
        if self.before_at.is_none_or(|at| at.elapsed() >= STATUS) {
            self.before = std::mem::take(&mut self.now);
            self.before_at = self.at;
        }
        self.now = profile;
        self.at = Some(Instant::now());
    }

    fn hits(&self, until: &Until) -> u64 {
        self.now.iter().filter(|probe| until.means(&probe.group, &probe.event)).map(|probe| probe.hits).sum()
    }

    pub(crate) fn meets(&self, until: &Until) -> bool {
        self.hits(until) >= until.hits
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
