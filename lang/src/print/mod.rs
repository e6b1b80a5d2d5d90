//! A record as text: the arguments of the kernel's trace line, or the members of a JSON object.
//!
//! This runs on the writer's thread, once per record: no formatting machinery, no allocation besides `out`'s growth.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod escape;

use std::fmt;

use crate::arg::{Arg, TypeKind};
use crate::command::Definition;
use crate::program::{Element, Field, elements};
use crate::target::SymbolNames;

/// Collects a symbol's name as bytes.
struct Name<'a>(&'a mut Vec<u8>);

impl fmt::Write for Name<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Writes `sym+0xoff/0xsize`, or the address where no symbol is. A name with bytes that need it is passed through
/// `escape`: the names of modules come from the guest.
fn symbol(addr: u64, names: &dyn SymbolNames, escape: fn(&[u8], &mut Vec<u8>), out: &mut Vec<u8>) {
    let before = out.len();
    if !names.name(addr, &mut Name(out)) {
        out.truncate(before);
        escape::hex(addr, out);
    } else if out.get(before..).is_some_and(|name| !escape::is_plain(name)) {
        let name = out.split_off(before);
        escape(&name, out);
    }
}

/// A value of a signed type, from its stored bytes.
fn sign_extend(value: u64, bytes: u8) -> i64 {
    let unused = 64_u32.saturating_sub(u32::from(bytes) * 8);
    value.wrapping_shl(unused).cast_signed() >> (unused & 63)
}

fn decimal(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

impl Definition {
    /// Appends ` NAME=VALUE` per argument, as the kernel's trace line has them behind the place:
    /// ` file=0xff110000048e8b40 cnt=1024 c="head"`. Elements that could not be read are `(fault)`; in strings, control
    /// bytes, quotes, backslashes and what is not UTF-8 are escaped (`\n`, `\x1b`), which the kernel does not do.
    pub fn print_ftrace(&self, record: &[u8], names: &dyn SymbolNames, out: &mut Vec<u8>) {
        for (arg, field) in self.args.iter().zip(&self.program.fields) {
            out.push(b' ');
            out.extend_from_slice(arg.name.as_bytes());
            out.push(b'=');
            print_ftrace_value(arg, field, record, names, out);
        }
    }

    /// Appends `"NAME":VALUE` per argument, joined by commas, without braces; nothing without arguments.
    ///
    /// Unsigned and signed numbers are JSON numbers, exact up to 64 bits; hexadecimal ones are strings (`"0x1f"`);
    /// `char` is a string of one character; symbols are strings; arrays are arrays; an element that could not be read
    /// is `null`. Strings are lossless: valid UTF-8 stands for itself, any other byte 0xNN is `\uefNN` (the bytes of
    /// the private characters U+EF80 to U+EFFF are written the same way, so that the mapping can be undone).
    pub fn print_json(&self, record: &[u8], names: &dyn SymbolNames, out: &mut Vec<u8>) {
        for (index, (arg, field)) in self.args.iter().zip(&self.program.fields).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.push(b'"');
            out.extend_from_slice(arg.name.as_bytes());
            out.extend_from_slice(b"\":");
            print_json_value(arg, field, record, names, out);
        }
    }
}

fn print_ftrace_value(arg: &Arg, field: &Field, record: &[u8], names: &dyn SymbolNames, out: &mut Vec<u8>) {
    if let Some(literal) = &arg.literal {
        quoted(out, |out| escape::text(literal.as_bytes(), out));
        return;
    }
    if field.is_array {
        out.push(b'{');
    }
    for (index, element) in elements(field, record).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let number = match element {
            Element::Fault => {
                out.extend_from_slice(b"(fault)");
                continue;
            }
            Element::Bytes(bytes) => {
                quoted(out, |out| escape::text(bytes, out));
                continue;
            }
            Element::Number(number) => number,
        };
        match field.kind {
            TypeKind::Unsigned => decimal(number, out),
            TypeKind::Signed => decimal(sign_extend(number, field.bytes), out),
            TypeKind::Hex | TypeKind::String | TypeKind::UserString => escape::hex(number, out),
            TypeKind::Char => {
                out.push(b'\'');
                escape::text(&[number as u8], out);
                out.push(b'\'');
            }
            TypeKind::Symbol => symbol(number, names, escape::text, out),
            TypeKind::SymbolString => quoted(out, |out| symbol(number, names, escape::text, out)),
        }
    }
    if field.is_array {
        out.push(b'}');
    }
}

fn print_json_value(arg: &Arg, field: &Field, record: &[u8], names: &dyn SymbolNames, out: &mut Vec<u8>) {
    if let Some(literal) = &arg.literal {
        quoted(out, |out| escape::json(literal.as_bytes(), out));
        return;
    }
    if field.is_array {
        out.push(b'[');
    }
    for (index, element) in elements(field, record).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let number = match element {
            Element::Fault => {
                out.extend_from_slice(b"null");
                continue;
            }
            Element::Bytes(bytes) => {
                quoted(out, |out| escape::json(bytes, out));
                continue;
            }
            Element::Number(number) => number,
        };
        match field.kind {
            TypeKind::Unsigned => decimal(number, out),
            TypeKind::Signed => decimal(sign_extend(number, field.bytes), out),
            TypeKind::Hex | TypeKind::String | TypeKind::UserString => quoted(out, |out| escape::hex(number, out)),
            TypeKind::Char => quoted(out, |out| escape::json(&[number as u8], out)),
            TypeKind::Symbol | TypeKind::SymbolString => {
                quoted(out, |out| symbol(number, names, escape::json, out));
            }
        }
    }
    if field.is_array {
        out.push(b']');
    }
}

#[inline]
fn quoted(out: &mut Vec<u8>, inside: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    inside(out);
    out.push(b'"');
}
