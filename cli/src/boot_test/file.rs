//! A boot test's file: what it says, and what is wrong with it. The reference is docs/tests.md.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use qkprobe_lang::{Config, ConfigError, ProbeConfig};
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::count::Count;
use super::retval::Retval;
use super::sections;
use crate::qemu::Release;
use crate::units;

/// How long a test may take, if nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(120);
/// TOML's integers have a sign.
const MAX_TOML: u64 = u64::MAX >> 1;
/// How long a guest may do nothing.
const HANG: Duration = Duration::from_secs(30);

/// A boot test.
#[derive(Clone, Debug)]
pub struct TestFile {
    /// The file.
    pub path: PathBuf,
    /// `[test] name`, or the file's name.
    pub name: String,
    /// `[guest]`.
    pub guest: GuestSpec,
    /// `[test]`.
    pub test: TestSpec,
    /// `[[expect]]`.
    pub expect: Vec<Expect>,
    /// `[[probe]]`.
    pub probes: Vec<ProbeConfig>,
    /// The file's text with nothing but the probes, for the plugin.
    pub probes_text: String,
}

/// `[guest]`: what is booted. Paths are absolute when the file has been parsed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestSpec {
    /// The image.
    pub kernel: Option<PathBuf>,
    /// More symbols of the kernel: a file or several.
    #[serde(default, deserialize_with = "one_or_more")]
    pub symbols: Vec<PathBuf>,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// A static program that becomes `/init`.
    pub init: Option<PathBuf>,
    /// Files that are added to the initramfs.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// The architecture, where the image does not say it.
    pub arch: Option<String>,
    /// More of the kernel's command line.
    pub append: Option<String>,
    /// vCPUs.
    pub cpus: Option<u32>,
    /// MB.
    #[serde(default, deserialize_with = "optional_size")]
    pub memory: Option<u32>,
    /// As `--qemu`.
    pub qemu: Option<PathBuf>,
    /// More of QEMU's command line.
    #[serde(default)]
    pub args: Vec<String>,
}

/// `[test]`: how it must end, and when it has to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestSpec {
    /// Its name in reports.
    pub name: Option<String>,
    /// How long it may take.
    #[serde(default, deserialize_with = "optional_time")]
    pub timeout: Option<Duration>,
    /// How long the guest may do nothing.
    #[serde(default, deserialize_with = "optional_time")]
    pub hang: Option<Duration>,
    /// How it must end.
    #[serde(default)]
    pub end: WantedEnd,
    /// An oops without a panic is no failure.
    #[serde(default)]
    pub allow_oops: bool,
    /// Why it is not to be run.
    pub skip: Option<String>,
    /// The least QEMU; with an older one it is skipped.
    #[serde(default, deserialize_with = "optional_release")]
    pub needs_qemu: Option<Release>,
    /// As `--retries`, for this test.
    pub retries: Option<u32>,
}

impl TestSpec {
    /// How long it may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }

    /// How long the guest may do nothing.
    #[must_use]
    pub fn hang(&self) -> Duration {
        self.hang.unwrap_or(HANG)
    }
}

/// How a run must end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WantedEnd {
    /// The guest turns its power off.
    #[default]
    PowerOff,
    /// The guest reboots.
    Reboot,
    /// The kernel panics.
    Panic,
    /// The first hit of an event; the guest is ended then.
    Hit(String),
    /// A text on the console; the guest is ended then.
    Console(String),
    /// As soon as nothing is left to be decided; the guest is ended then.
    Done,
    /// QEMU exits with this status: a probe's `quit=N`.
    Exit(i32),
}

impl std::fmt::Display for WantedEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PowerOff => f.write_str("power-off"),
            Self::Reboot => f.write_str("reboot"),
            Self::Panic => f.write_str("panic"),
            Self::Hit(event) => write!(f, "hit:{event}"),
            Self::Console(text) => write!(f, "console:{}", crate::escape::line(text.as_bytes())),
            Self::Done => f.write_str("done"),
            Self::Exit(status) => write!(f, "exit:{status}"),
        }
    }
}

impl<'de> Deserialize<'de> for WantedEnd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.split_once(':') {
            Some(("hit", event)) if !event.is_empty() => Self::Hit(event.to_owned()),
            Some(("console", text)) if !text.is_empty() => Self::Console(text.to_owned()),
            Some(("exit", status)) if status.parse::<u8>().is_ok() => Self::Exit(status.parse().unwrap_or_default()),
            _ => match text.as_str() {
                "power-off" => Self::PowerOff,
                "reboot" => Self::Reboot,
                "panic" => Self::Panic,
                "done" => Self::Done,
                other => {
                    return Err(de::Error::custom(format!(
                        "'{other}' is no end: write power-off, reboot, panic, done, hit:EVENT, console:TEXT or exit:N"
                    )));
                }
            },
        })
    }
}

