//! What a Job needs next, and whether it is done.

use super::{has_succeeded, index};
use crate::clock::{seconds, until, whole_seconds};
use crate::event::EventType;
use crate::meta::some_count;
use crate::pods::{is_active, is_ready, is_terminal, is_terminating};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LAST_BACKOFF: Duration = Duration::from_secs(600);

/// Which pods of a job have ended, and how.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended {
    /// The uid of the job.
    pub(super) job: String,
    seen: HashSet<String>,
    succeeded: usize,
    failed: usize,
    indexes: BTreeSet<i32>,
    /// Pods that were alive when last seen.
    alive: HashSet<String>,
    /// Pods that the controller has deleted itself: too many, or suspended. They have not failed.
    dismissed: HashSet<String>,
}

impl Ended {
    /// What the status says beyond the pods that are still there: they have ended before and are gone.
    pub(super) fn start(job: &Job, pods: &[Arc<Pod>]) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let count = |field: Option<i32>| usize::try_from(field.unwrap_or(0)).unwrap_or(0);
        let succeeded = pods.iter().filter(|pod| has_succeeded(pod)).count();
        let failed = pods.iter().filter(|pod| is_terminal(pod) && !has_succeeded(pod)).count();
        Ended {
            job: job.metadata.uid.clone().unwrap_or_default(),
            succeeded: count(status.succeeded).saturating_sub(succeeded),
            failed: count(status.failed).saturating_sub(failed),
            indexes: parse_indexes(status.completed_indexes.as_deref().unwrap_or_default()),
            ..Ended::default()
        }
    }

    /// Remembers that the job needs this pod no more.
    pub(super) fn dismiss(&mut self, pod: &Pod) {
        self.dismissed.extend(pod.metadata.uid.clone());
    }

    /// Counts what has ended since. A pod that is deleted before it ends counts as failed.
    pub(super) fn observe(&mut self, pods: &[Arc<Pod>]) {
        let mut alive = HashSet::new();
        for pod in pods {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            if self.dismissed.contains(&uid) && !has_succeeded(pod) {
                continue;
            }
            if is_terminal(pod) {
                if self.seen.insert(uid) {
                    match has_succeeded(pod) {
                        true => self.succeeded += 1,
                        false => self.failed += 1,
                    }
                }
                if has_succeeded(pod) {
                    self.indexes.extend(index(pod));
                }
            } else {
                alive.insert(uid);
            }
        }
        let gone = |uid: &&String| !alive.contains(*uid) && !self.seen.contains(*uid) && !self.dismissed.contains(*uid);
        self.failed += self.alive.iter().filter(gone).count();
        self.alive = alive;
    }
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    /// One pod each; with its completion index in an indexed job.
    pub(super) create: Vec<Option<i32>>,
    pub(super) delete: Vec<Arc<Pod>>,
    pub(super) status: JobStatus,
    pub(super) event: Option<(EventType, &'static str, String)>,
    /// Finished longer ago than `ttlSecondsAfterFinished`.
    pub(super) expired: bool,
    pub(super) again: Option<Duration>,
}

/// Why a job is over.
enum Verdict {
    Complete,
    Failed(&'static str, &'static str),
}

