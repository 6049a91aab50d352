//! Quotas at the edge: what is refused and in which words, what is counted and what is free again, whoever races.

use crate::support::{Server, config, configmap, over};
use apiserver::registry::ResourceKind;
use apiserver::schema::structural::object_type;
use apiserver::{Config, admission};
use async_trait::async_trait;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{
    Committed, KeyValue, MemoryStore, Page, Range, RangeError, Revision, Store, Txn, TxnError, Unavailable, Watch,
};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const PODS: &str = "/api/v1/namespaces/default/pods";
const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";

/// A store which lets others go first before each operation, as often as chance wants it: one whose clients race.
struct Restless {
    inner: MemoryStore,
    random: Mutex<StdRng>,
}

impl Restless {
    async fn let_others_go_first(&self) {
        let times = self.random.lock().expect("nobody panics with it").random_range(0..4);
        for _ in 0..times {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Store for Restless {
    async fn txn(&self, txn: Txn) -> Result<Committed, TxnError> {
        self.let_others_go_first().await;
        self.inner.txn(txn).await
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Unavailable> {
        self.let_others_go_first().await;
        self.inner.get(key).await
    }

    async fn range(&self, range: Range) -> Result<Page, RangeError> {
        self.let_others_go_first().await;
        self.inner.range(range).await
    }

    fn watch(&self, prefix: &str, from: Revision) -> Watch {
        self.inner.watch(prefix, from)
    }

    fn request_progress(&self) {
        self.inner.request_progress();
    }

    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    async fn compact(&self, revision: Revision) -> Result<(), Unavailable> {
        self.inner.compact(revision).await
    }
}

async fn server() -> Server {
    seeded(0).await
}

async fn seeded(seed: u64) -> Server {
    let store = Restless { inner: MemoryStore::new(), random: Mutex::new(StdRng::seed_from_u64(seed)) };
    let server = over(Arc::new(store), Config { admission: admission::standard(), ..config() }).await;
    let account = json!({"metadata": {"name": "default"}});
    server.post("/api/v1/namespaces/default/serviceaccounts", account).await.created();
    server
}

async fn quota(server: &Server, name: &str, spec: Value) -> Value {
    server.post(QUOTAS, json!({"metadata": {"name": name}, "spec": spec})).await.created()
}

async fn used(server: &Server, name: &str) -> Value {
    server.get(&format!("{QUOTAS}/{name}")).await.ok()["status"]["used"].clone()
}

fn pod(name: &str, resources: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i:1", "resources": resources}]}})
}

#[tokio::test(start_paused = true)]
async fn a_quota_counts_what_is_there_and_refuses_what_is_too_much() {
    let server = server().await;
    server.post(PODS, pod("a", json!({}))).await.created();
    let created = quota(&server, "q", json!({"hard": {"pods": "2", "count/configmaps": "1", "services": "5"}})).await;
    let status = json!({"hard": {"pods": "2", "count/configmaps": "1", "services": "5"},
        "used": {"pods": "1", "count/configmaps": "0", "services": "0"}});
    assert_eq!(created["status"], status);
    server.post(PODS, pod("b", json!({}))).await.created();
    let refused = server.post(PODS, pod("c", json!({}))).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"c\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"
    );
    assert_eq!(refused["details"], json!({"name": "c", "kind": "pods"}));
    server.post(CONFIGMAPS, configmap("a")).await.created();
    let refused = server.post(CONFIGMAPS, configmap("b")).await.expect(403);
    assert_eq!(
        refused["message"],
        "configmaps \"b\" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=1, \
         limited: count/configmaps=1"
    );
    assert_eq!(used(&server, "q").await, json!({"pods": "2", "count/configmaps": "1", "services": "0"}));
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_or_has_ended_is_free_at_once() {
    let server = server().await;
    quota(&server, "q", json!({"hard": {"pods": "1", "requests.cpu": "1", "count/pods": "3"}})).await;
    let asking = |name: &str| pod(name, json!({"requests": {"cpu": "700m"}}));
    server.post(PODS, asking("a")).await.created();
    assert_eq!(used(&server, "q").await, json!({"pods": "1", "requests.cpu": "700m", "count/pods": "1"}));
    let ended = json!({"status": {"phase": "Succeeded"}});
    server.patch(&format!("{PODS}/a/status"), "merge-patch+json", ended).await.ok();
    assert_eq!(used(&server, "q").await, json!({"pods": "0", "requests.cpu": "0", "count/pods": "1"}));
    server.post(PODS, asking("b")).await.created();
    server.delete(&format!("{PODS}/a"), Value::Null).await.ok();
    server.delete(&format!("{PODS}/b"), Value::Null).await.ok();
    assert_eq!(used(&server, "q").await, json!({"pods": "0", "requests.cpu": "0", "count/pods": "0"}));
}

#[tokio::test(start_paused = true)]
async fn a_pod_has_to_say_what_is_limited_and_an_exceeded_quota_names_everything_exceeded() {
    let server = server().await;
    quota(&server, "compute", json!({"hard": {"requests.cpu": "1", "limits.memory": "1Gi"}})).await;
    let refused = server.post(PODS, pod("a", json!({"requests": {"cpu": "1"}}))).await.expect(403);
    assert_eq!(refused["message"], "pods \"a\" is forbidden: failed quota: compute: must specify limits.memory for: c");
    let greedy = json!({"requests": {"cpu": "1500m"}, "limits": {"cpu": "2", "memory": "2Gi"}});
    let refused = server.post(PODS, pod("a", greedy)).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"a\" is forbidden: exceeded quota: compute, requested: limits.memory=2Gi,requests.cpu=1500m, used: \
         limits.memory=0,requests.cpu=0, limited: limits.memory=1Gi,requests.cpu=1"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_is_refused_as_a_write_would_be_and_charges_nothing() {
    let server = server().await;
    quota(&server, "q", json!({"hard": {"configmaps": "1"}})).await;
    let dry = format!("{CONFIGMAPS}?dryRun=All");
    server.post(&dry, configmap("a")).await.created();
    assert_eq!(used(&server, "q").await, json!({"configmaps": "0"}));
    server.post(CONFIGMAPS, configmap("a")).await.created();
    server.post(&dry, configmap("b")).await.expect(403);
    server.delete(&format!("{CONFIGMAPS}/a?dryRun=All"), Value::Null).await.ok();
    assert_eq!(used(&server, "q").await, json!({"configmaps": "1"}));
}

#[tokio::test(start_paused = true)]
async fn an_update_is_charged_by_the_difference() {
    let server = server().await;
    quota(&server, "q", json!({"hard": {"services.nodeports": "2", "requests.storage": "5Gi"}})).await;
    let service = |kind: &str, ports: &[u16]| {
        let ports: Vec<Value> = ports.iter().map(|port| json!({"name": format!("p{port}"), "port": port})).collect();
        json!({"metadata": {"name": "s"}, "spec": {"type": kind, "ports": ports}})
    };
    server.post(SERVICES, service("ClusterIP", &[1])).await.created();
    assert_eq!(used(&server, "q").await["services.nodeports"], "0");
    let path = format!("{SERVICES}/s");
    server.patch(&path, "merge-patch+json", service("NodePort", &[1, 2])).await.ok();
    assert_eq!(used(&server, "q").await["services.nodeports"], "2");
    let refused = server.patch(&path, "merge-patch+json", service("NodePort", &[1, 2, 3])).await.expect(403);
    assert_eq!(
        refused["message"],
        "services \"s\" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=2, \
         limited: services.nodeports=2"
    );
    server.patch(&path, "merge-patch+json", service("NodePort", &[1])).await.ok();
    assert_eq!(used(&server, "q").await["services.nodeports"], "1");
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "4Gi"}}}});
    server.post(CLAIMS, claim).await.created();
    assert_eq!(used(&server, "q").await["requests.storage"], "4Gi");
}

