//! Jobs: pods until enough of them have succeeded.
//!
//! [`mod@plan`] decides from the job, its pods and the count of those that ended; the controller around it claims pods, writes,
//! and remembers what it has counted.
//!
//! Unlike kube-controller-manager we put no tracking finalizer on pods: what has ended is remembered per process by uid,
//! and in the status across restarts. A pod that ends and is deleted while nobody watches is not counted.

mod plan;

use crate::event::EventType;
use crate::meta::{controller_named, is_controlled_by};
use crate::pods::{from_template, phase};
use crate::queue::{Next, Queue};
use crate::random::Random;
use crate::session::{Key, Result, Session};
use crate::{Controller, Shared, follow, follow_own, run};
use informer::Informer;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use parking_lot::Mutex;
use plan::{Ended, Plan, plan};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::task::JoinSet;

const INDEX: &str = "batch.kubernetes.io/job-completion-index";

pub(crate) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    let queue = Queue::new();
    let (jobs, pods) = (shared.informers.of::<Job>(), shared.informers.of::<Pod>());
    tasks.spawn(follow_own(jobs.clone(), queue.clone()));
    tasks.spawn(follow(pods.clone(), queue.clone(), |update| {
        let metadata = &update.object().metadata;
        let namespace = metadata.namespace.clone().unwrap_or_default();
        controller_named::<Job>(metadata).map(|name| Key::new(namespace, name)).into_iter().collect()
    }));
    let random = shared.random("job");
    tasks.spawn(run(shared.clone(), queue, JobController { jobs, pods, random, ended: Mutex::default() }));
}

struct JobController {
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    random: Random,
    /// What has ended, per job.
    ended: Mutex<HashMap<Key, Ended>>,
}

impl Controller for JobController {
    const NAME: &'static str = "job-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(job) = self.jobs.get(&key.namespace, &key.name) else {
            self.ended.lock().remove(key);
            return Ok(Next::OnChange);
        };
        if job.metadata.deletion_timestamp.is_some()
            || job
                .spec
                .as_ref()
                .is_some_and(|spec| spec.managed_by.as_deref().is_some_and(|by| by != "kubernetes.io/job-controller"))
        {
            return Ok(Next::OnChange);
        }
        let pods: Vec<Arc<Pod>> = self
            .pods
            .list_in(&key.namespace)
            .into_iter()
            .filter(|pod| is_controlled_by(&pod.metadata, &job.metadata))
            .collect();
        let ended = {
            let mut all = self.ended.lock();
            let uid = job.metadata.uid.as_deref().unwrap_or_default();
            if all.get(key).is_some_and(|known| known.job != uid) {
                all.remove(key); // another job of that name
            }
            let ended = all.entry(key.clone()).or_insert_with(|| Ended::start(&job, &pods));
            ended.observe(&pods);
            ended.clone()
        };
        let now = session.shared.clock.now();
        let plan = plan(&job, &pods, &ended, now);
        if let Some(ended) = self.ended.lock().get_mut(key) {
            plan.delete.iter().for_each(|pod| ended.dismiss(pod));
        }
        self.carry_out(session, &job, &plan).await?;
        if let Some((kind, reason, message)) = &plan.event {
            session.event(&*job, *kind, reason, message.clone());
        }
        if job.status.as_ref() != Some(&plan.status) {
            let wanted = Job { status: Some(plan.status.clone()), ..(*job).clone() };
            match session.replace_status(&wanted).await {
                Err(error) if error.is_not_found() => return Ok(Next::OnChange),
                written => drop(written?),
            }
        }
        if plan.expired {
            session.delete(&*job).await?;
        }
        Ok(plan.again.into())
    }
}

impl JobController {
    async fn carry_out(&self, session: &Session, job: &Job, plan: &Plan) -> Result<()> {
        let pods: Vec<Pod> = plan.create.iter().map(|index| self.pod(job, *index)).collect();
        for batch in pods.chunks(32) {
            for created in futures::future::join_all(batch.iter().map(|pod| session.create(pod))).await {
                match created {
                    Ok(pod) => {
                        let message = format!("Created pod: {}", pod.metadata.name.unwrap_or_default());
                        session.event(job, EventType::Normal, "SuccessfulCreate", message);
                    }
                    Err(error) if error.is_namespace_terminating() => return Ok(()),
                    Err(error) => {
                        let message = format!("Error creating: {}", error.message());
                        session.event(job, EventType::Warning, "FailedCreate", message);
                        return Err(error);
                    }
                }
            }
        }
        for pod in &plan.delete {
            session.delete(&**pod).await?;
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            session.event(job, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
        }
        Ok(())
    }

    fn pod(&self, job: &Job, index: Option<i32>) -> Pod {
        let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let job_name = job.metadata.name.clone().unwrap_or_default();
        let base = index.map_or_else(|| format!("{job_name}-"), |index| format!("{job_name}-{index}-"));
        let mut pod = from_template(job, &template, self.random.name(&base));
        pod.metadata.generate_name = Some(base);
        let uid = job.metadata.uid.clone().unwrap_or_default();
        let labels = pod.metadata.labels.get_or_insert_default();
        for (label, value) in [("job-name", &job_name), ("controller-uid", &uid)] {
            labels.insert(format!("batch.kubernetes.io/{label}"), value.clone());
            labels.insert(label.to_owned(), value.clone());
        }
        if let Some(index) = index {
            labels.insert(INDEX.to_owned(), index.to_string());
            pod.metadata.annotations.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
            let spec = pod.spec.get_or_insert_default();
            spec.hostname = Some(format!("{job_name}-{index}"));
            for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                let env = container.env.get_or_insert_default();
                if env.iter().all(|variable| variable.name != "JOB_COMPLETION_INDEX") {
                    env.push(index_variable());
                }
            }
        }
        pod
    }
}

fn index_variable() -> EnvVar {
    let field = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), api_version: None };
    EnvVar {
        name: "JOB_COMPLETION_INDEX".to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        value: None,
    }
}

/// The completion index of a pod of an indexed job.
fn index(pod: &Pod) -> Option<i32> {
    crate::meta::annotation(&pod.metadata, INDEX)?.parse().ok()
}

fn has_succeeded(pod: &Pod) -> bool {
    phase(pod) == "Succeeded"
}
