//! Events: the core kind, and `events.k8s.io` as a view of the same objects.

use super::field::invalid;
use super::json::{child, int, present, put, text};
use super::metadata;
use super::table::since;
use crate::registry::{Column, ResourceKind, View};
use crate::status::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Fields with one meaning and two names: core's, `events.k8s.io`'s.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// `events.k8s.io/v1` on core Events.
pub(super) fn view() -> View {
    View {
        plural: "events".into(),
        group: "".into(),
        to_stored: |event| rename(event, "v1", |(core, new)| (new, core)),
        from_stored: |event| rename(event, "events.k8s.io/v1", |names| names),
    }
}

fn rename(
    event: &mut Value,
    version: &str,
    direction: fn((&'static str, &'static str)) -> (&'static str, &'static str),
) {
    for (from, to) in NAMES.map(direction) {
        let found = event.as_object_mut().and_then(|fields| fields.remove(from));
        if let Some(found) = found {
            put(event, to, Some(found));
        }
    }
    put(event, "apiVersion", Some(version.into()));
}

/// The parts which are always there.
pub(super) fn default(kind: &ResourceKind, event: &mut Value) {
    if kind.group.is_empty() {
        child(event, "involvedObject");
        child(event, "source");
    }
}

/// Everything wrong with an event of either kind.
pub(super) fn errors(kind: &ResourceKind, event: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, event, old);
    let object = if kind.group.is_empty() { "involvedObject" } else { "regarding" };
    let (about, own) = (text(event, &format!("/{object}/namespace")), text(event, "/metadata/namespace"));
    // Events about what has no namespace stand in `default`.
    let fits = about == own || (about.is_empty() && matches!(own, "default" | "kube-system"));
    if !fits {
        errors.push(invalid(format!("{object}.namespace"), about, "does not match event.namespace"));
    }
    if !kind.group.is_empty() && old.is_none() {
        for field in ["eventTime", "reportingController", "reportingInstance", "action", "reason"] {
            if super::json::is_unset(event, &format!("/{field}")) {
                errors.push(FieldError::required(field, ""));
            }
        }
        let known = ["Normal", "Warning"];
        if !known.contains(&text(event, "/type")) {
            errors.push(invalid("type", text(event, "/type"), "has invalid value"));
        }
    }
    errors
}

/// LAST-SEEN TYPE REASON OBJECT SUBOBJECT SOURCE MESSAGE FIRST-SEEN COUNT NAME.
pub(super) fn columns() -> Vec<Column> {
    let mut columns: Vec<Column> =
        ["Last Seen", "Type", "Reason", "Object"].map(|name| Column::new(name, "string")).into();
    columns.extend(["Subobject", "Source"].map(Column::wide));
    columns.push(Column::new("Message", "string"));
    columns.extend(["First Seen", "Count"].map(Column::wide));
    columns.push(Column { priority: 1, ..Column::name() });
    columns
}

/// The cells of an event of either kind.
pub(super) fn row(kind: &ResourceKind, event: &Value, now: Timestamp) -> Vec<Value> {
    if !kind.group.is_empty() {
        let mut core = event.clone();
        (view().to_stored)(&mut core);
        return core_row(&core, now);
    }
    core_row(event, now)
}

fn core_row(event: &Value, now: Timestamp) -> Vec<Value> {
    let or = |first: &'static str, second: &'static str| match text(event, first) {
        "" => text(event, second),
        found => found,
    };
    let first_seen = since(or("/firstTimestamp", "/eventTime"), now);
    let mut last_seen = match text(event, "/lastTimestamp") {
        "" => first_seen.clone(),
        time => since(time, now),
    };
    let mut count = int(event, "/count").filter(|count| *count != 0).unwrap_or(1);
    if let Some(series) = present(event, "/series") {
        last_seen = since(text(series, "/lastObservedTime"), now);
        count = int(series, "/count").unwrap_or_default();
    }
    let kind = text(event, "/involvedObject/kind").to_lowercase();
    let object = match text(event, "/involvedObject/name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let source: Vec<&str> = [or("/source/component", "/reportingComponent"), or("/source/host", "/reportingInstance")]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect();
    vec![
        last_seen.into(),
        text(event, "/type").into(),
        text(event, "/reason").into(),
        object.into(),
        text(event, "/involvedObject/fieldPath").into(),
        source.join(", ").into(),
        text(event, "/message").trim().into(),
        first_seen.into(),
        json!(count),
        super::table::name(event),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{row_of, said};
    use super::*;

    fn event() -> Value {
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "web.1", "namespace": "shop"}, "type": "Normal", "reason": "Created",
            "involvedObject": {"kind": "Pod", "name": "web", "namespace": "shop", "fieldPath": "spec.containers{a}"},
            "message": "Created container\n", "source": {"component": "kubelet", "host": "node-1"}, "count": 3,
            "firstTimestamp": "2026-01-01T03:00:00Z", "lastTimestamp": "2026-01-01T03:04:00Z"})
    }

    #[test]
    fn an_event_is_shown_the_same_by_both_its_names() {
        let cells = "60s | Normal | Created | pod/web | spec.containers{a} | kubelet, node-1 | Created container | 5m | 3 | web.1";
        assert_eq!(row_of("", "Event", &event()), cells);
        let mut new = event();
        (view().from_stored)(&mut new);
        assert_eq!(new["regarding"]["name"], "web");
        assert_eq!(row_of("events.k8s.io", "Event", &new), cells);
        (view().to_stored)(&mut new);
        assert_eq!(new, event(), "there and back");
    }

    #[test]
    fn an_event_stands_where_its_object_does() {
        let mut astray = event();
        astray["metadata"]["namespace"] = json!("default");
        assert_eq!(
            said("", "Event", astray, None),
            ["involvedObject.namespace: Invalid value: \"shop\": does not match event.namespace"]
        );
        assert_eq!(said("", "Event", event(), None), Vec::<String>::new());
    }
}
