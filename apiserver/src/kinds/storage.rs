//! What is wrong with the kinds around volumes that drivers write: CSIDriver, CSINode, CSIStorageCapacity, VolumeAttachment,
//! VolumeAttributesClass. Their columns and defaults are in [`super::volumes`].

use super::field::{complaints, immutable, invalid, one_of, too_long};
use super::json::{int, is_unset, list, object, present, same, text, texts};
use super::quantity::{NOT_A_QUANTITY, Quantity};
use super::{metadata, names, selector};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use serde_json::{Value, json};
use std::collections::HashSet;

/// The name of a CSI driver: a DNS subdomain of at most 63 characters, case aside.
fn driver_name(name: &str, field: &str, errors: &mut Vec<FieldError>) {
    if name.is_empty() {
        errors.push(FieldError::required(field, ""));
        return;
    }
    if name.len() > 63 {
        errors.push(too_long(field, 63));
    }
    errors.extend(complaints(field, name, names::dns_subdomain(&name.to_lowercase())));
}

/// Everything wrong with a CSIDriver.
pub(super) fn driver(kind: &ResourceKind, driver: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, driver, old);
    let own = text(driver, "/metadata/name");
    if own.len() > 63 {
        errors.push(too_long("metadata.name", 63));
    }
    let policy = text(driver, "/spec/fsGroupPolicy");
    if !policy.is_empty() {
        one_of(&mut errors, "spec.fsGroupPolicy", policy, &["ReadWriteOnceWithFSType", "File", "None"]);
    }
    for mode in texts(driver, "/spec/volumeLifecycleModes") {
        one_of(&mut errors, "spec.volumeLifecycleModes", mode, &["Ephemeral", "Persistent"]);
    }
    let mut audiences = HashSet::new();
    for (index, request) in list(driver, "/spec/tokenRequests").iter().enumerate() {
        let field = format!("spec.tokenRequests[{index}]");
        let audience = text(request, "/audience");
        if !audiences.insert(audience) {
            errors.push(FieldError::duplicate(format!("{field}.audience"), &json!(audience)));
        }
        if let Some(seconds) = int(request, "/expirationSeconds") {
            let field = format!("{field}.expirationSeconds");
            if seconds < 600 {
                let detail = "may not specify a duration less than 10 minutes";
                errors.push(FieldError::invalid(&field, &json!(seconds), detail));
            }
            if seconds > 1 << 32 {
                let detail = "may not specify a duration larger than 2^32 seconds";
                errors.push(FieldError::invalid(field, &json!(seconds), detail));
            }
        }
    }
    if let Some(old) = old {
        for field in ["attachRequired", "volumeLifecycleModes"] {
            immutable(&mut errors, driver, old, &format!("/spec/{field}"));
        }
    }
    errors
}

/// Everything wrong with a CSINode.
pub(super) fn csi_node(kind: &ResourceKind, node: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, node, old);
    let mut known = HashSet::new();
    for (index, driver) in list(node, "/spec/drivers").iter().enumerate() {
        let at = |part: &str| format!("spec.drivers[{index}].{part}");
        let name = text(driver, "/name");
        driver_name(name, &at("name"), &mut errors);
        match text(driver, "/nodeID") {
            "" => errors.push(FieldError::required(at("nodeID"), "")),
            id if id.len() > 256 => errors.push(invalid(at("nodeID"), id, "must be 256 characters or less")),
            _ => {}
        }
        if !known.insert(name) {
            errors.push(FieldError::duplicate(at("name"), &json!(name)));
        }
        let mut keys = HashSet::new();
        for key in texts(driver, "/topologyKeys") {
            if !keys.insert(key) {
                errors.push(FieldError::duplicate(at("topologyKeys"), &json!(key)));
            }
            errors.extend(complaints(&at("topologyKeys"), key, names::qualified_name(key)));
        }
        if let Some(count) = int(driver, "/allocatable/count").filter(|count| *count < 0) {
            let detail = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(at("allocatable.count"), &json!(count), detail));
        }
    }
    errors
}

/// Everything wrong with a CSIStorageCapacity.
pub(super) fn capacity(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    match text(object, "/storageClassName") {
        "" => errors.push(FieldError::required("storageClassName", "")),
        class => errors.extend(complaints("storageClassName", class, names::dns_subdomain(class))),
    }
    if let Some(topology) = present(object, "/nodeTopology") {
        selector::errors(topology, "nodeTopology", &mut errors);
    }
    for field in ["capacity", "maximumVolumeSize"] {
        match object.get(field).filter(|value| !value.is_null()).map(|value| (value, Quantity::of(value))) {
            Some((value, None)) => errors.push(FieldError::invalid(field, value, NOT_A_QUANTITY)),
            Some((value, Some(quantity))) if quantity.is_negative() => {
                errors.push(FieldError::invalid(field, value, "must be greater than or equal to 0"));
            }
            _ => {}
        }
    }
    if let Some(old) = old {
        for field in ["/nodeTopology", "/storageClassName"] {
            immutable(&mut errors, object, old, field);
        }
    }
    errors
}

