//! A probe that skips or replaces its instruction: whether that can be done without disturbing the code around it.

use qkprobe_arch::{GuestAddr, InsnSlot, Machine, RegisterId};
use qkprobe_lang::{FlowChange, Replacement};

use crate::target::ImageTarget;

/// The decoded instruction of `replace`, if the change is one that can be made at this instruction.
///
/// # Errors
/// It is not; for people.
pub(crate) fn check_flow(
    flow: &FlowChange,
    slot: Option<(InsnSlot, GuestAddr)>,
    target: &ImageTarget<'_>,
) -> Result<Option<InsnSlot>, String> {
    let (FlowChange::Skip | FlowChange::Replace(_)) = flow else { return Ok(None) };
    let execute = target.arch.as_execute().ok_or_else(|| format!("not possible on {} yet", target.arch.name()))?;
    let Some((slot, addr)) = slot else {
        return Err("skip and replace need the kernel's text: give the image with kernel=FILE".into());
    };
    if !target.flags_are_dead(addr.wrapping_add(u64::from(slot.insn.len))) {
        return Err("the code behind this instruction may read flags that an instruction before it computed, and \
                    QEMU loses them when a plugin changes the program counter: choose an instruction whose flags nobody reads, or set registers instead"
            .into());
    }
    let bytes = match flow {
        FlowChange::Replace(Replacement::Nop) => execute.nop(),
        FlowChange::Replace(Replacement::Bytes(bytes)) => bytes,
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
