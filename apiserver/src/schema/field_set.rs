//! Sets of field paths: what `managedFields` holds, how a value's fields and the difference of two values are written as such.
//!
//! A [`FieldSet`] is a tree whose edges are path elements in their wire form: `f:name` a field or map key, `k:{…}` a list element
//! by its keys, `v:…` a set element by its value. A node is a member or just on the way to members. Unlike a set of prefixes, a
//! member says nothing about what is below it.
//!
//! Follows KEP-555 and the `FieldsV1` format of `sigs.k8s.io/structured-merge-diff`.

use super::types::{List, ListKind, Object, Type};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};

/// A set of field paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Whether the path to here is in the set.
    pub(crate) member: bool,
    /// What is below, by path element.
    pub(crate) children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    /// The set of one path: here.
    pub(crate) fn here() -> Self {
        FieldSet { member: true, children: BTreeMap::new() }
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// Reads `fieldsV1`. What is malformed is left out.
    pub fn from_json(fields: &Value) -> Self {
        fn node(map: &Map<String, Value>) -> FieldSet {
            let mut set = FieldSet { member: map.is_empty(), children: BTreeMap::new() };
            for (element, below) in map {
                match below {
                    _ if element == "." => set.member = true,
                    Value::Object(below) => {
                        set.children.insert(canonical(element), node(below));
                    }
                    _ => {}
                }
            }
            set
        }
        let mut set = fields.as_object().map(node).unwrap_or_default();
        set.member = false;
        set
    }

    /// Writes `fieldsV1`.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        for (element, below) in &self.children {
            map.insert(element.clone(), below.to_json());
            if self.member {
                map.entry(".").or_insert_with(|| Value::Object(Map::new()));
            }
        }
        Value::Object(map)
    }

    /// Hangs a set below this one, unless it is empty.
    pub(crate) fn attach(&mut self, element: impl FnOnce() -> String, below: FieldSet) {
        if !below.is_empty() {
            self.children.insert(element(), below);
        }
    }

    /// Adds all members of `other`.
    pub fn extend(&mut self, other: &FieldSet) {
        self.member |= other.member;
        for (element, below) in &other.children {
            match self.children.get_mut(element) {
                Some(own) => own.extend(below),
                None => {
                    self.children.insert(element.clone(), below.clone());
                }
            }
        }
    }

    /// Removes all members of `other`.
    pub fn subtract(&mut self, other: &FieldSet) {
        self.member &= !other.member;
        if other.children.is_empty() {
            return;
        }
        self.children.retain(|element, own| {
            if let Some(below) = other.children.get(element) {
                own.subtract(below);
            }
            !own.is_empty()
        });
    }

    /// The members that `other` has too.
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        let mut set = FieldSet { member: self.member && other.member, children: BTreeMap::new() };
        for (element, below) in &self.children {
            if let Some(others) = other.children.get(element) {
                set.attach(|| element.clone(), below.intersection(others));
            }
        }
        set
    }

    /// The members as people read them: `.spec.containers[name="c"].image`.
    pub fn paths(&self) -> Vec<String> {
        fn visit(set: &FieldSet, path: &mut String, out: &mut Vec<String>) {
            if set.member {
                out.push(path.clone());
            }
            for (element, below) in &set.children {
                let length = path.len();
                path.push_str(&readable(element));
                visit(below, path, out);
                path.truncate(length);
            }
        }
        let mut out = Vec::new();
        visit(self, &mut String::new(), &mut out);
        out
    }

    /// Whether a member of this set is one of `fields` (in wire form) too, without reading all of them.
    pub(crate) fn meets(&self, fields: &Value) -> bool {
        let Value::Object(map) = fields else { return false };
        if self.member && (map.is_empty() || map.contains_key(".")) {
            return true;
        }
        self.children.iter().any(|(element, below)| map.get(element).is_some_and(|fields| below.meets(fields)))
    }

    /// Whether all members of this set are among `fields` (in wire form), without reading all of them.
    pub(crate) fn is_within(&self, fields: &Value) -> bool {
        let Value::Object(map) = fields else { return false };
        if self.member && !map.is_empty() && !map.contains_key(".") {
            return false;
        }
        self.children.iter().all(|(element, below)| map.get(element).is_some_and(|fields| below.is_within(fields)))
    }
}

/// The path element with its keys in order, whoever wrote it.
fn canonical(element: &str) -> String {
    match element.strip_prefix("k:").or(element.strip_prefix("v:")) {
        Some(json) => match serde_json::from_str::<Value>(json) {
            Ok(value) => format!("{}{value}", &element[..2]),
            Err(_) => element.to_owned(),
        },
        None => element.to_owned(),
    }
}

