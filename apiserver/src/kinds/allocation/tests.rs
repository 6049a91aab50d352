//! The rules of allocation, by the numbers of the semantics they follow (§3).

use super::*;
use crate::kinds::service;
use crate::registry::ResourceKind;
use serde_json::json;
use store::{MemoryStore, Txn};

mod model;
mod repair;

/// A pool with a store, in which Services are written as the handler does.
struct Cluster {
    store: MemoryStore,
    allocator: Allocator,
}

fn networking(cidrs: &[&str]) -> Networking {
    let service_cidrs: Vec<Cidr> = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
    Networking { dual_stack: service_cidrs.len() > 1, service_cidrs, seed: 7, ..Networking::default() }
}

impl Cluster {
    fn new(cidrs: &[&str]) -> Self {
        Cluster { store: MemoryStore::new(), allocator: Allocator::new(networking(cidrs)) }
    }

    fn kind() -> ResourceKind {
        ResourceKind::new("", "v1", "Service", "services").with_status()
    }

    async fn write(&self, name: &str, old: Option<&Value>, spec: Value) -> Result<Value, Status> {
        let metadata = json!({"name": name, "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"});
        let mut new = json!({"metadata": metadata, "spec": spec});
        service::prepare(&Self::kind(), &mut new, old, "");
        service::default(&Self::kind(), &mut new);
        let (compares, operations) = self.allocator.writes(&self.store, old, Some(&mut new), false).await?;
        self.store.txn(Txn { compares, operations }).await.map_err(Status::internal)?;
        Ok(new["spec"].take()).map(|spec| json!({"metadata": metadata, "spec": spec}))
    }

    async fn create(&self, name: &str, spec: Value) -> Result<Value, Status> {
        self.write(name, None, spec).await
    }

    async fn delete(&self, service: &Value) {
        let (compares, operations) = self.allocator.writes(&self.store, Some(service), None, false).await.unwrap();
        self.store.txn(Txn { compares, operations }).await.unwrap();
    }

    async fn keys(&self) -> Vec<String> {
        let range = store::Range { prefix: "/registry/".to_owned(), ..store::Range::default() };
        self.store.range(range).await.unwrap().items.iter().map(|item| item.key.replace("/registry/", "")).collect()
    }
}

fn web() -> Value {
    json!({"selector": {"app": "web"}, "ports": [{"port": 80}]})
}

fn with(mut spec: Value, fields: Value) -> Value {
    for (key, value) in fields.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

#[track_caller]
fn refused(result: Result<Value, Status>, expected: &str) {
    let status = result.expect_err("it is refused");
    assert_eq!(status.message, expected);
}

#[test]
fn rule_3_2_the_bands_of_a_network() {
    let bands = |cidr: &str| {
        let network: Cidr = cidr.parse().unwrap();
        let bands = addresses::Bands::of(&network);
        (
            network.nth(bands.split).to_string(),
            network.nth(bands.split + 1).to_string(),
            network.nth(bands.last).to_string(),
        )
    };
    let text = |one: &str, two: &str, three: &str| (one.to_owned(), two.to_owned(), three.to_owned());
    assert_eq!(bands("10.96.0.0/12"), text("10.96.1.0", "10.96.1.1", "10.111.255.254"));
    assert_eq!(bands("10.96.0.0/24"), text("10.96.0.16", "10.96.0.17", "10.96.0.254"));
    assert_eq!(bands("10.96.0.0/28"), text("10.96.0.0", "10.96.0.1", "10.96.0.14"));
    assert_eq!(bands("fd00::/112"), text("fd00::100", "fd00::101", "fd00::ffff"));
}

#[tokio::test]
async fn rule_3_1_network_and_broadcast_addresses_are_unusable() {
    let cluster = Cluster::new(&["10.96.0.0/24"]);
    for ip in ["10.96.0.0", "10.96.0.255"] {
        refused(
            cluster.create("web", with(web(), json!({"clusterIP": ip}))).await,
            &format!(
                "Service \"web\" is invalid: spec.clusterIPs: Invalid value: [\"{ip}\"]: failed to allocate IP {ip}: the provided IP ({ip}) is \
                 not in the valid range. The range of valid IPs is 10.96.0.0/24"
            ),
        );
    }
    assert!(cluster.create("kubernetes", with(web(), json!({"clusterIP": "10.96.0.1"}))).await.is_ok());
}

#[tokio::test]
async fn rule_3_2_dynamic_addresses_come_from_the_upper_band_until_it_is_full() {
    let cluster = Cluster::new(&["10.96.0.0/27"]); // 16 static ones, 14 dynamic ones
    let mut given = Vec::new();
    for number in 0..29 {
        let service = cluster.create(&format!("web-{number}"), web()).await.unwrap();
        given.push(text(&service, "/spec/clusterIP").rsplit_once('.').unwrap().1.parse::<u8>().unwrap());
    }
    assert!(given[..14].iter().all(|last| (17..=30).contains(last)), "{given:?}");
    assert!(given[14..].iter().all(|last| (2..=16).contains(last)), "the first stays for the API server: {given:?}");
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), 29, "each is given once");
    refused(
        cluster.create("one-too-many", web()).await,
        "Internal error occurred: failed to allocate a serviceIP: range is full",
    );
}

