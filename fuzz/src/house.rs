//! A server in memory with something in it, one per thread, made anew now and then.

use apiserver::authentication::TokenAuthenticator;
use apiserver::authn::UserInfo;
use apiserver::kinds::{Networking, registry};
use apiserver::tokens::{BoundObject, Claims, ISSUER, KubernetesClaims, TokenSigner};
use apiserver::{ApiServer, Config, admission};
use axum::Router;
use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::sync::Arc;
use store::MemoryStore;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

/// After so many requests a server is thrown away with what has gathered in it.
const REQUESTS: usize = 2000;

/// A server, and what is needed to talk to it.
pub(crate) struct House {
    runtime: Runtime,
    pub(crate) api: ApiServer,
    /// Requests without credentials of their own are the administrator's.
    trusted: Router,
    /// Requests have to say who they are.
    open: Router,
    /// A token which the server accepts.
    pub(crate) token: String,
    requests: usize,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Never the server's fault; and what went wrong is said in a `Status`.
    #[track_caller]
    pub(crate) fn is_sound(&self, allowed: &[u16]) {
        if allowed.contains(&self.code) {
            return;
        }
        let text = String::from_utf8_lossy(&self.body);
        assert!(self.code < 500, "{} {text}", self.code);
        if self.code >= 400 {
            let status = self.json().unwrap_or_default();
            assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(self.code)), "{text}");
        }
    }
}

thread_local! {
    static HOUSE: RefCell<Option<House>> = const { RefCell::new(None) };
}

/// Does something with this thread's server.
pub(crate) fn with<T>(act: impl FnOnce(&mut House) -> T) -> T {
    HOUSE.with_borrow_mut(|house| {
        // Taken out: a panic leaves none behind, and the next run begins with a new one.
        let mut server = house.take().filter(|server| server.requests < REQUESTS).unwrap_or_else(House::new);
        let result = act(&mut server);
        *house = Some(server);
        result
    })
}

impl House {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        let signer = Arc::new(TokenSigner::generate().expect("a key"));
        let (api, trusted, open) = runtime.block_on(routers(&signer));
        let mut house = House { runtime, api, trusted, open, token: String::new(), requests: 0 };
        house.furnish();
        house.token = house.sign(&signer);
        house
    }

    fn furnish(&mut self) {
        let containers = json!([{"name": "c", "image": "i:1", "ports": [{"containerPort": 80}], "env": [{"name": "E", "value": "1"}]}]);
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}});
        let web = json!({"metadata": {"name": "web", "annotations": {"a": "1"}}, "spec": {"replicas": 2,
            "selector": {"matchLabels": {"app": "web"}}, "template": template}});
        let pod = json!({"metadata": {"name": "p1", "labels": {"app": "web"}}, "spec": {"containers": containers}});
        let service =
            json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
        let account = json!({"metadata": {"name": "default"}});
        let core = "/api/v1/namespaces/default";
        for (path, object) in [
            ("/api/v1/namespaces", json!({"metadata": {"name": "default"}})),
            ("/api/v1/namespaces/default/serviceaccounts", account),
            ("/apis/apps/v1/namespaces/default/deployments", web),
            ("/api/v1/namespaces/default/pods", pod),
            ("/api/v1/namespaces/default/services", service),
            ("/api/v1/nodes", json!({"metadata": {"name": "n1"}})),
        ] {
            let made = self.send(Method::POST, path, &[("content-type", "application/json")], object.to_string());
            assert_eq!(made.code, 201, "{}", String::from_utf8_lossy(&made.body));
        }
        for name in ["c1", "c2", "c3"] {
            let object = json!({"metadata": {"name": name}, "data": {"a": "1"}}).to_string();
            let path = format!("{core}/configmaps");
            self.send(Method::POST, &path, &[("content-type", "application/json")], object);
        }
    }

    fn sign(&mut self, signer: &TokenSigner) -> String {
        let account = self.get("/api/v1/namespaces/default/serviceaccounts/default").json().unwrap_or_default();
        let uid = account["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let now = self.runtime.block_on(async { self.api.now() }).as_second();
        let serviceaccount = BoundObject { name: "default".to_owned(), uid };
        let kubernetes =
            KubernetesClaims { namespace: "default".to_owned(), serviceaccount, pod: None, node: None, secret: None };
        let claims = Claims {
            aud: vec![ISSUER.to_owned()],
            exp: now + 3600,
            iat: now,
            nbf: now,
            iss: ISSUER.to_owned(),
            jti: "fuzz".to_owned(),
            sub: "system:serviceaccount:default:default".to_owned(),
            kubernetes,
        };
        signer.sign(&claims).expect("a token")
    }

    /// Asks as the administrator.
    pub(crate) fn send(
        &mut self,
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.ask(request.body(body.into()).expect("a request"))
    }

    pub(crate) fn get(&mut self, uri: &str) -> Answer {
        self.send(Method::GET, uri, &[], "")
    }

    /// Asks as the administrator.
    pub(crate) fn ask(&mut self, request: Request<Body>) -> Answer {
        let router = self.trusted.clone();
        self.serve(router, request)
    }

    /// Asks as somebody who has to say who he is.
    pub(crate) fn ask_as_stranger(&mut self, request: Request<Body>) -> Answer {
        let router = self.open.clone();
        self.serve(router, request)
    }

    fn serve(&mut self, router: Router, request: Request<Body>) -> Answer {
        self.requests += 1;
        self.runtime.block_on(async {
            let response = router.oneshot(request).await.expect("the router always answers");
            let (parts, mut body) = response.into_parts();
            let mut bytes = Vec::new();
            // A watch's body has no end of its own; under the paused clock its time-out comes at once, after its bookmarks.
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { break };
                if let Ok(data) = frame.into_data() {
                    bytes.extend_from_slice(&data);
                }
            }
            Answer { code: parts.status.as_u16(), body: bytes }
        })
    }
}

async fn routers(signer: &Arc<TokenSigner>) -> (ApiServer, Router, Router) {
    let store = Arc::new(MemoryStore::new());
    let start: apiserver::Timestamp = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
    let tokens = Arc::new(TokenAuthenticator::new(store.clone(), signer.clone(), String::new(), move || start));
    let config = Config {
        seed: Some(1),
        start,
        authenticator: tokens.clone(),
        admission: admission::standard(),
        ..Config::default()
    };
    let api = ApiServer::new(store, registry(Networking::default()), config);
    apiserver::install_defaults(&api, &tokens, signer);
    let (trusted, open) = (api.router_as(UserInfo::admin()), api.router());
    (api, trusted, open)
}
