//! `cargo xtask test`, `bench`, `soak` and `ci`: which of cargo's commands, with what, in which order. The tests themselves are run by [`suite`].

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use qkprobe_tests::{Cache, GuestArch};

use crate::load::Load;
use crate::process::{interactive, output};
use crate::setup::{self, Background};
use crate::suite::{self, How, Job, Plan};

/// The licence checker that `ci` uses, pinned so that a run means the same next year.
const CARGO_DENY: &str = "0.20.2";

/// The packages whose tests boot guests.
const BOOTING: [&str; 2] = ["qkprobe-tests", "qkprobe"];

/// Tests of which each runs two guests at a time.
const TWO_GUESTS: [&str; 6] = [
    "configs::tests_to_copy",
    "leftovers::interrupted",
    "leftovers::twenty",
    "machines::",
    "tutorial::another",
    "verdicts::every",
];

/// Tests that take a minute or more, for a first run: the longest go first. Later ones know better.
const LONG: [&str; 22] = [
    "api::",
    "bare::a_probe",
    "coexist::",
    "configs::all_files",
    "control::fifty",
    "control_stress::",
    "counts::",
    "early::code",
    "halt_guests::",
    "harness::every_guest",
    "i386::",
    "lives::",
    "machines::",
    "order::",
    "panic::",
    "powerpc::",
    "robust::the_reader",
    "sparc64::",
    "sparc64_traps::",
    "symbols_images::",
    "verdicts::every",
    "verify::",
];

/// What `--quick` boots: one guest of each architecture.
const QUICK: [&str; 2] = ["counts::branches_add_up", "guests::"];

/// What `--stress` runs beside the tests.
const STRESS_LOOPS: usize = 3;

/// What `test` is asked for.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct TestOptions {
    /// Only tests that boot nothing; needs no set-up
    #[arg(long)]
    unit: bool,
    /// Only the unit tests, and one boot for each architecture
    #[arg(long, conflicts_with = "unit")]
    quick: bool,
    /// Everything twice in a row, with three busy loops beside it
    #[arg(long)]
    stress: bool,
    /// Only tests whose name contains this; those that boot are called PROGRAM::TEST
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Boot only this QEMU
    #[arg(long, value_name = "VERSION", value_parser = ["10.0", "11.1"])]
    qemu: Option<String>,
    /// How many guests run at a time, if not one more than this machine has CPUs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    jobs: Option<u8>,
}

/// What `bench` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchOptions {
    /// Arguments of the benchmark program, behind `--`
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// What `soak` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct SoakOptions {
    /// Its own options.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl SoakOptions {
    /// The guests that are asked for; none for all.
    fn arches(&self) -> Vec<GuestArch> {
        let words = || self.arguments.iter().map(String::as_str);
        let apart = words().zip(words().skip(1)).filter(|(option, _)| *option == "--arch").map(|(_, value)| value);
        let joined = words().filter_map(|word| word.strip_prefix("--arch="));
        apart.chain(joined).filter_map(GuestArch::from_name).collect()
    }
}

/// Builds and runs the tests. What those that boot need is fetched and built meanwhile.
///
/// # Errors
/// The first part that failed.
pub(crate) fn test(options: &TestOptions) -> Result<(), String> {
    let setup = if options.unit { None } else { Some(Background::start(setup::Options::default())?) };
    test_with(options, setup)
}

fn test_with(options: &TestOptions, mut setup: Option<Background>) -> Result<(), String> {
    // All in one, so that nothing is built twice for the sake of another selection of packages.
    // The oracle links into QEMU alone.
    let mut all = cargo(&["test", "--workspace", "--all-targets", "--exclude", "oracle"]);
    if options.unit {
        all.args(BOOTING.iter().flat_map(|package| ["--exclude", package]));
    }
    let programs = step_with("test programs", || suite::build(&mut all))?;
    let (booting, unit): (Vec<_>, Vec<_>) =
        programs.into_iter().partition(|program| BOOTING.contains(&program.package.as_str()));
    let mut jobs = Vec::new();
    for program in &unit {
        jobs.extend(program.whole(options.filter.as_deref())?);
    }
    if !options.quick {
        // The registry and the ring on shuttle's primitives: every scenario under thousands of schedules.
        let mut model = cargo(&["test", "--package", "qkprobe-plugin", "--lib", "--features", "shuttle"]);
        for program in step_with("model checks' program", || suite::build(&mut model))? {
            let program = program.named("model checks");
            jobs.extend(program.whole(Some(options.filter.as_deref().unwrap_or("model::")))?);
        }
        // Doc tests are a command of their own as soon as targets are named.
        let mut docs = cargo(&["test", "--workspace", "--doc", "--no-fail-fast"]);
        step("doc tests", docs.args(&options.filter))?;
    }
    if !options.unit {
        // Those of the tests beside it: they have its dependencies.
        build_release(&["qkprobe-plugin", "api_check", "open_watch", "oracle"])?;
    }
    if let Some(setup) = setup.take_if(|setup| !setup.is_finished() && !options.stress) {
        // There is something to do meanwhile.
        if !jobs.is_empty() {
            run(std::mem::take(&mut jobs), options)?;
        }
        setup.wait()?;
    } else if let Some(setup) = setup {
        setup.wait()?;
    }
    for program in &booting {
        jobs.extend(program.tests(|name| options.plan(name))?);
    }
    if !options.stress {
        return run(jobs, options);
    }
    let _load = Load::start(STRESS_LOOPS);
    for round in 1..=2 {
        eprintln!("==> round {round} of 2, with {STRESS_LOOPS} busy loops");
        run(jobs.clone(), options)?;
    }
    Ok(())
}

