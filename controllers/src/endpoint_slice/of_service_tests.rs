//! The rules of SEMANTICS 4.2–4.6 and 4.11, one by one.

use super::*;
use k8s_openapi::api::discovery::v1::Endpoint;
use serde_json::{Value, json};

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn service(change: Value) -> Service {
    let mut service = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "svc", "labels": {"team": "a"}, "creationTimestamp": "1970-01-01T00:00:01Z"},
        "spec": {"clusterIP": "10.96.0.20", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    });
    merge(&mut service, change);
    serde_json::from_value(service).expect("a Service")
}

/// Pod number `n`, ready on node-1.
fn pod_with(n: usize, change: Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": format!("web-{n}"), "namespace": "default", "uid": format!("uid-{n}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8000 + n}]}]},
        "status": {"phase": "Running", "podIP": format!("10.244.{}.{}", n / 250, n % 250), "podIPs": [{"ip": format!("10.244.{}.{}", n / 250, n % 250)}, {"ip": format!("fd00::{n:x}")}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:01:00Z"}]},
    });
    merge(&mut pod, change);
    serde_json::from_value(pod).expect("a Pod")
}

fn pod(n: usize) -> Pod {
    pod_with(n, json!({}))
}

fn nodes() -> BTreeMap<String, Arc<Node>> {
    let node = json!({"metadata": {"name": "node-1", "labels": {"topology.kubernetes.io/zone": "zone-a"}}});
    BTreeMap::from([("node-1".to_owned(), Arc::new(serde_json::from_value(node).expect("a Node")))])
}

/// The API server's side: slices with names.
#[derive(Default)]
struct World {
    slices: Vec<Arc<EndpointSlice>>,
    named: usize,
}

impl World {
    fn reconcile(&mut self, service: &Service, pods: &[Pod]) -> Writes {
        let pods: Vec<&Pod> = pods.iter().collect();
        let writes = reconcile(service, &pods, &nodes(), &self.slices);
        for slice in &writes.create {
            self.named += 1;
            let mut slice = slice.clone();
            slice.metadata.name = Some(format!("web-{}", self.named));
            self.slices.push(Arc::new(slice));
        }
        for update in &writes.update {
            let slice =
                self.slices.iter_mut().find(|slice| slice.metadata.name == update.metadata.name).expect("it exists");
            *slice = Arc::new(update.clone());
        }
        self.slices.retain(|slice| !writes.delete.iter().any(|gone| gone.metadata.name == slice.metadata.name));
        writes
    }

    fn sizes(&self) -> Vec<usize> {
        self.slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).collect()
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        self.slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()).cloned().collect()
    }
}

fn only(service: &Service, pod: Pod) -> Option<Endpoint> {
    let mut world = World::default();
    world.reconcile(service, &[pod]);
    world.endpoints().first().cloned()
}

fn counts(writes: &Writes) -> (usize, usize, usize) {
    (writes.create.len(), writes.update.len(), writes.delete.len())
}

#[test]
fn rule_4_2_terminal_pods_and_pods_without_an_address_are_no_endpoints() {
    for phase in ["Succeeded", "Failed"] {
        assert_eq!(only(&service(json!({})), pod_with(1, json!({"status": {"phase": phase}}))), None);
    }
    assert_eq!(only(&service(json!({})), pod_with(1, json!({"status": {"podIP": null, "podIPs": null}}))), None);
}

#[test]
fn rule_4_2_terminating_pods_are_endpoints_still() {
    let dying = pod_with(1, json!({"metadata": {"deletionTimestamp": "1970-01-01T00:02:00Z"}}));
    let conditions = only(&service(json!({})), dying).and_then(|endpoint| endpoint.conditions).expect("conditions");
    assert_eq!((conditions.ready, conditions.serving, conditions.terminating), (Some(false), Some(true), Some(true)));
}

#[test]
fn rule_4_3_an_endpoint_says_who_where_and_how_it_is() {
    let endpoint = only(&service(json!({})), pod(7)).expect("an endpoint");
    assert_eq!(endpoint.addresses, ["10.244.0.7"]);
    let conditions = endpoint.conditions.expect("conditions");
    assert_eq!((conditions.ready, conditions.serving, conditions.terminating), (Some(true), Some(true), Some(false)));
    let target = endpoint.target_ref.expect("a target");
    assert_eq!(target.kind.as_deref(), Some("Pod"));
    assert_eq!((target.name.as_deref(), target.uid.as_deref()), (Some("web-7"), Some("uid-7")));
    assert_eq!((endpoint.node_name.as_deref(), endpoint.zone.as_deref()), (Some("node-1"), Some("zone-a")));
    assert_eq!(endpoint.hostname, None);
}

