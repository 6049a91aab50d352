//! The running policy engine: real connections through a network whose hook it is, and what changes do to them.

use crate::support::{namespace, pod, yaml};
use informer::{Activity, Informer};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use netstack::{FiveTuple, Hooks, Host, Network, NewFlow, PortTag, Protocol, Translate, Translation, Verdict};
use policy::v1alpha2::ClusterNetworkPolicy;
use policy::{ClusterPolicies, Denial, Established, Policy, Sources};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

struct PassAll;

impl Translate for PassAll {
    fn translate(&self, _: &FiveTuple, _: PortTag, _: Instant) -> Translation {
        Translation::Pass
    }
}

pub(crate) struct Net {
    pub(crate) activity: Activity,
    pub(crate) network: Network,
    pub(crate) policy: Arc<Policy>,
    pub(crate) sources: Sources,
    progress_requests: Arc<AtomicUsize>,
}

pub(crate) fn net(denial: Denial) -> Net {
    net_with(policy::Config { denial, ..policy::Config::default() })
}

/// An empty network under policies: namespaces `default` and `web` (label `team=web`), and node-1 at 172.18.0.2.
pub(crate) fn net_with(config: policy::Config) -> Net {
    let activity = Activity::default();
    let network = Network::new(netstack::Config { mtu: 1500, seed: 1 });
    let sources = Sources {
        policies: Informer::detached(activity.clone()),
        namespaces: Informer::detached(activity.clone()),
        cluster_policies: Some(ClusterPolicies {
            cluster: Informer::detached(activity.clone()),
            admin: Informer::detached(activity.clone()),
            baseline: Informer::detached(activity.clone()),
        }),
        pods: Informer::detached(activity.clone()),
        nodes: Informer::detached(activity.clone()),
    };
    sources.namespaces.apply(namespace("default", ""));
    sources.namespaces.apply(namespace("web", "team=web"));
    sources.nodes.apply(node("node-1", "172.18.0.2"));
    let progress_requests = Arc::new(AtomicUsize::new(0));
    let counter = progress_requests.clone();
    let config = policy::Config {
        request_progress: Arc::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }),
        ..config
    };
    let policy = Arc::new(policy::start_with(sources.clone(), network.clone(), config));
    network.install(Hooks { translate: Arc::new(PassAll), filter: policy.filter() });
    Net { activity, network, policy, sources, progress_requests }
}

pub(crate) fn node(name: &str, address: &str) -> Node {
    yaml(&format!(
        "{{ metadata: {{ name: {name} }}, status: {{ addresses: [{{ type: InternalIP, address: {address} }}, {{ type: Hostname, address: {name} }}] }} }}"
    ))
}

fn at_version(mut pod: Pod, version: &str) -> Pod {
    pod.metadata.resource_version = Some(version.into());
    pod
}

pub(crate) fn network_policy(name: &str, spec: &str) -> NetworkPolicy {
    yaml(&format!("{{ metadata: {{ namespace: default, name: {name} }}, spec: {spec} }}"))
}

fn allow_from_web() -> NetworkPolicy {
    network_policy(
        "allow-web",
        "{ podSelector: {}, ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: web } } }] }] }",
    )
}

impl Net {
    pub(crate) fn host(&self, address: &str) -> Host {
        let ip: IpAddr = address.parse().expect("an address");
        self.network.attach_host(&[ip], PortTag(1)).expect("a free address")
    }

    /// A pod with a network and under its policies, that echoes what comes to its port 80.
    pub(crate) async fn pod(&self, full_name: &str, labels: &str, address: &str) -> Host {
        let pod = pod(full_name, labels, "node-1", "");
        self.sources.pods.apply(pod.clone());
        self.policy.attach(&pod, &[address.parse().expect("an address")]).await;
        let host = self.host(address);
        let listener = host.tcp_listen(80).expect("a free port");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = [0; 16];
                    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                        let _ = stream.write_all(&buffer[..length]).await;
                    }
                });
            }
        });
        host
    }

    pub(crate) async fn apply(&self, policy: NetworkPolicy) {
        self.sources.policies.apply(policy);
        self.activity.idle().await;
    }
}

pub(crate) fn at(address: &str) -> SocketAddr {
    address.parse().expect("a socket address")
}

/// Whether a byte comes back within five seconds.
pub(crate) async fn echoed(stream: &mut netstack::TcpStream) -> bool {
    let exchange = async {
        stream.write_all(b"x").await?;
        stream.read(&mut [0; 16]).await
    };
    matches!(tokio::time::timeout(Duration::from_secs(5), exchange).await, Ok(Ok(1)))
}

pub(crate) async fn connects(client: &Host, to: &str) -> bool {
    match tokio::time::timeout(Duration::from_secs(5), client.tcp_connect(at(to))).await {
        Ok(Ok(mut stream)) => echoed(&mut stream).await,
        _ => false,
    }
}

