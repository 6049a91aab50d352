//! The query log of the cluster's DNS, autopath and injected faults (SEMANTICS 8.10), and what kubelet says of cut lists (9.2), in
//! a whole cluster.

use crate::support::{Terminal, line_set};
use axum::body::Body;
use coracle::{Builder, Cluster};
use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tower::ServiceExt;

const MANIFESTS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: prod}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: prod}, spec: {clusterIP: 10.96.7.7, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: client}, spec: {containers: [{name: c, image: busybox, command: [sleep, '9999']}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: other, namespace: prod}, spec: {containers: [{name: c, image: busybox, command: [sleep, '9999']}]}}
";

async fn cluster(builder: Builder) -> Cluster {
    let cluster = builder.seed(8).start().await.expect("a cluster");
    cluster.apply(MANIFESTS).await.expect("applied");
    cluster.settled().await;
    cluster
}

async fn post(cluster: &Cluster, path: &str) -> (u16, Body) {
    let request = Request::post(format!("/apis/net.coracle.dev/v1alpha1/{path}")).body(Body::empty());
    let response = cluster.router().oneshot(request.expect("a request")).await.expect("infallible");
    (response.status().as_u16(), response.into_body())
}

/// The lines of a log that ends by itself.
async fn log(cluster: &Cluster, path: &str) -> Vec<Value> {
    let (code, body) = post(cluster, path).await;
    assert_eq!(code, 200, "{path}");
    let bytes = body.collect().await.expect("readable").to_bytes();
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect()
}

/// `(name, type, code, step of steps, in vain before)`.
fn told(lines: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let line = |line: &Value| {
        let lookup = &line["lookup"];
        let place =
            format!("{} {}/{} {}", text(&lookup["name"]), lookup["step"], lookup["steps"], lookup["inVainBefore"]);
        format!("{} {} {} {place}", text(&line["name"]), text(&line["type"]), text(&line["rcode"]))
    };
    let mut told: Vec<String> = lines.iter().map(line).collect();
    // A and AAAA are asked at the same time.
    told.sort();
    told
}

