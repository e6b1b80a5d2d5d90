//! `cargo xtask fuzz`: the fuzz targets under libFuzzer, led by coverage.
//!
//! A target is a test of the crate that owns the parser (`bolero::check!`). Plain `cargo test` replays its corpus, `__fuzz__/TARGET/corpus`
//! beside the test's source; here the same test is built with coverage counters and run by libFuzzer. Inputs that it finds stay in
//! the target folder, except those that fail: they go to `__fuzz__/TARGET/crashes`, so that `cargo test` fails as well, until the
//! fault is mended and for ever after if they are committed.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use clap::ValueEnum;

use crate::chores::{cargo, workspace};
use crate::process::{interactive, output};
use crate::suite;

/// Counters, compared values, and arithmetic that is checked as in a debug build.
const FLAGS: &str = "--cfg fuzzing --cfg fuzzing_libfuzzer -Cdebug-assertions -Coverflow-checks -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Longer inputs reach nothing that shorter ones do not, and take longer.
const MAX_INPUT_BYTES: u32 = 512;
/// So many inputs of each target are kept in the tree: the corpus is to be read, and replayed in no time.
const KEPT_INPUTS: usize = 40;
/// One input that takes so long is a hang, and one that needs so much memory a bomb. An image may unpack to 512 MiB, and is then copied once.
const MAX_INPUT_SECONDS: u32 = 25;
const MAX_MEMORY_MIB: u32 = 2048;

/// A fuzz target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// Definitions with `if` and `do`
    Definitions,
    /// ftrace filters
    Filters,
    /// TOML files
    Config,
    /// Kernel images with a symbol table
    Elf,
    /// bzImages, and everything packed
    Bzimage,
    /// The kernel's own symbol table, System.map
    Kallsyms,
    /// Requests on the control socket
    Control,
    /// The plugin's arguments, QEMU's command line
    Arguments,
}

impl Target {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// The package, cargo's name for the test program in it, the test, and the folder of its source.
    fn place(self) -> (&'static str, &'static [&'static str], &'static str, &'static str) {
        match self {
            Self::Definitions => ("qkprobe-lang", &["--test", "it"], "fuzz::definitions", "lang/tests/it"),
            Self::Filters => ("qkprobe-lang", &["--test", "it"], "fuzz::filters", "lang/tests/it"),
            Self::Config => ("qkprobe-lang", &["--test", "it"], "fuzz::config", "lang/tests/it"),
            Self::Elf => ("qkprobe-symbols", &["--lib"], "fuzz_tests::elf_images", "symbols/src"),
            Self::Bzimage => ("qkprobe-symbols", &["--lib"], "fuzz_tests::bzimages", "symbols/src"),
            Self::Kallsyms => ("qkprobe-symbols", &["--lib"], "fuzz_tests::kallsyms", "symbols/src"),
            Self::Control => {
                ("qkprobe-plugin", &["--lib"], "control::decode_tests::any_bytes_get_an_answer", "plugin/src/control")
            }
            Self::Arguments => ("qkprobe-plugin", &["--lib"], "fuzz_tests::arguments", "plugin/src"),
        }
    }

    /// What is kept in the tree.
    fn folder(self) -> PathBuf {
        workspace().join(self.place().3).join("__fuzz__").join(self.name())
    }
}

/// What `fuzz` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct FuzzOptions {
    /// Only this target; all, one after another, if not given
    target: Option<Target>,
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 1)]
    minutes: u32,
    /// Afterwards put the 40 inputs that reach most into the tree, in place of those that are there
    #[arg(long)]
    keep: bool,
}

/// Runs the targets.
///
/// # Errors
/// One does not build, or found an input that fails; where that lies is told.
pub(crate) fn run(options: &FuzzOptions) -> Result<(), String> {
    let targets = options.target.map_or_else(|| Target::value_variants().to_vec(), |target| vec![target]);
    for target in targets {
        eprintln!("==> fuzz {}: {} minutes", target.name(), options.minutes);
        let fuzzer = Fuzzer::new(target)?;
        if options.minutes > 0 {
            fuzzer.search(options.minutes)?;
        }
        if options.keep {
            fuzzer.keep()?;
        }
    }
    Ok(())
}

/// A target that is built.
struct Fuzzer {
    target: Target,
    program: PathBuf,
    /// Where found inputs stay.
    found: PathBuf,
}

