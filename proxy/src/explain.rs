//! The journey of one flow through the service table, in words.

use crate::endpoint::{Endpoint, Topology};
use crate::node::Node;
use crate::service::{FrontendKind, ServiceName};
use crate::table::{Outcome, Route, ServiceTable, Source};
use netstack::{FiveTuple, Protocol};
use serde::{Serialize, Serializer};
use std::net::{IpAddr, SocketAddr};

/// Why a flow goes where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Where it comes from, for example `pod on node-1`.
    pub source: String,
    /// The Service address it is for.
    pub frontend: Option<FrontendReport>,
    /// The node whose proxy decides.
    pub node: Option<String>,
    /// The endpoints it may go to.
    pub candidates: Vec<EndpointReport>,
    /// Those it may not go to, and why.
    pub excluded: Vec<ExcludedReport>,
    /// The endpoint, if it is certain: the only one, or the one that session affinity holds.
    pub chosen: Option<SocketAddr>,
    /// The address it gets as its source, if it is masqueraded.
    pub snat: Option<IpAddr>,
    /// `pass`, `balance`, `reject` or `drop`.
    pub outcome: &'static str,
    /// The code of a refusal.
    pub reason: Option<&'static str>,
    /// The same as sentences, in order.
    pub steps: Vec<String>,
}

/// The Service address that a flow is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendReport {
    /// Whose it is.
    pub service: ServiceName,
    /// Which kind of address.
    pub kind: FrontendKind,
    /// The Service port's name; may be empty.
    pub port_name: String,
    /// The Service port's number.
    pub port: u16,
    /// TCP, UDP or SCTP.
    #[serde(serialize_with = "protocol")]
    pub protocol: Protocol,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointReport {
    /// Where it listens.
    pub address: SocketAddr,
    /// The pod, if it is known.
    pub target: Option<String>,
    /// Its node, if it is known.
    pub node: Option<String>,
}

/// An endpoint that the flow may not go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExcludedReport {
    /// Which.
    pub endpoint: EndpointReport,
    /// Why not.
    pub why: String,
}

/// Protocols are written as the API writes them.
pub(crate) fn protocol<S: Serializer>(protocol: &Protocol, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&protocol_name(*protocol))
}

fn protocol_name(protocol: Protocol) -> String {
    match protocol {
        Protocol::Tcp => "TCP".into(),
        Protocol::Udp => "UDP".into(),
        Protocol::Sctp => "SCTP".into(),
        Protocol::Icmp => "ICMP".into(),
        Protocol::Other(number) => format!("protocol {number}"),
    }
}

