//! `Flow`: the connection-tracking table of the virtual network, with the names of both ends.

use super::flow_log::verdict;
use super::place::{full_name, on_pod_network, pod_addresses, protocol_name};
use super::{GROUP, Sources, VERSION, alive};
use apiserver::registry::ResourceKind;
use apiserver::request::Query;
use apiserver::status::Status;
use k8s_openapi::jiff::Timestamp;
use netstack::FlowInfo;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// The columns of [`row`], after the name.
pub(super) const COLUMNS: [&str; 8] =
    ["Protocol", "Source", "Destination", "Endpoint", "Verdict", "Packets", "Bytes", "Idle"];

/// The structural schema of one flow, for documents.
pub(super) fn schema() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let end = |description: &str| {
        json!({"type": "object", "description": description, "properties": {
            "ip": text("Its address."), "port": {"type": "integer", "description": "Its port; 0 where the protocol has none."},
            "pod": text("NAMESPACE/NAME, if a pod has that address.")}})
    };
    let both = |description: &str| {
        json!({"type": "object", "description": description, "properties": {
            "there": {"type": "integer", "description": "From the source."},
            "back": {"type": "integer", "description": "To the source."}}})
    };
    json!({"type": "object", "description": "A flow of the connection-tracking table.", "properties": {
        "protocol": text("TCP, UDP, SCTP, ICMP or a number."),
        "source": end("Who began."),
        "frontend": end("The Service address that was asked for, if the flow was translated."),
        "destination": end("Who receives."),
        "sourceAsSeen": end("The source as the destination sees it, if that is another."),
        "verdict": text("FORWARDED or DROPPED."),
        "reason": text("Why it is dropped."),
        "packets": both("Packets so far."),
        "bytes": both("Bytes of IP packets so far."),
        "idleSeconds": {"type": "number", "description": "Time since the last packet."}}})
}

/// One flow by its name.
pub(super) fn get(sources: &Sources, name: &str, namespace: &str) -> Result<Value, Status> {
    let mut list = list(sources, &Query::default(), namespace)?;
    let items = list["items"].as_array_mut().into_iter().flatten();
    let found = items.into_iter().find(|item| item["metadata"]["name"] == name).map(Value::take);
    found.ok_or_else(|| Status::not_found(GROUP, "flows", name))
}

/// Lists the flows of a namespace's pods, or all; `?verdict=dropped|forwarded` and `?pod=NAMESPACE/NAME` narrow the list.
pub(super) fn list(sources: &Sources, query: &Query, namespace: &str) -> Result<Value, Status> {
    alive(&sources.policy)?;
    let verdict = verdict(query)?;
    let wanted = if namespace.is_empty() { query.text("namespace").unwrap_or_default() } else { namespace };
    let pods: HashMap<IpAddr, String> = sources
        .pods
        .list()
        .iter()
        .filter(|pod| on_pod_network(pod))
        .flat_map(|pod| pod_addresses(pod).into_iter().map(|address| (address, full_name(pod))))
        .collect();
    let mut flows = sources.network.flows();
    flows.sort_by_key(|flow| (flow.original.src, flow.original.dst));
    let items: Vec<Value> = flows
        .iter()
        .map(|flow| item(flow, &pods))
        .filter(|item| verdict.is_none_or(|verdict| item["verdict"] == verdict))
        .filter(|item| {
            let ends = ["source", "destination"].iter().filter_map(|end| item[*end]["pod"].as_str());
            let mut namespaces = ends.filter_map(|pod| pod.split_once('/')).map(|(namespace, _)| namespace);
            wanted.is_empty() || namespaces.any(|its| its == wanted)
        })
        .filter(|item| {
            let end = |end: &str, pod: &str| item[end]["pod"] == pod;
            query.text("pod").is_none_or(|pod| end("source", pod) || end("destination", pod))
        })
        .collect();
    Ok(json!({"kind": "FlowList", "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {}, "items": items}))
}

fn item(flow: &FlowInfo, pods: &HashMap<IpAddr, String>) -> Value {
    let end = |address: SocketAddr| json!({"ip": address.ip(), "port": address.port(), "pod": pods.get(&address.ip())});
    let translated = flow.translated.dst != flow.original.dst;
    json!({
        "kind": "Flow",
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "metadata": {"name": format!("{}-{}-{}", protocol_name(flow.original.protocol), flow.original.src, flow.original.dst)},
        "protocol": protocol_name(flow.original.protocol),
        "source": end(flow.original.src),
        "frontend": translated.then(|| end(flow.original.dst)),
        "destination": end(flow.translated.dst),
        "sourceAsSeen": (flow.translated.src != flow.original.src).then(|| end(flow.translated.src)),
        "verdict": if flow.dropped.is_some() { "DROPPED" } else { "FORWARDED" },
        "reason": flow.dropped.map(policy::reason::code),
        "packets": {"there": flow.packets[0], "back": flow.packets[1]},
        "bytes": {"there": flow.bytes[0], "back": flow.bytes[1]},
        "idleSeconds": flow.idle.as_secs_f64(),
    })
}

/// The cells of one flow.
pub(super) fn row(_: &ResourceKind, flow: &Value, _: Timestamp) -> Vec<Value> {
    let address = |end: &Value| -> String {
        let host = end["pod"].as_str().or_else(|| end["ip"].as_str()).unwrap_or_default();
        format!("{host}:{}", end["port"])
    };
    let both = |counts: &Value| format!("{}/{}", counts["there"], counts["back"]);
    let verdict = match flow["reason"].as_str() {
        Some(reason) => format!("DROPPED ({reason})"),
        None => "FORWARDED".to_owned(),
    };
    let frontend = &flow["frontend"];
    let (destination, endpoint) = match frontend {
        Value::Null => (address(&flow["destination"]), String::new()),
        frontend => (address(frontend), address(&flow["destination"])),
    };
    vec![
        flow["metadata"]["name"].clone(),
        flow["protocol"].clone(),
        address(&flow["source"]).into(),
        destination.into(),
        endpoint.into(),
        verdict.into(),
        both(&flow["packets"]).into(),
        both(&flow["bytes"]).into(),
        format!("{:.1}s", flow["idleSeconds"].as_f64().unwrap_or_default()).into(),
    ]
}
