//! A record of the trace, as `format=json` writes it (docs/output.md).

use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

/// One hit.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Event {
    /// Seconds of the host's monotonic clock since QEMU made the machine.
    pub time: f64,
    /// The vCPU; `None` where QEMU does not tell.
    pub cpu: Option<u32>,
    /// The event's group.
    pub group: String,
    /// The event's name.
    pub event: String,
    /// `SYM+0xOFF/0xSIZE`.
    pub place: String,
    /// Returns: where to.
    #[serde(default)]
    pub caller: Option<String>,
    /// One member per argument.
    #[serde(default)]
    pub args: Map<String, Value>,
}

impl Event {
    /// Reads a line; `None` for one that is no event (`start`, `text`, `lost`, `end`).
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        Self::of(serde_json::from_str(line).ok()?)
    }

    /// The same of a line that was read already.
    pub(crate) fn of(value: Value) -> Option<Self> {
        if value.get("type").and_then(Value::as_str) != Some("event") {
            return None;
        }
        serde_json::from_value(value).ok()
    }

    /// An argument as a number, whatever its type prints as.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i128> {
        match self.args.get(name)? {
            Value::Number(number) => number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from)),
            Value::String(text) => {
                let digits = text.strip_prefix("0x")?;
                u64::from_str_radix(digits, 16).ok().map(i128::from)
            }
            _ => None,
        }
    }

    /// An argument as text: strings as they are, anything else as JSON.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        match self.args.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        }
    }
}

/// `4.394937 cpu0 open (do_sys_openat2+0x0/0x170) file="/etc/passwd"`: fit for a terminal.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, cpu, event, place, caller, args, .. } = self;
        write!(f, "{time:.6}")?;
        if let Some(cpu) = cpu {
            write!(f, " cpu{cpu}")?;
        }
        match caller {
            Some(caller) => write!(f, " {event} ({caller} <- {place})")?,
            None => write!(f, " {event} ({place})")?,
        }
        for (name, value) in args {
            let text = match value {
                Value::Null => "(fault)".to_owned(),
                other => crate::escape::line(other.to_string().as_bytes()),
            };
            write!(f, " {name}={text}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_trace() {
        let line = r#"{"type":"event","time":4.394937123,"cpu":1,"group":"g","event":"open","place":"f+0x0/0x1","args":{"file":"/etc/\u001b","n":-2,"p":"0xffffffffffffffff","bad":null}}"#;
        let event = Event::parse(line).expect("an event");
        assert_eq!((event.cpu, event.event.as_str(), event.caller.as_deref()), (Some(1), "open", None));
        assert_eq!((event.number("n"), event.number("p")), (Some(-2), Some(i128::from(u64::MAX))));
        assert_eq!(event.text("file").as_deref(), Some("/etc/\u{1b}"));
        assert_eq!(event.text("bad"), None);
        // By name: JSON objects have no order.
        let text = r#"4.394937 cpu1 open (f+0x0/0x1) bad=(fault) file="/etc/\u001b" n=-2 p="0xffffffffffffffff""#;
        assert_eq!(event.to_string(), text);
        for other in [r#"{"type":"end","written":1,"lost":0}"#, "{", ""] {
            assert_eq!(Event::parse(other), None);
        }
    }
}
