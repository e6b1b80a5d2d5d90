//! Restarts: an instruction that raises an exception runs again when the handler has mended its cause (a page that was
//! not there). That is one execution for the guest, and one hit here.
//!
//! 1. An instruction that may fault is hit: the vCPU notes where its block begins. An exception comes from there
//!    (discontinuity callback, QEMU 10.2; on x86, QEMU 11.1 tells the block's start of an instruction that faulted, so this
//!    may also be one behind it): an instance of kind `Restart` is put aside, with the stack pointer.
//! 2. The site is hit again. If there is such an instance for this stack pointer, and the exception's frame, which lies
//!    below it now, still says this address, the instruction was restarted. If it says something else, the handler went
//!    elsewhere (a fix-up) or another instruction faulted, and this is a new execution.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::atomic::Ordering;

use qkprobe_arch::GuestAddr;

use super::context::GuestState;
use super::hit::{Frame, HitEnv, within};
use super::kprobe::Kprobe;
use super::pending::{DATA_BYTES, Instance, Kind};
use super::vcpu::Vcpu;
use crate::registry::{Place, Site};

fn token(place: Place) -> (usize, u64) {
    match place {
        Place::Image(addr) => (1, addr.0),
        Place::Virtual(addr) => (2, addr.0),
    }
}

fn place(instance: &Instance) -> Place {
    match instance.token {
        1 => Place::Image(GuestAddr(instance.first)),
        _ => Place::Virtual(GuestAddr(instance.first)),
    }
}

/// The vCPU took an exception that came from `from`.
pub(crate) fn exception<G: GuestState>(env: &HitEnv<'_>, vcpu: &Vcpu, guest: &G, from: GuestAddr) {
    let Some((at, noted)) = vcpu.left(from) else { return };
    within(env, vcpu, guest, None, from, |frame| {
        let Some(sp) = noted.or_else(|| frame.sp()) else { return };
        let (token, first) = token(at);
        let instance =
            Instance { kind: Kind::Restart, token, sp, first, second: first, time: 0, data: [0; DATA_BYTES] };
        // The same exception may be told twice.
        let known = env.pending.cancel(Kind::Restart, token, sp, first);
        let pushed = env.pending.push(&instance, 0).is_ok();
        if pushed != known {
            with_site(env, at, frame.guard, |site| {
                if pushed {
                    site.restarts().fetch_add(1, Ordering::Relaxed);
                } else {
                    site.restarts().fetch_sub(1, Ordering::Relaxed);
                }
            });
        }
    });
}

fn with_site(env: &HitEnv<'_>, place: Place, guard: &crossbeam_epoch::Guard, found: impl FnOnce(&Site<Kprobe>)) {
    let mut site = None;
    env.registry.sites_on_page(place, guard, |other| {
        if other.place() == place {
            site = Some(std::sync::Arc::clone(other));
        }
    });
    if let Some(site) = site {
        found(&site);
    }
}

impl<G: GuestState> Frame<'_, G> {
    /// Whether this execution of the site's instruction is a restart.
    #[cold]
    pub(super) fn is_restart(&self, site: &Site<Kprobe>) -> bool {
        let Some(sp) = self.sp() else { return false };
        let (token, first) = token(site.place());
        let mut found = 0;
        let mut wanted = |instance: &Instance| instance.token == token && instance.first == first && instance.sp == sp;
        self.env.pending.take_restarts(sp, &mut wanted, &mut |_| found += 1);
        site.restarts().fetch_sub(found, Ordering::Relaxed);
        let context = self.context(None, None);
        found != 0 && self.env.arch.is_restart(sp, self.alias(), &mut |addr| context.word(addr))
    }

    /// The restart that never came.
    pub(super) fn forget_restart(&self, instance: &Instance) {
        with_site(self.env, place(instance), self.guard, |site| {
            site.restarts().fetch_sub(1, Ordering::Relaxed);
        });
    }
}
