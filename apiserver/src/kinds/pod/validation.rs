//! What is wrong with a pod spec, and what an update of a pod may not change.

use super::{containers, resources, scheduling, security, volumes};
use crate::kinds::field::{complaints, invalid, one_of};
use crate::kinds::json::{equal, flag, int, list, list_mut, object, present, put, same, text, texts};
use crate::kinds::{metadata, names};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use serde_json::{Value, json};
use std::collections::HashSet;

const UPDATABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
    `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` \
    (allow it to be set to 1 if it was previously negative)";

/// Everything wrong with a pod.
pub(in crate::kinds) fn errors(kind: &ResourceKind, pod: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, pod, old);
    // What stands there has been judged; an update is judged by what it changes, so that an older, stricter rule strands no pod.
    if old.is_none_or(|old| !same(pod, old, "/spec")) {
        spec(&pod["spec"], "spec", &mut errors);
    }
    errors
}

/// A PodTemplate object.
pub(in crate::kinds) fn template_object(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    template(&object["template"], "template", &mut errors);
    errors
}

/// A pod template at `field`.
pub(in crate::kinds) fn template(template: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let at = |part: &str| format!("{field}.{part}");
    metadata::labels(&at("metadata.labels"), object(template, "/metadata/labels").into_iter().flatten(), errors);
    metadata::annotations(&at("metadata.annotations"), template, "/metadata/annotations", errors);
    spec(&template["spec"], &at("spec"), errors);
    if !list(template, "/spec/ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden(
            at("spec.ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        ));
    }
}

/// A pod spec at `field`.
pub(in crate::kinds) fn spec(spec: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let at = |part: &str| format!("{field}.{part}");
    let volume_names = volumes::errors(list(spec, "/volumes"), &at("volumes"), errors);
    containers::errors(spec, field, &volume_names, errors);
    one_of(errors, at("restartPolicy"), text(spec, "/restartPolicy"), &["Always", "OnFailure", "Never"]);
    dns(spec, field, errors);
    if let Some(seconds) = int(spec, "/activeDeadlineSeconds")
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(at("activeDeadlineSeconds"), &json!(seconds), detail));
    }
    for (name, rule) in [
        ("serviceAccountName", names::dns_subdomain as fn(&str) -> Vec<String>),
        ("nodeName", names::dns_subdomain),
        ("priorityClassName", names::dns_subdomain),
        ("runtimeClassName", names::dns_subdomain),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
    ] {
        let value = text(spec, &format!("/{name}"));
        if !value.is_empty() {
            errors.extend(complaints(&at(name), value, rule(value)));
        }
    }
    for (index, alias) in list(spec, "/hostAliases").iter().enumerate() {
        let (ip, field) = (text(alias, "/ip"), at(&format!("hostAliases[{index}]")));
        errors.extend(complaints(&format!("{field}.ip"), ip, names::ip(ip)));
        for host in texts(alias, "/hostnames") {
            errors.extend(complaints(&format!("{field}.hostnames"), host, names::dns_subdomain(host)));
        }
    }
    for (index, gate) in list(spec, "/readinessGates").iter().enumerate() {
        let kind = text(gate, "/conditionType");
        errors.extend(complaints(
            &at(&format!("readinessGates[{index}].conditionType")),
            kind,
            names::qualified_name(kind),
        ));
    }
    security::errors(spec, &at("securityContext"), errors);
    if flag(spec, "/shareProcessNamespace") && flag(spec, "/hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(at("shareProcessNamespace"), &json!(true), detail));
    }
    if let Some(os) = present(spec, "/os") {
        match text(os, "/name") {
            "" => errors.push(FieldError::required(at("os.name"), "cannot be empty")),
            name => one_of(errors, at("os"), name, &["linux", "windows"]),
        }
    }
    claims(spec, &at("resourceClaims"), errors);
    scheduling::errors(spec, field, errors);
}

