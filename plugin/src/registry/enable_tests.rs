//! Enabled and disabled probes, and what translation notes of the text under them.

use std::sync::atomic::{AtomicBool, Ordering};

use qkprobe_arch::{GuestAddr, InsnSlot};

use super::fake::{FakeGuest, place, tally};
use super::{New, ProbeId, Text};

fn disabled(guest: &FakeGuest, n: usize) -> (ProbeId, super::fake::Payload) {
    let payload = tally();
    let new = New { place: place(n), payload: payload.clone(), enabled: false };
    let ids =
        guest.registry.register_all([new], |_, _| Ok::<_, std::convert::Infallible>(None)).expect("nothing refuses");
    (ids[0], payload)
}

fn armed(guest: &FakeGuest) -> (usize, bool) {
    (guest.registry.counts().armed, guest.cache.hook.load(Ordering::SeqCst))
}

#[test]
fn a_disabled_probe_does_not_arm_until_it_is_enabled() {
    let guest = FakeGuest::new(1);
    let reader = guest.registry.reader();
    let (id, payload) = disabled(&guest, 0);
    assert_eq!(armed(&guest), (0, false));
    assert_eq!(guest.execute(&reader, 0), 0);
    for round in 1..=3 {
        guest.registry.set_enabled(id, true).expect("registered");
        // Idempotent.
        guest.registry.set_enabled(id, true).expect("registered");
        assert_eq!(armed(&guest), (1, true));
        assert_eq!(guest.execute(&reader, 0), 1);
        guest.registry.set_enabled(id, false).expect("registered");
        guest.registry.set_enabled(id, false).expect("registered");
        assert_eq!(armed(&guest), (0, false));
        assert_eq!(guest.execute(&reader, 0), 0);
        assert_eq!(payload.count(), round);
    }
    guest.remove(id, &payload);
    assert_eq!(armed(&guest), (0, false));
}

#[test]
fn the_last_enabled_member_disarms() {
    let guest = FakeGuest::new(2);
    let reader = guest.registry.reader();
    let (first, _) = guest.probe(0);
    let (second, payload) = guest.probe(0);
    let (silent, silent_payload) = disabled(&guest, 0);
    assert_eq!(guest.execute(&reader, 0), 2);
    guest.registry.set_enabled(first, false).expect("registered");
    assert_eq!(armed(&guest), (1, true));
    // The only enabled one goes: the others stay registered and silent.
    guest.remove(second, &payload);
    assert_eq!(armed(&guest), (0, false));
    assert_eq!((guest.execute(&reader, 0), guest.registry.counts().probes), (0, 2));
    // A joining enabled probe arms again, for itself alone.
    let (third, third_payload) = guest.probe(0);
    assert_eq!(armed(&guest), (1, true));
    assert_eq!(guest.execute(&reader, 0), 1);
    guest.remove(third, &third_payload);
    guest.remove(silent, &silent_payload);
    guest.registry.set_enabled(first, true).expect("registered");
    assert_eq!(guest.execute(&reader, 0), 1);
}

#[test]
fn a_batch_may_hold_disabled_members() {
    let guest = FakeGuest::new(3);
    let reader = guest.registry.reader();
    let members = [(0, true), (0, false), (1, false), (2, true), (2, true)];
    let probes = members.map(|(n, enabled)| New { place: place(n), payload: tally(), enabled });
    let ids = guest.registry.register_all(probes, |_, _| Ok::<_, ()>(None)).expect("nothing refuses");
    assert_eq!(armed(&guest), (2, true));
    assert_eq!([0, 1, 2].map(|n| guest.execute(&reader, n)), [1, 0, 2]);
    guest.registry.set_enabled(ids[2], true).expect("registered");
    assert_eq!([0, 1, 2].map(|n| guest.execute(&reader, n)), [1, 1, 2]);
    assert_eq!(guest.registry.unregister_all(&ids).expect("no handler asks").len(), 5);
    assert_eq!(armed(&guest), (0, false));
}

/// A site whose probes are all disabled waits for them, not for a flush.
#[test]
fn a_disabled_probe_outlives_a_flush() {
    let guest = FakeGuest::new(1);
    let reader = guest.registry.reader();
    let (id, payload) = guest.probe(0);
    guest.registry.set_enabled(id, false).expect("registered");
    guest.flush();
    assert!(guest.registry.site_of(id).is_some(), "it is still registered");
    guest.registry.set_enabled(id, true).expect("registered");
    assert_eq!((guest.execute(&reader, 0), payload.count()), (1, 1));
}

#[test]
fn a_probe_that_joins_disabled_ones_after_a_flush_does_not_hide_them() {
    let guest = FakeGuest::new(1);
    let reader = guest.registry.reader();
    let (id, _) = disabled(&guest, 0);
    guest.flush();
    guest.probe(0);
    guest.registry.set_enabled(id, true).expect("registered");
    assert_eq!(guest.execute(&reader, 0), 2);
}

#[test]
fn a_site_notes_what_was_seen_of_its_text() {
    let guest = FakeGuest::new(1);
    let (id, _) = guest.probe(0);
    let site = guest.registry.site_of(id).expect("registered");
    assert_eq!(site.see_text(Text::Present), Text::Unseen);
    assert_eq!(site.see_text(Text::Present), Text::Present);
    assert!(!site.is_gone());
    assert_eq!(site.see_text(Text::Gone), Text::Present);
    assert!(site.is_gone());
    assert_eq!(site.see_text(Text::Present), Text::Gone);
    assert!(!site.is_gone());
}

#[test]
fn a_slot_is_renewed_under_its_readers() {
    const RENEWALS: u64 = 100_000;
    let arch = qkprobe_arch::by_name("x86_64").expect("x86_64 is always there");
    let guest = FakeGuest::new(1);
    let (id, _) = guest.probe(0);
    let site = guest.registry.site_of(id).expect("registered");
    assert!(site.slot(&guest.registry.reader().pin()).is_none());
    // mov $N,%eax, where all four bytes of N are the same.
    let slot = |n: u64| {
        let byte = n as u8;
        InsnSlot::prepare(arch, GuestAddr(0x1000), &[0xb8, byte, byte, byte, byte]).expect("an instruction")
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let reader = guest.registry.reader();
                while !stop.load(Ordering::Relaxed) {
                    let guard = reader.pin();
                    let Some(slot) = site.slot(&guard) else { continue };
                    let bytes = slot.bytes();
                    assert_eq!((bytes.len(), bytes[0]), (5, 0xb8));
                    assert!(bytes[1..].iter().all(|byte| *byte == bytes[1]), "torn: {bytes:02x?}");
                }
            });
        }
        let writers = [0, 1].map(|odd| {
            let (guest, site) = (&guest, &site);
            scope.spawn(move || {
                let reader = guest.registry.reader();
                for n in 0..RENEWALS / 2 {
                    site.renew_slot(slot(2 * n + odd), &reader.pin());
                }
            })
        });
        let writers = writers.map(|writer| writer.join());
        stop.store(true, Ordering::Relaxed);
        assert!(writers.iter().all(Result::is_ok));
    });
}
