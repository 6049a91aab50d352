//! What every namespace is born with: the default namespaces themselves, the `default` ServiceAccount, the CA of the cluster.
//!
//! How a namespace dies is `namespace_deletion`'s.

use crate::queue::{Next, Queue};
use crate::session::{Error, Key, Object, Result, Session};
use crate::{Config, Controller, Shared, follow, follow_own, run};
use informer::Informer;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;

const DEFAULT_NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const SERVICE_ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_NOTE: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// The contents of other ConfigMaps are nobody's business here: a kubelet asks the API for what its pods need.
pub(crate) fn trim(map: &mut ConfigMap) {
    if map.metadata.name.as_deref() != Some(ROOT_CA) {
        (map.data, map.binary_data) = (None, None);
    }
}

pub(crate) fn start(shared: &Shared, config: &Config, tasks: &mut JoinSet<()>) {
    tasks.spawn(create_default_namespaces(shared.clone()));
    let namespaces = shared.informers.of::<Namespace>();

    let queue = Queue::new();
    let accounts = shared.informers.of::<ServiceAccount>();
    tasks.spawn(follow(namespaces.clone(), queue.clone(), |update| of_namespace(update.object(), SERVICE_ACCOUNT)));
    tasks.spawn(follow(accounts.clone(), queue.clone(), |update| own(&**update.object(), SERVICE_ACCOUNT)));
    tasks.spawn(run(shared.clone(), queue, ServiceAccountController { namespaces: namespaces.clone(), accounts }));

    let queue = Queue::new();
    let config_maps = shared.informers.of::<ConfigMap>();
    tasks.spawn(follow(namespaces.clone(), queue.clone(), |update| of_namespace(update.object(), ROOT_CA)));
    tasks.spawn(follow(config_maps.clone(), queue.clone(), |update| own(&**update.object(), ROOT_CA)));
    let publisher = RootCaPublisher { namespaces: namespaces.clone(), config_maps, ca_pem: config.ca_pem.clone() };
    tasks.spawn(run(shared.clone(), queue, publisher));

    let queue = Queue::new();
    tasks.spawn(follow_own(namespaces.clone(), queue.clone()));
    tasks.spawn(run(shared.clone(), queue, DefaultNamespaces { namespaces }));
}

/// The first thing a new cluster gets, before any informer has something to tell.
async fn create_default_namespaces(shared: Shared) {
    let _working = shared.informers.activity().begin();
    for name in DEFAULT_NAMESPACES {
        while let Err(error) = create_namespace(
            &Session::new(&shared.as_component(DefaultNamespaces::NAME), DefaultNamespaces::NAME),
            name,
        )
        .await
        {
            tracing::debug!(namespace = name, %error, "namespace not created; will try again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn create_namespace(session: &Session, name: &str) -> Result<()> {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    ignore_existing(session.create(&Namespace { metadata, ..Namespace::default() }).await)
}

fn ignore_existing<K>(created: Result<K>) -> Result<()> {
    match created {
        Err(error) if !error.is_already_exists() && !error.is_namespace_terminating() => Err(error),
        _ => Ok(()),
    }
}

/// The object called `name` in a namespace that has changed.
fn of_namespace(namespace: &Namespace, name: &str) -> Vec<Key> {
    vec![Key::new(namespace.metadata.name.clone().unwrap_or_default(), name)]
}

/// A changed object, if it is called `name`.
fn own<K: Object>(object: &K, name: &str) -> Vec<Key> {
    let key = Key::of(object.metadata());
    if key.name == name { vec![key] } else { vec![] }
}

fn is_active(namespaces: &Informer<Namespace>, name: &str) -> bool {
    namespaces.get("", name).is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_none())
}

/// Brings a default namespace back when it has been deleted, as the API server does upstream.
struct DefaultNamespaces {
    namespaces: Informer<Namespace>,
}

impl Controller for DefaultNamespaces {
    const NAME: &'static str = "default-namespaces";
    const WORKERS: usize = 1;

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        if DEFAULT_NAMESPACES.contains(&key.name.as_str()) && self.namespaces.get("", &key.name).is_none() {
            create_namespace(session, &key.name).await?;
        }
        Ok(Next::OnChange)
    }
}

struct ServiceAccountController {
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

impl Controller for ServiceAccountController {
    const NAME: &'static str = "serviceaccount-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        if !is_active(&self.namespaces, &key.namespace) || self.accounts.get(&key.namespace, &key.name).is_some() {
            return Ok(Next::OnChange);
        }
        let account = ServiceAccount { metadata: named(key), ..ServiceAccount::default() };
        ignore_existing(session.create(&account).await)?;
        Ok(Next::OnChange)
    }
}

struct RootCaPublisher {
    namespaces: Informer<Namespace>,
    config_maps: Informer<ConfigMap>,
    ca_pem: String,
}

impl Controller for RootCaPublisher {
    const NAME: &'static str = "root-ca-certificate-publisher";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        if !is_active(&self.namespaces, &key.namespace) {
            return Ok(Next::OnChange);
        }
        let data = Some(BTreeMap::from([("ca.crt".to_owned(), self.ca_pem.clone())]));
        match self.config_maps.get(&key.namespace, &key.name) {
            None => {
                let mut metadata = named(key);
                let note = ("kubernetes.io/description".to_owned(), ROOT_CA_NOTE.to_owned());
                metadata.annotations = Some(BTreeMap::from([note]));
                ignore_existing(session.create(&ConfigMap { metadata, data, ..ConfigMap::default() }).await)?;
            }
            Some(existing) if existing.data != data => {
                let restored = ConfigMap { data, binary_data: None, ..(*existing).clone() };
                match session.replace(&restored).await {
                    Err(error) if error.is_not_found() => return Err(Error::Invalid("deleted meanwhile".to_owned())),
                    written => drop(written?),
                }
            }
            Some(_) => {}
        }
        Ok(Next::OnChange)
    }
}

fn named(key: &Key) -> ObjectMeta {
    ObjectMeta { name: Some(key.name.clone()), namespace: Some(key.namespace.clone()), ..ObjectMeta::default() }
}
