//! What a type is: the vocabulary of the schema table.
//!
//! A [`Type`] is a scalar, a list, a map or an [`Object`] with named fields. Objects of built-in kinds live in the generated
//! [`table`] for the whole run of the program; those of custom resources are made at run time and counted. An
//! [`ObjectRef`] is either, so that walkers need one code path.
//!
//! Follows `x-kubernetes-list-type`, `-list-map-keys`, `-map-type` (KEP-555) and the patch strategies of the Go struct tags.

use super::{structural, table};
use crate::registry::ResourceKind;
use arc_swap::ArcSwap;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

/// Text of a type: constant for built-in types.
pub type Text = Cow<'static, str>;

/// Keywords of a JSON schema that are of no use to a walker, such as `description`, `enum` and `maxItems`.
pub type Keywords = Option<Arc<serde_json::Map<String, Value>>>;

/// The type of a value.
#[derive(Clone, Debug)]
pub enum Type {
    /// A string.
    String,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A boolean.
    Bool,
    /// A floating-point number.
    Double,
    /// Bytes, base64 in JSON.
    Bytes,
    /// An amount such as `500m` or `1Gi`.
    Quantity,
    /// A whole number or a string such as `25%`.
    IntOrString,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// A Go duration such as `1m30s`.
    Duration,
    /// Any object, kept as it is (`RawExtension`).
    Raw,
    /// A `FieldsV1` set, kept as it is.
    FieldsV1,
    /// Any JSON value, kept as it is.
    Any,
    /// A JSON schema, or another form of it.
    SchemaOr(SchemaOr),
    /// An object with named fields; `atomic`: replaced as a whole by server-side apply.
    Object {
        /// Its fields.
        schema: ObjectRef,
        /// Whether this use of it is atomic; the object may say so too.
        atomic: bool,
    },
    /// A list.
    List(Arc<List>),
    /// A map with string keys.
    Map(Arc<Map>),
}

/// What may stand where a JSON schema can stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaOr {
    /// One schema or several.
    Array,
    /// A schema, or a boolean.
    Bool,
    /// A schema, or a list of names.
    StringArray,
}

/// A list type.
#[derive(Clone, Debug)]
pub struct List {
    /// Type of the elements.
    pub element: Type,
    /// How lists are merged.
    pub kind: ListKind,
    /// In protobuf the list is a message of its own (`ExtraValue`).
    pub wrapped: bool,
}

/// How server-side apply merges a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Replaced as a whole.
    Atomic,
    /// Scalars without order.
    Set,
    /// Objects told apart by these fields.
    Map(Vec<Text>),
}

/// A map type.
#[derive(Clone, Debug)]
pub struct Map {
    /// Type of the values.
    pub element: Type,
    /// Replaced as a whole by server-side apply.
    pub atomic: bool,
}

/// An object type.
#[derive(Clone, Debug, Default)]
pub struct Object {
    /// Name as OpenAPI has it, without `io.k8s.`: `api.core.v1.Pod`. Parts of a custom resource have no names of their own: their
    /// path stands after a `#`.
    pub name: Text,
    /// `group/version/Kind` of the kinds with this type.
    pub kinds: Vec<Text>,
    /// Fields, sorted by name.
    pub fields: Vec<Field>,
    /// Replaced as a whole by server-side apply.
    pub atomic: bool,
    /// Fields that are not listed are kept (`x-kubernetes-preserve-unknown-fields`).
    pub open: bool,
    /// What documents say about it besides (custom resources).
    pub keywords: Keywords,
    /// `(outer, tag, index)` of the fields that protobuf knows, sorted.
    pub(crate) tags: Vec<(u16, u16, u16)>,
}

/// A field of an object.
#[derive(Clone, Debug)]
pub struct Field {
    /// Name in JSON.
    pub name: Text,
    /// Type.
    pub ty: Type,
    /// Protobuf field number; 0: none.
    pub tag: u16,
    /// Protobuf field number of the message around it that JSON does not show; 0: none. Of two messages around it the number of the
    /// outer one plus 256 times that of the inner one.
    pub outer: u16,
    /// OpenAPI says it must be there.
    pub required: bool,
    /// Zero and absent are different: a pointer in Go.
    pub pointer: bool,
    /// Kubernetes writes it even if it has its zero value.
    pub always: bool,
    /// Keeps null (custom resources).
    pub nullable: bool,
    /// Name of its Go type if that is not its shape's: `v1.Protocol`.
    pub go_type: Text,
    /// What strategic merge does with it.
    pub strategy: Strategy,
    /// Key by which strategic merge tells the elements of a list apart.
    pub merge_key: Option<Text>,
    /// What server-side apply assumes if a key of a list is left out; for custom resources also what is filled in.
    pub default: Option<Value>,
    /// What documents say about it besides (custom resources).
    pub keywords: Keywords,
}

/// The patch strategy of a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strategy {
    /// A list is merged rather than replaced.
    pub merge: bool,
    /// An object is replaced rather than merged.
    pub replace: bool,
    /// `$retainKeys` may be used.
    pub retain_keys: bool,
}

/// An object type, wherever it lives.
#[derive(Clone)]
pub enum ObjectRef {
    /// Row of the built-in table.
    Builtin(u16),
    /// Made at run time.
    Own(Arc<Object>),
}

impl Deref for ObjectRef {
    type Target = Object;

    fn deref(&self) -> &Object {
        match self {
            ObjectRef::Builtin(index) => table::builtin().object(*index),
            ObjectRef::Own(object) => object,
        }
    }
}

impl std::fmt::Debug for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// The way to the message `tag` inside the message `outer`; `None` if it is too long or has too large numbers to be one of ours.
pub(crate) fn nested(outer: u16, tag: u16) -> Option<u16> {
    match outer {
        0 => Some(tag),
        1..256 if tag < 256 => Some(outer | tag << 8),
        _ => None,
    }
}

