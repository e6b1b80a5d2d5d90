//! What the set-up makes: each [`Recipe`] fills one folder of the cache.
//!
//! Here are the list, the stamps and QEMU; kernels are in [`kernels`], the guests' own programs in [`programs`],
//! compilers for other machines in [`cross`].
//!
//! A QEMU is unpacked together with its libraries down to libc and started by its own dynamic loader, so that it runs
//! on any Debian and beside any other QEMU. Modules and firmware must come from the same build, but Debian's QEMU
//! looks in absolute paths, and gives up when it meets another build's modules there ("Only modules from the same
//! build can be loaded"). So the wrapper names our folders, and the module path inside the program is overwritten with
//! one that does not exist.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use qkprobe_tests::{Cache, GuestArch, GuestKernel, Qemu};

use crate::debian::{Apt, Choice, Part, unpack};
use crate::kernels::Sources;
use crate::process::output;
use crate::progress::Progress;
use crate::{cross, kernels, programs};

/// Goes into every stamp. Count up when the code below makes something else of the same recipe.
const REVISION: u32 = 1;

/// Every libc is Debian 13's, so that a plugin built on Debian 12 or 13 loads into every QEMU.
const LIBC: &[(&str, &str)] = &[("libc6 libgcc-s1 gcc-14-base", "trixie")];

/// A shell's one `exec`: the process is QEMU itself, for signals and for whoever waits.
const WRAPPER: &str = r#"#!/bin/sh
# Runs this folder's QEMU with this folder's libraries, modules and firmware.
case $0 in
    /*) root=${0%/bin/*} ;;
    *) root=$(cd "$(dirname "$0")/.." && pwd) ;;
esac
case $0 in
    *qemu-system-*) set -- -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" -L "$root/usr/lib/ipxe/qemu" "$@" ;;
esac
export QEMU_MODULE_DIR="$root/usr/lib/x86_64-linux-gnu/qemu"
exec "$root/usr/bin/qemu-ld" --library-path "$root/usr/lib/x86_64-linux-gnu" "$root/usr/bin/${0##*/}" "$@"
"#;

/// Where Debian's QEMU looks for modules.
const MODULE_PATH: &str = "/usr/lib/x86_64-linux-gnu/qemu\0";

/// One folder of the cache and how to fill it.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// The folder, relative to the cache.
    pub(crate) folder: String,
    /// The guests that need it; `None` for all.
    pub(crate) arch: Option<GuestArch>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Qemu {
        /// What `--version` must begin with.
        version: &'static str,
        choice: Choice,
        packages: &'static [&'static str],
    },
    Kernel {
        choice: Choice,
        /// The package that depends on the newest image.
        meta: &'static str,
    },
    /// A kernel that no package has.
    Build,
    Compiler,
    /// What a kernel's build takes besides a compiler.
    BuildTools,
    /// The kernel's own reader of KTAP.
    Kunit,
    Init,
    Bare,
}

/// What a recipe works with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tools<'a> {
    pub(crate) apt: Option<&'a Apt>,
    /// A folder for downloads, empty, this recipe's own.
    pub(crate) scratch: &'a Path,
    pub(crate) sources: &'a Sources,
    pub(crate) progress: &'a Progress,
}

/// Everything, what others wait for first, and what takes the CPUs for minutes last.
pub(crate) fn all() -> Vec<Recipe> {
    let mut recipes = vec![init(GuestArch::X86_64), qemu(Qemu::V11_1)];
    let (built, fetched): (Vec<_>, Vec<_>) =
        GuestKernel::ALL.into_iter().map(kernel).partition(|recipe| matches!(recipe.kind, Kind::Build));
    recipes.extend(fetched);
    recipes.push(kernel(GuestKernel::X86_64Bare));
    recipes.push(qemu(Qemu::V10_0));
    recipes.push(Recipe { folder: cross::TOOLS_FOLDER.to_owned(), arch: None, kind: Kind::BuildTools });
    for arch in GuestArch::ALL {
        if let Some(folder) = cross::folder(arch) {
            recipes.push(Recipe { folder, arch: Some(arch), kind: Kind::Compiler });
            recipes.push(init(arch));
            recipes.extend(GuestKernel::BARE.into_iter().filter(|kernel| kernel.arch() == arch).map(kernel));
        }
    }
    recipes.push(qemu(Qemu::V7_2));
    recipes.push(Recipe { folder: Cache::KUNIT.to_owned(), arch: None, kind: Kind::Kunit });
    recipes.extend(built);
    recipes
}

