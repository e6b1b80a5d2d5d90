//! What QEMU calls: `qemu_plugin_install`, and the events that follow.

use crate::message::say;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use qkprobe_arch::GuestAddr;
use qkprobe_lang::Space;

use super::api::{Api, Id, Info, Tb};
use super::block::QemuBlock;
use super::cache::{CodeMemory, HostPlace, Stale};
use super::guest::VcpuGuest;
use super::host_memory::HostAddr;
use super::shapes::Events;
use super::version::{OLDEST, qemu_plugin_version, release};
use crate::engine::Serving;
use crate::engine::context::GuestState;
use crate::engine::hit::{self, After, Planted};
use crate::engine::kprobe::Kprobe;
use crate::engine::pending::landing::Landing;
use crate::install::install;
use crate::registry::{Place, Site};
use crate::running::{Machine, Plugin};

impl GuestState for VcpuGuest {
    #[inline]
    fn register(&self, id: qkprobe_arch::RegisterId) -> Option<u64> {
        VcpuGuest::register(self, id)
    }

    #[inline]
    fn read(&self, space: Space, addr: GuestAddr, out: &mut [u8]) -> bool {
        VcpuGuest::read(self, space, addr, out)
    }

    fn set_register(&self, id: qkprobe_arch::RegisterId, value: u64) -> bool {
        VcpuGuest::set_register(self, id, value)
    }

    fn write(&self, space: Space, addr: GuestAddr, bytes: &[u8]) -> bool {
        VcpuGuest::write(self, space, addr, bytes)
    }

    #[inline]
    fn stack_word(&self, addr: GuestAddr) -> Option<u64> {
        let plugin = plugin()?;
        if !plugin.knows_tasks() {
            return None;
        }
        let find = |page| plugin.host_of_page(self, page);
        let word = self.stack.word(addr, plugin.arch.word_bytes(), plugin.pending.generation(), find)?;
        Some(plugin.arch.byte_order().number(word.get(..plugin.arch.word_bytes())?))
    }

    fn is_ram(&self, addr: GuestAddr) -> bool {
        let Some(plugin) = plugin() else { return false };
        self.physical(Space::Kernel, addr).is_some_and(|physical| !plugin.arch.is_device(physical))
    }
}

/// The one plugin of this process. QEMU never unloads a plugin that has callbacks in translated code, so it stays.
static PLUGIN: OnceLock<Plugin> = OnceLock::new();

fn plugin() -> Option<&'static Plugin> {
    PLUGIN.get()
}

/// QEMU's entry point. Returns 0, or anything else to refuse, which ends QEMU.
///
/// # Safety
/// Called by QEMU's plugin loader: `info` is valid, `argv` holds `argc` C strings.
#[unsafe(no_mangle)]
#[allow(unreachable_pub, reason = "QEMU's loader looks this name up")]
pub unsafe extern "C" fn qemu_plugin_install(
    id: Id,
    info: *const Info,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let result = std::panic::catch_unwind(|| {
        // SAFETY: the loader passes a valid struct that it keeps during the call.
        let info = unsafe { &*info };
        // SAFETY: as documented for this function.
        let args = unsafe { arguments(argc, argv) };
        start(id, info, crate::api::keep_own_arguments(args))
    });
    match result {
        Ok(Ok(())) => 0,
        Ok(Err(message)) => {
            let indented = message.trim_end().replace('\n', "\nqkprobe:   ");
            say!("qkprobe: error: {indented}");
            1
        }
        Err(_) => {
            say!("qkprobe: internal error while starting. Please report this with the lines above.");
            1
        }
    }
}

unsafe fn arguments(argc: c_int, argv: *const *const c_char) -> Vec<String> {
    let count = usize::try_from(argc).unwrap_or(0);
    (0..count)
        .map(|index| {
            // SAFETY: the caller vouches for `argc` C strings.
            unsafe { CStr::from_ptr(*argv.add(index)) }.to_string_lossy().into_owned()
        })
        .collect()
}

