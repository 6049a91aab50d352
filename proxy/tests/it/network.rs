//! The running proxy: real connections through a network whose hook it is, and what changes do to them.

use crate::support::{CLIENT, addressing, flow, host_port_pod, service, slice, slice_with_ports, two_nodes, web};
use informer::{Activity, Informer};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use netstack::{Config, Filter, Hooks, Host, Network, NewFlow, PortTag, Protocol, UdpSocket, Verdict};
use proxy::{Proxy, Sources, Translator};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

pub(crate) struct AcceptAll;

impl Filter for AcceptAll {
    fn verdict(&self, _: &NewFlow) -> Verdict {
        Verdict::Accept
    }
}

pub(crate) struct Net {
    pub(crate) activity: Activity,
    pub(crate) network: Network,
    pub(crate) proxy: Proxy,
    pub(crate) services: Informer<Service>,
    pub(crate) slices: Informer<EndpointSlice>,
    pub(crate) nodes: Informer<Node>,
    pub(crate) pods: Informer<Pod>,
}

/// A network with two nodes and a running proxy that knows no Service yet.
pub(crate) async fn net() -> Net {
    let activity = Activity::default();
    let network = Network::new(Config { mtu: 1500, seed: 1 });
    let (services, slices) = (Informer::detached(activity.clone()), Informer::detached(activity.clone()));
    let nodes = Informer::detached(activity.clone());
    for node in two_nodes() {
        nodes.apply((*node).clone());
    }
    let pods = Informer::detached(activity.clone());
    let sources =
        Sources { services: services.clone(), slices: slices.clone(), nodes: nodes.clone(), pods: pods.clone() };
    let addressing = addressing();
    let config = proxy::Config {
        service_cidrs: addressing.service_cidrs,
        cluster_cidrs: addressing.cluster_cidrs,
        gateway_addresses: addressing.gateway_addresses,
        seed: 3,
    };
    let proxy = proxy::start_with(sources, network.clone(), config);
    network.install(Hooks { translate: proxy.translator(), filter: Arc::new(AcceptAll) });
    proxy.synced().await;
    Net { activity, network, proxy, services, slices, nodes, pods }
}

impl Net {
    pub(crate) fn host(&self, address: &str) -> Host {
        let ip: IpAddr = address.parse().expect("an address");
        self.network.attach_host(&[ip], PortTag(1)).expect("a free address")
    }

    /// A host that says its address to everybody who connects to its port 8080, and answers datagrams with it.
    pub(crate) fn server(&self, address: &str) -> Host {
        let host = self.host(address);
        let listener = host.tcp_listen(8080).expect("a free port");
        let socket = host.udp_bind(8080).expect("a free port");
        let name = address.to_owned();
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((mut stream, peer)) = accepted else { return };
                        let answer = format!("{name} saw {}", peer.ip());
                        tokio::spawn(async move {
                            let _ = stream.write_all(answer.as_bytes()).await;
                            let mut asked = [0; 1];
                            while matches!(stream.read(&mut asked).await, Ok(1..)) {
                                let _ = stream.write_all(&asked).await;
                            }
                        });
                    }
                    Ok((_, from)) = socket.recv_from(&mut buffer) => {
                        let _ = socket.send_to(name.as_bytes(), from).await;
                    }
                }
            }
        });
        host
    }

    pub(crate) async fn apply(&self, service: Service, slices: &[EndpointSlice]) {
        self.services.apply(service);
        for slice in slices {
            self.slices.apply(slice.clone());
        }
        self.activity.idle().await;
    }

    pub(crate) async fn apply_slice(&self, slice: EndpointSlice) {
        self.slices.apply(slice);
        self.activity.idle().await;
    }
}

pub(crate) fn at(address: &str) -> SocketAddr {
    address.parse().expect("a socket address")
}

