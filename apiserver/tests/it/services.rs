//! Addresses and node ports of Services as clients of the API see them (SEMANTICS 3), and what discovery says of the kinds around (17.5).

use crate::support::{Server, complete, server};
use futures::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::sync::mpsc;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

fn service(name: &str, fields: Value) -> Value {
    let mut spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80}]});
    for (key, value) in fields.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

async fn addresses(server: &Server) -> BTreeSet<String> {
    let list = server.get(ADDRESSES).await.ok();
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

#[tokio::test(start_paused = true)]
async fn rule_3_8_an_ip_address_comes_and_goes_with_its_service() {
    let server = server().await;
    let web = server.post(SERVICES, service("web", json!({}))).await.created();
    let ip = web["spec"]["clusterIP"].as_str().expect("an address");
    let address = server.get(&format!("{ADDRESSES}/{ip}")).await.ok();
    let parent = json!({"group": "", "resource": "services", "namespace": "default", "name": "web"});
    let named = json!({"resource": "services", "namespace": "default", "name": "web"});
    assert!(address["spec"]["parentRef"] == parent || address["spec"]["parentRef"] == named, "{address}");

    let mut gone = web.clone();
    gone["spec"] = json!({"type": "ExternalName", "externalName": "a.example"});
    server.put(&format!("{SERVICES}/web"), gone).await.ok();
    assert_eq!(addresses(&server).await, BTreeSet::new(), "freed with the change of type");
    let back = server.get(&format!("{SERVICES}/web")).await.ok();
    let mut back = back.clone();
    back["spec"] = json!({"type": "ClusterIP", "ports": [{"port": 80}]});
    server.put(&format!("{SERVICES}/web"), back).await.ok();
    assert_eq!(addresses(&server).await.len(), 1);
    server.delete(&format!("{SERVICES}/web"), json!({})).await.ok();
    assert_eq!(addresses(&server).await, BTreeSet::new(), "freed with the Service");
}

#[tokio::test(start_paused = true)]
async fn rule_3_9_services_created_at_once_share_neither_address_nor_node_port() {
    let server = server().await;
    let created = (0..120).map(|number| {
        let fields = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
        server.post(SERVICES, service(&format!("s{number}"), fields))
    });
    let (mut ips, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for answer in join_all(created).await {
        let spec = answer.created()["spec"].clone();
        assert!(ips.insert(spec["clusterIP"].as_str().expect("an address").to_owned()), "{spec}");
        for port in [&spec["ports"][0]["nodePort"], &spec["healthCheckNodePort"]] {
            assert!(ports.insert(port.as_i64().expect("a port")), "{spec}");
        }
    }
    assert_eq!(addresses(&server).await, ips);
    // Who asks for one address at the same time: one has it.
    let claims = (0..8)
        .map(|number| server.post(SERVICES, service(&format!("claim{number}"), json!({"clusterIP": "10.96.0.77"}))));
    let codes: Vec<u16> = join_all(claims).await.iter().map(|answer| answer.code.as_u16()).collect();
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 422).count(), 7, "{codes:?}");

    server.delete(SERVICES, json!({})).await.ok();
    assert_eq!(addresses(&server).await, BTreeSet::new());
    let free = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": ports.first()}]});
    server.post(SERVICES, service("again", free)).await.created();
}

#[tokio::test(start_paused = true)]
async fn rule_3_9_a_dry_run_shows_an_address_and_a_node_port_and_takes_neither() {
    let server = server().await;
    let dry = format!("{SERVICES}?dryRun=All");
    let shown = server.post(&dry, service("web", json!({"type": "NodePort"}))).await.created();
    assert!(shown["spec"]["clusterIP"].as_str().is_some_and(|ip| ip.starts_with("10.")), "{shown}");
    let port = shown["spec"]["ports"][0]["nodePort"].as_i64().expect("a node port");
    assert!((30086..=32767).contains(&port));
    assert_eq!(addresses(&server).await, BTreeSet::new());
    let taken =
        json!({"type": "NodePort", "clusterIP": shown["spec"]["clusterIP"], "ports": [{"port": 80, "nodePort": port}]});
    server.post(SERVICES, service("other", taken.clone())).await.created();
    assert_eq!(server.post(&dry, service("web", taken)).await.code, 422, "what is taken is taken in a dry run too");
}

#[tokio::test(start_paused = true)]
async fn an_ip_address_deleted_by_hand_comes_back_and_somebody_is_told() {
    let server = server().await;
    let web = server.post(SERVICES, service("web", json!({}))).await.created();
    let ip = web["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    let (found, mut findings) = mpsc::unbounded_channel();
    let api = server.api.clone();
    let keeping = tokio::spawn(async move { api.keep_repaired(found).await });
    tokio::task::yield_now().await;

    server.delete(&format!("{ADDRESSES}/{ip}"), json!({})).await.ok();
    let finding = findings.recv().await.expect("it is found");
    assert_eq!((finding.reason, finding.object["name"].as_str()), ("ClusterIPNotAllocated", Some("web")));
    assert_eq!(addresses(&server).await, BTreeSet::from([ip]));
    // A Service that goes takes its address with it, and nobody is told.
    server.delete(&format!("{SERVICES}/web"), json!({})).await.ok();
    server.post(SERVICES, service("next", json!({}))).await.created();
    assert!(findings.try_recv().is_err());
    keeping.abort();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_allocations_has_them_again_at_the_next_start() {
    let server = server().await;
    server.post(SERVICES, service("web", json!({"type": "NodePort"}))).await.created();
    let before = addresses(&server).await;
    server.delete(ADDRESSES, json!({})).await.ok();
    assert_eq!(addresses(&server).await, BTreeSet::new());
    let findings = server.api.repair().await.expect("repaired");
    assert_eq!(findings.iter().map(|finding| finding.reason).collect::<Vec<_>>(), ["ClusterIPNotAllocated"]);
    assert_eq!(addresses(&server).await, before);
    assert_eq!(server.api.repair().await.expect("repaired"), []);
}

#[tokio::test(start_paused = true)]
async fn rule_17_5_the_kinds_around_services_can_do_everything() {
    let server = complete().await;
    let all = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    for (group, plural, namespaced, status) in [
        ("networking.k8s.io", "ingressclasses", false, false),
        ("networking.k8s.io", "ingresses", true, true),
        ("networking.k8s.io", "ipaddresses", false, false),
        ("networking.k8s.io", "networkpolicies", true, false),
        ("networking.k8s.io", "servicecidrs", false, true),
        ("discovery.k8s.io", "endpointslices", true, false),
    ] {
        let list = server.get(&format!("/apis/{group}/v1")).await.ok();
        let resources = list["resources"].as_array().expect("resources");
        let entry = |name: &str| resources.iter().find(|resource| resource["name"] == name);
        let found = entry(plural).unwrap_or_else(|| panic!("no {plural} in {list}"));
        assert_eq!(found["namespaced"], namespaced, "{plural}");
        let mut verbs: Vec<&str> = found["verbs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        verbs.sort_unstable();
        assert_eq!(verbs, all, "{plural}");
        let part = entry(&format!("{plural}/status"));
        assert_eq!(part.is_some(), status, "{plural}/status");
        if let Some(part) = part {
            assert_eq!(part["verbs"], json!(["get", "patch", "update"]));
        }
    }
}
