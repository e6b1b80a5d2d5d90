//! Where guest code lies in the image, with no help from the guest.
//!
//! A kernel moves by whole pages when it randomises its base, so an address keeps its offset in the page. The text is
//! kept a second time by columns: for each of the 512 aligned 8-byte words of a page, that word of every page, in one
//! run of memory. A look-up takes one word of the guest's code and scans one column, 40 KB for a text of 20 MB.
//! What it finds is compared byte by byte with the image itself, and `locate` then asks for a whole page.

use std::sync::Arc;

use qkprobe_arch::GuestAddr;

use crate::image::{KernelImage, Segment};
use crate::table::merge_extents;

const PAGE: usize = 4096;
const WORD: usize = 8;
const WORDS_PER_PAGE: usize = PAGE / WORD;
/// Fewer bytes of code occur in too many places.
const MIN_BLOCK: usize = 8;
/// More bytes of a block are not compared: a relocation or a patch in them would hide the place.
const MAX_BLOCK: usize = 16;
/// A page must agree in this part of its bytes. Relocations, alternatives and ftrace change some.
const MIN_EQUAL_PERCENT: usize = 75;
/// Blocks that occur in more places (padding, zeros) tell nothing, and are not worth as many page comparisons.
const MAX_CANDIDATES: usize = 64;
/// A page of which less lies in the image says too little.
const MIN_COMPARED: usize = PAGE / 4;

/// How many bytes of a page agree with the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageMatch {
    /// Bytes that are equal.
    pub equal: usize,
    /// Bytes that both have.
    pub compared: usize,
}

impl PageMatch {
    /// Enough to call it the same page: 75 % of at least a quarter page.
    #[must_use]
    pub fn is_same(self) -> bool {
        self.compared >= MIN_COMPARED && self.equal * 100 >= self.compared * MIN_EQUAL_PERCENT
    }
}

/// Where a piece of guest code lies in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// Nowhere.
    NotHere,
    /// In several places that agree well enough; another block will tell.
    Ambiguous,
    /// Here. The load slide is the guest's address minus this.
    Found {
        /// The link-time address.
        image_addr: GuestAddr,
    },
}

/// The text of one image, indexed by content.
#[derive(Debug)]
pub struct TextIndex {
    segments: Vec<Segment>,
    /// Link-time address of each indexed page, ascending.
    pages: Vec<u64>,
    /// `WORDS_PER_PAGE` columns of `pages.len()` words each.
    columns: Vec<u64>,
}

impl TextIndex {
    /// Indexes an image's text; `None` when the file holds none (a System.map).
    #[must_use]
    pub fn new(image: &KernelImage) -> Option<Self> {
        let mut pages = Vec::new();
        for (start, end) in text_ranges(image) {
            let first = start & !(PAGE as u64 - 1);
            pages.extend((first..end).step_by(PAGE));
        }
        pages.sort_unstable();
        pages.dedup();
        if pages.is_empty() {
            return None;
        }
        let segments =
            image.segments.iter().map(|segment| Segment { bytes: Arc::clone(&segment.bytes), ..*segment }).collect();
        let mut index = Self { segments, columns: vec![0; pages.len() * WORDS_PER_PAGE], pages };
        index.fill_columns();
        Some(index)
    }

