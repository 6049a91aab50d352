//! Policies in a whole cluster: what the API says of them, and what its options do to real connections.

use coracle::{Builder, Cluster, CniProfile, Container, Denial, Established, FunctionPod};
use expect_test::expect;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// Echoes what comes to port 80.
async fn echo(container: Container) -> i32 {
    let Ok(listener) = container.host.tcp_listen(80) else { return 1 };
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            tokio::io::copy(&mut reader, &mut writer).await
        });
    }
    0
}

/// Pods `web` and `db`, both on node-1; `web`'s host, to connect from.
pub(crate) async fn cluster(builder: Builder) -> (Cluster, netstack::Host, SocketAddr) {
    let cluster = builder.seed(11).start().await.expect("a cluster");
    let (hosts, mut given) = mpsc::unbounded_channel();
    let client = move |container: Container| {
        let hosts = hosts.clone();
        async move {
            let _ = hosts.send(container.host.clone());
            std::future::pending::<i32>().await
        }
    };
    cluster.run_pod(FunctionPod::new("web").label("app", "web").port(80), client).await.expect("a pod");
    cluster.run_pod(FunctionPod::new("db").label("app", "db").port(80), echo).await.expect("a pod");
    cluster.settled().await;
    let host = given.recv().await.expect("a host");
    let db = db(&cluster).await;
    (cluster, host, db)
}

/// Where pod `db` listens.
async fn db(cluster: &Cluster) -> SocketAddr {
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let ip = pods.get("db").await.expect("the pod").status.and_then(|status| status.pod_ip).expect("an address");
    format!("{ip}:80").parse().expect("an address")
}

pub(crate) const DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}
";

/// Whether a byte comes back within ten seconds.
pub(crate) async fn echoed(stream: &mut netstack::TcpStream) -> bool {
    let exchange = async {
        stream.write_all(b"x").await?;
        stream.read(&mut [0; 1]).await
    };
    matches!(tokio::time::timeout(Duration::from_secs(10), exchange).await, Ok(Ok(1)))
}

