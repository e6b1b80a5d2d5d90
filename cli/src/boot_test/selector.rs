//! Which hits an expectation is about: an event, and a filter over its fields.

use std::sync::Arc;

use qkprobe_lang::{Action, Definition, Filter};

use crate::ImageTarget;
use crate::check::Checked;
use crate::event::Event;
use crate::record;
use crate::units::nearest;

/// `EVENT` or `EVENT if FILTER`, compiled.
#[derive(Debug)]
pub(crate) struct Selector {
    pub(crate) text: String,
    group: Option<String>,
    event: String,
    filter: Option<(Filter, Arc<Definition>)>,
    /// Its probe only counts: there are no events, but a number.
    pub(crate) counts_only: bool,
}

impl Selector {
    /// Compiles it for the test's probes.
    pub(crate) fn new(text: &str, probes: &[Checked], target: &ImageTarget<'_>) -> Result<Self, String> {
        let (names, filter) = text.split_once(" if ").map_or((text, None), |(names, filter)| (names, Some(filter)));
        let names = names.trim();
        let (group, event) = match names.split_once('/') {
            Some((group, event)) => (Some(group.to_owned()), event),
            None => (None, names),
        };
        let is_it = |probe: &&Checked| {
            probe.definition.event == event && group.as_ref().is_none_or(|group| *group == probe.definition.group)
        };
        let Some(probe) = probes.iter().find(is_it) else {
            let known: Vec<&str> = probes.iter().map(|probe| probe.definition.event.as_str()).collect();
            let hint = match nearest(event, known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None if known.is_empty() => "this test has no probe".to_owned(),
                None => format!("this test has {}", known.join(", ")),
            };
            return Err(format!("no probe '{names}': {hint}"));
        };
        let counts_only = probes.iter().filter(is_it).any(|probe| probe.config.action == Action::Count);
        let filter = filter
            .map(|filter| match Filter::compile(filter, &probe.definition, target) {
                Ok(_) if counts_only => Err(format!("'{names}' only counts: give the filter to the probe itself")),
                Ok(filter) => Ok((filter, Arc::clone(&probe.definition))),
                Err(error) => Err(error.to_string()),
            })
            .transpose()?;
        Ok(Self { text: text.trim().to_owned(), group, event: event.to_owned(), filter, counts_only })
    }

    /// Whether it means this event, whatever its fields.
    pub(crate) fn names(&self, group: &str, event: &str) -> bool {
        self.event == event && self.group.as_ref().is_none_or(|wanted| wanted == group)
    }

    /// Whether it means this hit.
    pub(crate) fn matches(&self, event: &Event, target: &ImageTarget<'_>) -> bool {
        self.names(&event.group, &event.event)
            && self.filter.as_ref().is_none_or(|(filter, definition)| record::passes(event, filter, definition, target))
    }
}
