//! System.map and /proc/kallsyms text: `ADDRESS TYPE NAME`, in kallsyms also `[MODULE]`.

use crate::error::ErrorKind;
use crate::table::Builder;

/// Does the file look like symbol text? Its first line decides.
pub(crate) fn is_map(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.len() < 4096 && std::str::from_utf8(line).is_ok_and(|line| row(line).is_some() || is_stub(line))
}

/// Reads every line.
///
/// # Errors
/// A line that is none (a few blank ones are fine), Debian's stub, hidden addresses.
pub(crate) fn parse(bytes: &[u8]) -> Result<Builder, ErrorKind> {
    let mut builder = Builder::default();
    let mut any_address = false;
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let bad = || ErrorKind::MapLine {
            line: index + 1,
            text: String::from_utf8_lossy(line.get(..80).unwrap_or(line)).into_owned(),
        };
        let line = std::str::from_utf8(line).map_err(|_| bad())?;
        if line.trim().is_empty() {
            continue;
        }
        if is_stub(line) {
            return Err(ErrorKind::SystemMapStub);
        }
        let (addr, kind, name, module) = row(line).ok_or_else(bad)?;
        any_address |= addr != 0;
        builder.push(addr, kind, name, module)?;
    }
    if !any_address {
        return Err(ErrorKind::AddressesHidden);
    }
    Ok(builder)
}

fn is_stub(line: &str) -> bool {
    line.contains(" B The real System.map is in the ")
}

fn row(line: &str) -> Option<(u64, char, &str, Option<&str>)> {
    let mut fields = line.split_ascii_whitespace();
    let addr = fields.next()?;
    // from_str_radix would take a sign.
    if !addr.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let addr = u64::from_str_radix(addr, 16).ok()?;
    let mut kind = fields.next()?.chars();
    let letter = kind.next().filter(|letter| letter.is_ascii_alphabetic() || *letter == '?')?;
    let name = fields.next()?;
    let module = match fields.next() {
        None => None,
        Some(module) => Some(module.strip_prefix('[')?.strip_suffix(']')?),
    };
    (kind.next().is_none() && fields.next().is_none() && name.len() <= 4096).then_some((addr, letter, name, module))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GuestAddr, Lookup};

    #[test]
    fn kallsyms_text_with_modules_and_carriage_returns() {
        let text = b"ffffffff81000000 T _stext\r\nffffffff81000010 t do_it\r\nffffffffc0001000 t do_it\t[ext4]\r\n\r\n";
        assert!(is_map(text));
        let table = parse(text).unwrap().finish();
        assert_eq!(table.len(), 3);
        let Lookup::One(core) = table.lookup(None, "do_it") else { panic!("the kernel's own symbol wins") };
        assert_eq!((core.addr, core.module, core.kind), (GuestAddr(0xffff_ffff_8100_0010), None, 't'));
        let Lookup::One(module) = table.lookup(Some("ext4"), "do_it") else { panic!("one in the module") };
        assert_eq!((module.addr, module.module), (GuestAddr(0xffff_ffff_c000_1000), Some("ext4")));
        assert_eq!(table.lookup(Some("xfs"), "do_it"), Lookup::None);
    }

    #[test]
    fn hidden_addresses_and_the_stub_say_what_to_do() {
        let hidden = parse(b"0000000000000000 T _stext\n0000000000000000 t x\n").err().unwrap().to_string();
        assert!(hidden.contains("kptr_restrict") && hidden.contains("root"), "{hidden}");
        let stub = b"ffffffffffffffff B The real System.map is in the linux-image-6.1.0-50-amd64-dbg package\n";
        assert!(is_map(stub));
        let text = parse(stub).err().unwrap().to_string();
        assert!(text.contains("vmlinuz of the same kernel"), "{text}");
    }

    #[test]
    fn a_bad_line_is_named() {
        for bad in ["+123 T x", "12 TT x", "12 T", "12 T x y", "12 T x [m", "12 T x [m] z", "g T x", "\u{fffd} T x"] {
            let text = format!("c0000000 T _stext\n{bad}\n");
            let error = parse(text.as_bytes()).err().unwrap().to_string();
            assert!(error.starts_with("line 2 is not `ADDRESS TYPE NAME [MODULE]`"), "{error}");
        }
        assert!(!is_map(b"hello world\n"));
        assert!(!is_map(b""));
    }
}
