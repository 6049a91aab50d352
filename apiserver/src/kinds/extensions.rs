//! The kinds by which a cluster is extended: webhook configurations, admission policies, CustomResourceDefinition, APIService.
//!
//! They are kept and checked as upstream does, but nobody acts on them yet; what is created says so in its status and in a warning
//! (see [`super::warnings`]). Whoever comes to act on them takes over their status.

use super::field::{complaints, immutable, invalid, one_of};
use super::json::{child, fill, int, is_unset, list, list_mut, present, put, text, texts};
use super::{metadata, names, selector, strategy};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use serde_json::{Value, json};
use std::collections::HashSet;

/// ValidatingWebhookConfiguration and MutatingWebhookConfiguration.
pub(super) fn default_webhooks(kind: &ResourceKind, object: &mut Value) {
    for hook in list_mut(object, "/webhooks") {
        fill(hook, "failurePolicy", "Fail");
        if kind.kind == "MutatingWebhookConfiguration" {
            fill(hook, "reinvocationPolicy", "Never");
        }
        fill(hook, "timeoutSeconds", 10);
        match_defaults(hook, "/rules");
        if let Some(service) = hook.pointer_mut("/clientConfig/service").filter(|service| service.is_object()) {
            fill(service, "port", 443);
        }
    }
}

fn match_defaults(matching: &mut Value, rules: &str) {
    fill(matching, "matchPolicy", "Equivalent");
    child(matching, "namespaceSelector");
    child(matching, "objectSelector");
    for rule in list_mut(matching, rules) {
        fill(rule, "scope", "*");
    }
}

/// ValidatingAdmissionPolicy and MutatingAdmissionPolicy.
pub(super) fn default_policy(_: &ResourceKind, object: &mut Value) {
    if let Some(spec) = child(object, "spec") {
        fill(spec, "failurePolicy", "Fail");
        if let Some(constraints) = spec.get_mut("matchConstraints").filter(|constraints| constraints.is_object()) {
            match_defaults(constraints, "/resourceRules");
            list_mut(constraints, "/excludeResourceRules").iter_mut().for_each(|rule| fill(rule, "scope", "*"));
        }
    }
}

/// CustomResourceDefinition: names that follow from the kind.
pub(super) fn default_definition(_: &ResourceKind, object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    if let Some(names) = child(spec, "names") {
        let own = text(names, "/kind").to_owned();
        if !own.is_empty() {
            fill(names, "singular", own.to_lowercase());
            fill(names, "listKind", format!("{own}List"));
        }
    }
    if let Some(conversion) = child(spec, "conversion") {
        fill(conversion, "strategy", "None");
    }
}

/// APIService.
pub(super) fn default_api_service(_: &ResourceKind, object: &mut Value) {
    if let Some(service) = object.pointer_mut("/spec/service").filter(|service| service.is_object()) {
        fill(service, "port", 443);
    }
}

/// A new definition is not established, for nobody serves what it defines.
pub(super) fn prepare_definition(kind: &ResourceKind, new: &mut Value, old: Option<&Value>, subresource: &str) {
    strategy::prepare(kind, new, old, subresource);
    if old.is_none() {
        let versions = list(new, "/spec/versions").iter().filter(|version| version["storage"] == true);
        let stored: Vec<&str> = versions.map(|version| text(version, "/name")).collect();
        let condition = json!({"type": "Established", "status": "False", "reason": "NotServed",
            "lastTransitionTime": new["metadata"]["creationTimestamp"],
            "message": "this server keeps the definition, but does not serve its resources"});
        let names = json!({"plural": "", "kind": ""});
        let status = json!({"conditions": [condition], "acceptedNames": names, "storedVersions": stored});
        put(new, "status", Some(status));
    }
}

/// What the server serves itself is available; what somebody else is to serve is not.
pub(super) fn prepare_api_service(kind: &ResourceKind, new: &mut Value, old: Option<&Value>, subresource: &str) {
    strategy::prepare(kind, new, old, subresource);
    if old.is_none() {
        let mut condition = match present(new, "/spec/service") {
            None => json!({"type": "Available", "status": "True", "reason": "Local",
                "message": "Local APIServices are always available"}),
            Some(_) => json!({"type": "Available", "status": "False", "reason": "NotServed",
                "message": "this server does not pass requests on to the service"}),
        };
        condition["lastTransitionTime"] = new["metadata"]["creationTimestamp"].clone();
        put(new, "status", Some(json!({"conditions": [condition]})));
    }
}

