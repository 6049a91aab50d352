//! Small facts about kinds that upstream keeps in their registry strategies.

use crate::registry::ResourceKind;

fn resource(kind: &ResourceKind) -> (&str, &str) {
    (&kind.group, &kind.plural)
}

/// Whether a PUT to a name that does not exist creates the object (`AllowCreateOnUpdate`).
pub(crate) fn creates_on_update(kind: &ResourceKind) -> bool {
    matches!(
        resource(kind),
        ("", "endpoints" | "events" | "limitranges" | "services")
            | ("events.k8s.io", "events")
            | ("coordination.k8s.io", "leases")
            | ("discovery.k8s.io", "endpointslices")
            | ("rbac.authorization.k8s.io", _)
            | ("node.k8s.io", "runtimeclasses")
            | ("scheduling.k8s.io", "priorityclasses")
    )
}

/// Whether an update may go without a resourceVersion (`AllowUnconditionalUpdate`).
pub(crate) fn updates_unconditionally(kind: &ResourceKind) -> bool {
    !matches!(
        resource(kind),
        ("coordination.k8s.io", "leases") | ("discovery.k8s.io", "endpointslices") | ("node.k8s.io", "runtimeclasses")
    )
}

/// Whether a delete answers with the object rather than with a Status (`ReturnDeletedObject`).
pub(crate) fn returns_deleted(kind: &ResourceKind) -> bool {
    matches!(
        resource(kind),
        (
            "",
            "pods"
                | "services"
                | "serviceaccounts"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "podtemplates"
                | "resourcequotas"
        ) | ("storage.k8s.io", "storageclasses" | "csinodes" | "csidrivers" | "volumeattachments")
    )
}

/// Whether this is the kind Namespace, which has finalizers in its spec too.
pub(crate) fn is_namespace(kind: &ResourceKind) -> bool {
    resource(kind) == ("", "namespaces")
}

/// Whether this is the kind Pod.
pub(crate) fn is_pod(kind: &ResourceKind) -> bool {
    resource(kind) == ("", "pods")
}
