//! TOML files: settings, and `[[probe]]` tables.
//!
//! ```toml
//! kernel = "vmlinux"            # or a list; relative paths are relative to this file
//! out = "trace.txt"
//! format = "ftrace"             # or "json"
//! summary = "summary.json"
//! backpressure = "lossless"     # or "drop"
//! slide = "auto"                # or "0x..."
//!
//! [[probe]]
//! def = "p:open do_sys_openat2 file=+0($arg2):ustring"
//! filter = 'file ~ "/etc/*"'
//! action = "trace"              # or "count"
//! privilege = "kernel"          # or "user", "any"
//! enabled = true
//! ```

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::suggest;

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines as ftrace's `trace` file has them.
    Ftrace,
    /// One JSON object a line.
    Json,
}

/// What a hit does when the writer cannot keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Backpressure {
    /// The vCPU waits.
    #[default]
    Lossless,
    /// The record is dropped and counted.
    Drop,
}

/// What a hit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Action {
    /// Writes a record.
    #[default]
    Trace,
    /// Only counts.
    Count,
}

/// Which code a probe hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Privilege {
    /// The kernel's.
    #[default]
    Kernel,
    /// User programs'.
    User,
    /// Both.
    Any,
}

/// One `[[probe]]`.
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
    /// Where it was written, for messages: `FILE:LINE`.
    pub origin: String,
}

/// A configuration file's content. `None` where the file says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Symbol sources.
    pub kernel: Vec<PathBuf>,
    /// Where the records go.
    pub out: Option<PathBuf>,
    /// Their form.
    pub format: Option<Format>,
    /// Where the summary goes.
    pub summary: Option<PathBuf>,
    /// Whether a vCPU waits.
    pub backpressure: Option<Backpressure>,
    /// Runtime minus linked address; `None` also for `"auto"`.
    pub slide: Option<u64>,
    /// The probes.
    pub probes: Vec<ProbeConfig>,
}

/// What is wrong in a file. `Display` shows the line, a caret under the place, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file's name as given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// The line itself.
    pub source_line: String,
    /// What to write instead, if known.
    pub help: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, source_line, help } = self;
        let margin = line.to_string().len();
        write!(f, "{file}:{line}:{column}: {message}\n {line} | {source_line}\n {:margin$} | ", "")?;
        // Tabs stay tabs, so that the caret stands under its character.
        for c in source_line.chars().take(column.saturating_sub(1)) {
            f.write_str(if c == '\t' { "\t" } else { " " })?;
        }
        f.write_str("^")?;
        match help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

const KEYS: [&str; 7] = ["kernel", "out", "format", "summary", "backpressure", "slide", "probe"];
const PROBE_KEYS: [&str; 5] = ["def", "filter", "action", "privilege", "enabled"];

type Value<'a> = Spanned<DeValue<'a>>;

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    /// Where each line starts: a file with very many probes asks for the line of each.
    line_starts: Vec<usize>,
}

impl Config {
    /// Parses `text`, the content of the file `name`. Paths in it are taken relative to that file.
    ///
    /// # Errors
    /// Bad TOML, an unknown key, a wrong type or value: with line, column and the line itself.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect();
        let reader = Reader { name, text, line_starts };
        let table = DeTable::parse(text).map_err(|error| {
            // A message of several lines says in the first one what is wrong.
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            reader.error(error.span().unwrap_or(0..0), message)
        })?;
        let mut config = Self::default();
        for (key, value) in table.get_ref() {
            match key.get_ref().as_ref() {
                "kernel" => config.kernel = reader.paths(value)?,
                "out" => config.out = Some(reader.path("out", value)?),
                "summary" => config.summary = Some(reader.path("summary", value)?),
                "format" => {
                    let choices = [("ftrace", Format::Ftrace), ("json", Format::Json)];
                    config.format = Some(reader.choice("format", value, &choices)?);
                }
                "backpressure" => {
                    let choices = [("lossless", Backpressure::Lossless), ("drop", Backpressure::Drop)];
                    config.backpressure = Some(reader.choice("backpressure", value, &choices)?);
                }
                "slide" => config.slide = reader.slide(value)?,
                "probe" => config.probes = reader.probes(value)?,
                unknown => return Err(reader.unknown_key(key.span(), unknown, &KEYS)),
            }
        }
        Ok(config)
    }
}

