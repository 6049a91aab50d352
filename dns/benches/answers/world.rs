//! A cluster of Services, what is asked about it, and the same as a zone file.

use dns::{Config, Dns, Sources};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use informer::{Activity, Informer};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use std::fmt::Write;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

pub(crate) const SERVICES: u32 = 10_000;
pub(crate) const ENDPOINTS: u32 = 10;

pub(crate) struct World {
    sources: Sources,
    activity: Activity,
}

fn cluster_ip(service: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 1, 0)) + service)
}

fn pod_ip(service: u32, endpoint: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + service * ENDPOINTS + endpoint)
}

fn from<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("an object")
}

fn slice(service: u32, endpoints: u32) -> EndpointSlice {
    let endpoints: Vec<_> = (0..endpoints)
        .map(|index| json!({"addresses": [pod_ip(service, index)], "conditions": {"ready": true}}))
        .collect();
    from(json!({
        "metadata": {"namespace": "default", "name": format!("s{service}-1"),
            "labels": {"kubernetes.io/service-name": format!("s{service}")}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    }))
}

impl World {
    pub(crate) fn of(services: u32) -> World {
        let activity = Activity::default();
        let sources = Sources {
            services: Informer::detached(activity.clone()),
            endpoint_slices: Informer::detached(activity.clone()),
            namespaces: Informer::detached(activity.clone()),
            pods: Informer::detached(activity.clone()),
        };
        for namespace in ["default", "kube-system"] {
            sources.namespaces.apply(from(json!({"metadata": {"name": namespace}})));
        }
        for service in 0..services {
            sources.services.apply(from(json!({
                "metadata": {"namespace": "default", "name": format!("s{service}")},
                "spec": {"clusterIP": cluster_ip(service), "clusterIPs": [cluster_ip(service)],
                    "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
            })));
            sources.endpoint_slices.apply(slice(service, ENDPOINTS));
        }
        World { sources, activity }
    }

    pub(crate) async fn settled(&self) {
        self.activity.idle().await;
    }

    pub(crate) async fn dns(&self) -> Dns {
        let mut config = Config::new("cluster.local");
        config.hosts = vec![("host.coracle.internal".to_owned(), Ipv4Addr::new(172, 18, 0, 254).into())];
        let dns = dns::start_with(self.sources.clone(), config);
        dns.synced().await;
        dns
    }

    /// Changes one Service's endpoints, and waits until the zone has them.
    pub(crate) async fn change(&self, round: u32) {
        self.sources.endpoint_slices.apply(slice(round * 37 % SERVICES, ENDPOINTS - 1 - round % 2));
        self.settled().await;
    }
}

/// What pods ask: a Service's A and AAAA, an endpoint, and a name that the search list makes up.
fn asked(services: u32) -> impl Iterator<Item = (String, RecordType)> {
    (0..services).flat_map(move |service| {
        let zone = "default.svc.cluster.local";
        let dashed = pod_ip(service, service % ENDPOINTS).to_string().replace('.', "-");
        [
            (format!("s{service}.{zone}"), RecordType::A),
            (format!("s{service}.{zone}"), RecordType::AAAA),
            (format!("{dashed}.s{service}.{zone}"), RecordType::A),
            (format!("www.example-{service}.com.{zone}"), RecordType::A),
        ]
    })
}

pub(crate) fn questions(services: u32) -> Vec<Vec<u8>> {
    let question = |(name, kind): (String, RecordType)| {
        let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name + ".").expect("a name"), kind));
        message.to_vec().expect("encodes")
    };
    asked(services).map(question).collect()
}

/// In dnsperf's form.
pub(crate) fn write_questions(path: &Path, services: u32) -> io::Result<()> {
    let lines: String = asked(services).map(|(name, kind)| format!("{name} {kind}\n")).collect();
    std::fs::write(path, lines)
}

/// The records of the zone's Services and endpoints.
pub(crate) fn records(services: u32) -> impl Iterator<Item = String> {
    (0..services).flat_map(|service| {
        let name = format!("s{service}.default.svc.cluster.local.");
        let endpoints = (0..ENDPOINTS).map(|index| pod_ip(service, index)).map({
            let name = name.clone();
            move |ip| format!("{}.{name} 5 IN A {ip}", ip.to_string().replace('.', "-"))
        });
        let srv = format!("_http._tcp.{name} 5 IN SRV 0 100 80 {name}");
        endpoints.chain([format!("{name} 5 IN A {}", cluster_ip(service)), srv]).collect::<Vec<_>>()
    })
}

/// As a master file (RFC 1035 5).
pub(crate) fn write_zone(path: &Path, services: u32) -> io::Result<()> {
    let mut text = String::from(
        "cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5\n\
         cluster.local. 5 IN NS ns.dns.cluster.local.\nns.dns.cluster.local. 5 IN A 10.96.0.10\n",
    );
    for record in records(services) {
        let _ = writeln!(text, "{record}");
    }
    std::fs::write(path, text)
}