fn claims(spec: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let mut known = HashSet::new();
    for (index, claim) in list(spec, "/resourceClaims").iter().enumerate() {
        let (at, name) = (format!("{field}[{index}]"), text(claim, "/name"));
        label_name(name, &format!("{at}.name"), errors);
        if !name.is_empty() && !known.insert(name) {
            errors.push(FieldError::duplicate(format!("{at}.name"), &json!(name)));
        }
        let given = ["resourceClaimName", "resourceClaimTemplateName"];
        let given = given.into_iter().filter(|source| present(claim, &format!("/{source}")).is_some()).count();
        if given != 1 {
            let one_of = if given == 0 { "must specify one of" } else { "at most one of these may be specified" };
            let detail = format!("{one_of}: `resourceClaimName`, `resourceClaimTemplateName`");
            errors.push(FieldError::invalid(at, claim, detail));
        }
    }
}

fn dns(spec: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let policy = text(spec, "/dnsPolicy");
    one_of(
        errors,
        format!("{field}.dnsPolicy"),
        policy,
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    let at = |part: &str| format!("{field}.dnsConfig{part}");
    let Some(config) = present(spec, "/dnsConfig") else {
        if policy == "None" {
            errors.push(FieldError::required(at(""), "must provide `dnsConfig` when `dnsPolicy` is None"));
        }
        return;
    };
    let servers = texts(config, "/nameservers");
    if policy == "None" && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(at(".nameservers"), detail));
    }
    if servers.len() > 3 {
        let detail = "must not have more than 3 nameservers";
        errors.push(FieldError::invalid(at(".nameservers"), &json!(servers), detail));
    }
    for (index, server) in servers.into_iter().enumerate() {
        errors.extend(complaints(&at(&format!(".nameservers[{index}]")), server, names::ip(server)));
    }
    let searches = texts(config, "/searches");
    if searches.len() > 32 {
        errors.push(FieldError::invalid(at(".searches"), &json!(searches), "must not have more than 32 search paths"));
    }
    if searches.join(" ").len() > 2048 {
        let detail = "must not have more than 2048 characters (including spaces) in the search list";
        errors.push(FieldError::invalid(at(".searches"), &json!(searches), detail));
    }
    for (index, search) in searches.into_iter().enumerate().filter(|(_, search)| *search != ".") {
        // Underscores are not for hosts, but stand in search domains (KEP-4427).
        let name = search.strip_suffix('.').unwrap_or(search);
        let complaint = names::dns_subdomain(&name.replace('_', "x"));
        errors.extend(complaints(&at(&format!(".searches[{index}]")), search, complaint));
    }
    for (index, option) in list(config, "/options").iter().enumerate() {
        if text(option, "/name").is_empty() {
            errors.push(FieldError::required(at(&format!(".options[{index}]")), "must not be empty"));
        }
    }
}

/// What an update may not change, by subresource.
pub(in crate::kinds) fn update_errors(
    _: &ResourceKind,
    new: &Value,
    old: &Value,
    subresource: &str,
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match subresource {
        "" => main_update(new, old, &mut errors),
        "ephemeralcontainers" => ephemeral_update(new, old, &mut errors),
        "resize" => resources::resize(new, old, &mut errors),
        _ => {}
    }
    errors
}