pub(super) fn plan(job: &Job, pods: &[Arc<Pod>], ended: &Ended, now: Timestamp) -> Plan {
    let spec = job.spec.clone().unwrap_or_default();
    let mut status = job.status.clone().unwrap_or_default();
    let active: Vec<&Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).collect();
    let is_indexed = spec.completion_mode.as_deref() == Some("Indexed");
    status.active = some_count(active.len());
    status.ready = Some(some_count(active.iter().filter(|pod| is_ready(pod)).count()).unwrap_or(0));
    let terminating = pods.iter().filter(|pod| is_terminating(pod) && !is_terminal(pod)).count();
    status.terminating = Some(some_count(terminating).unwrap_or(0));
    status.failed = some_count(ended.failed);
    status.succeeded = some_count(if is_indexed { ended.indexes.len() } else { ended.succeeded });
    status.completed_indexes = is_indexed.then(|| format_indexes(&ended.indexes)).filter(|indexes| !indexes.is_empty());
    status.uncounted_terminated_pods.get_or_insert_with(UncountedTerminatedPods::default);
    let mut plan = Plan::default();

    if let Some(finished) = finished(&status) {
        if let Some(ttl) = spec.ttl_seconds_after_finished {
            plan.again = until(now, finished, seconds(ttl));
            plan.expired = plan.again.is_none();
        }
        // Stragglers of a failed job.
        plan.delete = active.into_iter().cloned().collect();
        plan.status = status;
        return plan;
    }
    let suspended = spec.suspend == Some(true);
    if status.start_time.is_none() && !suspended {
        status.start_time = Some(whole_seconds(now));
    }
    let verdict = verdict(&spec, &active, ended, &status, now);
    match verdict {
        Some(verdict) => {
            plan.delete = active.iter().map(|pod| (*pod).clone()).collect();
            conclude(&mut plan, &mut status, &verdict, now);
            if let Some(ttl) = spec.ttl_seconds_after_finished {
                plan.again = Some(seconds(ttl));
            }
        }
        None if suspended => {
            plan.delete = active.iter().map(|pod| (*pod).clone()).collect();
            if set_condition(&mut status, "Suspended", "True", "JobSuspended", "Job suspended", now) {
                plan.event = Some((EventType::Normal, "Suspended", "Job suspended".to_owned()));
            }
            status.start_time = None;
        }
        None => {
            if is_true(&status, "Suspended") {
                set_condition(&mut status, "Suspended", "False", "JobResumed", "Job resumed", now);
                status.start_time = Some(whole_seconds(now));
                plan.event = Some((EventType::Normal, "Resumed", "Job resumed".to_owned()));
            }
            if let (Some(deadline), Some(started)) = (spec.active_deadline_seconds, &status.start_time) {
                plan.again = until(now, started.0, seconds(deadline));
            }
            scale(&mut plan, &spec, pods, &active, ended, is_indexed, now);
        }
    }
    plan.status = status;
    plan
}

