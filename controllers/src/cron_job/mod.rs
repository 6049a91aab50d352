//! CronJobs: a Job whenever the schedule says.

mod schedule;

use crate::clock::{seconds, until, whole_seconds};
use crate::event::{EventType, reference};
use crate::meta::{annotation, controller_named, controller_reference, is_controlled_by};
use crate::queue::{Next, Queue};
use crate::session::{Key, Result, Session};
use crate::{Controller, Shared, follow, follow_own, run};
use informer::Informer;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;
use schedule::Schedule;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than this are not made up for one by one.
const MOST_MISSED: usize = 100;

pub(crate) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    let queue = Queue::new();
    let (cron_jobs, jobs) = (shared.informers.of::<CronJob>(), shared.informers.of::<Job>());
    tasks.spawn(follow_own(cron_jobs.clone(), queue.clone()));
    tasks.spawn(follow(jobs.clone(), queue.clone(), |update| {
        let metadata = &update.object().metadata;
        let namespace = metadata.namespace.clone().unwrap_or_default();
        controller_named::<CronJob>(metadata).map(|name| Key::new(namespace, name)).into_iter().collect()
    }));
    tasks.spawn(run(shared.clone(), queue, CronJobController { cron_jobs, jobs }));
}

struct CronJobController {
    cron_jobs: Informer<CronJob>,
    jobs: Informer<Job>,
}

/// How a job has ended.
fn outcome(job: &Job) -> Option<&str> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut over = conditions.filter(|condition| condition.status == "True");
    over.find_map(|condition| ["Complete", "Failed"].into_iter().find(|outcome| condition.type_ == *outcome))
}

impl Controller for CronJobController {
    const NAME: &'static str = "cronjob-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(cron_job) = self.cron_jobs.get(&key.namespace, &key.name) else { return Ok(Next::OnChange) };
        if cron_job.metadata.deletion_timestamp.is_some() {
            return Ok(Next::OnChange);
        }
        let now = session.shared.clock.now();
        let mut jobs: Vec<Arc<Job>> = self
            .jobs
            .list_in(&key.namespace)
            .into_iter()
            .filter(|job| is_controlled_by(&job.metadata, &cron_job.metadata))
            .collect();
        jobs.sort_by_key(|job| {
            (job.metadata.creation_timestamp.as_ref().map(|time| time.0), job.metadata.name.clone())
        });
        let mut status = self.take_stock(session, &cron_job, &jobs);
        self.clean_up(session, &cron_job, &jobs).await?;

        let plan = match due(&cron_job, &jobs, &status, now) {
            Ok(plan) => plan,
            Err((reason, message)) => {
                session.event(&*cron_job, EventType::Warning, reason, message);
                Due::default()
            }
        };
        if plan.missed {
            let message = "Missed scheduled time to start a job: the starting deadline has passed".to_owned();
            session.event(&*cron_job, EventType::Warning, "MissSchedule", message);
            status.last_schedule_time =
                plan.start_at.or(status.last_schedule_time.map(|time| time.0)).map(whole_seconds);
        } else if let Some(at) = plan.start_at {
            let running: Vec<&Arc<Job>> = jobs.iter().filter(|job| outcome(job).is_none()).collect();
            let policy = cron_job.spec.concurrency_policy.as_deref().unwrap_or("Allow");
            if policy == "Forbid" && !running.is_empty() {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                session.event(&*cron_job, EventType::Normal, "JobAlreadyActive", message.to_owned());
            } else {
                if policy == "Replace" {
                    for job in running {
                        session.delete(&**job).await?;
                        let message = format!("Deleted job {}", job.metadata.name.as_deref().unwrap_or_default());
                        session.event(&*cron_job, EventType::Normal, "SuccessfulDelete", message);
                        status.active.get_or_insert_default().retain(|active| active.uid != job.metadata.uid);
                    }
                }
                match session.create(&job_at(&cron_job, at)).await {
                    Ok(job) => {
                        let message = format!("Created job {}", job.metadata.name.as_deref().unwrap_or_default());
                        session.event(&*cron_job, EventType::Normal, "SuccessfulCreate", message);
                        status.active.get_or_insert_default().push(reference(&job));
                    }
                    Err(error) if error.is_already_exists() || error.is_namespace_terminating() => {}
                    Err(error) => {
                        let message = format!("Error creating job: {}", error.message());
                        session.event(&*cron_job, EventType::Warning, "FailedCreate", message);
                        return Err(error);
                    }
                }
                status.last_schedule_time = Some(whole_seconds(at));
            }
        }
        status.active = status.active.filter(|active| !active.is_empty());
        if cron_job.status.clone().unwrap_or_default() != status {
            let wanted = CronJob { status: Some(status), ..(*cron_job).clone() };
            match session.replace_status(&wanted).await {
                Err(error) if error.is_not_found() => return Ok(Next::OnChange),
                written => drop(written?),
            }
        }
        Ok(plan.again.into())
    }
}

