//! Files of probes: TOML with settings and `[[probe]]` tables, or a definition on each line.
//!
//! ```toml
//! kernel = "vmlinux"            # or a list; relative paths are relative to this file
//! out = "trace.txt"
//! format = "ftrace"             # or "json"
//! summary = "summary.json"
//! backpressure = "lossless"     # or "drop"
//! slide = "auto"                # or "0x..."
//! control = "control.sock"      # a socket to control the run by
//! verify = false                # compare each instruction's copy with what the guest does
//!
//! [[probe]]
//! def = "p:open do_sys_openat2 file=+0($arg2):ustring"
//! filter = 'file ~ "/etc/*"'
//! action = "trace"              # or "count"
//! privilege = "kernel"          # or "user", "any"
//! enabled = true
//! when = "pre"                  # or "post": after the instruction
//! attempts = false              # true: also what is executed again after a fault
//!
//! [[probe]]                     # what a probe does to the guest, at the hits that pass the filter
//! def = "p:inject do_sys_openat2 file=+0($arg2):ustring"
//! set = ["%dx=0", "+0($arg3):u64=0"]
//! override = "-ENOENT"          # or a number; or skip = true; or replace = "nop", "0f 1f 00"
//! stop = true                   # or quit = 3
//! space = 10                    # at which of them; see `FaultAttr`: nth, probability, interval, times, space, seed
//! times = 1
//! ```
//!
//! `def` may also hold the filter and the options: `DEF if FILTER do OPTION...`, see `ProbeConfig::from_line`. The rest of
//! the table adds to it, and must not say the same again.

mod probe;

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::options::ProbeConfig;
use crate::suggest;

/// The longest file of probes or of a boot test; 100,000 definitions have 10 MB.
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// Reads a file that a user wrote, which may be named by mistake: a device that never ends, a disk image.
///
/// # Errors
/// It cannot be read, is no UTF-8, or has more than 64 MiB.
pub fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_TEXT_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_TEXT_BYTES {
        return Err(io::Error::other("it has more than 64 MiB, which no file of probes has"));
    }
    Ok(text)
}

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
    /// The socket of the control client.
    pub control: Option<PathBuf>,
    /// Whether each instruction's copy is compared with what the guest does.
    pub verify: Option<bool>,
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

const KEYS: [&str; 9] = ["kernel", "out", "format", "summary", "backpressure", "slide", "control", "verify", "probe"];

type Value<'a> = Spanned<DeValue<'a>>;

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    /// Where each line starts: a file with very many probes asks for the line of each.
    line_starts: Vec<usize>,
}

impl Config {
    /// Parses `text`, the content of the file `name`: TOML, whose paths are taken relative to that file, or a list of definitions, one
    /// a line. What is not called `.toml` may be either; its first line tells.
    ///
    /// # Errors
    /// Bad TOML, an unknown key, a wrong type or value: with line, column and the line itself.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        if !name.ends_with(".toml") && is_list(text) {
            return Ok(Self { probes: list(name, text)?, ..Self::default() });
        }
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
                "control" => config.control = Some(reader.path("control", value)?),
                "verify" => config.verify = Some(reader.flag("verify", value)?),
                "probe" => config.probes = reader.probes(value)?,
                unknown => return Err(reader.unknown_key(key.span(), unknown, &KEYS)),
            }
        }
        Ok(config)
    }
}

/// Lines that say something, with their numbers from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().zip(1..).map(|(line, number)| (number, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Whether the first line is neither a table's header nor `KEY = VALUE`.
fn is_list(text: &str) -> bool {
    let is_key = |key: &str| {
        let key = key.trim();
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '"' | '\''))
    };
    let is_toml = |line: &str| line.starts_with('[') || line.split_once('=').is_some_and(|(key, _)| is_key(key));
    lines(text).next().is_some_and(|(_, line)| !is_toml(line))
}

/// The probes of a list of definitions.
fn list(name: &str, text: &str) -> Result<Vec<ProbeConfig>, ConfigError> {
    let probe = |(number, line): (usize, &str)| {
        ProbeConfig::from_line(line, format!("{name}:{number}")).map_err(|error| ConfigError {
            file: name.to_owned(),
            line: number,
            column: error.column.unwrap_or(0) + 1,
            message: error.text.into_owned(),
            source_line: line.to_owned(),
            help: error.help,
        })
    };
    lines(text).map(probe).collect()
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

    fn flag(&self, key: &str, value: &Value<'_>) -> Result<bool, ConfigError> {
        value.get_ref().as_bool().ok_or_else(|| self.wrong_type(key, value, "true or false"))
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
}
