//! One probe as the user asked for it: the kernel's definition, the filter, and this project's options.
//!
//! The options have one meaning and two spellings: words behind `do` in a line (`line`), keys of a `[[probe]]` table
//! (`config`). Both end in `Options`, which refuses what is said twice or contradicts itself.

mod line;

pub(crate) use line::read;

use crate::command::{Definition, Kind};
use crate::config::{Action, Privilege};
use crate::diag::Diagnostic;
use crate::effect::{EffectSpec, Effects, FlowChange, Halt, Replacement, Shown, When, value};
use crate::target::Target;

/// One probe: a line or a `[[probe]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// A line of `kprobe_events`.
    pub def: String,
    /// An ftrace filter.
    pub filter: Option<String>,
    /// What a hit does.
    pub action: Action,
    /// Which code is probed.
    pub privilege: Privilege,
    /// Whether it is armed at once.
    pub enabled: bool,
    /// Before or after the instruction.
    pub when: When,
    /// What it does to the guest.
    pub effects: EffectSpec,
    /// Whether an instruction that faulted and is executed again is recorded again.
    pub attempts: bool,
    /// Where it was written, for messages: `FILE:LINE`.
    pub origin: String,
}

impl ProbeConfig {
    /// A probe that records every hit of `def`.
    #[must_use]
    pub fn new(def: impl Into<String>, origin: impl Into<String>) -> Self {
        Self {
            def: def.into(),
            filter: None,
            action: Action::Trace,
            privilege: Privilege::Kernel,
            enabled: true,
            when: When::Pre,
            effects: EffectSpec::default(),
            attempts: false,
            origin: origin.into(),
        }
    }

    /// Compiles the effects for `definition`, which is what `def` was parsed to; `None` if there are none. Looks also at
    /// what the definition's kind has no room for: a return probe has no instruction to be behind of.
    ///
    /// # Errors
    /// As `EffectSpec::compile`.
    pub fn compile_effects(&self, definition: &Definition, target: &dyn Target) -> Result<Option<Effects>, Diagnostic> {
        if self.when == When::Post {
            let shown = Shown::new(definition, "post");
            if definition.kind != Kind::Kprobe {
                let help = "it hits when the function has returned: leave 'post' out";
                return Err(shown.error(0, "A return probe is on no side of an instruction").with_help(help));
            }
            if self.effects.flow.is_some() {
                return Err(shown.error(0, "What goes around an instruction does so before it"));
            }
        }
        self.effects.compile(definition, target)
    }
}

/// An option that cannot be: what is wrong, what to write instead, and where the option that is to blame was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) text: String,
    pub(crate) help: Option<String>,
    pub(crate) at: usize,
}

/// Attributes that say at which hits the effects happen.
pub(crate) const FAULT_KEYS: [&str; 6] = ["nth", "probability", "interval", "times", "space", "seed"];

/// A probe whose options are being read.
pub(crate) struct Options {
    pub(crate) probe: ProbeConfig,
    /// Which options were given, and where: byte offsets in the line or the file.
    given: Vec<(&'static str, usize)>,
}

impl Options {
    pub(crate) fn new(probe: ProbeConfig) -> Self {
        Self { probe, given: Vec::new() }
    }

    /// The same, seen from a file in which all of it was given at one place.
    pub(crate) fn all_given_at(mut self, at: usize) -> Self {
        self.given.iter_mut().for_each(|(_, given)| *given = at);
        self
    }

    /// Notes that `key` is given, for the first time.
    fn once(&mut self, key: &'static str, at: usize) -> Result<(), Refusal> {
        if self.is_given(key) {
            return Err(Refusal { text: format!("'{key}' is given twice"), help: None, at });
        }
        self.given.push((key, at));
        Ok(())
    }

    fn is_given(&self, key: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == key)
    }

    pub(crate) fn filter(&mut self, text: &str, at: usize) -> Result<(), Refusal> {
        self.once("filter", at)?;
        self.probe.filter = Some(text.to_owned());
        Ok(())
    }

    pub(crate) fn action(&mut self, action: Action, at: usize) -> Result<(), Refusal> {
        self.once("action", at)?;
        self.probe.action = action;
        Ok(())
    }

    pub(crate) fn privilege(&mut self, privilege: Privilege, at: usize) -> Result<(), Refusal> {
        self.once("privilege", at)?;
        self.probe.privilege = privilege;
        Ok(())
    }

    pub(crate) fn enabled(&mut self, enabled: bool, at: usize) -> Result<(), Refusal> {
        self.once("enabled", at)?;
        self.probe.enabled = enabled;
        Ok(())
    }

    pub(crate) fn when(&mut self, when: When, at: usize) -> Result<(), Refusal> {
        self.once("when", at)?;
        self.probe.when = when;
        Ok(())
    }

    pub(crate) fn attempts(&mut self, attempts: bool, at: usize) -> Result<(), Refusal> {
        self.once("attempts", at)?;
        self.probe.attempts = attempts;
        Ok(())
    }

