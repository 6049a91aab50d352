//! Storage: PersistentVolume, PersistentVolumeClaim, StorageClass and the CSI kinds.

use super::field::{complaints, immutable, one_of};
use super::json::{carry_over, child, fill, list, object, present, same, text, texts};
use super::table::{age, name, number};
use super::{metadata, names};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const UNSET: &str = "<unset>";

/// What a claim gets, in a template too.
pub(super) fn default_claim_parts(claim: &mut Value) {
    if let Some(spec) = child(claim, "spec") {
        fill(spec, "volumeMode", "Filesystem");
        super::quantity::canonicalize(spec, "/resources/requests");
        super::quantity::canonicalize(spec, "/resources/limits");
    }
    if let Some(status) = child(claim, "status") {
        fill(status, "phase", "Pending");
    }
}

/// PersistentVolumeClaim.
pub(super) fn default_claim(_: &ResourceKind, claim: &mut Value) {
    default_claim_parts(claim);
}

/// PersistentVolume.
pub(super) fn default_volume(_: &ResourceKind, volume: &mut Value) {
    if let Some(spec) = child(volume, "spec") {
        fill(spec, "persistentVolumeReclaimPolicy", "Retain");
        fill(spec, "volumeMode", "Filesystem");
        super::quantity::canonicalize(spec, "/capacity");
        if let Some(path) = spec.get_mut("hostPath").filter(|path| path.is_object())
            && path.get("type").is_none_or(Value::is_null)
        {
            super::json::put(path, "type", Some(json!("")));
        }
    }
    if let Some(status) = child(volume, "status") {
        fill(status, "phase", "Pending");
    }
}

/// StorageClass.
pub(super) fn default_class(_: &ResourceKind, class: &mut Value) {
    fill(class, "reclaimPolicy", "Delete");
    fill(class, "volumeBindingMode", "Immediate");
}

/// CSIDriver.
pub(super) fn default_driver(_: &ResourceKind, driver: &mut Value) {
    if let Some(spec) = child(driver, "spec") {
        fill(spec, "attachRequired", true);
        fill(spec, "podInfoOnMount", false);
        fill(spec, "storageCapacity", false);
        fill(spec, "requiresRepublish", false);
        fill(spec, "seLinuxMount", false);
        fill(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if super::json::is_unset(spec, "/volumeLifecycleModes") {
            super::json::put(spec, "volumeLifecycleModes", Some(json!(["Persistent"])));
        }
    }
}

fn access_modes(spec_of: &Value, errors: &mut Vec<FieldError>) {
    for (index, mode) in texts(spec_of, "/spec/accessModes").into_iter().enumerate() {
        one_of(errors, format!("spec.accessModes[{index}]"), mode, &ACCESS_MODES);
    }
    let mode = text(spec_of, "/spec/volumeMode");
    one_of(errors, "spec.volumeMode", mode, &["Block", "Filesystem"]);
}

/// Everything wrong with a claim.
pub(super) fn claim(kind: &ResourceKind, claim: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, claim, old);
    if list(claim, "/spec/accessModes").is_empty() {
        errors.push(FieldError::required("spec.accessModes", "at least 1 access mode is required"));
    }
    access_modes(claim, &mut errors);
    match claim.pointer("/spec/resources/requests/storage").map(super::quantity::Quantity::of) {
        None => errors.push(FieldError::required("spec.resources[storage]", "")),
        Some(None) => errors.push(FieldError::invalid(
            "spec.resources.requests[storage]",
            &claim["spec"]["resources"]["requests"]["storage"],
            super::quantity::NOT_A_QUANTITY,
        )),
        Some(Some(size)) if size <= super::quantity::Quantity::ZERO => errors.push(FieldError::invalid(
            "spec.resources[storage]",
            &json!(size.to_string()),
            "must be greater than zero",
        )),
        Some(Some(_)) => {}
    }
    let class = text(claim, "/spec/storageClassName");
    if !class.is_empty() {
        errors.extend(complaints("spec.storageClassName", class, names::dns_subdomain(class)));
    }
    if let Some(selector) = present(claim, "/spec/selector") {
        super::selector::errors(selector, "spec.selector", &mut errors);
    }
    errors
}

