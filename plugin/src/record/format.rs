//! Lines of text: the kernel's `trace` line, and one JSON object a line.

use qkprobe_lang::{Format, SymbolNames};

use super::Output;
use super::ring::Record;

/// What the first lines of a trace say.
#[derive(Clone, Debug)]
pub(crate) struct Preamble {
    pub(crate) qemu: String,
    pub(crate) api: i32,
    pub(crate) target: &'static str,
    /// The clock's value when the machine started.
    pub(crate) epoch: u64,
}

/// Appends the lines that precede all records.
pub(crate) fn start(format: Format, preamble: &Preamble, out: &mut Vec<u8>) {
    let Preamble { qemu, api, target, .. } = preamble;
    let version = env!("CARGO_PKG_VERSION");
    let text = match format {
        Format::Ftrace => format!(
            "# tracer: qkprobe {version}\n\
             #\n\
             # QEMU {qemu}, plugin API {api}, target {target}\n\
             # TIMESTAMP: seconds of the host's monotonic clock since QEMU made the machine.\n\
             # TASK-PID and the context flags are not looked up: <...>-0 and dots stand for them.\n\
             # Records reach this file within 0.1 s. A file without \"# end\" as its last line was cut short.\n\
             #\n\
             #           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION\n\
             #              | |         |   |||||     |         |\n"
        ),
        Format::Json => {
            let head = serde_json::json!({
                "type": "start", "qkprobe": version, "qemu": qemu, "api": api, "target": target,
                "clock": "seconds of the host's monotonic clock since QEMU made the machine",
                "whole": "only if the last line has the type end",
            });
            format!("{head}\n")
        }
    };
    out.extend_from_slice(text.as_bytes());
}

/// Appends the last line: a trace that has it is whole.
pub(crate) fn end(format: Format, written: u64, lost: u64, out: &mut Vec<u8>) {
    let text = match format {
        Format::Ftrace => format!("# end: {written} records written, {lost} lost\n"),
        Format::Json => format!("{}\n", serde_json::json!({"type": "end", "written": written, "lost": lost})),
    };
    out.extend_from_slice(text.as_bytes());
}

/// Appends a line that says how many records are missing at this point.
pub(crate) fn lost(format: Format, count: u64, out: &mut Vec<u8>) {
    let text = match format {
        Format::Ftrace => format!("# lost: {count} records could not be written\n"),
        Format::Json => format!("{}\n", serde_json::json!({"type": "lost", "records": count})),
    };
    out.extend_from_slice(text.as_bytes());
}

/// Appends one record. A million a second pass here: no `format!`.
pub(crate) fn record(
    format: Format,
    epoch: u64,
    cpu: Option<u32>,
    output: &Output,
    record: &Record<'_>,
    names: &dyn SymbolNames,
    out: &mut Vec<u8>,
) {
    let time = record.header.time.saturating_sub(epoch);
    match format {
        Format::Ftrace => {
            out.extend_from_slice(b"           <...>-0       [");
            match cpu {
                Some(cpu) => padded(u64::from(cpu), 3, b'0', out),
                None => out.extend_from_slice(b"---"),
            }
            out.extend_from_slice(b"] ..... ");
            padded(time / 1_000_000_000, 5, b' ', out);
            out.push(b'.');
            padded(time % 1_000_000_000 / 1000, 6, b'0', out);
            out.extend_from_slice(b": ");
            out.extend_from_slice(output.name.as_bytes());
            out.extend_from_slice(b": (");
            out.extend_from_slice(output.place.as_bytes());
            out.push(b')');
            output.definition.print_ftrace(record.data, names, out);
        }
        Format::Json => {
            out.extend_from_slice(b"{\"type\":\"event\",\"time\":");
            padded(time / 1_000_000_000, 1, b'0', out);
            out.push(b'.');
            padded(time % 1_000_000_000, 9, b'0', out);
            out.extend_from_slice(b",\"cpu\":");
            match cpu {
                Some(cpu) => padded(u64::from(cpu), 1, b'0', out),
                None => out.extend_from_slice(b"null"),
            }
            out.extend_from_slice(b",\"group\":\"");
            out.extend_from_slice(output.group.as_bytes());
            out.extend_from_slice(b"\",\"event\":\"");
            out.extend_from_slice(output.name.as_bytes());
            out.extend_from_slice(b"\",\"place\":\"");
            out.extend_from_slice(output.place.as_bytes());
            out.extend_from_slice(b"\",\"args\":{");
            output.definition.print_json(record.data, names, out);
            out.extend_from_slice(b"}}");
        }
    }
    out.push(b'\n');
}

fn padded(value: u64, width: usize, fill: u8, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value).as_bytes();
    for _ in digits.len()..width {
        out.push(fill);
    }
    out.extend_from_slice(digits);
}
