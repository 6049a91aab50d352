//! `--dns-…`: the cluster's DNS on this machine, and where it asks for other names.

use super::Hint;
use anyhow::Error;
use clap::Args;
use coracle::{Builder, DnsPortError};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

#[derive(Clone, Debug, Args)]
pub(crate) struct DnsFlags {
    /// Answer DNS, UDP and TCP, on this port of 127.0.0.1; 0 takes a free one [default: only pods are answered]
    #[arg(long, value_name = "PORT")]
    dns_port: Option<u16>,
    /// Ask this server (IP or IP:PORT) for names outside the cluster, or `none`; may be repeated [default: this machine's
    /// resolvers, none with --no-outside]
    #[arg(long, value_name = "ADDR|none", value_parser = upstream)]
    dns_upstream: Vec<Upstream>,
    /// Ask these servers for names in this domain; may be repeated, the longest domain wins
    #[arg(long, value_name = "DOMAIN=ADDR[,ADDR]", value_parser = dns::stub_domain)]
    dns_stub: Vec<(String, Vec<SocketAddr>)>,
    /// Give a name a fixed address; may be repeated
    #[arg(long, value_name = "NAME=IP", value_parser = dns::static_host)]
    dns_host: Vec<(String, IpAddr)>,
    /// Walk the search list of a pod that asks, and answer its first question with what is found, as CoreDNS' autopath does
    #[arg(long)]
    dns_autopath: bool,
    /// Keep the newest 4096 queries for `coracle dns-log`, which without this can only follow what is asked from then on
    #[arg(long)]
    dns_log: bool,
}

/// `None`: the word `none`.
#[derive(Clone, Copy, Debug)]
struct Upstream(Option<SocketAddr>);

fn upstream(text: &str) -> Result<Upstream, dns::SettingError> {
    if text == "none" { Ok(Upstream(None)) } else { dns::server(text).map(|server| Upstream(Some(server))) }
}

impl DnsFlags {
    pub(crate) fn apply(&self, mut builder: Builder) -> Builder {
        if let Some(port) = self.dns_port {
            builder = builder.dns_port(port);
        }
        if !self.dns_upstream.is_empty() {
            builder = builder.dns_upstreams(self.dns_upstream.iter().filter_map(|upstream| upstream.0));
        }
        for (domain, servers) in &self.dns_stub {
            builder = builder.dns_stub_domain(domain, servers.iter().copied());
        }
        for (name, address) in &self.dns_host {
            builder = builder.dns_host(name, *address);
        }
        builder.dns_autopath(self.dns_autopath).dns_log(self.dns_log)
    }
}

/// The way out when the port cannot be had.
pub(crate) fn hint(error: Error) -> Error {
    let Some(refused) = error.downcast_ref::<DnsPortError>() else { return error };
    let way = match refused.source.kind() {
        ErrorKind::PermissionDenied => "ports below 1024 need rights; choose a higher one with `--dns-port`",
        _ => "another server may be running; choose another port with `--dns-port`, 0 takes a free one",
    };
    let text = format!("{error:#}");
    Error::new(Hint(way.to_owned())).context(text)
}
