//! The network model, seen by real programs in pods: chapter 1 of the reference of semantics.

use crate::support::http;
use axum::body::Body;
use coracle::{Cluster, Container, FunctionPod};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use netstack::{Host, PortTag, TcpListener};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tower::ServiceExt;

/// Tells everybody who connects to port 80 from which address.
async fn mirror(listener: TcpListener) {
    while let Ok((mut stream, peer)) = listener.accept().await {
        let _ = stream.write_all(peer.ip().to_string().as_bytes()).await;
    }
}

/// What the mirror at `to` sees.
async fn seen(from: &Host, to: IpAddr) -> IpAddr {
    let mut stream = from.tcp_connect(SocketAddr::new(to, 80)).await.expect("a connection");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an answer");
    text.parse().expect("an address")
}

async fn addresses(cluster: &Cluster, pod: &str) -> Vec<IpAddr> {
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let status = pods.get(pod).await.expect("the pod").status.expect("a status");
    status.pod_ips.into_iter().flatten().map(|own| own.ip.parse().expect("an address")).collect()
}

/// A pod with a mirror on each of three nodes, by name: its host and addresses.
async fn mirrors(cluster: &Cluster) -> BTreeMap<String, (Host, Vec<IpAddr>)> {
    let (hosts, mut given) = mpsc::unbounded_channel();
    for number in 1..=3 {
        let hosts = hosts.clone();
        let function = move |container: Container| {
            let hosts = hosts.clone();
            async move {
                let Ok(listener) = container.host.tcp_listen(80) else { return 1 };
                let _ = hosts.send((container.hostname.clone(), container.host.clone()));
                mirror(listener).await;
                0
            }
        };
        let pod = FunctionPod::new(&format!("p{number}")).port(80).node(&format!("node-{number}"));
        cluster.run_pod(pod, function).await.expect("a pod");
    }
    cluster.settled().await;
    let mut all = BTreeMap::new();
    for _ in 1..=3 {
        let (name, host) = given.recv().await.expect("it runs");
        let addresses = addresses(cluster, &name).await;
        all.insert(name, (host, addresses));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn rule_1_1_pods_of_all_nodes_see_each_other_s_own_address() {
    let cluster = Cluster::builder().seed(1).nodes(3).dual_stack(true).start().await.expect("a cluster");
    let pods = mirrors(&cluster).await;
    for (index, (_, of_pod)) in (1..).zip(pods.values()) {
        let [v4, v6] = &of_pod[..] else { panic!("one address per family: {of_pod:?}") };
        assert!(v4.to_string().starts_with(&format!("10.244.{index}.")), "of its node's podCIDR: {v4}");
        assert!(v6.is_ipv6());
    }
    for (from, (host, own)) in &pods {
        for (to, (_, others)) in &pods {
            for (family, other) in others.iter().enumerate() {
                assert_eq!(seen(host, *other).await, own[family], "{from} to {to}");
            }
        }
    }
    let translated = cluster.network().flows().into_iter().filter(|flow| {
        let pod = |address: SocketAddr| pods.values().any(|(_, own)| own.contains(&address.ip()));
        pod(flow.original.src) && pod(flow.original.dst) && flow.original != flow.translated
    });
    assert_eq!(translated.count(), 0);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rule_1_2_a_pod_with_the_node_s_network_has_its_address_and_its_ports() {
    let cluster = Cluster::builder().seed(1).start().await.expect("a cluster");
    let pod = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{hostNetwork: true, nodeName: node-2, containers: [{{name: \
             c, image: agnhost, args: [netexec, --http-port=8080], ports: [{{containerPort: 8080}}]}}]}}}}"
        )
    };
    cluster.apply(&pod("own")).await.expect("applied");
    cluster.settled().await;
    assert_eq!(addresses(&cluster, "own").await, ["172.18.0.3".parse::<IpAddr>().expect("an address")]);
    let stream = cluster.outside().tcp_connect("172.18.0.3:8080".parse().expect("an address")).await;
    assert_eq!(
        http::get_on(stream.expect("it listens at its node's address"), "/hostname").await.expect("HTTP").0,
        200
    );
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let own = pods.get("own").await.expect("the pod").spec.expect("a spec");
    let port = &own.containers[0].ports.as_ref().expect("ports")[0];
    assert_eq!(port.host_port, Some(8080), "its port is one of the node's");
    cluster.stop().await;
}

