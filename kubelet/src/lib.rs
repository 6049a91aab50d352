//! The kubelet: bound Pods become running workloads.
//!
//! A [`Kubelet`] is one virtual node. It watches the pods bound to it (through the shared informers), gives each a worker that
//! makes the sandbox, runs the containers, probes them and writes the status, and answers exec, attach, logs and port-forward.
//! Which node a pod is bound to is not decided here (that is the scheduler), nor whether its packets may pass (policy).

mod container_runner;
pub mod environment;
mod events;
pub mod files;
mod ipam;
mod kubelet;
mod logs;
mod node;
mod pod_worker;
mod probe;
pub mod program;
pub mod programs;
pub mod resolv_conf;
mod sandbox;
mod status;
mod streams;
mod virtual_runtime;
mod volumes;

pub use kubelet::{Clock, Config, Kubelet, SandboxHooks, StartError};
pub use logs::Source;
pub use streams::{Attached, Exec, LogRange, StreamError};
pub use virtual_runtime::{FUNCTION_IMAGE, Functions};
