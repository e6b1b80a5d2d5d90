//! One ring a vCPU: single producer (the thread that runs the vCPU), single consumer (the writer thread). No lock,
//! no allocation after its making.
//!
//! Records lie contiguous: one that does not fit before the end is preceded by a filler. All positions only grow;
//! an offset into the buffer is their value modulo the size.

use std::cell::UnsafeCell;

use crossbeam_utils::CachePadded;

use crate::primitive::{AtomicBool, AtomicU64, Ordering, preemption_point};

/// What precedes every record's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Header {
    /// Nanoseconds of the host's monotonic clock.
    pub(crate) time: u64,
    /// Index of the probe's output; `FILLER` for padding.
    pub(crate) output: u32,
    /// Bytes of data behind the header.
    pub(crate) len: u32,
}

const HEADER_BYTES: usize = size_of::<Header>();
const _: () = assert!(HEADER_BYTES == 16);

const FILLER: u32 = u32::MAX;
const ALIGN: usize = 8;

pub(crate) struct Ring {
    buffer: Box<[UnsafeCell<u64>]>,
    producer: CachePadded<Producer>,
    /// Bytes given back, ever. Release by the consumer, Acquire by the producer: the bytes may be overwritten.
    tail: CachePadded<AtomicU64>,
    /// The consumer's own position, at or ahead of `tail`. Only the consumer touches it.
    read: CachePadded<AtomicU64>,
}

/// What only the producer writes, in one cache line: a hit dirties no other line of the ring but the record's.
#[derive(Debug, Default)]
struct Producer {
    /// Bytes written, ever. Release by the producer, Acquire by the consumer: the record's bytes are visible.
    head: AtomicU64,
    /// `tail` as the producer saw it last: it looks again only when that leaves no room, because the consumer's line
    /// has to be fetched from another core.
    tail_seen: AtomicU64,
    /// The time of the newest record, stored before `head`.
    newest: AtomicU64,
    /// Set before a hit takes its timestamp, cleared after the record is committed: lets the writer put the records
    /// of all rings into the order of their times.
    in_hit: AtomicBool,
}

// SAFETY: the buffer's bytes are accessed by the producer only in [head, tail + size) and by the consumer only in
// [tail, head); the two counters hand them over with Release/Acquire.
unsafe impl Sync for Ring {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Ring {}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("producer", &self.producer).field("tail", &self.tail).finish_non_exhaustive()
    }
}

/// A record that the consumer looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) header: Header,
    pub(crate) data: &'a [u8],
}

/// A place for one record, not yet visible.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    ring: &'a Ring,
    at: u64,
    len: usize,
}

