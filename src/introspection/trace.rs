//! `Trace`: the journey of one connection, step by step: names, Service, endpoints, NAT, policies, and a real connection.
//!
//! The steps before the connection are worked out from the tables in force; with `spec.connect` the pod's own host then opens
//! a TCP connection, and what became of it stands beside.

use super::place::{EPHEMERAL, Party, Target, full_name, pod_addresses, protocol_name};
use super::{Asker, Question, Refusal, Sources, alive, spec};
use apiserver::status::{FieldError, Status};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use kubelet::programs::resolver::addresses_in_hosts;
use kubelet::resolv_conf::hosts;
use netstack::{FiveTuple, FlowChange, Protocol};
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::time::{Instant, timeout};

pub(super) const SCHEMA: &[(&str, &str, &str)] = &[
    ("namespace", "string", "Where `from` is looked for. Default: the namespace that is asked in, or default."),
    ("from", "string", "Who connects: POD or NAMESPACE/POD."),
    ("to", "string", "HOST:PORT or HOST:PORT/PROTOCOL; the host is an IP address, or a name that the pod looks up."),
    ("connect", "boolean", "Open a real TCP connection from the pod, beside working out what would happen."),
    ("timeoutSeconds", "integer", "How long the connection may take: 1 to 60, default 3."),
    ("policies", "objects", "NetworkPolicies and ClusterNetworkPolicies to judge by as if they were applied."),
];

const TIMEOUTS: std::ops::RangeInclusive<u64> = 1..=60;

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    namespace: String,
    from: String,
    to: String,
    connect: bool,
    timeout_seconds: u64,
    policies: Vec<Value>,
}

impl Default for Spec {
    fn default() -> Self {
        Spec {
            namespace: String::new(),
            from: String::new(),
            to: String::new(),
            connect: false,
            timeout_seconds: 3,
            policies: Vec::new(),
        }
    }
}

/// The steps so far.
#[derive(Default)]
struct Journey {
    steps: Vec<Value>,
}

impl Journey {
    fn step(&mut self, phase: &str, result: &str, text: impl Into<String>) {
        self.steps.push(json!({"phase": phase, "result": result, "text": text.into()}));
    }
}

pub(super) struct Trace;

#[async_trait]
impl Question for Trace {
    async fn status(&self, sources: &Sources, asker: &Asker, body: &Value) -> Result<Value, Refusal> {
        let spec: Spec = spec(body)?;
        if !TIMEOUTS.contains(&spec.timeout_seconds) {
            let why = format!("must be between {} and {}, inclusive", TIMEOUTS.start(), TIMEOUTS.end());
            return Err(FieldError::invalid("spec.timeoutSeconds", &spec.timeout_seconds.into(), why).into());
        }
        let Party::Pod(pod, source) = sources.named(asker, &spec.from, &spec.namespace).await? else {
            return Err(FieldError::invalid("spec.from", &spec.from.into(), "must be POD or NAMESPACE/POD").into());
        };
        let target = Target::parse("spec.to", &spec.to)?;
        let Some(port) = target.number() else {
            let why = "the port must be a number from 1 to 65535";
            return Err(FieldError::invalid("spec.to", &spec.to.into(), why).into());
        };
        if spec.connect && target.protocol != Protocol::Tcp {
            let why = "only TCP connections can be opened; without connect every protocol can be judged";
            return Err(FieldError::forbidden("spec.connect", why).into());
        }
        let mut journey = Journey::default();
        let found = if target.host.contains('/') {
            let home = asker.home(&spec.namespace);
            asker.may_name(&target.host, home).await?;
            let named = sources.destination("spec.to", &target, home)?;
            journey.step("name", "ok", format!("{} is {}", target.host, named.ip()));
            Some(named.ip())
        } else {
            sources.resolve(&pod, &target.host, &mut journey).await?
        };
        let (outcome, mut status) = match found {
            None => ("NameNotFound".to_owned(), json!({})),
            Some(address) => {
                let dst = SocketAddr::new(address, port);
                // A pod sends from its address of the destination's family.
                let same_family = |ip: &IpAddr| ip.is_ipv4() == address.is_ipv4();
                let source = pod_addresses(&pod).into_iter().find(same_family).unwrap_or(source);
                let flow = FiveTuple { protocol: target.protocol, src: SocketAddr::new(source, EPHEMERAL), dst };
                let table = sources.policies(&spec.policies, &[])?;
                let judged = sources.judge(&flow, &table)?;
                asker.may_see_ends(&judged).await?;
                tell(&judged, &mut journey);
                let simulated = judged["outcome"].as_str().unwrap_or_default().to_owned();
                let mut status =
                    json!({"service": judged["service"], "verdicts": judged["verdicts"], "simulated": simulated});
                if judged["warnings"].is_array() {
                    status["warnings"] = judged["warnings"].clone();
                }
                let outcome = if spec.connect {
                    let wait = Duration::from_secs(spec.timeout_seconds);
                    let connection = sources.connect(&pod, source, dst, wait, &mut journey).await?;
                    let outcome = connection["outcome"].as_str().unwrap_or_default().to_owned();
                    status["connection"] = connection;
                    outcome
                } else {
                    simulated
                };
                (outcome, status)
            }
        };
        status["outcome"] = outcome.into();
        status["steps"] = journey.steps.into();
        Ok(status)
    }
}

