//! Tells users what of their Services is reachable on the machine, at the Services themselves.
//!
//! Every Service with a host side gets the annotation `net.coracle.dev/host-addresses`. When a port of it cannot be opened (another program
//! has it, it needs privileges), a Warning event and the condition `net.coracle.dev/HostReachable` say which and why; the
//! condition becomes true again when it can. Inside the cluster the Service works all the while. A pod's host port gets
//! the event.

use super::{Failure, HostSide, HostSides, Owner};
use informer::{Informer, Working};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kubelet::Clock;
use netstack::Protocol;
use proxy::ServiceName;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::warn;

/// Where a Service is reached on the machine.
const ADDRESSES: &str = "net.coracle.dev/host-addresses";
/// Whether all of a Service's host side is reachable; there once something was not.
const REACHABLE: &str = "net.coracle.dev/HostReachable";
/// The field manager and the source of events.
const COMPONENT: &str = "host-port-controller";
/// Addresses that the annotation names.
const NAMED: usize = 8;
/// What could not be written is tried again after this time.
const RETRY: Duration = Duration::from_secs(2);

/// Writes what [`HostPorts`](super::HostPorts) says to the Services and pods it is about.
pub(crate) struct Reporter {
    /// With the rights to write Services' status and events.
    pub(crate) client: kube::Client,
    pub(crate) services: Informer<Service>,
    pub(crate) pods: Informer<Pod>,
    pub(crate) sides: watch::Receiver<Arc<HostSides>>,
    pub(crate) clock: Clock,
}

impl Reporter {
    /// Follows the host sides and the Services until either ends.
    pub(crate) async fn run(mut self) {
        self.services.synced().await;
        let mut changes = self.services.subscribe();
        let mut known: Arc<HostSides> = Arc::default();
        let mut told: BTreeMap<ServiceName, HostSide> = BTreeMap::new();
        let mut due: BTreeSet<Owner> = BTreeSet::new();
        loop {
            let retry = !due.is_empty();
            let mut working: Vec<Working> = Vec::new();
            tokio::select! {
                changed = self.sides.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let sides = self.sides.borrow_and_update().clone();
                    let names = known.keys().chain(sides.keys());
                    due.extend(names.filter(|name| known.get(*name) != sides.get(*name)).cloned());
                    known = sides;
                }
                change = changes.next() => {
                    let Some(change) = change else { return };
                    due.insert(Owner::Service(name(&change.update.object().metadata)));
                    working.push(change.working);
                }
                () = tokio::time::sleep(RETRY), if retry => {}
            }
            while let Some(change) = changes.try_next() {
                due.insert(Owner::Service(name(&change.update.object().metadata)));
                working.push(change.working);
            }
            let nothing = HostSide::default();
            for owner in std::mem::take(&mut due) {
                let side = known.get(&owner).unwrap_or(&nothing);
                let written = match &owner {
                    Owner::Service(name) => self.service(name, side).await,
                    Owner::Pod(name) => self.pod(name, side, &mut told).await,
                };
                match written {
                    // Whoever wrote it in between: the informer will show it, and this is done again then.
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                    Err(error) => {
                        warn!(?owner, %error, "cannot say what is reachable on the machine");
                        due.insert(owner);
                    }
                    Ok(()) => {}
                }
            }
        }
    }

    async fn service(&self, name: &ServiceName, side: &HostSide) -> kube::Result<()> {
        let Some(service) = self.services.get(&name.namespace, &name.name) else { return Ok(()) };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let now = Time(self.clock.now());
        let Some(patch) = patch(&service, side, &now) else { return Ok(()) };
        let api: Api<Service> = Api::namespaced(self.client.clone(), &name.namespace);
        let params = PatchParams { field_manager: Some(COMPONENT.to_owned()), ..PatchParams::default() };
        let written = api.patch_status(&name.name, &params, &Patch::Merge(patch)).await?;
        let (before, after) = (condition(&service), condition(&written));
        let said = |condition: Option<&Condition>| condition.map(|known| (known.status.clone(), known.message.clone()));
        if said(before) == said(after) {
            return Ok(());
        }
        let Some(after) = after else { return Ok(()) };
        let (kind, reason) =
            if after.status == "False" { ("Warning", "HostPortUnavailable") } else { ("Normal", "HostPortListening") };
        self.event::<Service>(&service.metadata, kind, reason, &after.message).await
    }

    async fn pod(
        &self,
        name: &ServiceName,
        side: &HostSide,
        told: &mut BTreeMap<ServiceName, HostSide>,
    ) -> kube::Result<()> {
        let before = told.remove(name).unwrap_or_default();
        if side.failed.is_empty() {
            return Ok(());
        }
        told.insert(name.clone(), side.clone());
        match self.pods.get(&name.namespace, &name.name) {
            Some(pod) if before.failed != side.failed => {
                self.event::<Pod>(&pod.metadata, "Warning", "HostPortUnavailable", &failures(side)).await
            }
            _ => Ok(()),
        }
    }

    async fn event<K>(&self, about: &ObjectMeta, kind: &str, reason: &str, message: &str) -> kube::Result<()>
    where
        K: kube::Resource<DynamicType = ()>,
    {
        let now = self.clock.now();
        let (name, namespace) = (about.name.clone().unwrap_or_default(), about.namespace.clone().unwrap_or_default());
        let event = Event {
            metadata: ObjectMeta {
                // As client-go names them: unique enough, and sorted by time.
                name: Some(format!("{name}.{:x}", now.as_nanosecond())),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(K::api_version(&()).into_owned()),
                kind: Some(K::kind(&()).into_owned()),
                name: Some(name),
                namespace: Some(namespace.clone()),
                uid: about.uid.clone(),
                resource_version: about.resource_version.clone(),
                ..ObjectReference::default()
            },
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            type_: Some(kind.to_owned()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: None }),
            reporting_component: Some(COMPONENT.to_owned()),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        api.create(&PostParams::default(), &event).await.map(drop)
    }
}