impl Fuzzer {
    fn new(target: Target) -> Result<Self, String> {
        let program = build(target)?;
        let found = workspace().join("target/fuzz/corpus").join(target.name());
        for folder in [&found, &target.folder().join("corpus"), &target.folder().join("crashes")] {
            fs::create_dir_all(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        }
        Ok(Self { target, program, found })
    }

    /// libFuzzer with these arguments.
    fn command(&self, arguments: &[String]) -> Command {
        let test = self.target.place().2;
        let mut command = Command::new(&self.program);
        command.args([test, "--exact", "--nocapture"]).current_dir(workspace());
        // By the last two it starts itself anew.
        command.env("BOLERO_LIBFUZZER_ARGS", arguments.join(" "));
        command.env("BOLERO_LIBTEST_HARNESS", "1").env("BOLERO_TEST_NAME", test);
        command
    }

    fn search(&self, minutes: u32) -> Result<(), String> {
        let folder = self.target.folder();
        let arguments = [
            self.found.display().to_string(),
            folder.join("corpus").display().to_string(),
            format!("-max_total_time={}", minutes * 60),
            format!("-max_len={MAX_INPUT_BYTES}"),
            format!("-timeout={MAX_INPUT_SECONDS}"),
            format!("-rss_limit_mb={MAX_MEMORY_MIB}"),
            format!("-artifact_prefix={}/", folder.join("crashes").display()),
            "-reduce_inputs=1".to_owned(),
            "-print_final_stats=1".to_owned(),
        ];
        let done = interactive(&mut self.command(&arguments));
        // Git and bolero both take a folder that is not there for an empty one.
        let _ = fs::remove_dir(folder.join("crashes"));
        done.map_err(|_| {
            let crashes = folder.join("crashes");
            format!("{} fails: see above; the input is in {}", self.target.name(), crashes.display())
        })
    }

    /// Puts those inputs into the tree that reach most.
    fn keep(&self) -> Result<(), String> {
        let tree = self.target.folder().join("corpus");
        let failed = |error: std::io::Error| format!("cannot replace {}: {error}", tree.display());
        let fewest = tempfile::tempdir().map_err(failed)?;
        let told = fewest.path().join("told");
        let merged = fewest.path().join("merged");
        fs::create_dir(&merged).map_err(failed)?;
        let folders = [&merged, &tree, &self.found].map(|folder| folder.display().to_string());
        let options = ["-set_cover_merge=1".to_owned(), format!("-merge_control_file={}", told.display())];
        let limits = [format!("-max_len={MAX_INPUT_BYTES}"), format!("-rss_limit_mb={MAX_MEMORY_MIB}")];
        interactive(&mut self.command(&[options.as_slice(), &limits, &folders].concat()))?;
        let told = fs::read_to_string(&told).map_err(failed)?;
        let kept: Vec<(PathBuf, Vec<u8>)> = most(&reached(&told), KEPT_INPUTS)
            .into_iter()
            .map(|path| fs::read(&path).map(|bytes| (path, bytes)))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        fs::remove_dir_all(&tree).and_then(|()| fs::create_dir_all(&tree)).map_err(failed)?;
        for (path, bytes) in &kept {
            fs::write(tree.join(path.file_name().unwrap_or_default()), bytes).map_err(failed)?;
        }
        let bytes: usize = kept.iter().map(|(_, bytes)| bytes.len()).sum();
        eprintln!("==> fuzz {}: {} inputs of {bytes} bytes in {}", self.target.name(), kept.len(), tree.display());
        Ok(())
    }
}

/// What libFuzzer's merge notes in its control file: which features each input reaches. First two numbers and the names of all inputs, then,
/// among other lines, `FT INPUT FEATURE...`.
fn reached(told: &str) -> Vec<(PathBuf, HashSet<u32>)> {
    let mut lines = told.lines();
    let count = lines.next().and_then(|line| line.parse().ok()).unwrap_or(0);
    let mut inputs: Vec<_> = lines.by_ref().skip(1).take(count).map(|path| (path.into(), HashSet::new())).collect();
    for mut words in lines.filter_map(|line| line.strip_prefix("FT ")).map(str::split_whitespace) {
        let index: Option<usize> = words.next().and_then(|word| word.parse().ok());
        if let Some((_, features)) = index.and_then(|index| inputs.get_mut(index)) {
            features.extend(words.filter_map(|word| word.parse::<u32>().ok()));
        }
    }
    inputs
}

/// Up to `count` inputs, each the one that adds most to those before it.
fn most(inputs: &[(PathBuf, HashSet<u32>)], count: usize) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let mut chosen = Vec::new();
    while chosen.len() < count {
        let best = inputs.iter().max_by_key(|(_, features)| features.difference(&seen).count());
        let Some((path, features)) = best.filter(|(_, features)| !features.is_subset(&seen)) else { break };
        seen.extend(features.iter().copied());
        chosen.push(path.clone());
    }
    chosen
}

/// Builds the target's test program with counters; in a folder of its own, as everything is compiled differently.
fn build(target: Target) -> Result<PathBuf, String> {
    let (package, test, ..) = target.place();
    let host = host()?;
    let mut build = cargo(&["test", "--release"]);
    // With a target named the flags are not those of build scripts.
    build
        .args(["--package", package, "--target", &host, "--target-dir"])
        .arg(workspace().join("target/fuzz"))
        .args(test);
    build.env("RUSTFLAGS", FLAGS).env("CARGO_PROFILE_RELEASE_LTO", "off");
    let programs = suite::build(&mut build)?;
    let found = programs.into_iter().find(|program| program.package == package);
    found.map(|program| program.file).ok_or_else(|| format!("cargo built no test program of {package}"))
}

/// The triple that programs for this machine are built for.
fn host() -> Result<String, String> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "`rustc -vV` does not say its host".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inputs_that_add_most_are_kept() {
        let told = "4\n0\n/c/a\n/c/b\n/c/c\n/c/d\nSTARTED 0 3\nFT 0 1 2 3\nCOV 0 7\nFT 1 1 2\nFT 2 3 4\nFT 3 4\n";
        let inputs = reached(told);
        assert_eq!(inputs.len(), 4);
        let names = |count| most(&inputs, count).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(names(1), ["/c/a"]);
        // Of two that add as much, the later; and none that adds nothing.
        assert_eq!(names(40), ["/c/a", "/c/d"]);
    }
}
