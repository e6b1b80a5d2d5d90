//! The table that translation reads: page to sites. Readers load one immutable version; a writer makes the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_epoch::{Atomic, Guard, Owned};

use super::{Place, Site};

type Page<P> = Arc<[Arc<Site<P>>]>;

#[derive(Debug)]
struct Version<P> {
    pages: HashMap<Place, Page<P>>,
}

#[derive(Debug)]
pub(super) struct Table<P> {
    current: Atomic<Version<P>>,
}

impl<P: Send + Sync + 'static> Table<P> {
    pub(super) fn new() -> Self {
        Self { current: Atomic::new(Version { pages: HashMap::new() }) }
    }

    fn load<'g>(&self, guard: &'g Guard) -> &'g Version<P> {
        // Acquire, paired with the Release of `replace`.
        let shared = self.current.load(Ordering::Acquire, guard);
        // SAFETY: never null, and retired only through `defer_destroy`.
        unsafe { shared.deref() }
    }

    fn replace(&self, version: Version<P>, guard: &Guard) {
        let old = self.current.swap(Owned::new(version), Ordering::AcqRel, guard);
        // SAFETY: unreachable for later guards; writers are serialised by the registry's mutex, so it is retired once.
        unsafe { guard.defer_destroy(old) };
    }

    /// The sites on the page of `place`, by address.
    pub(super) fn page<'g>(&self, place: Place, guard: &'g Guard) -> &'g [Arc<Site<P>>] {
        self.load(guard).pages.get(&place.page()).map_or(&[], |page| page)
    }

    /// Adds sites, in bulk: every page that changes is made once.
    pub(super) fn insert(&self, sites: Vec<Arc<Site<P>>>, guard: &Guard) {
        let mut by_page: HashMap<Place, Vec<Arc<Site<P>>>> = HashMap::new();
        for site in sites {
            by_page.entry(site.place().page()).or_default().push(site);
        }
        let mut pages = self.load(guard).pages.clone();
        for (page, mut joining) in by_page {
            if let Some(present) = pages.get(&page) {
                joining.extend(present.iter().cloned());
            }
            joining.sort_by_key(|site| site.place());
            pages.insert(page, joining.into());
        }
        self.replace(Version { pages }, guard);
    }

    /// Takes sites out.
    pub(super) fn remove(&self, sites: &[Arc<Site<P>>], guard: &Guard) {
        let mut pages = self.load(guard).pages.clone();
        for site in sites {
            let page = site.place().page();
            let Some(present) = pages.get(&page) else { continue };
            let rest: Page<P> = present.iter().filter(|other| !Arc::ptr_eq(other, site)).cloned().collect();
            if rest.is_empty() {
                pages.remove(&page);
            } else {
                pages.insert(page, rest);
            }
        }
        self.replace(Version { pages }, guard);
    }

    pub(super) fn clear(&self, guard: &Guard) {
        self.replace(Version { pages: HashMap::new() }, guard);
    }
}

impl<P> Drop for Table<P> {
    fn drop(&mut self) {
        // SAFETY: `&mut self`: no reader is left, and it is never null.
        drop(unsafe { std::mem::take(&mut self.current).into_owned() });
    }
}
