//! Counts how often each instruction of some ranges of addresses is executed, by the high-level API of `qemu-plugin`, and prints
//! `ORACLE ADDRESS COUNT` for each at exit. It shares no code with qkprobe: `tests/tests/oracle.rs` loads both.
//!
//! `-plugin liboracle.so,ranges=START-END:START-END`, in hexadecimal. One vCPU, QEMU 9.2 to 10.2.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use qemu_plugin::install::{Args, Info};
use qemu_plugin::{
    HasCallbacks, PluginId, Register, Result, TranslationBlock, qemu_plugin_register_atexit_cb, register,
};

#[derive(Debug, Default)]
struct Oracle {
    ranges: Vec<(u64, u64)>,
    counts: Arc<Mutex<BTreeMap<u64, Arc<AtomicU64>>>>,
}

impl Register for Oracle {
    fn register(&mut self, id: PluginId, args: &Args, _: &Info) -> Result<()> {
        let number = |text: &str| u64::from_str_radix(text, 16).expect("a hexadecimal number");
        let ranges = args.raw.iter().find_map(|arg| arg.strip_prefix("ranges=")).expect("ranges=START-END:...");
        let range = |text: &str| text.split_once('-').map(|(start, end)| (number(start), number(end)));
        self.ranges = ranges.split(':').map(|text| range(text).expect("START-END")).collect();
        let counts = Arc::clone(&self.counts);
        qemu_plugin_register_atexit_cb(id, move |_| {
            for (addr, count) in &*counts.lock().expect("no panic before") {
                eprintln!("ORACLE {addr:#x} {}", count.load(Ordering::Relaxed));
            }
        })
    }
}

impl HasCallbacks for Oracle {
    fn on_translation_block_translate(&mut self, _: PluginId, block: TranslationBlock<'_>) -> Result<()> {
        for insn in block.instructions() {
            let addr = insn.vaddr();
            if self.ranges.iter().any(|(start, end)| (*start..*end).contains(&addr)) {
                let mut counts = self.counts.lock().expect("no panic before");
                let count = Arc::clone(counts.entry(addr).or_default());
                insn.register_execute_callback(move |_| {
                    count.fetch_add(1, Ordering::Relaxed);
                });
            }
        }
        Ok(())
    }
}

register!(Oracle::default());
