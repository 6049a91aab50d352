//! What is wrong with the containers of a pod spec.

use super::validation::label_name;
use super::{resources, security};
use crate::kinds::field::{complaints, invalid, not_found, not_negative, one_of};
use crate::kinds::json::{flag, int, list, present, text, texts};
use crate::kinds::names;
use crate::kinds::service::port_number_or_name;
use crate::status::FieldError;
use serde_json::{Value, json};
use std::collections::HashSet;

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Regular,
    Init,
    Ephemeral,
}

/// All containers of the pod spec at `field`, whose volumes have these names.
pub(super) fn errors(spec: &Value, field: &str, volumes: &HashSet<&str>, errors: &mut Vec<FieldError>) {
    let mut names = HashSet::new();
    let mut host_ports = HashSet::new();
    if list(spec, "/containers").is_empty() {
        errors.push(FieldError::required(format!("{field}.containers"), ""));
    }
    for (group, role) in
        [("containers", Role::Regular), ("initContainers", Role::Init), ("ephemeralContainers", Role::Ephemeral)]
    {
        for (index, container) in list(spec, &format!("/{group}")).iter().enumerate() {
            let field = format!("{field}.{group}[{index}]");
            let name = text(container, "/name");
            label_name(name, &format!("{field}.name"), errors);
            if !name.is_empty() && !names.insert(name) {
                errors.push(FieldError::duplicate(format!("{field}.name"), &json!(name)));
            }
            image(container, &field, errors);
            if role == Role::Ephemeral {
                for forbidden in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources"]
                {
                    if container.get(forbidden).is_some_and(|value| !crate::kinds::json::is_zero(value)) {
                        errors.push(FieldError::forbidden(
                            format!("{field}.{forbidden}"),
                            "cannot be set for an Ephemeral Container",
                        ));
                    }
                }
            } else {
                ports(container, &field, flag(spec, "/hostNetwork"), errors);
                // Init containers run one after the other, so theirs do not collide.
                if role == Role::Regular {
                    collisions(container, &field, &mut host_ports, errors);
                }
            }
            environment(container, &field, errors);
            mounts(container, &field, volumes, errors);
            if role == Role::Ephemeral {
                for (index, mount) in list(container, "/volumeMounts").iter().enumerate() {
                    for part in ["subPath", "subPathExpr"] {
                        if !text(mount, &format!("/{part}")).is_empty() {
                            let field = format!("{field}.volumeMounts[{index}].{part}");
                            errors.push(FieldError::forbidden(field, "cannot be set for an Ephemeral Container"));
                        }
                    }
                }
            }
            lifecycle(container, &field, role, errors);
            resources::errors(container, &field, errors);
            security::errors(container, &format!("{field}.securityContext"), errors);
        }
    }
}