impl Reader<'_> {
    /// The number of the line that holds a position, from 1.
    fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at)
    }

    fn error(&self, span: Range<usize>, message: impl Into<String>) -> ConfigError {
        let mut at = span.start.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let (before, _) = self.text.split_at(at);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ConfigError {
            file: self.name.to_owned(),
            line: self.line(at),
            column: self.text[line_start..at].chars().count() + 1,
            message: message.into(),
            source_line: self.text[line_start..].lines().next().unwrap_or_default().to_owned(),
            help: None,
        }
    }

    fn unknown_key(&self, span: Range<usize>, key: &str, known: &[&str]) -> ConfigError {
        let help = match suggest::nearest(key, known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("these exist: {}", known.join(", ")),
        };
        ConfigError { help: Some(help), ..self.error(span, format!("unknown key '{key}'")) }
    }

    fn wrong_type(&self, key: &str, value: &Value<'_>, wanted: &str) -> ConfigError {
        let found = value.get_ref().type_str();
        self.error(value.span(), format!("'{key}' must be {wanted}, not {found}"))
    }

    fn string<'v>(&self, key: &str, value: &'v Value<'_>) -> Result<&'v str, ConfigError> {
        value.get_ref().as_str().ok_or_else(|| self.wrong_type(key, value, "a string"))
    }

    fn path(&self, key: &str, value: &Value<'_>) -> Result<PathBuf, ConfigError> {
        let text = self.string(key, value)?;
        if text.is_empty() {
            return Err(self.error(value.span(), format!("'{key}' must not be empty")));
        }
        let folder = Path::new(self.name).parent().unwrap_or(Path::new(""));
        Ok(folder.join(text))
    }

    fn paths(&self, value: &Value<'_>) -> Result<Vec<PathBuf>, ConfigError> {
        match value.get_ref() {
            DeValue::Array(list) => list.iter().map(|one| self.path("kernel", one)).collect(),
            DeValue::String(_) => Ok(vec![self.path("kernel", value)?]),
            _ => Err(self.wrong_type("kernel", value, "a string or a list of strings")),
        }
    }

    fn choice<T: Copy>(&self, key: &str, value: &Value<'_>, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let text = self.string(key, value)?;
        let found = choices.iter().find(|(name, _)| *name == text);
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            let error = self.error(value.span(), format!("'{key}' must be {}", names.join(" or ")));
            let near = suggest::nearest(text, choices.iter().map(|(name, _)| *name));
            ConfigError { help: near.map(|near| format!("did you mean \"{near}\"?")), ..error }
        })
    }

    fn slide(&self, value: &Value<'_>) -> Result<Option<u64>, ConfigError> {
        let text = self.string("slide", value)?;
        if text == "auto" {
            return Ok(None);
        }
        let digits = text.strip_prefix("0x").filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number.map(Some).ok_or_else(|| self.error(value.span(), "'slide' must be \"auto\" or \"0x...\""))
    }

    fn probes(&self, value: &Value<'_>) -> Result<Vec<ProbeConfig>, ConfigError> {
        let DeValue::Array(list) = value.get_ref() else {
            let error = self.wrong_type("probe", value, "a list of tables");
            return Err(ConfigError { help: Some("write [[probe]] with two brackets".to_owned()), ..error });
        };
        list.iter().map(|one| self.probe(one)).collect()
    }

    fn probe(&self, value: &Value<'_>) -> Result<ProbeConfig, ConfigError> {
        let DeValue::Table(table) = value.get_ref() else { return Err(self.wrong_type("probe", value, "a table")) };
        let mut probe = ProbeConfig {
            def: String::new(),
            filter: None,
            action: Action::Trace,
            privilege: Privilege::Kernel,
            enabled: true,
            origin: format!("{}:{}", self.name, self.line(value.span().start)),
        };
        let mut has_def = false;
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "def" => {
                    probe.def = self.string("def", value)?.to_owned();
                    probe.origin = format!("{}:{}", self.name, self.line(value.span().start));
                    has_def = true;
                }
                "filter" => probe.filter = Some(self.string("filter", value)?.to_owned()),
                "action" => {
                    let choices = [("trace", Action::Trace), ("count", Action::Count)];
                    probe.action = self.choice("action", value, &choices)?;
                }
                "privilege" => {
                    let choices = [("kernel", Privilege::Kernel), ("user", Privilege::User), ("any", Privilege::Any)];
                    probe.privilege = self.choice("privilege", value, &choices)?;
                }
                "enabled" => {
                    let flag = value.get_ref().as_bool();
                    probe.enabled = flag.ok_or_else(|| self.wrong_type("enabled", value, "true or false"))?;
                }
                unknown => return Err(self.unknown_key(key.span(), unknown, &PROBE_KEYS)),
            }
        }
        if !has_def {
            let help = "def = \"p:NAME PLACE ARG...\", a line of kprobe_events".to_owned();
            return Err(ConfigError { help: Some(help), ..self.error(value.span(), "this probe has no 'def'") });
        }
        Ok(probe)
    }
}
