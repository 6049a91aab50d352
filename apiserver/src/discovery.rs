//! Discovery: which groups, versions and resources there are, in the aggregated and in the legacy form.
//!
//! Everything follows from the registry. Follows KEP-3352 (aggregated discovery, `apidiscovery.k8s.io/v2`) and the API
//! conventions for `APIGroupList` and `APIResourceList`.

use crate::registry::{Registry, ResourceKind, Subresource};
use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The answer to a discovery path, or `None` if it is none (`/api/v1/pods` is not) or names no group or version there is.
pub(crate) fn respond(registry: &Registry, path: &str, headers: &HeaderMap) -> Option<Response> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let document = match parts.as_slice() {
        ["api" | "apis"] if wants_aggregated(headers) => {
            return Some(encode(&aggregated(registry, parts[0] == "apis"), AGGREGATED, headers));
        }
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]}),
        ["apis"] => {
            let groups: Vec<Value> = groups(registry).iter().map(|group| group_document(registry, group)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["apis", group] => {
            groups(registry).iter().find(|known| known == group)?;
            let mut document = group_document(registry, group);
            document["kind"] = "APIGroup".into();
            document["apiVersion"] = "v1".into();
            document
        }
        ["api", version] => resource_list(registry, "", version)?,
        ["apis", group, version] => resource_list(registry, group, version)?,
        _ => return None,
    };
    Some(encode(&document, "application/json", headers))
}

fn wants_aggregated(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    // The first acceptable form wins; clients that know the aggregated one name it first.
    accept.split(',').any(|form| {
        let form: String = form.split_whitespace().collect();
        form.contains("g=apidiscovery.k8s.io")
            && form.contains("v=v2;") | form.ends_with("v=v2")
            && form.contains("as=APIGroupDiscoveryList")
    })
}

fn encode(document: &Value, content_type: &'static str, headers: &HeaderMap) -> Response {
    let body = document.to_string();
    let digest = Sha256::digest(body.as_bytes());
    let etag = format!("\"{}\"", digest.iter().map(|byte| format!("{byte:02X}")).collect::<String>());
    let known = headers.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).unwrap_or_default();
    let unchanged = known.split(',').any(|tag| tag.trim() == etag);
    let mut response = Response::new(if unchanged { Body::empty() } else { Body::from(body) });
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

/// Named groups in the registry's order.
fn groups(registry: &Registry) -> Vec<String> {
    let mut groups: Vec<String> = Vec::new();
    for kind in registry.iter().filter(|kind| !kind.group.is_empty()) {
        if !groups.iter().any(|known| *known == kind.group) {
            groups.push(kind.group.to_string());
        }
    }
    groups
}

/// A group's versions, best first: v2 before v1, stable before beta before alpha.
fn versions(registry: &Registry, group: &str) -> Vec<String> {
    let mut versions: Vec<String> = Vec::new();
    for kind in registry.iter().filter(|kind| kind.group == group) {
        if !versions.iter().any(|known| *known == kind.version) {
            versions.push(kind.version.to_string());
        }
    }
    versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
    versions
}

/// (stability, major, minor) of `v1`, `v2beta3`, `v1alpha2`; anything else comes last.
fn priority(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse() else { return (0, 0, 0) };
    match &rest[digits..] {
        "" => (3, major, 0),
        rest => match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
            (Some(minor), _) => (2, major, minor.parse().unwrap_or(0)),
            (_, Some(minor)) => (1, major, minor.parse().unwrap_or(0)),
            _ => (0, 0, 0),
        },
    }
}

fn group_document(registry: &Registry, group: &str) -> Value {
    let versions: Vec<Value> = versions(registry, group)
        .iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions.first()})
}

fn resources<'a>(registry: &'a Registry, group: &str, version: &str) -> Vec<&'a ResourceKind> {
    let mut rows: Vec<&ResourceKind> =
        registry.iter().map(AsRef::as_ref).filter(|kind| kind.group == group && kind.version == version).collect();
    rows.sort_by(|one, other| one.plural.cmp(&other.plural));
    rows
}

fn sorted(subresources: &[Subresource]) -> Vec<&Subresource> {
    let mut sorted: Vec<&Subresource> = subresources.iter().collect();
    sorted.sort_by(|one, other| one.name.cmp(&other.name));
    sorted
}

fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let rows = resources(registry, group, version);
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut list: Vec<Value> = Vec::new();
    for kind in &rows {
        let mut entry = json!({"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": kind.verbs});
        if !kind.short_names.is_empty() {
            entry["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            entry["categories"] = json!(kind.categories);
        }
        if let Some(hash) = storage_version_hash(registry, kind) {
            entry["storageVersionHash"] = hash.into();
        }
        list.push(entry);
        for subresource in sorted(&kind.subresources) {
            let mut entry = json!({"name": format!("{}/{}", kind.plural, subresource.name), "singularName": "",
                "namespaced": kind.namespaced, "kind": subresource.kind, "verbs": subresource.verbs});
            if let Some((group, version)) = &subresource.group_version {
                entry["group"] = json!(group);
                entry["version"] = json!(version);
            }
            list.push(entry);
        }
    }
    let mut document = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": list});
    if !group.is_empty() {
        // Upstream's core list is older than this field.
        document["apiVersion"] = "v1".into();
    }
    (!rows.is_empty()).then_some(document)
}

/// By which clients tell that objects are stored in another version than before; `None` if nothing is stored.
fn storage_version_hash(registry: &Registry, kind: &ResourceKind) -> Option<String> {
    if !kind.verbs.iter().any(|verb| verb == "watch") {
        return None;
    }
    let stored = match &kind.view_of {
        None => kind,
        Some(view) => {
            registry.iter().find(|row| row.view_of.is_none() && row.group == view.group && row.plural == view.plural)?
        }
    };
    let digest = Sha256::digest(format!("{}/{}/{}", stored.group, stored.version, stored.kind));
    Some(STANDARD.encode(&digest[..8]))
}

fn aggregated(registry: &Registry, named: bool) -> Value {
    let groups = if named { groups(registry) } else { vec![String::new()] };
    let items: Vec<Value> = groups
        .iter()
        .map(|group| {
            let versions: Vec<Value> = versions(registry, group)
                .iter()
                .map(|version| {
                    let resources: Vec<Value> =
                        resources(registry, group, version).into_iter().map(aggregated_resource).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resource(kind: &ResourceKind) -> Value {
    let mut entry = json!({
        "resource": kind.plural,
        // Empty group and version mean: those of the list.
        "responseKind": {"group": "", "version": "", "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    if !kind.short_names.is_empty() {
        entry["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = json!(kind.categories);
    }
    if !kind.subresources.is_empty() {
        let list: Vec<Value> = sorted(&kind.subresources)
            .into_iter()
            .map(|subresource| {
                let (group, version) = match &subresource.group_version {
                    Some((group, version)) => (group.as_ref(), version.as_ref()),
                    None => ("", ""),
                };
                json!({"subresource": subresource.name,
                    "responseKind": {"group": group, "version": version, "kind": subresource.kind},
                    "verbs": subresource.verbs})
            })
            .collect();
        entry["subresources"] = list.into();
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_kubernetes_prefers_them() {
        let mut versions = ["v1alpha2", "v1beta1", "v1", "v2", "v1beta2", "foo"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(versions, ["v2", "v1", "v1beta2", "v1beta1", "v1alpha2", "foo"]);
    }
}
