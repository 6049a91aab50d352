//! The table of resource kinds: everything that tells one kind from another is a row of it.
//!
//! The generic handler (`handler`) knows no kind; it looks up the row and does what it says. Built-in rows stand in
//! [`crate::kinds`]; a CustomResourceDefinition adds one at run time.

use crate::kinds;
use crate::schema::ObjectRef;
use crate::status::{FieldError, Status};
use async_trait::async_trait;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use store::{Compare, KeyValue, Operation, Store};

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
    /// What `metadata.name` may look like.
    pub name_rule: NameRule,
    /// Where `/scale` finds its numbers; `None` without that subresource.
    pub scale: Option<ScalePaths>,
    /// What an update may not change although the new object is valid by itself, and what only some subresource may change (a pod's
    /// spec). Asked by [`ResourceKind::errors`] after `validate`.
    pub validate_update: fn(&ResourceKind, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError>,
    /// A second view on another row's objects (`events.k8s.io/v1` on core Events); `None` if the kind stores its own.
    pub view_of: Option<View>,
    /// What a write that is valid is told beside its answer: fields that are deprecated, or that do not mean what they seem to.
    pub warnings: fn(&ResourceKind, new: &Value, old: Option<&Value>) -> Vec<String>,
    /// The type of its objects if the built-in table has none: a custom resource's, by which bodies are checked and documents made.
    pub schema: Option<ObjectRef>,
}

/// What an object's name may look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameRule {
    /// DNS-1123 subdomain, up to 253 characters.
    #[default]
    Subdomain,
    /// DNS-1123 label, up to 63 characters.
    Label,
    /// DNS-1035 label: a label that begins with a letter.
    Dns1035Label,
    /// Anything that can stand between two slashes of a path (RBAC).
    PathSegment,
    /// An IP address in canonical form (IPAddress).
    IpAddress,
}

/// JSON pointers of what the `Scale` of a kind shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// Desired replicas, such as `/spec/replicas`.
    pub spec_replicas: Text,
    /// Observed replicas, such as `/status/replicas`.
    pub status_replicas: Text,
    /// The selector: a `LabelSelector`, a plain map or a text; empty if there is none.
    pub selector: Text,
}

/// How a row shows objects that stand in the store as another row's.
#[derive(Clone, Debug)]
pub struct View {
    /// Plural of the row whose key space the objects have.
    pub plural: Text,
    /// Group of that row.
    pub group: Text,
    /// Changes this row's form to the stored one, `apiVersion` included.
    pub to_stored: fn(&mut Value),
    /// Changes the stored form to this row's, `apiVersion` included.
    pub from_stored: fn(&mut Value),
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
    /// Where the cell comes from, for columns a CustomResourceDefinition declares; empty for built-in kinds.
    pub json_path: Text,
}

impl Column {
    /// A column that is always shown.
    pub fn new(name: impl Into<Text>, kind: impl Into<Text>) -> Self {
        Column { name: name.into(), kind: kind.into(), format: "".into(), priority: 0, json_path: "".into() }
    }

    /// The `Name` column.
    pub fn name() -> Self {
        Column { format: "name".into(), ..Column::new("Name", "string") }
    }

    /// A column of text that is shown with `-o wide` only.
    pub fn wide(name: impl Into<Text>) -> Self {
        Column { priority: 1, ..Column::new(name, "string") }
    }
}

/// Writes that belong to another object's write.
#[async_trait]
pub trait Companion: Send + Sync {
    /// Changes `new` (allocated addresses) and says what else has to be written, under which conditions. Called anew when the
    /// transaction loses a race, each time with `new` as validation left it. `old` is `None` on create, `new` is `None` on delete. With `dry_run` plausible values are enough.
    async fn writes(
        &self,
        store: &dyn Store,
        old: Option<&Value>,
        new: Option<&mut Value>,
        dry_run: bool,
    ) -> Result<(Vec<Compare>, Vec<Operation>), Status>;

