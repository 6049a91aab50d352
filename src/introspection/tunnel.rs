//! `tunnels`: a TCP connection into the cluster, for a program on this machine: what `coracle proxy` stands on.
//!
//! `POST …/tunnels?to=HOST:PORT` with `Connection: Upgrade` and `Upgrade: tcp` (RFC 9110, 7.8). The host is an address of the
//! cluster's networks or a name of its DNS, in short forms too (`api-service`, `api-service.production`). The connection comes
//! from outside the nodes, as that of any client beyond the cluster: policies judge it so.

use super::{Sources, alive};
use apiserver::ApiServer;
use apiserver::extension::Connector;
use apiserver::pod_streams::{Duplex, PodStreams};
use apiserver::request::Query;
use apiserver::status::Status;
use async_trait::async_trait;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, StatusCode};
use hyper_util::rt::TokioIo;
use kubelet::programs::resolver::search_names;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::time::timeout;
use tracing::debug;

const PROTOCOL: &str = "tcp";
/// As long as most browsers' patience.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Which networks are the cluster's: address and prefix length.
pub(crate) type Networks = Vec<(IpAddr, u8)>;

pub(super) struct Tunnels(pub(super) Arc<Sources>);

#[async_trait]
impl Connector for Tunnels {
    async fn connect(&self, server: &ApiServer, mut request: Request) -> Result<Response, Status> {
        let query = Query::new(request.uri());
        let to = query.text("to").unwrap_or_default().to_owned();
        let asked = request.headers().get(UPGRADE).and_then(|value| value.to_str().ok());
        if !asked.is_some_and(|protocol| protocol.eq_ignore_ascii_case(PROTOCOL)) {
            let why = "Upgrade request required: a tunnel wants the headers Connection: Upgrade and Upgrade: tcp";
            return Err(Status::bad_request(why));
        }
        let (host, port) = to
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse::<u16>().ok().filter(|port| *port != 0)?)))
            .ok_or_else(|| Status::bad_request(format!("to: Invalid value: {to:?}: must be HOST:PORT")))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address = self.0.inside(host).await?;
        let dialled = timeout(CONNECT_TIMEOUT, alive(&self.0.nodes)?.dial(SocketAddr::new(address, port))).await;
        let stream = dialled.map_err(|_| {
            let why = format!("{host}:{port} ({address}) has not answered within {} s", CONNECT_TIMEOUT.as_secs());
            Status::failure(504, "Timeout", why)
        })??;
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(carry(upgrade, stream, server.stopping()));
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
        Ok(response)
    }
}

/// Carries bytes both ways until both sides are done, or the cluster stops.
async fn carry(
    upgrade: hyper::upgrade::OnUpgrade,
    mut stream: Box<dyn Duplex>,
    mut stopping: tokio::sync::watch::Receiver<bool>,
) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return debug!(%error, "a tunnel was not taken up"),
    };
    let mut upgraded = TokioIo::new(upgraded);
    tokio::select! {
        carried = copy_bidirectional(&mut upgraded, &mut stream) => {
            if let Err(error) = carried {
                debug!(%error, "tunnel ended");
            }
        }
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
}

impl Sources {
    /// The address within the cluster that a client from outside means by `host`.
    ///
    /// # Errors
    /// 404 for what is not of the cluster: the client may look for it elsewhere.
    async fn inside(&self, host: &str) -> Result<IpAddr, Status> {
        if let Ok(address) = host.parse() {
            let contained = self.networks.iter().any(|network| contains(*network, address));
            return if contained { Ok(address) } else { Err(elsewhere(host)) };
        }
        let dns = alive(&self.dns)?;
        let zone = &self.cluster_dns.zone;
        let resolv_conf = format!("search default.svc.{zone} svc.{zone} {zone}\noptions ndots:5\n");
        // A name is only asked in the cluster's own zone: whatever is elsewhere is the client's affair.
        let suffix = format!(".{zone}.");
        for name in search_names(&resolv_conf, host).iter().filter(|name| name.ends_with(&suffix)) {
            for kind in ["A", "AAAA"] {
                let answer = dns.query(name, kind).await.map_err(|why| Status::bad_request(why.to_string()))?;
                let addresses = answer.answers.iter().filter(|record| record.record_type == kind);
                if let Some(address) = addresses.filter_map(|record| record.data.parse().ok()).next() {
                    return Ok(address);
                }
            }
        }
        Err(elsewhere(host))
    }
}

fn elsewhere(host: &str) -> Status {
    Status::failure(404, "NotFound", format!("{host:?} is neither a name nor an address of this cluster"))
}

fn contains((network, prefix): (IpAddr, u8), address: IpAddr) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)) << 96, 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let ((network, width), (address, other)) = (bits(network), bits(address));
    width == other && (prefix == 0 || (network ^ address) >> (128 - u32::from(prefix)) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_the_addresses_with_its_prefix() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (network, prefix, address, expected) in [
            ("10.244.0.0", 16, "10.244.3.7", true),
            ("10.244.0.0", 16, "10.245.0.1", false),
            ("10.96.0.0", 12, "10.111.255.255", true),
            ("10.96.0.0", 12, "10.112.0.0", false),
            ("0.0.0.0", 0, "8.8.8.8", true),
            ("fd00::", 8, "fd12::1", true),
            ("fd00::", 8, "10.0.0.1", false),
        ] {
            assert_eq!(contains((ip(network), prefix), ip(address)), expected, "{address} in {network}/{prefix}");
        }
    }
}
