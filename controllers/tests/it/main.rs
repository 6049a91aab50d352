//! The controllers together, against an API that only stores and tells.

mod api;
mod cluster;
mod garbage;
mod spec_7_load_balancers;
mod workloads;
