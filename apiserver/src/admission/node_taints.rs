//! A new node takes no pods until its kubelet has said that it is ready: it begins with the taint for that.
//!
//! The node-lifecycle controller takes the taint away. Follows `plugin/pkg/admission/nodetaint` (TaintNodesByCondition).

use super::{Admission, AdmissionRequest, Mutation};
use crate::status::Status;
use async_trait::async_trait;
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The plug-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaintNodesByCondition;

#[async_trait]
impl Admission for TaintNodesByCondition {
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool {
        request.creates("", "nodes")
    }

    async fn mutate(&self, _: &AdmissionRequest<'_>, node: &mut Value) -> Result<Mutation, Status> {
        let mut taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        if taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule") {
            return Ok(Mutation::Unchanged);
        }
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        if !node["spec"].is_object() {
            node["spec"] = json!({});
        }
        node["spec"]["taints"] = taints.into();
        Ok(Mutation::Changed)
    }
}
