//! How a namespace dies: everything in it is deleted, then the namespace lets go of itself.
//!
//! Pods go first, so that nothing they rely on (policies, Services, accounts) disappears under them while they end
//! (KEP-5080, ordered namespace deletion).

use crate::discovery::{Kind, kinds};
use crate::queue::{Next, Queue};
use crate::session::{Error, Key, Result, Session};
use crate::{Controller, Shared, follow, follow_own, run};
use informer::{Informer, Update};
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, Pod};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use tokio::task::JoinSet;

const FINALIZER: &str = "kubernetes";
const REMAINING: &str = "NamespaceContentRemaining";

pub(crate) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    let queue = Queue::new();
    let namespaces = shared.informers.of::<Namespace>();
    let pods = shared.informers.of::<Pod>();
    tasks.spawn(follow_own(namespaces.clone(), queue.clone()));
    tasks.spawn(follow(pods.clone(), queue.clone(), {
        let namespaces = namespaces.clone();
        move |update| match update {
            Update::Deleted(pod) => {
                let name = pod.metadata.namespace.clone().unwrap_or_default();
                let dying =
                    namespaces.get("", &name).filter(|namespace| namespace.metadata.deletion_timestamp.is_some());
                dying.map(|_| Key::new("", name)).into_iter().collect()
            }
            Update::Applied(_) => vec![],
        }
    }));
    tasks.spawn(run(shared.clone(), queue, NamespaceDeletion { namespaces, pods }));
}

struct NamespaceDeletion {
    namespaces: Informer<Namespace>,
    pods: Informer<Pod>,
}

impl Controller for NamespaceDeletion {
    const NAME: &'static str = "namespace-controller";
    const WORKERS: usize = 8;

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(namespace) = self.namespaces.get("", &key.name) else { return Ok(Next::OnChange) };
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
        if namespace.metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|name| name == FINALIZER) {
            return Ok(Next::OnChange);
        }
        let client = &session.shared.client;
        let mut kinds = kinds(client).await?;
        kinds.retain(|kind| kind.is_namespaced);
        let (pods, others): (Vec<Kind>, Vec<Kind>) =
            kinds.into_iter().partition(|kind| kind.resource.group.is_empty() && kind.resource.kind == "Pod");
        for first in &pods {
            let left = clear(client, first, &key.name).await?;
            if left > 0 {
                return self.wait(session, &namespace, &[(first, left)]).await;
            }
        }
        let cleared = futures::future::join_all(others.iter().map(|kind| clear(client, kind, &key.name))).await;
        let mut remaining = vec![];
        for (kind, left) in others.iter().zip(cleared) {
            match left? {
                0 => {}
                left => remaining.push((kind, left)),
            }
        }
        if !remaining.is_empty() {
            return self.wait(session, &namespace, &remaining).await;
        }
        finalize(client, &namespace).await?;
        Ok(Next::OnChange)
    }
}

impl NamespaceDeletion {
    /// Says what is left; its end, or a timer, brings the namespace back here.
    async fn wait(&self, session: &Session, namespace: &Namespace, remaining: &[(&Kind, usize)]) -> Result<Next> {
        let list: Vec<String> = remaining
            .iter()
            .map(|(kind, left)| {
                let group =
                    if kind.resource.group.is_empty() { String::new() } else { format!(".{}", kind.resource.group) };
                format!("{}{group} has {left} resource instances", kind.resource.plural)
            })
            .collect();
        let message = format!("Some resources are remaining: {}", list.join(", "));
        let conditions = namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        let known = conditions.iter().find(|condition| condition.type_ == REMAINING);
        if known.is_none_or(|known| known.message.as_ref() != Some(&message)) {
            let mut conditions: Vec<NamespaceCondition> =
                conditions.into_iter().filter(|condition| condition.type_ != REMAINING).collect();
            conditions.push(NamespaceCondition {
                type_: REMAINING.to_owned(),
                status: "True".to_owned(),
                reason: Some("SomeResourcesRemain".to_owned()),
                message: Some(message.clone()),
                last_transition_time: Some(session.shared.clock.time()),
            });
            let mut status = namespace.status.clone().unwrap_or_default();
            status.conditions = Some(conditions);
            let wanted = Namespace { status: Some(status), ..namespace.clone() };
            match session.replace_status(&wanted).await {
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                written => drop(written?),
            }
        }
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        if self.pods.list_in(name).is_empty() {
            Err(Error::Invalid(message)) // again after a growing delay: nothing tells when finalizers are done
        } else {
            Ok(Next::OnChange) // the end of the last pod brings us back
        }
    }
}

/// Deletes every object of a kind in a namespace; returns how many are still there.
async fn clear(client: &kube::Client, kind: &Kind, namespace: &str) -> Result<usize> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind.resource);
    let present = match api.list_metadata(&ListParams::default()).await.map_err(Error::from) {
        Ok(list) => list.items,
        Err(error) if error.is_not_found() => return Ok(0),
        Err(error) => return Err(error),
    };
    if present.is_empty() {
        return Ok(0);
    }
    let params = DeleteParams::background();
    if kind.has_delete_collection {
        api.delete_collection(&params, &ListParams::default()).await?;
    } else {
        for object in present.iter().filter(|object| object.metadata.deletion_timestamp.is_none()) {
            match api.delete(object.metadata.name.as_deref().unwrap_or_default(), &params).await.map_err(Error::from) {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
    }
    Ok(api.list_metadata(&ListParams::default()).await?.items.len())
}

async fn finalize(client: &kube::Client, namespace: &Namespace) -> Result<()> {
    let mut wanted = namespace.clone();
    if let Some(finalizers) = wanted.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|name| name != FINALIZER);
    }
    // Without a resourceVersion: our own condition may have made a newer one.
    wanted.metadata.resource_version = None;
    let api: Api<Namespace> = Api::all(client.clone());
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    match api.replace_subresource("finalize", name, &PostParams::default(), &wanted).await.map_err(Error::from) {
        Err(error) if error.is_not_found() => Ok(()),
        finalized => finalized.map(drop),
    }
}