#[tokio::test]
async fn rule_3_2_the_choice_follows_the_seed() {
    let (one, other) = (Cluster::new(&["10.96.0.0/12"]), Cluster::new(&["10.96.0.0/12"]));
    assert_eq!(one.create("web", web()).await.unwrap(), other.create("web", web()).await.unwrap());
}

#[tokio::test]
async fn rule_3_3_a_static_address_is_free_and_in_range_or_refused() {
    let cluster = Cluster::new(&["10.96.0.0/12"]);
    let service = cluster.create("dns", with(web(), json!({"clusterIP": "10.96.0.10"}))).await.unwrap();
    assert_eq!(service["spec"]["clusterIPs"], json!(["10.96.0.10"]));
    refused(
        cluster.create("web", with(web(), json!({"clusterIP": "10.96.0.10"}))).await,
        "Service \"web\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to allocate IP 10.96.0.10: provided IP is \
         already allocated",
    );
    let status = cluster.create("web", with(web(), json!({"clusterIP": "10.95.0.1"}))).await.unwrap_err();
    assert_eq!(status.code, 422);
    assert_eq!(status.details.unwrap()["causes"][0]["field"], "spec.clusterIPs");
}

#[tokio::test]
async fn rule_3_4_the_bands_of_node_ports_and_their_texts() {
    let cluster = Cluster::new(&["10.96.0.0/12"]);
    assert_eq!(cluster.allocator.static_ports(), 86);
    let service = cluster.create("web", with(web(), json!({"type": "NodePort"}))).await.unwrap();
    let port = int(&service, "/spec/ports/0/nodePort").unwrap();
    assert!((30086..=32767).contains(&port), "{port}");
    let node_port = |port: i64| json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    refused(
        cluster.create("b", with(web(), node_port(port))).await,
        &format!(
            "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: {port}: provided port is already allocated"
        ),
    );
    refused(
        cluster.create("b", with(web(), node_port(80))).await,
        "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid \
         ports is 30000-32767",
    );
}

#[tokio::test]
async fn rule_3_4_dynamic_ports_fall_back_to_the_static_band_until_all_are_given() {
    let mut networking = networking(&["10.96.0.0/12"]);
    networking.node_ports = 30000..=30039; // 16 static ones, 24 dynamic ones
    let cluster = Cluster { store: MemoryStore::new(), allocator: Allocator::new(networking) };
    let mut given = Vec::new();
    for number in 0..40 {
        let spec = with(web(), json!({"type": "NodePort"}));
        let service = cluster.create(&format!("web-{number}"), spec).await.unwrap();
        given.push(int(&service, "/spec/ports/0/nodePort").unwrap());
    }
    assert!(given[..24].iter().all(|port| *port >= 30016), "{given:?}");
    given.sort_unstable();
    assert_eq!(given, (30000..=30039).collect::<Vec<_>>());
    refused(
        cluster.create("late", with(web(), json!({"type": "NodePort"}))).await,
        "Internal error occurred: failed to allocate a nodePort: range is full",
    );
}

