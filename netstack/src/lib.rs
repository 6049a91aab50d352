//! A network in one process: packets, ports, the switch, conntrack with NAT, hosts on smoltcp, and the gateway to the
//! operating system's sockets.
//!
//! [`Network`] is the switch with everything attached to it. [`Host`] is one in-process machine with real TCP/IP:
//! [`TcpListener`], [`TcpStream`], [`UdpSocket`] and ping, as tokio users know them. What a flow may do and where it
//! really goes is decided by [`Translate`] and [`Filter`], which others implement: nothing here knows who they are.

mod answer;
mod arena;
mod checksum;
mod core;
mod default_route;
mod flow;
mod flow_key;
mod flow_log;
mod flow_table;
mod gateway;
mod host;
mod icmp_error;
mod life;
mod link;
mod network;
mod packet;
mod ping;
mod port;
mod publish;
mod raw;
mod rewrite;
mod sctp;
mod sockets;
mod stream;
mod switch;
mod tap;
mod tcp;
mod tcp_timers;
mod time_wait;
mod timeouts;
mod timers;
#[cfg(target_os = "linux")]
mod tun;
mod udp;
mod vnet;

pub use flow::*;
pub use flow_log::{FlowChange, FlowEnd, FlowEvent, FlowEvents};
pub use gateway::{Gateway, GatewayConfig};
pub use host::Host;
pub use network::*;
pub use raw::{RawPort, RawSender};
pub use stream::{TcpListener, TcpStream};
pub use tap::Tap;
pub use timeouts::Timeouts;
#[cfg(target_os = "linux")]
pub use tun::TunDevice;
pub use udp::UdpSocket;
