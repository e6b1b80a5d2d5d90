//! From what a user wrote to probes that can be registered: resolved against the image (`qkprobe_resolve`), checked against what
//! this QEMU can do. Nothing is changed here, so a mistake loses nothing.

use std::sync::Arc;

use qkprobe_arch::{Arch, GuestAddr, InsnSlot, NoSuchSymbol};
use qkprobe_lang::{Definition, Events, FaultState, Halt, Kind, NamedAddr, Privilege, ProbeConfig, Target as _, When};
pub(crate) use qkprobe_resolve::Refused;
use qkprobe_resolve::{ImageTarget, Resolved, Resolver, Step};

use crate::engine::kprobe::{Access, Changes, Event, Handler, Kretprobe, ReturnWork};
use crate::engine::locate::Locator;
use crate::qemu::api::Api;
use crate::qemu::host_memory;
use crate::record::Output;
use crate::registry::Place;

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

impl Prepared {
    /// Whether this definition is its own.
    fn is(&self, definition: &Arc<Definition>) -> bool {
        self.definition.as_ref().is_some_and(|own| Arc::ptr_eq(own, definition))
    }
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
    /// What is missing to find the guest's memory.
    pub(crate) unfound: Option<NoSuchSymbol>,
    /// Where the kernel runs, if one may.
    pub(crate) locator: Option<&'a Locator>,
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

    /// The access of a probe that reads memory: it may have to open the lock of programs' memory for the moment of a read.
    pub(crate) fn reading(&self, arch: &dyn Arch, access: Access) -> Access {
        let can_open = arch.user_memory_lock().is_some() && self.check(Access::Write, "").is_ok();
        if can_open { access.max(Access::Write) } else { access }
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
    let resolver = Resolver::new(*target, abilities.unfound);
    let mut prepared: Vec<Prepared> = Vec::with_capacity(probes.len());
    for config in probes {
        match resolver.step(config, events)? {
            Step::Nothing => {}
            Step::Deleted(gone) => {
                prepared.retain(|probe| !gone.iter().any(|gone| probe.is(gone)));
                gone.iter().for_each(|gone| _ = events.remove(gone));
            }
            Step::Added(resolved) => {
                let definition = Arc::clone(&resolved.definition);
                prepared.push(one(config, *resolved, target, abilities)?);
                events.insert(definition);
            }
        }
    }
    Ok(prepared)
}

/// Prepares the probes of `watch=`, as far as there is nothing against them: the tool that asks for them does without those that
/// this image or this QEMU cannot have, and without arguments that cannot be read. They are no events that a user could name.
pub(crate) fn prepare_watches(
    watches: &[ProbeConfig],
    target: &ImageTarget<'_>,
    abilities: Abilities<'_>,
) -> Vec<Prepared> {
    let prepare_one = |config: &ProbeConfig| {
        let probes = prepare(std::slice::from_ref(config), &mut Events::new(), target, abilities).ok()?;
        probes.into_iter().next()
    };
    let bare = |config: &ProbeConfig| {
        let def: Vec<&str> = config.def.split_whitespace().take(2).collect();
        ProbeConfig::new(def.join(" "), config.origin.clone())
    };
    let all = watches.iter().filter_map(|config| prepare_one(config).or_else(|| prepare_one(&bare(config))));
    let reserved = |probe: Prepared| Prepared { output: Output { reserved: true, ..probe.output }, ..probe };
    all.map(reserved).collect()
}

/// What this QEMU has to do with it.
fn one(
    config: &ProbeConfig,
    resolved: Resolved,
    target: &ImageTarget<'_>,
    abilities: Abilities<'_>,
) -> Result<Prepared, Refused> {
    let Resolved { definition, place, filter, effects, replacement, reads_memory, needs_state, unsettled } = resolved;
    let refused = |errno, what: String| Refused::new(errno, &config.origin, what);
    if let Some((addr, _)) = place.filter(|_| unsettled)
        && let Some(help) = abilities.locator.and_then(|locator| running_text_against(addr, target, locator))
    {
        let error = qkprobe_lang::not_a_boundary(&config.def, help);
        return Err(refused(error.errno, error.to_string()));
    }
    let changes = effects.map(|effects| Changes { effects, state: FaultState::default(), replacement });
    let mut access = changes.as_ref().map_or(Access::Read, Changes::access);
    let unsupported = |what| refused(libc::EOPNOTSUPP, what);
    abilities.check(access, "this changes the guest").map_err(unsupported)?;
    if needs_state || changes.is_some() {
        abilities.check_shown(target.arch).map_err(unsupported)?;
    }
    if reads_memory {
        access = abilities.reading(target.arch, access);
    }
    let is_plain = config.when == When::Pre && definition.kind == Kind::Kprobe;
    if changes.as_ref().is_some_and(|changes| changes.effects.halt == Some(Halt::Stop)) {
        if !abilities.control {
            let what = "stop: nobody could tell the guest to go on: give control=SOCKET as well";
            return Err(refused(libc::EINVAL, what.into()));
        }
        if abilities.exact_stop && is_plain {
            access = Access::Pc;
        }
    }
    let output = output(&definition, target);
    let event =
        Event { definition: Arc::clone(&definition), filter, action: config.action, effects: changes.map(Box::new) };
    let counts_only = event.counts_only() && is_plain;
    let handler = match (definition.kind, config.when) {
        (Kind::Kprobe, When::Pre) => Handler::Pre(event),
        (Kind::Kprobe, When::Post) => Handler::Post(event),
        (Kind::Kretprobe { maxactive }, _) => Handler::Return(Kretprobe::new(ReturnWork::Event(event), maxactive)),
    };
    Ok(Prepared {
        definition: Some(definition),
        place: place.map(|(addr, in_image)| if in_image { Place::Image(addr) } else { Place::Virtual(addr) }),
        output,
        handler,
        access,
        privilege: config.privilege,
        attempts: config.attempts,
        enabled: config.enabled,
        counts_only,
    })
}

/// What the running text has against a place where the image has no instruction, if the kernel has patched itself. Before that
/// the place waits; afterwards its translation shows whether it is the inside of an instruction.
fn running_text_against(addr: GuestAddr, target: &ImageTarget<'_>, locator: &Locator) -> Option<String> {
    let read = |at: GuestAddr, bytes: &mut [u8]| {
        let (_, host) = locator.running(at)?;
        host_memory::read(host, bytes).then_some(())
    };
    let mut patched = [0];
    read(target.data_symbol("alternatives_patched")?, &mut patched)?;
    let piece = target.unsettled(addr)?;
    // An instruction that begins in the piece may have been replaced by one that is longer.
    let mut text = vec![0; piece.end.wrapping_offset_from(piece.start) as usize + qkprobe_arch::MAX_INSN_BYTES];
    read(piece.start, &mut text)?;
    let checked = target.arch.check_boundary(piece.start, &text, addr.wrapping_offset_from(piece.start));
    checked.err().filter(|_| patched != [0]).map(|error| format!("{error}, in the running kernel"))
}

/// Image addresses follow the kernel; anything else is a virtual address as it is.
pub(crate) fn place_of(addr: GuestAddr, target: &ImageTarget<'_>) -> Place {
    if target.is_in_image(addr) { Place::Image(addr) } else { Place::Virtual(addr) }
}

/// The slot for a place, from the image's text.
pub(crate) fn slot_of(place: Place, target: &ImageTarget<'_>) -> Option<InsnSlot> {
    matches!(place, Place::Image(_)).then(|| target.slot(place.addr())).flatten()
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
        reserved: false,
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
