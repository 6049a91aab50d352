//! From a request body to a JSON value: JSON, YAML or protobuf.
//!
//! Duplicate fields are noticed here, since a [`Value`] cannot hold them; the last one wins, as in Kubernetes. Everything else
//! that may be wrong with an object is [`check`](super::check())'s business. Bodies are bounded in size and depth.

use super::protobuf;
use super::types::Schemas;
use crate::status::Status;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// The largest body Kubernetes takes.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

/// How deep objects and lists may be nested.
pub(crate) const MAX_DEPTH: usize = 128;

/// Stack for [`MAX_DEPTH`] levels of YAML, even without optimization.
const YAML_STACK: usize = 32 << 20;

/// At most this many complaints about one body.
pub(crate) const MAX_COMPLAINTS: usize = 100;

/// A decoded body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The value.
    pub value: Value,
    /// `duplicate field "spec.replicas"`, once per field that stands there twice.
    pub duplicates: Vec<String>,
}

/// Decodes a body of this content type; none or an empty one means JSON.
///
/// # Errors
/// 400 if the body is malformed, 413 if it is too large, 415 if the content type is none of ours.
pub fn decode(schemas: &Schemas, content_type: &str, body: &[u8]) -> Result<Decoded, Status> {
    if body.len() > MAX_BODY {
        let message = format!("Request entity too large: limit is {MAX_BODY}");
        return Err(Status::failure(413, "RequestEntityTooLarge", message));
    }
    let media_type = content_type.split(';').next().unwrap_or("").trim();
    match media_type.to_ascii_lowercase().as_str() {
        "" | "application/json" => decode_json(body),
        "application/yaml" => decode_yaml(body),
        "application/vnd.kubernetes.protobuf" => {
            Ok(Decoded { value: protobuf::decode(schemas, body)?, duplicates: Vec::new() })
        }
        _ => Err(Status::failure(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// Decodes JSON.
///
/// # Errors
/// 400 if it is none, or nested too deeply.
pub fn decode_json(body: &[u8]) -> Result<Decoded, Status> {
    serde_json::from_slice::<Tracked>(body)
        .map(Decoded::from)
        .map_err(|error| Status::bad_request(format!("couldn't get version/kind; json parse error: {error}")))
}

/// Decodes one YAML document.
///
/// # Errors
/// 400 if it is none, nested too deeply, or grows too much by its aliases.
pub fn decode_yaml(body: &[u8]) -> Result<Decoded, Status> {
    // JSON is YAML, and what kubectl and helm send as such.
    if let Ok(decoded) = decode_json(body) {
        return Ok(decoded);
    }
    // The reader of YAML needs some ten kilobytes of stack for each level, more than a worker has for all that are allowed.
    let reader = std::thread::Builder::new().name("yaml".to_owned()).stack_size(YAML_STACK);
    std::thread::scope(|scope| match reader.spawn_scoped(scope, || decode_block_yaml(body)) {
        Ok(reader) => reader.join().unwrap_or_else(|_| Err(Status::internal("the reader of YAML panicked"))),
        Err(why) => Err(Status::internal(why)),
    })
}

fn decode_block_yaml(body: &[u8]) -> Result<Decoded, Status> {
    let mut budget = serde_saphyr::Budget::default();
    budget.max_depth = MAX_DEPTH;
    let options = serde_saphyr::options! {
        budget: Some(budget),
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
    };
    serde_saphyr::from_slice_with_options::<Tracked>(body, options)
        .map(Decoded::from)
        .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))
}

/// A value with the paths of its duplicate fields, innermost segment first written.
struct Tracked {
    value: Value,
    duplicates: Vec<String>,
}

impl From<Tracked> for Decoded {
    fn from(tracked: Tracked) -> Self {
        let duplicates = tracked.duplicates.into_iter().map(|path| format!("duplicate field {path:?}")).collect();
        Decoded { value: tracked.value, duplicates }
    }
}

impl<'de> Deserialize<'de> for Tracked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TrackedVisitor)
    }
}

struct TrackedVisitor;

fn plain<E>(value: Value) -> Result<Tracked, E> {
    Ok(Tracked { value, duplicates: Vec::new() })
}

