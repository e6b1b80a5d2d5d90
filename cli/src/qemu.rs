//! Which QEMU: named, in `$PATH`, or fetched by `cargo xtask setup`. What is not named is looked for once, for all commands.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::arch::GuestArch;
use crate::command::doubled;
use crate::control::{Control, Status};
use crate::error::Error;
use crate::folder::Folder;
use crate::running::Running;

/// A QEMU release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// `11` of 11.1.3.
    pub major: u32,
    /// `1` of 11.1.3.
    pub minor: u32,
    /// `3` of 11.1.3.
    pub micro: u32,
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

impl Release {
    /// The oldest with which the plugin works.
    pub const OLDEST: Self = Self { major: 9, minor: 2, micro: 0 };

    /// `11.1.3`, `11.1` or `11`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|number| number.parse().ok());
        let release = Self {
            major: numbers.next()??,
            minor: numbers.next().unwrap_or(Some(0))?,
            micro: numbers.next().unwrap_or(Some(0))?,
        };
        numbers.next().is_none().then_some(release)
    }

    /// What a program says about itself when asked for its version.
    ///
    /// # Errors
    /// It does not run, or is no QEMU.
    pub fn of(program: &Path) -> Result<Self, Error> {
        let output =
            Command::new(program).arg("--version").stdin(Stdio::null()).output().map_err(Error::io(program))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let release = text.split("QEMU emulator version ").nth(1).map(|rest| {
            let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
            rest.get(..end).and_then(Self::parse)
        });
        release.flatten().ok_or_else(|| Error::Talk {
            what: "qemu --version",
            detail: format!(
                "{} does not say which QEMU it is ({}): {}",
                program.display(),
                output.status,
                crate::escape::line(&output.stderr)
            ),
        })
    }
}

/// The program for an architecture. `wanted` is a file, a folder with QEMU's programs, or a version (`11.1`) of one that is
/// found. Without it, the first that is [installed] and new enough.
///
/// # Errors
/// [`Error::NoQemu`]; or `wanted` is none of them.
pub fn find(arch: &GuestArch, wanted: Option<&Path>) -> Result<PathBuf, Error> {
    let program = arch.program();
    let Some(wanted) = wanted else {
        let all = installed(&program);
        let is_new = |file: &&PathBuf| Release::of(file).is_ok_and(|release| release >= Release::OLDEST);
        let found = if all.len() > 1 { all.iter().find(is_new) } else { None };
        let looked =
            cache_folder().map(|cache| format!(" nor in {}", cache.join("qemu").display())).unwrap_or_default();
        let package = package(arch);
        return found.or(all.first()).cloned().ok_or(Error::NoQemu { program, looked, package });
    };
    if wanted.is_dir() {
        let file = wanted.join(&program);
        return if file.is_file() { Ok(file) } else { Err(absent(&file)) };
    }
    if wanted.is_file() {
        return std::path::absolute(wanted).map_err(Error::io(wanted));
    }
    let version = wanted.to_str().filter(|text| Release::parse(text).is_some());
    let Some(version) = version else { return Err(absent(wanted)) };
    let all = installed(&program);
    let fits = |file: &&PathBuf| {
        let text = Release::of(file).map(|release| release.to_string()).unwrap_or_default();
        text == version || text.starts_with(&format!("{version}."))
    };
    all.iter().find(fits).cloned().ok_or_else(|| {
        let found: Vec<_> = all.iter().filter_map(|file| Release::of(file).ok()).map(|it| it.to_string()).collect();
        let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
        Error::Talk { what: "--qemu", detail: format!("no {program} {version} here; found: {found}") }
    })
}

fn absent(path: &Path) -> Error {
    Error::Io { path: path.to_owned(), error: std::io::ErrorKind::NotFound.into() }
}

/// Every program of this name: in `$PATH`, and in the set-up's cache, newest first there.
#[must_use]
pub fn installed(program: &str) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut found: Vec<PathBuf> = path_folders().map(|folder| folder.join(program)).collect();
    if let Some(cache) = cache_folder() {
        let mut versions: Vec<_> = std::fs::read_dir(cache.join("qemu")).into_iter().flatten().flatten().collect();
        versions.sort_by_key(|entry| {
            std::cmp::Reverse(entry.file_name().to_str().and_then(Release::parse).unwrap_or(Release::OLDEST))
        });
        found.extend(versions.iter().map(|entry| entry.path().join("bin").join(program)));
    }
    found.retain(|file| file.is_file() && seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())));
    found
}

/// Loads the plugin into this QEMU, with a machine that has nothing, and asks it what it found.
///
/// # Errors
/// QEMU does not start, or the plugin refuses it; their words.
pub fn try_plugin(program: &Path, plugin: &Path) -> Result<Status, Error> {
    let folder = Folder::small().map_err(Error::io(std::env::temp_dir()))?;
    let socket = folder.path().join("control.sock");
    let option = |path: &Path| doubled(&path.display().to_string());
    let mut command = Command::new(program);
    command.args(["-M", "none", "-S", "-nodefaults", "-display", "none", "-accel", "tcg", "-plugin"]);
    command.arg(format!("{},control={}", option(plugin), option(&socket)));
    let summary = folder.path().join("summary.json");
    let running = Running::start(command, folder, summary, None, None)?;
    let mut control = Control::over(running.connect(&socket, Duration::from_secs(30))?)?;
    control.greet()?;
    control.status()
}

/// Where `cargo xtask setup` puts things.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = folder("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    base.or_else(|| folder("HOME").map(|home| home.join(".cache"))).map(|base| base.join("qkprobe"))
}

fn path_folders() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter().filter(|folder| folder.is_absolute())
}

fn package(arch: &GuestArch) -> &'static str {
    match arch.target {
        "x86_64" | "i386" => "qemu-system-x86",
        "sparc64" => "qemu-system-sparc",
        _ => "qemu-system-ppc",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        let release = |major, minor, micro| Some(Release { major, minor, micro });
        assert_eq!(Release::parse("11.1.3"), release(11, 1, 3));
        assert_eq!(Release::parse("10.0"), release(10, 0, 0));
        assert_eq!(Release::parse("9"), release(9, 0, 0));
        for bad in ["", "x", "11.", "1.2.3.4", "11.x"] {
            assert_eq!(Release::parse(bad), None, "{bad}");
        }
        assert!(Release::parse("9.1.9") < Some(Release::OLDEST) && Release::parse("10") > Some(Release::OLDEST));
    }
}
