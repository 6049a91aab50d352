//! Dynamic resource allocation: ResourceClaim, ResourceClaimTemplate, DeviceClass, ResourceSlice. Expressions (CEL) are not read.
//!
//! Follows KEP-4381 (structured parameters) and KEP-4816 (alternatives).

use super::field::{complaints, immutable, invalid, one_of, too_long, too_many};
use super::json::{fill, int, list, list_mut, present, text};
use super::{metadata, names};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use serde_json::{Value, json};
use std::collections::HashSet;

const REQUESTS_MOST: usize = 32;
const SELECTORS_MOST: usize = 32;
const DEVICES_MOST: usize = 128;

/// ResourceClaim and ResourceClaimTemplate: one device where no number is asked for.
pub(super) fn default_claim(kind: &ResourceKind, object: &mut Value) {
    let requests = format!("{}/devices/requests", spec_of(kind));
    for request in list_mut(object, &requests) {
        if let Some(exactly) = request.get_mut("exactly").filter(|exactly| exactly.is_object()) {
            count_one(exactly);
        }
        list_mut(request, "/firstAvailable").iter_mut().for_each(count_one);
    }
}

fn count_one(request: &mut Value) {
    fill(request, "allocationMode", "ExactCount");
    if text(request, "/allocationMode") == "ExactCount" {
        super::json::fill_zero(request, "count", 1);
    }
    list_mut(request, "/tolerations").iter_mut().for_each(|toleration| fill(toleration, "operator", "Equal"));
}

fn spec_of(kind: &ResourceKind) -> &'static str {
    if kind.kind == "ResourceClaimTemplate" { "/spec/spec" } else { "/spec" }
}

/// Everything wrong with a claim or a template of one.
pub(super) fn claim(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    if let Some(old) = old {
        immutable(&mut errors, object, old, "/spec");
        return errors;
    }
    let spec = spec_of(kind);
    let field = format!("{}.devices.requests", spec.trim_start_matches('/').replace('/', "."));
    let requests = list(object, &format!("{spec}/devices/requests"));
    if requests.len() > REQUESTS_MOST {
        errors.push(too_many(&field, requests.len(), REQUESTS_MOST));
    }
    let mut known = HashSet::new();
    for (index, request) in requests.iter().enumerate() {
        let at = |part: &str| format!("{field}[{index}]{part}");
        unique_label(text(request, "/name"), &at(".name"), &mut known, &mut errors);
        let alternatives = list(request, "/firstAvailable");
        match (present(request, "/exactly"), alternatives.is_empty()) {
            (None, true) => {
                errors.push(FieldError::required(at(""), "exactly one of `exactly` or `firstAvailable` is required"));
            }
            (Some(_), false) => {
                let detail = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
                errors.push(FieldError::invalid(at(""), &Value::Null, detail));
            }
            (Some(exactly), true) => exact(exactly, &at(".exactly"), &mut errors),
            (None, false) => {
                let mut names = HashSet::new();
                for (index, alternative) in alternatives.iter().enumerate() {
                    let field = at(&format!(".firstAvailable[{index}]"));
                    unique_label(text(alternative, "/name"), &format!("{field}.name"), &mut names, &mut errors);
                    exact(alternative, &field, &mut errors);
                }
            }
        }
    }
    errors
}

fn unique_label<'a>(name: &'a str, field: &str, known: &mut HashSet<&'a str>, errors: &mut Vec<FieldError>) {
    if name.is_empty() {
        errors.push(FieldError::required(field, ""));
        return;
    }
    errors.extend(complaints(field, name, names::dns_label(name)));
    if !known.insert(name) {
        errors.push(FieldError::duplicate(field, &json!(name)));
    }
}

fn exact(request: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let at = |part: &str| format!("{field}.{part}");
    match text(request, "/deviceClassName") {
        "" => errors.push(FieldError::required(at("deviceClassName"), "")),
        class => errors.extend(complaints(&at("deviceClassName"), class, names::dns_subdomain(class))),
    }
    selectors(request, "/selectors", &at("selectors"), errors);
    let count = int(request, "/count").unwrap_or_default();
    match text(request, "/allocationMode") {
        "All" if count != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(at("count"), &json!(count), detail));
        }
        "ExactCount" if count <= 0 => {
            errors.push(FieldError::invalid(at("count"), &json!(count), "must be greater than zero"));
        }
        "All" | "ExactCount" => {}
        other => one_of(errors, at("allocationMode"), other, &["All", "ExactCount"]),
    }
}

fn selectors(value: &Value, pointer: &str, field: &str, errors: &mut Vec<FieldError>) {
    let selectors = list(value, pointer);
    if selectors.len() > SELECTORS_MOST {
        errors.push(too_many(field, selectors.len(), SELECTORS_MOST));
    }
    for (index, selector) in selectors.iter().enumerate() {
        let field = format!("{field}[{index}].cel");
        match present(selector, "/cel") {
            None => errors.push(FieldError::required(field, "")),
            Some(cel) => {
                let expression = text(cel, "/expression");
                if expression.is_empty() {
                    errors.push(FieldError::required(format!("{field}.expression"), ""));
                } else if expression.len() > 10 * 1024 {
                    errors.push(too_long(format!("{field}.expression"), 10 * 1024));
                }
            }
        }
    }
}

