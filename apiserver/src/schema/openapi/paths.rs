//! The paths of a kind: its operations, their parameters, bodies and answers.

use super::super::table;
use super::super::types::ObjectRef;
use super::{Dialect, Documents, Writer, capitalized, group_path, gvk};
use crate::registry::ResourceKind;
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

const DELETE_OPTIONS: &str = "apimachinery.pkg.apis.meta.v1.DeleteOptions";
const STATUS: &str = "apimachinery.pkg.apis.meta.v1.Status";

const PATCH_TYPES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

const LIST_PARAMETERS: [(&str, &str); 10] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE_PARAMETERS: [(&str, &str); 3] =
    [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const APPLY_PARAMETERS: [(&str, &str); 4] =
    [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];
const DELETE_PARAMETERS: [(&str, &str); 4] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

/// One operation of a path.
struct Operation<'a> {
    method: &'a str,
    action: &'a str,
    body: Option<&'a ObjectRef>,
    answer: Option<&'a ObjectRef>,
    parameters: &'a [(&'a str, &'a str)],
}

impl<'a> Operation<'a> {
    fn new(
        method: &'a str,
        action: &'a str,
        body: Option<&'a ObjectRef>,
        answer: Option<&'a ObjectRef>,
        parameters: &'a [(&'a str, &'a str)],
    ) -> Self {
        Operation { method, action, body, answer, parameters }
    }
}

impl<'a> Writer<'a> {
    pub(super) fn new(dialect: Dialect, documents: &'a Documents) -> Self {
        Writer { dialect, documents, seen: BTreeSet::new(), waiting: Vec::new(), kinds: HashMap::new() }
    }

    pub(super) fn paths(&mut self, kinds: &[Arc<ResourceKind>]) -> Map<String, Value> {
        let mut paths = Map::new();
        for kind in kinds {
            self.kind_paths(kind, &mut paths);
        }
        paths
    }

    fn kind_paths(&mut self, kind: &ResourceKind, paths: &mut Map<String, Value>) {
        let schemas = self.documents.schemas.clone();
        let object = schemas.lookup(&kind.group, &kind.version, &kind.kind);
        let list = schemas.lookup(&kind.group, &kind.version, &format!("{}List", kind.kind));
        let builtin = |name| table::builtin().named(name);
        let (delete_options, status) = (builtin(DELETE_OPTIONS), builtin(STATUS));
        let has = |verb: &str| kind.verbs.iter().any(|known| known == verb);
        let base = format!("/{}", group_path(&kind.group, &kind.version));
        let home = if kind.namespaced { format!("{base}/namespaces/{{namespace}}") } else { base.clone() };
        let gvk = gvk(&kind.group, &kind.version, &kind.kind);
        if let Some(ObjectRef::Own(object)) = &object {
            self.kinds.insert(object.name.to_string(), vec![gvk.clone()]);
        }
        if let Some(ObjectRef::Own(list)) = &list {
            let list_gvk = self::gvk(&kind.group, &kind.version, &format!("{}List", kind.kind));
            self.kinds.insert(list.name.to_string(), vec![list_gvk]);
        }
        let (object, list) = (object.as_ref(), list.as_ref());

        let mut collection = Vec::new();
        if has("list") {
            collection.push(Operation::new("get", "list", None, list, &LIST_PARAMETERS[..]));
        }
        if has("create") {
            collection.push(Operation::new("post", "post", object, object, &WRITE_PARAMETERS[..]));
        }
        if has("deletecollection") {
            let body = delete_options.as_ref();
            collection.push(Operation::new(
                "delete",
                "deletecollection",
                body,
                status.as_ref(),
                &DELETE_PARAMETERS[..],
            ));
        }
        self.put_path(paths, format!("{home}/{}", kind.plural), kind, "", &gvk, &collection);
        if kind.namespaced && has("list") {
            let all = [Operation::new("get", "list", None, list, &LIST_PARAMETERS[..])];
            self.put_path(paths, format!("{base}/{}", kind.plural), kind, "ForAllNamespaces", &gvk, &all);
        }

        let mut item = Vec::new();
        if has("get") {
            item.push(Operation::new("get", "get", None, object, &[][..]));
        }
        if has("update") {
            item.push(Operation::new("put", "put", object, object, &WRITE_PARAMETERS[..]));
        }
        if has("patch") {
            item.push(Operation::new("patch", "patch", None, object, &APPLY_PARAMETERS[..]));
        }
        if has("delete") {
            item.push(Operation::new(
                "delete",
                "delete",
                delete_options.as_ref(),
                status.as_ref(),
                &DELETE_PARAMETERS[..],
            ));
        }
        let item_path = format!("{home}/{}/{{name}}", kind.plural);
        self.put_path(paths, item_path.clone(), kind, "", &gvk, &item);

        for sub in &kind.subresources {
            let (group, version) = match &sub.group_version {
                Some((group, version)) => (group.as_ref(), version.as_ref()),
                None => (kind.group.as_ref(), kind.version.as_ref()),
            };
            let object = schemas.lookup(group, version, &sub.kind);
            let object = object.as_ref();
            let gvk = self::gvk(group, version, &sub.kind);
            let connects = object.is_none_or(|object| object.name.ends_with("Options"));
            let mut operations = Vec::new();
            for verb in &sub.verbs {
                match verb.as_ref() {
                    "get" if connects => operations.push(Operation::new("get", "connect", None, None, &[][..])),
                    "create" if connects => operations.push(Operation::new("post", "connect", None, None, &[][..])),
                    "get" => operations.push(Operation::new("get", "get", None, object, &[][..])),
                    "create" => operations.push(Operation::new("post", "post", object, object, &WRITE_PARAMETERS[..])),
                    "update" => operations.push(Operation::new("put", "put", object, object, &WRITE_PARAMETERS[..])),
                    "patch" => operations.push(Operation::new("patch", "patch", None, object, &APPLY_PARAMETERS[..])),
                    _ => {}
                }
            }
            self.put_path(paths, format!("{item_path}/{}", sub.name), kind, &capitalized(&sub.name), &gvk, &operations);
        }
    }

