//! Arbitrary JSON for the property tests of this room.

use proptest::prelude::*;
use serde_json::{Map, Value};

/// JSON with field names that mean something to a Deployment, now and then.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let keys = prop_oneof![
        Just("spec"),
        Just("metadata"),
        Just("template"),
        Just("containers"),
        Just("name"),
        Just("ports"),
        Just("labels"),
        Just("replicas"),
        Just("annotations"),
        Just("x"),
        Just("resources"),
        Just("env"),
        Just("$patch")
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((keys.clone(), inner), 0..6).prop_map(|entries| entries
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect::<Map<_, _>>()
                .into()),
        ]
    })
}
