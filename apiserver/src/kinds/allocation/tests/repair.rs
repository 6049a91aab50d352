//! Allocations that are not as their Services say, and what becomes of them.

use super::*;

impl Cluster {
    async fn put(&self, key: &str, value: &Value) {
        let operations =
            vec![Operation::Put { key: format!("/registry/{key}").into(), value: Bytes::from(value.to_string()) }];
        self.store.txn(Txn { compares: Vec::new(), operations }).await.unwrap();
    }

    async fn erase(&self, key: &str) {
        let operations = vec![Operation::Delete { key: format!("/registry/{key}").into() }];
        self.store.txn(Txn { compares: Vec::new(), operations }).await.unwrap();
    }

    /// Creates a Service, its own object included.
    async fn stored(&self, name: &str, spec: Value) -> Value {
        let service = self.create(name, spec).await.unwrap();
        self.put(&format!("services/default/{name}"), &service).await;
        service
    }

    /// Each finding as "name reason: message".
    async fn repaired(&self) -> Vec<String> {
        let findings = self.allocator.repair(&self.store).await.unwrap();
        let mut texts: Vec<String> = findings
            .iter()
            .map(|finding| {
                format!("{} {}: {}", finding.object["name"].as_str().unwrap(), finding.reason, finding.message)
            })
            .collect();
        texts.sort();
        texts
    }

    async fn whose(&self, ip: &str) -> Option<String> {
        let kv = self.store.get(&format!("/registry/ipaddresses.networking.k8s.io/{ip}")).await.unwrap()?;
        let object: Value = serde_json::from_slice(&kv.value).unwrap();
        Some(text(&object, "/spec/parentRef/name").to_owned())
    }
}

fn node_port(ip: &str, port: i64) -> Value {
    json!({"type": "NodePort", "clusterIP": ip, "selector": {"app": "web"}, "ports": [{"port": 80, "nodePort": port}]})
}

#[tokio::test]
async fn what_is_in_order_is_left_alone() {
    let cluster = Cluster::new(&["10.96.0.0/24", "fd00::/112"]);
    cluster.stored("web", node_port("10.96.0.7", 30007)).await;
    cluster.stored("six", with(web(), json!({"ipFamilyPolicy": "RequireDualStack"}))).await;
    cluster.stored("away", json!({"type": "ExternalName", "externalName": "a.b"})).await;
    let before = cluster.store.revision();
    assert_eq!(cluster.repaired().await, Vec::<String>::new());
    assert_eq!(cluster.store.revision(), before, "nothing is written");
}