/// Everything wrong with a webhook configuration of either kind.
pub(super) fn webhooks(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    let mut known = HashSet::new();
    for (index, hook) in list(object, "/webhooks").iter().enumerate() {
        let field = format!("webhooks[{index}]");
        webhook(hook, kind.kind == "MutatingWebhookConfiguration", &field, &mut errors);
        let own = text(hook, "/name");
        if !own.is_empty() && !known.insert(own) {
            errors.push(FieldError::duplicate(format!("{field}.name"), &json!(own)));
        }
    }
    errors
}

fn webhook(hook: &Value, mutating: bool, field: &str, errors: &mut Vec<FieldError>) {
    let at = |part: &str| format!("{field}.{part}");
    let name = text(hook, "/name");
    if name.is_empty() {
        errors.push(FieldError::required(at("name"), ""));
    } else {
        errors.extend(complaints(&at("name"), name, names::dns_subdomain(name)));
        if name.split('.').count() < 3 {
            let detail = "should be a domain with at least three segments separated by dots";
            errors.push(invalid(at("name"), name, detail));
        }
    }
    rules(hook, "/rules", &at("rules"), true, errors);
    one_of(errors, at("failurePolicy"), text(hook, "/failurePolicy"), &["Fail", "Ignore"]);
    one_of(errors, at("matchPolicy"), text(hook, "/matchPolicy"), &["Equivalent", "Exact"]);
    match text(hook, "/sideEffects") {
        "" => errors.push(FieldError::required(at("sideEffects"), "must specify one of None, NoneOnDryRun")),
        effects => one_of(errors, at("sideEffects"), effects, &["None", "NoneOnDryRun"]),
    }
    if let Some(seconds) = int(hook, "/timeoutSeconds").filter(|seconds| !(1..=30).contains(seconds)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(at("timeoutSeconds"), &json!(seconds), detail));
    }
    selectors(hook, field, errors);
    if mutating {
        let policy = text(hook, "/reinvocationPolicy");
        one_of(errors, at("reinvocationPolicy"), policy, &["IfNeeded", "Never"]);
    }
    match (present(hook, "/clientConfig/url"), present(hook, "/clientConfig/service")) {
        (Some(url), None) => webhook_url(url.as_str().unwrap_or_default(), &at("clientConfig.url"), errors),
        (None, Some(service)) => service_reference(service, &at("clientConfig.service"), "service ", errors),
        _ => errors.push(FieldError::required(at("clientConfig"), "exactly one of url or service is required")),
    }
    match_conditions(hook, &at("matchConditions"), errors);
    review_versions(hook, &at("admissionReviewVersions"), errors);
}

fn review_versions(hook: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let versions = texts(hook, "/admissionReviewVersions");
    if versions.is_empty() {
        errors.push(FieldError::required(field, "must specify one of v1, v1beta1"));
        return;
    }
    let mut known = HashSet::new();
    for (index, version) in versions.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if known.insert(version) {
            errors.extend(complaints(&field, version, names::dns_1035_label(version)));
        } else {
            errors.push(invalid(field, version, "duplicate version"));
        }
    }
    if !versions.iter().any(|version| matches!(*version, "v1" | "v1beta1")) {
        let detail = "must include at least one of v1, v1beta1";
        errors.push(FieldError::invalid(field, &json!(versions), detail));
    }
}

fn webhook_url(url: &str, field: &str, errors: &mut Vec<FieldError>) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme != "https" {
        errors.push(invalid(field, scheme, format!("'https' is the only allowed URL scheme{FORM}")));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').map_or(("", authority), |(user, host)| (user, host));
    if host.is_empty() {
        errors.push(invalid(field, host, format!("host must be specified{FORM}")));
    }
    if !user.is_empty() {
        errors.push(invalid(field, user, "user information is not permitted in the URL"));
    }
    if let Some((_, fragment)) = rest.split_once('#') {
        errors.push(invalid(field, fragment, "fragments are not permitted in the URL"));
    }
    if let Some((_, query)) = rest.split('#').next().unwrap_or_default().split_once('?') {
        errors.push(invalid(field, query, "query parameters are not permitted in the URL"));
    }
}

