//! Who had an address of the pod network, and when: names for what the flow log tells of later.
//!
//! A pod moves in before its first packet and out after its last ([`PolicyGate`](crate::nodes::PolicyGate)); its address may be
//! given to another then. What is told of a packet names the pod that had the address at the packet's time. Those who have moved
//! out are remembered up to a number.

use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::time::Instant;

/// More pods that have gone are not remembered.
const REMEMBERED: usize = 1024;

/// A pod as it was when it moved in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resident {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Kind and name of its controller; a ReplicaSet's is told as it is.
    pub(crate) owner: Option<(String, String)>,
    pub(crate) node: String,
}

struct Stay {
    who: Arc<Resident>,
    until: Option<Instant>,
}

#[derive(Default)]
struct Book {
    /// In the order of moving in; only the last may still be there.
    stays: HashMap<IpAddr, VecDeque<Stay>>,
    /// Addresses in the order in which somebody moved out.
    gone: VecDeque<IpAddr>,
}

/// The book of all addresses.
#[derive(Default)]
pub(crate) struct Residents(RwLock<Book>);

impl Residents {
    /// A pod moves in.
    pub(crate) fn arrive(&self, pod: &Pod, addresses: &[IpAddr]) {
        let metadata = &pod.metadata;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let mut owners = metadata.owner_references.iter().flatten();
        let owner = owners.find(|owner| owner.controller == Some(true));
        let who = Arc::new(Resident {
            uid: text(&metadata.uid),
            namespace: text(&metadata.namespace),
            name: text(&metadata.name),
            labels: metadata.labels.clone().unwrap_or_default(),
            owner: owner.map(|owner| (owner.kind.clone(), owner.name.clone())),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        });
        let mut book = self.0.write();
        for address in addresses {
            book.stays.entry(*address).or_default().push_back(Stay { who: who.clone(), until: None });
        }
    }

    /// Whoever is there moves out.
    pub(crate) fn depart(&self, addresses: &[IpAddr], now: Instant) {
        let mut book = self.0.write();
        for address in addresses {
            let last = book.stays.get_mut(address).and_then(VecDeque::back_mut).filter(|stay| stay.until.is_none());
            if let Some(stay) = last {
                stay.until = Some(now);
                book.gone.push_back(*address);
            }
        }
        while book.gone.len() > REMEMBERED {
            let Some(address) = book.gone.pop_front() else { break };
            let left = book.stays.get_mut(&address).map(|stays| {
                stays.pop_front();
                stays.len()
            });
            if left == Some(0) {
                book.stays.remove(&address);
            }
        }
    }

    /// Who had `address` at that time.
    pub(crate) fn at(&self, address: IpAddr, time: Instant) -> Option<Arc<Resident>> {
        let book = self.0.read();
        let mut stays = book.stays.get(&address)?.iter();
        // A port is on the network a moment before it is in the book, so that the first who had not left is meant.
        stays.find(|stay| stay.until.is_none_or(|until| until >= time)).map(|stay| stay.who.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn pod(name: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        pod
    }

    #[test]
    fn an_address_is_named_after_who_had_it_at_the_time() {
        let (residents, start, ip) = (Residents::default(), Instant::now(), IpAddr::from([10, 244, 1, 2]));
        let after = |seconds| start + Duration::from_secs(seconds);
        residents.arrive(&pod("first"), &[ip]);
        residents.depart(&[ip], after(10));
        residents.arrive(&pod("second"), &[ip]);
        let name = |seconds| residents.at(ip, after(seconds)).map(|who| who.name.clone());
        assert_eq!(name(5).as_deref(), Some("first"));
        assert_eq!(name(11).as_deref(), Some("second"));
        residents.depart(&[ip], after(20));
        residents.depart(&[ip], after(30));
        assert_eq!((name(15).as_deref(), name(21)), (Some("second"), None));
    }

    #[test]
    fn those_who_have_gone_are_forgotten_the_oldest_first() {
        let (residents, now) = (Residents::default(), Instant::now());
        let ip = |number: usize| IpAddr::from((number as u32).to_be_bytes());
        for number in 0..=REMEMBERED {
            residents.arrive(&pod("passing"), &[ip(number)]);
            residents.depart(&[ip(number)], now);
        }
        assert_eq!(residents.at(ip(0), now), None);
        assert!(residents.at(ip(1), now).is_some());
        assert_eq!(residents.0.read().stays.len(), REMEMBERED);
    }
}
