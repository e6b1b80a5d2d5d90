//! Kernels: Debian's own images, taken out of their packages, and those that are built here from Debian's sources
//! because no package has them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use qkprobe_tests::{GuestArch, GuestKernel};

use crate::cross;
use crate::debian::{Apt, Choice, Part, unpack};
use crate::process::{output, tail};
use crate::progress::Progress;
use crate::recipes::Tools;

/// The package of the sources.
const SOURCE: &str = "linux-source-6.1";
/// Where they have the kernel's tool for its own unit tests.
const KUNIT: &str = "tools/testing/kunit";
const SOURCE_SUITE: Choice = Choice { suites: &["bookworm"], exceptions: &[] };

/// Nothing below these is built; their Kconfig files are read all the same.
const UNUSED: [&str; 8] = [
    "*/drivers/gpu/*.[ch]",
    "*/drivers/media/*.[ch]",
    "*/drivers/net/*.[ch]",
    "*/drivers/staging/*.[ch]",
    "*/sound/*.[ch]",
    "*/Documentation/*.[ryt]*",
    // But for kunit.
    "*/tools/testing/[!k]*",
    "*/tools/perf/*",
];

/// The part of the configuration that all kernels share.
pub(crate) const COMMON_CONFIG: &str = include_str!("../../guest-images/configs/common.config");

/// What an architecture adds.
pub(crate) fn config(arch: GuestArch) -> &'static str {
    match arch {
        GuestArch::Ppc64 => include_str!("../../guest-images/configs/ppc64.config"),
        GuestArch::Ppc32 => include_str!("../../guest-images/configs/ppc32.config"),
        GuestArch::Sparc64 => include_str!("../../guest-images/configs/sparc64.config"),
        GuestArch::X86_64 | GuestArch::I386 | GuestArch::Ppc64le => "",
    }
}

/// Linux's word for an architecture.
fn linux_arch(arch: GuestArch) -> &'static str {
    match arch {
        GuestArch::X86_64 | GuestArch::I386 => "x86",
        GuestArch::Ppc64le | GuestArch::Ppc64 | GuestArch::Ppc32 => "powerpc",
        GuestArch::Sparc64 => "sparc64",
    }
}

/// Debian's word for an architecture of which it has kernels.
fn debian_arch(arch: GuestArch) -> &'static str {
    match arch {
        GuestArch::I386 => "i386",
        GuestArch::Ppc64le => "ppc64el",
        _ => "amd64",
    }
}

/// Takes the newest image that `meta` depends on out of its package.
///
/// # Errors
/// A text for the user.
pub(crate) fn take(
    item: &str,
    arch: GuestArch,
    folder: &Path,
    tools: Tools<'_>,
    choice: Choice,
    meta: &str,
) -> Result<String, String> {
    let apt = tools.apt.ok_or("no package indexes")?;
    let file = GuestKernel::of(arch).file();
    let of_arch = |package: &str| format!("{package}:{}", debian_arch(arch));
    let depends = apt.field(choice, &of_arch(meta), "Depends")?;
    let image = image_of(&depends).ok_or_else(|| format!("{meta} depends on no kernel image: {depends}"))?;
    // Since 7.0 the image itself is in a package of its own.
    let binary = image.replacen("linux-image-", "linux-binary-", 1);
    let image = if apt.field(choice, &of_arch(&image), "Depends")?.contains(&binary) { binary } else { image };
    let image = of_arch(&image);
    let version = apt.field(choice, &image, "Version")?;
    let package = format!("{image}={version}");
    let deb = apt.download(choice, &package, tools.scratch, (tools.progress, item))?;
    tools.progress.step(item, "unpacking");
    let unpacked = tools.scratch.join("root");
    // In /boot, or since 7.0 in /usr/lib/modules/VERSION.
    unpack(&deb, &unpacked, Part::Only(&["*/vmlinu[xz]*"]))?;
    let found = find_file(&unpacked, file).ok_or_else(|| format!("{package} holds no {file}"))?;
    let io = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::copy(found, folder.join(file)).map_err(io)?;
    fs::write(folder.join("version"), format!("{version}\n")).map_err(io)?;
    Ok(version)
}

