//! The kinds that keep pods running: Deployment, ReplicaSet, ReplicationController, StatefulSet, DaemonSet.

use super::field::{complaints, immutable, invalid, not_negative, one_of};
use super::json::{child, fill, int, list, list_mut, object, present, put, same, text};
use super::table::{age, containers_and_images, label_text, name, number, selector_text};
use super::{metadata, names, pod, selector};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Deployment.
pub(super) fn default_deployment(_: &ResourceKind, object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "progressDeadlineSeconds", 600);
    if let Some(strategy) = child(spec, "strategy") {
        fill(strategy, "type", "RollingUpdate");
        if text(strategy, "/type") == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", "25%");
            fill(rolling, "maxSurge", "25%");
        }
    }
    pod::defaults::template(spec);
    child(object, "status");
}

/// ReplicaSet.
pub(super) fn default_replica_set(_: &ResourceKind, object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    fill(spec, "replicas", 1);
    pod::defaults::template(spec);
    status_numbers(object, &["replicas"]);
}

/// ReplicationController: selector and labels come from the template's labels.
pub(super) fn default_replication_controller(_: &ResourceKind, object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    fill(spec, "replicas", 1);
    let labels = spec.pointer("/template/metadata/labels").filter(|labels| !super::json::is_zero(labels)).cloned();
    pod::defaults::template(spec);
    if let Some(labels) = labels {
        if super::json::is_unset(spec, "/selector") {
            put(spec, "selector", Some(labels.clone()));
        }
        if super::json::is_unset(object, "/metadata/labels")
            && let Some(metadata) = child(object, "metadata")
        {
            put(metadata, "labels", Some(labels));
        }
    }
    status_numbers(object, &["replicas"]);
}

/// StatefulSet.
pub(super) fn default_stateful_set(_: &ResourceKind, object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = child(spec, "updateStrategy") {
        fill(strategy, "type", "RollingUpdate");
        if text(strategy, "/type") == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            fill(rolling, "partition", 0);
        }
    }
    if let Some(policy) = child(spec, "persistentVolumeClaimRetentionPolicy") {
        fill(policy, "whenDeleted", "Retain");
        fill(policy, "whenScaled", "Retain");
    }
    pod::defaults::template(spec);
    for claim in list_mut(spec, "/volumeClaimTemplates") {
        fill(claim, "apiVersion", "v1");
        fill(claim, "kind", "PersistentVolumeClaim");
        super::volumes::default_claim_parts(claim);
    }
    status_numbers(object, &["availableReplicas", "replicas"]);
}

/// DaemonSet.
pub(super) fn default_daemon_set(_: &ResourceKind, object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    fill(spec, "revisionHistoryLimit", 10);
    if let Some(strategy) = child(spec, "updateStrategy") {
        fill(strategy, "type", "RollingUpdate");
        if text(strategy, "/type") == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", 1);
            fill(rolling, "maxSurge", 0);
        }
    }
    pod::defaults::template(spec);
    status_numbers(object, &["currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"]);
}

/// Numbers of a status that are there from the beginning.
pub(super) fn status_numbers(object: &mut Value, names: &[&str]) {
    if let Some(status) = child(object, "status") {
        for name in names {
            fill(status, name, 0);
        }
    }
}

/// Strategy parameters: a number or a percentage.
pub(super) fn number_or_percent(value: Option<&Value>, field: &str, errors: &mut Vec<FieldError>) -> Option<i64> {
    match value? {
        Value::String(percent) => {
            let Some(number) = percent.strip_suffix('%').and_then(|number| number.parse::<i64>().ok()) else {
                errors.push(invalid(
                    field,
                    percent,
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for \
                     validation is '[0-9]+%')",
                ));
                return None;
            };
            Some(number)
        }
        number => {
            not_negative(errors, field, number.as_i64());
            number.as_i64()
        }
    }
}

fn not_above_all(value: Option<&Value>, field: &str, errors: &mut Vec<FieldError>) {
    if let Some(Value::String(percent)) = value
        && percent.strip_suffix('%').and_then(|number| number.parse::<i64>().ok()).is_some_and(|number| number > 100)
    {
        errors.push(invalid(field, percent, "must not be greater than 100%"));
    }
}

