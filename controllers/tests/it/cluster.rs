//! A cluster of nothing but the API and the controllers, and what tests ask of it.

use crate::api::Api;
use controllers::{Clock, Config, Controllers};
use informer::{Activity, Informers};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

pub(crate) struct Cluster {
    pub(crate) api: Api,
    pub(crate) client: kube::Client,
    pub(crate) informers: Informers,
    _controllers: Controllers,
}

impl Cluster {
    /// Two nodes, the default namespaces, settled.
    pub(crate) async fn start() -> Self {
        let api = Api::default();
        let client = api.client();
        let informers = Informers::new(client.clone(), Activity::default());
        let clock =
            Clock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000), tokio::time::Instant::now());
        let load_balancer_pool = vec!["172.18.255.0/29".to_owned()];
        let config = Config { seed: 1, clock, ca_pem: "CA".to_owned(), load_balancer_pool, ..Config::default() };
        let controllers = controllers::start(client.clone(), informers.clone(), config);
        let cluster = Cluster { api, client, informers, _controllers: controllers };
        for name in ["node-1", "node-2"] {
            cluster.create("v1", "Node", json!({"metadata": {"name": name}})).await;
        }
        cluster.settled().await;
        cluster
    }

    /// Waits until every change has been dealt with by everybody.
    pub(crate) async fn settled(&self) {
        loop {
            let revision = self.api.revision();
            self.informers.applied(revision).await;
            self.informers.activity().idle().await;
            if self.api.revision() == revision {
                return;
            }
        }
    }

    fn api(&self, version: &str, kind: &str, namespace: Option<&str>) -> kube::Api<kube::api::DynamicObject> {
        let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
        let gvk = kube::core::GroupVersionKind::gvk(group, version, kind);
        let resource = kube::core::ApiResource::from_gvk(&gvk);
        match namespace {
            Some(namespace) => kube::Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => kube::Api::all_with(self.client.clone(), &resource),
        }
    }

    fn home(&self, kind: &str, object: &Value) -> Option<String> {
        let is_global = ["Node", "Namespace", "PersistentVolume"].contains(&kind);
        (!is_global).then(|| object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned())
    }

    pub(crate) async fn create(&self, version: &str, kind: &str, mut object: Value) -> Value {
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind);
        let api = self.api(version, kind, self.home(kind, &object).as_deref());
        let object = serde_json::from_value(object).expect("an object");
        let created = api.create(&PostParams::default(), &object).await.expect("is created");
        serde_json::to_value(created).expect("an object")
    }

    pub(crate) async fn merge(&self, version: &str, kind: &str, name: &str, patch: Value) {
        let api = self.api(version, kind, self.home(kind, &patch).as_deref());
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("is patched");
    }

    pub(crate) async fn delete(&self, version: &str, kind: &str, name: &str, params: DeleteParams) {
        let api = self.api(version, kind, self.home(kind, &Value::Null).as_deref());
        api.delete(name, &params).await.expect("is deleted");
    }

    pub(crate) async fn get(&self, version: &str, kind: &str, name: &str) -> Option<Value> {
        let api = self.api(version, kind, self.home(kind, &Value::Null).as_deref());
        let object = api.get_opt(name).await.expect("the API answers")?;
        Some(serde_json::to_value(object).expect("an object"))
    }

    /// Waits until an object is gone: for what comes after a retry, which a settled cluster does not wait for.
    pub(crate) async fn gone(&self, version: &str, kind: &str, name: &str) {
        for _ in 0..600 {
            self.settled().await;
            if self.get(version, kind, name).await.is_none() {
                return;
            }
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        panic!("{kind} {name} is still there after a minute");
    }

    /// Every object of a kind, in all namespaces.
    pub(crate) async fn list(&self, version: &str, kind: &str) -> Vec<Value> {
        let list = self.api(version, kind, None).list(&ListParams::default()).await.expect("the API answers");
        list.items.into_iter().map(|object| serde_json::to_value(object).expect("an object")).collect()
    }

    /// The names of every object of a kind.
    pub(crate) async fn names(&self, version: &str, kind: &str) -> Vec<String> {
        let name = |object: Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.list(version, kind).await.into_iter().map(name).collect()
    }

    /// The messages of all events with that reason.
    pub(crate) async fn events(&self, reason: &str) -> Vec<String> {
        let events = self.list("v1", "Event").await.into_iter().filter(|event| event["reason"] == reason);
        events.map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// A Deployment of pods labelled `app: <name>`.
pub(crate) fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": template(name, image)}})
}

/// A pod template with that label.
pub(crate) fn template(app: &str, image: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

/// A Service for pods labelled `app: <name>`.
pub(crate) fn service(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"clusterIP": "10.96.0.50", "ipFamilies": ["IPv4"],
        "selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}})
}
