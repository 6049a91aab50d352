//! The types and paths as OpenAPI documents: `/openapi/v3`, `/openapi/v3/apis/GROUP/VERSION`, `/openapi/v2`.
//!
//! The generic handler keeps one [`Documents`] per registry and serves its bytes; a changed registry gets new ones. A document is
//! made when it is first asked for. `kubectl apply`, `create`, `explain` and `diff` read v3: the PATCH operations for their
//! content types and the `fieldValidation` parameter, the schemas for their merge extensions.
//!
//! Follows OpenAPI 3.0 and KEP-2896. Descriptions are left out unless the caller has some, or the cargo feature `descriptions` is on.

use super::table;
use super::types::{Field, ListKind, Object, ObjectRef, SchemaOr, Schemas, Type};
use crate::registry::{Registry, ResourceKind};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512_256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

/// A document as it is served.
#[derive(Clone, Debug)]
pub struct Document {
    /// JSON.
    pub body: Bytes,
    /// Changes with the content; for the `ETag` header (in quotes) and the `hash` parameter.
    pub hash: String,
}

/// Gives the description of an object (`None`) or of one of its fields; names as in [`Object::name`].
pub type Describe = dyn Fn(&str, Option<&str>) -> Option<String> + Send + Sync;

/// All documents of a registry.
pub struct Documents {
    schemas: Arc<Schemas>,
    describe: Option<Arc<Describe>>,
    version: String,
    groups: BTreeMap<String, Group>,
    index: OnceLock<Document>,
    v2: OnceLock<Document>,
}

struct Group {
    kinds: Vec<Arc<ResourceKind>>,
    hash: String,
    document: OnceLock<Document>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

impl std::fmt::Debug for Documents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Documents").field("groups", &self.groups.keys()).finish_non_exhaustive()
    }
}

impl Documents {
    /// The documents of these kinds; `version` is the server's, such as `v1.36.0`. Without `describe`, the built-in
    /// descriptions are taken if the feature `descriptions` is on.
    pub fn new(registry: &Registry, schemas: Arc<Schemas>, version: &str, describe: Option<Arc<Describe>>) -> Self {
        let describe = describe.or_else(built_in_descriptions);
        let mut by_path: BTreeMap<String, Vec<Arc<ResourceKind>>> = BTreeMap::new();
        for kind in registry.iter() {
            by_path.entry(group_path(&kind.group, &kind.version)).or_default().push(kind.clone());
        }
        let groups = by_path
            .into_iter()
            .map(|(path, kinds)| {
                let hash = input_hash(version, &kinds, &schemas, describe.is_some());
                (path, Group { kinds, hash, document: OnceLock::new() })
            })
            .collect();
        let version = version.to_owned();
        Documents { schemas, describe, version, groups, index: OnceLock::new(), v2: OnceLock::new() }
    }

    /// `/openapi/v3`: where the documents are, each with its hash.
    pub fn index(&self) -> &Document {
        self.index.get_or_init(|| {
            let mut paths = Map::new();
            for (path, group) in &self.groups {
                let url = format!("/openapi/v3/{path}?hash={}", group.hash);
                paths.insert(path.clone(), json!({"serverRelativeURL": url}));
            }
            let body = Bytes::from(json!({"paths": paths}).to_string());
            Document { hash: hex(&Sha512_256::digest(&body)), body }
        })
    }

    /// The v3 document of `api/v1` or `apis/GROUP/VERSION`.
    pub fn v3(&self, path: &str) -> Option<&Document> {
        let group = self.groups.get(path)?;
        Some(group.document.get_or_init(|| {
            let mut writer = Writer::new(Dialect::V3, self);
            let paths = writer.paths(&group.kinds);
            let document = json!({
                "openapi": "3.0.0",
                "info": {"title": "Kubernetes", "version": self.version},
                "paths": paths,
                "components": {"schemas": writer.definitions()},
            });
            Document { body: document.to_string().into(), hash: group.hash.clone() }
        }))
    }

    /// `/openapi/v2`: everything in one document, as JSON.
    pub fn v2(&self) -> &Document {
        self.v2.get_or_init(|| {
            let mut writer = Writer::new(Dialect::V2, self);
            let mut paths = Map::new();
            for group in self.groups.values() {
                paths.append(&mut writer.paths(&group.kinds));
            }
            let document = json!({
                "swagger": "2.0",
                "info": {"title": "Kubernetes", "version": self.version},
                "paths": paths,
                "definitions": writer.definitions(),
            });
            let body = Bytes::from(document.to_string());
            Document { hash: hex(&Sha512_256::digest(&body)), body }
        })
    }
}

#[cfg(feature = "descriptions")]
fn built_in_descriptions() -> Option<Arc<Describe>> {
    Some(super::descriptions::describe())
}

#[cfg(not(feature = "descriptions"))]
fn built_in_descriptions() -> Option<Arc<Describe>> {
    None
}

