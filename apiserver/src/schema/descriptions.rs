//! Descriptions of the built-in types for [`openapi`](super::openapi), from the documentation that `k8s-openapi` carries.
//!
//! Only with the cargo feature `descriptions`, since the JSON schemas of all types take their time to compile. Read once, when the first
//! document is made.

use super::openapi::Describe;
use k8s_openapi::api::{
    admissionregistration, apps, authentication, authorization, autoscaling, batch, certificates, coordination, core,
    discovery, events, flowcontrol, networking, node, policy, rbac, resource, scheduling, storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration;
use k8s_openapi::schemars::SchemaGenerator;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// The description of an object and those of its fields.
#[derive(Debug, Default)]
struct Described {
    object: Option<String>,
    fields: HashMap<String, String>,
}

/// Gives the descriptions of all built-in types.
pub fn describe() -> Arc<Describe> {
    static TEXTS: OnceLock<HashMap<String, Described>> = OnceLock::new();
    Arc::new(|object, field| {
        let described = TEXTS.get_or_init(read).get(object)?;
        match field {
            None => described.object.clone(),
            Some(field) => described.fields.get(field).cloned(),
        }
    })
}

macro_rules! roots {
    ($generator:ident, $($kind:path),+ $(,)?) => {
        $( let _ = $generator.subschema_for::<$kind>(); )+
    };
}

fn read() -> HashMap<String, Described> {
    let mut generator = SchemaGenerator::default();
    // The kinds; everything else is a part of them.
    roots!(
        generator,
        admissionregistration::v1::MutatingWebhookConfiguration,
        admissionregistration::v1::ValidatingAdmissionPolicy,
        admissionregistration::v1::ValidatingAdmissionPolicyBinding,
        admissionregistration::v1::ValidatingWebhookConfiguration,
        apiextensions::v1::CustomResourceDefinition,
        apiregistration::v1::APIService,
        apps::v1::ControllerRevision,
        apps::v1::DaemonSet,
        apps::v1::Deployment,
        apps::v1::ReplicaSet,
        apps::v1::StatefulSet,
        authentication::v1::SelfSubjectReview,
        authentication::v1::TokenRequest,
        authentication::v1::TokenReview,
        authorization::v1::LocalSubjectAccessReview,
        authorization::v1::SelfSubjectAccessReview,
        authorization::v1::SelfSubjectRulesReview,
        authorization::v1::SubjectAccessReview,
        autoscaling::v1::HorizontalPodAutoscaler,
        autoscaling::v1::Scale,
        autoscaling::v2::HorizontalPodAutoscaler,
        batch::v1::CronJob,
        batch::v1::Job,
        certificates::v1::CertificateSigningRequest,
        coordination::v1::Lease,
        core::v1::Binding,
        core::v1::ComponentStatus,
        core::v1::ConfigMap,
        core::v1::Endpoints,
        core::v1::Event,
        core::v1::LimitRange,
        core::v1::Namespace,
        core::v1::Node,
        core::v1::PersistentVolume,
        core::v1::PersistentVolumeClaim,
        core::v1::Pod,
        core::v1::PodTemplate,
        core::v1::ReplicationController,
        core::v1::ResourceQuota,
        core::v1::Secret,
        core::v1::Service,
        core::v1::ServiceAccount,
        discovery::v1::EndpointSlice,
        events::v1::Event,
        flowcontrol::v1::FlowSchema,
        flowcontrol::v1::PriorityLevelConfiguration,
        meta::v1::DeleteOptions,
        meta::v1::Status,
        networking::v1::Ingress,
        networking::v1::IngressClass,
        networking::v1::IPAddress,
        networking::v1::NetworkPolicy,
        networking::v1::ServiceCIDR,
        node::v1::RuntimeClass,
        policy::v1::Eviction,
        policy::v1::PodDisruptionBudget,
        rbac::v1::ClusterRole,
        rbac::v1::ClusterRoleBinding,
        rbac::v1::Role,
        rbac::v1::RoleBinding,
        resource::v1::DeviceClass,
        resource::v1::ResourceClaim,
        resource::v1::ResourceClaimTemplate,
        resource::v1::ResourceSlice,
        scheduling::v1::PriorityClass,
        storage::v1::CSIDriver,
        storage::v1::CSINode,
        storage::v1::CSIStorageCapacity,
        storage::v1::StorageClass,
        storage::v1::VolumeAttachment,
    );
    let text = |value: &Value| value.get("description").and_then(Value::as_str).map(str::to_owned);
    let described = |schema: &Value| Described {
        object: text(schema),
        fields: schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(name, property)| Some((name.clone(), text(property)?)))
            .collect(),
    };
    generator
        .definitions()
        .iter()
        .map(|(name, schema)| (name.strip_prefix("io.k8s.").unwrap_or(name).to_owned(), described(schema)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_fields_have_their_descriptions() {
        let describe = describe();
        assert!(describe("api.core.v1.Pod", None).expect("a text").starts_with("Pod is a collection of containers"));
        assert!(
            describe("api.core.v1.PodSpec", Some("containers"))
                .expect("a text")
                .contains("containers belonging to the pod")
        );
        assert!(describe("api.core.v1.Pod", Some("nonsense")).is_none());
        assert!(describe("api.core.v1.Nonsense", None).is_none());
    }

    #[test]
    fn most_built_in_objects_are_described() {
        let describe = describe();
        let table = super::super::table::builtin();
        let missing: Vec<&str> = table
            .iter()
            .filter(|object| object.name.starts_with("api.core.v1.") && !object.name.ends_with("List"))
            .filter(|object| describe(&object.name, None).is_none())
            .map(|object| object.name.as_ref())
            .collect();
        assert!(missing.len() < 25, "{missing:?}");
    }
}