/// What an update of a claim may not change: all but the size it asks for, and what binding fills in.
pub(super) fn claim_update(_: &ResourceKind, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
    if subresource == "status" {
        return Vec::new();
    }
    let mut rest = new.clone();
    let bound = text(old, "/status/phase") == "Bound";
    if super::json::is_unset(old, "/spec/volumeName") {
        carry_over(&mut rest, old, "/spec/volumeName");
    }
    if super::json::is_unset(old, "/spec/storageClassName") {
        carry_over(&mut rest, old, "/spec/storageClassName");
    }
    if bound {
        carry_over(&mut rest, old, "/spec/resources/requests");
        carry_over(&mut rest, old, "/spec/volumeAttributesClassName");
    }
    if same(&rest, old, "/spec") {
        return Vec::new();
    }
    let detail =
        "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    vec![FieldError::forbidden("spec", detail)]
}

/// Fields of a volume's spec that are no source.
const NO_SOURCE: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// Everything wrong with a volume.
pub(super) fn volume(kind: &ResourceKind, volume: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, volume, old);
    if list(volume, "/spec/accessModes").is_empty() {
        errors.push(FieldError::required("spec.accessModes", ""));
    }
    access_modes(volume, &mut errors);
    if object(volume, "/spec/capacity").is_none_or(serde_json::Map::is_empty) {
        errors.push(FieldError::required("spec.capacity", ""));
    }
    let policy = text(volume, "/spec/persistentVolumeReclaimPolicy");
    one_of(&mut errors, "spec.persistentVolumeReclaimPolicy", policy, &["Delete", "Recycle", "Retain"]);
    let sources = object(volume, "/spec")
        .into_iter()
        .flatten()
        .filter(|(key, value)| !NO_SOURCE.contains(&key.as_str()) && !value.is_null());
    match sources.count() {
        0 => errors.push(FieldError::required("spec", "must specify a volume type")),
        1 => {}
        _ => errors.push(FieldError::forbidden("spec", "may not specify more than 1 volume type")),
    }
    errors
}

/// Everything wrong with a StorageClass.
pub(super) fn class(kind: &ResourceKind, class: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, class, old);
    let provisioner = text(class, "/provisioner");
    if provisioner.is_empty() {
        errors.push(FieldError::required("provisioner", ""));
    } else {
        let lower = provisioner.to_lowercase();
        errors.extend(complaints("provisioner", provisioner, names::qualified_name(&lower)));
    }
    one_of(&mut errors, "reclaimPolicy", text(class, "/reclaimPolicy"), &["Delete", "Retain"]);
    let binding = text(class, "/volumeBindingMode");
    one_of(&mut errors, "volumeBindingMode", binding, &["Immediate", "WaitForFirstConsumer"]);
    if let Some(old) = old {
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            if !same(class, old, &format!("/{field}")) {
                errors.push(FieldError::forbidden(field, format!("updates to {field} are forbidden.")));
            }
        }
        immutable(&mut errors, class, old, "/volumeBindingMode");
    }
    errors
}

fn modes(object: &Value, pointer: &str) -> String {
    let has = texts(object, pointer);
    // Upstream's order, in which duplicates are said once.
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let shown: Vec<&str> = short.into_iter().filter(|(mode, _)| has.contains(mode)).map(|(_, short)| short).collect();
    shown.join(",")
}

fn or_unset(text: &str) -> Value {
    if text.is_empty() { UNSET.into() } else { text.into() }
}

