//! Kinds that need no more than a line each: their columns, the few defaults and the few rules.

use super::field::{immutable, invalid};
use super::json::{fill, flag, int, is_unset, list, present, same, text, texts};
use super::metadata;
use super::names::Cidr;
use super::table::{NONE, UNKNOWN, age, human_duration, joined, name, number, or_none};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(object, "/status/conditions").iter().find(|condition| text(condition, "/type") == kind)
}

/// APIService: NAME SERVICE AVAILABLE AGE.
pub(super) fn api_service_row(_: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    let service = match present(object, "/spec/service") {
        None => "Local".to_owned(),
        Some(service) => format!("{}/{}", text(service, "/namespace"), text(service, "/name")),
    };
    let available = match condition(object, "Available") {
        None => "Unknown".to_owned(),
        Some(found) if text(found, "/status") == "True" => "True".to_owned(),
        Some(found) => format!("{} ({})", text(found, "/status"), text(found, "/reason")),
    };
    vec![name(object), service.into(), available.into(), age(object, now)]
}

/// CertificateSigningRequest: NAME AGE SIGNERNAME REQUESTOR REQUESTEDDURATION CONDITION.
pub(super) fn signing_request_row(_: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    let has = |kind: &str| condition(object, kind).is_some();
    let mut state = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !is_unset(object, "/status/certificate") {
        state.push_str(",Issued");
    }
    let duration = int(object, "/spec/expirationSeconds").map_or_else(|| NONE.to_owned(), human_duration);
    vec![
        name(object),
        age(object, now),
        or_none(text(object, "/spec/signerName")),
        text(object, "/spec/username").into(),
        duration.into(),
        state.into(),
    ]
}

/// ComponentStatus: NAME STATUS MESSAGE ERROR.
pub(super) fn component_row(_: &ResourceKind, object: &Value, _: Timestamp) -> Vec<Value> {
    let healthy = list(object, "/conditions").iter().find(|condition| text(condition, "/type") == "Healthy");
    let status = match healthy.map(|condition| text(condition, "/status")) {
        Some("True") => "Healthy",
        Some("False") => "Unhealthy",
        _ => "Unknown",
    };
    let part = |field: &str| -> Value { healthy.map_or("", |condition| text(condition, field)).into() };
    vec![name(object), status.into(), part("/message"), part("/error")]
}

/// ControllerRevision: NAME CONTROLLER REVISION AGE.
pub(super) fn revision_row(_: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    let owner = list(object, "/metadata/ownerReferences").iter().find(|owner| flag(owner, "/controller"));
    let owner = owner.map_or_else(
        || NONE.to_owned(),
        |owner| {
            let (kind, own) = (text(owner, "/kind").to_lowercase(), text(owner, "/name"));
            match text(owner, "/apiVersion").split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{own}"),
                None => format!("{kind}/{own}"),
            }
        },
    );
    vec![name(object), owner.into(), number(object, "/revision"), age(object, now)]
}

/// PodTemplate: NAME CONTAINERS IMAGES POD-LABELS.
pub(super) fn pod_template_row(_: &ResourceKind, object: &Value, _: Timestamp) -> Vec<Value> {
    let [containers, images] = super::table::containers_and_images(object, "/template/spec");
    vec![name(object), containers, images, super::table::label_text(object, "/template/metadata/labels").into()]
}

/// FlowSchema: NAME PRIORITYLEVEL MATCHINGPRECEDENCE DISTINGUISHERMETHOD AGE MISSINGPL.
pub(super) fn flow_schema_row(_: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    let dangling = condition(object, "Dangling").map_or("?", |found| text(found, "/status"));
    vec![
        name(object),
        or_none(text(object, "/spec/priorityLevelConfiguration/name")),
        number(object, "/spec/matchingPrecedence"),
        or_none(text(object, "/spec/distinguisherMethod/type")),
        age(object, now),
        dangling.into(),
    ]
}

