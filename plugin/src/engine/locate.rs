//! Where the running kernel lies, found without any help from the guest.
//!
//! A kernel image is linked at one address, loaded physically at another (KASLR: random), first executed identity
//! mapped, then at the linked address plus a random slide. What stays the same through all of this is the image's
//! offset in guest RAM. So:
//! 1. while nothing is found, the page of each translated block is compared with all pages of the image;
//! 2. a page that agrees is verified by the banner ("Linux version ..."), read where it then must lie: this settles
//!    that it is the very same build, in the first block of the kernel that runs;
//! 3. from then on a block's host pointer alone tells its place in the image, at every alias;
//! 4. the first such block at a kernel address tells the slide, which data addresses and printed pointers need.
//!
//! Symbols without text (System.map, /proc/kallsyms) cannot be compared: there the slide is given, 0 by default, and
//! function entries that are no symbols tell that the file is of another kernel.
//!
//! What else runs where a kernel is linked says nothing: firmware moves itself to the top of RAM, which may lie there, boot
//! loaders and modules do as well. Only a kernel is another kernel, and that is code with a banner near. And whatever ran
//! first, the search goes on: that code may load the expected kernel.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use qkprobe_arch::{Arch, GuestAddr};
use qkprobe_symbols::{KernelImage, TextIndex};

use crate::primitive::Mutex;
use crate::qemu::host_memory::{self, HostAddr};

const PAGE: usize = 4096;
/// A block of padding has thousands of places: another block will tell.
const MOST_CANDIDATES: usize = 64;
/// Blocks in the kernel's region that may pass unrecognised before a kernel is looked for near them: they take milliseconds
/// to run. The next time it is after twice as many, because the look reads up to 128 MiB.
const PATIENCE: u32 = 300;
/// The same of functions that are no symbols.
const PATIENCE_FOR_ENTRIES: u32 = PATIENCE / 6;
/// As many of them one block of the expected kernel outweighs.
const OUTWEIGHED: u32 = 2;

/// What the plugin has to say about the running kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The expected kernel was found, for the first time or again after a reboot.
    Found,
    /// Another kernel runs; its banner.
    OtherKernel(String),
    /// The symbols do not fit what runs (symbols without text).
    SymbolsDoNotFit,
}

/// The way from a guest or host address to an address of the image as linked.
#[derive(Debug)]
pub(crate) struct Locator {
    method: Method,
    region: std::ops::RangeInclusive<u64>,
    /// User code may lie in that region too: what is not the kernel's there says nothing.
    shared: bool,
    slide: AtomicU64,
    slide_known: AtomicBool,
    strangers: AtomicU32,
    /// How many strangers are worth the next look for a kernel.
    next_look: AtomicU32,
    /// Another kernel was told of.
    told: AtomicBool,
}

#[derive(Debug)]
enum Method {
    /// Compare text.
    Compare(Box<Compare>),
    /// The slide is given; symbol starts, for the check.
    Given { starts: Vec<u64> },
}

#[derive(Debug)]
struct Compare {
    index: TextIndex,
    /// How the image names itself, and where it does.
    banner: Option<String>,
    banner_at: Option<GuestAddr>,
    start: GuestAddr,
    len: u64,
    /// Host address of `start`; 0 while unknown. Release when found, Acquire when used.
    host_start: AtomicUsize,
    /// Host address of guest address 0 in the identity-mapped view, 0 while unknown: after a reboot the kernel is
    /// looked for there again.
    identity: AtomicUsize,
    search: Mutex<()>,
    /// Blocks that were not recognised and may yet turn out to be the kernel's, newest last.
    unrecognised: Mutex<VecDeque<(GuestAddr, HostAddr)>>,
}

enum Candidate {
    None,
    Found(HostAddr),
    OtherKernel(String),
}