pub(crate) async fn greeting(client: &Host, to: &str) -> io::Result<String> {
    let mut stream = client.tcp_connect(at(to)).await?;
    let mut buffer = [0; 64];
    let length = stream.read(&mut buffer).await?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// One datagram there and one back; `None` if nothing comes back for a second.
pub(crate) async fn ask(socket: &UdpSocket, to: &str) -> Option<Result<String, io::ErrorKind>> {
    let exchange = async {
        socket.send_to(b"who?", at(to)).await?;
        let mut buffer = [0; 64];
        let (length, from) = socket.recv_from(&mut buffer).await?;
        assert_eq!(from, at(to), "answers come from where the question went");
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let answer = tokio::time::timeout(std::time::Duration::from_secs(1), exchange).await.ok()?;
    Some(answer.map_err(|error: io::Error| error.kind()))
}

fn dns() -> Service {
    service("dns", "{ clusterIPs: [10.96.0.10], ports: [{ port: 53, protocol: UDP }] }")
}

fn dns_slice(endpoints: &[&str]) -> EndpointSlice {
    slice_with_ports("dns", "dns-1", "[{ name: '', port: 8080, protocol: UDP }]", endpoints)
}

#[tokio::test(start_paused = true)]
async fn rule_6_1_a_pod_reaches_an_endpoint_by_its_cluster_ip_and_keeps_its_address() {
    let net = net().await;
    let _server = net.server("10.244.2.2");
    let client = net.host("10.244.1.50");
    net.apply(web(""), &[slice("web", "web-1", &["10.244.2.2@node-2"])]).await;
    assert_eq!(greeting(&client, "10.96.0.20:80").await.expect("connected"), "10.244.2.2 saw 10.244.1.50");
}

#[tokio::test(start_paused = true)]
async fn rule_5_2_every_ready_endpoint_answers_in_turn_and_an_unready_one_never() {
    let net = net().await;
    let _servers = ["10.244.1.2", "10.244.2.2", "10.244.2.3"].map(|address| net.server(address));
    let client = net.host("10.244.1.50");
    let endpoints = ["10.244.1.2@node-1", "10.244.2.2@node-2", "10.244.2.3@node-2 notready"];
    net.apply(web(""), &[slice("web", "web-1", &endpoints)]).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..32 {
        seen.insert(greeting(&client, "10.96.0.20:80").await.expect("connected"));
    }
    let seen: Vec<&str> = seen.iter().map(String::as_str).collect();
    assert_eq!(seen, ["10.244.1.2 saw 10.244.1.50", "10.244.2.2 saw 10.244.1.50"]);
}

#[tokio::test(start_paused = true)]
async fn rule_6_1d_a_pod_reaches_itself_through_its_service_as_its_node() {
    let net = net().await;
    let pod = net.server("10.244.1.2");
    net.apply(web(""), &[slice("web", "web-1", &["10.244.1.2@node-1"])]).await;
    assert_eq!(greeting(&pod, "10.96.0.20:80").await.expect("connected"), "10.244.1.2 saw 172.18.0.2");
}

#[tokio::test(start_paused = true)]
async fn rule_6_2_a_node_port_answers_at_every_node_as_which_the_client_is_seen() {
    let net = net().await;
    let _server = net.server("10.244.1.2");
    let outside = net.host("203.0.113.7");
    let node_port =
        service("web", "{ type: NodePort, clusterIPs: [10.96.0.20], ports: [{ port: 80, nodePort: 30080 }] }");
    net.apply(node_port, &[slice("web", "web-1", &["10.244.1.2@node-1"])]).await;
    for (node, address) in [("172.18.0.2", "172.18.0.2:30080"), ("172.18.0.3", "172.18.0.3:30080")] {
        assert_eq!(greeting(&outside, address).await.expect("connected"), format!("10.244.1.2 saw {node}"));
    }
}

#[tokio::test(start_paused = true)]
async fn rule_5_5_clients_of_a_service_without_endpoints_fail_at_once_and_of_no_service_time_out() {
    let net = net().await;
    let client = net.host("10.244.1.50");
    net.apply(web(""), &[]).await;
    net.apply(dns(), &[]).await;
    let start = tokio::time::Instant::now();
    for refused in ["10.96.0.20:80", "10.96.0.20:81"] {
        let error = greeting(&client, refused).await.expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{refused}");
    }
    let socket = client.udp_bind(0).expect("a free port");
    assert_eq!(ask(&socket, "10.96.0.10:53").await, Some(Err(io::ErrorKind::ConnectionRefused)));
    assert!(start.elapsed() < std::time::Duration::from_millis(100), "{:?}", start.elapsed());
    let error = greeting(&client, "10.96.0.99:80").await.expect_err("nobody answers");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn rule_6_4_an_established_connection_survives_its_endpoint_and_new_ones_avoid_it() {
    let net = net().await;
    let _servers = ["10.244.1.2", "10.244.2.2"].map(|address| net.server(address));
    let client = net.host("10.244.1.50");
    net.apply(web(""), &[slice("web", "web-1", &["10.244.1.2@node-1"])]).await;
    let mut stream = client.tcp_connect(at("10.96.0.20:80")).await.expect("connected");
    let mut buffer = [0; 64];
    let length = stream.read(&mut buffer).await.expect("greeted");
    assert!(buffer[..length].starts_with(b"10.244.1.2 "));
    net.apply_slice(slice("web", "web-1", &["10.244.1.2@node-1 notready", "10.244.2.2@node-2"])).await;
    for _ in 0..8 {
        assert!(greeting(&client, "10.96.0.20:80").await.expect("connected").starts_with("10.244.2.2 "));
    }
    net.services.delete(web(""));
    net.activity.idle().await;
    stream.write_all(b"x").await.expect("still connected");
    assert_eq!(stream.read(&mut buffer).await.expect("still answered"), 1);
    let error = greeting(&client, "10.96.0.20:80").await.expect_err("the Service is gone");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn rule_6_5_a_udp_client_that_keeps_its_socket_follows_the_endpoints() {
    let net = net().await;
    let _servers = ["10.244.1.2", "10.244.2.2"].map(|address| net.server(address));
    let socket = net.host("10.244.1.50").udp_bind(5000).expect("a free port");
    let to = "10.96.0.10:53";
    let ask = async || ask(&socket, to).await;
    let says = |endpoint: &str| Some(Ok(endpoint.to_owned()));
    // Nothing there: a black hole that the Service's creation must clear.
    assert_eq!(ask().await, None);
    net.apply(dns(), &[dns_slice(&["10.244.1.2@node-1"])]).await;
    assert_eq!(ask().await, says("10.244.1.2"));
    // More endpoints, other policies, a restart of the watch: the flow stays.
    for _ in 0..4 {
        net.apply_slice(dns_slice(&["10.244.1.2@node-1", "10.244.2.2@node-2"])).await;
        assert_eq!(ask().await, says("10.244.1.2"));
    }
    let local = service(
        "dns",
        "{ clusterIPs: [10.96.0.10], ports: [{ port: 53, protocol: UDP }], internalTrafficPolicy: Local }",
    );
    net.apply(local, &[]).await;
    assert_eq!(ask().await, says("10.244.1.2"));
    net.apply(dns(), &[]).await;
    // Terminating but serving keeps its flows.
    net.apply_slice(dns_slice(&["10.244.1.2@node-1 terminating", "10.244.2.2@node-2"])).await;
    assert_eq!(ask().await, says("10.244.1.2"));
    // No longer serving does not.
    net.apply_slice(dns_slice(&["10.244.1.2@node-1 notready", "10.244.2.2@node-2"])).await;
    assert_eq!(ask().await, says("10.244.2.2"));
    // No endpoint at all, and from none to one.
    net.apply_slice(dns_slice(&[])).await;
    assert_eq!(ask().await, Some(Err(io::ErrorKind::ConnectionRefused)));
    net.apply_slice(dns_slice(&["10.244.1.2@node-1"])).await;
    assert_eq!(ask().await, says("10.244.1.2"));
    // The Service is deleted.
    net.services.delete(dns());
    net.activity.idle().await;
    assert_eq!(ask().await, None);
    assert!(net.network.flows().is_empty(), "{:?}", net.network.flows());
}

/// Two ports whose endpoint moves with one change of their slice: nobody finds one port moved and the other not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_5_11_a_changed_service_comes_into_force_as_a_whole() {
    let net = Arc::new(net().await);
    let web = "{ clusterIPs: [10.96.0.20], ports: [{ name: a, port: 80 }, { name: b, port: 81 }] }";
    let ports = "[{ name: a, port: 8080, protocol: TCP }, { name: b, port: 8081, protocol: TCP }]";
    let at_endpoint = |endpoint: &str| slice_with_ports("web", "web-1", ports, &[endpoint]);
    net.apply(service("web", web), &[at_endpoint("10.244.1.2@node-1")]).await;
    let (over, watched) = (Arc::new(AtomicBool::new(false)), net.clone());
    let is_over = over.clone();
    let reader = tokio::spawn(async move {
        while !is_over.load(Ordering::Relaxed) {
            let snapshot = Translator::new((*watched.proxy.table()).clone(), 1);
            let [a, b] = ["10.96.0.20:80", "10.96.0.20:81"].map(|to| {
                let flow = flow(Protocol::Tcp, CLIENT, to);
                snapshot.explain(&flow, Instant::now()).chosen.expect("one endpoint").ip()
            });
            assert_eq!(a, b);
            tokio::task::yield_now().await;
        }
    });
    for number in 0..200 {
        let endpoint = if number % 2 == 0 { "10.244.2.2@node-2" } else { "10.244.1.2@node-1" };
        net.apply_slice(at_endpoint(endpoint)).await;
    }
    over.store(true, Ordering::Relaxed);
    reader.await.expect("every snapshot was whole");
}

#[tokio::test(start_paused = true)]
async fn rule_6_5_flows_that_are_no_services_stay() {
    let net = net().await;
    let _server = net.server("10.244.1.2");
    let socket = net.host("10.244.1.50").udp_bind(5000).expect("a free port");
    assert_eq!(ask(&socket, "10.244.1.2:8080").await, Some(Ok("10.244.1.2".into())));
    net.apply(dns(), &[dns_slice(&["10.244.2.2@node-2"])]).await;
    assert_eq!(net.network.flows().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slice_that_changes_its_service_leaves_the_old_one() {
    let net = net().await;
    let _server = net.server("10.244.1.2");
    let client = net.host("10.244.1.50");
    net.apply(web(""), &[slice("web", "s", &["10.244.1.2@node-1"])]).await;
    assert!(greeting(&client, "10.96.0.20:80").await.is_ok());
    net.apply_slice(slice("api", "s", &["10.244.1.2@node-1"])).await;
    assert_eq!(greeting(&client, "10.96.0.20:80").await.expect_err("refused").kind(), io::ErrorKind::ConnectionRefused);
    net.apply_slice(slice("web", "s", &["10.244.1.2@node-1"])).await;
    assert!(greeting(&client, "10.96.0.20:80").await.is_ok());
    net.slices.delete(slice("web", "s", &["10.244.1.2@node-1"]));
    net.activity.idle().await;
    assert_eq!(greeting(&client, "10.96.0.20:80").await.expect_err("refused").kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn listeners_for_the_outside_are_told_of_node_ports_that_come_and_go() {
    let net = net().await;
    let mut frontends = net.proxy.external_frontends();
    let node_port =
        service("web", "{ type: NodePort, clusterIPs: [10.96.0.20], ports: [{ port: 80, nodePort: 30080 }] }");
    net.apply(node_port, &[]).await;
    let ports = |set: &proxy::ExternalFrontends| -> Vec<String> {
        set.iter().map(|frontend| format!("{}:{}", frontend.address, frontend.port)).collect()
    };
    assert_eq!(ports(&frontends.borrow_and_update()), ["172.18.0.2:30080", "172.18.0.3:30080"]);
    net.apply(dns(), &[]).await;
    assert!(!frontends.has_changed().expect("the proxy runs"), "a ClusterIP concerns nobody outside");
    net.nodes.delete((*two_nodes()[1]).clone());
    net.activity.idle().await;
    assert_eq!(ports(&frontends.borrow_and_update()), ["172.18.0.2:30080"]);
    net.apply(web(""), &[]).await;
    assert!(frontends.borrow_and_update().is_empty());
}

#[tokio::test(start_paused = true)]
async fn rule_1_2_a_host_port_is_its_pods_for_as_long_as_the_pod_runs() {
    let net = net().await;
    let pod = net.server("10.244.1.2");
    let outside = net.host("203.0.113.7");
    let mut frontends = net.proxy.external_frontends();
    let running = host_port_pod("a", "10.244.1.2", "{ containerPort: 8080, hostPort: 8888 }");
    net.pods.apply(running.clone());
    net.activity.idle().await;
    assert_eq!(greeting(&outside, "172.18.0.2:8888").await.expect("connected"), "10.244.1.2 saw 203.0.113.7");
    assert_eq!(greeting(&pod, "172.18.0.2:8888").await.expect("connected"), "10.244.1.2 saw 172.18.0.2");
    assert_eq!(frontends.borrow_and_update().iter().next().map(|frontend| frontend.port), Some(8888));
    let mut ended = running;
    ended.status.as_mut().expect("a status").phase = Some("Succeeded".into());
    net.pods.apply(ended);
    net.activity.idle().await;
    assert!(greeting(&outside, "172.18.0.2:8888").await.is_err());
    assert!(frontends.borrow_and_update().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_udp_client_of_a_host_port_follows_the_pod_that_has_it() {
    let net = net().await;
    let _servers = ["10.244.1.2", "10.244.1.3"].map(|address| net.server(address));
    let socket = net.host("203.0.113.7").udp_bind(5000).expect("a free port");
    let pod = |name: &str, ip: &str| host_port_pod(name, ip, "{ containerPort: 8080, hostPort: 53, protocol: UDP }");
    for (name, ip) in [("a", "10.244.1.2"), ("b", "10.244.1.3")] {
        net.pods.apply(pod(name, ip));
        net.activity.idle().await;
        assert_eq!(ask(&socket, "172.18.0.2:53").await, Some(Ok(ip.to_owned())));
        net.pods.delete(pod(name, ip));
        net.activity.idle().await;
    }
    assert!(net.network.flows().is_empty(), "{:?}", net.network.flows());
}
