//! The type of a custom resource, from the structural OpenAPI v3 schema in its CustomResourceDefinition.
//!
//! The outcome is an [`Object`] like those of the built-in table, so that decoding, pruning, merging and publishing need
//! no second way. A kind's row carries it ([`ResourceKind::with_schema`](crate::registry::ResourceKind::with_schema)); the server
//! registers it together with the row.
//!
//! Follows "Specifying a structural schema" of the Kubernetes documentation. Not here: validation of values.

use super::table;
use super::types::{Field, Keywords, ListKind, Map as MapType, Object, ObjectRef, Type};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Deeper schemas are refused.
const MAX_DEPTH: usize = 64;

/// Makes the type of a kind from the schema of its whole object. `name` is for documents and errors:
/// `dev.coracle.net.v1alpha1.Fault`.
///
/// # Errors
/// What is not structural about the schema, with its path.
pub fn object_type(name: &str, schema: &Value) -> Result<ObjectRef, String> {
    let mut object = node(name, schema, "", 0).and_then(|ty| match ty {
        Type::Object { schema: ObjectRef::Own(object), .. } => Ok(Object::clone(&object)),
        Type::Any => Ok(Object { name: name.to_owned().into(), open: true, ..Object::default() }),
        _ => Err("type: the schema of a whole object must have type object".to_owned()),
    })?;
    add_object_fields(&mut object);
    Ok(ObjectRef::Own(Arc::new(object.finish())))
}

/// The type of the list of such objects.
pub fn list_type(object: &ObjectRef) -> ObjectRef {
    let mut list = Object { name: format!("{}List", object.name).into(), ..Object::default() };
    list.fields.push(Field::new("apiVersion", Type::String));
    list.fields.push(Field::new("kind", Type::String));
    let mut items = Field::new("items", Type::list(Type::object(object.clone()), ListKind::Atomic));
    items.required = true;
    list.fields.push(items);
    if let Some(metadata) = table::builtin().named("apimachinery.pkg.apis.meta.v1.ListMeta") {
        let mut field = Field::new("metadata", Type::object(metadata));
        field.pointer = false;
        list.fields.push(field);
    }
    ObjectRef::Own(Arc::new(list.finish()))
}

/// Fills in the defaults that the schema of a custom resource has, inside out as Kubernetes does.
pub fn apply_defaults(object: &Object, value: &mut Value) {
    let Value::Object(map) = value else { return };
    for field in &object.fields {
        if let Some(default) = &field.default
            && map.get(field.name.as_ref()).is_none_or(|value| value.is_null() && !field.nullable)
        {
            map.insert(field.name.to_string(), default.clone());
        }
        if let Some(value) = map.get_mut(field.name.as_ref()) {
            defaults_of(&field.ty, value);
        }
    }
}

fn defaults_of(ty: &Type, value: &mut Value) {
    match (ty, value) {
        (Type::Object { schema, .. }, value) if matches!(schema, ObjectRef::Own(_)) => apply_defaults(schema, value),
        (Type::List(list), Value::Array(elements)) => {
            elements.iter_mut().for_each(|element| defaults_of(&list.element, element));
        }
        (Type::Map(map), Value::Object(entries)) => {
            entries.values_mut().for_each(|entry| defaults_of(&map.element, entry));
        }
        _ => {}
    }
}

fn add_object_fields(object: &mut Object) {
    object.fields.retain(|field| !matches!(field.name.as_ref(), "apiVersion" | "kind" | "metadata"));
    object.fields.push(Field::new("apiVersion", Type::String));
    object.fields.push(Field::new("kind", Type::String));
    if let Some(metadata) = table::builtin().named("apimachinery.pkg.apis.meta.v1.ObjectMeta") {
        let mut field = Field::new("metadata", Type::object(metadata));
        field.pointer = false;
        object.fields.push(field);
    }
}

