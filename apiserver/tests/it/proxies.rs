//! The proxies of services, pods and nodes, to pods which are HTTP servers in memory.

use crate::support::{Server, complete};
use apiserver::pod_streams::{ContainerRef, Duplex, ExecStreams, LogOptions, PodStreams};
use apiserver::status::Status;
use async_trait::async_trait;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::{Method, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::TlsAcceptor;

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// Pods that tell on ports 8080 what they were asked, and on 8443 over TLS; elsewhere nobody listens.
struct Echoes;

#[async_trait]
impl PodStreams for Echoes {
    async fn exec(&self, _: &ContainerRef, _: Vec<String>, _: ExecStreams) -> Result<i32, Status> {
        Err(Status::internal("not here"))
    }
    async fn attach(&self, _: &ContainerRef, _: ExecStreams) -> Result<i32, Status> {
        Err(Status::internal("not here"))
    }
    async fn logs(&self, _: &ContainerRef, _: LogOptions) -> Result<BoxStream<'static, Bytes>, Status> {
        Err(Status::internal("not here"))
    }
    async fn port_forward(&self, _: &ContainerRef, _: u16) -> Result<Box<dyn Duplex>, Status> {
        Err(Status::internal("not here"))
    }
    async fn dial(&self, address: SocketAddr) -> Result<Box<dyn Duplex>, Status> {
        if !matches!(address.port(), 8080 | 8443) {
            let text = format!("error trying to reach {address}: connection refused");
            return Err(Status::failure(503, "ServiceUnavailable", text));
        }
        let (client, server) = duplex(4096);
        tokio::spawn(async move {
            let service = service_fn(move |request| echo(address, request));
            let builder = hyper::server::conn::http1::Builder::new();
            if address.port() == 8443 {
                let server = TlsAcceptor::from(own_certificate()).accept(server).await.expect("a client of TLS");
                let _ = builder.serve_connection(TokioIo::new(server), service).with_upgrades().await;
            } else {
                let _ = builder.serve_connection(TokioIo::new(server), service).with_upgrades().await;
            }
        });
        Ok(Box::new(client))
    }
}

/// Signed by nobody whom the API server knows.
fn own_certificate() -> Arc<rustls::ServerConfig> {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["pod.example".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("TLS").with_no_client_auth();
    Arc::new(builder.with_single_cert(vec![cert.der().clone()], key).expect("a key that fits"))
}

async fn echo(address: SocketAddr, mut request: Request<Incoming>) -> Result<Response, Infallible> {
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.expect("an upgraded connection"));
            let mut word = [0; 5];
            stream.read_exact(&mut word).await.expect("a word");
            stream.write_all(&word.map(|byte| byte.to_ascii_uppercase())).await.expect("the word goes back");
        });
        let response = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "shout");
        return Ok(response.body(Body::empty()).expect("a response"));
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let headers: serde_json::Map<String, Value> =
        parts.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().expect("text").into())).collect();
    let told = json!({"address": address.to_string(), "method": parts.method.as_str(), "uri": parts.uri.to_string(),
        "headers": headers, "body": String::from_utf8_lossy(&body)});
    let code = if parts.uri.path() == "/teapot" { 418 } else { 200 };
    let response = Response::builder().status(code).header("location", "/next").header("keep-alive", "timeout=5");
    Ok(response.body(Body::from(told.to_string())).expect("a response"))
}

