//! One line of the guest's console, as KTAP: what it is, whoever printed it.

use super::verdict::Outcome;

/// A line without what the kernel's log puts before it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// It has a time stamp: the kernel printed it.
    pub(crate) from_kernel: bool,
    pub(crate) text: &'a str,
}

impl<'a> Line<'a> {
    pub(crate) fn new(line: &'a str) -> Self {
        let text = level(line).unwrap_or(line);
        match stamp(text) {
            Some(rest) => {
                let rest = caller(rest).unwrap_or(rest);
                Self { from_kernel: true, text: rest.strip_prefix(' ').unwrap_or(rest) }
            }
            None => Self { from_kernel: false, text },
        }
    }
}

/// `<6>`
fn level(line: &str) -> Option<&str> {
    let (digits, rest) = line.strip_prefix('<')?.split_once('>')?;
    is_number(digits).then_some(rest)
}

/// `[    1.234567]`
fn stamp(line: &str) -> Option<&str> {
    let (inner, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (seconds, fraction) = inner.trim_start().split_once('.')?;
    (is_number(seconds) && is_number(fraction)).then_some(rest)
}

/// `[    T1]`, `[   C0]`
fn caller(line: &str) -> Option<&str> {
    let (inner, rest) = line.strip_prefix('[')?.split_once(']')?;
    is_number(inner.trim_start().strip_prefix(['T', 'C'])?).then_some(rest)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A line that ends with `KTAP version N` or `TAP version N`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Start<'a> {
    /// What stands before it.
    pub(crate) prefix: &'a str,
    /// Blanks between.
    pub(crate) indent: usize,
    /// Nothing does.
    pub(crate) is_exact: bool,
}

impl<'a> Start<'a> {
    pub(crate) fn find(line: &'a str) -> Option<Self> {
        let line = line.trim_end();
        let before = line.strip_suffix(|c: char| c.is_ascii_digit())?.trim_end_matches(|c: char| c.is_ascii_digit());
        let before = before.strip_suffix("TAP version ")?;
        let before = before.strip_suffix('K').unwrap_or(before);
        let prefix = before.trim_end();
        Some(Self { prefix, indent: before.len() - prefix.len(), is_exact: prefix.is_empty() })
    }
}

/// What a line of a document is, without what stands around it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    /// `# Subtest: NAME`
    Subtest(&'a str),
    /// `1..N`, perhaps with `# SKIP REASON`
    Plan { count: u64, skip: Option<&'a str> },
    /// `ok N NAME # REASON`
    Result { outcome: Outcome, name: &'a str, reason: &'a str },
    /// `Bail out! REASON`
    BailOut(&'a str),
    /// A diagnostic line, or none of KTAP's
    Other,
}

impl<'a> Kind<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        if let Some(name) = text.strip_prefix("# Subtest: ") {
            return Self::Subtest(name.trim());
        }
        if let Some(reason) = text.strip_prefix("Bail out!") {
            return Self::BailOut(reason.trim());
        }
        plan(text).or_else(|| result(text)).unwrap_or(Self::Other)
    }
}

fn plan(text: &str) -> Option<Kind<'_>> {
    let rest = text.strip_prefix("1..")?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (count, rest) = rest.split_at_checked(digits)?;
    if count.is_empty() || !(rest.is_empty() || rest.starts_with(' ')) {
        return None;
    }
    let skip = rest.trim_start().strip_prefix('#').and_then(|rest| directive(rest.trim_start(), "SKIP"));
    // More than fits is more than will ever come.
    Some(Kind::Plan { count: count.parse().unwrap_or(u64::MAX), skip })
}

fn result(text: &str) -> Option<Kind<'_>> {
    let (is_ok, rest) = match text.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, text.strip_prefix("ok ")?),
    };
    let rest = rest.trim_start();
    let name = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    if name.len() == rest.len() || !(name.is_empty() || name.starts_with(' ')) {
        return None;
    }
    let (name, reason) = name.split_once(" #").unwrap_or((name, ""));
    let (name, reason) = (name.trim(), reason.trim());
    let name = name.strip_prefix("- ").unwrap_or(name).trim_start();
    let (outcome, reason) = match directive(reason, "SKIP") {
        Some(reason) => (Outcome::Skipped, reason),
        // What is expected to fail may.
        None if !is_ok && ["XFAIL", "TODO"].iter().all(|word| directive(reason, word).is_none()) => {
            (Outcome::NotOk, reason)
        }
        None => (Outcome::Ok, reason),
    };
    Some(Kind::Result { outcome, name, reason })
}