fn node(name: &str, schema: &Value, path: &str, depth: usize) -> Result<Type, String> {
    if depth > MAX_DEPTH {
        return Err(format!("{path}: nested more than {MAX_DEPTH} levels deep"));
    }
    let Value::Object(map) = schema else { return Err(format!("{path}: a schema must be an object")) };
    let flag = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or(false);
    let word = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or("");
    let open = flag("x-kubernetes-preserve-unknown-fields");
    if flag("x-kubernetes-int-or-string") {
        return Ok(Type::IntOrString);
    }
    Ok(match (word("type"), word("format")) {
        ("string", _) => Type::String,
        ("integer", "int32") => Type::Int32,
        ("integer", _) => Type::Int64,
        ("number", _) => Type::Double,
        ("boolean", _) => Type::Bool,
        ("array", _) => {
            let items = map.get("items").ok_or_else(|| format!("{path}.items: must be specified"))?;
            let element = node(name, items, &format!("{path}.items"), depth + 1)?;
            Type::list(element, list_kind(map))
        }
        ("object", _) => object_node(name, map, open, path, depth)?,
        ("", _) if open => Type::Any,
        ("", _) => return Err(format!("{path}.type: must not be empty for specified object fields")),
        (other, _) => {
            return Err(format!("{path}.type: {other:?} is none of array, boolean, integer, number, object, string"));
        }
    })
}

fn object_node(name: &str, map: &Map<String, Value>, open: bool, path: &str, depth: usize) -> Result<Type, String> {
    let atomic = map.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic");
    let embedded = map.get("x-kubernetes-embedded-resource").and_then(Value::as_bool).unwrap_or(false);
    match map.get("additionalProperties") {
        Some(Value::Bool(true)) => return Ok(Type::Map(Arc::new(MapType { element: Type::Any, atomic }))),
        Some(element @ Value::Object(_)) => {
            let element = node(name, element, &format!("{path}.additionalProperties"), depth + 1)?;
            return Ok(Type::Map(Arc::new(MapType { element, atomic })));
        }
        _ => {}
    }
    let properties = map.get("properties").and_then(Value::as_object);
    if properties.is_none() && open && !embedded {
        return Ok(Type::Any);
    }
    let required: Vec<&str> =
        map.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let own_name = if depth == 0 { name.to_owned() } else { format!("{name}#{}", path.trim_start_matches('.')) };
    let mut object = Object { name: own_name.into(), open, atomic, keywords: keywords(map), ..Object::default() };
    for (key, property) in properties.into_iter().flatten() {
        // The metadata of the object itself has its own type, whatever the schema says.
        if depth == 0 && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        let ty = node(name, property, &format!("{path}.{key}"), depth + 1)?;
        let mut field = Field::new(key.clone(), ty);
        field.required = required.contains(&key.as_str());
        field.nullable = property.get("nullable").and_then(Value::as_bool).unwrap_or(false);
        field.default = property.get("default").cloned();
        // An object carries its own.
        if !matches!(field.ty, Type::Object { .. }) {
            field.keywords = property.as_object().and_then(keywords);
        }
        object.fields.push(field);
    }
    if embedded {
        add_object_fields(&mut object);
    }
    Ok(Type::object(ObjectRef::Own(Arc::new(object.finish()))))
}

/// What the type itself does not say already.
fn keywords(map: &Map<String, Value>) -> Keywords {
    const SAID: [&str; 16] = [
        "type",
        "properties",
        "items",
        "additionalProperties",
        "required",
        "default",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-map-type",
        "x-kubernetes-preserve-unknown-fields",
    ];
    let rest = map.iter().filter(|(key, _)| !SAID.contains(&key.as_str()));
    let rest: Map<String, Value> = rest.map(|(key, value)| (key.clone(), value.clone())).collect();
    (!rest.is_empty()).then(|| Arc::new(rest))
}