    /// Checks all it keeps against the objects it is kept for, and repairs it.
    async fn repair(&self, _store: &dyn Store) -> Result<Vec<Finding>, Status> {
        Ok(Vec::new())
    }

    /// Where it keeps what clients can delete, if they can.
    fn kept_under(&self) -> Option<&'static str> {
        None
    }

    /// Puts back what has been deleted there, if it is still needed. `lost`: as it was last.
    async fn restore(&self, _store: &dyn Store, _lost: &KeyValue) -> Option<Finding> {
        None
    }
}

/// Something that was wrong, and whose affair it is: the makings of an Event.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The object, as an `ObjectReference`.
    pub object: Value,
    /// One word, in camel case.
    pub reason: &'static str,
    /// The words for people.
    pub message: String,
}

impl std::fmt::Debug for ResourceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}", self.group, self.version, self.kind)
    }
}

/// The verbs of a kind that can do everything.
pub const ALL_VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

fn texts(names: &[&'static str]) -> Vec<Text> {
    names.iter().map(|name| Text::Borrowed(name)).collect()
}

impl ResourceKind {
    /// A namespaced kind with every verb, the columns `Name` and `Created At`, and no rules but those for metadata.
    pub fn new(
        group: impl Into<Text>,
        version: impl Into<Text>,
        kind: impl Into<Text>,
        plural: impl Into<Text>,
    ) -> ResourceKind {
        let kind = kind.into();
        ResourceKind {
            group: group.into(),
            version: version.into(),
            singular: kind.to_lowercase().into(),
            kind,
            plural: plural.into(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: true,
            verbs: texts(&ALL_VERBS),
            subresources: Vec::new(),
            columns: vec![Column::name(), Column::new("Created At", "date")],
            row: kinds::table::name_and_creation,
            default: |_, _| {},
            validate: kinds::metadata::errors,
            prepare: kinds::strategy::prepare,
            generation: false,
            selectable_fields: Vec::new(),
            companion: None,
            graceful_deletion: false,
            name_rule: NameRule::default(),
            scale: None,
            validate_update: |_, _, _, _| Vec::new(),
            view_of: None,
            warnings: |_, _, _| Vec::new(),
            schema: None,
        }
    }

    /// Objects stand outside namespaces.
    pub fn cluster_scoped(mut self) -> Self {
        self.namespaced = false;
        self
    }

    /// Short names for kubectl.
    pub fn with_short_names(mut self, names: &[&'static str]) -> Self {
        self.short_names = texts(names);
        self
    }

    /// Categories for kubectl, such as `all`.
    pub fn with_categories(mut self, names: &[&'static str]) -> Self {
        self.categories = texts(names);
        self
    }

    /// Exactly these verbs.
    pub fn with_verbs(mut self, verbs: &[&'static str]) -> Self {
        self.verbs = texts(verbs);
        self
    }

    /// One more subresource whose body is of kind `kind` in the parent's group and version.
    pub fn with_subresource(mut self, name: &'static str, kind: &'static str, verbs: &[&'static str]) -> Self {
        let (name, kind) = (name.into(), kind.into());
        self.subresources.push(Subresource { name, kind, group_version: None, verbs: texts(verbs) });
        self
    }

    /// One more subresource whose body is of a kind elsewhere.
    pub fn with_foreign_subresource(
        mut self,
        name: &'static str,
        (group, version, kind): (&'static str, &'static str, &'static str),
        verbs: &[&'static str],
    ) -> Self {
        self.subresources.push(Subresource {
            name: name.into(),
            kind: kind.into(),
            group_version: Some((group.into(), version.into())),
            verbs: texts(verbs),
        });
        self
    }

    /// The subresource `status`.
    pub fn with_status(mut self) -> Self {
        let kind = self.kind.clone();
        let verbs = texts(&["get", "patch", "update"]);
        self.subresources.push(Subresource { name: "status".into(), kind, group_version: None, verbs });
        self
    }

    /// The subresource `scale`, with `selector` where the label selector stands.
    pub fn with_scale(mut self, selector: impl Into<Text>) -> Self {
        self.scale = Some(ScalePaths {
            spec_replicas: "/spec/replicas".into(),
            status_replicas: "/status/replicas".into(),
            selector: selector.into(),
        });
        self.with_foreign_subresource("scale", ("autoscaling", "v1", "Scale"), &["get", "patch", "update"])
    }

    /// These columns after `Name`, and the function which fills them all.
    pub fn with_table(
        mut self,
        columns: impl IntoIterator<Item = Column>,
        row: fn(&ResourceKind, &Value, jiff::Timestamp) -> Vec<Value>,
    ) -> Self {
        self.columns = std::iter::once(Column::name()).chain(columns).collect();
        self.row = row;
        self
    }

    /// What is filled in.
    pub fn with_defaults(mut self, default: fn(&ResourceKind, &mut Value)) -> Self {
        self.default = default;
        self
    }

    /// What is checked. The function has to ask for the metadata's errors itself.
    pub fn with_validation(mut self, validate: fn(&ResourceKind, &Value, Option<&Value>) -> Vec<FieldError>) -> Self {
        self.validate = validate;
        self
    }

    /// What is checked on updates beyond `validate`.
    pub fn with_update_validation(
        mut self,
        validate: fn(&ResourceKind, &Value, &Value, &str) -> Vec<FieldError>,
    ) -> Self {
        self.validate_update = validate;
        self
    }

    /// What a valid write is told beside its answer.
    pub fn with_warnings(mut self, warnings: fn(&ResourceKind, &Value, Option<&Value>) -> Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }

    /// What a write may not touch.
    pub fn with_prepare(mut self, prepare: fn(&ResourceKind, &mut Value, Option<&Value>, &str)) -> Self {
        self.prepare = prepare;
        self
    }

    /// Further writes in the same transaction.
    pub fn with_companion(mut self, companion: Arc<dyn Companion>) -> Self {
        self.companion = Some(companion);
        self
    }

    /// Changes of the spec count up `metadata.generation`.
    pub fn with_generation(mut self) -> Self {
        self.generation = true;
        self
    }

    /// The type of its objects, made by [`object_type`](crate::schema::structural::object_type).
    pub fn with_schema(mut self, schema: ObjectRef) -> Self {
        self.schema = Some(schema);
        self
    }

    /// Fields for field selectors.
    pub fn with_selectable_fields(mut self, fields: &[&'static str]) -> Self {
        self.selectable_fields = texts(fields);
        self
    }

    /// What names look like.
    pub fn with_name_rule(mut self, rule: NameRule) -> Self {
        self.name_rule = rule;
        self
    }

    /// Everything that is wrong with a write of `new`: [`ResourceKind::validate`], then, on an update that is valid so far,
    /// [`ResourceKind::validate_update`] for the subresource (`""` is the object itself).
    pub fn errors(&self, new: &Value, old: Option<&Value>, subresource: &str) -> Vec<FieldError> {
        let mut errors = (self.validate)(self, new, old);
        if let Some(old) = old {
            errors.extend((self.validate_update)(self, new, old, subresource));
        }
        errors
    }

    /// Whether it has this subresource.
    pub fn has_subresource(&self, name: &str) -> bool {
        self.subresources.iter().any(|subresource| subresource.name == name)
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Where the objects of this kind stand in the store: `/registry/<plural>.<group>/` (no group for core), then
    /// `<namespace>/` if there is one, then the name.
    ///
    /// A [`View`] stands where the row it shows does.
    pub fn prefix(&self) -> String {
        let (plural, group) = match &self.view_of {
            Some(view) => (&view.plural, &view.group),
            None => (&self.plural, &self.group),
        };
        if group.is_empty() { format!("/registry/{plural}/") } else { format!("/registry/{plural}.{group}/") }
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
