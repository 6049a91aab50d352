//! Settings, and the upstream servers that a resolv.conf names.

use crate::answered::AnswerListener;
use hickory_proto::rr::Name;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
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
    pub own_addresses: Vec<SocketAddr>,
    /// How long one try at one upstream may take.
    pub upstream_timeout: Duration,
    /// How many tries a forwarded question has, over all upstreams.
    pub upstream_tries: usize,
    /// How long answers of upstreams are kept at most; zero keeps none.
    pub cache: Duration,
    /// Whether the server walks a pod's search list itself, and answers the first question with what it finds.
    pub autopath: bool,
    /// Whether the newest queries are kept in the query log, though nobody reads it yet.
    pub keep_queries: bool,
    /// Is told which addresses names are answered with on the cluster's network.
    pub listener: Option<Arc<dyn AnswerListener>>,
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
            autopath: false,
            keep_queries: false,
            listener: None,
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

/// Why a setting cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No address of a server.
    #[error("{0:?} is not the address of a server: write an IP address, or IP:PORT ([IPv6]:PORT)")]
    Server(String),
    /// No domain name.
    #[error("{0:?} is not a domain name")]
    Domain(String),
    /// No `DOMAIN=SERVER,…`.
    #[error("{0:?} is not DOMAIN=SERVER[,SERVER…]")]
    StubDomain(String),
    /// No `NAME=IP`.
    #[error("{0:?} is not NAME=IP")]
    Host(String),
}

/// Reads a server's address: `192.0.2.1`, `192.0.2.1:5353`, `fd00::53` or `[fd00::53]:5353`.
///
/// # Errors
/// It is none.
pub fn server(text: &str) -> Result<SocketAddr, SettingError> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let read = bare.parse().map(|ip: IpAddr| SocketAddr::new(ip, PORT)).or_else(|_| text.parse());
    let wrong = || SettingError::Server(text.to_owned());
    read.ok().filter(|server| server.port() != 0 && !server.ip().is_unspecified()).ok_or_else(wrong)
}

/// Reads a stub domain: `corp.example=192.0.2.1,192.0.2.2:5353`.
///
/// # Errors
/// The form, the domain or a server is wrong.
pub fn stub_domain(text: &str) -> Result<(String, Vec<SocketAddr>), SettingError> {
    let (name, servers) = text.split_once('=').ok_or_else(|| SettingError::StubDomain(text.to_owned()))?;
    Ok((domain(name)?, servers.split(',').map(|text| server(text.trim())).collect::<Result<_, _>>()?))
}

/// Reads a static name: `db.example.com=192.0.2.7`.
///
/// # Errors
/// The form, the name or the address is wrong.
pub fn static_host(text: &str) -> Result<(String, IpAddr), SettingError> {
    let wrong = || SettingError::Host(text.to_owned());
    let (name, address) = text.split_once('=').ok_or_else(wrong)?;
    Ok((domain(name)?, address.trim().parse().map_err(|_| wrong())?))
}

fn domain(text: &str) -> Result<String, SettingError> {
    let text = text.trim();
    let good = |name: &Name| !text.is_empty() && (text == "." || !name.is_root()) && text.bytes().all(plain);
    let read = Name::from_ascii(text).ok().filter(good);
    read.map(|_| text.to_owned()).ok_or_else(|| SettingError::Domain(text.to_owned()))
}

/// What stands in names that people write; escapes and wildcards do not.
fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
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

    #[test]
    fn a_setting_is_read_or_the_error_says_what_is_allowed() {
        for (text, address) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:5353", "192.0.2.1:5353"),
            ("fd00::53", "[fd00::53]:53"),
            ("[fd00::53]", "[fd00::53]:53"),
            ("[fd00::53]:5353", "[fd00::53]:5353"),
        ] {
            assert_eq!(server(text).map(|server| server.to_string()).as_deref(), Ok(address));
        }
        for text in ["", "dns.example", "192.0.2.1:0", "192.0.2.1:65536", "0.0.0.0", "192.0.2.256", "tcp://192.0.2.1"] {
            assert_eq!(server(text), Err(SettingError::Server(text.to_owned())));
        }
        let (domain, servers) = stub_domain("corp.example=192.0.2.1, 192.0.2.2:5353").unwrap();
        assert_eq!((domain.as_str(), servers.len()), ("corp.example", 2));
        assert_eq!(stub_domain("corp.example"), Err(SettingError::StubDomain("corp.example".to_owned())));
        assert_eq!(stub_domain("corp.example="), Err(SettingError::Server(String::new())));
        assert_eq!(stub_domain("a..b=192.0.2.1"), Err(SettingError::Domain("a..b".to_owned())));
        assert_eq!(stub_domain("=192.0.2.1"), Err(SettingError::Domain(String::new())));
        assert_eq!(static_host("db.example=192.0.2.7").unwrap().1.to_string(), "192.0.2.7");
        assert_eq!(
            static_host("db.example=192.0.2.7:53"),
            Err(SettingError::Host("db.example=192.0.2.7:53".to_owned()))
        );
        assert_eq!(static_host("*.example=192.0.2.7"), Err(SettingError::Domain("*.example".to_owned())));
    }
}