fn readable(element: &str) -> String {
    match element.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("v", value)) => format!("[={value}]"),
        Some(("k", keys)) => match serde_json::from_str::<Map<String, Value>>(keys) {
            Ok(keys) => {
                let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("[{}]", keys.join(","))
            }
            Err(_) => format!("[{keys}]"),
        },
        Some((_, index)) => format!("[{index}]"),
        None => element.to_owned(),
    }
}

/// The path element of a field or map key.
pub(crate) fn field_element(name: &str) -> String {
    format!("f:{name}")
}

impl List {
    /// The path element of an element of this list; `None` if the list is atomic or a key is missing that has no default.
    pub(crate) fn path_element(&self, element: &Value) -> Option<String> {
        match &self.kind {
            ListKind::Atomic => None,
            ListKind::Set => Some(format!("v:{element}")),
            ListKind::Map(names) => {
                let mut keys = Map::new();
                for name in names {
                    let value = element.get(name.as_ref()).filter(|value| !value.is_null()).or_else(|| {
                        let Type::Object { schema, .. } = &self.element else { return None };
                        schema.field(name)?.default.as_ref()
                    });
                    if let Some(value) = value {
                        keys.insert(name.to_string(), value.clone());
                    }
                }
                (!keys.is_empty()).then(|| format!("k:{}", Value::Object(keys)))
            }
        }
    }
}

/// Fields of an object that nobody owns.
const UNOWNED: [&str; 2] = ["apiVersion", "kind"];
const UNOWNED_METADATA: [&str; 8] =
    ["creationTimestamp", "generation", "managedFields", "name", "namespace", "resourceVersion", "selfLink", "uid"];

/// The fields that a configuration sets, and its applier therefore owns.
pub fn fields_of(object: &Object, config: &Map<String, Value>) -> FieldSet {
    let mut set = object_fields(object, config, &UNOWNED);
    if let Some(metadata) = set.children.get_mut("f:metadata") {
        metadata.children.retain(|element, _| !UNOWNED_METADATA.contains(&&element[2..]));
        metadata.member = false;
        if metadata.is_empty() {
            set.children.remove("f:metadata");
        }
    }
    set
}

fn object_fields(object: &Object, map: &Map<String, Value>, skip: &[&str]) -> FieldSet {
    let mut set = FieldSet::default();
    for (key, value) in map {
        if skip.contains(&key.as_str()) {
            continue;
        }
        let mut below = match object.field(key) {
            Some(field) => type_fields(&field.ty, value),
            None => FieldSet::here(),
        };
        below.member |= value.is_null() || value.as_object().is_some_and(Map::is_empty);
        set.attach(|| field_element(key), below);
    }
    set
}

fn type_fields(ty: &Type, value: &Value) -> FieldSet {
    if ty.is_leaf() {
        return FieldSet::here();
    }
    match (ty, value) {
        (Type::Object { schema, .. }, Value::Object(map)) => object_fields(schema, map, &[]),
        (Type::Map(ty), Value::Object(map)) => {
            let mut set = FieldSet::default();
            for (key, value) in map {
                let mut below = type_fields(&ty.element, value);
                below.member = true;
                set.children.insert(field_element(key), below);
            }
            set
        }
        (Type::List(list), Value::Array(elements)) => {
            let mut set = FieldSet::default();
            for element in elements {
                if let Some(path) = list.path_element(element) {
                    let mut below = type_fields(&list.element, element);
                    below.member = true;
                    set.children.insert(path, below);
                }
            }
            set
        }
        _ => FieldSet::here(),
    }
}

/// The difference of two values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Fields that are new or have another value.
    pub changed: FieldSet,
    /// Fields that are gone.
    pub removed: FieldSet,
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// What stands where a field is absent that Kubernetes would have written as null or as its zero value.
static ABSENT: Value = Value::Null;

/// The difference between two states of an object, without the fields nobody owns.
///
/// An object that is not there yet differs from nothing in what Go would not write of an empty object: `f:spec` is
/// no addition, since every Deployment has a `spec`.
pub fn difference(object: &Object, before: Option<&Value>, after: &Value) -> Difference {
    let before = before.unwrap_or(&ABSENT);
    let mut difference = object_difference(object, Some(before), Some(after), &UNOWNED);
    for set in [&mut difference.changed, &mut difference.removed] {
        if let Some(metadata) = set.children.get_mut("f:metadata") {
            metadata.children.retain(|element, _| !UNOWNED_METADATA.contains(&&element[2..]));
            metadata.member = false;
            if metadata.is_empty() {
                set.children.remove("f:metadata");
            }
        }
    }
    difference
}

