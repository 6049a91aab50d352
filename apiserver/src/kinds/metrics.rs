//! What is wrong with the metrics and the behaviour of a HorizontalPodAutoscaler (`autoscaling/v2`).

use super::field::one_of;
use super::json::{int, list, present, text};
use super::quantity::{NOT_A_QUANTITY, Quantity};
use super::{names, selector};
use crate::status::FieldError;
use serde_json::{Value, json};

const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
    ("External", "external"),
];
/// Longest stabilization window, and longest period of a scaling policy, in seconds.
const WINDOW_MOST: i64 = 3600;
const PERIOD_MOST: i64 = 1800;

/// The metric at `field`.
pub(super) fn metric(metric: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let at = |part: &str| format!("{field}.{part}");
    let kind = text(metric, "/type");
    if kind.is_empty() {
        errors.push(FieldError::required(at("type"), "must specify a metric source type"));
    }
    one_of(errors, at("type"), kind, &["ContainerResource", "External", "Object", "Pods", "Resource"]);
    let expected = SOURCES.into_iter().find(|(name, _)| *name == kind).map(|(_, source)| source);
    let mut first = true;
    for (_, source) in SOURCES {
        let Some(found) = present(metric, &format!("/{source}")) else { continue };
        if std::mem::take(&mut first) {
            source_errors(source, found, &at(source), errors);
        }
        if expected.is_some() && expected != Some(source) {
            errors.push(FieldError::forbidden(at(source), "must populate the given metric source only"));
        }
    }
    if let Some(expected) = expected.filter(|expected| present(metric, &format!("/{expected}")).is_none()) {
        errors.push(FieldError::required(at(expected), "must populate information for the given metric source"));
    }
}

fn source_errors(source: &str, found: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let at = |part: &str| format!("{field}.{part}");
    let has = |part: &str| present(found, &format!("/target/{part}")).is_some();
    match source {
        "resource" | "containerResource" => {
            if text(found, "/name").is_empty() {
                errors.push(FieldError::required(at("name"), "must specify a resource name"));
            }
            if source == "containerResource" && text(found, "/container").is_empty() {
                errors.push(FieldError::required(at("container"), "must specify a container"));
            }
        }
        _ => metric_name(found, &at("metric"), errors),
    }
    if source == "object" {
        for part in ["kind", "name"] {
            if text(found, &format!("/describedObject/{part}")).is_empty() {
                errors.push(FieldError::required(at(&format!("describedObject.{part}")), ""));
            }
        }
    }
    target(&found["target"], &at("target"), errors);
    match source {
        "resource" | "containerResource" => {
            if !has("averageUtilization") && !has("averageValue") {
                let detail = "must set either a target raw value or a target utilization";
                errors.push(FieldError::required(at("target.averageUtilization"), detail));
            }
            if has("averageUtilization") && has("averageValue") {
                let detail = "may not set both a target raw value and a target utilization";
                errors.push(FieldError::forbidden(at("target.averageValue"), detail));
            }
        }
        "pods" if !has("averageValue") => {
            let detail = "must specify a positive target averageValue";
            errors.push(FieldError::required(at("target.averageValue"), detail));
        }
        "object" | "external" if !has("value") && !has("averageValue") => {
            let detail = match source {
                "object" => "must set either a target value or averageValue",
                _ => "must set either a target value for metric or a per-pod target",
            };
            errors.push(FieldError::required(at("target.averageValue"), detail));
        }
        "external" if has("value") && has("averageValue") => {
            let detail = "may not set both a target value for metric and a per-pod target";
            errors.push(FieldError::forbidden(at("target.value"), detail));
        }
        _ => {}
    }
}

fn metric_name(found: &Value, field: &str, errors: &mut Vec<FieldError>) {
    match text(found, "/metric/name") {
        "" => errors.push(FieldError::required(format!("{field}.name"), "must specify a metric name")),
        name => {
            let field = format!("{field}.name");
            errors.extend(super::field::complaints(&field, name, names::path_segment(name)));
        }
    }
    if let Some(chosen) = present(found, "/metric/selector") {
        selector::errors(chosen, &format!("{field}.selector"), errors);
    }
}

fn target(target: &Value, field: &str, errors: &mut Vec<FieldError>) {
    match text(target, "/type") {
        "" => errors.push(FieldError::required(format!("{field}.type"), "must specify a metric target type")),
        "Utilization" | "Value" | "AverageValue" => {}
        other => errors.push(super::field::invalid(
            format!("{field}.type"),
            other,
            "must be either Utilization, Value, or AverageValue",
        )),
    }
    for part in ["value", "averageValue"] {
        let Some(value) = present(target, &format!("/{part}")) else { continue };
        match Quantity::of(value) {
            None => errors.push(FieldError::invalid(format!("{field}.{part}"), value, NOT_A_QUANTITY)),
            Some(quantity) if quantity <= Quantity::ZERO => {
                errors.push(FieldError::invalid(format!("{field}.{part}"), value, "must be positive"));
            }
            Some(_) => {}
        }
    }
    if let Some(percent) = int(target, "/averageUtilization").filter(|percent| *percent < 1) {
        let field = format!("{field}.averageUtilization");
        errors.push(FieldError::invalid(field, &json!(percent), "must be greater than 0"));
    }
}

