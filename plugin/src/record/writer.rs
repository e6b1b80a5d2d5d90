//! The writer thread: takes records out of all rings in the order of their times, formats them, writes them.
//!
//! Order: a hit marks its ring before it takes its timestamp and clears the mark when its records are visible. The
//! writer notes the time T, then looks at every ring: one without a mark can only bring records later than T. One with
//! a mark and unread records can bring nothing earlier than the newest of those. So all records up to the least of
//! these limits are complete, and are merged.

use crate::message::say;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use qkprobe_lang::{Format, SymbolNames};

use super::format::{self, Preamble};
use super::ring::Ring;
use super::sink::Sink;
use super::{Notice, Output};
use crate::control::Feed;
use crate::counters::{Counters, VcpuCounters};
use crate::engine::now;

/// Text is handed to the file in pieces of about this size.
const BATCH: usize = 64 << 10;
const SHORTEST_NAP: Duration = Duration::from_millis(1);
/// Bounds how long a record stays in a ring, and so what a kill can lose.
const LONGEST_NAP: Duration = Duration::from_millis(20);
/// After a failed write (a full disk) this long passes before the next try.
const RETRY: Duration = Duration::from_millis(500);

/// One source of records.
#[derive(Clone, Debug)]
struct Source {
    cpu: u32,
    ring: Arc<Ring>,
}

#[derive(Debug)]
struct Shared {
    sources: Mutex<Vec<Source>>,
    outputs: RwLock<Outputs>,
    notices: Mutex<VecDeque<Notice>>,
    asleep: AtomicBool,
    alive: AtomicBool,
    closing: AtomicBool,
    /// The index of a vCPU does not tell who hit.
    cpus_unknown: AtomicBool,
    written: AtomicU64,
    lost: AtomicU64,
}

/// The probes' outputs by index. An index is used again when its probe is gone and its last record is written.
#[derive(Debug, Default)]
struct Outputs {
    list: Vec<Option<Arc<Output>>>,
    /// Changes with each change of the list.
    version: u64,
    /// When the probe was gone.
    retired: Vec<(u64, u32)>,
    free: Vec<u32>,
}

/// So many notices may wait: a guest that patches its text all the time must not fill the memory.
const MOST_NOTICES: usize = 1000;

/// What hits and the control side hold of the writer.
#[derive(Debug)]
pub(crate) struct WriterHandle {
    shared: Arc<Shared>,
    thread: OnceLock<Thread>,
    join: Mutex<Option<JoinHandle<()>>>,
}

/// What the writer needs to run.
pub(crate) struct WriterConfig {
    pub(crate) sink: Sink,
    pub(crate) format: Format,
    pub(crate) preamble: Preamble,
    pub(crate) names: Arc<dyn SymbolNames + Send + Sync>,
    /// Where lost records are counted.
    pub(crate) counters: Arc<VcpuCounters>,
    /// All counters, to be set to 0 when an output is used again.
    pub(crate) all_counters: Arc<Counters>,
    /// Those who subscribed to records.
    pub(crate) feed: Arc<Feed>,
}

impl std::fmt::Debug for WriterConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriterConfig").field("sink", &self.sink).finish_non_exhaustive()
    }
}

