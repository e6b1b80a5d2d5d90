//! Each version's callback shape becomes one internal shape.
//!
//! API 4 to 6 pass the plugin's id first and no userdata (atexit: id, userdata); API 7 drops the id everywhere and
//! passes the userdata last. A panic never crosses: it is reported once, and the plugin is silent from then on.

use crate::message::say;
use std::ffi::{c_int, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use super::api::{Api, ExecCallback, Id, Tb};
use crate::engine::Serving;

/// What the plugin does at each event. One implementation, chosen at compile time: no indirect call on the hit path.
pub(crate) trait Events {
    fn block_translated(tb: *mut Tb);
    fn vcpu_started(vcpu: u32);
    /// The vCPU's thread is at a point where guest memory may be written and the code cache reset.
    fn safepoint(vcpu: u32);
    fn flushed();
    fn exiting();
    fn was_reset();
    fn hit(vcpu: u32, site: *const c_void, serving: Serving);
}

/// Set after a caught panic: every callback returns at once.
static SILENT: AtomicBool = AtomicBool::new(false);

pub(crate) fn is_silent() -> bool {
    SILENT.load(Ordering::Relaxed)
}

/// Runs a callback's body; a panic in it is reported, and the guest lives on without the plugin.
#[inline]
pub(crate) fn guarded(body: impl FnOnce()) {
    if is_silent() {
        return;
    }
    if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
        report_panic(&panic);
    }
}

#[cold]
fn report_panic(panic: &Box<dyn std::any::Any + Send>) {
    if SILENT.swap(true, Ordering::Relaxed) {
        return;
    }
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    say!(
        "qkprobe: internal error: {text}\n\
         qkprobe: all probes are silent from here on; the guest goes on. Please report this with the lines above."
    );
}

macro_rules! shapes {
    ($v6:ident, $v7:ident, ($($arg:ident: $ty:ty),*) => $event:ident) => {
        unsafe extern "C" fn $v6<E: Events>(_id: Id $(, $arg: $ty)*) {
            guarded(|| E::$event($($arg.into()),*));
        }
        unsafe extern "C" fn $v7<E: Events>($($arg: $ty,)* _userdata: *mut c_void) {
            guarded(|| E::$event($($arg.into()),*));
        }
    };
}

shapes!(tb_trans_v6, tb_trans_v7, (tb: *mut Tb) => block_translated);
shapes!(vcpu_init_v6, vcpu_init_v7, (vcpu: c_uint) => vcpu_started);
shapes!(safepoint_v6, safepoint_v7, (vcpu: c_uint) => safepoint);
shapes!(flush_v6, flush_v7, () => flushed);
shapes!(reset_v6, reset_v7, () => was_reset);

unsafe extern "C" fn atexit_v6<E: Events>(_id: Id, _userdata: *mut c_void) {
    guarded(E::exiting);
}

unsafe extern "C" fn atexit_v7<E: Events>(_userdata: *mut c_void) {
    guarded(E::exiting);
}

unsafe extern "C" fn discon_v6<E: Events>(_id: Id, vcpu: c_uint, _kind: c_int, _from: u64, _to: u64) {
    guarded(|| E::safepoint(vcpu));
}

unsafe extern "C" fn discon_v7<E: Events>(vcpu: c_uint, _kind: c_int, _from: u64, _to: u64, _userdata: *mut c_void) {
    guarded(|| E::safepoint(vcpu));
}

unsafe extern "C" fn hit<E: Events>(vcpu: c_uint, site: *mut c_void) {
    guarded(|| E::hit(vcpu, site, Serving::Plain));
}

unsafe extern "C" fn hit_count_all<E: Events>(vcpu: c_uint, site: *mut c_void) {
    guarded(|| E::hit(vcpu, site, Serving::CountAll));
}

unsafe extern "C" fn hit_ask<E: Events>(vcpu: c_uint, site: *mut c_void) {
    guarded(|| E::hit(vcpu, site, Serving::AskPrivilege));
}

/// `QEMU_PLUGIN_DISCON_INTERRUPT | QEMU_PLUGIN_DISCON_EXCEPTION`.
const DISCON_INTERRUPT_OR_EXCEPTION: c_int = 1 | 2;

/// Registers callbacks in the shape of the running version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registrar<'a> {
    pub(crate) api: &'a Api,
    pub(crate) id: Id,
}

impl Registrar<'_> {
    fn choose(self, v6: *const (), v7: *const ()) -> *const c_void {
        if self.api.level >= 7 { v7.cast() } else { v6.cast() }
    }

    /// Everything but translation; also after a reset, which drops all callbacks.
    pub(crate) fn register_lifetime<E: Events>(self) {
        let api = self.api;
        let none = std::ptr::null_mut();
        let safepoint = self.choose(safepoint_v6::<E> as *const (), safepoint_v7::<E> as *const ());
        // SAFETY: each function is registered where its signature, in the shape of this API version, is expected.
        unsafe {
            let init = self.choose(vcpu_init_v6::<E> as *const (), vcpu_init_v7::<E> as *const ());
            (api.register_vcpu_init_cb)(self.id, init, none);
            (api.register_vcpu_idle_cb)(self.id, safepoint, none);
            (api.register_vcpu_resume_cb)(self.id, safepoint, none);
            let flush = self.choose(flush_v6::<E> as *const (), flush_v7::<E> as *const ());
            (api.register_flush_cb)(self.id, flush, none);
            let exit = self.choose(atexit_v6::<E> as *const (), atexit_v7::<E> as *const ());
            (api.register_atexit_cb)(self.id, exit, none);
        }
    }

    /// The interrupt callback, where this QEMU has it (10.2): a safepoint that a busy guest reaches soon.
    /// It is registered only while something waits for a safepoint. Returns whether there is one.
    pub(crate) fn set_interrupt_safepoint<E: Events>(self, on: bool) -> bool {
        let Some(register) = self.api.register_vcpu_discon_cb else { return false };
        let callback =
            if on { self.choose(discon_v6::<E> as *const (), discon_v7::<E> as *const ()) } else { std::ptr::null() };
        // SAFETY: the shape fits the version; NULL removes the callback.
        unsafe { register(self.id, DISCON_INTERRUPT_OR_EXCEPTION, callback, std::ptr::null_mut()) };
        true
    }

    /// Turns the translation callback on or off. NULL removes just it.
    pub(crate) fn set_translation<E: Events>(self, on: bool) {
        let callback = if on {
            self.choose(tb_trans_v6::<E> as *const (), tb_trans_v7::<E> as *const ())
        } else {
            std::ptr::null()
        };
        // SAFETY: as above.
        unsafe { (self.api.register_vcpu_tb_trans_cb)(self.id, callback, std::ptr::null_mut()) };
    }

    /// Flushes the code cache. Only on a vCPU's thread, at a safepoint.
    pub(crate) fn reset<E: Events>(self) {
        let callback = self.choose(reset_v6::<E> as *const (), reset_v7::<E> as *const ());
        // SAFETY: the shape fits the version.
        unsafe { (self.api.reset)(self.id, callback, std::ptr::null_mut()) };
    }
}

/// The callback of an instruction with a site.
pub(crate) fn exec_callback<E: Events>(serving: Serving) -> ExecCallback {
    match serving {
        Serving::Plain => hit::<E>,
        Serving::CountAll => hit_count_all::<E>,
        Serving::AskPrivilege => hit_ask::<E>,
    }
}
