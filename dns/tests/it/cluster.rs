//! A cluster of objects without a cluster, and questions to its DNS server.

use dns::{Config, Dns, Sources, Transport};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use informer::{Activity, Informer};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::ObjectMeta;
use serde_json::{Value, json};
use std::net::IpAddr;

pub(crate) struct Cluster {
    pub(crate) dns: Dns,
    pub(crate) sources: Sources,
    pub(crate) activity: Activity,
}

/// A cluster with the namespaces `default`, `kube-system` and `prod`, and the server's own Service.
pub(crate) async fn cluster() -> Cluster {
    cluster_with(Config::new("cluster.local")).await
}

pub(crate) async fn cluster_with(config: Config) -> Cluster {
    let activity = Activity::default();
    let sources = Sources {
        services: Informer::detached(activity.clone()),
        endpoint_slices: Informer::detached(activity.clone()),
        namespaces: Informer::detached(activity.clone()),
        pods: Informer::detached(activity.clone()),
    };
    let dns = dns::start_with(sources.clone(), config);
    let cluster = Cluster { dns, sources, activity };
    for name in ["default", "kube-system", "prod"] {
        cluster.sources.namespaces.apply(namespace(name));
    }
    cluster.service("kube-system", "kube-dns", json!({"clusterIP": "10.96.0.10"})).await;
    cluster.dns.synced().await;
    cluster
}

impl Cluster {
    pub(crate) async fn service(&self, namespace: &str, name: &str, spec: Value) {
        self.sources.services.apply(service(namespace, name, spec));
        self.activity.idle().await;
    }

    /// A slice of a Service; `endpoints` are `(address, hostname, ready)`.
    pub(crate) async fn slice(&self, of: (&str, &str), name: &str, endpoints: &[(&str, &str, Value)], ports: Value) {
        self.sources.endpoint_slices.apply(slice(of, name, endpoints, ports));
        self.activity.idle().await;
    }

    pub(crate) async fn ask_bytes(&self, request: &[u8], transport: Transport) -> Option<Vec<u8>> {
        self.dns.answer(request, transport, None).await
    }

    pub(crate) async fn ask_message(&self, request: &Message, transport: Transport) -> Message {
        let reply = self.dns.answer(&request.to_vec().unwrap(), transport, None).await.expect("a request is answered");
        Message::from_vec(&reply).expect("the reply is a message")
    }

    /// Asks as a pod that has been attached; `None` if it is not answered.
    pub(crate) async fn ask_from(&self, ip: &str, name: &str, kind: RecordType) -> Option<Message> {
        let request = query(name, kind).to_vec().unwrap();
        let reply = self.dns.answer(&request, Transport::Udp, Some(ip.parse().unwrap())).await?;
        Some(Message::from_vec(&reply).expect("the reply is a message"))
    }

    /// A pod whose first packet is near: with the usual search list of its namespace, and perhaps faults.
    pub(crate) fn attach(&self, pod: &Pod, ip: &str) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let resolv_conf = format!(
            "nameserver 10.96.0.10\nsearch {namespace}.svc.cluster.local svc.cluster.local cluster.local corp.example\noptions ndots:5\n"
        );
        self.dns.attach(pod, &[ip.parse().unwrap()], &resolv_conf);
    }

    pub(crate) async fn ask(&self, name: &str, kind: RecordType) -> Message {
        self.ask_message(&query(name, kind), Transport::Tcp).await
    }

    /// Code and answers, one line each, in a stable order.
    pub(crate) async fn dig(&self, name: &str, kind: RecordType) -> String {
        show(&self.ask(name, kind).await)
    }

    /// NXDOMAIN, with the zone's SOA.
    pub(crate) async fn no_such_name(&self, name: &str) {
        for kind in [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::TXT] {
            let reply = self.ask(name, kind).await;
            assert_eq!(code(&reply), ResponseCode::NXDomain, "{name} {kind}");
            assert_eq!((reply.answers.len(), kinds(&reply.authorities)), (0, vec![RecordType::SOA]), "{name} {kind}");
            assert!(reply.metadata.authoritative, "{name} {kind}");
        }
    }

    /// NOERROR without answers, with the zone's SOA.
    pub(crate) async fn no_data(&self, name: &str, of: &[RecordType]) {
        for kind in of {
            let reply = self.ask(name, *kind).await;
            assert_eq!(code(&reply), ResponseCode::NoError, "{name} {kind}");
            assert_eq!((reply.answers.len(), kinds(&reply.authorities)), (0, vec![RecordType::SOA]), "{name} {kind}");
            assert!(reply.metadata.authoritative, "{name} {kind}");
        }
    }
}

pub(crate) fn namespace(name: &str) -> Namespace {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    Namespace { metadata, ..Namespace::default() }
}

pub(crate) fn service(namespace: &str, name: &str, spec: Value) -> Service {
    object(json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec}))
}

pub(crate) fn slice(of: (&str, &str), name: &str, endpoints: &[(&str, &str, Value)], ports: Value) -> EndpointSlice {
    let v6 = endpoints.iter().any(|(address, ..)| address.contains(':'));
    let endpoint = |(address, hostname, ready): &(&str, &str, Value)| {
        let mut endpoint = json!({"addresses": [address], "conditions": {"ready": ready}});
        if !hostname.is_empty() {
            endpoint["hostname"] = json!(hostname);
        }
        endpoint
    };
    object(json!({
        "metadata": {"namespace": of.0, "name": name, "labels": {"kubernetes.io/service-name": of.1}},
        "addressType": if v6 { "IPv6" } else { "IPv4" },
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": ports,
    }))
}

pub(crate) fn pod(namespace: &str, name: &str, ip: &str) -> Pod {
    object(json!({"metadata": {"namespace": namespace, "name": name}, "status": {"phase": "Running", "podIP": ip}}))
}

pub(crate) fn pod_with_faults(name: &str, ip: &str, faults: &str) -> Pod {
    let mut pod = pod("default", name, ip);
    pod.metadata.uid = Some(format!("uid-{name}"));
    pod.metadata.annotations = Some([(dns::FAULTS.to_owned(), faults.to_owned())].into());
    pod
}

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

pub(crate) fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

pub(crate) fn query(text: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), kind));
    message
}

pub(crate) fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

pub(crate) fn code(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

pub(crate) fn kinds(records: &[Record]) -> Vec<RecordType> {
    records.iter().map(Record::record_type).collect()
}

pub(crate) fn addresses(message: &Message) -> Vec<IpAddr> {
    let address = |record: &Record| match &record.data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(a) => Some(IpAddr::V6(a.0)),
        _ => None,
    };
    message.answers.iter().filter_map(address).collect()
}

/// Code and answers as text; addresses sorted, since their order is by chance.
pub(crate) fn show(message: &Message) -> String {
    let line = |record: &Record| {
        format!("{} {} {} {}\n", record.name.to_ascii(), record.ttl, record.record_type(), record.data)
    };
    let mut lines: Vec<String> = message.answers.iter().map(line).collect();
    let aliases = message.answers.iter().take_while(|record| record.record_type() == RecordType::CNAME).count();
    lines[aliases..].sort();
    format!("{:?}\n{}", code(message), lines.concat())
}