/// How fast it may scale.
pub(super) fn behavior(spec: &Value, field: &str, errors: &mut Vec<FieldError>) {
    for direction in ["scaleUp", "scaleDown"] {
        let Some(rules) = present(spec, &format!("/behavior/{direction}")) else { continue };
        let at = |part: &str| format!("{field}.{direction}.{part}");
        let window = int(rules, "/stabilizationWindowSeconds").unwrap_or_default();
        if window < 0 {
            let detail = "must be greater than or equal to zero";
            errors.push(FieldError::invalid(at("stabilizationWindowSeconds"), &json!(window), detail));
        }
        if window > WINDOW_MOST {
            let detail = format!("must be less than or equal to {WINDOW_MOST}");
            errors.push(FieldError::invalid(at("stabilizationWindowSeconds"), &json!(window), detail));
        }
        let select = text(rules, "/selectPolicy");
        if !select.is_empty() {
            one_of(errors, at("selectPolicy"), select, &["Disabled", "Max", "Min"]);
        }
        let policies = list(rules, "/policies");
        if policies.is_empty() {
            errors.push(FieldError::required(at("policies"), "must specify at least one Policy"));
        }
        for (index, policy) in policies.iter().enumerate() {
            let at = |part: &str| at(&format!("policies[{index}].{part}"));
            one_of(errors, at("type"), text(policy, "/type"), &["Percent", "Pods"]);
            for part in ["value", "periodSeconds"] {
                let number = int(policy, &format!("/{part}")).unwrap_or_default();
                if number <= 0 {
                    errors.push(FieldError::invalid(at(part), &json!(number), "must be greater than zero"));
                }
                if part == "periodSeconds" && number > PERIOD_MOST {
                    let detail = format!("must be less than or equal to {PERIOD_MOST}");
                    errors.push(FieldError::invalid(at(part), &json!(number), detail));
                }
            }
        }
    }
}

/// The rules of those directions that are given, completed by upstream's: up at once by 4 pods or 100 % in 15 s, down by all.
pub(super) fn default_behavior(spec: &mut Value) {
    if present(spec, "/behavior").is_none() {
        return;
    }
    let up = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]});
    let down = json!({"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]});
    for (direction, defaults) in [("scaleUp", up), ("scaleDown", down)] {
        let given = super::json::child(&mut spec["behavior"], direction);
        if let (Some(given), Value::Object(defaults)) = (given, defaults) {
            for (key, value) in defaults {
                if given.get(&key).is_none_or(Value::is_null) {
                    given[key] = value;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    fn scaler(spec: Value) -> Value {
        let mut spec = spec;
        spec["scaleTargetRef"] = json!({"kind": "Deployment", "name": "web"});
        spec["maxReplicas"] = json!(3);
        json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "h", "namespace": "default"}, "spec": spec})
    }

    #[test]
    fn a_metric_says_what_is_measured_and_what_it_should_be() {
        let said =
            |metrics: Value| said("autoscaling", "HorizontalPodAutoscaler", scaler(json!({"metrics": metrics})), None);
        let good = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
            {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "1k"}}}]);
        assert_eq!(said(good), Vec::<String>::new());
        assert_eq!(
            said(json!([
                {"type": "Resource"},
                {"type": "Pods", "resource": {"name": "", "target": {"type": "Some", "averageUtilization": 0, "averageValue": "0"}}},
                {"type": "External", "external": {"metric": {}, "target": {"type": "Value"}}},
            ])),
            [
                "spec.metrics[0].resource: Required value: must populate information for the given metric source",
                "spec.metrics[1].resource.name: Required value: must specify a resource name",
                "spec.metrics[1].resource.target.type: Invalid value: \"Some\": must be either Utilization, Value, or AverageValue",
                "spec.metrics[1].resource.target.averageValue: Invalid value: \"0\": must be positive",
                "spec.metrics[1].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
                "spec.metrics[1].resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization",
                "spec.metrics[1].resource: Forbidden: must populate the given metric source only",
                "spec.metrics[1].pods: Required value: must populate information for the given metric source",
                "spec.metrics[2].external.metric.name: Required value: must specify a metric name",
                "spec.metrics[2].external.target.averageValue: Required value: must set either a target value for metric or a per-pod target",
            ]
        );
    }

    #[test]
    fn behaviour_is_completed_and_within_bounds() {
        let mut spec = json!({"behavior": {"scaleDown": {"stabilizationWindowSeconds": 10}}});
        default_behavior(&mut spec);
        assert_eq!(spec["behavior"]["scaleUp"]["policies"].as_array().map(Vec::len), Some(2));
        assert_eq!(
            spec["behavior"]["scaleDown"],
            json!({"stabilizationWindowSeconds": 10, "selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]})
        );
        let odd = json!({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601, "selectPolicy": "Any", "policies": [
            {"type": "Pods", "value": 0, "periodSeconds": 1801}]}}});
        assert_eq!(
            said("autoscaling", "HorizontalPodAutoscaler", scaler(odd), None),
            [
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
                "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Any\": supported values: \"Disabled\", \"Max\", \"Min\"",
                "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
                "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            ]
        );
    }
}
