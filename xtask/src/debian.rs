//! Debian packages without installing anything: a private apt that shares with the machine only its mirror, its proxy
//! settings and the archive's keys.
//!
//! In order: find the mirror in the machine's own configuration, write a configuration whose every folder is ours and
//! whose list of installed packages is empty (so that apt resolves a package down to libc), `update` once for all
//! suites, then per thing that is wanted: choose suites by pins, download, unpack the parts that matter. It works for
//! root and for anybody else.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fs, thread};

use crate::process::{is_installed, output};
use crate::progress::Progress;

/// Every suite that some recipe takes a package from.
const SUITES: [&str; 4] = ["bookworm", "bookworm-backports", "trixie", "trixie-backports"];
/// Other machines' kernels come from here, and nothing else does.
const FOREIGN: (&str, [&str; 2]) = ("bookworm", ["i386", "ppc64el"]);
/// Debian's own keys; apt refuses an index that none of them signed.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// A mirror in the middle of an update serves indexes that do not fit together, for seconds to minutes.
const UPDATE_ATTEMPTS: u32 = 3;
const UPDATE_PAUSE: Duration = Duration::from_secs(10);

/// A private apt, updated.
#[derive(Debug)]
pub(crate) struct Apt {
    root: PathBuf,
}

/// Which suites a request may take packages from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    /// The preferred suite, then those that may fill in dependencies.
    pub(crate) suites: &'static [&'static str],
    /// Packages that come from another suite.
    pub(crate) exceptions: &'static [(&'static str, &'static str)],
}

/// Says what keeps this machine from using Debian packages.
///
/// # Errors
/// A text for the user.
pub(crate) fn check_host() -> Result<(), String> {
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |key: &str| os.lines().find_map(|line| Some(line.strip_prefix(key)?.trim_matches('"').to_owned()));
    if field("ID=").as_deref() != Some("debian") {
        let name = field("PRETTY_NAME=").unwrap_or_else(|| "this system".to_owned());
        return Err(format!(
            "QEMU and the guest kernels are taken from Debian packages, with Debian's apt, and this is {name}. \
             Run in a Debian 12 or 13 container; `cargo xtask test --unit` works anywhere."
        ));
    }
    if std::env::consts::ARCH != "x86_64" {
        return Err("the set-up knows x86_64 machines only; `cargo xtask test --unit` works anywhere".to_owned());
    }
    let missing: Vec<&str> =
        ["apt-get", "apt-cache", "dpkg-deb", "tar"].into_iter().filter(|name| !is_installed(name)).collect();
    if !missing.is_empty() {
        return Err(format!("{} missing: install the packages apt, dpkg and tar", missing.join(", ")));
    }
    if !Path::new(KEYRING).exists() {
        return Err(format!("{KEYRING} is missing: install the package debian-archive-keyring"));
    }
    Ok(())
}