/// What follows the directive, if the text begins with it. Like kunit.py, this takes `SKIPPED` for `SKIP`, and no small letters.
fn directive<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(word)?;
    Some(rest.trim_start_matches(|c: char| c.is_alphanumeric()).trim_start_matches([':', ' ']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_log_puts_before_a_line() {
        let parts = |line| (Line::new(line).from_kernel, Line::new(line).text);
        assert_eq!(parts("ok 1 a"), (false, "ok 1 a"));
        assert_eq!(parts("[    1.234567]   ok 1 a"), (true, "  ok 1 a"));
        assert_eq!(parts("<6>[12345.678901][    T1] ok 1 a"), (true, "ok 1 a"));
        assert_eq!(parts("[    1.234567]"), (true, ""));
        for line in ["[ OK ] x", "[1.x] ok", "<a>ok", "[", "[]", "[.]", "[\u{e4}.1] x"] {
            assert_eq!(parts(line), (false, line));
        }
        let start = |line| Start::find(line).map(|start| (start.prefix, start.indent));
        assert_eq!(start("KTAP version 1"), Some(("", 0)));
        assert_eq!(start("    TAP version 13 "), Some(("", 4)));
        assert_eq!(start("# guest |  KTAP version 1"), Some(("# guest |", 2)));
        for line in ["KTAP version", "KTAP version x", "KTAP version 1 of", "1", ""] {
            assert_eq!(start(line), None, "{line}");
        }
    }

    #[test]
    fn kinds() {
        let result = |outcome, name, reason| Kind::Result { outcome, name, reason };
        assert_eq!(Kind::of("ok 1 a b"), result(Outcome::Ok, "a b", ""));
        assert_eq!(Kind::of("ok 1 - a"), result(Outcome::Ok, "a", ""));
        assert_eq!(Kind::of("not ok 12 a # 3 failures"), result(Outcome::NotOk, "a", "3 failures"));
        assert_eq!(Kind::of("not ok 2 a # SKIP no disk"), result(Outcome::Skipped, "a", "no disk"));
        assert_eq!(Kind::of("ok 2 a #SKIPPED: no disk"), result(Outcome::Skipped, "a", "no disk"));
        assert_eq!(Kind::of("ok 2 # SKIP"), result(Outcome::Skipped, "", ""));
        assert_eq!(
            Kind::of("not ok 2 a # skip to the end failed"),
            result(Outcome::NotOk, "a", "skip to the end failed")
        );
        assert_eq!(Kind::of("not ok 2 a # failed # SKIP b"), result(Outcome::NotOk, "a", "failed # SKIP b"));
        assert_eq!(Kind::of("not ok 2 a # XFAIL known"), result(Outcome::Ok, "a", "XFAIL known"));
        assert_eq!(Kind::of("not ok 2 a # TIMEOUT 60 s"), result(Outcome::NotOk, "a", "TIMEOUT 60 s"));
        assert_eq!(Kind::of("ok 2 a#b"), result(Outcome::Ok, "a#b", ""));
        assert_eq!(Kind::of("1..3"), Kind::Plan { count: 3, skip: None });
        assert_eq!(Kind::of("1..0 # SKIP no root"), Kind::Plan { count: 0, skip: Some("no root") });
        assert_eq!(Kind::of("1..99999999999999999999"), Kind::Plan { count: u64::MAX, skip: None });
        assert_eq!(Kind::of("# Subtest: x y"), Kind::Subtest("x y"));
        assert_eq!(Kind::of("Bail out! no /proc"), Kind::BailOut("no /proc"));
        for text in
            ["", "ok", "ok x", "ok 1x", "okay 1", "not ok", "notok 1 x", "1..", "1..x", "1..3x", "# ok 1 a", "#"]
        {
            assert_eq!(Kind::of(text), Kind::Other, "{text}");
        }
    }
}