fn name(metadata: &ObjectMeta) -> ServiceName {
    ServiceName {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

fn condition(service: &Service) -> Option<&Condition> {
    service.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == REACHABLE)
}

/// What has to change at a Service so that it says what is so; `None` if it does.
fn patch(service: &Service, side: &HostSide, now: &Time) -> Option<Value> {
    let annotations = service.metadata.annotations.as_ref();
    let known = annotations.and_then(|annotations| annotations.get(ADDRESSES));
    let addresses = addresses(side);
    let wanted = wanted_condition(condition(service), side, now);
    let same_condition = match (condition(service), &wanted) {
        (None, None) => true,
        (Some(known), Some(wanted)) => (&known.status, &known.message) == (&wanted.status, &wanted.message),
        _ => false,
    };
    if known == addresses.as_ref() && same_condition {
        return None;
    }
    let mut metadata = json!({ "resourceVersion": service.metadata.resource_version });
    if known != addresses.as_ref() {
        metadata["annotations"] = json!({ ADDRESSES: addresses });
    }
    let mut patch = json!({ "metadata": metadata });
    if !same_condition {
        let others = service.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let others = others.filter(|condition| condition.type_ != REACHABLE).cloned();
        let conditions: Vec<Condition> = others.chain(wanted).collect();
        // A merge patch takes away what is null.
        patch["status"] = json!({ "conditions": (!conditions.is_empty()).then_some(conditions) });
    }
    Some(patch)
}

/// The value of the annotation: what is open, load balancers and the first node first.
fn addresses(side: &HostSide) -> Option<String> {
    let mut open: Vec<_> = side.open.iter().collect();
    open.sort_by_key(|port| (port.at.port() >= 30_000, port.at, port.protocol));
    let named: Vec<String> = open.iter().take(NAMED).map(ToString::to_string).collect();
    (!named.is_empty()).then(|| named.join(","))
}

fn wanted_condition(known: Option<&Condition>, side: &HostSide, now: &Time) -> Option<Condition> {
    let is_bad = !side.failed.is_empty();
    if !is_bad && (known.is_none() || side.open.is_empty()) {
        return None;
    }
    let (status, reason, message) = match addresses(side) {
        _ if is_bad => ("False", "PortUnavailable", failures(side)),
        addresses => ("True", "Listening", format!("Reachable on the machine at {}", addresses.unwrap_or_default())),
    };
    let since = known.filter(|known| known.status == status).map(|known| known.last_transition_time.clone());
    Some(Condition {
        type_: REACHABLE.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since.unwrap_or_else(|| now.clone()),
        observed_generation: None,
    })
}

/// What is not open, why, and what helps.
fn failures(side: &HostSide) -> String {
    let each = side.failed.iter().map(|(port, failure)| match failure {
        Failure::NotCarried if port.protocol == Protocol::Sctp => {
            format!("{port}: SCTP is carried inside the cluster only")
        }
        Failure::NotCarried => format!("{port}: not carried"),
        Failure::Bind(io::ErrorKind::PermissionDenied, _) if port.at.port() < 1024 => format!(
            "{port}: ports below 1024 need privileges (`sysctl net.ipv4.ip_unprivileged_port_start` says from which on they do not)"
        ),
        Failure::Bind(io::ErrorKind::AddrInUse, _) => format!("{port}: another program has the port"),
        Failure::Bind(io::ErrorKind::AddrNotAvailable, _) => {
            format!("{port}: the machine has no such loopback address (macOS: `ifconfig lo0 alias {}`)", port.at.ip())
        }
        Failure::Bind(_, error) => format!("{port}: {error}"),
    });
    let each: Vec<String> = each.take(NAMED).collect();
    format!("Not reachable on the machine at {}; inside the cluster it works", each.join("; "))
}