impl Apt {
    /// Writes the private configuration below `root` and fetches the indexes of these suites, and of other machines' packages if
    /// they are wanted.
    ///
    /// # Errors
    /// No mirror is configured on this machine, or none of them answers.
    pub(crate) fn open(root: &Path, suites: &[&str], foreign: bool, progress: &Progress) -> Result<Self, String> {
        let apt = Self { root: root.to_owned() };
        let io = |error: std::io::Error| format!("{}: {error}", root.display());
        for folder in ["sources", "preferences", "state/lists/partial", "cache/archives/partial", "log"] {
            fs::create_dir_all(root.join(folder)).map_err(io)?;
        }
        fs::write(root.join("status"), "").map_err(io)?;
        fs::write(root.join("apt.conf"), apt.configuration()).map_err(io)?;
        let mut failure = "no Debian mirror in this machine's apt sources (/etc/apt/sources.list.d)".to_owned();
        for mirror in mirrors()? {
            fs::write(root.join("sources/debian.sources"), sources(&mirror, suites, foreign)).map_err(io)?;
            match apt.update(progress) {
                Ok(()) => return Ok(apt),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Downloads packages with everything they depend on into `folder`, and returns the files.
    ///
    /// # Errors
    /// apt's own words.
    pub(crate) fn download_with_dependencies(
        &self,
        choice: Choice,
        packages: &[&str],
        folder: &Path,
        (progress, item): (&Progress, &str),
    ) -> Result<Vec<PathBuf>, String> {
        fs::create_dir_all(folder.join("partial")).map_err(|error| format!("{}: {error}", folder.display()))?;
        let install = |extra: &[&str]| {
            let mut command = self.command("apt-get", choice, folder)?;
            command.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(extra).args(packages);
            output(&mut command)
        };
        // Lines like 'URI' NAME.deb SIZE SHA256:...
        let plan = install(&["--print-uris"])?;
        let sizes: Vec<u64> = plan
            .lines()
            .filter(|line| line.starts_with('\''))
            .filter_map(|line| line.split(' ').nth(2)?.parse().ok())
            .collect();
        progress.download(item, &format!("fetching {} packages", sizes.len()), folder, sizes.iter().sum());
        install(&["--download-only"])?;
        debs_in(folder)
    }

    /// Downloads one package, of exactly one version, without what it depends on.
    ///
    /// # Errors
    /// apt's own words.
    pub(crate) fn download(
        &self,
        choice: Choice,
        package: &str,
        folder: &Path,
        (progress, item): (&Progress, &str),
    ) -> Result<PathBuf, String> {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let name = package.split('=').next().unwrap_or(package);
        let size = self.field(choice, name, "Size")?.parse().unwrap_or(0);
        progress.download(item, &format!("fetching {name}"), folder, size);
        let mut command = self.command("apt-get", choice, folder)?;
        output(command.current_dir(folder).args(["download", "--quiet", package]))?;
        debs_in(folder)?.pop().ok_or_else(|| format!("apt downloaded nothing for {package}"))
    }

    /// One field of the record of the version of a package that `choice` leads to.
    ///
    /// # Errors
    /// The package is not in those suites, or its record has no such field.
    pub(crate) fn field(&self, choice: Choice, package: &str, field: &str) -> Result<String, String> {
        let mut command = self.command("apt-cache", choice, Path::new("/dev/null"))?;
        let record = output(command.args(["show", "--no-all-versions", package]))?;
        let value = record.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
        value.map(str::to_owned).ok_or_else(|| format!("package {package} has no field {field}"))
    }

    fn update(&self, progress: &Progress) -> Result<(), String> {
        let everything = Choice { suites: &SUITES, exceptions: &[] };
        let mut attempt = 1;
        loop {
            progress.step("apt", "fetching the package indexes");
            // Without this option a failed download of an index is only a warning.
            let mut command = self.command("apt-get", everything, &self.root.join("cache/archives"))?;
            match output(command.args(["update", "--quiet", "--error-on=any"])) {
                Ok(_) => {
                    progress.done("apt", "package indexes are here");
                    return Ok(());
                }
                Err(error) if attempt == UPDATE_ATTEMPTS => {
                    progress.done("apt", "no package indexes");
                    return Err(format!(
                        "the Debian mirror does not answer as it should, {attempt} times over: {error}"
                    ));
                }
                Err(_) => progress.step("apt", "the mirror's indexes do not fit together, trying again in a moment"),
            }
            thread::sleep(UPDATE_PAUSE * attempt);
            attempt += 1;
        }
    }

    /// A command of apt's that sees our world only. Two may run at once if their `archives` differ.
    fn command(&self, program: &str, choice: Choice, archives: &Path) -> Result<Command, String> {
        let preferences = choice.preferences();
        let name = crate::hash::hex(preferences.as_bytes());
        let path = self.root.join("preferences").join(&name);
        if !path.exists() {
            fs::write(&path, preferences).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let mut command = Command::new(program);
        command.arg("-c").arg(self.root.join("apt.conf"));
        command.arg("-o").arg(format!("Dir::Etc::Preferences={}", path.display()));
        command.arg("-o").arg(format!("Dir::Cache::Archives={}", archives.display()));
        // apt's digest of the indexes, with the pins in it: saves two seconds a command.
        command.arg("-o").arg(format!("Dir::Cache::pkgcache={name}.bin"));
        // Messages are parsed and shown: one language.
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        Ok(command)
    }

    fn configuration(&self) -> String {
        let root = self.root.display();
        format!(
            r#"// The hooks of the machine's own apt would act on the machine's own packages.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
#clear APT::Architectures;
// Other programs' indexes (apt-file, appstream) are large; this leaves the lists of packages.
#clear Acquire::IndexTargets::deb;
Acquire::IndexTargets::deb::Packages {{
  MetaKey "$(COMPONENT)/binary-$(ARCHITECTURE)/Packages";
  ShortDescription "Packages";
  Description "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Packages";
}};
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; "i386"; "ppc64el"; }};
APT::Default-Release "";
// Our folders are below a home folder, which the user _apt cannot enter.
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
Debug::NoLocking "true";
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "{root}/sources";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{root}/state";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
Dir::Cache::srcpkgcache "";
Dir::Log "{root}/log";
"#
        )
    }
}

impl Choice {
    /// apt_preferences(5). A negative priority hides a suite, below 1000 never mind: nothing is installed that could
    /// be downgraded.
    fn preferences(self) -> String {
        let mut text = String::new();
        let mut pin = |packages: &str, suite: &str, priority: i32| {
            text += &format!("Package: {packages}\nPin: release n={suite}\nPin-Priority: {priority}\n\n");
        };
        for (packages, suite) in self.exceptions {
            pin(packages, suite, 999);
        }
        for suite in SUITES {
            let rank = self.suites.iter().position(|wanted| *wanted == suite);
            pin("*", suite, rank.map_or(-1, |rank| 990 - 10 * i32::try_from(rank).unwrap_or(0)));
        }
        text
    }
}

/// What of a package is unpacked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// Everything but documentation and the like.
    Useful,
    /// The files that match these patterns.
    Only(&'static [&'static str]),
}

