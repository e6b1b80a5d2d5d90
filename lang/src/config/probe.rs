//! A `[[probe]]` table: the line in `def`, then what the other keys add to it.

use std::ops::Range;

use toml::de::{DeInteger, DeValue};

use super::{Action, ConfigError, Privilege, Reader, Value};
use crate::diag::Diagnostic;
use crate::effect::When;
use crate::options::{FAULT_KEYS, Options, ProbeConfig, Refusal, read};

const KEYS: [&str; 19] = [
    "def",
    "filter",
    "action",
    "privilege",
    "enabled",
    "when",
    "attempts",
    "set",
    "skip",
    "replace",
    "override",
    "stop",
    "quit",
    "nth",
    "probability",
    "interval",
    "times",
    "space",
    "seed",
];

impl Reader<'_> {
    pub(super) fn probes(&self, value: &Value<'_>) -> Result<Vec<ProbeConfig>, ConfigError> {
        let DeValue::Array(list) = value.get_ref() else {
            let error = self.wrong_type("probe", value, "a list of tables");
            return Err(ConfigError { help: Some("write [[probe]] with two brackets".to_owned()), ..error });
        };
        list.iter().map(|one| self.probe(one)).collect()
    }

    fn probe(&self, value: &Value<'_>) -> Result<ProbeConfig, ConfigError> {
        let DeValue::Table(table) = value.get_ref() else { return Err(self.wrong_type("probe", value, "a table")) };
        let Some((_, def)) = table.iter().find(|(key, _)| key.get_ref().as_ref() == "def") else {
            if let Some((key, _)) = table.iter().find(|(key, _)| !KEYS.contains(&key.get_ref().as_ref())) {
                return Err(self.unknown_key(key.span(), key.get_ref(), &KEYS));
            }
            let help = "def = \"p:NAME PLACE ARG...\", a line of kprobe_events".to_owned();
            return Err(ConfigError { help: Some(help), ..self.error(value.span(), "this probe has no 'def'") });
        };
        let mut options = self.def(def)?;
        for (key, value) in table {
            self.option(&mut options, key.get_ref().as_ref(), value, key.span())?;
        }
        options.finish().map_err(|refusal| self.refused(refusal))
    }

    /// The line, with the caret inside it where the file shows it as it is.
    fn def(&self, value: &Value<'_>) -> Result<Options, ConfigError> {
        let whole = self.string("def", value)?;
        let line = whole.trim();
        let span = value.span();
        let origin = format!("{}:{}", self.name, self.line(span.start));
        let options = read(line, origin).map_err(|error| {
            let Diagnostic { text, column, help, .. } = error;
            let indent = whole.len() - whole.trim_start().len();
            let inside = column.map_or(span.start, |column| span.start + 1 + indent + column);
            let as_it_is = self.text.get(span.start + 1..).is_some_and(|text| text.starts_with(whole));
            let at = if as_it_is { inside } else { span.start };
            ConfigError { help, ..self.error(at..at, text) }
        })?;
        Ok(options.all_given_at(span.start))
    }

    fn refused(&self, Refusal { text, help, at }: Refusal) -> ConfigError {
        ConfigError { help, ..self.error(at..at, text) }
    }

    fn option(
        &self,
        options: &mut Options,
        key: &str,
        value: &Value<'_>,
        key_span: Range<usize>,
    ) -> Result<(), ConfigError> {
        let at = value.span().start;
        let done = match key {
            "def" => Ok(()),
            "filter" => options.filter(self.string("filter", value)?, at),
            "action" => {
                let choices = [("trace", Action::Trace), ("count", Action::Count)];
                options.action(self.choice("action", value, &choices)?, at)
            }
            "privilege" => {
                let choices = [("kernel", Privilege::Kernel), ("user", Privilege::User), ("any", Privilege::Any)];
                options.privilege(self.choice("privilege", value, &choices)?, at)
            }
            "when" => options.when(self.choice("when", value, &[("pre", When::Pre), ("post", When::Post)])?, at),
            "enabled" => options.enabled(self.flag("enabled", value)?, at),
            "attempts" => options.attempts(self.flag("attempts", value)?, at),
            "skip" if self.flag("skip", value)? => options.skip(at),
            "stop" if self.flag("stop", value)? => options.stop(at),
            "skip" | "stop" => Ok(()),
            "set" => return self.sets(options, value),
            "replace" => options.replace(self.string("replace", value)?, at),
            "override" => match value.get_ref() {
                DeValue::String(text) => options.override_text(text, at),
                DeValue::Integer(number) => options.override_number(self.integer("override", number, at)?, at),
                _ => return Err(self.wrong_type("override", value, "an integer or a string like \"-ENOENT\"")),
            },
            key => {
                let known = ["quit"].into_iter().chain(FAULT_KEYS).find(|known| *known == key);
                let known = known.ok_or_else(|| self.unknown_key(key_span, key, &KEYS))?;
                let DeValue::Integer(number) = value.get_ref() else {
                    return Err(self.wrong_type(known, value, "an integer"));
                };
                options.number(known, self.integer(known, number, at)?, at)
            }
        };
        done.map_err(|refusal| {
            let twice = refusal.text.ends_with("is given twice");
            let help = twice.then(|| "'def' says it already".to_owned()).or(refusal.help);
            self.refused(Refusal { help, ..refusal })
        })
    }

    fn sets(&self, options: &mut Options, value: &Value<'_>) -> Result<(), ConfigError> {
        let mut set = |one: &Value<'_>| {
            let done = options.set(self.string("set", one)?, one.span().start);
            done.map_err(|refusal| self.refused(refusal))
        };
        match value.get_ref() {
            DeValue::Array(list) => list.iter().try_for_each(set),
            DeValue::String(_) => set(value),
            _ => Err(self.wrong_type("set", value, "a string or a list of strings")),
        }
    }

    fn integer(&self, key: &str, number: &DeInteger<'_>, at: usize) -> Result<i128, ConfigError> {
        let value = i128::from_str_radix(number.as_str(), number.radix());
        value.map_err(|_| self.error(at..at, format!("'{key}' is too large")))
    }
}
