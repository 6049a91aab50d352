//! What is served beside resources: discovery, `/version`, health, the token issuer's keys.
//!
//! All of it stands behind the same authentication and authorization as the resources; RBAC's default roles open what is public.

use crate::authentication::TokenAuthenticator;
use crate::rbac::Rbac;
use crate::request::{Query, RequestInfo};
use crate::reviews::{REVIEWS, Review};
use crate::status::Status;
use crate::token_request::TokenRequests;
use crate::tokens::{ISSUER, TokenSigner};
use crate::{ApiServer, discovery, encode, openapi_routes, streams};
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// Kubernetes' version, as `/version` says it.
pub const VERSION: (&str, &str, &str) = ("1", "36", "v1.36.0");

/// Connects everything that a complete API server serves beside stored objects.
pub fn install_defaults(server: &ApiServer, rbac: &Rbac, tokens: &Arc<TokenAuthenticator>, signer: &Arc<TokenSigner>) {
    for (group, plural, kind) in REVIEWS {
        let review = Review { kind, rbac: rbac.clone(), tokens: tokens.clone() };
        server.set_virtual_resource(group, "v1", plural, Arc::new(review));
    }
    server.set_virtual_resource("", "v1", "serviceaccounts/token", Arc::new(TokenRequests(signer.clone())));
    streams::connect(server);
    let keys = signer.key_set();
    let routes = Router::new()
        .route("/api", get(discover))
        .route("/api/", get(discover))
        .route("/api/{version}", get(discover))
        .route("/apis", get(discover))
        .route("/apis/", get(discover))
        .route("/apis/{group}", get(discover))
        .route("/apis/{group}/{version}", get(discover))
        .route("/version", get(version))
        .route("/version/", get(version))
        .route("/healthz", get(health))
        .route("/livez", get(health))
        .route("/readyz", get(health))
        .route("/healthz/{check}", get(health))
        .route("/livez/{check}", get(health))
        .route("/readyz/{check}", get(health))
        .route("/.well-known/openid-configuration", get(openid_configuration))
        .route("/openid/v1/jwks", get(move || key_set(keys.clone())))
        .route("/", get(paths));
    server.add_routes(routes.merge(openapi_routes::routes()));
}

async fn discover(Extension(server): Extension<ApiServer>, request: Request) -> Response {
    let found = discovery::respond(&server.registry(), request.uri().path(), request.headers());
    found.unwrap_or_else(|| {
        encode::failure(&Status::failure(404, "NotFound", "the server could not find the requested resource"))
    })
}

async fn version() -> Json<Value> {
    let (major, minor, git) = VERSION;
    Json(json!({"major": major, "minor": minor, "gitVersion": git, "gitCommit": "unknown", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none (Coracle)", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture())}))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The checks behind the health endpoints. The server answers at all, and its store has not stopped.
const CHECKS: [&str; 3] = ["ping", "log", "etcd"];

async fn health(Extension(server): Extension<ApiServer>, request: Request) -> Response {
    let path = request.uri().path().trim_matches('/').to_owned();
    let (endpoint, single) = path.split_once('/').unwrap_or((&path, ""));
    let query = Query::new(request.uri());
    let excluded: Vec<&str> = query.values("exclude").collect();
    let checks: Vec<&str> = CHECKS
        .iter()
        .copied()
        .filter(|check| (single.is_empty() || *check == single) && !excluded.contains(check))
        .collect();
    if !single.is_empty() && checks.is_empty() {
        return encode::failure(&Status::failure(404, "NotFound", "the server could not find the requested resource"));
    }
    // Reading goes on when writing has stopped; only a write can tell, and it must change nothing.
    let writable = server.store().txn(store::Txn::default()).await.is_ok();
    let mut text = String::new();
    let mut healthy = true;
    for check in &checks {
        let good = *check != "etcd" || writable;
        healthy &= good;
        let (sign, word) = if good { ('+', "ok") } else { ('-', "failed: reason withheld") };
        text.push_str(&format!("[{sign}]{check} {word}\n"));
    }
    let word = if healthy { "passed" } else { "failed" };
    text.push_str(&format!("{endpoint} check {word}\n"));
    let body = if healthy && !query.flag("verbose") { "ok".to_owned() } else { text };
    let code = if healthy { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
    ];
    (code, headers, body).into_response()
}

async fn openid_configuration() -> Json<Value> {
    Json(
        json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/openid/v1/jwks"), "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"]}),
    )
}

async fn key_set(keys: Value) -> Response {
    let mut response = Response::new(Body::from(keys.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    response
}

/// `GET /`: every path there is.
async fn paths(Extension(server): Extension<ApiServer>, Extension(_): Extension<RequestInfo>) -> Json<Value> {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .into();
    for kind in server.registry().iter().filter(|kind| !kind.group.is_empty()) {
        paths.push(format!("/apis/{}", kind.group));
        paths.push(format!("/apis/{}/{}", kind.group, kind.version));
    }
    paths.sort();
    paths.dedup();
    Json(json!({"paths": paths}))
}