fn phase(object: &Value) -> Value {
    let leaving = !text(object, "/metadata/deletionTimestamp").is_empty();
    if leaving { "Terminating".into() } else { text(object, "/status/phase").into() }
}

fn storage_class(object: &Value) -> Value {
    match text(object, "/metadata/annotations/volume.beta.kubernetes.io~1storage-class") {
        "" => text(object, "/spec/storageClassName").into(),
        old => old.into(),
    }
}

/// NAME STATUS VOLUME CAPACITY ACCESS-MODES STORAGECLASS VOLUMEATTRIBUTESCLASS AGE VOLUMEMODE.
pub(super) fn claim_row(_: &ResourceKind, claim: &Value, now: Timestamp) -> Vec<Value> {
    let volume = text(claim, "/spec/volumeName");
    let (capacity, modes) = match volume {
        "" => (String::new(), String::new()),
        _ => (text(claim, "/status/capacity/storage").to_owned(), modes(claim, "/status/accessModes")),
    };
    vec![
        name(claim),
        phase(claim),
        volume.into(),
        capacity.into(),
        modes.into(),
        storage_class(claim),
        or_unset(text(claim, "/spec/volumeAttributesClassName")),
        age(claim, now),
        or_unset(text(claim, "/spec/volumeMode")),
    ]
}

/// NAME CAPACITY ACCESS-MODES RECLAIM-POLICY STATUS CLAIM STORAGECLASS VOLUMEATTRIBUTESCLASS REASON AGE VOLUMEMODE.
pub(super) fn volume_row(_: &ResourceKind, volume: &Value, now: Timestamp) -> Vec<Value> {
    let claim = match present(volume, "/spec/claimRef") {
        Some(claim) => format!("{}/{}", text(claim, "/namespace"), text(claim, "/name")),
        None => String::new(),
    };
    vec![
        name(volume),
        text(volume, "/spec/capacity/storage").into(),
        modes(volume, "/spec/accessModes").into(),
        text(volume, "/spec/persistentVolumeReclaimPolicy").into(),
        phase(volume),
        claim.into(),
        storage_class(volume),
        or_unset(text(volume, "/spec/volumeAttributesClassName")),
        text(volume, "/status/reason").into(),
        age(volume, now),
        or_unset(text(volume, "/spec/volumeMode")),
    ]
}

/// NAME PROVISIONER RECLAIMPOLICY VOLUMEBINDINGMODE ALLOWVOLUMEEXPANSION AGE.
pub(super) fn class_row(_: &ResourceKind, class: &Value, now: Timestamp) -> Vec<Value> {
    let default = text(class, "/metadata/annotations/storageclass.kubernetes.io~1is-default-class") == "true";
    let shown = match default {
        true => format!("{} (default)", text(class, "/metadata/name")),
        false => text(class, "/metadata/name").to_owned(),
    };
    vec![
        shown.into(),
        text(class, "/provisioner").into(),
        text(class, "/reclaimPolicy").into(),
        text(class, "/volumeBindingMode").into(),
        super::json::flag(class, "/allowVolumeExpansion").into(),
        age(class, now),
    ]
}

/// NAME ATTACHREQUIRED PODINFOONMOUNT STORAGECAPACITY TOKENREQUESTS REQUIRESREPUBLISH MODES AGE.
pub(super) fn driver_row(_: &ResourceKind, driver: &Value, now: Timestamp) -> Vec<Value> {
    let flag = |field: &str, otherwise: bool| -> Value {
        driver.pointer(&format!("/spec/{field}")).and_then(Value::as_bool).unwrap_or(otherwise).into()
    };
    let audiences: Vec<&str> =
        list(driver, "/spec/tokenRequests").iter().map(|request| text(request, "/audience")).collect();
    let audiences = if audiences.is_empty() { UNSET.to_owned() } else { audiences.join(",") };
    let modes = texts(driver, "/spec/volumeLifecycleModes");
    vec![
        name(driver),
        flag("attachRequired", true),
        flag("podInfoOnMount", false),
        flag("storageCapacity", false),
        audiences.into(),
        flag("requiresRepublish", false),
        super::table::joined(modes),
        age(driver, now),
    ]
}