/// Unpacks a package below `root`, as the user who runs this, in Debian's merged layout (`/lib` is `/usr/lib`).
///
/// # Errors
/// What dpkg-deb or tar said.
pub(crate) fn unpack(deb: &Path, root: &Path, part: Part) -> Result<(), String> {
    const USELESS: [&str; 10] = [
        "./usr/share/doc",
        "./usr/share/man",
        "./usr/share/locale",
        "./usr/share/perl5",
        "./usr/share/icons",
        "./usr/share/applications",
        "./usr/share/bash-completion",
        "./etc",
        "./var",
        "./usr/sbin",
    ];
    for folder in ["bin", "lib", "lib64"] {
        fs::create_dir_all(root.join("usr").join(folder)).map_err(|error| format!("{}: {error}", root.display()))?;
        let _ = std::os::unix::fs::symlink(Path::new("usr").join(folder), root.join(folder));
    }
    let mut data = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run dpkg-deb: {error}"))?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--no-same-owner", "--keep-directory-symlink", "--wildcards", "--directory"]).arg(root);
    match part {
        Part::Useful => tar.args(USELESS.map(|path| format!("--exclude={path}"))),
        Part::Only(patterns) => tar.args(patterns),
    };
    tar.stdin(data.stdout.take().expect("stdout is a pipe"));
    let unpacked = tar.output().map_err(|error| format!("cannot run tar: {error}"))?;
    let read = data.wait().map_err(|error| format!("dpkg-deb: {error}"))?;
    if unpacked.status.success() && read.success() {
        return Ok(());
    }
    Err(format!("cannot unpack {}: {}", deb.display(), String::from_utf8_lossy(&unpacked.stderr).trim()))
}

/// The mirrors in the machine's own apt sources that carry the release it runs.
fn mirrors() -> Result<Vec<String>, String> {
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = os.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or("stable");
    // Not `indextargets`: that knows nothing before the machine's own first `update`.
    let plan = output(Command::new("apt-get").args(["update", "--print-uris"]).env("LC_ALL", "C"))?;
    Ok(mirrors_in(&plan, codename))
}

/// The mirrors in lines like `'URI/dists/SUITE/COMPONENT/binary-amd64/Packages.xz' NAME 0`.
fn mirrors_in(plan: &str, codename: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in plan.lines() {
        let Some((uri, index)) = line.strip_prefix('\'').and_then(|line| line.split_once("/dists/")) else { continue };
        let suites = [codename, "stable", "oldstable"];
        let wanted = suites.iter().any(|suite| index.starts_with(&format!("{suite}/main/binary-")));
        if wanted && !uri.starts_with("cdrom:") && !found.iter().any(|known| known == uri) {
            found.push(uri.to_owned());
        }
    }
    // Other vendors use Debian's code names for their suites too.
    found.sort_by_key(|uri| !uri.ends_with("/debian"));
    found
}

fn sources(mirror: &str, suites: &[&str], foreign: bool) -> String {
    let others = foreign.then(|| (FOREIGN.0.to_owned(), FOREIGN.1.join(" ")));
    let sources = [(suites.join(" "), "amd64".to_owned())].into_iter().chain(others).map(|(suites, architectures)| {
        format!(
            "Types: deb\nURIs: {mirror}\nSuites: {suites}\nComponents: main\nArchitectures: {architectures}\n\
             Signed-By: {KEYRING}\n"
        )
    });
    sources.collect::<Vec<_>>().join("\n")
}

fn debs_in(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut debs: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "deb"))
        .collect();
    debs.sort();
    Ok(debs)
}

#[cfg(test)]
mod tests {
    use super::{mirrors_in, sources};

    #[test]
    fn only_the_suites_that_are_wanted() {
        let text = sources("http://mirror.example/debian", &["bookworm", "trixie"], false);
        assert!(text.contains("Suites: bookworm trixie\n") && text.contains("Architectures: amd64\n"), "{text}");
        assert!(!text.contains("backports") && !text.contains("ppc64el"), "{text}");
        let text = sources("http://mirror.example/debian", &["trixie"], true);
        assert!(text.contains("Suites: bookworm\nComponents: main\nArchitectures: i386 ppc64el\n"), "{text}");
    }

    #[test]
    fn mirrors_of_this_release() {
        let plan = "\
'https://vendor.example/tools/dists/bookworm/main/binary-amd64/Packages.xz' vendor 0
'http://mirror.example/debian/dists/bookworm/InRelease' mirror 0
'http://mirror.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' mirror 0
'http://mirror.example/debian/dists/bookworm-updates/main/binary-amd64/Packages.xz' mirror 0
'http://mirror.example/debian-security/dists/bookworm-security/main/binary-all/Packages.xz' mirror 0
'https://vendor.example/docker/dists/bookworm/stable/binary-amd64/Packages.bz2' vendor 0
";
        assert_eq!(mirrors_in(plan, "bookworm"), ["http://mirror.example/debian", "https://vendor.example/tools"]);
        assert!(mirrors_in(plan, "trixie").is_empty());
    }
}
