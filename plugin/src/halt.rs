//! vCPUs that a `stop` probe holds, until somebody says go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use qkprobe_arch::GuestAddr;

/// A vCPU that is held, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldVcpu {
    pub(crate) vcpu: u32,
    pub(crate) output: u32,
    pub(crate) addr: GuestAddr,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    held: Mutex<Vec<HeldVcpu>>,
    changed: Condvar,
    /// QEMU ends: nobody waits here any more.
    over: AtomicBool,
    /// The process ends without asking its vCPUs: they may wait until it is gone.
    quits: AtomicBool,
}

impl Holds {
    /// On the vCPU's thread, when the hit is over: waits to be released.
    pub(crate) fn hold(&self, vcpu: HeldVcpu) {
        let mut held = self.held.lock();
        held.push(vcpu);
        while held.contains(&vcpu) && !self.over.load(Ordering::Relaxed) {
            // A while at a time: a release that is missed for whatever reason must not last.
            self.changed.wait_for(&mut held, Duration::from_millis(200));
        }
        held.retain(|other| *other != vcpu);
    }

    /// Holds a vCPU that comes round again and again instead of waiting here: QEMU can stop it, or end.
    pub(crate) fn begin(&self, vcpu: HeldVcpu) {
        if !self.over.load(Ordering::Relaxed) {
            self.held.lock().push(vcpu);
        }
    }

    /// Whether the vCPU is held.
    pub(crate) fn is_held(&self, vcpu: u32) -> bool {
        self.held.lock().iter().any(|held| held.vcpu == vcpu)
    }

    /// Releases one vCPU or all; returns how many.
    pub(crate) fn go_on(&self, vcpu: Option<u32>) -> usize {
        let mut held = self.held.lock();
        let before = held.len();
        held.retain(|other| vcpu.is_some_and(|vcpu| vcpu != other.vcpu));
        self.changed.notify_all();
        before - held.len()
    }

    pub(crate) fn list(&self) -> Vec<HeldVcpu> {
        self.held.lock().clone()
    }

    /// QEMU ends, and waits for its vCPUs: those that wait in `hold` go on. Those that come round stay where they are,
    /// QEMU can stop them there.
    pub(crate) fn end(&self) {
        if self.quits.load(Ordering::Relaxed) {
            return;
        }
        let _held = self.held.lock();
        self.over.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// The process is about to exit: what is held stays so, and the guest does not run on.
    pub(crate) fn quit(&self) {
        self.quits.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vcpu_is_held_until_it_is_released() {
        let holds = Holds::default();
        let at = |vcpu| HeldVcpu { vcpu, output: 7, addr: GuestAddr(0x1000) };
        std::thread::scope(|scope| {
            let one = scope.spawn(|| holds.hold(at(0)));
            let other = scope.spawn(|| holds.hold(at(1)));
            while holds.list().len() < 2 {
                std::thread::yield_now();
            }
            assert_eq!(holds.go_on(Some(1)), 1);
            other.join().expect("released");
            assert_eq!(holds.list(), [at(0)]);
            assert_eq!(holds.go_on(Some(5)), 0);
            assert!(!one.is_finished());
            holds.end();
            one.join().expect("released");
        });
        // After the end nobody waits.
        holds.hold(at(2));
        assert_eq!(holds.list(), []);
    }

    #[test]
    fn one_that_comes_round_stays_held() {
        let holds = Holds::default();
        holds.begin(HeldVcpu { vcpu: 0, output: 7, addr: GuestAddr(0x1000) });
        holds.end();
        assert!(holds.is_held(0));
    }

    #[test]
    fn who_waits_when_the_process_exits_waits_on() {
        let holds = std::sync::Arc::new(Holds::default());
        let waiting = std::thread::spawn({
            let holds = std::sync::Arc::clone(&holds);
            move || holds.hold(HeldVcpu { vcpu: 0, output: 7, addr: GuestAddr(0x1000) })
        });
        while holds.list().is_empty() {
            std::thread::yield_now();
        }
        holds.quit();
        holds.end();
        std::thread::sleep(Duration::from_millis(300));
        assert!(!waiting.is_finished());
        holds.go_on(None);
        waiting.join().expect("released");
    }
}
