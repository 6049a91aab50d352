//! `GET /store/snapshot`: the whole state as one file, while the cluster goes on.
//!
//! Behind the API's authentication and authorization, as every path is: the owner and `cluster-admin` may, and whoever a
//! role allows `get` on this non-resource URL. It holds every Secret. `coracle snapshot save` is its client; how a file
//! becomes a store again is [`store::restore`]'s business.

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use std::convert::Infallible;
use std::sync::Arc;
use store::Archive;

/// Where the API serves the whole state as one file.
pub const PATH: &str = "/store/snapshot";

/// Where the state comes from.
pub(crate) type Source = Arc<dyn Fn() -> Archive + Send + Sync>;

/// The route, for [`apiserver::ApiServer::add_routes`].
pub(crate) fn routes(source: Source) -> Router {
    Router::new().route(PATH, get(async move || answer(source())))
}

fn answer(archive: Archive) -> Response {
    let contents = archive.contents();
    let name = format!("attachment; filename=\"{}.snapshot\"", contents.revision.0);
    let pieces = futures::stream::iter(archive.map(Ok::<_, Infallible>));
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    // Whoever gets less knows it at once, before any checksum.
    headers.insert(CONTENT_LENGTH, contents.length.into());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::try_from(name).expect("digits are plain"));
    response
}
