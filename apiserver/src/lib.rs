//! The Kubernetes REST API over a [`store::Store`].
//!
//! A request's journey: `server` → [`request`] → [`authn`] → [`authz`] → [`registry`] → decode, default, admit, validate →
//! store transaction → encode. One generic handler for all kinds; what differs between kinds is a row of the registry.

pub mod admission;
pub mod authentication;
pub mod authn;
pub mod authz;
pub mod certificate_requests;
pub mod certs;
pub mod extension;
pub mod flow_control;
pub mod kinds;
pub mod node_authorizer;
pub mod node_restriction;
pub mod pod_streams;
pub mod rbac;
pub mod rbac_bootstrap;
pub mod rbac_escalation;
pub mod registry;
pub mod request;
pub mod reviews;
pub mod schema;
pub mod server;
pub mod status;
pub mod tokens;

mod clock;
mod connection;
mod deadline;
mod discovery;
mod encode;
mod expiry;
mod extract;
mod fan_out;
mod follow;
mod handler;
mod health;
mod impersonation;
mod list_options;
mod metrics;
mod middleware;
mod negotiate;
mod openapi_routes;
mod repair;
mod routes;
mod selector;
mod storage;
mod strategy;
mod streams;
mod table;
mod token_request;

pub use jiff::Timestamp;
pub use routes::{VERSION, install_defaults};

use admission::Admission;
use arc_swap::ArcSwap;
use authn::{Authenticator, InProcessOnly, UserInfo};
use authz::{AlwaysAllow, Authorizer};
use axum::Router;
use clock::{Clock, Identifiers};
use extension::{Connector, ExtensionKey, VirtualResource};
use parking_lot::{Mutex, RwLock};
use pod_streams::PodStreams;
use registry::{Registry, ResourceKind};
use schema::Schemas;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use store::{Revision, Store};
use tokio::sync::watch;

/// How an [`ApiServer`] is to work.
#[derive(Clone)]
pub struct Config {
    /// Seed of `uid`s and generated names; random ones without.
    pub seed: Option<u64>,
    /// The wall-clock time at the start; from there on tokio's clock counts.
    pub start: jiff::Timestamp,
    /// Who is who.
    pub authenticator: Arc<dyn Authenticator>,
    /// Who may do what.
    pub authorizer: Arc<dyn Authorizer>,
    /// Plug-ins, in the order they are asked.
    pub admission: Vec<Arc<dyn Admission>>,
    /// A watch that asked for bookmarks gets one at least this often.
    pub bookmark_interval: Duration,
    /// A watch without `timeoutSeconds` ends after this time.
    pub watch_timeout: Duration,
    /// A request that is neither a watch nor a stream has so much time; its `timeout` may say less.
    pub request_timeout: Duration,
    /// Larger bodies are refused with 413.
    pub body_limit: usize,
    /// So many seats are shared out among the priority levels ([`flow_control`]): requests at a time, streams and running watches aside.
    pub max_in_flight: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            seed: None,
            start: jiff::Timestamp::now(),
            authenticator: Arc::new(InProcessOnly),
            authorizer: Arc::new(AlwaysAllow),
            admission: Vec::new(),
            bookmark_interval: Duration::from_secs(60),
            watch_timeout: Duration::from_secs(30 * 60),
            request_timeout: Duration::from_secs(60),
            body_limit: 3 << 20,
            max_in_flight: 600,
        }
    }
}

/// The API server. Clones are the same server.
#[derive(Clone)]
pub struct ApiServer {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    registry: ArcSwap<Registry>,
    schemas: Arc<Schemas>,
    config: Config,
    clock: Clock,
    identifiers: Identifiers,
    pod_streams: RwLock<Option<Arc<dyn PodStreams>>>,
    virtual_resources: RwLock<HashMap<ExtensionKey, Arc<dyn VirtualResource>>>,
    connectors: RwLock<HashMap<ExtensionKey, Arc<dyn Connector>>>,
    routes: Mutex<Router>,
    stopping: watch::Sender<bool>,
    flow_control: flow_control::FlowControl,
    metrics: metrics::Metrics,
    hubs: fan_out::Hubs,
    further_metrics: Mutex<Vec<MetricsSource>>,
}

/// Writes families of metrics in Prometheus' text format.
type MetricsSource = Arc<dyn Fn(&mut String) + Send + Sync>;

