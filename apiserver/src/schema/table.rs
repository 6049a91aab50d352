//! The built-in types, read from the generated `table.txt` on first use.
//!
//! Notation: a line `=NAME [GROUP/VERSION/KIND…] [a]` starts an object (`a`: atomic); each line after it is a field
//! `NAME TYPE TAG [ATTRIBUTE…]`. Types: `s` string, `i` int32, `l` int64, `b` bool, `d` double, `y` bytes, `q` Quantity,
//! `o` IntOrString, `t` Time, `u` MicroTime, `e` Duration, `x` RawExtension, `f` FieldsV1, `j` any JSON, `A B S` JSON schema or
//! array, boolean, names; `[T` list, `<T` list that protobuf wraps in a message, `{T` map, else an object's name. `TAG` is the
//! protobuf field number, or `OUTER.TAG`, or `OUTER.INNER.TAG`. Attributes: `r` required, `p` pointer, `z` written even when zero, `o` left out when
//! zero, `a` atomic, `s` set, `l=KEYS` map list, `k=` patch strategy, `m=` merge key, `g=` Go type, `d=` default as JSON.

use super::types::{Field, List, ListKind, Map, Object, ObjectRef, SchemaOr, Strategy, Type, nested};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

pub(crate) static TEXT: &str = include_str!("table.txt");

/// The built-in types.
#[derive(Debug)]
pub struct Table {
    objects: Vec<Object>,
    by_name: HashMap<&'static str, u16>,
    by_kind: HashMap<&'static str, u16>,
}

/// The table; read once, in about a millisecond.
pub fn builtin() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| Table::parse(TEXT))
}

impl Table {
    /// The object of this row.
    pub(crate) fn object(&self, index: u16) -> &Object {
        &self.objects[usize::from(index)]
    }

    /// The object of this name, such as `api.core.v1.Pod`.
    pub fn named(&self, name: &str) -> Option<ObjectRef> {
        self.by_name.get(name).map(|index| ObjectRef::Builtin(*index))
    }

    /// The type of a kind. `DeleteOptions` is the same in every group.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<ObjectRef> {
        if kind == "DeleteOptions" {
            return self.named("apimachinery.pkg.apis.meta.v1.DeleteOptions");
        }
        self.by_kind.get(format!("{group}/{version}/{kind}").as_str()).map(|index| ObjectRef::Builtin(*index))
    }

    /// Every object, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter()
    }

    fn parse(text: &'static str) -> Table {
        let mut by_name = HashMap::with_capacity(700);
        let mut count = 0u16;
        for line in text.lines() {
            if let Some(head) = line.strip_prefix('=') {
                by_name.insert(head.split(' ').next().unwrap_or(head), count);
                count += 1;
            }
        }
        let mut objects: Vec<Object> = Vec::with_capacity(usize::from(count));
        let mut by_kind = HashMap::with_capacity(400);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(head) = line.strip_prefix('=') {
                let mut words = head.split(' ');
                let mut object = Object { name: words.next().unwrap_or(head).into(), ..Object::default() };
                for word in words {
                    if word == "a" {
                        object.atomic = true;
                    } else {
                        by_kind.insert(word, by_name[object.name.as_ref()]);
                        object.kinds.push(word.into());
                    }
                }
                objects.push(object);
            } else if let Some(object) = objects.last_mut() {
                object.fields.push(field(line, &by_name));
            }
        }
        let objects = objects.into_iter().map(Object::finish).collect();
        Table { objects, by_name, by_kind }
    }
}

