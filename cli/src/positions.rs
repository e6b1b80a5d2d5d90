//! Where each vCPU is, for a guest that does nothing any more.

use std::fmt;

use qkprobe_symbols::{GuestAddr, KernelImage};

use crate::arch::{Condition, GuestArch};
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
    /// Where it was, each place once, in the order in which it was seen: `SYM+0xOFF`, `0x... (user code)`.
    pub places: Vec<String>,
    /// It waits for an interrupt (x86 tells).
    pub halted: bool,
    /// The machine takes no interrupts.
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
    let (image, arch) = (std::sync::Arc::clone(guest.image()), guest.arch());
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
        for seen in parse(&listing?, arch) {
            let place = name(&image, slide.unwrap_or(0), seen);
            match found.iter_mut().find(|position| position.cpu == seen.cpu) {
                Some(position) => {
                    if !position.places.contains(&place) {
                        position.places.push(place);
                    }
                    position.halted = seen.halted;
                    position.interrupts_off = seen.interrupts_off;
                }
                None => found.push(Position {
                    cpu: seen.cpu,
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
    cpu: usize,
    pc: u64,
    user: bool,
    halted: bool,
    interrupts_off: Option<bool>,
}

/// Takes the monitor's listing apart: `CPU#N` alone on a line begins a vCPU, its program counter begins a line.
fn parse(listing: &str, arch: &GuestArch) -> Vec<Seen> {
    let mut parts: Vec<(usize, Vec<&str>)> = Vec::new();
    for line in listing.lines().map(str::trim_end) {
        match (line.strip_prefix("CPU#").and_then(|number| number.parse().ok()), parts.last_mut()) {
            (Some(cpu), _) => parts.push((cpu, Vec::new())),
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => {}
        }
    }
    let seen = parts.iter().filter_map(|(cpu, lines)| {
        let pc = lines.iter().find_map(|line| line.strip_prefix(arch.pc_label).and_then(hex))?;
        let is = |condition: &Condition| {
            let word =
                lines.iter().find_map(|line| line.split_once(condition.label).and_then(|(_, rest)| hex(rest)))?;
            Some(word & condition.mask == condition.value)
        };
        let off: Option<Vec<bool>> = arch.interrupts_off.iter().map(is).collect();
        Some(Seen {
            cpu: *cpu,
            pc,
            user: is(&arch.user) == Some(true),
            halted: lines.iter().any(|line| line.contains("HLT=1")),
            interrupts_off: off.map(|off| off.contains(&true)),
        })
    });
    seen.collect()
}

/// The hexadecimal number that a text begins with.
fn hex(text: &str) -> Option<u64> {
    let text = text.strip_prefix("0x").unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(text.len());
    text.get(..end).and_then(|digits| u64::from_str_radix(digits, 16).ok())
}

/// `SYM+0xOFF` of a runtime address. A user's address may be one of the kernel's too: on sparc64 both have all of them.
fn name(image: &KernelImage, slide: u64, seen: Seen) -> String {
    let Seen { pc, user, .. } = seen;
    if user {
        return format!("{pc:#x} (user code)");
    }
    match image.symbols.containing(GuestAddr(pc.wrapping_sub(slide))) {
        Some((symbol, offset)) => format!("{}+{offset:#x}", symbol.name),
        None => format!("{pc:#x} (no symbol of the kernel: a module or firmware)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What QEMU 11.1 prints, shortened.
    #[test]
    fn listings_of_every_machine() {
        let arch = |name| GuestArch::by_name(name).expect("a row");
        let seen = |cpu, pc, user, halted, off| Seen { cpu, pc, user, halted, interrupts_off: Some(off) };
        let x86 = "\r\nCPU#0\r\nRAX=0 RBX=0\r\nRIP=ffffffff81a0 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n\
                   \r\nCPU#1\r\nEIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n\
                   \r\nCPU#2\r\nRIP=0000000000401000 RFL=00000006 [-----P-] CPL=3 II=0 A20=1 SMM=0 HLT=0\r\n";
        // A vCPU that was never started has no 64-bit program counter, and the others keep their numbers.
        let wanted = [seen(0, 0xffff_ffff_81a0, false, true, false), seen(2, 0x40_1000, true, false, true)];
        assert_eq!(parse(x86, arch("x86_64")), wanted);
        let i386 = "CPU#0\nEIP=c10005cd EFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0\n";
        assert_eq!(parse(i386, arch("i386")), [seen(0, 0xc100_05cd, false, false, true)]);
        let ppc = |msr: &str| {
            format!(
                "CPU#0\nNIP c000000000010a5c   LR c000000000000594 CTR 0 XER 0 CPU#0\nMSR {msr} HID0 0  HF 6c002000 iidx 3\n"
            )
        };
        let one = |user, off| [seen(0, 0xc000_0000_0001_0a5c, user, false, off)];
        assert_eq!(parse(&ppc("8000000000009033"), arch("ppc64le")), one(false, false));
        assert_eq!(parse(&ppc("8000000000001033"), arch("ppc64")), one(false, true));
        assert_eq!(parse(&ppc("0000d032"), arch("ppc")), one(true, false));
        let sparc = |pstate: &str, pil: &str| {
            format!(
                "CPU#0\npc: 0000000000404000  npc: 0000000000404004\n%g0-3: 0 0 0 0\n\
                 pstate: {pstate} ccr: 44 (icc: -Z-- xcc: -Z--) asi: 82 tl: 0 pil: {pil} gl: 0\n"
            )
        };
        let one = |user, off| [seen(0, 0x40_4000, user, false, off)];
        assert_eq!(parse(&sparc("00000016", "0"), arch("sparc64")), one(false, false));
        assert_eq!(parse(&sparc("00000016", "e"), arch("sparc64")), one(false, true));
        assert_eq!(parse(&sparc("00000014", "0"), arch("sparc64")), one(false, true));
        assert_eq!(parse(&sparc("00000012", "0"), arch("sparc64")), one(true, false));
        assert_eq!(parse("unknown command: 'info registers'\r\n", arch("sparc64")), []);
    }
}