    fn put_path(
        &mut self,
        paths: &mut Map<String, Value>,
        path: String,
        kind: &ResourceKind,
        suffix: &str,
        gvk: &Value,
        operations: &[Operation<'_>],
    ) {
        if operations.is_empty() {
            return;
        }
        let mut item = Map::new();
        for operation in operations {
            let scope = if kind.namespaced && path.contains("{namespace}") { "Namespaced" } else { "" };
            let verb = if operation.action == "connect" {
                format!("connect{}", capitalized(operation.method))
            } else {
                operation.action.to_owned()
            };
            let id = format!("{verb}{}{}{scope}{}{suffix}", tag(kind), capitalized(&kind.version), kind.kind);
            let mut value = self.operation(operation, gvk);
            value["operationId"] = id.into();
            item.insert(operation.method.to_owned(), value);
        }
        let in_path: Vec<Value> = ["name", "namespace"]
            .iter()
            .filter(|name| path.contains(&format!("{{{name}}}")))
            .map(|name| self.parameter(name, "string", "path"))
            .collect();
        if !in_path.is_empty() {
            item.insert("parameters".to_owned(), in_path.into());
        }
        paths.insert(path, Value::Object(item));
    }

    fn operation(&mut self, operation: &Operation<'_>, gvk: &Value) -> Value {
        let mut value = json!({
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": gvk,
        });
        let mut parameters: Vec<Value> =
            operation.parameters.iter().map(|(name, ty)| self.parameter(name, ty, "query")).collect();
        let answer = operation.answer.map(|answer| self.reference(answer));
        let body = operation.body.map(|body| self.reference(body));
        let patch = (operation.action == "patch").then(|| json!({"type": "object"}));
        // The last one, strategic merge, is not for custom resources.
        let patch_types = match operation.answer {
            Some(ObjectRef::Own(_)) => &PATCH_TYPES[..3],
            _ => &PATCH_TYPES[..],
        };
        match self.dialect {
            Dialect::V2 => {
                if let Some(schema) = body.or_else(|| patch.clone()) {
                    parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": schema}));
                }
                if patch.is_some() {
                    value["consumes"] = patch_types.into();
                }
                let mut ok = json!({"description": "OK"});
                if let Some(schema) = answer {
                    ok["schema"] = schema;
                }
                value["responses"] = json!({"200": ok});
                value["produces"] = json!(["application/json"]);
            }
            Dialect::V3 => {
                let types: &[&str] = if patch.is_some() { patch_types } else { &["application/json"] };
                if let Some(schema) = body.or(patch) {
                    let content: Map<String, Value> =
                        types.iter().map(|name| ((*name).to_owned(), json!({"schema": schema}))).collect();
                    value["requestBody"] = json!({"content": content, "required": operation.action != "delete" && operation.action != "deletecollection"});
                }
                let mut ok = json!({"description": "OK"});
                if let Some(schema) = answer {
                    ok["content"] = json!({"application/json": {"schema": schema}});
                }
                value["responses"] = json!({"200": ok});
            }
        }
        if !parameters.is_empty() {
            value["parameters"] = parameters.into();
        }
        value
    }

    fn parameter(&self, name: &str, ty: &str, place: &str) -> Value {
        let mut value = json!({"name": name, "in": place});
        if place == "path" {
            value["required"] = true.into();
        }
        match self.dialect {
            Dialect::V2 => value["type"] = ty.into(),
            Dialect::V3 => value["schema"] = json!({"type": ty}),
        }
        value
    }
}

/// `Core`, or the group's first word: `Apps`.
fn tag(kind: &ResourceKind) -> String {
    if kind.group.is_empty() { "Core".to_owned() } else { capitalized(kind.group.split('.').next().unwrap_or("")) }
}
