//! The guest's registers, as a callback on a vCPU's thread may read and set them.

use std::ptr::NonNull;

use qkprobe_arch::{Arch, ByteOrder, RegisterId, RegisterSource};

use super::api::{Api, GByteArray, RegisterHandle};
use super::memory::{MAX_READ, Translation};
use super::stack::StackPages;

/// One vCPU's handles and buffer. Used only on the thread that runs the vCPU, in a callback that may read registers.
#[derive(Debug)]
pub(crate) struct VcpuGuest {
    pub(super) api: &'static Api,
    order: ByteOrder,
    /// By `RegisterId`.
    handles: Box<[Option<NonNull<RegisterHandle>>]>,
    /// Bytes of each register, as QEMU lists it.
    sizes: Box<[u8]>,
    pub(super) buffer: Buffer,
    pub(super) translation: Translation,
    /// Where the stack's pages lie.
    pub(super) stack: StackPages,
}

/// What QEMU appends its answers to. Large enough that no read makes QEMU grow it: a hit allocates nothing. It lives as long as
/// the process, and is used only on its vCPU's thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffer(NonNull<GByteArray>);

impl Buffer {
    /// What `read` appends to the emptied buffer.
    #[inline]
    fn read<R>(&self, read: impl FnOnce(*mut GByteArray) -> R) -> (R, &[u8]) {
        let array = self.0.as_ptr();
        // SAFETY: the buffer is ours and used by this thread only; QEMU appends, so the length is reset first.
        unsafe {
            (*array).len = 0;
            let result = read(array);
            (result, std::slice::from_raw_parts((*array).data, (*array).len as usize))
        }
    }

    /// Fills `out` by `read`, which is given the array and the length; all or nothing.
    #[inline]
    pub(super) fn fill(&self, out: &mut [u8], read: impl FnOnce(*mut GByteArray, usize) -> bool) -> bool {
        let len = out.len();
        let (done, bytes) = self.read(|array| read(array, len));
        match bytes.get(..len).filter(|_| done) {
            Some(bytes) => {
                out.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }
}

/// One entry of QEMU's register list; API 6 appends a flag, so entries are stepped over by the array's element size.
#[repr(C)]
struct Descriptor {
    handle: *mut RegisterHandle,
    name: *const std::ffi::c_char,
    feature: *const std::ffi::c_char,
}

impl VcpuGuest {
    /// Lists the registers. Call it in the vCPU's init callback: names are known there, values are not yet.
    /// Returns `None` where QEMU has no memory left.
    pub(crate) fn new(api: &'static Api, arch: &dyn Arch, translation: Translation) -> Option<Self> {
        let listed = list_registers(api);
        let handle = |source: &RegisterSource| match source {
            RegisterSource::Qemu { name, feature } => listed
                .iter()
                .find(|entry| entry.name == *name && feature.is_none_or(|feature| entry.feature == feature))
                .and_then(|entry| entry.handle),
            RegisterSource::ProbeAddress | RegisterSource::Constant(_) => None,
        };
        let handles = arch.registers().iter().map(|register| handle(&register.source)).collect();
        let sizes = arch.registers().iter().map(|register| register.bytes).collect();
        // SAFETY: glib's allocator aborts rather than fail; the array lives as long as the process.
        let buffer = NonNull::new(unsafe { (api.g_byte_array_sized_new)(MAX_READ as u32) })?;
        let (order, buffer, stack) = (arch.byte_order(), Buffer(buffer), StackPages::new());
        Some(Self { api, order, handles, sizes, buffer, translation, stack })
    }

    /// Whether QEMU lists the register at all (sparc64 before 10.1 lists none).
    pub(crate) fn has(&self, id: RegisterId) -> bool {
        self.handles.get(usize::from(id.0)).is_some_and(Option::is_some)
    }

    /// The register's current value, zero-extended.
    #[inline]
    pub(crate) fn register(&self, id: RegisterId) -> Option<u64> {
        let handle = (*self.handles.get(usize::from(id.0))?)?;
        // SAFETY: the handle came from QEMU's list for this vCPU.
        let (_, bytes) = self.buffer.read(|array| unsafe { (self.api.read_register)(handle.as_ptr(), array) });
        (!bytes.is_empty()).then(|| self.order.number(bytes))
    }
}

impl VcpuGuest {
    /// Sets a register. Only in a callback that may write registers; never the program counter's, which would end QEMU.
    pub(crate) fn set_register(&self, id: RegisterId, value: u64) -> bool {
        let index = usize::from(id.0);
        let (Some(Some(handle)), Some(size)) = (self.handles.get(index), self.sizes.get(index)) else { return false };
        let Some(write) = self.api.write_register else { return false };
        let (mut little, mut big) = (value.to_le_bytes(), value.to_be_bytes());
        let len = usize::from(*size).min(8);
        let bytes = match self.order {
            ByteOrder::Little => &mut little[..len],
            ByteOrder::Big => &mut big[8 - len..],
        };
        let mut array = GByteArray { data: bytes.as_mut_ptr(), len: u32::from(*size) };
        // SAFETY: the handle came from QEMU's list for this vCPU, and is no read-only one (the caller's duty). `array` has
        // glib's public layout and as many bytes as the register has; QEMU reads `data` and `len`, and may swap the bytes
        // in place, which are ours.
        unsafe { write(handle.as_ptr(), &raw mut array) };
        true
    }
}

struct Listed {
    handle: Option<NonNull<RegisterHandle>>,
    name: String,
    feature: String,
}

fn list_registers(api: &Api) -> Vec<Listed> {
    let text = |pointer: *const std::ffi::c_char| {
        if pointer.is_null() {
            return String::new();
        }
        // SAFETY: QEMU's names are NUL-terminated and live as long as the process.
        unsafe { std::ffi::CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
    };
    // SAFETY: called on a vCPU's thread; the array is ours to free.
    let array = unsafe { (api.get_registers)() };
    if array.is_null() {
        return Vec::new();
    }
    // SAFETY: a valid GArray; its element size is at least that of `Descriptor` in every version (24 or 32 bytes).
    let (data, len, stride) =
        unsafe { ((*array).data, (*array).len as usize, (api.g_array_get_element_size)(array) as usize) };
    let mut listed = Vec::with_capacity(len);
    if stride >= size_of::<Descriptor>() {
        for index in 0..len {
            // SAFETY: `index` is below the array's length, and each element begins with these three pointers.
            let entry = unsafe { data.add(index * stride).cast::<Descriptor>().read_unaligned() };
            listed.push(Listed {
                handle: NonNull::new(entry.handle),
                name: text(entry.name),
                feature: text(entry.feature),
            });
        }
    }
    // SAFETY: the array came from QEMU, which hands it over; TRUE frees its data as well.
    unsafe { (api.g_array_free)(array, 1) };
    listed
}
