//! The chain of admission plug-ins, for one write: mutate → validate → settle. What they do is theirs ([`crate::admission`]).

use super::Call;
use crate::admission::{Admission, AdmissionOperation, AdmissionRequest, Mutation, Settlement};
use crate::registry::Registry;
use crate::status::Status;
use serde_json::Value;
use std::sync::Arc;

/// One write before the chain.
pub(super) struct Chain<'a> {
    call: &'a Call,
    operation: AdmissionOperation,
    name: &'a str,
    subresource: &'a str,
    old: Option<&'a Value>,
    dry_run: bool,
    registry: Arc<Registry>,
}

impl Call {
    /// The chain for a write of `name`; `old` is what stands there now.
    pub(super) fn admission<'a>(
        &'a self,
        operation: AdmissionOperation,
        name: &'a str,
        subresource: &'a str,
        old: Option<&'a Value>,
        dry_run: bool,
    ) -> Chain<'a> {
        Chain { call: self, operation, name, subresource, old, dry_run, registry: self.server.registry() }
    }
}

impl Chain<'_> {
    fn request(&self) -> AdmissionRequest<'_> {
        let call = self.call;
        AdmissionRequest {
            operation: self.operation,
            kind: &call.kind,
            namespace: call.namespace(),
            name: self.name,
            subresource: self.subresource,
            user: &call.user,
            old: self.old,
            dry_run: self.dry_run,
            store: call.server.inner.store.as_ref(),
            registry: &self.registry,
            warnings: &call.warnings,
        }
    }

    fn plugins<'b>(&'b self, request: &'b AdmissionRequest<'b>) -> impl Iterator<Item = &'b Arc<dyn Admission>> {
        self.call.server.inner.config.admission.iter().filter(|plugin| plugin.handles(request))
    }

    /// First phase. An object that has been changed is defaulted again.
    pub(super) async fn mutate(&self, object: &mut Value) -> Result<(), Status> {
        let request = self.request();
        let mut changed = false;
        for plugin in self.plugins(&request) {
            changed |= plugin.mutate(&request, object).await? == Mutation::Changed;
        }
        if changed {
            self.call.fill_in(object);
        }
        Ok(())
    }

    /// Second phase, for an object that is valid by itself.
    pub(super) async fn validate(&self, object: &Value) -> Result<(), Status> {
        let request = self.request();
        for plugin in self.plugins(&request) {
            plugin.validate(&request, object).await?;
        }
        Ok(())
    }

    /// Third phase: what belongs into the transaction. `object` is `None` when the write removes it.
    pub(super) async fn settle(&self, mut object: Option<&mut Value>) -> Result<Settlement, Status> {
        let request = self.request();
        let mut all = Settlement::default();
        for plugin in self.plugins(&request) {
            let one = plugin.settle(&request, object.as_deref_mut()).await?;
            all.compares.extend(one.compares);
            all.operations.extend(one.operations);
            all.turns.extend(one.turns);
        }
        Ok(all)
    }
}
