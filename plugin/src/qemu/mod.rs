//! The only FFI of the project: everything QEMU-shaped stays in this folder.

pub(crate) mod api;
pub(crate) mod block;
pub(crate) mod cache;
pub(crate) mod delay_slots;
pub(crate) mod entry;
pub(crate) mod guest;
pub(crate) mod host_memory;
pub(crate) mod inline_count;
pub(crate) mod memory;
pub(crate) mod shapes;
pub(crate) mod stack;
pub(crate) mod vcpus;
pub(crate) mod version;
pub(crate) mod waker;
