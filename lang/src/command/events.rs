//! The events that exist already, and the command that removes some.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Definition, Kind};
use crate::diag::{self, Diagnostic, Words};

/// The probes defined so far, by event: several probes may share one.
#[derive(Clone, Debug, Default)]
pub struct Events {
    groups: HashMap<String, HashMap<String, Vec<Arc<Definition>>>>,
    len: usize,
}

impl Events {
    /// No event yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many probes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a probe; an event of the same names gets it as a further one.
    pub fn insert(&mut self, definition: Arc<Definition>) {
        let group = self.groups.entry(definition.group.clone()).or_default();
        group.entry(definition.event.clone()).or_default().push(definition);
        self.len += 1;
    }

    /// Removes exactly this probe; false if it is not there.
    pub fn remove(&mut self, definition: &Arc<Definition>) -> bool {
        let Some(group) = self.groups.get_mut(&definition.group) else { return false };
        let Some(probes) = group.get_mut(&definition.event) else { return false };
        let Some(at) = probes.iter().position(|probe| Arc::ptr_eq(probe, definition)) else { return false };
        probes.remove(at);
        self.len -= 1;
        if probes.is_empty() {
            group.remove(&definition.event);
            if group.is_empty() {
                self.groups.remove(&definition.group);
            }
        }
        true
    }

    /// The probes of one event, in the order of their definition.
    #[must_use]
    pub fn get(&self, group: &str, event: &str) -> &[Arc<Definition>] {
        self.groups.get(group).and_then(|events| events.get(event)).map_or(&[], Vec::as_slice)
    }

    /// The probes that a delete command means, in no particular order of events.
    #[must_use]
    pub fn matching(&self, delete: &Delete) -> Vec<Arc<Definition>> {
        let mut found = Vec::new();
        let groups = self.groups.iter().filter(|(name, _)| delete.group.as_ref().is_none_or(|group| group == *name));
        for (_, events) in groups {
            match &delete.event {
                Some(event) => found.extend(events.get(event).into_iter().flatten().cloned()),
                None => found.extend(events.values().flatten().cloned()),
            }
        }
        found.retain(|definition| delete.matches(definition));
        found
    }
}

/// `-:[GRP/]EVENT [PLACE [NAME=FETCH...]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// Only this group; any, if the user gave none.
    pub group: Option<String>,
    /// Only this event; all of the group for `-:GRP/`.
    pub event: Option<String>,
    /// The place as listings show it, then arguments as `NAME=FETCH`: only probes that begin so.
    pub head: Vec<String>,
}

impl Delete {
    /// Whether the command means this probe.
    #[must_use]
    pub fn matches(&self, definition: &Definition) -> bool {
        let Some((place, args)) = self.head.split_first() else { return self.names(definition) };
        self.names(definition)
            && *place == definition.place.text
            && args.len() <= definition.args.len()
            && args.iter().zip(&definition.args).all(|(wanted, arg)| {
                wanted.split_once('=').is_some_and(|(name, text)| name == arg.name && text == arg.text)
            })
    }

    fn names(&self, definition: &Definition) -> bool {
        self.group.as_ref().is_none_or(|group| *group == definition.group)
            && self.event.as_ref().is_none_or(|event| *event == definition.event)
    }
}

/// Parses a line whose first word begins with `-`.
pub(super) fn parse_delete(words: &[&str], existing: &Events) -> Result<Delete, Diagnostic> {
    let error = |text, errno| Diagnostic::unlogged(text, errno, words);
    let usage = "write -:EVENT, -:GROUP/EVENT, or -:GROUP/ for all of a group";
    let Some((first, rest)) = words.split_first() else { return Err(error("Nothing to delete", diag::EINVAL)) };
    let Some(names) = first.strip_prefix("-:").filter(|names| !names.is_empty()) else {
        return Err(error("No event name to delete", diag::EINVAL).with_help(usage));
    };
    let (group, event) = match names.split_once('/') {
        Some((group, event)) => (Some(group.to_owned()), event),
        None => (None, names),
    };
    let event = Some(event.to_owned()).filter(|event| !event.is_empty());
    let delete = Delete { group, event, head: rest.iter().map(|word| (*word).to_owned()).collect() };
    if existing.matching(&delete).is_empty() {
        return Err(error("No such probe event", diag::ENOENT));
    }
    Ok(delete)
}

/// The rules for a further probe of an event that exists.
pub(super) fn check_further(words: Words<'_>, new: &Definition, old: &[Arc<Definition>]) -> Result<(), Diagnostic> {
    let Some(first) = old.first() else { return Ok(()) };
    if matches!(new.kind, Kind::Kprobe) != matches!(first.kind, Kind::Kprobe) {
        return Err(words.error(0, 0, diag::DIFF_PROBE_TYPE));
    }
    let differs = new.args.iter().zip(&first.args).position(|(a, b)| a.name != b.name || !a.ty.is_same(b.ty));
    let differs = if new.args.len() == first.args.len() {
        differs
    } else {
        // The kernel looks at the lengths first.
        Some(new.args.len().min(first.args.len()))
    };
    if let Some(index) = differs {
        let wanted: Vec<_> = first.args.iter().map(|arg| format!("{}={}", arg.name, arg.text)).collect();
        let help = if wanted.is_empty() {
            "the event has no arguments".to_owned()
        } else {
            format!("names and types must be those of: {}", wanted.join(" "))
        };
        return Err(words.error(index + 2, 0, diag::DIFF_ARG_TYPE).with_help(help));
    }
    let is_same = |probe: &Arc<Definition>| {
        probe.place.text == new.place.text && probe.args.iter().zip(&new.args).all(|(a, b)| a.text == b.text)
    };
    if old.iter().any(is_same) {
        return Err(words.error(0, 0, diag::SAME_PROBE));
    }
    Ok(())
}