/// `[[expect]]`, with its line.
#[derive(Clone, Debug)]
pub struct Expect {
    /// Its line in the file, from 1.
    pub line: usize,
    /// What it says.
    pub spec: ExpectSpec,
}

/// What the guest's own KTAP has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WantedKtap {
    /// It is whole, something in it passed, and nothing failed.
    Pass,
}

/// `[[expect]]`: exactly one of `event`, `never`, `sequence`, `console`, `ktap`, and what belongs to it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectSpec {
    /// `EVENT` or `EVENT if FILTER`.
    pub event: Option<String>,
    /// The same; it must not hit.
    pub never: Option<String>,
    /// Several of the same, in this order, with anything between them.
    pub sequence: Option<Vec<String>>,
    /// Text, or `/REGEX/`, in the console's output.
    pub console: Option<String>,
    /// The guest's own tests on the console: KUnit, kselftest.
    pub ktap: Option<WantedKtap>,
    /// Only this suite of theirs: a name, or `/REGEX/`.
    pub suite: Option<String>,
    /// How often the event hits; at least once if nothing is said.
    pub hits: Option<Count>,
    /// A filter that every one of the event's hits passes.
    pub all: Option<String>,
    /// What every hit's `$retval` is.
    pub retval: Option<Retval>,
    /// Bounds of the hits' `$latency`.
    pub latency: Option<Latency>,
    /// Another event, of which no hit comes before the first of this one.
    pub before: Option<String>,
    /// Another event, of which a hit comes before the first of this one.
    pub after: Option<String>,
    /// When it must hold.
    #[serde(default, deserialize_with = "optional_time")]
    pub within: Option<Duration>,
}

/// Bounds of a latency; each a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Half of the calls take at most this.
    #[serde(default, deserialize_with = "optional_time")]
    pub p50: Option<Duration>,
    /// 90 %.
    #[serde(default, deserialize_with = "optional_time")]
    pub p90: Option<Duration>,
    /// 99 %.
    #[serde(default, deserialize_with = "optional_time")]
    pub p99: Option<Duration>,
    /// All.
    #[serde(default, deserialize_with = "optional_time")]
    pub max: Option<Duration>,
}

impl Latency {
    /// The bounds that are given: per mille, and the most.
    pub(crate) fn bounds(&self) -> impl Iterator<Item = (&'static str, u64, Duration)> {
        [("p50", 500, self.p50), ("p90", 900, self.p90), ("p99", 990, self.p99), ("max", 1000, self.max)]
            .into_iter()
            .filter_map(|(name, mille, most)| Some((name, mille, most?)))
    }
}

/// A quantity: a number of the usual unit, or a text that names its unit.
struct Quantity(String);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Quantity;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number, or a text with its unit")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                Ok(Quantity(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn optional_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    units::duration(&Quantity::deserialize(deserializer)?.0).map(Some).map_err(de::Error::custom)
}

fn optional_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    units::megabytes(&Quantity::deserialize(deserializer)?.0).map(Some).map_err(de::Error::custom)
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "must be a file, or a list of files")]
    enum Form {
        One(PathBuf),
        More(Vec<PathBuf>),
    }
    Ok(match Form::deserialize(deserializer)? {
        Form::One(file) => vec![file],
        Form::More(files) => files,
    })
}

fn optional_release<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Release>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let release = Release::parse(text.trim().trim_start_matches(">=").trim());
    release.map(Some).ok_or_else(|| de::Error::custom(format!("'{text}' is no version: write \"11.0\"")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(default)]
    guest: GuestSpec,
    #[serde(default)]
    test: TestSpec,
    #[serde(default)]
    expect: Vec<Spanned<ExpectSpec>>,
}

/// Whether a TOML text is a boot test's, and not a file of probes for the plugin.
#[must_use]
pub fn is_test(text: &str) -> bool {
    sections::has(text, &["guest", "test", "expect"])
}

