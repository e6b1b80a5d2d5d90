//! QEMU as a child that cannot be left behind.
//!
//! 1. It is started by a thread of its own, which stays until the child has ended: the kernel sends the child SIGKILL when
//!    the thread that made it dies (`PR_SET_PDEATHSIG`), so it goes with this process, however that ends.
//! 2. It leads a process group, so that a Ctrl-C at the terminal does not reach it and its own children are reached.
//! 3. Who ends it sends SIGTERM to the group, waits, and sends SIGKILL; dropping the [`Process`] does.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpid, getppid, kill_process_group, set_parent_process_death_signal, waitid,
};

/// How long QEMU may take to end after SIGTERM: its plugin writes what it has.
const PATIENCE: Duration = Duration::from_secs(5);

/// A child process with its group.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    shared: Arc<Shared>,
    supervisor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The child is dead: its number may belong to another process soon, so it gets no signal any more.
    over: bool,
    status: Option<ExitStatus>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// Starts `command`.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        let parent = getpid();
        command.process_group(0);
        // SAFETY: between fork and exec only system calls are made, which allocate and lock nothing.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // The parent may have died before the line above.
                if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
            });
        }
        let shared = Arc::new(Shared::default());
        let (started, start) = mpsc::sync_channel(1);
        let supervisor = thread::Builder::new().name("qkprobe-child".into()).spawn({
            let shared = Arc::clone(&shared);
            move || supervise(command, &shared, &started)
        })?;
        let pid = start.recv().map_err(|_| io::Error::other("the thread that starts QEMU ended"))??;
        Ok(Self { pid, shared, supervisor: Some(supervisor) })
    }

    /// The process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How it ended, if it has.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        self.shared.lock().status
    }

    /// Sends a signal to the whole group; a process that has ended gets none.
    pub(crate) fn signal(&self, signal: Signal) {
        // Under the lock: the supervisor gives the number back only after it has set `over`.
        let state = self.shared.lock();
        if !state.over {
            // It fails only for a group that is no more.
            let _ = kill_process_group(self.pid, signal);
        }
    }

    /// Waits for the end.
    pub(crate) fn wait(&self, patience: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + patience;
        let mut state = self.shared.lock();
        while state.status.is_none() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
        state.status
    }

    /// Ends it, politely first.
    pub(crate) fn end(&mut self) -> ExitStatus {
        if self.status().is_none() {
            self.signal(Signal::TERM);
            // A stopped process takes SIGTERM only when it goes on.
            self.signal(Signal::CONT);
        }
        let status = self.wait(PATIENCE).unwrap_or_else(|| self.kill());
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
        status
    }

    fn kill(&self) -> ExitStatus {
        loop {
            self.signal(Signal::KILL);
            if let Some(status) = self.wait(PATIENCE) {
                return status;
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn supervise(mut command: Command, shared: &Shared, started: &mpsc::SyncSender<io::Result<Pid>>) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let pid = Pid::from_child(&child);
    let _ = started.send(Ok(pid));
    // Its number stays taken until `wait` below.
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {}
    shared.lock().over = true;
    // What it started must not outlive it.
    let _ = kill_process_group(pid, Signal::KILL);
    let status = child.wait();
    let mut state = shared.lock();
    // It fails only for a child that somebody else has waited for.
    state.status = Some(status.unwrap_or_default());
    shared.changed.notify_all();
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Stdio;

    use super::*;
    use crate::folder::Folder;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    /// Starts a shell whose script makes a file `$0` when it is so far.
    fn shell_that_is_ready(script: &str) -> Process {
        let folder = Folder::large().expect("a folder");
        let ready = folder.path().join("ready");
        let mut command = shell(script);
        command.arg(&ready);
        let process = Process::start(command).expect("starts");
        let start = Instant::now();
        while !ready.exists() {
            assert!(start.elapsed() < Duration::from_secs(120), "{script}");
            thread::sleep(Duration::from_millis(5));
        }
        process
    }

    #[test]
    fn a_child_that_ends_by_itself() {
        let mut process = Process::start(shell("exit 7")).expect("starts");
        assert_eq!(process.wait(Duration::from_secs(60)).and_then(|status| status.code()), Some(7));
        assert_eq!(process.end().code(), Some(7));
    }

    #[test]
    fn ended_politely_and_by_force_with_its_children() {
        let mut polite = shell_that_is_ready("trap 'exit 3' TERM; : >\"$0\"; while :; do sleep 0.01; done");
        assert_eq!(polite.end().code(), Some(3));
        // The grandchild does not hear SIGTERM either, and has the group's number.
        let deaf = shell_that_is_ready("trap '' TERM; sleep 1000 & : >\"$0\"; sleep 1000");
        let group = deaf.pid;
        let status = deaf.kill();
        assert_eq!(status.signal(), Some(9));
        let gone = Instant::now();
        while rustix::process::test_kill_process_group(group).is_ok() {
            assert!(gone.elapsed() < Duration::from_secs(120), "somebody of the group is left");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_program_that_is_not_there() {
        let error = Process::start(Command::new("/nonexistent/qemu")).expect_err("cannot start");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
