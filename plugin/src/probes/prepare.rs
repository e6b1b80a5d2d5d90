//! From what a user wrote to probes that can be registered: parsed, compiled, checked against the image and against what
//! this QEMU can do. Nothing is changed here, so a mistake loses nothing.

use std::sync::Arc;

use qkprobe_arch::{Arch, Execute, GuestAddr, InsnSlot, Machine, NoSuchSymbol, RegisterId};
use qkprobe_lang::{
    Command, Definition, EffectSpec, Effects, Events, FaultState, Filter, FlowChange, Halt, Kind, NamedAddr, Privilege,
    ProbeConfig, Replacement, Target as _, When,
};

use crate::engine::kprobe::{Access, Changes, Event, Handler, Kretprobe, ReturnWork};
use crate::engine::pending::DATA_BYTES;
use crate::qemu::api::Api;
use crate::record::Output;
use crate::registry::Place;
use crate::resolve::ImageTarget;

/// Why a probe is refused: for people, with an errno of the kernel's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refused {
    pub(crate) errno: i32,
    pub(crate) message: String,
}

impl Refused {
    fn new(errno: i32, origin: &str, what: impl std::fmt::Display) -> Self {
        Self { errno, message: format!("{origin}\n{what}") }
    }
}

/// A probe that can be registered.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// `None` for a probe of a Rust program.
    pub(crate) definition: Option<Arc<Definition>>,
    /// `None` while it is pending: its module is not there.
    pub(crate) place: Option<Place>,
    pub(crate) output: Output,
    pub(crate) handler: Handler,
    pub(crate) access: Access,
    pub(crate) privilege: Privilege,
    pub(crate) attempts: bool,
    pub(crate) enabled: bool,
    /// It wants nothing but a number, so that translated code may count by itself.
    pub(crate) counts_only: bool,
}

/// What this QEMU can do, as far as probes may need it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abilities<'a> {
    pub(crate) api: &'a Api,
    pub(crate) qemu: &'a str,
    /// `stop` can be ended: there is a control socket.
    pub(crate) control: bool,
    /// A halt can move to the instruction itself, to stop exactly there.
    pub(crate) exact_stop: bool,
    /// What is missing to find the guest's memory, where its page tables must be followed: an image that is no Linux kernel.
    pub(crate) unfound: Option<NoSuchSymbol>,
}

impl Abilities<'_> {
    /// What a probe reads must be shown: QEMU before 10.1 has no register list for the ISAs whose memory is found by a walk.
    pub(crate) fn check_shown(&self, arch: &dyn Arch) -> Result<(), String> {
        if arch.as_translate().is_none() || self.api.read_memory_hwaddr.is_some() {
            return Ok(());
        }
        let name = arch.name();
        Err(format!(
            "QEMU {} shows neither registers nor memory of a {name} guest: that came with QEMU 10.1\nWithout arguments a p probe \
             counts and records there.",
            self.qemu
        ))
    }

    pub(crate) fn check(&self, access: Access, what: &str) -> Result<(), String> {
        let api = self.api;
        let (has, came) = match access {
            Access::Read => (true, ""),
            Access::Write => (api.write_register.is_some() && api.write_memory_vaddr.is_some(), "10.1"),
            Access::Pc => (api.set_pc.is_some(), "11.0"),
        };
        if has {
            return Ok(());
        }
        let ability = if access == Access::Pc { "the program counter" } else { "registers and memory" };
        Err(format!("{what}: QEMU {} does not let a plugin set {ability}: that came with QEMU {came}", self.qemu))
    }
}

/// Prepares all of `probes`, in their order; `-:` lines take back what stands before them.
///
/// # Errors
/// The first mistake.
pub(crate) fn prepare(
    probes: &[ProbeConfig],
    events: &mut Events,
    target: &ImageTarget<'_>,
    abilities: Abilities<'_>,
) -> Result<Vec<Prepared>, Refused> {
    let mut prepared: Vec<Prepared> = Vec::with_capacity(probes.len());
    for config in probes {
        let origin = &config.origin;
        let command = qkprobe_lang::parse(&config.def, target, events)
            .map_err(|error| Refused::new(error.errno, origin, &error))?;
        match command {
            Command::Nothing => {}
            Command::Delete(delete) => {
                for gone in events.matching(&delete) {
                    events.remove(&gone);
                    let is_gone = |probe: &Prepared| probe.definition.as_ref().is_some_and(|it| Arc::ptr_eq(it, &gone));
                    prepared.retain(|probe| !is_gone(probe));
                }
            }
            Command::Add(definition) => {
                let one = one(config, definition, target, abilities)?;
                one.definition.iter().for_each(|definition| events.insert(Arc::clone(definition)));
                prepared.push(one);
            }
        }
    }
    Ok(prepared)
}

