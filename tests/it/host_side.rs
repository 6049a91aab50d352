//! What the machine reaches of Services, and what users are told when it cannot.

use crate::support::{Bench, http};
use coracle::{Cluster, Container, FunctionPod};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// Ports from 30000 that are free at both nodes' addresses on the machine: as many as asked for, others for each caller.
fn free_ports<const N: usize>(salt: u32) -> [u16; N] {
    let nodes = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 18, 0, 3)];
    let free = |port: &u16| nodes.iter().all(|node| TcpListener::bind((*node, *port)).is_ok());
    let begin = std::process::id().wrapping_mul(31).wrapping_add(salt * 97) % 2000;
    let ports = (0..2000).map(|offset| 30_700 + u16::try_from((begin + offset) % 2000).expect("less than 2000"));
    let found: Vec<u16> = ports.filter(free).take(N).collect();
    found.try_into().expect("free ports")
}

/// An HTTP server of one answer.
async fn hello(container: Container) -> i32 {
    let Ok(listener) = container.host.tcp_listen(80) else { return 1 };
    while let Ok((mut stream, _)) = listener.accept().await {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(answer).await;
    }
    0
}

async fn service(bench: &Bench, name: &str) -> Value {
    let text = bench.ok(&format!("kubectl get service {name} -o json")).await;
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_port_that_another_program_has_is_told_at_the_service_which_works_inside_until_it_is_free() {
    let [port] = free_ports(1);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port");
    let bench = Bench::with(Cluster::builder().host_ports(true)).await;
    bench.cluster.run_pod(FunctionPod::new("web").label("app", "web").port(80), hello).await.expect("a pod");
    let manifest = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{type: NodePort, selector: {{app: web}}, ports: [{{port: 80, nodePort: {port}}}]}}\n"
    );
    bench.terminal.write("web.yaml", &manifest);
    bench.ok("kubectl apply -f web.yaml").await;
    bench.ok("kubectl wait service/web --for=condition=net.coracle.dev/HostReachable=false --timeout=30s").await;
    let told = service(&bench, "web").await;
    let condition = &told["status"]["conditions"][0];
    assert_eq!(condition["reason"], "PortUnavailable");
    let message = format!(
        "Not reachable on the machine at 127.0.0.1:{port}/TCP: another program has the port; inside the cluster it works"
    );
    assert_eq!(condition["message"], message);
    let described = bench.ok("kubectl describe service web").await;
    assert!(described.contains("Warning  HostPortUnavailable"), "{described}");
    let inside: SocketAddr = format!("172.18.0.2:{port}").parse().expect("an address");
    let mut stream = bench.cluster.outside().tcp_connect(inside).await.expect("it works inside");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.ends_with("hello"), "{answer}");

    drop(taken);
    bench.ok("kubectl wait service/web --for=condition=net.coracle.dev/HostReachable --timeout=30s").await;
    let outside = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    assert_eq!(http::get(outside, "/").await.expect("reachable"), (200, "hello".to_owned()));
    let told = service(&bench, "web").await;
    let addresses = told["metadata"]["annotations"]["net.coracle.dev/host-addresses"].as_str().expect("an annotation");
    assert!(addresses.split(',').any(|address| address == format!("127.0.0.1:{port}/TCP")), "{addresses}");

    // Nothing to reach, nothing to tell.
    bench.ok("kubectl patch service web -p '{\"spec\":{\"type\":\"ClusterIP\"}}'").await;
    for _ in 0..600 {
        let told = service(&bench, "web").await;
        if told["metadata"]["annotations"].get("net.coracle.dev/host-addresses").is_none() {
            assert_eq!(told["status"].get("conditions"), None, "{told}");
            return bench.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the Service still says where on the machine it is reached");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_answers_on_the_machine_and_its_nodes_say_whether_they_have_endpoints() {
    let [port, node_port, health] = free_ports(2);
    let bench = Bench::with(Cluster::builder().host_ports(true)).await;
    let pod = FunctionPod::new("web").label("app", "web").port(80).node("node-2");
    bench.cluster.run_pod(pod, hello).await.expect("a pod");
    let manifest = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: {health}, selector: {{app: web}}, ports: [{{port: {port}, targetPort: 80, nodePort: {node_port}}}]}}\n"
    );
    bench.terminal.write("web.yaml", &manifest);
    bench.ok("kubectl apply -f web.yaml").await;
    bench.ok("kubectl wait service/web --for=jsonpath='{.status.loadBalancer.ingress[0].ip}' --timeout=30s").await;
    let told = service(&bench, "web").await;
    let ip: Ipv4Addr =
        told["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().and_then(|ip| ip.parse().ok()).expect("an IP");
    let [_, b, c, d] = ip.octets();
    let balancer = SocketAddr::from(([127, b, c, d], port));
    assert_eq!(eventually(balancer, 200).await, "hello");
    for (node, status, count) in [([127, 0, 0, 1], 503, 0), ([127, 18, 0, 3], 200, 1)] {
        let body: Value = serde_json::from_str(&eventually((node, health).into(), status).await).expect("JSON");
        assert_eq!(body["localEndpoints"], count);
        assert_eq!(body["service"], json!({"namespace": "default", "name": "web"}));
    }
    // The same from inside a pod, with a user's tools.
    bench.ok("kubectl run client --image=curlimages/curl --command -- sleep infinity").await;
    bench.ok("kubectl wait pod/client --for=condition=Ready --timeout=60s").await;
    let ran = bench.ok(&format!("kubectl exec client -- curl -s -i http://172.18.0.3:{health}/")).await;
    assert!(ran.starts_with("HTTP/1.1 200 OK"), "{ran}");
    assert!(ran.to_lowercase().contains("x-load-balancing-endpoint-weight: 1"), "{ran}");
    bench.ok("kubectl delete service web --timeout=30s").await;
    for closed in [balancer, SocketAddr::from(([127, 0, 0, 1], health))] {
        wait(|| TcpListener::bind(closed).is_ok(), &format!("{closed} is closed")).await;
    }
    bench.stop().await;
}

