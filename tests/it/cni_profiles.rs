//! CNI profiles: what a user of such a cluster sees.

use crate::support::Bench;
use coracle::{Cluster, CniProfile, Container, Denial, FunctionPod};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}, policyTypes: [Ingress]}
";

/// Accepts connections on port 80 and drops them.
async fn listener(container: Container) -> i32 {
    let Ok(listener) = container.host.tcp_listen(80) else { return 1 };
    while listener.accept().await.is_ok() {}
    0
}

/// A cluster of this profile with pods `one` on node 1 and `two` on node 2, which a policy isolates.
async fn cluster(profile: CniProfile) -> Cluster {
    let cluster = Cluster::builder().seed(3).cni_profile(profile).start().await.expect("a cluster");
    cluster.apply(DENY).await.expect("applied");
    for (name, node) in [("one", "node-1"), ("two", "node-2")] {
        cluster.run_pod(FunctionPod::new(name).node(node).port(80), listener).await.expect("a pod");
    }
    cluster.settled().await;
    cluster
}

async fn ask(cluster: &Cluster, plural: &str, spec: Value) -> Value {
    let request = http::Request::post(format!("/apis/net.coracle.dev/v1alpha1/{plural}"))
        .header("Content-Type", "application/json")
        .body(json!({"spec": spec}).to_string().into_bytes());
    let mut answer = cluster.client().request::<Value>(request.expect("a request")).await.expect("an answer");
    answer["status"].take()
}

async fn pod_ip(cluster: &Cluster, name: &str) -> Ipv4Addr {
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let status = pods.get(name).await.expect("the pod").status.expect("a status");
    status.pod_ip.expect("an address").parse().expect("an IPv4 address")
}

