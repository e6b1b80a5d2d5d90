//! What the tables of the guests without a kernel are made of.

/// A snippet, or a piece of code that a snippet uses.
pub(crate) struct Snippet {
    /// The symbol, without `snip_`.
    pub(crate) name: &'static str,
    /// How often the harness calls it.
    pub(crate) runs: u64,
    /// From a label on, how often each instruction is attempted in one run. Up to the first label: once.
    pub(crate) labels: Vec<(String, u64)>,
}

pub(crate) fn snippet(name: &'static str, runs: u64, labels: &[(&str, u64)]) -> Snippet {
    let labels = labels.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect();
    Snippet { name, runs, labels }
}
