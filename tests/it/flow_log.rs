//! The flow log over the API, the Events and metrics of denials, and who may ask the network what.

use axum::body::Body;
use coracle::{Cluster, Container, FunctionPod};
use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;
use tower::ServiceExt;

/// Accepts connections on port 80 and closes each when its client does.
async fn listener(container: Container) -> i32 {
    let Ok(listener) = container.host.tcp_listen(80) else { return 1 };
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut read, &mut write).await;
            tokio::io::AsyncWriteExt::shutdown(&mut write).await
        });
    }
    0
}

const MANIFESTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, ports: [{port: 5432, targetPort: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 80}]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: viewers, namespace: shop}
subjects: [{kind: User, name: viewer, apiGroup: rbac.authorization.k8s.io}]
roleRef: {kind: ClusterRole, name: view, apiGroup: rbac.authorization.k8s.io}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: editors, namespace: shop}
subjects: [{kind: User, name: editor, apiGroup: rbac.authorization.k8s.io}]
roleRef: {kind: ClusterRole, name: edit, apiGroup: rbac.authorization.k8s.io}
";

/// In `shop`, pods `api`, `web` and `db`, of which `db` takes connections from `api` only; in `default`, a pod `stranger`.
async fn cluster() -> Cluster {
    let cluster = Cluster::builder().seed(5).start().await.expect("a cluster");
    cluster.apply(MANIFESTS).await.expect("applied");
    for name in ["api", "web", "db"] {
        let pod = FunctionPod::new(name).namespace("shop").label("app", name).port(80);
        cluster.run_pod(pod, listener).await.expect("a pod");
    }
    cluster.run_pod(FunctionPod::new("stranger").port(80), listener).await.expect("a pod");
    cluster.settled().await;
    cluster
}

async fn post(cluster: &Cluster, path: &str, body: Value) -> (u16, Value) {
    let request = Request::post(format!("/apis/net.coracle.dev/v1alpha1/{path}"))
        .header("Content-Type", "application/json")
        .body(Body::from(body.to_string()));
    let response = cluster.router().oneshot(request.expect("a request")).await.expect("infallible");
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (code, serde_json::from_slice(&body).unwrap_or_default())
}

/// A connection of a pod, as a trace opens it, and its outcome.
async fn connect(cluster: &Cluster, from: &str, to: &str) -> Value {
    let spec = json!({"from": from, "to": to, "connect": true, "timeoutSeconds": 1});
    let (code, trace) = post(cluster, "traces", json!({"kind": "Trace", "spec": spec})).await;
    assert_eq!(code, 201, "{trace}");
    trace["status"]["outcome"].clone()
}

async fn log(cluster: &Cluster, query: &str) -> Body {
    let request = Request::post(format!("/apis/net.coracle.dev/v1alpha1/{query}")).body(Body::empty());
    let response = cluster.router().oneshot(request.expect("a request")).await.expect("infallible");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    response.into_body()
}

/// The events of a log that ends by itself.
async fn all(body: Body) -> Vec<Value> {
    let bytes = body.collect().await.expect("readable").to_bytes();
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(parsed).collect()
}

fn parsed(line: &[u8]) -> Value {
    serde_json::from_slice(line).expect("JSON")
}

/// A log that goes on.
struct Following {
    body: Body,
    read: VecDeque<Value>,
}

impl Following {
    async fn new(cluster: &Cluster, query: &str) -> Following {
        Following { body: log(cluster, query).await, read: VecDeque::new() }
    }

