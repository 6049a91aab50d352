//! Coracle's own API group, `net.coracle.dev/v1alpha1`: questions about the network, answered from the very tables that decide
//! over live packets.
//!
//! Every kind is *virtual*: it is asked (`create`) or listed, never kept. The group stands behind the same authentication and
//! authorization as the rest, so `coracle explain`, `kubectl create -f` and `curl` ask alike.
//!
//! | resource | question |
//! |---|---|
//! | `policyreviews` | may this flow pass, by which rule, or how near came each; also as if further policies were applied |
//! | `traces` | what happens to a connection: names, Service, endpoints, NAT, policies; and, if wanted, a real connection |
//! | `namelookups` | what the cluster's DNS answers, with the search list that a pod walks |
//! | `reachabilities` | who can talk to whom, computed, and if wanted measured by real connections |
//! | `flows` | the connection-tracking table, with names |
//! | `routes` | the nodes' route tables, as the CNI profile has them |
//!
//! Four are streams: `flowlogs` (what happens to flows, for `coracle flows -f`), `dnslogs` (what DNS is asked, for `coracle dns-log`),
//! `captures` (packets as they pass, for `coracle capture`) and `tunnels` (a TCP connection into the cluster, for `coracle proxy`).
//!
//! All but the tunnels can be asked in a namespace, by who has the right there, or of the whole cluster: see [`asker`].
//! Denied packets become Events too ([`denials`]), and what the network counts stands in the API's `/metrics` ([`metrics`]).

mod asker;
mod capture;
mod denials;
mod dns_log;
mod flow_log;
mod flows;
mod hubble;
mod lines;
mod metrics;
mod name_lookup;
mod past;
mod pcapng;
mod place;
mod policy_review;
mod reachability;
mod routes;
mod told;
mod trace;
mod tunnel;

use crate::cni_profile::CniProfile;
use crate::nodes::Nodes;
use crate::residents::Residents;
use apiserver::ApiServer;
use apiserver::extension::{Connector, VirtualRequest, VirtualResource};
use apiserver::registry::{Column, ResourceKind};
use apiserver::schema::ObjectRef;
use apiserver::schema::structural::object_type;
use apiserver::status::{FieldError, Status};
use asker::Asker;
use async_trait::async_trait;
use capture::Captures;
use denials::Denials;
use dns::Dns;
use dns_log::DnsLogs;
use flow_log::FlowLogs;
use informer::{Informer, Informers};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kubelet::resolv_conf::ClusterDns;
use netstack::Network;
use policy::{Policy, PolicyTable};
use proxy::Proxy;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use tunnel::{Networks, Tunnels};

/// The group.
pub(crate) const GROUP: &str = "net.coracle.dev";
/// Its version.
pub(crate) const VERSION: &str = "v1alpha1";

/// What answers come from. Held weakly: questions must not keep a stopped cluster's components alive.
pub(crate) struct Sources {
    pub(crate) proxy: Weak<Proxy>,
    pub(crate) policy: Weak<Policy>,
    pub(crate) dns: Weak<Dns>,
    pub(crate) nodes: Weak<Nodes>,
    pub(crate) network: Network,
    pub(crate) cluster_dns: ClusterDns,
    /// The cluster's own.
    pub(crate) networks: Networks,
    pub(crate) pods: Informer<Pod>,
    pub(crate) services: Informer<Service>,
    pub(crate) node_objects: Informer<Node>,
    /// Who had which address when.
    pub(crate) residents: Arc<Residents>,
    /// Where pods reach the API.
    pub(crate) api_address: IpAddr,
    pub(crate) profile: CniProfile,
    /// Reads the cluster's history.
    pub(crate) reader: kube::Client,
}

impl Sources {
    pub(crate) fn new(
        informers: &Informers,
        network: Network,
        (cluster_dns, networks): (ClusterDns, Networks),
        (proxy, policy, dns, nodes): (&Arc<Proxy>, &Arc<Policy>, &Arc<Dns>, &Arc<Nodes>),
        (residents, api_address, profile): (Arc<Residents>, IpAddr, CniProfile),
        reader: kube::Client,
    ) -> Self {
        Sources {
            proxy: Arc::downgrade(proxy),
            policy: Arc::downgrade(policy),
            dns: Arc::downgrade(dns),
            nodes: Arc::downgrade(nodes),
            network,
            cluster_dns,
            networks,
            pods: informers.of(),
            services: informers.of(),
            node_objects: informers.of(),
            residents,
            api_address,
            profile,
            reader,
        }
    }

    /// The nodes by their addresses.
    fn node_names(&self) -> HashMap<IpAddr, String> {
        let mut names = HashMap::new();
        for node in self.node_objects.list() {
            let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
            let name = node.metadata.name.clone().unwrap_or_default();
            names.extend(addresses.filter_map(|known| Some((known.address.parse().ok()?, name.clone()))));
        }
        names
    }

