//! A definition in one line: `DEF [if FILTER] [do OPTION...]`.
//!
//! `if` and `do` are words of C: no place and no argument of a definition can be spelt so. They are looked for outside of
//! quotes, `do` also behind the filter, and a `#` ends the line as it does for the kernel. An argument that is called
//! `do` cannot be filtered here: give its filter apart.

use super::{Options, ProbeConfig, Refusal};
use crate::config::{Action, Privilege};
use crate::diag::Diagnostic;
use crate::effect::{When, value};
use crate::suggest;

/// Options that stand alone.
const BARE: [&str; 8] = ["post", "count", "skip", "stop", "attempts", "user", "any", "disabled"];
/// Options with a value behind `=`.
const VALUED: [&str; 9] = ["replace", "override", "quit", "nth", "probability", "interval", "times", "space", "seed"];
/// How a file's keys are written in a line.
const FILE_KEYS: [(&str, &str); 6] = [
    ("when", "write post, or nothing"),
    ("action", "write count, or nothing"),
    ("privilege", "write user or any, or nothing"),
    ("enabled", "write disabled, or nothing"),
    ("filter", "the filter stands before 'do': if FILTER do OPTION..."),
    ("if", "the filter stands before 'do': if FILTER do OPTION..."),
];

/// Blank as the kernel's `isspace` sees ASCII.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Walks over text in words.
struct Scanner<'a> {
    line: &'a str,
    at: usize,
    /// The quotes that hold blanks together.
    quotes: &'static [u8],
}

impl<'a> Scanner<'a> {
    fn skip_blanks(&mut self) {
        self.at += self.rest().bytes().take_while(|byte| is_blank(*byte)).count();
    }

    fn rest(&self) -> &'a str {
        self.line.get(self.at..).unwrap_or_default()
    }

    /// The next word and where it starts; `None` at the end, and at a comment.
    fn word(&mut self) -> Option<(usize, &'a str)> {
        self.skip_blanks();
        let start = self.at;
        let mut quote = None;
        for byte in self.rest().bytes() {
            match quote {
                Some(mark) if mark == byte => quote = None,
                Some(_) => {}
                None if self.quotes.contains(&byte) => quote = Some(byte),
                None if is_blank(byte) || byte == b'#' => break,
                None => {}
            }
            self.at += 1;
        }
        let word = self.line.get(start..self.at)?;
        if word.is_empty() { None } else { Some((start, word)) }
    }

    /// Goes over words up to one of `marks`; the text before it, and the mark with its place if there is one.
    fn until(&mut self, marks: &[&str]) -> (&'a str, Option<(usize, &'a str)>) {
        self.skip_blanks();
        let start = self.at;
        let mut end = self.at;
        while let Some((at, word)) = self.word() {
            if marks.contains(&word) {
                return (self.line.get(start..end).unwrap_or_default(), Some((at, word)));
            }
            end = self.at;
        }
        (self.line.get(start..end).unwrap_or_default(), None)
    }
}

impl ProbeConfig {
    /// Takes a line apart: `DEF [if FILTER] [do OPTION...]`. What DEF and FILTER say is not looked at.
    ///
    /// ```text
    /// p:inject do_sys_openat2 file=+0($arg2):ustring if file == "/etc/none" do override=-ENOENT times=1
    /// ```
    ///
    /// Options: `post count skip stop attempts user any disabled`, `replace=nop`, `replace=0f1f00`, `override=-ENOENT`,
    /// `set:%ax=5` (any number), `quit=3`, `nth=` `probability=` `interval=` `times=` `space=` `seed=`.
    ///
    /// # Errors
    /// An option that does not exist, that is misspelt, or that contradicts another one, with a caret under it.
    pub fn from_line(line: &str, origin: String) -> Result<Self, Diagnostic> {
        let line = line.trim();
        read(line, origin)?.finish().map_err(|refusal| shown(line, refusal))
    }
}

/// A refusal with the line and a caret.
fn shown(line: &str, Refusal { text, help, at }: Refusal) -> Diagnostic {
    Diagnostic::own(text, line, at).with_help_if(help)
}

