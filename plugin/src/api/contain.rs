//! A user's handler at work: a panic in it is told once, with the probe's name, and silences that probe alone.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::handlers::{DATA_BYTES, EntryFn, Hit, PostFn, Pre, PreFn, ReturnFn};
use crate::engine::kprobe::Access;
use crate::message::say;

/// What the handlers of one probe share.
#[derive(Debug)]
pub(super) struct Contained {
    name: String,
    /// What the handlers may do. The callback may be planted with more: to read memory that is barred from the kernel.
    access: Access,
    silent: AtomicBool,
}

/// A handler and its probe. Fields are dropped in this order: whoever sees the last `Contained` go knows that the handler
/// has gone before it.
struct Guarded<F: ?Sized> {
    handler: Box<F>,
    contained: Arc<Contained>,
}

impl<F: ?Sized> Guarded<F> {
    /// What the handler answers; nothing if it panicked, now or before.
    #[inline]
    fn run<'h, A>(&self, hit: &mut Hit<'h>, call: impl FnOnce(&F, &mut Hit<'h>) -> A) -> Option<A> {
        hit.limit(self.contained.access);
        if self.contained.silent.load(Ordering::Relaxed) {
            return None;
        }
        match catch_unwind(AssertUnwindSafe(|| call(&self.handler, hit))) {
            Ok(answer) => Some(answer),
            Err(panic) => {
                self.contained.tell(&*panic);
                None
            }
        }
    }
}

impl Contained {
    pub(super) fn new(name: String, access: Access) -> Arc<Self> {
        Arc::new(Self { name, access, silent: AtomicBool::new(false) })
    }

    #[cold]
    fn tell(&self, panic: &(dyn Any + Send)) {
        if !self.silent.swap(true, Ordering::Relaxed) {
            say!(
                "qkprobe: a handler of {}/{} panicked: {}\n\
                 qkprobe: the handlers of this probe are not called any more; the guest and all other probes go on.",
                super::prepare::GROUP,
                self.name,
                text_of(panic)
            );
        }
    }
}

/// What a panic says.
pub(super) fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

pub(super) fn pre(contained: &Arc<Contained>, handler: Box<PreFn>) -> Box<PreFn> {
    let guarded = Guarded { handler, contained: Arc::clone(contained) };
    Box::new(move |hit: &mut Hit<'_>| guarded.run(hit, |handler, hit| handler(hit)).unwrap_or(Pre::GoOn))
}

pub(super) fn post(contained: &Arc<Contained>, handler: Box<PostFn>) -> Box<PostFn> {
    let guarded = Guarded { handler, contained: Arc::clone(contained) };
    Box::new(move |hit: &mut Hit<'_>| guarded.run(hit, |handler, hit| handler(hit)).unwrap_or_default())
}

pub(super) fn entry(contained: &Arc<Contained>, handler: Box<EntryFn>) -> Box<EntryFn> {
    let guarded = Guarded { handler, contained: Arc::clone(contained) };
    Box::new(move |hit: &mut Hit<'_>, data: &mut [u8; DATA_BYTES]| {
        guarded.run(hit, |handler, hit| handler(hit, data)).unwrap_or(false)
    })
}

pub(super) fn returned(contained: &Arc<Contained>, handler: Box<ReturnFn>) -> Box<ReturnFn> {
    let guarded = Guarded { handler, contained: Arc::clone(contained) };
    Box::new(move |hit: &mut Hit<'_>, data: &[u8; DATA_BYTES]| {
        guarded.run(hit, |handler, hit| handler(hit, data)).unwrap_or_default()
    })
}
