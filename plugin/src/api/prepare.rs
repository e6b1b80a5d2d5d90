//! From a user's description to what the registry takes: the rules of registration are those that definitions have.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use qkprobe_arch::GuestAddr;
use qkprobe_lang::{PlaceError, Privilege, SymbolLookup, Target as _};
use qkprobe_resolve::ImageTarget;

use super::contain::{self, Contained};
use super::error::Error;
use super::handlers::{Pre, ReturnHandlers, StepHandlers};
use super::probe::{At, Common, Kprobe, Kretprobe, Probe};
use crate::engine::kprobe::{Handler, Kretprobe as Returns, ReturnWork};
use crate::probes::prepare::{Abilities, Prepared, place_of, plain, slot_of};
use crate::record::Output;
use crate::registry::Place;

/// The group of all Rust probes.
pub(super) const GROUP: &str = "rust";
/// Most calls that a return probe may track, as in the kernel.
pub(super) const MAX_MAXACTIVE: u32 = 4096;
/// Longest name.
const MAX_NAME: usize = 63;

/// What a registration is checked against.
pub(super) struct Against<'a> {
    pub(super) target: ImageTarget<'a>,
    pub(super) abilities: Abilities<'a>,
    /// The names of the Rust probes that exist, and of those that are on their way.
    pub(super) names: HashSet<String>,
}

/// What can be registered, and what tells when its handlers are gone.
pub(super) type Ready = (Prepared, Weak<Contained>);

impl Against<'_> {
    pub(super) fn prepare(&mut self, probe: Probe) -> Result<Ready, Error> {
        match probe {
            Probe::Kprobe(probe) => self.kprobe(probe),
            Probe::Kretprobe(probe) => self.kretprobe(probe),
        }
    }

    fn kprobe(&mut self, probe: Kprobe) -> Result<Ready, Error> {
        let Kprobe { common, privilege, pre, post } = probe;
        let found = self.find(&common)?;
        if post.is_some() {
            self.check_post(&found)?;
        }
        let name = self.name(&common, &found, "")?;
        let contained = Contained::new(name.clone(), common.access);
        let counts_only = pre.is_none() && post.is_none();
        let pre = pre.map(|pre| contain::pre(&contained, pre));
        let handlers = StepHandlers {
            // Where a callback has to count, it is what runs before the instruction that counts.
            pre: if counts_only { Some(Box::new(|_| Pre::GoOn)) } else { pre },
            post: post.map(|post| contain::post(&contained, post)),
        };
        Ok(self.ready(common, found, name, privilege, Handler::Step(handlers), counts_only, &contained))
    }

    fn kretprobe(&mut self, probe: Kretprobe) -> Result<Ready, Error> {
        let Kretprobe { common, maxactive, entry, handler } = probe;
        let found = self.find(&common)?;
        if !found.addr_is_entry {
            return Err(Error::NotFunctionEntry { place: found.text });
        }
        self.check_memory(&found)?;
        match maxactive {
            Some(0) => {
                return Err(Error::Invalid { place: found.text, what: "maxactive 0: nothing could be awaited".into() });
            }
            Some(maxactive) if maxactive > MAX_MAXACTIVE => return Err(Error::TooBig { place: found.text, maxactive }),
            _ => {}
        }
        let name = self.name(&common, &found, "__return")?;
        let contained = Contained::new(name.clone(), common.access);
        let handlers = ReturnHandlers {
            entry: entry.map(|entry| contain::entry(&contained, entry)),
            handler: match handler {
                Some(handler) => contain::returned(&contained, handler),
                None => Box::new(|_, _| {}),
            },
        };
        let handler = Handler::Return(Returns::new(ReturnWork::Handlers(handlers), maxactive));
        Ok(self.ready(common, found, name, Privilege::Kernel, handler, false, &contained))
    }

    /// Resolves the place and asks what this QEMU can do there.
    fn find(&self, common: &Common) -> Result<Found, Error> {
        let target = &self.target;
        let (addr, text, by_symbol) = match &common.at {
            At::Addr(addr) => {
                let addr = addr.wrapping_add(common.offset);
                (addr, addr.to_string(), false)
            }
            At::Symbol(symbol) => {
                let (start, offset) = resolve(symbol, target)?;
                let offset = offset.wrapping_add(common.offset);
                let text = match symbol.split_once('+') {
                    _ if common.offset == 0 => symbol.clone(),
                    Some((symbol, _)) => format!("{symbol}+{offset:#x}"),
                    None => format!("{symbol}+{offset:#x}"),
                };
                (start.wrapping_add(offset), text, true)
            }
        };
        let what = "this changes the guest";
        self.abilities.check(common.access, what).map_err(|what| Error::Unsupported { place: text.clone(), what })?;
        let addr_is_entry = target.is_function_entry(addr);
        let probed = match target.check_place(addr) {
            Ok(probed) => probed,
            // A number in no symbol may be code all the same: firmware, generated code.
            Err(PlaceError::Other(libc::ENOENT, _)) if !by_symbol => addr,
            Err(PlaceError::Other(libc::ENOENT, what)) => return Err(Error::NoSuchPlace { place: text, what }),
            Err(PlaceError::Other(_, what)) => return Err(Error::Invalid { place: text, what }),
            Err(PlaceError::Boundary(what)) => return Err(Error::NotBoundary { place: text, what }),
        };
        Ok(Found { text, addr: probed, place: place_of(probed, target), addr_is_entry })
    }

    /// A return or what runs behind an instruction is a place whose code must be found, too.
    fn check_memory(&self, found: &Found) -> Result<(), Error> {
        let unsupported = |what: String| Error::Unsupported { place: found.text.clone(), what };
        self.abilities.check_shown(self.target.arch).map_err(unsupported)?;
        qkprobe_resolve::needs_memory(self.abilities.unfound).map_err(unsupported)
    }

    fn check_post(&self, found: &Found) -> Result<(), Error> {
        self.check_memory(found)?;
        let unsupported = |what: String| Error::Unsupported { place: found.text.clone(), what };
        let arch = self.target.arch;
        let execute = arch.as_execute();
        let execute =
            execute.ok_or_else(|| unsupported(format!("post handlers are not possible on {} yet", arch.name())))?;
        let slot = slot_of(found.place, &self.target);
        if slot.is_some_and(|slot| !execute.has_successor(&slot, found.place.addr())) {
            let what = "nothing runs after this instruction: it traps on purpose, or nobody can tell where it goes";
            return Err(unsupported(what.into()));
        }
        Ok(())
    }

    /// The given name, or one of the symbol's that nobody has.
    fn name(&mut self, common: &Common, found: &Found, suffix: &str) -> Result<String, Error> {
        if let Some(name) = &common.name {
            let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
            let fits = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !starts || !fits || name.len() > MAX_NAME {
                let what = format!("the name {:?}: letters, digits and _, at most {MAX_NAME}", plain(name));
                return Err(Error::Invalid { place: found.text.clone(), what });
            }
            if !self.names.insert(name.clone()) {
                return Err(Error::NameTaken { name: name.clone() });
            }
            return Ok(name.clone());
        }
        let base = self.automatic(&common.at, found);
        let mut name = format!("{base}{suffix}");
        let mut number = 0;
        while !self.names.insert(name.clone()) {
            number += 1;
            name = format!("{base}{suffix}_{number}");
        }
        Ok(name)
    }

    fn automatic(&self, at: &At, found: &Found) -> String {
        let place = match (at, self.target.name_of(found.addr)) {
            (At::Symbol(text), _) => text.clone(),
            (At::Addr(_), Some(named)) if named.offset == 0 || found.addr_is_entry => named.symbol,
            (At::Addr(_), Some(named)) => format!("{}+{:#x}", named.symbol, named.offset),
            (At::Addr(_), None) => format!("at_{}", found.addr),
        };
        let fit = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        place.chars().take(MAX_NAME - 16).map(fit).collect()
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one value, from two callers")]
    fn ready(
        &self,
        common: Common,
        found: Found,
        name: String,
        privilege: Privilege,
        handler: Handler,
        counts_only: bool,
        contained: &Arc<Contained>,
    ) -> Ready {
        let named = self.target.name_of(found.addr);
        let module = named.as_ref().and_then(|named| named.module.as_deref());
        // As the user wrote it: of the names of an address, the image's first may be another one.
        let shown = match (&common.at, &named) {
            (At::Addr(_), Some(named)) => format!("{}+{:#x}/{:#x}", named.symbol, named.offset, named.size),
            _ => found.text,
        };
        let is_return = matches!(handler, Handler::Return(_));
        let access = if counts_only { common.access } else { self.abilities.reading(self.target.arch, common.access) };
        let output = Output {
            definition: None,
            name,
            group: GROUP.to_owned(),
            function: is_return.then(|| plain(&shown)),
            place: plain(&shown),
            module: module.map(plain),
            address: Some(found.addr.0),
            in_image: matches!(found.place, Place::Image(_)),
            reserved: false,
        };
        let prepared = Prepared {
            definition: None,
            place: Some(found.place),
            output,
            handler,
            access,
            privilege,
            attempts: false,
            enabled: common.enabled,
            counts_only,
        };
        (prepared, Arc::downgrade(contained))
    }
}

