//! Services and the pods behind them, for the two controllers that write endpoints: one index, kept up to date with each change, and
//! the queues told of the Services that it concerns.
//!
//! A change is in the [`Index`] before the Services it concerns are queued. So a reconcile that asks for their pods finds at least what
//! it was queued for, and looks at no other pod.

mod index;
#[cfg(test)]
mod tests;

use crate::queue::Queue;
use crate::session::Key;
use crate::{Shared, endpoint_slice, endpoints};
use index::Index;
pub(crate) use index::selector;
use informer::{Change, Informer, Update};
use k8s_openapi::api::core::v1::{Pod, Service};
use parking_lot::RwLock;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Who selects whom. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Selection(Arc<RwLock<Index>>);

impl Selection {
    /// The pods that the Service selects, ordered by name.
    pub(crate) fn pods_of(&self, service: &Service) -> Vec<Arc<Pod>> {
        self.0.read().pods_of(service)
    }

    /// Takes in a change of a Service: it is concerned itself.
    fn service(&self, update: &Update<Service>) -> Vec<Key> {
        let mut index = self.0.write();
        match update {
            Update::Applied(service) => index.apply_service(service.clone()),
            Update::Deleted(service) => index.delete_service(service),
        }
        vec![Key::of(&update.object().metadata)]
    }

    /// Takes in a change of a pod: the Services that select it now or did before.
    fn pod(&self, update: &Update<Pod>) -> Vec<Key> {
        let mut index = self.0.write();
        let concerned = match update {
            Update::Applied(pod) => index.apply_pod(pod.clone()),
            Update::Deleted(pod) => index.delete_pod(pod),
        };
        concerned.iter().map(|service| Key::of(&service.metadata)).collect()
    }
}

/// Starts the controllers for EndpointSlices and for Endpoints, and what tells both.
pub(crate) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    let selection = Selection::default();
    let queues = [endpoint_slice::start(shared, &selection, tasks), endpoints::start(shared, &selection, tasks)];
    let (services, pods) = (shared.informers.of::<Service>(), shared.informers.of::<Pod>());
    let known = selection.clone();
    tasks.spawn(tell(services, queues.clone(), move |update| known.service(update)));
    tasks.spawn(tell(pods, queues, move |update| selection.pod(update)));
}

/// Queues for all what `concerned` finds in each change.
async fn tell<K: informer::Resource>(
    informer: Informer<K>,
    queues: [Queue<Key>; 2],
    concerned: impl Fn(&Update<K>) -> Vec<Key>,
) {
    let mut changes = informer.subscribe();
    while let Some(Change { update, working }) = changes.next().await {
        for key in concerned(&update) {
            for queue in &queues {
                queue.add(key.clone(), Some(working.clone()));
            }
        }
    }
}