impl Ring {
    /// A ring of at least `bytes`, rounded up to a power of two.
    pub(crate) fn new(bytes: usize) -> Self {
        let words = bytes.next_power_of_two().max(4096) / 8;
        Self {
            // Zeroed pages of the allocator: not touched before they are used.
            buffer: zeroed_words(words),
            producer: CachePadded::default(),
            tail: CachePadded::default(),
            read: CachePadded::default(),
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.buffer.len() * 8
    }

    fn base(&self) -> *mut u8 {
        self.buffer.as_ptr().cast_mut().cast()
    }

    fn offset(&self, position: u64) -> usize {
        (position & (self.size() as u64 - 1)) as usize
    }

    /// Producer: the hit begins. Ordered before the timestamp by the fence in the epoch's pin that follows.
    #[inline]
    pub(crate) fn begin_hit(&self) {
        self.producer.in_hit.store(true, Ordering::Relaxed);
    }

    /// Producer: the hit's records are committed.
    #[inline]
    pub(crate) fn end_hit(&self) {
        // Release: pairs with the Acquire in `complete_up_to`, so that a cleared flag means a visible `head`.
        self.producer.in_hit.store(false, Ordering::Release);
    }

    /// Consumer: up to which time, `limit` at the most, all records can be seen. `limit` was the time before this call. `None`: a hit
    /// is going on that may have taken an earlier one.
    pub(crate) fn complete_up_to(&self, limit: u64) -> Option<u64> {
        if !self.producer.in_hit.load(Ordering::Acquire) {
            return Some(limit);
        }
        // What a hit in progress adds is no older than what is there.
        self.peek()?;
        Some(limit.min(self.producer.newest.load(Ordering::Acquire)))
    }

    /// Producer: room for a record of up to `max_len` bytes of data, or `None` while the ring is too full.
    /// The ring is made several times larger than the longest record, so waiting for room always ends.
    #[inline]
    pub(crate) fn reserve(&self, max_len: usize) -> Option<Reservation<'_>> {
        let need = HEADER_BYTES + max_len.next_multiple_of(ALIGN);
        // Only this thread stores `head`.
        let head = self.producer.head.load(Ordering::Relaxed);
        let to_end = self.size() - self.offset(head);
        let filler = if need > to_end { to_end } else { 0 };
        let fits = |tail: u64| (head - tail) as usize + filler + need <= self.size();
        if !fits(self.producer.tail_seen.load(Ordering::Relaxed)) {
            let tail = self.tail.load(Ordering::Acquire);
            self.producer.tail_seen.store(tail, Ordering::Relaxed);
            if !fits(tail) {
                return None;
            }
        }
        if filler != 0 {
            preemption_point();
            // A gap smaller than a header cannot hold a filler's header: its first word says so.
            // SAFETY: [head, head + filler) is free and inside the buffer; `head` is a multiple of 8.
            unsafe {
                let at = self.base().add(self.offset(head));
                if filler >= HEADER_BYTES {
                    at.cast::<Header>().write(Header { time: 0, output: FILLER, len: (filler - HEADER_BYTES) as u32 });
                }
            }
            self.producer.head.store(head + filler as u64, Ordering::Release);
        }
        let at = head + filler as u64;
        debug_assert!(self.offset(at) + need <= self.size(), "a record of {need} bytes at {at:#x} would wrap");
        Some(Reservation { ring: self, at, len: max_len })
    }

    /// Consumer: the oldest record that it has not taken yet, if any.
    pub(crate) fn peek(&self) -> Option<Record<'_>> {
        loop {
            let read = self.read.load(Ordering::Relaxed);
            if read == self.producer.head.load(Ordering::Acquire) {
                return None;
            }
            let offset = self.offset(read);
            let to_end = self.size() - offset;
            if to_end < HEADER_BYTES {
                self.read.store(read + to_end as u64, Ordering::Relaxed);
                continue;
            }
            // SAFETY: [read, head) was written by the producer before its Release store of `head`, and is not overwritten
            // before `release`; a header starts here.
            let header = unsafe { self.base().add(offset).cast::<Header>().read() };
            if header.output == FILLER {
                self.read.store(read + to_end as u64, Ordering::Relaxed);
                continue;
            }
            // SAFETY: as above; the data follows the header, contiguous, `len` bytes long.
            let data =
                unsafe { std::slice::from_raw_parts(self.base().add(offset + HEADER_BYTES), header.len as usize) };
            return Some(Record { header, data });
        }
    }

    /// Consumer: goes on behind the record that `peek` showed. The producer gets the room with `release`.
    pub(crate) fn consume(&self, header: Header) {
        let read = self.read.load(Ordering::Relaxed);
        let len = HEADER_BYTES + (header.len as usize).next_multiple_of(ALIGN);
        self.read.store(read + len as u64, Ordering::Relaxed);
    }

    /// Consumer: gives all that was consumed back to the producer. In batches: each takes a cache line from it.
    pub(crate) fn release(&self) {
        // Release: pairs with the Acquire in `reserve`; what `peek` showed is not looked at any more.
        self.tail.store(self.read.load(Ordering::Relaxed), Ordering::Release);
    }

    /// Whether the writer should wake up early.
    #[inline]
    pub(crate) fn half_full(&self) -> bool {
        let used = self.producer.head.load(Ordering::Relaxed).wrapping_sub(self.tail.load(Ordering::Relaxed));
        used as usize > self.size() / 2
    }
}