    /// The policies in force and, as if they were applied, these: NetworkPolicies and ClusterNetworkPolicies as the API returns
    /// them, defaults filled in. `absent`: `namespace/name`, a ClusterNetworkPolicy's name or `adminnetworkpolicy/name`, as if they
    /// were deleted.
    fn policies(&self, further: &[Value], absent: &[String]) -> Result<PolicyTable, Refusal> {
        with_policies(PolicyTable::clone(&*alive(&self.policy)?.table()), further, absent)
    }
}

/// The same of any table.
fn with_policies(mut table: PolicyTable, further: &[Value], absent: &[String]) -> Result<PolicyTable, Refusal> {
    for name in absent {
        table = match name.split_once('/') {
            Some(("adminnetworkpolicy" | "baselineadminnetworkpolicy", _)) => table.without_cluster_policy(name),
            Some((namespace, name)) => table.without_policy(namespace, name),
            None => table.without_cluster_policy(name),
        };
    }
    for (index, object) in further.iter().enumerate() {
        let field = format!("spec.policies[{index}]");
        let unreadable = |why: serde_json::Error| FieldError::invalid(&field, &object["kind"], why.to_string());
        table = match object["kind"].as_str() {
            Some("NetworkPolicy") => table.with_policy(&read(object).map_err(unreadable)?),
            Some("ClusterNetworkPolicy") => table.with_cluster_policy(&read(object).map_err(unreadable)?),
            Some("AdminNetworkPolicy") => table.with_admin_policy(&read(object).map_err(unreadable)?),
            Some("BaselineAdminNetworkPolicy") => table.with_baseline_policy(&read(object).map_err(unreadable)?),
            _ => {
                let kinds =
                    ["AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy", "NetworkPolicy"];
                return Err(FieldError::not_supported(format!("{field}.kind"), &object["kind"], &kinds).into());
            }
        };
    }
    Ok(table)
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T, serde_json::Error> {
    T::deserialize(value)
}

/// A component that has not been stopped.
fn alive<T>(component: &Weak<T>) -> Result<Arc<T>, Status> {
    component.upgrade().ok_or_else(|| Status::failure(503, "ServiceUnavailable", "the cluster is stopping"))
}

/// Why a question is not answered.
#[derive(Debug)]
enum Refusal {
    /// A field of it is wrong.
    Field(FieldError),
    Status(Status),
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Refusal::Field(error)
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Refusal::Status(status)
    }
}

/// The `spec` of a question.
fn spec<T: DeserializeOwned>(body: &Value) -> Result<T, Refusal> {
    let spec = body.get("spec").cloned().unwrap_or_else(|| json!({}));
    serde_json::from_value(spec).map_err(|why| Status::bad_request(format!("spec: {why}")).into())
}

/// One kind of question.
#[async_trait]
trait Question: Send + Sync + 'static {
    /// The `status` that answers `body`, as far as `asker` may know it.
    async fn status(&self, sources: &Sources, asker: &Asker, body: &Value) -> Result<Value, Refusal>;
}

struct Asked<Q> {
    kind: &'static str,
    sources: Arc<Sources>,
    question: Q,
}

#[async_trait]
impl<Q: Question> VirtualResource for Asked<Q> {
    async fn answer(&self, request: VirtualRequest<'_>) -> Result<Value, Status> {
        let mut body = request.body;
        if !body.is_object() {
            return Err(Status::bad_request("the body of the request is no object"));
        }
        let (server, user, info) = (request.server.clone(), request.user.clone(), request.info.clone());
        let asker = Asker { server, user, info };
        let answered = self.question.status(&self.sources, &asker, &body).await;
        body["status"] = answered.map_err(|refusal| match refusal {
            Refusal::Field(error) => Status::invalid(GROUP, self.kind, "", &[error]),
            Refusal::Status(status) => status,
        })?;
        if !body["metadata"].is_object() {
            body["metadata"] = json!({});
        }
        Ok(body)
    }
}

struct Listed(Arc<Sources>);

#[async_trait]
impl VirtualResource for Listed {
    async fn answer(&self, request: VirtualRequest<'_>) -> Result<Value, Status> {
        match request.info.name.as_str() {
            "" => flows::list(&self.0, request.query, &request.info.namespace),
            // A list narrowed to one name by a field selector has a name too.
            name if request.info.verb == "get" => flows::get(&self.0, name, &request.info.namespace),
            _ => Err(Status::bad_request("flows know no field selectors; narrow the list with verdict= and pod=")),
        }
    }

