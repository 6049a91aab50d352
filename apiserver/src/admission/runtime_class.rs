//! A pod's RuntimeClass must exist; it says what the pod needs beside its containers, and on which nodes it can run.
//!
//! Follows `plugin/pkg/admission/runtimeclass` (KEP-688, pod overhead).

use super::pod_amounts::quantities;
use super::{Admission, AdmissionRequest, Mutation};
use crate::status::Status;
use async_trait::async_trait;
use serde_json::Value;
use std::collections::BTreeMap;

/// The plug-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct RuntimeClasses;

async fn class_of(request: &AdmissionRequest<'_>, pod: &Value) -> Result<Value, Status> {
    let name = pod["spec"]["runtimeClassName"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Ok(Value::Null);
    }
    let found = request.object(&format!("/registry/runtimeclasses.node.k8s.io/{name}")).await?;
    found.ok_or_else(|| request.forbidden(&format!("pod rejected: RuntimeClass {name:?} not found")))
}

fn nanos(amounts: &Value) -> BTreeMap<String, i128> {
    quantities(amounts).into_iter().map(|(resource, amount)| (resource, amount.nanos())).collect()
}

#[async_trait]
impl Admission for RuntimeClasses {
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool {
        request.creates("", "pods")
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, pod: &mut Value) -> Result<Mutation, Status> {
        let class = class_of(request, pod).await?;
        let (overhead, scheduling) = (&class["overhead"]["podFixed"], &class["scheduling"]);
        if overhead.is_null() && scheduling.is_null() {
            return Ok(Mutation::Unchanged);
        }
        if !overhead.is_null() && pod["spec"]["overhead"].is_null() {
            pod["spec"]["overhead"] = overhead.clone();
        }
        for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
            let known = &pod["spec"]["nodeSelector"][key];
            if let (Some(known), Some(value)) = (known.as_str(), value.as_str())
                && known != value
            {
                return Err(request.forbidden(&format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {known}"
                )));
            }
            pod["spec"]["nodeSelector"][key] = value.clone();
        }
        let mut tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
        for toleration in scheduling["tolerations"].as_array().into_iter().flatten() {
            if !tolerations.contains(toleration) {
                tolerations.push(toleration.clone());
            }
        }
        if !tolerations.is_empty() {
            pod["spec"]["tolerations"] = tolerations.into();
        }
        Ok(Mutation::Changed)
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, pod: &Value) -> Result<(), Status> {
        let class = class_of(request, pod).await?;
        let (given, fixed) = (&pod["spec"]["overhead"], &class["overhead"]["podFixed"]);
        match (given.is_null(), fixed.is_null()) {
            (true, true) => Ok(()),
            (false, true) => {
                Err(request
                    .forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
            }
            // The class may say the same in another form.
            _ if nanos(given) == nanos(fixed) => Ok(()),
            _ => Err(request.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")),
        }
    }
}
