//! What is wrong with the security context of a pod or a container.

use crate::kinds::field::{complaints, invalid, one_of};
use crate::kinds::json::{flag, int, list, present, text, texts};
use crate::kinds::names;
use crate::status::FieldError;
use serde_json::{Value, json};
use std::collections::HashSet;

/// The `securityContext` of `parent`, at `field`.
pub(super) fn errors(parent: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let Some(context) = present(parent, "/securityContext") else { return };
    let at = |part: &str| format!("{field}.{part}");
    let id = |value: Option<i64>, field: String, errors: &mut Vec<FieldError>| {
        if let Some(id) = value.filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
            let detail = "must be between 0 and 2147483647, inclusive";
            errors.push(FieldError::invalid(field, &json!(id), detail));
        }
    };
    for name in ["runAsUser", "runAsGroup", "fsGroup"] {
        id(int(context, &format!("/{name}")), at(name), errors);
    }
    for (index, group) in list(context, "/supplementalGroups").iter().enumerate() {
        id(group.as_i64(), at(&format!("supplementalGroups[{index}]")), errors);
    }
    let change = text(context, "/fsGroupChangePolicy");
    if !change.is_empty() {
        one_of(errors, at("fsGroupChangePolicy"), change, &["Always", "OnRootMismatch"]);
    }
    let proc_mount = text(context, "/procMount");
    if !proc_mount.is_empty() {
        one_of(errors, at("procMount"), proc_mount, &["Default", "Unmasked"]);
    }
    profile(context, "seccompProfile", "seccomp", &at("seccompProfile"), errors);
    profile(context, "appArmorProfile", "AppArmor", &at("appArmorProfile"), errors);
    sysctls(context, &at("sysctls"), errors);
    if context.get("allowPrivilegeEscalation") == Some(&Value::Bool(false)) {
        if flag(context, "/privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(field, &json!(false), detail));
        }
        for capability in texts(context, "/capabilities/add") {
            if capability == "CAP_SYS_ADMIN" {
                let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
                errors.push(FieldError::invalid(field, &json!(false), detail));
            }
        }
    }
}

fn profile(context: &Value, name: &str, what: &str, field: &str, errors: &mut Vec<FieldError>) {
    let Some(profile) = present(context, &format!("/{name}")) else { return };
    let kind = text(profile, "/type");
    match kind {
        "" => {
            errors.push(FieldError::required(format!("{field}.type"), format!("type is required when {name} is set")))
        }
        kind => one_of(errors, format!("{field}.type"), kind, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
    let local = present(profile, "/localhostProfile").and_then(Value::as_str);
    let field = format!("{field}.localhostProfile");
    match (kind, local) {
        ("Localhost", None) => {
            errors.push(FieldError::required(field, format!("must be set when {what} type is Localhost")));
        }
        ("Localhost", Some(path)) => errors.extend(complaints(&field, path, super::volumes::relative_path(path))),
        (_, Some(path)) => {
            errors.push(invalid(field, path, format!("can only be set when {what} type is Localhost")));
        }
        _ => {}
    }
}

fn sysctls(context: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let mut known = HashSet::new();
    for (index, sysctl) in list(context, "/sysctls").iter().enumerate() {
        let (at, name) = (format!("{field}[{index}].name"), text(sysctl, "/name"));
        let segment = |part: &str| names::dns_label(&part.replace('_', "x")).is_empty();
        if name.is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else if name.len() > 253 || !name.split(['.', '/']).all(segment) {
            let detail = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*\
                [a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.push(invalid(&at, name, detail));
        }
        if !known.insert(name) {
            errors.push(FieldError::duplicate(at, &json!(name)));
        }
    }
}
