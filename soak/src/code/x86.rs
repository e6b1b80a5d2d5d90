//! x86: what objdump says of the bytes.

use std::process::{Command, Stdio};

use super::{Code, Insn, Kind};
use crate::functions::Function;

/// Between the functions: whatever a function ends with, the next one begins at its own first byte.
const PADDING: usize = 32;
const NOP: u8 = 0x90;

/// Mnemonics of instructions that change registers only, or the kernel's stack, if no operand is memory.
const PLAIN: [&str; 39] = [
    "add", "sub", "and", "or", "xor", "not", "neg", "inc", "dec", "test", "cmp", "mov", "movzbl", "movzwl", "movsbl",
    "movswl", "movslq", "movabs", "shl", "shr", "sar", "sal", "rol", "ror", "imul", "bt", "bts", "btr", "bsf", "bsr",
    "bswap", "push", "pop", "cltq", "cltd", "cqto", "adc", "sbb", "xchg",
];
/// Registers that are no general ones.
const SPECIAL: [&str; 9] = ["%cr", "%db", "%dr", "%cs", "%ds", "%es", "%fs", "%gs", "%ss"];

/// Disassembles all functions in one go.
pub(super) fn read<'a>(
    is_64: bool,
    functions: &[Function],
    bytes: impl Fn(&Function) -> Option<&'a [u8]>,
) -> Result<Vec<Option<Code>>, String> {
    let mut text = Vec::new();
    let mut starts = Vec::new();
    for function in functions {
        let bytes = bytes(function);
        starts.push((text.len() as u64, bytes.map_or(0, <[u8]>::len) as u64));
        text.extend_from_slice(bytes.unwrap_or_default());
        text.resize(text.len() + PADDING, NOP);
    }
    let lines = objdump(is_64, &text)?;
    let mut lines = lines.lines().filter_map(line).peekable();
    let mut all = Vec::new();
    for (function, (start, len)) in functions.iter().zip(starts) {
        let end = start + len;
        let mut insns = Vec::new();
        // Up to the next function the padding.
        while lines.next_if(|(addr, _)| *addr < start).is_some() {}
        let mut is_whole = len > 0;
        let mut is_c = false;
        while let Some((addr, words)) = lines.next_if(|(addr, _)| *addr < end) {
            let linked = |target: u64| {
                let linked = function.addr.wrapping_add(target.wrapping_sub(start));
                if is_64 { linked } else { linked & 0xffff_ffff }
            };
            let kind = kind(words, linked);
            is_whole &= kind.is_some();
            // The call for ftrace, behind ENDBR if there is one.
            is_c |= insns.len() < 2 && kind == Some(Kind::Call);
            insns.push(Insn { offset: addr - start, kind: kind.unwrap_or(Kind::Other) });
        }
        all.push(is_whole.then_some(Code { insns, is_c, has_slots: false }));
    }
    Ok(all)
}

