//! One event of the flow log as JSON, in the shape that Hubble's users know (`flow.proto` of its API, as `hubble observe -o json`
//! prints it), and what a reader of the log needs to know for it: names, services, wall time.
//!
//! `flow` has nothing but Hubble's own fields. What Hubble does not know stands beside it in `coracle`: our reason code, the
//! explanation's words, and the flow's packets and bytes so far.

use super::lines::Clock;
use super::place::protocol_name;
use super::told::Told;
use super::{Sources, alive};
use crate::residents::Resident;
use k8s_openapi::jiff::Timestamp;
use netstack::{FiveTuple, FlowChange, FlowEnd, FlowEvent, NewFlow, PortTag, Protocol, Reason};
use policy::{DirectionReport, Explanation, Ruling};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use tokio::time::Instant;

/// Numbers that Cilium reserves for what is no pod.
const HOST: u32 = 1;
const WORLD: u32 = 2;
const KUBE_APISERVER: u32 = 7;
/// Numbers below are reserved.
const FIRST_IDENTITY: u32 = 256;
/// Hubble's `drop_reason` by our codes; anything else is an invalid packet.
const DROP_REASONS: [(&str, u32, &str); 13] = [
    ("POLICY_DENIED_INGRESS", 133, "POLICY_DENIED"),
    ("POLICY_DENIED_EGRESS", 133, "POLICY_DENIED"),
    ("CNP_DENY", 181, "POLICY_DENY"),
    ("NO_ENDPOINTS_REJECT", 158, "SERVICE_BACKEND_NOT_FOUND"),
    ("LOCAL_POLICY_NO_LOCAL_ENDPOINT", 158, "SERVICE_BACKEND_NOT_FOUND"),
    ("UNKNOWN_CLUSTERIP_PORT", 174, "IS_A_CLUSTERIP"),
    ("UNALLOCATED_CLUSTERIP", 174, "IS_A_CLUSTERIP"),
    ("LB_SOURCE_RANGE", 177, "DENIED_BY_LB_SRC_RANGE_CHECK"),
    ("NO_ROUTE", 151, "STALE_OR_UNROUTABLE_IP"),
    ("SPOOFED_SOURCE", 132, "INVALID_SOURCE_IP"),
    ("CONNTRACK_FULL", 155, "CT_MAP_INSERTION_FAILED"),
    ("LISTEN_QUEUE_FULL", 179, "SOCKET_ASSIGN_FAILED"),
    ("SNAT_PORTS_EXHAUSTED", 167, "NO_MAPPING_FOR_NAT_MASQUERADE"),
];
/// Monitor event types: a drop, a trace; and the latter's points.
const DROP: u32 = 1;
const TRACE: u32 = 4;
const TO_STACK: u32 = 3;
/// TCP's control bits from the lowest (RFC 9293, 3.1).
const FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

/// How a reader of the flow log sees it.
pub(super) struct Lens {
    sources: Weak<Sources>,
    clock: Clock,
    /// By address, as of a resourceVersion.
    services: (u64, HashMap<IpAddr, (String, String)>),
    nodes: HashMap<IpAddr, String>,
}

/// One end of a flow.
enum End {
    Pod(Arc<Resident>),
    Node(String),
    Outside,
}

/// Which way a packet is judged that was not delivered: by its source's side or its destination's.
pub(super) fn direction(reason: Reason) -> &'static str {
    match reason {
        policy::reason::POLICY_DENIED_INGRESS | policy::reason::CNP_DENY_INGRESS => "ingress",
        _ => "egress",
    }
}

impl Lens {
    /// Begins now, which is `wall`.
    pub(super) fn new(sources: &Arc<Sources>, wall: Timestamp) -> Lens {
        let nodes = sources.node_names();
        Lens { sources: Arc::downgrade(sources), clock: Clock::new(wall), services: (0, HashMap::new()), nodes }
    }

