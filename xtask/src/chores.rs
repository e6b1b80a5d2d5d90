//! `cargo xtask test`, `bench` and `ci`: which of cargo's commands, with what, in which order.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use qkprobe_tests::{Cache, GuestArch};

use crate::process::{interactive, output};
use crate::setup::{self, Background};

/// The licence checker that `ci` uses, pinned so that a run means the same next year.
const CARGO_DENY: &str = "0.20.2";

/// The packages whose tests boot guests.
const BOOTING: [&str; 2] = ["qkprobe-tests", "qkprobe"];

/// What `test` is asked for.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct TestOptions {
    /// Only tests that boot nothing; needs no set-up
    #[arg(long)]
    unit: bool,
    /// Only tests whose name contains this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Boot only this QEMU
    #[arg(long, value_name = "VERSION", value_parser = ["10.0", "11.1"])]
    qemu: Option<String>,
}

/// What `bench` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchOptions {
    /// Arguments of the benchmark program, behind `--`
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs unit tests, then tests that boot. What these need is fetched and built meanwhile.
///
/// # Errors
/// The first part that failed.
pub(crate) fn test(options: &TestOptions) -> Result<(), String> {
    let setup = if options.unit { None } else { Some(Background::start(setup::Options::default())?) };
    test_with(options, setup)
}

fn test_with(options: &TestOptions, setup: Option<Background>) -> Result<(), String> {
    let filter = options.filter.as_slice();
    let mut unit = cargo(&["test", "--workspace", "--all-targets", "--no-fail-fast"]);
    unit.args(BOOTING.iter().flat_map(|package| ["--exclude", package]));
    // Doc tests are a command of their own as soon as targets are named.
    let mut docs = cargo(&["test", "--workspace", "--doc", "--no-fail-fast"]);
    // The registry on shuttle's primitives: every scenario under thousands of schedules.
    let mut model = cargo(&["test", "--package", "qkprobe-plugin", "--lib", "--features", "shuttle"]);
    for command in [&mut unit, &mut docs] {
        command.args(filter);
    }
    // One filter is all that cargo takes.
    model.arg(options.filter.as_deref().unwrap_or("registry::model"));
    step("unit tests", &mut unit)?;
    step("doc tests", &mut docs)?;
    step("model checks", &mut model)?;
    let Some(setup) = setup else { return Ok(()) };
    build_plugin()?;
    setup.wait()?;
    let mut boots = cargo(&["test", "--all-targets", "--no-fail-fast"]);
    boots.args(BOOTING.iter().flat_map(|package| ["--package", package]));
    boots.args(filter).args(["--", "--test-threads=2"]);
    if let Some(version) = &options.qemu {
        boots.env("QKPROBE_QEMU", version);
    }
    step("boot tests", &mut boots)
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
    step("plugin", &mut cargo(&["build", "--package", "qkprobe-plugin", "--release"]))
}

/// The folder of the workspace.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

fn cargo(args: &[&str]) -> Command {
    // Set by the cargo that runs us, so that a toolchain given as +NAME is kept.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(workspace());
    command
}

fn step(name: &str, command: &mut Command) -> Result<(), String> {
    let start = Instant::now();
    eprintln!("==> {name}");
    interactive(command)?;
    eprintln!("==> {name}: done in {:.1} s", start.elapsed().as_secs_f32());
    Ok(())
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