/// The sources, unpacked once for all kernels that a set-up builds.
#[derive(Debug)]
pub(crate) struct Sources {
    folder: PathBuf,
    /// Held by the one who unpacks; then the outcome, with the version.
    unpacked: Mutex<Option<Result<String, String>>>,
    /// One build at a time: each takes all CPUs.
    build: Mutex<()>,
}

impl Sources {
    /// Nothing is done before somebody asks for them. `folder` is removed by the caller.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, unpacked: Mutex::new(None), build: Mutex::new(()) }
    }

    /// The version of the sources, which are in `self.folder.join("linux")` from then on.
    fn version(&self, apt: &Apt, progress: &Progress) -> Result<String, String> {
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        unpacked.get_or_insert_with(|| self.unpack(apt, progress)).clone()
    }

    fn unpack(&self, apt: &Apt, progress: &Progress) -> Result<String, String> {
        let version = apt.field(SOURCE_SUITE, SOURCE, "Version")?;
        let package = format!("{SOURCE}={version}");
        let deb = apt.download(SOURCE_SUITE, &package, &self.folder, (progress, SOURCE))?;
        progress.step(SOURCE, "unpacking");
        unpack(&deb, &self.folder, Part::Only(&["./usr/src/*.tar.xz"]))?;
        let linux = self.folder.join("linux");
        fs::create_dir_all(&linux).map_err(|error| format!("{}: {error}", linux.display()))?;
        let mut tar = Command::new("tar");
        tar.env("PATH", cross::path_with_tools()?);
        tar.args(["--extract", "--xz", "--strip-components=1", "--no-same-owner", "--directory"]).arg(&linux);
        // Patterns of tar match slashes too.
        tar.args(UNUSED.map(|pattern| format!("--exclude={pattern}")));
        output(tar.arg("--file").arg(self.folder.join(format!("usr/src/{SOURCE}.tar.xz"))))?;
        fs::remove_dir_all(self.folder.join("usr")).map_err(|error| error.to_string())?;
        progress.done(SOURCE, &format!("{version} is unpacked"));
        // What the kernel says of itself has no package revision.
        Ok(version.split('-').next().unwrap_or(&version).to_owned())
    }
}

/// Copies a folder's files that end so, and those of the folders in it.
fn copy(from: &Path, to: &Path, extensions: &[&str]) -> Result<(), String> {
    let io = |error: std::io::Error| format!("{}: {error}", from.display());
    fs::create_dir_all(to).map_err(io)?;
    for entry in fs::read_dir(from).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let to = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy(&path, &to, extensions)?;
        } else if path.extension().is_some_and(|it| extensions.iter().any(|extension| it == *extension)) {
            fs::copy(&path, to).map_err(io)?;
        }
    }
    Ok(())
}

/// Takes the kernel's own reader of KTAP (`kunit.py parse`), and the logs that it is tested with, out of the sources.
///
/// # Errors
/// A text for the user.
pub(crate) fn take_kunit(folder: &Path, tools: Tools<'_>) -> Result<String, String> {
    let apt = tools.apt.ok_or("no package indexes")?;
    let version = tools.sources.version(apt, tools.progress)?;
    // It finds the top of the kernel's tree by the folders that it lies in.
    copy(&tools.sources.folder.join("linux").join(KUNIT), &folder.join(KUNIT), &["py", "log"])?;
    Ok(version)
}

