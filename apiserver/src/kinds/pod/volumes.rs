//! What is wrong with the volumes of a pod spec.

use super::validation::label_name;
use crate::kinds::field::{complaints, invalid, one_of};
use crate::kinds::json::{int, list, present, text};
use crate::kinds::quantity::Quantity;
use crate::status::FieldError;
use serde_json::{Value, json};
use std::collections::HashSet;

/// Fields of a volume without which its source is nothing.
const REQUIRED: [(&str, &str); 7] = [
    ("hostPath", "path"),
    ("secret", "secretName"),
    ("configMap", "name"),
    ("persistentVolumeClaim", "claimName"),
    ("nfs", "server"),
    ("nfs", "path"),
    ("csi", "driver"),
];

/// What a `hostPath` may be said to be.
const HOST_PATHS: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// The volumes at `field`; answers with their names.
pub(super) fn errors<'a>(volumes: &'a [Value], field: &str, errors: &mut Vec<FieldError>) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let at = |part: &str| format!("{field}[{index}]{part}");
        let name = text(volume, "/name");
        label_name(name, &at(".name"), errors);
        if !name.is_empty() && !names.insert(name) {
            errors.push(FieldError::duplicate(at(".name"), &json!(name)));
        }
        let sources: Vec<&String> = volume
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, value)| *key != "name" && !value.is_null())
            .map(|(key, _)| key)
            .collect();
        if sources.is_empty() {
            errors.push(FieldError::required(at(""), "must specify a volume type"));
        }
        for surplus in sources.iter().skip(1) {
            errors.push(FieldError::forbidden(at(&format!(".{surplus}")), "may not specify more than 1 volume type"));
        }
        if let Some(source) = sources.first() {
            for (_, part) in REQUIRED.iter().filter(|(wanted, _)| wanted == source) {
                if text(volume, &format!("/{source}/{part}")).is_empty() {
                    errors.push(FieldError::required(at(&format!(".{source}.{part}")), ""));
                }
            }
            files(&volume[source.as_str()], &at(&format!(".{source}")), errors);
            source_errors(source, &volume[source.as_str()], &at(&format!(".{source}")), errors);
        }
    }
    names
}

fn source_errors(source: &str, found: &Value, field: &str, errors: &mut Vec<FieldError>) {
    match source {
        "hostPath" => {
            let (path, kind) = (text(found, "/path"), text(found, "/type"));
            if path.split('/').any(|part| part == "..") {
                errors.push(invalid(format!("{field}.path"), path, "must not contain '..'"));
            }
            if !HOST_PATHS.contains(&kind) {
                one_of(errors, format!("{field}.type"), kind, &HOST_PATHS);
            }
        }
        "emptyDir" => {
            let limit = present(found, "/sizeLimit").map(Quantity::of);
            if limit.is_some_and(|limit| limit.is_none_or(|limit| limit.is_negative())) {
                let detail = "SizeLimit field must be a valid resource quantity";
                errors.push(FieldError::forbidden(format!("{field}.sizeLimit"), detail));
            }
        }
        "image" if text(found, "/reference").is_empty() => {
            errors.push(FieldError::required(format!("{field}.reference"), ""));
        }
        "ephemeral" if present(found, "/volumeClaimTemplate").is_none() => {
            errors.push(FieldError::required(format!("{field}.volumeClaimTemplate"), ""));
        }
        "projected" => {
            for (index, part) in list(found, "/sources").iter().enumerate() {
                let kinds = part.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
                for (kind, _) in kinds.skip(1) {
                    let field = format!("{field}.sources[{index}].{kind}");
                    errors.push(FieldError::forbidden(field, "may not specify more than 1 volume type"));
                }
            }
        }
        _ => {}
    }
}

/// Mode and items of a volume made of keys.
fn files(source: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let mode = |mode: Option<i64>, field: String, errors: &mut Vec<FieldError>| {
        if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
            let detail = "must be a number between 0 and 0777 (octal), both inclusive";
            errors.push(FieldError::invalid(field, &json!(mode), detail));
        }
    };
    mode(int(source, "/defaultMode"), format!("{field}.defaultMode"), errors);
    for (index, item) in list(source, "/items").iter().enumerate() {
        let at = |part: &str| format!("{field}.items[{index}].{part}");
        // Items of the downward API have a reference in place of a key.
        if text(item, "/key").is_empty() && present(item, "/fieldRef").or(present(item, "/resourceFieldRef")).is_none()
        {
            errors.push(FieldError::required(at("key"), ""));
        }
        let path = text(item, "/path");
        if path.is_empty() {
            errors.push(FieldError::required(at("path"), ""));
        }
        errors.extend(complaints(&at("path"), path, relative_path(path)));
        mode(int(item, "/mode"), at("mode"), errors);
    }
    for (index, part) in list(source, "/sources").iter().enumerate() {
        let field = format!("{field}.sources[{index}]");
        for name in ["secret", "configMap"] {
            if let Some(part) = present(part, &format!("/{name}")) {
                if text(part, "/name").is_empty() {
                    errors.push(FieldError::required(format!("{field}.{name}.name"), ""));
                }
                files(part, &format!("{field}.{name}"), errors);
            }
        }
        if let Some(token) = present(part, "/serviceAccountToken") {
            let field = format!("{field}.serviceAccountToken");
            if let Some(seconds) = int(token, "/expirationSeconds").filter(|seconds| *seconds < 600) {
                let detail = "may not specify a duration less than 10 minutes";
                errors.push(FieldError::invalid(format!("{field}.expirationSeconds"), &json!(seconds), detail));
            }
            if text(token, "/path").is_empty() {
                errors.push(FieldError::required(format!("{field}.path"), ""));
            }
        }
    }
}

/// A path that stays where it is put.
pub(super) fn relative_path(path: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if path.starts_with('/') {
        complaints.push("must be a relative path".to_owned());
    }
    if path.split('/').any(|part| part == "..") {
        complaints.push("must not contain '..'".to_owned());
    }
    complaints
}
