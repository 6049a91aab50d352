//! The table of resource kinds: everything that tells one kind from another is a row of it.
//!
//! The generic handler ([`crate::handler`]) knows no kind; it looks up the row and does what it says. Built-in rows stand in
//! [`crate::kinds`]; a CustomResourceDefinition adds one at run time.

use crate::status::{FieldError, Status};
use async_trait::async_trait;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use store::{Compare, Operation, Store};

/// Text of a row: constant for built-in kinds.
pub type Text = Cow<'static, str>;

/// One resource kind.
#[derive(Clone)]
pub struct ResourceKind {
    /// API group; `""` is core.
    pub group: Text,
    /// API version such as `v1`.
    pub version: Text,
    /// Kind such as `Deployment`.
    pub kind: Text,
    /// Plural name in paths such as `deployments`.
    pub plural: Text,
    /// Singular name such as `deployment`.
    pub singular: Text,
    /// `kubectl get deploy`.
    pub short_names: Vec<Text>,
    /// Such as `all`.
    pub categories: Vec<Text>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Verbs as discovery names them; a virtual resource (TokenReview) has only `create`.
    pub verbs: Vec<Text>,
    /// Subresources such as `status`, `scale`, `log`.
    pub subresources: Vec<Subresource>,
    /// Columns of the Table form, after which `row` gives the cells.
    pub columns: Vec<Column>,
    /// The cells of one object, in the order of `columns`; `now` for ages.
    pub row: fn(&ResourceKind, &Value, now: jiff::Timestamp) -> Vec<Value>,
    /// Fills in what the user left out.
    pub default: fn(&ResourceKind, &mut Value),
    /// Everything that is wrong with `new` (`old`: what stands there now, for an update).
    pub validate: fn(&ResourceKind, new: &Value, old: Option<&Value>) -> Vec<FieldError>,
    /// What a write may not touch: called after decoding and before defaulting and validation. On create it drops `status` where the
    /// kind has that subresource; on update it carries over what is immutable from clients' side.
    pub prepare: fn(&ResourceKind, new: &mut Value, old: Option<&Value>, subresource: &str),
    /// Whether a spec change counts up `metadata.generation`.
    pub generation: bool,
    /// Fields for field selectors beside metadata.name and metadata.namespace: path as the user writes it.
    pub selectable_fields: Vec<Text>,
    /// Further writes in the same transaction: address and port allocation.
    pub companion: Option<Arc<dyn Companion>>,
    /// Object is removed at once by default, or marked with deletionTimestamp and removed by its kubelet (pods).
    pub graceful_deletion: bool,
}

/// A subresource of a kind, as discovery shows it.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// Name such as `status`.
    pub name: Text,
    /// Kind of its body such as `Scale`.
    pub kind: Text,
    /// Group and version of the body's kind if they are not the parent's.
    pub group_version: Option<(Text, Text)>,
    /// Verbs.
    pub verbs: Vec<Text>,
}

/// A column of the Table form (`metav1.TableColumnDefinition`).
#[derive(Clone, Debug)]
pub struct Column {
    /// Header.
    pub name: Text,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: Text,
    /// `name` for the name column, else empty.
    pub format: Text,
    /// 0 always shown, 1 only with `-o wide`.
    pub priority: i32,
}

/// Writes that belong to another object's write.
#[async_trait]
pub trait Companion: Send + Sync {
    /// Changes `new` (allocated addresses) and says what else has to be written, under which conditions. Called anew when the
    /// transaction loses a race. `old` is `None` on create, `new` is `None` on delete. With `dry_run` plausible values are enough.
    async fn writes(
        &self,
        store: &dyn Store,
        old: Option<&Value>,
        new: Option<&mut Value>,
        dry_run: bool,
    ) -> Result<(Vec<Compare>, Vec<Operation>), Status>;
}

impl std::fmt::Debug for ResourceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}", self.group, self.version, self.kind)
    }
}

impl ResourceKind {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Where the objects of this kind stand in the store: `/registry/<plural>.<group>/` (no group for core), then
    /// `<namespace>/` if there is one, then the name.
    pub fn prefix(&self) -> String {
        if self.group.is_empty() {
            format!("/registry/{}/", self.plural)
        } else {
            format!("/registry/{}.{}/", self.plural, self.group)
        }
    }

    /// The key of one object.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced {
            format!("{}{namespace}/{name}", self.prefix())
        } else {
            format!("{}{name}", self.prefix())
        }
    }
}

/// All rows, looked up by path and by kind.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    by_resource: HashMap<(String, String, String), Arc<ResourceKind>>,
    order: Vec<Arc<ResourceKind>>,
}

impl Registry {
    /// A registry of these rows; discovery keeps their order.
    pub fn new(kinds: impl IntoIterator<Item = ResourceKind>) -> Self {
        let mut registry = Registry::default();
        for kind in kinds {
            registry.insert(kind);
        }
        registry
    }

    /// Adds or replaces a row.
    pub fn insert(&mut self, kind: ResourceKind) {
        let kind = Arc::new(kind);
        let key = (kind.group.to_string(), kind.version.to_string(), kind.plural.to_string());
        if self.by_resource.insert(key, kind.clone()).is_some() {
            self.order.retain(|known| {
                (&known.group, &known.version, &known.plural) != (&kind.group, &kind.version, &kind.plural)
            });
        }
        self.order.push(kind);
    }

    /// The row of a path.
    pub fn lookup(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<ResourceKind>> {
        self.by_resource.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// The row of a kind.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<ResourceKind>> {
        self.order.iter().find(|row| row.group == group && row.version == version && row.kind == kind)
    }

    /// Every row, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ResourceKind>> {
        self.order.iter()
    }
}
