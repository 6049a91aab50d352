//! Validation of `metadata`, the same for every kind but for what its name may look like.

use super::field::{complaints, immutable, invalid, too_long};
use super::json::{flag, list, object, text};
use super::names;
use crate::registry::{NameRule, ResourceKind};
use crate::status::FieldError;
use serde_json::Value;

/// Finalizers without the name of who they belong to.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
/// All keys and values of the annotations together.
const ANNOTATIONS_MOST: usize = 256 * 1024;

/// Everything wrong with an object's metadata; the `validate` of kinds that have no other rules.
pub(crate) fn errors(kind: &ResourceKind, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    name(kind, new, &mut errors);
    labels("metadata.labels", object(new, "/metadata/labels").into_iter().flatten(), &mut errors);
    annotations("metadata.annotations", new, "/metadata/annotations", &mut errors);
    owner_references(new, &mut errors);
    let finalizers = super::json::texts(new, "/metadata/finalizers");
    for finalizer in &finalizers {
        errors.extend(complaints("metadata.finalizers", finalizer, names::qualified_name(finalizer)));
    }
    if finalizers.contains(&"orphan") && finalizers.contains(&"foregroundDeletion") {
        let (value, detail) =
            (&new["metadata"]["finalizers"], "finalizer orphan and foregroundDeletion cannot be both set");
        errors.push(FieldError::invalid("metadata.finalizers", value, detail));
    }
    // Kinds defined at run time may have any.
    if kind.schema.is_none() {
        for (index, finalizer) in finalizers.into_iter().enumerate() {
            if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
                let detail = "name is neither a standard finalizer name nor is it fully qualified";
                errors.push(invalid(format!("metadata.finalizers[{index}]"), finalizer, detail));
            }
        }
    }
    if let Some(old) = old {
        for pointer in ["/metadata/name", "/metadata/namespace", "/metadata/uid", "/metadata/creationTimestamp"] {
            immutable(&mut errors, new, old, pointer);
        }
    }
    errors
}

/// Complaints about a name by its rule.
pub(crate) fn name_complaints(rule: NameRule, name: &str) -> Vec<String> {
    match rule {
        NameRule::Subdomain => names::dns_subdomain(name),
        NameRule::Label => names::dns_label(name),
        NameRule::Dns1035Label => names::dns_1035_label(name),
        NameRule::PathSegment => names::path_segment(name),
        NameRule::IpAddress => match name.parse::<std::net::IpAddr>() {
            Ok(address) if address.to_string() == name => Vec::new(),
            Ok(address) => vec![format!("must be in canonical form ({:?})", address.to_string())],
            Err(_) => names::ip(name),
        },
    }
}

fn name(kind: &ResourceKind, new: &Value, errors: &mut Vec<FieldError>) {
    let name = text(new, "/metadata/name");
    let prefix = text(new, "/metadata/generateName");
    if !prefix.is_empty() {
        // The suffix to come makes a trailing dash or dot a good one.
        let masked = match prefix.char_indices().next_back() {
            Some((at, '-' | '.')) if at > 0 => format!("{}a", &prefix[..at]),
            _ => prefix.to_owned(),
        };
        errors.extend(complaints("metadata.generateName", prefix, name_complaints(kind.name_rule, &masked)));
    }
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else {
        errors.extend(complaints("metadata.name", name, name_complaints(kind.name_rule, name)));
    }
    if kind.namespaced {
        let namespace = text(new, "/metadata/namespace");
        if namespace.is_empty() {
            errors.push(FieldError::required("metadata.namespace", ""));
        } else {
            errors.extend(complaints("metadata.namespace", namespace, names::dns_label(namespace)));
        }
    } else if !text(new, "/metadata/namespace").is_empty() {
        errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type"));
    }
}

/// Everything wrong with a map of labels.
pub(crate) fn labels<'a>(
    field: &str,
    labels: impl Iterator<Item = (&'a String, &'a Value)>,
    errors: &mut Vec<FieldError>,
) {
    for (key, value) in labels {
        errors.extend(complaints(field, key, names::qualified_name(key)));
        let value = value.as_str().unwrap_or_default();
        errors.extend(complaints(field, value, names::label_value(value)));
    }
}

