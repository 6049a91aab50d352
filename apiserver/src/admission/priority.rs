//! A pod's priority is that of its PriorityClass, or of the class that is the default for all; there is only one default.
//!
//! Follows `plugin/pkg/admission/priority`.

use super::{Admission, AdmissionOperation, AdmissionRequest, Mutation};
use crate::status::Status;
use async_trait::async_trait;
use serde_json::{Value, json};

const GROUP: &str = "scheduling.k8s.io";
const CLASSES: &str = "/registry/priorityclasses.scheduling.k8s.io/";
const PREEMPTS: &str = "PreemptLowerPriority";

/// The plug-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Priority;

#[async_trait]
impl Admission for Priority {
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool {
        request.operation != AdmissionOperation::Delete
            && request.subresource.is_empty()
            && (request.is_about("", "pods") || request.is_about(GROUP, "priorityclasses"))
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, pod: &mut Value) -> Result<Mutation, Status> {
        if !request.is_about("", "pods") || !pod["spec"].is_object() {
            return Ok(Mutation::Unchanged);
        }
        let spec = &mut pod["spec"];
        if let Some(old) = request.old {
            // They stand since the pod was created, whatever a client leaves out.
            for field in ["priority", "preemptionPolicy"] {
                if spec[field].is_null() && !old["spec"][field].is_null() {
                    spec[field] = old["spec"][field].clone();
                }
            }
            return Ok(Mutation::Unchanged);
        }
        let class = class_of(request, spec["priorityClassName"].as_str().unwrap_or_default()).await?;
        let priority = class["value"].as_i64().unwrap_or_default();
        if let Some(given) = spec["priority"].as_i64().filter(|given| *given != priority) {
            return Err(request.forbidden(&format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
                 computed {priority} from the given PriorityClass name"
            )));
        }
        let policy = class["preemptionPolicy"].as_str().unwrap_or(PREEMPTS);
        if let Some(given) = spec["preemptionPolicy"].as_str().filter(|given| !given.is_empty() && *given != policy) {
            return Err(request.forbidden(&format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name"
            )));
        }
        if let Some(name) = class["metadata"]["name"].as_str() {
            spec["priorityClassName"] = name.into();
        }
        spec["priority"] = priority.into();
        spec["preemptionPolicy"] = policy.into();
        Ok(Mutation::Changed)
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, class: &Value) -> Result<(), Status> {
        if !request.is_about(GROUP, "priorityclasses") || class["globalDefault"] != true {
            return Ok(());
        }
        match default_class(request).await? {
            Some(other) if other["metadata"]["name"] != class["metadata"]["name"] => {
                let other = other["metadata"]["name"].as_str().unwrap_or_default();
                let why = format!("PriorityClass {other} is already marked as default. Only one default can exist");
                Err(request.forbidden(&why))
            }
            _ => Ok(()),
        }
    }
}

/// The class by that name; without a name the default one, or `Null`.
async fn class_of(request: &AdmissionRequest<'_>, name: &str) -> Result<Value, Status> {
    if name.is_empty() {
        return Ok(default_class(request).await?.unwrap_or_default());
    }
    if let Some(class) = request.object(&format!("{CLASSES}{name}")).await? {
        return Ok(class);
    }
    match name {
        // The two of the system are there although nobody made them.
        "system-node-critical" => Ok(json!({"metadata": {"name": name}, "value": 2_000_001_000})),
        "system-cluster-critical" => Ok(json!({"metadata": {"name": name}, "value": 2_000_000_000})),
        _ => Err(request.forbidden(&format!("no PriorityClass with name {name} was found"))),
    }
}

/// The class for pods that name none; of several, the lowest.
async fn default_class(request: &AdmissionRequest<'_>) -> Result<Option<Value>, Status> {
    let classes = request.objects(CLASSES).await?;
    Ok(classes.into_iter().filter(|class| class["globalDefault"] == true).min_by_key(|class| class["value"].as_i64()))
}