/// A service `web` with ports `http` and `dead`, one ready endpoint and one that is not.
async fn cluster() -> Server {
    let server = complete().await;
    server.api.set_pod_streams(Arc::new(Echoes));
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}, {"name": "dead", "port": 81}]);
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": ports}});
    server.post(SERVICES, service).await.created();
    let idle = json!({"metadata": {"name": "idle"}, "spec": {"ports": [{"port": 80}]}});
    server.post(SERVICES, idle).await.created();
    let endpoints = json!([{"addresses": ["10.244.0.2"], "conditions": {"ready": true}},
        {"addresses": ["10.244.0.3"], "conditions": {"ready": false}}]);
    let slice = json!({"metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080}, {"name": "dead", "port": 8081}]});
    server.post(SLICES, slice).await.created();
    let container = json!({"name": "c", "image": "i:1", "ports": [{"containerPort": 8080}]});
    for name in ["web", "pending"] {
        let pod = json!({"metadata": {"name": name}, "spec": {"containers": [container]}});
        server.post(PODS, pod).await.created();
    }
    let status = json!({"status": {"podIP": "10.244.0.9", "podIPs": [{"ip": "10.244.0.9"}]}});
    server.patch(&format!("{PODS}/web/status"), "merge-patch+json", status).await.ok();
    server
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_on_to_a_ready_endpoint_with_its_path_query_and_body() {
    let server = cluster().await;
    for port in ["http", "80"] {
        let headers = [("authorization", "Bearer secret"), ("cookie", "a=b"), ("x-own", "1"), ("te", "trailers")];
        let uri = format!("{SERVICES}/web:{port}/proxy/a%2Fb/?q=1&r=%20");
        let answer = server.send(Method::POST, &uri, &headers, "hello").await;
        assert_eq!(answer.headers["location"], format!("{SERVICES}/web:{port}/proxy/next"));
        assert!(!answer.headers.contains_key("keep-alive"), "what is between two hops stays there");
        let told = answer.ok();
        assert_eq!(told["address"], "10.244.0.2:8080");
        assert_eq!((&told["method"], &told["body"]), (&json!("POST"), &json!("hello")));
        assert_eq!(told["uri"], "/a%2Fb/?q=1&r=%20");
        let seen = &told["headers"];
        assert_eq!(seen["x-own"], "1");
        assert_eq!(seen["x-forwarded-uri"], format!("{SERVICES}/web:{port}/proxy/a%2Fb/"));
        assert_eq!(seen["x-forwarded-proto"], "https");
        assert_eq!(seen["cookie"], "a=b", "an application's own, as upstream has it");
        for name in ["authorization", "te"] {
            assert_eq!(seen[name], Value::Null, "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_method_reaches_the_pod_and_its_code_comes_back() {
    let server = cluster().await;
    for method in [Method::GET, Method::PUT, Method::POST, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        for name in ["web", "web:8080", "http:web:8080"] {
            let uri = format!("{PODS}/{name}/proxy/teapot");
            let told = server.send(method.clone(), &uri, &[], "").await.expect(418);
            assert_eq!((&told["method"], &told["address"]), (&json!(method.as_str()), &json!("10.244.0.9:8080")));
        }
    }
    let answer = server.send(Method::HEAD, &format!("{PODS}/web/proxy/"), &[], "").await;
    assert_eq!((answer.code.as_u16(), answer.body), (200, json!("")));
}

#[tokio::test(start_paused = true)]
async fn with_the_scheme_https_the_pod_is_spoken_to_over_tls_whatever_its_certificate() {
    let server = cluster().await;
    let told = server.get(&format!("{PODS}/https:web:8443/proxy/a?q=1")).await.ok();
    assert_eq!((&told["address"], &told["uri"]), (&json!("10.244.0.9:8443"), &json!("/a?q=1")));
    let message = server.get(&format!("{PODS}/https:web:8080/proxy/")).await.expect(503)["message"].clone();
    assert!(message.as_str().is_some_and(|said| said.starts_with("error trying to reach service: ")), "{message}");
}

#[tokio::test(start_paused = true)]
async fn the_proxys_root_is_a_directory() {
    let server = cluster().await;
    let answer = server.get(&format!("{PODS}/web/proxy?a=b")).await;
    assert_eq!(answer.headers["location"], format!("{PODS}/web/proxy/?a=b"));
    answer.expect(301);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_reached_is_said_in_upstreams_words() {
    let server = cluster().await;
    let cases = [
        (format!("{SERVICES}/none/proxy/"), 404, "services \"none\" not found"),
        (format!("{SERVICES}/idle/proxy/"), 503, "no endpoints available for service \"idle\""),
        (format!("{SERVICES}/web:nope/proxy/"), 503, "no endpoints available for service \"web\""),
        (format!("{SERVICES}/web:8080/proxy/"), 503, "no service port 8080 found for service \"web\""),
        (format!("{SERVICES}/ftp:web:80/proxy/"), 400, "invalid service request \"ftp:web:80\""),
        (
            format!("{SERVICES}/web:dead/proxy/"),
            503,
            "error trying to reach service: dial tcp 10.244.0.2:8081: connection refused",
        ),
        (format!("{PODS}/none/proxy/"), 404, "pods \"none\" not found"),
        (format!("{PODS}/pending/proxy/"), 400, "address not allowed"),
        ("/api/v1/nodes/none/proxy/metrics".to_owned(), 404, "nodes \"none\" not found"),
    ];
    for (uri, code, message) in cases {
        assert_eq!(server.get(&uri).await.expect(code)["message"], message, "{uri}");
    }
    let node = json!({"metadata": {"name": "n1"}});
    server.post("/api/v1/nodes", node).await.created();
    server.get("/api/v1/nodes/n1/proxy/metrics").await.expect(501);
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_leads_to_the_pod() {
    let server = cluster().await;
    let router = server.router.clone();
    let (mut client, stream) = duplex(4096);
    let serving = tokio::spawn(async move {
        let service = service_fn(move |request: Request<Incoming>| {
            tower::ServiceExt::oneshot(router.clone(), request.map(Body::new))
        });
        let builder = hyper::server::conn::http1::Builder::new();
        let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    });
    let head =
        format!("GET {PODS}/web/proxy/ws HTTP/1.1\r\nhost: api\r\nconnection: Upgrade\r\nupgrade: shout\r\n\r\n");
    client.write_all(head.as_bytes()).await.expect("the request is sent");
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(client.read_u8().await.expect("the head of the answer"));
    }
    assert!(read.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&read));
    client.write_all(b"hello").await.expect("a word is sent");
    let mut word = [0; 5];
    client.read_exact(&mut word).await.expect("the word comes back");
    assert_eq!(&word, b"HELLO");
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn without_nodes_there_is_nothing_to_pass_requests_to() {
    let server = complete().await;
    server.get(&format!("{PODS}/web/proxy/")).await.expect(500);
}