fn group_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The hash of what a document is made of, so that the index needs no documents.
fn input_hash(version: &str, kinds: &[Arc<ResourceKind>], schemas: &Schemas, described: bool) -> String {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    let table = TABLE.get_or_init(|| Sha512_256::digest(table::TEXT).to_vec());
    let mut hash = Sha512_256::new();
    hash.update(table);
    hash.update(format!("{} {version} {described}", env!("CARGO_PKG_VERSION")));
    for kind in kinds {
        let row =
            (&kind.group, &kind.version, &kind.kind, &kind.plural, kind.namespaced, &kind.verbs, &kind.subresources);
        hash.update(format!("{row:?}"));
        if let Some(ObjectRef::Own(object)) = schemas.lookup(&kind.group, &kind.version, &kind.kind) {
            hash.update(fingerprint(&object));
        }
    }
    hex(&hash.finalize())
}

/// What of a custom resource's type is published.
fn fingerprint(object: &Object) -> String {
    fn of(ty: &Type) -> String {
        match ty {
            Type::Object { schema: ObjectRef::Own(object), .. } => fingerprint(object),
            Type::List(list) => format!("[{:?} {}]", list.kind, of(&list.element)),
            Type::Map(map) => format!("{{{}}}", of(&map.element)),
            other => format!("{other:?}"),
        }
    }
    let fields: Vec<String> = object
        .fields
        .iter()
        .map(|field| format!("{} {} {} {:?}", field.name, field.required, of(&field.ty), field.default))
        .collect();
    format!("{} {} {} {fields:?}", object.name, object.open, object.atomic)
}

