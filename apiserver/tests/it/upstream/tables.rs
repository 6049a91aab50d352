//! The columns of Tables.

use super::{Differences, facts};
use crate::support::complete;
use serde_json::{Value, json};

const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

#[tokio::test(start_paused = true)]
async fn tables_have_upstreams_columns_but_for_what_is_listed() {
    let server = complete().await;
    let mut ours = Vec::new();
    for root in ["/api", "/apis"] {
        let document = server.get_as(root, DISCOVERY).await.ok();
        for group in document["items"].as_array().expect("groups") {
            let version = &group["versions"][0];
            let path = match group["metadata"]["name"].as_str() {
                Some(group) => format!("/apis/{group}"),
                None => root.to_owned(),
            };
            for resource in version["resources"].as_array().expect("resources") {
                if !resource["verbs"].as_array().is_some_and(|verbs| verbs.contains(&json!("list"))) {
                    continue;
                }
                let name = resource["resource"].as_str().expect("a name");
                let uri = format!("{path}/{}/{name}", version["version"].as_str().expect("a version"));
                let table = server.get_as(&uri, TABLE).await.ok();
                assert_eq!(table["kind"], "Table");
                let columns = table["columnDefinitions"].as_array().expect("columns");
                let columns: Vec<String> = columns.iter().map(column).collect();
                let full = match group["metadata"]["name"].as_str() {
                    Some(group) => format!("{name}.{group}"),
                    None => name.to_owned(),
                };
                ours.push(format!("{full}: {}", columns.join("; ")));
            }
        }
    }
    Differences::of("columns").check(&facts(include_str!("columns.txt")), &ours);
}

fn column(column: &Value) -> String {
    let text = |name: &str| column[name].as_str().expect("a text").to_owned();
    let mut out = format!("{} {}", text("name"), text("type"));
    if !text("format").is_empty() {
        out.push_str(&format!("/{}", text("format")));
    }
    if column["priority"] == 1 {
        out.push_str(" wide");
    }
    out
}