/// What the kinds with a `LabelSelector` and a template share; `owner` is how their texts call them.
fn selector_and_template(object: &Value, owner: &str, errors: &mut Vec<FieldError>) {
    match present(object, "/spec/selector") {
        None => errors.push(FieldError::required("spec.selector", "")),
        Some(found) => {
            selector::errors(found, "spec.selector", errors);
            if selector::is_empty(found) {
                let detail = format!("empty selector is invalid for {owner}");
                errors.push(FieldError::invalid("spec.selector", found, detail));
            } else if !selector::selects(found, object, "/spec/template/metadata/labels") {
                mismatch(object, errors);
            }
        }
    }
    template_rules(object, errors);
}

fn mismatch(workload: &Value, errors: &mut Vec<FieldError>) {
    let labels = workload.pointer("/spec/template/metadata/labels").unwrap_or(&Value::Null);
    let detail = "`selector` does not match template `labels`";
    errors.push(FieldError::invalid("spec.template.metadata.labels", labels, detail));
}

fn template_rules(object: &Value, errors: &mut Vec<FieldError>) {
    if present(object, "/spec/template").is_none() {
        errors.push(FieldError::required("spec.template", ""));
        return;
    }
    pod::validation::template(&object["spec"]["template"], "spec.template", errors);
    let policy = text(object, "/spec/template/spec/restartPolicy");
    if matches!(policy, "Never" | "OnFailure") {
        one_of(errors, "spec.template.spec.restartPolicy", policy, &["Always"]);
    }
    if int(object, "/spec/template/spec/activeDeadlineSeconds").is_some() {
        let detail = "activeDeadlineSeconds in ReplicaSet is not Supported";
        errors.push(FieldError::forbidden("spec.template.spec.activeDeadlineSeconds", detail));
    }
}

fn numbers(object: &Value, names: &[&str], errors: &mut Vec<FieldError>) {
    for name in names {
        not_negative(errors, format!("spec.{name}"), int(object, &format!("/spec/{name}")));
    }
}

/// Deployment.
pub(super) fn deployment(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    numbers(object, &["replicas"], &mut errors);
    selector_and_template(object, "deployment", &mut errors);
    let rolling = present(object, "/spec/strategy/rollingUpdate");
    match (text(object, "/spec/strategy/type"), rolling) {
        ("Recreate", Some(_)) => errors.push(FieldError::forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        )),
        ("RollingUpdate", Some(rolling)) => rolling_update(rolling, &mut errors),
        (kind, _) => one_of(&mut errors, "spec.strategy.type", kind, &["Recreate", "RollingUpdate"]),
    }
    numbers(object, &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"], &mut errors);
    let ready = int(object, "/spec/minReadySeconds").unwrap_or_default();
    if let Some(deadline) = int(object, "/spec/progressDeadlineSeconds").filter(|deadline| *deadline <= ready) {
        let detail = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid("spec.progressDeadlineSeconds", &json!(deadline), detail));
    }
    if let Some(old) = old {
        immutable(&mut errors, object, old, "/spec/selector");
    }
    errors
}

fn rolling_update(rolling: &Value, errors: &mut Vec<FieldError>) {
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    let field = "spec.strategy.rollingUpdate.maxUnavailable";
    let down = number_or_percent(unavailable, field, errors);
    let up = number_or_percent(surge, "spec.strategy.rollingUpdate.maxSurge", errors);
    if (down, up) == (Some(0), Some(0)) {
        let value = unavailable.unwrap_or(&Value::Null);
        errors.push(FieldError::invalid(field, value, "may not be 0 when `maxSurge` is 0"));
    }
    not_above_all(unavailable, field, errors);
}

/// ReplicaSet.
pub(super) fn replica_set(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    numbers(object, &["replicas", "minReadySeconds"], &mut errors);
    selector_and_template(object, "deployment", &mut errors);
    if let Some(old) = old {
        immutable(&mut errors, object, old, "/spec/selector");
    }
    errors
}

