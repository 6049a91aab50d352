//! `Reachability`: who can talk to whom, over all pairs of pods: computed, and if wanted measured by real connections.

use super::place::{EPHEMERAL, declared_ports, full_name, on_pod_network, pod_address, port, protocol_name};
use super::{Asker, Question, Refusal, Sources, alive, spec, with_policies};
use apiserver::status::FieldError;
use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use netstack::{FiveTuple, Host, NewFlow, PortTag, Protocol};
use policy::{Destination, PolicyTable};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

pub(super) const SCHEMA: &[(&str, &str, &str)] = &[
    ("namespaces", "strings", "Whose pods. Default: those of the namespace that is asked in, or of every namespace."),
    ("ports", "ports", "Which ports of every pod: PORT or PORT/PROTOCOL. Default: those that each pod declares."),
    ("probe", "boolean", "Open a real TCP connection for every pair too, and say where that disagrees."),
    (
        "policies",
        "objects",
        "NetworkPolicies and ClusterNetworkPolicies to judge by as if they were applied. Not with probe.",
    ),
    ("absent", "strings", "Policies to leave out as if they were deleted. Not with probe."),
    ("explain", "boolean", "Say of each pair why: texts, and the index of each pair's text. For 40,000 pairs at most."),
    (
        "resourceVersion",
        "string",
        "As it was at this revision of the cluster, if its history still has it. Not with probe. Default: now.",
    ),
];

/// So many rows of the matrix are computed before others may go on.
const SOURCES_AT_ONCE: usize = 512;
/// A pair that has not answered by then counts as cut off: every hop is within this process.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Probes at a time.
const PROBES: usize = 256;
/// More probes than this are refused: they would take minutes.
const MOST_PROBES: usize = 20_000;
/// More pairs than this are refused: the answer would be larger than what others of the API are.
const MOST_PAIRS: usize = 10_000_000;
/// More explanations than this are.
const MOST_EXPLAINED: usize = 40_000;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    namespaces: Vec<String>,
    ports: Vec<IntOrString>,
    probe: bool,
    policies: Vec<Value>,
    absent: Vec<String>,
    explain: bool,
    resource_version: String,
}

/// A port of a pod.
struct Column {
    pod: Arc<Pod>,
    address: IpAddr,
    port: u16,
    protocol: Protocol,
}

pub(super) struct Reachability;

#[async_trait]
impl Question for Reachability {
    async fn status(&self, sources: &Sources, asker: &Asker, body: &Value) -> Result<Value, Refusal> {
        let mut spec: Spec = spec(body)?;
        if spec.namespaces.is_empty() {
            spec.namespaces.extend(asker.namespace().map(str::to_owned));
        }
        for namespace in &spec.namespaces {
            asker.may_ask_in(namespace).await?;
        }
        if spec.probe {
            asker.may_send(&spec.namespaces).await?;
        }
        if spec.probe && !(spec.policies.is_empty() && spec.absent.is_empty()) {
            let why = "real connections obey the policies in force; leave policies and absent out";
            return Err(FieldError::forbidden("spec.probe", why).into());
        }
        let wanted: Result<Vec<_>, _> =
            (0usize..).zip(&spec.ports).map(|(index, value)| port(&format!("spec.ports[{index}]"), value)).collect();
        let wanted = wanted?;
        let past = match spec.resource_version.as_str() {
            "" => None,
            _ if spec.probe => {
                let why = "real connections are of now; leave resourceVersion out";
                return Err(FieldError::forbidden("spec.probe", why).into());
            }
            version => Some(sources.past(version).await?),
        };
        let (listed, base) = match past {
            Some((pods, table)) => (pods, table),
            None => (sources.pods.list(), PolicyTable::clone(&*alive(&sources.policy)?.table())),
        };
        let table = with_policies(base, &spec.policies, &spec.absent)?;
        let mut pods: Vec<(Arc<Pod>, IpAddr)> = listed
            .into_iter()
            .filter(|pod| on_pod_network(pod))
            .filter(|pod| {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                spec.namespaces.is_empty() || spec.namespaces.iter().any(|wanted| wanted == namespace)
            })
            .filter_map(|pod| pod_address(&pod).map(|address| (pod, address)))
            .collect();
        pods.sort_by_cached_key(|(pod, _)| full_name(pod));
        let mut columns = Vec::new();
        for (pod, address) in &pods {
            let mut ports: Vec<(u16, Protocol)> = if wanted.is_empty() {
                declared_ports(pod).map(|(_, port, protocol)| (port, protocol)).collect()
            } else {
                wanted.clone()
            };
            ports.sort_unstable();
            ports.dedup();
            let column = |(port, protocol)| Column { pod: pod.clone(), address: *address, port, protocol };
            columns.extend(ports.into_iter().map(column));
        }
        let pairs = pods.len() * columns.len();
        let most = if spec.explain { MOST_EXPLAINED } else { MOST_PAIRS };
        if pairs > most {
            let (field, what) =
                if spec.explain { ("spec.explain", "explained") } else { ("spec.namespaces", "judged") };
            let why = format!("{pairs} pairs would have to be {what}, at most {most} are; name namespaces or ports");
            return Err(FieldError::forbidden(field, why).into());
        }
        let unenforced = sources.profile.warning();
        let sources_of: Vec<IpAddr> = pods.iter().map(|(_, address)| *address).collect();
        let destination =
            |column: &Column| Destination { address: column.address, protocol: column.protocol, port: column.port };
        let to: Vec<Destination> = columns.iter().map(destination).collect();
        let mut rows = Vec::new();
        for some in sources_of.chunks(SOURCES_AT_ONCE) {
            match &unenforced {
                Some(_) => rows.extend(some.iter().map(|_| vec![true; to.len()])),
                None => rows.extend(table.matrix(some, &to)),
            }
            // A large matrix must not keep other requests of this thread waiting.
            tokio::task::yield_now().await;
        }
        let mut status = json!({
            "from": pods.iter().map(|(pod, _)| full_name(pod)).collect::<Vec<_>>(),
            "to": columns.iter().map(|column| json!({"pod": full_name(&column.pod), "port": column.port,
                "protocol": protocol_name(column.protocol)})).collect::<Vec<_>>(),
            "allowed": rows.iter().map(|row| bits(row)).collect::<Vec<_>>(),
        });
        if spec.explain {
            status["why"] = explained(&table, &pods, &columns).await;
        }
        if let Some(warning) = unenforced {
            status["warnings"] = json!([warning]);
        }
        if spec.probe {
            let probed = sources.probe(&pods, &columns).await?;
            let mut disagreements = Vec::new();
            for (((pod, _), computed), measured) in pods.iter().zip(&rows).zip(&probed) {
                for ((column, computed), measured) in columns.iter().zip(computed).zip(measured) {
                    if measured.is_some_and(|measured| measured != *computed) {
                        disagreements.push(json!({"from": full_name(pod), "to": full_name(&column.pod),
                            "port": column.port, "protocol": protocol_name(column.protocol), "computed": computed,
                            "measured": measured}));
                    }
                }
            }
            let text = |row: &Vec<Option<bool>>| -> String {
                row.iter().map(|cell| cell.map_or('?', |reached| if reached { '1' } else { '0' })).collect()
            };
            status["measured"] = probed.iter().map(text).collect::<Vec<_>>().into();
            status["disagreements"] = disagreements.into();
        }
        Ok(status)
    }
}