fn object_difference(object: &Object, before: Option<&Value>, after: Option<&Value>, skip: &[&str]) -> Difference {
    let mut difference = Difference::default();
    let (old, new) = (before.and_then(Value::as_object), after.and_then(Value::as_object));
    let mut child = |key: &str, old: Option<&Value>, new: Option<&Value>| {
        if skip.contains(&key) {
            return;
        }
        let field = object.field(key);
        let always = field.is_some_and(|field| field.always_present());
        let old = old.or((always && before.is_some()).then_some(&ABSENT));
        let new = new.or((always && after.is_some()).then_some(&ABSENT));
        let below = match field {
            Some(field) => type_difference(&field.ty, old, new),
            None => leaf_difference(old, new),
        };
        difference.changed.attach(|| field_element(key), below.changed);
        difference.removed.attach(|| field_element(key), below.removed);
    };
    for (key, value) in new.into_iter().flatten() {
        child(key, old.and_then(|old| old.get(key)), Some(value));
    }
    for (key, value) in old.into_iter().flatten() {
        if new.is_none_or(|new| !new.contains_key(key)) {
            child(key, Some(value), None);
        }
    }
    difference
}

fn leaf_difference(before: Option<&Value>, after: Option<&Value>) -> Difference {
    let mut difference = Difference::default();
    match (before, after) {
        (None, None) => {}
        (Some(_), None) => difference.removed.member = true,
        (before, after) => difference.changed.member = before != after,
    }
    difference
}

fn type_difference(ty: &Type, before: Option<&Value>, after: Option<&Value>) -> Difference {
    // Equality allocates nothing, and most of an object is equal.
    if before == after {
        return Difference::default();
    }
    if ty.is_leaf() {
        return leaf_difference(before, after);
    }
    let mut difference = match ty {
        Type::Object { schema, .. } => object_difference(schema, before, after, &[]),
        Type::Map(map) => map_difference(&map.element, before, after),
        Type::List(list) => list_difference(list, before, after),
        _ => return leaf_difference(before, after),
    };
    difference.changed.member = before.is_none() && after.is_some();
    difference.removed.member = before.is_some() && after.is_none();
    difference
}

fn map_difference(element: &Type, before: Option<&Value>, after: Option<&Value>) -> Difference {
    let mut difference = Difference::default();
    let (old, new) = (before.and_then(Value::as_object), after.and_then(Value::as_object));
    let mut child = |key: &str, old: Option<&Value>, new: Option<&Value>| {
        let below = type_difference(element, old, new);
        difference.changed.attach(|| field_element(key), below.changed);
        difference.removed.attach(|| field_element(key), below.removed);
    };
    for (key, value) in new.into_iter().flatten() {
        child(key, old.and_then(|old| old.get(key)), Some(value));
    }
    for (key, value) in old.into_iter().flatten() {
        if new.is_none_or(|new| !new.contains_key(key)) {
            child(key, Some(value), None);
        }
    }
    difference
}

fn list_difference(list: &List, before: Option<&Value>, after: Option<&Value>) -> Difference {
    fn index<'a>(list: &List, value: Option<&'a Value>) -> HashMap<String, Vec<&'a Value>> {
        let mut index: HashMap<String, Vec<&Value>> = HashMap::new();
        for element in value.and_then(Value::as_array).into_iter().flatten() {
            if let Some(path) = list.path_element(element) {
                index.entry(path).or_default().push(element);
            }
        }
        index
    }
    let mut difference = Difference::default();
    let mut old = index(list, before);
    let compare = |old: Option<Vec<&Value>>, new: Option<Vec<&Value>>| match (old.as_deref(), new.as_deref()) {
        (Some([old]), Some([new])) => type_difference(&list.element, Some(old), Some(new)),
        (Some([old]), None) => type_difference(&list.element, Some(old), None),
        (None, Some([new])) => type_difference(&list.element, None, Some(new)),
        // Elements that stand there twice cannot be told apart: they are one leaf.
        (None, Some(_)) => Difference { changed: FieldSet::here(), removed: FieldSet::default() },
        (Some(_), None) => Difference { changed: FieldSet::default(), removed: FieldSet::here() },
        (old, new) if old == new => Difference::default(),
        _ => Difference { changed: FieldSet::here(), removed: FieldSet::default() },
    };
    let mut add = |path: String, below: Difference| {
        if !below.changed.is_empty() {
            difference.changed.children.insert(path.clone(), below.changed);
        }
        if !below.removed.is_empty() {
            difference.removed.children.insert(path, below.removed);
        }
    };
    for (path, new) in index(list, after) {
        let old = old.remove(&path);
        add(path, compare(old, Some(new)));
    }
    for (path, old) in old {
        add(path, compare(Some(old), None));
    }
    difference
}