#[tokio::test]
async fn rule_3_5_one_port_number_has_one_node_port_for_all_its_protocols() {
    let cluster = Cluster::new(&["10.96.0.0/12"]);
    let ports =
        json!([{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}, {"name": "m", "port": 9153}]);
    let service = cluster.create("dns", json!({"type": "NodePort", "ports": ports})).await.unwrap();
    let node_ports: Vec<i64> =
        list(&service, "/spec/ports").iter().map(|port| int(port, "/nodePort").unwrap()).collect();
    assert_eq!(node_ports[0], node_ports[1]);
    assert_ne!(node_ports[0], node_ports[2]);

    let ports = json!([{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP", "nodePort": 30053}]);
    let service = cluster.create("given", json!({"type": "NodePort", "ports": ports})).await.unwrap();
    assert_eq!(service["spec"]["ports"][0]["nodePort"], 30053, "the one the user gave, though it stands later");

    let ports = json!([{"name": "t", "port": 53, "nodePort": 30054}, {"name": "u", "port": 53, "protocol": "UDP", "nodePort": 30055}]);
    let service = cluster.create("apart", json!({"type": "NodePort", "ports": ports})).await.unwrap();
    assert_eq!(service["spec"]["ports"][1]["nodePort"], 30055, "explicit ones are honoured");
}

#[tokio::test]
async fn rule_3_5_a_load_balancer_may_do_without_node_ports() {
    let cluster = Cluster::new(&["10.96.0.0/12"]);
    let balancer = with(web(), json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false}));
    let service = cluster.create("a", balancer.clone()).await.unwrap();
    assert_eq!(service["spec"]["ports"][0].get("nodePort"), None);
    let ports = json!({"ports": [{"port": 80, "nodePort": 30080}]});
    cluster.create("b", with(balancer, ports.clone())).await.unwrap();
    let taken = cluster.create("c", with(with(web(), json!({"type": "NodePort"})), ports)).await;
    assert!(
        taken.unwrap_err().message.ends_with("provided port is already allocated"),
        "explicit ones are reserved all the same"
    );
}

#[tokio::test]
async fn rule_3_6_a_local_load_balancer_has_a_health_check_port_as_long_as_it_is_one() {
    let cluster = Cluster::new(&["10.96.0.0/12"]);
    let local = with(web(), json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}));
    let service = cluster.create("web", local.clone()).await.unwrap();
    let port = int(&service, "/spec/healthCheckNodePort").unwrap();
    assert!((30086..=32767).contains(&port));
    assert_ne!(service["spec"]["ports"][0]["nodePort"], port);
    assert!(cluster.keys().await.contains(&format!("nodeports/{port}")));

    let mut spec = service["spec"].clone();
    spec["externalTrafficPolicy"] = json!("Cluster");
    let service = cluster.write("web", Some(&service), spec).await.unwrap();
    assert_eq!(service["spec"].get("healthCheckNodePort"), None);
    assert!(!cluster.keys().await.contains(&format!("nodeports/{port}")));
}

#[tokio::test]
async fn rule_3_7_families_on_a_single_stack_cluster() {
    let cluster = Cluster::new(&["10.96.0.0/12"]);
    let families = |service: &Value| (service["spec"]["ipFamilyPolicy"].clone(), service["spec"]["ipFamilies"].clone());
    let create = |name: &'static str, fields: Value| cluster.create(name, with(web(), fields));

    let service = create("a", json!({})).await.unwrap();
    assert_eq!(families(&service), (json!("SingleStack"), json!(["IPv4"])));
    let service = create("b", json!({"ipFamilyPolicy": "PreferDualStack"})).await.unwrap();
    assert_eq!(families(&service), (json!("PreferDualStack"), json!(["IPv4"])));
    let service = create("c", json!({"clusterIP": "None"})).await.unwrap();
    assert_eq!(families(&service), (json!("SingleStack"), json!(["IPv4"])));
    assert_eq!(service["spec"]["clusterIPs"], json!(["None"]));
    let service = create("d", json!({"clusterIP": "None", "selector": {}})).await.unwrap();
    assert_eq!(
        families(&service),
        (json!("RequireDualStack"), json!(["IPv4", "IPv6"])),
        "whoever brings the endpoints"
    );

    let text = |name: &str, error: &str| format!("Service \"{name}\" is invalid: {error}");
    refused(
        create("e", json!({"ipFamilyPolicy": "RequireDualStack"})).await,
        &text(
            "e",
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
        ),
    );
    refused(
        create("e", json!({"ipFamilies": ["IPv6"]})).await,
        &text("e", "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"),
    );
    refused(
        create("e", json!({"clusterIP": "fd00::7"})).await,
        &text("e", "spec.clusterIPs[0]: Invalid value: [\"fd00::7\"]: IPv6 is not configured on this cluster"),
    );
    refused(
        create("e", json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]})).await,
        &text(
            "e",
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families \
             are specified",
        ),
    );
}

