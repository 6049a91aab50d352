//! What is served beside resources: discovery, `/version`, the token issuer's keys. Health is in [`crate::health`].
//!
//! All of it stands behind the same authentication and authorization as the resources; RBAC's default roles open what is public.

use crate::authentication::TokenAuthenticator;
use crate::health::Endpoint;
use crate::request::RequestInfo;
use crate::reviews::{REVIEWS, Review};
use crate::status::Status;
use crate::token_request::TokenRequests;
use crate::tokens::{ISSUER, TokenSigner};
use crate::{ApiServer, discovery, encode, health, openapi_routes, streams};
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde_json::{Value, json};
use std::sync::Arc;

/// Kubernetes' version, as `/version` says it.
pub const VERSION: (&str, &str, &str) = ("1", "36", "v1.36.0");

/// Connects everything that a complete API server serves beside stored objects.
pub fn install_defaults(server: &ApiServer, tokens: &Arc<TokenAuthenticator>, signer: &Arc<TokenSigner>) {
    for (group, plural, kind) in REVIEWS {
        let review = Review { kind, authorizer: server.inner.config.authorizer.clone(), tokens: tokens.clone() };
        server.set_virtual_resource(group, "v1", plural, Arc::new(review));
    }
    server.set_virtual_resource("", "v1", "serviceaccounts/token", Arc::new(TokenRequests(signer.clone())));
    streams::connect(server);
    let keys = signer.key_set();
    let routes = Router::new()
        .route("/api", get(discover))
        .route("/api/", get(discover))
        .route("/api/{version}", get(discover))
        .route("/api/{version}/", get(discover))
        .route("/apis", get(discover))
        .route("/apis/", get(discover))
        .route("/apis/{group}", get(discover))
        .route("/apis/{group}/", get(discover))
        .route("/apis/{group}/{version}", get(discover))
        .route("/apis/{group}/{version}/", get(discover))
        .route("/version", get(version))
        .route("/version/", get(version))
        .route("/.well-known/openid-configuration", get(openid_configuration))
        .route("/openid/v1/jwks", get(move || key_set(keys.clone())))
        .route("/", get(paths));
    server.add_routes(routes.merge(health::routes()).merge(openapi_routes::routes()));
}

async fn discover(Extension(server): Extension<ApiServer>, request: Request) -> Response {
    let found = discovery::respond(&server.registry(), request.uri().path(), request.headers());
    found.unwrap_or_else(|| {
        encode::failure(&Status::failure(404, "NotFound", "the server could not find the requested resource"))
    })
}

async fn version() -> Response {
    let (major, minor, git) = VERSION;
    indented(
        &json!({"major": major, "minor": minor, "gitVersion": git, "gitCommit": "unknown", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none (Coracle)", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture())}),
    )
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// OpenID Connect Discovery 1.0, as far as a relying party needs it to check tokens.
async fn openid_configuration() -> Response {
    let document = json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/openid/v1/jwks"),
        "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"]});
    published(&document, "application/json")
}

async fn key_set(keys: Value) -> Response {
    published(&keys, "application/jwk-set+json")
}

fn published(document: &Value, content_type: &'static str) -> Response {
    let mut response = Response::new(Body::from(document.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

/// A document that people read, so that it is indented whoever asks, as upstream has it.
fn indented(value: &Value) -> Response {
    let text = serde_json::to_string_pretty(value).expect("JSON values can be written to memory");
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `GET /`: every path there is.
async fn paths(Extension(server): Extension<ApiServer>, Extension(_): Extension<RequestInfo>) -> Response {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .into();
    for endpoint in Endpoint::ALL {
        paths.extend(endpoint.checks().map(|check| format!("/{}/{}", endpoint.name(), check.name())));
    }
    for kind in server.registry().iter().filter(|kind| !kind.group.is_empty()) {
        paths.push(format!("/apis/{}", kind.group));
        paths.push(format!("/apis/{}/{}", kind.group, kind.version));
    }
    paths.sort();
    paths.dedup();
    indented(&json!({"paths": paths}))
}
