//! ServiceCIDRs: ready as soon as they are there, and, when deleted, kept until no Service has an address of theirs.
//!
//! Addresses are given out by the API server, in the transaction that writes the Service: never from a ServiceCIDR that is being
//! deleted. So what is listed after the deletion has been seen is all there will ever be, and no time of grace is needed.
//!
//! Follows KEP-1880 and kube-controller-manager's service-cidrs-controller, whose texts and reasons these are.

use crate::queue::{Next, Queue};
use crate::session::{Key, Result, Session};
use crate::{Controller, Shared, follow, run};
use informer::{Informer, Update};
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::task::JoinSet;

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// Addresses that the API server has given to Services; others are no affair of a ServiceCIDR.
const OURS: &str = "ipaddress.kubernetes.io/managed-by=ipallocator.k8s.io";
const READY: &str = "Kubernetes Service CIDR is ready";
const IN_USE: &str =
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";

pub(crate) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    let queue = Queue::new();
    let (ranges, addresses) = (shared.informers.of::<ServiceCIDR>(), shared.informers.of::<IPAddress>());
    tasks.spawn(follow(ranges.clone(), queue.clone(), {
        let ranges = ranges.clone();
        // A range that comes may hold what keeps another from going.
        move |update| [vec![Key::of(&update.object().metadata)], leaving(&ranges)].concat()
    }));
    tasks.spawn(follow(addresses, queue.clone(), {
        let ranges = ranges.clone();
        move |update| match update {
            Update::Applied(_) => vec![],
            Update::Deleted(_) => leaving(&ranges),
        }
    }));
    tasks.spawn(run(shared.clone(), queue, ServiceCidrController { ranges }));
}

/// The ranges that are being deleted.
fn leaving(ranges: &Informer<ServiceCIDR>) -> Vec<Key> {
    let all = ranges.list().into_iter().filter(|range| range.metadata.deletion_timestamp.is_some());
    all.map(|range| Key::of(&range.metadata)).collect()
}

struct ServiceCidrController {
    ranges: Informer<ServiceCIDR>,
}

impl Controller for ServiceCidrController {
    const NAME: &'static str = "service-cidrs-controller";
    const WORKERS: usize = 1;

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(range) = self.ranges.get("", &key.name) else { return Ok(Next::OnChange) };
        if range.metadata.deletion_timestamp.is_none() {
            let range = if has_finalizer(&range) { range } else { Arc::new(hold(session, &range).await?) };
            return say(session, &range, "True", "", READY).await;
        }
        if !has_finalizer(&range) {
            return Ok(Next::OnChange);
        }
        let others: Vec<IpNet> = self
            .ranges
            .list()
            .iter()
            .filter(|other| other.metadata.name != range.metadata.name)
            .flat_map(|other| networks(other))
            .collect();
        let own = networks(&range);
        if !is_covered(&own, &others) {
            // Not from the informer, which may lag behind what was given out before the deletion.
            let api: Api<IPAddress> = Api::all(session.shared.client.clone());
            let given = api.list(&ListParams::default().labels(OURS)).await?.items;
            let given = given.iter().filter_map(|address| address.metadata.name.as_deref()?.parse().ok());
            if depends(given, &own, &others) {
                return say(session, &range, "False", "Terminating", IN_USE).await;
            }
        }
        let kept: Vec<&String> = finalizers(&range).filter(|name| *name != FINALIZER).collect();
        let patch = json!({"metadata": {
            "uid": range.metadata.uid, "resourceVersion": range.metadata.resource_version, "finalizers": kept}});
        match session.merge::<ServiceCIDR>(&range.metadata, patch).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Next::OnChange),
        }
    }
}

fn finalizers(range: &ServiceCIDR) -> impl Iterator<Item = &String> {
    range.metadata.finalizers.iter().flatten()
}

fn has_finalizer(range: &ServiceCIDR) -> bool {
    finalizers(range).any(|name| name == FINALIZER)
}

fn networks(range: &ServiceCIDR) -> Vec<IpNet> {
    range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten()).filter_map(|cidr| cidr.parse().ok()).collect()
}

/// Whether other ranges hold all of these networks.
fn is_covered(own: &[IpNet], others: &[IpNet]) -> bool {
    own.iter().all(|network| others.iter().any(|other| other.contains(network)))
}

/// Whether an address would be without a range if these networks went.
fn depends(mut given: impl Iterator<Item = IpAddr>, own: &[IpNet], others: &[IpNet]) -> bool {
    let within = |networks: &[IpNet], address: &IpAddr| networks.iter().any(|network| network.contains(address));
    given.any(|address| within(own, &address) && !within(others, &address))
}

async fn hold(session: &Session, range: &ServiceCIDR) -> Result<ServiceCIDR> {
    let mut finalizers: Vec<&str> = finalizers(range).map(String::as_str).collect();
    finalizers.push(FINALIZER);
    let patch = json!({"metadata": {"resourceVersion": range.metadata.resource_version, "finalizers": finalizers}});
    session.merge(&range.metadata, patch).await
}

/// Writes the condition `Ready`, unless it says so already.
async fn say(session: &Session, range: &ServiceCIDR, status: &str, reason: &str, message: &str) -> Result<Next> {
    let known = range.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let same = |condition: &Condition| {
        condition.type_ == "Ready"
            && condition.status == status
            && condition.reason == reason
            && condition.message == message
    };
    if known.clone().any(same) {
        return Ok(Next::OnChange);
    }
    let ready = Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(session.shared.clock.now()),
        observed_generation: None,
    };
    let conditions: Vec<Condition> =
        known.filter(|condition| condition.type_ != "Ready").cloned().chain([ready]).collect();
    let patch =
        json!({"metadata": {"resourceVersion": range.metadata.resource_version}, "status": {"conditions": conditions}});
    match session.merge_status::<ServiceCIDR>(&range.metadata, patch).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Next::OnChange),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a network")).collect()
    }

    #[test]
    fn rule_3_8_a_service_cidr_goes_when_others_hold_it_or_nobody_has_an_address_of_it() {
        let own = nets(&["10.97.0.0/24", "fd00:97::/112"]);
        assert!(is_covered(&own, &nets(&["10.96.0.0/12", "fd00:97::/64"])));
        assert!(!is_covered(&own, &nets(&["10.96.0.0/12"])), "one family is not");
        let given = |texts: &[&str]| -> Vec<IpAddr> { texts.iter().map(|text| text.parse().expect("an IP")).collect() };
        let depends = |ips: &[&str], others: &[&str]| depends(given(ips).into_iter(), &own, &nets(others));
        assert!(!depends(&["10.96.0.1", "fd00:96::1"], &[]));
        assert!(depends(&["10.96.0.1", "10.97.0.9"], &[]));
        assert!(depends(&["fd00:97::9"], &["10.0.0.0/8"]));
        assert!(!depends(&["10.97.0.9"], &["10.97.0.8/29"]), "a smaller range holds just that address");
    }
}
