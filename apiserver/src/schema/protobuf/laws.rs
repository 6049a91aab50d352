//! Protobuf against Go's own encoders, and round trips of objects of every kind, made up from the table.
//!
//! `vectors.txt` has two objects of each kind, one with all of its fields and one with none, as the published Go modules write
//! them in protobuf and in JSON; `schema-tools/facts/vectors` makes it.

use super::*;
use crate::schema::decode::{decode_json, decode_yaml};
use crate::schema::table::builtin;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

const VECTORS: &str = include_str!("vectors.txt");

/// Removes what Go writes although there is nothing: null.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// Where two values differ first, and how.
fn first_difference(ours: &Value, theirs: &Value, path: &str) -> Option<String> {
    match (ours, theirs) {
        (Value::Object(one), Value::Object(other)) => {
            let keys = one.keys().chain(other.keys());
            keys.into_iter().find_map(|key| {
                let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                first_difference(&of(one), &of(other), &format!("{path}.{key}"))
            })
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => one
            .iter()
            .zip(other)
            .enumerate()
            .find_map(|(index, (one, other))| first_difference(one, other, &format!("{path}[{index}]"))),
        _ => (ours != theirs).then(|| format!("{path}: {ours} instead of {theirs}")),
    }
}

#[test]
fn what_go_writes_in_protobuf_is_read_as_what_go_writes_in_json() {
    let schemas = Schemas::new();
    let mut count = 0;
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.splitn(4, ' ');
        let (api_version, kind) = (words.next().expect("a version"), words.next().expect("a kind"));
        let raw = STANDARD.decode(words.next().expect("bytes")).expect("base64");
        let mut expected: Value = serde_json::from_str(words.next().expect("JSON")).expect("JSON");
        without_nulls(&mut expected);
        expected["apiVersion"] = api_version.into();
        expected["kind"] = kind.into();
        let mut meta = Vec::new();
        wire::put_bytes(&mut meta, 1, api_version.as_bytes());
        wire::put_bytes(&mut meta, 2, kind.as_bytes());
        let mut body = MAGIC.to_vec();
        wire::put_bytes(&mut body, 1, &meta);
        wire::put_bytes(&mut body, 2, &raw);
        let read = decode(&schemas, &body).unwrap_or_else(|why| panic!("{api_version} {kind}: {}", why.message));
        assert_eq!(first_difference(&read, &expected, ""), None, "{api_version} {kind}");
        let again = decode(&schemas, &encode(&schemas, &read).expect("a built-in kind")).expect("our own bytes");
        assert_eq!(first_difference(&again, &expected, ""), None, "{api_version} {kind}: there and back");
        count += 1;
    }
    assert!(count > 100, "{count} objects");
}

/// A value of this type; never one that Go takes for absent.
fn some(ty: &Type, random: &mut SmallRng, depth: usize) -> Value {
    let word = |random: &mut SmallRng| -> String {
        let length = random.random_range(1..6);
        (0..length).map(|_| random.random_range('a'..='e')).collect()
    };
    match ty {
        Type::String => word(random).into(),
        Type::Int32 => (random.random_range(1..=i32::MAX) * if random.random() { 1 } else { -1 }).into(),
        Type::Int64 => (random.random_range(1..=i64::MAX) * if random.random() { 1 } else { -1 }).into(),
        Type::Bool => true.into(),
        Type::Double => (f64::from(random.random_range(1..1000)) + 0.25).into(),
        Type::Bytes => STANDARD.encode([random.random::<u8>(), 0, 255]).into(),
        Type::Quantity => {
            ["1500m", "2Gi", "3k", "7", "12e6", "1n"].get(random.random_range(0..6)).copied().unwrap_or("1").into()
        }
        Type::IntOrString if random.random() => random.random_range(-9..99).into(),
        Type::IntOrString => format!("{}%", random.random_range(1..99)).into(),
        Type::Time => {
            time::seconds(Timestamp::from_second(random.random_range(-1000..2_000_000_000)).expect("a time")).into()
        }
        Type::MicroTime => {
            let micros = random.random_range(0..2_000_000_000_000_000);
            time::micros(Timestamp::from_microsecond(micros).expect("a time")).into()
        }
        Type::Duration => time::duration(random.random_range(1..1_000_000_000_000)).into(),
        Type::Raw | Type::Any => json!({word(random): [random.random_range(0..9), null, {"x": "y"}]}),
        Type::FieldsV1 => json!({"f:spec": {format!("f:{}", word(random)): {}}}),
        Type::SchemaOr(or) => match (or, random.random_range(0..2)) {
            (SchemaOr::Bool, 0) => random.random::<bool>().into(),
            (SchemaOr::StringArray, 0) => json!([word(random)]),
            (SchemaOr::Array, 0) => json!([{"type": word(random)}]),
            _ => json!({"type": word(random)}),
        },
        Type::Object { schema, .. } => object(schema, random, depth),
        Type::List(list) => {
            let count = random.random_range(1..3);
            (0..count).map(|_| some(&list.element, random, depth + 1)).collect::<Vec<_>>().into()
        }
        Type::Map(map) => {
            let count = random.random_range(1..3);
            let entries = (0..count).map(|_| (word(random), some(&map.element, random, depth + 1)));
            Value::Object(entries.collect())
        }
    }
}