#[tokio::test(start_paused = true)]
async fn a_resize_is_charged_and_refused_like_a_new_pod() {
    let server = server().await;
    quota(&server, "q", json!({"hard": {"requests.cpu": "1"}})).await;
    server.post(PODS, pod("a", json!({"requests": {"cpu": "400m"}}))).await.created();
    let resize = |cpu: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
    let path = format!("{PODS}/a/resize");
    server.patch(&path, "strategic-merge-patch+json", resize("900m")).await.ok();
    assert_eq!(used(&server, "q").await, json!({"requests.cpu": "900m"}));
    let refused = server.patch(&path, "strategic-merge-patch+json", resize("1100m")).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"a\" is forbidden: exceeded quota: q, requested: requests.cpu=200m, used: requests.cpu=900m, limited: requests.cpu=1"
    );
    // More than there is now may still become less.
    let tight = json!({"spec": {"hard": {"requests.cpu": "500m"}}});
    server.patch(&format!("{QUOTAS}/q"), "merge-patch+json", tight).await.ok();
    server.patch(&path, "strategic-merge-patch+json", resize("700m")).await.ok();
    assert_eq!(used(&server, "q").await, json!({"requests.cpu": "700m"}));
}

#[tokio::test(start_paused = true)]
async fn scopes_let_a_quota_count_some_pods_only() {
    let server = server().await;
    quota(&server, "best-effort", json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]})).await;
    let high = json!({"metadata": {"name": "high"}, "value": 10});
    server.post("/apis/scheduling.k8s.io/v1/priorityclasses", high).await.created();
    let selector = json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]});
    quota(&server, "high", json!({"hard": {"pods": "0"}, "scopeSelector": selector})).await;
    server.post(PODS, pod("a", json!({}))).await.created();
    server.post(PODS, pod("b", json!({"requests": {"cpu": "1"}}))).await.created();
    let refused = server.post(PODS, pod("c", json!({}))).await.expect(403);
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("exceeded quota: best-effort")), "{refused}");
    let mut important = pod("d", json!({"requests": {"cpu": "1"}}));
    important["spec"]["priorityClassName"] = "high".into();
    let refused = server.post(PODS, important).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"d\" is forbidden: exceeded quota: high, requested: pods=1, used: pods=0, limited: pods=0"
    );
    assert_eq!(
        (used(&server, "best-effort").await, used(&server, "high").await),
        (json!({"pods": "1"}), json!({"pods": "0"}))
    );
}

