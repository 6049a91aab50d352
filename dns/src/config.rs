//! Settings, and the upstream servers that a resolv.conf names.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The port of DNS.
pub(crate) const PORT: u16 = 53;
/// How many `nameserver` lines a resolver reads (`MAXNS` of resolv.conf(5)).
const MAX_NAMESERVERS: usize = 3;

/// Settings of the server.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's domain, such as `cluster.local`.
    pub zone: String,
    /// Seed of every choice made here: the order of addresses, ids of forwarded queries.
    pub seed: u64,
    /// Static names and their addresses; they win over the zone.
    pub hosts: Vec<(String, IpAddr)>,
    /// Where names outside the zone are asked, in this order. Empty: such names do not exist.
    pub upstreams: Vec<SocketAddr>,
    /// Servers of single domains; the longest suffix of a name wins over shorter ones and over `upstreams`.
    pub stub_domains: Vec<(String, Vec<SocketAddr>)>,
    /// Time to live of the zone's records, and of "there is none".
    pub ttl: Duration,
    /// Which names below `pod.<zone>` exist.
    pub pods: PodRecords,
    /// Namespace and name of the Service in front of this server: the zone's NS record.
    pub service: (String, String),
    /// Addresses of this server beside those it serves: an upstream among them would ask itself.
    pub own_addresses: Vec<IpAddr>,
    /// How long one try at one upstream may take.
    pub upstream_timeout: Duration,
    /// How many tries a forwarded question has, over all upstreams.
    pub upstream_tries: usize,
    /// How long answers of upstreams are kept at most; zero keeps none.
    pub cache: Duration,
}

/// Which names `<dashed ip>.<namespace>.pod.<zone>` exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodRecords {
    /// None.
    Disabled,
    /// Every one whose address can be read and whose namespace exists.
    Insecure,
    /// Those of pods with that address in that namespace.
    Verified,
}

impl Config {
    /// Defaults for a zone: records live 5 s, pod records are verified, nothing is forwarded.
    pub fn new(zone: &str) -> Config {
        Config {
            zone: zone.to_owned(),
            seed: 0,
            hosts: Vec::new(),
            upstreams: Vec::new(),
            stub_domains: Vec::new(),
            ttl: Duration::from_secs(5),
            pods: PodRecords::Verified,
            service: ("kube-system".to_owned(), "kube-dns".to_owned()),
            own_addresses: Vec::new(),
            upstream_timeout: Duration::from_secs(2),
            upstream_tries: 3,
            cache: Duration::from_secs(30),
        }
    }

    /// The time to live in seconds.
    pub(crate) fn ttl_seconds(&self) -> u32 {
        u32::try_from(self.ttl.as_secs()).unwrap_or(u32::MAX)
    }
}

/// The servers on the `nameserver` lines of a resolv.conf(5): the first three, as a resolver reads them.
pub fn upstreams(resolv_conf: &str) -> Vec<SocketAddr> {
    let addresses = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        // A scope (`fe80::1%eth0`) names an interface, which a socket address here cannot.
        words.next()?.split('%').next()?.parse::<IpAddr>().ok()
    });
    addresses.map(|ip| SocketAddr::new(ip, PORT)).take(MAX_NAMESERVERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolv_conf_names_at_most_three_servers() {
        let text = "# nameserver 9.9.9.9\nsearch lan\nnameserver 192.0.2.1\nnameserver\tfd00::53 \nnameserver bad\n\
                    nameserver 192.0.2.2 # second\nnameserver 192.0.2.3\noptions ndots:1\n";
        let servers: Vec<String> = upstreams(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[fd00::53]:53", "192.0.2.2:53"]);
        assert!(upstreams("").is_empty());
    }
}
