//! What objdump's mnemonics of sparc64 mean.
//!
//! A known fault of objdump 2.40 is passed over: it ignores the low bit of the condition code field of BPcc, which makes the
//! instruction an illegal one (manual, appendix A.7); many a word of a table in the text looks so.

use qkprobe_arch::{Flow, GuestAddr};

use super::Listed;

/// A BPcc on neither `%icc` nor `%xcc`.
fn is_reserved(listed: &Listed) -> bool {
    matches!(listed.bytes[..], [first, second, ..] if first & 0xc1 == 0 && second & 0xd0 == 0x50)
}

/// The flow that the mnemonic means; `None` where objdump sees no instruction.
pub(super) fn flow(listed: &Listed) -> Option<Flow> {
    if is_reserved(listed) {
        return None;
    }
    let text = listed.text.as_str();
    let mut words = text.split(' ');
    let mnemonic = words.next().unwrap_or_default();
    let annuls = mnemonic.contains(",a");
    let (mnemonic, _) = mnemonic.split_once(',').unwrap_or((mnemonic, ""));
    let last = text.rsplit([' ', ',']).next().unwrap_or_default();
    let target = u64::from_str_radix(last.trim_start_matches("0x"), 16).map(GuestAddr);
    Some(match (mnemonic, target) {
        ("unknown" | ".word" | ".long" | "cb" | "cbn", _) => return None,
        ("call", _) if words.next().is_some_and(|operand| operand.starts_with('%')) => Flow::IndirectCall,
        ("call", Ok(target)) => Flow::Call { target },
        ("ret" | "retl", _) => Flow::Return,
        ("jmp", _) if ["%i7 + 0xc", "%o7 + 0xc"].iter().any(|place| text.ends_with(place)) => Flow::Return,
        ("return", _) if text.ends_with("%i7 + 8") => Flow::Return,
        ("jmp" | "jmpl" | "return", _) => Flow::IndirectJump,
        ("b" | "fb", Ok(target)) => Flow::Jump { target },
        ("bn" | "fbn", Ok(_)) if annuls => Flow::Jump { target: GuestAddr(listed.addr).wrapping_add(8) },
        ("bn" | "fbn", Ok(_)) => Flow::Next,
        ("illtrap" | "unimp" | "ta" | "sir" | "done" | "retry", _) => Flow::Trap,
        (branch, Ok(target)) if is_branch(branch) => Flow::Branch { target },
        _ => Flow::Next,
    })
}

fn is_branch(mnemonic: &str) -> bool {
    let integer = ["b", "br", "fb", "cwb", "cxb"];
    const OTHERS: [&str; 2] = ["bmask", "bshuffle"];
    !OTHERS.contains(&mnemonic) && integer.iter().any(|start| mnemonic.starts_with(start))
}
