//! QEMU's functions, looked up one by one: the .so has no undefined `qemu_plugin_*` symbol, so that one file loads in
//! every QEMU. What a version lacks is `None`, and what needs it is refused with the version that has it.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

pub(crate) use qemu_plugin::sys::{
    GByteArray, qemu_info_t as Info, qemu_plugin_insn as Insn, qemu_plugin_register as RegisterHandle,
    qemu_plugin_scoreboard as Scoreboard, qemu_plugin_tb as Tb, qemu_plugin_u64 as ScoreboardEntry,
};

/// `qemu_plugin_id_t`.
pub(crate) type Id = u64;
/// `qemu_plugin_vcpu_udata_cb_t`: the same in all versions.
pub(crate) type ExecCallback = unsafe extern "C" fn(c_uint, *mut c_void);

/// `QEMU_PLUGIN_CB_R_REGS`: the callback may read registers.
pub(crate) const CB_R_REGS: c_int = 1;
/// `QEMU_PLUGIN_CB_RW_REGS`: and write them.
pub(crate) const CB_RW_REGS: c_int = 2;
/// `QEMU_PLUGIN_CB_RW_REGS_PC` (QEMU 11.0): and set the program counter.
pub(crate) const CB_RW_REGS_PC: c_int = 3;
/// `QEMU_PLUGIN_INLINE_ADD_U64`.
pub(crate) const INLINE_ADD_U64: c_int = 0;

/// glib's `GArray`, whose element size is private: ask `g_array_get_element_size`.
#[repr(C)]
pub(crate) struct GArray {
    pub(crate) data: *mut c_char,
    pub(crate) len: c_uint,
}

/// The running program's symbol of that name.
pub(crate) fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a NUL-terminated name; RTLD_DEFAULT needs no handle.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

macro_rules! table {
    (
        required { $($req:ident = $reqname:literal: fn($($rt:ty),*) $(-> $rr:ty)?;)* }
        optional { $($opt:ident = $optname:literal: fn($($ot:ty),*) $(-> $or:ty)?;)* }
    ) => {
        /// The functions of the running QEMU and of its glib.
        pub(crate) struct Api {
            /// The plugin API version that was agreed on: 4 to 7.
            pub(crate) level: i32,
            $(pub(crate) $req: unsafe extern "C" fn($($rt),*) $(-> $rr)?,)*
            $(pub(crate) $opt: Option<unsafe extern "C" fn($($ot),*) $(-> $or)?>,)*
        }

        impl Api {
            /// Looks everything up.
            ///
            /// # Errors
            /// The name of the first function that every supported version has and this program lacks.
            pub(crate) fn load(level: i32) -> Result<Self, &'static str> {
                Ok(Self {
                    level,
                    // SAFETY: the function behind each name has this signature in API 4 to 7 (QEMU's
                    // include/qemu/qemu-plugin.h; glib's garray.h); where versions differ, only arguments that are
                    // ignored or a return value that is not used do.
                    $($req: unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($rt),*) $(-> $rr)?>(
                        symbol($reqname).ok_or_else(|| $reqname.to_str().unwrap_or("?"))?) },)*
                    // SAFETY: as above.
                    $($opt: symbol($optname).map(|found| unsafe {
                        std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($ot),*) $(-> $or)?>(found) }),)*
                })
            }
        }

        impl std::fmt::Debug for Api {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct("Api").field("level", &self.level).finish_non_exhaustive()
            }
        }
    };
}

