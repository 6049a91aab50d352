//! Discovery, in both forms.

use super::{Differences, facts};
use crate::support::{Server, complete};
use http::Method;
use serde_json::{Value, json};
use std::collections::HashSet;

const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const ALL: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

fn texts(value: &Value) -> String {
    let texts: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join(",") }
}

fn verbs(value: &Value) -> String {
    if *value == json!(ALL) { "*".to_owned() } else { texts(value) }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The kind of a subresource's body, with group and version if they are not its parent's.
fn body_kind(group: &Value, version: &Value, kind: &Value) -> String {
    match (word(group), word(version)) {
        ("", "") => word(kind).to_owned(),
        (group, version) => format!("{group}/{version}/{}", word(kind)),
    }
}

/// The aggregated documents in the notation of `resources.txt`.
async fn aggregated(server: &Server) -> Vec<String> {
    let mut lines = Vec::new();
    for path in ["/api", "/apis"] {
        let document = server.get_as(path, ACCEPT).await.ok();
        assert_eq!((&document["kind"], &document["metadata"]), (&json!("APIGroupDiscoveryList"), &json!({})));
        assert_eq!(document["apiVersion"], "apidiscovery.k8s.io/v2");
        for group in document["items"].as_array().expect("groups") {
            for version in group["versions"].as_array().expect("versions") {
                assert_eq!(version["freshness"], "Current");
                let version_name = word(&version["version"]);
                let group_version = match group["metadata"]["name"].as_str() {
                    Some(group) => format!("{group}/{version_name}"),
                    None => version_name.to_owned(),
                };
                for resource in version["resources"].as_array().expect("resources") {
                    let (name, kind) = (word(&resource["resource"]), &resource["responseKind"]);
                    assert_eq!((&kind["group"], &kind["version"]), (&json!(""), &json!("")), "those of the list");
                    lines.push(format!(
                        "{group_version} {name} {} {} {} {} {} {}",
                        word(&resource["singularResource"]),
                        word(&kind["kind"]),
                        word(&resource["scope"]),
                        texts(&resource["shortNames"]),
                        texts(&resource["categories"]),
                        verbs(&resource["verbs"]),
                    ));
                    for subresource in resource["subresources"].as_array().into_iter().flatten() {
                        let kind = &subresource["responseKind"];
                        lines.push(format!(
                            "{group_version} {name}/{} {} {}",
                            word(&subresource["subresource"]),
                            body_kind(&kind["group"], &kind["version"], &kind["kind"]),
                            verbs(&subresource["verbs"]),
                        ));
                    }
                }
            }
        }
    }
    lines
}

/// The legacy documents in the same notation, in the order of the groups.
async fn legacy(server: &Server) -> Vec<String> {
    let mut lists = vec![("/api/v1".to_owned(), "v1".to_owned())];
    let groups = server.get("/apis").await.ok();
    assert_eq!((&groups["kind"], &groups["apiVersion"]), (&json!("APIGroupList"), &json!("v1")));
    for group in groups["groups"].as_array().expect("groups") {
        assert_eq!(group["preferredVersion"], group["versions"][0]);
        let path = format!("/apis/{}", word(&group["name"]));
        let mut expected = group.clone();
        expected["kind"] = "APIGroup".into();
        expected["apiVersion"] = "v1".into();
        assert_eq!(server.get(&path).await.ok(), expected);
        for version in group["versions"].as_array().expect("versions") {
            lists.push((format!("{path}/{}", word(&version["version"])), word(&version["groupVersion"]).to_owned()));
        }
    }
    let mut lines = Vec::new();
    for (path, group_version) in lists {
        let list = server.get(&path).await.ok();
        assert_eq!((&list["kind"], &list["groupVersion"]), (&json!("APIResourceList"), &json!(group_version)));
        // The list of the core group is as old as it looks.
        assert_eq!(list.get("apiVersion"), (path != "/api/v1").then_some(&json!("v1")), "{path}");
        for resource in list["resources"].as_array().expect("resources") {
            let name = word(&resource["name"]);
            if name.contains('/') {
                let kind = body_kind(&resource["group"], &resource["version"], &resource["kind"]);
                assert_eq!(resource["singularName"], "");
                lines.push(format!("{group_version} {name} {kind} {}", verbs(&resource["verbs"])));
                continue;
            }
            let stored = resource["verbs"].as_array().is_some_and(|verbs| verbs.contains(&json!("watch")));
            assert_eq!(resource.get("storageVersionHash").is_some(), stored, "{name}");
            lines.push(format!(
                "{group_version} {name} {} {} {} {} {} {}",
                word(&resource["singularName"]),
                word(&resource["kind"]),
                if resource["namespaced"] == true { "Namespaced" } else { "Cluster" },
                texts(&resource["shortNames"]),
                texts(&resource["categories"]),
                verbs(&resource["verbs"]),
            ));
        }
    }
    lines
}

#[tokio::test(start_paused = true)]
async fn discovery_is_upstreams_but_for_what_is_listed() {
    let server = complete().await;
    let (upstream, ours) = (facts(include_str!("resources.txt")), aggregated(&server).await);
    Differences::of("resource").check(&upstream, &ours);
    let (theirs, our): (HashSet<&String>, HashSet<&String>) = (upstream.iter().collect(), ours.iter().collect());
    let order: Vec<&String> = ours.iter().filter(|line| theirs.contains(line)).collect();
    let expected: Vec<&String> = upstream.iter().filter(|line| our.contains(line)).collect();
    assert_eq!(order, expected, "the order is upstream's: clients take the first of resources with the same name");
}

#[tokio::test(start_paused = true)]
async fn the_legacy_form_says_what_the_aggregated_one_says() {
    let server = complete().await;
    assert_eq!(legacy(&server).await, aggregated(&server).await);
    let versions = server.get("/api").await.ok();
    assert_eq!((&versions["kind"], &versions["versions"]), (&json!("APIVersions"), &json!(["v1"])));
    assert_eq!(versions["serverAddressByClientCIDRs"][0]["clientCIDR"], "0.0.0.0/0");
}

#[tokio::test(start_paused = true)]
async fn a_resource_has_the_hash_of_the_version_it_is_stored_in() {
    let server = complete().await;
    for (path, resource, hash) in [
        ("/api/v1", "configmaps", "qFsyl6wFWjQ="),
        ("/api/v1", "events", "r2yiGXH7wu8="),
        ("/api/v1", "persistentvolumes", "HN/zwEC+JgM="),
        ("/api/v1", "services", "0/CO1lhkEBI="),
        ("/apis/apps/v1", "deployments", "8aSe+NMegvE="),
        ("/apis/apps/v1", "statefulsets", "H+vl74LkKdo="),
        // Kept as core Events.
        ("/apis/events.k8s.io/v1", "events", "r2yiGXH7wu8="),
    ] {
        let list = server.get(path).await.ok();
        let mut resources = list["resources"].as_array().expect("resources").iter();
        let found = resources.find(|known| known["name"] == resource).expect(resource);
        assert_eq!(found["storageVersionHash"], hash, "{path} {resource}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_knows_the_document_is_told_that_it_has_not_changed() {
    let server = complete().await;
    for (path, accept, media) in [
        ("/api", ACCEPT, AGGREGATED),
        ("/apis", ACCEPT, AGGREGATED),
        ("/api", "application/json", "application/json"),
        ("/apis", "*/*", "application/json"),
        ("/apis/apps", "application/json, */*", "application/json"),
        ("/api/v1", "application/json, */*", "application/json"),
        ("/apis/apps/v1", "application/json", "application/json"),
    ] {
        let first = server.get_as(path, accept).await;
        assert_eq!((first.code.as_u16(), &first.headers["content-type"]), (200, &media.parse().expect("a header")));
        assert_eq!(first.headers["vary"], "Accept", "{path}: the form depends on it");
        assert_eq!(first.headers["cache-control"], "public");
        let tag = first.headers["etag"].to_str().expect("text").to_owned();
        assert!(tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'), "{tag}");
        for (known, code) in [(tag.clone(), 304), (format!("\"x\", {tag}"), 304), ("\"x\"".to_owned(), 200)] {
            let headers = [("accept", accept), ("if-none-match", known.as_str())];
            let again = server.send(Method::GET, path, &headers, "").await;
            assert_eq!(again.code.as_u16(), code, "{path} {known}");
            assert_eq!(again.headers["etag"], tag.as_str());
            assert_eq!(again.body == "", code == 304);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_group_or_version_is_not_found() {
    let server = complete().await;
    for path in
        ["/api/v2", "/apis/nobody", "/apis/apps/v9", "/apis/nobody/v1", "/apis/apps/", "/apis/apps/v1/", "/api/v1/"]
    {
        let code = if path.ends_with('/') { 200 } else { 404 };
        server.get(path).await.expect(code);
    }
}
