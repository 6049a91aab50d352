//! The pods and policies of the cluster at a revision of its history: what the store still keeps, until it is compacted.

use super::place::pod_address;
use super::{Refusal, Sources, alive};
use apiserver::status::{FieldError, Status};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ListParams, VersionMatch};
use policy::v1alpha1::{AdminNetworkPolicy, BaselineAdminNetworkPolicy};
use policy::v1alpha2::ClusterNetworkPolicy;
use policy::{NodeInfo, PodInfo, PolicyTable};
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use std::sync::Arc;

impl Sources {
    /// All pods and the table of all policies as they were at this revision.
    pub(super) async fn past(&self, version: &str) -> Result<(Vec<Arc<Pod>>, PolicyTable), Refusal> {
        if !version.parse::<u64>().is_ok_and(|version| version > 0) {
            let why = "must be a resourceVersion, a whole number from 1";
            return Err(FieldError::invalid("spec.resourceVersion", &version.into(), why).into());
        }
        let (pods, namespaces, policies) = tokio::try_join!(
            self.list_at::<Pod>(version),
            self.list_at::<Namespace>(version),
            self.list_at::<NetworkPolicy>(version)
        )?;
        let (nodes, cluster_policies, admin_policies, baseline_policies) = tokio::try_join!(
            self.list_at::<Node>(version),
            self.list_at::<ClusterNetworkPolicy>(version),
            self.list_at::<AdminNetworkPolicy>(version),
            self.list_at::<BaselineAdminNetworkPolicy>(version)
        )?;
        let addresses: Vec<Vec<IpAddr>> = pods.iter().map(|pod| pod_address(pod).into_iter().collect()).collect();
        let infos = pods.iter().zip(&addresses).map(|(pod, ips)| PodInfo { pod, ips });
        let mut known = Vec::new();
        for node in &nodes {
            let name = node.metadata.name.clone().unwrap_or_default();
            let info = NodeInfo { name, labels: node.metadata.labels.clone().unwrap_or_default() };
            let listed = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
            known.extend(listed.filter_map(|address| Some((address.address.parse().ok()?, info.clone()))));
        }
        let table = PolicyTable::build(&policies, &namespaces, infos, known);
        let table = cluster_policies.iter().fold(table, |table, policy| table.with_cluster_policy(policy));
        let table = admin_policies.iter().fold(table, |table, policy| table.with_admin_policy(policy));
        let table = baseline_policies.iter().fold(table, |table, policy| table.with_baseline_policy(policy));
        // What names were answered with then is not kept.
        let table = table.with_names(alive(&self.policy)?.names());
        Ok((pods.into_iter().map(Arc::new).collect(), table))
    }

    async fn list_at<K>(&self, version: &str) -> Result<Vec<K>, Refusal>
    where
        K: kube::Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
    {
        let exactly = ListParams::default().at(version).matching(VersionMatch::Exact);
        let list = Api::<K>::all(self.reader.clone()).list(&exactly).await;
        let list = list.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 410 => {
                let message = format!(
                    "the cluster's history no longer has resourceVersion {version}: {}; newer ones, and now, can be asked for",
                    status.message
                );
                Status::failure(410, "Expired", message)
            }
            kube::Error::Api(status) if status.code == 504 => {
                Status::failure(504, "Timeout", status.message.clone())
            }
            kube::Error::Api(status) => Status::failure(status.code, "BadRequest", status.message.clone()),
            error => Status::internal(error),
        })?;
        Ok(list.items)
    }
}

#[cfg(test)]
mod tests {
    use crate::Cluster;
    use serde_json::{Value, json};
    use store::Revision;

    #[tokio::test(start_paused = true)]
    async fn a_revision_that_has_been_compacted_is_refused_with_a_way_out() {
        let cluster = Cluster::builder().seed(5).start().await.expect("a cluster");
        let now = cluster.api().revision().0;
        cluster.api().store().compact(Revision(now)).await.expect("compacted");
        let body = json!({"spec": {"resourceVersion": "2"}}).to_string().into_bytes();
        let request = http::Request::post("/apis/net.coracle.dev/v1alpha1/reachabilities")
            .header("Content-Type", "application/json")
            .body(body);
        let answer = cluster.client().request::<Value>(request.expect("a request")).await;
        let Err(kube::Error::Api(status)) = answer else { panic!("{answer:?}") };
        assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
        assert!(
            status.message.starts_with("the cluster's history no longer has resourceVersion 2"),
            "{}",
            status.message
        );
        cluster.stop().await;
    }
}
