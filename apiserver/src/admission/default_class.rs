//! Ingresses and claims that name no class get the default one: the newest of several.
//!
//! Follows `plugin/pkg/admission/{network/defaultingressclass,storage/storageclass/setdefault}`.

use super::{Admission, AdmissionRequest, Mutation};
use crate::status::Status;
use async_trait::async_trait;
use serde_json::Value;
use std::cmp::Reverse;

const INGRESS_CLASSES: &str = "/registry/ingressclasses.networking.k8s.io/";
const STORAGE_CLASSES: &str = "/registry/storageclasses.storage.k8s.io/";

/// The plug-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultClasses;

#[async_trait]
impl Admission for DefaultClasses {
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool {
        request.creates("networking.k8s.io", "ingresses") || request.creates("", "persistentvolumeclaims")
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Value) -> Result<Mutation, Status> {
        let (field, annotation, default) = if request.is_about("", "persistentvolumeclaims") {
            let annotation = "volume.beta.kubernetes.io/storage-class";
            ("storageClassName", annotation, newest_default(request, STORAGE_CLASSES, "storageclass").await?)
        } else {
            let annotation = "kubernetes.io/ingress.class";
            ("ingressClassName", annotation, newest_default(request, INGRESS_CLASSES, "ingressclass").await?)
        };
        let annotated = object["metadata"]["annotations"][annotation].is_string();
        match default {
            Some(class) if !annotated && object["spec"].is_object() && object["spec"][field].is_null() => {
                object["spec"][field] = class.into();
                Ok(Mutation::Changed)
            }
            _ => Ok(Mutation::Unchanged),
        }
    }
}

/// The class that is annotated as the default of its kind; of several the newest, of one age the first by name.
async fn newest_default(request: &AdmissionRequest<'_>, prefix: &str, group: &str) -> Result<Option<String>, Status> {
    let annotation = format!("{group}.kubernetes.io/is-default-class");
    let mut classes = request.objects(prefix).await?;
    classes.retain(|class| class["metadata"]["annotations"][&annotation] == "true");
    classes.sort_by_key(|class| Reverse(class["metadata"]["creationTimestamp"].as_str().map(str::to_owned)));
    Ok(classes.first().and_then(|class| class["metadata"]["name"].as_str()).map(str::to_owned))
}