#[tokio::test(start_paused = true)]
async fn rule_11_14_an_open_connection_is_cut_by_a_new_policy_or_kept_as_the_cluster_was_told() {
    for (established, goes_on) in [(Established::ReEvaluate, false), (Established::Keep, true)] {
        let (cluster, web, db) = cluster(Cluster::builder().policy_established(established)).await;
        let mut open = web.tcp_connect(db).await.expect("connected");
        assert!(echoed(&mut open).await);
        cluster.apply(DENY).await.expect("applied");
        cluster.settled().await;
        assert_eq!(echoed(&mut open).await, goes_on, "{established:?}");
        assert!(web.tcp_connect(db).await.is_err(), "{established:?}");
        cluster.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn rule_11_15_a_denied_client_times_out_or_is_refused_at_once_as_the_cluster_was_told() {
    for (mode, kind) in [(Denial::Drop, ErrorKind::TimedOut), (Denial::Reject, ErrorKind::ConnectionRefused)] {
        let (cluster, web, db) = cluster(Cluster::builder().deny_mode(mode)).await;
        cluster.apply(DENY).await.expect("applied");
        cluster.settled().await;
        assert_eq!(web.tcp_connect(db).await.expect_err("denied").kind(), kind, "{mode:?}");
        cluster.stop().await;
    }
}

const TIERS: &str = "
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: no-web}
spec:
  priority: 10
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}}
  ingress: [{action: Deny, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}], ports: [{portNumber: {port: 80}}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: BaselineAdminNetworkPolicy
metadata: {name: default}
spec:
  subject: {namespaces: {}}
  ingress: [{action: Deny, from: [{namespaces: {}}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: names}
spec:
  tier: Admin
  priority: 20
  subject: {namespaces: {}}
  egress: [{action: Accept, to: [{domainNames: [example.com]}]}]
";

fn policies(cluster: &Cluster, version: &str, kind: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("policy.networking.k8s.io", version, kind);
    Api::all_with(cluster.client(), &ApiResource::from_gvk(&kind))
}

#[tokio::test(start_paused = true)]
async fn rule_12_7_the_policies_of_v1alpha1_bind_real_connections() {
    let (cluster, web, db) = cluster(Cluster::builder().deny_mode(Denial::Reject)).await;
    web.tcp_connect(db).await.expect("connected");
    cluster.apply(TIERS).await.expect("applied");
    cluster.settled().await;
    assert!(web.tcp_connect(db).await.is_err(), "the AdminNetworkPolicy denies it");
    policies(&cluster, "v1alpha1", "AdminNetworkPolicy").delete("no-web", &Default::default()).await.expect("deleted");
    cluster.settled().await;
    assert!(web.tcp_connect(db).await.is_err(), "the BaselineAdminNetworkPolicy denies it");
    let baselines = policies(&cluster, "v1alpha1", "BaselineAdminNetworkPolicy");
    baselines.delete("default", &Default::default()).await.expect("deleted");
    cluster.settled().await;
    web.tcp_connect(db).await.expect("connected");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rule_12_6_the_status_says_whether_a_policy_is_in_force() {
    let (cluster, ..) = cluster(Cluster::builder()).await;
    cluster.apply(TIERS).await.expect("applied");
    cluster.settled().await;
    let mut said = String::new();
    let kinds = [
        ("v1alpha1", "AdminNetworkPolicy", "no-web"),
        ("v1alpha1", "BaselineAdminNetworkPolicy", "default"),
        ("v1alpha2", "ClusterNetworkPolicy", "names"),
    ];
    for (version, kind, name) in kinds {
        let object = policies(&cluster, version, kind).get(name).await.expect("the policy");
        let condition = &object.data["status"]["conditions"][0];
        assert_eq!(condition["observedGeneration"], 1);
        let field = |name: &str| condition[name].as_str().expect("a text").to_owned();
        let (kind, status, reason, message) = (field("type"), field("status"), field("reason"), field("message"));
        said += &format!("{name}: {kind}={status} {reason}: {message}\n");
    }
    expect![[r#"
        no-web: Accepted=True Accepted: The policy is in force.
        default: Accepted=True Accepted: The policy is in force.
        names: Accepted=True Accepted: The policy is in force.
    "#]]
    .assert_eq(&said);
    cluster.stop().await;
}

const EQUAL: &str = "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: allow-web}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {}}
  ingress: [{action: Accept, from: [{pods: {podSelector: {matchLabels: {app: web}}}}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: deny-80}
spec:
  tier: Admin
  priority: 10
  subject: {pods: {podSelector: {matchLabels: {app: db}}}}
  ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: other-ports}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {}}
  ingress: [{action: Deny, from: [{pods: {podSelector: {matchLabels: {app: nobody}}}}], protocols: [{tcp: {destinationPort: {number: 81}}}]}]
";

#[tokio::test(start_paused = true)]
async fn rule_12_4_two_policies_of_equal_priority_that_both_match_are_warned_of_once_and_the_name_decides() {
    let (cluster, web, db) = cluster(Cluster::builder()).await;
    cluster.apply(EQUAL).await.expect("applied");
    cluster.settled().await;
    let events: Api<Event> = Api::namespaced(cluster.client(), "default");
    let fields = ListParams::default().fields("reason=EqualPriority");
    let told = async || {
        let list = events.list(&fields).await.expect("a list").items;
        let mut told: Vec<String> = list
            .into_iter()
            .map(|event| {
                let about = event.involved_object.name.unwrap_or_default();
                format!("{} {about}: {}", event.type_.unwrap_or_default(), event.message.unwrap_or_default())
            })
            .collect();
        told.sort();
        told.join("\n")
    };
    expect![[r#"
        Warning allow-web: priority 10 of tier Admin is that of deny-80 too, and both match the same connections (ingress rule 0 of allow-web and rule 0 of deny-80, for pod default/db): the API leaves open which comes first; here it is allow-web, by its name
        Warning deny-80: priority 10 of tier Admin is that of allow-web too, and both match the same connections (ingress rule 0 of allow-web and rule 0 of deny-80, for pod default/db): the API leaves open which comes first; here it is allow-web, by its name"#]]
    .assert_eq(&told().await);
    web.tcp_connect(db).await.expect("allow-web comes before deny-80");
    // Another change tells nobody the same again.
    cluster.apply(DENY).await.expect("applied");
    cluster.settled().await;
    assert_eq!(told().await.lines().count(), 2);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rule_11_13_a_pod_is_isolated_from_its_first_packet() {
    let cluster = Cluster::builder().seed(12).deny_mode(Denial::Reject).start().await.expect("a cluster");
    let deny = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny-egress}
spec: {podSelector: {matchLabels: {app: eager}}, policyTypes: [Egress]}
";
    cluster.run_pod(FunctionPod::new("db").label("app", "db").port(80), echo).await.expect("a pod");
    cluster.settled().await;
    let address = db(&cluster).await;
    // Nothing is waited for between the policy and the pod, whose first act is to connect.
    cluster.apply(deny).await.expect("applied");
    let (results, mut first) = mpsc::unbounded_channel();
    let pods = (0..8).map(|number| {
        let (results, cluster) = (results.clone(), &cluster);
        async move {
            let eager = move |container: Container| {
                let results = results.clone();
                async move {
                    let _ = results.send(container.host.tcp_connect(address).await.map(drop));
                    std::future::pending::<i32>().await
                }
            };
            let pod = FunctionPod::new(&format!("eager-{number}")).label("app", "eager");
            cluster.run_pod(pod, eager).await.expect("a pod");
        }
    });
    futures::stream::iter(pods).buffer_unordered(8).collect::<Vec<()>>().await;
    for _ in 0..8 {
        let met = first.recv().await.expect("a first packet");
        assert_eq!(met.expect_err("denied").kind(), ErrorKind::ConnectionRefused);
    }
    cluster.stop().await;
}

const PROBED: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny-all}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  containers:
  - {name: web, image: 'nginx:1', ports: [{containerPort: 80}], readinessProbe: {httpGet: {port: 80}, periodSeconds: 1}}
";

#[tokio::test(start_paused = true)]
async fn rule_11_10_probes_and_exec_reach_a_pod_that_nobody_else_may_reach() {
    let (cluster, web, _) = cluster(Cluster::builder().deny_mode(Denial::Reject)).await;
    cluster.apply(PROBED).await.expect("applied");
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let ready = async || loop {
        let status = pods.get("probed").await.expect("the pod").status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
            return status.pod_ip.expect("an address");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let ip = tokio::time::timeout(Duration::from_secs(60), ready()).await.expect("the kubelet's probe gets through");
    let address: SocketAddr = format!("{ip}:80").parse().expect("an address");
    assert!(web.tcp_connect(address).await.is_err(), "others do not");
    let output = cluster.exec("default", "probed", &["echo", "here"]).await.expect("not on the network");
    assert_eq!(output.stdout, "here\n");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_does_not_enforce_policies_does_not_say_that_they_are_in_force() {
    let (cluster, web, db) = cluster(Cluster::builder().cni_profile(CniProfile::Flannel)).await;
    cluster.apply(TIERS).await.expect("applied");
    cluster.settled().await;
    web.tcp_connect(db).await.expect("connected");
    let policy = policies(&cluster, "v1alpha1", "AdminNetworkPolicy").get("no-web").await.expect("the policy");
    assert!(policy.data["status"].is_null(), "{}", policy.data);
    cluster.stop().await;
}