fn service_reference(service: &Value, field: &str, what: &str, errors: &mut Vec<FieldError>) {
    for part in ["name", "namespace"] {
        if text(service, &format!("/{part}")).is_empty() {
            let detail = if what.is_empty() { String::new() } else { format!("{what}{part} is required") };
            errors.push(FieldError::required(format!("{field}.{part}"), detail));
        }
    }
    let port = int(service, "/port").unwrap_or(443);
    if let Some(complaint) = names::port_number(port) {
        let detail = format!("port is not valid: {complaint}");
        errors.push(FieldError::invalid(format!("{field}.port"), &json!(port), detail));
    }
    let path = text(service, "/path");
    if !path.is_empty() && !path.starts_with('/') {
        errors.push(invalid(format!("{field}.path"), path, "must start with a '/'"));
    }
}

fn selectors(value: &Value, field: &str, errors: &mut Vec<FieldError>) {
    for name in ["namespaceSelector", "objectSelector"] {
        if let Some(found) = present(value, &format!("/{name}")) {
            selector::errors(found, &format!("{field}.{name}"), errors);
        }
    }
}

fn match_conditions(value: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let mut known = HashSet::new();
    for (index, condition) in list(value, "/matchConditions").iter().enumerate() {
        let at = |part: &str| format!("{field}[{index}].{part}");
        if text(condition, "/expression").trim().is_empty() {
            errors.push(FieldError::required(at("expression"), ""));
        }
        match text(condition, "/name") {
            "" => errors.push(FieldError::required(at("name"), "")),
            name => {
                errors.extend(complaints(&at("name"), name, names::qualified_name(name)));
                if !known.insert(name) {
                    errors.push(FieldError::duplicate(at("name"), &json!(name)));
                }
            }
        }
    }
}

fn rules(value: &Value, pointer: &str, field: &str, subresources: bool, errors: &mut Vec<FieldError>) {
    for (index, rule) in list(value, pointer).iter().enumerate() {
        let at = |part: &str| format!("{field}[{index}].{part}");
        let operations = texts(rule, "/operations");
        let mut several = |name: &str, values: &[&str], others: &str| {
            if values.is_empty() {
                errors.push(FieldError::required(at(name), ""));
            } else if values.len() > 1 && values.contains(&"*") {
                let detail = format!("if '*' is present, must not specify other {others}");
                errors.push(FieldError::invalid(at(name), &json!(values), detail));
            }
        };
        several("operations", &operations, "operations");
        several("apiGroups", &texts(rule, "/apiGroups"), "API groups");
        several("apiVersions", &texts(rule, "/apiVersions"), "API versions");
        let resources = texts(rule, "/resources");
        if subresources {
            several("resources", if resources.is_empty() { &[] } else { &["-"] }, "");
        } else {
            several("resources", &resources, "resources");
        }
        for (index, operation) in operations.into_iter().enumerate() {
            let known = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
            one_of(errors, at(&format!("operations[{index}]")), operation, &known);
        }
        let scope = text(rule, "/scope");
        if !scope.is_empty() {
            one_of(errors, at("scope"), scope, &["*", "Cluster", "Namespaced"]);
        }
        if subresources && resources.len() > 1 && resources.contains(&"*/*") {
            let detail = "if '*/*' is present, must not specify other resources";
            errors.push(FieldError::invalid(at("resources"), &json!(resources), detail));
        }
    }
}

