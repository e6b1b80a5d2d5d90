//! What is booted in turns: each guest in each QEMU.

use std::fmt;

use qkprobe_tests::{GuestArch, GuestKernel, Qemu, Threads};

use crate::random::Random;

/// A guest in a QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cell {
    pub(crate) kernel: GuestKernel,
    pub(crate) qemu: Qemu,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.kernel.name(), self.qemu)
    }
}

impl Cell {
    /// Whether this QEMU shows registers and memory of this guest, so that returns and the ends of instructions are found.
    pub(crate) fn has_state(self) -> bool {
        self.kernel.arch() != GuestArch::Sparc64 || self.qemu == Qemu::V11_1
    }

    /// Whether a plugin in this QEMU can read what a program's pointer points to. Debian's ppc64le kernel locks itself out, and
    /// before 10.1 a plugin cannot open it.
    pub(crate) fn reads_user_memory(self) -> bool {
        self.has_state() && (self.kernel != GuestKernel::Ppc64le6_1 || self.qemu == Qemu::V11_1)
    }

    /// The function that a system call of this name calls.
    pub(crate) fn syscall(self, name: &str) -> String {
        match self.kernel.arch() {
            GuestArch::X86_64 => format!("__x64_sys_{name}"),
            GuestArch::I386 => format!("__ia32_sys_{name}"),
            _ => format!("sys_{name}"),
        }
    }
}

/// All cells of these architectures, guests and QEMUs; all of them where nothing is given. Guests of different architectures
/// take turns.
pub(crate) fn chosen(arches: &[GuestArch], guests: &[String], qemus: &[Qemu]) -> Vec<Cell> {
    let is_chosen = |kernel: &GuestKernel| {
        (arches.is_empty() || arches.contains(&kernel.arch()))
            && (guests.is_empty() || guests.iter().any(|guest| guest == kernel.name()))
    };
    let qemus = if qemus.is_empty() { &Qemu::SUPPORTED } else { qemus };
    let mut rounds: Vec<(usize, Cell)> = Vec::new();
    for &qemu in qemus.iter().rev() {
        for arch in GuestArch::ALL {
            let kernels = GuestKernel::ALL.into_iter().filter(|kernel| kernel.arch() == arch && is_chosen(kernel));
            rounds.extend(kernels.enumerate().map(|(round, kernel)| (round, Cell { kernel, qemu })));
        }
    }
    rounds.sort_by_key(|(round, _)| *round);
    rounds.into_iter().map(|(_, cell)| cell).collect()
}

/// How the machine is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) smp: u32,
    pub(crate) threads: Threads,
    /// Whether the kernel is moved to a random place.
    pub(crate) moved: bool,
    /// QEMU's cache of translated code in MB, where it is small: it is flushed then and again.
    pub(crate) code_cache: Option<u32>,
}

impl Shape {
    /// A random one that this guest can have.
    pub(crate) fn random(cell: Cell, random: &mut Random) -> Self {
        let arch = cell.kernel.arch();
        let x86 = matches!(arch, GuestArch::X86_64 | GuestArch::I386);
        let smp = if arch.max_cpus() > 1 { [1, 2, 2, 4][random.below(4)] } else { 1 };
        let threads = if arch.max_cpus() > 1 && random.percent(70) { Threads::Multi } else { Threads::Single };
        let (moved, small) = (random.percent(25), random.percent(15));
        Self { smp, threads, moved: x86 && moved, code_cache: small.then_some(16) }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} vCPUs, {:?}", self.smp, self.threads)?;
        if self.moved {
            f.write_str(", moved")?;
        }
        self.code_cache.map_or(Ok(()), |megabytes| write!(f, ", {megabytes} MB of code"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_comes_before_the_second_guest_of_one() {
        let cells = chosen(&[], &[], &[]);
        assert_eq!(cells.len(), 18);
        let first: Vec<&str> = cells[..12].iter().map(|cell| cell.kernel.arch().name()).collect();
        let arches = ["x86_64", "i386", "ppc64le", "ppc64", "ppc32", "sparc64"];
        assert_eq!(first, [arches, arches].concat());
        let one = chosen(&[GuestArch::Sparc64], &[], &[Qemu::V10_0]);
        assert_eq!(one, [Cell { kernel: GuestKernel::Sparc64Sun4u6_1, qemu: Qemu::V10_0 }]);
        assert!(chosen(&[], &["x86_64-7-cloud".to_owned()], &[]).len() == 2);
    }
}