/// Puts a decision into words. `held`: the endpoint that session affinity holds.
pub(crate) fn report(
    table: &ServiceTable,
    flow: &FiveTuple,
    route: &Route<'_>,
    held: Option<SocketAddr>,
) -> Explanation {
    let source = match route.source {
        Source::Pod(Some(node)) => format!("pod on {}", node.name),
        Source::Pod(None) => "pod on an unknown node".into(),
        Source::Node(node) => format!("node {}", node.name),
        Source::Outside => "outside of the cluster".into(),
    };
    let mut explanation = Explanation {
        steps: vec![format!("{} {} → {}: from {source}", protocol_name(flow.protocol), flow.src, flow.dst)],
        source,
        frontend: route.frontend.map(|frontend| FrontendReport {
            service: frontend.service.name.clone(),
            kind: frontend.kind,
            port_name: frontend.port.name.clone(),
            port: frontend.port.port,
            protocol: frontend.port.protocol,
        }),
        node: route.node.map(|node| node.name.clone()),
        candidates: Vec::new(),
        excluded: Vec::new(),
        chosen: None,
        snat: None,
        outcome: "pass",
        reason: None,
    };
    let mut list: &[u32] = &[];
    let mut narrowed = (false, Topology::Everywhere);
    if let Some(frontend) = route.frontend {
        let kind = match frontend.kind {
            FrontendKind::ClusterIp => "ClusterIP",
            FrontendKind::ExternalIp => "external IP",
            FrontendKind::LoadBalancer => "load balancer address",
            FrontendKind::NodePort => "node port",
            FrontendKind::HostPort => "host port",
            FrontendKind::HealthCheck => "health check port",
        };
        let any = matches!(route.source, Source::Outside) && frontend.kind != FrontendKind::NodePort;
        let node = match route.node {
            Some(node) if any => format!(", entered at some node, say {}", node.name),
            Some(node) => format!(", decided on {}", node.name),
            None => String::new(),
        };
        explanation.steps.push(format!("{} is a {kind} of Service {}{node}", flow.dst, frontend.service.name));
    }
    match &route.outcome {
        Outcome::Pass => explanation.steps.push(format!("{} is no Service's: as addressed", flow.dst)),
        Outcome::Leaves => {
            let snat = table.snat(flow, route, flow.dst, true);
            let as_node = snat.map(|snat| format!(", with {snat} as the source")).unwrap_or_default();
            explanation.steps.push(format!("{} is outside of the cluster: as addressed{as_node}", flow.dst));
            explanation.snat = snat;
        }
        Outcome::Refused { reject, reason } => {
            explanation.outcome = if *reject { "reject" } else { "drop" };
            explanation.reason = Some(reason.0);
        }
        Outcome::Balanced(balanced) => {
            explanation.outcome = "balance";
            list = balanced.list;
            narrowed = (balanced.local, balanced.topology);
            let only = || (list.len() == 1).then(|| balanced.endpoints.get(list[0]).address);
            explanation.chosen = held.or_else(only);
            // Which of several it will be is not known; only whether it is masqueraded in any case.
            let dst = explanation.chosen.unwrap_or(balanced.endpoints.get(list[0]).address);
            if balanced.masquerade || explanation.chosen.is_some() {
                explanation.snat = table.snat(flow, route, dst, balanced.masquerade);
            }
        }
        Outcome::HostPort(host_port) => {
            explanation.outcome = "balance";
            explanation.steps.push(format!("{} is a host port of pod {}", flow.dst, host_port.pod));
            explanation.chosen = Some(host_port.target);
            explanation.snat = table.snat(flow, route, host_port.target, false);
            explanation.candidates.push(EndpointReport {
                address: host_port.target,
                target: Some(host_port.pod.name.clone()),
                node: explanation.node.clone(),
            });
        }
    }
    if let Some(frontend) = route.frontend {
        let refused_local = explanation.reason == Some(crate::reason::LOCAL_POLICY_NO_LOCAL_ENDPOINT.0);
        let endpoints = frontend.port.endpoints(flow.dst.ip());
        for (index, endpoint) in (0u32..).zip(endpoints.all()) {
            let report = EndpointReport {
                address: endpoint.address,
                target: endpoints.target(endpoint).map(str::to_owned),
                node: endpoints.node(endpoint).map(str::to_owned),
            };
            if list.binary_search(&index).is_ok() {
                explanation.candidates.push(report);
            } else {
                let why = excluded(
                    (endpoint, endpoints.node(endpoint)),
                    route.node,
                    (narrowed.0 || refused_local, narrowed.1),
                );
                explanation.excluded.push(ExcludedReport { endpoint: report, why });
            }
        }
        for excluded in &explanation.excluded {
            explanation.steps.push(format!("{} is left out: {}", excluded.endpoint.address, excluded.why));
        }
    }
    if let Some(reason) = explanation.reason {
        explanation.steps.push(format!("{}: {reason}", explanation.outcome));
    }
    if !explanation.candidates.is_empty() {
        explanation.steps.push(match (explanation.chosen, held) {
            (Some(chosen), Some(_)) => format!("{chosen} by session affinity"),
            (Some(chosen), None) => format!("{chosen}, the only one"),
            (None, _) => format!("one of {} at random", explanation.candidates.len()),
        });
    }
    if let Some(snat) = explanation.snat.filter(|_| !matches!(route.outcome, Outcome::Leaves)) {
        explanation.steps.push(format!("the endpoint sees {snat} as the source"));
    }
    explanation
}

/// Why a frontend's list does not hold an endpoint.
fn excluded(
    (endpoint, its_node): (&Endpoint, Option<&str>),
    node: Option<&Node>,
    (local, topology): (bool, Topology),
) -> String {
    let here = its_node == node.map(|node| node.name.as_str());
    if !endpoint.ready && !endpoint.serving {
        "not ready".into()
    } else if local && !(here && node.is_some()) {
        let wanted = node.map_or("the deciding node", |node| node.name.as_str());
        format!("on {}, and the traffic policy Local wants {wanted}", its_node.unwrap_or("no node"))
    } else if !endpoint.ready && endpoint.terminating {
        "terminating, and others are ready".into()
    } else if !endpoint.ready {
        "not ready".into()
    } else {
        match topology {
            Topology::SameNode => "its hints name another node".into(),
            Topology::SameZone => "its hints name another zone".into(),
            Topology::Everywhere => "refused before endpoints were asked for".into(),
        }
    }
}