    fn end(&self, sources: &Sources, address: IpAddr, at: Instant) -> End {
        if let Some(who) = sources.residents.at(address, at) {
            return End::Pod(who);
        }
        self.nodes.get(&address).map_or(End::Outside, |node| End::Node(node.clone()))
    }

    fn service(&mut self, sources: &Sources, address: IpAddr) -> Option<Value> {
        let version = sources.services.applied();
        if self.services.0 != version || self.services.1.is_empty() {
            let mut found = HashMap::new();
            for service in sources.services.list() {
                let name = |value: &Option<String>| value.clone().unwrap_or_default();
                let names = (name(&service.metadata.namespace), name(&service.metadata.name));
                let spec = service.spec.iter();
                let ips = spec.flat_map(|spec| spec.cluster_ips.iter().flatten()).filter_map(|ip| ip.parse().ok());
                found.extend(ips.map(|ip: IpAddr| (ip, names.clone())));
            }
            self.services = (version, found);
        }
        let (namespace, name) = self.services.1.get(&address)?;
        Some(json!({"name": name, "namespace": namespace}))
    }

    /// The event as JSON; `None` when the cluster has stopped.
    pub(super) fn record(&mut self, event: &FlowEvent) -> Option<Told> {
        let sources = self.sources.upgrade()?;
        let (original, translated) = (event.original, event.translated);
        let (client, server) =
            (self.end(&sources, original.src.ip(), event.at), self.end(&sources, translated.dst.ip(), event.at));
        let explanation = explanation(&sources, event);
        let refusal = match event.change {
            FlowChange::Dropped(reason) => Some(reason),
            _ => None,
        };
        let reason = refusal.map(policy::reason::code);
        let mut flow = Map::new();
        let time = self.clock.time(event.at).to_string();
        flow.insert("time".into(), time.as_str().into());
        flow.insert("verdict".into(), if reason.is_some() { "DROPPED" } else { "FORWARDED" }.into());
        if let Some(reason) = reason {
            let known = DROP_REASONS.iter().find(|(code, ..)| *code == reason);
            let (number, name) = known.map_or((134, "INVALID_PACKET_DROPPED"), |(_, number, name)| (*number, *name));
            flow.insert("drop_reason".into(), number.into());
            flow.insert("drop_reason_desc".into(), name.into());
        }
        let (from, to) = match event.is_reply {
            false => (original.src, translated.dst),
            true => (translated.dst, original.src),
        };
        let mut ip = json!({"source": from.ip(), "destination": to.ip(),
            "ipVersion": if from.is_ipv4() { "IPv4" } else { "IPv6" }});
        if !event.is_reply && translated.src.ip() != original.src.ip() {
            ip["source_xlated"] = translated.src.ip().to_string().into();
        }
        flow.insert("IP".into(), ip);
        flow.insert("l4".into(), layer4(event, from, to));
        let (near, far) = if event.is_reply { (&server, &client) } else { (&client, &server) };
        flow.insert("source".into(), near.json(&sources, from.ip()));
        flow.insert("destination".into(), far.json(&sources, to.ip()));
        flow.insert("Type".into(), "L3_L4".into());
        let node = [far, near].into_iter().find_map(End::node).unwrap_or_default().to_owned();
        flow.insert("node_name".into(), node.as_str().into());
        let service = if translated.dst == original.dst { None } else { self.service(&sources, original.dst.ip()) };
        if let Some(service) = service.clone() {
            let of = if event.is_reply { "source_service" } else { "destination_service" };
            flow.insert(of.into(), service);
        }
        let to_pod = matches!(far, End::Pod(_));
        let way = match refusal.map(direction) {
            Some("ingress") => "INGRESS",
            None if to_pod => "INGRESS",
            _ => "EGRESS",
        };
        flow.insert("traffic_direction".into(), way.into());
        if reason.is_some() {
            flow.insert("event_type".into(), json!({"type": DROP, "sub_type": flow["drop_reason"]}));
        } else {
            flow.insert("event_type".into(), json!({"type": TRACE, "sub_type": if to_pod { 0 } else { TO_STACK }}));
            flow.insert("trace_observation_point".into(), if to_pod { "TO_ENDPOINT" } else { "TO_STACK" }.into());
        }
        flow.insert("is_reply".into(), event.is_reply.into());
        let mut why = Vec::new();
        if let Some(explanation) = &explanation {
            for (word, report) in [("egress", &explanation.egress), ("ingress", &explanation.ingress)] {
                let (how, policies) = match report.ruling {
                    Ruling::Allowed => ("allowed", deciding(report)),
                    Ruling::Denied => ("denied", deciding(report)),
                    _ => continue,
                };
                flow.insert(format!("{word}_{how}_by"), policies.into());
                if report.ruling == Ruling::Denied {
                    why.push(report.why.clone());
                }
            }
        }
        flow.insert("Summary".into(), summary(event).into());
        let mut ours = json!({"event": word(event.change), "packets": pair(event.packets), "bytes": pair(event.bytes)});
        if let Some(reason) = reason {
            ours["reason"] = reason.into();
        }
        if !why.is_empty() {
            ours["why"] = why.into();
        }
        if let Some(service) = service {
            ours["frontend"] = json!({"ip": original.dst.ip(), "port": original.dst.port(), "service": service});
        }
        let pods = [&client, &server].into_iter().filter_map(End::pod).collect();
        let home = |end: &End| match end {
            End::Pod(who) => Some((who.namespace.clone(), who.node.clone())),
            End::Node(_) | End::Outside => None,
        };
        let ends = [home(near), home(far)];
        Some(Told { record: json!({"flow": flow, "coracle": ours, "node_name": node, "time": time}), pods, ends })
    }

