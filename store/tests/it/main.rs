//! The crate's edge: the contract of a store, kept by both implementations, and what only a disk can do.

mod archive;
mod backlog;
mod contract;
mod crash;
mod embedded;
mod fuzz;
mod model;
mod pages;
mod support;
