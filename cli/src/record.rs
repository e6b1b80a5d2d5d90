//! An event of the JSON trace, back in the form that filters judge, so that `where = "..."` of a test and a filter in the
//! guest are one language with one implementation.
//!
//! The record's layout is the one that `qkprobe-lang` documents for its programs: a bit per element for what could not be
//! read, the fixed fields packed in the arguments' order, then the strings' bytes.

use qkprobe_lang::{Common, Definition, Filter, SymbolLookup, Target as _, TypeKind};
use serde_json::Value;

use crate::ImageTarget;
use crate::event::Event;

/// Bytes that are not UTF-8 stand in JSON as U+EF80 to U+EFFF: 0xNN is U+EFNN.
const STAND_INS: std::ops::RangeInclusive<char> = '\u{ef80}'..='\u{efff}';

/// Whether an event passes a filter that was compiled for its definition.
#[must_use]
pub fn passes(event: &Event, filter: &Filter, definition: &Definition, target: &ImageTarget<'_>) -> bool {
    let place = event.caller.as_deref().unwrap_or(&event.place);
    let common = Common { ip: address(place, target), cpu: event.cpu.unwrap_or(u32::MAX) };
    filter.matches(&record(event, definition, target), &common, target)
}

/// The event's arguments as a record of `definition`.
fn record(event: &Event, definition: &Definition, target: &ImageTarget<'_>) -> Vec<u8> {
    let stored = || definition.args.iter().filter(|arg| arg.literal.is_none());
    let elements: usize = stored().map(|arg| usize::from(arg.ty.elements())).sum();
    let mut faults = vec![0_u8; elements.div_ceil(8)];
    let is_text = |kind| matches!(kind, TypeKind::String | TypeKind::UserString);
    let width = |arg: &qkprobe_lang::Arg| if is_text(arg.ty.kind) { 4 } else { usize::from(arg.ty.bytes) };
    let fixed: usize = stored().map(|arg| width(arg) * usize::from(arg.ty.elements())).sum();
    let tail_start = faults.len() + fixed;
    let (mut fields, mut tail) = (Vec::with_capacity(fixed), Vec::new());
    let mut bit = 0;
    for arg in stored() {
        let value = event.args.get(&arg.name).unwrap_or(&Value::Null);
        for index in 0..usize::from(arg.ty.elements()) {
            let element = if arg.ty.count.is_some() { value.get(index).unwrap_or(&Value::Null) } else { value };
            let number = if is_text(arg.ty.kind) {
                element.as_str().map(|text| {
                    let start = tail_start + tail.len();
                    text.chars().for_each(|c| push(c, &mut tail));
                    let len = tail_start + tail.len() - start;
                    ((start & 0xffff) | (len & 0xffff) << 16) as u64
                })
            } else {
                number(arg.ty.kind, element, target)
            };
            if number.is_none()
                && let Some(byte) = faults.get_mut(bit / 8)
            {
                *byte |= 1 << (bit % 8);
            }
            fields.extend(number.unwrap_or(0).to_le_bytes().into_iter().take(width(arg)));
            bit += 1;
        }
    }
    faults.into_iter().chain(fields).chain(tail).collect()
}

