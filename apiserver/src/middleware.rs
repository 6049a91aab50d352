//! What every request passes: panic guard → compression → authentication → impersonation → authorization.
//!
//! A [`UserInfo`] that is already among the request's extensions is believed: it cannot come over the wire.

use crate::authn::UserInfo;
use crate::authz::{Decision, refusal};
use crate::impersonation::impersonated;
use crate::request::RequestInfo;
use crate::status::Status;
use crate::{ApiServer, encode};
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{Predicate, SizeAbove};
use tracing::debug;

/// Larger answers are compressed for those who take it. Watches have no size and are never.
const COMPRESS_ABOVE: u64 = 128 * 1024;

#[derive(Clone, Copy, Debug)]
struct KnownSizeAbove;

impl Predicate for KnownSizeAbove {
    fn should_compress<B: http_body::Body>(&self, response: &http::Response<B>) -> bool {
        response.body().size_hint().exact().is_some_and(|size| size > COMPRESS_ABOVE)
    }
}

pub(crate) fn wrap(server: ApiServer, router: Router) -> Router {
    router
        .layer(from_fn_with_state(server.clone(), admit))
        .layer(axum::Extension(server))
        .layer(CompressionLayer::new().gzip(true).compress_when(SizeAbove::new(0).and(KnownSizeAbove)))
        .layer(CatchPanicLayer::custom(panicked))
}

/// Authentication, then authorization; then the request knows who asks for what.
async fn admit(State(server): State<ApiServer>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let info = RequestInfo::new(request.method(), request.uri());
    let response = match check(&server, request, &info).await {
        Ok(request) => next.run(request).await,
        Err(status) => encode::failure(&status),
    };
    let time = start.elapsed();
    let code = response.status();
    debug!(verb = info.verb, path = info.path, code = code.as_u16(), ?time, "served");
    server.inner.metrics.observe(&server, &info, code, time);
    response
}

async fn check(server: &ApiServer, request: Request, info: &RequestInfo) -> Result<Request, Status> {
    let (mut parts, body) = request.into_parts();
    let config = &server.inner.config;
    let mut user = match parts.extensions.get::<UserInfo>() {
        Some(user) => user.clone(),
        None => config
            .authenticator
            .authenticate(&parts)
            .await?
            .ok_or_else(|| Status::failure(401, "Unauthorized", "Unauthorized"))?,
    };
    if let Some(other) = impersonated(config.authorizer.as_ref(), &user, &parts.headers).await? {
        debug!(user = user.name, other = other.name, "impersonation");
        user = other;
    }
    if let Decision::Deny(reason) = config.authorizer.authorize(&user, info).await {
        let why = refusal(&user, info, &reason);
        return Err(if info.is_resource {
            forbidden(info, &why)
        } else {
            Status::failure(403, "Forbidden", format!("forbidden: {why}"))
        });
    }
    parts.extensions.insert(user);
    parts.extensions.insert(info.clone());
    Ok(Request::from_parts(parts, body))
}

fn forbidden(info: &RequestInfo, why: &str) -> Status {
    if !info.name.is_empty() {
        return Status::forbidden(&info.group, &info.resource, &info.name, why);
    }
    let resource =
        if info.group.is_empty() { info.resource.clone() } else { format!("{}.{}", info.resource, info.group) };
    Status::failure(403, "Forbidden", format!("{resource} is forbidden: {why}")).with_details(
        &info.group,
        &info.resource,
        "",
    )
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(panic = %text, "a request handler panicked");
    encode::failure(&Status::internal("the request handler panicked; its log entry says where"))
}