impl TestFile {
    /// Parses a file's text. Paths in it are relative to the file.
    ///
    /// # Errors
    /// Bad TOML, an unknown key, a wrong value: with line and caret.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Box<ConfigError>> {
        let name = path.display().to_string();
        let (probes_text, rest) = sections::split(text);
        let probes = Config::parse(&name, &probes_text).map_err(Box::new)?.probes;
        let at = |span: Range<usize>, message: String| Box::new(error(&name, &rest, span, message));
        let tables: Tables =
            toml::from_str(&rest).map_err(|it| at(it.span().unwrap_or(0..0), it.message().to_owned()))?;
        let Tables { mut guest, test, expect } = tables;
        let folder = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let folder = folder.parent().unwrap_or(Path::new("/"));
        let files = [&mut guest.kernel, &mut guest.initrd, &mut guest.init].into_iter().flatten();
        for file in files.chain(&mut guest.symbols) {
            *file = folder.join(&*file);
        }
        if let Some(qemu) = guest.qemu.as_mut().filter(|qemu| qemu.components().count() > 1) {
            *qemu = folder.join(&*qemu);
        }
        let mut list = Vec::with_capacity(expect.len());
        for one in expect {
            let span = one.span();
            let spec = one.into_inner();
            check_shape(&spec).map_err(|message| at(span.clone(), message))?;
            list.push(Expect { line: line_of(&rest, span.start), spec });
        }
        let stem = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let name = test.name.clone().unwrap_or(stem);
        Ok(Self { path: path.to_owned(), name, guest, test, expect: list, probes, probes_text })
    }

    /// The probes for the plugin: those that throw dice and have no seed of their own get this one.
    #[must_use]
    pub fn seeded_probes(&self, seed: u64) -> String {
        let throws_dice = |probe: &ProbeConfig| probe.effects.fault.probability < 100 && probe.effects.fault.seed == 0;
        let dice = |index: usize| self.probes.get(index).is_some_and(throws_dice);
        sections::with_lines(&self.probes_text, |index| dice(index).then(|| format!("seed = {}", seed & MAX_TOML)))
    }

    /// Reads and parses a file.
    ///
    /// # Errors
    /// It cannot be read; or as [`TestFile::parse`].
    pub fn read(path: &Path) -> Result<Self, String> {
        let text =
            qkprobe_lang::read_text(path).map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
        Self::parse(path, &text).map_err(|error| error.to_string())
    }
}

/// One subject, and only what belongs to it.
fn check_shape(spec: &ExpectSpec) -> Result<(), String> {
    let ExpectSpec {
        event,
        never,
        sequence,
        console,
        ktap,
        suite,
        hits,
        all,
        retval,
        latency,
        before,
        after,
        within: _,
    } = spec;
    let subjects = [
        ("event", event.is_some()),
        ("never", never.is_some()),
        ("sequence", sequence.is_some()),
        ("console", console.is_some()),
        ("ktap", ktap.is_some()),
    ];
    let given: Vec<_> = subjects.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
    let [subject] = given.as_slice() else {
        let found = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
        return Err(format!(
            "an expectation is about one of event, never, sequence, console or ktap; this has {found}"
        ));
    };
    let belonging = [
        ("hits", "event", hits.is_some()),
        ("all", "event", all.is_some()),
        ("retval", "event", retval.is_some()),
        ("latency", "event", latency.is_some()),
        ("before", "event", before.is_some()),
        ("after", "event", after.is_some()),
        ("suite", "ktap", suite.is_some()),
    ];
    if let Some((key, owner, _)) = belonging.iter().find(|(_, owner, given)| *given && subject != owner) {
        return Err(format!("'{key}' belongs to '{owner}', and this expectation is about '{subject}'"));
    }
    if sequence.as_ref().is_some_and(|list| list.len() < 2) {
        return Err("a sequence has at least two members".to_owned());
    }
    if latency.as_ref().is_some_and(|latency| latency.bounds().next().is_none()) {
        return Err("'latency' has no bound: give p50, p90, p99 or max".to_owned());
    }
    Ok(())
}

fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or_default().bytes().filter(|byte| *byte == b'\n').count() + 1
}

/// A parser's message with line, caret, and the key that was meant.
fn error(file: &str, text: &str, span: Range<usize>, message: String) -> ConfigError {
    let before = text.get(..span.start).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let mut message: String = message.lines().collect::<Vec<_>>().join(", ");
    let mut help = None;
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let mut names = rest.split('`').step_by(2);
        let key = names.next().unwrap_or_default().to_owned();
        let known: Vec<&str> = rest.split('`').skip(2).step_by(2).collect();
        help = Some(match units::nearest(&key, known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("these exist: {}", known.join(", ")),
        });
        message = format!("unknown key '{key}'");
    }
    ConfigError {
        file: file.to_owned(),
        line: line_of(text, span.start),
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        message,
        source_line: text.get(line_start..).unwrap_or_default().lines().next().unwrap_or_default().to_owned(),
        help,
    }
}