/// PriorityLevelConfiguration: NAME TYPE NOMINALCONCURRENCYSHARES QUEUES HANDSIZE QUEUELENGTHLIMIT AGE.
pub(super) fn priority_level_row(_: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    let cell = |pointer: &str| present(object, pointer).cloned().unwrap_or(Value::from(NONE));
    let queuing = |field: &str| cell(&format!("/spec/limited/limitResponse/queuing/{field}"));
    vec![
        name(object),
        text(object, "/spec/type").into(),
        cell("/spec/limited/nominalConcurrencyShares"),
        queuing("queues"),
        queuing("handSize"),
        queuing("queueLengthLimit"),
        age(object, now),
    ]
}

/// IPAddress: NAME PARENTREF.
pub(super) fn ip_address_row(_: &ResourceKind, object: &Value, _: Timestamp) -> Vec<Value> {
    let part = |field: &str| text(object, &format!("/spec/parentRef/{field}"));
    let resource = match part("group") {
        "" => part("resource").to_owned(),
        group => format!("{}.{group}", part("resource")),
    };
    let parts = [resource.as_str(), part("namespace"), part("name")];
    let parent: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    vec![name(object), or_none(&parent.join("/"))]
}

/// Everything wrong with an IPAddress.
pub(super) fn ip_address(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    match present(object, "/spec/parentRef") {
        None => errors.push(FieldError::required("spec.parentRef", "")),
        Some(parent) => {
            for part in ["resource", "name"] {
                if text(parent, &format!("/{part}")).is_empty() {
                    errors.push(FieldError::required(format!("spec.parentRef.{part}"), ""));
                }
            }
        }
    }
    if let Some(old) = old {
        immutable(&mut errors, object, old, "/spec/parentRef");
    }
    errors
}

/// ServiceCIDR: NAME CIDRS AGE.
pub(super) fn service_cidr_row(_: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), joined(texts(object, "/spec/cidrs")), age(object, now)]
}

/// Everything wrong with a ServiceCIDR.
pub(super) fn service_cidr(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    let cidrs = texts(object, "/spec/cidrs");
    if cidrs.is_empty() {
        errors.push(FieldError::required("spec.cidrs", "at least one CIDR required"));
    }
    if cidrs.len() > 2 {
        errors.push(FieldError::invalid("spec.cidrs", &json!(cidrs), "may only hold up to 2 values"));
    }
    if let [one, other] = cidrs[..]
        && one.contains(':') == other.contains(':')
    {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid("spec.cidrs", &json!(cidrs), detail));
    }
    for (index, cidr) in cidrs.into_iter().enumerate() {
        let field = format!("spec.cidrs[{index}]");
        match Cidr::parse(cidr) {
            None => errors.extend(super::field::complaints(&field, cidr, super::names::cidr(cidr))),
            Some(network) if network.to_string() != cidr => {
                let detail = format!("must be in canonical form ({:?})", network.to_string());
                errors.push(invalid(field, cidr, detail));
            }
            Some(_) => {}
        }
    }
    if let Some(old) = old {
        let (new_cidrs, old_cidrs) = (texts(object, "/spec/cidrs"), texts(old, "/spec/cidrs"));
        // A second family may be added; what is there stays.
        if !new_cidrs.starts_with(&old_cidrs) {
            errors.push(invalid("spec.cidrs", &new_cidrs.join(","), super::field::IMMUTABLE));
        }
    }
    errors
}

/// Lease: NAME HOLDER AGE.
pub(super) fn lease_row(_: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "/spec/holderIdentity").into(), age(object, now)]
}

/// Everything wrong with a Lease.
pub(super) fn lease(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    if let Some(seconds) = int(object, "/spec/leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
        let detail = "must be greater than 0";
        errors.push(FieldError::invalid("spec.leaseDurationSeconds", &json!(seconds), detail));
    }
    super::field::not_negative(&mut errors, "spec.leaseTransitions", int(object, "/spec/leaseTransitions"));
    errors
}

/// RuntimeClass: NAME HANDLER AGE.
pub(super) fn runtime_class_row(_: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "/handler").into(), age(object, now)]
}