impl CronJobController {
    /// The status as the jobs have it: which are active, when the last one succeeded.
    fn take_stock(&self, session: &Session, cron_job: &CronJob, jobs: &[Arc<Job>]) -> CronJobStatus {
        let mut status = cron_job.status.clone().unwrap_or_default();
        let known = status.active.take().unwrap_or_default();
        for job in jobs {
            let was_active = known.iter().find(|active| active.uid == job.metadata.uid);
            match outcome(job) {
                None => {
                    let active = was_active.cloned().unwrap_or_else(|| reference(&**job));
                    status.active.get_or_insert_default().push(active);
                }
                Some(outcome) => {
                    if was_active.is_some() {
                        let name = job.metadata.name.as_deref().unwrap_or_default();
                        let message = format!("Saw completed job: {name}, condition: {outcome}");
                        session.event(cron_job, EventType::Normal, "SawCompletedJob", message);
                    }
                    let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
                    if completed > status.last_successful_time {
                        status.last_successful_time = completed;
                    }
                }
            }
        }
        status
    }

    /// Deletes finished jobs beyond the history limits.
    async fn clean_up(&self, session: &Session, cron_job: &CronJob, jobs: &[Arc<Job>]) -> Result<()> {
        let spec = &cron_job.spec;
        let limits = [
            ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
            ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
        ];
        for (kind, limit) in limits {
            let finished: Vec<&Arc<Job>> = jobs.iter().filter(|job| outcome(job) == Some(kind)).collect();
            let surplus = finished.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            for job in &finished[..surplus] {
                session.delete(&***job).await?;
                let message = format!("Deleted job {}", job.metadata.name.as_deref().unwrap_or_default());
                session.event(cron_job, EventType::Normal, "SuccessfulDelete", message);
            }
        }
        Ok(())
    }
}

/// What the schedule asks for now.
#[derive(Debug, Default, PartialEq, Eq)]
struct Due {
    /// The newest time that has come and not been served.
    start_at: Option<Timestamp>,
    /// It came too long ago.
    missed: bool,
    again: Option<Duration>,
}