impl TestOptions {
    /// What is known of a test; none: it is not asked for.
    fn plan(&self, name: &str) -> Option<Plan> {
        let begins = |list: &[&str]| list.iter().any(|start| name.starts_with(start));
        let wanted = self.filter.as_ref().is_none_or(|filter| name.contains(filter)) && (!self.quick || begins(&QUICK));
        let (guests, seconds) = (if begins(&TWO_GUESTS) { 2 } else { 1 }, if begins(&LONG) { 60.0 } else { 15.0 });
        wanted.then_some(Plan { guests, seconds })
    }
}

fn run(jobs: Vec<Job>, options: &TestOptions) -> Result<(), String> {
    // A guest waits now and then, and the loops leave no CPU alone.
    let cpus = std::thread::available_parallelism().map_or(2, usize::from);
    let guests = options.jobs.map_or(if options.stress { cpus } else { cpus + 1 }, usize::from);
    let qemu = options.qemu.iter().map(|version| ("QKPROBE_QEMU", version.as_str()));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let variables: Vec<_> = qemu.collect();
    let how = How { guests, variables: &variables, memory: &target.join("test-seconds.json") };
    suite::run(jobs, how)
}

/// Runs the benchmark program.
///
/// # Errors
/// It does not build, or failed.
pub(crate) fn bench(options: &BenchOptions) -> Result<(), String> {
    setup::run(&setup::Options::only(GuestArch::X86_64))?;
    build_plugin()?;
    let mut bench = cargo(&["run", "--package", "qkprobe-bench", "--release", "--"]);
    step("benchmarks", bench.args(&options.arguments))
}

/// Boots guests over and over.
///
/// # Errors
/// The set-up failed, the program does not build, or a boot was not what it has to be.
pub(crate) fn soak(options: &SoakOptions) -> Result<(), String> {
    if !options.arguments.iter().any(|word| matches!(word.as_str(), "-h" | "--help")) {
        setup::run(&setup::Options::of(options.arches()))?;
        build_plugin()?;
    }
    let mut soak = cargo(&["run", "--quiet", "--package", "qkprobe-soak", "--release", "--"]);
    interactive(soak.args(&options.arguments))
}

/// Everything that a change has to pass.
///
/// # Errors
/// The first part that failed.
pub(crate) fn ci() -> Result<(), String> {
    let start = Instant::now();
    let setup = Background::start(setup::Options::default())?;
    step("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    step("clippy", &mut cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    // Licences matter for what is loaded into QEMU; deny.toml says which go with it.
    let plugin = workspace().join("plugin/Cargo.toml");
    let mut deny = Command::new(cargo_deny()?);
    deny.arg("--manifest-path").arg(plugin).args(["--exclude-dev", "check", "licenses"]);
    step("licences", deny.current_dir(workspace()))?;
    test_with(&TestOptions::default(), Some(setup))?;
    eprintln!("==> ci: everything passed in {} s", start.elapsed().as_secs());
    Ok(())
}

/// Builds the plugin as users build it.
///
/// # Errors
/// What cargo said is on the terminal already.
pub(crate) fn build_plugin() -> Result<(), String> {
    build_release(&["qkprobe-plugin"])
}

fn build_release(packages: &[&str]) -> Result<(), String> {
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    step("plugin", cargo(&["build", "--release"]).args(packages))
}

/// The folder of the workspace.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Cargo in the workspace.
pub(crate) fn cargo(args: &[&str]) -> Command {
    // Set by the cargo that runs us, so that a toolchain given as +NAME is kept.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(workspace());
    command
}

fn step(name: &str, command: &mut Command) -> Result<(), String> {
    step_with(name, || interactive(command))
}

fn step_with<T>(name: &str, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let start = Instant::now();
    eprintln!("==> {name}");
    let done = work()?;
    eprintln!("==> {name}: done in {:.1} s", start.elapsed().as_secs_f32());
    Ok(done)
}

/// The licence checker: the one that is installed, or one of our own in the cache.
fn cargo_deny() -> Result<PathBuf, String> {
    let installed = PathBuf::from("cargo-deny");
    if output(Command::new(&installed).arg("--version")).is_ok() {
        return Ok(installed);
    }
    let cache = Cache::locate().map_err(|error| error.to_string())?;
    let tools = cache.root().join("tools").join(format!("cargo-deny-{CARGO_DENY}"));
    let program = tools.join("bin/cargo-deny");
    if !program.exists() {
        // It runs for a second and compiles for minutes: not optimised.
        let mut install = cargo(&["install", "cargo-deny", "--locked", "--debug", "--version", CARGO_DENY, "--root"]);
        step("build cargo-deny (once, some minutes)", install.arg(&tools))?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_of_a_soak() {
        let arches = |words: &str| SoakOptions { arguments: words.split(' ').map(str::to_owned).collect() }.arches();
        assert_eq!(arches("--boots 3 --arch sparc64 --arch=i386"), [GuestArch::Sparc64, GuestArch::I386]);
        assert_eq!(arches("--boots 3"), []);
    }
}