#[tokio::test]
async fn rule_3_7_families_on_a_dual_stack_cluster() {
    let cluster = Cluster::new(&["10.96.0.0/12", "fd00::/112"]);
    let service = cluster.create("a", with(web(), json!({"ipFamilyPolicy": "PreferDualStack"}))).await.unwrap();
    let ips = texts(&service, "/spec/clusterIPs");
    assert_eq!(service["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert!(ips[0].starts_with("10.") && ips[1].starts_with("fd00::"), "{ips:?}");

    let service = cluster
        .create("b", with(web(), json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]})))
        .await
        .unwrap();
    assert_eq!(service["spec"]["ipFamilies"], json!(["IPv6", "IPv4"]), "the order decides which is primary");
    assert!(text(&service, "/spec/clusterIP").starts_with("fd00::"));

    let service = cluster.create("c", with(web(), json!({"clusterIP": "fd00::7"}))).await.unwrap();
    assert_eq!(service["spec"]["ipFamilies"], json!(["IPv6"]), "from the address");
}

#[tokio::test]
async fn rule_3_7_a_second_family_comes_and_goes_while_the_primary_stays() {
    let cluster = Cluster::new(&["10.96.0.0/12", "fd00::/112"]);
    let single = cluster.create("web", web()).await.unwrap();
    let primary = single["spec"]["clusterIP"].clone();

    let mut spec = single["spec"].clone();
    spec["ipFamilyPolicy"] = json!("RequireDualStack");
    let dual = cluster.write("web", Some(&single), spec).await.unwrap();
    assert_eq!(dual["spec"]["clusterIPs"][0], primary);
    let second = dual["spec"]["clusterIPs"][1].as_str().unwrap().to_owned();
    assert!(cluster.keys().await.contains(&format!("ipaddresses.networking.k8s.io/{second}")));

    let mut spec = dual["spec"].clone();
    spec["ipFamilyPolicy"] = json!("SingleStack");
    let single = cluster.write("web", Some(&dual), spec).await.unwrap();
    assert_eq!(single["spec"]["clusterIPs"], json!([primary]));
    assert_eq!(single["spec"]["ipFamilies"], json!(["IPv4"]));
    assert!(!cluster.keys().await.contains(&format!("ipaddresses.networking.k8s.io/{second}")));
}

#[tokio::test]
async fn rule_3_7_what_prefers_dual_stack_is_not_changed_in_passing() {
    let before = Cluster::new(&["10.96.0.0/12"]);
    let service = before.create("web", with(web(), json!({"ipFamilyPolicy": "PreferDualStack"}))).await.unwrap();
    let now_dual =
        Cluster { store: before.store, allocator: Allocator::new(networking(&["10.96.0.0/12", "fd00::/112"])) };
    let spec = with(service["spec"].clone(), json!({"sessionAffinity": "ClientIP"}));
    let updated = now_dual.write("web", Some(&service), spec).await.unwrap();
    assert_eq!(updated["spec"]["clusterIPs"], service["spec"]["clusterIPs"]);
}

#[tokio::test]
async fn rule_3_8_an_ip_address_object_says_whose_the_address_is() {
    let cluster = Cluster::new(&["10.96.0.0/12"]);
    let service = cluster.create("web", with(web(), json!({"clusterIP": "10.96.0.10"}))).await.unwrap();
    let stored = cluster.store.get("/registry/ipaddresses.networking.k8s.io/10.96.0.10").await.unwrap().unwrap();
    let mut object: Value = serde_json::from_slice(&stored.value).unwrap();
    assert_eq!(object["metadata"]["uid"].as_str().unwrap().len(), 36);
    object["metadata"]["uid"] = json!("…");
    assert_eq!(
        object,
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {"name": "10.96.0.10", "uid": "…", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}},
            "spec": {"parentRef": {"group": "", "resource": "services", "namespace": "default", "name": "web"}}}),
    );
    cluster.delete(&service).await;
    assert_eq!(cluster.keys().await, Vec::<String>::new());
}