/// A place that was found.
struct Found {
    /// As the user wrote it.
    text: String,
    addr: GuestAddr,
    place: Place,
    /// The address that was asked for is where a function is entered.
    addr_is_entry: bool,
}

/// `[MOD:]SYM[+OFF]`: where the symbol is, as linked, and the offset.
pub(super) fn resolve(place: &str, target: &ImageTarget<'_>) -> Result<(GuestAddr, u64), Error> {
    let (symbol, offset) = match place.split_once('+') {
        None => (place, 0),
        Some((symbol, offset)) => {
            let number = match offset.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16),
                None => offset.parse(),
            };
            let what = "the offset behind + is a number, decimal or with 0x";
            let number = number.map_err(|_| Error::Invalid { place: plain(place), what: what.into() })?;
            (symbol, number)
        }
    };
    let (module, name) = match symbol.split_once(':') {
        Some((module, name)) => (Some(module), name),
        None => (None, symbol),
    };
    let missing = |help: String| Error::NoSuchSymbol { place: plain(place), help };
    if target.image.is_none() {
        return Err(missing(": no kernel is known: name its image with kernel=FILE".into()));
    }
    if module.is_some_and(|module| !target.has_module(module)) {
        return Err(missing(": no symbols of this module are known".into()));
    }
    match target.symbol(module, name) {
        SymbolLookup::One { addr, .. } => Ok((addr, offset)),
        SymbolLookup::Many(addresses) => Err(Error::SymbolNotUnique { place: plain(place), addresses }),
        SymbolLookup::None => {
            Err(missing(target.hint(name).map_or_else(String::new, |hint| format!(": {}", plain(&hint)))))
        }
    }
}
