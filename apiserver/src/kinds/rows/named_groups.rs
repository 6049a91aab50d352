//! The rows of the groups that have a name.

use super::{EDIT, boolean, event_row, integer, replica_columns, text, v1, virtual_kind, wide};
use crate::kinds::table::{name_and_age, name_and_creation};
use crate::kinds::{
    admin_network_policy, autoscaling, batch, cluster_network_policy, definition, devices, endpoints, event,
    extensions, flow_control, ingress, misc, network_policy, rbac, signing_request, storage, volumes, warnings,
    workload,
};
use crate::registry::{Column, NameRule, ResourceKind};

pub(super) fn rows() -> Vec<ResourceKind> {
    let (apps, networking, storage) = ("apps", "networking.k8s.io", "storage.k8s.io");
    let (rbac, admission) = ("rbac.authorization.k8s.io", "admissionregistration.k8s.io");
    let (resource, flow) = ("resource.k8s.io", "flowcontrol.apiserver.k8s.io");
    let workload = |kind, plural, short: &[&'static str]| {
        v1(apps, kind, plural)
            .with_short_names(short)
            .with_categories(&["all"])
            .with_generation()
            .with_warnings(warnings::workload)
    };
    let rbac_row = |kind, plural| v1(rbac, kind, plural).with_name_rule(NameRule::PathSegment);
    let extension = |kind, plural| {
        v1(admission, kind, plural)
            .cluster_scoped()
            .with_categories(&["api-extensions"])
            .with_generation()
            .with_warnings(warnings::not_acted_on)
    };
    vec![
        v1("apiregistration.k8s.io", "APIService", "apiservices")
            .cluster_scoped()
            .with_categories(&["api-extensions"])
            .with_status()
            .with_table([text("Service"), text("Available"), text("Age")], misc::api_service_row)
            .with_warnings(warnings::not_acted_on)
            .with_defaults(extensions::default_api_service)
            .with_prepare(extensions::prepare_api_service)
            .with_validation(extensions::api_service),
        v1(apps, "ControllerRevision", "controllerrevisions")
            .with_table([text("Controller"), text("Revision"), text("Age")], misc::revision_row),
        workload("DaemonSet", "daemonsets", &["ds"])
            .with_status()
            .with_table(
                ["Desired", "Current", "Ready", "Up-to-date", "Available"].map(integer).into_iter().chain([
                    text("Node Selector"),
                    text("Age"),
                    wide("Containers"),
                    wide("Images"),
                    wide("Selector"),
                ]),
                workload::daemon_set_row,
            )
            .with_defaults(workload::default_daemon_set)
            .with_validation(workload::daemon_set),
        workload("Deployment", "deployments", &["deploy"])
            .with_scale("/spec/selector")
            .with_status()
            .with_table(
                [
                    text("Ready"),
                    text("Up-to-date"),
                    text("Available"),
                    text("Age"),
                    wide("Containers"),
                    wide("Images"),
                    wide("Selector"),
                ],
                workload::deployment_row,
            )
            .with_defaults(workload::default_deployment)
            .with_validation(workload::deployment)
            .with_prepare(workload::prepare),
        workload("ReplicaSet", "replicasets", &["rs"])
            .with_selectable_fields(&["status.replicas"])
            .with_scale("/spec/selector")
            .with_status()
            .with_table(replica_columns(), workload::replicas_row)
            .with_defaults(workload::default_replica_set)
            .with_validation(workload::replica_set),
        workload("StatefulSet", "statefulsets", &["sts"])
            .with_scale("/spec/selector")
            .with_status()
            .with_table([text("Ready"), text("Age"), wide("Containers"), wide("Images")], workload::stateful_set_row)
            .with_defaults(workload::default_stateful_set)
            .with_validation(workload::stateful_set)
            .with_update_validation(workload::stateful_set_update),
        {
            let mut view = event_row(v1("events.k8s.io", "Event", "events")).with_selectable_fields(&[
                "regarding.kind",
                "regarding.namespace",
                "regarding.name",
                "regarding.uid",
                "regarding.apiVersion",
                "regarding.resourceVersion",
                "regarding.fieldPath",
                "reason",
                "reportingController",
                "type",
            ]);
            view.view_of = Some(event::view());
            view
        },
        virtual_kind("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews").cluster_scoped(),
        virtual_kind("authentication.k8s.io", "TokenReview", "tokenreviews").cluster_scoped(),
        virtual_kind("authorization.k8s.io", "LocalSubjectAccessReview", "localsubjectaccessreviews"),
        virtual_kind("authorization.k8s.io", "SelfSubjectAccessReview", "selfsubjectaccessreviews").cluster_scoped(),
        virtual_kind("authorization.k8s.io", "SelfSubjectRulesReview", "selfsubjectrulesreviews").cluster_scoped(),
        virtual_kind("authorization.k8s.io", "SubjectAccessReview", "subjectaccessreviews").cluster_scoped(),
        scaler_row("v2"),
        {
            let mut view = scaler_row("v1");
            view.view_of = Some(autoscaling::view());
            view
        },
        v1("batch", "CronJob", "cronjobs")
            .with_short_names(&["cj"])
            .with_categories(&["all"])
            .with_generation()
            .with_status()
            .with_table(
                [
                    text("Schedule"),
                    text("Timezone"),
                    boolean("Suspend"),
                    integer("Active"),
                    text("Last Schedule"),
                    text("Age"),
                    wide("Containers"),
                    wide("Images"),
                    wide("Selector"),
                ],
                batch::cron_job_row,
            )
            .with_defaults(batch::default_cron_job)
            .with_validation(batch::cron_job)
            .with_warnings(warnings::cron_job),
        v1("batch", "Job", "jobs")
            .with_categories(&["all"])
            .with_generation()
            .with_selectable_fields(&["status.successful"])
            .with_status()
            .with_table(
                [
                    text("Status"),
                    text("Completions"),
                    text("Duration"),
                    text("Age"),
                    wide("Containers"),
                    wide("Images"),
                    wide("Selector"),
                ],
                batch::job_row,
            )
            .with_defaults(batch::default_job)
            .with_validation(batch::job)
            .with_warnings(warnings::workload),
        v1("certificates.k8s.io", "CertificateSigningRequest", "certificatesigningrequests")
            .cluster_scoped()
            .with_short_names(&["csr"])
            .with_selectable_fields(&["spec.signerName"])
            .with_subresource("approval", "CertificateSigningRequest", &EDIT)
            .with_status()
            .with_table(
                [text("Age"), text("SignerName"), text("Requestor"), text("RequestedDuration"), text("Condition")],
                misc::signing_request_row,
            )
            .with_prepare(signing_request::prepare)
            .with_validation(signing_request::errors),
        v1(networking, "IngressClass", "ingressclasses")
            .cluster_scoped()
            .with_generation()
            .with_table([text("Controller"), text("Parameters"), text("Age")], ingress::class_row)
            .with_defaults(ingress::default_class)
            .with_validation(ingress::class),
        v1(networking, "Ingress", "ingresses")
            .with_short_names(&["ing"])
            .with_generation()
            .with_status()
            .with_table([text("Class"), text("Hosts"), text("Address"), text("Ports"), text("Age")], ingress::row)
            .with_validation(ingress::errors)
            .with_warnings(warnings::ingress),
        v1(networking, "IPAddress", "ipaddresses")
            .cluster_scoped()
            .with_short_names(&["ip"])
            .with_name_rule(NameRule::IpAddress)
            .with_table([text("ParentRef")], misc::ip_address_row)
            .with_validation(misc::ip_address),
        v1(networking, "NetworkPolicy", "networkpolicies")
            .with_short_names(&["netpol"])
            .with_generation()
            .with_table([text("Pod-Selector"), text("Age")], network_policy::row)
            .with_defaults(network_policy::default)
            .with_validation(network_policy::errors)
            .with_warnings(warnings::network_policy),
        v1(networking, "ServiceCIDR", "servicecidrs")
            .cluster_scoped()
            .with_status()
            .with_table([text("CIDRs"), text("Age")], misc::service_cidr_row)
            .with_validation(misc::service_cidr),
        v1("policy", "PodDisruptionBudget", "poddisruptionbudgets")
            .with_short_names(&["pdb"])
            .with_generation()
            .with_status()
            .with_table(
                [text("Min Available"), text("Max Unavailable"), integer("Allowed Disruptions"), text("Age")],
                autoscaling::budget_row,
            )
            .with_defaults(autoscaling::default_budget)
            .with_validation(autoscaling::budget),
        binding_row(rbac_row("ClusterRoleBinding", "clusterrolebindings").cluster_scoped()),
        rbac_row("ClusterRole", "clusterroles").cluster_scoped().with_validation(rbac::cluster_role),
        binding_row(rbac_row("RoleBinding", "rolebindings")),
        rbac_row("Role", "roles").with_validation(rbac::role),
        v1(storage, "CSIDriver", "csidrivers")
            .cluster_scoped()
            .with_table(
                [
                    boolean("AttachRequired"),
                    boolean("PodInfoOnMount"),
                    boolean("StorageCapacity"),
                    text("TokenRequests"),
                    boolean("RequiresRepublish"),
                    text("Modes"),
                    text("Age"),
                ],
                volumes::driver_row,
            )
            .with_defaults(volumes::default_driver)
            .with_validation(storage::driver),
        v1(storage, "CSINode", "csinodes")
            .cluster_scoped()
            .with_table([integer("Drivers"), text("Age")], volumes::csi_node_row)
            .with_validation(storage::csi_node),
        v1(storage, "CSIStorageCapacity", "csistoragecapacities").with_validation(storage::capacity),
        v1(storage, "StorageClass", "storageclasses")
            .cluster_scoped()
            .with_short_names(&["sc"])
            .with_table(
                [
                    text("Provisioner"),
                    text("ReclaimPolicy"),
                    text("VolumeBindingMode"),
                    text("AllowVolumeExpansion"),
                    text("Age"),
                ],
                volumes::class_row,
            )
            .with_defaults(volumes::default_class)
            .with_validation(volumes::class)
            .with_warnings(warnings::storage_class),
        v1(storage, "VolumeAttachment", "volumeattachments")
            .cluster_scoped()
            .with_status()
            .with_table(
                [
                    Column { format: "name".into(), ..text("Attacher") },
                    text("PV"),
                    text("Node"),
                    boolean("Attached"),
                    text("Age"),
                ],
                volumes::attachment_row,
            )
            .with_validation(storage::attachment),
        v1(storage, "VolumeAttributesClass", "volumeattributesclasses")
            .cluster_scoped()
            .with_short_names(&["vac"])
            .with_table([text("DriverName"), text("Age")], volumes::attributes_class_row)
            .with_validation(storage::attributes_class),
        extension("MutatingAdmissionPolicy", "mutatingadmissionpolicies")
            .with_table([integer("Mutations"), text("ParamKind"), text("Age")], misc::admission_policy_row)
            .with_defaults(extensions::default_policy)
            .with_validation(extensions::policy),
        extension("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
            .with_table([text("PolicyName"), text("ParamRef"), text("Age")], misc::admission_binding_row)
            .with_validation(extensions::policy_binding),
        extension("MutatingWebhookConfiguration", "mutatingwebhookconfigurations")
            .with_table([integer("Webhooks"), text("Age")], misc::webhooks_row)
            .with_defaults(extensions::default_webhooks)
            .with_validation(extensions::webhooks),
        extension("ValidatingAdmissionPolicy", "validatingadmissionpolicies")
            .with_status()
            .with_table([integer("Validations"), text("ParamKind"), text("Age")], misc::admission_policy_row)
            .with_defaults(extensions::default_policy)
            .with_validation(extensions::policy),
        extension("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
            .with_table([text("PolicyName"), text("ParamRef"), text("Age")], misc::admission_binding_row)
            .with_validation(extensions::policy_binding),
        extension("ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
            .with_table([integer("Webhooks"), text("Age")], misc::webhooks_row)
            .with_defaults(extensions::default_webhooks)
            .with_validation(extensions::webhooks),
        v1("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions")
            .cluster_scoped()
            .with_short_names(&["crd", "crds"])
            .with_categories(&["api-extensions"])
            .with_generation()
            .with_table([Column::new("Created At", "date")], name_and_creation)
            .with_status()
            .with_warnings(warnings::not_acted_on)
            .with_defaults(extensions::default_definition)
            .with_prepare(extensions::prepare_definition)
            .with_validation(definition::errors),
        v1("scheduling.k8s.io", "PriorityClass", "priorityclasses")
            .cluster_scoped()
            .with_short_names(&["pc"])
            .with_generation()
            .with_table(
                [integer("Value"), boolean("Global-Default"), text("Age"), text("PreemptionPolicy")],
                volumes::priority_class_row,
            )
            .with_defaults(misc::default_priority_class)
            .with_validation(misc::priority_class),
        v1("coordination.k8s.io", "Lease", "leases")
            .with_table([text("Holder"), text("Age")], misc::lease_row)
            .with_validation(misc::lease),
        v1("node.k8s.io", "RuntimeClass", "runtimeclasses")
            .cluster_scoped()
            .with_table([text("Handler"), text("Age")], misc::runtime_class_row)
            .with_validation(misc::runtime_class),
        v1("discovery.k8s.io", "EndpointSlice", "endpointslices")
            .with_generation()
            .with_table([text("AddressType"), text("Ports"), text("Endpoints"), text("Age")], endpoints::slice_row)
            .with_defaults(endpoints::default_slice)
            .with_validation(endpoints::slice),
        v1(resource, "DeviceClass", "deviceclasses")
            .cluster_scoped()
            .with_generation()
            .with_table([text("Age")], name_and_age)
            .with_validation(devices::class),
        v1(resource, "ResourceClaim", "resourceclaims")
            .with_status()
            .with_table([text("State"), text("Age")], misc::resource_claim_row)
            .with_defaults(devices::default_claim)
            .with_validation(devices::claim),
        v1(resource, "ResourceClaimTemplate", "resourceclaimtemplates")
            .with_table([text("Age")], name_and_age)
            .with_defaults(devices::default_claim)
            .with_validation(devices::claim),
        v1(resource, "ResourceSlice", "resourceslices")
            .cluster_scoped()
            .with_generation()
            .with_selectable_fields(&["spec.nodeName", "spec.driver"])
            .with_table([text("Node"), text("Driver"), text("Pool"), text("Age")], misc::resource_slice_row)
            .with_validation(devices::slice),
        v1(flow, "FlowSchema", "flowschemas")
            .cluster_scoped()
            .with_generation()
            .with_status()
            .with_table(
                [
                    text("PriorityLevel"),
                    text("MatchingPrecedence"),
                    text("DistinguisherMethod"),
                    text("Age"),
                    text("MissingPL"),
                ],
                misc::flow_schema_row,
            )
            .with_defaults(flow_control::default_schema)
            .with_validation(flow_control::schema),
        v1(flow, "PriorityLevelConfiguration", "prioritylevelconfigurations")
            .cluster_scoped()
            .with_generation()
            .with_status()
            .with_table(
                [
                    text("Type"),
                    text("NominalConcurrencyShares"),
                    text("Queues"),
                    text("HandSize"),
                    text("QueueLengthLimit"),
                    text("Age"),
                ],
                misc::priority_level_row,
            )
            .with_defaults(flow_control::default_level)
            .with_validation(flow_control::level),
        ResourceKind::new("policy.networking.k8s.io", "v1alpha2", "ClusterNetworkPolicy", "clusternetworkpolicies")
            .cluster_scoped()
            .with_short_names(&["cnp"])
            .with_generation()
            .with_status()
            .with_table([text("Tier"), text("Priority"), text("Age")], cluster_network_policy::row)
            .with_schema(cluster_network_policy::schema())
            .with_validation(cluster_network_policy::errors),
        ResourceKind::new("policy.networking.k8s.io", "v1alpha1", "AdminNetworkPolicy", "adminnetworkpolicies")
            .cluster_scoped()
            .with_short_names(&["anp"])
            .with_generation()
            .with_status()
            .with_table([text("Priority"), text("Age")], admin_network_policy::row)
            .with_schema(admin_network_policy::schema())
            .with_defaults(admin_network_policy::default)
            .with_validation(admin_network_policy::errors),
        ResourceKind::new(
            "policy.networking.k8s.io",
            "v1alpha1",
            "BaselineAdminNetworkPolicy",
            "baselineadminnetworkpolicies",
        )
        .cluster_scoped()
        .with_short_names(&["banp"])
        .with_generation()
        .with_status()
        .with_table([text("Age")], admin_network_policy::baseline_row)
        .with_schema(admin_network_policy::baseline_schema())
        .with_defaults(admin_network_policy::default)
        .with_validation(admin_network_policy::baseline_errors),
    ]
}

fn scaler_row(version: &'static str) -> ResourceKind {
    ResourceKind::new("autoscaling", version, "HorizontalPodAutoscaler", "horizontalpodautoscalers")
        .with_short_names(&["hpa"])
        .with_categories(&["all"])
        .with_status()
        .with_table(
            [text("Reference"), text("Targets"), text("MinPods"), text("MaxPods"), text("Replicas"), text("Age")],
            autoscaling::scaler_row,
        )
        .with_defaults(autoscaling::default_scaler)
        .with_validation(autoscaling::scaler)
}

fn binding_row(row: ResourceKind) -> ResourceKind {
    row.with_table(
        [text("Role"), text("Age"), wide("Users"), wide("Groups"), wide("ServiceAccounts")],
        rbac::binding_row,
    )
    .with_defaults(rbac::default_binding)
    .with_validation(rbac::binding)
}