/// Everything wrong with a DeviceClass.
pub(super) fn class(kind: &ResourceKind, class: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, class, old);
    selectors(class, "/spec/selectors", "spec.selectors", &mut errors);
    let name = text(class, "/spec/extendedResourceName");
    if !name.is_empty() && !name.contains('/') {
        let detail = "must be a valid extended resource name";
        errors.push(invalid("spec.extendedResourceName", name, detail));
    }
    errors
}

/// Everything wrong with a ResourceSlice.
pub(super) fn slice(kind: &ResourceKind, slice: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, slice, old);
    let driver = text(slice, "/spec/driver");
    match driver {
        "" => errors.push(FieldError::required("spec.driver", "")),
        driver => {
            if driver.len() > 63 {
                errors.push(too_long("spec.driver", 63));
            }
            errors.extend(complaints("spec.driver", driver, names::dns_subdomain(driver)));
        }
    }
    let pool = text(slice, "/spec/pool/name");
    if pool.is_empty() {
        errors.push(FieldError::required("spec.pool.name", ""));
    }
    for part in pool.split('/').filter(|_| !pool.is_empty()) {
        errors.extend(complaints("spec.pool.name", part, names::dns_subdomain(part)));
    }
    if int(slice, "/spec/pool/resourceSliceCount").unwrap_or_default() <= 0 {
        let count = int(slice, "/spec/pool/resourceSliceCount").unwrap_or_default();
        errors.push(FieldError::invalid("spec.pool.resourceSliceCount", &json!(count), "must be greater than zero"));
    }
    let places = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    let given: Vec<&str> =
        places.into_iter().filter(|place| !super::json::is_unset(slice, &format!("/spec/{place}"))).collect();
    let detail = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match given.len() {
        0 => errors.push(FieldError::required("spec", detail)),
        1 => {}
        _ => errors.push(FieldError::invalid("spec", &json!(given), format!("{detail}, but multiple fields are set"))),
    }
    let devices = list(slice, "/spec/devices");
    if devices.len() > DEVICES_MOST {
        errors.push(too_many("spec.devices", devices.len(), DEVICES_MOST));
    }
    let mut known = HashSet::new();
    for (index, device) in devices.iter().enumerate() {
        unique_label(text(device, "/name"), &format!("spec.devices[{index}].name"), &mut known, &mut errors);
    }
    if let Some(old) = old {
        for pointer in ["/spec/pool/name", "/spec/driver", "/spec/nodeName"] {
            immutable(&mut errors, slice, old, pointer);
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    const GROUP: &str = "resource.k8s.io";

    fn claim_of(requests: Value) -> Value {
        json!({"metadata": {"name": "c", "namespace": "default"}, "spec": {"devices": {"requests": requests}}})
    }

    #[test]
    fn a_claim_says_which_devices_and_how_many() {
        let mut object = claim_of(json!([{"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}}]));
        assert_eq!(said(GROUP, "ResourceClaim", object.clone(), None), Vec::<String>::new());
        default_claim(&ResourceKind::new(GROUP, "v1", "ResourceClaim", "resourceclaims"), &mut object);
        let exactly = &object["spec"]["devices"]["requests"][0]["exactly"];
        assert_eq!(exactly, &json!({"deviceClassName": "gpu.example.com", "allocationMode": "ExactCount", "count": 1}));
        let odd = claim_of(
            json!([{"name": "a"}, {"name": "a", "exactly": {"allocationMode": "All", "count": 2, "selectors": [{"cel": {}}]}},
            {"name": "b", "firstAvailable": [{"deviceClassName": "x", "allocationMode": "Some"}]}]),
        );
        assert_eq!(
            said(GROUP, "ResourceClaim", odd, None),
            [
                "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
                "spec.devices.requests[1].name: Duplicate value: \"a\"",
                "spec.devices.requests[1].exactly.deviceClassName: Required value",
                "spec.devices.requests[1].exactly.selectors[0].cel.expression: Required value",
                "spec.devices.requests[1].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
                "spec.devices.requests[2].firstAvailable[0].name: Required value",
                "spec.devices.requests[2].firstAvailable[0].allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\"",
            ]
        );
        let changed = said(GROUP, "ResourceClaim", claim_of(json!([{"name": "b"}])), Some(claim_of(json!([]))));
        assert_eq!(
            changed,
            ["spec: Invalid value: {\"devices\":{\"requests\":[{\"name\":\"b\"}]}}: field is immutable"]
        );
    }

    #[test]
    fn a_slice_belongs_to_one_place_and_pool() {
        let slice = |spec: Value| json!({"metadata": {"name": "s"}, "spec": spec});
        let pool = json!({"name": "node-1", "resourceSliceCount": 1});
        let good = json!({"driver": "d.io", "pool": pool, "nodeName": "node-1", "devices": [{"name": "gpu-0"}]});
        assert_eq!(said(GROUP, "ResourceSlice", slice(good), None), Vec::<String>::new());
        let places = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
        assert_eq!(
            said(GROUP, "ResourceSlice", slice(json!({"allNodes": true, "nodeName": "n", "driver": "d"})), None),
            [
                "spec.pool.name: Required value".to_owned(),
                "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero".to_owned(),
                format!("spec: Invalid value: [\"nodeName\",\"allNodes\"]: {places}, but multiple fields are set"),
            ]
        );
    }
}