fn image(container: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let image = text(container, "/image");
    if image.is_empty() {
        errors.push(FieldError::required(format!("{field}.image"), ""));
    } else if image.trim() != image {
        errors.push(invalid(format!("{field}.image"), image, "must not have leading or trailing whitespace"));
    }
    let policy = text(container, "/imagePullPolicy");
    one_of(errors, format!("{field}.imagePullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
    let message = text(container, "/terminationMessagePolicy");
    one_of(errors, format!("{field}.terminationMessagePolicy"), message, &["FallbackToLogsOnError", "File"]);
}

fn ports(container: &Value, field: &str, host_network: bool, errors: &mut Vec<FieldError>) {
    let mut port_names = HashSet::new();
    for (index, port) in list(container, "/ports").iter().enumerate() {
        let at = |part: &str| format!("{field}.ports[{index}].{part}");
        let name = text(port, "/name");
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if wrong.is_empty() && !port_names.insert(name) {
                errors.push(FieldError::duplicate(at("name"), &json!(name)));
            }
            errors.extend(complaints(&at("name"), name, wrong));
        }
        let (number, host_port) =
            (int(port, "/containerPort").unwrap_or_default(), int(port, "/hostPort").unwrap_or_default());
        if number == 0 {
            errors.push(FieldError::required(at("containerPort"), ""));
        } else if let Some(complaint) = names::port_number(number) {
            errors.push(FieldError::invalid(at("containerPort"), &json!(number), complaint));
        }
        if host_port != 0 {
            if let Some(complaint) = names::port_number(host_port) {
                errors.push(FieldError::invalid(at("hostPort"), &json!(host_port), complaint));
            }
            if host_network && host_port != number {
                let detail = "must match `hostPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(at("containerPort"), &json!(number), detail));
            }
        }
        one_of(errors, at("protocol"), text(port, "/protocol"), &["SCTP", "TCP", "UDP"]);
        let ip = text(port, "/hostIP");
        if !ip.is_empty() {
            errors.extend(complaints(&at("hostIP"), ip, names::ip(ip)));
        }
    }
}

fn collisions(container: &Value, field: &str, taken: &mut HashSet<String>, errors: &mut Vec<FieldError>) {
    for (index, port) in list(container, "/ports").iter().enumerate() {
        let host_port = int(port, "/hostPort").unwrap_or_default();
        if host_port != 0 {
            let key = format!("{}/{}/{host_port}", text(port, "/protocol"), text(port, "/hostIP"));
            if !taken.insert(key.clone()) {
                errors.push(FieldError::duplicate(format!("{field}.ports[{index}].hostPort"), &json!(key)));
            }
        }
    }
}

const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
const CONTAINER_RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const FIELD_PATHS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn environment(container: &Value, field: &str, errors: &mut Vec<FieldError>) {
    for (index, variable) in list(container, "/env").iter().enumerate() {
        let at = |part: &str| format!("{field}.env[{index}].{part}");
        let name = text(variable, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(at("name"), ""));
        } else {
            errors.extend(complaints(&at("name"), name, names::environment_variable(name)));
        }
        let Some(from) = present(variable, "/valueFrom") else { continue };
        let sources: Vec<&str> =
            SOURCES.into_iter().filter(|source| present(from, &format!("/{source}")).is_some()).collect();
        if sources.is_empty() {
            errors.push(invalid(
                at("valueFrom"),
                "",
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            ));
        } else if !text(variable, "/value").is_empty() {
            errors.push(invalid(at("valueFrom"), "", "may not be specified when `value` is not empty"));
        } else if sources.len() > 1 {
            errors.push(invalid(at("valueFrom"), "", "may not have more than one field specified at a time"));
        }
        for source in sources {
            let (at, reference) = (|part: &str| at(&format!("valueFrom.{source}.{part}")), &from[source]);
            match source {
                "fieldRef" => field_path(text(reference, "/fieldPath"), &at("fieldPath"), errors),
                "resourceFieldRef" => match text(reference, "/resource") {
                    "" => errors.push(FieldError::required(at("resource"), "")),
                    resource if resource.contains(".hugepages-") => {}
                    resource => one_of(errors, at("resource"), resource, &CONTAINER_RESOURCES),
                },
                "configMapKeyRef" | "secretKeyRef" => match text(reference, "/key") {
                    "" => errors.push(FieldError::required(at("key"), "")),
                    key => errors.extend(complaints(&at("key"), key, names::config_key(key))),
                },
                _ => {}
            }
        }
    }
    for (index, source) in list(container, "/envFrom").iter().enumerate() {
        let field = format!("{field}.envFrom[{index}]");
        match (present(source, "/configMapRef"), present(source, "/secretRef")) {
            (None, None) => errors.push(invalid(field, "", "must specify one of: `configMapRef` or `secretRef`")),
            (Some(_), Some(_)) => {
                errors.push(invalid(field, "", "may not have more than one field specified at a time"));
            }
            (Some(reference), None) if text(reference, "/name").is_empty() => {
                errors.push(FieldError::required(format!("{field}.configMapRef.name"), ""));
            }
            (None, Some(reference)) if text(reference, "/name").is_empty() => {
                errors.push(FieldError::required(format!("{field}.secretRef.name"), ""));
            }
            _ => {}
        }
    }
}

fn field_path(path: &str, field: &str, errors: &mut Vec<FieldError>) {
    let subscript = |of: &str| {
        path.strip_prefix(of).and_then(|rest| rest.strip_prefix("['")).is_some_and(|key| key.ends_with("']"))
    };
    if path.is_empty() {
        errors.push(FieldError::required(field, ""));
    } else if !FIELD_PATHS.contains(&path) && !subscript("metadata.labels") && !subscript("metadata.annotations") {
        let detail = format!("error converting fieldPath: field label not supported: {path}");
        errors.push(invalid(field, path, detail));
    }
}