fn main_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    for group in ["containers", "initContainers"] {
        let pointer = format!("/spec/{group}");
        if list(new, &pointer).len() != list(old, &pointer).len() {
            let detail = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(format!("spec.{group}"), detail));
            return;
        }
    }
    let (deadline, before) = (int(new, "/spec/activeDeadlineSeconds"), int(old, "/spec/activeDeadlineSeconds"));
    match (deadline, before) {
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid("spec.activeDeadlineSeconds", &Value::Null, detail));
            return;
        }
        (Some(new), Some(old)) if new > old => {
            let detail = "must be less than or equal to previous value";
            errors.push(FieldError::invalid("spec.activeDeadlineSeconds", &json!(new), detail));
            return;
        }
        _ => {}
    }
    let same_but_for_time = |one: &Value, other: &Value| {
        let (mut one, mut other) = (one.clone(), other.clone());
        put(&mut one, "tolerationSeconds", None);
        put(&mut other, "tolerationSeconds", None);
        equal(&one, &other)
    };
    let tolerations = list(new, "/spec/tolerations");
    let kept =
        list(old, "/spec/tolerations").iter().all(|old| tolerations.iter().any(|new| same_but_for_time(new, old)));
    if !kept {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", detail));
        return;
    }
    // Everything that may change is made equal; the rest has to be.
    let mut allowed = new.clone();
    for group in ["/spec/containers", "/spec/initContainers"] {
        for (container, old) in list_mut(&mut allowed, group).iter_mut().zip(list(old, group)) {
            put(container, "image", old.get("image").cloned());
        }
    }
    let gated = !list(old, "/spec/schedulingGates").is_empty();
    let mut fields = vec!["/spec/activeDeadlineSeconds", "/spec/tolerations"];
    if gated {
        fields.extend(["/spec/schedulingGates", "/spec/nodeSelector", "/spec/affinity"]);
    }
    if int(old, "/spec/terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0)
        && int(new, "/spec/terminationGracePeriodSeconds") == Some(1)
    {
        fields.push("/spec/terminationGracePeriodSeconds");
    }
    for field in fields {
        crate::kinds::json::carry_over(&mut allowed, old, field);
    }
    if !same(&allowed, old, "/spec") {
        errors.push(FieldError::forbidden("spec", UPDATABLE));
    }
    let gates: HashSet<&str> = list(old, "/spec/schedulingGates").iter().map(|gate| text(gate, "/name")).collect();
    for (index, gate) in list(new, "/spec/schedulingGates").iter().enumerate() {
        if !gates.contains(text(gate, "/name")) {
            let detail = "only deletion is allowed, but found new scheduling gate";
            let name = text(gate, "/name");
            errors.push(FieldError::forbidden(format!("spec.schedulingGates[{index}]"), format!("{detail} '{name}'")));
        }
    }
}

fn ephemeral_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    const FIELD: &str = "spec.ephemeralContainers";
    for before in list(old, "/spec/ephemeralContainers") {
        let name = text(before, "/name");
        let now = list(new, "/spec/ephemeralContainers").iter().find(|container| text(container, "/name") == name);
        match now {
            None => errors.push(FieldError::forbidden(
                FIELD,
                format!("existing ephemeral containers {name:?} may not be removed"),
            )),
            Some(now) if !equal(now, before) => errors.push(FieldError::forbidden(
                FIELD,
                format!("existing ephemeral containers {name:?} may not be changed"),
            )),
            Some(_) => {}
        }
    }
    let target_names: HashSet<&str> = list(new, "/spec/containers")
        .iter()
        .chain(list(new, "/spec/initContainers"))
        .map(|container| text(container, "/name"))
        .collect();
    for (index, container) in list(new, "/spec/ephemeralContainers").iter().enumerate() {
        let target = text(container, "/targetContainerName");
        if !target.is_empty() && !target_names.contains(target) {
            let field = format!("{FIELD}[{index}].targetContainerName");
            errors.push(crate::kinds::field::not_found(field, target));
        }
    }
}

