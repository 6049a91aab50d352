//! Questions to the network over `net.coracle.dev`, and the commands that ask them: what they say is what packets meet.

use crate::support::{Bench, Terminal};
use axum::body::Body;
use coracle::{Cluster, Container, FunctionPod};
use expect_test::expect;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::path::Path;
use tower::ServiceExt;

/// Accepts connections on port 80 and keeps them until their client goes.
async fn listener(container: Container) -> i32 {
    let Ok(listener) = container.host.tcp_listen(80) else { return 1 };
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
    }
    0
}

const MANIFESTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: db}, ports: [{name: sql, port: 5432, targetPort: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 80}]}]
";

/// Pods `api`, `web` and `db`, of which `db` takes connections from `api` only.
async fn cluster() -> Cluster {
    let cluster = Cluster::builder().seed(5).start().await.expect("a cluster");
    cluster.apply(MANIFESTS).await.expect("applied");
    for name in ["api", "web", "db"] {
        let pod = FunctionPod::new(name).label("app", name).port(80);
        cluster.run_pod(pod, listener).await.expect("a pod");
    }
    cluster.settled().await;
    cluster
}

async fn answer(cluster: &Cluster, request: Request<Body>) -> (u16, Value) {
    let response = cluster.router().oneshot(request).await.expect("infallible");
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (code, serde_json::from_slice(&body).expect("JSON"))
}

async fn ask(cluster: &Cluster, kind: &str, plural: &str, spec: Value) -> (u16, Value) {
    let body = json!({"apiVersion": "net.coracle.dev/v1alpha1", "kind": kind, "spec": spec});
    let request = Request::post(format!("/apis/net.coracle.dev/v1alpha1/{plural}"))
        .header("Content-Type", "application/json")
        .body(Body::from(body.to_string()));
    answer(cluster, request.expect("a request")).await
}

async fn status(cluster: &Cluster, kind: &str, plural: &str, spec: Value) -> Value {
    let (code, mut answer) = ask(cluster, kind, plural, spec).await;
    assert_eq!(code, 201, "{answer}");
    answer["status"].take()
}

#[tokio::test(start_paused = true)]
async fn a_review_names_the_rule_that_allows_and_how_near_a_refusal_was() {
    let cluster = cluster().await;
    //           from   to            outcome      why
    for (from, to, outcome, why) in [
        ("api", "db:80", "Allowed", "ingress rule 0 of default/db allows it"),
        ("api", "svc/db:5432", "Allowed", "ingress rule 0 of default/db allows it"),
        ("api", "svc/db:sql", "Allowed", "ingress rule 0 of default/db allows it"),
        ("web", "db:80", "Denied", "default/db is isolated for ingress by default/db; no rule matched"),
        ("api", "db:81", "Denied", "default/db is isolated for ingress by default/db; no rule matched"),
        ("192.0.2.1", "db:80/UDP", "Denied", "default/db is isolated for ingress by default/db; no rule matched"),
        ("db", "web:80", "Allowed", "no policy isolates default/web for ingress"),
    ] {
        let status = status(&cluster, "PolicyReview", "policyreviews", json!({"from": from, "to": to})).await;
        assert_eq!(status["outcome"], outcome, "{from} → {to}: {status}");
        assert_eq!(status["verdicts"][0]["ingress"]["why"], why, "{from} → {to}");
    }
    let near = status(&cluster, "PolicyReview", "policyreviews", json!({"from": "web", "to": "db:80"})).await;
    let problem = &near["verdicts"][0]["ingress"]["nearMisses"][0]["problem"];
    assert_eq!(problem, "pod label `app` of `default/web` is `web`, not `api`");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_review_judges_as_if_policies_were_applied_or_deleted_and_changes_nothing() {
    let cluster = cluster().await;
    let deny = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "quiet", "namespace": "default"},
        "spec": {"podSelector": {"matchLabels": {"app": "api"}}, "policyTypes": ["Egress"]}});
    let outcome = async |spec: Value| {
        status(&cluster, "PolicyReview", "policyreviews", spec).await["outcome"].as_str().map(str::to_owned)
    };
    let (open, shut) = (Some("Allowed".to_owned()), Some("Denied".to_owned()));
    assert_eq!(outcome(json!({"from": "api", "to": "db:80", "policies": [deny]})).await, shut);
    assert_eq!(outcome(json!({"from": "web", "to": "db:80", "absent": ["default/db"]})).await, open);
    assert_eq!(outcome(json!({"from": "api", "to": "db:80"})).await, open);
    assert_eq!(outcome(json!({"from": "web", "to": "db:80"})).await, shut);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_trace_with_a_connection_tells_what_the_connection_met() {
    let cluster = cluster().await;
    for (from, outcome, simulated) in [("api", "Connected", "Allowed"), ("web", "TimedOut", "Denied")] {
        let spec = json!({"from": from, "to": "db:5432", "connect": true});
        let status = status(&cluster, "Trace", "traces", spec).await;
        assert_eq!((&status["outcome"], &status["simulated"]), (&outcome.into(), &simulated.into()), "{status}");
        let names: Vec<&str> =
            status["steps"].as_array().expect("steps").iter().filter_map(|step| step["phase"].as_str()).collect();
        assert_eq!(names.first(), Some(&"name"));
        assert_eq!(names.last(), Some(&"connection"));
    }
    let refused =
        status(&cluster, "Trace", "traces", json!({"from": "db", "to": "web.default:81", "connect": true})).await;
    assert_eq!(refused["outcome"], "NameNotFound", "pods have no name of their own: {refused}");
    cluster.stop().await;
}