#[test]
fn rule_4_3_readiness_follows_the_pod_or_is_published_regardless() {
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let ready = |service: &Service| {
        only(service, pod_with(1, unready.clone())).and_then(|endpoint| endpoint.conditions).expect("conditions")
    };
    assert_eq!((ready(&service(json!({}))).ready, ready(&service(json!({}))).serving), (Some(false), Some(false)));
    let publishing = service(json!({"spec": {"publishNotReadyAddresses": true}}));
    assert_eq!((ready(&publishing).ready, ready(&publishing).serving), (Some(true), Some(false)));
}

#[test]
fn rule_4_3_a_hostname_counts_under_its_own_service_only() {
    let named = |subdomain: &str| pod_with(1, json!({"spec": {"hostname": "db-0", "subdomain": subdomain}}));
    assert_eq!(only(&service(json!({})), named("web")).and_then(|endpoint| endpoint.hostname).as_deref(), Some("db-0"));
    assert_eq!(only(&service(json!({})), named("other")).and_then(|endpoint| endpoint.hostname), None);
}

#[test]
fn rule_4_4_target_ports_are_numbers_names_or_the_port_itself() {
    let shown = |service: &Service, pod: &Pod| -> Vec<_> {
        ports(service, pod)
            .into_iter()
            .map(|port| (port.name.unwrap_or_default(), port.port, port.protocol.unwrap_or_default()))
            .collect()
    };
    let several = service(json!({"spec": {"ports": [
        {"name": "number", "port": 80, "targetPort": 8080},
        {"name": "name", "port": 81, "targetPort": "http"},
        {"name": "itself", "port": 82, "protocol": "UDP"},
        {"name": "wrong-protocol", "port": 83, "targetPort": "http", "protocol": "UDP"},
        {"name": "unknown", "port": 84, "targetPort": "nope"},
    ]}}));
    let tcp = "TCP".to_owned();
    let expected = [
        ("number".to_owned(), Some(8080), tcp.clone()),
        ("name".to_owned(), Some(8001), tcp),
        ("itself".to_owned(), Some(82), "UDP".to_owned()),
    ];
    assert_eq!(shown(&several, &pod(1)), expected);

    let by_name = service(json!({"spec": {"ports": [{"port": 80, "targetPort": "metrics"}]}}));
    let init = |policy: Value| {
        pod_with(
            1,
            json!({"spec": {"initContainers": [{"name": "i", "restartPolicy": policy, "ports": [{"name": "metrics", "containerPort": 9}]}]}}),
        )
    };
    assert_eq!(shown(&by_name, &init(json!("Always"))).len(), 1);
    assert_eq!(shown(&by_name, &init(Value::Null)), []);
}

#[test]
fn rule_4_4_a_pod_without_the_named_port_stays_an_endpoint_without_ports() {
    let mut world = World::default();
    world.reconcile(&service(json!({"spec": {"ports": [{"port": 80, "targetPort": "nope"}]}})), &[pod(1)]);
    assert_eq!((world.sizes(), world.slices[0].ports.clone()), (vec![1], Some(vec![])));
}

#[test]
fn rule_4_4_headless_without_ports_has_an_empty_list() {
    let mut world = World::default();
    world.reconcile(&service(json!({"spec": {"clusterIP": "None", "ports": null}})), &[pod(1), pod(2)]);
    assert_eq!((world.sizes(), world.slices[0].ports.clone()), (vec![2], Some(vec![])));
}

#[test]
fn rule_4_5_pods_with_other_numbers_for_a_named_port_sit_in_other_slices() {
    let mut world = World::default();
    let by_name = service(json!({"spec": {"ports": [{"port": 80, "targetPort": "http"}]}}));
    let same = pod_with(
        3,
        json!({"spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8001}]}]}}),
    );
    world.reconcile(&by_name, &[pod(1), pod(2), same]);
    let mut sizes = world.sizes();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 2]);
}

#[test]
fn rule_4_5_a_slice_holds_a_hundred_and_families_have_their_own() {
    let mut world = World::default();
    let pods: Vec<Pod> = (0..250).map(pod).collect();
    world.reconcile(&service(json!({"spec": {"ipFamilies": ["IPv4", "IPv6"]}})), &pods);
    let of = |family: &str| -> Vec<usize> {
        let slices = world.slices.iter().filter(|slice| slice.address_type == family);
        slices.map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).collect()
    };
    assert_eq!((of("IPv4"), of("IPv6")), (vec![100, 100, 50], vec![100, 100, 50]));
    // Back to one family: the slices of the other go.
    world.reconcile(&service(json!({})), &pods);
    assert!(world.slices.iter().all(|slice| slice.address_type == "IPv4"));
}

