//! Cluster DNS: the zone `cluster.local` from Services and EndpointSlices, its server, and forwarding of all other names.
//!
//! [`start`] follows Services, EndpointSlices, Namespaces and Pods and keeps an immutable zone, swapped whole.
//! [`Dns::serve`] answers UDP and TCP port 53 of an in-process host from it, [`Dns::serve_machine`] a port of the machine;
//! [`Dns::answer`] answers one message for any other front end. [`Dns::queries`] is the log of what was asked, and [`FAULTS`] lets a pod's queries fail. Names outside the zone go to upstream servers over the operating system's sockets.
//!
//! Not here: which endpoints are ready (`controllers`), how a packet for the `kube-dns` ClusterIP finds this server
//! (`proxy`), and what a pod's `resolv.conf` says (`kubelet`).
//!
//! Follows the Kubernetes DNS specification 1.1.0, RFC 1034/1035 (messages), RFC 2181, RFC 2308 (negative answers),
//! RFC 2782 (SRV), RFC 6891 (EDNS0) and RFC 7766 (TCP); where the specification is silent, CoreDNS.

mod answered;
mod autopath;
mod cache;
mod client;
mod config;
mod fault;
mod forward;
mod front;
#[doc(hidden)]
pub mod fuzz;
mod hosts;
mod lookup;
mod machine;
mod metrics;
mod prebuilt;
mod query;
mod query_log;
mod request;
mod resolver;
mod reverse;
mod search;
mod serve;
mod service;
mod sync;
mod upstream;
mod wire;
mod zone;

pub use answered::{AnswerListener, NameAddress};
pub use config::{Config, PodRecords, SettingError, server, static_host, stub_domain, upstreams};
pub use fault::{FAULTS, FaultError, check_faults};
pub use machine::MachineSockets;
pub use query::{Answer, AnswerRecord, QueryError};
pub use query_log::{LoggedQuery, Queries, Source};
pub use search::LookupStep;
pub use sync::{Dns, Sources, start, start_with};
pub use wire::Transport;
