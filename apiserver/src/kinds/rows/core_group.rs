//! The rows of the group without a name.

use super::{EDIT, PROXY, core, event_row, replica_columns, text, virtual_kind, wide};
use crate::kinds::allocation::Allocator;
use crate::kinds::table::name_and_age;
use crate::kinds::{config, endpoints, limits, misc, node, pod, quota, service, volumes, warnings, workload};
use crate::registry::{NameRule, ResourceKind};
use std::sync::Arc;

pub(super) fn rows(allocator: &Arc<Allocator>) -> Vec<ResourceKind> {
    vec![
        virtual_kind("", "Binding", "bindings"),
        core("ComponentStatus", "componentstatuses")
            .cluster_scoped()
            .with_short_names(&["cs"])
            .with_verbs(&["get", "list"])
            .with_table([text("Status"), text("Message"), text("Error")], misc::component_row),
        core("ConfigMap", "configmaps")
            .with_short_names(&["cm"])
            .with_table([text("Data"), text("Age")], config::config_map_row)
            .with_validation(config::config_map),
        core("Endpoints", "endpoints")
            .with_short_names(&["ep"])
            .with_table([text("Endpoints"), text("Age")], endpoints::endpoints_row)
            .with_defaults(endpoints::default_endpoints)
            .with_validation(endpoints::endpoints),
        event_row(core("Event", "events")).with_selectable_fields(&[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ]),
        core("LimitRange", "limitranges")
            .with_short_names(&["limits"])
            .with_defaults(limits::default_limit_range)
            .with_validation(limits::limit_range),
        core("Namespace", "namespaces")
            .cluster_scoped()
            .with_short_names(&["ns"])
            .with_verbs(&["create", "delete", "get", "list", "patch", "update", "watch"])
            .with_name_rule(NameRule::Label)
            .with_subresource("finalize", "Namespace", &["update"])
            .with_status()
            .with_selectable_fields(&["status.phase"])
            .with_table([text("Status"), text("Age")], node::namespace_row)
            .with_defaults(node::default_namespace)
            .with_prepare(node::prepare_namespace),
        core("Node", "nodes")
            .cluster_scoped()
            .with_short_names(&["no"])
            .with_subresource("proxy", "NodeProxyOptions", &PROXY)
            .with_status()
            .with_selectable_fields(&["spec.unschedulable"])
            .with_table(
                [
                    text("Status"),
                    text("Roles"),
                    text("Age"),
                    text("Version"),
                    wide("Internal-IP"),
                    wide("External-IP"),
                    wide("OS-Image"),
                    wide("Kernel-Version"),
                    wide("Container-Runtime"),
                ],
                node::row,
            )
            .with_defaults(node::default)
            .with_validation(node::errors)
            .with_warnings(warnings::node)
            .with_prepare(node::prepare),
        core("PersistentVolumeClaim", "persistentvolumeclaims")
            .with_short_names(&["pvc"])
            .with_status()
            .with_table(
                [
                    text("Status"),
                    text("Volume"),
                    text("Capacity"),
                    text("Access Modes"),
                    text("StorageClass"),
                    text("VolumeAttributesClass"),
                    text("Age"),
                    wide("VolumeMode"),
                ],
                volumes::claim_row,
            )
            .with_defaults(volumes::default_claim)
            .with_validation(volumes::claim)
            .with_warnings(warnings::claim)
            .with_update_validation(volumes::claim_update),
        core("PersistentVolume", "persistentvolumes")
            .cluster_scoped()
            .with_short_names(&["pv"])
            .with_status()
            .with_table(
                [
                    text("Capacity"),
                    text("Access Modes"),
                    text("Reclaim Policy"),
                    text("Status"),
                    text("Claim"),
                    text("StorageClass"),
                    text("VolumeAttributesClass"),
                    text("Reason"),
                    text("Age"),
                    wide("VolumeMode"),
                ],
                volumes::volume_row,
            )
            .with_defaults(volumes::default_volume)
            .with_validation(volumes::volume)
            .with_warnings(warnings::volume),
        pod(),
        core("PodTemplate", "podtemplates")
            .with_generation()
            .with_table([text("Containers"), text("Images"), text("Pod Labels")], misc::pod_template_row)
            .with_defaults(pod::defaults::default_template)
            .with_validation(pod::validation::template_object),
        core("ReplicationController", "replicationcontrollers")
            .with_short_names(&["rc"])
            .with_categories(&["all"])
            .with_generation()
            .with_selectable_fields(&["status.replicas"])
            .with_scale("/spec/selector")
            .with_status()
            .with_table(replica_columns(), workload::replicas_row)
            .with_defaults(workload::default_replication_controller)
            .with_validation(workload::replication_controller)
            .with_warnings(warnings::workload),
        core("ResourceQuota", "resourcequotas")
            .with_short_names(&["quota"])
            .with_status()
            .with_table([text("Request"), text("Limit"), text("Age")], quota::row)
            .with_defaults(quota::default)
            .with_validation(quota::errors),
        core("Secret", "secrets")
            .with_selectable_fields(&["type"])
            .with_table([text("Type"), text("Data"), text("Age")], config::secret_row)
            .with_defaults(config::default_secret)
            .with_validation(config::secret),
        core("ServiceAccount", "serviceaccounts")
            .with_short_names(&["sa"])
            .with_foreign_subresource("token", ("authentication.k8s.io", "v1", "TokenRequest"), &["create"])
            .with_table([text("Age")], name_and_age)
            .with_warnings(warnings::service_account),
        core("Service", "services")
            .with_short_names(&["svc"])
            .with_categories(&["all"])
            .with_name_rule(NameRule::Label)
            .with_selectable_fields(&["spec.clusterIP", "spec.type"])
            .with_table(
                [text("Type"), text("Cluster-IP"), text("External-IP"), text("Port(s)"), text("Age"), wide("Selector")],
                service::row,
            )
            .with_defaults(service::default)
            .with_validation(service::errors)
            .with_warnings(warnings::service)
            .with_update_validation(service::update_errors)
            .with_prepare(service::prepare)
            .with_companion(allocator.clone())
            .with_subresource("proxy", "ServiceProxyOptions", &PROXY)
            .with_status(),
    ]
}

fn pod() -> ResourceKind {
    let mut pod = core("Pod", "pods")
        .with_short_names(&["po"])
        .with_categories(&["all"])
        .with_generation()
        .with_subresource("attach", "PodAttachOptions", &["create", "get"])
        .with_subresource("binding", "Binding", &["create"])
        .with_subresource("ephemeralcontainers", "Pod", &EDIT)
        .with_foreign_subresource("eviction", ("policy", "v1", "Eviction"), &["create"])
        .with_subresource("exec", "PodExecOptions", &["create", "get"])
        .with_subresource("log", "Pod", &["get"])
        .with_subresource("portforward", "PodPortForwardOptions", &["create", "get"])
        .with_subresource("proxy", "PodProxyOptions", &PROXY)
        .with_subresource("resize", "Pod", &EDIT)
        .with_status()
        .with_selectable_fields(&[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ])
        .with_table(
            [
                text("Ready"),
                text("Status"),
                text("Restarts"),
                text("Age"),
                wide("IP"),
                wide("Node"),
                wide("Nominated Node"),
                wide("Readiness Gates"),
            ],
            pod::row,
        )
        .with_defaults(pod::default)
        .with_validation(pod::errors)
        .with_warnings(pod::warnings::warnings)
        .with_update_validation(pod::update_errors)
        .with_prepare(pod::prepare);
    pod.graceful_deletion = true;
    pod
}
