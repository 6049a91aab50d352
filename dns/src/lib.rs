//! `cluster.local`: records from Services and EndpointSlices, the server, forwarding.

use informer::Informers;
use netstack::Host;
use std::net::{IpAddr, SocketAddr};

/// Settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Such as `cluster.local`.
    pub zone: String,
    /// Seed of rotation and ids.
    pub seed: u64,
    /// Static names.
    pub hosts: Vec<(String, IpAddr)>,
    /// Where names outside the zone are asked.
    pub upstreams: Vec<SocketAddr>,
}

impl Config {
    /// Defaults for a zone.
    pub fn new(zone: &str) -> Config {
        Config { zone: zone.to_owned(), seed: 0, hosts: Vec::new(), upstreams: Vec::new() }
    }
}

/// The `nameserver` lines of a resolv.conf.
pub fn upstreams(_resolv_conf: &str) -> Vec<SocketAddr> {
    Vec::new()
}

/// The running server's data.
#[derive(Debug)]
pub struct Dns {}

/// Starts to follow the cluster.
pub fn start(_informers: &Informers, _config: Config) -> Dns {
    Dns {}
}

impl Dns {
    /// Serves port 53 of a host.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn serve(&self, _host: Host) -> std::io::Result<()> {
        std::future::pending().await
    }
}
