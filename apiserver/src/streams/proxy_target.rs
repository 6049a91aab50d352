//! Whom a proxy path means: `[scheme:]name[:port]` of a service or pod → an address of the cluster's network.
//!
//! Called by [`super::proxy`]; nothing is connected here. Follows `ResourceLocation` of upstream's registries of pods and services.

use crate::ApiServer;
use crate::request::RequestInfo;
use crate::status::Status;
use crate::storage;
use rand::Rng;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use store::Range;

/// A path's name, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// `https` was asked for.
    pub(super) secure: bool,
    pub(super) name: &'a str,
    /// Name or number; empty if none is given.
    port: &'a str,
}

impl<'a> Target<'a> {
    /// Reads `[scheme:]name[:port]`; with a scheme both colons have to stand.
    pub(super) fn new(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match *parts.as_slice() {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        let known = matches!(scheme, "" | "http" | "https") && !name.is_empty();
        known.then_some(Target { secure: scheme == "https", name, port })
    }

    /// The pod's address, on the port given or else the first one its containers declare.
    pub(super) async fn of_pod(self, server: &ApiServer, info: &RequestInfo) -> Result<SocketAddr, Status> {
        let pod = object(server, "pods", &info.namespace, self.name).await?;
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let declared = containers.filter_map(|container| container["ports"][0]["containerPort"].as_u64()).next();
        let port = match self.port {
            "" => declared.and_then(|port| u16::try_from(port).ok()).unwrap_or(80),
            port => port.parse().map_err(|_| Status::bad_request(format!("invalid pod request {:?}", info.name)))?,
        };
        let ip = pod["status"]["podIP"].as_str().and_then(|ip| ip.parse().ok());
        let ip = ip.filter(reachable).ok_or_else(|| Status::bad_request("address not allowed"))?;
        Ok(SocketAddr::new(ip, port))
    }

    /// The address of one of the service's ready endpoints, each as likely as any other.
    pub(super) async fn of_service(
        self,
        server: &ApiServer,
        info: &RequestInfo,
        random: &mut (impl Rng + Send),
    ) -> Result<SocketAddr, Status> {
        let service = object(server, "services", &info.namespace, self.name).await?;
        let port = self.port_name(&service)?;
        let addresses = endpoints(server, &info.namespace, self.name, &port).await?;
        if addresses.is_empty() {
            return Err(unavailable(format!("no endpoints available for service {:?}", self.name)));
        }
        Ok(addresses[random.random_range(0..addresses.len())])
    }

    /// The name of the service's port that is meant; the only one if none is.
    fn port_name(self, service: &Value) -> Result<String, Status> {
        let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
        let name = |port: &Value| port["name"].as_str().unwrap_or_default().to_owned();
        if let Ok(number) = self.port.parse::<u64>() {
            let found = ports.iter().find(|port| port["port"].as_u64() == Some(number));
            return found
                .map(name)
                .ok_or_else(|| unavailable(format!("no service port {number} found for service {:?}", self.name)));
        }
        Ok(match ports {
            [only] if self.port.is_empty() => name(only),
            _ => self.port.to_owned(),
        })
    }
}

/// The ready endpoints behind a service's port, as its EndpointSlices have them.
async fn endpoints(server: &ApiServer, namespace: &str, name: &str, port: &str) -> Result<Vec<SocketAddr>, Status> {
    let kind = server.registry().lookup("discovery.k8s.io", "v1", "endpointslices").cloned();
    let kind = kind.ok_or_else(|| Status::internal("endpointslices are not served"))?;
    let range = Range { prefix: storage::prefix(&kind, namespace), ..Range::default() };
    let page = server.store().range(range).await.map_err(Status::internal)?;
    let mut addresses = Vec::new();
    for item in &page.items {
        let slice = storage::decode(&kind, item)?;
        if slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str() != Some(name) {
            continue;
        }
        let ports = slice["ports"].as_array().into_iter().flatten();
        let named = ports.filter(|found| found["name"].as_str().unwrap_or_default() == port);
        let Some(number) = named.filter_map(|found| u16::try_from(found["port"].as_u64()?).ok()).next() else {
            continue;
        };
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        // Absent means ready, says the EndpointSlice API.
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"].as_bool() != Some(false));
        let ips = ready.filter_map(|endpoint| endpoint["addresses"][0].as_str()?.parse().ok()).filter(reachable);
        addresses.extend(ips.map(|ip| SocketAddr::new(ip, number)));
    }
    Ok(addresses)
}

/// Neither this machine nor a link nor a group: what stands in an object must not lead the server to itself.
fn reachable(ip: &IpAddr) -> bool {
    let of_link = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() || of_link)
}

async fn object(server: &ApiServer, plural: &str, namespace: &str, name: &str) -> Result<Value, Status> {
    let kind = server.registry().lookup("", "v1", plural).cloned();
    let kind = kind.ok_or_else(|| Status::internal(format!("{plural} are not served")))?;
    let found = server.read(&kind, namespace, name).await?;
    found.map(|stored| stored.object).ok_or_else(|| Status::not_found("", plural, name))
}

/// 503.
pub(super) fn unavailable(message: impl Into<String>) -> Status {
    Status::failure(503, "ServiceUnavailable", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_may_have_a_port_and_with_it_a_scheme() {
        let read = |text| Target::new(text).map(|Target { secure, name, port }| (secure, name, port));
        assert_eq!(read("web"), Some((false, "web", "")));
        assert_eq!(read("web:http"), Some((false, "web", "http")));
        assert_eq!(read("https:web:443"), Some((true, "web", "443")));
        assert_eq!(read("http:web:"), Some((false, "web", "")));
        for wrong in ["", ":80", "ftp:web:21", "a:b:c:d"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_port_number_is_the_services_own_and_stands_for_the_ports_name() {
        let service =
            json!({"spec": {"ports": [{"name": "a", "port": 80, "targetPort": 8080}, {"name": "b", "port": 81}]}});
        let port = |text| Target::new(text).expect("a target").port_name(&service);
        assert_eq!(port("web:81"), Ok("b".to_owned()));
        assert_eq!(port("web:a"), Ok("a".to_owned()));
        let status = port("web:8080").expect_err("the pod's port is not the service's");
        assert_eq!((status.code, status.message.as_str()), (503, "no service port 8080 found for service \"web\""));
    }

    #[test]
    fn no_object_leads_the_server_to_itself() {
        for ip in ["127.0.0.1", "::1", "0.0.0.0", "169.254.169.254", "224.0.0.1", "fe80::1"] {
            assert!(!reachable(&ip.parse().expect("an address")), "{ip}");
        }
        assert!(reachable(&"10.244.0.2".parse().expect("an address")));
    }
}
