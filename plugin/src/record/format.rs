//! Lines of text: the kernel's `trace` line, and one JSON object a line.

use qkprobe_lang::{Format, SymbolNames};

use super::ring::Record;
use super::{Notice, Output};

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
            let data = match &output.function {
                Some(function) => {
                    let data = caller(record.data, names, out);
                    out.extend_from_slice(b" <- ");
                    out.extend_from_slice(function.as_bytes());
                    data
                }
                None => {
                    out.extend_from_slice(output.place.as_bytes());
                    record.data
                }
            };
            out.push(b')');
            if let Some(definition) = &output.definition {
                definition.print_ftrace(data, names, out);
            }
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
            let mut data = record.data;
            if output.function.is_some() {
                out.extend_from_slice(b"\",\"caller\":\"");
                data = caller(record.data, names, out);
            }
            out.extend_from_slice(b"\",\"args\":{");
            if let Some(definition) = &output.definition {
                definition.print_json(data, names, out);
            }
            out.extend_from_slice(b"}}");
        }
    }
    out.push(b'\n');
}

/// Writes where a function returned to, fit for both formats; gives the rest of the record.
fn caller<'a>(data: &'a [u8], names: &dyn SymbolNames, out: &mut Vec<u8>) -> &'a [u8] {
    let Some((caller, rest)) = data.split_first_chunk() else { return data };
    let caller = u64::from_le_bytes(*caller);
    let mut name = String::new();
    if names.name(caller, &mut name) {
        out.extend_from_slice(crate::probes::prepare::plain(&name).as_bytes());
    } else {
        out.extend_from_slice(format!("{caller:#x}").as_bytes());
    }
    rest
}

/// Appends what happened to the text under a probe, and other things that are no records.
pub(crate) fn notice(format: Format, epoch: u64, notice: &Notice, out: &mut Vec<u8>) {
    let Notice { time, kind, place, text } = notice;
    let seconds = time.saturating_sub(epoch) as f64 / 1e9;
    let line = match format {
        Format::Ftrace => format!("# {kind}: {seconds:.6}: {place}: {text}\n"),
        Format::Json => {
            format!("{}\n", serde_json::json!({"type": kind, "time": seconds, "place": place, "text": text}))
        }
    };
    out.extend_from_slice(line.as_bytes());
}

fn padded(value: u64, width: usize, fill: u8, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value).as_bytes();
    for _ in digits.len()..width {
        out.push(fill);
    }
    out.extend_from_slice(digits);
}
