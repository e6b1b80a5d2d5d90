//! What objdump's mnemonics of powerpc mean.

use qkprobe_arch::{Flow, GuestAddr};

use super::Listed;

/// The flow that the mnemonic means; `None` where objdump sees no instruction.
pub(super) fn flow(listed: &Listed) -> Option<Flow> {
    let (mnemonic, operands) = listed.text.split_once(' ').unwrap_or((&listed.text, ""));
    if mnemonic == ".long" {
        return None;
    }
    // A prediction.
    let mnemonic = mnemonic.trim_end_matches(['+', '-']);
    let first = operands.split(',').next().and_then(|number| number.parse::<u32>().ok());
    let last = operands.rsplit(',').next().unwrap_or_default().trim();
    let target = u64::from_str_radix(last.trim_start_matches("0x"), 16).map(GuestAddr);
    if let Some(flow) = through_register(mnemonic) {
        return Some(flow);
    }
    Some(match (mnemonic, target) {
        ("b" | "ba", Ok(target)) => Flow::Jump { target },
        ("bl" | "bla", Ok(target)) => Flow::Call { target },
        ("bc" | "bca", Ok(target)) if first.is_some_and(|bo| bo & 20 == 20) => Flow::Jump { target },
        ("bcl" | "bcla", Ok(target)) if first.is_some_and(|bo| bo & 20 == 20) => Flow::Call { target },
        (branch, Ok(target)) if is_conditional(branch) => Flow::Branch { target },
        // All bits of TO have mnemonics of their own; a number that is printed is none of those.
        ("tw" | "twi" | "td" | "tdi", _) if first.is_some_and(|to| to & 28 == 28 || to & 7 == 7) => Flow::Trap,
        (mnemonic, _) if leaves_the_line(mnemonic) => Flow::Trap,
        _ => Flow::Next,
    })
}

fn condition(mnemonic: &str) -> Option<&str> {
    const CONDITIONS: [&str; 20] = [
        "bdnzt", "bdnzf", "bdzt", "bdzf", "bdnz", "bdz", "blt", "ble", "beq", "bge", "bgt", "bnl", "bne", "bng", "bso",
        "bns", "bun", "bnu", "bt", "bf",
    ];
    CONDITIONS.iter().find_map(|condition| mnemonic.strip_prefix(condition))
}

fn is_conditional(mnemonic: &str) -> bool {
    matches!(mnemonic, "bc" | "bca" | "bcl" | "bcla") || matches!(condition(mnemonic), Some("" | "a" | "l" | "la"))
}

fn through_register(mnemonic: &str) -> Option<Flow> {
    let rest = match mnemonic {
        // `bt` is a condition too.
        "btar" | "btarl" => mnemonic.strip_prefix('b')?,
        "bclr" | "bcctr" | "bctar" | "bclrl" | "bcctrl" | "bctarl" => mnemonic.strip_prefix("bc")?,
        _ => condition(mnemonic).or_else(|| mnemonic.strip_prefix('b'))?,
    };
    match rest {
        "lr" => Some(Flow::Return),
        "ctr" | "tar" => Some(Flow::IndirectJump),
        "lrl" | "ctrl" | "tarl" => Some(Flow::IndirectCall),
        _ => None,
    }
}

fn leaves_the_line(mnemonic: &str) -> bool {
    const TRAPS: [&str; 25] = [
        "attn", "trap", "twu", "twui", "tdu", "tdui", "sc", "scv", "rfid", "hrfid", "urfid", "rfscv", "rfi", "rfci",
        "rfdi", "rfmci", "rfgi", "rfebb", "dnh", "ehpriv", "doze", "nap", "sleep", "rvwinkle", "svc",
    ];
    TRAPS.contains(&mnemonic)
}
