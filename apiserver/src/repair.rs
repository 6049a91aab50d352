//! What companions keep beside objects, such as allocated addresses, is checked against those objects.

use crate::ApiServer;
use crate::registry::{Companion, Finding};
use crate::status::Status;
use futures::StreamExt;
use std::sync::Arc;
use store::EventKind;
use tokio::sync::mpsc;

impl ApiServer {
    /// Checks everything that is kept beside objects against the objects themselves, and repairs it. What was found is for
    /// somebody to be told.
    ///
    /// # Errors
    /// The store has stopped.
    pub async fn repair(&self) -> Result<Vec<Finding>, Status> {
        let mut findings = Vec::new();
        for companion in self.companions() {
            findings.extend(companion.repair(self.store().as_ref()).await?);
        }
        Ok(findings)
    }

    /// Puts back what is deleted although an object has need of it. Runs until it is dropped or nobody listens; the wiring spawns it.
    pub async fn keep_repaired(&self, found: mpsc::UnboundedSender<Finding>) {
        let store = self.store().clone();
        let keeping = self.companions().into_iter().filter_map(|companion| Some((companion.kept_under()?, companion)));
        let keeping = keeping.map(|(prefix, companion)| {
            let (store, found) = (store.clone(), found.clone());
            async move {
                loop {
                    let mut changes = store.watch(prefix, store.revision());
                    while let Some(Ok(batch)) = changes.next().await {
                        for event in batch.events.iter().filter(|event| event.kind == EventKind::Delete) {
                            if let Some(finding) = companion.restore(store.as_ref(), &event.kv).await
                                && found.send(finding).is_err()
                            {
                                return;
                            }
                        }
                    }
                    // Fallen behind, or the store has stopped.
                    let Ok(findings) = companion.repair(store.as_ref()).await else { return };
                    if findings.into_iter().any(|finding| found.send(finding).is_err()) {
                        return;
                    }
                }
            }
        });
        futures::future::join_all(keeping).await;
    }

    fn companions(&self) -> Vec<Arc<dyn Companion>> {
        self.registry().iter().filter_map(|kind| kind.companion.clone()).collect()
    }
}