impl Object {
    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|field| field.name.as_ref().cmp(name)).ok().map(|index| &self.fields[index])
    }

    /// The last word of its name, or of the name of the custom resource it is a part of: `Pod`.
    pub fn short_name(&self) -> &str {
        let name = self.name.split('#').next().unwrap_or(&self.name);
        name.rsplit('.').next().unwrap_or(name)
    }

    /// Whether it is a part of a custom resource, without a name of its own.
    pub(crate) fn is_nameless(&self) -> bool {
        self.name.contains('#')
    }

    /// The field with this protobuf number inside the message `outer` (0: the object itself).
    pub(crate) fn tagged(&self, outer: u16, tag: u16) -> Option<&Field> {
        let found = self.tags.binary_search_by(|(o, t, _)| (*o, *t).cmp(&(outer, tag))).ok()?;
        self.fields.get(usize::from(self.tags[found].2))
    }

    /// Whether the message has an inner message that JSON does not show, at this number.
    pub(crate) fn has_outer(&self, outer: u16) -> bool {
        self.tags.iter().any(|(known, _, _)| *known == outer || (outer < 256 && *known & 255 == outer && *known != 0))
    }

    /// Puts fields and tags in order; every maker of an object ends with it.
    pub(crate) fn finish(mut self) -> Self {
        self.fields.sort_by(|a, b| a.name.cmp(&b.name));
        self.tags = (0u16..)
            .zip(&self.fields)
            .filter(|(_, field)| field.tag != 0)
            .map(|(index, field)| (field.outer, field.tag, index))
            .collect();
        self.tags.sort_unstable();
        self
    }
}

impl Field {
    /// A field of this name and type, with nothing special.
    pub fn new(name: impl Into<Text>, ty: Type) -> Self {
        Field {
            name: name.into(),
            ty,
            tag: 0,
            outer: 0,
            required: false,
            pointer: true,
            always: false,
            nullable: false,
            go_type: Text::default(),
            strategy: Strategy::default(),
            merge_key: None,
            default: None,
            keywords: None,
        }
    }

    /// A struct that Kubernetes always writes, if need be as `{}`.
    pub(crate) fn is_value_struct(&self) -> bool {
        !self.pointer && matches!(self.ty, Type::Object { .. })
    }

    /// Whether Kubernetes writes this value of the field by not writing the field (`omitempty`).
    pub(crate) fn leaves_out(&self, value: &Value) -> bool {
        let zero = match (&self.ty, value) {
            (Type::String | Type::Bytes, Value::String(text)) => text.is_empty(),
            (Type::Int32 | Type::Int64 | Type::Double, Value::Number(number)) => number.as_f64() == Some(0.0),
            (Type::Bool, Value::Bool(yes)) => !yes,
            (Type::List(_), Value::Array(elements)) => elements.is_empty(),
            (Type::Map(_), Value::Object(entries)) => entries.is_empty(),
            _ => false,
        };
        zero && !self.pointer && !self.always
    }

    /// Present, as zero or null, wherever its object is: a new value there is a change, not an addition.
    pub(crate) fn always_present(&self) -> bool {
        self.always || self.is_value_struct()
    }
}

impl Type {
    /// An object that is merged field by field.
    pub fn object(schema: ObjectRef) -> Self {
        Type::Object { schema, atomic: false }
    }

    /// A list of this kind.
    pub fn list(element: Type, kind: ListKind) -> Self {
        Type::List(Arc::new(List { element, kind, wrapped: false }))
    }

    /// A map whose values have this type.
    pub fn map(element: Type) -> Self {
        Type::Map(Arc::new(Map { element, atomic: false }))
    }

    /// Whether server-side apply owns it as a whole.
    pub fn is_leaf(&self) -> bool {
        match self {
            Type::Object { schema, atomic } => *atomic || schema.atomic,
            Type::List(list) => list.kind == ListKind::Atomic,
            Type::Map(map) => map.atomic,
            _ => true,
        }
    }
}

/// The types of all kinds: the built-in ones, and those registered since.
#[derive(Debug, Default)]
pub struct Schemas {
    own: ArcSwap<HashMap<(String, String, String), ObjectRef>>,
}

impl Schemas {
    /// Only the built-in types.
    pub fn new() -> Self {
        Schemas::default()
    }

    /// The type of a kind.
    pub fn lookup(&self, group: &str, version: &str, kind: &str) -> Option<ObjectRef> {
        if let Some(found) = table::builtin().kind(group, version, kind) {
            return Some(found);
        }
        let own = self.own.load();
        if own.is_empty() {
            return None;
        }
        own.get(&(group.to_owned(), version.to_owned(), kind.to_owned())).cloned()
    }

    /// Adds or replaces the type of a custom resource.
    pub fn register(&self, group: &str, version: &str, kind: &str, schema: ObjectRef) {
        let key = (group.to_owned(), version.to_owned(), kind.to_owned());
        self.own.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.insert(key.clone(), schema.clone());
            known
        });
    }

    /// Adds or replaces the types of a kind and of its list, if its row brings a schema.
    pub fn register_kind(&self, kind: &ResourceKind) {
        let Some(schema) = &kind.schema else { return };
        self.register(&kind.group, &kind.version, &kind.kind, schema.clone());
        self.register(&kind.group, &kind.version, &format!("{}List", kind.kind), structural::list_type(schema));
    }

    /// Forgets the type of a custom resource.
    pub fn unregister(&self, group: &str, version: &str, kind: &str) {
        let key = (group.to_owned(), version.to_owned(), kind.to_owned());
        self.own.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.remove(&key);
            known
        });
    }
}
