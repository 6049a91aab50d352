//! What every request passes: panic guard → compression → authentication → impersonation → authorization → its turn ([`crate::flow_control`]).
//!
//! A [`UserInfo`] that is already among the request's extensions is believed: it cannot come over the wire.

use crate::authn::UserInfo;
use crate::authz::{Decision, refusal};
use crate::impersonation::impersonated;
use crate::request::RequestInfo;
use crate::status::Status;
use crate::{ApiServer, deadline, encode};
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tokio::time::{Instant, timeout};
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::Predicate;
use tracing::debug;

/// Larger answers are compressed for those who take it, as fast as can be: it is for slow networks, not for the disk. Nobody knows
/// how long a watch will be, so watches never are.
const COMPRESS_ABOVE: u64 = 128 * 1024;

/// Marks requests of [`crate::ApiServer::router_as`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct InProcess;

#[derive(Clone, Copy, Debug)]
struct LargerThan(u64);

impl Predicate for LargerThan {
    fn should_compress<B: http_body::Body>(&self, response: &http::Response<B>) -> bool {
        response.body().size_hint().lower() > self.0
    }
}

pub(crate) fn wrap(server: ApiServer, router: Router) -> Router {
    router
        .layer(from_fn_with_state(server.clone(), admit))
        .layer(axum::Extension(server))
        .layer(
            CompressionLayer::new()
                .gzip(true)
                .quality(CompressionLevel::Fastest)
                .compress_when(LargerThan(COMPRESS_ABOVE)),
        )
        .layer(CatchPanicLayer::custom(panicked))
}

/// Authentication, then authorization; then the request knows who asks for what.
async fn admit(State(server): State<ApiServer>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let info = RequestInfo::new(request.method(), request.uri());
    let response = match answer(&server, request, next, &info).await {
        Ok(response) => response,
        Err(status) => encode::failure(&status),
    };
    let time = start.elapsed();
    let code = response.status();
    debug!(verb = info.verb, path = info.path, code = code.as_u16(), ?time, "served");
    server.inner.metrics.observe(&server, &info, code, time);
    response
}

/// The answer, if it comes in time: or a client that never sends the end of its body would keep its seat.
async fn answer(server: &ApiServer, request: Request, next: Next, info: &RequestInfo) -> Result<Response, Status> {
    let deadline = deadline::of(info, request.uri(), server.inner.config.request_timeout)?;
    let answer = async {
        let (user, request) = check(server, request, info).await?;
        Ok(in_turn(server, &user, info, request, next).await)
    };
    match deadline {
        None => answer.await,
        Some(deadline) => timeout(deadline, answer).await.unwrap_or_else(|_| Err(deadline::exceeded())),
    }
}

/// Serves the request when it is its turn. It keeps its seat until the answer's head is ready: a watch runs on without.
async fn in_turn(server: &ApiServer, user: &UserInfo, info: &RequestInfo, request: Request, next: Next) -> Response {
    // Streams run for as long as they like, and are not counted at all.
    if deadline::is_stream(info) {
        return next.run(request).await;
    }
    match server.inner.flow_control.enter(user, info).await {
        Ok(place) => {
            let mut response = next.run(request).await;
            place.label(response.headers_mut());
            response
        }
        Err(overload) => {
            let mut response = encode::failure(&overload.status);
            overload.label(response.headers_mut());
            response
        }
    }
}

async fn check(server: &ApiServer, request: Request, info: &RequestInfo) -> Result<(UserInfo, Request), Status> {
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
        if parts.extensions.get::<InProcess>().is_some() && user.name.starts_with("system:") {
            debug!(why, "a component was denied");
            server.inner.metrics.denied(&user.name, info);
        }
        return Err(if info.is_resource {
            forbidden(info, &why)
        } else {
            Status::failure(403, "Forbidden", format!("forbidden: {why}"))
        });
    }
    parts.extensions.insert(user.clone());
    parts.extensions.insert(info.clone());
    Ok((user, Request::from_parts(parts, body)))
}

pub(crate) fn forbidden(info: &RequestInfo, why: &str) -> Status {
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
