//! A pod that is given a node gets the node's zone and region as labels, so that its containers can read them (KEP-4742).
//!
//! Follows `plugin/pkg/admission/podtopologylabels`. A binding passes the chain as the pod it makes.

use super::{Admission, AdmissionOperation, AdmissionRequest, Mutation};
use crate::status::Status;
use async_trait::async_trait;
use serde_json::Value;

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// The plug-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodTopologyLabels;

#[async_trait]
impl Admission for PodTopologyLabels {
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool {
        request.operation == AdmissionOperation::Create
            && request.is_about("", "pods")
            && matches!(request.subresource, "" | "binding")
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, pod: &mut Value) -> Result<Mutation, Status> {
        let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) else {
            return Ok(Mutation::Unchanged);
        };
        // A node that is not there is no reason to refuse: it may come later.
        let Some(node) = request.object(&format!("/registry/nodes/{node}")).await? else {
            return Ok(Mutation::Unchanged);
        };
        let mut mutation = Mutation::Unchanged;
        for label in LABELS {
            if let Some(value) = node["metadata"]["labels"][label].as_str() {
                pod["metadata"]["labels"][label] = value.into();
                mutation = Mutation::Changed;
            }
        }
        Ok(mutation)
    }
}