/// Reads a trimmed line; more options may follow from elsewhere.
pub(crate) fn read(line: &str, origin: String) -> Result<Options, Diagnostic> {
    let mut scanner = Scanner { line, at: 0, quotes: b"\"" };
    let (def, mark) = scanner.until(&["if", "do"]);
    // Without a tail the line is the definition as it is, with its comment.
    let def = if mark.is_some() { def } else { line };
    let mut options = Options::new(ProbeConfig::new(def, origin));
    let refused = |text: &str, at| Err(Diagnostic::own(text.to_owned(), line, at));
    let Some((mut at, mut word)) = mark else { return Ok(options) };
    if def.is_empty() {
        return refused("A definition must stand before 'if' and 'do'", at);
    }
    if word == "if" {
        scanner.quotes = b"\"'";
        let (filter, mark) = scanner.until(&["do"]);
        if filter.is_empty() {
            return refused("'if' needs a filter", at)
                .map_err(|error| error.with_help("if FIELD OP VALUE; an argument called 'do' needs filter= instead"));
        }
        options.filter(filter, at).map_err(|refusal| shown(line, refusal))?;
        match mark {
            Some(mark) => (at, word) = mark,
            None => return Ok(options),
        }
    }
    debug_assert_eq!(word, "do");
    scanner.quotes = b"\"";
    let mut any = false;
    while let Some((at, word)) = scanner.word() {
        option(&mut options, word, at).map_err(|refusal| shown(line, refusal))?;
        any = true;
    }
    if any {
        Ok(options)
    } else {
        refused("'do' needs an option", at).map_err(|error| error.with_help(format!("options are: {}", listed())))
    }
}

fn listed() -> String {
    let valued: Vec<String> = VALUED.iter().map(|key| format!("{key}=")).collect();
    format!("{} {} set:LVALUE=VALUE", BARE.join(" "), valued.join(" "))
}

/// One word behind `do`.
fn option(options: &mut Options, word: &str, at: usize) -> Result<(), Refusal> {
    if let Some(text) = word.strip_prefix("set:") {
        return options.set(text, at);
    }
    let (key, text) = match word.split_once('=') {
        Some((key, text)) => (key, Some(text)),
        None => (word, None),
    };
    let bare = BARE.iter().find(|known| **known == key);
    let valued = VALUED.iter().find(|known| **known == key);
    match (bare, valued, text) {
        (Some(key), _, None) => alone(options, key, at),
        (_, Some(key), Some(text)) => with_value(options, key, text, at),
        (Some(key), _, Some(_)) => Err(Refusal { text: format!("'{key}' takes no value"), help: None, at }),
        (_, Some(key), None) => {
            Err(Refusal { text: format!("'{key}' needs a value"), help: Some(format!("write {key}=VALUE")), at })
        }
        (None, None, _) => Err(unknown(key, at)),
    }
}

fn unknown(key: &str, at: usize) -> Refusal {
    let hint = FILE_KEYS.iter().find(|(known, _)| *known == key).map(|(_, hint)| (*hint).to_owned());
    let near = || {
        let near = suggest::nearest(key, BARE.into_iter().chain(VALUED).chain(["set"]))?;
        let rest = match near {
            "set" => ":LVALUE=VALUE",
            near if VALUED.contains(&near) => "=",
            _ => "",
        };
        Some(format!("did you mean {near}{rest}?"))
    };
    let help = hint.or_else(near).unwrap_or_else(|| format!("options are: {}", listed()));
    Refusal { text: format!("No such option: '{key}'"), help: Some(help), at }
}

fn alone(options: &mut Options, key: &str, at: usize) -> Result<(), Refusal> {
    match key {
        "post" => options.when(When::Post, at),
        "count" => options.action(Action::Count, at),
        "skip" => options.skip(at),
        "stop" => options.stop(at),
        "attempts" => options.attempts(true, at),
        "user" => options.privilege(Privilege::User, at),
        "any" => options.privilege(Privilege::Any, at),
        _ => options.enabled(false, at),
    }
}

fn with_value(options: &mut Options, key: &'static str, text: &str, at: usize) -> Result<(), Refusal> {
    let value_at = at + key.len() + 1;
    if text.is_empty() {
        return Err(Refusal { text: format!("'{key}=' needs a value"), help: None, at: value_at });
    }
    match key {
        "replace" => {
            // Quotes hold bytes together that are written apart.
            let bytes = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
            options.replace(bytes, value_at)
        }
        "override" => options.override_text(text, value_at),
        key => {
            let value = value::parse(text).map_err(|(text, help)| Refusal { text, help, at: value_at })?;
            options.number(key, value, value_at)
        }
    }
}
