//! What a guest's architecture means for a command line: one row each. Everything else asks this table.
//!
//! Sources: QEMU's documentation of each machine; the console's name is what the kernel's driver registers for it.

use qkprobe_arch::ByteOrder;
use qkprobe_symbols::{KernelImage, Machine};

/// An architecture, as far as booting it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestArch {
    /// The name, as `uname -m` spells it; one of `qkprobe_arch`'s.
    pub name: &'static str,
    /// QEMU's program is `qemu-system-` and this.
    pub target: &'static str,
    /// The machine that a person would take.
    pub machine: &'static str,
    /// The CPU; QEMU's default where `None`.
    pub cpu: Option<&'static str>,
    /// What `console=` names for the first serial port.
    pub console: &'static str,
    /// What is on every kernel's command line besides: above all, that a panic ends the run.
    pub append: &'static str,
    /// What a kernel that panics says last, where nothing ends QEMU then.
    pub last_words: Option<&'static str>,
    /// QEMU's option that makes a character device the second serial port, and what stands before the device's name.
    pub second_serial: (&'static str, &'static str),
    /// Most vCPUs of that machine.
    pub max_cpus: u32,
    /// Whether each vCPU may have a thread of its own (MTTCG).
    pub multi_thread: bool,
    /// Memory in MB if nobody says otherwise.
    pub memory_mb: u32,
    /// What stands before the program counter in the monitor's `info registers`, at the beginning of a line.
    pub pc_label: &'static str,
    /// What the same listing says of a vCPU that runs a user's code.
    pub user: Condition,
    /// What it says of one that takes no interrupts: any of these.
    pub interrupts_off: &'static [Condition],
}

/// A word of the monitor's `info registers`, and what bits of it mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What stands before the word.
    pub label: &'static str,
    /// The bits.
    pub mask: u64,
    /// What they are when the condition holds.
    pub value: u64,
}

impl Condition {
    const fn new(label: &'static str, mask: u64, value: u64) -> Self {
        Self { label, mask, value }
    }
}

/// Intel SDM volume 1, 3.4.3: IF is bit 9. The privilege level is printed by itself.
const X86_USER: Condition = Condition::new("CPL=", 3, 3);
/// Power ISA Book III, 4.2.1: EE is bit 48, PR bit 49, of 64 from the left. Linux on ppc64 disables by a flag in memory and clears
/// EE only when an interrupt comes nevertheless: what is told is that the machine takes none.
const POWER_USER: Condition = Condition::new("MSR ", 0x4000, 0x4000);
const POWER_INTERRUPTS_OFF: &[Condition] = &[Condition::new("MSR ", 0x8000, 0)];

/// On pseries the second one is a second console, `hvc1`.
const SERIAL: (&str, &str) = ("-serial", "chardev:");

