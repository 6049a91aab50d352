//! A network in one process: packets, ports, the switch, conntrack with NAT, hosts on smoltcp, and the gateway to the
//! operating system's sockets.
//!
//! [`Network`] is the switch with everything attached to it. [`Host`] is one in-process machine with real TCP/IP:
//! [`TcpListener`], [`TcpStream`], [`UdpSocket`] and ping, as tokio users know them. What a flow may do and where it
//! really goes is decided by [`Translate`] and [`Filter`], which others implement: nothing here knows who they are.

mod flow;
mod network;

pub use flow::*;
pub use network::*;
