//! Ingress and IngressClass. Who answers for an Ingress is told by its class; routing is not here.

use super::field::{complaints, immutable, invalid, one_of};
use super::json::{int, is_unset, list, present, text, texts};
use super::table::{NONE, age, name, or_none};
use super::{metadata, names};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Everything wrong with an Ingress.
pub(super) fn errors(kind: &ResourceKind, ingress: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, ingress, old);
    let rules = list(ingress, "/spec/rules");
    let default = present(ingress, "/spec/defaultBackend");
    if rules.is_empty() && default.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid("spec", &ingress["spec"], detail));
    }
    if let Some(default) = default {
        backend(default, "spec.defaultBackend", &mut errors);
    }
    for (index, rule) in rules.iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        host(text(rule, "/host"), &format!("{field}.host"), &mut errors);
        if let Some(http) = present(rule, "/http") {
            if list(http, "/paths").is_empty() {
                errors.push(FieldError::required(format!("{field}.http.paths"), ""));
            }
            for (index, path) in list(http, "/paths").iter().enumerate() {
                path_errors(path, &format!("{field}.http.paths[{index}]"), &mut errors);
            }
        }
    }
    for (index, tls) in list(ingress, "/spec/tls").iter().enumerate() {
        for (host_index, name) in texts(tls, "/hosts").into_iter().enumerate() {
            host(name, &format!("spec.tls[{index}].hosts[{host_index}]"), &mut errors);
        }
        let secret = text(tls, "/secretName");
        if !secret.is_empty() {
            errors.extend(complaints(&format!("spec.tls[{index}].secretName"), secret, names::dns_subdomain(secret)));
        }
    }
    let class = text(ingress, "/spec/ingressClassName");
    if !class.is_empty() {
        errors.extend(complaints("spec.ingressClassName", class, names::dns_subdomain(class)));
    }
    let annotated = text(ingress, "/metadata/annotations/kubernetes.io~1ingress.class");
    if old.is_none() && !class.is_empty() && !annotated.is_empty() {
        let field = "metadata.annotations.kubernetes.io/ingress.class";
        errors.push(invalid(field, annotated, "can not be set when the class field is also set"));
    }
    errors
}

fn host(host: &str, field: &str, errors: &mut Vec<FieldError>) {
    if host.is_empty() {
        return;
    }
    if host.parse::<IpAddr>().is_ok() {
        errors.push(invalid(field, host, "must be a DNS name, not an IP address"));
    } else if host.contains('*') {
        errors.extend(complaints(field, host, names::wildcard_dns_subdomain(host)));
    } else {
        errors.extend(complaints(field, host, names::dns_subdomain(host)));
    }
}