impl Locator {
    /// `slide` is used only for symbols without text.
    pub(crate) fn new(image: &KernelImage, arch: &dyn Arch, slide: Option<u64>) -> Self {
        let compare = TextIndex::new(image).and_then(|index| Compare::new(image, index));
        let given = compare.is_none();
        let method = compare.map_or_else(
            || {
                let mut starts: Vec<u64> = image.symbols.iter().map(|symbol| symbol.addr.0).collect();
                starts.dedup();
                Method::Given { starts }
            },
            |compare| Method::Compare(Box::new(compare)),
        );
        Self {
            method,
            shared: arch.privilege(GuestAddr(*arch.image_region().start())) != qkprobe_arch::Privilege::Kernel,
            region: arch.image_region(),
            slide: AtomicU64::new(slide.unwrap_or(0)),
            slide_known: AtomicBool::new(given),
            strangers: AtomicU32::new(0),
            next_look: AtomicU32::new(if given { PATIENCE_FOR_ENTRIES } else { PATIENCE }),
            told: AtomicBool::new(false),
        }
    }

    /// Runtime address minus linked address, once known.
    pub(crate) fn slide(&self) -> Option<u64> {
        // Acquire, paired with the Release in `learn_slide`: the value is the one that belongs to the flag.
        self.slide_known.load(Ordering::Acquire).then(|| self.slide.load(Ordering::Relaxed))
    }

    /// The linked address of a runtime address, once the slide is known.
    pub(crate) fn linked(&self, addr: GuestAddr) -> Option<GuestAddr> {
        self.slide().map(|slide| GuestAddr(addr.0.wrapping_sub(slide)))
    }

    /// The block that is being translated: its address in the image, and what there is to tell the user.
    /// `host` is the host pointer of its first instruction, `first` that instruction's bytes.
    pub(crate) fn block(
        &self,
        vaddr: GuestAddr,
        host: Option<HostAddr>,
        first: &[u8],
    ) -> (Option<GuestAddr>, Option<Verdict>) {
        match &self.method {
            Method::Compare(compare) => self.compare(compare, vaddr, host, first),
            Method::Given { .. } => {
                let inside = self.region.contains(&vaddr.0);
                (self.linked(vaddr).filter(|_| inside), None)
            }
        }
    }

    /// Symbols without text: a block whose text looks like a function's entry. Tells when the file is of another kernel.
    pub(crate) fn entry_seen(&self, linked: GuestAddr, host: Option<HostAddr>) -> Option<Verdict> {
        let Method::Given { starts } = &self.method else { return None };
        if starts.binary_search(&linked.0).is_ok() {
            // Entries that are symbols outweigh: some entries are none (IRQ stubs, alternatives).
            self.outweigh();
            return None;
        }
        self.kernel_near(host?).and_then(|_| self.tell(Verdict::SymbolsDoNotFit))
    }

    /// Whether blocks' text is wanted for `entry_seen`.
    pub(crate) fn wants_entries(&self) -> bool {
        matches!(self.method, Method::Given { .. }) && !self.told.load(Ordering::Relaxed)
    }

    fn compare(
        &self,
        compare: &Compare,
        vaddr: GuestAddr,
        host: Option<HostAddr>,
        first: &[u8],
    ) -> (Option<GuestAddr>, Option<Verdict>) {
        let Some(host) = host else { return (None, None) };
        let in_region = self.region.contains(&vaddr.0);
        if let Some(linked) = compare.linked(host) {
            if compare.still_there(host, linked, first) {
                if in_region {
                    self.learn_slide(vaddr.0.wrapping_sub(linked.0));
                    self.outweigh();
                }
                return (Some(linked), None);
            }
            // Other text than the image has: patched, or a kernel that a reboot loaded over the old one, a bit further on.
            match compare.search(host) {
                Candidate::Found(start) => return self.found(compare, start, vaddr, host),
                // Patched. Before its own relocation a kernel has not patched itself: there it must be a stranger.
                _ if in_region && self.linked(vaddr) == Some(linked) => return (Some(linked), None),
                _ => return (None, None),
            }
        }
        // Not found yet, or a kernel that was loaded again elsewhere: look at blocks that can be a kernel's.
        let known = compare.host_start.load(Ordering::Acquire) != 0;
        let identity = compare.identity.load(Ordering::Relaxed);
        let identity_mapped = identity != 0 && host.0.wrapping_sub(vaddr.0 as usize) == identity;
        if known && (!in_region || self.shared) && !identity_mapped {
            return (None, None);
        }
        match compare.search(host) {
            Candidate::Found(start) => self.found(compare, start, vaddr, host),
            Candidate::OtherKernel(banner) => (None, self.tell(Verdict::OtherKernel(banner))),
            Candidate::None => {
                compare.remember(vaddr, host);
                let near = in_region.then(|| self.kernel_near(host)).flatten();
                // The expected kernel may lie near what runs before it.
                let other = near.filter(|banner| !compare.is_own(banner));
                (None, other.and_then(|banner| self.tell(Verdict::OtherKernel(banner))))
            }
        }
    }

