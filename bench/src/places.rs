//! Addresses of the kernel's text to put probes on, and files that do so.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use qkprobe_arch::{Arch, Flow, GuestAddr};
use qkprobe_symbols::{KernelImage, Lookup};

/// No function of a kernel is longer.
const MAX_FUNCTION: u64 = 1 << 20;
/// How many bytes of a function [`first_block`] looks at.
const LONGEST_BLOCK: usize = 64;

/// The text symbols of the kernel proper (from `_stext` to `_etext`), ascending, one for each address.
fn text_symbols(image: &KernelImage) -> Vec<(GuestAddr, usize)> {
    let one = |name| match image.symbols.lookup(None, name) {
        Lookup::One(symbol) => Some(symbol.addr.0),
        Lookup::None | Lookup::Many(_) => None,
    };
    let (start, end) = (one("_stext").unwrap_or(0), one("_etext").unwrap_or(u64::MAX));
    let inside = image.symbols.iter().filter(|symbol| symbol.text && (start..end).contains(&symbol.addr.0));
    let size = |size: u64| usize::try_from(size.min(MAX_FUNCTION)).unwrap_or(0);
    let symbols: BTreeSet<_> = inside.map(|symbol| (symbol.addr.0, size(symbol.size))).collect();
    symbols.into_iter().map(|(addr, size)| (GuestAddr(addr), size)).collect()
}

/// The instructions of a piece of text, as far as it can be decoded: address and flow.
fn instructions<'a>(
    arch: &'a dyn Arch,
    start: GuestAddr,
    text: &'a [u8],
) -> impl Iterator<Item = (GuestAddr, Flow)> + 'a {
    let mut offset = 0;
    std::iter::from_fn(move || {
        let addr = start.wrapping_add(offset as u64);
        let insn = arch.decode(addr, text.get(offset..)?).ok()?;
        offset += usize::from(insn.len);
        Some((addr, insn.flow))
    })
}

/// The entry of each function: where a probe on its name goes.
pub(crate) fn functions(image: &KernelImage, arch: &dyn Arch) -> Vec<GuestAddr> {
    nth_instructions(image, arch, 0)
}

/// `count` addresses, no two the same: the first instruction of each function, then the second of each, and so on.
pub(crate) fn many(image: &KernelImage, arch: &dyn Arch, count: usize) -> Vec<GuestAddr> {
    let mut all = Vec::new();
    for nth in 0.. {
        let more = nth_instructions(image, arch, nth);
        if more.is_empty() || all.len() >= count {
            break;
        }
        all.extend(more);
    }
    all.truncate(count);
    all
}

fn nth_instructions(image: &KernelImage, arch: &dyn Arch, nth: usize) -> Vec<GuestAddr> {
    let instruction = |(start, size): (GuestAddr, usize)| {
        let text = image.bytes(start, size)?;
        let skip = arch.entry_skip(text);
        let body = text.get(usize::try_from(skip).ok()?..)?;
        instructions(arch, start.wrapping_add(skip), body).nth(nth).map(|(addr, _)| addr)
    };
    text_symbols(image).into_iter().filter_map(instruction).collect()
}

/// The instructions that a call of this function surely executes: from its entry to the first branch or return. Calls return.
///
/// # Errors
/// No such function.
pub(crate) fn straight_line(
    image: &KernelImage,
    arch: &dyn Arch,
    name: &str,
) -> Result<Vec<(GuestAddr, Flow)>, String> {
    let Lookup::One(symbol) = image.symbols.lookup(None, name) else {
        return Err(format!("the kernel has no function {name}, or several"));
    };
    let size = usize::try_from(symbol.size.min(MAX_FUNCTION)).unwrap_or(0);
    let text = image.bytes(symbol.addr, size).ok_or_else(|| format!("the image has no text at {name}"))?;
    let skip = arch.entry_skip(text);
    let body = text.get(usize::try_from(skip).unwrap_or(0)..).unwrap_or_default();
    let mut line = Vec::new();
    for (addr, flow) in instructions(arch, symbol.addr.wrapping_add(skip), body) {
        line.push((addr, flow));
        if !matches!(flow, Flow::Next | Flow::Call { .. }) {
            break;
        }
    }
    Ok(line)
}

/// The offset of an instruction inside a function where the guest's own kprobe has to be a breakpoint: behind the nops for ftrace at the
/// entry and one instruction more, and none that the guest's kprobes emulate instead of stepping.
///
/// # Errors
/// There is none, or no such function.
pub(crate) fn middle(image: &KernelImage, arch: &dyn Arch, name: &str) -> Result<u64, String> {
    let line = straight_line(image, arch, name)?;
    let Lookup::One(symbol) = image.symbols.lookup(None, name) else { return Err(format!("no function {name}")) };
    let plain = line.iter().skip(2).find(|(_, flow)| *flow == Flow::Next);
    plain.map(|(addr, _)| addr.0 - symbol.addr.0).ok_or_else(|| format!("{name} is too short"))
}