fn one(
    config: &ProbeConfig,
    definition: Definition,
    target: &ImageTarget<'_>,
    abilities: Abilities<'_>,
) -> Result<Prepared, Refused> {
    let origin = &config.origin;
    let invalid = |what: String| Refused::new(libc::EINVAL, origin, what);
    let filter = config.filter.as_deref().map(|text| Filter::compile(text, &definition));
    let filter = filter.transpose().map_err(|error| Refused::new(libc::EINVAL, origin, error))?;
    let filter = filter.filter(|filter| !filter.is_none());
    let effects =
        config.compile_effects(&definition, target).map_err(|error| Refused::new(error.errno, origin, &error))?;
    let definition = Arc::new(definition);
    let place = definition.place.address.map(|addr| place_of(addr, target));
    let slot = place.and_then(|place| slot_of(place, target));
    if let (Some(Place::Image(addr)), None) = (place, slot)
        && target.has_text(addr)
    {
        let what = format!("{}: no instruction is there: data lies between the code", definition.place.text);
        return Err(Refused::new(libc::EILSEQ, origin, what));
    }
    let changes = effects.map(|effects| changes(&config.effects, effects, place, slot, target)).transpose();
    let changes = changes.map_err(|what| Refused::new(libc::EOPNOTSUPP, origin, what))?;
    let mut access = changes.as_ref().map_or(Access::Read, Changes::access);
    abilities.check(access, "this changes the guest").map_err(|what| Refused::new(libc::EOPNOTSUPP, origin, what))?;
    let reads = |program: &qkprobe_lang::Program| program.reads_memory() || !program.registers().is_empty();
    if reads(&definition.program) || changes.is_some() || definition.kind != Kind::Kprobe || config.when != When::Pre {
        abilities.check_shown(target.arch).map_err(|what| Refused::new(libc::EOPNOTSUPP, origin, what))?;
    }
    let entry_reads = definition.entry.as_ref().is_some_and(qkprobe_lang::Program::reads_memory);
    let reads_memory = definition.program.reads_memory() || entry_reads;
    // A return or a successor is a place whose code must be found, too.
    let needs_memory = reads_memory || definition.kind != Kind::Kprobe || config.when != When::Pre;
    if let Some(unfound) = abilities.unfound.filter(|_| needs_memory) {
        return Err(Refused::new(libc::EOPNOTSUPP, origin, format!("this needs the guest's memory: {unfound}")));
    }
    if reads_memory && target.arch.user_memory_lock().is_some() && abilities.check(Access::Write, "").is_ok() {
        // To open the lock for the moment of a read.
        access = access.max(Access::Write);
    }
    if changes.as_ref().is_some_and(|changes| changes.effects.halt == Some(Halt::Stop)) {
        if !abilities.control {
            return Err(invalid("stop: nobody could tell the guest to go on: give control=SOCKET as well".into()));
        }
        if abilities.exact_stop && config.when == When::Pre && definition.kind == Kind::Kprobe {
            access = Access::Pc;
        }
    }
    let output = output(&definition, target);
    let event =
        Event { definition: Arc::clone(&definition), filter, action: config.action, effects: changes.map(Box::new) };
    let counts_only = event.counts_only() && config.when == When::Pre && definition.kind == Kind::Kprobe;
    let handler = match (definition.kind, config.when) {
        (Kind::Kprobe, When::Pre) => Handler::Pre(event),
        (Kind::Kprobe, When::Post) => {
            let execute = target.arch.as_execute();
            let execute = execute.ok_or_else(|| {
                let what = format!("post: not possible on {} yet", target.arch.name());
                Refused::new(libc::EOPNOTSUPP, origin, what)
            })?;
            if let (Some(slot), Some(place)) = (&slot, place)
                && !execute.has_successor(slot, place.addr())
            {
                let what = format!(
                    "post: the instruction at {} ({:02x?}) traps on purpose, or nobody can tell where it goes: nothing runs \
                     after it",
                    definition.place.text,
                    slot.bytes()
                );
                return Err(Refused::new(libc::EOPNOTSUPP, origin, what));
            }
            Handler::Post(event)
        }
        (Kind::Kretprobe { maxactive }, _) => {
            if config.privilege != Privilege::Kernel {
                return Err(invalid("a return probe is for the kernel's own functions".into()));
            }
            let saved = definition.entry.as_ref().map_or(0, |entry| entry.max_len());
            if saved > DATA_BYTES {
                let what = "too many different $argN at a return: at most 10";
                return Err(Refused::new(libc::E2BIG, origin, what));
            }
            Handler::Return(Kretprobe::new(ReturnWork::Event(event), maxactive))
        }
    };
    Ok(Prepared {
        definition: Some(definition),
        place,
        output,
        handler,
        access,
        privilege: config.privilege,
        attempts: config.attempts,
        enabled: config.enabled,
        counts_only,
    })
}

/// What needs the instruction's text: the replacement, and whether flags would be lost.
fn changes(
    spec: &EffectSpec,
    effects: Effects,
    place: Option<Place>,
    slot: Option<InsnSlot>,
    target: &ImageTarget<'_>,
) -> Result<Changes, String> {
    let mut replacement = None;
    if let Some(FlowChange::Skip | FlowChange::Replace(_)) = &effects.flow {
        let execute = target.arch.as_execute().ok_or_else(|| format!("not possible on {} yet", target.arch.name()))?;
        let (Some(slot), Some(place)) = (slot, place) else {
            return Err("skip and replace need the kernel's text: give the image with kernel=FILE".into());
        };
        replacement = check_flow(&effects, execute, &slot, place.addr(), target)?;
    }
    debug_assert!(!spec.is_empty(), "effects come from options");
    Ok(Changes { effects, state: FaultState::default(), replacement })
}