#[tokio::test]
async fn a_missing_allocation_is_reserved_at_the_next_start() {
    let cluster = Cluster::new(&["10.96.0.0/24"]);
    cluster.stored("web", node_port("10.96.0.7", 30007)).await;
    let before = cluster.keys().await;
    cluster.erase("ipaddresses.networking.k8s.io/10.96.0.7").await;
    cluster.erase("nodeports/30007").await;
    assert_eq!(
        cluster.repaired().await,
        [
            "web ClusterIPNotAllocated: Cluster IP [IPv4]: 10.96.0.7 is not allocated; repairing",
            "web PortNotAllocated: Port 30007 is not allocated; repairing",
        ]
    );
    assert_eq!(cluster.keys().await, before);
    assert_eq!(cluster.whose("10.96.0.7").await.as_deref(), Some("web"));
    assert_eq!(cluster.repaired().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_leaked_allocation_is_freed_at_the_next_start() {
    let cluster = Cluster::new(&["10.96.0.0/24"]);
    cluster.stored("gone", node_port("10.96.0.7", 30007)).await;
    cluster.erase("services/default/gone").await;
    // What somebody else has reserved is none of ours.
    let other = json!({"metadata": {"name": "10.96.0.9", "labels": {"ipaddress.kubernetes.io/managed-by": "somebody"}},
        "spec": {"parentRef": {"resource": "things", "name": "x"}}});
    cluster.put("ipaddresses.networking.k8s.io/10.96.0.9", &other).await;
    assert_eq!(
        cluster.repaired().await,
        [
            "10.96.0.7 IPAddressNotAllocated: IPAddress: 10.96.0.7 for Service default/gone appears to have leaked: cleaning up"
        ]
    );
    assert_eq!(cluster.keys().await, ["ipaddresses.networking.k8s.io/10.96.0.9"]);
    let again = cluster.create("again", node_port("10.96.0.7", 30007)).await;
    assert!(again.is_ok(), "both are free: {again:?}");
}

#[tokio::test]
async fn of_two_services_with_one_address_the_holder_keeps_it_and_the_other_is_told() {
    let cluster = Cluster::new(&["10.96.0.0/24"]);
    cluster.stored("a", node_port("10.96.0.7", 30007)).await;
    let mut twin = cluster.stored("b", node_port("10.96.0.8", 30008)).await;
    twin["spec"] = node_port("10.96.0.7", 30007);
    twin["spec"]["clusterIPs"] = json!(["10.96.0.7"]);
    cluster.put("services/default/b", &twin).await;
    assert_eq!(
        cluster.repaired().await,
        [
            "10.96.0.8 IPAddressNotAllocated: IPAddress: 10.96.0.8 for Service default/b appears to have leaked: cleaning up",
            "b ClusterIPAlreadyAllocated: Cluster IP [IPv4]:10.96.0.7 was assigned to multiple services; please recreate service",
            "b PortAlreadyAllocated: Port 30007 was assigned to multiple services; please recreate service",
        ]
    );
    assert_eq!(cluster.whose("10.96.0.7").await.as_deref(), Some("a"));
    // The one that gives way takes nothing with it.
    cluster.delete(&twin).await;
    assert_eq!(cluster.whose("10.96.0.7").await.as_deref(), Some("a"));
    assert!(cluster.keys().await.contains(&"nodeports/30007".to_owned()), "the node port is still a's");
}

#[tokio::test]
async fn an_allocation_with_a_wrong_reference_is_put_right() {
    let cluster = Cluster::new(&["10.96.0.0/24"]);
    cluster.stored("web", node_port("10.96.0.7", 30007)).await;
    let wrong = json!({"metadata": {"name": "10.96.0.7", "labels": {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}},
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "other"}}});
    cluster.put("ipaddresses.networking.k8s.io/10.96.0.7", &wrong).await;
    assert_eq!(
        cluster.repaired().await,
        [
            "web ClusterIPNotAllocated: the ClusterIP [IPv4]: 10.96.0.7 for Service default/web has a wrong reference; repairing"
        ]
    );
    assert_eq!(cluster.whose("10.96.0.7").await.as_deref(), Some("web"));
}

#[tokio::test]
async fn what_is_out_of_range_is_only_told() {
    let before = Cluster::new(&["10.96.0.0/24"]);
    before.stored("web", node_port("10.96.0.7", 30007)).await;
    before.erase("ipaddresses.networking.k8s.io/10.96.0.7").await;
    before.erase("nodeports/30007").await;
    let mut networking = networking(&["10.97.0.0/24"]);
    networking.node_ports = 31000..=31999;
    let cluster = Cluster { store: before.store, allocator: Allocator::new(networking) };
    assert_eq!(
        cluster.repaired().await,
        [
            "web ClusterIPOutOfRange: Cluster IP [IPv4]: 10.96.0.7 is not within any configured Service CIDR; please recreate service",
            "web PortOutOfRange: Port 30007 is not within the port range 31000-31999; please recreate service",
        ]
    );
    assert_eq!(cluster.keys().await, ["services/default/web"]);
}

#[tokio::test]
async fn an_ip_address_deleted_by_hand_is_reserved_again_while_its_service_has_it() {
    let cluster = Cluster::new(&["10.96.0.0/24"]);
    let service = cluster.stored("web", node_port("10.96.0.7", 30007)).await;
    let key = "/registry/ipaddresses.networking.k8s.io/10.96.0.7";
    let lost = cluster.store.get(key).await.unwrap().unwrap();
    cluster.erase("ipaddresses.networking.k8s.io/10.96.0.7").await;
    let finding = cluster.allocator.restore(&cluster.store, &lost).await.unwrap();
    assert_eq!((finding.reason, cluster.whose("10.96.0.7").await.as_deref()), ("ClusterIPNotAllocated", Some("web")));
    refused(
        cluster.create("thief", with(web(), json!({"clusterIP": "10.96.0.7"}))).await,
        "Service \"thief\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.7\"]: failed to allocate IP 10.96.0.7: provided IP is already \
         allocated",
    );
    cluster.delete(&service).await;
    cluster.erase("services/default/web").await;
    assert_eq!(cluster.allocator.restore(&cluster.store, &lost).await, None, "a Service that is gone needs none");
    assert_eq!(cluster.keys().await, Vec::<String>::new());
}
