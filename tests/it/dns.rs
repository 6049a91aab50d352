//! The cluster's DNS from the machine, upstream servers as configured, and what each dnsPolicy gives a pod.

use coracle::{Cluster, Output};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::task::AbortOnDropHandle;

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message.to_vec().expect("encodes")
}

/// Asks over both transports of the machine, which must agree.
async fn ask(server: SocketAddr, name: &str) -> Message {
    let request = question(name, RecordType::A);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
    socket.send_to(&request, server).await.expect("sent");
    let mut buffer = [0; 4096];
    let (length, _) = socket.recv_from(&mut buffer).await.expect("an answer");
    let over_udp = Message::from_vec(&buffer[..length]).expect("a message");
    let mut stream = TcpStream::connect(server).await.expect("a connection");
    stream.write_u16(request.len() as u16).await.expect("written");
    stream.write_all(&request).await.expect("written");
    let mut reply = vec![0; stream.read_u16().await.expect("a length").into()];
    stream.read_exact(&mut reply).await.expect("an answer");
    assert_eq!(Message::from_vec(&reply).expect("a message"), over_udp);
    over_udp
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

/// A server that gives every name in `domain` one address, and denies all others.
async fn upstream(domain: &'static str, address: [u8; 4]) -> (SocketAddr, AbortOnDropHandle<()>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
    let at = socket.local_addr().expect("an address");
    let task = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let request = Message::from_vec(&buffer[..length]).expect("a question");
            let mut reply = request.clone().into_response();
            let name = request.queries[0].name().clone();
            if !Name::from_ascii(domain).expect("a name").zone_of(&name) {
                reply.metadata.response_code = ResponseCode::NXDomain;
            } else if request.queries[0].query_type() == RecordType::A {
                reply.add_answer(Record::from_rdata(name, 60, RData::A(A(address.into()))));
            }
            socket.send_to(&reply.to_vec().expect("encodes"), from).await.expect("sent");
        }
    });
    (at, AbortOnDropHandle::new(task))
}

async fn exec(cluster: &Cluster, pod: &str, command: &[&str]) -> Output {
    cluster.exec("default", pod, command).await.expect("it runs")
}

#[tokio::test]
async fn the_machine_asks_the_clusters_dns_on_a_port_of_its_own() {
    let cluster = Cluster::builder().seed(1).dns_port(0).start().await.expect("a cluster");
    let server = cluster.dns_address().expect("DNS on the machine");
    assert!(server.ip().is_loopback() && server.port() != 0, "{server}");
    let service = "{apiVersion: v1, kind: Service, metadata: {name: api-service}, spec: {clusterIP: 10.96.7.7, ports: [{port: 80}]}}";
    cluster.apply(service).await.expect("applied");
    cluster.settled().await;
    let reply = ask(server, "api-service.default.svc.cluster.local.").await;
    assert_eq!((addresses(&reply), reply.metadata.authoritative), (vec!["10.96.7.7".to_owned()], true));
    let reply = ask(server, "nobody.default.svc.cluster.local.").await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    cluster.stop().await;
    // The port is free again for both.
    drop(std::net::UdpSocket::bind(server).expect("free"));
    drop(std::net::TcpListener::bind(server).expect("free"));
}

