//! The place of a probe: `[MOD:]SYM[+OFF][%return]` or a number.

use qkprobe_arch::GuestAddr;

use crate::arg::Position;
use crate::diag::{self, Diagnostic, Problem, Words};
use crate::number::{self, Radix};
use crate::target::{PlaceError, SymbolLookup, Target};

/// How the user named the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceBy {
    /// By symbol: it moves with the kernel's load slide.
    Symbol,
    /// By a number: as linked if it lies in the kernel image, else the running guest's address.
    Address,
}

/// Where a probe stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As listings show it: `SYM`, `SYM+OFF`, `MOD:SYM`, `0x…`.
    pub text: String,
    /// The address that is really probed; `None` while the module is not known. As linked where `by` is `Symbol`.
    pub address: Option<GuestAddr>,
    /// Whether this is where a function is entered.
    pub at_entry: bool,
    /// Named by symbol or by number.
    pub by: PlaceBy,
}

/// A place that is resolved, but not yet checked: the kernel reads the rest of the line in between.
pub(super) struct Resolved {
    pub(super) place: Place,
    pub(super) is_return: bool,
    /// How far behind its symbol.
    offset: u64,
}

impl Resolved {
    /// What automatic names are made of: `SYM_OFF`, or the address.
    pub(super) fn name_part(&self) -> String {
        let symbol = self.place.text.split('+').next().unwrap_or_default();
        match self.place.by {
            PlaceBy::Symbol => format!("{symbol}_{}", self.offset),
            PlaceBy::Address => self.place.text.clone(),
        }
    }

    pub(super) fn position(&self) -> Position {
        match (self.is_return, self.place.at_entry) {
            (true, _) => Position::Return,
            (false, true) => Position::Entry,
            (false, false) => Position::Inside,
        }
    }
}

/// Parses and resolves the second word.
pub(super) fn resolve(
    words: Words<'_>,
    text: &str,
    is_return: bool,
    target: &dyn Target,
) -> Result<Resolved, Diagnostic> {
    let word_bytes = target.arch().word_bytes();
    if let Some(addr) = number::unsigned(text, Radix::ByPrefix, word_bytes) {
        let digits = word_bytes * 2;
        let text = format!("0x{addr:0digits$x}");
        let addr = GuestAddr(addr);
        let at_entry = target.is_function_entry(addr);
        let place = Place { text, address: Some(addr), at_entry, by: PlaceBy::Address };
        return Ok(Resolved { place, is_return, offset: 0 });
    }
    if text.contains('/') && text.contains(':') {
        return Err(Diagnostic::unlogged("A file is no place for a kernel probe", diag::EINVAL, words.0)
            .with_help("PATH:OFFSET is a user-space probe (uprobe); kernel places are [MOD:]SYM[+OFF] or 0xADDR"));
    }
    let (symbol_text, is_return) = match text.find('%') {
        Some(at) => match text.split_at(at) {
            (symbol, "%return") => (symbol, true),
            _ => return Err(words.error(1, at, diag::BAD_ADDR_SUFFIX).with_help("the only suffix is %return")),
        },
        None => (text, is_return),
    };
    let (symbol, offset) = split_offset(symbol_text, word_bytes)
        .filter(|(_, offset)| (0..=i64::from(u32::MAX)).contains(offset))
        .ok_or_else(|| words.error(1, 0, diag::BAD_PROBE_ADDR).with_help("a place is SYM+OFFSET, OFFSET at least 0"))?;
    let start = lookup(words, symbol, target)?;
    let offset = offset.cast_unsigned();
    let address = start.map(|start| start.wrapping_add(offset));
    // Of a module that is not known only offset 0 is surely an entry.
    let at_entry = address.map_or(offset == 0, |addr| target.is_function_entry(addr));
    if is_return && !at_entry && address.is_some() {
        let help = "a return probe hooks the whole function: give its name without an offset";
        return Err(words.error(1, 0, diag::BAD_RETPROBE).with_help(help));
    }
    let text = if offset == 0 { symbol.to_owned() } else { format!("{symbol}+{offset}") };
    let place = Place { text, address, at_entry, by: PlaceBy::Symbol };
    Ok(Resolved { place, is_return, offset })
}

/// `SYM±OFF`, cut at the first sign.
pub(super) fn split_offset(text: &str, word_bytes: usize) -> Option<(&str, i64)> {
    match text.find(['+', '-']) {
        Some(at) => {
            let (symbol, offset) = text.split_at(at);
            Some((symbol, number::signed(offset, word_bytes)?))
        }
        None => Some((text, 0)),
    }
}

/// The symbol's address; `None` when its module is not known.
fn lookup(words: Words<'_>, symbol: &str, target: &dyn Target) -> Result<Option<GuestAddr>, Diagnostic> {
    let (module, name) = match symbol.split_once(':') {
        Some((module, name)) => (Some(module), name),
        None => (None, symbol),
    };
    if module.is_some_and(|module| !target.has_module(module)) {
        return Ok(None);
    }
    match target.symbol(module, name) {
        SymbolLookup::One { addr, .. } => Ok(Some(addr)),
        SymbolLookup::None => Err(words.error(1, 0, diag::BAD_PROBE_ADDR).with_help_if(target.hint(name))),
        SymbolLookup::Many(addrs) => {
            let listed: Vec<_> = addrs.iter().take(8).map(ToString::to_string).collect();
            let more = if addrs.len() > listed.len() { ", ..." } else { "" };
            let help = format!("give one of its addresses: {}{more}", listed.join(", "));
            Err(words.error(1, 0, diag::NON_UNIQ_SYMBOL).with_help(help))
        }
    }
}

/// The check that registration does, last of all. Moves the place to where the probe really stands.
pub(super) fn check(
    words: Words<'_>,
    place: &mut Place,
    is_return: bool,
    target: &dyn Target,
) -> Result<(), Diagnostic> {
    let Some(addr) = place.address else { return Ok(()) };
    match target.check_place(addr) {
        Ok(probed) => place.address = Some(probed),
        // A number in no symbol may still be code, some day: the kernel defers it, too.
        Err(PlaceError::Other(diag::ENOENT, _)) if place.by == PlaceBy::Address => return Ok(()),
        Err(error) => return Err(refusal(words, error)),
    }
    if is_return && !place.at_entry {
        let help = "a return probe hooks the whole function: give the address of its first instruction";
        return Err(words.error(1, 0, diag::FAIL_REG_PROBE).with_help(help));
    }
    Ok(())
}

fn refusal(words: Words<'_>, error: PlaceError) -> Diagnostic {
    let (problem, help) = match error {
        PlaceError::Boundary(help) => (diag::BAD_INSN_BNDRY, help),
        PlaceError::Other(diag::ENOENT, help) => (Problem { errno: diag::ENOENT, ..diag::BAD_PROBE_ADDR }, help),
        PlaceError::Other(errno, help) => (Problem { errno, ..diag::FAIL_REG_PROBE }, help),
    };
    words.error(1, 0, problem).with_help_if(Some(help).filter(|help| !help.is_empty()))
}
