//! Return addresses without a page walk: where the pages of kernel stacks lie in the host's memory.
//!
//! A read of virtual memory makes QEMU walk the guest's page tables, some 200 ns, for every call of a probed function. The
//! page under a kernel stack stays the same as long as its task lives, and tasks' beginnings and ends are watched
//! (`engine::kprobe::Watch`): so what was found once holds until the next of them.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use qkprobe_arch::GuestAddr;

use super::host_memory::HostAddr;

const PAGE: u64 = 4096;
/// Pages that are remembered: a few stacks of a few pages each are in use at a time.
const PAGES: usize = 64;

/// One page.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Virtual page number; 0 is no kernel's stack.
    page: u64,
    generation: u64,
    /// `None`: it cannot be read this way.
    host: Option<HostAddr>,
}

/// What one vCPU knows. Used only on the thread that runs it.
#[derive(Debug)]
pub(crate) struct StackPages {
    known: [Cell<Known>; PAGES],
}

impl StackPages {
    pub(crate) fn new() -> Self {
        Self { known: std::array::from_fn(|_| Cell::new(Known::default())) }
    }

    /// The word of 4 or 8 bytes at an address of the running stack, in the guest's byte order, and zeroes behind it. `find`
    /// tells where a page lies, if that is certain.
    #[inline]
    pub(crate) fn word(
        &self,
        addr: GuestAddr,
        len: usize,
        generation: u64,
        find: impl FnOnce(GuestAddr) -> Option<HostAddr>,
    ) -> Option<[u8; 8]> {
        let page = addr.0 / PAGE;
        let offset = addr.0 % PAGE;
        if !offset.is_multiple_of(len as u64) {
            return None;
        }
        let slot = self.known.get(page as usize % PAGES)?;
        let mut known = slot.get();
        if known.page != page || known.generation != generation {
            known = Known { page, generation, host: find(GuestAddr(page * PAGE)) };
            slot.set(known);
        }
        let host = known.host?.0 + offset as usize;
        let mut bytes = [0; 8];
        // SAFETY: `find` gave the host address of a page of the machine's main memory, which QEMU keeps mapped as long as it
        // runs; the word is aligned and inside of the page. Other vCPUs may write it: an atomic access.
        unsafe {
            match len {
                8 => bytes = AtomicU64::from_ptr(host as *mut u64).load(Ordering::Relaxed).to_ne_bytes(),
                4 => {
                    let word = AtomicU32::from_ptr(host as *mut u32).load(Ordering::Relaxed).to_ne_bytes();
                    bytes[..4].copy_from_slice(&word);
                }
                _ => return None,
            }
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(4096))]
    struct Page([u64; 512]);

    #[test]
    fn a_page_is_found_once_a_generation() {
        let pages = StackPages::new();
        let memory = Page(std::array::from_fn(|index| index as u64));
        let host = HostAddr(memory.0.as_ptr() as usize);
        let searches = Cell::new(0);
        let word = |addr, generation| {
            pages.word(GuestAddr(addr), 8, generation, |page| {
                assert_eq!(page, GuestAddr(0xffff_c900_0000_3000));
                searches.set(searches.get() + 1);
                Some(host)
            })
        };
        assert_eq!(word(0xffff_c900_0000_3f58, 1), Some(0x1eb_u64.to_ne_bytes()));
        assert_eq!(word(0xffff_c900_0000_3008, 1), Some(1_u64.to_ne_bytes()));
        assert_eq!(searches.get(), 1);
        assert_eq!(word(0xffff_c900_0000_3000, 2), Some(0_u64.to_ne_bytes()));
        assert_eq!(searches.get(), 2);
        assert_eq!(word(0xffff_c900_0000_3001, 2), None, "not aligned");
    }

    #[test]
    fn what_is_not_found_is_not_looked_for_again() {
        let pages = StackPages::new();
        let searches = Cell::new(0);
        for _ in 0..3 {
            let find = |_| {
                searches.set(searches.get() + 1);
                None
            };
            assert_eq!(pages.word(GuestAddr(0xffff_c900_0000_3000), 8, 7, find), None);
        }
        assert_eq!(searches.get(), 1);
    }
}
