//! Policies that go by names, in a whole cluster: what pods are told by the cluster's DNS is what they may open.

use crate::policies::{cluster, echoed};
use coracle::{Cluster, Denial};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use netstack::{Host, PortTag};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const NAMES: &str = "
apiVersion: v1
kind: Service
metadata: {name: heads}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: cdn.example.net}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: names}
spec:
  tier: Admin
  priority: 10
  subject: {pods: {podSelector: {matchLabels: {app: web}}}}
  egress:
  - {name: dns, action: Accept, to: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}], protocols: [{udp: {destinationPort: {number: 53}}}]}
  - name: names
    action: Accept
    to: [{domainNames: ['*.example.com', heads.default.svc.cluster.local, alias.default.svc.cluster.local]}]
  - {name: rest, action: Deny, to: [{networks: [0.0.0.0/0]}]}
";

/// A pod asks the cluster's DNS through its Service; how many records it is told.
async fn ask(pod: &Host, name: &str) -> usize {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), RecordType::A));
    let socket = pod.udp_bind(0).expect("a free port");
    let server: SocketAddr = "10.96.0.10:53".parse().expect("an address");
    socket.send_to(&message.to_vec().expect("encodes"), server).await.expect("sent");
    let mut buffer = [0; 1500];
    let (length, _) = socket.recv_from(&mut buffer).await.expect("an answer");
    Message::from_vec(&buffer[..length]).expect("a message").answers.len()
}

async fn question(cluster: &Cluster, plural: &str, spec: Value) -> Value {
    let request = http::Request::post(format!("/apis/net.coracle.dev/v1alpha1/{plural}"))
        .header("Content-Type", "application/json")
        .body(json!({"spec": spec}).to_string().into_bytes());
    let mut answer = cluster.client().request::<Value>(request.expect("a request")).await.expect("an answer");
    answer["status"].take()
}

async fn near_misses(cluster: &Cluster, to: &str) -> Value {
    let review = question(cluster, "policyreviews", json!({"from": "web", "to": to})).await;
    assert_eq!(review["verdicts"][0]["reason"], "CNP_DENY", "{review}");
    let misses = review["verdicts"][0]["egress"]["nearMisses"].as_array().cloned().unwrap_or_default();
    misses
        .iter()
        .map(|miss| miss["problem"].clone())
        .filter(|problem| problem.to_string().contains("example"))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn rule_12_3_what_the_clusters_dns_has_told_a_pod_is_what_a_domain_name_lets_it_open() {
    let builder = Cluster::builder().deny_mode(Denial::Reject).dns_host("api.example.com", [203, 0, 113, 7].into());
    let builder = builder.dns_host("www.example.org", [203, 0, 113, 8].into());
    let (cluster, web, db) = cluster(builder.dns_host("cdn.example.net", [203, 0, 113, 9].into())).await;
    let addresses = [7, 8, 9].map(|last| IpAddr::from([203, 0, 113, last]));
    let outside = cluster.network().attach_host(&addresses, PortTag(777)).expect("free addresses");
    let listener = outside.tcp_listen(443).expect("a free port");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(stream);
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    });
    let [api, www, cdn] = addresses.map(|address| SocketAddr::new(address, 443));
    web.tcp_connect(www).await.expect("no policy yet");
    cluster.apply(NAMES).await.expect("applied");
    cluster.settled().await;

    assert!(web.tcp_connect(api).await.is_err(), "nobody has asked");
    assert_eq!(
        near_misses(&cluster, "203.0.113.7:443").await,
        json!(["no pod has been answered `*.example.com` lately, so that it has no address"])
    );
    let looked_up = question(&cluster, "namelookups", json!({"name": "api.example.com.", "from": "web"})).await;
    assert!(looked_up.to_string().contains("203.0.113.7"), "{looked_up}");
    assert!(web.tcp_connect(api).await.is_err(), "a tool's question opens nothing");

    assert_eq!(ask(&web, "API.example.com.").await, 1);
    let mut open = web.tcp_connect(api).await.expect("let in by its name");
    assert!(echoed(&mut open).await);
    assert_eq!(ask(&web, "www.example.org.").await, 1);
    assert!(web.tcp_connect(www).await.is_err(), "another name");
    assert_eq!(
        near_misses(&cluster, "203.0.113.8:443").await,
        json!(["`api.example.com` was last answered with 203.0.113.7, and this is 203.0.113.8"])
    );

    // Names of the zone: a headless Service, and an alias that leads out of it.
    assert!(web.tcp_connect(db).await.is_err());
    assert_eq!(ask(&web, "heads.default.svc.cluster.local.").await, 1);
    web.tcp_connect(db).await.expect("let in by its name");
    assert!(web.tcp_connect(cdn).await.is_err());
    assert_eq!(ask(&web, "alias.default.svc.cluster.local.").await, 2);
    web.tcp_connect(cdn).await.expect("let in by the alias");

    // As if the policy named another, or were not there.
    let mut other: Value = cluster
        .client()
        .request(
            http::Request::get("/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies/names")
                .body(Vec::new())
                .expect("a request"),
        )
        .await
        .expect("the policy");
    other["spec"]["egress"][1]["to"][0]["domainNames"] = json!(["www.example.org"]);
    for (to, allowed) in [("203.0.113.7:443", false), ("203.0.113.8:443", true)] {
        let review = question(&cluster, "policyreviews", json!({"from": "web", "to": to, "policies": [other]})).await;
        assert_eq!(review["allowed"], allowed, "{to}: {review}");
    }

    // Five seconds, as the answer said.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(web.tcp_connect(api).await.is_err(), "the answer has run out");
    cluster.apply(crate::policies::DENY).await.expect("applied");
    cluster.settled().await;
    assert!(echoed(&mut open).await, "what is open stays open, judged again too");
    assert_eq!(ask(&web, "api.example.com.").await, 1);
    web.tcp_connect(api).await.expect("asked again");
    cluster.stop().await;
}
