//! The guests of the cache: architectures, of which the harness knows the machines, and the kernels of each.

/// A guest architecture, by the word that names its folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestArch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86.
    I386,
    /// 64-bit PowerPC, little endian (ELFv2).
    Ppc64le,
    /// 64-bit PowerPC, big endian (ELFv1).
    Ppc64,
    /// 32-bit PowerPC.
    Ppc32,
    /// 64-bit SPARC.
    Sparc64,
}

impl GuestArch {
    /// All of them, the one with the most kernels first.
    pub const ALL: [Self; 6] = [Self::X86_64, Self::I386, Self::Ppc64le, Self::Ppc64, Self::Ppc32, Self::Sparc64];

    /// The name of folders.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::I386 => "i386",
            Self::Ppc64le => "ppc64le",
            Self::Ppc64 => "ppc64",
            Self::Ppc32 => "ppc32",
            Self::Sparc64 => "sparc64",
        }
    }

    /// The architecture that `text` names.
    #[must_use]
    pub fn from_name(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|arch| arch.name() == text)
    }

    /// What the harness knows of it.
    ///
    /// # Panics
    /// Never: every architecture of the set-up is one of the harness's.
    #[must_use]
    pub fn row(self) -> &'static qkprobe_harness::arch::GuestArch {
        let name = match self {
            // `uname`'s word.
            Self::Ppc32 => "ppc",
            other => other.name(),
        };
        qkprobe_harness::arch::GuestArch::by_name(name).expect("a row")
    }

    /// The program that emulates it.
    #[must_use]
    pub fn qemu_program(self) -> String {
        self.row().program()
    }

    /// The most vCPUs that its machine has.
    #[must_use]
    pub fn max_cpus(self) -> u32 {
        self.row().max_cpus
    }

    /// The device that `console=` names for the first serial port.
    #[must_use]
    pub fn console(self) -> &'static str {
        self.row().console
    }

    /// Whether the guest asks for what it wants to read at its second port, so that nothing is sent before: the serial
    /// ports of QEMU's Power Macintosh get stuck when something comes while the guest opens or closes them.
    pub(crate) const fn asks_at_gates(self) -> bool {
        matches!(self, Self::Ppc32)
    }
}

/// A kernel that the set-up fetches or builds, or a guest without one that it builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestKernel {
    /// Debian 12's 6.1 for cloud machines: the smallest and quickest to boot (LZ4 bzImage, kallsyms and BTF inside).
    X86_64Cloud6_1,
    /// Debian 12's general 6.1 (XZ bzImage).
    X86_64Generic6_1,
    /// Debian 13's 6.12 for cloud machines.
    X86_64Cloud6_12,
    /// The newest 7.x for cloud machines in Debian 13's backports. Its exact version moves.
    X86_64Cloud7,
    /// Debian 12's 6.1 for 32-bit machines with PAE (bzImage, kallsyms inside, no BTF).
    I386Pae6_1,
    /// Debian 12's 6.1 (ELF with a symbol table, 64K pages).
    Ppc64le6_1,
    /// Built from Debian 12's sources of 6.1: pseries, 4K pages (ELF with a symbol table, function descriptors).
    Ppc64Pseries6_1,
    /// The same sources: a Power Macintosh (ELF with a symbol table).
    Ppc32Pmac6_1,
    /// The same sources: sun4u (ELF with a symbol table).
    Sparc64Sun4u6_1,
    /// No Linux: `guest-images/bare`, which runs single instructions and prints what they did. It knows no command line
    /// and no script, and powers off by itself.
    X86_64Bare,
    /// The same for i386: `guest-images/bare/i386`.
    I386Bare,
    /// The same for ppc64: `guest-images/bare/powerpc`.
    Ppc64Bare,
    /// The same sources in little endian.
    Ppc64leBare,
    /// The same with 32 bits, from some of the same sources.
    Ppc32Bare,
    /// The same for sparc64: `guest-images/bare/sparc64`.
    Sparc64Bare,
}

impl GuestKernel {
    /// Every Linux kernel there is: by architecture, the quickest to boot first.
    pub const ALL: [Self; 9] = [
        Self::X86_64Cloud6_1,
        Self::X86_64Generic6_1,
        Self::X86_64Cloud6_12,
        Self::X86_64Cloud7,
        Self::I386Pae6_1,
        Self::Ppc64le6_1,
        Self::Ppc64Pseries6_1,
        Self::Ppc32Pmac6_1,
        Self::Sparc64Sun4u6_1,
    ];