    /// What a reader is told that was too slow.
    pub(super) fn lost(&self, events: u64) -> Value {
        let time = self.clock.time(Instant::now()).to_string();
        json!({"lost_events": {"source": "HUBBLE_RING_BUFFER", "num_events_lost": events}, "time": time})
    }
}

/// What the policies in force say of the event's flow; `None` where they say otherwise than when it happened, or nothing.
fn explanation(sources: &Sources, event: &FlowEvent) -> Option<Explanation> {
    let refusal = match event.change {
        FlowChange::Opened => None,
        FlowChange::Dropped(reason) => Some(policy::reason::code(reason)),
        FlowChange::Answered | FlowChange::Ended(_) => return None,
    };
    let flow = flow_of(event);
    let explanation = alive(&sources.policy).ok()?.explain(&flow);
    (explanation.reason == refusal).then_some(explanation)
}

/// The flow as policies see it.
pub(super) fn flow_of(event: &FlowEvent) -> NewFlow {
    let (original, translated): (FiveTuple, FiveTuple) = (event.original, event.translated);
    NewFlow { original, translated, from: event.from, to: event.to.unwrap_or(PortTag(0)) }
}

/// The policies that decided: the one whose rule did, or all that isolate the pod.
fn deciding(report: &DirectionReport) -> Vec<Value> {
    let names = match &report.decided_by {
        Some(rule) => vec![rule.policy.clone()],
        None => report.policies.clone(),
    };
    let policy = |name: String| match name.split_once('/') {
        Some((namespace, name)) => json!({"name": name, "namespace": namespace, "kind": "NetworkPolicy"}),
        None => json!({"name": name, "kind": "ClusterNetworkPolicy"}),
    };
    names.into_iter().map(policy).collect()
}

impl End {
    fn pod(&self) -> Option<String> {
        match self {
            End::Pod(who) => Some(format!("{}/{}", who.namespace, who.name)),
            End::Node(_) | End::Outside => None,
        }
    }

    fn node(&self) -> Option<&str> {
        match self {
            End::Pod(who) => Some(&who.node),
            End::Node(node) => Some(node),
            End::Outside => None,
        }
    }

