//! The types and paths as OpenAPI documents: `/openapi/v3`, `/openapi/v3/apis/GROUP/VERSION`, `/openapi/v2`.
//!
//! The generic handler keeps one [`Documents`] per registry and serves its bytes; a changed registry gets new ones. A document is
//! made when it is first asked for. `kubectl apply`, `create`, `explain` and `diff` read v3: the PATCH operations for their
//! content types and the `fieldValidation` parameter, the schemas for their merge extensions.
//!
//! Follows OpenAPI 3.0 and KEP-2896. Descriptions are left out unless the caller has some, or the cargo feature `descriptions` is on.

mod message;
mod paths;
mod schemas;

#[cfg(test)]
mod tests;

use super::table;
use super::types::{Field, Object, ObjectRef, Schemas, Type};
use crate::registry::{Registry, ResourceKind};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512_256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

/// A document as it is served.
#[derive(Clone, Debug)]
pub struct Document {
    /// JSON, or what else the method that gives it says.
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
    v2_message: OnceLock<Document>,
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
        Documents {
            schemas,
            describe,
            version,
            groups,
            index: OnceLock::new(),
            v2: OnceLock::new(),
            v2_message: OnceLock::new(),
        }
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
        self.v2.get_or_init(|| content(self.whole().to_string().into()))
    }

    /// The same as a protobuf message (gnostic's `openapi.v2.Document`).
    pub fn v2_message(&self) -> &Document {
        self.v2_message.get_or_init(|| content(message::encode(&self.whole()).into()))
    }

    fn whole(&self) -> Value {
        let mut writer = Writer::new(Dialect::V2, self);
        let mut paths = Map::new();
        for group in self.groups.values() {
            paths.append(&mut writer.paths(&group.kinds));
        }
        json!({
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": self.version},
            "paths": paths,
            "definitions": writer.definitions(),
        })
    }
}

/// A document whose hash is that of its bytes.
fn content(body: Bytes) -> Document {
    Document { hash: hex(&Sha512_256::digest(&body)), body }
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
        .map(|field| {
            let Field { name, required, ty, default, keywords, .. } = field;
            format!("{name} {required} {} {default:?} {keywords:?}", of(ty))
        })
        .collect();
    format!("{} {} {} {:?} {fields:?}", object.name, object.open, object.atomic, object.keywords)
}

/// Writes paths, and remembers which objects they need.
struct Writer<'a> {
    dialect: Dialect,
    documents: &'a Documents,
    seen: BTreeSet<String>,
    waiting: Vec<ObjectRef>,
    kinds: HashMap<String, Vec<Value>>,
}

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "kind": kind, "version": version})
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
