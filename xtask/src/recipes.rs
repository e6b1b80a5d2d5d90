//! What the set-up makes: each [`Recipe`] fills one folder of the cache.
//!
//! A QEMU is unpacked together with its libraries down to libc and started by its own dynamic loader, so that it runs
//! on any Debian and beside any other QEMU. Modules and firmware must come from the same build, but Debian's QEMU
//! looks in absolute paths, and gives up when it meets another build's modules there ("Only modules from the same
//! build can be loaded"). So the wrapper names our folders, and the module path inside the program is overwritten with
//! one that does not exist.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use qkprobe_tests::initramfs::Initramfs;
use qkprobe_tests::{GuestArch, GuestKernel, Qemu};

use crate::debian::{Apt, Choice, Part, unpack};
use crate::process::output;
use crate::progress::Progress;

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

/// The init program and how it is built.
const INIT_SOURCES: [(&str, &str); 6] = [
    ("qk.h", include_str!("../../guest-images/init/qk.h")),
    ("init.c", include_str!("../../guest-images/init/init.c")),
    ("load.c", include_str!("../../guest-images/init/load.c")),
    ("files.c", include_str!("../../guest-images/init/files.c")),
    ("machine.c", include_str!("../../guest-images/init/machine.c")),
    ("workers.c", include_str!("../../guest-images/init/workers.c")),
];
const INIT_FLAGS: [&str; 6] = ["-std=gnu11", "-static", "-O2", "-Wall", "-Wextra", "-pthread"];

/// The guest without a kernel and how it is built.
const BARE_SOURCES: [(&str, &str); 9] = [
    ("bare.inc", include_str!("../../guest-images/bare/bare.inc")),
    ("bare.ld", include_str!("../../guest-images/bare/bare.ld")),
    ("boot.S", include_str!("../../guest-images/bare/boot.S")),
    ("traps.S", include_str!("../../guest-images/bare/traps.S")),
    ("harness.S", include_str!("../../guest-images/bare/harness.S")),
    ("flow.S", include_str!("../../guest-images/bare/flow.S")),
    ("shapes.S", include_str!("../../guest-images/bare/shapes.S")),
    ("data.S", include_str!("../../guest-images/bare/data.S")),
    ("system.S", include_str!("../../guest-images/bare/system.S")),
];
const BARE_FLAGS: [&str; 9] = [
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wa,--fatal-warnings",
    "-Wl,--fatal-warnings",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
    "-Wl,-z,max-page-size=4096",
    "-Wl,-T,bare.ld",
];

/// One folder of the cache and how to fill it.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// The folder, relative to the cache.
    pub(crate) folder: String,
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
    Init,
    Bare,
}

/// What a recipe works with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tools<'a> {
    pub(crate) apt: Option<&'a Apt>,
    /// A folder for downloads, empty, this recipe's own.
    pub(crate) scratch: &'a Path,
    pub(crate) progress: &'a Progress,
}

/// Everything, what others wait for first.
pub(crate) fn all() -> Vec<Recipe> {
    let mut recipes = vec![Recipe { folder: format!("init/{}", GuestArch::X86_64.name()), kind: Kind::Init }];
    recipes.push(qemu(Qemu::V11_1));
    recipes.extend(GuestKernel::ALL.map(kernel));
    recipes.push(kernel(GuestKernel::X86_64Bare));
    recipes.push(qemu(Qemu::V10_0));
    recipes.push(qemu(Qemu::V7_2));
    recipes
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
    Recipe { folder: format!("qemu/{}", qemu.version()), kind }
}

fn kernel(kernel: GuestKernel) -> Recipe {
    let folder = format!("guests/{}", kernel.name());
    let (meta, suites): (_, &[&str]) = match kernel {
        GuestKernel::X86_64Cloud6_1 => ("linux-image-cloud-amd64", &["bookworm"]),
        GuestKernel::X86_64Generic6_1 => ("linux-image-amd64", &["bookworm"]),
        GuestKernel::X86_64Cloud6_12 => ("linux-image-cloud-amd64", &["trixie"]),
        GuestKernel::X86_64Cloud7 => ("linux-image-cloud-amd64", &["trixie-backports"]),
        GuestKernel::X86_64Bare => return Recipe { folder, kind: Kind::Bare },
    };
    let kind = Kind::Kernel { choice: Choice { suites, exceptions: &[] }, meta };
    Recipe { folder, kind }
}

impl Recipe {
    /// Differs when the recipe does.
    pub(crate) fn stamp(&self) -> String {
        let text = match self.kind {
            Kind::Init => format!("{INIT_SOURCES:?} {INIT_FLAGS:?}"),
            Kind::Bare => format!("{BARE_SOURCES:?} {BARE_FLAGS:?}"),
            Kind::Qemu { .. } => WRAPPER.to_owned(),
            Kind::Kernel { .. } => String::new(),
        };
        crate::hash::hex(format!("{REVISION} {self:?} {text}").as_bytes())
    }

    /// Whether it takes packages from Debian.
    pub(crate) fn needs_packages(&self) -> bool {
        !matches!(self.kind, Kind::Init | Kind::Bare)
    }

