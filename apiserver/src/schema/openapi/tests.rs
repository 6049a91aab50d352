//! What clients look for in the documents.

use super::super::structural;
use super::*;
use crate::registry::Subresource;

/// Any row, for what does not matter here.
fn template() -> ResourceKind {
    let registry = crate::kinds::registry(crate::kinds::Networking::default());
    ResourceKind::clone(registry.iter().next().expect("a row"))
}

fn kind(group: &'static str, kind: &'static str, plural: &'static str, namespaced: bool) -> ResourceKind {
    let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    let subresource = |name: &'static str, kind: &'static str, verbs: &[&'static str]| Subresource {
        name: name.into(),
        kind: kind.into(),
        group_version: (kind == "Eviction").then(|| ("policy".into(), "v1".into())),
        verbs: verbs.iter().map(|verb| (*verb).into()).collect(),
    };
    ResourceKind {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        plural: plural.into(),
        singular: kind.to_lowercase().into(),
        short_names: vec![],
        categories: vec![],
        namespaced,
        verbs: verbs.map(Into::into).to_vec(),
        subresources: match kind {
            "Pod" => vec![
                subresource("eviction", "Eviction", &["create"]),
                subresource("exec", "PodExecOptions", &["create", "get"]),
                subresource("status", "Pod", &["get", "patch", "update"]),
            ],
            _ => vec![],
        },
        ..template()
    }
}

fn documents() -> Documents {
    let schemas = Schemas::new();
    let own = structural::object_type(
        "dev.example.v1.Backup",
        &json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"schedule": {"type": "string"}}}}}),
    );
    schemas.register("example.dev", "v1", "Backup", own.expect("structural"));
    let registry = Registry::new([
        kind("", "Pod", "pods", true),
        kind("", "Namespace", "namespaces", false),
        kind("apps", "Deployment", "deployments", true),
        kind("example.dev", "Backup", "backups", true),
    ]);
    let describe: Arc<Describe> = Arc::new(|object, field| {
        (object == "api.core.v1.Pod").then(|| field.map_or("A pod.".to_owned(), |field| format!("Its {field}.")))
    });
    Documents::new(&registry, Arc::new(schemas), "v1.36.0", Some(describe))
}

fn parsed(document: &Document) -> Value {
    serde_json::from_slice(&document.body).expect("JSON")
}

#[test]
fn the_index_leads_to_every_document_by_its_hash() {
    let documents = documents();
    let index = parsed(documents.index());
    let paths: Vec<&String> = index["paths"].as_object().expect("an object").keys().collect();
    assert_eq!(paths, ["api/v1", "apis/apps/v1", "apis/example.dev/v1"]);
    for path in paths {
        let document = documents.v3(path).expect("a document");
        let url = format!("/openapi/v3/{path}?hash={}", document.hash);
        assert_eq!(index["paths"][path]["serverRelativeURL"], url);
    }
    assert!(documents.v3("apis/nobody/v1").is_none());
    assert_eq!(self::documents().index().hash, documents.index().hash);
}

#[test]
fn patch_says_what_kubectl_looks_for() {
    let document = parsed(documents().v3("apis/apps/v1").expect("a document"));
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
    let names: Vec<&Value> =
        patch["parameters"].as_array().expect("a list").iter().map(|parameter| &parameter["name"]).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
}

#[test]
fn schemas_say_how_they_are_merged_and_which_kind_they_are() {
    let document = parsed(documents().v3("apis/apps/v1").expect("a document"));
    let schemas = &document["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
    );
    assert_eq!(
        deployment["properties"]["spec"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"
    );
    let ports = &schemas["io.k8s.api.core.v1.Container"]["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-list-type"], "map");
    assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["containerPort", "protocol"]));
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "containerPort");
    assert_eq!(ports["x-kubernetes-patch-strategy"], "merge");
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                out.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, out));
            }
            Value::Array(elements) => elements.iter().for_each(|value| references(value, out)),
            _ => {}
        }
    }
    let documents = documents();
    let v3 = ["api/v1", "apis/apps/v1", "apis/example.dev/v1"].map(|path| documents.v3(path).expect("a document"));
    for document in v3.into_iter().chain([documents.v2()]) {
        let document = parsed(document);
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
        }
    }
}

#[test]
fn scopes_and_subresources_have_their_paths() {
    let document = parsed(documents().v3("api/v1").expect("a document"));
    let paths = &document["paths"];
    for (path, methods) in [
        ("/api/v1/pods", &["get", "parameters"][..]),
        ("/api/v1/namespaces/{namespace}/pods", &["delete", "get", "parameters", "post"]),
        ("/api/v1/namespaces/{namespace}/pods/{name}", &["delete", "get", "parameters", "patch", "put"]),
        ("/api/v1/namespaces/{namespace}/pods/{name}/exec", &["get", "parameters", "post"]),
        ("/api/v1/namespaces/{namespace}/pods/{name}/eviction", &["parameters", "post"]),
        ("/api/v1/namespaces", &["delete", "get", "parameters", "post"]),
        ("/api/v1/namespaces/{name}", &["delete", "get", "parameters", "patch", "put"]),
    ] {
        let found: Vec<&String> = paths[path].as_object().expect(path).keys().collect();
        assert_eq!(found, methods, "{path}");
    }
    let eviction = &paths["/api/v1/namespaces/{namespace}/pods/{name}/eviction"]["post"];
    assert_eq!(eviction["x-kubernetes-group-version-kind"]["group"], "policy");
    let exec = &paths["/api/v1/namespaces/{namespace}/pods/{name}/exec"]["get"];
    assert_eq!(exec["x-kubernetes-action"], "connect");
    let operations: Vec<&Value> = paths
        .as_object()
        .expect("an object")
        .values()
        .flat_map(|item| item.as_object().expect("an object").values())
        .collect();
    let mut ids: Vec<&str> = operations.iter().filter_map(|operation| operation["operationId"].as_str()).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "operation ids are unique");
}

#[test]
fn descriptions_stand_where_there_are_some() {
    let document = parsed(documents().v3("api/v1").expect("a document"));
    let pod = &document["components"]["schemas"]["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["description"], "A pod.");
    assert_eq!(pod["properties"]["spec"]["description"], "Its spec.");
    assert!(document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"].get("description").is_none());
}

#[test]
fn custom_resources_are_published_too() {
    let document = parsed(documents().v3("apis/example.dev/v1").expect("a document"));
    let backup = &document["components"]["schemas"]["dev.example.v1.Backup"];
    assert_eq!(backup["properties"]["spec"]["properties"]["schedule"]["type"], "string");
    assert_eq!(backup["x-kubernetes-group-version-kind"][0]["kind"], "Backup");
}
