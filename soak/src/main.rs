//! `cargo xtask soak`: boots guests over and over, each time with probes at other random places, and looks whether anything goes
//! wrong: a guest that hangs, a warning that it does not give without probes, a count that is not what it has to be.
//!
//! [`cells`] says what is booted in turns. What a boot's seed decides is in [`plan`], over the functions of the image
//! ([`functions`], [`code`]), of which most are such that run ([`profile`]), and the loads of [`script`]. [`boots`] boots,
//! [`console`] and [`judge`] say what is wrong, and [`report`] keeps it and makes the table.

mod boots;
mod cells;
mod code;
mod console;
mod functions;
mod judge;
mod plan;
mod profile;
mod random;
mod report;
mod script;

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use qkprobe_harness::ImageTarget;
use qkprobe_symbols::KernelImage;
use qkprobe_tests::{Cache, GuestArch, GuestKernel, Qemu};

use cells::Cell;
use console::Usual;
use functions::Functions;
use judge::Judgement;
use plan::{Known, toml};
use profile::Profile;
use report::Report;

#[derive(Debug, Parser)]
#[command(
    name = "soak",
    bin_name = "cargo xtask soak",
    about = "Boots guests over and over with probes at random places, and judges each boot",
    after_help = EXAMPLES
)]
struct Options {
    /// How many boots; guests and QEMUs take turns
    #[arg(long, value_name = "N", default_value_t = 12)]
    boots: u64,
    /// Begins no boot after so many minutes
    #[arg(long, value_name = "N")]
    minutes: Option<u64>,
    /// The seed of the first boot; each next one has the next number. Without it: one that was never there
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Only guests of this architecture; may be given several times
    #[arg(long, value_name = "ARCH", value_parser = arch)]
    arch: Vec<GuestArch>,
    /// Only this guest (x86_64-6.1-cloud, ...); may be given several times
    #[arg(long, value_name = "GUEST", value_parser = guest_names())]
    guest: Vec<String>,
    /// Only this QEMU
    #[arg(long, value_name = "VERSION", value_parser = qemu)]
    qemu: Vec<Qemu>,
    /// Probes in each boot
    #[arg(long, value_name = "N", default_value_t = 1000)]
    probes: usize,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask soak                              each guest once in the newest QEMU, or nearly
  cargo xtask soak --boots 100 --minutes 60
  cargo xtask soak --arch sparc64 --boots 5
  cargo xtask soak --guest i386-6.1-pae --qemu 10.0 --seed 42 --boots 1
                                                this boot again

Of each boot that fails, the probes, the console and the summary are kept in target/soak.
The exit status is 0 if all boots were right.";

fn arch(text: &str) -> Result<GuestArch, String> {
    GuestArch::from_name(text)
        .ok_or_else(|| format!("the guests are {}", GuestArch::ALL.map(GuestArch::name).join(", ")))
}

fn qemu(text: &str) -> Result<Qemu, String> {
    let supported = Qemu::SUPPORTED;
    let found = supported.into_iter().find(|qemu| qemu.version() == text);
    found.ok_or_else(|| format!("the QEMUs are {}", supported.map(Qemu::version).join(", ")))
}

fn guest_names() -> Vec<&'static str> {
    GuestKernel::ALL.map(GuestKernel::name).to_vec()
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// All boots; whether all were right.
fn run(options: &Options) -> Result<bool, String> {
    let cache = Cache::open().map_err(|error| error.to_string())?;
    let cells = cells::chosen(&options.arch, &options.guest, &options.qemu);
    if cells.is_empty() {
        return Err("no guest is both of that architecture and of that name".to_owned());
    }
    let seed = options.seed.unwrap_or_else(random::fresh_seed);
    let start = Instant::now();
    let limit = options.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let mut report = Report::new(options.probes);
    let mut soak = Soak { cache, usual: Usual::default(), guests: HashMap::new() };
    println!("{} boots, {} probes each, seeds from {seed}", options.boots, options.probes);
    for (number, cell) in (0..options.boots).zip(cells.iter().copied().cycle()) {
        if limit.is_some_and(|limit| start.elapsed() >= limit) {
            println!("the time is over after {number} boots");
            break;
        }
        let seed = seed.wrapping_add(number);
        let begun = Instant::now();
        print!("{:>4} {cell}, seed {seed}", number + 1);
        flush();
        let outcome = soak.one(cell, seed, options.probes);
        report.add(cell, seed, begun.elapsed(), outcome);
    }
    print!("{}", report.table());
    Ok(report.is_right())
}

/// A line that goes on later.
fn flush() {
    use std::io::Write as _;
    // Nobody reads it: then nothing is lost.
    let _ = std::io::stdout().flush();
}

/// What one guest's boots have in common.
struct Guest {
    image: KernelImage,
    functions: Functions,
    profile: Profile,
}

struct Soak {
    cache: Cache,
    usual: Usual,
    guests: HashMap<GuestKernel, Guest>,
}

impl Soak {
    fn guest(&mut self, cell: Cell) -> Result<(), String> {
        let kernel = cell.kernel;
        if self.guests.contains_key(&kernel) {
            return Ok(());
        }
        let path = self.cache.kernel(kernel).map_err(|error| error.to_string())?;
        let image = KernelImage::load(&path).map_err(|error| error.to_string())?;
        let functions = Functions::of(kernel.arch(), &image);
        let mut guest = Guest { image, functions, profile: Profile::default() };
        guest.profile = Profile::of(known(cell, &guest)?, &self.cache)?;
        self.guests.insert(kernel, guest);
        Ok(())
    }

    /// One boot.
    ///
    /// # Errors
    /// It could not be judged, which is a failure too.
    fn one(&mut self, cell: Cell, seed: u64, probes: usize) -> Result<report::Boot, report::Unjudged> {
        let unjudged = |why: String| report::Unjudged { why, plan: None };
        self.guest(cell).map_err(unjudged)?;
        let Self { usual, guests, .. } = self;
        let guest = guests.get(&cell.kernel).ok_or_else(|| unjudged("no guest".to_owned()))?;
        let plan = plan::plan(known(cell, guest).map_err(unjudged)?, seed, probes).map_err(unjudged)?;
        println!(": {}", plan.shape);
        let boot = boots::with_probes(cell, &plan.shape, &plan.script, &toml(&plan.probes));
        let boot = match boot {
            Ok(boot) => boot,
            Err(why) => return Err(report::Unjudged { why, plan: Some(Box::new(plan)) }),
        };
        let mut failures = script::failures(&boot);
        failures.extend(plan.misjudged.iter().cloned());
        let judgement = match boot.try_summary() {
            Ok(summary) if failures.is_empty() || boot.reached_end() => judge::counts(&plan, &boot, &summary),
            Ok(_) => Judgement::default(),
            Err(error) => Judgement { failures: vec![error], ..Judgement::default() },
        };
        match usual.unusual(cell, &plan.shape, &plan.script, &boot.console) {
            Ok(lines) => failures.extend(lines.into_iter().map(|line| format!("the console says: {line}"))),
            Err(why) => failures.push(format!("without probes: {why}")),
        }
        failures.extend(judgement.failures.iter().cloned());
        Ok(report::Boot { plan, result: boot, judgement, failures })
    }
}

fn known(cell: Cell, guest: &Guest) -> Result<Known<'_>, String> {
    let name = cell.kernel.arch().row().name;
    let arch = qkprobe_arch::by_name(name).ok_or_else(|| format!("no support for {name}"))?;
    let Guest { image, functions, profile } = guest;
    Ok(Known { cell, image, target: ImageTarget { arch, image: Some(image) }, functions, profile })
}