type Trouble = (&'static str, String);

fn due(
    cron_job: &CronJob,
    jobs: &[Arc<Job>],
    status: &CronJobStatus,
    now: Timestamp,
) -> std::result::Result<Due, Trouble> {
    let spec = &cron_job.spec;
    let schedule = Schedule::parse(&spec.schedule)
        .map_err(|error| ("UnparseableSchedule", format!("unparseable schedule: {:?} : {error}", spec.schedule)))?;
    let zone = match spec.time_zone.as_deref() {
        None | Some("UTC" | "Etc/UTC") => TimeZone::UTC,
        Some(name) => {
            TimeZone::get(name).map_err(|error| ("UnknownTimeZone", format!("invalid timeZone: {name:?}: {error}")))?
        }
    };
    if spec.suspend == Some(true) {
        return Ok(Due::default());
    }
    let made = jobs.iter().filter_map(|job| annotation(&job.metadata, SCHEDULED_AT)?.parse::<Timestamp>().ok()).max();
    let created = cron_job.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let served = status.last_schedule_time.as_ref().map(|time| time.0).max(made).unwrap_or(created);
    let deadline = spec.starting_deadline_seconds.map(seconds);
    let mut from = served;
    if let Some(oldest) =
        deadline.and_then(|deadline| now.checked_sub(k8s_openapi::jiff::SignedDuration::try_from(deadline).ok()?).ok())
    {
        from = from.max(oldest);
    }
    let mut newest = None;
    let mut next = schedule.next(from, &zone);
    for _ in 0..MOST_MISSED {
        match next {
            Some(at) if at <= now => {
                newest = Some(at);
                next = schedule.next(at, &zone);
            }
            _ => break,
        }
    }
    if next.is_some_and(|next| next <= now) {
        // Too many to count: the last one before now, found from a little earlier.
        let lately = now.checked_sub(k8s_openapi::jiff::SignedDuration::from_hours(1)).unwrap_or(now);
        let mut at = schedule.next(lately, &zone);
        while let Some(time) = at.filter(|time| *time <= now) {
            newest = Some(time);
            at = schedule.next(time, &zone);
        }
        next = at;
    }
    let missed = newest.is_some_and(|at| deadline.is_some_and(|deadline| until(now, at, deadline).is_none()));
    let again = next.and_then(|next| Duration::try_from(next.duration_since(now)).ok());
    Ok(Due { start_at: newest, missed, again })
}

/// The job for the scheduled time `at`; its name follows from it, so that it cannot be made twice.
fn job_at(cron_job: &CronJob, at: Timestamp) -> Job {
    let template = cron_job.spec.job_template.clone();
    let metadata = template.metadata.unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED_AT.to_owned(), at.to_string());
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", cron_job.metadata.name.as_deref().unwrap_or_default(), at.as_second() / 60)),
            namespace: cron_job.metadata.namespace.clone(),
            labels: metadata.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron_job)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn time(text: &str) -> Timestamp {
        format!("2026-01-28T{text}Z").parse().expect("a time")
    }

    fn asked(spec: Value, last: Option<&str>, now: &str) -> std::result::Result<Due, Trouble> {
        let mut cron_job = json!({"metadata": {"name": "tick", "creationTimestamp": time("10:00:00").to_string()},
            "spec": {"schedule": "*/10 * * * *", "jobTemplate": {}}});
        for (field, value) in spec.as_object().expect("fields") {
            cron_job["spec"][field] = value.clone();
        }
        let status = CronJobStatus {
            last_schedule_time: last.map(|last| whole_seconds(time(last))),
            ..CronJobStatus::default()
        };
        due(&serde_json::from_value(cron_job).expect("a CronJob"), &[], &status, time(now))
    }

    #[test]
    fn a_job_is_due_when_its_time_has_come_and_only_once() {
        assert_eq!(
            asked(json!({}), None, "10:09:00"),
            Ok(Due { start_at: None, missed: false, again: Some(Duration::from_secs(60)) })
        );
        assert_eq!(asked(json!({}), None, "10:10:00").map(|due| due.start_at), Ok(Some(time("10:10:00"))));
        assert_eq!(asked(json!({}), Some("10:10:00"), "10:10:01").map(|due| due.start_at), Ok(None));
    }

    #[test]
    fn of_several_missed_times_the_newest_counts() {
        assert_eq!(asked(json!({}), Some("10:10:00"), "10:45:00").map(|due| due.start_at), Ok(Some(time("10:40:00"))));
        assert_eq!(
            asked(json!({"schedule": "* * * * *"}), Some("10:10:00"), "23:59:30").map(|due| due.start_at),
            Ok(Some(time("23:59:00")))
        );
    }

    #[test]
    fn a_starting_deadline_lets_old_times_pass() {
        let spec = json!({"startingDeadlineSeconds": 60});
        assert_eq!(
            asked(spec.clone(), Some("10:10:00"), "10:20:30").map(|due| due.start_at),
            Ok(Some(time("10:20:00")))
        );
        assert_eq!(asked(spec, Some("10:10:00"), "10:22:00").map(|due| due.start_at), Ok(None));
    }

    #[test]
    fn suspension_and_nonsense_start_nothing() {
        assert_eq!(asked(json!({"suspend": true}), None, "10:10:00"), Ok(Due::default()));
        assert_eq!(
            asked(json!({"schedule": "every day"}), None, "10:10:00").map_err(|trouble| trouble.0),
            Err("UnparseableSchedule")
        );
        assert_eq!(
            asked(json!({"timeZone": "No/Where"}), None, "10:10:00").map_err(|trouble| trouble.0),
            Err("UnknownTimeZone")
        );
    }

    #[test]
    fn the_name_of_a_job_is_its_time() {
        let cron_job = CronJob {
            metadata: ObjectMeta { name: Some("tick".to_owned()), ..ObjectMeta::default() },
            ..CronJob::default()
        };
        assert_eq!(job_at(&cron_job, time("10:10:00")).metadata.name.as_deref(), Some("tick-29493250"));
    }
}