/// A character of a JSON string, as the byte or the bytes that it stands for.
fn push(c: char, out: &mut Vec<u8>) {
    if STAND_INS.contains(&c) {
        // Its low byte; the range says that there is nothing else.
        out.push((u32::from(c) & 0xff) as u8);
    } else {
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

fn number(kind: TypeKind, value: &Value, target: &ImageTarget<'_>) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| number.as_i64().map(i64::cast_unsigned)),
        Value::String(text) if kind == TypeKind::Char => {
            let mut bytes = Vec::new();
            text.chars().for_each(|c| push(c, &mut bytes));
            bytes.first().map(|byte| u64::from(*byte))
        }
        Value::String(text) => Some(address(text, target)),
        _ => None,
    }
}

/// The linked address of `0x1f` or `SYM+0xOFF/0xSIZE [MODULE]`; 0 for a name that the image does not have.
fn address(text: &str, target: &ImageTarget<'_>) -> u64 {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).unwrap_or(0);
    }
    let name = text.split(' ').next().unwrap_or_default();
    let (name, offset) = name.split_once('+').unwrap_or((name, "0x0"));
    let offset = offset.split('/').next().unwrap_or_default().trim_start_matches("0x");
    let start = match target.symbol(None, name) {
        SymbolLookup::One { addr, .. } => addr.0,
        SymbolLookup::Many(all) => all.first().map_or(0, |addr| addr.0),
        SymbolLookup::None => return 0,
    };
    start.wrapping_add(u64::from_str_radix(offset, 16).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use qkprobe_lang::{Command, Events};
    use qkprobe_symbols::{GuestAddr, KernelImage, Machine, SymbolTable};

    use super::*;

    fn image() -> KernelImage {
        let rows = [("f", 0x1000), ("g", 0x2000), ("h", 0x3000)];
        let rows = rows.map(|(name, addr)| (GuestAddr(addr), 'T', name, None));
        KernelImage::from_parts(SymbolTable::from_rows(rows).expect("few"), Vec::new(), None, Machine::X86_64)
    }

    fn judge(definition: &str, event: &str, filter: &str) -> bool {
        let image = image();
        let target =
            ImageTarget { arch: qkprobe_arch::by_name("x86_64").expect("this build has it"), image: Some(&image) };
        let command = qkprobe_lang::parse(definition, &target, &Events::new()).expect("a definition");
        let Command::Add(definition) = command else { panic!("no definition") };
        let filter = Filter::compile(filter, &definition, &target).expect("a filter");
        let event = Event::parse(event).expect("an event");
        let mut printed = b"{".to_vec();
        definition.print_json(&record(&event, &definition, &target), &target, &mut printed);
        printed.push(b'}');
        // The record says again what the event said.
        assert_eq!(serde_json::from_slice::<Value>(&printed).expect("JSON"), Value::Object(event.args.clone()));
        passes(&event, &filter, &definition, &target)
    }

    #[test]
    fn every_type_comes_back() {
        let definition = "p:e f a=%di:u32 b=%si:s16 c=%dx c2=%dx:x8 d=+0(%di):string e=\\\"lit\" s=%cx:symbol t=%cx:symstr \
                          z=%r8:char v=+0(%di):u8[3] w=+0(%di):string[2]";
        let event = r#"{"type":"event","time":1.0,"cpu":3,"group":"kprobes","event":"e","place":"f+0x4/0x1000","args":{"a":7,
            "b":-2,"c":"0x10","c2":"0x1f","d":"a\uefff\u001bé","e":"lit","s":"g+0x8/0x1000","t":"h+0x0/0x0","z":"x",
            "v":[1,null,3],"w":["one",null]}}"#;
        for (filter, wanted) in [
            ("a == 7", true),
            ("a > 7", false),
            ("b < 0", true),
            ("b == -2 && c == 0x10", true),
            ("c2 == 31", true),
            ("d ~ \"a*\"", true),
            ("d == \"b\"", false),
            ("e == \"lit\"", true),
            ("t ~ \"h+*\"", true),
            ("s.function == g", true),
            ("s.function == h", false),
            ("z == 120", true),
            ("CPU == 3", true),
            ("CPU == 2", false),
            ("__probe_ip == 0x1004", true),
        ] {
            assert_eq!(judge(definition, event, filter), wanted, "{filter}");
        }
    }

    #[test]
    fn what_could_not_be_read_passes_no_comparison() {
        let event = r#"{"type":"event","time":1.0,"cpu":0,"group":"kprobes","event":"e","place":"f+0x0/0x1000",
            "args":{"a":null,"d":null}}"#;
        let definition = "p:e f a=+0(%di):u64 d=+0(%si):string";
        for filter in ["a == 0", "a != 0", "d == \"\"", "d != \"\""] {
            assert!(!judge(definition, event, filter), "{filter}");
        }
    }
}