    fn found(
        &self,
        compare: &Compare,
        start: HostAddr,
        vaddr: GuestAddr,
        host: HostAddr,
    ) -> (Option<GuestAddr>, Option<Verdict>) {
        let in_region = self.region.contains(&vaddr.0);
        if !in_region {
            compare.identity.store(host.0.wrapping_sub(vaddr.0 as usize), Ordering::Relaxed);
        }
        self.slide_known.store(false, Ordering::Relaxed);
        self.strangers.store(0, Ordering::Relaxed);
        self.next_look.store(PATIENCE, Ordering::Relaxed);
        self.told.store(false, Ordering::Relaxed);
        // Release: see `host_start`.
        compare.host_start.store(start.0, Ordering::Release);
        let linked = compare.linked(host);
        if let Some(linked) = linked.filter(|_| in_region) {
            self.learn_slide(vaddr.0.wrapping_sub(linked.0));
        }
        (linked, Some(Verdict::Found))
    }

    /// The kernel's own code runs: what else lies in its region may be its modules (32-bit x86 has no room between).
    fn outweigh(&self) {
        let strangers = self.strangers.load(Ordering::Relaxed);
        if strangers != 0 {
            self.strangers.store(strangers.saturating_sub(OUTWEIGHED), Ordering::Relaxed);
        }
    }

    /// A block that is not of the expected kernel where that is linked: how the kernel near it names itself, when it is time
    /// to look and there is one.
    fn kernel_near(&self, host: HostAddr) -> Option<String> {
        let strangers = self.strangers.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let look = self.next_look.load(Ordering::Relaxed);
        let mine = strangers > look
            && !self.told.load(Ordering::Relaxed)
            && self
                .next_look
                .compare_exchange(look, look.saturating_mul(2), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        mine.then(|| banner_near(host)).flatten()
    }

    fn tell(&self, verdict: Verdict) -> Option<Verdict> {
        (!self.told.swap(true, Ordering::Relaxed)).then_some(verdict)
    }

    /// Much ran where a kernel is linked, and none of it was the expected one.
    pub(crate) fn never_found(&self) -> bool {
        let Method::Compare(compare) = &self.method else { return false };
        compare.host_start.load(Ordering::Relaxed) == 0 && self.strangers.load(Ordering::Relaxed) > PATIENCE
    }

    fn learn_slide(&self, slide: u64) {
        if self.slide() != Some(slide) {
            self.slide.store(slide, Ordering::Relaxed);
            // Release: see `slide`.
            self.slide_known.store(true, Ordering::Release);
        }
    }

    /// Where a linked address runs: virtual address and host pointer, once both are known.
    pub(crate) fn running(&self, linked: GuestAddr) -> Option<(GuestAddr, HostAddr)> {
        let Method::Compare(compare) = &self.method else { return None };
        let start = compare.host_start.load(Ordering::Acquire);
        let offset = linked.wrapping_offset_from(compare.start);
        let vaddr = linked.wrapping_add(self.slide()?);
        (start != 0 && offset < compare.len).then(|| (vaddr, HostAddr(start + offset as usize)))
    }

    /// The linked address of code at a virtual address, whichever of its aliases that is. Of user code that lies where the
    /// kernel's identity-mapped start did, it says the same.
    #[inline]
    pub(crate) fn canonical(&self, vaddr: GuestAddr) -> Option<GuestAddr> {
        match &self.method {
            Method::Compare(compare) => {
                let linked =
                    self.linked(vaddr).filter(|linked| linked.wrapping_offset_from(compare.start) < compare.len);
                linked.or_else(|| compare.identity_mapped(vaddr))
            }
            Method::Given { .. } => self.linked(vaddr).filter(|_| self.region.contains(&vaddr.0)),
        }
    }

    /// Where the first byte of the kernel's text runs.
    pub(crate) fn start_running(&self) -> Option<(GuestAddr, HostAddr)> {
        let Method::Compare(compare) = &self.method else { return None };
        self.running(compare.start)
    }

    /// The linked address of a host pointer into the running kernel.
    pub(crate) fn image_addr(&self, host: HostAddr) -> Option<GuestAddr> {
        let Method::Compare(compare) = &self.method else { return None };
        compare.linked(host)
    }

    /// The blocks that were translated before the kernel was found.
    pub(crate) fn take_unrecognised(&self) -> Vec<(GuestAddr, HostAddr)> {
        let Method::Compare(compare) = &self.method else { return Vec::new() };
        std::mem::take(&mut *compare.unrecognised.lock()).into()
    }
}

/// How many unrecognised blocks are remembered: the kernel is recognised within its first few.
const REMEMBERED: usize = 64;

impl Compare {
    fn new(image: &KernelImage, index: TextIndex) -> Option<Self> {
        let text = image.segments.iter().filter(|segment| segment.executable);
        let start = text.clone().map(|segment| segment.addr).min()?;
        let end = image
            .segments
            .iter()
            .filter(|segment| segment.addr >= start)
            .map(|segment| segment.addr.0 + segment.bytes.len() as u64)
            .max()?;
        let banner_at = match image.symbols.lookup(None, "linux_banner") {
            qkprobe_symbols::Lookup::One(symbol) => Some(symbol.addr),
            // Kallsyms name only functions, without CONFIG_KALLSYMS_ALL.
            _ => image.banner.as_ref().and_then(|banner| {
                image.segments.iter().find_map(|segment| {
                    let offset = memchr::memmem::find(&segment.bytes, banner.as_bytes())?;
                    Some(segment.addr.wrapping_add(offset as u64))
                })
            }),
        };
        Some(Self {
            index,
            banner: image.banner.clone(),
            banner_at,
            start,
            len: end - start.0,
            host_start: AtomicUsize::new(0),
            identity: AtomicUsize::new(0),
            search: Mutex::new(()),
            unrecognised: Mutex::new(VecDeque::new()),
        })
    }