fn mounts(container: &Value, field: &str, volumes: &HashSet<&str>, errors: &mut Vec<FieldError>) {
    let mut paths = HashSet::new();
    for (index, mount) in list(container, "/volumeMounts").iter().enumerate() {
        let at = |part: &str| format!("{field}.volumeMounts[{index}].{part}");
        let (name, path) = (text(mount, "/name"), text(mount, "/mountPath"));
        if name.is_empty() {
            errors.push(FieldError::required(at("name"), ""));
        } else if !volumes.contains(name) {
            errors.push(not_found(at("name"), name));
        }
        if path.is_empty() {
            errors.push(FieldError::required(at("mountPath"), ""));
        } else if !paths.insert(path) {
            errors.push(invalid(at("mountPath"), path, "must be unique"));
        }
        let propagation = text(mount, "/mountPropagation");
        if !propagation.is_empty() {
            one_of(errors, at("mountPropagation"), propagation, &["Bidirectional", "HostToContainer", "None"]);
        }
        if propagation == "Bidirectional" && !flag(container, "/securityContext/privileged") {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(FieldError::forbidden(at("mountPropagation"), detail));
        }
        for part in ["subPath", "subPathExpr"] {
            let inner = text(mount, &format!("/{part}"));
            errors.extend(complaints(&at(part), inner, super::volumes::relative_path(inner)));
        }
        if !text(mount, "/subPath").is_empty() && !text(mount, "/subPathExpr").is_empty() {
            let value = text(mount, "/subPathExpr");
            errors.push(invalid(at("subPathExpr"), value, "subPathExpr and subPath are mutually exclusive"));
        }
    }
}

fn lifecycle(container: &Value, field: &str, role: Role, errors: &mut Vec<FieldError>) {
    let sidecar = text(container, "/restartPolicy") == "Always";
    if role == Role::Init {
        let policy = text(container, "/restartPolicy");
        if !matches!(policy, "" | "Always" | "Never" | "OnFailure") {
            one_of(errors, format!("{field}.restartPolicy"), policy, &["Always", "Never", "OnFailure"]);
        }
    }
    for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(part) = present(container, &format!("/{name}")) else { continue };
        let field = format!("{field}.{name}");
        if role == Role::Ephemeral {
            continue;
        }
        if role == Role::Init && !sidecar {
            let detail = "may not be set for init containers without restartPolicy=Always";
            errors.push(FieldError::forbidden(field, detail));
        } else if name == "lifecycle" {
            for hook in ["postStart", "preStop"] {
                if let Some(hook_value) = present(part, &format!("/{hook}")) {
                    handler(hook_value, &format!("{field}.{hook}"), &["exec", "httpGet", "tcpSocket", "sleep"], errors);
                }
            }
        } else {
            probe(part, name, &field, errors);
        }
    }
}

fn probe(probe: &Value, name: &str, field: &str, errors: &mut Vec<FieldError>) {
    handler(probe, field, &["exec", "httpGet", "tcpSocket", "grpc"], errors);
    for number in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        not_negative(errors, format!("{field}.{number}"), int(probe, &format!("/{number}")));
    }
    if name != "readinessProbe"
        && let Some(threshold) = int(probe, "/successThreshold").filter(|threshold| *threshold > 1)
    {
        errors.push(FieldError::invalid(format!("{field}.successThreshold"), &json!(threshold), "must be 1"));
    }
    if let Some(seconds) = int(probe, "/terminationGracePeriodSeconds") {
        let field = format!("{field}.terminationGracePeriodSeconds");
        if name == "readinessProbe" {
            errors.push(FieldError::invalid(field, &json!(seconds), "must not be set for readinessProbes"));
        } else if seconds <= 0 {
            errors.push(FieldError::invalid(field, &json!(seconds), "must be greater than 0"));
        }
    }
}

fn handler(handler: &Value, field: &str, known: &[&str], errors: &mut Vec<FieldError>) {
    let mut found = false;
    for name in known {
        let Some(how) = present(handler, &format!("/{name}")) else { continue };
        let at = |part: &str| format!("{field}.{name}{part}");
        if found {
            errors.push(FieldError::forbidden(at(""), "may not specify more than 1 handler type"));
            continue;
        }
        found = true;
        match *name {
            "exec" if texts(how, "/command").is_empty() => errors.push(FieldError::required(at(".command"), "")),
            "httpGet" => {
                if text(how, "/path").is_empty() {
                    errors.push(FieldError::required(at(".path"), ""));
                }
                errors.extend(port_number_or_name(&at(".port"), how.get("port")));
                one_of(errors, at(".scheme"), text(how, "/scheme"), &["HTTP", "HTTPS"]);
                for (index, header) in list(how, "/httpHeaders").iter().enumerate() {
                    let (field, name) = (at(&format!(".httpHeaders[{index}].name")), text(header, "/name"));
                    errors.extend(complaints(&field, name, names::http_header(name)));
                }
            }
            "tcpSocket" | "grpc" => errors.extend(port_number_or_name(&at(".port"), how.get("port"))),
            _ => {}
        }
    }
    if !found {
        errors.push(FieldError::required(field, "must specify a handler type"));
    }
}