fn objdump(is_64: bool, text: &[u8]) -> Result<String, String> {
    let path = std::env::temp_dir().join(format!("qkprobe-soak-{}.bin", std::process::id()));
    let io = |error: std::io::Error| format!("{}: {error}", path.display());
    std::fs::write(&path, text).map_err(io)?;
    let machine = if is_64 { "i386:x86-64" } else { "i386" };
    let mut objdump = Command::new("objdump");
    objdump.args(["-D", "-b", "binary", "-m", machine, "-w", "--no-show-raw-insn"]).arg(&path);
    let output = objdump.stdin(Stdio::null()).output();
    std::fs::remove_file(&path).map_err(io)?;
    let output = output.map_err(|error| format!("objdump: {error}: install the package binutils"))?;
    if !output.status.success() {
        return Err(format!("objdump: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A line of the listing, `    12ab:\tmov    %rsp,%rbp`: the address and the instruction.
fn line(line: &str) -> Option<(u64, &str)> {
    let (addr, words) = line.split_once(":\t")?;
    Some((u64::from_str_radix(addr.trim(), 16).ok()?, words.trim()))
}

/// What an instruction does; `None` for what is none.
fn kind(words: &str, linked: impl Fn(u64) -> u64) -> Option<Kind> {
    const PREFIXES: [&str; 10] = ["notrack", "bnd", "cs", "ds", "repz", "rep", "repnz", "lock", "data16", "addr32"];
    // `jne,pn` has a hint, and `# 0x1234` is where a %rip-relative operand leads.
    let words = words.split('#').next().unwrap_or_default();
    let mut rest = words.split_whitespace().skip_while(|word| PREFIXES.contains(word));
    let mnemonic = rest.next().unwrap_or("nop").split(',').next().unwrap_or_default();
    let operands = rest.collect::<Vec<_>>().join(" ");
    let has_prefix = !words.starts_with(mnemonic);
    let target = || {
        let digits = operands.split(' ').next().unwrap_or_default().trim_start_matches("0x");
        u64::from_str_radix(digits, 16).ok().map(&linked)
    };
    if mnemonic.contains("(bad)") || words.contains("(bad)") {
        return None;
    }
    Some(match mnemonic {
        "ret" | "retq" | "retl" => Kind::Return,
        "jmp" | "jmpq" | "jmpl" | "ljmp" | "ljmpq" => match target() {
            Some(target) if !operands.contains('*') => Kind::Jump(target),
            _ => Kind::Indirect,
        },
        "iret" | "iretq" | "iretl" | "lret" | "lretq" | "sysretq" | "sysretl" | "sysexit" | "sysexitq" => {
            Kind::Indirect
        }
        "call" | "callq" | "calll" | "lcall" => Kind::Call,
        _ if mnemonic.starts_with('j') || mnemonic.starts_with("loop") => target().map_or(Kind::Indirect, Kind::Branch),
        _ if has_prefix => Kind::Other,
        "lea" if is_general(&operands) => Kind::Plain,
        // Two bytes that do nothing: the kernel may put a jump there.
        "xchg" if operands == "%ax,%ax" => Kind::Other,
        _ if is_plain(mnemonic) && is_general(&operands) && is_in_registers(&operands) => Kind::Plain,
        _ => Kind::Other,
    })
}

fn is_plain(mnemonic: &str) -> bool {
    // objdump adds the size where no register tells it: `movl`, `addq`.
    let bare = mnemonic.strip_suffix(['b', 'w', 'l', 'q']).unwrap_or(mnemonic);
    PLAIN.contains(&mnemonic) || PLAIN.contains(&bare) || mnemonic.starts_with("cmov") || mnemonic.starts_with("set")
}

fn is_general(operands: &str) -> bool {
    !SPECIAL.iter().any(|register| operands.contains(register))
}

/// No operand is memory: neither `8(%rax)` nor a bare address.
fn is_in_registers(operands: &str) -> bool {
    !operands.contains('(') && operands.split(',').all(|operand| operand.is_empty() || operand.starts_with(['%', '$']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_lines() {
        let kind = |words: &str| kind(words, |target| target + 0x1000).unwrap();
        for plain in
            ["mov    %rsp,%rbp", "lea    0x8(%rsi),%rcx", "push   %rbx", "add    $0x1,%eax", "sete   %al", "cltq"]
        {
            assert_eq!(kind(plain), Kind::Plain, "{plain}");
        }
        for other in [
            "mov    0x8(%rsi),%rcx",
            "mov    %eax,0x1234",
            "movabs 0x1234,%al",
            "mov    %cr3,%rax",
            "push   0x8(%rax)",
            "nopl   0x0(%rax,%rax,1)",
            "xchg   %ax,%ax",
            "lock xadd %eax,(%rdi)",
            "rep stos %al,%es:(%rdi)",
            "div    %rcx",
            "ud2",
            "int3",
            "cli",
            "mov    %gs:0x0,%rax",
        ] {
            assert_eq!(kind(other), Kind::Other, "{other}");
        }
        assert_eq!(kind("jne    0x20"), Kind::Branch(0x1020));
        assert_eq!(kind("jmp    0x20"), Kind::Jump(0x1020));
        assert_eq!(kind("jmp    *%rax"), Kind::Indirect);
        assert_eq!(kind("notrack jmp *0x8(,%rax,8)"), Kind::Indirect);
        assert_eq!(kind("cs call 0x20"), Kind::Call);
        assert_eq!(kind("ret"), Kind::Return);
        assert_eq!(super::kind("(bad)", |target| target), None);
    }

    #[test]
    fn functions_keep_apart() {
        let function = |addr| Function { name: String::new(), addr, size: 0 };
        // The first one ends in the middle of an instruction. push %rbp; jmp to the begin; ret.
        let texts: [&[u8]; 2] = [&[0x55, 0x48], &[0x55, 0xeb, 0xfd, 0xc3]];
        let functions = [function(0x1000), function(0x2000)];
        let bytes = |function: &Function| Some(texts[usize::from(function.addr == 0x2000)]);
        let read = read(true, &functions, bytes).unwrap();
        let kinds: Vec<Kind> = read[1].as_ref().unwrap().insns.iter().map(|insn| insn.kind).collect();
        assert_eq!(kinds, [Kind::Plain, Kind::Jump(0x2000), Kind::Return]);
        let offsets: Vec<u64> = read[1].as_ref().unwrap().insns.iter().map(|insn| insn.offset).collect();
        assert_eq!(offsets, [0, 1, 3]);
    }
}