/// What it says of a connection that the network did not deliver has to be what the counters and the flow log say.
#[tokio::test(start_paused = true)]
async fn a_trace_says_when_the_table_of_flows_is_full_of_live_ones() {
    let cluster = cluster().await;
    let spec = json!({"from": "api", "to": "db:5432", "connect": true, "timeoutSeconds": 1});
    // What has been tracked so far is forgotten; then one established connection fills the table.
    cluster.network().retain_flows(|_| false);
    cluster.network().limit_flows(1);
    let web = cluster.outside().tcp_connect("10.96.0.1:443".parse().expect("an address")).await.expect("a connection");
    cluster.network().retain_flows(|flow| flow.original.src == web.local_addr());
    let flows = cluster.network().counters();
    assert_eq!((flows.flows, flows.flow_limit), (1, 1));
    let status = status(&cluster, "Trace", "traces", spec).await;
    assert_eq!((&status["outcome"], &status["simulated"]), (&"TimedOut".into(), &"Allowed".into()), "{status}");
    assert_eq!(status["connection"]["reason"], "CONNTRACK_FULL");
    let steps = status["steps"].as_array().expect("steps");
    let step = steps.iter().find(|step| step["phase"] == "network").expect("a step of the network");
    expect![
        "CONNTRACK_FULL: the connection-tracking table is full: all its 1 flows are alive, so new ones are dropped"
    ]
    .assert_eq(step["text"].as_str().expect("text"));
    let request = Request::get("/metrics").body(Body::empty()).expect("a request");
    let metrics = cluster.router().oneshot(request).await.expect("infallible").into_body();
    let metrics = String::from_utf8(metrics.collect().await.expect("a body").to_bytes().to_vec()).expect("text");
    for start in ["coracle_drop_packets_total{direction=\"egress\",reason=\"CONNTRACK_FULL\"} ", "coracle_flow_limit 1"]
    {
        assert!(metrics.lines().any(|line| line.starts_with(start)), "no {start} in {metrics}");
    }
    cluster.network().limit_flows(1 << 18);
    drop(web);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lookup_walks_the_search_list_of_the_pod_that_asks() {
    let cluster = cluster().await;
    let asked = async |spec: Value| -> Vec<String> {
        let status = status(&cluster, "NameLookup", "namelookups", spec).await;
        let queries = status["queries"].as_array().expect("queries");
        queries
            .iter()
            .map(|query| {
                format!(
                    "{} {}",
                    query["name"].as_str().unwrap_or_default(),
                    query["rcode"].as_str().unwrap_or_default()
                )
            })
            .collect()
    };
    assert_eq!(asked(json!({"name": "db", "from": "web"})).await, ["db.default.svc.cluster.local. NOERROR"]);
    assert_eq!(asked(json!({"name": "db"})).await.len(), 1);
    assert_eq!(
        asked(json!({"name": "kubernetes.other", "from": "web"})).await[..3],
        [
            "kubernetes.other.default.svc.cluster.local. NXDOMAIN",
            "kubernetes.other.svc.cluster.local. NXDOMAIN",
            "kubernetes.other.cluster.local. NXDOMAIN"
        ]
    );
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_matrix_that_is_computed_is_the_matrix_that_is_measured() {
    let cluster = cluster().await;
    let spec = json!({"namespaces": ["default"], "ports": ["80", 81], "probe": true});
    let status = status(&cluster, "Reachability", "reachabilities", spec).await;
    assert_eq!(status["from"], json!(["default/api", "default/db", "default/web"]));
    // Columns: api:80, api:81, db:80, db:81, web:80, web:81.
    assert_eq!(status["allowed"], json!(["111011", "111111", "110011"]));
    assert_eq!(status["measured"], status["allowed"], "{status}");
    assert_eq!(status["disagreements"], json!([]));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn flows_carry_the_names_of_both_ends_and_the_reason_of_a_refusal() {
    let cluster = cluster().await;
    for from in ["api", "web"] {
        let spec = json!({"from": from, "to": "db:5432", "connect": true, "timeoutSeconds": 1});
        status(&cluster, "Trace", "traces", spec).await;
    }
    let list = async |query: &str| {
        let request = Request::get(format!("/apis/net.coracle.dev/v1alpha1/flows?{query}")).body(Body::empty());
        answer(&cluster, request.expect("a request")).await
    };
    let (code, dropped) = list("verdict=dropped").await;
    assert_eq!((code, dropped["items"].as_array().map(Vec::len)), (200, Some(1)), "{dropped}");
    let flow = &dropped["items"][0];
    assert_eq!(flow["source"]["pod"], "default/web");
    assert_eq!(flow["destination"]["pod"], "default/db");
    assert_eq!(flow["reason"], "POLICY_DENIED_INGRESS");
    let (code, mine) = list("pod=default/api").await;
    assert_eq!((code, &mine["items"][0]["verdict"]), (200, &"FORWARDED".into()), "{mine}");
    assert_eq!(list("verdict=lost").await.0, 400);
    cluster.stop().await;
}

/// Reads a capture until it holds this text; everything read.
async fn captured(body: &mut Body, text: &str) -> Vec<u8> {
    let mut read = Vec::new();
    while !read.windows(text.len()).any(|window| window == text.as_bytes()) {
        let frame = body.frame().await.expect("the capture goes on").expect("readable");
        read.extend_from_slice(frame.data_ref().expect("data"));
    }
    read
}

#[tokio::test(start_paused = true)]
async fn a_capture_holds_the_packets_of_a_pod_and_the_reasons_of_those_not_delivered() {
    let cluster = cluster().await;
    let capture = async |query: &str| {
        let request = Request::post(format!("/apis/net.coracle.dev/v1alpha1/captures?{query}")).body(Body::empty());
        let response = cluster.router().oneshot(request.expect("a request")).await.expect("infallible");
        assert_eq!(response.headers()["content-type"], "application/x-pcapng");
        response.into_body()
    };
    let mut of_db = capture("pod=default/db").await;
    let mut dropped = capture("dropped=true").await;
    for from in ["api", "web"] {
        let spec = json!({"from": from, "to": "db:5432", "connect": true, "timeoutSeconds": 1});
        status(&cluster, "Trace", "traces", spec).await;
    }
    let file = captured(&mut of_db, "default/db").await;
    assert_eq!(file[..4], [0x0A, 0x0D, 0x0D, 0x0A], "a section header comes first");
    let file = captured(&mut dropped, "dropped: POLICY_DENIED_INGRESS").await;
    assert!(file.windows(11).any(|window| window == b"default/web"), "the sender is the interface");
    let request = Request::post("/apis/net.coracle.dev/v1alpha1/captures?pod=default/nobody").body(Body::empty());
    assert_eq!(answer(&cluster, request.expect("a request")).await.0, 404);
    cluster.stop().await;
    // The cluster has stopped, so the capture ends instead of hanging.
    while of_db.frame().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_question_that_makes_no_sense_is_refused_with_the_field() {
    let cluster = cluster().await;
    let policy = ("PolicyReview", "policyreviews");
    let trace = ("Trace", "traces");
    let mut refusals = String::new();
    for ((kind, plural), spec) in [
        (policy, json!({})),
        (policy, json!({"from": "api", "to": "db"})),
        (policy, json!({"from": "svc/db", "to": "db:80"})),
        (policy, json!({"from": "nobody", "to": "db:80"})),
        (policy, json!({"from": "api", "to": "db:nothing"})),
        (policy, json!({"from": "api", "to": "db:80", "policies": [{"kind": "Pod"}]})),
        (trace, json!({"from": "10.0.0.1", "to": "db:80"})),
        (trace, json!({"from": "api", "to": "db:80/UDP", "connect": true})),
        (trace, json!({"from": "api", "to": "db:80", "timeoutSeconds": 0})),
        (("NameLookup", "namelookups"), json!({"name": "a..b"})),
        (("NameLookup", "namelookups"), json!({"name": "a", "type": "X"})),
        (("Reachability", "reachabilities"), json!({"ports": ["http"]})),
        (("Reachability", "reachabilities"), json!({"probe": true, "absent": ["default/db"]})),
        (("Reachability", "reachabilities"), json!({"probe": true, "resourceVersion": "1"})),
        (("Reachability", "reachabilities"), json!({"resourceVersion": "yesterday"})),
        (("Reachability", "reachabilities"), json!({"explain": true, "ports": (1..=7000).collect::<Vec<u32>>()})),
    ] {
        let (code, answer) = ask(&cluster, kind, plural, spec).await;
        refusals.push_str(&format!("{code} {}\n", answer["message"].as_str().unwrap_or_default()));
    }
    expect![[r#"
        422 PolicyReview.net.coracle.dev "" is invalid: spec.from: Required value
        422 PolicyReview.net.coracle.dev "" is invalid: spec.to: Invalid value: "db": must be HOST:PORT or HOST:PORT/PROTOCOL, such as web:8080, shop/web:8080, svc/api:80 or 10.96.0.10:53/UDP
        422 PolicyReview.net.coracle.dev "" is invalid: spec.from: Invalid value: "svc/db": a Service sends nothing; name a pod
        404 pods "nobody" not found
        422 PolicyReview.net.coracle.dev "" is invalid: spec.to: Invalid value: "nothing": no port of this name and protocol is declared; a number from 1 to 65535 always works
        422 PolicyReview.net.coracle.dev "" is invalid: spec.policies[0].kind: Unsupported value: "Pod": supported values: "AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy", "NetworkPolicy"
        422 Trace.net.coracle.dev "" is invalid: spec.from: Invalid value: "10.0.0.1": must be POD or NAMESPACE/POD
        422 Trace.net.coracle.dev "" is invalid: spec.connect: Forbidden: only TCP connections can be opened; without connect every protocol can be judged
        422 Trace.net.coracle.dev "" is invalid: spec.timeoutSeconds: Invalid value: 0: must be between 1 and 60, inclusive
        422 NameLookup.net.coracle.dev "" is invalid: spec.name: Invalid value: "a..b": must be a domain name: malformed label
        422 NameLookup.net.coracle.dev "" is invalid: spec.type: Invalid value: "X": "X" is not a record type; try A, AAAA, SRV, PTR, CNAME, TXT, NS or SOA
        422 Reachability.net.coracle.dev "" is invalid: spec.ports[0]: Invalid value: "http": must be PORT or PORT/PROTOCOL, such as 80 or 53/UDP
        422 Reachability.net.coracle.dev "" is invalid: spec.probe: Forbidden: real connections obey the policies in force; leave policies and absent out
        422 Reachability.net.coracle.dev "" is invalid: spec.probe: Forbidden: real connections are of now; leave resourceVersion out
        422 Reachability.net.coracle.dev "" is invalid: spec.resourceVersion: Invalid value: "yesterday": must be a resourceVersion, a whole number from 1
        422 Reachability.net.coracle.dev "" is invalid: spec.explain: Forbidden: 112000 pairs would have to be explained, at most 40000 are; name namespaces or ports
    "#]].assert_eq(&refusals);
    cluster.stop().await;
}

#[tokio::test]
async fn only_those_who_may_ask_are_answered() {
    let cluster = cluster().await;
    let client = cluster.client_as("somebody", &["system:authenticated"]);
    let request = Request::get("/apis/net.coracle.dev/v1alpha1/flows").body(Vec::new()).expect("a request");
    let refused = client.request::<Value>(request).await.expect_err("no right was given");
    assert!(refused.to_string().contains("cannot list resource \"flows\""), "{refused}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_ask_the_same_questions() {
    let mut bench = Bench::start().await;
    let socket = bench.cluster.unix_socket().expect("a socket").to_owned();
    let mut terminal = Terminal::new(&[Path::new(env!("CARGO_BIN_EXE_coracle"))]);
    terminal.set("CORACLE_SOCKET", socket);
    bench.cluster.apply(MANIFESTS).await.expect("applied");
    for name in ["api", "web", "db"] {
        bench.cluster.run_pod(FunctionPod::new(name).label("app", name).port(80), listener).await.expect("a pod");
    }
    bench.cluster.settled().await;
    terminal.write(
        "open.yaml",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: open}, spec: {podSelector: {}, ingress: [{}]}}",
    );
    terminal.write("none.yaml", "{apiVersion: v1, kind: Namespace, metadata: {name: none}}");
    terminal
        .transcript(
            r#"$ coracle explain policy web db:80
            web → db:80: denied
            to default/db (10.244.…:80), TCP: denied
            egress: no policy isolates default/web for egress
            ingress: default/db is isolated for ingress by default/db; no rule matched
            rule 0 of default/db nearly matched: pod label `app` of `default/web` is `web`, not `api`
            [exit 1]
            $ coracle explain policy web db:80 -f open.yaml
            web → db:80: allowed
            to default/db (10.244.…:80), TCP: allowed
            egress: no policy isolates default/web for egress
            ingress: ingress rule 0 of default/open allows it
            $ coracle trace api db:5432 | tail -1
            → connected
            $ coracle trace web db:5432 --dry-run -o json | grep -m1 simulated
            "simulated": "Denied",
            $ coracle dig db.default.svc.cluster.local SRV | head -2
            ; db.default.svc.cluster.local. SRV: NOERROR, authoritative
            db.default.svc.cluster.local.	5	IN	SRV	0 100 5432 db.default.svc.cluster.local.
            $ coracle dig nothing.default.svc.cluster.local > /dev/null
            [exit 1]
            $ coracle flows --pod api | grep -c FORWARDED
            1
            $ coracle matrix -n default --port 80
            FROM \ TO     default/api:80/TCP   default/db:80/TCP   default/web:80/TCP
            default/api   ✓                    ✓                   ✓
            default/db    ✓                    ✓                   ✓
            default/web   ✓                    ✗                   ✓
            $ coracle matrix -n default -f open.yaml
            + default/web → default/db:80/TCP
            1 pairs would be gained, 0 lost
            $ coracle matrix -n default --without default/db
            + default/web → default/db:80/TCP
            1 pairs would be gained, 0 lost
            $ coracle diff-policy -n default -f open.yaml --exit-code
            + default/web → default/db:80/TCP
            1 pairs would be gained, 0 lost
            [exit 1]
            $ coracle diff-policy -n default -f open.yaml -o json | grep -A2 gained
            "gained": [
            "default/web → default/db:80/TCP"
            ],
            $ coracle diff-policy -f none.yaml
            error: no NetworkPolicy or ClusterNetworkPolicy in none.yaml
            [exit 1]
            $ coracle matrix -n default -o svg | grep -c '<g><title>'
            9
            $ coracle matrix -n default -o html | tr '\n' '|' | grep -o 'class="Denied" title="[^"]*"'
            class="Denied" title="default/web → default/db:80/TCP: denied|egress: no policy isolates default/web for egress|ingress: default/db is isolated for ingress by default/db; no rule matched"
            $ coracle flows --last 1 --pod api | grep -c 'default/api'
            1"#,
        )
        .await;
    bench.terminal = terminal;
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_matrix_of_an_earlier_revision_is_that_of_the_policies_and_pods_of_then() {
    let cluster = cluster().await;
    let revision = async || -> u64 {
        let (_, pod) = answer(&cluster, Request::get("/api/v1/pods").body(Body::empty()).expect("a request")).await;
        pod["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse().ok()).expect("a version")
    };
    let before = revision().await;
    let open = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: open}, spec: {podSelector: {}, ingress: [{}]}}";
    cluster.apply(open).await.expect("applied");
    cluster.run_pod(FunctionPod::new("late").port(80), listener).await.expect("a pod");
    cluster.settled().await;
    let matrix = async |version: &str| {
        let spec = json!({"namespaces": ["default"], "resourceVersion": version});
        status(&cluster, "Reachability", "reachabilities", spec).await
    };
    let then = matrix(&before.to_string()).await;
    assert_eq!(
        (&then["from"], &then["allowed"]),
        (&json!(["default/api", "default/db", "default/web"]), &json!(["111", "111", "101"]))
    );
    let now = matrix(&revision().await.to_string()).await;
    assert_eq!(now["allowed"], json!(["1111", "1111", "1111", "1111"]));
    assert_eq!(now["allowed"], matrix("").await["allowed"], "the newest revision is now");
    let spec = json!({"resourceVersion": "9999999"});
    let (code, refused) = ask(&cluster, "Reachability", "reachabilities", spec).await;
    assert_eq!(code, 504, "{refused}");
    assert!(refused["message"].as_str().is_some_and(|why| why.contains("Too large resource version: 9999999")));
    cluster.stop().await;
}
