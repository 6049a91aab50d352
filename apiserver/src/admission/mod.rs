//! Admission: plug-ins that may change or refuse a write after defaulting and before validation.
//!
//! Namespace lifecycle is not one of them; the handler itself sees to it, in the transaction.

mod default_class;
mod limit_ranger;
mod priority;
mod service_account;
#[cfg(test)]
mod tests;

pub use default_class::DefaultClasses;
pub use limit_ranger::LimitRanger;
pub use priority::Priority;
pub use service_account::ServiceAccounts;

use crate::authn::UserInfo;
use crate::registry::{Registry, ResourceKind};
use crate::status::Status;
use async_trait::async_trait;
use serde_json::Value;
use std::sync::Arc;
use store::Store;

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
    /// The object's name.
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
}

/// A plug-in.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// May change `object` (`Null` for a delete), or refuse it.
    async fn admit(&self, request: &AdmissionRequest<'_>, object: &mut Value) -> Result<(), Status>;
}

/// The plug-ins of a complete API server, in their order.
pub fn standard() -> Vec<Arc<dyn Admission>> {
    vec![Arc::new(ServiceAccounts), Arc::new(Priority), Arc::new(LimitRanger), Arc::new(DefaultClasses)]
}
