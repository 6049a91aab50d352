//! What requests cost: creates, reads, lists, patches, and watchers beside a writer, over the router in process with the store in memory.
//!
//! `cargo bench -p apiserver`. The network, TLS and the disk are not in these figures; they are what the API server itself takes
//! on one core.

use apiserver::authn::UserInfo;
use apiserver::kinds::{Networking, registry};
use apiserver::{ApiServer, Config};
use axum::Router;
use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;
use store::MemoryStore;
use tower::ServiceExt;

const OBJECTS: u32 = 6500;
const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

struct Server(Router);

impl Server {
    async fn send(&self, method: Method, uri: &str, content_type: &str, body: String) -> (u16, usize) {
        let request = Request::builder().method(method).uri(uri).header("content-type", content_type);
        let request = request.body(Body::from(body)).expect("a request");
        let response = self.0.clone().oneshot(request).await.expect("an answer");
        let code = response.status().as_u16();
        (code, response.into_body().collect().await.expect("a body").to_bytes().len())
    }
}

fn report(what: &str, count: u32, start: Instant) -> io::Result<()> {
    let each = start.elapsed() / count;
    writeln!(io::stdout(), "{what:<44} {each:>10.1?} {:>10.0}/s", 1.0 / each.as_secs_f64())
}

fn configmap(number: u32) -> String {
    let data: Value =
        (0..8).map(|key| (format!("key-{key}"), "v".repeat(90).into())).collect::<serde_json::Map<_, _>>().into();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c{number}"), "labels": {"app": format!("a{}", number % 10)}}, "data": data}).to_string()
}

fn pod(number: u32) -> String {
    let probe = json!({"httpGet": {"path": "/", "port": 80}, "periodSeconds": 5});
    let container = json!({"name": "c", "image": "nginx:1", "ports": [{"containerPort": 80}], "readinessProbe": probe,
                           "env": [{"name": "A", "value": "b"}], "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p{number}"), "labels": {"app": "web"}},
           "spec": {"nodeName": format!("n{}", number % 2), "containers": [container]}})
    .to_string()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let api = ApiServer::new(Arc::new(MemoryStore::new()), registry(Networking::default()), Config::default());
    let server = Server(api.router_as(UserInfo::admin()));
    let json = "application/json";
    server.send(Method::POST, "/api/v1/namespaces", json, json!({"metadata": {"name": "default"}}).to_string()).await;

    let start = Instant::now();
    for number in 0..OBJECTS {
        assert_eq!(server.send(Method::POST, CONFIGMAPS, json, configmap(number)).await.0, 201);
    }
    report("create a ConfigMap of 0.9 KB", OBJECTS, start)?;

    let start = Instant::now();
    for number in 0..OBJECTS {
        assert_eq!(server.send(Method::GET, &format!("{CONFIGMAPS}/c{number}"), json, String::new()).await.0, 200);
    }
    report("get it", OBJECTS, start)?;

    for (what, query) in [
        ("list 6,500 of them", ""),
        ("list the tenth with a label", "?labelSelector=app%3Da3"),
        ("list a page of 500", "?limit=500"),
    ] {
        let start = Instant::now();
        for _ in 0..10 {
            assert_eq!(server.send(Method::GET, &format!("{CONFIGMAPS}{query}"), json, String::new()).await.0, 200);
        }
        report(what, 10, start)?;
    }

    let start = Instant::now();
    for number in 0..OBJECTS / 5 {
        let patch = json!({"metadata": {"annotations": {"a": number.to_string()}}}).to_string();
        let uri = format!("{CONFIGMAPS}/c{number}");
        assert_eq!(server.send(Method::PATCH, &uri, "application/merge-patch+json", patch).await.0, 200);
    }
    report("merge-patch one", OBJECTS / 5, start)?;

    let start = Instant::now();
    for number in 0..OBJECTS / 5 {
        assert_eq!(server.send(Method::POST, PODS, json, pod(number)).await.0, 201);
    }
    report("create a Pod", OBJECTS / 5, start)?;

    let start = Instant::now();
    for number in 0..OBJECTS / 5 {
        let ready =
            json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}).to_string();
        let uri = format!("{PODS}/p{number}/status");
        assert_eq!(server.send(Method::PATCH, &uri, "application/strategic-merge-patch+json", ready).await.0, 200);
    }
    report("patch a Pod's status", OBJECTS / 5, start)?;

    for (what, query) in [("with a field selector", "&fieldSelector=spec.nodeName%3Dn1"), ("without selector", "")] {
        let mut readers = Vec::new();
        for _ in 0..100 {
            let uri = format!("{PODS}?watch=true&resourceVersion={}{query}", api.revision().0);
            let request = Request::get(uri).body(Body::empty()).expect("a request");
            let mut body = server.0.clone().oneshot(request).await.expect("an answer").into_body();
            readers.push(tokio::spawn(async move { while body.frame().await.is_some() {} }));
        }
        let start = Instant::now();
        let writes = 500;
        for number in 0..writes {
            let patch = json!({"metadata": {"annotations": {"beside": format!("{what} {number}")}}}).to_string();
            let uri = format!("{PODS}/p{number}");
            assert_eq!(server.send(Method::PATCH, &uri, "application/merge-patch+json", patch).await.0, 200);
            tokio::task::yield_now().await;
        }
        report(&format!("patch a Pod with 100 watchers {what}"), writes, start)?;
        readers.iter().for_each(|reader| reader.abort());
    }
    Ok(())
}