    pub(crate) fn set(&mut self, text: &str, at: usize) -> Result<(), Refusal> {
        if !text.contains('=') {
            let help = Some("write LVALUE=VALUE: %ax=5, $retval=-ENOENT, +8(%di):u32=0".to_owned());
            return Err(Refusal { text: format!("'{text}' sets nothing"), help, at });
        }
        self.probe.effects.sets.push(text.to_owned());
        self.given.push(("set", at));
        Ok(())
    }

    pub(crate) fn skip(&mut self, at: usize) -> Result<(), Refusal> {
        self.flow("skip", FlowChange::Skip, at)
    }

    pub(crate) fn replace(&mut self, text: &str, at: usize) -> Result<(), Refusal> {
        let replacement = Replacement::parse(text).map_err(|text| Refusal { text, help: None, at })?;
        self.flow("replace", FlowChange::Replace(replacement), at)
    }

    pub(crate) fn override_text(&mut self, text: &str, at: usize) -> Result<(), Refusal> {
        let value = value::parse(text).map_err(|(text, help)| Refusal { text, help, at })?;
        self.override_number(value, at)
    }

    pub(crate) fn override_number(&mut self, value: i128, at: usize) -> Result<(), Refusal> {
        if !(i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value) {
            return Err(Refusal { text: "'override' has more than 64 bits".to_owned(), help: None, at });
        }
        // Two's complement.
        self.flow("override", FlowChange::Override(value as u64), at)
    }

    fn flow(&mut self, key: &'static str, flow: FlowChange, at: usize) -> Result<(), Refusal> {
        self.once(key, at)?;
        if let Some(other) = ["skip", "replace", "override"].into_iter().find(|one| *one != key && self.is_given(one)) {
            return Err(exclusive(other, key, at));
        }
        self.probe.effects.flow = Some(flow);
        Ok(())
    }

    pub(crate) fn stop(&mut self, at: usize) -> Result<(), Refusal> {
        self.once("stop", at)?;
        if self.is_given("quit") {
            return Err(exclusive("quit", "stop", at));
        }
        self.probe.effects.halt = Some(Halt::Stop);
        Ok(())
    }

    /// `quit`, and what decides at which hits.
    pub(crate) fn number(&mut self, key: &'static str, value: i128, at: usize) -> Result<(), Refusal> {
        self.once(key, at)?;
        let least = match key {
            "times" => -1,
            "nth" | "interval" => 1,
            _ => 0,
        };
        let greatest = match key {
            "quit" => i128::from(u8::MAX),
            "probability" => 100,
            "times" => i128::from(i64::MAX),
            _ => i128::from(u64::MAX),
        };
        if !(least..=greatest).contains(&value) {
            let text = format!("'{key}' must be {least} to {greatest}, not {value}");
            let help = match key {
                "nth" => Some("hits are counted from 1"),
                "times" => Some("-1 is no limit"),
                "probability" => Some("it is in percent"),
                "quit" => Some("it is the exit status of a process"),
                _ => None,
            };
            return Err(Refusal { text, help: help.map(str::to_owned), at });
        }
        if key == "quit" && self.is_given("stop") {
            return Err(exclusive("stop", "quit", at));
        }
        let fault = &mut self.probe.effects.fault;
        // The range is checked: nothing is cut.
        match key {
            "quit" => self.probe.effects.halt = Some(Halt::Quit(value as u8)),
            "nth" => fault.nth = Some(value as u64),
            "probability" => fault.probability = value as u8,
            "interval" => fault.interval = value as u64,
            "times" => fault.times = value as i64,
            "space" => fault.space = value as u64,
            _ => fault.seed = value as u64,
        }
        Ok(())
    }

    /// Looks at all options together.
    pub(crate) fn finish(self) -> Result<ProbeConfig, Refusal> {
        let probe = &self.probe;
        let given = |keys: &[&str]| self.given.iter().find(|(key, _)| keys.contains(key)).copied();
        if let Some((key, at)) = given(&FAULT_KEYS).filter(|_| probe.effects.is_empty()) {
            let text = format!("'{key}' says at which hits an effect happens, and this probe has none");
            let help = "effects are set, skip, replace, override, stop and quit".to_owned();
            return Err(Refusal { text, help: Some(help), at });
        }
        if let Some((key, at)) = given(&["skip", "replace", "override"]).filter(|_| probe.when == When::Post) {
            let text = format!("'{key}' acts before the instruction, and this probe after it");
            let help = "leave 'post' out, or give the effect to a probe of its own".to_owned();
            return Err(Refusal { text, help: Some(help), at });
        }
        Ok(self.probe)
    }
}

fn exclusive(one: &str, other: &str, at: usize) -> Refusal {
    Refusal { text: format!("'{one}' and '{other}' exclude each other"), help: None, at }
}
