//! Compilers for guests that the host's gcc does not build for, and the tools that a kernel's build takes: Debian 12's
//! packages, unpacked into the cache and run from there.
//!
//! A cross gcc finds its own parts and the guest's libc relative to where it lies. What it links against on the host
//! (gmp, isl, bfd, ...) lies beside it; the libc is the host's, which is Debian 12's or a newer one.

use std::fs;
use std::path::{Path, PathBuf};

use qkprobe_tests::{Cache, GuestArch};

use crate::debian::{Choice, Part, unpack};
use crate::recipes::{Tools, executable};

/// The oldest Debian that the set-up knows, so that the programs run on all of them.
pub(crate) const SUITE: Choice = Choice { suites: &["bookworm"], exceptions: &[] };

/// Sets the libraries for the program and for what it starts (cc1, as, ld, m4).
pub(crate) const WRAPPER: &str = r#"#!/bin/sh
# Runs this folder's program with this folder's libraries.
case $0 in
    /*) root=${0%/bin/*} ;;
    *) root=$(cd "$(dirname "$0")/.." && pwd) ;;
esac
export LD_LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu"
export BISON_PKGDATADIR="$root/usr/share/bison" M4="$root/bin/m4"
exec "$root/usr/bin/${0##*/}" "$@"
"#;

/// What the tools' folder is for.
const TOOLS: [&str; 6] = ["bc", "bison", "flex", "m4", "make", "xz"];
pub(crate) const TOOLS_PACKAGES: [&str; 6] = ["bc", "bison", "flex", "m4", "make", "xz-utils"];

/// Packages that an empty machine would need, and every host has.
const OF_THE_HOST: [&str; 6] = ["libc6_", "libc-bin_", "libcrypt1_", "perl-base_", "dpkg_", "tar_"];

/// The prefix of an architecture's tools.
pub(crate) const fn triplet(arch: GuestArch) -> &'static str {
    match arch {
        GuestArch::X86_64 => "x86_64-linux-gnu",
        GuestArch::I386 => "i686-linux-gnu",
        GuestArch::Ppc64le => "powerpc64le-linux-gnu",
        GuestArch::Ppc64 => "powerpc64-linux-gnu",
        GuestArch::Ppc32 => "powerpc-linux-gnu",
        GuestArch::Sparc64 => "sparc64-linux-gnu",
    }
}

/// Compiler and static libc, as package names.
pub(crate) const fn packages(arch: GuestArch) -> [&'static str; 2] {
    match arch {
        GuestArch::X86_64 => ["gcc", "libc6-dev"],
        GuestArch::I386 => ["gcc-i686-linux-gnu", "libc6-dev-i386-cross"],
        GuestArch::Ppc64le => ["gcc-powerpc64le-linux-gnu", "libc6-dev-ppc64el-cross"],
        GuestArch::Ppc64 => ["gcc-powerpc64-linux-gnu", "libc6-dev-ppc64-cross"],
        GuestArch::Ppc32 => ["gcc-powerpc-linux-gnu", "libc6-dev-powerpc-cross"],
        GuestArch::Sparc64 => ["gcc-sparc64-linux-gnu", "libc6-dev-sparc64-cross"],
    }
}

/// The folder that holds an architecture's compiler; `None` where the host's does.
pub(crate) fn folder(arch: GuestArch) -> Option<String> {
    (arch != GuestArch::X86_64).then(|| format!("cross/{}", arch.name()))
}

/// The folder that holds what a kernel's build takes besides compilers.
pub(crate) const TOOLS_FOLDER: &str = "cross/tools";

/// The path of a compiler's program without `gcc` or `ld` at its end, as `CROSS_COMPILE` takes it.
pub(crate) fn prefix(arch: GuestArch) -> Result<String, String> {
    let Some(folder) = folder(arch) else { return Ok(String::new()) };
    let path = root()?.join(folder).join("bin").join(format!("{}-", triplet(arch)));
    Ok(path.display().to_string())
}

/// A path that finds the tools first.
pub(crate) fn path_with_tools() -> Result<std::ffi::OsString, String> {
    let tools = root()?.join(TOOLS_FOLDER).join("bin");
    let host = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(tools).chain(std::env::split_paths(&host))).map_err(|error| error.to_string())
}

fn root() -> Result<PathBuf, String> {
    Ok(Cache::locate().map_err(|error| error.to_string())?.root().to_owned())
}

/// Unpacks the compiler for `arch`.
///
/// # Errors
/// A text for the user.
pub(crate) fn make_compiler(item: &str, arch: GuestArch, folder: &Path, tools: Tools<'_>) -> Result<String, String> {
    let prefix = format!("{}-", triplet(arch));
    unpack_all(item, &packages(arch), folder, tools)?;
    wrap(folder, |name| name.starts_with(&prefix))?;
    let gcc = folder.join("bin").join(format!("{prefix}gcc"));
    crate::process::output(std::process::Command::new(gcc).arg("-dumpfullversion")).map(|text| text.trim().to_owned())
}

/// Unpacks the tools.
///
/// # Errors
/// A text for the user.
pub(crate) fn make_tools(item: &str, folder: &Path, tools: Tools<'_>) -> Result<String, String> {
    unpack_all(item, &TOOLS_PACKAGES, folder, tools)?;
    wrap(folder, |name| TOOLS.contains(&name))?;
    // It needs no library of ours, and what it starts must not see them.
    let make = folder.join("bin/make");
    fs::remove_file(&make)
        .and_then(|()| std::os::unix::fs::symlink("../usr/bin/make", &make))
        .map_err(|error| format!("{}: {error}", make.display()))?;
    let text = crate::process::output(std::process::Command::new(make).arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn unpack_all(item: &str, packages: &[&str], folder: &Path, tools: Tools<'_>) -> Result<(), String> {
    let apt = tools.apt.ok_or("no package indexes")?;
    let debs = apt.download_with_dependencies(SUITE, packages, tools.scratch, (tools.progress, item))?;
    tools.progress.step(item, "unpacking");
    for deb in &debs {
        let name = deb.file_name().unwrap_or_default().to_string_lossy();
        if !OF_THE_HOST.iter().any(|package| name.starts_with(package)) {
            unpack(deb, folder, Part::Useful)?;
        }
    }
    Ok(())
}

/// Puts a wrapper in `bin` for each of the programs that `wanted` names.
fn wrap(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<(), String> {
    let io = |error: std::io::Error| format!("{}: {error}", folder.display());
    let bin = folder.join("bin");
    // Debian's merged /usr was needed to unpack; the wrappers take the name.
    fs::remove_file(&bin).and_then(|()| fs::create_dir(&bin)).map_err(io)?;
    for entry in fs::read_dir(folder.join("usr/bin")).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        if wanted(&name.to_string_lossy()) {
            executable(&bin.join(name), WRAPPER)?;
        }
    }
    Ok(())
}
