//! Reading a few fields out of encoded JSON without building the rest of it.
//!
//! Selectors look at two or three fields of objects of some kilobytes; a list or watch that selects would otherwise spend its time
//! on building trees that nobody reads.

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// The fields at these paths, in their places; nothing else. `Null` if the text is no JSON.
pub(crate) fn extract(json: &[u8], paths: &[Vec<String>]) -> Value {
    let paths: Vec<&[String]> = paths.iter().map(Vec::as_slice).collect();
    Wanted(&paths).deserialize(&mut serde_json::Deserializer::from_slice(json)).unwrap_or_default()
}

/// What is wanted of a value: these paths, from here on.
struct Wanted<'a>(&'a [&'a [String]]);

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.0.iter().any(|path| path.is_empty()) {
            return serde::Deserialize::deserialize(deserializer);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut found = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let paths: Vec<&[String]> = self.0.iter().filter(|path| path[0] == key).map(|path| &path[1..]).collect();
            if paths.is_empty() {
                entries.next_value::<IgnoredAny>()?;
            } else {
                let value = entries.next_value_seed(Wanted(&paths))?;
                found.insert(key, value);
            }
        }
        Ok(Value::Object(found))
    }

    // A path that goes on leads nowhere in what is no object.
    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_str<E>(self, _: &str) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_wanted_fields_are_read() {
        let object = json!({"metadata": {"name": "a", "labels": {"x": "y"}, "big": [1, {"name": 2}]},
                            "spec": {"nodeName": "n", "other": {"nodeName": "m"}}, "list": [1], "text": "t", "none": null});
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        let read = |paths: &[&str]| {
            let paths: Vec<Vec<String>> = paths.iter().map(|text| path(text)).collect();
            extract(object.to_string().as_bytes(), &paths)
        };
        assert_eq!(read(&[]), json!({}));
        assert_eq!(
            read(&["metadata.labels", "metadata.name", "spec.nodeName"]),
            json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"nodeName": "n"}})
        );
        assert_eq!(read(&["list.a", "text.a", "none.a", "nowhere"]), json!({"list": null, "text": null, "none": null}));
        assert_eq!(extract(b"{\"a\":", &[path("a")]), Value::Null);
    }
}
