//! A pod's priority is that of its PriorityClass, or of the class that is the default for all.
//!
//! Follows `plugin/pkg/admission/priority`.

use super::{Admission, AdmissionOperation, AdmissionRequest};
use crate::status::Status;
use crate::{encode, strategy};
use async_trait::async_trait;
use serde_json::Value;
use store::Range;

const CLASSES: &str = "/registry/priorityclasses.scheduling.k8s.io/";

/// The plug-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Priority;

#[async_trait]
impl Admission for Priority {
    async fn admit(&self, request: &AdmissionRequest<'_>, pod: &mut Value) -> Result<(), Status> {
        let concerns = strategy::is_pod(request.kind)
            && request.operation == AdmissionOperation::Create
            && request.subresource.is_empty()
            && pod["spec"].is_object();
        if !concerns {
            return Ok(());
        }
        let spec = &mut pod["spec"];
        let name = spec["priorityClassName"].as_str().unwrap_or_default().to_owned();
        let class = match name.as_str() {
            "" => {
                let range = Range { prefix: CLASSES.to_owned(), ..Range::default() };
                let page = request.store.range(range).await.map_err(Status::internal)?;
                let classes = page.items.iter().map(encode::parse).collect::<Result<Vec<_>, _>>()?;
                // Of several defaults, the lowest.
                classes
                    .into_iter()
                    .filter(|class| class["globalDefault"] == true)
                    .min_by_key(|class| class["value"].as_i64())
            }
            // The two of the system are there although nobody made them.
            "system-node-critical" | "system-cluster-critical" => {
                let value = if name == "system-node-critical" { 2_000_001_000 } else { 2_000_000_000 };
                spec["priority"] = value.into();
                return Ok(());
            }
            _ => match request.store.get(&format!("{CLASSES}{name}")).await {
                Some(found) => Some(encode::parse(&found)?),
                None => {
                    let why = format!("no PriorityClass with name {name} was found");
                    return Err(Status::forbidden("", "pods", request.name, &why));
                }
            },
        };
        if let Some(class) = class {
            spec["priorityClassName"] = class["metadata"]["name"].clone();
            spec["priority"] = class["value"].clone();
            if class["preemptionPolicy"].is_string() {
                spec["preemptionPolicy"] = class["preemptionPolicy"].clone();
            }
        }
        Ok(())
    }
}