    /// Every guest without a kernel.
    pub const BARE: [Self; 6] =
        [Self::X86_64Bare, Self::I386Bare, Self::Ppc64Bare, Self::Ppc64leBare, Self::Ppc32Bare, Self::Sparc64Bare];

    /// The Linux kernel of `arch` that is the quickest to boot.
    #[must_use]
    pub const fn of(arch: GuestArch) -> Self {
        match arch {
            GuestArch::X86_64 => Self::X86_64Cloud6_1,
            GuestArch::I386 => Self::I386Pae6_1,
            GuestArch::Ppc64le => Self::Ppc64le6_1,
            GuestArch::Ppc64 => Self::Ppc64Pseries6_1,
            GuestArch::Ppc32 => Self::Ppc32Pmac6_1,
            GuestArch::Sparc64 => Self::Sparc64Sun4u6_1,
        }
    }

    /// The folder's name below `guests/`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64Cloud6_1 => "x86_64-6.1-cloud",
            Self::X86_64Generic6_1 => "x86_64-6.1-generic",
            Self::X86_64Cloud6_12 => "x86_64-6.12-cloud",
            Self::X86_64Cloud7 => "x86_64-7-cloud",
            Self::I386Pae6_1 => "i386-6.1-pae",
            Self::Ppc64le6_1 => "ppc64le-6.1",
            Self::Ppc64Pseries6_1 => "ppc64-6.1-pseries",
            Self::Ppc32Pmac6_1 => "ppc32-6.1-pmac",
            Self::Sparc64Sun4u6_1 => "sparc64-6.1-sun4u",
            Self::X86_64Bare => "x86_64-bare",
            Self::I386Bare => "i386-bare",
            Self::Ppc64Bare => "ppc64-bare",
            Self::Ppc64leBare => "ppc64le-bare",
            Self::Ppc32Bare => "ppc32-bare",
            Self::Sparc64Bare => "sparc64-bare",
        }
    }

    /// The architecture that it runs on.
    #[must_use]
    pub const fn arch(self) -> GuestArch {
        match self {
            Self::X86_64Cloud6_1
            | Self::X86_64Generic6_1
            | Self::X86_64Cloud6_12
            | Self::X86_64Cloud7
            | Self::X86_64Bare => GuestArch::X86_64,
            Self::I386Pae6_1 | Self::I386Bare => GuestArch::I386,
            Self::Ppc64le6_1 | Self::Ppc64leBare => GuestArch::Ppc64le,
            Self::Ppc64Pseries6_1 | Self::Ppc64Bare => GuestArch::Ppc64,
            Self::Ppc32Pmac6_1 | Self::Ppc32Bare => GuestArch::Ppc32,
            Self::Sparc64Sun4u6_1 | Self::Sparc64Bare => GuestArch::Sparc64,
        }
    }

    /// Whether it is a Linux kernel, which starts the init program from an initramfs.
    #[must_use]
    pub const fn is_linux(self) -> bool {
        !matches!(
            self,
            Self::X86_64Bare
                | Self::I386Bare
                | Self::Ppc64Bare
                | Self::Ppc64leBare
                | Self::Ppc32Bare
                | Self::Sparc64Bare
        )
    }

    /// The CPU that it needs, if that is not its architecture's.
    pub(crate) const fn cpu(self) -> Option<&'static str> {
        match self {
            // Prefixed instructions.
            Self::Ppc64Bare | Self::Ppc64leBare => Some("power10"),
            _ => None,
        }
    }

    /// The image's file name in its folder.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match (self.is_linux(), self.arch()) {
            (false, _) => "bare.elf",
            (true, GuestArch::X86_64 | GuestArch::I386) => "vmlinuz",
            (true, _) => "vmlinux",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{GuestArch, GuestKernel};

    #[test]
    fn folders_begin_with_the_architecture_and_differ() {
        let all = || GuestKernel::ALL.into_iter().chain(GuestKernel::BARE);
        assert!(all().all(|kernel| kernel.name().starts_with(&format!("{}-", kernel.arch().name()))));
        let mut names: Vec<&str> = all().map(GuestKernel::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().count());
        assert!(all().all(|kernel| kernel.is_linux() == GuestKernel::ALL.contains(&kernel)));
        for arch in GuestArch::ALL {
            assert_eq!(GuestKernel::of(arch).arch(), arch);
            assert_eq!(GuestArch::from_name(arch.name()), Some(arch));
            assert!(arch.name().starts_with(arch.row().name));
        }
    }
}
