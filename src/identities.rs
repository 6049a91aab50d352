//! Who each component of the cluster is: the user it works as, and nothing more than that user's rights.
//!
//! The roles are the API server's default ones. The informers, which all components share, read as kube-controller-manager, whose
//! role lists and watches everything and writes next to nothing, as upstream's shared informers do.

use apiserver::authn::UserInfo;

/// The shared informers, and what tells events.
pub(crate) fn controller_manager() -> UserInfo {
    UserInfo::new("system:kube-controller-manager", &[])
}

/// A node.
pub(crate) fn node(name: &str) -> UserInfo {
    UserInfo::new(format!("system:node:{name}"), &["system:nodes"])
}

/// A component of the `controllers` crate, by the name it has in logs and events.
pub(crate) fn component(name: &str) -> UserInfo {
    match name {
        "default-scheduler" => return UserInfo::new("system:kube-scheduler", &[]),
        // It writes tokens for all service accounts, its own included.
        "tokens-controller" => return controller_manager(),
        _ => {}
    }
    let account = match name {
        "certificatesigningrequest-approving-controller"
        | "certificatesigningrequest-cleaner-controller"
        | "certificatesigningrequest-signing-controller" => "certificate-controller",
        "daemonset-controller" => "daemon-set-controller",
        "default-namespaces" => "default-namespaces-controller",
        "garbage-collector" => "generic-garbage-collector",
        "node-lifecycle-controller" | "taint-eviction-controller" => "node-controller",
        "persistentvolume-controller" => "persistent-volume-binder",
        "persistentvolume-protection-controller" => "pv-protection-controller",
        "persistentvolumeclaim-protection-controller" => "pvc-protection-controller",
        "root-ca-certificate-publisher" => "root-ca-cert-publisher",
        "serviceaccount-controller" => "service-account-controller",
        other => other,
    };
    let user = format!("system:serviceaccount:kube-system:{account}");
    UserInfo::new(user, &["system:serviceaccounts", "system:serviceaccounts:kube-system"])
}