/// ReplicationController, whose selector is a plain map.
pub(super) fn replication_controller(kind: &ResourceKind, controller: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, controller, old);
    numbers(controller, &["replicas", "minReadySeconds"], &mut errors);
    match object(controller, "/spec/selector").filter(|labels| !labels.is_empty()) {
        None => errors.push(FieldError::required("spec.selector", "")),
        Some(wanted) => {
            metadata::labels("spec.selector", wanted.iter(), &mut errors);
            let labels = object(controller, "/spec/template/metadata/labels");
            if !wanted.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value)) {
                mismatch(controller, &mut errors);
            }
        }
    }
    template_rules(controller, &mut errors);
    errors
}

/// StatefulSet.
pub(super) fn stateful_set(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    numbers(object, &["replicas", "minReadySeconds", "revisionHistoryLimit"], &mut errors);
    let policy = text(object, "/spec/podManagementPolicy");
    one_of(&mut errors, "spec.podManagementPolicy", policy, &["OrderedReady", "Parallel"]);
    match text(object, "/spec/updateStrategy/type") {
        "OnDelete" if present(object, "/spec/updateStrategy/rollingUpdate").is_some() => {
            errors.push(FieldError::invalid(
                "spec.updateStrategy.rollingUpdate",
                &object["spec"]["updateStrategy"]["rollingUpdate"],
                "only allowed for updateStrategy 'RollingUpdate'",
            ));
        }
        kind => one_of(&mut errors, "spec.updateStrategy.type", kind, &["OnDelete", "RollingUpdate"]),
    }
    not_negative(
        &mut errors,
        "spec.updateStrategy.rollingUpdate.partition",
        int(object, "/spec/updateStrategy/rollingUpdate/partition"),
    );
    let service = text(object, "/spec/serviceName");
    if !service.is_empty() {
        errors.extend(complaints("spec.serviceName", service, names::dns_subdomain(service)));
    }
    selector_and_template(&with_claims(object), "statefulset", &mut errors);
    errors
}

/// The object with a volume in its template for each claim template, as its pods will have.
fn with_claims(object: &Value) -> Value {
    let mut object = object.clone();
    let names: Vec<String> = list(&object, "/spec/volumeClaimTemplates")
        .iter()
        .map(|claim| text(claim, "/metadata/name").to_owned())
        .filter(|name| !list(&object, "/spec/template/spec/volumes").iter().any(|volume| text(volume, "/name") == name))
        .collect();
    let spec = object.pointer_mut("/spec/template/spec").filter(|spec| spec.is_object() && !names.is_empty());
    if let Some(spec) = spec {
        let mut volumes = list(spec, "/volumes").to_vec();
        volumes
            .extend(names.into_iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}})));
        spec["volumes"] = volumes.into();
    }
    object
}

/// Fields of a StatefulSet that may change.
const STATEFUL_SET_UPDATABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// What an update of a StatefulSet may not change.
pub(super) fn stateful_set_update(_: &ResourceKind, new: &Value, old: &Value, _: &str) -> Vec<FieldError> {
    let mut rest = new.clone();
    for field in STATEFUL_SET_UPDATABLE {
        super::json::carry_over(&mut rest, old, &format!("/spec/{field}"));
    }
    if same(&rest, old, "/spec") {
        return Vec::new();
    }
    let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
        'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    vec![FieldError::forbidden("spec", detail)]
}

