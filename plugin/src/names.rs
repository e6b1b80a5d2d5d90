//! Names of the running guest's addresses.

use std::sync::Arc;

use qkprobe_arch::GuestAddr;
use qkprobe_lang::SymbolNames;
use qkprobe_symbols::KernelImage;

use crate::engine::locate::Locator;

/// Names of runtime addresses, for printed pointers.
#[derive(Debug)]
pub(crate) struct RuntimeNames {
    pub(crate) image: Option<Arc<KernelImage>>,
    pub(crate) locator: Option<Arc<Locator>>,
}

impl SymbolNames for RuntimeNames {
    fn name(&self, addr: u64, out: &mut dyn std::fmt::Write) -> bool {
        let Some(image) = &self.image else { return false };
        qkprobe_resolve::write_name(image, GuestAddr(self.linked(addr)), out)
    }

    fn linked(&self, addr: u64) -> u64 {
        // Before the slide is known the kernel runs where it is linked, or identity mapped.
        let linked = self.locator.as_ref().and_then(|locator| locator.linked(GuestAddr(addr)));
        linked.map_or(addr, |linked| linked.0)
    }
}
