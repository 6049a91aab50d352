//! What does not fit the type in a configuration, in the words of structured-merge-diff.

use super::super::decode::MAX_DEPTH;
use super::super::field_set::FieldSet;
use super::super::types::{List, ListKind, Object, Type};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// What is wrong with an object of a configuration, one text per problem.
pub(super) fn typed_object(object: &Object, map: &Map<String, Value>, path: &mut String, problems: &mut Vec<String>) {
    for (key, value) in map {
        let length = path.len();
        path.push('.');
        path.push_str(key);
        match object.field(key) {
            Some(field) => typed(&field.ty, value, path, problems),
            None if object.open => {}
            None => problems.push(format!("{path}: field not declared in schema")),
        }
        path.truncate(length);
    }
}

fn typed(ty: &Type, value: &Value, path: &mut String, problems: &mut Vec<String>) {
    // Deeper than any decoder goes, or than anybody wants to read.
    if value.is_null() || problems.len() > 100 || path.len() > 100 * MAX_DEPTH {
        return;
    }
    let mut expect = |fits: bool, what: &str| {
        if !fits {
            problems.push(format!("{path}: expected {what}, got {}", go_kind(value)));
        }
    };
    match ty {
        Type::Object { schema, .. } => match value {
            Value::Object(map) => typed_object(schema, map, path, problems),
            _ => expect(false, "map"),
        },
        Type::Map(map) => match value {
            Value::Object(entries) => {
                for (key, entry) in entries {
                    let length = path.len();
                    path.push('.');
                    path.push_str(key);
                    typed(&map.element, entry, path, problems);
                    path.truncate(length);
                }
            }
            _ => expect(false, "map"),
        },
        Type::List(list) => match value {
            Value::Array(elements) => typed_list(list, elements, path, problems),
            _ => expect(false, "list"),
        },
        Type::String => expect(value.is_string(), "string"),
        Type::Bool => expect(value.is_boolean(), "boolean"),
        Type::Int32 | Type::Int64 | Type::Double => expect(value.is_number(), "numeric (int or float)"),
        _ => {}
    }
}

fn typed_list(list: &List, elements: &[Value], path: &mut String, problems: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for (index, element) in elements.iter().enumerate() {
        if list.kind != ListKind::Atomic {
            match list.path_element(element) {
                None => {
                    let ListKind::Map(keys) = &list.kind else { continue };
                    let key = keys.first().map(AsRef::as_ref).unwrap_or("");
                    problems.push(format!(
                        "{path}: element {index}: associative list with keys has an element that omits key field {key:?} \
                         (and doesn't have default value)"
                    ));
                    continue;
                }
                Some(element) if !seen.insert(element.clone()) => {
                    let set = FieldSet { member: false, children: [(element, FieldSet::here())].into() };
                    problems.push(format!("{path}: duplicate entries for key {}", set.paths().concat()));
                    continue;
                }
                Some(_) => {}
            }
        }
        let length = path.len();
        path.push_str(&format!("[{index}]"));
        typed(&list.element, element, path, problems);
        path.truncate(length);
    }
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
    }
}
