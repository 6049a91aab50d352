//! The schemas of objects, fields and types.

use super::super::types::{Field, Keywords, ListKind, Object, ObjectRef, Type};
use super::{Dialect, Writer, gvk};
use serde_json::{Map, Value, json};

impl Writer<'_> {
    pub(super) fn reference(&mut self, object: &ObjectRef) -> Value {
        let name = full_name(&object.name);
        let place = if self.dialect == Dialect::V2 { "definitions" } else { "components/schemas" };
        let reference = json!({"$ref": format!("#/{place}/{name}")});
        if self.seen.insert(name) {
            self.waiting.push(object.clone());
        }
        reference
    }

    /// The objects that paths and other objects refer to.
    pub(super) fn definitions(&mut self) -> Map<String, Value> {
        let mut definitions = Map::new();
        while let Some(object) = self.waiting.pop() {
            let definition = self.object(&object);
            definitions.insert(full_name(&object.name), definition);
        }
        definitions
    }

    fn object(&mut self, object: &Object) -> Value {
        let mut value = json!({"type": "object"});
        add_keywords(&mut value, &object.keywords);
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
            if field.is_value_struct() && may_be_empty(&field.ty) {
                value["default"] = json!({});
            }
        }
        if let Some(text) = text {
            value["description"] = text.into();
        }
        add_keywords(&mut value, &field.keywords);
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
            Type::SchemaOr(_) => json!({}),
            Type::Object { schema, .. } => match schema {
                ObjectRef::Builtin(_) => self.reference(schema),
                // Custom resources have no named parts; only their lists refer to something.
                ObjectRef::Own(object) if object.is_nameless() => self.object(object),
                ObjectRef::Own(_) => self.reference(schema),
            },
            Type::List(list) => {
                let mut items = self.type_of(&list.element);
                if self.dialect == Dialect::V3 && items.get("$ref").is_some() {
                    items = all_of(items, &list.element);
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
                    element = all_of(element, &map.element);
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

/// Nothing may stand beside a reference in OpenAPI 3.0.
fn all_of(reference: Value, ty: &Type) -> Value {
    let mut value = json!({"allOf": [reference]});
    if may_be_empty(ty) {
        value["default"] = json!({});
    }
    value
}

/// Whether `{}` is one. Upstream gives it as the default of other objects too, which by the specification is none.
fn may_be_empty(ty: &Type) -> bool {
    matches!(ty, Type::Object { schema, .. } if !schema.fields.iter().any(|field| field.required))
}

fn add_keywords(value: &mut Value, keywords: &Keywords) {
    for (name, keyword) in keywords.iter().flat_map(|keywords| keywords.iter()) {
        value[name] = keyword.clone();
    }
}

fn full_name(name: &str) -> String {
    let builtin = ["api.", "apimachinery.", "apiextensions-apiserver.", "kube-aggregator.", "metrics."];
    if builtin.iter().any(|prefix| name.starts_with(prefix)) { format!("io.k8s.{name}") } else { name.to_owned() }
}