fn check_flow(
    effects: &Effects,
    execute: &dyn Execute,
    slot: &InsnSlot,
    addr: GuestAddr,
    target: &ImageTarget<'_>,
) -> Result<Option<InsnSlot>, String> {
    let behind = addr.wrapping_add(u64::from(slot.insn.len));
    if !target.flags_are_dead(behind) {
        return Err("the code behind this instruction may read flags that an instruction before it computed, and \
                    QEMU loses them when a plugin changes the program counter: choose an instruction whose flags nobody reads, or set registers instead"
            .into());
    }
    let bytes = match &effects.flow {
        Some(FlowChange::Replace(Replacement::Nop)) => execute.nop(),
        Some(FlowChange::Replace(Replacement::Bytes(bytes))) => bytes,
        _ => return Ok(None),
    };
    let slot = InsnSlot::prepare(target.arch, addr, bytes).map_err(|error| error.to_string())?;
    if !execute.flags_are_exact() && execute.reads_flags(&slot, addr) {
        return Err("replace: the new instruction reads flags, which QEMU does not show exactly at a hit".into());
    }
    if execute.execute(&slot, addr, &mut Trial).is_err() {
        return Err(
            "replace: this instruction cannot be executed out of line; moves, loads, stores, arithmetic, calls and \
                    jumps can"
                .into(),
        );
    }
    Ok(Some(slot))
}

/// A machine on which everything succeeds: shows whether an instruction is of the executor's classes.
struct Trial;

impl Machine for Trial {
    fn register(&mut self, _id: RegisterId) -> Option<u64> {
        Some(0)
    }

    fn set_register(&mut self, _id: RegisterId, _value: u64) -> bool {
        true
    }

    fn read(&mut self, _addr: GuestAddr, bytes: &mut [u8]) -> bool {
        bytes.fill(0);
        true
    }

    fn write(&mut self, _addr: GuestAddr, _bytes: &[u8]) -> bool {
        true
    }
}

/// Image addresses follow the kernel; anything else is a virtual address as it is.
pub(crate) fn place_of(addr: GuestAddr, target: &ImageTarget<'_>) -> Place {
    let in_image = target.has_text(addr) || (target.is_text_free() && target.in_kernel(addr));
    if in_image { Place::Image(addr) } else { Place::Virtual(addr) }
}

/// The slot for a place, from the image's text.
pub(crate) fn slot_of(place: Place, target: &ImageTarget<'_>) -> Option<InsnSlot> {
    let addr = place.addr();
    let known = matches!(place, Place::Image(_)) && target.has_text(addr);
    known.then(|| InsnSlot::prepare(target.arch, addr, target.slot_text(addr)).ok()).flatten()
}

fn output(definition: &Arc<Definition>, target: &ImageTarget<'_>) -> Output {
    let address = definition.place.address;
    let named = address.and_then(|addr| target.name_of(addr));
    let module = |module: &Option<String>| module.as_ref().map(|module| format!(" [{module}]")).unwrap_or_default();
    let shown = match (&named, address) {
        (Some(NamedAddr { symbol, offset, size, module: of }), _) => {
            format!("{symbol}+{offset:#x}/{size:#x}{}", module(of))
        }
        (None, Some(addr)) => format!("{addr}"),
        (None, None) => definition.place.text.clone(),
    };
    // At a return the kernel names the function alone.
    let function = match (&named, definition.kind) {
        (Some(NamedAddr { symbol, module: of, .. }), Kind::Kretprobe { .. }) => Some(format!("{symbol}{}", module(of))),
        (None, Kind::Kretprobe { .. }) => Some(shown.clone()),
        (_, Kind::Kprobe) => None,
    };
    Output {
        name: definition.event.clone(),
        group: definition.group.clone(),
        place: plain(&shown),
        function: function.map(|text| plain(&text)),
        module: named.as_ref().and_then(|named| named.module.as_deref()).map(plain),
        address: address.map(|addr| addr.0),
        in_image: address.is_some_and(|addr| matches!(place_of(addr, target), Place::Image(_))),
        definition: Some(Arc::clone(definition)),
    }
}

/// Text from an image or a guest, fit for a terminal and for JSON as it stands.
pub(crate) fn plain(text: &str) -> String {
    let fits = |c: char| (c.is_ascii_graphic() || c == ' ') && c != '"' && c != '\\';
    text.chars().map(|c| if fits(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_says_cannot_reach_the_terminal() {
        assert_eq!(plain("do_one+0x0/0x10 [mod]"), "do_one+0x0/0x10 [mod]");
        assert_eq!(plain("a\u{1b}[31m\"b\\c\n\u{e4}"), "a?[31m?b?c??");
    }
}
