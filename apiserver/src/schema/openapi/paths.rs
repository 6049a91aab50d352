//! The paths of a kind: its operations, their parameters, bodies and answers.

use super::super::table;
use super::super::types::{ObjectRef, Type};
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
const DELETE_COLLECTION_PARAMETERS: [(&str, &str); 12] = [
    ("continue", "string"),
    ("dryRun", "string"),
    ("fieldSelector", "string"),
    ("gracePeriodSeconds", "integer"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
];
const DELETE_PARAMETERS: [(&str, &str); 4] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

/// What `pods/log` takes; its kind in discovery is that of its parent.
const LOG_PARAMETERS: [(&str, &str); 9] = [
    ("container", "string"),
    ("follow", "boolean"),
    ("insecureSkipTLSVerifyBackend", "boolean"),
    ("limitBytes", "integer"),
    ("previous", "boolean"),
    ("sinceSeconds", "integer"),
    ("sinceTime", "string"),
    ("tailLines", "integer"),
    ("timestamps", "boolean"),
];

/// What a parameter means.
fn meaning(parameter: &str) -> &'static str {
    match parameter {
        "allowWatchBookmarks" => "Whether a watch may send events of type BOOKMARK.",
        "command" => "The program and its arguments, one value each.",
        "container" => "Name of the container; may be left out if there is one.",
        "continue" => "The token of the page before, for the page after it.",
        "dryRun" => "With the value All everything is done but the write.",
        "fieldManager" => "Who will own the fields that are written.",
        "fieldSelector" => "Only objects whose fields have these values.",
        "fieldValidation" => "What is done about unknown and duplicate fields: Ignore, Warn or Strict.",
        "follow" => "Whether the log is followed to its end.",
        "force" => "Whether an apply takes fields that others own.",
        "gracePeriodSeconds" => "How long the object is given to end, in seconds; 0 is at once.",
        "insecureSkipTLSVerifyBackend" => "Whether the node's certificate is believed unseen.",
        "labelSelector" => "Only objects with these labels.",
        "limit" => "At most so many objects in one answer.",
        "limitBytes" => "At most so many bytes of the log.",
        "name" => "Name of the object.",
        "namespace" => "Namespace of the object.",
        "orphanDependents" => "Given up; see propagationPolicy.",
        "path" => "The path that is asked for behind the proxy.",
        "ports" => "Ports that are forwarded.",
        "pretty" => "Whether the answer is indented.",
        "previous" => "Whether the log is that of the container before its last restart.",
        "propagationPolicy" => "What becomes of dependents: Orphan, Background or Foreground.",
        "resourceVersion" => "The version that is asked for; see resourceVersionMatch.",
        "resourceVersionMatch" => "How resourceVersion is meant: Exact or NotOlderThan.",
        "sendInitialEvents" => "Whether a watch begins with what is there.",
        "sinceSeconds" => "Only what was written in the last seconds.",
        "sinceTime" => "Only what was written since this time.",
        "stderr" => "Whether standard error is connected.",
        "stdin" => "Whether standard input is connected.",
        "stdout" => "Whether standard output is connected.",
        "tailLines" => "Only so many lines from the end.",
        "timeoutSeconds" => "How long a list or watch may take, in seconds.",
        "timestamps" => "Whether each line begins with its time.",
        "tty" => "Whether a terminal is given.",
        "watch" => "Whether changes follow what is there.",
        _ => "",
    }
}

/// One operation of a path.
struct Operation<'a> {
    method: &'a str,
    action: &'a str,
    body: Option<&'a ObjectRef>,
    answer: Option<&'a ObjectRef>,
    parameters: &'a [(&'a str, &'a str)],
    /// What may be answered in place of a `Status`.
    instead: Option<&'a ObjectRef>,
}

