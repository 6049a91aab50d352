//! What only pods have: binding to a node, and eviction within the limits of a PodDisruptionBudget.
//!
//! Follows `pkg/registry/core/pod/storage` and the Eviction API (policy/v1).

use super::create::RACE_ATTEMPTS;
use super::delete::DeleteOptions;
use super::options::WriteOptions;
use super::{Call, no_such_resource};
use crate::admission::AdmissionOperation;
use crate::clock::rfc3339;
use crate::request::RequestInfo;
use crate::selector::Selector;
use crate::status::{FieldError, Status};
use crate::storage::{Stored, WriteError};
use crate::{encode, schema};
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use store::{Compare, KeyValue, Operation, Range};

impl Call {
    fn success(&self) -> Response {
        self.plain(
            StatusCode::CREATED,
            &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
        )
    }

    /// `POST pods/NAME/binding`: the scheduler's verdict.
    pub(super) async fn bind(&self, body: Body) -> Result<Response, Status> {
        let options = self.write_options("CreateOptions")?;
        let binding = self.body_of(body, ("", "v1", "Binding"), options.field_validation).await?;
        self.bind_to(&binding, &options).await
    }

    /// `POST bindings`: the same, with the pod's name in the body.
    pub(super) async fn bind_named(&self, body: Body) -> Result<Response, Status> {
        let options = self.write_options("CreateOptions")?;
        let binding = self.body_of(body, ("", "v1", "Binding"), options.field_validation).await?;
        let pods = self.server.registry().lookup("", "v1", "pods").cloned().ok_or_else(no_such_resource)?;
        let name = binding["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let info = RequestInfo { name, ..self.info.clone() };
        let call = Call {
            server: self.server.clone(),
            kind: pods,
            info,
            user: self.user.clone(),
            query: self.query.clone(),
            headers: self.headers.clone(),
            media: self.media,
            warnings: Mutex::default(),
        };
        call.bind_to(&binding, &options).await
    }

    async fn bind_to(&self, binding: &Value, options: &WriteOptions) -> Result<Response, Status> {
        let name = self.info.name.as_str();
        let refuse = |why: String| Status::conflict("", "pods/binding", name, &why);
        let node = binding["target"]["name"].as_str().unwrap_or_default();
        let mut errors = Vec::new();
        let kind = &binding["target"]["kind"];
        if !matches!(kind.as_str(), None | Some("" | "Node")) {
            errors.push(FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]));
        }
        if node.is_empty() {
            errors.push(FieldError::required("target.name", ""));
        }
        if !errors.is_empty() {
            return Err(Status::invalid("", "Binding", name, &errors));
        }
        for _ in 0..RACE_ATTEMPTS {
            let current = self.existing().await?;
            let mut pod = current.object.clone();
            let uid = binding["metadata"]["uid"].as_str().unwrap_or_default();
            if !uid.is_empty() && pod["metadata"]["uid"] != uid {
                let real = pod["metadata"]["uid"].as_str().unwrap_or_default();
                return Err(refuse(format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {real}"
                )));
            }
            if pod["metadata"]["deletionTimestamp"].is_string() {
                return Err(refuse(format!("pod {name} is being deleted, cannot be assigned to a host")));
            }
            if let Some(bound) = pod["spec"]["nodeName"].as_str().filter(|bound| !bound.is_empty()) {
                return Err(refuse(format!("pod {name} is already assigned to node {bound:?}")));
            }
            if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
                return Err(refuse(format!("pod {name} has non-empty .spec.schedulingGates")));
            }
            if !pod["spec"].is_object() {
                return Err(Status::internal("the pod has no spec"));
            }
            pod["spec"]["nodeName"] = node.into();
            let annotations = binding["metadata"]["annotations"].as_object();
            for (key, value) in annotations.into_iter().flatten() {
                pod["metadata"]["annotations"][key] = value.clone();
            }
            self.set_scheduled(&mut pod);
            let old = Some(&current.object);
            let admission = self.admission(AdmissionOperation::Create, name, "binding", old, options.dry_run);
            admission.mutate(&mut pod).await?;
            admission.validate(&pod).await?;
            match self.replace(&current, &pod, options.dry_run).await {
                Ok(_) => return Ok(self.success()),
                Err(WriteError::Raced(_)) => {}
                Err(WriteError::Status(status)) => return Err(status),
            }
        }
        Err(refuse("other writes kept coming first".to_owned()))
    }

    fn set_scheduled(&self, pod: &mut Value) {
        let condition = json!({
            "type": "PodScheduled", "status": "True", "lastProbeTime": null,
            "lastTransitionTime": rfc3339(self.server.now()),
        });
        let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        match conditions.iter_mut().find(|known| known["type"] == "PodScheduled") {
            Some(known) if known["status"] == "True" => {}
            Some(known) => *known = condition,
            None => conditions.push(condition),
        }
        pod["status"]["conditions"] = conditions.into();
    }

    /// `POST pods/NAME/eviction`: a delete that respects budgets.
    pub(super) async fn evict(&self, body: Body) -> Result<Response, Status> {
        let validation = schema::FieldValidation::Ignore;
        let eviction = self.body_of(body, ("policy", "v1", "Eviction"), validation).await?;
        let options = DeleteOptions::new(&eviction["deleteOptions"], self)?;
        let name = self.info.name.as_str();
        let named = eviction["metadata"]["name"].as_str().unwrap_or_default();
        if !named.is_empty() && named != name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        for _ in 0..RACE_ATTEMPTS {
            let pod = self.existing().await?;
            let running = pod.object["status"]["phase"] == "Running";
            let leaving = pod.object["metadata"]["deletionTimestamp"].is_string();
            if running && !leaving {
                match self.use_budget(&pod, options.dry_run).await {
                    Ok(()) => {}
                    Err(WriteError::Raced(_)) => continue,
                    Err(WriteError::Status(status)) => return Err(status),
                }
            }
            self.delete_object(name, &options).await?;
            return Ok(self.success());
        }
        Err(self.conflict(name, "other writes kept coming first"))
    }

    /// Takes one of the disruptions which the pod's budget allows, if it has a budget.
    async fn use_budget(&self, pod: &Stored, dry_run: bool) -> Result<(), WriteError> {
        let refused = |status| Err(WriteError::Status(status));
        let prefix = format!("/registry/poddisruptionbudgets.policy/{}/", self.namespace());
        let range = Range { prefix, ..Range::default() };
        let page = self.server.inner.store.range(range).await;
        let page = page.map_err(|why| WriteError::Status(Status::internal(why)))?;
        let mut found: Vec<(KeyValue, Value)> = Vec::new();
        for kv in page.items {
            let budget = encode::parse(&kv).map_err(WriteError::Status)?;
            if Selector::matches_label_selector(&budget["spec"]["selector"], &pod.object) {
                found.push((kv, budget));
            }
        }
        let (kv, mut budget) = match (found.pop(), found.is_empty()) {
            (None, _) => return Ok(()),
            (Some(one), true) => one,
            (Some(_), false) => {
                let why =
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return refused(Status::failure(500, "", why));
            }
        };
        let ready = pod.object["status"]["conditions"].as_array().into_iter().flatten();
        let ready = ready.clone().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        let number = |field: &str| budget["status"][field].as_i64().unwrap_or_default();
        let (healthy, desired) = (number("currentHealthy"), number("desiredHealthy"));
        // KEP-3017: a pod that is not ready takes nothing from a budget that is met, or from one that always lets it go.
        if !ready
            && (healthy >= desired && desired > 0 || budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow")
        {
            return Ok(());
        }
        let observed = number("observedGeneration") >= budget["metadata"]["generation"].as_i64().unwrap_or_default();
        let allowed = number("disruptionsAllowed");
        let budget_name = budget["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if !observed || allowed <= 0 {
            let why = "Cannot evict pod as it would violate the pod's disruption budget.";
            let mut status = Status::failure(429, "TooManyRequests", why);
            let message = if observed {
                format!("The disruption budget {budget_name} needs {desired} healthy pods and has {healthy} currently")
            } else {
                format!("The disruption budget {budget_name} is still being processed by the server.")
            };
            status.details = Some(json!({"causes": [{"reason": "DisruptionBudget", "message": message}]}));
            if !observed {
                status.details.get_or_insert_default()["retryAfterSeconds"] = 10.into();
            }
            return refused(status);
        }
        if dry_run {
            return Ok(());
        }
        budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
        let name = self.info.name.as_str();
        budget["status"]["disruptedPods"][name] = rfc3339(self.server.now()).into();
        let compares = vec![Compare { key: kv.key.clone(), mod_revision: kv.mod_revision }];
        let operations = vec![Operation::Put { key: kv.key, value: encode::stored(&budget) }];
        self.server.commit(compares, operations).await.map(drop)
    }
}