/// Writes paths, and remembers which objects they need.
struct Writer<'a> {
    dialect: Dialect,
    documents: &'a Documents,
    seen: BTreeSet<String>,
    waiting: Vec<ObjectRef>,
    kinds: HashMap<String, Vec<Value>>,
}

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
    fn new(dialect: Dialect, documents: &'a Documents) -> Self {
        Writer { dialect, documents, seen: BTreeSet::new(), waiting: Vec::new(), kinds: HashMap::new() }
    }

    fn paths(&mut self, kinds: &[Arc<ResourceKind>]) -> Map<String, Value> {
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
        match self.dialect {
            Dialect::V2 => {
                if let Some(schema) = body.or_else(|| patch.clone()) {
                    parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": schema}));
                }
                if patch.is_some() {
                    value["consumes"] = PATCH_TYPES.as_slice().into();
                }
                let mut ok = json!({"description": "OK"});
                if let Some(schema) = answer {
                    ok["schema"] = schema;
                }
                value["responses"] = json!({"200": ok});
                value["produces"] = json!(["application/json"]);
            }
            Dialect::V3 => {
                let types: &[&str] = if patch.is_some() { &PATCH_TYPES } else { &["application/json"] };
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

    fn reference(&mut self, object: &ObjectRef) -> Value {
        let name = full_name(&object.name);
        let place = if self.dialect == Dialect::V2 { "definitions" } else { "components/schemas" };
        let reference = json!({"$ref": format!("#/{place}/{name}")});
        if self.seen.insert(name) {
            self.waiting.push(object.clone());
        }
        reference
    }

    /// The objects that paths and other objects refer to.
    fn definitions(&mut self) -> Map<String, Value> {
        let mut definitions = Map::new();
        while let Some(object) = self.waiting.pop() {
            let definition = self.object(&object);
            definitions.insert(full_name(&object.name), definition);
        }
        definitions
    }

    fn object(&mut self, object: &Object) -> Value {
        let mut value = json!({"type": "object"});
        if let Some(text) = self.described(object, None) {
            value["description"] = text.into();
        }
        let mut properties = Map::new();
        for field in &object.fields {
            properties.insert(field.name.to_string(), self.property(object, field));
        }
        if !properties.is_empty() {
            value["properties"] = Value::Object(properties);
        }
        let required: Vec<&str> =
            object.fields.iter().filter(|field| field.required).map(|field| field.name.as_ref()).collect();
        if !required.is_empty() {
            value["required"] = required.into();
        }
        if object.atomic {
            value["x-kubernetes-map-type"] = "atomic".into();
        }
        if object.open {
            value["x-kubernetes-preserve-unknown-fields"] = true.into();
        }
        let kinds: Vec<Value> = match self.kinds.get(object.name.as_ref()) {
            Some(kinds) => kinds.clone(),
            None => object
                .kinds
                .iter()
                .filter_map(|kind| {
                    let mut words = kind.split('/');
                    Some(gvk(words.next()?, words.next()?, words.next()?))
                })
                .collect(),
        };
        if !kinds.is_empty() {
            value["x-kubernetes-group-version-kind"] = kinds.into();
        }
        value
    }

    fn property(&mut self, object: &Object, field: &Field) -> Value {
        let mut value = self.type_of(&field.ty);
        let text = self.described(object, Some(&field.name));
        // Nothing may stand beside a reference in OpenAPI 3.0.
        if self.dialect == Dialect::V3 && value.get("$ref").is_some() {
            value = json!({"allOf": [value]});
            if field.is_value_struct() {
                value["default"] = json!({});
            }
        }
        if let Some(text) = text {
            value["description"] = text.into();
        }
        if let Some(default) = &field.default {
            value["default"] = default.clone();
        }
        if matches!(&field.ty, Type::Object { atomic: true, .. }) {
            value["x-kubernetes-map-type"] = "atomic".into();
        }
        let strategies: Vec<&str> = [
            (field.strategy.merge, "merge"),
            (field.strategy.replace, "replace"),
            (field.strategy.retain_keys, "retainKeys"),
        ]
        .into_iter()
        .filter_map(|(set, name)| set.then_some(name))
        .collect();
        if !strategies.is_empty() {
            value["x-kubernetes-patch-strategy"] = strategies.join(",").into();
        }
        if let Some(key) = &field.merge_key {
            value["x-kubernetes-patch-merge-key"] = key.as_ref().into();
        }
        value
    }

    fn type_of(&mut self, ty: &Type) -> Value {
        match ty {
            Type::String => json!({"type": "string"}),
            Type::Int32 => json!({"type": "integer", "format": "int32"}),
            Type::Int64 => json!({"type": "integer", "format": "int64"}),
            Type::Bool => json!({"type": "boolean"}),
            Type::Double => json!({"type": "number", "format": "double"}),
            Type::Bytes => json!({"type": "string", "format": "byte"}),
            Type::Time | Type::MicroTime => json!({"type": "string", "format": "date-time"}),
            Type::Duration => json!({"type": "string"}),
            Type::Quantity if self.dialect == Dialect::V3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            Type::Quantity => json!({"type": "string"}),
            Type::IntOrString if self.dialect == Dialect::V3 => {
                json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"})
            }
            Type::IntOrString => json!({"type": "string", "format": "int-or-string"}),
            Type::Raw | Type::FieldsV1 => json!({"type": "object"}),
            Type::Any => json!({"x-kubernetes-preserve-unknown-fields": true}),
            Type::SchemaOr(SchemaOr::Array | SchemaOr::Bool | SchemaOr::StringArray) => json!({}),
            Type::Object { schema, .. } => match schema {
                ObjectRef::Builtin(_) => self.reference(schema),
                // Custom resources have no named parts.
                ObjectRef::Own(object) => self.object(object),
            },
            Type::List(list) => {
                let mut items = self.type_of(&list.element);
                if self.dialect == Dialect::V3 && items.get("$ref").is_some() {
                    items = json!({"allOf": [items], "default": {}});
                }
                let mut value = json!({"type": "array", "items": items});
                value["x-kubernetes-list-type"] = match &list.kind {
                    ListKind::Atomic => "atomic".into(),
                    ListKind::Set => "set".into(),
                    ListKind::Map(keys) => {
                        let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
                        value["x-kubernetes-list-map-keys"] = keys.into();
                        "map".into()
                    }
                };
                value
            }
            Type::Map(map) => {
                let mut element = self.type_of(&map.element);
                if self.dialect == Dialect::V3 && element.get("$ref").is_some() {
                    element = json!({"allOf": [element], "default": {}});
                }
                let mut value = json!({"type": "object", "additionalProperties": element});
                if map.atomic {
                    value["x-kubernetes-map-type"] = "atomic".into();
                }
                value
            }
        }
    }

    fn described(&self, object: &Object, field: Option<&str>) -> Option<String> {
        self.documents.describe.as_ref()?(&object.name, field)
    }
}

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "kind": kind, "version": version})
}

fn full_name(name: &str) -> String {
    let builtin = ["api.", "apimachinery.", "apiextensions-apiserver.", "kube-aggregator.", "metrics."];
    if builtin.iter().any(|prefix| name.starts_with(prefix)) { format!("io.k8s.{name}") } else { name.to_owned() }
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// `Core`, or the group's first word: `Apps`.
fn tag(kind: &ResourceKind) -> String {
    if kind.group.is_empty() { "Core".to_owned() } else { capitalized(kind.group.split('.').next().unwrap_or("")) }
}

#[cfg(test)]
mod tests {
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
            ("/api/v1/pods", &["get"][..]),
            ("/api/v1/namespaces/{namespace}/pods", &["delete", "get", "parameters", "post"]),
            ("/api/v1/namespaces/{namespace}/pods/{name}", &["delete", "get", "parameters", "patch", "put"]),
            ("/api/v1/namespaces/{namespace}/pods/{name}/exec", &["get", "parameters", "post"]),
            ("/api/v1/namespaces/{namespace}/pods/{name}/eviction", &["parameters", "post"]),
            ("/api/v1/namespaces", &["delete", "get", "post"]),
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
}
