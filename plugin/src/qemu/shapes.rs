//! Each version's callback shape becomes one internal shape.
//!
//! API 4 to 6 pass the plugin's id first and no userdata (atexit: id, userdata); API 7 drops the id everywhere and
//! passes the userdata last. A panic never crosses: it is reported once, and the plugin is silent from then on.

use crate::message::say;
use std::ffi::{c_int, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};

use qkprobe_arch::GuestAddr;

use super::api::{Api, ExecCallback, Id, Tb};
use super::delay_slots::DelaySlot;
use crate::engine::Serving;
use crate::engine::hit::{Planted, Spot};
use crate::engine::kprobe::Access;

/// What the plugin does at each event. One implementation, chosen at compile time: no indirect call on the hit path.
pub(crate) trait Events {
    fn block_translated(tb: *mut Tb);
    fn vcpu_started(vcpu: u32);
    /// The vCPU has slept and is about to go on. Guest memory may be written here and the code cache reset: a safepoint.
    fn resumed(vcpu: u32);
    /// The vCPU took an interrupt or an exception: a safepoint as well.
    fn discontinuity(vcpu: u32, is_exception: bool, from: u64, to: u64);
    fn flushed();
    fn exiting();
    fn was_reset();
    /// The instruction of a site is about to run; the answer is where to go instead.
    fn hit(vcpu: u32, site: *const c_void, planted: Planted) -> Option<u64>;
    /// The same when hits are over: only who is held is still answered.
    fn held(vcpu: u32, site: *const c_void) -> Option<u64>;
    /// The instruction of a site has run.
    fn post(vcpu: u32, site: *const c_void, serving: Serving);
    /// Execution is at a landing.
    fn arrive(vcpu: u32, landing: *const c_void);
    /// Sets the program counter and does not return; does nothing where QEMU cannot.
    ///
    /// # Safety
    /// Only in a callback with `CB_RW_REGS_PC`, from a frame that, like all frames up to QEMU's, has nothing to drop.
    unsafe fn set_pc(addr: u64);
}

/// Which callbacks still do something.
static STATE: AtomicU8 = AtomicU8::new(LIVE);
const LIVE: u8 = 0;
/// The records are being closed: what is hit from here on is no hit.
const NO_HITS: u8 = 1;
/// After a caught panic: every callback returns at once.
const SILENT: u8 = 2;

pub(crate) fn is_silent() -> bool {
    STATE.load(Ordering::Relaxed) == SILENT
}

/// The run is over: hits that begin from here on do nothing and count nothing.
pub(crate) fn end_hits() {
    STATE.fetch_max(NO_HITS, Ordering::Relaxed);
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

/// The same for what the guest's execution calls.
#[inline]
fn guarded_hit(body: impl FnOnce()) {
    if STATE.load(Ordering::Relaxed) != LIVE {
        return;
    }
    if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
        report_panic(&panic);
    }
}