/// Everything wrong with a VolumeAttachment.
pub(super) fn attachment(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    driver_name(text(object, "/spec/attacher"), "spec.attacher", &mut errors);
    let source = "spec.source";
    let name = present(object, "/spec/source/persistentVolumeName").and_then(Value::as_str);
    match (name, present(object, "/spec/source/inlineVolumeSpec")) {
        (None, None) => {
            errors.push(FieldError::required(source, "must specify one of inlineVolumeSpec and persistentVolumeName"));
        }
        (Some(name), Some(_)) => errors.push(invalid(
            format!("{source}.persistentVolumeName"),
            name,
            "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        )),
        (Some(""), None) => {
            errors.push(FieldError::required(
                format!("{source}.persistentVolumeName"),
                "must specify non empty persistentVolumeName",
            ));
        }
        _ => {}
    }
    let node = text(object, "/spec/nodeName");
    errors.extend(complaints("spec.nodeName", node, names::dns_subdomain(node)));
    if let Some(old) = old {
        immutable(&mut errors, object, old, "/spec");
    }
    errors
}

/// Everything wrong with a VolumeAttributesClass.
pub(super) fn attributes_class(kind: &ResourceKind, class: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, class, old);
    driver_name(text(class, "/driverName"), "driverName", &mut errors);
    if is_unset(class, "/parameters") {
        errors.push(FieldError::required("parameters", "must contain at least one key/value pair"));
    }
    for (key, _) in object(class, "/parameters").into_iter().flatten() {
        if key.is_empty() {
            errors.push(invalid("parameters", key, "field can not be empty."));
        }
    }
    if let Some(old) = old {
        for field in ["driverName", "parameters"] {
            if !same(class, old, &format!("/{field}")) {
                errors.push(FieldError::forbidden(field, format!("updates to {field} are forbidden.")));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    #[track_caller]
    fn refused(kind: &str, object: Value, expected: &[&str]) {
        let mut object = object;
        object["metadata"] = json!({"name": "a", "namespace": if kind == "CSIStorageCapacity" { json!("default") } else { Value::Null }});
        assert_eq!(said("storage.k8s.io", kind, object, None), expected, "{kind}");
    }

    #[test]
    fn what_drivers_write_is_checked() {
        refused("CSIDriver", json!({"spec": {}}), &[]);
        refused(
            "CSIDriver",
            json!({"spec": {"fsGroupPolicy": "Some", "tokenRequests": [{"audience": "a", "expirationSeconds": 1}, {"audience": "a"}]}}),
            &[
                "spec.fsGroupPolicy: Unsupported value: \"Some\": supported values: \"ReadWriteOnceWithFSType\", \"File\", \"None\"",
                "spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
                "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
            ],
        );
        refused(
            "CSINode",
            json!({"spec": {"drivers": [{"name": "d.io", "nodeID": "n"}, {"name": "d.io"}]}}),
            &["spec.drivers[1].nodeID: Required value", "spec.drivers[1].name: Duplicate value: \"d.io\""],
        );
        refused(
            "CSIStorageCapacity",
            json!({"capacity": "-1"}),
            &[
                "storageClassName: Required value",
                "capacity: Invalid value: \"-1\": must be greater than or equal to 0",
            ],
        );
        refused(
            "VolumeAttachment",
            json!({"spec": {"attacher": "a.io", "nodeName": "node-1", "source": {}}}),
            &["spec.source: Required value: must specify one of inlineVolumeSpec and persistentVolumeName"],
        );
        refused(
            "VolumeAttributesClass",
            json!({"driverName": "d.io"}),
            &["parameters: Required value: must contain at least one key/value pair"],
        );
    }

    #[test]
    fn what_a_driver_has_acted_on_stays() {
        let class =
            |size: &str| json!({"metadata": {"name": "fast"}, "driverName": "d.io", "parameters": {"iops": size}});
        assert_eq!(
            said("storage.k8s.io", "VolumeAttributesClass", class("2"), Some(class("1"))),
            ["parameters: Forbidden: updates to parameters are forbidden."]
        );
        let attachment = |node: &str| json!({"metadata": {"name": "a"}, "spec": {"attacher": "a.io", "nodeName": node, "source": {"persistentVolumeName": "p"}}});
        assert_eq!(
            said("storage.k8s.io", "VolumeAttachment", attachment("b"), Some(attachment("a"))),
            [
                "spec: Invalid value: {\"attacher\":\"a.io\",\"nodeName\":\"b\",\"source\":{\"persistentVolumeName\":\"p\"}}: field is immutable"
            ]
        );
    }
}
