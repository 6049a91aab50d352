//! A pod tolerates for five minutes that its node is not ready or cannot be reached, unless it says otherwise.
//!
//! Follows `plugin/pkg/admission/defaulttolerationseconds`.

use super::{Admission, AdmissionOperation, AdmissionRequest, Mutation};
use crate::status::Status;
use async_trait::async_trait;
use serde_json::{Value, json};

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const STAY_SECONDS: u32 = 300;

/// The plug-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultTolerations;

#[async_trait]
impl Admission for DefaultTolerations {
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool {
        request.operation != AdmissionOperation::Delete
            && request.subresource.is_empty()
            && request.is_about("", "pods")
    }

    async fn mutate(&self, _: &AdmissionRequest<'_>, pod: &mut Value) -> Result<Mutation, Status> {
        if !pod["spec"].is_object() {
            return Ok(Mutation::Unchanged);
        }
        let mut tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
        let known = tolerations.len();
        for taint in TAINTS {
            let text = |toleration: &Value, field: &str| toleration[field].as_str().unwrap_or_default().to_owned();
            let tolerated = tolerations.iter().any(|toleration| {
                let (key, effect) = (text(toleration, "key"), text(toleration, "effect"));
                (key.is_empty() || key == taint) && (effect.is_empty() || effect == "NoExecute")
            });
            if !tolerated {
                tolerations.push(json!({
                    "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": STAY_SECONDS,
                }));
            }
        }
        if tolerations.len() == known {
            return Ok(Mutation::Unchanged);
        }
        pod["spec"]["tolerations"] = tolerations.into();
        Ok(Mutation::Changed)
    }
}