#[cold]
fn report_panic(panic: &Box<dyn std::any::Any + Send>) {
    if STATE.swap(SILENT, Ordering::Relaxed) == SILENT {
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
shapes!(resume_v6, resume_v7, (vcpu: c_uint) => resumed);
shapes!(flush_v6, flush_v7, () => flushed);
shapes!(reset_v6, reset_v7, () => was_reset);

/// In place of the callback of system calls, which only a user-mode QEMU calls.
extern "C" fn never_called() {}

unsafe extern "C" fn atexit_v6<E: Events>(_id: Id, _userdata: *mut c_void) {
    guarded(E::exiting);
}

unsafe extern "C" fn atexit_v7<E: Events>(_userdata: *mut c_void) {
    guarded(E::exiting);
}

unsafe extern "C" fn discon_v6<E: Events>(_id: Id, vcpu: c_uint, kind: c_int, from: u64, to: u64) {
    guarded(|| E::discontinuity(vcpu, kind & DISCON_EXCEPTION != 0, from, to));
}

unsafe extern "C" fn discon_v7<E: Events>(vcpu: c_uint, kind: c_int, from: u64, to: u64, _userdata: *mut c_void) {
    guarded(|| E::discontinuity(vcpu, kind & DISCON_EXCEPTION != 0, from, to));
}

/// A site's callback: what it has to know beside the site is in its address, so that translated code passes no more.
unsafe extern "C" fn hit<E: Events, const PLANTED: u8>(vcpu: c_uint, userdata: *mut c_void) {
    // SAFETY: it was planted so.
    let (site, planted) = unsafe { decoded(userdata, PLANTED) };
    live_hit::<E>(vcpu, site, planted, is_rare(PLANTED));
}

/// The same where the program counter may be set.
unsafe extern "C" fn hit_and_jump<E: Events, const PLANTED: u8>(vcpu: c_uint, userdata: *mut c_void) {
    // SAFETY: it was planted so.
    let (site, planted) = unsafe { decoded(userdata, PLANTED) };
    let mut target = None;
    if STATE.load(Ordering::Relaxed) == NO_HITS {
        // A vCPU that is held must not slip away while QEMU ends.
        guarded(|| target = E::held(vcpu, site));
    } else {
        target = live_hit::<E>(vcpu, site, planted, is_rare(PLANTED));
    }
    if let Some(target) = target {
        // SAFETY: planted with `CB_RW_REGS_PC`; this frame holds plain numbers only, and the guarded body is over.
        unsafe { E::set_pc(target) };
    }
}

#[inline]
fn live_hit<E: Events>(vcpu: c_uint, site: *const c_void, planted: Planted, rare: bool) -> Option<u64> {
    if rare {
        return rare_hit::<E>(vcpu, site, planted);
    }
    let mut target = None;
    guarded_hit(|| target = E::hit(vcpu, site, planted));
    target
}

/// One copy of the hit for all the ways to plant it that few sites have.
#[inline(never)]
fn rare_hit<E: Events>(vcpu: c_uint, site: *const c_void, planted: Planted) -> Option<u64> {
    let mut target = None;
    guarded_hit(|| target = E::hit(vcpu, site, planted));
    target
}

/// The site, and how it is served.
///
/// # Safety
/// `userdata` is that of a callback which was planted with these bits.
#[inline]
unsafe fn decoded(userdata: *const c_void, bits: u8) -> (*const c_void, Planted) {
    if bits & SLOT != SLOT {
        return (userdata, planted(bits, GuestAddr(0)));
    }
    // SAFETY: so planted, it is a `DelaySlot`, which lives as long as translated code may hold it.
    let slot = unsafe { &*userdata.cast::<DelaySlot>() };
    (slot.site, planted(bits, slot.npc))
}

unsafe extern "C" fn post<E: Events, const PLANTED: u8>(vcpu: c_uint, site: *mut c_void) {
    guarded_hit(|| E::post(vcpu, site, planted(PLANTED, GuestAddr(0)).serving));
}

unsafe extern "C" fn arrive<E: Events>(vcpu: c_uint, landing: *mut c_void) {
    guarded_hit(|| E::arrive(vcpu, landing));
}

const COUNT_ALL: u8 = 1;
const ASK_PRIVILEGE: u8 = 2;
const USER: u8 = 3;
const LANDS: u8 = 4;
const RESTARTS: u8 = 8;
const BEHIND: u8 = 16;
const FIRST: u8 = 32;
const SLOT: u8 = 48;
/// All bits set, and one more.
const WAYS: usize = 64;

/// User code, what nobody knows the privilege of, and blocks that begin in a delay slot.
const fn is_rare(bits: u8) -> bool {
    bits & SLOT == SLOT || bits & USER >= ASK_PRIVILEGE
}

/// `npc` is that of a delay slot.
const fn planted(bits: u8, npc: GuestAddr) -> Planted {
    let serving = match bits & USER {
        COUNT_ALL => Serving::CountAll,
        ASK_PRIVILEGE => Serving::AskPrivilege,
        USER => Serving::User,
        _ => Serving::Plain,
    };
    let spot = match bits & SLOT {
        BEHIND => Spot::Behind,
        FIRST => Spot::First,
        SLOT => Spot::Slot(npc),
        _ => Spot::Any,
    };
    Planted { serving, lands: bits & LANDS != 0, restarts: bits & RESTARTS != 0, spot }
}

fn bits(planted: Planted) -> u8 {
    let Planted { serving, lands, restarts, spot } = planted;
    let serving = match serving {
        Serving::Plain => 0,
        Serving::CountAll => COUNT_ALL,
        Serving::AskPrivilege => ASK_PRIVILEGE,
        Serving::User => USER,
    };
    let spot = match spot {
        Spot::Any => 0,
        Spot::Behind => BEHIND,
        Spot::First => FIRST,
        Spot::Slot(_) => SLOT,
    };
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    serving | bit(lands, LANDS) | bit(restarts, RESTARTS) | spot
}

/// One callback for each way to plant it.
macro_rules! each_planted {
    ($callback:ident) => {
        each_planted!($callback:
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
            32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63)
    };
    ($callback:ident: $($bits:literal)*) => {
        [$($callback::<E, $bits> as ExecCallback),*]
    };
}

const DISCON_INTERRUPT: c_int = 1;
const DISCON_EXCEPTION: c_int = 2;

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
        // SAFETY: each function is registered where its signature, in the shape of this API version, is expected.
        unsafe {
            let init = self.choose(vcpu_init_v6::<E> as *const (), vcpu_init_v7::<E> as *const ());
            (api.register_vcpu_init_cb)(self.id, init, none);
            let flush = self.choose(flush_v6::<E> as *const (), flush_v7::<E> as *const ());
            (api.register_flush_cb)(self.id, flush, none);
            let exit = self.choose(atexit_v6::<E> as *const (), atexit_v7::<E> as *const ());
            (api.register_atexit_cb)(self.id, exit, none);
        }
    }

    /// Registers the callback of a vCPU that has slept, or removes it. Removed only by itself: see `waker`.
    pub(crate) fn set_resume<E: Events>(self, on: bool) {
        let resume = self.choose(resume_v6::<E> as *const (), resume_v7::<E> as *const ());
        let callback = if on { resume } else { std::ptr::null() };
        // SAFETY: the shape fits the version; a null pointer removes the callback.
        unsafe { (self.api.register_vcpu_resume_cb)(self.id, callback, std::ptr::null_mut()) };
    }

    /// Registers or removes a callback that a QEMU which runs a whole machine never calls.
    pub(crate) fn set_never_called(self, on: bool) {
        let callback = if on { never_called as *const c_void } else { std::ptr::null() };
        // SAFETY: it is not called, whatever its shape; a null pointer removes it.
        unsafe { (self.api.register_vcpu_syscall_ret_cb)(self.id, callback, std::ptr::null_mut()) };
    }

    /// The interrupt callback, where this QEMU has it (10.2): a safepoint that a busy guest reaches soon.
    /// It also tells of exceptions, which a probed instruction may raise and then run again. Registered while probes are
    /// armed.
    pub(crate) fn set_interrupt_safepoint<E: Events>(self) {
        let Some(register) = self.api.register_vcpu_discon_cb else { return };
        let callback = self.choose(discon_v6::<E> as *const (), discon_v7::<E> as *const ());
        // SAFETY: the shape fits the version.
        unsafe { register(self.id, DISCON_INTERRUPT | DISCON_EXCEPTION, callback, std::ptr::null_mut()) };
    }

    /// Registers the translation callback. Like all callbacks it goes only by a reset: see `cache`.
    pub(crate) fn set_translation<E: Events>(self) {
        let callback = self.choose(tb_trans_v6::<E> as *const (), tb_trans_v7::<E> as *const ());
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
pub(crate) fn exec_callback<E: Events>(planted: Planted, access: Access) -> ExecCallback {
    let all: [ExecCallback; WAYS] = if access == Access::Pc { each_planted!(hit_and_jump) } else { each_planted!(hit) };
    all[usize::from(bits(planted))]
}

/// The callback of the instruction behind a site.
pub(crate) fn post_callback<E: Events>(serving: Serving) -> ExecCallback {
    match serving {
        Serving::Plain => post::<E, 0>,
        Serving::CountAll => post::<E, COUNT_ALL>,
        Serving::AskPrivilege => post::<E, ASK_PRIVILEGE>,
        Serving::User => post::<E, USER>,
    }
}

/// The callback of a landing.
pub(crate) fn landing_callback<E: Events>() -> ExecCallback {
    arrive::<E>
}
