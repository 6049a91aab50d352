//! Bodies of creates. The first line names the resource and the strictness (`deployments.apps Strict`), the rest is the body.

use crate::house::{House, with};
use apiserver::registry::ResourceKind;
use apiserver::schema;
use http::Method;
use serde_json::Value;
use std::sync::Arc;

const VALIDATION: [&str; 3] = ["Strict", "Warn", "Ignore"];

/// The kind and validation that the first line names, and the body. A name that is none stands for one kind or another.
fn split<'a>(house: &House, data: &'a [u8]) -> Option<(Arc<ResourceKind>, &'static str, &'a [u8])> {
    let end = data.iter().position(|byte| *byte == b'\n')?;
    let (line, body) = (String::from_utf8_lossy(&data[..end]), &data[end + 1..]);
    let (name, validation) = line.split_once(' ').unwrap_or((&line, ""));
    let registry = house.api.registry();
    let kinds: Vec<&Arc<ResourceKind>> =
        registry.iter().filter(|kind| kind.verbs.iter().any(|verb| verb == "create")).collect();
    let named = kinds.iter().find(|kind| match name.split_once('.') {
        Some((plural, group)) => kind.plural == plural && kind.group == group,
        None => kind.plural == name && kind.group.is_empty(),
    });
    let kind = named.unwrap_or_else(|| &kinds[line.bytes().map(usize::from).sum::<usize>() % kinds.len()]);
    let validation = VALIDATION.into_iter().find(|known| *known == validation).unwrap_or("Ignore");
    Some(((*kind).clone(), validation, body))
}

fn collection(kind: &ResourceKind) -> String {
    let root = if kind.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", kind.group) };
    let namespace = if kind.namespaced { "/namespaces/default" } else { "" };
    format!("{root}/{}{namespace}/{}", kind.version, kind.plural)
}

/// Creates an object; what came into being can be written back as it is, and nothing changes by that.
fn create(media: &str, data: &[u8]) {
    with(|house| {
        let Some((kind, validation, body)) = split(house, data) else { return };
        let uri = format!("{}?fieldValidation={validation}", collection(&kind));
        let made = house.send(Method::POST, &uri, &[("content-type", media)], body.to_vec());
        made.is_sound(&[]);
        let can_update = kind.verbs.iter().any(|verb| verb == "update");
        if let (201, true, Some(object)) = (made.code, can_update, made.json()) {
            written_back(house, &collection(&kind), &object);
        }
    });
}

fn written_back(house: &mut House, collection: &str, object: &Value) {
    let name = object["metadata"]["name"].as_str().expect("what was made has a name");
    let path: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let uri = format!("{collection}/{path}");
    let read = house.get(&uri);
    assert_eq!(read.json().as_ref(), Some(object), "what is read is what was made");
    let json = [("content-type", "application/json")];
    let again = house.send(Method::PUT, &format!("{uri}?fieldValidation=Strict"), &json, object.to_string());
    assert_eq!(again.code, 200, "{} {object}", String::from_utf8_lossy(&again.body));
    assert_eq!(again.json().as_ref(), Some(object), "writing what was read changes nothing");
    let gone = house.send(Method::DELETE, &format!("{uri}?gracePeriodSeconds=0"), &[], "");
    gone.is_sound(&[]);
}

/// JSON.
pub(crate) fn json(data: &[u8]) {
    create("application/json", data);
}

/// YAML; what is JSON and was read as such is read as the same by the YAML reader.
pub(crate) fn yaml(data: &[u8]) {
    create("application/yaml", data);
}

/// Protobuf: a whole envelope, or a message of the chosen kind that is put into one. What is read can be written and read again.
pub(crate) fn protobuf(data: &[u8]) {
    with(|house| {
        let Some((kind, validation, body)) = split(house, data) else { return };
        let body = if body.starts_with(b"k8s\0") { body.to_vec() } else { envelope(&kind, body) };
        let schemas = house.api.schemas();
        if let Ok(value) = schema::protobuf::decode(schemas, &body) {
            let written = schema::protobuf::encode(schemas, &value).expect("what was read can be written");
            let again = schema::protobuf::decode(schemas, &written).expect("and read again");
            assert_eq!(again, value);
        }
        let uri = format!("{}?fieldValidation={validation}", collection(&kind));
        let made = house.send(Method::POST, &uri, &[("content-type", "application/vnd.kubernetes.protobuf")], body);
        made.is_sound(&[]);
    });
}

/// A message with what says of which kind it is.
fn envelope(kind: &ResourceKind, message: &[u8]) -> Vec<u8> {
    fn field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
        out.push(tag << 3 | 2);
        let mut length = bytes.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(bytes);
    }
    let mut meta = Vec::new();
    field(&mut meta, 1, kind.api_version().as_bytes());
    field(&mut meta, 2, kind.kind.as_bytes());
    let mut out = b"k8s\0".to_vec();
    field(&mut out, 1, &meta);
    field(&mut out, 2, message);
    out
}
