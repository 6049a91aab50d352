//! `metav1.Table` and `PartialObjectMetadata`: the forms of an answer that kubectl prints from.
//!
//! The cells come from the kind's row ([`ResourceKind::row`]).

use crate::negotiate::{Include, MetaVersion};
use crate::registry::ResourceKind;
use serde_json::{Value, json};

/// A table of `objects`. `columns` is false for the second and later events of a watch, which go without headers.
pub(crate) fn table<'a>(
    kind: &ResourceKind,
    objects: impl IntoIterator<Item = &'a Value>,
    (version, include): (MetaVersion, Include),
    metadata: Value,
    columns: bool,
    now: jiff::Timestamp,
) -> Value {
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| {
            let mut row = json!({"cells": (kind.row)(kind, object, now)});
            match include {
                Include::Nothing => {}
                Include::Metadata => row["object"] = partial(object, version),
                Include::Object => row["object"] = object.clone(),
            }
            row
        })
        .collect();
    let definitions: Vec<Value> = kind
        .columns
        .iter()
        .map(|column| {
            json!({"name": column.name, "type": column.kind, "format": column.format, "description": "", "priority": column.priority})
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": version.api_version(),
        "metadata": metadata,
        "columnDefinitions": if columns { Value::Array(definitions) } else { Value::Null },
        "rows": rows,
    })
}

/// The metadata of an object and nothing else.
pub(crate) fn partial(object: &Value, version: MetaVersion) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": object["metadata"]})
}
