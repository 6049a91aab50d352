//! The machine on the cluster's network: a TUN device with routes to pods, nodes, Services and load balancers, and the cluster's DNS.
//!
//! Needs `CAP_NET_ADMIN`, and `ip` of iproute2. The machine is a client from outside, at an address of its own in
//! [`Addresses`](crate::Addresses): policies see it by that, and Services masquerade it as they do everybody outside. Routes and addresses
//! go with the device.

#[cfg(target_os = "linux")]
mod device;

#[cfg(target_os = "linux")]
pub(crate) use device::Attached;

/// How the machine reaches the cluster's network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostNetwork {
    /// By its loopback addresses only: no privilege needed.
    #[default]
    Loopback,
    /// By a TUN device and routes, as root.
    Tun,
}
