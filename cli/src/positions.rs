//! Where each vCPU is, for a guest that does nothing any more.

use std::fmt;

use qkprobe_symbols::{GuestAddr, KernelImage};

use crate::error::Error;
use crate::guest::Guest;

/// How often each vCPU is looked at.
const SAMPLES: usize = 3;
const BETWEEN: std::time::Duration = std::time::Duration::from_millis(50);

/// One vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Its index.
    pub cpu: usize,
    /// Where it was, each place once, in the order in which it was seen: `SYM+0xOFF`, `user 0x...`.
    pub places: Vec<String>,
    /// It waits for an interrupt (x86 tells).
    pub halted: bool,
    /// Interrupts are off (x86 tells).
    pub interrupts_off: Option<bool>,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vCPU {}: {}", self.cpu, self.places.join(", then "))?;
        if self.halted {
            f.write_str(" (halted)")?;
        }
        if self.interrupts_off == Some(true) {
            f.write_str(" (interrupts off)")?;
        }
        Ok(())
    }
}

/// Looks at every vCPU some times.
///
/// # Errors
/// QEMU does not answer.
pub fn of(guest: &mut Guest) -> Result<Vec<Position>, Error> {
    let slide = guest.control().and_then(|control| control.status()).ok().and_then(|status| status.slide());
    let (image, label) = (std::sync::Arc::clone(guest.image()), guest.arch().pc_label);
    let mut found: Vec<Position> = Vec::new();
    for sample in 0..SAMPLES {
        if sample != 0 {
            std::thread::sleep(BETWEEN);
        }
        // The program counter of a vCPU that runs is not up to date (QEMU keeps it in the host's registers).
        let stopped = guest.set_running(false).is_ok();
        let listing = guest.monitor("info registers -a");
        if stopped {
            guest.set_running(true)?;
        }
        for (cpu, seen) in parse(&listing?, label).into_iter().enumerate() {
            let place = name(&image, slide.unwrap_or(0), seen.pc);
            match found.get_mut(cpu) {
                Some(position) => {
                    if !position.places.contains(&place) {
                        position.places.push(place);
                    }
                    position.halted = seen.halted;
                    position.interrupts_off = seen.interrupts_off;
                }
                None => found.push(Position {
                    cpu,
                    places: vec![place],
                    halted: seen.halted,
                    interrupts_off: seen.interrupts_off,
                }),
            }
        }
    }
    Ok(found)
}

/// One vCPU of one listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    pc: u64,
    halted: bool,
    interrupts_off: Option<bool>,
}

/// Takes the monitor's listing apart: the program counter stands behind `label`, once a vCPU.
fn parse(listing: &str, label: &str) -> Vec<Seen> {
    let hex = |text: &str| {
        let text = text.strip_prefix("0x").unwrap_or(text);
        let end = text.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(text.len());
        text.get(..end).and_then(|digits| u64::from_str_radix(digits, 16).ok())
    };
    listing
        .split(label)
        .skip(1)
        .filter_map(|rest| {
            let pc = hex(rest)?;
            let line = rest.lines().next().unwrap_or_default();
            let value = |key: &str| line.split(key).nth(1).and_then(hex);
            // RIP=... RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1; bit 9 of the flags lets interrupts in.
            let flags = value(" RFL=").or_else(|| value(" EFL="));
            Some(Seen { pc, halted: line.contains("HLT=1"), interrupts_off: flags.map(|flags| flags & 0x200 == 0) })
        })
        .collect()
}

/// `SYM+0xOFF` of a runtime address.
fn name(image: &KernelImage, slide: u64, pc: u64) -> String {
    let linked = GuestAddr(pc.wrapping_sub(slide));
    match image.symbols.containing(linked) {
        Some((symbol, offset)) => format!("{}+{offset:#x}", symbol.name),
        None => format!("{pc:#x} (no symbol of the kernel: user code, a module or firmware)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x86_and_others() {
        let x86 = "\r\nCPU#0\r\nRAX=0 RBX=0\r\nRIP=ffffffff81a0 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n\
                   CPU#1\r\nRIP=0000000000401000 RFL=00000006 [-----P-] CPL=3 II=0 A20=1 SMM=0 HLT=0\r\n";
        let seen = |pc, halted, off| Seen { pc, halted, interrupts_off: off };
        assert_eq!(parse(x86, "RIP="), [seen(0xffff_ffff_81a0, true, Some(false)), seen(0x40_1000, false, Some(true))]);
        let ppc = "CPU#0\nNIP c000000000010a5c   LR c00000000000 CTR 0000 XER 0000 CPU#0\nMSR 9000";
        assert_eq!(parse(ppc, "NIP "), [seen(0xc000_0000_0001_0a5c, false, None)]);
        let sparc = "CPU#0\npc: 0000000000404000  npc: 0000000000404004\n";
        assert_eq!(parse(sparc, "pc: ").first(), Some(&seen(0x40_4000, false, None)));
    }
}