/// The offset of an instruction of [`straight_line`] that surely goes elsewhere: a call behind the entry's own for ftrace, else the last
/// jump or return.
///
/// # Errors
/// There is none, or no such function.
pub(crate) fn transfer(image: &KernelImage, arch: &dyn Arch, name: &str) -> Result<u64, String> {
    let line = straight_line(image, arch, name)?;
    let Lookup::One(symbol) = image.symbols.lookup(None, name) else { return Err(format!("no function {name}")) };
    goes_elsewhere(&line)
        .map(|addr| addr.0 - symbol.addr.0)
        .ok_or_else(|| format!("{name} has no call, and ends in a branch"))
}

fn goes_elsewhere(line: &[(GuestAddr, Flow)]) -> Option<GuestAddr> {
    let behind_entry = line.get(1..)?;
    let call = behind_entry.iter().find(|(_, flow)| matches!(flow, Flow::Call { .. }));
    let last = line.last().filter(|(_, flow)| matches!(flow, Flow::Jump { .. } | Flow::IndirectJump | Flow::Return));
    call.or(last).map(|(addr, _)| *addr)
}

/// The instructions that a call of the function with this entry surely executes, without those behind its first call: whether that one
/// returns is not known here.
pub(crate) fn first_block(image: &KernelImage, arch: &dyn Arch, entry: GuestAddr) -> Vec<GuestAddr> {
    let text = (1..=LONGEST_BLOCK).rev().find_map(|size| image.bytes(entry, size)).unwrap_or_default();
    let mut block = Vec::new();
    for (index, (addr, flow)) in instructions(arch, entry, text).enumerate() {
        block.push(addr);
        // The first one may be the entry's call for ftrace, a nop by the time that it runs.
        if flow != Flow::Next && !(index == 0 && matches!(flow, Flow::Call { .. })) {
            break;
        }
    }
    block
}

/// `count` of them, evenly spread.
pub(crate) fn spread<T: Copy>(all: &[T], count: usize) -> Vec<T> {
    let count = count.min(all.len());
    (0..count).map(|index| all[index * all.len() / count]).collect()
}

/// A configuration file with a probe at each address.
pub(crate) fn toml(addresses: &[GuestAddr], action: &str) -> String {
    let mut text = String::new();
    for (index, addr) in addresses.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "[[probe]]\ndef = \"p:n{index} {:#x}\"\naction = \"{action}\"", addr.0);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evenly_spread() {
        assert_eq!(spread(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 5), [0, 2, 4, 6, 8]);
        assert_eq!(spread(&[0, 1, 2], 5), [0, 1, 2]);
        assert_eq!(spread::<u8>(&[], 5), [0; 0]);
    }

    #[test]
    fn decodes_to_the_end_of_what_is_an_instruction() {
        // push %rbx; call; xor %edx,%edx; half of a mov
        let text = [0x53, 0xe8, 0, 0, 0, 0, 0x31, 0xd2, 0xbe, 0x01];
        let arch = qkprobe_arch::by_name("x86_64").unwrap();
        let addresses: Vec<u64> = instructions(arch, GuestAddr(0x1000), &text).map(|(addr, _)| addr.0).collect();
        assert_eq!(addresses, [0x1000, 0x1001, 0x1006]);
    }

    #[test]
    fn what_goes_elsewhere() {
        let call = Flow::Call { target: GuestAddr(0x9000) };
        let line = |flows: &[Flow]| -> Vec<_> { (0..).map(GuestAddr).zip(flows.iter().copied()).collect() };
        // The first call is the entry's own for ftrace.
        assert_eq!(goes_elsewhere(&line(&[call, Flow::Next, call, Flow::Next, Flow::Return])), Some(GuestAddr(2)));
        assert_eq!(goes_elsewhere(&line(&[call, Flow::Next, Flow::Return])), Some(GuestAddr(2)));
        let branch = Flow::Branch { target: GuestAddr(0x9000) };
        assert_eq!(goes_elsewhere(&line(&[call, Flow::Next, branch])), None);
        assert_eq!(goes_elsewhere(&[]), None);
    }

    #[test]
    fn probes_as_toml() {
        assert_eq!(
            toml(&[GuestAddr(0xffff_ffff_8100_0000)], "count"),
            "[[probe]]\ndef = \"p:n0 0xffffffff81000000\"\naction = \"count\"\n"
        );
    }
}
