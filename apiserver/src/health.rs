//! `/healthz`, `/livez`, `/readyz`: may traffic come here, and if not, why. Each check is true of this server, not a name in a list.
//!
//! `?verbose` shows every check, `?exclude=NAME` leaves one out, `/readyz/NAME` asks one alone. `/livez` says whether to start the
//! process anew, `/readyz` whether to send requests, so only the latter fails while the server stops.
//!
//! Follows `k8s.io/apiserver/pkg/server/healthz`.

use crate::status::Status;
use crate::{ApiServer, encode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, StatusCode, Uri};
use std::collections::BTreeSet;

/// One of the three addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Healthz,
    Livez,
    Readyz,
}

/// One thing that can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// The server answers.
    Ping,
    /// Its log takes lines: writing one does not wait for anybody.
    Log,
    /// The store takes writes.
    Etcd,
    /// The store answers reads.
    EtcdReadiness,
    /// The kinds are registered; there are no caches between them and the store that could be behind.
    InformerSync,
    /// The roles that come with the server are in the store.
    BootstrapRoles,
    /// So are the system's priority classes.
    BootstrapPriorityClasses,
    /// So are the system's namespaces.
    SystemNamespaces,
    /// Nobody has told the server to stop.
    Shutdown,
}

impl Endpoint {
    pub(crate) const ALL: [Endpoint; 3] = [Endpoint::Healthz, Endpoint::Livez, Endpoint::Readyz];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Endpoint::Healthz => "healthz",
            Endpoint::Livez => "livez",
            Endpoint::Readyz => "readyz",
        }
    }

    /// What is checked, in the order in which it is shown.
    pub(crate) fn checks(self) -> impl Iterator<Item = Check> {
        Check::ALL.into_iter().filter(move |check| self == Endpoint::Readyz || !check.is_for_readiness())
    }
}

impl Check {
    const ALL: [Check; 9] = [
        Check::Ping,
        Check::Log,
        Check::Etcd,
        Check::EtcdReadiness,
        Check::InformerSync,
        Check::SystemNamespaces,
        Check::BootstrapRoles,
        Check::BootstrapPriorityClasses,
        Check::Shutdown,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Check::Ping => "ping",
            Check::Log => "log",
            Check::Etcd => "etcd",
            Check::EtcdReadiness => "etcd-readiness",
            Check::InformerSync => "informer-sync",
            Check::BootstrapRoles => "poststarthook/rbac/bootstrap-roles",
            Check::BootstrapPriorityClasses => "poststarthook/scheduling/bootstrap-system-priority-classes",
            Check::SystemNamespaces => "poststarthook/start-system-namespaces-controller",
            Check::Shutdown => "shutdown",
        }
    }

    fn is_for_readiness(self) -> bool {
        matches!(self, Check::EtcdReadiness | Check::InformerSync | Check::Shutdown)
    }

    /// # Errors
    /// What is wrong, for those who ask for this check alone.
    async fn run(self, server: &ApiServer) -> Result<(), String> {
        let store = server.store();
        let there = async |key: &str| match store.get(key).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(format!("{key} is not there")),
            Err(why) => Err(why.to_string()),
        };
        match self {
            Check::Ping | Check::Log => Ok(()),
            // Reading goes on when writing has stopped; only a write can tell, and it must change nothing.
            Check::Etcd => store.txn(store::Txn::default()).await.map(drop).map_err(|why| why.to_string()),
            Check::EtcdReadiness => {
                let range = store::Range { prefix: "/registry/namespaces/".to_owned(), limit: 1, ..Default::default() };
                store.range(range).await.map(drop).map_err(|why| why.to_string())
            }
            Check::InformerSync => match server.registry().iter().next() {
                Some(_) => Ok(()),
                None => Err("no kinds are registered".to_owned()),
            },
            Check::BootstrapRoles => there("/registry/clusterroles.rbac.authorization.k8s.io/cluster-admin").await,
            Check::BootstrapPriorityClasses => {
                there("/registry/priorityclasses.scheduling.k8s.io/system-cluster-critical").await
            }
            Check::SystemNamespaces => there("/registry/namespaces/kube-system").await,
            Check::Shutdown => match *server.stopping().borrow() {
                false => Ok(()),
                true => Err("process is shutting down".to_owned()),
            },
        }
    }
}

/// The routes.
pub(crate) fn routes() -> Router {
    let mut routes = Router::new();
    for endpoint in Endpoint::ALL {
        let path = format!("/{}", endpoint.name());
        for check in endpoint.checks() {
            let one = move |Extension(server): Extension<ApiServer>| async move { single(&server, check).await };
            routes = routes.route(&format!("{path}/{}", check.name()), get(one));
        }
        let all = move |Extension(server): Extension<ApiServer>, uri: Uri| async move {
            respond(&server, endpoint, &uri).await
        };
        routes = routes.route(&path, get(all)).route(&format!("{path}/{{*unknown}}"), get(unknown));
    }
    routes
}

async fn unknown() -> Response {
    encode::failure(&Status::failure(404, "NotFound", "the server could not find the requested resource"))
}

async fn single(server: &ApiServer, check: Check) -> Response {
    match check.run(server).await {
        Ok(()) => text(StatusCode::OK, "ok".to_owned()),
        Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
    }
}

async fn respond(server: &ApiServer, endpoint: Endpoint, uri: &Uri) -> Response {
    let query = crate::request::Query::new(uri);
    let mut excluded: BTreeSet<&str> = query.values("exclude").collect();
    let (mut lines, mut healthy) = (String::new(), true);
    for check in endpoint.checks() {
        let name = check.name();
        if excluded.remove(name) {
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match check.run(server).await {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            // Everybody may ask here; the reason is for those who may ask for the check alone.
            Err(why) => {
                tracing::warn!(check = name, %why, "a health check failed");
                lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
                healthy = false;
            }
        }
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let names = names.join(",");
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {names}\n"));
    }
    let name = endpoint.name();
    if !healthy {
        return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{name} check failed\n"));
    }
    let verbose = query.values("verbose").next().is_some();
    text(StatusCode::OK, if verbose { format!("{lines}{name} check passed\n") } else { "ok".to_owned() })
}

fn text(code: StatusCode, body: String) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
    ];
    (code, headers, body).into_response()
}
