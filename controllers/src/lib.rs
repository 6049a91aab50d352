//! The controller manager and the scheduler: from what is wanted to the objects which bring it about.
//!
//! Everything here is a client of the API, over `kube` and the shared informers. A controller is a queue of keys
//! (`queue`), a reconcile per key which first decides (a pure function of what the informers show) and then writes
//! through a `session::Session`. What pods do on a node is the kubelet's; what packets do is the proxy's.

mod certificates;
mod clock;
mod cluster_role_aggregation;
mod cron_job;
mod daemon_set;
mod deployment;
mod discovery;
mod disruption_budget;
mod endpoint_slice;
mod endpoints;
mod event;
mod garbage_collector;
mod in_use_protection;
mod job;
mod load_balancer;
mod meta;
mod namespace_deletion;
mod namespaces;
mod node_lifecycle;
mod pod_collection;
mod pods;
mod queue;
mod random;
mod replica_set;
mod scheduler;
mod secret_tokens;
mod selection;
mod service_cidr;
mod session;
mod stateful_set;
mod volume_binding;

pub use certificates::{CertificateSigner, SigningRequest};
pub use clock::Clock;
pub use secret_tokens::{SecretAccount, SecretTokens};

use informer::{Change, Informer, Informers, Update};
use queue::{Next, Queue};
use random::Random;
use session::{Key, Session};
use std::future::Future;
use std::sync::Arc;
use tokio::task::JoinSet;

/// What the controllers must be told.
#[derive(Clone)]
pub struct Config {
    /// The source of all chance: name suffixes, ties between nodes.
    pub seed: u64,
    /// The cluster's wall clock.
    pub clock: Clock,
    /// The certificate authority that pods find in `kube-root-ca.crt`, as PEM.
    pub ca_pem: String,
    /// Addresses for Services of type LoadBalancer, as `address/prefix`; without any they stay pending.
    pub load_balancer_pool: Vec<String>,
    /// The client of each component, by its name; without, all work with the one they were started with.
    pub clients: Option<Clients>,
    /// Signs approved CertificateSigningRequests; without, they wait for another signer.
    pub certificates: Option<Arc<dyn CertificateSigner>>,
    /// Signs the tokens of Secrets of type `kubernetes.io/service-account-token`; without, those stay empty.
    pub secret_tokens: Option<SecretTokens>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// Gives every component a client of its own, which may do only what that component does.
#[derive(Clone)]
pub struct Clients(pub Arc<dyn Fn(&str) -> kube::Client + Send + Sync>);

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clients(..)")
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            seed: 0,
            clock: Clock::starting_now(),
            ca_pem: String::new(),
            load_balancer_pool: vec![],
            clients: None,
            certificates: None,
            secret_tokens: None,
        }
    }
}

/// The running controllers. Dropping this ends them.
#[derive(Debug)]
pub struct Controllers {
    tasks: JoinSet<()>,
}

impl Controllers {
    /// Ends all controllers and waits until they have ended.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Starts the controller manager and the scheduler. They work as soon as the API answers, and until the returned owner
/// is stopped or dropped.
pub fn start(client: kube::Client, informers: Informers, config: Config) -> Controllers {
    informers.trim(namespaces::trim);
    let (events, write_events) = event::Recorder::new(client.clone(), config.clock, informers.activity().clone());
    let clients = config.clients.clone();
    let shared = Shared { client, clients, informers, clock: config.clock, events, seed: config.seed };
    let mut tasks = JoinSet::new();
    tasks.spawn(write_events);
    namespaces::start(&shared, &config, &mut tasks);
    certificates::start(&shared, &config, &mut tasks);
    secret_tokens::start(&shared, &config, &mut tasks);
    scheduler::start(&shared, &mut tasks);
    deployment::start(&shared, &mut tasks);
    replica_set::start(&shared, &mut tasks);
    selection::start(&shared, &mut tasks);
    stateful_set::start(&shared, &mut tasks);
    daemon_set::start(&shared, &mut tasks);
    job::start(&shared, &mut tasks);
    cron_job::start(&shared, &mut tasks);
    disruption_budget::start(&shared, &mut tasks);
    cluster_role_aggregation::start(&shared, &mut tasks);
    volume_binding::start(&shared, &mut tasks);
    in_use_protection::start(&shared, &mut tasks);
    pod_collection::start(&shared, &mut tasks);
    node_lifecycle::start(&shared, &mut tasks);
    load_balancer::start(&shared, &config, &mut tasks);
    service_cidr::start(&shared, &mut tasks);
    garbage_collector::start(&shared, &mut tasks);
    namespace_deletion::start(&shared, &mut tasks);
    Controllers { tasks }
}

/// What every controller works with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shared {
    client: kube::Client,
    clients: Option<Clients>,
    informers: Informers,
    clock: Clock,
    events: event::Recorder,
    seed: u64,
}

impl Shared {
    /// The same for the component `name`, with its own client.
    fn as_component(&self, name: &str) -> Shared {
        let client = self.clients.as_ref().map_or_else(|| self.client.clone(), |Clients(client)| client(name));
        Shared { client, ..self.clone() }
    }

    /// The generator of the controller `name`.
    fn random(&self, name: &str) -> Random {
        Random::of(self.seed, name)
    }
}

/// One controller: how it reconciles a key.
pub(crate) trait Controller: Send + Sync + 'static {
    /// Its name in the logs and, as kube-controller-manager's, in the events.
    const NAME: &'static str;
    /// How many keys it works on at the same time.
    const WORKERS: usize = 16;

    /// Brings the object behind `key` closer to what is wanted.
    fn reconcile(&self, session: &Session, key: &Key) -> impl Future<Output = session::Result<Next>> + Send;
}

/// Works off `queue` with `controller`. A key is done when the informers show what its reconcile has written.
async fn run<C: Controller>(shared: Shared, queue: Queue<Key>, controller: C) {
    let shared = shared.as_component(C::NAME);
    let controller = Arc::new(controller);
    let reconcile = |key: Key| {
        let (controller, session) = (controller.clone(), Session::new(&shared, C::NAME));
        async move {
            let outcome = controller.reconcile(&session, &key).await;
            session.echoed().await;
            outcome
        }
    };
    queue.work(C::NAME, C::WORKERS, reconcile).await;
}

/// Queues the keys which `keys` finds in every change that `informer` tells.
async fn follow<K: informer::Resource>(
    informer: Informer<K>,
    queue: Queue<Key>,
    mut keys: impl FnMut(&Update<K>) -> Vec<Key>,
) {
    let mut changes = informer.subscribe();
    while let Some(Change { update, working }) = changes.next().await {
        for key in keys(&update) {
            queue.add(key, Some(working.clone()));
        }
    }
}

/// Queues the changed objects themselves.
async fn follow_own<K: informer::Resource>(informer: Informer<K>, queue: Queue<Key>) {
    follow(informer, queue, |update| vec![Key::of(update.object().metadata())]).await;
}