    /// The next event that is as wanted.
    async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            while let Some(event) = self.read.pop_front() {
                if wanted(&event) {
                    return event;
                }
            }
            let frame =
                tokio::time::timeout(Duration::from_secs(120), self.body.frame()).await.expect("told of in time");
            let data = frame.expect("the log goes on").expect("readable").into_data().expect("data");
            self.read.extend(data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(parsed));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flow_is_told_of_as_hubble_tells_it_when_it_opens_is_answered_and_ends() {
    let cluster = cluster().await;
    let mut log = Following::new(&cluster, "flowlogs?follow=true&pod=shop/api").await;
    assert_eq!(connect(&cluster, "shop/api", "db.shop:5432").await, "Connected");
    let is = |word: &'static str| {
        move |event: &Value| event["coracle"]["event"] == word && event["flow"]["l4"]["TCP"].is_object()
    };
    let opened = log.until(is("opened")).await;
    let flow = &opened["flow"];
    assert_eq!((&flow["verdict"], &flow["Type"]), (&"FORWARDED".into(), &"L3_L4".into()), "{opened}");
    assert_eq!((&flow["source"]["pod_name"], &flow["source"]["namespace"]), (&"api".into(), &"shop".into()));
    assert!(flow["source"]["labels"].as_array().is_some_and(|labels| labels.contains(&"k8s:app=api".into())));
    assert!(flow["source"]["identity"].as_u64().is_some_and(|identity| identity >= 256), "no reserved identity");
    assert_eq!(flow["destination"]["pod_name"], "db");
    assert_eq!(flow["destination_service"], json!({"name": "db", "namespace": "shop"}));
    assert_eq!(flow["l4"]["TCP"]["destination_port"], 80, "behind the Service");
    assert_eq!(flow["l4"]["TCP"]["flags"], json!({"SYN": true}));
    assert_eq!((&flow["traffic_direction"], &flow["is_reply"]), (&"INGRESS".into(), &false.into()));
    assert_eq!(flow["ingress_allowed_by"], json!([{"name": "db", "namespace": "shop", "kind": "NetworkPolicy"}]));
    assert_eq!(flow["Summary"], "TCP Flags: SYN");
    let answered = log.until(is("answered")).await;
    assert_eq!(answered["flow"]["source"]["pod_name"], "db", "a reply comes from the other end");
    assert_eq!(
        (&answered["flow"]["is_reply"], &answered["flow"]["Summary"]),
        (&true.into(), &"TCP Flags: SYN, ACK".into())
    );
    let closed = log.until(is("closed")).await;
    assert!(closed["coracle"]["bytes"]["there"].as_u64() > Some(40), "{closed}");
    cluster.stop().await;
    // The cluster has stopped, so the log ends instead of hanging.
    while log.body.frame().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_drop_names_the_policies_that_isolate_and_our_reason_beside_hubbles() {
    let cluster = cluster().await;
    let mut log = Following::new(&cluster, "flowlogs?follow=true&verdict=dropped").await;
    assert_eq!(connect(&cluster, "shop/web", "db.shop:5432").await, "TimedOut");
    let dropped = log.until(|_| true).await;
    let flow = &dropped["flow"];
    assert_eq!((&flow["verdict"], &flow["drop_reason_desc"]), (&"DROPPED".into(), &"POLICY_DENIED".into()));
    assert_eq!((&flow["drop_reason"], &flow["event_type"]["type"]), (&133.into(), &1.into()));
    assert_eq!(flow["ingress_denied_by"], json!([{"name": "db", "namespace": "shop", "kind": "NetworkPolicy"}]));
    assert_eq!(dropped["coracle"]["reason"], "POLICY_DENIED_INGRESS");
    assert_eq!(dropped["coracle"]["why"], json!(["shop/db is isolated for ingress by shop/db; no rule matched"]));
    cluster.stop().await;
}

const CLUSTER_DENY: &str = "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: DIRECTION}
spec:
  tier: Admin
  priority: 10
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: api}}}}
  DIRECTION: [{action: Deny, PEERS: [{namespaces: {}}]}]
";

