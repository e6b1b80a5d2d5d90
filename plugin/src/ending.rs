//! The end of a run: the last records, the summary, and `quit`.

use std::path::Path;
use std::time::Duration;

use qkprobe_lang::Action;
use serde::Serialize;

use crate::message::say;
use crate::record::Output;
use crate::record::summary::{ProbeSummary, Summary, Watched};
use crate::running::Plugin;

/// How long the end of QEMU may wait for the records to be written.
const EXIT_PATIENCE: Duration = Duration::from_secs(10);
/// How long `exit` may take after that.
const QUIT_PATIENCE: Duration = Duration::from_secs(5);

/// Who ended QEMU on purpose, and with which status.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Quit {
    pub(crate) status: u8,
    /// `GROUP/EVENT` of the probe that says `quit`; `None`: a client of the control socket.
    pub(crate) by: Option<String>,
}

impl Plugin {
    /// QEMU ends: write what there is, then the summary. Once, whoever comes first.
    pub(crate) fn exit(&self) {
        self.holds.end();
        self.finish();
    }

    fn finish(&self) {
        self.ended.call_once(|| self.end());
    }

    fn end(&self) {
        crate::api::end();
        // vCPUs may run on while QEMU ends: what they hit would have no record and yet be counted.
        crate::qemu::shapes::end_hits();
        let drained = self.writer.finish(EXIT_PATIENCE);
        if let Some(control) = self.control.get() {
            control.stop();
        }
        let summary = self.summary(drained);
        if !drained {
            say!(
                "qkprobe: records could not be written within {} s: {} are lost",
                EXIT_PATIENCE.as_secs(),
                summary.lost
            );
        }
        crate::message::tell(format_args!("{}", summary.to_table()));
        if let Some(path) = &self.summary_file
            && let Err(error) = write_whole(path, &summary.to_json())
        {
            say!("qkprobe: summary={}: {error}", path.display());
        }
    }

    /// Ends QEMU with this status, after the last record. Returns at once: a thread of its own does it, because a vCPU's
    /// thread may be what the end waits for. `output` is that of the probe that says so; `None`: a client does.
    pub(crate) fn quit_machine(&'static self, status: u8, output: Option<u32>) {
        self.holds.quit();
        let end = move || {
            let probes = self.probes.lock();
            let by = output.and_then(|output| probes.list.get(&output));
            let by = by.map(|probe| format!("{}/{}", probe.output.group, probe.output.name));
            let _ = self.quit.set(Quit { status, by });
            drop(probes);
            self.finish();
            // QEMU's own exit handlers put the terminal back; should they hang, they get no more than this.
            let _ = std::thread::Builder::new().name("qkprobe-quit".into()).spawn(move || {
                std::thread::sleep(QUIT_PATIENCE);
                // SAFETY: ends the process without running anything.
                unsafe { libc::_exit(i32::from(status)) }
            });
            // SAFETY: runs QEMU's exit handlers; ours has run.
            unsafe { libc::exit(i32::from(status)) }
        };
        if std::thread::Builder::new().name("qkprobe-end".into()).spawn(end).is_err() {
            self.finish();
            // SAFETY: as above.
            unsafe { libc::_exit(i32::from(status)) }
        }
    }

    /// What kept probes from arming: what was told, or that their kernel never ran.
    fn problem(&self) -> Option<String> {
        let told = self.problem.lock().clone();
        let never_found = || self.locator.as_ref().is_some_and(|locator| locator.never_found());
        told.or_else(|| {
            never_found().then(|| {
                format!(
                    "nothing of the kernel that kernel= names has run, so no probe armed\n  kernel=: {}\n  If the guest came \
                     to its kernel, give the image of that with kernel=FILE.",
                    self.own_banner()
                )
            })
        })
    }

    /// `drained`: the writer has written or given up every record. If it stands still, all that it has not written is
    /// lost.
    fn summary(&self, drained: bool) -> Summary {
        let slide = self.locator.as_ref().and_then(|locator| locator.slide());
        let boundary_lost = self.boundary_lost.lock();
        let list = self.probes.lock();
        let probes = list.of_users().map(|(index, probe)| {
            let totals = self.totals(index, probe);
            let output = &probe.output;
            ProbeSummary {
                name: output.name.clone(),
                group: output.group.clone(),
                kind: probe.kind,
                place: output.definition.as_ref().map_or_else(|| output.place.clone(), |it| it.place.text.clone()),
                address: self.shown_address(output),
                hits: totals.hits,
                filtered: totals.filtered,
                missed: totals.missed,
                dropped: match probe.action {
                    Action::Trace if !drained => totals.hits.saturating_sub(totals.written),
                    _ => totals.dropped,
                },
                reexecuted: totals.reexecuted,
                pending: if probe.kind == "r" { totals.pending() } else { 0 },
                abandoned: totals.abandoned,
                effects: totals.effects,
                boundary_lost: probe.place.and_then(|place| boundary_lost.get(&place).copied()).unwrap_or(0),
            }
        });
        let probes: Vec<_> = probes.collect();
        let watched = list.reserved().map(|(index, probe)| {
            let Output { group, name, .. } = &*probe.output;
            Watched { group: group.clone(), name: name.clone(), hits: self.totals(index, probe).hits }
        });
        let (written, mut lost) = self.writer.totals();
        if !drained {
            lost = probes.iter().map(|probe| probe.dropped).sum();
        }
        Summary {
            qemu: self.machine.qemu.clone(),
            api: self.machine.api.level,
            target: self.arch.name().to_owned(),
            slide: slide.map(|slide| format!("{slide:#x}")),
            problem: self.problem(),
            quit: self.quit.get().cloned(),
            written,
            lost,
            verified: self.verifier.as_ref().map(|verifier| verifier.totals()),
            probes,
            watched: watched.collect(),
        }
    }
}

/// A file is either the old one or the whole new one, also when the disk is full. A link stays, and its target is
/// written; what is no file (a pipe, a terminal) is written to.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if std::fs::metadata(&target).is_ok_and(|metadata| !metadata.is_file()) {
        return std::fs::write(target, text);
    }
    let mut temporary = target.clone().into_os_string();
    temporary.push(".tmp");
    std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, &target)).inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}
