//! `cargo xtask setup`: brings the cache to what the recipes say.
//!
//! In order: lock the cache, remove what an interrupted set-up left, compare manifest and files with the recipes, make
//! what is missing or outdated (two at a time, in the order of [`queue`], each in a folder of its own that is renamed
//! when it is complete), note each in the manifest at once. [`Background`] does all that while something else goes on.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use qkprobe_tests::{Cache, GuestArch};

use crate::debian::{self, Apt};
use crate::kernels::Sources;
use crate::manifest::{Item, Manifest};
use crate::process::{interactive, is_installed, output};
use crate::progress::Progress;
use crate::queue::Queue;
use crate::recipes::{self, Recipe, Tools};

/// Downloads wait for the network while others unpack or compile.
const WORKERS: usize = 2;

/// What the user asked for.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Only what this guest needs: x86_64, i386, ppc64le, ppc64, ppc32 or sparc64. Several may be given
    #[arg(long, value_name = "GUEST", value_parser = guest)]
    arch: Vec<GuestArch>,
    /// Compare the sha256 of every file, not just its size and time
    #[arg(long)]
    verify: bool,
    /// Make everything anew, with the newest versions that the suites have
    #[arg(long)]
    refresh: bool,
    /// Only what the demo needs
    #[arg(skip)]
    demo: bool,
}

fn guest(text: &str) -> Result<GuestArch, String> {
    GuestArch::from_name(text)
        .ok_or_else(|| format!("the guests are {}", GuestArch::ALL.map(GuestArch::name).join(", ")))
}

impl Options {
    /// Only what guests of this architecture need.
    pub(crate) fn only(arch: GuestArch) -> Self {
        Self::of(vec![arch])
    }

    /// Only what guests of these architectures need; of none: of all.
    pub(crate) fn of(arch: Vec<GuestArch>) -> Self {
        Self { arch, ..Self::default() }
    }

    /// Only what the demo boots.
    pub(crate) fn demo() -> Self {
        Self { demo: true, ..Self::default() }
    }

    fn recipes(&self) -> Vec<Recipe> {
        if self.demo { recipes::for_demo() } else { recipes::for_guests(&self.arch) }
    }
}

/// Makes what is missing.
///
/// # Errors
/// A text for the user, for everything that could not be made.
pub(crate) fn run(options: &Options) -> Result<Cache, String> {
    set_up(options, &Progress::new(false))
}

/// A set-up behind something else.
#[derive(Debug)]
pub(crate) struct Background {
    thread: JoinHandle<Result<Cache, String>>,
    progress: Progress,
}

impl Background {
    /// Starts it.
    ///
    /// # Errors
    /// The host lacks what building takes.
    pub(crate) fn start(options: Options) -> Result<Self, String> {
        // It may talk to the user: before, not behind.
        host_packages(&options)?;
        let progress = Progress::new(true);
        let theirs = progress.clone();
        Ok(Self { thread: thread::spawn(move || set_up(&options, &theirs)), progress })
    }

    /// Whether it has ended, well or not.
    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end, and shows what it does from now on.
    ///
    /// # Errors
    /// As [`run`].
    pub(crate) fn wait(self) -> Result<Cache, String> {
        if !self.thread.is_finished() {
            eprintln!("==> waiting for the set-up");
        }
        self.progress.to_foreground();
        self.thread.join().unwrap_or_else(|_| Err("the set-up panicked".to_owned()))
    }
}

fn set_up(options: &Options, progress: &Progress) -> Result<Cache, String> {
    let start = Instant::now();
    let cache = Cache::locate().map_err(|error| error.to_string())?;
    let root = cache.root();
    fs::create_dir_all(root).map_err(|error| format!("{}: {error}", root.display()))?;
    let _lock = lock(root)?;
    let staging = root.join("staging");
    let mut manifest = Manifest::load(&cache.manifest())?;
    let wanted = options.recipes();
    let items = wanted.len();
    let pending: Vec<Recipe> = wanted
        .into_iter()
        .filter(|recipe| {
            let item = manifest.items.get(&recipe.folder).filter(|item| item.stamp == recipe.stamp());
            options.refresh || !item.is_some_and(|item| item.matches(&root.join(&recipe.folder), options.verify))
        })
        .collect();
    if pending.is_empty() {
        eprintln!("{} is complete ({items} items, {:.1} s)", root.display(), start.elapsed().as_secs_f32());
        return Ok(cache);
    }
    // What no recipe names any more would never be removed.
    manifest.items.retain(|folder, _| recipes::all().iter().any(|recipe| recipe.folder == *folder));
    remove(&staging)?;
    eprintln!("setting up {}: {} of {items} items to make", root.display(), pending.len());
    host_packages(options)?;
    let failures = make(pending, &cache, manifest, &staging, progress);
    remove(&staging)?;
    if failures.is_empty() {
        eprintln!("{} is complete ({:.1} s)", root.display(), start.elapsed().as_secs_f32());
        return Ok(cache);
    }
    Err(format!("{}\nwhat could be made is kept: `cargo xtask setup` goes on from there", failures.join("\n")))
}