/// NAME DRIVERS AGE.
pub(super) fn csi_node_row(_: &ResourceKind, node: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(node), list(node, "/spec/drivers").len().into(), age(node, now)]
}

/// NAME ATTACHER PV NODE ATTACHED AGE.
pub(super) fn attachment_row(_: &ResourceKind, attachment: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(attachment),
        text(attachment, "/spec/attacher").into(),
        text(attachment, "/spec/source/persistentVolumeName").into(),
        text(attachment, "/spec/nodeName").into(),
        super::json::flag(attachment, "/status/attached").into(),
        age(attachment, now),
    ]
}

/// NAME DRIVERNAME AGE.
pub(super) fn attributes_class_row(_: &ResourceKind, class: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(class), text(class, "/driverName").into(), age(class, now)]
}

/// NAME VALUE GLOBAL-DEFAULT AGE PREEMPTIONPOLICY, of a PriorityClass.
pub(super) fn priority_class_row(_: &ResourceKind, class: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(class),
        number(class, "/value"),
        super::json::flag(class, "/globalDefault").into(),
        age(class, now),
        text(class, "/preemptionPolicy").into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{row_of, said};
    use super::*;

    fn claim_with(fields: Value) -> Value {
        let mut claim = json!({"metadata": {"name": "data", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}}});
        for (key, value) in fields.as_object().unwrap() {
            claim["spec"][key] = value.clone();
        }
        claim
    }

    #[test]
    fn a_claim_says_how_and_how_much() {
        assert_eq!(said("", "PersistentVolumeClaim", claim_with(json!({})), None), Vec::<String>::new());
        assert_eq!(
            said("", "PersistentVolumeClaim", claim_with(json!({"accessModes": [], "resources": {}})), None),
            [
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value"
            ]
        );
        assert_eq!(
            said(
                "",
                "PersistentVolumeClaim",
                claim_with(json!({"accessModes": ["ReadWriteMany"]})),
                Some(claim_with(json!({})))
            ),
            [
                "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
            ]
        );
        assert_eq!(
            said("", "PersistentVolumeClaim", claim_with(json!({"volumeName": "pv-1"})), Some(claim_with(json!({})))),
            Vec::<String>::new(),
            "that is what binding does"
        );
    }

    #[test]
    fn claims_and_volumes_are_shown_as_kubectl_users_know_them() {
        let mut claim = claim_with(json!({"volumeMode": "Filesystem", "storageClassName": "standard"}));
        claim["status"] = json!({"phase": "Pending"});
        assert_eq!(
            row_of("", "PersistentVolumeClaim", &claim),
            "data | Pending |  |  |  | standard | <unset> | 3h5m | Filesystem"
        );
        claim["spec"]["volumeName"] = json!("pv-1");
        claim["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"]});
        assert_eq!(
            row_of("", "PersistentVolumeClaim", &claim),
            "data | Bound | pv-1 | 1Gi | RWO,RWX | standard | <unset> | 3h5m | Filesystem"
        );
        let volume = json!({"metadata": {"name": "pv-1", "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Bound"}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Delete",
            "claimRef": {"namespace": "default", "name": "data"}, "storageClassName": "standard", "hostPath": {"path": "/x"}}});
        assert_eq!(
            row_of("", "PersistentVolume", &volume),
            "pv-1 | 1Gi | RWO | Delete | Bound | default/data | standard | <unset> |  | 3h5m | <unset>"
        );
        let class = json!({"metadata": {"name": "standard", "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "a/b", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"});
        assert_eq!(
            row_of("storage.k8s.io", "StorageClass", &class),
            "standard (default) | a/b | Delete | Immediate | false | 3h5m"
        );
    }
}
