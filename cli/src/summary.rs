//! The plugin's summary, as docs/output.md has it.

use serde::{Deserialize, Deserializer};

/// What a run came to.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Summary {
    /// QEMU's release.
    #[serde(default)]
    pub qemu: String,
    /// The version of the plugin API that was spoken.
    #[serde(default)]
    pub api: u32,
    /// QEMU's name of the guest's architecture.
    #[serde(default)]
    pub target: String,
    /// Runtime minus linked address.
    #[serde(default)]
    pub slide: Option<String>,
    /// What kept probes from arming.
    #[serde(default)]
    pub problem: Option<String>,
    /// Records that were written.
    #[serde(default)]
    pub written: u64,
    /// Who ended QEMU on purpose, if somebody did.
    #[serde(default)]
    pub quit: Option<Quit>,
    /// Records that could not be written.
    #[serde(default)]
    pub lost: u64,
    /// All probes, in the order of registration.
    #[serde(default)]
    pub probes: Vec<ProbeSummary>,
    /// The probes of `watch=`.
    #[serde(default)]
    pub watched: Vec<WatchSummary>,
}

/// Who ended QEMU on purpose, and with which status.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Quit {
    /// QEMU's exit status.
    pub status: u8,
    /// `GROUP/EVENT` of the probe that says `quit`; `None`: a client of the control socket.
    pub by: Option<String>,
}

/// A probe of `watch=`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct WatchSummary {
    /// Its group.
    pub group: String,
    /// The event's name.
    pub name: String,
    /// Executions that passed the filter.
    pub hits: u64,
}

/// One probe of a [`Summary`].
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ProbeSummary {
    /// The event's name.
    pub name: String,
    /// Its group.
    #[serde(default)]
    pub group: String,
    /// `p`, `r`, `count`, ...
    #[serde(default)]
    pub kind: String,
    /// The place as the user wrote it.
    #[serde(default)]
    pub place: String,
    /// The guest's virtual address; `None` while the place's module was never seen.
    #[serde(default, deserialize_with = "address")]
    pub address: Option<u64>,
    /// Executions that passed the filter.
    pub hits: u64,
    /// Executions that could not be tracked.
    #[serde(default)]
    pub missed: u64,
    /// Hits without a record.
    #[serde(default)]
    pub dropped: u64,
    /// Executions that the filter rejected.
    #[serde(default)]
    pub filtered: u64,
    /// Hits that changed the guest.
    #[serde(default)]
    pub effects: u64,
    /// Executions of an instruction that ran again after an exception that it had raised.
    #[serde(default)]
    pub reexecuted: u64,
    /// Calls that have not returned.
    #[serde(default)]
    pub pending: u64,
    /// Calls that never will.
    #[serde(default)]
    pub abandoned: u64,
}

impl Summary {
    /// The probe of this name, for a test that knows that it is there.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    #[track_caller]
    #[allow(clippy::panic, reason = "what an assertion is for")]
    pub fn probe(&self, name: &str) -> &ProbeSummary {
        self.probes.iter().find(|probe| probe.name == name).unwrap_or_else(|| panic!("no probe {name} in {self:?}"))
    }
}

/// An address is a number, or as text `0x...`: JSON readers that know only floating point lose a kernel address's last
/// bits.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Number(u64),
        Text(String),
    }
    match Option::<Form>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Form::Number(address)) => Ok(Some(address)),
        Some(Form::Text(text)) => {
            let digits = text.strip_prefix("0x").unwrap_or(&text);
            u64::from_str_radix(digits, 16).map(Some).map_err(serde::de::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_address() {
        let text = r#"{"qemu": "11.1.3", "api": 7, "target": "x86_64", "more": 1, "probes": [
            {"name": "a", "kind": "p", "place": "f+4", "address": "0xffffffff81000004", "hits": 3, "missed": 1, "dropped": 2},
            {"name": "b", "address": 4096, "hits": 0}, {"name": "c", "address": null, "hits": 0}]}"#;
        let summary: Summary = serde_json::from_str(text).expect("a summary");
        assert_eq!(summary.probe("a").address, Some(0xffff_ffff_8100_0004));
        assert_eq!(summary.probe("b").address, Some(0x1000));
        assert_eq!(summary.probe("c").address, None);
        assert_eq!((summary.probe("a").missed, summary.probe("a").dropped), (1, 2));
    }
}
