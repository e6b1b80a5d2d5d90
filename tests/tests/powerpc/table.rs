//! The table of `bare/powerpc.rs`, which counts what the snippets of the guest without a kernel execute.

#[path = "../bare/powerpc.rs"]
pub(crate) mod powerpc;
#[path = "../bare/snippet.rs"]
pub(crate) mod snippet;