fn start(id: Id, info: &Info, args: Vec<String>) -> Result<(), String> {
    let level = qemu_plugin_version.load(Ordering::Relaxed);
    let qemu = release().map_or_else(|| "of unknown version".to_owned(), |release| release.to_string());
    if level < OLDEST {
        return Err(format!(
            "QEMU {qemu} has plugin API {level}: qkprobe needs 9.2 (API {OLDEST}) or newer, because older ones cannot \
             read guest memory\nInstall a newer QEMU, for example from Debian's backports."
        ));
    }
    // SAFETY: QEMU's target name is a C string that lives as long as the process.
    let target = unsafe { CStr::from_ptr(info.target_name) }.to_string_lossy().into_owned();
    if level < info.version.min || level > info.version.cur {
        return Err(format!(
            "QEMU {qemu} offers plugin API {} to {}, but its functions look like API {level}: please report this",
            info.version.min, info.version.cur
        ));
    }
    if !info.system_emulation {
        return Err(
            "this is a user-mode QEMU: qkprobe probes guest kernels, which only the qemu-system-* programs run".into(),
        );
    }
    if PLUGIN.get().is_some() {
        return Err("loaded twice: give all probe= arguments to one -plugin option".into());
    }
    let api = Api::load(level).map_err(|name| format!("QEMU {qemu} lacks {name}: please report this"))?;
    // SAFETY: for system emulation QEMU fills this member of the union.
    let max_vcpus = unsafe { info.__bindgen_anon_1.system }.max_vcpus;
    let machine = Machine {
        api: Box::leak(Box::new(api)),
        id,
        qemu,
        target,
        max_vcpus: usize::try_from(max_vcpus).unwrap_or(1).max(1),
    };
    let (plugin, events, probes) = install(machine, &args)?;
    let plugin = PLUGIN.get_or_init(|| plugin);
    plugin.begin(events, probes)?;
    crate::api::set_up(plugin)
}

/// Where code of a place is, if that is known: what must be translated again when its probes change.
pub(super) fn stale_code(place: Place) -> Option<Stale> {
    match place {
        Place::Image(addr) => {
            let locator = plugin()?.locator.as_ref()?;
            if let Some((vaddr, host)) = locator.running(addr) {
                return Some(Stale { vaddr, host: Some(host) });
            }
            // Symbols without text: only the slide is known.
            Some(Stale { vaddr: addr.wrapping_add(locator.slide()?), host: None })
        }
        Place::Virtual(vaddr) => Some(Stale { vaddr, host: None }),
    }
}

#[cfg(feature = "test-panic")]
fn panic_at_the_thousandth_hit() {
    static HITS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    assert!(HITS.fetch_add(1, Ordering::Relaxed) != 999, "asked for by the feature test-panic");
}

/// Code, as a vCPU's thread finds and touches it.
struct OnVcpu<'a> {
    plugin: &'a Plugin,
    guest: &'a VcpuGuest,
}

impl CodeMemory for OnVcpu<'_> {
    fn find(&self, vaddr: GuestAddr) -> HostPlace {
        self.plugin.host_of(self.guest, vaddr)
    }

    fn rewrite(&self, vaddr: GuestAddr, host: HostAddr) -> bool {
        // The CPU may be in a mode in which this address is another place, and the code of the kernel's start is unmapped when
        // that is over.
        if self.plugin.is_same(self.guest, vaddr, host) {
            // SAFETY: the caller vouches that a byte can be read there.
            return unsafe { self.guest.write_from(Space::Kernel, vaddr, host.0 as *const u8, 1) };
        }
        let linear = self.plugin.arch.linear_map(vaddr);
        let Some(physical) = linear.or_else(|| self.plugin.physical_of(self.guest, host)) else { return false };
        // SAFETY: as above.
        unsafe { self.guest.write_physical(physical, host.0 as *const u8) }
    }
}

/// The plugin's side of QEMU's events.
pub(crate) struct QemuEvents;

impl Events for QemuEvents {
    fn block_translated(tb: *mut Tb) {
        let Some(plugin) = plugin() else { return };
        plugin.translated(&mut QemuBlock::<Self>::new(plugin, tb));
    }

    fn vcpu_started(vcpu: u32) {
        let Some(plugin) = plugin() else { return };
        plugin.cache.code_may_run();
        if plugin.vcpu(vcpu).is_some() {
            // After a reset QEMU announces every vCPU again.
            return;
        }
        let Some(guest) = VcpuGuest::new(plugin.machine.api, plugin.arch, plugin.translation(vcpu)) else { return };
        plugin.check_registers(&guest);
        plugin.add_vcpu(vcpu, |engine| super::vcpus::QemuVcpu { engine, guest });
    }