    fn instead(&self, verb: &str) -> Option<&'static str> {
        (verb == "watch").then_some(
            "flows cannot be watched: their counters change with every packet. What happens to them is a stream: coracle flows -f, \
             or kubectl create --raw '/apis/net.coracle.dev/v1alpha1/flowlogs?follow=true' -f /dev/null",
        )
    }
}

/// Adds the group to the API, and what tells of denials: `events` writes them. The task ends with the network.
pub(crate) fn install(
    api: &ApiServer,
    sources: Sources,
    events: kube::Client,
) -> impl Future<Output = ()> + Send + use<> {
    let sources = Arc::new(sources);
    let suppressed = Arc::new(AtomicU64::new(0));
    let denials =
        Denials::new(&sources, events, api.now(), suppressed.clone()).run(sources.network.flow_events(true, 0));
    let counted = Arc::downgrade(&sources);
    api.add_metrics(move |out| metrics::write(&counted, &suppressed, out));
    ask(api, &sources, ("PolicyReview", "policyreviews"), policy_review::SCHEMA, policy_review::PolicyReview);
    ask(api, &sources, ("Trace", "traces"), trace::SCHEMA, trace::Trace);
    ask(api, &sources, ("NameLookup", "namelookups"), name_lookup::SCHEMA, name_lookup::NameLookup);
    ask(api, &sources, ("Reachability", "reachabilities"), reachability::SCHEMA, reachability::Reachability);
    let columns = flows::COLUMNS.map(|name| Column::new(name, "string"));
    let flow = kind("Flow", "flows").with_verbs(&["get", "list"]).with_table(columns, flows::row);
    api.add_kind(flow.with_schema(object("Flow", &flows::schema())));
    api.set_virtual_resource(GROUP, VERSION, "flows", Arc::new(Listed(sources.clone())));
    routes::install(api, &sources);
    stream(
        api,
        kind("FlowLog", "flowlogs"),
        "What happens to flows, as JSON lines.",
        Arc::new(FlowLogs(sources.clone())),
    );
    let log = kind("DNSLog", "dnslogs");
    stream(api, log, "What DNS is asked and answers, as JSON lines.", Arc::new(DnsLogs(sources.clone())));
    stream(api, kind("Capture", "captures"), "Packets as they pass, as pcapng.", Arc::new(Captures(sources.clone())));
    let tunnel = kind("Tunnel", "tunnels").cluster_scoped();
    stream(api, tunnel, "A TCP connection to ?to=HOST:PORT.", Arc::new(Tunnels(sources)));
    denials
}

fn kind(kind: &'static str, plural: &'static str) -> ResourceKind {
    ResourceKind::new(GROUP, VERSION, kind, plural)
}

/// The type of a kind.
fn object(name: &str, schema: &Value) -> ObjectRef {
    object_type(&format!("dev.coracle.net.{VERSION}.{name}"), schema).expect("the schema is structural")
}

/// A kind that is no object at all but a stream; its query says what is wanted.
fn stream(api: &ApiServer, kind: ResourceKind, description: &str, connector: Arc<dyn Connector>) {
    let schema = json!({"type": "object", "description": description, "properties": {}});
    let (name, plural) = (kind.kind.to_string(), kind.plural.to_string());
    api.add_kind(kind.with_verbs(&["create"]).with_schema(object(&name, &schema)));
    api.set_connector(GROUP, VERSION, &plural, connector);
}

/// `fields`: name, type (`string`, `boolean`, `strings`, `ports`, `objects`) and description of the spec's fields.
fn ask<Q: Question>(
    api: &ApiServer,
    sources: &Arc<Sources>,
    (name, plural): (&'static str, &'static str),
    fields: &[(&str, &str, &str)],
    question: Q,
) {
    let kind = kind(name, plural).with_verbs(&["create"]).with_schema(object(name, &schema(fields)));
    api.add_kind(kind);
    api.set_virtual_resource(
        GROUP,
        VERSION,
        plural,
        Arc::new(Asked { kind: name, sources: sources.clone(), question }),
    );
}

fn schema(fields: &[(&str, &str, &str)]) -> Value {
    let mut properties = serde_json::Map::new();
    for (name, kind, description) in fields {
        let mut field = match *kind {
            "strings" => json!({"type": "array", "items": {"type": "string"}}),
            "ports" => json!({"type": "array", "items": {"x-kubernetes-int-or-string": true}}),
            "objects" => {
                json!({"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}})
            }
            kind => json!({"type": kind}),
        };
        field["description"] = (*description).into();
        properties.insert((*name).to_owned(), field);
    }
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "description": "What is asked.", "properties": properties},
        "status": {"type": "object", "description": "The answer.", "x-kubernetes-preserve-unknown-fields": true}}})
}