/// What the demo boots: one QEMU, one kernel, the init program.
pub(crate) fn for_demo() -> Vec<Recipe> {
    vec![init(GuestArch::X86_64), qemu(Qemu::V11_1), kernel(GuestKernel::X86_64Cloud6_1)]
}

/// The recipes for these guests, in order: all if none is named.
pub(crate) fn for_guests(arches: &[GuestArch]) -> Vec<Recipe> {
    let mut recipes = all();
    if !arches.is_empty() {
        recipes.retain(|recipe| recipe.arch.is_none_or(|arch| arches.contains(&arch)));
        let builds = recipes.iter().any(|recipe| matches!(recipe.kind, Kind::Build));
        // No guest needs the reader of KTAP; the whole run of the tests does.
        recipes.retain(|recipe| match recipe.kind {
            Kind::BuildTools => builds,
            Kind::Kunit => false,
            _ => true,
        });
    }
    recipes
}

fn init(arch: GuestArch) -> Recipe {
    Recipe { folder: format!("init/{}", arch.name()), arch: Some(arch), kind: Kind::Init }
}

fn qemu(qemu: Qemu) -> Recipe {
    const ALL: &[&str] = &["qemu-system-x86", "qemu-system-ppc", "qemu-system-sparc"];
    // Debian's newer qemu-user is linked statically and knows no plugins.
    const OLD: &[&str] = &["qemu-system-x86", "qemu-user"];
    let (version, suites, packages): (_, &[&str], _) = match qemu {
        Qemu::V7_2 => ("7.2.", &["bookworm"], OLD),
        Qemu::V10_0 => ("10.0.", &["bookworm-backports", "bookworm"], ALL),
        Qemu::V11_1 => ("11.1.", &["trixie-backports", "trixie"], ALL),
    };
    let kind = Kind::Qemu { version, choice: Choice { suites, exceptions: LIBC }, packages };
    Recipe { folder: format!("qemu/{}", qemu.version()), arch: None, kind }
}

fn kernel(kernel: GuestKernel) -> Recipe {
    let package = |meta, suites| Kind::Kernel { choice: Choice { suites, exceptions: &[] }, meta };
    let kind = match kernel {
        GuestKernel::X86_64Cloud6_1 => package("linux-image-cloud-amd64", &["bookworm"]),
        GuestKernel::X86_64Generic6_1 => package("linux-image-amd64", &["bookworm"]),
        GuestKernel::X86_64Cloud6_12 => package("linux-image-cloud-amd64", &["trixie"]),
        GuestKernel::X86_64Cloud7 => package("linux-image-cloud-amd64", &["trixie-backports"]),
        GuestKernel::I386Pae6_1 => package("linux-image-686-pae", &["bookworm"]),
        GuestKernel::Ppc64le6_1 => package("linux-image-powerpc64le", &["bookworm"]),
        GuestKernel::Ppc64Pseries6_1 | GuestKernel::Ppc32Pmac6_1 | GuestKernel::Sparc64Sun4u6_1 => Kind::Build,
        GuestKernel::X86_64Bare
        | GuestKernel::I386Bare
        | GuestKernel::Ppc64Bare
        | GuestKernel::Ppc64leBare
        | GuestKernel::Ppc32Bare
        | GuestKernel::Sparc64Bare => Kind::Bare,
    };
    Recipe { folder: format!("guests/{}", kernel.name()), arch: Some(kernel.arch()), kind }
}

impl Recipe {
    /// Differs when the recipe does.
    pub(crate) fn stamp(&self) -> String {
        let text = match self.kind {
            Kind::Init => programs::init_stamp(),
            Kind::Bare => programs::bare_stamp(self.arch.unwrap_or(GuestArch::X86_64)),
            Kind::Qemu { .. } => WRAPPER.to_owned(),
            Kind::Kernel { .. } | Kind::Kunit => String::new(),
            Kind::Build => format!("{} {:?}", kernels::COMMON_CONFIG, self.arch.map(kernels::config)),
            Kind::Compiler => format!("{} {:?}", cross::WRAPPER, self.arch.map(cross::packages)),
            Kind::BuildTools => format!("{} {:?}", cross::WRAPPER, cross::TOOLS_PACKAGES),
        };
        // The folder says which architecture it is.
        let recipe = format!("Recipe {{ folder: {:?}, kind: {:?} }}", self.folder, self.kind);
        crate::hash::hex(format!("{REVISION} {recipe} {text}").as_bytes())
    }