    fn linked(&self, host: HostAddr) -> Option<GuestAddr> {
        let start = self.host_start.load(Ordering::Acquire);
        let offset = host.0.wrapping_sub(start) as u64;
        (start != 0 && offset < self.len).then(|| self.start.wrapping_add(offset))
    }

    /// Whether a banner in the RAM is the expected kernel's. In its log, text of another line may follow.
    fn is_own(&self, banner: &str) -> bool {
        self.banner.as_ref().is_some_and(|own| banner.starts_with(own.as_str()))
    }

    #[cold]
    fn identity_mapped(&self, vaddr: GuestAddr) -> Option<GuestAddr> {
        let identity = self.identity.load(Ordering::Relaxed);
        (identity != 0).then(|| self.linked(HostAddr(identity.wrapping_add(vaddr.0 as usize)))).flatten()
    }

    /// Whether the block is still what the image has there: by its first instruction, else by its page.
    fn still_there(&self, host: HostAddr, linked: GuestAddr, first: &[u8]) -> bool {
        if self.index.bytes(linked, first.len()).is_none_or(|ours| ours == first) {
            return true;
        }
        let mut page = [0; PAGE];
        let image_page = GuestAddr(linked.0 & !(PAGE as u64 - 1));
        host_memory::read(HostAddr(host.0 & !(PAGE - 1)), &mut page)
            && self.index.page_matches(image_page, &page).is_same()
    }

    fn remember(&self, vaddr: GuestAddr, host: HostAddr) {
        let mut blocks = self.unrecognised.lock();
        if blocks.len() == REMEMBERED {
            blocks.pop_front();
        }
        blocks.push_back((vaddr, host));
    }

