//! What a user may say about the cluster's DNS: a port on the machine, upstream servers, stub domains, static names,
//! autopath, the query log.

use crate::builder::Builder;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Settings of the cluster's DNS.
#[derive(Clone, Debug, Default)]
pub(crate) struct DnsOptions {
    port: Option<u16>,
    upstreams: Option<Vec<SocketAddr>>,
    stub_domains: Vec<(String, Vec<SocketAddr>)>,
    hosts: Vec<(String, IpAddr)>,
    autopath: bool,
    log: bool,
}

/// The port that the cluster's DNS was to have on the machine cannot be had.
#[derive(Debug)]
pub struct DnsPortError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub source: std::io::Error,
}

impl std::fmt::Display for DnsPortError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot listen on {} for DNS", self.address)
    }
}

impl std::error::Error for DnsPortError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Builder {
    /// Answers DNS, UDP and TCP, on this port of the machine's 127.0.0.1; port 0 takes a free one. Without it the cluster's DNS is
    /// heard by pods only.
    pub fn dns_port(mut self, port: u16) -> Self {
        self.dns.port = Some(port);
        self
    }

    /// Asks these servers for names outside the cluster, in this order; with none, such names do not exist. The default is the
    /// machine's own resolvers if [`Builder::forward_outside`], and none otherwise.
    pub fn dns_upstreams(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.dns.upstreams = Some(servers.into_iter().collect());
        self
    }

    /// Asks these servers for names in `domain`. The longest suffix of a name wins over shorter ones and over the upstreams.
    pub fn dns_stub_domain(mut self, domain: &str, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.dns.stub_domains.push((domain.to_owned(), servers.into_iter().collect()));
        self
    }

    /// Gives a name a fixed address, which wins over everything else. A name may have several.
    pub fn dns_host(mut self, name: &str, address: IpAddr) -> Self {
        self.dns.hosts.push((name.to_owned(), address));
        self
    }

    /// Has the cluster's DNS walk a pod's search list itself and answer its first question with what it finds, as CoreDNS' autopath
    /// does.
    pub fn dns_autopath(mut self, autopath: bool) -> Self {
        self.dns.autopath = autopath;
        self
    }

    /// Keeps the newest queries of pods, to be read with `coracle dns-log`; without it the log is on only while somebody follows it.
    pub fn dns_log(mut self, keep: bool) -> Self {
        self.dns.log = keep;
        self
    }
}

impl DnsOptions {
    /// The sockets on the machine, if it is to have some.
    pub(crate) async fn sockets(&self) -> Result<Option<dns::MachineSockets>, DnsPortError> {
        let Some(port) = self.port else { return Ok(None) };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let bound = dns::MachineSockets::bind(address).await;
        bound.map(Some).map_err(|source| DnsPortError { address, source })
    }

    /// Puts what was said into the server's configuration; `usual` are the upstreams if nothing was.
    pub(crate) fn apply(self, config: &mut dns::Config, usual: Vec<SocketAddr>) {
        config.upstreams = self.upstreams.unwrap_or(usual);
        config.stub_domains = self.stub_domains;
        config.hosts.extend(self.hosts);
        config.autopath = self.autopath;
        config.keep_queries = self.log;
    }
}