    /// Whether it takes packages from Debian.
    pub(crate) fn needs_packages(&self) -> bool {
        !matches!(self.kind, Kind::Init | Kind::Bare)
    }

    /// The suites of Debian that it takes packages from.
    pub(crate) fn suites(&self) -> Vec<&'static str> {
        match self.kind {
            Kind::Qemu { choice, .. } | Kind::Kernel { choice, .. } => {
                choice.suites.iter().copied().chain(choice.exceptions.iter().map(|(_, suite)| *suite)).collect()
            }
            Kind::Build | Kind::Compiler | Kind::BuildTools | Kind::Kunit => cross::SUITE.suites.to_vec(),
            Kind::Init | Kind::Bare => Vec::new(),
        }
    }

    /// Whether it takes packages for another machine than this one.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(self.kind, Kind::Kernel { .. }) && self.arch != Some(GuestArch::X86_64)
    }

    /// The folders that must be complete before this one is made.
    pub(crate) fn needs(&self) -> Vec<String> {
        let compiler = self.arch.and_then(cross::folder);
        match self.kind {
            Kind::Init | Kind::Bare => compiler.into_iter().collect(),
            Kind::Build | Kind::Kunit => compiler.into_iter().chain([cross::TOOLS_FOLDER.to_owned()]).collect(),
            Kind::Qemu { .. } | Kind::Kernel { .. } | Kind::Compiler | Kind::BuildTools => Vec::new(),
        }
    }

    /// Fills `folder` and returns the version of what is in it now.
    ///
    /// # Errors
    /// A text for the user.
    pub(crate) fn make(&self, folder: &Path, tools: Tools<'_>) -> Result<String, String> {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let (item, arch) = (self.folder.as_str(), self.arch.unwrap_or(GuestArch::X86_64));
        match self.kind {
            Kind::Init => programs::make_init(item, arch, folder, tools).map(|()| self.stamp()[..12].to_owned()),
            Kind::Bare => programs::make_bare(item, arch, folder, tools).map(|()| self.stamp()[..12].to_owned()),
            Kind::Qemu { version, choice, packages } => self.make_qemu(folder, tools, version, choice, packages),
            Kind::Kernel { choice, meta } => kernels::take(item, arch, folder, tools, choice, meta),
            Kind::Build => kernels::build(item, arch, folder, tools),
            Kind::Compiler => cross::make_compiler(item, arch, folder, tools),
            Kind::BuildTools => cross::make_tools(item, folder, tools),
            Kind::Kunit => kernels::take_kunit(folder, tools),
        }
    }

    fn make_qemu(
        &self,
        folder: &Path,
        tools: Tools<'_>,
        wanted: &str,
        choice: Choice,
        packages: &[&str],
    ) -> Result<String, String> {
        let apt = tools.apt.ok_or("no package indexes")?;
        let debs =
            apt.download_with_dependencies(choice, packages, tools.scratch, (tools.progress, self.folder.as_str()))?;
        tools.progress.step(&self.folder, "unpacking");
        for deb in &debs {
            let name = deb.file_name().unwrap_or_default().to_string_lossy();
            let part =
                if name.starts_with("qemu-user_") { Part::Only(&["./usr/bin/qemu-x86_64"]) } else { Part::Useful };
            unpack(deb, folder, part)?;
        }
        let io = |error: std::io::Error| format!("{}: {error}", folder.display());
        let bin = folder.join("usr/bin");
        let loader = fs::canonicalize(folder.join("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")).map_err(io)?;
        keep_only_qemu(&bin).map_err(io)?;
        fs::create_dir(folder.join("tmp-bin")).map_err(io)?;
        for entry in fs::read_dir(&bin).map_err(io)? {
            let entry = entry.map_err(io)?;
            forget_module_path(&entry.path()).map_err(io)?;
            executable(&folder.join("tmp-bin").join(entry.file_name()), WRAPPER)?;
        }
        fs::copy(loader, bin.join("qemu-ld")).map_err(io)?;
        // Debian's merged /usr was needed to unpack; the wrappers take the name.
        fs::remove_file(folder.join("bin")).map_err(io)?;
        fs::rename(folder.join("tmp-bin"), folder.join("bin")).map_err(io)?;
        check_version(&folder.join("bin/qemu-system-x86_64"), wanted)
    }
}