#[tokio::test]
async fn rule_3_8_a_further_service_cidr_extends_the_pool() {
    let cluster = Cluster::new(&["10.96.0.0/30"]); // two addresses, one of them the API server's
    cluster.create("a", web()).await.unwrap();
    assert!(cluster.create("b", web()).await.is_err());
    let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/24"]}});
    let key = "/registry/servicecidrs.networking.k8s.io/more".into();
    let operations = vec![Operation::Put { key, value: Bytes::from(object.to_string()) }];
    cluster.store.txn(Txn { compares: Vec::new(), operations }).await.unwrap();
    let service = cluster.create("b", web()).await.unwrap();
    assert!(text(&service, "/spec/clusterIP").starts_with("10.97.0."), "{service}");
    assert!(cluster.create("c", with(web(), json!({"clusterIP": "10.97.0.9"}))).await.is_ok());
}

#[tokio::test]
async fn rule_3_8_a_service_cidr_that_is_being_deleted_gives_out_no_more() {
    let cluster = Cluster::new(&["10.96.0.0/30"]);
    cluster.create("a", web()).await.unwrap();
    let key: store::Key = "/registry/servicecidrs.networking.k8s.io/more".into();
    let put = async |deleted: Value| {
        let object =
            json!({"metadata": {"name": "more", "deletionTimestamp": deleted}, "spec": {"cidrs": ["10.97.0.0/24"]}});
        let operations = vec![Operation::Put { key: key.clone(), value: Bytes::from(object.to_string()) }];
        cluster.store.txn(Txn { compares: Vec::new(), operations }).await.unwrap();
    };
    put(Value::Null).await;
    // A Service is given an address of it; before that is written, the deletion is.
    let mut service = json!({"metadata": {"name": "late", "namespace": "default"}, "spec": with(web(), json!({"type": "ClusterIP"}))});
    let (compares, operations) =
        cluster.allocator.writes(&cluster.store, None, Some(&mut service), false).await.unwrap();
    assert!(text(&service, "/spec/clusterIP").starts_with("10.97.0."), "{service}");
    put(json!("2026-01-01T00:00:00Z")).await;
    assert!(cluster.store.txn(Txn { compares, operations }).await.is_err(), "the write is made anew");
    refused(
        cluster.create("late", web()).await,
        "Internal error occurred: failed to allocate a serviceIP: range is full",
    );
}