impl Reservation<'_> {
    /// The room for the data.
    #[inline]
    pub(crate) fn data(&mut self) -> &mut [u8] {
        let offset = self.ring.offset(self.at) + HEADER_BYTES;
        // SAFETY: `reserve` found [at, at + header + len) free and contiguous, and there is one reservation at a time
        // (the producer's `&mut` use of it ends before the next `reserve`).
        unsafe { std::slice::from_raw_parts_mut(self.ring.base().add(offset), self.len) }
    }

    /// Makes the record visible. `len` is at most what was reserved.
    #[inline]
    pub(crate) fn commit(self, time: u64, output: u32, len: usize) {
        let len = len.min(self.len);
        let header = Header { time, output, len: len as u32 };
        preemption_point();
        // SAFETY: the header's place belongs to the reservation and is aligned to 8.
        unsafe { self.ring.base().add(self.ring.offset(self.at)).cast::<Header>().write(header) };
        let end = self.at + (HEADER_BYTES + len.next_multiple_of(ALIGN)) as u64;
        self.ring.producer.newest.store(time, Ordering::Relaxed);
        // Release: pairs with the Acquire in `peek`.
        self.ring.producer.head.store(end, Ordering::Release);
    }
}

fn zeroed_words(words: usize) -> Box<[UnsafeCell<u64>]> {
    let mut zeroed = std::mem::ManuallyDrop::new(vec![0_u64; words]);
    // SAFETY: `UnsafeCell<u64>` has the layout of `u64`; the vector's parts are taken over once (ManuallyDrop).
    unsafe { Vec::from_raw_parts(zeroed.as_mut_ptr().cast::<UnsafeCell<u64>>(), words, zeroed.capacity()) }
        .into_boxed_slice()
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_in_order_across_the_end() {
        let ring = Ring::new(4096);
        for round in 0..1000_u64 {
            let len = (round * 37 % 200) as usize;
            let mut reservation = ring.reserve(256).expect("room: every record is consumed at once");
            reservation.data()[..len].fill(round as u8);
            reservation.commit(round, 7, len);
            let record = ring.peek().expect("just committed");
            assert_eq!((record.header.time, record.header.output, record.data.len()), (round, 7, len));
            assert!(record.data.iter().all(|byte| *byte == round as u8));
            let header = record.header;
            ring.consume(header);
            ring.release();
        }
        assert!(ring.peek().is_none());
    }

    #[test]
    fn a_full_ring_refuses_and_recovers() {
        let ring = Ring::new(4096);
        let mut count = 0;
        while let Some(reservation) = ring.reserve(100) {
            reservation.commit(count, 1, 100);
            count += 1;
        }
        // 4096 / (16 + 104) = 34 whole records.
        assert_eq!(count, 34);
        let header = ring.peek().expect("full").header;
        ring.consume(header);
        let header = ring.peek().expect("full").header;
        ring.consume(header);
        assert!(ring.reserve(100).is_none(), "consumed, but not given back");
        ring.release();
        assert!(ring.reserve(100).is_some());
    }

    #[test]
    fn two_threads_lose_nothing() {
        let ring = Ring::new(4096);
        const N: u64 = 40_000;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..N {
                    let len = (n % 61) as usize;
                    loop {
                        if let Some(mut reservation) = ring.reserve(64) {
                            reservation.data()[..len].fill(n as u8);
                            if n % 16 == 0 {
                                // The consumer may be at a filler, if there is one, before there is a record.
                                std::thread::yield_now();
                            }
                            reservation.commit(n, 3, len);
                            break;
                        }
                        std::thread::yield_now();
                    }
                }
            });
            let mut next = 0;
            while next < N {
                let Some(record) = ring.peek() else {
                    ring.release();
                    std::thread::yield_now();
                    continue;
                };
                assert_eq!(record.header.time, next);
                assert_eq!(record.data.len(), (next % 61) as usize);
                assert!(record.data.iter().all(|byte| *byte == next as u8));
                let header = record.header;
                ring.consume(header);
                if next % 7 == 0 {
                    ring.release();
                }
                next += 1;
            }
        });
    }
}
