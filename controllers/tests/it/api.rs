//! An API server for the controllers' tests: stores what it is given, tells watchers, and knows just enough of
//! generations, finalizers, bindings and namespaces. A kubelet is built in: a bound pod is ready at once.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The store and its watchers. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Api(Arc<Mutex<Store>>);

#[derive(Default)]
struct Store {
    revision: u64,
    addresses: u32,
    objects: BTreeMap<Id, Value>,
    watchers: Vec<(String, mpsc::UnboundedSender<String>)>,
    /// Every write, as "METHOD path".
    log: Vec<String>,
}

/// Collection such as `apis/apps/v1/deployments`, namespace, name.
type Id = (String, String, String);

type Answer = Result<(StatusCode, Value), (StatusCode, &'static str, String)>;

impl Api {
    pub(crate) fn client(&self) -> kube::Client {
        let router = Router::new().fallback(handle).with_state(self.clone());
        kube::Client::new(router, "default")
    }

    pub(crate) fn revision(&self) -> u64 {
        self.0.lock().revision
    }

    /// How many writes of which the log line starts with `prefix` there were.
    pub(crate) fn writes(&self, prefix: &str) -> usize {
        self.0.lock().log.iter().filter(|line| line.starts_with(prefix)).count()
    }
}

async fn handle(State(api): State<Api>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let path = parts.uri.path().trim_matches('/').to_owned();
    if let Some(discovery) = discovery(&path) {
        return answer(Ok((StatusCode::OK, discovery)));
    }
    let Some(target) = Target::parse(&path) else { return answer(Err(not_found(&path))) };
    let mut store = api.0.lock();
    if query.contains("watch=true") {
        return store.watch(&target, &query);
    }
    if parts.method != Method::GET {
        store.log.push(format!("{} {path}", parts.method));
    }
    let result = match (parts.method, target.name.is_empty()) {
        (Method::GET, true) => Ok((StatusCode::OK, store.list(&target))),
        (Method::GET, false) => store.get(&target).map(|object| (StatusCode::OK, object)),
        (Method::POST, true) => store.create(&target, body),
        (Method::POST, false) => store.bind(&target, &body),
        (Method::PUT, _) => store.replace(&target, body),
        (Method::PATCH, _) => store.patch(&target, body),
        (Method::DELETE, false) => store.delete(&target, &body),
        (Method::DELETE, true) => store.delete_all(&target, &body),
        _ => Err((StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", path)),
    };
    drop(store);
    answer(result)
}

fn answer(result: Answer) -> Response {
    let (code, value) = result.unwrap_or_else(|(code, reason, message)| {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "reason": reason, "message": message, "code": code.as_u16()});
        (code, status)
    });
    (code, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

fn not_found(what: &str) -> (StatusCode, &'static str, String) {
    (StatusCode::NOT_FOUND, "NotFound", format!("{what} not found"))
}

fn conflict(message: &str) -> (StatusCode, &'static str, String) {
    (StatusCode::CONFLICT, "Conflict", message.to_owned())
}

/// Kinds that discovery lists: group/version, plural, kind, namespaced.
const KINDS: [(&str, &str, &str, bool); 14] = [
    ("v1", "namespaces", "Namespace", false),
    ("v1", "nodes", "Node", false),
    ("v1", "pods", "Pod", true),
    ("v1", "services", "Service", true),
    ("v1", "endpoints", "Endpoints", true),
    ("v1", "configmaps", "ConfigMap", true),
    ("v1", "secrets", "Secret", true),
    ("v1", "serviceaccounts", "ServiceAccount", true),
    ("v1", "persistentvolumeclaims", "PersistentVolumeClaim", true),
    ("apps/v1", "deployments", "Deployment", true),
    ("apps/v1", "replicasets", "ReplicaSet", true),
    ("batch/v1", "jobs", "Job", true),
    ("discovery.k8s.io/v1", "endpointslices", "EndpointSlice", true),
    ("example.com/v1", "widgets", "Widget", true),
];

fn discovery(path: &str) -> Option<Value> {
    let resources = |group_version: &str| {
        let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
        let of_group = KINDS.iter().filter(|kind| kind.0 == group_version);
        let rows: Vec<Value> = of_group
            .map(|(_, plural, kind, namespaced)| {
                json!({"name": plural, "singularName": "", "kind": kind, "namespaced": namespaced, "verbs": verbs})
            })
            .collect();
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": rows})
    };
    match path {
        "api" => Some(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        "api/v1" => Some(resources("v1")),
        "apis" => {
            let group = |name: &str| {
                let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
                json!({"name": name, "versions": [version], "preferredVersion": version})
            };
            let mut names: Vec<&str> = KINDS.iter().filter_map(|kind| kind.0.strip_suffix("/v1")).collect();
            names.dedup();
            let groups: Vec<Value> = names.into_iter().map(group).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        path => {
            let group_version = path.strip_prefix("apis/")?;
            KINDS.iter().any(|kind| kind.0 == group_version).then(|| resources(group_version))
        }
    }
}

struct Target {
    collection: String,
    namespace: String,
    name: String,
    subresource: String,
}

impl Target {
    fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').collect();
        let prefix = if parts.first() == Some(&"api") { 2 } else { 3 };
        let (group, rest) = parts.split_at_checked(prefix)?;
        let of_namespace =
            rest.first() == Some(&"namespaces") && rest.len() > 2 && !["status", "finalize"].contains(&rest[2]);
        let (namespace, rest) = if of_namespace { (rest[1], &rest[2..]) } else { ("", rest) };
        let at = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
        Some(Target {
            collection: format!("{}/{}", group.join("/"), rest.first()?),
            namespace: namespace.to_owned(),
            name: at(1),
            subresource: at(2),
        })
    }

    fn id(&self) -> Id {
        (self.collection.clone(), self.namespace.clone(), self.name.clone())
    }
}

impl Store {
    fn list(&self, target: &Target) -> Value {
        let items: Vec<&Value> = self.of(target).map(|(_, object)| object).collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": self.revision.to_string()}, "items": items})
    }

    fn of<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = (&'a Id, &'a Value)> {
        self.objects.iter().filter(|((collection, namespace, _), _)| {
            *collection == target.collection && (target.namespace.is_empty() || *namespace == target.namespace)
        })
    }

    fn watch(&mut self, target: &Target, query: &str) -> Response {
        let (sender, receiver) = mpsc::unbounded_channel::<String>();
        let from: u64 =
            query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")?.parse().ok()).unwrap_or(0);
        // No history is kept: who comes too late lists again.
        if from < self.revision {
            let status =
                json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"});
            let _ = sender.send(format!("{}\n", json!({"type": "ERROR", "object": status})));
        } else {
            self.watchers.push((target.collection.clone(), sender));
        }
        let stream = futures::stream::unfold(receiver, |mut receiver| async move {
            let line = receiver.recv().await?;
            Some((Ok::<_, std::io::Error>(bytes::Bytes::from(line)), receiver))
        });
        Response::new(Body::from_stream(stream))
    }

    fn tell(&mut self, id: &Id, event: &str, object: &Value) {
        let bookmark = json!({"type": "BOOKMARK", "object": {"kind": "Any", "apiVersion": "v1",
            "metadata": {"resourceVersion": self.revision.to_string(), "creationTimestamp": null}}});
        let event = json!({"type": event, "object": object});
        self.watchers.retain(|(collection, sender)| {
            let line = if *collection == id.0 { &event } else { &bookmark };
            sender.send(format!("{line}\n")).is_ok()
        });
    }

    fn get(&self, target: &Target) -> Result<Value, (StatusCode, &'static str, String)> {
        self.objects.get(&target.id()).cloned().ok_or_else(|| not_found(&target.name))
    }

    fn create(&mut self, target: &Target, mut object: Value) -> Answer {
        let terminating = |namespace: &Value| !namespace["metadata"]["deletionTimestamp"].is_null();
        let home = ("api/v1/namespaces".to_owned(), String::new(), target.namespace.clone());
        if self.objects.get(&home).is_some_and(terminating) {
            let message = format!(
                "unable to create new content in namespace {} because it is being terminated",
                target.namespace
            );
            return Err((StatusCode::FORBIDDEN, "Forbidden", message));
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let id = (target.collection.clone(), target.namespace.clone(), name.clone());
        if self.objects.contains_key(&id) {
            return Err((StatusCode::CONFLICT, "AlreadyExists", format!("{name} already exists")));
        }
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(format!("uid-{}", self.revision + 1));
        metadata["generation"] = json!(1);
        metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        if !target.namespace.is_empty() {
            metadata["namespace"] = json!(target.namespace);
        }
        if target.collection == "api/v1/namespaces" {
            object["spec"]["finalizers"] = json!(["kubernetes"]);
        }
        self.put(&id, "ADDED", object)
    }

    fn put(&mut self, id: &Id, event: &str, mut object: Value) -> Answer {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let finalizers = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
        let metadata = &object["metadata"];
        let held = finalizers(&metadata["finalizers"])
            || id.0 == "api/v1/namespaces" && finalizers(&object["spec"]["finalizers"]);
        if !metadata["deletionTimestamp"].is_null() && !held {
            self.objects.remove(id);
            self.tell(id, "DELETED", &object);
        } else {
            self.objects.insert(id.clone(), object.clone());
            self.tell(id, event, &object);
        }
        Ok((if event == "ADDED" { StatusCode::CREATED } else { StatusCode::OK }, object))
    }

    fn change(&mut self, target: &Target, change: impl FnOnce(&mut Value)) -> Answer {
        let before = self.get(target)?;
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            return Ok((StatusCode::OK, before));
        }
        if after["spec"] != before["spec"] {
            after["metadata"]["generation"] = json!(before["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        self.put(&target.id(), "MODIFIED", after)
    }

    fn check(&self, target: &Target, wanted: &Value) -> Result<(), (StatusCode, &'static str, String)> {
        let present = self.get(target)?;
        for field in ["resourceVersion", "uid"] {
            let wanted = &wanted[field];
            if !wanted.is_null() && *wanted != present["metadata"][field] {
                return Err(conflict("the object has been modified"));
            }
        }
        Ok(())
    }

    fn replace(&mut self, target: &Target, object: Value) -> Answer {
        self.check(target, &object["metadata"])?;
        self.change(target, |present| match target.subresource.as_str() {
            "status" => present["status"] = object["status"].clone(),
            "finalize" => present["spec"]["finalizers"] = object["spec"]["finalizers"].clone(),
            _ => {
                let status = present["status"].take();
                let deletion = present["metadata"]["deletionTimestamp"].take();
                *present = object;
                if !status.is_null() {
                    present["status"] = status;
                }
                if !deletion.is_null() {
                    present["metadata"]["deletionTimestamp"] = deletion;
                }
            }
        })
    }

    fn patch(&mut self, target: &Target, patch: Value) -> Answer {
        self.check(target, &patch["metadata"])?;
        self.change(target, |present| merge(present, patch))
    }

    fn bind(&mut self, target: &Target, binding: &Value) -> Answer {
        if !self.get(target)?["spec"]["nodeName"].is_null() {
            return Err(conflict("already bound"));
        }
        self.addresses += 1;
        let ip = format!("10.244.{}.{}", self.addresses / 256, self.addresses % 256);
        self.change(target, |pod| {
            pod["spec"]["nodeName"] = binding["target"]["name"].clone();
            pod["status"] = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        })?;
        Ok((StatusCode::CREATED, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})))
    }

    fn delete(&mut self, target: &Target, options: &Value) -> Answer {
        self.check(target, &options["preconditions"])?;
        let finalizer = match options["propagationPolicy"].as_str() {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            _ => None,
        };
        self.change(target, |object| {
            if object["metadata"]["deletionTimestamp"].is_null() {
                object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                if let Some(finalizer) = finalizer {
                    let mut list = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
                    list.push(json!(finalizer));
                    object["metadata"]["finalizers"] = json!(list);
                }
            }
        })
    }

    fn delete_all(&mut self, target: &Target, options: &Value) -> Answer {
        let names: Vec<Id> = self.of(target).map(|(id, _)| id.clone()).collect();
        for (collection, namespace, name) in names {
            self.delete(&Target { collection, namespace, name, subresource: String::new() }, options)?;
        }
        Ok((StatusCode::OK, self.list(target)))
    }
}

fn merge(into: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *into = patch;
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().map(|object| object.remove(&key));
        } else {
            merge(&mut into[key], value);
        }
    }
}