    fn json(&self, sources: &Sources, address: IpAddr) -> Value {
        match self {
            End::Pod(who) => {
                // As they are now, if the pod still is.
                let pod = sources.pods.get(&who.namespace, &who.name);
                let pod = pod.filter(|pod| pod.metadata.uid.as_deref() == Some(&who.uid));
                let known = pod.as_ref().map_or(&who.labels, |pod| match &pod.metadata.labels {
                    Some(labels) => labels,
                    None => &who.labels,
                });
                let mut labels: Vec<String> = known.iter().map(|(key, value)| format!("k8s:{key}={value}")).collect();
                labels.push(format!("k8s:io.kubernetes.pod.namespace={}", who.namespace));
                labels.sort();
                let mut end = json!({"identity": identity(&labels), "cluster_name": "coracle",
                    "namespace": who.namespace, "labels": labels, "pod_name": who.name});
                if let Some((kind, name)) = &who.owner {
                    end["workloads"] = json!([{"name": name, "kind": kind}]);
                }
                end
            }
            End::Node(_) => json!({"identity": HOST, "labels": ["reserved:host"]}),
            End::Outside if sources.api_address == address => {
                json!({"identity": KUBE_APISERVER, "labels": ["reserved:kube-apiserver"]})
            }
            End::Outside => json!({"identity": WORLD, "labels": ["reserved:world"]}),
        }
    }
}

/// The number of a set of labels. The same set has the same number everywhere, and nothing is decided by it.
fn identity(labels: &[String]) -> u32 {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(labels);
    FIRST_IDENTITY + (hash % (1 << 24)) as u32
}

fn pair([there, back]: [u64; 2]) -> Value {
    json!({"there": there, "back": back})
}

fn word(change: FlowChange) -> &'static str {
    match change {
        FlowChange::Opened => "opened",
        FlowChange::Answered => "answered",
        FlowChange::Ended(FlowEnd::Closed) => "closed",
        FlowChange::Ended(FlowEnd::Reset) => "reset",
        FlowChange::Ended(FlowEnd::Forgotten) => "forgotten",
        FlowChange::Dropped(_) => "dropped",
    }
}

fn flags(event: &FlowEvent) -> impl Iterator<Item = &'static str> {
    let bits = event.flags;
    FLAGS.iter().enumerate().filter(move |(bit, _)| bits & (1 << bit) != 0).map(|(_, name)| *name)
}

fn layer4(event: &FlowEvent, from: SocketAddr, to: SocketAddr) -> Value {
    let ports = || json!({"source_port": from.port(), "destination_port": to.port()});
    match event.original.protocol {
        Protocol::Tcp => {
            let mut tcp = ports();
            tcp["flags"] = flags(event).map(|name| (name.to_owned(), Value::Bool(true))).collect::<Map<_, _>>().into();
            json!({"TCP": tcp})
        }
        Protocol::Udp => json!({"UDP": ports()}),
        Protocol::Sctp => json!({"SCTP": ports()}),
        // Only echo is a flow (RFC 792; RFC 4443, 4).
        Protocol::Icmp if from.is_ipv4() => json!({"ICMPv4": {"type": if event.is_reply { 0 } else { 8 }}}),
        Protocol::Icmp => json!({"ICMPv6": {"type": if event.is_reply { 129 } else { 128 }}}),
        Protocol::Other(_) => json!({}),
    }
}

fn summary(event: &FlowEvent) -> String {
    match event.original.protocol {
        Protocol::Tcp if event.flags != 0 => format!("TCP Flags: {}", flags(event).collect::<Vec<_>>().join(", ")),
        Protocol::Icmp => {
            let version = if event.original.src.is_ipv4() { 4 } else { 6 };
            format!("ICMPv{version} Echo{}", if event.is_reply { "Reply" } else { "Request" })
        }
        protocol => protocol_name(protocol),
    }
}