/// The body of an answer with this status, once there is one.
async fn eventually(at: SocketAddr, status: u16) -> String {
    for _ in 0..600 {
        match http::get(at, "/").await {
            Ok((found, body)) if found == status => return body,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("no answer {status} at {at}");
}

async fn wait(mut holds: impl FnMut() -> bool, what: &str) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not after 30 s");
}

/// Namespaced names of all addresses that are allocated.
async fn allocated(cluster: &Cluster) -> BTreeSet<String> {
    let api: Api<k8s_openapi::api::networking::v1::IPAddress> = Api::all(cluster.client());
    let all = api.list(&Default::default()).await.expect("a list");
    all.items.into_iter().filter_map(|address| address.metadata.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_services_in_a_whole_cluster_leaves_no_address_port_listener_or_flow_behind() {
    const SERVICES: usize = 96;
    let cluster = Cluster::builder().seed(3).host_ports(true).start().await.expect("a cluster");
    cluster.network().set_timeouts(netstack::Timeouts::fast());
    cluster.run_pod(FunctionPod::new("web").label("app", "web").port(80), hello).await.expect("a pod");
    cluster.settled().await;
    let before = allocated(&cluster).await;
    let services: Api<Service> = Api::default_namespaced(cluster.client());
    let mut workers = JoinSet::new();
    for worker in 0..8 {
        let (services, outside) = (services.clone(), cluster.outside());
        workers.spawn(async move {
            let mut ports = Vec::new();
            for number in (worker..SERVICES).step_by(8) {
                let name = format!("s{number}");
                let object = json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80}]}});
                let object: Service = serde_json::from_value(object).expect("a Service");
                let spec = services.create(&PostParams::default(), &object).await.expect("created").spec.expect("a spec");
                let ip = spec.cluster_ip.expect("an address");
                let to: SocketAddr = format!("{ip}:80").parse().expect("an address");
                // Whoever answers is the Service's; before its slice is there it refuses.
                while outside.tcp_connect(to).await.is_err() {
                    tokio::task::yield_now().await;
                }
                services.delete(&name, &DeleteParams::default()).await.expect("deleted");
                ports.extend(spec.ports.into_iter().flatten().filter_map(|port| u16::try_from(port.node_port?).ok()));
            }
            ports
        });
    }
    let mut ports = Vec::new();
    while let Some(worker) = workers.join_next().await {
        ports.extend(worker.expect("no worker failed"));
    }
    assert_eq!(ports.len(), SERVICES);
    cluster.settled().await;
    assert_eq!(allocated(&cluster).await, before, "addresses");
    // Every node port is free again: in the allocator and on the machine.
    ports.sort_unstable();
    ports.dedup();
    for port in ports.iter().take(8) {
        let object = json!({"metadata": {"name": format!("p{port}")}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}});
        let object: Service = serde_json::from_value(object).expect("a Service");
        services.create(&PostParams::default(), &object).await.expect("a free node port");
        services.delete(&format!("p{port}"), &DeleteParams::default()).await.expect("deleted");
    }
    cluster.settled().await;
    for port in ports {
        wait(|| TcpListener::bind((Ipv4Addr::new(127, 18, 0, 3), port)).is_ok(), &format!("{port} is closed")).await;
    }
    let of_services = || {
        let flows = cluster.network().flows();
        flows
            .into_iter()
            .filter(|flow| flow.original.dst != flow.translated.dst && flow.original.dst.port() == 80)
            .count()
    };
    wait(|| of_services() == 0, "the flows of Services are gone").await;
    cluster.stop().await;
}