/// DaemonSet.
pub(super) fn daemon_set(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    selector_and_template(object, "daemonset", &mut errors);
    numbers(object, &["minReadySeconds", "revisionHistoryLimit"], &mut errors);
    let kind = text(object, "/spec/updateStrategy/type");
    one_of(&mut errors, "spec.updateStrategy.type", kind, &["OnDelete", "RollingUpdate"]);
    if let Some(rolling) = present(object, "/spec/updateStrategy/rollingUpdate") {
        let field = "spec.updateStrategy.rollingUpdate.maxUnavailable";
        let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
        let down = number_or_percent(unavailable, field, &mut errors);
        let up = number_or_percent(surge, "spec.updateStrategy.rollingUpdate.maxSurge", &mut errors);
        match (down.unwrap_or_default(), up.unwrap_or_default()) {
            (0, 0) => errors.push(FieldError::invalid(
                field,
                unavailable.unwrap_or(&Value::Null),
                "cannot be 0 when maxSurge is 0",
            )),
            (1.., 1..) => errors.push(FieldError::invalid(
                "spec.updateStrategy.rollingUpdate.maxSurge",
                surge.unwrap_or(&Value::Null),
                "may not be set when maxUnavailable is non-zero",
            )),
            _ => {}
        }
    }
    if let Some(old) = old {
        immutable(&mut errors, object, old, "/spec/selector");
    }
    errors
}

/// Labels of a workload are not its status's to change.
pub(super) fn prepare(kind: &ResourceKind, new: &mut Value, old: Option<&Value>, subresource: &str) {
    super::strategy::prepare(kind, new, old, subresource);
    if let (Some(old), "status") = (old, subresource) {
        super::json::carry_over(new, old, "/metadata/labels");
    }
}

fn with_template(mut row: Vec<Value>, object: &Value, selector: Option<String>) -> Vec<Value> {
    row.extend(containers_and_images(object, "/spec/template/spec"));
    row.extend(selector.map(Value::from));
    row
}

/// READY UP-TO-DATE AVAILABLE AGE CONTAINERS IMAGES SELECTOR.
pub(super) fn deployment_row(_: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    let row = vec![
        name(object),
        ready(object),
        number(object, "/status/updatedReplicas"),
        number(object, "/status/availableReplicas"),
        age(object, now),
    ];
    with_template(row, object, Some(selector_text(object, "/spec/selector")))
}

fn ready(object: &Value) -> Value {
    let count = |pointer: &str| int(object, pointer).unwrap_or_default();
    format!("{}/{}", count("/status/readyReplicas"), count("/spec/replicas")).into()
}

/// DESIRED CURRENT READY AGE CONTAINERS IMAGES SELECTOR.
pub(super) fn replicas_row(kind: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    let row = vec![
        name(object),
        number(object, "/spec/replicas"),
        number(object, "/status/replicas"),
        number(object, "/status/readyReplicas"),
        age(object, now),
    ];
    let selector = match kind.kind == "ReplicationController" {
        true => label_text(object, "/spec/selector"),
        false => selector_text(object, "/spec/selector"),
    };
    with_template(row, object, Some(selector))
}

/// READY AGE CONTAINERS IMAGES.
pub(super) fn stateful_set_row(_: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    with_template(vec![name(object), ready(object), age(object, now)], object, None)
}

/// DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE-SELECTOR AGE CONTAINERS IMAGES SELECTOR.
pub(super) fn daemon_set_row(_: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    let row = vec![
        name(object),
        number(object, "/status/desiredNumberScheduled"),
        number(object, "/status/currentNumberScheduled"),
        number(object, "/status/numberReady"),
        number(object, "/status/updatedNumberScheduled"),
        number(object, "/status/numberAvailable"),
        label_text(object, "/spec/template/spec/nodeSelector").into(),
        age(object, now),
    ];
    with_template(row, object, Some(selector_text(object, "/spec/selector")))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{row_of, said};
    use super::*;

    fn workload(spec: Value) -> Value {
        json!({"metadata": {"name": "web", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec})
    }

    fn good() -> Value {
        json!({"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "a", "image": "i:1"}]}}})
    }

    fn with(pointer: &str, value: Value) -> Value {
        let mut spec = good();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[key] = value;
        spec
    }

    #[test]
    fn a_deployment_gets_its_defaults() {
        let mut object = workload(good());
        default_deployment(&ResourceKind::new("apps", "v1", "Deployment", "deployments"), &mut object);
        assert_eq!(object["spec"]["template"]["spec"]["restartPolicy"], "Always");
        object["spec"].as_object_mut().unwrap().remove("template");
        assert_eq!(
            object["spec"],
            json!({"selector": {"matchLabels": {"app": "web"}}, "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}}),
        );
    }

    #[test]
    fn a_stateful_sets_pods_may_mount_what_its_claim_templates_make() {
        let mut spec = with("/volumeClaimTemplates", json!([{"metadata": {"name": "data"}}]));
        spec["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        assert_eq!(said("apps", "StatefulSet", workload(spec.clone()), None), Vec::<String>::new());
        spec["template"]["spec"]["containers"][0]["volumeMounts"][0]["name"] = "other".into();
        assert_eq!(
            said("apps", "StatefulSet", workload(spec), None),
            ["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"other\""]
        );
    }

    #[test]
    fn the_selector_selects_the_template_and_never_changes() {
        let refused = |group: &str, kind: &str, spec: Value, expected: &[&str]| {
            assert_eq!(said(group, kind, workload(spec), None), expected)
        };
        for kind in ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"] {
            refused("apps", kind, good(), &[]);
            refused("apps", kind, with("/selector", Value::Null), &["spec.selector: Required value"]);
            refused(
                "apps",
                kind,
                with("/selector", json!({"matchLabels": {"app": "api"}})),
                &[
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
                ],
            );
            refused(
                "apps",
                kind,
                with("/template/spec/restartPolicy", json!("Never")),
                &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
            );
        }
        refused(
            "apps",
            "Deployment",
            with("/selector", json!({})),
            &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        );
        let mut changed = with("/selector", json!({"matchLabels": {"app": "web", "v": "2"}}));
        changed["template"]["metadata"]["labels"]["v"] = json!("2");
        assert_eq!(
            said("apps", "Deployment", workload(changed.clone()), Some(workload(good()))),
            ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"web\",\"v\":\"2\"}}: field is immutable"],
        );
        assert_eq!(
            said("apps", "StatefulSet", workload(changed), Some(workload(good()))),
            [
                "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
              'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
            ],
        );
    }

    #[test]
    fn replicas_and_strategy_make_sense() {
        let refused =
            |spec: Value, expected: &[&str]| assert_eq!(said("apps", "Deployment", workload(spec), None), expected);
        refused(
            with("/replicas", json!(-1)),
            &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        );
        refused(
            with(
                "/strategy",
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}),
            ),
            &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
        );
        refused(
            with("/strategy", json!({"type": "Recreate", "rollingUpdate": {"maxSurge": 1}})),
            &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
        );
        refused(
            with("/minReadySeconds", json!(600)),
            &["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
        );
    }

    #[test]
    fn errors_in_a_template_name_their_whole_path() {
        assert_eq!(
            said("apps", "Deployment", workload(with("/template/spec/containers", json!([{"name": "a"}]))), None),
            ["spec.template.spec.containers[0].image: Required value"],
        );
    }

    #[test]
    fn a_replication_controller_takes_its_selector_from_the_template() {
        let mut object = workload(with("/selector", Value::Null));
        default_replication_controller(&ResourceKind::new("", "v1", "ReplicationController", "x"), &mut object);
        assert_eq!(object["spec"]["selector"], json!({"app": "web"}));
        assert_eq!(object["metadata"]["labels"], json!({"app": "web"}));
    }

    #[test]
    fn workloads_are_shown_as_kubectl_users_know_them() {
        let mut object = workload(with("/replicas", json!(3)));
        object["status"] = json!({"replicas": 3, "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2,
            "desiredNumberScheduled": 4, "currentNumberScheduled": 3, "numberReady": 2, "updatedNumberScheduled": 1, "numberAvailable": 1});
        let cells = |kind: &str| row_of("apps", kind, &object);
        assert_eq!(cells("Deployment"), "web | 2/3 | 3 | 2 | 3h5m | a | i:1 | app=web");
        assert_eq!(cells("ReplicaSet"), "web | 3 | 3 | 2 | 3h5m | a | i:1 | app=web");
        assert_eq!(cells("StatefulSet"), "web | 2/3 | 3h5m | a | i:1");
        assert_eq!(cells("DaemonSet"), "web | 4 | 3 | 2 | 1 | 1 | <none> | 3h5m | a | i:1 | app=web");
    }
}
