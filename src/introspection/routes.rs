//! `Route`: the nodes' route tables: how each gets to the pods of the others, as the cluster's CNI profile has it.
//!
//! A view, not the switch's own table: there, every address is one lookup away, whatever the profile.

use super::{GROUP, Sources, VERSION, alive, kind, object};
use apiserver::ApiServer;
use apiserver::extension::{VirtualRequest, VirtualResource};
use apiserver::registry::{Column, ResourceKind};
use apiserver::status::Status;
use async_trait::async_trait;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// After the name.
const COLUMNS: [&str; 7] = ["Node", "Destination", "Via", "Device", "Protocol", "Encapsulation", "Encrypted"];
/// The same as fields, with what they mean.
const FIELDS: [(&str, &str); 6] = [
    ("node", "Whose table."),
    ("destination", "The addresses it is about."),
    ("via", "The next node; empty for the node's own pods."),
    ("device", "The interface."),
    ("protocol", "Who put it there, as `ip route` says it."),
    ("encapsulation", "vxlan, ipip or none."),
];

struct Routes(Arc<Sources>);

/// Adds the kind.
pub(super) fn install(api: &ApiServer, sources: &Arc<Sources>) {
    let mut properties: serde_json::Map<String, Value> = FIELDS
        .iter()
        .map(|(name, description)| ((*name).to_owned(), json!({"type": "string", "description": description})))
        .collect();
    properties
        .insert("encrypted".into(), json!({"type": "boolean", "description": "Whether it is encrypted on the way."}));
    properties.insert("mtu".into(), json!({"type": "integer", "description": "Largest packet, in bytes."}));
    let schema = json!({"type": "object", "description": "A line of a node's route table.", "properties": properties});
    let columns = COLUMNS.map(|name| Column::new(name, "string"));
    let row_of = kind("Route", "routes").cluster_scoped().with_verbs(&["get", "list"]).with_table(columns, row);
    api.add_kind(row_of.with_schema(object("Route", &schema)));
    api.set_virtual_resource(GROUP, VERSION, "routes", Arc::new(Routes(sources.clone())));
}

#[async_trait]
impl VirtualResource for Routes {
    async fn answer(&self, request: VirtualRequest<'_>) -> Result<Value, Status> {
        alive(&self.0.policy)?;
        let mut items = list(&self.0);
        let name = request.info.name.as_str();
        if request.info.verb == "get" {
            let found = items.iter_mut().find(|item| item["metadata"]["name"] == name).map(Value::take);
            return found.ok_or_else(|| Status::not_found(GROUP, "routes", name));
        }
        items.retain(|item| name.is_empty() || item["metadata"]["name"] == name);
        Ok(json!({"kind": "RouteList", "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {}, "items": items}))
    }
}

fn list(sources: &Sources) -> Vec<Value> {
    let mut nodes = Vec::new();
    for node in sources.node_objects.list() {
        let mut addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let internal = addresses.find(|address| address.type_ == "InternalIP").map(|address| address.address.clone());
        let pods = node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
        if let (Some(name), Some(address), Some(pods)) = (node.metadata.name.clone(), internal, pods) {
            nodes.push((name, address, pods));
        }
    }
    nodes.sort_by_key(|(name, ..)| (name.len(), name.clone()));
    let routes = sources.profile.routes(&nodes);
    let mtu = sources.profile.mtu();
    let item = |route: crate::cni_profile::Route| {
        // Names have no slash.
        let name = format!("{}.{}", route.node, route.destination.replace('/', "-"));
        json!({"kind": "Route", "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {"name": name},
            "node": route.node, "destination": route.destination, "via": route.via, "device": route.device,
            "protocol": route.protocol, "encapsulation": route.encapsulation, "encrypted": route.encrypted, "mtu": mtu})
    };
    routes.into_iter().map(item).collect()
}

/// The cells of one route.
fn row(_: &ResourceKind, route: &Value, _: Timestamp) -> Vec<Value> {
    let mut cells = vec![route["metadata"]["name"].clone()];
    cells.extend(FIELDS.iter().map(|(name, _)| route[*name].clone()));
    cells.push(if route["encrypted"] == true { "yes" } else { "no" }.into());
    cells
}