    /// How many bytes of text are indexed, in whole pages.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.pages.len() * PAGE
    }

    /// All image addresses at `offset_in_page` of their page whose first bytes (up to 16) are those of `block`.
    /// Fewer than 8 bytes give none.
    pub fn candidates<'a>(&'a self, offset_in_page: usize, block: &'a [u8]) -> impl Iterator<Item = GuestAddr> + 'a {
        let block = block.get(..MAX_BLOCK).unwrap_or(block);
        let key = (block.len() >= MIN_BLOCK && offset_in_page < PAGE).then(|| Key::of(offset_in_page, block));
        key.into_iter().flat_map(move |key| {
            self.scan(key).filter_map(move |row| {
                let page = self.pages.get(row)?.checked_sub(key.pages_on * PAGE as u64)?;
                let addr = GuestAddr(page + offset_in_page as u64);
                (self.bytes(addr, block.len())? == block).then_some(addr)
            })
        })
    }

    /// Compares a page of guest memory with the page of the image that begins at `image_page`.
    #[must_use]
    pub fn page_matches(&self, image_page: GuestAddr, page: &[u8]) -> PageMatch {
        let page = page.get(..PAGE).unwrap_or(page);
        let mut sum = PageMatch { equal: 0, compared: 0 };
        for segment in &self.segments {
            // The overlap of [image_page, +len) with the segment, as offsets into both.
            let into_segment = image_page.0.saturating_sub(segment.addr.0);
            let into_page = segment.addr.0.saturating_sub(image_page.0);
            let (Ok(into_segment), Ok(into_page)) = (usize::try_from(into_segment), usize::try_from(into_page)) else {
                continue;
            };
            let (Some(ours), Some(theirs)) = (segment.bytes.get(into_segment..), page.get(into_page..)) else {
                continue;
            };
            let length = ours.len().min(theirs.len());
            sum.compared += length;
            sum.equal += ours.iter().zip(theirs).filter(|(a, b)| a == b).count();
        }
        sum
    }

    /// The image's bytes at a link-time address, also outside of text.
    #[must_use]
    pub fn bytes(&self, addr: GuestAddr, len: usize) -> Option<&[u8]> {
        crate::image::bytes_at(&self.segments, addr, len)
    }

    /// Where the code at the guest's address `vaddr` lies in the image. `block` is the code from there on (at least
    /// 8 bytes), `page` the whole 4096-byte guest page around it. The caller decides what a second, different answer
    /// means.
    #[must_use]
    pub fn locate(&self, vaddr: GuestAddr, block: &[u8], page: &[u8]) -> Location {
        let offset = vaddr.0 & (PAGE as u64 - 1);
        let mut found = None;
        for (number, image_addr) in self.candidates(usize::try_from(offset).unwrap_or_default(), block).enumerate() {
            if number == MAX_CANDIDATES {
                return Location::Ambiguous;
            }
            if self.page_matches(GuestAddr(image_addr.0 - offset), page).is_same()
                && found.replace(image_addr).is_some()
            {
                return Location::Ambiguous;
            }
        }
        found.map_or(Location::NotHere, |image_addr| Location::Found { image_addr })
    }

    fn scan(&self, key: Key) -> impl Iterator<Item = usize> + '_ {
        const CHUNK: usize = 64;
        let count = self.pages.len();
        let column = self.columns.get(key.column * count..(key.column + 1) * count).unwrap_or_default();
        column.chunks(CHUNK).enumerate().flat_map(move |(chunk, words)| {
            // Without an exit inside, the compiler makes vector code of it.
            let any = words.iter().fold(false, |any, word| any | ((word ^ key.word) & key.mask == 0));
            let words = if any { words } else { &[] };
            words
                .iter()
                .enumerate()
                .filter(move |(_, word)| (*word ^ key.word) & key.mask == 0)
                .map(move |(row, _)| chunk * CHUNK + row)
        })
    }

    fn fill_columns(&mut self) {
        let count = self.pages.len();
        // Some pages at a time, so that the lines of every column stay in the cache.
        for first in (0..count).step_by(8) {
            for row in first..(first + 8).min(count) {
                let Some(page) = self.pages.get(row).copied() else { continue };
                let bytes = page_bytes(&self.segments, page);
                for (column, word) in bytes.as_chunks::<WORD>().0.iter().enumerate() {
                    if let Some(cell) = self.columns.get_mut(column * count + row) {
                        *cell = u64::from_le_bytes(*word);
                    }
                }
            }
        }
    }
}

/// A page of the image, zero where the file has nothing.
fn page_bytes(segments: &[Segment], page: u64) -> [u8; PAGE] {
    let mut bytes = [0; PAGE];
    for segment in segments {
        let into_segment = usize::try_from(page.saturating_sub(segment.addr.0)).unwrap_or(usize::MAX);
        let into_page = usize::try_from(segment.addr.0.saturating_sub(page)).unwrap_or(usize::MAX);
        if let (Some(from), Some(to)) = (segment.bytes.get(into_segment..), bytes.get_mut(into_page..)) {
            for (to, from) in to.iter_mut().zip(from) {
                *to = *from;
            }
        }
    }
    bytes
}