#[tokio::test]
async fn pods_and_the_machine_are_told_the_same_of_upstreams_stub_domains_and_static_names() {
    let (everything, _everything) = upstream("example.com.", [192, 0, 2, 1]).await;
    let (corp, _corp) = upstream("corp.example.com.", [192, 0, 2, 2]).await;
    let builder = Cluster::builder().seed(1).dns_port(0).dns_upstreams([everything]);
    let builder = builder.dns_stub_domain("corp.example.com", [corp]);
    let builder = builder.dns_host("db.example.com", IpAddr::from([192, 0, 2, 3]));
    let cluster = builder.start().await.expect("a cluster");
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: client}, spec: {containers: [{name: c, image: busybox, command: [sleep, '999']}]}}";
    cluster.apply(pod).await.expect("applied");
    cluster.settled().await;
    let server = cluster.dns_address().expect("DNS on the machine");
    for (name, address) in [
        ("www.example.com.", "192.0.2.1"),
        ("www.corp.example.com.", "192.0.2.2"),
        ("db.example.com.", "192.0.2.3"),
        ("host.coracle.internal.", "172.18.0.254"),
    ] {
        assert_eq!(addresses(&ask(server, name).await), [address], "{name}");
        let inside = exec(&cluster, "client", &["nslookup", name]).await;
        assert!(inside.stdout.contains(&format!("Address: {address}\n")), "{name}: {}", inside.stdout);
    }
    assert_eq!(ask(server, "www.example.org.").await.metadata.response_code, ResponseCode::NXDomain);
    cluster.stop().await;
}

#[tokio::test]
async fn rule_9_1_each_dns_policy_gives_a_pod_its_own_resolv_conf() {
    let (custom, _custom) = upstream("example.com.", [192, 0, 2, 1]).await;
    // host.coracle.internal means the machine's loopback, but a nameserver has port 53; so "None" is pointed into the cluster.
    let cluster = Cluster::builder().seed(1).dns_upstreams([custom]).start().await.expect("a cluster");
    let pod = |name: &str, more: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{more}, containers: [{{name: c, image: busybox, \
             command: [sleep, '999']}}]}}}}\n---\n"
        )
    };
    let none = "dnsPolicy: None, dnsConfig: {nameservers: [10.96.0.10], searches: [example.com, svc.cluster.local], options: \
                [{name: ndots, value: '2'}, {name: edns0}]}";
    let pods = [
        pod("first", "dnsPolicy: ClusterFirst"),
        pod("first-on-host", "hostNetwork: true, dnsPolicy: ClusterFirst"),
        pod("with-host-net", "hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet"),
        pod("default", "dnsPolicy: Default"),
        pod("none", none),
    ];
    cluster.apply(&pods.concat()).await.expect("applied");
    cluster.settled().await;
    let text = async |pod: &str| exec(&cluster, pod, &["cat", "/etc/resolv.conf"]).await.stdout;
    let lookup = async |pod: &str, name: &str| exec(&cluster, pod, &["nslookup", name]).await.stdout;

    for pod in ["first", "with-host-net"] {
        let conf = text(pod).await;
        let search = "search default.svc.cluster.local svc.cluster.local cluster.local";
        assert!(conf.starts_with("nameserver 10.96.0.10\n"), "{pod}: {conf}");
        assert!(conf.contains(search) && conf.ends_with("options ndots:5\n"), "{pod}: {conf}");
        let found = lookup(pod, "kubernetes").await;
        assert!(found.contains("Address: 10.96.0.1\n"), "{pod}: {found}");
    }
    let of_the_machine = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with("nameserver"));
        lines.filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned)).take(3).collect()
    };
    for pod in ["first-on-host", "default"] {
        let conf = text(pod).await;
        assert_eq!(servers(&conf), servers(&of_the_machine), "{pod}: {conf}");
        assert!(!conf.contains("cluster.local"), "{pod}: {conf}");
    }
    assert_eq!(
        text("none").await,
        "nameserver 10.96.0.10\nsearch example.com svc.cluster.local\noptions ndots:2 edns0\n"
    );
    let found = lookup("none", "www").await;
    assert!(found.contains("Address: 192.0.2.1\n"), "by its own search list: {found}");
    let found = lookup("none", "kubernetes.default.svc.cluster.local").await;
    assert!(found.contains("Address: 10.96.0.1\n"), "as it is first, with two dots or more: {found}");
    cluster.stop().await;
}

fn sleeper(name: &str, labels: &str, more: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{{labels}}}}}, spec: {{{more} containers: [{{name: c, \
         image: busybox, command: [sleep, '9999']}}]}}}}\n"
    )
}

