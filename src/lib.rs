//! Coracle: a Kubernetes cluster in one process.
//!
//! [`Cluster::builder`] starts one inside a program or a test: a real API, controllers, scheduler, Services, DNS and
//! NetworkPolicy, with real TCP/IP between its pods. The binary `coracle` is a command line around the same.

mod addresses;
mod answered;
mod bootstrap;
mod builder;
mod cluster;
mod cni_profile;
mod dns_faults;
mod dns_options;
mod fixture;
mod host_network;
mod host_ports;
mod identities;
mod in_process;
mod introspection;
mod nodes;
mod pki;
mod residents;
mod signer;
mod snapshot;

pub use addresses::{Addresses, Ipv6Addresses};
pub use builder::Builder;
pub use cluster::{Cluster, KUBERNETES_VERSION, ZONE};
pub use cni_profile::CniProfile;
pub use dns_options::DnsPortError;
pub use fixture::{FunctionPod, Output};
pub use host_network::HostNetwork;
pub use kubelet::program::{Container, ExitStatus, Program};
pub use policy::{Denial, Established};
pub use snapshot::PATH as SNAPSHOT_PATH;