/// The judgement as steps.
fn tell(judged: &Value, journey: &mut Journey) {
    let service = &judged["service"];
    let outcome = service["outcome"].as_str().unwrap_or_default();
    let refused = matches!(outcome, "reject" | "drop");
    for step in service["steps"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        journey.step("service", if refused { "failed" } else { "ok" }, step);
    }
    let mut told: Vec<(Vec<String>, &Value, String)> = Vec::new();
    for verdict in judged["verdicts"].as_array().into_iter().flatten() {
        let destination = &verdict["destination"];
        let name = destination["pod"].as_str().or_else(|| destination["address"].as_str()).unwrap_or_default();
        // What differs by the endpoint's name alone is told once.
        let story = format!("{}{}", verdict["egress"], verdict["ingress"]).replace(name, "");
        match told.iter_mut().find(|(_, _, known)| *known == story) {
            Some((names, _, _)) => names.push(name.to_owned()),
            None => told.push((vec![name.to_owned()], verdict, story)),
        }
    }
    for (names, verdict, _) in told {
        let alike = match names.as_slice() {
            [name] => name.clone(),
            [name, others @ ..] => format!("{name} (and alike to {})", others.join(", ")),
            [] => continue,
        };
        for direction in ["egress", "ingress"] {
            let report = &verdict[direction];
            let denied = report["ruling"] == "Denied";
            let why = report["why"].as_str().unwrap_or_default();
            journey.step("policy", if denied { "failed" } else { "ok" }, format!("to {alike}, {direction}: {why}"));
            for miss in report["nearMisses"].as_array().into_iter().flatten() {
                let (rule, policy) = (&miss["rule"]["rule"], miss["rule"]["policy"].as_str().unwrap_or_default());
                let problem = miss["problem"].as_str().unwrap_or_default();
                journey.step("policy", "info", format!("rule {rule} of {policy} nearly matched: {problem}"));
            }
        }
    }
}

impl Sources {
    /// The address that the pod finds for `host`; `None` if there is none.
    async fn resolve(&self, pod: &Pod, host: &str, journey: &mut Journey) -> Result<Option<IpAddr>, Refusal> {
        if let Ok(address) = host.parse() {
            return Ok(Some(address));
        }
        let in_file = addresses_in_hosts(&hosts(pod, &pod_addresses(pod), &self.cluster_dns.zone), host);
        if let Some(address) = in_file.first() {
            journey.step("name", "ok", format!("{host} is {address} in the pod's /etc/hosts"));
            return Ok(Some(*address));
        }
        let mut answers = self.lookup(Some(pod), host, "A").await?;
        if !answers.iter().any(|answer| answer.answers.iter().any(|record| record.record_type == "A")) {
            let six = self.lookup(Some(pod), host, "AAAA").await?;
            answers.extend(six.into_iter().filter(|answer| !answer.answers.is_empty()));
        }
        for answer in answers {
            let addresses: Vec<&str> = answer
                .answers
                .iter()
                .filter(|record| matches!(record.record_type.as_str(), "A" | "AAAA"))
                .map(|record| record.data.as_str())
                .collect();
            let aliases = answer.answers.iter().filter(|record| record.record_type == "CNAME");
            let aliases: String = aliases.map(|record| format!(" is another name for {}", record.data)).collect();
            match addresses.first().and_then(|address| address.parse().ok()) {
                Some(address) => {
                    journey.step("name", "ok", format!("{}{aliases}: {}", answer.name, addresses.join(", ")));
                    return Ok(Some(address));
                }
                None => journey.step("name", "info", format!("{}{aliases}: {}", answer.name, empty(&answer.rcode))),
            }
        }
        journey.step("name", "failed", format!("{host} has no address"));
        Ok(None)
    }

