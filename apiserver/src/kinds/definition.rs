//! What is wrong with a CustomResourceDefinition. Its schemas are not looked into: nobody decodes by them yet.

use super::field::{complaints, immutable, invalid, one_of};
use super::json::{list, present, text, texts};
use super::{metadata, names};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use serde_json::{Value, json};
use std::collections::HashSet;

/// Everything wrong with a definition.
pub(super) fn errors(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    let at = |pointer: &str| text(object, pointer);
    let (own, group, plural) = (at("/metadata/name"), at("/spec/group"), at("/spec/names/plural"));
    if !own.is_empty() && own != format!("{plural}.{group}") {
        errors.push(invalid("metadata.name", own, "must be spec.names.plural+\".\"+spec.group"));
    }
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else {
        errors.extend(complaints("spec.group", group, names::dns_subdomain(group)));
        if !group.contains('.') {
            errors.push(invalid("spec.group", group, "should be a domain with at least one dot"));
        }
    }
    match at("/spec/scope") {
        "" => errors.push(FieldError::required("spec.scope", "")),
        scope => one_of(&mut errors, "spec.scope", scope, &["Cluster", "Namespaced"]),
    }
    versions(object, &mut errors);
    for name in ["plural", "singular", "kind", "listKind"] {
        let value = at(&format!("/spec/names/{name}"));
        let field = format!("spec.names.{name}");
        if value.is_empty() {
            errors.push(FieldError::required(field, ""));
        } else {
            errors.extend(complaints(&field, value, names::dns_1035_label(&value.to_lowercase())));
        }
    }
    for list_name in ["shortNames", "categories"] {
        for (index, name) in texts(object, &format!("/spec/names/{list_name}")).into_iter().enumerate() {
            let field = format!("spec.names.{list_name}[{index}]");
            errors.extend(complaints(&field, name, names::dns_1035_label(name)));
        }
    }
    if !at("/spec/names/kind").is_empty() && at("/spec/names/kind") == at("/spec/names/listKind") {
        let detail = "kind and listKind may not be the same";
        errors.push(invalid("spec.names.listKind", at("/spec/names/listKind"), detail));
    }
    if let Some(old) = old {
        for pointer in ["/spec/group", "/spec/names/plural"] {
            immutable(&mut errors, object, old, pointer);
        }
    }
    errors
}

fn versions(object: &Value, errors: &mut Vec<FieldError>) {
    let versions = list(object, "/spec/versions");
    let mut known = HashSet::new();
    let mut unique = true;
    for (index, version) in versions.iter().enumerate() {
        let field = format!("spec.versions[{index}]");
        let own = text(version, "/name");
        unique &= known.insert(own);
        errors.extend(complaints(&format!("{field}.name"), own, names::dns_1035_label(own)));
        if present(version, "/schema/openAPIV3Schema").is_none() {
            let field = format!("{field}.schema.openAPIV3Schema");
            errors.push(FieldError::required(field, "schemas are required"));
        }
        for (index, column) in list(version, "/additionalPrinterColumns").iter().enumerate() {
            let at = |part: &str| format!("{field}.additionalPrinterColumns[{index}].{part}");
            for part in ["name", "type", "jsonPath"] {
                if text(column, &format!("/{part}")).is_empty() {
                    let detail = if part == "jsonPath" { "JSON path is required" } else { "" };
                    errors.push(FieldError::required(at(part), detail));
                }
            }
            let kind = text(column, "/type");
            if !kind.is_empty() {
                let known = ["boolean", "date", "integer", "number", "string"];
                one_of(errors, at("type"), kind, &known);
            }
        }
        if let Some(scale) = present(version, "/subresources/scale") {
            for (part, root) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
                let field = format!("{field}.subresources.scale.{part}");
                match text(scale, &format!("/{part}")) {
                    "" => errors.push(FieldError::required(field, "")),
                    path if !path.starts_with(root) => {
                        let detail = format!("should be a json path under {}", root.trim_end_matches('.'));
                        errors.push(invalid(field, path, detail));
                    }
                    _ => {}
                }
            }
        }
    }
    let names = || json!(versions.iter().map(|version| text(version, "/name")).collect::<Vec<_>>());
    if versions.is_empty() {
        errors.push(FieldError::required("spec.versions", ""));
    } else if !unique {
        errors.push(FieldError::invalid("spec.versions", &names(), "must contain unique version names"));
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", &names(), detail));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    fn definition(spec: Value) -> Value {
        json!({"metadata": {"name": "crontabs.stable.example.com"}, "spec": spec})
    }

    #[test]
    fn a_definition_names_its_resource_and_one_version_to_store() {
        let said = |spec: Value| said("apiextensions.k8s.io", "CustomResourceDefinition", definition(spec), None);
        let names = json!({"plural": "crontabs", "kind": "CronTab"});
        let version =
            json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}});
        assert_eq!(
            said(json!({"group": "stable.example.com", "scope": "Namespaced", "names": names, "versions": [version]})),
            Vec::<String>::new()
        );
        assert_eq!(
            said(json!({"group": "example", "scope": "Galaxy", "names": {"plural": "Crontabs", "kind": "CronTab"},
                "versions": [{"name": "v1"}, {"name": "v1", "schema": {"openAPIV3Schema": {}}, "subresources": {"scale": {"specReplicasPath": ".x"}},
                    "additionalPrinterColumns": [{"name": "a", "type": "text"}]}]})),
            [
                "metadata.name: Invalid value: \"crontabs.stable.example.com\": must be spec.names.plural+\".\"+spec.group",
                "spec.group: Invalid value: \"example\": should be a domain with at least one dot",
                "spec.scope: Unsupported value: \"Galaxy\": supported values: \"Cluster\", \"Namespaced\"",
                "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
                "spec.versions[1].additionalPrinterColumns[0].jsonPath: Required value: JSON path is required",
                "spec.versions[1].additionalPrinterColumns[0].type: Unsupported value: \"text\": supported values: \"boolean\", \"date\", \
                 \"integer\", \"number\", \"string\"",
                "spec.versions[1].subresources.scale.specReplicasPath: Invalid value: \".x\": should be a json path under .spec",
                "spec.versions[1].subresources.scale.statusReplicasPath: Required value",
                "spec.versions: Invalid value: [\"v1\",\"v1\"]: must contain unique version names",
                "spec.versions: Invalid value: [\"v1\",\"v1\"]: must have exactly one version marked as storage version",
            ]
        );
    }
}