#[test]
fn rule_4_5_nothing_is_written_when_nothing_has_changed() {
    let mut world = World::default();
    let pods: Vec<Pod> = (0..150).map(pod).collect();
    world.reconcile(&service(json!({})), &pods);
    assert_eq!(counts(&world.reconcile(&service(json!({})), &pods)), (0, 0, 0));
}

#[test]
fn rule_4_5_new_endpoints_fill_the_fullest_slice_with_room_for_all() {
    let mut world = World::default();
    let mut pods: Vec<Pod> = (0..150).map(pod).collect();
    world.reconcile(&service(json!({})), &pods);
    pods.extend((150..170).map(pod));
    assert_eq!(counts(&world.reconcile(&service(json!({})), &pods)), (0, 1, 0));
    assert_eq!(world.sizes(), [100, 70]);
    // 40 more do not fit into the 70: a new slice, and only that write.
    pods.extend((170..210).map(pod));
    assert_eq!(counts(&world.reconcile(&service(json!({})), &pods)), (1, 0, 0));
    assert_eq!(world.sizes(), [100, 70, 40]);
}

#[test]
fn rule_4_5_new_endpoints_go_first_where_a_write_is_due_anyway() {
    let mut world = World::default();
    let mut pods: Vec<Pod> = (0..150).map(pod).collect();
    world.reconcile(&service(json!({})), &pods);
    // Ten of the full slice go, ten come: one write.
    pods.drain(0..10);
    pods.extend((150..160).map(pod));
    assert_eq!(counts(&world.reconcile(&service(json!({})), &pods)), (0, 1, 0));
    assert_eq!(world.sizes(), [100, 50]);
}

#[test]
fn rule_4_5_one_changed_pod_changes_one_slice() {
    let mut world = World::default();
    let mut pods: Vec<Pod> = (0..150).map(pod).collect();
    world.reconcile(&service(json!({})), &pods);
    pods[120] = pod_with(120, json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}));
    assert_eq!(counts(&world.reconcile(&service(json!({})), &pods)), (0, 1, 0));
    assert_eq!(
        world
            .endpoints()
            .iter()
            .filter(|endpoint| endpoint.conditions.as_ref().is_some_and(|c| c.ready == Some(false)))
            .count(),
        1
    );
}

#[test]
fn rule_4_5_one_changed_pod_of_5000_rewrites_exactly_one_slice() {
    let service = service(json!({}));
    let mut world = World::default();
    let mut pods: Vec<Pod> = (0..5000).map(pod).collect();
    assert_eq!(counts(&world.reconcile(&service, &pods)), (50, 0, 0));
    let before = world.slices.clone();

    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    pods[2345] = pod_with(2345, unready);
    let writes = world.reconcile(&service, &pods);
    assert_eq!(counts(&writes), (0, 1, 0));
    let changed = |slice: &&Arc<EndpointSlice>| !before.iter().any(|known| Arc::ptr_eq(known, slice));
    let changed: Vec<_> = world.slices.iter().filter(changed).collect();
    assert_eq!(changed.len(), 1);
    let ready = |endpoint: &&Endpoint| endpoint.conditions.as_ref().is_some_and(|known| known.ready == Some(true));
    assert_eq!(changed[0].endpoints.iter().flatten().filter(ready).count(), 99);

    // One that goes leaves a gap, which the next one fills: one write each.
    let gone = pods.remove(17);
    assert_eq!(counts(&world.reconcile(&service, &pods)), (0, 1, 0));
    pods.push(gone);
    assert_eq!(counts(&world.reconcile(&service, &pods)), (0, 1, 0));
    assert_eq!(counts(&world.reconcile(&service, &pods)), (0, 0, 0));
    assert!(world.sizes().iter().all(|size| *size == 100));
}

#[test]
fn rule_4_5_empty_slices_go_and_a_placeholder_stays() {
    let mut world = World::default();
    let pods: Vec<Pod> = (0..150).map(pod).collect();
    world.reconcile(&service(json!({})), &[]);
    assert_eq!((world.sizes(), world.slices[0].ports.clone()), (vec![0], Some(vec![])));
    assert_eq!(counts(&world.reconcile(&service(json!({})), &[])), (0, 0, 0));
    // The placeholder becomes the first slice, and comes back in the end.
    assert_eq!(counts(&world.reconcile(&service(json!({})), &pods)), (1, 1, 0));
    assert_eq!(counts(&world.reconcile(&service(json!({})), &[])), (0, 1, 1));
    assert_eq!((world.sizes(), world.slices[0].ports.clone()), (vec![0], Some(vec![])));
}