/// Everything wrong with the annotations at `pointer`.
pub(crate) fn annotations(field: &str, value: &Value, pointer: &str, errors: &mut Vec<FieldError>) {
    let mut size = 0;
    for (key, value) in object(value, pointer).into_iter().flatten() {
        // Unlike a label's, the key of an annotation may be written in capitals.
        errors.extend(complaints(field, key, names::qualified_name(&key.to_lowercase())));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MOST {
        errors.push(too_long(field, ANNOTATIONS_MOST));
    }
}

fn owner_references(new: &Value, errors: &mut Vec<FieldError>) {
    let owners = list(new, "/metadata/ownerReferences");
    let mut controller: Option<&str> = None;
    for owner in owners {
        let field = "metadata.ownerReferences";
        let version = text(owner, "/apiVersion");
        if version.is_empty() || version.ends_with('/') {
            errors.push(invalid(format!("{field}.apiVersion"), version, "version must not be empty"));
        }
        for key in ["kind", "name", "uid"] {
            if text(owner, &format!("/{key}")).is_empty() {
                errors.push(invalid(format!("{field}.{key}"), "", "must not be empty"));
            }
        }
        if version == "v1" && text(owner, "/kind") == "Event" {
            errors.push(invalid(field, "v1, Kind=Event", "/v1, Kind=Event is disallowed from being an owner"));
        }
        if flag(owner, "/controller") {
            let name = text(owner, "/kind");
            if let Some(first) = controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                );
                errors.push(FieldError::invalid(field, &Value::from(owners), detail));
            } else {
                controller = Some(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    fn configmap() -> ResourceKind {
        ResourceKind::new("", "v1", "ConfigMap", "configmaps")
    }

    fn said(errors: &[FieldError]) -> String {
        errors.iter().map(|error| format!("{}: {}\n", error.field, error.message)).collect()
    }

    #[test]
    fn everything_wrong_with_the_metadata_is_said_at_once() {
        let object = json!({"metadata": {
            "name": "Bad_Name", "namespace": "a.b", "labels": {"a/b/c": "ok", "ok": "not ok"}, "annotations": {"-": "x"},
            "ownerReferences": [{"apiVersion": "", "kind": "A", "name": "a", "uid": "1", "controller": true},
                                {"apiVersion": "v1", "kind": "B", "name": "", "uid": "2", "controller": true}],
        }});
        expect![[r#"
            metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            metadata.namespace: Invalid value: "a.b": must not contain dots
            metadata.labels: Invalid value: "a/b/c": a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')
            metadata.labels: Invalid value: "not ok": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
            metadata.annotations: Invalid value: "-": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            metadata.ownerReferences.apiVersion: Invalid value: "": version must not be empty
            metadata.ownerReferences.name: Invalid value: "": must not be empty
            metadata.ownerReferences: Invalid value: [{"apiVersion":"","controller":true,"kind":"A","name":"a","uid":"1"},{"apiVersion":"v1","controller":true,"kind":"B","name":"","uid":"2"}]: Only one reference can have Controller set to true. Found "true" in references for A and B
        "#]]
        .assert_eq(&said(&errors(&configmap(), &object, None)));
    }

    #[test]
    fn name_namespace_uid_and_birth_never_change() {
        let old = json!({"metadata": {"name": "a", "namespace": "n", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        let new = json!({"metadata": {"name": "b", "namespace": "n", "uid": "2", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        expect![[r#"
            metadata.name: Invalid value: "b": field is immutable
            metadata.uid: Invalid value: "2": field is immutable
        "#]]
        .assert_eq(&said(&errors(&configmap(), &new, Some(&old))));
    }

    #[test]
    fn annotations_have_a_quarter_of_a_megabyte() {
        let annotated =
            |size: usize| json!({"metadata": {"name": "a", "namespace": "n", "annotations": {"k": "x".repeat(size)}}});
        assert_eq!(errors(&configmap(), &annotated(ANNOTATIONS_MOST - 1), None), []);
        expect![[r#"
            metadata.annotations: Too long: may not be more than 262144 bytes
        "#]]
        .assert_eq(&said(&errors(&configmap(), &annotated(ANNOTATIONS_MOST), None)));
    }
}
