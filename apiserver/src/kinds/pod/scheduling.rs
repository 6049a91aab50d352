//! What is wrong with the parts of a pod spec that the scheduler reads.

use crate::kinds::field::{complaints, invalid, one_of};
use crate::kinds::json::{int, list, object, present, text, texts};
use crate::kinds::{metadata, names, selector};
use crate::status::FieldError;
use serde_json::{Value, json};
use std::collections::HashSet;

/// Node selector, affinity, tolerations and spread constraints of the pod spec at `field`.
pub(super) fn errors(spec: &Value, field: &str, errors: &mut Vec<FieldError>) {
    metadata::labels(&format!("{field}.nodeSelector"), object(spec, "/nodeSelector").into_iter().flatten(), errors);
    affinity(spec, &format!("{field}.affinity"), errors);
    for (index, toleration) in list(spec, "/tolerations").iter().enumerate() {
        tolerate(toleration, &format!("{field}.tolerations[{index}]"), errors);
    }
    let mut pairs = HashSet::new();
    for (index, constraint) in list(spec, "/topologySpreadConstraints").iter().enumerate() {
        let at = |part: &str| format!("{field}.topologySpreadConstraints[{index}].{part}");
        let skew = int(constraint, "/maxSkew").unwrap_or_default();
        if skew <= 0 {
            errors.push(FieldError::invalid(at("maxSkew"), &json!(skew), "must be greater than zero"));
        }
        topology_key(constraint, &at("topologyKey"), errors);
        let otherwise = text(constraint, "/whenUnsatisfiable");
        one_of(errors, at("whenUnsatisfiable"), otherwise, &["DoNotSchedule", "ScheduleAnyway"]);
        if !pairs.insert((text(constraint, "/topologyKey"), otherwise)) {
            let pair = format!("{{{}, {otherwise}}}", text(constraint, "/topologyKey"));
            errors.push(FieldError::duplicate(at("{topologyKey, whenUnsatisfiable}"), &json!(pair)));
        }
        if let Some(domains) = int(constraint, "/minDomains") {
            if domains <= 0 {
                errors.push(FieldError::invalid(at("minDomains"), &json!(domains), "must be greater than zero"));
            }
            if otherwise != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {otherwise}");
                errors.push(FieldError::invalid(at("minDomains"), &json!(domains), detail));
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            let value = text(constraint, &format!("/{policy}"));
            if !value.is_empty() {
                one_of(errors, at(policy), value, &["Honor", "Ignore"]);
            }
        }
        if let Some(labels) = present(constraint, "/labelSelector") {
            selector::errors(labels, &at("labelSelector"), errors);
        }
    }
    let mut gates = HashSet::new();
    for (index, gate) in list(spec, "/schedulingGates").iter().enumerate() {
        let name = text(gate, "/name");
        if !gates.insert(name) {
            errors.push(FieldError::duplicate(format!("{field}.schedulingGates[{index}]"), &json!(name)));
        }
        errors.extend(complaints(&format!("{field}.schedulingGates[{index}].name"), name, names::qualified_name(name)));
    }
}

fn tolerate(toleration: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let at = |part: &str| format!("{field}.{part}");
    let part = |name: &str| text(toleration, name);
    let (key, operator, value, effect) = (part("/key"), part("/operator"), part("/value"), part("/effect"));
    if !key.is_empty() {
        errors.extend(complaints(&at("key"), key, names::qualified_name(key)));
    } else if operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(invalid(at("operator"), operator, detail));
    }
    if int(toleration, "/tolerationSeconds").is_some() && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(invalid(at("effect"), effect, detail));
    }
    match operator {
        "" | "Equal" => errors.extend(complaints(&at("operator"), value, names::label_value(value))),
        "Exists" if !value.is_empty() => {
            errors.push(invalid(at("operator"), value, "value must be empty when `operator` is 'Exists'"));
        }
        "Exists" => {}
        other => one_of(errors, at("operator"), other, &["Equal", "Exists"]),
    }
    if !effect.is_empty() {
        one_of(errors, at("effect"), effect, &["NoExecute", "NoSchedule", "PreferNoSchedule"]);
    }
}

fn topology_key(value: &Value, field: &str, errors: &mut Vec<FieldError>) {
    match text(value, "/topologyKey") {
        "" => errors.push(FieldError::required(field, "can not be empty")),
        key => errors.extend(complaints(field, key, names::qualified_name(key))),
    }
}

fn weight(value: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let weight = int(value, "/weight").unwrap_or_default();
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(format!("{field}.weight"), &json!(weight), "must be in the range 1-100"));
    }
}

fn affinity(spec: &Value, field: &str, errors: &mut Vec<FieldError>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    if let Some(node) = present(spec, "/affinity/nodeAffinity") {
        let field = format!("{field}.nodeAffinity");
        if let Some(required) = present(node, &format!("/{REQUIRED}")) {
            let terms = list(required, "/nodeSelectorTerms");
            let at = format!("{field}.{REQUIRED}.nodeSelectorTerms");
            if terms.is_empty() {
                errors.push(FieldError::required(&at, "must have at least one node selector term"));
            }
            for (index, term) in terms.iter().enumerate() {
                node_term(term, &format!("{at}[{index}]"), errors);
            }
        }
        for (index, preferred) in list(node, &format!("/{PREFERRED}")).iter().enumerate() {
            let at = format!("{field}.{PREFERRED}[{index}]");
            weight(preferred, &at, errors);
            node_term(&preferred["preference"], &format!("{at}.preference"), errors);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = present(spec, &format!("/affinity/{kind}")) else { continue };
        for (index, term) in list(pods, &format!("/{REQUIRED}")).iter().enumerate() {
            pod_term(term, &format!("{field}.{kind}.{REQUIRED}[{index}]"), errors);
        }
        for (index, preferred) in list(pods, &format!("/{PREFERRED}")).iter().enumerate() {
            let at = format!("{field}.{kind}.{PREFERRED}[{index}]");
            weight(preferred, &at, errors);
            pod_term(&preferred["podAffinityTerm"], &format!("{at}.podAffinityTerm"), errors);
        }
    }
}

fn pod_term(term: &Value, field: &str, errors: &mut Vec<FieldError>) {
    topology_key(term, &format!("{field}.topologyKey"), errors);
    for name in ["labelSelector", "namespaceSelector"] {
        if let Some(found) = present(term, &format!("/{name}")) {
            selector::errors(found, &format!("{field}.{name}"), errors);
        }
    }
}

fn node_term(term: &Value, field: &str, errors: &mut Vec<FieldError>) {
    for (index, expression) in list(term, "/matchExpressions").iter().enumerate() {
        let at = |part: &str| format!("{field}.matchExpressions[{index}].{part}");
        let (key, operator, values) =
            (text(expression, "/key"), text(expression, "/operator"), texts(expression, "/values"));
        errors.extend(complaints(&at("key"), key, names::qualified_name(key)));
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                errors.push(FieldError::required(at("values"), "must be specified when `operator` is 'In' or 'NotIn'"))
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                at("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "Gt" | "Lt" if values.len() != 1 => errors.push(FieldError::required(
                at("values"),
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.push(invalid(at("operator"), other, "not a valid selector operator")),
        }
    }
}