/// Makes the recipes' folders and returns what failed.
fn make(pending: Vec<Recipe>, cache: &Cache, manifest: Manifest, staging: &Path, progress: &Progress) -> Vec<String> {
    let mut failures = Vec::new();
    let apt = pending.iter().any(Recipe::needs_packages).then(|| {
        debian::check_host()?;
        let suites: BTreeSet<&str> = pending.iter().flat_map(Recipe::suites).collect();
        let foreign = pending.iter().any(Recipe::is_foreign);
        Apt::open(&staging.join("apt"), &suites.into_iter().collect::<Vec<_>>(), foreign, progress)
    });
    let (apt, pending) = match apt.transpose() {
        Ok(apt) => (apt, pending),
        // What needs no package is still made.
        Err(error) => {
            failures.push(error);
            (None, pending.into_iter().filter(|recipe| !recipe.needs_packages()).collect())
        }
    };
    let sources = Sources::new(staging.join("sources"));
    let (queue, manifest, failures) = (Queue::new(pending), Mutex::new(manifest), Mutex::new(failures));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((recipe, possible)) = queue.next() {
                    let work = Work { cache, manifest: &manifest, staging, apt: apt.as_ref(), sources: &sources };
                    let made = possible.and_then(|()| make_one(&recipe, work, progress));
                    queue.done(&recipe.folder, made.is_ok());
                    if let Err(error) = made {
                        progress.done(&recipe.folder, "FAILED");
                        let error = format!("{}: {error}", recipe.folder);
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What all the workers share.
#[derive(Clone, Copy)]
struct Work<'a> {
    cache: &'a Cache,
    manifest: &'a Mutex<Manifest>,
    staging: &'a Path,
    apt: Option<&'a Apt>,
    sources: &'a Sources,
}

fn make_one(recipe: &Recipe, work: Work<'_>, progress: &Progress) -> Result<(), String> {
    let Work { cache, manifest, staging, apt, sources } = work;
    let start = Instant::now();
    let name = recipe.folder.replace('/', "-");
    let scratch = staging.join(format!("{name}.scratch"));
    fs::create_dir_all(&scratch).map_err(|error| format!("{}: {error}", scratch.display()))?;
    let folder = staging.join(&name);
    let version = recipe.make(&folder, Tools { apt, scratch: &scratch, sources, progress })?;
    progress.step(&recipe.folder, "taking the sha256 of its files");
    let item = Item::describe(&folder, recipe.stamp(), version)?;
    let place = cache.root().join(&recipe.folder);
    remove(&place)?;
    fs::create_dir_all(place.parent().unwrap_or(&place))
        .and_then(|()| fs::rename(&folder, &place))
        .map_err(|error| format!("{}: {error}", place.display()))?;
    remove(&scratch)?;
    let done = format!("{} is ready ({:.1} s)", item.version, start.elapsed().as_secs_f32());
    let mut manifest = manifest.lock().unwrap_or_else(PoisonError::into_inner);
    manifest.items.insert(recipe.folder.clone(), item);
    manifest.save(&cache.manifest())?;
    drop(manifest);
    progress.done(&recipe.folder, &done);
    Ok(())
}

/// What is missed without these programs, which the set-up itself can do without.
const OF_USE: [(&str, &str); 2] = [
    ("gdb", "`cargo xtask bench` will have nothing to compare with"),
    ("python3", "the tests that have KTAP read by the kernel's own kunit.py will fail"),
];

/// Compiler, debugger and python3 of this machine; the demo needs the first alone. For root they are installed, everybody else is told.
fn host_packages(options: &Options) -> Result<(), String> {
    let static_libc =
        || output(Command::new("gcc").arg("-print-file-name=libc.a")).is_ok_and(|path| path.trim().starts_with('/'));
    let mut missing = Vec::new();
    if !is_installed("gcc") {
        missing.push("gcc");
    }
    if !static_libc() {
        missing.push("libc6-dev");
    }
    let needed = !missing.is_empty();
    let of_use: Vec<_> = OF_USE.into_iter().filter(|(program, _)| !options.demo && !is_installed(program)).collect();
    missing.extend(of_use.iter().map(|(program, _)| program));
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    let is_root = output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if is_root && is_installed("apt-get") {
        eprintln!("installing {packages}");
        interactive(Command::new("apt-get").args(["update", "--quiet"]))?;
        let mut install = Command::new("apt-get");
        install.env("DEBIAN_FRONTEND", "noninteractive").args([
            "install",
            "--yes",
            "--quiet",
            "--no-install-recommends",
        ]);
        return interactive(install.args(missing));
    }
    if needed {
        return Err(format!("the guests' init program cannot be built here: `apt-get install {packages}` first"));
    }
    for (program, missed) in of_use {
        eprintln!("{program} is not installed: {missed} (`apt-get install {program}`)");
    }
    Ok(())
}

/// Waits until no other set-up works on this cache. The lock goes with the file, also when this process dies.
fn lock(root: &Path) -> Result<File, String> {
    let path = root.join("lock");
    let io = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    if file.try_lock().is_err() {
        eprintln!("another set-up works on {}: waiting for it", root.display());
        file.lock().map_err(io)?;
    }
    Ok(file)
}

fn remove(folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {error}", folder.display())),
        _ => Ok(()),
    }
}