    /// Fills `folder` and returns the version of what is in it now.
    ///
    /// # Errors
    /// A text for the user.
    pub(crate) fn make(&self, folder: &Path, tools: Tools<'_>) -> Result<String, String> {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        match self.kind {
            Kind::Init => self.make_init(folder, tools),
            Kind::Bare => self.make_bare(folder, tools),
            Kind::Qemu { version, choice, packages } => self.make_qemu(folder, tools, version, choice, packages),
            Kind::Kernel { choice, meta } => self.make_kernel(folder, tools, choice, meta),
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

    fn make_kernel(&self, folder: &Path, tools: Tools<'_>, choice: Choice, meta: &str) -> Result<String, String> {
        let apt = tools.apt.ok_or("no package indexes")?;
        let depends = apt.field(choice, meta, "Depends")?;
        let image = image_of(&depends).ok_or_else(|| format!("{meta} depends on no kernel image: {depends}"))?;
        // Since 7.0 the image itself is in a package of its own.
        let binary = image.replacen("linux-image-", "linux-binary-", 1);
        let image = if apt.field(choice, &image, "Depends")?.contains(&binary) { binary } else { image };
        let version = apt.field(choice, &image, "Version")?;
        let package = format!("{image}={version}");
        let deb = apt.download(choice, &package, tools.scratch, (tools.progress, self.folder.as_str()))?;
        tools.progress.step(&self.folder, "unpacking");
        let unpacked = tools.scratch.join("root");
        // In /boot, or since 7.0 in /usr/lib/modules/VERSION.
        unpack(&deb, &unpacked, Part::Only(&["*/vmlinuz*"]))?;
        let found = find_file(&unpacked, "vmlinuz").ok_or_else(|| format!("{package} holds no vmlinuz"))?;
        let io = |error: std::io::Error| format!("{}: {error}", folder.display());
        fs::copy(found, folder.join("vmlinuz")).map_err(io)?;
        fs::write(folder.join("version"), format!("{version}\n")).map_err(io)?;
        Ok(version)
    }

    fn make_init(&self, folder: &Path, tools: Tools<'_>) -> Result<String, String> {
        tools.progress.step(&self.folder, "compiling");
        let io = |error: std::io::Error| format!("{}: {error}", folder.display());
        let program = folder.join("init");
        let mut compiler = Command::new("gcc");
        compiler.current_dir(tools.scratch).args(INIT_FLAGS).arg("-o").arg(&program);
        for (name, text) in INIT_SOURCES {
            fs::write(tools.scratch.join(name), text).map_err(io)?;
            if name.ends_with(".c") {
                compiler.arg(name);
            }
        }
        output(&mut compiler).map_err(|error| {
            format!("the guests' init program does not build (it needs the packages gcc and libc6-dev): {error}")
        })?;
        // The kernel opens /dev/console for init before anything can be mounted.
        let archive = Initramfs::new()
            .dir("/dev")
            .char_device("/dev/console", 5, 1)
            .file("/init", 0o755, &fs::read(&program).map_err(io)?)
            .finish();
        fs::write(folder.join("initramfs.cpio"), archive).map_err(io)?;
        Ok(self.stamp()[..12].to_owned())
    }

    fn make_bare(&self, folder: &Path, tools: Tools<'_>) -> Result<String, String> {
        tools.progress.step(&self.folder, "assembling");
        let mut compiler = Command::new("gcc");
        compiler.current_dir(tools.scratch).args(BARE_FLAGS).arg("-o").arg(folder.join(GuestKernel::X86_64Bare.file()));
        for (name, text) in BARE_SOURCES {
            let path = tools.scratch.join(name);
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
            if name.ends_with(".S") {
                compiler.arg(name);
            }
        }
        output(&mut compiler)
            .map_err(|error| format!("the bare guest does not build (it needs the package gcc): {error}"))?;
        Ok(self.stamp()[..12].to_owned())
    }
}

/// The versioned image among a meta package's dependencies (`linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)`).
fn image_of(depends: &str) -> Option<String> {
    depends
        .split([',', '|'])
        .filter_map(|dependency| dependency.split_whitespace().next())
        .find(|name| {
            name.strip_prefix("linux-image-").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .map(str::to_owned)
}

/// The libraries' own programs (`perl`, ...) are of no use here.
fn keep_only_qemu(bin: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(bin)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !(name.starts_with("qemu-system-") || name == "qemu-x86_64") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
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

fn executable(path: &Path, text: &str) -> Result<(), String> {
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

/// The first file below `folder` whose name begins so.
fn find_file(folder: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
        // Links (the merged /usr) are not followed.
        if entry.file_type().ok()?.is_dir() {
            return find_file(&entry.path(), name);
        }
        entry.file_name().to_string_lossy().starts_with(name).then(|| entry.path())
    })
}

#[cfg(test)]
mod tests {
    use super::image_of;

    #[test]
    fn image_among_dependencies() {
        let with_helpers = "linux-base-cloud-amd64 (= 7.3.4-1), linux-image-7.3.4+deb13-cloud-amd64 (= 7.3.4-1)";
        assert_eq!(image_of(with_helpers).as_deref(), Some("linux-image-7.3.4+deb13-cloud-amd64"));
        assert_eq!(image_of("linux-image-6.1.0-50-amd64 (= 6.1.176-1)").as_deref(), Some("linux-image-6.1.0-50-amd64"));
        assert_eq!(image_of("linux-image-cloud-amd64"), None);
    }
}