/// The libraries' own programs (`perl`, ...) are of no use here, nor is a script that looks for the real one in `/usr` (Debian 12's
/// `qemu-system-i386`).
fn keep_only_qemu(bin: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(bin)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_qemu = name.starts_with("qemu-system-") || name == "qemu-x86_64";
        if !is_qemu || is_script(&entry.path())? {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn is_script(program: &Path) -> std::io::Result<bool> {
    let mut start = [0; 2];
    // A link may lead to a program that comes by itself, or nowhere.
    Ok(!program.is_symlink() && fs::File::open(program)?.read(&mut start)? == 2 && start == *b"#!")
}

/// Overwrites [`MODULE_PATH`] in a program.
fn forget_module_path(program: &Path) -> std::io::Result<()> {
    if program.is_symlink() {
        return Ok(()); // another name of a program that comes by itself
    }
    let mut bytes = fs::read(program)?;
    let path = MODULE_PATH.as_bytes();
    let nowhere = format!("{:/<1$}\0", "/nonexistent", path.len() - 1);
    let mut at = 0;
    // Searching for the first byte alone first keeps this quick without a library.
    while let Some(slash) = bytes[at..].iter().position(|byte| *byte == path[0]) {
        at += slash;
        if bytes[at..].starts_with(path) {
            bytes[at..at + path.len()].copy_from_slice(nowhere.as_bytes());
        }
        at += 1;
    }
    fs::write(program, bytes)
}

pub(crate) fn executable(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// Asks QEMU itself, which also shows that it runs here.
fn check_version(program: &Path, wanted: &str) -> Result<String, String> {
    let text = output(Command::new(program).arg("--version"))?;
    // QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1)
    let version = text.split_whitespace().nth(3).unwrap_or_default();
    if version.starts_with(wanted) {
        return Ok(version.to_owned());
    }
    Err(format!(
        "Debian's packages hold QEMU {version}, and {wanted}x is wanted: the suites have moved on, see xtask/src/recipes.rs"
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{GuestArch, all, for_demo, for_guests};

    #[test]
    fn what_is_needed_comes_before() {
        for arches in [&[][..], &[GuestArch::X86_64], &[GuestArch::Ppc64le], &[GuestArch::Sparc64, GuestArch::I386]] {
            let mut made = HashSet::new();
            for recipe in for_guests(arches) {
                for needed in recipe.needs() {
                    assert!(made.contains(&needed), "{} needs {needed} ({arches:?})", recipe.folder);
                }
                assert!(made.insert(recipe.folder.clone()), "{} twice", recipe.folder);
            }
        }
    }

    #[test]
    fn one_guest_needs_no_other_guests_folders() {
        let folders = |arch| for_guests(&[arch]).into_iter().map(|recipe| recipe.folder).collect::<Vec<_>>();
        let x86_64 = folders(GuestArch::X86_64);
        assert!(x86_64.iter().all(|folder| !folder.starts_with("cross/") && folder != "kunit"), "{x86_64:?}");
        let sparc64 = folders(GuestArch::Sparc64);
        for folder in ["cross/sparc64", "cross/tools", "init/sparc64", "guests/sparc64-6.1-sun4u", "qemu/10.0"] {
            assert!(sparc64.iter().any(|have| have == folder), "{folder} of {sparc64:?}");
        }
        assert!(!sparc64.iter().any(|folder| folder.contains("x86_64") || folder.contains("ppc")), "{sparc64:?}");
    }

    #[test]
    fn the_demo_needs_little() {
        let recipes = for_demo();
        let folders: Vec<&str> = recipes.iter().map(|recipe| recipe.folder.as_str()).collect();
        assert_eq!(folders, ["init/x86_64", "qemu/11.1", "guests/x86_64-6.1-cloud"]);
        let suites: HashSet<&str> = recipes.iter().flat_map(super::Recipe::suites).collect();
        assert_eq!(suites, HashSet::from(["bookworm", "trixie", "trixie-backports"]));
        assert!(!recipes.iter().any(super::Recipe::is_foreign));
        // And they are the same as everybody's, so that nothing is made twice.
        let all: HashSet<String> = all().iter().map(super::Recipe::stamp).collect();
        assert!(recipes.iter().all(|recipe| all.contains(&recipe.stamp())));
        let suites: HashSet<&str> = super::all().iter().flat_map(super::Recipe::suites).collect();
        assert_eq!(suites.len(), 4);
    }

    #[test]
    fn stamps_differ() {
        let stamps: HashSet<String> = all().iter().map(super::Recipe::stamp).collect();
        assert_eq!(stamps.len(), all().len());
    }
}