fn flow(source: IpAddr, column: &Column) -> NewFlow {
    let tuple = FiveTuple {
        protocol: column.protocol,
        src: SocketAddr::new(source, EPHEMERAL),
        dst: SocketAddr::new(column.address, column.port),
    };
    NewFlow { original: tuple, translated: tuple, from: PortTag(0), to: PortTag(0) }
}

/// Why, of each pair: the texts once, and per row the index of each column's.
async fn explained(table: &PolicyTable, pods: &[(Arc<Pod>, IpAddr)], columns: &[Column]) -> Value {
    let mut texts: Vec<String> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut cells = Vec::new();
    for (_, source) in pods {
        let row: Vec<usize> = columns
            .iter()
            .map(|column| {
                let explanation = table.explain(&flow(*source, column));
                let text = format!("egress: {}\ningress: {}", explanation.egress.why, explanation.ingress.why);
                *known.entry(text.clone()).or_insert_with(|| {
                    texts.push(text);
                    texts.len() - 1
                })
            })
            .collect();
        cells.push(row);
        tokio::task::yield_now().await;
    }
    json!({"texts": texts, "cells": cells})
}

/// One character per column: 1 may pass, 0 may not.
fn bits(row: &[bool]) -> String {
    row.iter().map(|allowed| if *allowed { '1' } else { '0' }).collect()
}

/// Whether `dst` answers `host`; `None` without a host.
async fn reached(host: Option<Host>, dst: SocketAddr) -> Option<bool> {
    match timeout(PROBE_TIMEOUT, host?.tcp_connect(dst)).await {
        Ok(Ok(_)) => Some(true),
        // A refusal has travelled both ways too: the other end was reached.
        Ok(Err(error)) => Some(error.kind() == std::io::ErrorKind::ConnectionRefused),
        Err(_) => Some(false),
    }
}

impl Sources {
    /// Connects from every pod to every TCP column; `None` where that says nothing (other protocols, a pod that does not run).
    async fn probe(&self, pods: &[(Arc<Pod>, IpAddr)], columns: &[Column]) -> Result<Vec<Vec<Option<bool>>>, Refusal> {
        let pairs = pods.len() * columns.len();
        if pairs > MOST_PROBES {
            let why = format!(
                "{pairs} connections would have to be opened, at most {MOST_PROBES} are; name namespaces or ports"
            );
            return Err(FieldError::forbidden("spec.probe", why).into());
        }
        let nodes = alive(&self.nodes)?;
        let hosts: Vec<Option<Host>> = pods.iter().map(|(pod, _)| nodes.pod_host(pod)).collect();
        let mut attempts = Vec::with_capacity(pairs);
        for host in &hosts {
            for column in columns {
                let host = host.clone().filter(|_| column.protocol == Protocol::Tcp);
                attempts.push((host, SocketAddr::new(column.address, column.port)));
            }
        }
        let probes = futures::stream::iter(attempts).map(|(host, dst)| reached(host, dst));
        let measured: Vec<Option<bool>> = probes.buffered(PROBES).collect().await;
        Ok(measured.chunks(columns.len().max(1)).map(<[_]>::to_vec).collect())
    }
}