#[tokio::test]
async fn rule_3_8_the_default_range_too_gives_out_no_more_when_its_service_cidr_is_being_deleted() {
    let cluster = Cluster::new(&["10.96.0.0/24", "fd00::/112"]);
    let put = async |name: &str, metadata: Value, cidrs: Value, ready: &str| {
        let object = json!({"metadata": with(metadata, json!({"name": name})), "spec": {"cidrs": cidrs},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let key = format!("/registry/servicecidrs.networking.k8s.io/{name}").into();
        let operations = vec![Operation::Put { key, value: Bytes::from(object.to_string()) }];
        cluster.store.txn(Txn { compares: Vec::new(), operations }).await.unwrap();
    };
    let own = json!(["10.96.0.0/24", "fd00::/112"]);
    let full = "Internal error occurred: failed to allocate a serviceIP: range is full";
    let before =
        cluster.create("before", web()).await.expect("it is not there yet, and the cluster's own Services are");
    put("kubernetes", json!({}), own.clone(), "True").await;
    cluster.create("ready", web()).await.expect("a ready one gives");

    // Given an address before the deletion, written after it: made anew.
    let mut late = json!({"metadata": {"name": "late", "namespace": "default"}, "spec": with(web(), json!({"type": "ClusterIP"}))});
    let (compares, operations) = cluster.allocator.writes(&cluster.store, None, Some(&mut late), false).await.unwrap();
    put("kubernetes", json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), own.clone(), "True").await;
    assert!(cluster.store.txn(Txn { compares, operations }).await.is_err());
    refused(cluster.create("late", web()).await, full);
    refused(cluster.create("late", with(web(), json!({"ipFamilies": ["IPv6"]}))).await, full);
    refused(
        cluster.create("late", with(web(), json!({"clusterIP": "10.96.0.9"}))).await,
        "Service \"late\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.9\"]: failed to allocate IP 10.96.0.9: the provided \
         network does not match the current range",
    );
    let spec = with(before["spec"].clone(), json!({"sessionAffinity": "ClientIP"}));
    let before = cluster.write("before", Some(&before), spec).await.expect("who has an address keeps it");

    put("more", json!({}), json!(["10.97.0.0/24"]), "True").await;
    let elsewhere = cluster.create("elsewhere", web()).await.expect("another range gives");
    assert!(text(&elsewhere, "/spec/clusterIP").starts_with("10.97.0."), "{elsewhere}");
    put("more", json!({}), json!(["10.96.0.0/24"]), "True").await;
    let again = cluster.create("again", web()).await.expect("a new ServiceCIDR with the same network gives for it");
    assert!(text(&again, "/spec/clusterIP").starts_with("10.96.0."), "{again}");

    put("more", json!({}), json!(["10.96.0.0/24"]), "False").await;
    refused(cluster.create("late", web()).await, full);
    cluster.delete(&before).await;
    put("kubernetes", json!({}), own, "False").await;
    refused(cluster.create("late", web()).await, full);
}

#[tokio::test]
async fn rule_3_9_a_dry_run_answers_plausibly_and_takes_nothing() {
    let cluster = Cluster::new(&["10.96.0.0/12"]);
    let mut service =
        json!({"metadata": {"name": "web", "namespace": "default"}, "spec": with(web(), json!({"type": "NodePort"}))});
    let (compares, operations) =
        cluster.allocator.writes(&cluster.store, None, Some(&mut service), true).await.unwrap();
    assert!(compares.is_empty() && operations.is_empty());
    assert!(text(&service, "/spec/clusterIP").starts_with("10."));
    assert!(int(&service, "/spec/ports/0/nodePort").is_some());
}

#[tokio::test]
async fn rule_3_9_of_two_writes_for_one_address_one_loses() {
    let cluster = Cluster::new(&["10.96.0.0/12"]);
    let mut claims = Vec::new();
    for name in ["a", "b"] {
        let mut service = json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"]}});
        claims.push(cluster.allocator.writes(&cluster.store, None, Some(&mut service), false).await.unwrap());
    }
    let mut outcomes = Vec::new();
    for (compares, operations) in claims {
        outcomes.push(cluster.store.txn(Txn { compares, operations }).await.is_ok());
    }
    assert_eq!(outcomes, [true, false]);
}

#[tokio::test]
async fn rule_2_3_a_change_of_type_releases_in_the_same_transaction() {
    let cluster = Cluster::new(&["10.96.0.0/12"]);
    let service = cluster.create("web", with(web(), json!({"type": "NodePort"}))).await.unwrap();
    assert_eq!(cluster.keys().await.len(), 2);

    let spec = with(service["spec"].clone(), json!({"type": "ClusterIP"}));
    let service = cluster.write("web", Some(&service), spec).await.unwrap();
    assert_eq!(cluster.keys().await.len(), 1, "the node port is free");

    let spec = with(service["spec"].clone(), json!({"type": "ExternalName", "externalName": "a.b"}));
    let service = cluster.write("web", Some(&service), spec).await.unwrap();
    assert_eq!(cluster.keys().await, Vec::<String>::new(), "the address is free");

    let service = cluster.write("web", Some(&service), web()).await.unwrap();
    assert_eq!(cluster.keys().await.len(), 1, "and back again");
    assert_ne!(service["spec"]["clusterIP"], "");
}

#[tokio::test]
async fn an_update_keeps_what_the_service_holds() {
    let cluster = Cluster::new(&["10.96.0.0/12"]);
    let service = cluster.create("web", with(web(), json!({"type": "NodePort"}))).await.unwrap();
    let updated = cluster.write("web", Some(&service), with(web(), json!({"type": "NodePort"}))).await.unwrap();
    assert_eq!(updated, service);
}