#[tokio::test(start_paused = true)]
async fn rule_13_1_a_denial_of_a_cluster_network_policy_says_in_which_direction_also_when_the_policy_has_gone() {
    let cluster = cluster().await;
    for (direction, peers, from, to) in
        [("egress", "to", "shop/api", "shop/web:80"), ("ingress", "from", "shop/web", "shop/api:80")]
    {
        let policy = CLUSTER_DENY.replace("DIRECTION", direction).replace("PEERS", peers);
        cluster.apply(&policy).await.expect("applied");
        cluster.settled().await;
        assert_eq!(connect(&cluster, from, to).await, "TimedOut");
        let path = format!("/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies/{direction}");
        let delete = Request::delete(path).body(Vec::new()).expect("a request");
        cluster.client().request::<Value>(delete).await.expect("deleted");
        cluster.settled().await;
        let dropped = all(log(&cluster, "flowlogs?verdict=dropped&last=1").await).await.remove(0);
        assert_eq!(dropped["flow"]["traffic_direction"], direction.to_uppercase(), "{dropped}");
        assert_eq!(dropped["coracle"]["reason"], "CNP_DENY");
        assert_eq!(dropped["flow"]["drop_reason_desc"], "POLICY_DENY");
        let series = format!("coracle_drop_packets_total{{direction=\"{direction}\",reason=\"CNP_DENY\"}}");
        let request = Request::get("/metrics").body(Body::empty()).expect("a request");
        let metrics = cluster.router().oneshot(request).await.expect("infallible").into_body();
        let metrics = metrics.collect().await.expect("a body").to_bytes();
        assert!(String::from_utf8_lossy(&metrics).contains(&series), "{series}");
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_may_see_one_namespace_is_told_of_pods_elsewhere_their_namespace_and_name_and_nothing_that_is_made_of_labels()
 {
    let cluster = cluster().await;
    connect(&cluster, "stranger", "shop/db:80").await;
    connect(&cluster, "stranger", "shop/web:80").await;
    let read = async |client: kube::Client, path: &str| -> Vec<Value> {
        let request = Request::post(format!("/apis/net.coracle.dev/v1alpha1/{path}")).body(kube::client::Body::empty());
        let answer = client.send(request.expect("a request")).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let bytes = answer.into_body().collect().await.expect("readable").to_bytes();
        bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(parsed).collect()
    };
    let viewer = cluster.client_as("viewer", &["system:authenticated"]);
    let seen = read(viewer, "namespaces/shop/flowlogs?last=100").await;
    assert!(seen.len() >= 3, "{seen:?}");
    for event in &seen {
        let flow = &event["flow"];
        let ends = if flow["is_reply"] == true { ["destination", "source"] } else { ["source", "destination"] };
        let [elsewhere, own] = ends.map(|end| &flow[end]);
        let fields: Vec<&str> = elsewhere.as_object().expect("an end").keys().map(String::as_str).collect();
        assert_eq!(fields, ["cluster_name", "namespace", "pod_name"], "{event}");
        assert_eq!((&elsewhere["namespace"], &elsewhere["pod_name"]), (&"default".into(), &"stranger".into()));
        assert!(own["labels"].to_string().contains("k8s:app="), "{event}");
        assert!(own["identity"].is_u64(), "{event}");
    }
    let all = read(cluster.client(), "flowlogs?pod=default/stranger&last=100").await;
    assert_eq!(all.len(), seen.len());
    assert!(all.iter().all(|event| event["flow"]["source"]["identity"].is_u64()), "{all:?}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_newest_events_can_be_read_without_following_and_be_chosen() {
    let cluster = cluster().await;
    connect(&cluster, "shop/api", "shop/db:80").await;
    connect(&cluster, "shop/web", "shop/db:80").await;
    connect(&cluster, "stranger", "shop/web:80").await;
    let who = |events: &[Value]| -> Vec<String> {
        let text = |event: &Value| event["flow"]["source"]["pod_name"].as_str().unwrap_or_default().to_owned();
        events.iter().map(text).collect()
    };
    let dropped = all(log(&cluster, "flowlogs?verdict=dropped&last=100").await).await;
    assert!(!dropped.is_empty() && who(&dropped).iter().all(|name| name == "web"), "{dropped:?}");
    let strangers = async || all(log(&cluster, "flowlogs?pod=default/stranger&last=100").await).await;
    while strangers().await.len() < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(who(&strangers().await), ["stranger", "web", "web"], "opened, answered, closed by the other end too");
    assert_eq!(all(log(&cluster, "flowlogs?pod=default/stranger&last=1").await).await[0]["coracle"]["event"], "closed");
    assert!(all(log(&cluster, "namespaces/kube-public/flowlogs?last=100").await).await.is_empty());
    assert_eq!(who(&all(log(&cluster, "namespaces/default/flowlogs?last=100").await).await).len(), 3);
    for query in ["verdict=lost", "last=many"] {
        assert_eq!(post(&cluster, &format!("flowlogs?{query}"), Value::Null).await.0, 400, "{query}");
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_gone_keeps_its_name_in_the_log() {
    let cluster = cluster().await;
    connect(&cluster, "stranger", "shop/web:80").await;
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::default_namespaced(cluster.client());
    pods.delete("stranger", &Default::default()).await.expect("deleted");
    while pods.get_opt("stranger").await.expect("an answer").is_some() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let events = all(log(&cluster, "flowlogs?pod=default/stranger&last=100").await).await;
    assert_eq!(events[0]["flow"]["source"]["pod_name"], "stranger", "{events:?}");
    cluster.stop().await;
}

/// The Events about denials, once there are `count` of them.
async fn denials(cluster: &Cluster, count: usize) -> Vec<Event> {
    let events: Api<Event> = Api::namespaced(cluster.client(), "shop");
    loop {
        let list = events.list(&ListParams::default().fields("reason=PolicyDenied")).await.expect("a list");
        if list.items.len() >= count {
            return list.items;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_denied_packet_becomes_an_event_of_the_pod_in_the_words_of_the_explanation() {
    let cluster = cluster().await;
    connect(&cluster, "shop/web", "shop/db:80").await;
    let event = denials(&cluster, 1).await.remove(0);
    assert_eq!(event.involved_object.name.as_deref(), Some("db"), "{event:?}");
    assert_eq!(event.related.and_then(|peer| peer.name).as_deref(), Some("web"));
    assert_eq!((event.type_.as_deref(), event.count), (Some("Warning"), Some(1)));
    assert_eq!(
        event.message.as_deref(),
        Some(
            "shop/web → shop/db:80/TCP: shop/db is isolated for ingress by shop/db; no rule matched; rule 0 of shop/db \
             nearly matched: pod label `app` of `shop/web` is `web`, not `api`"
        )
    );
    // The same again is counted in the same Event.
    connect(&cluster, "shop/web", "shop/db:80").await;
    loop {
        let events = denials(&cluster, 1).await;
        assert_eq!(events.len(), 1);
        if events[0].count > Some(1) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_port_scan_causes_a_bounded_number_of_events_and_is_counted_whole() {
    let cluster = cluster().await;
    let scans = (1..=60).map(|port| {
        let cluster = &cluster;
        async move { connect(cluster, "shop/web", &format!("shop/db:{}", 1000 + port)).await }
    });
    futures::future::join_all(scans).await;
    let metric = async |name: &str| -> u64 {
        let request = Request::get("/metrics").body(Body::empty()).expect("a request");
        let response = cluster.router().oneshot(request).await.expect("infallible");
        let text = response.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok()).expect("a number")
    };
    // Every denial is either an Event or counted as one that was not written.
    while metric("coracle_policy_events_suppressed_total").await < 35 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(denials(&cluster, 25).await.len(), 25);
    assert!(metric("coracle_drop_packets_total{direction=\"ingress\",reason=\"POLICY_DENIED_INGRESS\"}").await >= 60);
    assert!(metric("coracle_flow_verdicts_total{verdict=\"DROPPED\"}").await >= 60);
    assert!(metric("coracle_forward_packets_total").await > 0);
    cluster.stop().await;
}

/// What a user is answered in a namespace: the code, and the message of a refusal.
async fn as_user(cluster: &Cluster, user: &str, path: &str, spec: Value) -> (u16, String) {
    let client = cluster.client_as(user, &["system:authenticated"]);
    let request = Request::post(format!("/apis/net.coracle.dev/v1alpha1/{path}"))
        .header("Content-Type", "application/json")
        .body(json!({"spec": spec}).to_string().into_bytes());
    match client.request::<Value>(request.expect("a request")).await {
        Ok(_) => (201, String::new()),
        Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_view_a_namespace_may_ask_about_it_and_about_no_other() {
    let cluster = cluster().await;
    let web_to_db = json!({"from": "web", "to": "db:80"});
    for (user, path, spec, code) in [
        ("viewer", "namespaces/shop/policyreviews", web_to_db.clone(), 201),
        ("viewer", "namespaces/shop/policyreviews", json!({"from": "192.0.2.1", "to": "svc/db:5432"}), 201),
        ("viewer", "namespaces/shop/reachabilities", json!({}), 201),
        ("viewer", "namespaces/shop/namelookups", json!({"name": "db", "from": "web"}), 201),
        // Real packets are for those who may change things.
        ("viewer", "namespaces/shop/traces", web_to_db.clone(), 403),
        ("viewer", "namespaces/shop/reachabilities", json!({"probe": true}), 403),
        ("viewer", "namespaces/shop/captures?pod=web", json!({}), 403),
        ("editor", "namespaces/shop/traces", json!({"from": "web", "to": "db.shop:80"}), 201),
        ("editor", "namespaces/shop/reachabilities", json!({"probe": true}), 201),
        // Elsewhere, or everywhere.
        ("viewer", "policyreviews", web_to_db.clone(), 403),
        ("viewer", "namespaces/default/policyreviews", json!({"from": "stranger", "to": "stranger:80"}), 403),
        ("viewer", "namespaces/shop/policyreviews", json!({"from": "default/stranger", "to": "db:80"}), 403),
        ("viewer", "namespaces/shop/policyreviews", json!({"from": "default/nobody", "to": "db:80"}), 403),
        ("viewer", "namespaces/shop/reachabilities", json!({"namespaces": ["default"]}), 403),
        ("viewer", "namespaces/shop/flowlogs?namespace=default", json!({}), 403),
        ("viewer", "namespaces/shop/flowlogs?pod=default/stranger", json!({}), 403),
        ("nobody", "namespaces/shop/policyreviews", web_to_db.clone(), 403),
    ] {
        let (found, why) = as_user(&cluster, user, path, spec.clone()).await;
        assert_eq!(found, code, "{user} {path} {spec}: {why}");
    }
    let (_, why) = as_user(
        &cluster,
        "viewer",
        "namespaces/shop/policyreviews",
        json!({"from": "web", "to": "default/stranger:80"}),
    )
    .await;
    assert_eq!(
        why,
        "policyreviews.net.coracle.dev is forbidden: User \"viewer\" cannot create resource \"policyreviews\" in API group \
         \"net.coracle.dev\" in the namespace \"default\""
    );
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_address_of_a_pod_elsewhere_is_as_secret_as_its_name() {
    let cluster = cluster().await;
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::default_namespaced(cluster.client());
    let stranger = pods.get("stranger").await.expect("the pod");
    let ip = stranger.status.and_then(|status| status.pod_ip).expect("an address");
    for spec in [json!({"from": ip, "to": "db:80"}), json!({"from": "web", "to": format!("{ip}:80")})] {
        assert_eq!(as_user(&cluster, "viewer", "namespaces/shop/policyreviews", spec.clone()).await.0, 403, "{spec}");
    }
    cluster.stop().await;
}