/// What to look for in which column.
#[derive(Clone, Copy)]
struct Key {
    column: usize,
    word: u64,
    mask: u64,
    /// 1 when the word lies in the page after that of the block's start.
    pages_on: u64,
}

impl Key {
    /// Of the aligned words that `block` touches, the one of which it has most bytes.
    fn of(offset: usize, block: &[u8]) -> Self {
        let first = offset / WORD;
        let last = (offset + block.len() - 1) / WORD;
        let overlap = |word: usize| {
            let start = (word * WORD).max(offset);
            let end = ((word + 1) * WORD).min(offset + block.len());
            (start, end)
        };
        let best = (first..=last).rev().max_by_key(|word| {
            let (start, end) = overlap(*word);
            end.saturating_sub(start)
        });
        let best = best.unwrap_or(first);
        let (start, end) = overlap(best);
        let mut word = [0; WORD];
        let mut mask = [0; WORD];
        for position in start..end {
            let byte = block.get(position - offset).copied();
            if let (Some(byte), Some(to), Some(mask)) =
                (byte, word.get_mut(position % WORD), mask.get_mut(position % WORD))
            {
                *to = byte;
                *mask = 0xff;
            }
        }
        Self {
            column: best % WORDS_PER_PAGE,
            word: u64::from_le_bytes(word),
            mask: u64::from_le_bytes(mask),
            pages_on: (best / WORDS_PER_PAGE) as u64,
        }
    }
}