/// Builds a kernel from the committed configuration.
///
/// # Errors
/// A text for the user, with the end of what the compiler said.
pub(crate) fn build(item: &str, arch: GuestArch, folder: &Path, tools: Tools<'_>) -> Result<String, String> {
    let apt = tools.apt.ok_or("no package indexes")?;
    let _one_at_a_time = tools.sources.build.lock().unwrap_or_else(PoisonError::into_inner);
    let version = tools.sources.version(apt, tools.progress)?;
    let io = |error: std::io::Error| format!("{}: {error}", folder.display());
    let out = tools.scratch.join("out");
    let wanted = format!("{COMMON_CONFIG}\n{}", config(arch));
    let (fragment, log) = (tools.scratch.join("fragment.config"), tools.scratch.join("build.log"));
    fs::create_dir_all(&out).and_then(|()| fs::write(&fragment, &wanted)).map_err(io)?;
    let make = |target: &str| -> Result<(), String> {
        let mut command = Command::new("make");
        command.env("PATH", cross::path_with_tools()?).env("LC_ALL", "C").env("KCONFIG_ALLCONFIG", &fragment);
        // The same sources and the same compiler give the same image.
        command.env("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970");
        command.env("KBUILD_BUILD_USER", "qkprobe").env("KBUILD_BUILD_HOST", "qkprobe");
        // Of the make that may have started us.
        command.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        command.arg("-C").arg(tools.sources.folder.join("linux")).arg(format!("-j{jobs}"));
        command.arg(format!("O={}", out.display())).arg(format!("ARCH={}", linux_arch(arch)));
        command.arg(format!("CROSS_COMPILE={}", cross::prefix(arch)?)).arg(target);
        let file = File::create(&log).map_err(io)?;
        let both = file.try_clone().map_err(io)?;
        let status = command.stdin(Stdio::null()).stdout(file).stderr(both).status();
        let status = status.map_err(|error| format!("cannot run `make`: {error}"))?;
        if status.success() {
            return Ok(());
        }
        let said = fs::read_to_string(&log).unwrap_or_default();
        Err(format!(
            "the kernel does not build (`make {target}`, {status}): `cargo xtask setup --arch {}` tries again. \
             The end of what make said:\n{}",
            arch.name(),
            tail(&said)
        ))
    };
    tools.progress.step(item, "configuring");
    make("allnoconfig")?;
    let config = fs::read_to_string(out.join(".config")).map_err(io)?;
    let missing = missing(&wanted, &config);
    if !missing.is_empty() {
        return Err(format!(
            "guest-images/configs asks for what Linux {version} does not take: {}",
            missing.join(", ")
        ));
    }
    tools.progress.build(item, &format!("building Linux {version}"), &log);
    make("vmlinux")?;
    fs::copy(out.join("vmlinux"), folder.join("vmlinux")).map_err(io)?;
    fs::write(folder.join("config"), config).map_err(io)?;
    fs::write(folder.join("version"), format!("{version}\n")).map_err(io)?;
    // Some hundred MB; the scratch folder itself is removed later.
    fs::remove_dir_all(&out).map_err(io)?;
    Ok(version)
}

/// The lines of a fragment that Kconfig dropped: unknown, or something that they depend on is off.
fn missing<'a>(fragment: &'a str, config: &str) -> Vec<&'a str> {
    let set = |line: &&str| line.starts_with("CONFIG_");
    fragment.lines().filter(set).filter(|line| !config.lines().any(|have| have == *line)).collect()
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
    use super::{image_of, missing};

    #[test]
    fn image_among_dependencies() {
        let with_helpers = "linux-base-cloud-amd64 (= 7.3.4-1), linux-image-7.3.4+deb13-cloud-amd64 (= 7.3.4-1)";
        assert_eq!(image_of(with_helpers).as_deref(), Some("linux-image-7.3.4+deb13-cloud-amd64"));
        assert_eq!(image_of("linux-image-6.1.0-50-amd64 (= 6.1.176-1)").as_deref(), Some("linux-image-6.1.0-50-amd64"));
        assert_eq!(image_of("linux-image-cloud-amd64"), None);
    }

    #[test]
    fn dropped_lines_of_a_fragment() {
        let fragment = "# why\nCONFIG_A=y\nCONFIG_B=4\n# CONFIG_C is not set\nCONFIG_D=\"\"\n";
        assert_eq!(missing(fragment, "CONFIG_A=y\nCONFIG_B=4\nCONFIG_D=\"\"\n"), Vec::<&str>::new());
        assert_eq!(
            missing(fragment, "# CONFIG_A is not set\nCONFIG_B=44\nCONFIG_D=\"\"\n"),
            ["CONFIG_A=y", "CONFIG_B=4"]
        );
    }
}