impl<'de> Visitor<'de> for TrackedVisitor {
    type Value = Tracked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tracked, E> {
        plain(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tracked, E> {
        plain(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tracked, E> {
        plain(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Tracked, E> {
        Number::from_f64(value).map_or_else(|| Err(E::custom("not a finite number")), |n| plain(Value::Number(n)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tracked, E> {
        plain(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tracked, E> {
        plain(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Tracked, E> {
        plain(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Tracked, E> {
        plain(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tracked, D::Error> {
        Tracked::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Tracked, A::Error> {
        let mut values = Vec::new();
        let mut duplicates = Vec::new();
        while let Some(element) = sequence.next_element::<Tracked>()? {
            let index = values.len();
            duplicates.extend(element.duplicates.into_iter().map(|path| join(&format!("[{index}]"), &path)));
            values.push(element.value);
        }
        Ok(Tracked { value: Value::Array(values), duplicates })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tracked, A::Error> {
        let mut map = Map::new();
        let mut duplicates = Vec::new();
        while let Some((key, child)) = access.next_entry::<String, Tracked>()? {
            if duplicates.len() < MAX_COMPLAINTS {
                duplicates.extend(child.duplicates.into_iter().map(|path| join(&key, &path)));
                if map.contains_key(&key) {
                    duplicates.push(key.clone());
                }
            }
            map.insert(key, child.value);
        }
        Ok(Tracked { value: Value::Object(map), duplicates })
    }
}

fn join(head: &str, tail: &str) -> String {
    if tail.starts_with('[') { format!("{head}{tail}") } else { format!("{head}.{tail}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_duplicate_field_is_named_with_its_path_and_the_last_one_wins() {
        let decoded = decode_json(br#"{"a":1,"spec":{"list":[{"x":1},{"x":1,"x":2}]},"a":2}"#).expect("JSON");
        assert_eq!(decoded.value, json!({"a": 2, "spec": {"list": [{"x": 1}, {"x": 2}]}}));
        assert_eq!(decoded.duplicates, [r#"duplicate field "spec.list[1].x""#, r#"duplicate field "a""#]);
        let decoded = decode_yaml(b"data:\n  a: 1\n  a: 2\n").expect("YAML");
        assert_eq!(decoded.value, json!({"data": {"a": 2}}));
        assert_eq!(decoded.duplicates, [r#"duplicate field "data.a""#]);
    }

    #[test]
    fn yaml_scalars_have_the_types_json_gives_them() {
        let decoded =
            decode_yaml(b"a: 80\nb: \"80\"\nc: true\nd: 1.5\ne:\nf: x y\ng: [1, two]\nh: 2026-01-02\n").expect("YAML");
        let expected =
            json!({"a": 80, "b": "80", "c": true, "d": 1.5, "e": null, "f": "x y", "g": [1, "two"], "h": "2026-01-02"});
        assert_eq!(decoded.value, expected);
    }

    #[test]
    fn the_content_type_chooses_the_decoder() {
        let schemas = Schemas::new();
        assert!(decode(&schemas, "application/json; charset=utf-8", b"{}").is_ok());
        assert!(decode(&schemas, "", b"{}").is_ok());
        assert!(decode(&schemas, "application/yaml", b"a: b").is_ok());
        assert_eq!(decode(&schemas, "text/plain", b"{}").expect_err("no").code, 415);
        assert_eq!(decode(&schemas, "application/json", b"{").expect_err("no").code, 400);
        assert_eq!(decode(&schemas, "application/json", &vec![b' '; MAX_BODY + 1]).expect_err("no").code, 413);
    }

    #[test]
    fn a_bottomless_body_is_refused() {
        assert_eq!(decode_json(&vec![b'['; 100_000]).expect_err("too deep").code, 400);
        assert_eq!(decode_yaml(&vec![b'['; 100_000]).expect_err("too deep").code, 400);
        assert_eq!(decode_yaml("{a: ".repeat(10_000).as_bytes()).expect_err("too deep").code, 400);
        let steps = |count: usize| (0..count).map(|step| format!("{}a:\n", " ".repeat(step))).collect::<String>();
        assert_eq!(decode_yaml(steps(1000).as_bytes()).expect_err("too deep").code, 400);
        assert!(decode_yaml(steps(100).as_bytes()).is_ok(), "deep, but not too deep");
    }

    #[test]
    fn aliases_that_grow_without_end_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for step in 1..9 {
            let aliases = vec![format!("*a{}", step - 1); 10].join(", ");
            bomb.push_str(&format!("a{step}: &a{step} [{aliases}]\n"));
        }
        assert_eq!(decode_yaml(bomb.as_bytes()).expect_err("a billion").code, 400);
        assert_eq!(decode_yaml(b"a: &a [*a]").expect_err("endless").code, 400);
        let value = decode_yaml(b"a: &a {x: z}\nb: *a\n").expect("a plain alias").value;
        assert_eq!(value, json!({"a": {"x": "z"}, "b": {"x": "z"}}));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let schemas = Schemas::new();
            for kind in ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"] {
                let _ = decode(&schemas, kind, &bytes);
            }
        }

        #[test]
        fn yaml_like_text_never_panics(text in "[-a-c:{}\\[\\]&*!|> \n\"'0-9]{0,80}") {
            let _ = decode_yaml(text.as_bytes());
        }
    }
}