fn verdict(spec: &JobSpec, active: &[&Arc<Pod>], ended: &Ended, status: &JobStatus, now: Timestamp) -> Option<Verdict> {
    let limit = usize::try_from(spec.backoff_limit.unwrap_or(6)).unwrap_or(0);
    let restarts_in_place =
        spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) == Some("OnFailure");
    let restarts: i32 = active.iter().map(|pod| crate::pods::restarts(pod)).sum();
    let restarts = usize::try_from(restarts).unwrap_or(0);
    if ended.failed > limit || restarts_in_place && restarts > 0 && restarts >= limit.max(1) {
        return Some(Verdict::Failed("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    if let (Some(deadline), Some(started)) = (spec.active_deadline_seconds, &status.start_time)
        && spec.suspend != Some(true)
        && until(now, started.0, seconds(deadline)).is_none()
    {
        return Some(Verdict::Failed("DeadlineExceeded", "Job was active longer than specified deadline"));
    }
    let succeeded = usize::try_from(status.succeeded.unwrap_or(0)).unwrap_or(0);
    let is_complete = match spec.completions {
        Some(completions) => succeeded >= usize::try_from(completions).unwrap_or(0),
        // A work queue: done when one has succeeded and all others have ended.
        None => succeeded > 0 && active.is_empty(),
    };
    is_complete.then_some(Verdict::Complete)
}

fn conclude(plan: &mut Plan, status: &mut JobStatus, verdict: &Verdict, now: Timestamp) {
    match verdict {
        Verdict::Complete => {
            let (reason, message) = ("CompletionsReached", "Reached expected number of succeeded pods");
            set_condition(status, "SuccessCriteriaMet", "True", reason, message, now);
            set_condition(status, "Complete", "True", reason, message, now);
            status.completion_time = Some(whole_seconds(now));
            plan.event = Some((EventType::Normal, "Completed", "Job completed".to_owned()));
        }
        Verdict::Failed(reason, message) => {
            set_condition(status, "FailureTarget", "True", reason, message, now);
            set_condition(status, "Failed", "True", reason, message, now);
            plan.event = Some((EventType::Warning, reason, (*message).to_owned()));
        }
    }
    status.active = None;
    status.ready = Some(0);
}

/// Pods to make or to take away, so that as many run as `parallelism` says and are still needed.
fn scale(
    plan: &mut Plan,
    spec: &JobSpec,
    pods: &[Arc<Pod>],
    active: &[&Arc<Pod>],
    ended: &Ended,
    is_indexed: bool,
    now: Timestamp,
) {
    let parallelism = usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or(0);
    let completions = spec.completions.and_then(|count| usize::try_from(count).ok());
    let succeeded = if is_indexed { ended.indexes.len() } else { ended.succeeded };
    let wanted = match completions {
        Some(completions) => parallelism.min(completions.saturating_sub(succeeded)),
        None if succeeded > 0 => active.len().min(parallelism),
        None => parallelism,
    };
    if active.len() > wanted {
        let mut surplus: Vec<Arc<Pod>> = active.iter().map(|pod| (*pod).clone()).collect();
        // Those that have got least far go first.
        surplus.sort_by_cached_key(|pod| (is_ready(pod), pod.metadata.name.clone()));
        surplus.truncate(active.len() - wanted);
        plan.delete = surplus;
        return;
    }
    // Terminating pods still count: a job may not run more at a time than it says.
    let terminating = pods.iter().filter(|pod| is_terminating(pod) && !is_terminal(pod)).count();
    let missing = wanted.saturating_sub(active.len() + terminating);
    if missing == 0 {
        return;
    }
    if let Some(left) = backoff(pods, ended, now) {
        plan.again = Some(plan.again.map_or(left, |again| again.min(left)));
        return;
    }
    if is_indexed {
        let taken: BTreeSet<i32> = pods.iter().filter(|pod| !is_terminal(pod)).filter_map(|pod| index(pod)).collect();
        let all = 0..spec.completions.unwrap_or(0);
        let free = all.filter(|index| !ended.indexes.contains(index) && !taken.contains(index));
        plan.create = free.take(missing).map(Some).collect();
    } else {
        plan.create = vec![None; missing];
    }
}

/// After failures the next pods wait, twice as long each time: 10 s, 20 s, … from the last failure.
fn backoff(pods: &[Arc<Pod>], ended: &Ended, now: Timestamp) -> Option<Duration> {
    let failures = u32::try_from(ended.failed).unwrap_or(u32::MAX);
    if failures == 0 {
        return None;
    }
    let finished = |pod: &Pod| {
        let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let times = containers
            .filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|time| time.0));
        times.max().or_else(|| pod.metadata.deletion_timestamp.as_ref().map(|time| time.0))
    };
    let last =
        pods.iter().filter(|pod| is_terminal(pod) && !has_succeeded(pod)).filter_map(|pod| finished(pod)).max()?;
    let delay = FIRST_BACKOFF.saturating_mul(1 << (failures - 1).min(16)).min(LAST_BACKOFF);
    until(now, last, delay)
}

/// When the job finished, if it has.
pub(super) fn finished(status: &JobStatus) -> Option<Timestamp> {
    let conditions = status.conditions.iter().flatten();
    let mut over = conditions.filter(|condition| {
        (condition.type_ == "Complete" || condition.type_ == "Failed") && condition.status == "True"
    });
    over.next().and_then(|condition| condition.last_transition_time.as_ref()).map(|time| time.0)
}

fn is_true(status: &JobStatus, type_: &str) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == type_ && condition.status == "True")
}

/// Sets a condition; false if it was so already.
fn set_condition(
    status: &mut JobStatus,
    type_: &str,
    state: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    if conditions.iter().any(|known| known.type_ == type_ && known.status == state) {
        return false;
    }
    conditions.retain(|known| known.type_ != type_);
    conditions.push(JobCondition {
        type_: type_.to_owned(),
        status: state.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(whole_seconds(now)),
        last_transition_time: Some(whole_seconds(now)),
    });
    true
}

/// `{0, 1, 2, 5}` as `0-2,5`.
fn format_indexes(indexes: &BTreeSet<i32>) -> String {
    let mut ranges: Vec<(i32, i32)> = vec![];
    for index in indexes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => ranges.push((*index, *index)),
        }
    }
    let shown = ranges.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    shown.collect::<Vec<_>>().join(",")
}

fn parse_indexes(text: &str) -> BTreeSet<i32> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<i32>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
