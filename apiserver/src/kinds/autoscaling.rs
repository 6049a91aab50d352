//! HorizontalPodAutoscaler, stored as `v2`; `v1` is a view of it. PodDisruptionBudget.

use super::field::{invalid, not_negative, one_of};
use super::json::{child, fill, int, is_unset, list, present, put, remove, text};
use super::table::{UNKNOWN, age, name, number};
use super::workload::number_or_percent;
use super::{metadata, metrics, selector};
use crate::registry::{ResourceKind, View};
use crate::status::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Where `v1` keeps the metrics it has no field for.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";

/// `autoscaling/v1` on `v2` objects.
pub(super) fn view() -> View {
    View {
        plural: "horizontalpodautoscalers".into(),
        group: "autoscaling".into(),
        to_stored: v1_to_v2,
        from_stored: v2_to_v1,
    }
}

fn is_cpu_utilization(metric: &Value) -> bool {
    text(metric, "/resource/name") == "cpu" && present(metric, "/resource/target/averageUtilization").is_some()
}

fn v1_to_v2(scaler: &mut Value) {
    put(scaler, "apiVersion", Some("autoscaling/v2".into()));
    let mut metrics = Vec::new();
    if let Some(percent) = remove(scaler, "/spec/targetCPUUtilizationPercentage").filter(|percent| !percent.is_null()) {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    let kept = scaler
        .pointer_mut("/metadata/annotations")
        .and_then(|annotations| annotations.as_object_mut()?.remove(METRICS));
    if let Some(Value::String(kept)) = kept {
        metrics.extend(serde_json::from_str::<Vec<Value>>(&kept).unwrap_or_default());
    }
    if let Some(spec) = child(scaler, "spec")
        && !metrics.is_empty()
    {
        put(spec, "metrics", Some(metrics.into()));
    }
    if let Some(percent) = remove(scaler, "/status/currentCPUUtilizationPercentage")
        && let Some(status) = child(scaler, "status")
    {
        let current =
            json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}]);
        put(status, "currentMetrics", Some(current));
    }
}

fn v2_to_v1(scaler: &mut Value) {
    put(scaler, "apiVersion", Some("autoscaling/v1".into()));
    if let Some(Value::Array(metrics)) = remove(scaler, "/spec/metrics") {
        let (mut cpu, rest): (Vec<Value>, Vec<Value>) = metrics.into_iter().partition(is_cpu_utilization);
        if let (Some(metric), Some(spec)) = (cpu.pop(), child(scaler, "spec")) {
            let percent = metric.pointer("/resource/target/averageUtilization").cloned();
            put(spec, "targetCPUUtilizationPercentage", percent);
        }
        if !rest.is_empty()
            && let Some(annotations) = child(scaler, "metadata").and_then(|metadata| child(metadata, "annotations"))
        {
            put(annotations, METRICS, Some(Value::from(rest).to_string().into()));
        }
    }
    if let Some(Value::Array(metrics)) = remove(scaler, "/status/currentMetrics") {
        let percent = metrics
            .iter()
            .find(|metric| text(metric, "/resource/name") == "cpu")
            .and_then(|metric| metric.pointer("/resource/current/averageUtilization").cloned());
        if let (Some(percent), Some(status)) = (percent, child(scaler, "status")) {
            put(status, "currentCPUUtilizationPercentage", Some(percent));
        }
    }
    remove(scaler, "/status/conditions");
    remove(scaler, "/spec/behavior");
}

/// One replica at least; without metrics 80 % of the CPU asked for.
pub(super) fn default_scaler(kind: &ResourceKind, scaler: &mut Value) {
    let Some(spec) = child(scaler, "spec") else { return };
    fill(spec, "minReplicas", 1);
    if kind.version == "v2" {
        metrics::default_behavior(spec);
        if is_unset(spec, "/metrics") {
            let target = json!({"type": "Utilization", "averageUtilization": 80});
            put(spec, "metrics", Some(json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}])));
        }
    } else if is_unset(spec, "/targetCPUUtilizationPercentage")
        && is_unset(scaler, &format!("/metadata/annotations/{}", METRICS.replace('/', "~1")))
    {
        put(&mut scaler["spec"], "targetCPUUtilizationPercentage", Some(json!(80)));
    }
    if let Some(status) = child(scaler, "status") {
        fill(status, "currentReplicas", 0);
        fill(status, "desiredReplicas", 0);
    }
}