/// Everything wrong with a RuntimeClass.
pub(super) fn runtime_class(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    let handler = text(object, "/handler");
    if handler.is_empty() {
        errors.push(FieldError::required("handler", ""));
    } else {
        errors.extend(super::field::complaints("handler", handler, super::names::dns_label(handler)));
    }
    if let Some(old) = old {
        immutable(&mut errors, object, old, "/handler");
    }
    errors
}

/// PriorityClass.
pub(super) fn default_priority_class(_: &ResourceKind, object: &mut Value) {
    fill(object, "preemptionPolicy", "PreemptLowerPriority");
}

/// Everything wrong with a PriorityClass.
pub(super) fn priority_class(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    let (own, value) = (text(object, "/metadata/name"), int(object, "/value").unwrap_or_default());
    let system = matches!(own, "system-cluster-critical" | "system-node-critical");
    if own.starts_with("system-") && !system {
        let detail = "priority class names with 'system-' prefix are reserved for system use only";
        errors.push(FieldError::forbidden("metadata.name", detail));
    }
    if !system && value > 1_000_000_000 {
        let detail = "maximum allowed value of a user defined priority is 1000000000";
        errors.push(FieldError::forbidden("value", detail));
    }
    if let Some(old) = old {
        for field in ["value", "preemptionPolicy"] {
            if !same(object, old, &format!("/{field}")) {
                errors.push(FieldError::forbidden(field, "may not be changed in an update."));
            }
        }
    }
    errors
}

/// Webhook configurations: NAME WEBHOOKS AGE.
pub(super) fn webhooks_row(_: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), list(object, "/webhooks").len().into(), age(object, now)]
}

/// Admission policies: NAME VALIDATIONS (or MUTATIONS) PARAMKIND AGE.
pub(super) fn admission_policy_row(kind: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    let list_of = if kind.kind == "MutatingAdmissionPolicy" { "/spec/mutations" } else { "/spec/validations" };
    let parameters = match present(object, "/spec/paramKind") {
        None => "<unset>".to_owned(),
        Some(found) => format!("{}/{}", text(found, "/apiVersion"), text(found, "/kind")),
    };
    vec![name(object), list(object, list_of).len().into(), parameters.into(), age(object, now)]
}

/// Bindings of admission policies: NAME POLICYNAME PARAMREF AGE.
pub(super) fn admission_binding_row(_: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = match present(object, "/spec/paramRef") {
        None => "<unset>".to_owned(),
        Some(found) => match (text(found, "/namespace"), text(found, "/name")) {
            ("", "") => "*".to_owned(),
            ("", name) => name.to_owned(),
            (namespace, "") => format!("{namespace}/*"),
            (namespace, name) => format!("{namespace}/{name}"),
        },
    };
    vec![name(object), text(object, "/spec/policyName").into(), parameters.into(), age(object, now)]
}

/// ResourceClaim: NAME STATE AGE.
pub(super) fn resource_claim_row(_: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    let mut states = Vec::new();
    let leaving = !text(object, "/metadata/deletionTimestamp").is_empty();
    if leaving {
        states.push("deleted");
    }
    if present(object, "/status/allocation").is_some() {
        states.push("allocated");
        if !list(object, "/status/reservedFor").is_empty() {
            states.push("reserved");
        }
    } else if !leaving {
        states.push("pending");
    }
    vec![name(object), states.join(",").into(), age(object, now)]
}

/// ResourceSlice: NAME NODE DRIVER POOL AGE.
pub(super) fn resource_slice_row(_: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    let node = match (text(object, "/spec/nodeName"), flag(object, "/spec/allNodes")) {
        ("", true) => "<all>",
        ("", false) => UNKNOWN,
        (node, _) => node,
    };
    let part = |pointer: &str| -> Value { text(object, pointer).into() };
    vec![name(object), node.into(), part("/spec/driver"), part("/spec/pool/name"), age(object, now)]
}
