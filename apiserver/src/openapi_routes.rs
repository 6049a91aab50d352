//! `/openapi/v3` and `/openapi/v2`: the schema's documents over HTTP, with their hashes as entity tags.
//!
//! v2 is had as protobuf too, for client-go asks for nothing else. Documents are made when first asked for and kept until the registry changes.

use crate::registry::Registry;
use crate::routes::VERSION;
use crate::schema::openapi::{Document, Documents};
use crate::status::Status;
use crate::{ApiServer, encode};
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use parking_lot::Mutex;
use std::sync::Arc;

const JSON: &str = "application/json";
const V2_MESSAGE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The documents of the registry they were made from.
#[derive(Default)]
struct Cache(Mutex<Option<(Arc<Registry>, Arc<Documents>)>>);

impl Cache {
    fn documents(&self, server: &ApiServer) -> Arc<Documents> {
        let registry = server.registry();
        let mut cached = self.0.lock();
        if let Some((of, documents)) = &*cached
            && Arc::ptr_eq(of, &registry)
        {
            return documents.clone();
        }
        let documents = Arc::new(Documents::new(&registry, server.schemas().clone(), VERSION.2, None));
        *cached = Some((registry, documents.clone()));
        documents
    }
}

/// The routes of all documents.
pub(crate) fn routes() -> Router {
    Router::new()
        .route("/openapi/v2", get(document))
        .route("/openapi/v3", get(document))
        .route("/openapi/v3/", get(document))
        .route("/openapi/v3/{*path}", get(document))
        .layer(Extension(Arc::new(Cache::default())))
}

async fn document(
    Extension(server): Extension<ApiServer>,
    Extension(cache): Extension<Arc<Cache>>,
    request: Request,
) -> Response {
    let documents = cache.documents(&server);
    let (path, headers) = (request.uri().path().to_owned(), request.headers().clone());
    // Hundreds of kilobytes of JSON are made at the first request: not on a worker that serves others.
    let answer = tokio::task::spawn_blocking(move || {
        let found = match path.trim_matches('/').strip_prefix("openapi/") {
            Some("v2") if wants_message(&headers) => Some((documents.v2_message(), V2_MESSAGE)),
            Some("v2") => Some((documents.v2(), JSON)),
            Some("v3") => Some((documents.index(), JSON)),
            Some(path) => path.strip_prefix("v3/").and_then(|path| documents.v3(path)).map(|document| (document, JSON)),
            None => None,
        };
        found.map(|(document, media)| encode(document, media, &headers))
    });
    match answer.await {
        Ok(Some(response)) => response,
        Ok(None) => {
            encode::failure(&Status::failure(404, "NotFound", "the server could not find the requested resource"))
        }
        Err(error) => encode::failure(&Status::internal(error)),
    }
}

/// The `@` that clients write into this type has no place in one, as RFC 9110 (8.3.1) has it; the answer's has a dot.
fn wants_message(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    accept.split([',', ';']).any(|media| media.trim().replace('@', ".") == V2_MESSAGE)
}

fn encode(document: &Document, media: &'static str, headers: &HeaderMap) -> Response {
    let etag = format!("\"{}\"", document.hash);
    let known = headers.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).unwrap_or_default();
    let mut response = if known.split(',').any(|tag| tag.trim() == etag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = Response::new(Body::from(document.body.clone()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
        response
    };
    // The hash in the URL names the content, so that clients may keep it.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}
