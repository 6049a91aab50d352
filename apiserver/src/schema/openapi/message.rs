//! The v2 document as a protobuf message, which is the only form that client-go asks of `/openapi/v2`: kubectl does so for kinds that it
//! does not find in v3.
//!
//! Follows gnostic's `OpenAPIv2.proto`, as far as our documents go. What is free-form there (defaults, extensions) is YAML in a text,
//! and JSON is YAML.

use super::super::protobuf::wire::{put_bytes, put_number, put_varint};
use serde_json::{Map, Value};

/// Encodes a document that [`super::Documents::v2`] has made.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    out.message(2, &info(&document["info"]));
    let mut paths = Message::default();
    for (path, item) in entries(&document["paths"]) {
        paths.named(2, path, &path_item(item));
    }
    out.message(8, &paths);
    out.message(9, &schemas(&document["definitions"]));
    out.0
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The fields of one message. What is absent or of another type is left out.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn text(&mut self, tag: u16, value: &Value) {
        if let Some(text) = value.as_str() {
            put_bytes(&mut self.0, tag, text.as_bytes());
        }
    }

    fn texts(&mut self, tag: u16, values: &Value) {
        for value in elements(values) {
            self.text(tag, value);
        }
    }

    fn flag(&mut self, tag: u16, value: &Value) {
        if let Some(flag) = value.as_bool() {
            put_number(&mut self.0, tag, flag.into());
        }
    }

    fn integer(&mut self, tag: u16, value: &Value) {
        if let Some(number) = value.as_i64() {
            put_number(&mut self.0, tag, number.cast_unsigned());
        }
    }

    fn double(&mut self, tag: u16, value: &Value) {
        if let Some(number) = value.as_f64() {
            // Wire type 1: eight bytes, the lowest first.
            put_varint(&mut self.0, u64::from(tag) << 3 | 1);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn message(&mut self, tag: u16, message: &Message) {
        put_bytes(&mut self.0, tag, &message.0);
    }

    /// One entry of a map: name and value.
    fn named(&mut self, tag: u16, name: &str, value: &Message) {
        let mut entry = Message::default();
        put_bytes(&mut entry.0, 1, name.as_bytes());
        entry.message(2, value);
        self.message(tag, &entry);
    }

    /// A value of any type.
    fn any(&mut self, tag: u16, value: Option<&Value>) {
        if let Some(value) = value {
            self.message(tag, &any(value));
        }
    }

    fn extensions(&mut self, tag: u16, value: &Value) {
        for (name, value) in entries(value).filter(|(name, _)| name.starts_with("x-")) {
            self.named(tag, name, &any(value));
        }
    }
}

fn any(value: &Value) -> Message {
    let mut out = Message::default();
    put_bytes(&mut out.0, 2, value.to_string().as_bytes());
    out
}

fn info(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, &value["title"]);
    out.text(2, &value["version"]);
    out
}

fn path_item(value: &Value) -> Message {
    let mut out = Message::default();
    for (tag, verb) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")] {
        if let Some(value) = value.get(verb) {
            out.message(tag, &operation(value));
        }
    }
    for value in elements(&value["parameters"]) {
        out.message(9, &parameter(value));
    }
    out.extensions(10, value);
    out
}

fn operation(value: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, &value["tags"]);
    out.text(3, &value["description"]);
    out.text(5, &value["operationId"]);
    out.texts(6, &value["produces"]);
    out.texts(7, &value["consumes"]);
    for value in elements(&value["parameters"]) {
        out.message(8, &parameter(value));
    }
    let mut responses = Message::default();
    for (code, value) in entries(&value["responses"]) {
        let mut response = Message::default();
        response.text(1, &value["description"]);
        if let Some(value) = value.get("schema") {
            let mut item = Message::default();
            item.message(1, &schema(value));
            response.message(2, &item);
        }
        let mut either = Message::default();
        either.message(1, &response);
        responses.named(1, code, &either);
    }
    out.message(9, &responses);
    out.extensions(13, value);
    out
}