#[tokio::test(start_paused = true)]
async fn of_many_that_race_exactly_as_many_get_in_as_fit() {
    for seed in 0..5 {
        let server = seeded(seed).await;
        quota(&server, "q", json!({"hard": {"configmaps": "10"}})).await;
        quota(&server, "wide", json!({"hard": {"count/configmaps": "1000"}})).await;
        let path = |number: usize| format!("{CONFIGMAPS}/c{number}");
        let created = join_all((0..40).map(|number| {
            let server = &server;
            async move { server.post(CONFIGMAPS, configmap(&format!("c{number}"))).await.code }
        }))
        .await;
        assert_eq!(created.iter().filter(|code| **code == 201).count(), 10, "seed {seed}: {created:?}");
        assert_eq!(created.iter().filter(|code| **code == 403).count(), 30, "seed {seed}: {created:?}");
        assert_eq!(used(&server, "q").await, json!({"configmaps": "10"}), "seed {seed}");
        assert_eq!(used(&server, "wide").await, json!({"count/configmaps": "10"}), "seed {seed}");
        // Some go while others come.
        join_all((0..40).map(|number| {
            let (server, path) = (&server, path(number));
            async move {
                server.delete(&path, Value::Null).await;
                server.post(CONFIGMAPS, configmap(&format!("d{number}"))).await;
            }
        }))
        .await;
        let there = server.get(CONFIGMAPS).await.ok()["items"].as_array().map_or(0, Vec::len);
        assert_eq!(used(&server, "q").await, json!({"configmaps": there.to_string()}), "seed {seed}");
        assert!(there <= 10, "seed {seed}: {there}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_comes_while_others_write_counts_them_all_in_the_end() {
    for seed in 0..30 {
        let server = seeded(seed).await;
        let keeping = tokio::spawn({
            let api = server.api.clone();
            async move { api.keep_quotas(Duration::from_secs(300)).await }
        });
        let write = |number: usize| {
            let server = &server;
            async move {
                for _ in 0..number {
                    tokio::task::yield_now().await;
                }
                if number == 10 {
                    quota(server, "q", json!({"hard": {"configmaps": "100"}})).await;
                } else {
                    server.post(CONFIGMAPS, configmap(&format!("c{number}"))).await.created();
                }
            }
        };
        join_all((0..20).map(write)).await;
        // The last count may still be on its way.
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        assert_eq!(used(&server, "q").await, json!({"configmaps": "19"}), "seed {seed}");
        keeping.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_shows_what_there_is_whatever_is_written_into_its_status_and_follows_its_spec() {
    let server = server().await;
    quota(&server, "q", json!({"hard": {"configmaps": "1", "resourcequotas": "2"}})).await;
    assert_eq!(used(&server, "q").await, json!({"configmaps": "0", "resourcequotas": "1"}), "itself counted");
    let wrong = json!({"status": {"used": {"configmaps": "7"}, "hard": {"configmaps": "9"}}});
    let written = server.patch(&format!("{QUOTAS}/q/status"), "merge-patch+json", wrong).await.ok();
    assert_eq!(written["status"]["used"], json!({"configmaps": "0", "resourcequotas": "1"}));
    server.post(CONFIGMAPS, configmap("a")).await.created();
    let wider = json!({"spec": {"hard": {"secrets": "3", "configmaps": "2"}}});
    let written = server.patch(&format!("{QUOTAS}/q"), "merge-patch+json", wider).await.ok();
    assert_eq!(written["status"]["hard"], json!({"configmaps": "2", "resourcequotas": "2", "secrets": "3"}));
    assert_eq!(written["status"]["used"], json!({"configmaps": "1", "resourcequotas": "1", "secrets": "0"}));
    quota(&server, "other", json!({"hard": {"pods": "1"}})).await;
    let third = json!({"metadata": {"name": "third"}, "spec": {"hard": {"pods": "1"}}});
    server.post(QUOTAS, third).await.expect(403);
    server.delete(&format!("{QUOTAS}/other"), Value::Null).await.ok();
    assert_eq!(used(&server, "q").await["resourcequotas"], "1");
    server.delete(&format!("{QUOTAS}/q"), Value::Null).await.ok();
    for name in ["b", "c", "d"] {
        server.post(CONFIGMAPS, configmap(name)).await.created();
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_added_later_is_counted_like_any_other() {
    let server = server().await;
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}});
    let schema = object_type("dev.example.v1.Widget", &schema).expect("structural");
    server.api.add_kind(ResourceKind::new("example.dev", "v1", "Widget", "widgets").with_schema(schema));
    quota(&server, "q", json!({"hard": {"count/widgets.example.dev": "1"}})).await;
    let widgets = "/apis/example.dev/v1/namespaces/default/widgets";
    let widget = |name: &str| json!({"apiVersion": "example.dev/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"size": 1}});
    server.post(widgets, widget("a")).await.created();
    let refused = server.post(widgets, widget("b")).await.expect(403);
    assert_eq!(
        refused["message"],
        "widgets.example.dev \"b\" is forbidden: exceeded quota: q, requested: count/widgets.example.dev=1, used: \
         count/widgets.example.dev=1, limited: count/widgets.example.dev=1"
    );
    server.delete(&format!("{widgets}/a"), Value::Null).await.ok();
    assert_eq!(used(&server, "q").await, json!({"count/widgets.example.dev": "0"}));
}