#[tokio::test(start_paused = true)]
async fn rule_18_flannel_takes_policies_and_visibly_does_not_enforce_them() {
    let cluster = cluster(CniProfile::Flannel).await;
    // Packets pass, and everything that is asked says the same, and why.
    let trace = ask(&cluster, "traces", json!({"from": "one", "to": "default/two:80", "connect": true})).await;
    assert_eq!((&trace["outcome"], &trace["simulated"]), (&"Connected".into(), &"Allowed".into()), "{trace}");
    let review = ask(&cluster, "policyreviews", json!({"from": "one", "to": "two:80"})).await;
    assert_eq!((&review["allowed"], &review["verdicts"][0]["allowed"]), (&true.into(), &true.into()));
    assert_eq!(
        review["verdicts"][0]["ingress"]["why"],
        "not enforced by flannel; elsewhere: default/two is isolated for ingress by default/deny; no rule matched"
    );
    let matrix = ask(&cluster, "reachabilities", json!({"namespaces": ["default"], "probe": true})).await;
    assert_eq!((&matrix["allowed"], &matrix["disagreements"]), (&json!(["11", "11"]), &json!([])));
    for answer in [&trace, &review, &matrix] {
        let warning = answer["warnings"][0].as_str().unwrap_or_default();
        assert!(warning.starts_with("NetworkPolicies are not enforced"), "{answer}");
    }
    let events: Api<Event> = Api::default_namespaced(cluster.client());
    let of_policy = ListParams::default().fields("involvedObject.kind=NetworkPolicy");
    let event = loop {
        match events.list(&of_policy).await.expect("a list").items.pop() {
            Some(event) => break event,
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    assert_eq!((event.reason.as_deref(), event.type_.as_deref()), (Some("NotEnforced"), Some("Warning")));
    assert_eq!(event.involved_object.name.as_deref(), Some("deny"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_18_kubectl_warns_when_a_policy_is_applied_that_flannel_does_not_enforce() {
    let bench = Bench::with(Cluster::builder().cni_profile(CniProfile::Flannel)).await;
    bench.terminal.write("deny.yaml", DENY);
    let ran = bench.sh("kubectl apply -f deny.yaml").await;
    assert!(ran.stderr.contains("Warning: NetworkPolicies are not enforced"), "{ran}");
    // Nor is any policy of the cluster's, whichever version it is written in.
    let of_cluster = [
        ("v1alpha2", "ClusterNetworkPolicy", "tier: Admin, priority: 1, "),
        ("v1alpha1", "AdminNetworkPolicy", "priority: 2, "),
        ("v1alpha1", "BaselineAdminNetworkPolicy", ""),
    ];
    for (version, kind, spec) in of_cluster {
        let manifest = format!(
            "{{apiVersion: policy.networking.k8s.io/{version}, kind: {kind}, metadata: {{name: default}}, spec: {{{spec}subject: \
             {{namespaces: {{}}}}, ingress: [{{action: Deny, from: [{{namespaces: {{}}}}]}}]}}}}"
        );
        bench.terminal.write("cluster.yaml", &manifest);
        let ran = bench.sh("kubectl apply -f cluster.yaml").await;
        assert!(ran.code == 0 && ran.stderr.contains("Warning: NetworkPolicies are not enforced"), "{ran}");
        let events: Api<Event> = Api::default_namespaced(bench.cluster.client());
        let about = ListParams::default().fields(&format!("involvedObject.kind={kind},reason=NotEnforced"));
        while events.list(&about).await.expect("a list").items.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rule_18_every_other_profile_enforces_policies() {
    for profile in CniProfile::ALL.into_iter().filter(|profile| *profile != CniProfile::Flannel) {
        let cluster = cluster(profile).await;
        let spec = json!({"from": "one", "to": "default/two:80", "connect": true, "timeoutSeconds": 1});
        let trace = ask(&cluster, "traces", spec).await;
        assert_eq!((&trace["outcome"], &trace["warnings"]), (&"TimedOut".into(), &Value::Null), "{profile:?}");
        cluster.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn rule_18_pods_of_a_vpc_have_addresses_of_the_nodes_network_and_nodes_take_as_many_as_their_interfaces() {
    let cluster = cluster(CniProfile::AwsVpc).await;
    let nodes: Api<Node> = Api::all(cluster.client());
    let node = nodes.get("node-2").await.expect("the node");
    let status = node.status.expect("a status");
    assert_eq!(status.capacity.expect("a capacity")["pods"].0, "29");
    assert_eq!(node.metadata.labels.expect("labels")["net.coracle.dev/cni-profile"], "aws-vpc");
    let (ip, [first, second, ..]) = (pod_ip(&cluster, "two").await, cluster.addresses().gateway.octets());
    assert_eq!(ip.octets()[..2], [first, second], "{ip} is of the nodes' network");
    let request = http::Request::get("/apis/net.coracle.dev/v1alpha1/routes").body(Vec::new());
    let routes = cluster.client().request::<Value>(request.expect("a request")).await.expect("routes");
    assert!(routes["items"].as_array().is_some_and(|items| items.len() == 4), "{routes}");
    assert!(routes["items"].as_array().into_iter().flatten().all(|route| route["encapsulation"] == "none"));
    cluster.stop().await;
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: two}
spec: {type: NodePort, selector: {app: two}, ports: [{port: 80, nodePort: 30080}]}
";

#[tokio::test(start_paused = true)]
async fn rule_18_services_and_node_ports_work_where_pods_and_nodes_share_a_network() {
    for profile in [CniProfile::AwsVpc, CniProfile::AzureVnet] {
        let cluster = Cluster::builder().seed(3).cni_profile(profile).start().await.expect("a cluster");
        cluster.apply(SERVICE).await.expect("applied");
        let server = FunctionPod::new("two").label("app", "two").node("node-2").port(80);
        cluster.run_pod(server, listener).await.expect("a pod");
        cluster.run_pod(FunctionPod::new("one").node("node-1").port(80), listener).await.expect("a pod");
        cluster.settled().await;
        let trace = ask(&cluster, "traces", json!({"from": "one", "to": "two:80", "connect": true})).await;
        assert_eq!(trace["outcome"], "Connected", "{profile:?}: {trace}");
        // In by the other node: masqueraded, or the answer would not find its way.
        let node = SocketAddr::from((cluster.addresses().node(1), 30080));
        cluster.outside().tcp_connect(node).await.expect("a connection through the node port");
        cluster.stop().await;
    }
}

const BOTH_FAMILIES: &str = "
apiVersion: v1
kind: Service
metadata: {name: two}
spec: {type: NodePort, ipFamilyPolicy: RequireDualStack, selector: {app: two}, ports: [{port: 80, nodePort: 30080}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: two}
spec: {podSelector: {matchLabels: {app: two}}, ingress: [{from: [{podSelector: {matchLabels: {app: one}}}, {ipBlock: {cidr: 172.18.0.2/32}}, {ipBlock: {cidr: 'fd00:172:18::/64'}}]}]}
";

#[tokio::test(start_paused = true)]
async fn rule_18_pods_of_a_vpc_are_reached_over_both_families_by_pods_services_and_node_ports_and_policies_bind_both() {
    for profile in [CniProfile::AwsVpc, CniProfile::AzureVnet] {
        let builder = Cluster::builder().seed(3).cni_profile(profile).dual_stack(true).deny_mode(Denial::Reject);
        let cluster = builder.start().await.expect("a cluster");
        cluster.apply(BOTH_FAMILIES).await.expect("applied");
        for (name, node) in [("one", "node-1"), ("two", "node-2"), ("other", "node-1")] {
            let pod = FunctionPod::new(name).label("app", name).node(node).port(80);
            cluster.run_pod(pod, listener).await.expect("a pod");
        }
        cluster.settled().await;
        let pods: Api<Pod> = Api::default_namespaced(cluster.client());
        let status = pods.get("two").await.expect("the pod").status.expect("a status");
        let ips: Vec<IpAddr> =
            status.pod_ips.expect("addresses").iter().map(|ip| ip.ip.parse().expect("an address")).collect();
        let [IpAddr::V4(four), IpAddr::V6(six)] = ips[..] else { panic!("{profile:?}: {ips:?}") };
        let [first, second, ..] = cluster.addresses().gateway.octets();
        assert_eq!(four.octets()[..2], [first, second], "{four} is of the nodes' network");
        assert_eq!(six.segments()[..3], [0xfd00, 0x172, 0x18], "{six} is of the nodes' network");
        let services: Api<k8s_openapi::api::core::v1::Service> = Api::default_namespaced(cluster.client());
        let spec = services.get("two").await.expect("the Service").spec.expect("a spec");
        let frontends = spec.cluster_ips.expect("addresses");
        assert_eq!(frontends.len(), 2);
        let bracketed = |ip: &str| if ip.contains(':') { format!("[{ip}]:80") } else { format!("{ip}:80") };
        let targets = ips.iter().map(IpAddr::to_string).chain(frontends);
        for to in targets.map(|ip| bracketed(&ip)) {
            for (from, outcome) in [("one", "Connected"), ("other", "Refused")] {
                let trace = ask(&cluster, "traces", json!({"from": from, "to": to, "connect": true})).await;
                assert_eq!(trace["outcome"], outcome, "{profile:?}: {from} {to}: {trace}");
            }
        }
        // In by the other node, which masquerades over both families.
        let nodes: Api<Node> = Api::all(cluster.client());
        let addresses = nodes.get("node-1").await.expect("the node").status.and_then(|status| status.addresses);
        let addresses: Vec<IpAddr> =
            addresses.expect("addresses").iter().filter_map(|known| known.address.parse().ok()).collect();
        assert_eq!(addresses.len(), 2);
        for address in addresses {
            let node = SocketAddr::new(address, 30080);
            cluster.outside().tcp_connect(node).await.unwrap_or_else(|error| panic!("{profile:?}: {node}: {error}"));
        }
        cluster.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn rule_18_a_weave_overlay_is_encrypted_from_node_to_node_and_smaller() {
    let cluster = cluster(CniProfile::Weave).await;
    let request = http::Request::get("/apis/net.coracle.dev/v1alpha1/routes").body(Vec::new());
    let routes = cluster.client().request::<Value>(request.expect("a request")).await.expect("routes");
    for route in routes["items"].as_array().expect("items") {
        let own = route["via"] == "";
        assert_eq!(route["encrypted"], !own, "{route}");
        assert_eq!(route["mtu"], 1376);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn rule_18_a_pod_sees_the_mtu_of_the_overlay() {
    let cluster = Cluster::builder().cni_profile(CniProfile::Flannel).start().await.expect("a cluster");
    cluster
        .apply("{apiVersion: v1, kind: Pod, metadata: {name: shell}, spec: {containers: [{name: c, image: 'busybox:1', command: [sleep, '1000']}]}}")
        .await
        .expect("applied");
    cluster.settled().await;
    let link = cluster.exec("default", "shell", &["ip", "link"]).await.expect("ran");
    assert!(link.stdout.contains("eth0: <POINTOPOINT,MULTICAST,NOARP,UP,LOWER_UP> mtu 1450"), "{link:?}");
    cluster.stop().await;
}