/// Where text lies: between the linker script's marks and in the sections of code, as far as the file has either,
/// because segments are coarse (x86 has read-only data in the segment of text, and Linux 7 has init text in a segment
/// that is not executable); else all executable segments.
fn text_ranges(image: &KernelImage) -> Vec<(u64, u64)> {
    let known = merge_extents(image.symbols.text_ranges().iter().chain(&image.text_sections).copied().collect());
    let mut ranges = Vec::new();
    for segment in &image.segments {
        let segment_end = segment.addr.0.saturating_add(segment.bytes.len() as u64);
        for (start, end) in &known {
            ranges.push((segment.addr.0.max(*start), segment_end.min(*end)));
        }
        if known.is_empty() && segment.executable {
            ranges.push((segment.addr.0, segment_end));
        }
    }
    ranges.retain(|(start, end)| start < end);
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{GLOBAL_FUNC, Load, Sym, elf};
    use qkprobe_arch::ByteOrder;

    const START: u64 = 0xffff_ffff_8100_0000;

    /// Four pages of text, all different, except that page 2 repeats page 1; then data.
    fn image(symbols: &[Sym]) -> KernelImage {
        let mut text = Vec::new();
        for word in 0..0x1000u64 {
            let word = if (0x800..0xc00).contains(&word) { word - 0x400 } else { word };
            text.extend_from_slice(
                &u32::try_from(word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).unwrap().to_le_bytes(),
            );
        }
        let memory_bytes = text.len() as u64;
        let loads = [
            Load { addr: START, flags: 5, bytes: text, memory_bytes },
            Load { addr: START + 0x10_0000, flags: 6, bytes: vec![7; 0x1000], memory_bytes: 0x1000 },
        ];
        KernelImage::parse("test", elf(ByteOrder::Little, 8, 62, &loads, symbols)).unwrap()
    }

    fn whole() -> (KernelImage, TextIndex) {
        let image = image(&[Sym("f", START, GLOBAL_FUNC, 1)]);
        let index = TextIndex::new(&image).unwrap();
        (image, index)
    }

    #[test]
    fn every_offset_and_length_is_found() {
        let (image, index) = whole();
        assert_eq!(index.text_bytes(), 0x4000);
        for offset in (0..0x1000).chain(0x3000..0x3f00) {
            for len in [8, 9, 13, 16, 40] {
                let addr = GuestAddr(START + offset);
                let block = image.bytes(addr, len).unwrap();
                let found: Vec<_> = index.candidates((offset & 0xfff) as usize, block).collect();
                assert_eq!(found, [addr], "{offset:#x} {len}");
            }
        }
    }

    #[test]
    fn repeated_code_has_several_places() {
        let (image, index) = whole();
        let block = image.bytes(GuestAddr(START + 0x1010), 16).unwrap();
        let found: Vec<_> = index.candidates(0x10, block).collect();
        assert_eq!(found, [GuestAddr(START + 0x1010), GuestAddr(START + 0x2010)]);
        let page = image.bytes(GuestAddr(START + 0x1000), 4096).unwrap();
        assert_eq!(index.locate(GuestAddr(0x5010), block, page), Location::Ambiguous);
    }

    #[test]
    fn short_absent_and_misplaced_blocks_have_none() {
        let (image, index) = whole();
        let block = image.bytes(GuestAddr(START + 0x20), 16).unwrap();
        assert_eq!(index.candidates(0x20, &block[..7]).count(), 0);
        assert_eq!(index.candidates(0x24, block).count(), 0);
        assert_eq!(index.candidates(0x1020, block).count(), 0);
        assert_eq!(index.candidates(0, &[0; 16]).count(), 0);
        assert_eq!(index.candidates(0x20, &[]).count(), 0);
        assert_eq!(index.locate(GuestAddr(0), &[0xaa; 16], &[0; 4096]), Location::NotHere);
    }

    #[test]
    fn a_block_may_cross_into_the_next_page_and_not_out_of_the_text() {
        let (image, index) = whole();
        for offset in 0xff1..0x1000 {
            let block = image.bytes(GuestAddr(START + offset), 16).unwrap();
            let found: Vec<_> = index.candidates(offset as usize, block).collect();
            assert!(found.contains(&GuestAddr(START + offset)), "{offset:#x}");
        }
        let tail = image.bytes(GuestAddr(START + 0x3ff8), 8).unwrap();
        let mut beyond = tail.to_vec();
        beyond.extend([0; 8]);
        assert_eq!(index.candidates(0xff8, tail).count(), 1);
        assert_eq!(index.candidates(0xff8, &beyond).count(), 0);
    }

    #[test]
    fn a_patched_page_is_found_and_a_foreign_one_is_not() {
        let (image, index) = whole();
        let addr = GuestAddr(START + 0x100);
        let block = image.bytes(addr, 16).unwrap().to_vec();
        let page = image.bytes(GuestAddr(START), 4096).unwrap();
        let patched = |changed: usize| {
            let mut page = page.to_vec();
            page.iter_mut().rev().take(changed).for_each(|byte| *byte = !*byte);
            page
        };
        let found = Location::Found { image_addr: addr };
        assert_eq!(index.locate(GuestAddr(0xffff_ffff_9b00_0100), &block, page), found);
        assert_eq!(index.locate(GuestAddr(0xffff_ffff_9b00_0100), &block, &patched(1024)), found);
        assert_eq!(index.locate(GuestAddr(0xffff_ffff_9b00_0100), &block, &patched(1025)), Location::NotHere);
        assert_eq!(index.page_matches(GuestAddr(START), &patched(10)), PageMatch { equal: 4086, compared: 4096 });
        assert_eq!(index.page_matches(GuestAddr(START - 0x800), page).compared, 2048);
        assert_eq!(index.page_matches(GuestAddr(START + 0x4000), page).compared, 0);
        assert_eq!(index.page_matches(GuestAddr(u64::MAX), page).compared, 0);
        assert!(!index.page_matches(GuestAddr(START + 0x4000), page).is_same());
    }

    #[test]
    fn marks_bound_the_text() {
        let marked = image(&[
            Sym("_stext", START, GLOBAL_FUNC, 1),
            Sym("_etext", START + 0x1800, GLOBAL_FUNC, 1),
            Sym("_sinittext", START + 0x3000, GLOBAL_FUNC, 1),
            Sym("_einittext", START + 0x3010, GLOBAL_FUNC, 1),
        ]);
        // Sections of code count as well, and here they say that all of the segment is.
        assert_eq!(TextIndex::new(&marked).unwrap().text_bytes(), 0x4000);
        let marked = KernelImage { text_sections: Vec::new(), ..marked };
        assert_eq!(TextIndex::new(&marked).unwrap().text_bytes(), 0x3000);
        let map = KernelImage::parse("map", b"c0000000 T _stext\nc0100000 T _etext\n".to_vec()).unwrap();
        assert!(TextIndex::new(&map).is_none());
    }
}