/// Waits until the pod is Ready.
async fn ready(cluster: &Cluster, pod: &str) {
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let is_ready = |pod: &Pod| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    while !is_ready(&pods.get(pod).await.expect("the pod")) {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn rule_1_3_probes_and_the_api_server_s_proxy_reach_the_pods_of_every_node() {
    let cluster = Cluster::builder().seed(1).nodes(3).start().await.expect("a cluster");
    let probed = async |name: &str, node: &str| {
        let pod = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{nodeName: {node}, containers: [{{name: c, image: agnhost, args: \
             [netexec, --http-port=8080], readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}}}}}]}}}}"
        );
        cluster.apply(&pod).await.expect("applied");
        ready(&cluster, name).await;
    };
    for number in 1..=3 {
        let name = format!("p{number}");
        probed(&name, &format!("node-{number}")).await;
        let path = format!("/api/v1/namespaces/default/pods/{name}:8080/proxy/hostname");
        let request = ::http::Request::get(path).body(Body::empty()).expect("a request");
        let response = cluster.router().oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(body, name.as_bytes());
    }
    // A pod's own node reaches it whatever policies say; the API server stands on none of them.
    let deny = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny}, spec: {podSelector: {}, policyTypes: \
                [Ingress, Egress]}}";
    cluster.apply(deny).await.expect("applied");
    probed("isolated", "node-2").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rule_1_3_what_leaves_the_cluster_is_seen_as_the_pod_s_node() {
    let cluster = Cluster::builder().seed(1).nodes(3).start().await.expect("a cluster");
    let pods = mirrors(&cluster).await;
    let outside: IpAddr = "203.0.113.7".parse().expect("an address");
    let machine = cluster.network().attach_host(&[outside], PortTag(9_000)).expect("a free address");
    tokio::spawn(mirror(machine.tcp_listen(80).expect("a free port")));
    for (index, (name, (host, _))) in (1u8..).zip(&pods) {
        assert_eq!(seen(host, outside).await, IpAddr::from([172, 18, 0, 1 + index]), "{name}");
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rule_1_4_nodes_the_api_and_dns_are_where_clusters_have_them() {
    let cluster = Cluster::builder().seed(1).start().await.expect("a cluster");
    for address in ["10.96.0.1:443", "10.96.0.10:53", "172.18.0.1:6443"] {
        let address: SocketAddr = address.parse().expect("an address");
        cluster.outside().tcp_connect(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
    }
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(cluster.client());
    for (number, address) in [(1, "172.18.0.2"), (2, "172.18.0.3")] {
        let node = nodes.get(&format!("node-{number}")).await.expect("the node");
        let own = node.status.and_then(|status| status.addresses).unwrap_or_default();
        assert!(own.iter().any(|own| own.type_ == "InternalIP" && own.address == address), "{own:?}");
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rule_10_service_variables_are_frozen_when_the_container_starts() {
    let cluster = Cluster::builder().seed(1).start().await.expect("a cluster");
    let service = |name: &str, ip: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}}}"
        )
    };
    let pod = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: c, image: busybox, command: [sleep, '9999']}}]}}}}"
        )
    };
    let variables = async |pod: &str| -> Vec<String> {
        let printed = cluster.exec("default", pod, &["env"]).await.expect("it runs").stdout;
        let mut found: Vec<String> =
            printed.lines().filter(|line| line.contains("_SERVICE_HOST=")).map(str::to_owned).collect();
        found.sort();
        found
    };
    let api = "KUBERNETES_SERVICE_HOST=10.96.0.1";
    cluster.apply(&service("early", "10.96.0.80")).await.expect("applied");
    cluster.settled().await;
    cluster.apply(&pod("old")).await.expect("applied");
    cluster.settled().await;
    let at_start = ["EARLY_SERVICE_HOST=10.96.0.80", api];
    assert_eq!(variables("old").await, at_start);

    cluster.apply(&service("late", "10.96.0.81")).await.expect("applied");
    let services: Api<k8s_openapi::api::core::v1::Service> = Api::default_namespaced(cluster.client());
    services.delete("early", &Default::default()).await.expect("deleted");
    cluster.settled().await;
    assert_eq!(variables("old").await, at_start, "neither what comes nor what goes is seen");
    cluster.apply(&pod("new")).await.expect("applied");
    cluster.settled().await;
    assert_eq!(variables("new").await, [api, "LATE_SERVICE_HOST=10.96.0.81"]);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_node_answers_for_its_proxy_on_port_10256() {
    let cluster = Cluster::builder().seed(1).start().await.expect("a cluster");
    for node in ["172.18.0.2", "172.18.0.3"] {
        let at: SocketAddr = format!("{node}:10256").parse().expect("an address");
        let stream = cluster.outside().tcp_connect(at).await.expect("it listens");
        let (status, body) = http::get_on(stream, "/healthz").await.expect("HTTP");
        assert_eq!(status, 200, "{body}");
        assert!(
            body.starts_with("{\"lastUpdated\": \"") && body.ends_with(" UTC\", \"nodeEligible\": true}"),
            "{body}"
        );
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_api_server_has_of_its_own_comes_back_when_somebody_deletes_it() {
    let cluster = Cluster::builder().seed(1).start().await.expect("a cluster");
    let services: Api<k8s_openapi::api::core::v1::Service> = Api::default_namespaced(cluster.client());
    let before = services.get("kubernetes").await.expect("the Service");
    services.delete("kubernetes", &Default::default()).await.expect("deleted");
    cluster.settled().await;
    let after = services.get("kubernetes").await.expect("it is back");
    assert_ne!(after.metadata.uid, before.metadata.uid);
    assert_eq!(after.spec.expect("a spec").cluster_ip, before.spec.expect("a spec").cluster_ip);
    let api = "10.96.0.1:443".parse().expect("an address");
    cluster.outside().tcp_connect(api).await.expect("the API is reached through it");
    cluster.stop().await;
}
