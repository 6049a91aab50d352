//! What the logs that are streamed as JSON lines share: how much of them is wanted, whose, and the form of the answer.

use super::asker::Asker;
use apiserver::ApiServer;
use apiserver::request::Query;
use apiserver::status::Status;
use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::{Stream, StreamExt};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::convert::Infallible;
use tokio::time::Instant;

const MEDIA_TYPE: &str = "application/x-ndjson";
/// Without `last` and `follow`, as many lines are told.
const LAST: usize = 20;

/// How much is wanted.
pub(super) struct Wanted {
    /// This many of the newest that are kept.
    pub(super) last: usize,
    /// And whatever comes.
    pub(super) follow: bool,
}

impl Wanted {
    /// Reads `follow=true` and `last=N`.
    pub(super) fn of(query: &Query) -> Result<Wanted, Status> {
        let follow = query.flag("follow");
        let last = match query.text("last") {
            None if follow => 0,
            None => LAST,
            Some(text) => text.parse().map_err(|_| {
                Status::bad_request(format!("last: Invalid value: {text:?}: must be a number of events, 0 or more"))
            })?,
        };
        Ok(Wanted { last, follow })
    }
}

/// Of whom is to be told: of everybody if neither says anything.
pub(super) struct Whose {
    /// `NAMESPACE/NAME`.
    pub(super) pods: Vec<String>,
    pub(super) namespaces: Vec<String>,
}

impl Whose {
    /// Reads `pod=NAMESPACE/NAME` and `namespace=NAME`; who asks in a namespace is told of that one.
    ///
    /// # Errors
    /// 403: somebody there may not be asked about.
    pub(super) async fn of(query: &Query, asker: &Asker) -> Result<Whose, Status> {
        let home = asker.home("");
        let pods = query.values("pod").map(|pod| match pod.contains('/') {
            true => pod.to_owned(),
            false => format!("{home}/{pod}"),
        });
        let own = asker.namespace().into_iter();
        let namespaces: Vec<String> = own.chain(query.values("namespace")).map(str::to_owned).collect();
        let whose = Whose { pods: pods.collect(), namespaces };
        for namespace in &whose.namespaces {
            asker.may_ask_in(namespace).await?;
        }
        for pod in &whose.pods {
            asker.may_see(Some(pod)).await?;
        }
        Ok(whose)
    }

    /// Whether one of these pods (`NAMESPACE/NAME`) is meant, or nobody in particular.
    pub(super) fn includes(&self, pods: &[String]) -> bool {
        let is_in =
            |namespace: &str| pods.iter().any(|pod| pod.split_once('/').is_some_and(|(its, _)| its == namespace));
        (self.pods.is_empty() || self.pods.iter().any(|pod| pods.contains(pod)))
            && (self.namespaces.is_empty() || self.namespaces.iter().any(|namespace| is_in(namespace)))
    }
}

/// Wall time of instants of the cluster's clock.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    wall: Timestamp,
    began: Instant,
}

impl Clock {
    /// Now is `wall`.
    pub(super) fn new(wall: Timestamp) -> Clock {
        Clock { wall, began: Instant::now() }
    }

    pub(super) fn time(&self, at: Instant) -> Timestamp {
        let since = at.checked_duration_since(self.began).and_then(|since| SignedDuration::try_from(since).ok());
        let before = || SignedDuration::try_from(self.began - at).unwrap_or_default();
        let shifted = match since {
            Some(since) => self.wall.checked_add(since),
            None => self.wall.checked_sub(before()),
        };
        shifted.unwrap_or(self.wall)
    }
}

/// The answer: these lines, until they end or the server stops.
pub(super) fn response(server: &ApiServer, lines: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let mut stopping = server.stopping();
    let stopped = async move { drop(stopping.wait_for(|stopping| *stopping).await) };
    let stream = lines.take_until(stopped).map(Ok::<_, Infallible>);
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
