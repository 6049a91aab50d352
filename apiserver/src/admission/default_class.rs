//! Ingresses and claims that name no class get the default one.
//!
//! Follows `plugin/pkg/admission/{network/defaultingressclass,storage/storageclass/setdefault}`.

use super::{Admission, AdmissionOperation, AdmissionRequest};
use crate::encode;
use crate::status::Status;
use async_trait::async_trait;
use serde_json::Value;
use store::{Range, Store};

const INGRESS_CLASSES: &str = "/registry/ingressclasses.networking.k8s.io/";
const STORAGE_CLASSES: &str = "/registry/storageclasses.storage.k8s.io/";

/// The plug-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultClasses;

#[async_trait]
impl Admission for DefaultClasses {
    async fn admit(&self, request: &AdmissionRequest<'_>, object: &mut Value) -> Result<(), Status> {
        let concerns = request.operation == AdmissionOperation::Create
            && request.subresource.is_empty()
            && object["spec"].is_object();
        if !concerns {
            return Ok(());
        }
        match (&*request.kind.group, &*request.kind.plural) {
            ("networking.k8s.io", "ingresses") => {
                let annotated = object["metadata"]["annotations"]["kubernetes.io/ingress.class"].is_string();
                if !annotated && object["spec"]["ingressClassName"].is_null() {
                    let classes = defaults(request.store, INGRESS_CLASSES, "ingressclass").await?;
                    if classes.len() > 1 {
                        let why = format!("{} default IngressClasses were found, only 1 allowed", classes.len());
                        return Err(Status::forbidden("networking.k8s.io", "ingresses", request.name, &why));
                    }
                    put_name(object, "ingressClassName", classes.first());
                }
            }
            ("", "persistentvolumeclaims") if object["spec"]["storageClassName"].is_null() => {
                let mut classes = defaults(request.store, STORAGE_CLASSES, "storageclass").await?;
                // The newest of several; of one age, the first by name.
                let born = |class: &Value| class["metadata"]["creationTimestamp"].as_str().map(str::to_owned);
                classes.sort_by_key(|class| std::cmp::Reverse(born(class)));
                put_name(object, "storageClassName", classes.first());
            }
            _ => {}
        }
        Ok(())
    }
}

fn put_name(object: &mut Value, field: &str, class: Option<&Value>) {
    if let Some(class) = class {
        object["spec"][field] = class["metadata"]["name"].clone();
    }
}

/// The classes that are annotated as the default of their kind, by name.
async fn defaults(store: &dyn Store, prefix: &str, group: &str) -> Result<Vec<Value>, Status> {
    let annotation = format!("{group}.kubernetes.io/is-default-class");
    let page = store.range(Range { prefix: prefix.to_owned(), ..Range::default() }).await.map_err(Status::internal)?;
    let classes = page.items.iter().map(encode::parse).collect::<Result<Vec<_>, _>>()?;
    Ok(classes.into_iter().filter(|class| class["metadata"]["annotations"][&annotation] == "true").collect())
}