/// Everything wrong with an autoscaler.
pub(super) fn scaler(kind: &ResourceKind, scaler: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, scaler, old);
    let (least, most) = (int(scaler, "/spec/minReplicas"), int(scaler, "/spec/maxReplicas").unwrap_or_default());
    if let Some(least) = least.filter(|least| *least < 1) {
        let detail = "must be greater than or equal to 1";
        errors.push(FieldError::invalid("spec.minReplicas", &json!(least), detail));
    }
    if most < 1 {
        errors.push(FieldError::invalid("spec.maxReplicas", &json!(most), "must be greater than 0"));
    }
    if least.is_some_and(|least| most < least) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid("spec.maxReplicas", &json!(most), detail));
    }
    for part in ["kind", "name"] {
        if text(scaler, &format!("/spec/scaleTargetRef/{part}")).is_empty() {
            errors.push(FieldError::required(format!("spec.scaleTargetRef.{part}"), ""));
        }
    }
    for (index, metric) in list(scaler, "/spec/metrics").iter().enumerate() {
        metrics::metric(metric, &format!("spec.metrics[{index}]"), &mut errors);
    }
    metrics::behavior(&scaler["spec"], "spec.behavior", &mut errors);
    errors
}

/// NAME REFERENCE TARGETS MINPODS MAXPODS REPLICAS AGE.
pub(super) fn scaler_row(kind: &ResourceKind, scaler: &Value, now: Timestamp) -> Vec<Value> {
    let mut v2 = scaler.clone();
    if kind.version == "v1" {
        v1_to_v2(&mut v2);
    }
    let target = |part: &str| text(&v2, &format!("/spec/scaleTargetRef/{part}"));
    let least = int(&v2, "/spec/minReplicas").map_or_else(|| "<unset>".to_owned(), |least| least.to_string());
    vec![
        name(&v2),
        format!("{}/{}", target("kind"), target("name")).into(),
        targets(&v2).into(),
        least.into(),
        number(&v2, "/spec/maxReplicas"),
        number(&v2, "/status/currentReplicas"),
        age(&v2, now),
    ]
}

fn targets(scaler: &Value) -> String {
    const SHOWN: usize = 2;
    let metrics = list(scaler, "/spec/metrics");
    if metrics.is_empty() {
        return super::table::NONE.to_owned();
    }
    let statuses = list(scaler, "/status/currentMetrics");
    let mut shown: Vec<String> =
        metrics.iter().enumerate().take(SHOWN).map(|(index, metric)| target(metric, statuses.get(index))).collect();
    if metrics.len() > SHOWN {
        shown.push(format!("{} more...", metrics.len() - SHOWN));
    }
    shown.join(", ")
}

fn target(metric: &Value, status: Option<&Value>) -> String {
    let source = match text(metric, "/type") {
        "ContainerResource" => "containerResource",
        "External" => "external",
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        _ => return "<unknown type>".to_owned(),
    };
    let at = |part: &str| text(metric, &format!("/{source}/target/{part}"));
    let current = |part: &str| status.and_then(|status| present(status, &format!("/{source}/current/{part}")));
    let shown = |value: Option<&Value>, suffix: &str| match value {
        Some(Value::String(text)) => format!("{text}{suffix}"),
        Some(other) => format!("{other}{suffix}"),
        None => UNKNOWN.to_owned(),
    };
    let name = match source {
        "resource" | "containerResource" => format!("{}: ", text(metric, &format!("/{source}/name"))),
        _ => String::new(),
    };
    if !at("averageValue").is_empty() {
        let suffix = if name.is_empty() { " (avg)" } else { "" };
        format!("{name}{}/{}{suffix}", shown(current("averageValue"), ""), at("averageValue"))
    } else if let Some(percent) = present(metric, &format!("/{source}/target/averageUtilization")) {
        format!("{name}{}/{percent}%", shown(current("averageUtilization"), "%"))
    } else if at("value").is_empty() {
        format!("{name}{UNKNOWN}/<auto>")
    } else {
        format!("{name}{}/{}", shown(current("value"), ""), at("value"))
    }
}

