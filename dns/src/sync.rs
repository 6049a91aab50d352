//! The owner of the zone: follows Services, EndpointSlices, Namespaces and Pods, and swaps.
//!
//! Level-triggered: a change only says whose records are made anew, from the newest objects. A burst of changes is taken
//! as one swap.

use crate::config::Config;
use crate::front::Asker;
use crate::machine::{self, MachineSockets};
use crate::query_log::Queries;
use crate::resolver::Resolver;
use crate::serve::serve;
use crate::service::{Key, ServiceRecords};
use crate::wire::Transport;
use crate::zone::Zone;
use hickory_proto::op::Message;
use informer::{Change, Changes, Informer, Informers, Update, Working};
use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use netstack::Host;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::debug;

/// Which Service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The running DNS server. Dropping it ends its task; what is being served keeps the last zone.
#[derive(Debug)]
pub struct Dns {
    resolver: Arc<Resolver>,
    pods: Informer<Pod>,
    complete: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
        self.resolver.log.close();
    }
}

/// The informers that the zone follows.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What has a name.
    pub services: Informer<Service>,
    /// What stands behind it.
    pub endpoint_slices: Informer<EndpointSlice>,
    /// In which names exist.
    pub namespaces: Informer<Namespace>,
    /// For pod records.
    pub pods: Informer<Pod>,
}

/// Starts to follow the cluster.
///
/// # Panics
/// `config.zone` is no domain name; outside a tokio runtime.
pub fn start(informers: &Informers, config: Config) -> Dns {
    let sources = Sources {
        services: informers.of(),
        endpoint_slices: informers.of(),
        namespaces: informers.of(),
        pods: informers.of(),
    };
    start_with(sources, config)
}

/// Starts to follow these informers, whoever feeds them.
///
/// # Panics
/// As [`start`].
pub fn start_with(sources: Sources, config: Config) -> Dns {
    let resolver = Arc::new(Resolver::new(&config));
    let (complete, receiver) = watch::channel(false);
    let sync = ZoneSync { resolver: resolver.clone(), complete, objects: Objects::default(), next: Next::default() };
    let pods = sources.pods.clone();
    Dns { resolver, pods, complete: receiver, task: tokio::spawn(sync.run(sources)) }
}

impl Dns {
    /// Serves UDP and TCP port 53 of a host, until the future is dropped.
    ///
    /// # Errors
    /// The port is taken, or the host has been shut down.
    pub async fn serve(&self, host: Host) -> std::io::Result<()> {
        serve(self.resolver.clone(), host).await
    }

    /// Serves sockets of the operating system, until the future is dropped.
    ///
    /// # Errors
    /// The operating system's, when it takes a socket away.
    pub async fn serve_machine(&self, sockets: MachineSockets) -> std::io::Result<()> {
        machine::serve(self.resolver.clone(), sockets).await
    }

    /// Answers one message, for other front ends. `from`: who asks; `None` is a tool, whose questions meet no faults and are not
    /// written down. The result is `None` if it is no request, or is lost by a fault: say nothing.
    pub async fn answer(&self, request: &[u8], transport: Transport, from: Option<IpAddr>) -> Option<Vec<u8>> {
        let asker = Asker { from, transport, is_inside: false };
        let mut reply = Vec::new();
        if self.resolver.answer_at_once(request, asker, &mut reply) {
            return Some(reply);
        }
        Some(self.resolver.answer(request, asker).await?.encode())
    }

    /// The reply to one message of a tool, before it is cut to what its transport takes.
    pub(crate) async fn reply(&self, request: &[u8], transport: Transport) -> Option<Message> {
        Some(self.resolver.answer(request, Asker { from: None, transport, is_inside: false }).await?.message)
    }

    /// A pod is going to ask from these addresses, by this `/etc/resolv.conf`. To be told before its first packet.
    pub fn attach(&self, pod: &Pod, addresses: &[IpAddr], resolv_conf: &str) {
        self.resolver.clients.attach(addresses, resolv_conf, || {
            let metadata = &pod.metadata;
            let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
            let newest = self.pods.get(namespace.unwrap_or_default(), name.unwrap_or_default());
            newest.filter(|newest| newest.metadata.uid == metadata.uid).unwrap_or_else(|| Arc::new(pod.clone()))
        });
    }

    /// The pod with these addresses has sent its last packet.
    pub fn detach(&self, addresses: &[IpAddr]) {
        self.resolver.clients.detach(addresses);
    }

    /// The query log: from what is kept on, or only what is asked from now on. It is on as long as it is read.
    pub fn queries(&self, from_oldest: bool) -> Queries {
        self.resolver.log.read(from_oldest)
    }

    /// Whether the query log is kept though nobody reads it.
    pub fn keeps_queries(&self) -> bool {
        self.resolver.keeps_queries
    }

    /// What has been asked and answered so far, in Prometheus' text format.
    pub fn metrics(&self) -> String {
        self.resolver.counters.text()
    }

    /// Waits until the whole cluster has been listed. Until then names in the zone are answered with SERVFAIL.
    pub async fn synced(&self) {
        let _ = self.complete.clone().wait_for(|complete| *complete).await;
    }
}

struct ZoneSync {
    resolver: Arc<Resolver>,
    complete: watch::Sender<bool>,
    objects: Objects,
    next: Next,
}

