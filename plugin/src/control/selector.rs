//! Which probes a request means: the kernel's `-:` syntax.

use std::fmt;

use super::backend::Refusal;

const USAGE: &str = "write EVENT, GROUP/EVENT, GROUP/ for all of a group, or * for all";

/// Which probes a request means. Its fields are those of `qkprobe_lang::Delete`; all empty means every probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    /// Only this group; any, if the user gave none.
    pub(crate) group: Option<String>,
    /// Only this event; all of the group for `GROUP/`.
    pub(crate) event: Option<String>,
    /// The place as listings show it, then arguments as `NAME=FETCH`: only probes that begin so.
    pub(crate) head: Vec<String>,
}

impl Selector {
    /// Parses `GROUP/EVENT`, `EVENT`, `GROUP/` or `*`, and words behind it as `-:EVENT PLACE NAME=FETCH...` has them.
    ///
    /// # Errors
    /// `EINVAL` for an empty one. Names are not checked: one that cannot exist is not found (`ENOENT`), as in the kernel.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let mut words = text.split_ascii_whitespace();
        let Some(names) = words.next() else {
            return Err(Refusal::invalid(format!("No event name: {USAGE}")));
        };
        let head = words.map(str::to_owned).collect();
        if names == "*" {
            return Ok(Self { head, ..Self::default() });
        }
        // A dot separates only where there is no slash: Linux `traceprobe_parse_event_name`.
        let (group, event) = match names.split_once('/').or_else(|| names.split_once('.')) {
            Some((group, event)) => (Some(group.to_owned()), event),
            None => (None, names),
        };
        Ok(Self { group, event: Some(event.to_owned()).filter(|event| !event.is_empty()), head })
    }

    /// Parses a line that begins with `-`.
    ///
    /// # Errors
    /// As [`Selector::parse`]; also a line without the colon, which the kernel refuses.
    pub(crate) fn parse_line(line: &str) -> Result<Self, Refusal> {
        let line = line.split('#').next().unwrap_or_default();
        let names = line.strip_prefix("-:").ok_or_else(|| {
            Refusal::invalid("No event name to delete: write -:EVENT, -:GROUP/EVENT, or -:GROUP/ for all of a group")
        })?;
        if names.starts_with(|c: char| c.is_ascii_whitespace()) {
            return Err(Refusal::invalid("No event name to delete: it stands directly behind the colon"));
        }
        Self::parse(names)
    }

    /// Whether group and event fit; the place is not looked at.
    #[cfg(test)]
    pub(crate) fn names(&self, group: &str, event: &str) -> bool {
        self.group.as_ref().is_none_or(|wanted| wanted == group)
            && self.event.as_ref().is_none_or(|wanted| wanted == event)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.group, &self.event) {
            (None, None) => f.write_str("*")?,
            (None, Some(event)) => f.write_str(event)?,
            (Some(group), event) => write!(f, "{group}/{}", event.as_deref().unwrap_or_default())?,
        }
        self.head.iter().try_for_each(|word| write!(f, " {word}"))
    }
}