    fn search(&self, host: HostAddr) -> Candidate {
        // One search at a time: several vCPUs would only find the same.
        let _one = self.search.lock();
        let mut page = [0; PAGE];
        let page_host = HostAddr(host.0 & !(PAGE - 1));
        let offset = host.0 & (PAGE - 1);
        if !host_memory::read(page_host, &mut page) {
            return Candidate::None;
        }
        let head = page.get(offset..PAGE.min(offset + 16)).unwrap_or_default();
        for candidate in self.index.candidates(offset, head).take(MOST_CANDIDATES) {
            let image_page = GuestAddr(candidate.0 & !(PAGE as u64 - 1));
            if !self.index.page_matches(image_page, &page).is_same() {
                continue;
            }
            let start = HostAddr(page_host.0.wrapping_sub((image_page.0.wrapping_sub(self.start.0)) as usize));
            match self.verify(start) {
                Candidate::None => {}
                settled => return settled,
            }
        }
        Candidate::None
    }

    /// Is it the very same build? The banner holds version, builder, compiler and time.
    fn verify(&self, start: HostAddr) -> Candidate {
        let Some((addr, expected)) = self.banner_at.zip(self.banner.as_ref()) else {
            return self.verify_by_pages(start);
        };
        let expected = expected.as_bytes();
        let at = HostAddr(start.0.wrapping_add(addr.wrapping_offset_from(self.start) as usize));
        let mut running = [0; 512];
        let want = running.len().min(expected.len().max(64));
        let Some(running) = running.get_mut(..want) else { return Candidate::None };
        if !host_memory::read(at, running) {
            return Candidate::None;
        }
        if running.starts_with(expected.get(..want.min(expected.len())).unwrap_or(expected)) {
            return Candidate::Found(start);
        }
        if running.starts_with(b"Linux version ") {
            let line = running.split(|byte| *byte == b'\n' || *byte == 0).next().unwrap_or_default();
            return Candidate::OtherKernel(String::from_utf8_lossy(line).into_owned());
        }
        Candidate::None
    }

    /// Without a banner: pages all over the text must agree.
    fn verify_by_pages(&self, start: HostAddr) -> Candidate {
        let mut page = [0; PAGE];
        let (mut agree, mut seen) = (0, 0);
        let pages = self.len / PAGE as u64;
        for step in 0..64 {
            let offset = pages * step / 64 * PAGE as u64;
            let readable = host_memory::read(HostAddr(start.0.wrapping_add(offset as usize)), &mut page);
            seen += 1;
            agree += usize::from(readable && self.index.page_matches(self.start.wrapping_add(offset), &page).is_same());
        }
        if agree * 4 >= seen * 3 { Candidate::Found(start) } else { Candidate::None }
    }
}

/// The banner of the kernel that a piece of code is of: it lies in the read-only data, after the text and before the init
/// text. The nearest one is taken: what a kernel before this one left may lie further off.
fn banner_near(code: HostAddr) -> Option<String> {
    const MOST: usize = 64 << 20;
    const STEP: usize = 1 << 20;
    /// Pieces overlap by this, so that no banner is cut.
    const OVERLAP: usize = 512;
    let start = code.0 & !(PAGE - 1);
    let mut piece = vec![0; STEP + OVERLAP];
    let (mut forward, mut backward) = (true, true);
    for offset in (0..MOST).step_by(STEP) {
        // A side ends where it cannot be read: at the end of the RAM.
        let sides = [(&mut forward, start.wrapping_add(offset)), (&mut backward, start.wrapping_sub(offset + STEP))];
        for (open, at) in sides {
            if *open {
                let read = host_memory::read_most(HostAddr(at), &mut piece);
                *open = read == piece.len();
                if let Some(banner) = piece.get(..read).and_then(banner_in) {
                    return Some(banner);
                }
            }
        }
    }
    None
}

/// `Linux version 6.1.0 (...) #1 SMP ...`; a build leaves a second, unnumbered one behind, and formats like `%s`.
fn banner_in(bytes: &[u8]) -> Option<String> {
    let marker = b"Linux version ";
    memchr::memmem::find_iter(bytes, marker).find_map(|found| {
        let line = bytes.get(found..)?.split(|byte| *byte == b'\n' || *byte == 0).next()?;
        let numbered = line.windows(2).any(|pair| matches!(pair, [b'#', digit] if digit.is_ascii_digit()));
        (line.get(marker.len())?.is_ascii_digit() && numbered).then(|| String::from_utf8_lossy(line).into_owned())
    })
}