impl<'a> Operation<'a> {
    fn new(
        method: &'a str,
        action: &'a str,
        body: Option<&'a ObjectRef>,
        answer: Option<&'a ObjectRef>,
        parameters: &'a [(&'a str, &'a str)],
    ) -> Self {
        Operation { method, action, body, answer, parameters, instead: None }
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
            let parameters = &DELETE_COLLECTION_PARAMETERS[..];
            let delete = Operation::new("delete", "deletecollection", body, status.as_ref(), parameters);
            collection.push(Operation { instead: list, ..delete });
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
            let body = delete_options.as_ref();
            let delete = Operation::new("delete", "delete", body, status.as_ref(), &DELETE_PARAMETERS[..]);
            item.push(Operation { instead: object, ..delete });
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
            let options = connection_parameters(object);
            let mut operations = Vec::new();
            for verb in &sub.verbs {
                let method = match verb.as_ref() {
                    "create" => "post",
                    "update" => "put",
                    verb => verb,
                };
                match verb.as_ref() {
                    _ if connects => operations.push(Operation::new(method, "connect", None, None, &options)),
                    "get" if sub.name == "log" => {
                        operations.push(Operation::new("get", "get", None, None, &LOG_PARAMETERS[..]));
                    }
                    "get" => operations.push(Operation::new("get", "get", None, object, &[][..])),
                    "create" => operations.push(Operation::new("post", "post", object, object, &WRITE_PARAMETERS[..])),
                    "update" => operations.push(Operation::new("put", "put", object, object, &WRITE_PARAMETERS[..])),
                    "patch" => operations.push(Operation::new("patch", "patch", None, object, &APPLY_PARAMETERS[..])),
                    _ => {}
                }
            }
            let path = format!("{item_path}/{}", sub.name);
            self.put_path(paths, path.clone(), kind, &capitalized(&sub.name), &gvk, &operations);
            if sub.name == "proxy" {
                let suffix = format!("{}WithPath", capitalized(&sub.name));
                self.put_path(paths, format!("{path}/{{path}}"), kind, &suffix, &gvk, &operations);
            }
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
            value["description"] = sentence(operation, kind, suffix).into();
            value["tags"] = json!([group_tag(kind)]);
            item.insert(operation.method.to_owned(), value);
        }
        let mut shared: Vec<Value> = ["name", "namespace", "path"]
            .iter()
            .filter(|name| path.contains(&format!("{{{name}}}")))
            .map(|name| self.parameter(name, "string", "path"))
            .collect();
        if operations.iter().any(|operation| operation.action != "connect") {
            shared.push(self.parameter("pretty", "string", "query"));
        }
        if !shared.is_empty() {
            item.insert("parameters".to_owned(), shared.into());
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
        let mut answer = operation.answer.map(|answer| self.reference(answer));
        if let (Dialect::V3, Some(object), Some(status)) = (self.dialect, operation.instead, &answer) {
            // What is not gone at once is answered as it is left.
            answer = Some(json!({"anyOf": [status, self.reference(object)]}));
        }
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
                value["produces"] = json!(["application/json", "application/yaml"]);
            }
            Dialect::V3 => {
                let types: &[&str] = if patch.is_some() { patch_types } else { &["application/json"] };
                if let Some(schema) = body.or(patch) {
                    let content: Map<String, Value> =
                        types.iter().map(|name| ((*name).to_owned(), json!({"schema": schema}))).collect();
                    value["requestBody"] = json!({"content": content, "required": operation.action != "delete" && operation.action != "deletecollection"});
                }
            }
        }
        value["responses"] = self.responses(operation, answer);
        if !parameters.is_empty() {
            value["parameters"] = parameters.into();
        }
        value
    }

    /// What may be answered. Unlike upstream, which leaves them out, the document says that all failures are a `Status`.
    fn responses(&mut self, operation: &Operation<'_>, answer: Option<Value>) -> Value {
        let codes: &[(&str, &str)] = match (operation.action, operation.method) {
            ("post", _) => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
            ("put" | "patch", _) => &[("200", "OK"), ("201", "Created")],
            ("delete", _) => &[("200", "OK"), ("202", "Accepted")],
            _ => &[("200", "OK")],
        };
        let status = table::builtin().named(STATUS).map(|status| self.reference(&status));
        let mut responses = Map::new();
        for (code, description) in codes {
            let mut response = json!({"description": description});
            match (self.dialect, answer.clone()) {
                (Dialect::V2, Some(schema)) => response["schema"] = schema,
                (Dialect::V3, Some(schema)) => {
                    let content = |schema: &Value| json!({"schema": schema});
                    response["content"] =
                        json!({"application/json": content(&schema), "application/yaml": content(&schema)});
                }
                (_, None) if operation.action == "get" => {
                    let text = json!({"type": "string"});
                    match self.dialect {
                        Dialect::V2 => response["schema"] = text,
                        Dialect::V3 => response["content"] = json!({"text/plain": {"schema": text}}),
                    }
                }
                (_, None) => {}
            }
            responses.insert((*code).to_owned(), response);
        }
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        if let (Some(status), false) = (status, operation.action == "connect") {
            let mut failure = json!({"description": "Failure: why, as a Status"});
            match self.dialect {
                Dialect::V2 => failure["schema"] = status,
                Dialect::V3 => failure["content"] = json!({"application/json": {"schema": status}}),
            }
            responses.insert("default".to_owned(), failure);
        }
        Value::Object(responses)
    }

    fn parameter(&self, name: &str, ty: &str, place: &str) -> Value {
        let mut value = json!({"name": name, "in": place});
        if !meaning(name).is_empty() {
            value["description"] = meaning(name).into();
        }
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

/// The fields of `PodExecOptions` and the like, which stand in the query.
fn connection_parameters(options: Option<&ObjectRef>) -> Vec<(&str, &str)> {
    let fields = options.into_iter().flat_map(|options| options.fields.iter());
    fields
        .filter(|field| !matches!(field.name.as_ref(), "apiVersion" | "kind" | "metadata"))
        .map(|field| {
            let ty = match &field.ty {
                Type::Bool => "boolean",
                Type::Int32 | Type::Int64 => "integer",
                Type::List(list) if matches!(list.element, Type::Int32) => "integer",
                _ => "string",
            };
            (field.name.as_ref(), ty)
        })
        .collect()
}

/// What an operation does.
fn sentence(operation: &Operation<'_>, kind: &ResourceKind, suffix: &str) -> String {
    let (name, of) = (&kind.kind, if suffix.is_empty() || suffix == "ForAllNamespaces" { "" } else { suffix });
    let part = if of.is_empty() { String::new() } else { format!("{} of ", of.to_lowercase()) };
    match operation.action {
        "list" => format!("list or watch objects of kind {name}"),
        "deletecollection" => format!("delete a collection of {name}"),
        "post" => format!("create {part}a {name}"),
        "put" => format!("replace {part}the specified {name}"),
        "patch" => format!("partially update {part}the specified {name}"),
        "connect" => format!("connect {} requests to {part}{name}", operation.method.to_uppercase()),
        action => format!("{} {part}the specified {name}", if action == "get" { "read" } else { action }),
    }
}

/// `core_v1`, `apps_v1`: by which clients' generators sort operations.
fn group_tag(kind: &ResourceKind) -> String {
    let group = if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or_default() };
    format!("{group}_{}", kind.version)
}

/// `Core`, or the group's first word: `Apps`.
fn tag(kind: &ResourceKind) -> String {
    if kind.group.is_empty() { "Core".to_owned() } else { capitalized(kind.group.split('.').next().unwrap_or("")) }
}