/// The newest states of Services and their slices.
#[derive(Default)]
struct Objects {
    services: BTreeMap<Key, Arc<Service>>,
    /// By Service, then by name.
    slices: BTreeMap<Key, BTreeMap<String, Arc<EndpointSlice>>>,
    /// The Service that each slice was last seen with.
    owners: BTreeMap<Key, Key>,
}

/// What the next swap has to make anew, and the work in hand for it.
#[derive(Default)]
struct Next {
    services: BTreeSet<Key>,
    namespaces: BTreeMap<String, bool>,
    pods: BTreeMap<Key, Vec<IpAddr>>,
    working: Vec<Working>,
}

impl ZoneSync {
    async fn run(mut self, sources: Sources) {
        let mut services = sources.services.subscribe();
        let mut slices = sources.endpoint_slices.subscribe();
        let mut namespaces = sources.namespaces.subscribe();
        let mut pods = sources.pods.subscribe();
        let listed = async {
            tokio::join!(
                sources.services.synced(),
                sources.endpoint_slices.synced(),
                sources.namespaces.synced(),
                sources.pods.synced(),
            )
        };
        tokio::pin!(listed);
        let mut complete = false;
        loop {
            tokio::select! {
                Some(change) = services.next() => self.service(change),
                Some(change) = slices.next() => self.slice(change),
                Some(change) = namespaces.next() => self.namespace(change),
                Some(change) = pods.next() => self.pod(change),
                _ = &mut listed, if !complete => complete = true,
                else => return,
            }
            // Everything that a list told is in the channels before its informer says that it is synced.
            drain(&mut services, |change| self.service(change));
            drain(&mut slices, |change| self.slice(change));
            drain(&mut namespaces, |change| self.namespace(change));
            drain(&mut pods, |change| self.pod(change));
            self.swap(complete);
        }
    }

    fn service(&mut self, change: Change<Service>) {
        let key = key_of(&**change.update.object());
        match change.update {
            Update::Applied(service) => drop(self.objects.services.insert(key.clone(), service)),
            Update::Deleted(_) => drop(self.objects.services.remove(&key)),
        }
        self.next.services.insert(key);
        self.next.working.push(change.working);
    }

    fn slice(&mut self, change: Change<EndpointSlice>) {
        let key = key_of(&**change.update.object());
        if let Some(owner) = self.objects.owners.remove(&key) {
            if let Some(slices) = self.objects.slices.get_mut(&owner) {
                slices.remove(&key.name);
                if slices.is_empty() {
                    self.objects.slices.remove(&owner);
                }
            }
            self.next.services.insert(owner);
        }
        if let Update::Applied(slice) = change.update
            && let Some(service) = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME))
        {
            let owner = Key::new(&key.namespace, service);
            self.objects.owners.insert(key.clone(), owner.clone());
            self.objects.slices.entry(owner.clone()).or_default().insert(key.name, slice);
            self.next.services.insert(owner);
        }
        self.next.working.push(change.working);
    }

    fn namespace(&mut self, change: Change<Namespace>) {
        let name = key_of(&**change.update.object()).name;
        self.next.namespaces.insert(name, matches!(change.update, Update::Applied(_)));
        self.next.working.push(change.working);
    }

    fn pod(&mut self, change: Change<Pod>) {
        let key = key_of(&**change.update.object());
        let addresses = match &change.update {
            Update::Applied(pod) => {
                let addresses = pod_addresses(pod);
                self.resolver.clients.update(pod, &addresses);
                addresses
            }
            Update::Deleted(_) => Vec::new(),
        };
        self.next.pods.insert(key, addresses);
        self.next.working.push(change.working);
    }

    fn swap(&mut self, complete: bool) {
        // Dropped at the end: the work is done when the zone is in force.
        let next = std::mem::take(&mut self.next);
        let mut zone = Zone::clone(&self.resolver.zone.load());
        let mut changed = zone.complete != complete;
        zone.complete = complete;
        for (namespace, exists) in &next.namespaces {
            changed |= zone.set_namespace(namespace, *exists);
        }
        for key in &next.services {
            changed |= zone.set_service(key, self.objects.records(key));
        }
        for (key, addresses) in next.pods {
            changed |= zone.set_pod(&key, addresses);
        }
        if changed {
            zone.serial = zone.serial.wrapping_add(1);
            debug!(serial = zone.serial, services = next.services.len(), "zone updated");
            self.resolver.zone.store(Arc::new(zone));
        }
        if complete {
            self.complete.send_if_modified(|told| !std::mem::replace(told, true));
        }
        drop(next.working);
    }
}

impl Objects {
    fn records(&self, key: &Key) -> Option<ServiceRecords> {
        let slices = self.slices.get(key).into_iter().flat_map(BTreeMap::values);
        ServiceRecords::of(self.services.get(key)?, slices.map(|slice| &**slice))
    }
}

fn drain<K>(changes: &mut Changes<K>, mut take: impl FnMut(Change<K>)) {
    while let Some(change) = changes.try_next() {
        take(change);
    }
}

fn key_of(object: &impl Metadata<Ty = ObjectMeta>) -> Key {
    let metadata = object.metadata();
    Key::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// The addresses under which a pod has a name: none once it has ended or is being deleted, as in CoreDNS.
fn pod_addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if ended || pod.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let several = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut addresses: Vec<IpAddr> = several.chain(status.pod_ip.as_deref()).filter_map(|ip| ip.parse().ok()).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}
