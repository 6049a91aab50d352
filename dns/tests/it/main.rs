//! The rules of cluster DNS, at its edge: what is answered, over what, and what is forwarded.
//!
//! Files follow the sections of the Kubernetes DNS specification 1.1.0 where it has one.

mod answered;
mod autopath;
mod cluster;
mod faults;
mod forwarding;
mod garbage;
mod lying_upstreams;
mod machine;
mod names;
mod pods;
mod prebuilt;
mod query_log;
mod reverse;
mod spec_2_2_version;
mod spec_2_3_cluster_ip;
mod spec_2_4_headless;
mod spec_2_5_external_name;
mod sync;
mod transport;
