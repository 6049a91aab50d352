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
            | ("rbac.authorization.k8s.io", _)
            | ("node.k8s.io", "runtimeclasses")
    )
}

/// Whether an update may go without a resourceVersion (`AllowUnconditionalUpdate`).
pub(crate) fn updates_unconditionally(kind: &ResourceKind) -> bool {
    let never = matches!(
        resource(kind),
        ("coordination.k8s.io", "leases")
            | ("node.k8s.io", "runtimeclasses")
            | ("policy", "poddisruptionbudgets")
            | ("apps", "controllerrevisions")
            | ("storage.k8s.io", "csidrivers" | "csinodes" | "csistoragecapacities" | "volumeattachments")
            | ("admissionregistration.k8s.io" | "apiextensions.k8s.io" | "apiregistration.k8s.io", _)
    );
    // Nor does any kind that is defined at run time.
    !never && kind.schema.is_none()
}

/// What of the metadata counts up the generation when it changes, beside the spec.
pub(crate) fn metadata_counts(kind: &ResourceKind) -> &'static [&'static str] {
    match resource(kind) {
        ("apps", "deployments") => &["/metadata/annotations"],
        ("discovery.k8s.io", "endpointslices") => &["/metadata/labels"],
        _ => &[],
    }
}

/// Whether a delete that does not say what becomes of the dependents leaves them (`DefaultGarbageCollectionPolicy`).
pub(crate) fn orphans_by_default(kind: &ResourceKind) -> bool {
    matches!(resource(kind), ("batch", "jobs") | ("", "replicationcontrollers"))
}

/// What a delete that does not say what becomes of the dependents is told.
pub(crate) fn deletion_warning(kind: &ResourceKind) -> Option<&'static str> {
    const JOB: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to \
        remove them or set propagationPolicy=Orphan to suppress this warning";
    (resource(kind) == ("batch", "jobs")).then_some(JOB)
}

/// Why nobody deletes the object of this name.
pub(crate) fn immortal(kind: &ResourceKind, name: &str) -> Option<&'static str> {
    match (resource(kind), name) {
        (("", "namespaces"), "default" | "kube-public" | "kube-system") => Some("this namespace may not be deleted"),
        (("scheduling.k8s.io", "priorityclasses"), "system-cluster-critical" | "system-node-critical") => {
            Some("this is a system priority class and cannot be deleted")
        }
        _ => None,
    }
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