// The registering functions take one userdata pointer more in API 7: passing it to an older QEMU is harmless (an extra
// register argument), not passing it to a newer one is not. So they are declared with it.
table! {
    required {
        register_vcpu_tb_trans_cb = c"qemu_plugin_register_vcpu_tb_trans_cb": fn(Id, *const c_void, *mut c_void);
        register_vcpu_init_cb = c"qemu_plugin_register_vcpu_init_cb": fn(Id, *const c_void, *mut c_void);
        register_vcpu_resume_cb = c"qemu_plugin_register_vcpu_resume_cb": fn(Id, *const c_void, *mut c_void);
        register_vcpu_syscall_ret_cb = c"qemu_plugin_register_vcpu_syscall_ret_cb": fn(Id, *const c_void, *mut c_void);
        register_flush_cb = c"qemu_plugin_register_flush_cb": fn(Id, *const c_void, *mut c_void);
        register_atexit_cb = c"qemu_plugin_register_atexit_cb": fn(Id, *const c_void, *mut c_void);
        reset = c"qemu_plugin_reset": fn(Id, *const c_void, *mut c_void);
        register_vcpu_insn_exec_cb = c"qemu_plugin_register_vcpu_insn_exec_cb":
            fn(*mut Insn, ExecCallback, c_int, *mut c_void);
        register_vcpu_insn_exec_inline_per_vcpu = c"qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu":
            fn(*mut Insn, c_int, ScoreboardEntry, u64);
        tb_n_insns = c"qemu_plugin_tb_n_insns": fn(*const Tb) -> usize;
        tb_get_insn = c"qemu_plugin_tb_get_insn": fn(*const Tb, usize) -> *mut Insn;
        insn_vaddr = c"qemu_plugin_insn_vaddr": fn(*const Insn) -> u64;
        insn_haddr = c"qemu_plugin_insn_haddr": fn(*const Insn) -> *mut c_void;
        insn_data = c"qemu_plugin_insn_data": fn(*const Insn, *mut c_void, usize) -> usize;
        get_registers = c"qemu_plugin_get_registers": fn() -> *mut GArray;
        // Returns a size before API 6 and a truth value since: only the array's length is looked at.
        read_register = c"qemu_plugin_read_register": fn(*mut RegisterHandle, *mut GByteArray) -> c_int;
        read_memory_vaddr = c"qemu_plugin_read_memory_vaddr": fn(u64, *mut GByteArray, usize) -> bool;
        scoreboard_new = c"qemu_plugin_scoreboard_new": fn(usize) -> *mut Scoreboard;
        u64_sum = c"qemu_plugin_u64_sum": fn(ScoreboardEntry) -> u64;
        g_byte_array_sized_new = c"g_byte_array_sized_new": fn(c_uint) -> *mut GByteArray;
        g_array_get_element_size = c"g_array_get_element_size": fn(*mut GArray) -> c_uint;
        g_array_free = c"g_array_free": fn(*mut GArray, c_int) -> *mut c_char;
    }
    optional {
        // QEMU 10.1.
        write_memory_vaddr = c"qemu_plugin_write_memory_vaddr": fn(u64, *mut GByteArray) -> bool;
        // Returns a size before API 6 and a truth value since: it is not looked at.
        write_register = c"qemu_plugin_write_register": fn(*mut RegisterHandle, *mut GByteArray) -> c_int;
        // These return 0 for success.
        read_memory_hwaddr = c"qemu_plugin_read_memory_hwaddr": fn(u64, *mut GByteArray, usize) -> c_int;
        write_memory_hwaddr = c"qemu_plugin_write_memory_hwaddr": fn(u64, *mut GByteArray) -> c_int;
        translate_vaddr = c"qemu_plugin_translate_vaddr": fn(u64, *mut u64) -> bool;
        // QEMU 10.2.
        register_vcpu_discon_cb = c"qemu_plugin_register_vcpu_discon_cb":
            fn(Id, c_int, *const c_void, *mut c_void);
        // QEMU 11.0. Never returns.
        set_pc = c"qemu_plugin_set_pc": fn(u64) -> c_int;
    }
}

impl Api {
    /// Nothing drops some code: API 4 cannot write memory, so all code goes, by a reset.
    pub(crate) fn drops_code_by_reset(&self) -> bool {
        self.write_memory_vaddr.is_none()
    }
}