/// Everything wrong with a ValidatingAdmissionPolicy or MutatingAdmissionPolicy; its expressions are not read.
pub(super) fn policy(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    let spec = &object["spec"];
    one_of(&mut errors, "spec.failurePolicy", text(spec, "/failurePolicy"), &["Fail", "Ignore"]);
    if let Some(parameters) = present(spec, "/paramKind") {
        for part in ["apiVersion", "kind"] {
            if text(parameters, &format!("/{part}")).is_empty() {
                errors.push(FieldError::required(format!("spec.paramKind.{part}"), ""));
            }
        }
    }
    match present(spec, "/matchConstraints") {
        None => errors.push(FieldError::required("spec.matchConstraints", "")),
        Some(constraints) => {
            selectors(constraints, "spec.matchConstraints", &mut errors);
            let field = "spec.matchConstraints.resourceRules";
            if list(constraints, "/resourceRules").is_empty() {
                errors.push(FieldError::required(field, ""));
            }
            rules(constraints, "/resourceRules", field, true, &mut errors);
            let field = "spec.matchConstraints.excludeResourceRules";
            rules(constraints, "/excludeResourceRules", field, true, &mut errors);
        }
    }
    match_conditions(spec, "spec.matchConditions", &mut errors);
    if kind.kind == "MutatingAdmissionPolicy" {
        if list(spec, "/mutations").is_empty() {
            errors.push(FieldError::required("spec.mutations", "mutations must contain at least one item"));
        }
        return errors;
    }
    if list(spec, "/validations").is_empty() && list(spec, "/auditAnnotations").is_empty() {
        for field in ["spec.validations", "spec.auditAnnotations"] {
            let detail = "validations or auditAnnotations must contain at least one item";
            errors.push(FieldError::required(field, detail));
        }
    }
    for (index, validation) in list(spec, "/validations").iter().enumerate() {
        let at = |part: &str| format!("spec.validations[{index}].{part}");
        if text(validation, "/expression").trim().is_empty() {
            errors.push(FieldError::required(at("expression"), "expression is not specified"));
        }
        let reason = text(validation, "/reason");
        if !reason.is_empty() {
            let known = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
            one_of(&mut errors, at("reason"), reason, &known);
        }
    }
    errors
}

/// Everything wrong with the binding of an admission policy.
pub(super) fn policy_binding(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    match text(object, "/spec/policyName") {
        "" => errors.push(FieldError::required("spec.policyName", "")),
        name => errors.extend(complaints("spec.policyName", name, names::dns_subdomain(name))),
    }
    if kind.kind == "ValidatingAdmissionPolicyBinding" {
        let (field, actions) = ("spec.validationActions", texts(object, "/spec/validationActions"));
        if actions.is_empty() {
            errors.push(FieldError::required(field, ""));
        }
        let mut known = HashSet::new();
        for (index, action) in actions.iter().enumerate() {
            one_of(&mut errors, format!("{field}[{index}]"), action, &["Audit", "Deny", "Warn"]);
            if !known.insert(*action) {
                errors.push(FieldError::duplicate(format!("{field}[{index}]"), &json!(action)));
            }
        }
        if known.contains("Deny") && known.contains("Warn") {
            let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response \
                and headers serves no purpose)";
            errors.push(FieldError::invalid(field, &json!(actions), detail));
        }
    }
    if let Some(old) = old {
        immutable(&mut errors, object, old, "/spec/policyName");
    }
    errors
}

/// Everything wrong with an APIService.
pub(super) fn api_service(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    let own = text(object, "/metadata/name");
    let wanted = format!("{}.{}", text(object, "/spec/version"), text(object, "/spec/group"));
    if !own.is_empty() && own != wanted {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        errors.push(invalid("metadata.name", own, detail));
    }
    for (name, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)] {
        let number = int(object, &format!("/spec/{name}")).unwrap_or_default();
        if !(1..=most).contains(&number) {
            let detail = format!("must be positive and less than {most}");
            errors.push(FieldError::invalid(format!("spec.{name}"), &json!(number), detail));
        }
    }
    let (bundle, insecure) = (!is_unset(object, "/spec/caBundle"), object["spec"]["insecureSkipTLSVerify"] == true);
    match present(object, "/spec/service") {
        None => {
            for (set, field) in [(bundle, "caBundle"), (insecure, "insecureSkipTLSVerify")] {
                if set {
                    let detail = format!("local APIServices may not have {field}");
                    errors.push(FieldError::invalid(format!("spec.{field}"), &object["spec"][field], detail));
                }
            }
        }
        Some(service) => {
            service_reference(service, "spec.service", "", &mut errors);
            if bundle && insecure {
                let detail = "may not be true if caBundle is present";
                errors.push(FieldError::invalid("spec.insecureSkipTLSVerify", &json!(true), detail));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests;