/// Every architecture.
pub static ALL: [GuestArch; 6] = [
    GuestArch {
        name: "x86_64",
        target: "x86_64",
        machine: "pc",
        cpu: Some("max"),
        console: "ttyS0",
        // A busy host may deliver the timer's first ticks too late for the kernel's check of its wiring.
        append: "panic=-1 no_timer_check",
        last_words: None,
        second_serial: SERIAL,
        max_cpus: 255,
        multi_thread: true,
        memory_mb: 512,
        pc_label: "RIP=",
        user: X86_USER,
        interrupts_off: &[Condition::new("RFL=", 0x200, 0)],
    },
    GuestArch {
        name: "i386",
        target: "i386",
        machine: "pc",
        cpu: Some("max"),
        console: "ttyS0",
        append: "panic=-1 no_timer_check",
        last_words: None,
        second_serial: SERIAL,
        max_cpus: 255,
        multi_thread: true,
        memory_mb: 512,
        pc_label: "EIP=",
        user: X86_USER,
        interrupts_off: &[Condition::new("EFL=", 0x200, 0)],
    },
    GuestArch {
        name: "ppc64le",
        target: "ppc64",
        // Without SLOF the boot takes a third of the time.
        machine: "pseries,x-vof=on",
        cpu: Some("power9"),
        console: "hvc0",
        append: "panic=-1",
        last_words: None,
        second_serial: SERIAL,
        max_cpus: 255,
        multi_thread: true,
        memory_mb: 512,
        pc_label: "NIP ",
        user: POWER_USER,
        interrupts_off: POWER_INTERRUPTS_OFF,
    },
    GuestArch {
        name: "ppc64",
        target: "ppc64",
        machine: "pseries,x-vof=on",
        cpu: Some("power9"),
        console: "hvc0",
        append: "panic=-1",
        last_words: None,
        second_serial: SERIAL,
        max_cpus: 255,
        multi_thread: true,
        memory_mb: 512,
        pc_label: "NIP ",
        user: POWER_USER,
        interrupts_off: POWER_INTERRUPTS_OFF,
    },
    GuestArch {
        name: "ppc",
        target: "ppc",
        machine: "mac99",
        cpu: Some("g4"),
        console: "ttyS0",
        append: "panic=-1",
        last_words: None,
        second_serial: SERIAL,
        max_cpus: 1,
        multi_thread: false,
        memory_mb: 256,
        pc_label: "NIP ",
        user: POWER_USER,
        interrupts_off: POWER_INTERRUPTS_OFF,
    },
    GuestArch {
        name: "sparc64",
        target: "sparc64",
        machine: "sun4u",
        cpu: None,
        console: "ttyS0",
        // OpenBIOS has no reset: with panic=-1 the kernel would panic for ever because it cannot restart.
        append: "panic=0",
        last_words: Some("---[ end Kernel panic"),
        // The firmware's device tree has one port of the machine's own, so the second is a card.
        second_serial: ("-device", "pci-serial,bus=pciB,chardev="),
        max_cpus: 1,
        multi_thread: false,
        memory_mb: 512,
        pc_label: "pc: ",
        // SPARC V9, 5.2.1: PSTATE.PRIV is bit 2, IE bit 1. Linux disables interrupts by PIL 14, and 15 where the profiler's
        // must not come either.
        user: Condition::new("pstate: ", 4, 0),
        interrupts_off: &[Condition::new("pstate: ", 2, 0), Condition::new("pil: ", 0xe, 0xe)],
    },
];

impl GuestArch {
    /// The row of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|arch| arch.name == name)
    }

    /// The row for a kernel image; `None` for a text of symbols and for machines that are not here.
    #[must_use]
    pub fn of_image(image: &KernelImage) -> Option<&'static Self> {
        let name = match (image.machine, image.byte_order) {
            (Machine::X86_64, _) => "x86_64",
            (Machine::I386, _) => "i386",
            (Machine::Ppc64, Some(ByteOrder::Little)) => "ppc64le",
            (Machine::Ppc64, _) => "ppc64",
            (Machine::Ppc, _) => "ppc",
            (Machine::Sparc64, _) => "sparc64",
            (Machine::Other(_) | Machine::Unknown, _) => return None,
        };
        Self::by_name(name)
    }

    /// The name of QEMU's program.
    #[must_use]
    pub fn program(&self) -> String {
        format!("qemu-system-{}", self.target)
    }

    /// What this project knows of the ISA; `None` where it has no decoder yet.
    #[must_use]
    pub fn isa(&self) -> Option<&'static dyn qkprobe_arch::Arch> {
        qkprobe_arch::by_name(self.name)
    }

    /// All names, for messages.
    #[must_use]
    pub fn names() -> String {
        ALL.iter().map(|arch| arch.name).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for (index, arch) in ALL.iter().enumerate() {
            assert_eq!(ALL.iter().position(|other| other.name == arch.name), Some(index));
            assert_eq!(GuestArch::by_name(arch.name), Some(arch));
        }
        assert_eq!(GuestArch::by_name("vax"), None);
        assert_eq!(GuestArch::by_name("ppc64le").map(GuestArch::program).as_deref(), Some("qemu-system-ppc64"));
    }

    #[test]
    fn every_isa_of_this_build_has_a_row() {
        for isa in qkprobe_arch::all() {
            let row = GuestArch::by_name(isa.name()).unwrap_or_else(|| panic!("{} has no row", isa.name()));
            assert_eq!(row.target, isa.target());
        }
    }
}
