//! Admission: plug-ins that may change, refuse, or account for a write.
//!
//! A write passes the chain in three phases, each in the order of [`standard`]:
//! 1. **mutate**, after decoding and defaulting. When a plug-in has changed the object, it is defaulted again.
//! 2. **validate**, after the kind's own validation, on the object as it would be stored.
//! 3. **settle**, with each attempt of the store's transaction: further conditions and writes that belong to this one. Only here
//!    can a plug-in count exactly, since what it read and what it writes stand or fall with the object.
//!
//! That a namespace is there and open is not a plug-in's; the handler itself sees to it, in the transaction.
//!
//! Follows `k8s.io/apiserver/pkg/admission`; the order is that of kube-apiserver's default plug-ins.

mod claim_resize;
mod default_class;
mod default_tolerations;
mod in_use_protection;
mod limit_ranger;
mod node_taints;
mod pod_amounts;
mod pod_security;
mod pod_topology_labels;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
#[cfg(test)]
mod tests;

pub use claim_resize::ClaimResize;
pub use default_class::DefaultClasses;
pub use default_tolerations::DefaultTolerations;
pub use in_use_protection::InUseProtection;
pub use limit_ranger::LimitRanger;
pub use node_taints::TaintNodesByCondition;
pub use pod_security::PodSecurity;
pub use pod_topology_labels::PodTopologyLabels;
pub use priority::Priority;
pub use resource_quota::ResourceQuotas;
pub use runtime_class::RuntimeClasses;
pub use service_account::ServiceAccounts;

use crate::authn::UserInfo;
use crate::encode;
use crate::registry::{Registry, ResourceKind};
use crate::status::Status;
use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;
use store::{Compare, Operation, Range, Store};
use tokio::sync::OwnedMutexGuard;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionOperation {
    /// POST, or the first server-side apply.
    Create,
    /// PUT or PATCH.
    Update,
    /// DELETE.
    Delete,
}

/// A write on its way in.
#[derive(Clone, Copy)]
pub struct AdmissionRequest<'a> {
    /// What is being done.
    pub operation: AdmissionOperation,
    /// The kind's row.
    pub kind: &'a ResourceKind,
    /// The object's namespace; `""` outside namespaces.
    pub namespace: &'a str,
    /// The object's name; while mutating, a name that is generated is not known yet, and this is its `generateName`.
    pub name: &'a str,
    /// `""` is the object itself.
    pub subresource: &'a str,
    /// Who asks.
    pub user: &'a UserInfo,
    /// What stands there now, for updates and deletes.
    pub old: Option<&'a Value>,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// To look up other objects.
    pub store: &'a dyn Store,
    /// Every kind.
    pub registry: &'a Registry,
    /// To say something beside the answer.
    pub warnings: &'a Mutex<Vec<String>>,
}

impl AdmissionRequest<'_> {
    /// Whether it is about a kind of the core group or another, by its plural.
    pub fn is_about(&self, group: &str, plural: &str) -> bool {
        self.kind.group == group && self.kind.plural == plural
    }

    /// Whether it makes a new object of this kind.
    pub fn creates(&self, group: &str, plural: &str) -> bool {
        self.operation == AdmissionOperation::Create && self.subresource.is_empty() && self.is_about(group, plural)
    }

    /// Says something to the client beside the answer, once.
    pub fn warn(&self, text: impl Into<String>) {
        let (text, mut said) = (text.into(), self.warnings.lock());
        if !said.contains(&text) {
            said.push(text);
        }
    }

    /// 403 for this object.
    pub fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(&self.kind.group, &self.kind.plural, self.name, why)
    }

    /// Every object of the store under a prefix.
    ///
    /// # Errors
    /// What stands there cannot be read.
    pub async fn objects(&self, prefix: &str) -> Result<Vec<Value>, Status> {
        let range = Range { prefix: prefix.to_owned(), ..Range::default() };
        let page = self.store.range(range).await.map_err(Status::internal)?;
        page.items.iter().map(encode::parse).collect()
    }

    /// The object of the store under a key.
    ///
    /// # Errors
    /// What stands there cannot be read.
    pub async fn object(&self, key: &str) -> Result<Option<Value>, Status> {
        self.store.get(key).await.map_err(Status::internal)?.as_ref().map(encode::parse).transpose()
    }
}

/// Whether a plug-in has changed the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The object is as it was.
    Unchanged,
    /// The object has changed, and is to be defaulted again.
    Changed,
}

/// What is committed together with the object's own write.
#[derive(Debug, Default)]
pub struct Settlement {
    /// Conditions. When one does not hold, the plug-ins are asked again.
    pub compares: Vec<Compare>,
    /// Writes of other keys.
    pub operations: Vec<Operation>,
    /// Held until the transaction is done, so that writers of the same keys take turns rather than race.
    pub turns: Vec<OwnedMutexGuard<()>>,
}

/// A plug-in.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Whether it has anything to do with the request. Asked first in each phase, and cheap.
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool;

    /// May change `object`, or refuse it. Not asked on deletes.
    async fn mutate(&self, _: &AdmissionRequest<'_>, _object: &mut Value) -> Result<Mutation, Status> {
        Ok(Mutation::Unchanged)
    }

    /// May refuse `object` (`Null` for a delete).
    async fn validate(&self, _: &AdmissionRequest<'_>, _object: &Value) -> Result<(), Status> {
        Ok(())
    }

    /// What has to be written with `object` (`None`: the write removes it), under which conditions; may still refuse it. Asked anew
    /// when the transaction loses a race. With `dry_run` nothing will be committed.
    async fn settle(&self, _: &AdmissionRequest<'_>, _object: Option<&mut Value>) -> Result<Settlement, Status> {
        Ok(Settlement::default())
    }
}

/// The plug-ins that kube-apiserver has by default, in its order. Those for nodes and certificates stand with authentication.
pub fn standard() -> Vec<Arc<dyn Admission>> {
    vec![
        Arc::new(LimitRanger),
        Arc::new(ServiceAccounts),
        Arc::new(TaintNodesByCondition),
        Arc::new(PodSecurity),
        Arc::new(PodTopologyLabels),
        Arc::new(Priority),
        Arc::new(DefaultTolerations),
        Arc::new(DefaultClasses),
        Arc::new(InUseProtection),
        Arc::new(ClaimResize),
        Arc::new(RuntimeClasses),
        // Last, so that nothing is charged that somebody refuses.
        Arc::new(ResourceQuotas::default()),
    ]
}