/// A parameter inside the messages that say where it stands.
fn parameter(value: &Value) -> Message {
    let mut own = Message::default();
    let place = value["in"].as_str().unwrap_or_default();
    if place == "body" {
        own.text(1, &value["description"]);
        own.text(2, &value["name"]);
        own.text(3, &value["in"]);
        own.flag(4, &value["required"]);
        own.message(5, &schema(&value["schema"]));
    } else {
        own.flag(1, &value["required"]);
        own.text(2, &value["in"]);
        own.text(3, &value["description"]);
        own.text(4, &value["name"]);
        // Those of queries and forms may be empty, and say so before their type.
        let after = if matches!(place, "query" | "formData") { 6 } else { 5 };
        own.text(after, &value["type"]);
        own.text(after + 1, &value["format"]);
    }
    let inside = match place {
        "body" => vec![1],
        "header" => vec![1, 2],
        "formData" => vec![2, 2],
        "query" => vec![3, 2],
        _ => vec![4, 2],
    };
    // Parameter, and ParametersItem around it.
    inside.into_iter().chain([1]).fold(own, |inner, tag| {
        let mut outer = Message::default();
        outer.message(tag, &inner);
        outer
    })
}

/// A map of schemas by name.
fn schemas(value: &Value) -> Message {
    let mut out = Message::default();
    for (name, value) in entries(value) {
        out.named(1, name, &schema(value));
    }
    out
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, &value["$ref"]);
    out.text(2, &value["format"]);
    out.text(3, &value["title"]);
    out.text(4, &value["description"]);
    out.any(5, value.get("default"));
    out.double(7, &value["maximum"]);
    out.double(9, &value["minimum"]);
    out.integer(11, &value["maxLength"]);
    out.integer(12, &value["minLength"]);
    out.text(13, &value["pattern"]);
    out.integer(14, &value["maxItems"]);
    out.integer(15, &value["minItems"]);
    out.integer(17, &value["maxProperties"]);
    out.integer(18, &value["minProperties"]);
    out.texts(19, &value["required"]);
    for value in elements(&value["enum"]) {
        out.any(20, Some(value));
    }
    if let Some(value) = value.get("additionalProperties") {
        let mut item = Message::default();
        match value.as_bool() {
            Some(_) => item.flag(2, value),
            None => item.message(1, &schema(value)),
        }
        out.message(21, &item);
    }
    if value["type"].is_string() {
        let mut item = Message::default();
        item.text(1, &value["type"]);
        out.message(22, &item);
    }
    if let Some(value) = value.get("items") {
        let mut item = Message::default();
        item.message(1, &schema(value));
        out.message(23, &item);
    }
    if value["properties"].as_object().is_some_and(|properties: &Map<String, Value>| !properties.is_empty()) {
        out.message(25, &schemas(&value["properties"]));
    }
    out.extensions(31, value);
    out
}

#[cfg(test)]
mod tests {
    use super::super::super::protobuf::wire::{Item, Reader};
    use super::*;
    use serde_json::json;

    /// The bytes at a path of tags, each the first of its kind.
    fn at<'a>(mut bytes: &'a [u8], tags: &[u32]) -> &'a [u8] {
        for tag in tags {
            let mut reader = Reader(bytes);
            bytes = loop {
                match reader.next().expect("well-formed").expect("the field is there") {
                    (found, Item::Bytes(bytes)) if found == *tag => break bytes,
                    _ => {}
                }
            };
        }
        bytes
    }

    #[test]
    fn what_kubectl_looks_for_stands_where_the_message_has_it() {
        let gvk = json!([{"group": "", "kind": "Pod", "version": "v1"}]);
        let document = encode(&json!({
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": "v1.36.0"},
            "paths": {"/api/v1/pods": {"patch": {
                "parameters": [{"in": "query", "name": "fieldValidation", "type": "string"}],
                "x-kubernetes-group-version-kind": gvk[0],
            }}},
            "definitions": {"Pod": {"type": "object", "required": ["spec"], "x-kubernetes-group-version-kind": gvk,
                "properties": {"spec": {"$ref": "#/definitions/Spec", "default": {}}}}},
        }));
        assert_eq!(at(&document, &[1]), b"2.0");
        assert_eq!(at(&document, &[2, 2]), b"v1.36.0");
        assert_eq!(at(&document, &[8, 2, 1]), b"/api/v1/pods");
        assert_eq!(at(&document, &[8, 2, 2, 8, 8, 1, 2, 3, 4]), b"fieldValidation");
        assert_eq!(at(&document, &[8, 2, 2, 8, 13, 2, 2]), gvk[0].to_string().as_bytes());
        let pod = at(&document, &[9, 1, 2]);
        assert_eq!((at(pod, &[22, 1]), at(pod, &[19])), (&b"object"[..], &b"spec"[..]));
        assert_eq!(at(pod, &[31, 2, 2]), gvk.to_string().as_bytes());
        assert_eq!(at(pod, &[25, 1, 2, 1]), b"#/definitions/Spec");
        assert_eq!(at(pod, &[25, 1, 2, 5, 2]), b"{}");
    }
}