/// A name that must be there and be a DNS label.
pub(super) fn label_name(name: &str, field: &str, errors: &mut Vec<FieldError>) {
    if name.is_empty() {
        errors.push(FieldError::required(field, ""));
    } else {
        errors.extend(names::dns_label(name).into_iter().map(|complaint| invalid(field, name, complaint)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind() -> ResourceKind {
        ResourceKind::new("", "v1", "Pod", "pods").with_status()
    }

    fn pod(fields: Value) -> Value {
        let mut pod = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"containers": [{"name": "a", "image": "i"}]}});
        for (key, value) in fields.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        super::super::default(&kind(), &mut pod);
        pod
    }

    fn said(errors: Vec<FieldError>) -> Vec<String> {
        errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[track_caller]
    fn refused(fields: Value, expected: &[&str]) {
        assert_eq!(said(errors(&kind(), &pod(fields), None)), expected);
    }

    #[track_caller]
    fn refused_container(fields: Value, expected: &[&str]) {
        let mut container = json!({"name": "a", "image": "i"});
        for (key, value) in fields.as_object().unwrap() {
            container[key] = value.clone();
        }
        refused(json!({"containers": [container]}), expected);
    }

    #[test]
    fn a_pod_has_containers_with_names_and_images() {
        refused(json!({"containers": []}), &["spec.containers: Required value"]);
        refused(
            json!({"containers": [{"name": "A", "image": "i"}, {"name": "b"}, {"name": "b", "image": " i"}]}),
            &[
                "spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric \
                 characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for \
                 validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                "spec.containers[1].image: Required value",
                "spec.containers[2].name: Duplicate value: \"b\"",
                "spec.containers[2].image: Invalid value: \" i\": must not have leading or trailing whitespace",
            ],
        );
    }

    #[test]
    fn container_ports_are_numbers_with_distinct_names() {
        refused_container(
            json!({"ports": [{"name": "a", "containerPort": 0}, {"name": "a", "containerPort": 70000, "protocol": "X"}, {"name": "80", "containerPort": 80}]}),
            &[
                "spec.containers[0].ports[0].containerPort: Required value",
                "spec.containers[0].ports[1].name: Duplicate value: \"a\"",
                "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.containers[0].ports[1].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                "spec.containers[0].ports[2].name: Invalid value: \"80\": must contain at least one letter (a-z)",
            ],
        );
        refused(
            json!({"hostNetwork": true, "containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80, "hostPort": 81}]}]}),
            &[
                "spec.containers[0].ports[0].containerPort: Invalid value: 80: must match `hostPort` when `hostNetwork` is true",
            ],
        );
        refused(
            json!({"containers": [
                {"name": "a", "image": "i", "ports": [{"containerPort": 80, "hostPort": 80}]},
                {"name": "b", "image": "i", "ports": [{"containerPort": 81, "hostPort": 80}]}]}),
            &["spec.containers[1].ports[0].hostPort: Duplicate value: \"TCP//80\""],
        );
    }

    #[test]
    fn environment_variables_have_one_source() {
        refused_container(
            json!({"env": [
                {"name": ""},
                {"name": "A=B", "value": "x"},
                {"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "B", "valueFrom": {}},
                {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodes"}}},
                {"name": "D", "valueFrom": {"secretKeyRef": {"name": "s", "key": ""}}}]}),
            &[
                "spec.containers[0].env[0].name: Required value",
                "spec.containers[0].env[1].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable \
                 ASCII characters other than '='",
                "spec.containers[0].env[2].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
                "spec.containers[0].env[3].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, \
                 `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
                "spec.containers[0].env[4].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.nodes\": error converting fieldPath: field label \
                 not supported: spec.nodes",
                "spec.containers[0].env[5].valueFrom.secretKeyRef.key: Required value",
            ],
        );
    }

    #[test]
    fn mounts_name_volumes_that_exist() {
        refused(
            json!({"volumes": [{"name": "v"}, {"name": "v"}, {"name": "w", "secret": {}}, {"name": "x", "emptyDir": {}, "hostPath": {"path": "/"}}],
                "containers": [{"name": "a", "image": "i", "volumeMounts": [
                    {"name": "v", "mountPath": "/a"}, {"name": "none", "mountPath": "/b"}, {"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "", "subPath": "../x"}]}]}),
            &[
                "spec.volumes[1].name: Duplicate value: \"v\"",
                "spec.volumes[2].secret.secretName: Required value",
                "spec.volumes[3].hostPath: Forbidden: may not specify more than 1 volume type",
                "spec.containers[0].volumeMounts[1].name: Not found: \"none\"",
                "spec.containers[0].volumeMounts[2].mountPath: Invalid value: \"/a\": must be unique",
                "spec.containers[0].volumeMounts[3].mountPath: Required value",
                "spec.containers[0].volumeMounts[3].subPath: Invalid value: \"../x\": must not contain '..'",
            ],
        );
    }

    #[test]
    fn probes_have_one_handler_and_sensible_numbers() {
        refused_container(
            json!({"livenessProbe": {}, "readinessProbe": {"httpGet": {"port": 80}, "tcpSocket": {"port": 80}},
                "startupProbe": {"exec": {"command": []}, "periodSeconds": -1, "successThreshold": 2}}),
            &[
                "spec.containers[0].livenessProbe: Required value: must specify a handler type",
                "spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
                "spec.containers[0].startupProbe.exec.command: Required value",
                "spec.containers[0].startupProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.containers[0].startupProbe.successThreshold: Invalid value: 2: must be 1",
            ],
        );
    }

    #[test]
    fn resources_are_quantities_and_requests_are_within_limits() {
        refused_container(
            json!({"resources": {"limits": {"cpu": "500m", "memory": "lots", "gpu": "1"}, "requests": {"cpu": "1", "memory": "-1"}}}),
            &[
                "spec.containers[0].resources.limits[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
                "spec.containers[0].resources.limits[memory]: Invalid value: \"lots\": quantities must match the regular expression \
                 '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
                "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.containers[0].resources.requests: Invalid value: \"1\": must be less than or equal to cpu limit of 500m",
            ],
        );
    }

    #[test]
    fn policies_and_dns_are_known() {
        refused(
            json!({"restartPolicy": "Sometimes", "dnsPolicy": "None"}),
            &[
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
            ],
        );
        refused(
            json!({"dnsPolicy": "None", "dnsConfig": {"searches": ["a.b.", "_tcp.x", "A"], "options": [{"value": "1"}]}}),
            &[
                "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None",
                "spec.dnsConfig.searches[2]: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
                 characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                "spec.dnsConfig.options[0]: Required value: must not be empty",
            ],
        );
    }

    #[test]
    fn tolerations_and_spread_constraints_make_sense() {
        refused(
            json!({"tolerations": [{"operator": "Equal"}, {"key": "a", "operator": "Exists", "value": "b"}, {"key": "a", "effect": "NoSchedule", "tolerationSeconds": 1}],
                "topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Cry"}]}),
            &[
                "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                "spec.tolerations[1].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'",
                "spec.tolerations[2].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
                "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                "spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty",
                "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Cry\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
            ],
        );
    }

    #[track_caller]
    fn update_refused(change: impl FnOnce(&mut Value), subresource: &str, expected: &[&str]) {
        let old = pod(json!({"tolerations": [{"key": "a", "operator": "Exists"}], "activeDeadlineSeconds": 100}));
        let mut new = old.clone();
        change(&mut new);
        assert_eq!(said(update_errors(&kind(), &new, &old, subresource)), expected);
    }

    #[test]
    fn an_update_changes_images_and_little_else() {
        let forbidden = format!("spec: Forbidden: {UPDATABLE}");
        update_refused(|pod| pod["spec"]["containers"][0]["image"] = json!("j"), "", &[]);
        update_refused(|pod| pod["spec"]["activeDeadlineSeconds"] = json!(99), "", &[]);
        update_refused(
            |pod| pod["spec"]["activeDeadlineSeconds"] = json!(101),
            "",
            &["spec.activeDeadlineSeconds: Invalid value: 101: must be less than or equal to previous value"],
        );
        update_refused(|pod| pod["spec"]["nodeName"] = json!("node-1"), "", &[&forbidden]);
        update_refused(|pod| pod["spec"]["nodeName"] = json!("node-1"), "binding", &[]);
        update_refused(|pod| pod["spec"]["containers"][0]["args"] = json!(["x"]), "", &[&forbidden]);
        update_refused(
            |pod| pod["spec"]["containers"] = json!([]),
            "",
            &["spec.containers: Forbidden: pod updates may not add or remove containers"],
        );
        update_refused(
            |pod| pod["spec"]["tolerations"] = json!([]),
            "",
            &["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"],
        );
        update_refused(|pod| pod["metadata"]["labels"] = json!({"a": "b"}), "", &[]);
    }

    #[test]
    fn ephemeral_containers_are_only_added() {
        let mut old = pod(json!({}));
        old["spec"]["ephemeralContainers"] = json!([{"name": "e", "image": "i"}]);
        let mut new = old.clone();
        new["spec"]["ephemeralContainers"] = json!([{"name": "f", "image": "i", "targetContainerName": "z"}]);
        assert_eq!(
            said(update_errors(&kind(), &new, &old, "ephemeralcontainers")),
            [
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed",
                "spec.ephemeralContainers[0].targetContainerName: Not found: \"z\"",
            ]
        );
    }

    #[test]
    fn security_contexts_and_devices_make_sense() {
        refused_container(
            json!({"securityContext": {"allowPrivilegeEscalation": false, "privileged": true, "runAsUser": -1,
                    "seccompProfile": {"type": "Localhost"}, "appArmorProfile": {"type": "Mine", "localhostProfile": "x"}},
                "resources": {"limits": {"a.io/gpu": "1", "hugepages-2Mi": "2Mi"}, "requests": {"a.io/gpu": "2", "b.io/gpu": "1"}}}),
            &[
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be equal to a.io/gpu limit of 1",
                "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
                "spec.containers[0].resources: Forbidden: HugePages require cpu or memory",
                "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
                "spec.containers[0].securityContext.appArmorProfile.type: Unsupported value: \"Mine\": supported values: \"Localhost\", \
                 \"RuntimeDefault\", \"Unconfined\"",
                "spec.containers[0].securityContext.appArmorProfile.localhostProfile: Invalid value: \"x\": can only be set when AppArmor type is Localhost",
                "spec.containers[0].securityContext: Invalid value: false: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ],
        );
        refused(
            json!({"hostPID": true, "shareProcessNamespace": true, "os": {"name": "plan9"}, "resourceClaims": [{"name": "a"}],
                "securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced"}, {"name": "A"}], "fsGroupChangePolicy": "No"},
                "schedulingGates": [{"name": "a/b"}, {"name": "a/b"}],
                "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 1}],
                "volumes": [{"name": "v", "hostPath": {"path": "/a/..", "type": "Tape"}}, {"name": "w", "emptyDir": {"sizeLimit": "-1"}}]}),
            &[
                "spec.volumes[0].hostPath.path: Invalid value: \"/a/..\": must not contain '..'",
                "spec.volumes[0].hostPath.type: Unsupported value: \"Tape\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \
                 \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
                "spec.volumes[1].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
                "spec.securityContext.fsGroupChangePolicy: Unsupported value: \"No\": supported values: \"Always\", \"OnRootMismatch\"",
                "spec.securityContext.sysctls[1].name: Invalid value: \"A\": must have at most 253 characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
                "spec.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
                "spec.os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\"",
                "spec.resourceClaims[0]: Invalid value: {\"name\":\"a\"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
                "spec.topologySpreadConstraints[0].minDomains: Invalid value: 1: can only use minDomains if whenUnsatisfiable=DoNotSchedule, \
                 not ScheduleAnyway",
                "spec.schedulingGates[1]: Duplicate value: \"a/b\"",
            ],
        );
    }

    #[test]
    fn a_resize_keeps_the_class_and_takes_nothing_away() {
        let with = |resources: Value| pod(json!({"containers": [{"name": "a", "image": "i", "resources": resources}]}));
        let resized = |from: Value, to: Value| said(update_errors(&kind(), &with(to), &with(from), "resize"));
        let half = json!({"requests": {"cpu": "500m", "memory": "1Gi"}});
        assert_eq!(resized(half.clone(), json!({"requests": {"cpu": "1", "memory": "1Gi"}})), Vec::<String>::new());
        assert_eq!(
            resized(half.clone(), json!({"requests": {"cpu": "1"}})),
            ["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"]
        );
        assert_eq!(
            resized(json!({}), half),
            ["spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"]
        );
        let storage = |size: &str| json!({"requests": {"cpu": "1", "ephemeral-storage": size}});
        assert_eq!(
            resized(storage("1Gi"), storage("2Gi")),
            ["spec: Forbidden: only cpu and memory resources are mutable"]
        );
    }
}
