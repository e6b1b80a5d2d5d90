//! Where `cargo xtask setup` puts what a boot needs, and the names of those things.
//!
//! The layout, below `$XDG_CACHE_HOME/qkprobe` (default `~/.cache/qkprobe`):
//!
//! | path | what |
//! | --- | --- |
//! | `manifest.json` | what is complete, with the sha256 of each file |
//! | `qemu/VERSION/bin/qemu-system-TARGET` | a QEMU that brings its own libraries; run it like any QEMU |
//! | `guests/NAME/vmlinuz` or `vmlinux`, `guests/NAME/version` | a kernel image and the text of its version |
//! | `guests/ARCH-bare/bare.elf` | a guest without a kernel |
//! | `cross/ARCH/bin/TRIPLET-gcc`, ... | the compiler for a guest that the host's gcc does not build for |
//! | `cross/tools/bin` | what building a kernel takes besides |
//! | `kunit/tools/testing/kunit/kunit.py` | the kernel's own reader of KTAP, for the host's python3 |
//! | `init/ARCH/init`, `init/ARCH/initramfs.cpio` | the init program and the initramfs around it |
//!
//! `xtask` writes this tree, tests and benchmarks only read it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::kernels::{GuestArch, GuestKernel};

/// A version of QEMU that the set-up fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Qemu {
    /// 7.2, plugin API version 1: older than what the plugin supports, here to test the refusal.
    V7_2,
    /// 10.0, plugin API versions 2 to 4.
    V10_0,
    /// 11.1, plugin API version 7.
    V11_1,
}

impl Qemu {
    /// Every version that the plugin has to work on, oldest first.
    pub const SUPPORTED: [Self; 2] = [Self::V10_0, Self::V11_1];

    /// The supported versions that this run is about: all, or the one that the environment variable `QKPROBE_QEMU`
    /// names.
    ///
    /// # Panics
    /// The variable names a version that is not there.
    #[must_use]
    pub fn selected() -> Vec<Self> {
        match std::env::var("QKPROBE_QEMU") {
            Ok(text) if !text.is_empty() => {
                vec![
                    Self::from_version(&text).unwrap_or_else(|| panic!("QKPROBE_QEMU={text} is no QEMU of the set-up")),
                ]
            }
            _ => Self::SUPPORTED.to_vec(),
        }
    }

    /// `major.minor`, which is also the folder's name in the cache.
    #[must_use]
    pub const fn version(self) -> &'static str {
        match self {
            Self::V7_2 => "7.2",
            Self::V10_0 => "10.0",
            Self::V11_1 => "11.1",
        }
    }

    /// The version that `text` (`10.0`, `11.1`, ...) names.
    #[must_use]
    pub fn from_version(text: &str) -> Option<Self> {
        [Self::V7_2, Self::V10_0, Self::V11_1].into_iter().find(|qemu| qemu.version() == text)
    }
}

impl fmt::Display for Qemu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QEMU {}", self.version())
    }
}

/// What is missing, in words that say what to run.
#[derive(Debug)]
pub enum CacheError {
    /// Neither `XDG_CACHE_HOME` nor `HOME` says where the cache is.
    NoHome,
    /// The file should be there and is not.
    Missing(PathBuf),
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHome => f.write_str("neither XDG_CACHE_HOME nor HOME is set: where should the cache be?"),
            Self::Missing(path) => write!(f, "{} is missing: run `cargo xtask setup`", path.display()),
        }
    }
}

impl std::error::Error for CacheError {}

/// The tree that `cargo xtask setup` fills.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The folder of the kernel's reader of KTAP.
    pub const KUNIT: &str = "kunit";

    /// The cache's place on this machine, whether or not anything is there.
    ///
    /// # Errors
    /// [`CacheError::NoHome`].
    pub fn locate() -> Result<Self, CacheError> {
        qkprobe_harness::qemu::cache_folder().map(|root| Self { root }).ok_or(CacheError::NoHome)
    }

    /// The cache, after a set-up has been made.
    ///
    /// # Errors
    /// [`CacheError::Missing`] when there was no set-up yet.
    pub fn open() -> Result<Self, CacheError> {
        let cache = Self::locate()?;
        existing(cache.manifest())?;
        Ok(cache)
    }

    /// The top folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The list of what is complete.
    #[must_use]
    pub fn manifest(&self) -> PathBuf {
        self.root.join("manifest.json")
    }

    /// The program `name` (`qemu-system-x86_64`, ...) of a QEMU.
    ///
    /// # Errors
    /// [`CacheError::Missing`].
    pub fn qemu(&self, qemu: Qemu, name: impl AsRef<Path>) -> Result<PathBuf, CacheError> {
        existing(self.root.join("qemu").join(qemu.version()).join("bin").join(name))
    }

    /// A kernel image, as the boot loader gets it.
    ///
    /// # Errors
    /// [`CacheError::Missing`].
    pub fn kernel(&self, kernel: GuestKernel) -> Result<PathBuf, CacheError> {
        existing(self.root.join("guests").join(kernel.name()).join(kernel.file()))
    }

    /// The version of a kernel: its package's, like `6.1.176-1`, or of the sources it was built from, like `6.1.176`.
    ///
    /// # Errors
    /// [`CacheError::Missing`].
    pub fn kernel_version(&self, kernel: GuestKernel) -> Result<String, CacheError> {
        let path = self.root.join("guests").join(kernel.name()).join("version");
        let text = std::fs::read_to_string(&path).map_err(|_| CacheError::Missing(path))?;
        Ok(text.trim().to_owned())
    }

    /// The kernel's own reader of KTAP, for python3.
    ///
    /// # Errors
    /// [`CacheError::Missing`].
    pub fn kunit(&self) -> Result<PathBuf, CacheError> {
        existing(self.root.join(Self::KUNIT).join("tools/testing/kunit/kunit.py"))
    }

    /// The initramfs that holds the init program, without a script.
    ///
    /// # Errors
    /// [`CacheError::Missing`].
    pub fn initramfs(&self, arch: GuestArch) -> Result<PathBuf, CacheError> {
        existing(self.root.join("init").join(arch.name()).join("initramfs.cpio"))
    }
}

fn existing(path: PathBuf) -> Result<PathBuf, CacheError> {
    if path.exists() { Ok(path) } else { Err(CacheError::Missing(path)) }
}
