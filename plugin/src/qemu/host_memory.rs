//! Guest RAM as the host sees it. A host pointer comes from QEMU for the page of an instruction that is being translated.

/// A host address inside guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostAddr(pub(crate) usize);

/// Copies guest RAM without trusting that all of it is there: the kernel answers EFAULT for what is not mapped, where
/// a plain load would end QEMU. Returns whether all of `out` was filled.
pub(crate) fn read(from: HostAddr, out: &mut [u8]) -> bool {
    read_most(from, out) == out.len()
}

/// The same, up to where something is not mapped. Returns how many bytes of `out` were filled.
pub(crate) fn read_most(from: HostAddr, out: &mut [u8]) -> usize {
    let local = libc::iovec { iov_base: out.as_mut_ptr().cast(), iov_len: out.len() };
    let remote = libc::iovec { iov_base: from.0 as *mut libc::c_void, iov_len: out.len() };
    // SAFETY: `local` describes `out`; `remote` may be any address, it is checked by the host's kernel.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(copied).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_memory_is_read_and_unmapped_is_refused() {
        let source = *b"guest ram";
        let mut out = [0; 9];
        assert!(read(HostAddr(source.as_ptr() as usize), &mut out));
        assert_eq!(&out, b"guest ram");
        assert!(!read(HostAddr(0x10), &mut out));
    }
}
