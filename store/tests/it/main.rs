//! The crate's edge: the contract of a store, kept by both implementations, and what only a disk can do.

mod contract;
mod crash;
mod embedded;
mod model;
mod support;