#[tokio::test(start_paused = true)]
async fn rule_9_1_dns_policy_none_without_a_nameserver_is_refused() {
    let cluster = Cluster::builder().seed(1).start().await.expect("a cluster");
    for (config, told) in [
        ("", "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"),
        (
            "dnsConfig: {searches: [a.example]},",
            "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None",
        ),
    ] {
        let refused = cluster.apply(&sleeper("none", "app: none", &format!("dnsPolicy: None, {config}"))).await;
        let error = format!("{:#}", refused.expect_err("refused"));
        assert!(error.contains("Pod \"none\" is invalid") && error.contains(told), "{error}");
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rule_9_5_a_stateful_sets_pod_has_its_own_name_below_the_headless_service() {
    let cluster = Cluster::builder().seed(1).start().await.expect("a cluster");
    let manifests = "{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}}
---
{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db}, spec: {serviceName: db, replicas: 2, selector: {matchLabels: {app: db}},
  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: busybox, command: [sleep, '9999']}]}}}}";
    cluster.apply(manifests).await.expect("applied");
    cluster.settled().await;
    let ip = exec(&cluster, "db-1", &["hostname", "-i"]).await.stdout.trim().to_owned();
    assert_eq!(exec(&cluster, "db-1", &["hostname"]).await.stdout, "db-1\n");
    let hosts = exec(&cluster, "db-1", &["cat", "/etc/hosts"]).await.stdout;
    assert!(hosts.contains(&format!("{ip}\tdb-1.db.default.svc.cluster.local\tdb-1\n")), "{hosts}");
    let found = exec(&cluster, "db-0", &["nslookup", "-type=a", "db-1.db.default.svc.cluster.local"]).await.stdout;
    assert!(found.contains(&format!("Address: {ip}\n")), "{found}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rule_8_9_policies_apply_to_dns_as_to_all_traffic() {
    let cluster = Cluster::builder().seed(1).start().await.expect("a cluster");
    cluster.apply(&sleeper("client", "app: client", "")).await.expect("applied");
    cluster.settled().await;
    let lookup = async || exec(&cluster, "client", &["nslookup", "kubernetes.default.svc.cluster.local"]).await;
    let found = lookup().await;
    assert!(found.stdout.contains("Address: 10.96.0.1\n"), "{}", found.stdout);
    let policy = |egress: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p}}, spec: {{podSelector: {{matchLabels: \
             {{app: client}}}}, policyTypes: [Egress], egress: [{egress}]}}}}"
        )
    };
    cluster.apply(&policy("{ports: [{port: 443, protocol: TCP}]}")).await.expect("applied");
    cluster.settled().await;
    let denied = lookup().await;
    assert!(!denied.stdout.contains("10.96.0.1\n"), "{}", denied.stdout);
    assert_ne!(denied.code, 0);
    // What is allowed is the DNS pod's port, after the Service's address has been translated.
    let to_dns = "{to: [{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}]}";
    cluster.apply(&policy(to_dns)).await.expect("applied");
    cluster.settled().await;
    let found = lookup().await;
    assert!(found.stdout.contains("Address: 10.96.0.1\n"), "{}", found.stdout);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rule_8_2_pods_that_are_not_ready_have_names_where_their_service_publishes_them() {
    let cluster = Cluster::builder().seed(1).dns_port(0).start().await.expect("a cluster");
    let never = "hostname: db-0, subdomain: quiet, readinessGates: [{conditionType: example.com/never}],";
    let service = |name: &str, publish: bool| {
        format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{clusterIP: None, selector: {{app: db}}, \
             publishNotReadyAddresses: {publish}, ports: [{{port: 5432}}]}}}}\n"
        )
    };
    let all = [sleeper("db", "app: db", never), service("quiet", false), service("loud", true)].concat();
    cluster.apply(&all).await.expect("applied");
    cluster.settled().await;
    let dig = async |name: &str| exec(&cluster, "db", &["nslookup", name]).await.stdout;
    let ip = exec(&cluster, "db", &["hostname", "-i"]).await.stdout.trim().to_owned();
    assert!(ip.starts_with("10.244."), "{ip}");
    assert!(dig("quiet.default.svc.cluster.local").await.contains("NXDOMAIN"));
    let found = dig("loud.default.svc.cluster.local").await;
    assert!(found.contains(&format!("Address: {ip}\n")), "{found}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rule_9_5_a_pod_whose_full_name_is_too_long_for_a_hostname_is_not_started() {
    let cluster = Cluster::builder().seed(1).start().await.expect("a cluster");
    let short = "hostname: a, subdomain: db, setHostnameAsFQDN: true,";
    cluster.apply(&sleeper("short", "app: db", short)).await.expect("applied");
    cluster.settled().await;
    assert_eq!(exec(&cluster, "short", &["hostname"]).await.stdout, "a.db.default.svc.cluster.local\n");
    // It is tried again and again, so the cluster does not settle from here on.
    let long = format!("hostname: {}, subdomain: db, setHostnameAsFQDN: true,", "a".repeat(60));
    cluster.apply(&sleeper("long", "app: db", &long)).await.expect("applied");
    let events: kube::Api<k8s_openapi::api::core::v1::Event> = kube::Api::default_namespaced(cluster.client());
    let told = async || {
        let events = events.list(&Default::default()).await.expect("a list").items;
        let about = events.into_iter().filter(|event| event.involved_object.name.as_deref() == Some("long"));
        let mut texts = about.filter_map(|event| event.message);
        texts.any(|text| text.contains("is too long (64 characters is the max"))
    };
    while !told().await {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::default_namespaced(cluster.client());
    let status = pods.get("long").await.expect("the pod").status.expect("a status");
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_8_6_the_dns_service_has_the_ports_dns_dns_tcp_and_metrics_and_tells_what_it_was_asked() {
    let cluster = Cluster::builder().seed(86).start().await.expect("a cluster");
    cluster.apply(&sleeper("asker", "app: asker", "")).await.expect("applied");
    cluster.settled().await;
    let services: kube::Api<k8s_openapi::api::core::v1::Service> =
        kube::Api::namespaced(cluster.client(), "kube-system");
    let ports = services.get("kube-dns").await.expect("the Service").spec.and_then(|spec| spec.ports).expect("ports");
    let told: Vec<String> = ports
        .iter()
        .map(|port| {
            format!(
                "{} {}/{}",
                port.name.as_deref().unwrap_or_default(),
                port.port,
                port.protocol.as_deref().unwrap_or_default()
            )
        })
        .collect();
    assert_eq!(told, ["dns 53/UDP", "dns-tcp 53/TCP", "metrics 9153/TCP"]);

    let metrics = async || {
        let ran = exec(&cluster, "asker", &["wget", "-q", "-O", "-", "http://kube-dns.kube-system:9153/metrics"]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.stdout
    };
    let value = |text: &str, series: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("{series}: {text}"));
        line.rsplit_once(' ').and_then(|(_, number)| number.parse().ok()).expect("a number")
    };
    let series = "coredns_dns_responses_total{server=\"dns://:53\",zone=\".\",rcode=\"NXDOMAIN\"}";
    let ran = exec(&cluster, "asker", &["nslookup", "nobody.default.svc.cluster.local."]).await;
    assert_ne!(ran.code, 0, "{ran:?}");
    let before = metrics().await;
    let ran = exec(&cluster, "asker", &["nslookup", "nobody.default.svc.cluster.local."]).await;
    assert_ne!(ran.code, 0, "{ran:?}");
    let after = metrics().await;
    assert!(value(&after, series) > value(&before, series), "{before}{after}");
    let requests = "coredns_dns_requests_total{server=\"dns://:53\",zone=\".\",proto=\"udp\"}";
    assert!(value(&after, requests) > value(&before, requests), "{before}{after}");
    cluster.stop().await;
}