fn field(line: &'static str, by_name: &HashMap<&'static str, u16>) -> Field {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or("");
    let shape = words.next().unwrap_or("j");
    let tag = words.next().unwrap_or("0");
    let mut field = Field::new(name, Type::Any);
    field.pointer = false;
    let mut numbers = tag.split('.').rev().map(|number| number.parse().unwrap_or(0));
    field.tag = numbers.next().unwrap_or(0);
    field.outer = numbers.rev().fold(0, |outer, tag| nested(outer, tag).unwrap_or(0));
    let (mut atomic, mut kind, mut omit_zero) = (false, ListKind::Atomic, false);
    for word in words {
        match word.split_once('=') {
            None => match word {
                "r" => field.required = true,
                "p" => field.pointer = true,
                "z" => field.always = true,
                "o" => omit_zero = true,
                "a" => atomic = true,
                "s" => kind = ListKind::Set,
                _ => debug_assert!(false, "unknown attribute {word:?} in {line:?}"),
            },
            Some(("l", keys)) => kind = ListKind::Map(keys.split(',').map(Into::into).collect()),
            Some(("k", strategies)) => {
                for strategy in strategies.split(',') {
                    match strategy {
                        "merge" => field.strategy.merge = true,
                        "replace" => field.strategy.replace = true,
                        "retainKeys" => field.strategy.retain_keys = true,
                        _ => debug_assert!(false, "unknown strategy in {line:?}"),
                    }
                }
            }
            Some(("m", key)) => field.merge_key = Some(key.into()),
            Some(("g", name)) => field.go_type = name.into(),
            Some(("d", json)) => field.default = serde_json::from_str(json).ok(),
            Some(_) => debug_assert!(false, "unknown attribute {word:?} in {line:?}"),
        }
    }
    // A struct that `omitzero` leaves out is, for our purposes, a pointer.
    field.pointer |= omit_zero;
    field.ty = shape_of(shape, kind, atomic, by_name);
    if matches!(field.strategy, Strategy { merge: false, .. }) && matches!(field.ty, Type::List(_)) {
        field.merge_key = None;
    }
    field
}

fn shape_of(shape: &'static str, kind: ListKind, atomic: bool, by_name: &HashMap<&'static str, u16>) -> Type {
    if let Some(element) = shape.strip_prefix('[') {
        let element = shape_of(element, ListKind::Atomic, false, by_name);
        return Type::List(Arc::new(List { element, kind, wrapped: false }));
    }
    if let Some(element) = shape.strip_prefix('<') {
        let element = shape_of(element, ListKind::Atomic, false, by_name);
        return Type::List(Arc::new(List { element, kind, wrapped: true }));
    }
    if let Some(element) = shape.strip_prefix('{') {
        let element = shape_of(element, ListKind::Atomic, false, by_name);
        return Type::Map(Arc::new(Map { element, atomic }));
    }
    match shape {
        "s" => Type::String,
        "i" => Type::Int32,
        "l" => Type::Int64,
        "b" => Type::Bool,
        "d" => Type::Double,
        "y" => Type::Bytes,
        "q" => Type::Quantity,
        "o" => Type::IntOrString,
        "t" => Type::Time,
        "u" => Type::MicroTime,
        "e" => Type::Duration,
        "x" => Type::Raw,
        "f" => Type::FieldsV1,
        "j" => Type::Any,
        "A" => Type::SchemaOr(SchemaOr::Array),
        "B" => Type::SchemaOr(SchemaOr::Bool),
        "S" => Type::SchemaOr(SchemaOr::StringArray),
        name => match by_name.get(name) {
            Some(index) => Type::Object { schema: ObjectRef::Builtin(*index), atomic },
            None => {
                debug_assert!(false, "no object {name:?}");
                Type::Any
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let table = builtin();
        assert!(table.objects.len() > 550, "{} objects", table.objects.len());
        for object in table.iter() {
            for field in &object.fields {
                assert!(!field.name.is_empty() && !matches!((&field.ty, field.tag), (Type::Any, 0)), "{}", object.name);
            }
        }
    }

    #[test]
    fn objects_and_kinds_are_found_by_name() {
        let table = builtin();
        let deployment = table.kind("apps", "v1", "Deployment").expect("a kind");
        assert_eq!(deployment.name, "api.apps.v1.Deployment");
        let container = table.named("api.core.v1.Container").expect("an object");
        let ports = container.field("ports").expect("a field");
        assert_eq!(ports.merge_key.as_deref(), Some("containerPort"));
        let Type::List(list) = &ports.ty else { panic!("a list") };
        assert_eq!(list.kind, ListKind::Map(vec!["containerPort".into(), "protocol".into()]));
        assert!(table.kind("", "v1", "Nonsense").is_none());
    }

    #[test]
    fn inlined_messages_are_found_by_both_numbers() {
        let volume = builtin().named("api.core.v1.Volume").expect("an object");
        assert_eq!(volume.tagged(2, 19).map(|field| field.name.as_ref()), Some("configMap"));
        assert_eq!(volume.tagged(0, 1).map(|field| field.name.as_ref()), Some("name"));
        assert!(volume.has_outer(2) && !volume.has_outer(3));
    }
}