impl WriterHandle {
    /// Writes the first lines and starts the thread.
    ///
    /// # Errors
    /// The first lines could not be written, or there is no thread to be had.
    pub(crate) fn start(mut config: WriterConfig) -> Result<Self, String> {
        let shared = Arc::new(Shared {
            sources: Mutex::new(Vec::new()),
            outputs: RwLock::new(Outputs::default()),
            notices: Mutex::new(VecDeque::new()),
            asleep: AtomicBool::new(false),
            alive: AtomicBool::new(true),
            closing: AtomicBool::new(false),
            cpus_unknown: AtomicBool::new(false),
            written: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let mut head = Vec::new();
        format::start(config.format, &config.preamble, &mut head);
        config
            .sink
            .write_lines(&head)
            .map_err(|(_, error)| format!("out={}: cannot write: {error}", config.sink.name()))?;
        let worker = Worker {
            shared: Arc::clone(&shared),
            config,
            outputs: Vec::new(),
            version: 0,
            line: Vec::new(),
            text: Vec::with_capacity(2 * BATCH),
            failed: None,
        };
        let join = std::thread::Builder::new()
            .name("qkprobe-writer".into())
            .spawn(move || worker.run())
            .map_err(|error| format!("cannot start the writer thread: {error}"))?;
        let thread = OnceLock::new();
        let _ = thread.set(join.thread().clone());
        Ok(Self { shared, thread, join: Mutex::new(Some(join)) })
    }

    /// Adds the ring of a new vCPU.
    pub(crate) fn add_source(&self, cpu: u32, ring: Arc<Ring>) {
        self.shared.sources.lock().push(Source { cpu, ring });
    }

    /// From here on records show no CPU. Returns whether that was so before.
    pub(crate) fn forget_cpus(&self) -> bool {
        self.shared.cpus_unknown.swap(true, Ordering::Relaxed)
    }

    /// Adds an output; its index is what records carry.
    pub(crate) fn add_output(&self, output: Arc<Output>) -> u32 {
        let mut outputs = self.shared.outputs.write();
        outputs.version += 1;
        if let Some(index) = outputs.free.pop() {
            if let Some(slot) = outputs.list.get_mut(index as usize) {
                *slot = Some(output);
            }
            return index;
        }
        outputs.list.push(Some(output));
        // `MAX_OUTPUTS` is far below 2^32.
        (outputs.list.len() - 1) as u32
    }

    /// How many indices there are, used or not.
    pub(crate) fn output_count(&self) -> usize {
        self.shared.outputs.read().list.len()
    }

    /// An output's probe is gone, and no hit of it runs any more: its index is used again after its last record.
    pub(crate) fn retire_output(&self, index: u32) {
        self.shared.outputs.write().retired.push((now(), index));
    }

    /// Puts something between the records.
    pub(crate) fn notice(&self, notice: Notice) {
        let mut notices = self.shared.notices.lock();
        if notices.len() < MOST_NOTICES {
            notices.push_back(notice);
        }
    }

    /// Records written and lost so far.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.shared.written.load(Ordering::Relaxed), self.shared.lost.load(Ordering::Relaxed))
    }

    /// Hit: a record was committed.
    #[inline]
    pub(crate) fn committed(&self, ring: &Ring) {
        if self.shared.asleep.load(Ordering::Relaxed) && ring.half_full() {
            self.wake();
        }
    }

    /// Hit, lossless: the ring is full; let the writer work.
    #[cold]
    pub(crate) fn wait_for_room(&self) {
        self.wake();
        std::thread::sleep(Duration::from_micros(20));
    }

    /// Whether waiting for room can end.
    pub(crate) fn is_alive(&self) -> bool {
        self.shared.alive.load(Ordering::Relaxed)
    }

    /// Runs `body` while nobody else can take any of the writer's locks.
    #[cfg(test)]
    pub(crate) fn while_locked(&self, body: impl FnOnce()) {
        let _sources = self.shared.sources.lock();
        let _outputs = self.shared.outputs.write();
        body();
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Drains, writes the last line, ends the thread. Waits at most `patience`; returns whether it ended.
    pub(crate) fn finish(&self, patience: Duration) -> bool {
        self.shared.closing.store(true, Ordering::Release);
        let start = Instant::now();
        while self.is_alive() {
            self.wake();
            if start.elapsed() > patience {
                return false;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        if let Some(join) = self.join.lock().take() {
            let _ = join.join();
        }
        true
    }
}

struct Worker {
    shared: Arc<Shared>,
    config: WriterConfig,
    /// The shared list, as of this version.
    outputs: Vec<Option<Arc<Output>>>,
    version: u64,
    /// A record for subscribers, where the trace has another format.
    line: Vec<u8>,
    text: Vec<u8>,
    /// Since when the sink fails, and how many records were lost since.
    failed: Option<(Instant, u64)>,
}

/// Says that the thread is gone, however it ends: no vCPU may wait for it then.
struct Gone(Arc<Shared>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.alive.store(false, Ordering::Release);
    }
}

impl Worker {
    fn run(mut self) {
        let _gone = Gone(Arc::clone(&self.shared));
        let mut nap = SHORTEST_NAP;
        loop {
            // Read before draining: what was committed before `closing` was set is drained below.
            let closing = self.shared.closing.load(Ordering::Acquire);
            let count = self.drain(closing);
            if closing {
                if count == 0 {
                    break;
                }
                continue;
            }
            nap = if count == 0 { (nap * 2).min(LONGEST_NAP) } else { SHORTEST_NAP };
            // Even when there may be more: a writer that looks all the time takes the ring's cache lines away from
            // the vCPU at every record. A ring that fills up wakes it.
            self.shared.asleep.store(true, Ordering::SeqCst);
            if !self.shared.sources.lock().iter().any(|source| source.ring.half_full()) {
                std::thread::park_timeout(nap);
            }
            self.shared.asleep.store(false, Ordering::Relaxed);
        }
        self.close();
    }

    fn close(&mut self) {
        if let Some((_, lost)) = self.failed {
            self.failed = Some((Instant::now() - RETRY, lost));
            self.retry();
        }
        let (written, lost) = (self.shared.written.load(Ordering::Relaxed), self.shared.lost.load(Ordering::Relaxed));
        let mut last = Vec::new();
        format::end(self.config.format, written, lost, &mut last);
        if self.failed.is_none() {
            let _ = self.config.sink.write_lines(&last);
        }
        if lost != 0 {
            say!("qkprobe: {lost} records could not be written to {}", self.config.sink.name());
        }
    }

    /// Moves what is complete from the rings to the sink; returns how many records.
    fn drain(&mut self, closing: bool) -> usize {
        let sources = self.shared.sources.lock().clone();
        let limit = self.limit(&sources, closing);
        let cpus_known = !self.shared.cpus_unknown.load(Ordering::Relaxed);
        self.refresh_outputs();
        self.write_notices();
        let mut pending: Vec<(u32, u64)> = Vec::new();
        let mut count = 0;
        loop {
            let oldest = sources
                .iter()
                .filter_map(|source| source.ring.peek().map(|record| (record.header.time, source)))
                .filter(|(time, _)| *time <= limit)
                .min_by_key(|(time, _)| *time);
            let Some((_, source)) = oldest else { break };
            let Some(record) = source.ring.peek() else { break };
            let header = record.header;
            if let Some(Some(output)) = self.outputs.get(header.output as usize) {
                let cpu = cpus_known.then_some(source.cpu);
                let before = self.text.len();
                let Preamble { epoch, .. } = self.config.preamble;
                let names = &*self.config.names;
                if !output.reserved {
                    format::record(self.config.format, epoch, cpu, output, &record, names, &mut self.text);
                    pending.push((header.output, self.text.len() as u64));
                }
                if self.config.feed.wanted() {
                    let line = if self.config.format == Format::Json && !output.reserved {
                        self.text.get(before..).unwrap_or_default()
                    } else {
                        self.line.clear();
                        format::record(Format::Json, epoch, cpu, output, &record, names, &mut self.line);
                        &self.line
                    };
                    let Output { group, name, reserved, .. } = &**output;
                    match reserved {
                        true => self.config.feed.publish_reserved(group, name, line),
                        false => self.config.feed.publish(group, name, line),
                    }
                }
            }
            source.ring.consume(header);
            count += 1;
            if self.text.len() >= BATCH {
                sources.iter().for_each(|source| source.ring.release());
                self.flush(&mut pending);
            }
        }
        sources.iter().for_each(|source| source.ring.release());
        self.flush(&mut pending);
        self.free_outputs(limit);
        count
    }

    fn refresh_outputs(&mut self) {
        let outputs = self.shared.outputs.read();
        if outputs.version != self.version {
            self.version = outputs.version;
            self.outputs.clone_from(&outputs.list);
        }
    }

    /// All records up to `limit` are written: the indices of probes that were gone by then are free.
    fn free_outputs(&self, limit: u64) {
        if self.shared.outputs.read().retired.is_empty() {
            return;
        }
        let mut outputs = self.shared.outputs.write();
        let Outputs { list, version, retired, free } = &mut *outputs;
        retired.retain(|(time, index)| {
            if *time >= limit {
                return true;
            }
            if let Some(slot) = list.get_mut(*index as usize) {
                *slot = None;
            }
            self.config.all_counters.reset(*index);
            free.push(*index);
            *version += 1;
            false
        });
    }

    fn write_notices(&mut self) {
        let notices = std::mem::take(&mut *self.shared.notices.lock());
        let epoch = self.config.preamble.epoch;
        for notice in &notices {
            format::notice(self.config.format, epoch, notice, &mut self.text);
            self.line.clear();
            format::notice(Format::Json, epoch, notice, &mut self.line);
            self.config.feed.publish("", "", &self.line);
        }
        // They go out with the records that follow; alone, there may be none to follow.
        if !notices.is_empty() && self.failed.is_none() {
            let _ = self.config.sink.write_lines(&self.text);
        }
        self.text.clear();
    }

    /// The time up to which all rings are complete.
    fn limit(&self, sources: &[Source], closing: bool) -> u64 {
        let mut limit = now();
        // Pairs with the fence of the epoch's pin, between a hit's mark and its timestamp: either the mark is seen
        // here, or the timestamp is taken after `limit`.
        fence(Ordering::SeqCst);
        for source in sources {
            let mut round = 0;
            limit = loop {
                if let Some(complete) = source.ring.complete_up_to(limit) {
                    break complete;
                }
                round += 1;
                // A vCPU that stands in a hit at exit will not come out of it.
                if closing && round > 10_000 {
                    break limit;
                }
                std::thread::yield_now();
            };
        }
        limit
    }

    /// Writes the text; what fails is counted as lost, by probe.
    fn flush(&mut self, pending: &mut Vec<(u32, u64)>) {
        if pending.is_empty() {
            return;
        }
        if self.failed.is_some() && !self.retry() {
            self.lose(pending, 0);
        } else {
            let result = self.config.sink.write_lines(&self.text);
            match result {
                Ok(()) => self.account_written(pending),
                Err((written, error)) => {
                    say!(
                        "qkprobe: {}: {error}; records are lost from here on until it can be written again",
                        self.config.sink.name()
                    );
                    self.failed = Some((Instant::now(), 0));
                    self.lose(pending, written as u64);
                }
            }
        }
        pending.clear();
        self.text.clear();
    }

    fn account_written(&self, records: &[(u32, u64)]) {
        for (output, _) in records {
            if let Some(cell) = self.config.counters.cell(*output) {
                cell.written();
            }
        }
        self.shared.written.fetch_add(records.len() as u64, Ordering::Relaxed);
    }

    /// Counts as lost what ends behind the first `written` bytes.
    fn lose(&mut self, pending: &[(u32, u64)], written: u64) {
        let kept = pending.iter().take_while(|(_, end)| *end <= written).count();
        self.account_written(pending.get(..kept).unwrap_or_default());
        let lost = pending.get(kept..).unwrap_or_default();
        for (output, _) in lost {
            if let Some(cell) = self.config.counters.cell(*output) {
                cell.dropped();
            }
        }
        self.shared.lost.fetch_add(lost.len() as u64, Ordering::Relaxed);
        if let Some((_, count)) = &mut self.failed {
            *count += lost.len() as u64;
        }
    }

    /// After a failure: tries, now and then, to say in the trace how many records are missing. Returns whether the
    /// sink works again.
    fn retry(&mut self) -> bool {
        let Some((since, lost)) = self.failed else { return true };
        if since.elapsed() < RETRY {
            return false;
        }
        let mut line = Vec::new();
        format::lost(self.config.format, lost, &mut line);
        let works = self.config.sink.write_lines(&line).is_ok();
        self.failed = if works { None } else { Some((Instant::now(), lost)) };
        works
    }
}