/// A budget's status begins with its numbers.
pub(super) fn default_budget(_: &ResourceKind, budget: &mut Value) {
    let numbers = ["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"];
    super::workload::status_numbers(budget, &numbers);
}

/// Everything wrong with a PodDisruptionBudget.
pub(super) fn budget(kind: &ResourceKind, budget: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, budget, old);
    let given = |field: &str| present(budget, &format!("/spec/{field}"));
    if given("minAvailable").is_some() && given("maxUnavailable").is_some() {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::invalid("spec", &budget["spec"], detail));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        let at = format!("spec.{field}");
        let percent = number_or_percent(given(field), &at, &mut errors);
        if let (Some(Value::String(value)), Some(101..)) = (given(field), percent) {
            errors.push(invalid(at, value, "must not be greater than 100%"));
        }
    }
    if let Some(found) = given("selector") {
        selector::errors(found, "spec.selector", &mut errors);
    }
    let policy = text(budget, "/spec/unhealthyPodEvictionPolicy");
    if !policy.is_empty() {
        one_of(&mut errors, "spec.unhealthyPodEvictionPolicy", policy, &["AlwaysAllow", "IfHealthyBudget"]);
    }
    not_negative(&mut errors, "status.disruptionsAllowed", int(budget, "/status/disruptionsAllowed"));
    errors
}

/// NAME MIN-AVAILABLE MAX-UNAVAILABLE ALLOWED-DISRUPTIONS AGE.
pub(super) fn budget_row(_: &ResourceKind, budget: &Value, now: Timestamp) -> Vec<Value> {
    let shown = |field: &str| -> Value {
        match present(budget, &format!("/spec/{field}")) {
            None => "N/A".into(),
            Some(Value::String(text)) => text.as_str().into(),
            Some(number) => number.to_string().into(),
        }
    };
    vec![
        name(budget),
        shown("minAvailable"),
        shown("maxUnavailable"),
        number(budget, "/status/disruptionsAllowed"),
        age(budget, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{row_of, said};
    use super::*;

    fn scaler_with(spec: Value) -> Value {
        let mut spec = spec;
        spec["scaleTargetRef"] = json!({"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"});
        json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "h", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": {"currentReplicas": 2}})
    }

    #[test]
    fn an_autoscaler_of_v1_is_one_of_v2() {
        let v2 = scaler_with(json!({"maxReplicas": 5, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
            {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}}]}));
        let mut v1 = v2.clone();
        v2_to_v1(&mut v1);
        assert_eq!(v1["spec"]["targetCPUUtilizationPercentage"], 60);
        assert_eq!((v1["spec"].get("metrics"), &v1["apiVersion"]), (None, &json!("autoscaling/v1")));
        let mut back = v1.clone();
        v1_to_v2(&mut back);
        back["metadata"].as_object_mut().unwrap().remove("annotations");
        assert_eq!(back, v2);
        assert_eq!(
            row_of("autoscaling", "HorizontalPodAutoscaler", &v2),
            "h | Deployment/web | cpu: <unknown>/60%, memory: <unknown>/1Gi | <unset> | 5 | 2 | 3h5m"
        );
    }

    #[test]
    fn an_autoscaler_has_bounds_that_fit() {
        assert_eq!(
            said(
                "autoscaling",
                "HorizontalPodAutoscaler",
                scaler_with(json!({"minReplicas": 3, "maxReplicas": 2})),
                None
            ),
            ["spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`"]
        );
    }

    #[test]
    fn a_budget_says_one_of_two_things() {
        let budget = |spec: Value| json!({"metadata": {"name": "b", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": {"disruptionsAllowed": 1}});
        assert_eq!(
            said("policy", "PodDisruptionBudget", budget(json!({"minAvailable": 1, "maxUnavailable": "101%"})), None),
            [
                "spec: Invalid value: {\"maxUnavailable\":\"101%\",\"minAvailable\":1}: minAvailable and maxUnavailable cannot be both set",
                "spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ]
        );
        assert_eq!(
            row_of("policy", "PodDisruptionBudget", &budget(json!({"minAvailable": "50%"}))),
            "b | 50% | N/A | 1 | 3h5m"
        );
    }
}