#[test]
fn rule_4_5_a_changed_port_rewrites_the_slices_in_place() {
    let mut world = World::default();
    let pods: Vec<Pod> = (0..150).map(pod).collect();
    world.reconcile(&service(json!({})), &pods);
    let moved = service(json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 9090}]}}));
    assert_eq!(counts(&world.reconcile(&moved, &pods)), (0, 2, 0));
    assert_eq!(world.sizes().iter().sum::<usize>(), 150);
    assert!(world.slices.iter().all(|slice| slice.ports.as_ref().is_some_and(|ports| ports[0].port == Some(9090))));
}

#[test]
fn rule_4_6_slices_carry_the_services_labels_and_their_own() {
    let mut world = World::default();
    world.reconcile(&service(json!({"spec": {"clusterIP": "None"}})), &[pod(1)]);
    let metadata = &world.slices[0].metadata;
    assert_eq!(metadata.generate_name.as_deref(), Some("web-"));
    let labels = labels(metadata);
    assert_eq!(labels["team"], "a");
    assert_eq!(labels["kubernetes.io/service-name"], "web");
    assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "endpointslice-controller.k8s.io");
    assert_eq!(labels["service.kubernetes.io/headless"], "");
    let owner = &metadata.owner_references.as_ref().expect("an owner")[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str(), owner.controller), ("Service", "web", Some(true)));
    assert_eq!(annotation(metadata, LAST_CHANGE), Some("1970-01-01T00:01:00Z"));
}

#[test]
fn rule_4_6_changed_labels_of_the_service_reach_every_slice() {
    let mut world = World::default();
    let pods: Vec<Pod> = (0..150).map(pod).collect();
    world.reconcile(&service(json!({})), &pods);
    let relabelled = service(json!({"metadata": {"labels": {"team": "b"}}}));
    assert_eq!(counts(&world.reconcile(&relabelled, &pods)), (0, 2, 0));
    assert!(world.slices.iter().all(|slice| labels(&slice.metadata)["team"] == "b"));
}

#[test]
fn rule_4_11_hints_follow_the_traffic_distribution() {
    let hints = |distribution: Value, pod: Pod| {
        only(&service(json!({"spec": {"trafficDistribution": distribution}})), pod).and_then(|endpoint| endpoint.hints)
    };
    for distribution in ["PreferClose", "PreferSameZone"] {
        let hints = hints(json!(distribution), pod(1)).expect("hints");
        assert_eq!(hints.for_zones, Some(vec![k8s_openapi::api::discovery::v1::ForZone { name: "zone-a".to_owned() }]));
        assert_eq!(hints.for_nodes, None);
    }
    let near = hints(json!("PreferSameNode"), pod(1)).expect("hints");
    assert_eq!(near.for_nodes, Some(vec![k8s_openapi::api::discovery::v1::ForNode { name: "node-1".to_owned() }]));
    assert!(near.for_zones.is_some());
    assert_eq!(hints(Value::Null, pod(1)), None);
    let unready = pod_with(1, json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}));
    assert_eq!(hints(json!("PreferClose"), unready), None);
}

#[test]
fn rule_4_11_hints_go_when_the_distribution_goes() {
    let mut world = World::default();
    world.reconcile(&service(json!({"spec": {"trafficDistribution": "PreferClose"}})), &[pod(1)]);
    assert!(world.endpoints()[0].hints.is_some());
    assert_eq!(counts(&world.reconcile(&service(json!({})), &[pod(1)])), (0, 1, 0));
    assert_eq!(world.endpoints()[0].hints, None);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever comes and goes: the slices show exactly the pods there are, none is overfull, and a second look changes nothing.
    #[test]
    fn slices_always_show_exactly_the_pods(steps in proptest::collection::vec((0_usize..350, 0_usize..250, 1_usize..3), 1..6)) {
        let by_name = service(json!({"spec": {"ports": [{"port": 80, "targetPort": "http"}]}}));
        let mut world = World::default();
        for (first, count, ports) in steps {
            let pods: Vec<Pod> = (first..first + count)
                .map(|n| pod_with(n, json!({"spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80 + n % ports}]}]}})))
                .collect();
            world.reconcile(&by_name, &pods);
            let mut shown: Vec<String> = world.endpoints().into_iter().map(|endpoint| endpoint.addresses[0].clone()).collect();
            shown.sort();
            let mut wanted: Vec<String> = pods.iter().filter_map(|pod| pod.status.as_ref()?.pod_ip.clone()).collect();
            wanted.sort();
            proptest::prop_assert_eq!(shown, wanted);
            proptest::prop_assert!(world.sizes().iter().all(|size| *size <= 100));
            proptest::prop_assert_eq!(counts(&world.reconcile(&by_name, &pods)), (0, 0, 0));
        }
    }
}