impl ApiServer {
    /// A server of these kinds over `store`.
    pub fn new(store: Arc<dyn Store>, registry: Registry, config: Config) -> Self {
        let schemas = Schemas::new();
        registry.iter().for_each(|kind| schemas.register_kind(kind));
        let inner = Inner {
            store,
            registry: ArcSwap::from_pointee(registry),
            schemas: Arc::new(schemas),
            clock: Clock::starting_at(config.start),
            identifiers: Identifiers::new(config.seed),
            pod_streams: RwLock::default(),
            virtual_resources: RwLock::default(),
            connectors: RwLock::default(),
            routes: Mutex::default(),
            stopping: watch::Sender::new(false),
            flow_control: flow_control::FlowControl::new(config.max_in_flight),
            metrics: metrics::Metrics::default(),
            hubs: fan_out::Hubs::default(),
            further_metrics: Mutex::default(),
            config,
        };
        ApiServer { inner: Arc::new(inner) }
    }

    /// The service. Every request passes authentication, then authorization, then the handler.
    pub fn router(&self) -> Router {
        let routes = self.inner.routes.lock().clone();
        let routes = routes.route("/metrics", axum::routing::get(metrics::serve));
        let router = routes.method_not_allowed_fallback(handler::refuse_method).fallback(handler::handle);
        middleware::wrap(self.clone(), router)
    }

    /// The service for an in-process client that is `user`, without credentials; `kube::Client::new` takes it.
    pub fn router_as(&self, user: UserInfo) -> Router {
        self.router().layer(axum::Extension(user)).layer(axum::Extension(middleware::InProcess))
    }

    /// Adds routes beside the generic handler, behind the same authentication and authorization. Their handlers find
    /// [`UserInfo`] and [`request::RequestInfo`] among the request's extensions. Seen by routers made afterwards.
    pub fn add_routes(&self, routes: Router) {
        let mut all = self.inner.routes.lock();
        *all = std::mem::take(&mut *all).merge(routes);
    }

    /// The store beneath.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// Every kind served now.
    pub fn registry(&self) -> Arc<Registry> {
        self.inner.registry.load_full()
    }

    /// Adds or replaces a kind at run time (a CustomResourceDefinition), with the schema it brings.
    pub fn add_kind(&self, kind: ResourceKind) {
        // Before the row: no request may find the kind without its type.
        self.inner.schemas.register_kind(&kind);
        self.inner.registry.rcu(|registry| {
            let mut registry = Registry::clone(registry);
            registry.insert(kind.clone());
            registry
        });
    }

    /// The types of all kinds.
    pub fn schemas(&self) -> &Arc<Schemas> {
        &self.inner.schemas
    }

    /// Connects the nodes, for logs, exec, attach, port-forward and the proxies.
    pub fn set_pod_streams(&self, streams: Arc<dyn PodStreams>) {
        *self.inner.pod_streams.write() = Some(streams);
    }

    /// The nodes, once they are connected.
    pub fn pod_streams(&self) -> Option<Arc<dyn PodStreams>> {
        self.inner.pod_streams.read().clone()
    }

    /// Answers a resource that is computed, not stored: `resource` may be `tokenreviews` or `serviceaccounts/token`.
    pub fn set_virtual_resource(&self, group: &str, version: &str, resource: &str, answer: Arc<dyn VirtualResource>) {
        self.inner.virtual_resources.write().insert(extension::key(group, version, resource), answer);
    }

    /// Hands the whole HTTP request of a resource over, such as `pods/exec`.
    pub fn set_connector(&self, group: &str, version: &str, resource: &str, connector: Arc<dyn Connector>) {
        self.inner.connectors.write().insert(extension::key(group, version, resource), connector);
    }

    /// Adds to what `/metrics` says: `write` is asked each time, and writes whole families in Prometheus' text format.
    pub fn add_metrics(&self, write: impl Fn(&mut String) + Send + Sync + 'static) {
        self.inner.further_metrics.lock().push(Arc::new(write));
    }

    /// Whether `user` may do that too: for what touches more than its own path says.
    ///
    /// # Errors
    /// 403 in the usual words.
    pub async fn authorize(&self, user: &UserInfo, request: &request::RequestInfo) -> Result<(), status::Status> {
        match self.inner.config.authorizer.authorize(user, request).await {
            authz::Decision::Allow(_) => Ok(()),
            authz::Decision::Deny(reason) => {
                let why = authz::refusal(user, request, &reason);
                Err(middleware::forbidden(request, &why))
            }
        }
    }

    /// Makes running watches that asked for bookmarks send one as soon as they have caught up.
    pub fn request_progress(&self) {
        self.inner.store.request_progress();
    }

    /// The newest revision of the store.
    pub fn revision(&self) -> Revision {
        self.inner.store.revision()
    }

    /// The time as objects and certificates see it.
    pub fn now(&self) -> jiff::Timestamp {
        self.inner.clock.now()
    }

    /// Ends all watches, in good order, so that a listener can finish its connections.
    pub fn stop(&self) {
        self.inner.stopping.send_replace(true);
    }

    /// Becomes true when [`ApiServer::stop`] is called; for streams that have to end then.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.inner.stopping.subscribe()
    }
}