fn path_errors(value: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let (path, at) = (text(value, "/path"), format!("{field}.path"));
    match text(value, "/pathType") {
        "" => errors.push(FieldError::required(format!("{field}.pathType"), "pathType must be specified")),
        "ImplementationSpecific" => {
            if !path.is_empty() && !path.starts_with('/') {
                errors.push(invalid(&at, path, "must be an absolute path"));
            }
        }
        "Exact" | "Prefix" => {
            if !path.starts_with('/') {
                errors.push(invalid(&at, path, "must be an absolute path"));
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"] {
                if path.contains(sequence) {
                    errors.push(invalid(&at, path, format!("must not contain '{sequence}'")));
                }
            }
            for suffix in ["/..", "/."] {
                if path.ends_with(suffix) {
                    errors.push(invalid(&at, path, format!("cannot end with '{suffix}'")));
                }
            }
        }
        other => one_of(errors, format!("{field}.pathType"), other, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    backend(&value["backend"], &format!("{field}.backend"), errors);
}

fn backend(backend: &Value, field: &str, errors: &mut Vec<FieldError>) {
    match (present(backend, "/service"), present(backend, "/resource")) {
        (Some(_), Some(_)) => errors.push(invalid(field, "", "cannot set both resource and service backends")),
        (None, None) => errors.push(FieldError::required(field, "must specify a resource or service backend")),
        (None, Some(resource)) => {
            for part in ["kind", "name"] {
                if text(resource, &format!("/{part}")).is_empty() {
                    errors.push(FieldError::required(format!("{field}.resource.{part}"), ""));
                }
            }
        }
        (Some(service), None) => {
            let at = |part: &str| format!("{field}.service.{part}");
            match text(service, "/name") {
                "" => errors.push(FieldError::required(at("name"), "")),
                name => errors.extend(complaints(&at("name"), name, names::dns_1035_label(name))),
            }
            let (name, number) = (text(service, "/port/name"), int(service, "/port/number").unwrap_or_default());
            match (name.is_empty(), number) {
                (true, 0) => errors.push(FieldError::required(at("port"), "port name or number is required")),
                (false, 0) => errors.extend(complaints(&at("port.name"), name, names::port_name(name))),
                (true, number) => {
                    if let Some(complaint) = names::port_number(number) {
                        errors.push(FieldError::invalid(at("port.number"), &number.into(), complaint));
                    }
                }
                (false, _) => errors.push(invalid(at("port"), name, "cannot set both port name & port number")),
            }
        }
    }
}

/// Everything wrong with an IngressClass.
pub(super) fn class(kind: &ResourceKind, class: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, class, old);
    if text(class, "/spec/controller").is_empty() {
        errors.push(FieldError::required("spec.controller", ""));
    }
    if let Some(parameters) = present(class, "/spec/parameters") {
        for part in ["kind", "name"] {
            if text(parameters, &format!("/{part}")).is_empty() {
                errors.push(FieldError::required(format!("spec.parameters.{part}"), ""));
            }
        }
        let namespaced = !is_unset(parameters, "/namespace");
        match text(parameters, "/scope") {
            "Namespace" if !namespaced => {
                let detail = "`parameters.scope` is set to 'Namespace'";
                errors.push(FieldError::required("spec.parameters.namespace", detail));
            }
            "" | "Cluster" if namespaced => {
                let detail = "`parameters.scope` is set to 'Cluster'";
                errors.push(FieldError::forbidden("spec.parameters.namespace", detail));
            }
            "" | "Cluster" | "Namespace" => {}
            other => one_of(&mut errors, "spec.parameters.scope", other, &["Cluster", "Namespace"]),
        }
    }
    if let Some(old) = old {
        immutable(&mut errors, class, old, "/spec/controller");
    }
    errors
}

/// Parameters are the cluster's unless they say otherwise.
pub(super) fn default_class(_: &ResourceKind, class: &mut Value) {
    if let Some(parameters) = class.pointer_mut("/spec/parameters").filter(|parameters| parameters.is_object()) {
        super::json::fill(parameters, "scope", "Cluster");
    }
}

/// NAME CLASS HOSTS ADDRESS PORTS AGE.
pub(super) fn row(_: &ResourceKind, ingress: &Value, now: Timestamp) -> Vec<Value> {
    let hosts: Vec<String> = list(ingress, "/spec/rules")
        .iter()
        .map(|rule| text(rule, "/host"))
        .filter(|host| !host.is_empty())
        .map(str::to_owned)
        .collect();
    let addresses: BTreeSet<&str> = list(ingress, "/status/loadBalancer/ingress")
        .iter()
        .map(|ingress| match text(ingress, "/ip") {
            "" => text(ingress, "/hostname"),
            ip => ip,
        })
        .filter(|address| !address.is_empty())
        .collect();
    let addresses: Vec<&str> = addresses.into_iter().collect();
    let ports = if list(ingress, "/spec/tls").is_empty() { "80" } else { "80, 443" };
    vec![
        name(ingress),
        or_none(text(ingress, "/spec/ingressClassName")),
        super::table::three_of_many(&hosts, "*"),
        addresses.join(",").into(),
        ports.into(),
        age(ingress, now),
    ]
}

/// NAME CONTROLLER PARAMETERS AGE.
pub(super) fn class_row(_: &ResourceKind, class: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = match present(class, "/spec/parameters") {
        None => NONE.to_owned(),
        Some(parameters) => match text(parameters, "/apiGroup") {
            "" => format!("{}/{}", text(parameters, "/kind"), text(parameters, "/name")),
            group => format!("{}.{group}/{}", text(parameters, "/kind"), text(parameters, "/name")),
        },
    };
    vec![name(class), text(class, "/spec/controller").into(), parameters.into(), age(class, now)]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{row_of, said};
    use super::*;
    use serde_json::json;

    fn ingress(spec: Value) -> Value {
        json!({"metadata": {"name": "i", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec})
    }

    #[track_caller]
    fn refused(spec: Value, expected: &[&str]) {
        assert_eq!(said("networking.k8s.io", "Ingress", ingress(spec), None), expected);
    }

    #[test]
    fn a_rule_has_hosts_paths_and_backends() {
        let service = json!({"service": {"name": "web", "port": {"number": 80}}});
        refused(json!({"defaultBackend": service}), &[]);
        refused(json!({}), &["spec: Invalid value: {}: either `defaultBackend` or `rules` must be specified"]);
        refused(
            json!({"rules": [{"host": "10.0.0.1", "http": {"paths": [
                {"path": "a", "pathType": "Prefix", "backend": service}, {"path": "/a//b", "pathType": "Exact", "backend": {"service": {"name": "web", "port": {}}}}, {"backend": {}}]}}]}),
            &[
                "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
                "spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path",
                "spec.rules[0].http.paths[1].path: Invalid value: \"/a//b\": must not contain '//'",
                "spec.rules[0].http.paths[1].backend.service.port: Required value: port name or number is required",
                "spec.rules[0].http.paths[2].pathType: Required value: pathType must be specified",
                "spec.rules[0].http.paths[2].backend: Required value: must specify a resource or service backend",
            ],
        );
    }

    #[test]
    fn an_ingress_is_shown_with_hosts_and_address() {
        let mut object = ingress(json!({"ingressClassName": "coracle", "tls": [{}],
            "rules": [{"host": "a.b"}, {}, {"host": "c.d"}, {"host": "e.f"}, {"host": "g.h"}]}));
        object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "172.18.255.2"}]}});
        assert_eq!(
            row_of("networking.k8s.io", "Ingress", &object),
            "i | coracle | a.b,c.d,e.f + 1 more... | 172.18.255.2 | 80, 443 | 3h5m"
        );
        assert_eq!(row_of("networking.k8s.io", "Ingress", &ingress(json!({}))), "i | <none> | * |  | 80 | 3h5m");
    }
}