    /// Opens a connection as the pod does, and says what became of it.
    async fn connect(
        &self,
        pod: &Pod,
        source: IpAddr,
        dst: SocketAddr,
        wait: Duration,
        journey: &mut Journey,
    ) -> Result<Value, Refusal> {
        let host = alive(&self.nodes)?.pod_host(pod).ok_or_else(|| {
            Status::failure(503, "ServiceUnavailable", format!("pod {} does not run", full_name(pod)))
        })?;
        let began = Instant::now();
        let connected = timeout(wait, host.tcp_connect(dst)).await;
        let took = began.elapsed();
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let (outcome, why) = match connected {
            Ok(Ok(stream)) => {
                let src = SocketAddr::new(source, stream.local_addr().port());
                let flow = self.network.flows().into_iter().find(|flow| {
                    flow.original.protocol == Protocol::Tcp && flow.original.src == src && flow.original.dst == dst
                });
                let (endpoint, seen) = flow.map_or((dst, src), |flow| (flow.translated.dst, flow.translated.src));
                let pod = self.pod_at(endpoint.ip()).map(|pod| full_name(&pod));
                let whose = pod.as_ref().map(|pod| format!(" ({pod})")).unwrap_or_default();
                let text = format!("connected to {endpoint}{whose} in {microseconds} µs; it sees {seen}");
                journey.step("connection", "ok", text);
                return Ok(json!({"outcome": "Connected", "endpoint": endpoint, "pod": pod, "sourceAsSeen": seen,
                    "microseconds": microseconds}));
            }
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                ("Refused", format!("refused after {microseconds} µs: {error}"))
            }
            Ok(Err(error)) => ("Failed", format!("failed after {microseconds} µs: {error}")),
            Err(_) => ("TimedOut", format!("no answer within {} s", wait.as_secs())),
        };
        let mut connection = json!({"outcome": outcome, "error": why, "microseconds": microseconds});
        if let Some(reason) = self.last_drop(source, dst, began) {
            connection["reason"] = reason.into();
            // What Services and policies refuse has been explained by them.
            if let Some(text) = network_reason(reason, self.network.counters().flow_limit) {
                journey.step("network", "failed", format!("{reason}: {text}"));
            }
        }
        journey.step("connection", "failed", format!("{} {dst}: {why}", protocol_name(Protocol::Tcp)));
        Ok(connection)
    }

    /// Why the newest packet of such a connection was not delivered.
    fn last_drop(&self, source: IpAddr, dst: SocketAddr, since: Instant) -> Option<&'static str> {
        let mut drops = self.network.flow_events(true, usize::MAX);
        let all = std::iter::from_fn(|| drops.take());
        let of_it = all.filter(|event| {
            let flow = &event.original;
            event.at >= since && flow.protocol == Protocol::Tcp && flow.src.ip() == source && flow.dst == dst
        });
        let reasons = of_it.filter_map(|event| match event.change {
            FlowChange::Dropped(reason) => Some(policy::reason::code(reason)),
            _ => None,
        });
        reasons.last()
    }
}

/// What a reason of the network itself means.
fn network_reason(reason: &str, flow_limit: u64) -> Option<String> {
    Some(match reason {
        "CONNTRACK_FULL" => {
            format!(
                "the connection-tracking table is full: all its {flow_limit} flows are alive, so new ones are dropped"
            )
        }
        "LISTEN_QUEUE_FULL" => {
            "the server has so many connections waiting to be accepted that new ones are dropped".to_owned()
        }
        "SNAT_PORTS_EXHAUSTED" => {
            "every source port of the address that the connection would be seen as is taken by another".to_owned()
        }
        "NO_ROUTE" => "nobody has the address".to_owned(),
        _ => return None,
    })
}

fn empty(rcode: &str) -> &str {
    if rcode == "NOERROR" { "the name exists, without addresses" } else { rcode }
}
