//! The kubelet: bound Pods become running workloads.

pub mod files;
pub mod program;
pub mod programs;