fn list_kind(map: &Map<String, Value>) -> ListKind {
    match map.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = map.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            ListKind::Map(
                keys.into_iter().flatten().filter_map(Value::as_str).map(|key| key.to_owned().into()).collect(),
            )
        }
        _ => ListKind::Atomic,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Checked, Manager, Schemas, apply, check};
    use super::*;
    use serde_json::json;

    fn backup() -> Value {
        json!({
            "type": "object",
            "properties": {"spec": {
                "type": "object",
                "required": ["schedule"],
                "properties": {
                    "schedule": {"type": "string"},
                    "keep": {"type": "integer", "format": "int32", "default": 3},
                    "paused": {"type": "boolean", "nullable": true},
                    "port": {"x-kubernetes-int-or-string": true},
                    "extra": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "targets": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "properties": {"name": {"type": "string"}, "mode": {"type": "string", "default": "full"}}}}
                }
            }}
        })
    }

    #[test]
    fn a_custom_resource_is_pruned_and_merged_like_a_built_in_kind() {
        let schemas = Schemas::new();
        schemas.register(
            "example.dev",
            "v1",
            "Backup",
            object_type("dev.example.v1.Backup", &backup()).expect("structural"),
        );
        let object = schemas.lookup("example.dev", "v1", "Backup").expect("registered");
        let mut value = json!({"apiVersion": "example.dev/v1", "kind": "Backup", "metadata": {"name": "b", "nonsense": 1},
            "spec": {"schedule": "daily", "paused": null, "port": "http", "extra": {"any": [1]}, "x": 1,
                     "targets": [{"name": "a", "y": 2}]}});
        let checked = check(&object, &mut value);
        assert_eq!(
            checked,
            Checked {
                unknown: ["metadata.nonsense", "spec.targets[0].y", "spec.x"]
                    .map(|f| format!("unknown field {f:?}"))
                    .to_vec(),
                error: None
            }
        );
        apply_defaults(&object, &mut value);
        assert_eq!(
            value["spec"],
            json!({"schedule": "daily", "keep": 3, "paused": null, "port": "http", "extra": {"any": [1]},
                   "targets": [{"name": "a", "mode": "full"}]})
        );
        let config = json!({"apiVersion": "example.dev/v1", "kind": "Backup", "metadata": {"name": "b"},
                            "spec": {"targets": [{"name": "b"}]}});
        let manager = Manager { name: "m", api_version: "example.dev/v1", subresource: "" };
        let now = jiff::Timestamp::UNIX_EPOCH;
        let applied = apply(&object, Some(&value), &config, &manager, false, now).expect("no conflict");
        assert_eq!(applied["spec"]["targets"], json!([{"name": "a", "mode": "full"}, {"name": "b"}]));
        schemas.unregister("example.dev", "v1", "Backup");
        assert!(schemas.lookup("example.dev", "v1", "Backup").is_none());
    }

    #[test]
    fn what_the_type_does_not_say_is_kept_for_documents() {
        let schema = json!({"type": "object", "description": "A backup.", "properties": {
            "mode": {"type": "string", "enum": ["full"], "default": "full"},
            "spec": {"type": "object", "minProperties": 1}}});
        let object = object_type("x.Backup", &schema).expect("structural");
        let said = |keywords: &Keywords| keywords.as_deref().cloned().map(Value::Object);
        assert_eq!(said(&object.keywords), Some(json!({"description": "A backup."})));
        assert_eq!(said(&object.field("mode").expect("a field").keywords), Some(json!({"enum": ["full"]})));
        let Type::Object { schema: spec, .. } = &object.field("spec").expect("a field").ty else { panic!("an object") };
        assert_eq!(said(&spec.keywords), Some(json!({"minProperties": 1})));
        assert_eq!((spec.name.as_ref(), spec.short_name()), ("x.Backup#spec", "Backup"));
        assert_eq!(list_type(&object).name, "x.BackupList");
    }

    #[test]
    fn what_is_not_structural_is_named_with_its_path() {
        let refused = |schema: Value| object_type("x", &schema).expect_err("not structural");
        assert_eq!(
            refused(json!({"type": "object", "properties": {"spec": {"properties": {}}}})),
            ".spec.type: must not be empty for specified object fields"
        );
        assert_eq!(
            refused(json!({"type": "object", "properties": {"spec": {"type": "array"}}})),
            ".spec.items: must be specified"
        );
        assert!(refused(json!({"type": "string"})).starts_with("type:"));
        assert!(refused(json!([])).contains("must be an object"));
    }
}