fn object(schema: &Object, random: &mut SmallRng, depth: usize) -> Value {
    let mut map = Map::new();
    // The deeper, the fewer: objects that contain themselves come to an end.
    for field in schema.fields.iter().filter(|field| field.tag != 0) {
        let scalar = !matches!(field.ty, Type::Object { .. } | Type::List(_) | Type::Map(_) | Type::SchemaOr(_));
        if random.random_range(0..10) < if scalar { 6 } else { 7usize.saturating_sub(depth) } {
            map.insert(field.name.to_string(), some(&field.ty, random, depth + 1));
        }
    }
    Value::Object(map)
}

#[test]
fn objects_of_every_kind_survive_the_way_through_protobuf_and_yaml() {
    let schemas = Schemas::new();
    let mut kinds = 0;
    for schema in builtin().iter().filter(|schema| !schema.kinds.is_empty()) {
        for (seed, name) in (0u64..6).flat_map(|seed| schema.kinds.iter().map(move |name| (seed, name))) {
            let mut parts = name.split('/');
            let (group, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let kind = parts.next().unwrap_or_default();
            let mut value = object(schema, &mut SmallRng::seed_from_u64(seed), 0);
            let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
            value["apiVersion"] = api_version.into();
            value["kind"] = kind.into();
            let bytes = encode(&schemas, &value).unwrap_or_else(|| panic!("{name} cannot be written"));
            let read = decode(&schemas, &bytes).unwrap_or_else(|why| panic!("{name}, seed {seed}: {}", why.message));
            assert_eq!(read, value, "{name}, seed {seed}");
            // JSON is YAML; and what a writer of YAML makes of it means the same.
            let text = value.to_string();
            assert_eq!(decode_json(text.as_bytes()).expect("JSON").value, value, "{name}, seed {seed}");
            assert_eq!(decode_yaml(text.as_bytes()).expect("YAML").value, value, "{name}, seed {seed}");
            let yaml = serde_saphyr::to_string(&value).expect("YAML can be written");
            assert_eq!(decode_yaml(yaml.as_bytes()).expect("YAML").value, value, "{name}, seed {seed}: {yaml}");
        }
        kinds += 1;
    }
    assert!(kinds > 150, "{kinds} kinds");
}

#[test]
fn cut_off_anywhere_a_message_is_refused_or_read_but_never_trusted_beyond_its_end() {
    let schemas = Schemas::new();
    for line in VECTORS.lines().filter(|line| line.starts_with("v1 Pod ") || line.starts_with("apps/v1 Deployment ")) {
        let (api_version, rest) = line.split_once(' ').expect("a version");
        let text = rest.splitn(3, ' ').nth(2).expect("JSON");
        let mut value: Value = serde_json::from_str(text).expect("JSON");
        value["apiVersion"] = api_version.into();
        value["kind"] = rest.split(' ').next().into();
        let bytes = encode(&schemas, &value).expect("a built-in kind");
        for end in 0..bytes.len() {
            if let Err(why) = decode(&schemas, &bytes[..end]) {
                assert_eq!(why.code, 400);
            }
        }
    }
}
