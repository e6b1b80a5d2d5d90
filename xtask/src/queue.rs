//! Which recipe is next: the first one that needs nothing that is still to be made.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::recipes::Recipe;

/// Shared by the workers of one set-up.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    pending: Vec<Recipe>,
    /// Folders that somebody makes now.
    running: HashSet<String>,
    failed: HashSet<String>,
}

impl Queue {
    pub(crate) fn new(pending: Vec<Recipe>) -> Self {
        let state = State { pending, running: HashSet::new(), failed: HashSet::new() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The next recipe, and whether what it needs is there; waits while all that are left need what others make now.
    /// `None` when all are given out. [`Queue::done`] has to follow.
    pub(crate) fn next(&self) -> Option<(Recipe, Result<(), String>)> {
        let mut state = self.lock();
        loop {
            if state.pending.is_empty() {
                return None;
            }
            if let Some(at) = state.pending.iter().position(|recipe| !state.must_wait(recipe)) {
                let recipe = state.pending.remove(at);
                state.running.insert(recipe.folder.clone());
                let failed = recipe.needs().into_iter().find(|folder| state.failed.contains(folder));
                let possible = failed.map_or(Ok(()), |folder| Err(format!("it needs {folder}")));
                return Some((recipe, possible));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Tells the outcome of a recipe.
    pub(crate) fn done(&self, folder: &str, made: bool) {
        let mut state = self.lock();
        state.running.remove(folder);
        if !made {
            state.failed.insert(folder.to_owned());
        }
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn must_wait(&self, recipe: &Recipe) -> bool {
        let unmade =
            |folder: &String| self.running.contains(folder) || self.pending.iter().any(|other| other.folder == *folder);
        recipe.needs().iter().any(unmade)
    }
}

#[cfg(test)]
mod tests {
    use qkprobe_tests::GuestArch;

    use super::Queue;
    use crate::recipes::for_guests;

    #[test]
    fn what_is_needed_is_made_first_and_its_failure_spreads() {
        let queue = Queue::new(for_guests(&[GuestArch::Sparc64]));
        let mut order = Vec::new();
        while let Some((recipe, possible)) = queue.next() {
            order.push((recipe.folder.clone(), possible.is_ok()));
            queue.done(&recipe.folder, possible.is_ok() && recipe.folder != "cross/sparc64");
        }
        let outcome = |folder: &str| order.iter().find(|(name, _)| name == folder).unwrap().1;
        assert!(outcome("cross/sparc64") && outcome("cross/tools") && outcome("qemu/10.0"));
        assert!(!outcome("init/sparc64") && !outcome("guests/sparc64-6.1-sun4u"));
    }

    #[test]
    fn others_go_on_while_a_compiler_is_fetched() {
        let queue = Queue::new(for_guests(&[GuestArch::Sparc64]));
        let mut given: Vec<String> = Vec::new();
        // As many workers as that need nothing: none of them is done yet.
        while given.last().is_none_or(|folder| folder != "qemu/7.2") {
            given.push(queue.next().unwrap().0.folder);
        }
        assert!(given.iter().any(|folder| folder == "cross/sparc64"));
        assert!(!given.iter().any(|folder| folder == "init/sparc64"), "its compiler is not there yet");
        for folder in given {
            queue.done(&folder, true);
        }
        assert_eq!(queue.next().unwrap().0.folder, "init/sparc64");
    }
}