    fn resumed(vcpu: u32) {
        let Some(plugin) = plugin() else { return };
        plugin.cache.waker.resumed::<Self>();
        if let Some(state) = plugin.vcpu(vcpu) {
            plugin.cache.serve(&OnVcpu { plugin, guest: &state.guest });
        }
    }

    fn discontinuity(vcpu: u32, is_exception: bool, from: u64, to: u64) {
        let Some(plugin) = plugin() else { return };
        let Some(state) = plugin.vcpu(vcpu) else { return };
        if is_exception && !plugin.arch.makes_no_restart(GuestAddr(to)) {
            let env = plugin.hit_env(&|_| false);
            crate::engine::restart::exception(&env, &state.engine, &state.guest, GuestAddr(from));
        }
        plugin.cache.serve(&OnVcpu { plugin, guest: &state.guest });
    }

    fn flushed() {
        if let Some(plugin) = plugin() {
            plugin.registry.flushed();
            plugin.landings.flushed();
            plugin.delay_slots.flushed();
            plugin.cache.waker.flushed();
        }
    }

    fn exiting() {
        if let Some(plugin) = plugin() {
            plugin.exit();
        }
    }

    fn was_reset() {
        if let Some(plugin) = plugin() {
            plugin.cache.was_reset();
        }
    }

    #[inline]
    fn hit(vcpu: u32, site: *const c_void, planted: Planted) -> Option<u64> {
        let plugin = plugin()?;
        let state = plugin.vcpu(vcpu)?;
        // SAFETY: the userdata that `QemuBlock::plant_callback` gave for this instruction; the registry keeps a site until
        // the code cache was flushed after its last use.
        let site = unsafe { &*site.cast::<Site<Kprobe>>() };
        #[cfg(feature = "test-panic")]
        panic_at_the_thousandth_hit();
        if state.engine.is_stopped()
            && let Some(addr) = plugin.still_held(state, site.place())
        {
            return Some(addr);
        }
        let retranslate = |vaddr| plugin.cache.retranslate_now(vaddr, &OnVcpu { plugin, guest: &state.guest });
        let after = hit::hit(&plugin.hit_env(&retranslate), &state.engine, site, &state.guest, planted);
        plugin.cache.serve(&OnVcpu { plugin, guest: &state.guest });
        after.and_then(|after| plugin.after_hit(state, Some(site.place()), after))
    }

    fn held(vcpu: u32, site: *const c_void) -> Option<u64> {
        let plugin = plugin()?;
        let state = plugin.vcpu(vcpu)?;
        // SAFETY: as in `hit`.
        let site = unsafe { &*site.cast::<Site<Kprobe>>() };
        if state.engine.is_stopped() { plugin.still_held(state, site.place()) } else { None }
    }

    fn post(vcpu: u32, site: *const c_void, serving: Serving) {
        let Some(plugin) = plugin() else { return };
        let Some(state) = plugin.vcpu(vcpu) else { return };
        // SAFETY: as in `hit`.
        let site = unsafe { &*site.cast::<Site<Kprobe>>() };
        let after = hit::post(&plugin.hit_env(&|_| false), &state.engine, site, &state.guest, serving);
        if let Some(after) = after {
            plugin.after_hit(state, None, After { jump: None, ..after });
        }
    }

    fn arrive(vcpu: u32, landing: *const c_void) {
        let Some(plugin) = plugin() else { return };
        let Some(state) = plugin.vcpu(vcpu) else { return };
        // SAFETY: the userdata that `QemuBlock::plant_landing` gave; slots of landings live as long as the plugin.
        let landing = unsafe { &*landing.cast::<Landing>() };
        let after = hit::arrive(&plugin.hit_env(&|_| false), &state.engine, landing, &state.guest);
        if let Some(after) = after {
            plugin.after_hit(state, None, After { jump: None, ..after });
        }
    }

    #[inline]
    unsafe fn set_pc(addr: u64) {
        let set_pc = plugin().and_then(|plugin| plugin.machine.api.set_pc);
        if let Some(set_pc) = set_pc {
            // SAFETY: the caller vouches for the callback and its frames; here are only plain numbers.
            unsafe { set_pc(addr) };
        }
    }
}
