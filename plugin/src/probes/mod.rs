//! The probes of this run, as their users know them: by name. The registry knows them by place, the counters and the writer
//! by their output's index.

mod backend;
mod change;
pub(crate) mod prepare;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use qkprobe_lang::{Action, Events};

use crate::qemu::inline_count::InlineCounter;
use crate::record::Output;
use crate::registry::{Place, ProbeId};

/// One probe.
#[derive(Debug)]
pub(crate) struct Listed {
    /// `None` while it is pending.
    pub(crate) id: Option<ProbeId>,
    pub(crate) place: Option<Place>,
    pub(crate) output: Arc<Output>,
    pub(crate) action: Action,
    /// `p` or `r`.
    pub(crate) kind: &'static str,
    pub(crate) enabled: bool,
    /// It waits for returns or for the end of instructions.
    pub(crate) waits: bool,
    pub(crate) inline: Option<InlineUse>,
}

/// A probe's share of a counter that all probes of its place share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InlineUse {
    pub(crate) counter: InlineCounter,
    /// The counter's value when this probe began to count; `None` while it is disabled.
    pub(crate) since: Option<u64>,
    /// What it counted before.
    pub(crate) before: u64,
}

impl InlineUse {
    /// What it has counted, given the counter's value now.
    pub(crate) fn total(&self, now: u64) -> u64 {
        self.before + self.since.map_or(0, |since| now.wrapping_sub(since))
    }
}

/// All of them, by their output's index.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    pub(crate) events: Events,
    pub(crate) list: BTreeMap<u32, Listed>,
    /// One counter a place, kept as long as the process: a translated block may always add to it.
    pub(crate) inline_by_place: HashMap<Place, InlineCounter>,
    /// The engine's own, while any probe waits.
    pub(crate) watches: Vec<ProbeId>,
}

impl Probes {
    /// The users' probes: those that clients see and change, and that the summary lists.
    pub(crate) fn of_users(&self) -> impl Iterator<Item = (u32, &Listed)> {
        self.list.iter().filter(|(_, probe)| !probe.output.reserved).map(|(output, probe)| (*output, probe))
    }

    /// The probes of `watch=`.
    pub(crate) fn reserved(&self) -> impl Iterator<Item = (u32, &Listed)> {
        self.list.iter().filter(|(_, probe)| probe.output.reserved).map(|(output, probe)| (*output, probe))
    }

    /// The outputs of the users' probes that `wanted` names.
    pub(crate) fn select(&self, wanted: impl Fn(&Listed) -> bool) -> Vec<u32> {
        self.of_users().filter(|(_, probe)| wanted(probe)).map(|(output, _)| output).collect()
    }
}