#[tokio::test(start_paused = true)]
async fn rule_11_3_replies_and_related_icmp_follow_the_connection_of_an_isolated_client() {
    let net = net(Denial::Drop);
    let db = net.pod("default/db", "app=db", "10.244.1.2").await;
    let client = net.pod("default/client", "app=client", "10.244.1.4").await;
    net.apply(network_policy("deny", "{ podSelector: { matchLabels: { app: client } }, policyTypes: [Ingress] }"))
        .await;
    assert!(connects(&client, "10.244.1.2:80").await);
    assert!(!connects(&db, "10.244.1.4:80").await);
    // Nobody listens: the refusal comes back as an ICMP error, which belongs to the flow.
    let socket = client.udp_bind(0).expect("a free port");
    socket.send_to(b"x", at("10.244.1.2:53")).await.expect("sent");
    let answer = tokio::time::timeout(Duration::from_secs(5), socket.recv_from(&mut [0; 16])).await;
    let error = answer.expect("at once").expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn an_isolated_pod_is_reached_only_by_whom_a_policy_allows() {
    let net = net(Denial::Drop);
    let db = net.pod("default/db", "app=db", "10.244.1.2").await;
    let front = net.pod("web/front", "app=front", "10.244.1.3").await;
    let other = net.pod("default/other", "app=other", "10.244.1.4").await;
    assert!(connects(&other, "10.244.1.2:80").await);
    net.apply(allow_from_web()).await;
    assert!(connects(&front, "10.244.1.2:80").await);
    assert!(!connects(&other, "10.244.1.2:80").await);
    assert!(connects(&db, "10.244.1.3:80").await, "replies follow the connection");
}

#[tokio::test(start_paused = true)]
async fn rule_11_13_a_policy_that_is_older_than_the_pod_is_in_force_for_its_first_packet() {
    let net = net(Denial::Drop);
    // A burst that has been told, and that nobody has had time to take in; the one that matters is the last of it.
    for number in 0..1000 {
        net.sources
            .policies
            .apply(network_policy(&format!("p-{number}"), "{ podSelector: { matchLabels: { app: x } } }"));
    }
    net.sources.policies.apply(network_policy("deny", "{ podSelector: {}, policyTypes: [Ingress] }"));
    let db = pod("default/db", "app=db", "node-1", "");
    net.policy.attach(&db, &["10.244.1.2".parse().expect("an address")]).await;
    let tuple = FiveTuple { protocol: Protocol::Tcp, src: at("10.244.1.3:40000"), dst: at("10.244.1.2:80") };
    let flow = NewFlow { original: tuple, translated: tuple, from: PortTag(1), to: PortTag(2) };
    let verdict = net.policy.filter().verdict(&flow);
    assert_eq!(verdict, Verdict::Drop(policy::reason::POLICY_DENIED_INGRESS));
}

#[tokio::test(start_paused = true)]
async fn rule_11_13_attaching_waits_until_policies_have_been_followed_to_the_pods_version_and_asks_for_it() {
    let net = net(Denial::Drop);
    let db = at_version(pod("default/db", "app=db", "node-1", ""), "7");
    let ips = ["10.244.1.2".parse().expect("an address")];
    let attaching = net.policy.attach(&db, &ips);
    // A detached informer never gets beyond version 0, so this must still wait, asking again from time to time.
    assert!(tokio::time::timeout(Duration::from_millis(3500), attaching).await.is_err());
    assert_eq!(net.progress_requests.load(Ordering::Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn rule_11_14_an_established_connection_that_would_now_be_denied_is_cut() {
    let net = net(Denial::Drop);
    let _db = net.pod("default/db", "app=db", "10.244.1.2").await;
    let front = net.pod("web/front", "app=front", "10.244.1.3").await;
    let other = net.pod("default/other", "app=other", "10.244.1.4").await;
    let mut allowed = front.tcp_connect(at("10.244.1.2:80")).await.expect("connected");
    let mut denied = other.tcp_connect(at("10.244.1.2:80")).await.expect("connected");
    assert!(echoed(&mut allowed).await && echoed(&mut denied).await);
    net.apply(allow_from_web()).await;
    assert!(echoed(&mut allowed).await);
    assert!(!echoed(&mut denied).await);
}

#[tokio::test(start_paused = true)]
async fn rule_11_14_with_keep_an_established_connection_goes_on_and_a_new_one_is_denied() {
    let net = net_with(policy::Config { established: Established::Keep, ..policy::Config::default() });
    let _db = net.pod("default/db", "app=db", "10.244.1.2").await;
    let other = net.pod("default/other", "app=other", "10.244.1.4").await;
    let mut open = other.tcp_connect(at("10.244.1.2:80")).await.expect("connected");
    assert!(echoed(&mut open).await);
    net.apply(allow_from_web()).await;
    assert!(echoed(&mut open).await);
    assert!(!connects(&other, "10.244.1.2:80").await);
    // Whoever has been refused is not refused for ever.
    net.sources.policies.delete(allow_from_web());
    net.activity.idle().await;
    assert!(connects(&other, "10.244.1.2:80").await);
    assert!(echoed(&mut open).await);
}

#[tokio::test(start_paused = true)]
async fn rule_11_14_a_udp_flow_that_was_refused_passes_once_it_is_allowed_with_keep_too() {
    for established in [Established::Keep, Established::ReEvaluate] {
        let net = net_with(policy::Config { established, ..policy::Config::default() });
        let db = net.pod("default/db", "app=db", "10.244.1.2").await;
        let other = net.pod("default/other", "app=other", "10.244.1.4").await;
        net.apply(allow_from_web()).await;
        let (server, client) = (db.udp_bind(53).expect("a free port"), other.udp_bind(0).expect("a free port"));
        let passes = async || {
            client.send_to(b"x", at("10.244.1.2:53")).await.expect("sent");
            let mut buffer = [0; 16];
            tokio::time::timeout(Duration::from_millis(1), server.recv_from(&mut buffer)).await.is_ok()
        };
        assert!(!passes().await, "{established:?}");
        net.sources.policies.delete(allow_from_web());
        net.activity.idle().await;
        assert!(passes().await, "{established:?}");
        net.apply(allow_from_web()).await;
        assert_eq!(passes().await, established == Established::Keep, "{established:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_11_14_a_policy_that_is_deleted_while_flows_are_open_leaves_them_open() {
    let net = net(Denial::Drop);
    let _db = net.pod("default/db", "app=db", "10.244.1.2").await;
    let front = net.pod("web/front", "app=front", "10.244.1.3").await;
    net.apply(allow_from_web()).await;
    let mut open = front.tcp_connect(at("10.244.1.2:80")).await.expect("connected");
    assert!(echoed(&mut open).await);
    net.sources.policies.delete(allow_from_web());
    net.activity.idle().await;
    assert!(echoed(&mut open).await);
    // One that is cut and let in again before it times out goes on where it was.
    net.apply(network_policy("deny", "{ podSelector: {}, policyTypes: [Ingress] }")).await;
    open.write_all(b"x").await.expect("taken");
    net.sources.policies.delete(network_policy("deny", "{}"));
    net.activity.idle().await;
    let answered = tokio::time::timeout(Duration::from_secs(60), open.read(&mut [0; 16])).await;
    assert!(matches!(answered, Ok(Ok(1))), "{answered:?}");
}

#[tokio::test(start_paused = true)]
async fn rule_11_15_an_established_connection_that_is_cut_is_reset_if_denials_are_answered() {
    let net = net(Denial::Reject);
    let _db = net.pod("default/db", "app=db", "10.244.1.2").await;
    let other = net.pod("default/other", "app=other", "10.244.1.4").await;
    let mut open = other.tcp_connect(at("10.244.1.2:80")).await.expect("connected");
    assert!(echoed(&mut open).await);
    net.apply(allow_from_web()).await;
    open.write_all(b"x").await.expect("taken");
    let error = open.read(&mut [0; 16]).await.expect_err("cut");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn rule_11_15_a_denied_client_times_out_or_is_refused_as_the_settings_say() {
    for (denial, kind) in [(Denial::Drop, io::ErrorKind::TimedOut), (Denial::Reject, io::ErrorKind::ConnectionRefused)]
    {
        let net = net(denial);
        let _db = net.pod("default/db", "app=db", "10.244.1.2").await;
        let other = net.pod("default/other", "app=other", "10.244.1.4").await;
        net.apply(allow_from_web()).await;
        let error = other.tcp_connect(at("10.244.1.2:80")).await.expect_err("denied");
        assert_eq!(error.kind(), kind, "{denial:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_11_16_deleting_a_policy_and_changing_labels_take_effect_at_the_next_packet() {
    let net = net(Denial::Drop);
    let _db = net.pod("default/db", "app=db", "10.244.1.2").await;
    let other = net.pod("default/other", "app=other", "10.244.1.4").await;
    let spec = "{ podSelector: { matchLabels: { app: db } }, ingress: [{ from: [{ podSelector: { matchLabels: { role: client } } }] }] }";
    net.apply(network_policy("db", spec)).await;
    assert!(!connects(&other, "10.244.1.2:80").await);
    // The client's labels.
    net.sources.pods.apply(pod("default/other", "app=other role=client", "node-1", ""));
    net.activity.idle().await;
    assert!(connects(&other, "10.244.1.2:80").await);
    // The namespace's labels.
    net.apply(network_policy(
        "db",
        "{ podSelector: {}, ingress: [{ from: [{ namespaceSelector: { matchLabels: { stage: test } } }] }] }",
    ))
    .await;
    assert!(!connects(&other, "10.244.1.2:80").await);
    net.sources.namespaces.apply(namespace("default", "stage=test"));
    net.activity.idle().await;
    assert!(connects(&other, "10.244.1.2:80").await);
    // The destination's labels: no longer selected.
    net.apply(network_policy("db", "{ podSelector: { matchLabels: { app: db } } }")).await;
    assert!(!connects(&other, "10.244.1.2:80").await);
    net.sources.pods.apply(pod("default/db", "app=cache", "node-1", ""));
    net.activity.idle().await;
    assert!(connects(&other, "10.244.1.2:80").await);
    // The policy itself.
    net.sources.pods.apply(pod("default/db", "app=db", "node-1", ""));
    net.activity.idle().await;
    assert!(!connects(&other, "10.244.1.2:80").await);
    net.sources.policies.delete(network_policy("db", "{}"));
    net.activity.idle().await;
    assert!(connects(&other, "10.244.1.2:80").await);
}

#[tokio::test(start_paused = true)]
async fn rule_12_4_a_policy_of_the_whole_cluster_cuts_what_no_network_policy_speaks_of() {
    let net = net(Denial::Drop);
    let _db = net.pod("default/db", "app=db", "10.244.1.2").await;
    let front = net.pod("web/front", "app=front", "10.244.1.3").await;
    let mut established = front.tcp_connect(at("10.244.1.2:80")).await.expect("connected");
    assert!(echoed(&mut established).await);
    let lockdown: ClusterNetworkPolicy = yaml(
        "{ metadata: { name: lockdown }, spec: { tier: Baseline, priority: 1, subject: { namespaces: {} }, ingress: [{ action: Deny, from: [{ namespaces: {} }] }] } }",
    );
    let cluster_policies = &net.sources.cluster_policies.as_ref().expect("followed").cluster;
    cluster_policies.apply(lockdown.clone());
    net.activity.idle().await;
    assert!(!echoed(&mut established).await);
    assert!(!connects(&front, "10.244.1.2:80").await);
    cluster_policies.delete(lockdown);
    net.activity.idle().await;
    assert!(connects(&front, "10.244.1.2:80").await);
}

#[tokio::test(start_paused = true)]
async fn rule_11_10_the_kubelet_of_the_pods_own_node_is_always_let_in() {
    let net = net(Denial::Drop);
    let _db = net.pod("default/db", "app=db", "10.244.1.2").await;
    net.apply(network_policy("deny", "{ podSelector: {}, policyTypes: [Ingress] }")).await;
    let (own, other) = (net.host("172.18.0.2"), net.host("172.18.0.3"));
    assert!(connects(&own, "10.244.1.2:80").await);
    assert!(!connects(&other, "10.244.1.2:80").await);
    // Nodes may change their addresses.
    net.sources.nodes.apply(node("node-1", "172.18.0.3"));
    net.activity.idle().await;
    assert!(connects(&other, "10.244.1.2:80").await);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_given_to_another_pod_follows_the_new_one() {
    let net = net(Denial::Drop);
    let client = net.pod("web/front", "app=front", "10.244.1.3").await;
    net.apply(network_policy("db", "{ podSelector: { matchLabels: { app: db } } }")).await;
    let old = net.pod("default/db", "app=db", "10.244.1.2").await;
    assert!(!connects(&client, "10.244.1.2:80").await);
    net.policy.detach(&["10.244.1.2".parse().expect("an address")]);
    old.shutdown();
    let _new = net.pod("default/cache", "app=cache", "10.244.1.2").await;
    assert!(connects(&client, "10.244.1.2:80").await);
    // What is still told of the old pod concerns nobody.
    net.sources.pods.apply(pod("default/db", "app=db changed=yes", "node-1", ""));
    net.activity.idle().await;
    assert!(connects(&client, "10.244.1.2:80").await);
}

#[tokio::test(start_paused = true)]
async fn labels_that_changed_while_a_pod_was_being_started_count_from_its_first_packet() {
    let net = net(Denial::Drop);
    let client = net.pod("web/front", "app=front", "10.244.1.3").await;
    net.apply(network_policy("db", "{ podSelector: { matchLabels: { app: db } } }")).await;
    // The kubelet starts with what it was told first; the informer has been told more since.
    net.sources.pods.apply(pod("default/db", "app=db", "node-1", ""));
    net.activity.idle().await;
    let early = pod("default/db", "app=none", "node-1", "");
    net.policy.attach(&early, &["10.244.1.2".parse().expect("an address")]).await;
    let _db = net.host("10.244.1.2").tcp_listen(80).expect("a free port");
    let error = client.tcp_connect(at("10.244.1.2:80")).await.expect_err("denied");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}
