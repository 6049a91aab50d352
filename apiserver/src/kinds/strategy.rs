//! What a write may not touch: `prepare` of kinds that need nothing special, and its parts for those that do.

use super::json::{carry_over, put};
use crate::registry::ResourceKind;
use serde_json::Value;

/// Fields of the metadata that only the server writes.
const SERVER_METADATA: [&str; 3] =
    ["/metadata/generation", "/metadata/deletionTimestamp", "/metadata/deletionGracePeriodSeconds"];

/// On create without `status`, on update with the status as it was; through `/status` nothing but status and metadata.
pub(crate) fn prepare(kind: &ResourceKind, new: &mut Value, old: Option<&Value>, subresource: &str) {
    match old {
        None => {
            if kind.has_subresource("status") {
                put(new, "status", None);
            }
            for pointer in SERVER_METADATA {
                super::json::remove(new, pointer);
            }
        }
        Some(old) => {
            metadata(new, old);
            if subresource == "status" {
                keep_all_but(new, old, &["status", "metadata"]);
            } else if kind.has_subresource("status") {
                carry_over(new, old, "/status");
            }
        }
    }
}

/// Carries over the metadata that clients do not write.
pub(crate) fn metadata(new: &mut Value, old: &Value) {
    for pointer in SERVER_METADATA {
        carry_over(new, old, pointer);
    }
    // A client that leaves them out does not want them changed; one that sends others is told so by validation.
    for pointer in ["/metadata/uid", "/metadata/creationTimestamp"] {
        if super::json::is_unset(new, pointer) {
            carry_over(new, old, pointer);
        }
    }
}

/// Makes every field of the object what it was, but for these.
pub(crate) fn keep_all_but(new: &mut Value, old: &Value, but: &[&str]) {
    let mut kept = old.clone();
    for key in but {
        put(&mut kept, key, new.get(*key).cloned());
    }
    *new = kept;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ingress() -> ResourceKind {
        ResourceKind::new("networking.k8s.io", "v1", "Ingress", "ingresses").with_status()
    }

    #[test]
    fn status_is_dropped_on_create_and_kept_on_update() {
        let mut new = json!({"metadata": {"name": "a", "generation": 7}, "spec": 1, "status": 2});
        prepare(&ingress(), &mut new, None, "");
        assert_eq!(new, json!({"metadata": {"name": "a"}, "spec": 1}));

        let old = json!({"metadata": {"name": "a", "generation": 3, "uid": "u"}, "spec": 1, "status": 2});
        let mut new = json!({"metadata": {"name": "a", "labels": {"a": "b"}}, "spec": 8, "status": 9});
        prepare(&ingress(), &mut new, Some(&old), "");
        let expected = json!({"metadata": {"name": "a", "generation": 3, "uid": "u", "labels": {"a": "b"}}, "spec": 8, "status": 2});
        assert_eq!(new, expected);
    }

    #[test]
    fn the_status_subresource_changes_no_spec() {
        let old = json!({"metadata": {"name": "a"}, "spec": 1, "status": 2});
        let mut new = json!({"metadata": {"name": "a", "finalizers": ["x/y"]}, "spec": 8, "status": 9});
        prepare(&ingress(), &mut new, Some(&old), "status");
        assert_eq!(new, json!({"metadata": {"name": "a", "finalizers": ["x/y"]}, "spec": 1, "status": 9}));
    }

    #[test]
    fn a_kind_without_status_subresource_keeps_what_the_client_wrote() {
        let kind = ResourceKind::new("", "v1", "ConfigMap", "configmaps");
        let mut new = json!({"metadata": {"name": "a"}, "status": 9});
        prepare(&kind, &mut new, None, "");
        assert_eq!(new["status"], 9);
    }
}
