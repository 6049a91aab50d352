//! Which kinds the API serves, for the controllers that deal with all of them.

use kube::discovery::{ApiResource, Discovery, Scope, verbs};

/// A kind as discovery lists it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub(crate) resource: ApiResource,
    pub(crate) is_namespaced: bool,
    pub(crate) has_delete_collection: bool,
}

/// Every kind that can be listed, watched and deleted, in its preferred version.
pub(crate) async fn kinds(client: &kube::Client) -> Result<Vec<Kind>, kube::Error> {
    let discovery = match Discovery::new(client.clone()).run_aggregated().await {
        // A server without aggregated discovery answers with another document, in which nothing is found.
        Ok(discovery) if discovery.groups().next().is_some() => discovery,
        _ => Discovery::new(client.clone()).run().await?,
    };
    let mut kinds: Vec<Kind> = discovery
        .groups()
        .flat_map(|group| group.recommended_resources())
        .filter(|(_, capabilities)| {
            [verbs::LIST, verbs::WATCH, verbs::DELETE].iter().all(|verb| capabilities.supports_operation(verb))
        })
        .map(|(resource, capabilities)| Kind {
            is_namespaced: capabilities.scope == Scope::Namespaced,
            has_delete_collection: capabilities.supports_operation(verbs::DELETE_COLLECTION),
            resource,
        })
        .collect();
    kinds.sort_by(|a, b| (&a.resource.group, &a.resource.plural).cmp(&(&b.resource.group, &b.resource.plural)));
    Ok(kinds)
}