async fn getent(cluster: &Cluster, namespace: &str, pod: &str, name: &str) -> i32 {
    cluster.exec(namespace, pod, &["getent", "hosts", name]).await.expect("it runs").code
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_the_query_log_shows_every_query_of_a_pods_lookup_and_which_were_in_vain() {
    let cluster = cluster(Cluster::builder().dns_log(true)).await;
    assert_eq!(getent(&cluster, "default", "client", "web.prod").await, 0);
    let lines = log(&cluster, "dnslogs?pod=default/client&last=100").await;
    assert_eq!(
        told(&lines),
        [
            "web.prod.default.svc.cluster.local. A NXDOMAIN web.prod 1/4 0",
            "web.prod.default.svc.cluster.local. AAAA NXDOMAIN web.prod 1/4 1",
            "web.prod.svc.cluster.local. A NOERROR web.prod 2/4 2",
            "web.prod.svc.cluster.local. AAAA NOERROR web.prod 2/4 2",
        ]
    );
    for line in &lines {
        assert_eq!(
            (&line["pod"], &line["source"], &line["transport"]),
            (&"default/client".into(), &"zone".into(), &"UDP".into())
        );
        assert!(line["from"].as_str().is_some_and(|ip| ip.starts_with("10.244.")), "{line}");
        assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        assert_eq!(line["lookup"]["number"], lines[0]["lookup"]["number"], "one look-up");
    }
    assert_eq!(log(&cluster, "dnslogs?pod=default/client&last=1").await.len(), 1);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_the_query_log_can_be_followed_and_is_off_otherwise() {
    let cluster = cluster(Cluster::builder()).await;
    let (code, body) = post(&cluster, "dnslogs?last=5").await;
    let bytes = body.collect().await.expect("readable").to_bytes();
    assert_eq!(code, 400);
    let status: Value = serde_json::from_slice(&bytes).expect("a Status");
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("no queries are kept: follow the log"), "{message}");

    let (code, mut following) = post(&cluster, "dnslogs?follow=true&namespace=default").await;
    assert_eq!(code, 200);
    getent(&cluster, "prod", "other", "web").await;
    getent(&cluster, "default", "client", "web.prod.svc.cluster.local.").await;
    let mut read = String::new();
    while read.matches('\n').count() < 2 {
        let frame = tokio::time::timeout(Duration::from_secs(120), following.frame()).await.expect("told of in time");
        let data = frame.expect("the log goes on").expect("readable").into_data().expect("data");
        read.push_str(&String::from_utf8_lossy(&data));
    }
    let lines: Vec<Value> = read.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.iter().all(|line| line["pod"] == "default/client"), "{lines:?}");
    cluster.stop().await;
    // The cluster has stopped, so the log ends instead of hanging.
    while following.frame().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_who_may_view_a_namespace_may_read_what_its_pods_ask_and_no_others() {
    let cluster = cluster(Cluster::builder().dns_log(true)).await;
    let binding = "{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: viewers, namespace: prod}, subjects: \
                   [{kind: User, name: viewer, apiGroup: rbac.authorization.k8s.io}], roleRef: {kind: ClusterRole, name: view, \
                   apiGroup: rbac.authorization.k8s.io}}";
    cluster.apply(binding).await.expect("applied");
    cluster.settled().await;
    getent(&cluster, "prod", "other", "web").await;
    getent(&cluster, "default", "client", "web.prod").await;
    let read = async |path: &str| {
        let client = cluster.client_as("viewer", &["system:authenticated"]);
        let request =
            Request::post(format!("/apis/net.coracle.dev/v1alpha1/{path}")).body(Vec::new()).expect("a request");
        match client.request_text(request).await {
            Ok(text) => Ok(text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Value>>()),
            Err(kube::Error::Api(status)) => Err(status.code),
            Err(error) => panic!("{error}"),
        }
    };
    let own = read("namespaces/prod/dnslogs?last=100").await.expect("allowed");
    assert!(!own.is_empty() && own.iter().all(|line| line["pod"] == "prod/other"), "{own:?}");
    for path in [
        "dnslogs?last=100",
        "namespaces/default/dnslogs?last=100",
        "namespaces/prod/dnslogs?last=100&namespace=default",
        "namespaces/prod/dnslogs?last=100&pod=default/client",
    ] {
        assert_eq!(read(path).await, Err(403), "{path}");
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_with_autopath_a_pods_lookup_takes_one_question_of_each_type() {
    let cluster = cluster(Cluster::builder().dns_log(true).dns_autopath(true)).await;
    assert_eq!(getent(&cluster, "default", "client", "web.prod").await, 0);
    let lines = log(&cluster, "dnslogs?pod=default/client&last=100").await;
    assert_eq!(
        told(&lines),
        [
            "web.prod.default.svc.cluster.local. A NOERROR web.prod 1/4 0",
            "web.prod.default.svc.cluster.local. AAAA NOERROR web.prod 1/4 0",
        ]
    );
    assert!(lines.iter().all(|line| line["autopath"] == "web.prod.svc.cluster.local."), "{lines:?}");
    let found =
        cluster.exec("default", "client", &["nslookup", "-type=a", "web.prod.default.svc.cluster.local."]).await;
    let found = found.expect("it runs").stdout;
    assert!(found.contains("Address: 10.96.7.7\n"), "{found}");
    cluster.stop().await;
}

async fn annotate(cluster: &Cluster, faults: Option<&str>) -> Result<Pod, kube::Error> {
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let patch = json!({"metadata": {"annotations": {"net.coracle.dev/dns-faults": faults}}});
    let patched = pods.patch("client", &PatchParams::default(), &Patch::Merge(patch)).await;
    cluster.settled().await;
    patched
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_a_pods_annotation_makes_its_queries_fail_and_the_log_says_so() {
    let cluster = cluster(Cluster::builder().dns_log(true)).await;
    annotate(&cluster, Some("servfail names=web.prod.svc.*; delay=100ms")).await.expect("annotated");
    assert_ne!(getent(&cluster, "default", "client", "web.prod.svc.cluster.local.").await, 0);
    assert_eq!(getent(&cluster, "prod", "other", "web").await, 0, "another pod is not struck");
    let lines = log(&cluster, "dnslogs?pod=default/client&last=100").await;
    for line in &lines {
        assert_eq!(
            (&line["rcode"], &line["source"], &line["reason"]),
            (&"SERVFAIL".into(), &"fault".into(), &"FAULT_INJECTED".into())
        );
        assert_eq!(line["faults"], json!(["servfail names=web.prod.svc.*"]));
    }
    assert!(!lines.is_empty());
    assert_eq!(getent(&cluster, "default", "client", "kubernetes").await, 0);
    let last = log(&cluster, "dnslogs?pod=default/client&last=1").await.remove(0);
    assert_eq!((&last["faults"], &last["rcode"]), (&json!(["delay=100ms"]), &"NOERROR".into()));
    assert!(last["microseconds"].as_u64() >= Some(100_000), "{last}");
    annotate(&cluster, None).await.expect("annotated");
    assert_eq!(getent(&cluster, "default", "client", "web.prod").await, 0);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rule_8_10_an_annotation_that_cannot_be_read_is_refused_by_field_value_and_what_is_allowed() {
    let cluster = cluster(Cluster::builder()).await;
    let Err(kube::Error::Api(refused)) = annotate(&cluster, Some("drop; sevfail")).await else {
        panic!("it was taken")
    };
    assert_eq!(refused.code, 422);
    assert_eq!(
        refused.message,
        "Pod \"client\" is invalid: metadata.annotations[net.coracle.dev/dns-faults]: Invalid value: \"drop; sevfail\": rule 2: \
         \"sevfail\" is no fault: must be `delay=TIME`, `drop`, `servfail`, `nxdomain` or `refused`"
    );
    // Pods that a controller makes are refused to the controller, which tells of it.
    let deployment = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: bad}, spec: {selector: {matchLabels: {app: bad}}, template: \
                      {metadata: {labels: {app: bad}, annotations: {net.coracle.dev/dns-faults: 'delay=2'}}, spec: {containers: [{name: c, \
                      image: busybox}]}}}}";
    cluster.apply(deployment).await.expect("applied");
    let events: Api<Event> = Api::default_namespaced(cluster.client());
    let told = async || {
        let list = events.list(&ListParams::default().fields("reason=FailedCreate")).await.expect("a list");
        list.items.into_iter().filter_map(|event| event.message).next()
    };
    let message = loop {
        match told().await {
            Some(message) => break message,
            None => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    assert!(message.contains("rule 1: delay=\"2\": must be a time such as 250ms or 2s, from 1ms to 60s"), "{message}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rule_9_2_an_event_tells_of_nameservers_and_domains_that_were_left_out() {
    let cluster = Cluster::builder().seed(9).start().await.expect("a cluster");
    let domains: Vec<String> = (0..32).map(|number| format!("d{number}.example")).collect();
    let pod = |name: &str, config: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"dnsPolicy": "None", "dnsConfig": config,
            "containers": [{"name": "c", "image": "busybox", "command": ["sleep", "9999"]}]}})
    };
    let servers = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
    let mut first = pod("many", json!({"nameservers": servers, "searches": domains}));
    first["spec"]["dnsPolicy"] = "ClusterFirst".into();
    let few = pod("few", json!({"nameservers": servers, "searches": domains}));
    cluster.apply(&format!("{first}\n---\n{few}")).await.expect("applied");
    cluster.settled().await;
    let events: Api<Event> = Api::default_namespaced(cluster.client());
    let told = loop {
        let list = events.list(&ListParams::default().fields("reason=DNSConfigForming")).await.expect("a list").items;
        if list.len() >= 2 {
            break list;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    for event in &told {
        let source = event.source.as_ref().and_then(|source| source.component.as_deref());
        let about = event.involved_object.name.as_deref();
        assert_eq!(
            (event.type_.as_deref(), source, about),
            (Some("Warning"), Some("kubelet"), Some("many")),
            "{event:?}"
        );
    }
    let mut messages: Vec<String> = told.into_iter().filter_map(|event| event.message).collect();
    messages.sort();
    assert_eq!(
        messages[0],
        "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 10.96.0.10 192.0.2.1 \
         192.0.2.2"
    );
    assert!(
        messages[1].starts_with(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: \
             default.svc.cluster.local svc.cluster.local cluster.local d0.example d1.example "
        ),
        "{}",
        messages[1]
    );
    let file = cluster.exec("default", "many", &["cat", "/etc/resolv.conf"]).await.expect("it runs").stdout;
    let line = file.lines().find_map(|line| line.strip_prefix("search ")).expect("a list");
    assert!(messages[1].ends_with(&format!(": {line}")), "{file}");
    cluster.stop().await;
}

#[tokio::test]
async fn rule_8_10_a_user_reads_the_query_log_on_the_command_line() {
    let terminal = Terminal::new(&[Path::new(env!("CARGO_BIN_EXE_coracle"))]);
    terminal.write("manifests.yaml", MANIFESTS);
    let script = "coracle apply -f manifests.yaml >&2 && until coracle exec client -- getent hosts web.prod >&2; do :; done && \
                  coracle dns-log --pod client --last 4 && coracle dns-log --pod client --last 1 -o json";
    let ran = terminal.sh(&format!("coracle run --dns-log --dns-upstream none -- sh -c '{script}'")).await;
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!((ran.code, lines.len()), (0, 5), "{ran}");
    let queries: Vec<String> = lines[..4]
        .iter()
        .map(|line| {
            // Time and duration differ from run to run.
            let (query, place) = line.split_once('(').expect("a source");
            let number = place.find('#').map(|at| &place[at..]).unwrap_or_default();
            let place = number.split_once(' ').map(|(_, place)| place).unwrap_or_default();
            format!("{} {}", query.get(24..).unwrap_or_default().trim(), place)
        })
        .collect();
    let expected = "default/client A web.prod.default.svc.cluster.local. NXDOMAIN web.prod 1/4 in vain
        default/client AAAA web.prod.default.svc.cluster.local. NXDOMAIN web.prod 1/4 in vain
        default/client A web.prod.svc.cluster.local. NOERROR 1 record web.prod 2/4 after 2 in vain
        default/client AAAA web.prod.svc.cluster.local. NODATA web.prod 2/4 after 2 in vain";
    assert_eq!(line_set(&queries.join("\n")), line_set(expected));
    assert!(ran.stderr.contains("4 queries of 1 look-up, 2 in vain for names that a search list made up."), "{ran}");
    let json: Value = serde_json::from_str(lines[4]).expect("JSON");
    assert_eq!(json["lookup"]["name"], "web.prod");
}
