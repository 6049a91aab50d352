//! The pods that ask, by address: whose search list a name was made of, and whose queries meet faults.
//!
//! A pod is put here before its first packet and taken out after its last ([`Dns::attach`](crate::Dns::attach)), so that an address
//! never stands for somebody who had it before. What its annotations say follows the informer.

use crate::fault::{FAULTS, Faults};
use crate::search::SearchPath;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing::warn;

/// A pod that may ask.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// `NAMESPACE/NAME`.
    pub(crate) pod: Arc<str>,
    uid: String,
    pub(crate) search: SearchPath,
    pub(crate) faults: Option<Arc<Faults>>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    by_address: RwLock<HashMap<IpAddr, Arc<Client>>>,
    /// Addresses whose queries meet faults; mostly none.
    faulty: AtomicUsize,
}

impl Clients {
    /// A pod comes; `newest` is what is known of it, asked while nobody else changes anything here.
    pub(crate) fn attach(&self, addresses: &[IpAddr], resolv_conf: &str, newest: impl FnOnce() -> Arc<Pod>) {
        let mut clients = self.by_address.write();
        let pod = newest();
        let client = Client {
            pod: path(&pod).into(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            search: SearchPath::of(resolv_conf),
            faults: faults(&pod),
        };
        let client = Arc::new(client);
        clients.extend(addresses.iter().map(|address| (*address, client.clone())));
        self.count(&clients);
    }

    /// Whoever has these addresses goes.
    pub(crate) fn detach(&self, addresses: &[IpAddr]) {
        let mut clients = self.by_address.write();
        addresses.iter().for_each(|address| drop(clients.remove(address)));
        self.count(&clients);
    }

    /// A pod, which may be here, has changed. `addresses`: those it is known to have.
    pub(crate) fn update(&self, pod: &Pod, addresses: &[IpAddr]) {
        // Next to all updates are about other things than annotations.
        let wanted = pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(FAULTS));
        if !wanted && self.faulty.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut clients = self.by_address.write();
        for address in addresses {
            let Some(client) = clients.get_mut(address) else { continue };
            if Some(&client.uid) == pod.metadata.uid.as_ref() {
                *client = Arc::new(Client { faults: faults(pod), ..Client::clone(client) });
            }
        }
        self.count(&clients);
    }

    fn count(&self, clients: &HashMap<IpAddr, Arc<Client>>) {
        let faulty = clients.values().filter(|client| client.faults.is_some()).count();
        self.faulty.store(faulty, Ordering::Release);
    }

    /// Who has that address.
    pub(crate) fn at(&self, address: IpAddr) -> Option<Arc<Client>> {
        self.by_address.read().get(&address).cloned()
    }

    /// Whether queries from there meet faults.
    pub(crate) fn meets_faults(&self, address: IpAddr) -> bool {
        self.faulty.load(Ordering::Acquire) > 0 && self.at(address).is_some_and(|client| client.faults.is_some())
    }
}

fn path(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    format!("{}/{}", metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

fn faults(pod: &Pod) -> Option<Arc<Faults>> {
    let text = pod.metadata.annotations.as_ref()?.get(FAULTS)?;
    // Admission refuses what cannot be read; this is from before.
    let read = Faults::parse(text).inspect_err(|error| warn!(pod = path(pod), %error, "{FAULTS} is left aside"));
    read.ok().map(Arc::new)
}