#[cfg(test)]
mod tests {
    use super::super::table::builtin;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn deployment() -> super::super::types::ObjectRef {
        builtin().kind("apps", "v1", "Deployment").expect("a built-in kind")
    }

    #[test]
    fn a_configuration_owns_what_it_sets() {
        let config = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "d", "labels": {"a": "1"}},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"app": "x"}},
                "template": {"spec": {"securityContext": {}, "containers": [
                    {"name": "c", "ports": [{"containerPort": 80}], "env": [{"name": "E", "value": "1"}]}
                ]}}
            }
        });
        assert_eq!(
            fields_of(&deployment(), config.as_object().expect("an object")).to_json(),
            json!({
                "f:metadata": {"f:labels": {"f:a": {}}},
                "f:spec": {
                    "f:replicas": {},
                    "f:selector": {},
                    "f:template": {"f:spec": {"f:securityContext": {}, "f:containers": {"k:{\"name\":\"c\"}": {
                        ".": {},
                        "f:name": {},
                        "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                        "f:env": {"k:{\"name\":\"E\"}": {".": {}, "f:name": {}, "f:value": {}}}
                    }}}}
                }
            })
        );
    }

    #[test]
    fn what_every_object_has_is_not_added_with_it() {
        let after = json!({
            "metadata": {"name": "d", "uid": "u", "annotations": {"a": "1"}},
            "spec": {"strategy": {"rollingUpdate": {"maxSurge": 1}},
                     "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "resources": {}}]}}},
            "status": {}
        });
        let difference = difference(&deployment(), None, &after);
        assert!(difference.removed.is_empty());
        assert_eq!(
            difference.changed.to_json(),
            json!({
                "f:metadata": {"f:annotations": {".": {}, "f:a": {}}},
                "f:spec": {
                    "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
                    "f:template": {
                        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                        "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:resources": {}}}}
                    }
                }
            })
        );
    }

    #[test]
    fn a_change_names_what_changed_and_what_is_gone() {
        let before = json!({"spec": {"replicas": 1, "paused": true, "template": {"spec": {"containers": [
            {"name": "a", "image": "1"}, {"name": "b"}]}}}});
        let after = json!({"spec": {"replicas": 2, "template": {"spec": {"nodeSelector": {"k": "v"}, "containers": [
            {"name": "a", "image": "2"}]}}}});
        let difference = difference(&deployment(), Some(&before), &after);
        assert_eq!(
            difference.changed.paths(),
            [".spec.replicas", ".spec.template.spec.containers[name=\"a\"].image", ".spec.template.spec.nodeSelector"]
        );
        assert_eq!(
            difference.removed.paths(),
            [
                ".spec.paused",
                ".spec.template.spec.containers[name=\"b\"]",
                ".spec.template.spec.containers[name=\"b\"].name"
            ]
        );
    }

    fn sets() -> impl Strategy<Value = FieldSet> {
        let leaf = any::<bool>().prop_map(|member| FieldSet { member, children: BTreeMap::new() });
        leaf.prop_recursive(3, 20, 3, |inner| {
            (any::<bool>(), proptest::collection::btree_map("f:[a-c]", inner, 0..3)).prop_map(|(member, children)| {
                FieldSet { member, children: children.into_iter().filter(|(_, below)| !below.is_empty()).collect() }
            })
        })
        .prop_map(|mut set| {
            set.member = false;
            set
        })
    }

    proptest! {
        #[test]
        fn sets_obey_the_laws_of_sets(a in sets(), b in sets()) {
            let mut union = a.clone();
            union.extend(&b);
            let mut difference = a.clone();
            difference.subtract(&b);
            let both = a.intersection(&b);
            prop_assert_eq!(&both, &b.intersection(&a));
            prop_assert!(difference.intersection(&b).is_empty());
            let mut rebuilt = difference;
            rebuilt.extend(&both);
            prop_assert_eq!(&rebuilt, &a);
            prop_assert_eq!(FieldSet::from_json(&a.to_json()), a.clone());
            prop_assert_eq!(a.meets(&b.to_json()), !both.is_empty());
            prop_assert!(a.is_within(&union.to_json()));
            prop_assert_eq!(a.is_within(&b.to_json()), both == a);
        }
    }
}
