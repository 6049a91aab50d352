//! One server over a store in memory, and short ways to ask it.

use apiserver::authentication::TokenAuthenticator;
use apiserver::authn::UserInfo;
use apiserver::kinds::{Networking, registry};
use apiserver::tokens::TokenSigner;
use apiserver::{ApiServer, Config};
use axum::Router;
use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use store::{MemoryStore, Store};
use tower::ServiceExt;

/// A server under test with the namespace `default`.
pub(crate) struct Server {
    pub(crate) api: ApiServer,
    pub(crate) router: Router,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) code: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Value,
}

pub(crate) fn config() -> Config {
    Config { seed: Some(1), start: "2026-01-01T00:00:00Z".parse().expect("a timestamp"), ..Config::default() }
}

pub(crate) async fn server() -> Server {
    with(config()).await
}

pub(crate) async fn with(config: Config) -> Server {
    over(Arc::new(MemoryStore::new()), config).await
}

pub(crate) async fn over(store: Arc<dyn Store>, config: Config) -> Server {
    let api = ApiServer::new(store, registry(Networking::default()), config);
    let router = api.router_as(UserInfo::admin());
    let server = Server { api, router };
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "default"}})).await.created();
    server
}

/// A server with everything that is served beside stored objects, but without nodes.
pub(crate) async fn complete() -> Server {
    let Server { api, .. } = server().await;
    let (store, now) = (api.store().clone(), api.now());
    let signer = Arc::new(TokenSigner::generate().expect("a key"));
    let tokens = Arc::new(TokenAuthenticator::new(store, signer.clone(), "admin".to_owned(), move || now));
    apiserver::install_defaults(&api, &tokens, &signer);
    let router = api.router_as(UserInfo::admin());
    Server { api, router }
}

pub(crate) const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";

pub(crate) fn configmap(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

impl Server {
    pub(crate) async fn send(
        &self,
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("the router always answers");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        let body =
            serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
        Answer { code: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, uri: &str) -> Answer {
        self.send(Method::GET, uri, &[], "").await
    }

    pub(crate) async fn get_as(&self, uri: &str, accept: &str) -> Answer {
        self.send(Method::GET, uri, &[("accept", accept)], "").await
    }

    pub(crate) async fn post(&self, uri: &str, body: Value) -> Answer {
        self.send(Method::POST, uri, &[("content-type", "application/json")], body.to_string()).await
    }

    pub(crate) async fn put(&self, uri: &str, body: Value) -> Answer {
        self.send(Method::PUT, uri, &[("content-type", "application/json")], body.to_string()).await
    }

    pub(crate) async fn patch(&self, uri: &str, kind: &str, body: Value) -> Answer {
        self.send(Method::PATCH, uri, &[("content-type", &format!("application/{kind}"))], body.to_string()).await
    }

    pub(crate) async fn delete(&self, uri: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(Method::DELETE, uri, &[("content-type", "application/json")], body).await
    }

    /// Starts a watch.
    pub(crate) async fn watch(&self, uri: &str, accept: &str) -> Lines {
        let request = Request::builder().uri(uri).header("accept", accept).body(Body::empty()).expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("the router always answers");
        assert_eq!(response.status(), StatusCode::OK, "{uri}");
        Lines { body: response.into_body(), read: Vec::new() }
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.body);
        self.body
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        self.expect(200)
    }

    #[track_caller]
    pub(crate) fn created(self) -> Value {
        self.expect(201)
    }
}

/// A running watch.
pub(crate) struct Lines {
    body: Body,
    read: Vec<u8>,
}

impl Lines {
    /// The next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a JSON line"));
            }
            let frame = self.body.frame().await?.expect("a frame");
            self.read.extend_from_slice(&frame.into_data().expect("data"));
        }
    }

    /// The next event in short: `ADDED a`.
    pub(crate) async fn short(&mut self) -> String {
        match self.next().await {
            None => "the end".to_owned(),
            Some(event) => {
                let object = &event["object"];
                let name = object["metadata"]["name"].as_str().or(object["reason"].as_str()).unwrap_or("-");
                format!("{} {name}", event["type"].as_str().unwrap_or_default())
            }
        }
    }
}
