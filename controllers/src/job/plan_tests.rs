//! Rules of a Job: how many pods run, when it is tried again, and when it is over.

use super::*;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn job(spec: Value) -> Job {
    let mut job = json!({"metadata": {"name": "work", "uid": "j"}, "spec": {"template": {"spec": {"containers": []}}}});
    for (field, value) in spec.as_object().expect("fields") {
        job["spec"][field] = value.clone();
    }
    serde_json::from_value(job).expect("a Job")
}

/// `S` succeeded, `F` failed at second 100, `R` running, `T` terminating; a digit after it is its index.
fn pods(list: &str) -> Vec<Arc<Pod>> {
    let make = |(n, text): (usize, &str)| {
        let (state, index) = text.split_at(1);
        let phase = match state {
            "S" => "Succeeded",
            "F" => "Failed",
            _ => "Running",
        };
        let mut pod =
            json!({"metadata": {"name": format!("work-{n}"), "uid": format!("{n}")}, "status": {"phase": phase}});
        if state == "F" {
            pod["status"]["containerStatuses"] = json!([{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": 1, "finishedAt": at(100).to_string()}}}]);
        }
        if state == "T" {
            pod["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
        }
        if !index.is_empty() {
            pod["metadata"]["annotations"] = json!({"batch.kubernetes.io/job-completion-index": index});
        }
        Arc::new(serde_json::from_value(pod).expect("a Pod"))
    };
    list.split_whitespace().enumerate().map(make).collect()
}

fn step(job: &Job, list: &str, second: i64) -> Plan {
    let pods = pods(list);
    let mut ended = Ended::start(job, &pods);
    ended.observe(&pods);
    plan(job, &pods, &ended, at(second))
}

fn conditions(plan: &Plan) -> Vec<(&str, &str)> {
    let conditions = plan.status.conditions.iter().flatten().filter(|condition| condition.status == "True");
    conditions.map(|condition| (condition.type_.as_str(), condition.reason.as_deref().unwrap_or_default())).collect()
}

#[test]
fn as_many_pods_run_as_parallelism_allows_and_completions_need() {
    let job = job(json!({"parallelism": 2, "completions": 3}));
    assert_eq!(step(&job, "", 0).create.len(), 2);
    assert_eq!(step(&job, "R", 0).create.len(), 1);
    assert_eq!(step(&job, "S S R", 0).create.len(), 0);
    assert_eq!(step(&job, "S S", 0).create.len(), 1);
    assert_eq!(step(&job, "R T", 0).create.len(), 0, "a terminating pod still runs");
    assert_eq!(step(&job, "R R R", 0).delete.len(), 1);
}

#[test]
fn a_job_is_complete_when_enough_pods_have_succeeded() {
    let job = job(json!({"completions": 2, "ttlSecondsAfterFinished": 30}));
    let done = step(&job, "S S", 50);
    assert_eq!(conditions(&done), [("SuccessCriteriaMet", "CompletionsReached"), ("Complete", "CompletionsReached")]);
    assert_eq!((done.status.succeeded, done.status.active), (Some(2), None));
    assert_eq!(done.status.completion_time.clone().map(|time| time.0), Some(at(50)));
    assert_eq!(done.event.as_ref().map(|event| event.1), Some("Completed"));
    // Then nothing more is made, and after its time it goes.
    let finished = Job { status: Some(done.status), ..job };
    assert_eq!(step(&finished, "S", 60).create.len(), 0);
    assert_eq!(step(&finished, "S S", 60).again, Some(Duration::from_secs(20)));
    assert!(!step(&finished, "S S", 79).expired);
    assert!(step(&finished, "S S", 80).expired);
}

#[test]
fn a_work_queue_is_done_when_one_has_succeeded_and_none_runs() {
    let job = job(json!({"parallelism": 3}));
    assert_eq!(step(&job, "", 0).create.len(), 3);
    assert_eq!(step(&job, "S R", 0).create.len(), 0);
    assert!(conditions(&step(&job, "S R", 0)).is_empty());
    assert_eq!(conditions(&step(&job, "S S", 0)).len(), 2);
}

#[test]
fn failures_are_tried_again_after_a_growing_delay_until_the_limit() {
    let job = job(json!({"completions": 1, "backoffLimit": 2}));
    assert_eq!(step(&job, "F", 105).again, Some(Duration::from_secs(5)));
    assert_eq!(step(&job, "F", 110).create.len(), 1);
    assert_eq!(step(&job, "F F", 110).again, Some(Duration::from_secs(10)));
    let failed = step(&job, "F F F", 100);
    assert_eq!(conditions(&failed), [("FailureTarget", "BackoffLimitExceeded"), ("Failed", "BackoffLimitExceeded")]);
    assert_eq!(failed.status.failed, Some(3));
}

#[test]
fn a_deadline_ends_the_job_and_its_pods() {
    let mut job = job(json!({"activeDeadlineSeconds": 60}));
    job.status = Some(step(&job, "R", 100).status);
    assert_eq!(step(&job, "R", 130).again, Some(Duration::from_secs(30)));
    let late = step(&job, "R", 160);
    assert_eq!((conditions(&late)[1], late.delete.len()), (("Failed", "DeadlineExceeded"), 1));
}

#[test]
fn a_suspended_job_runs_nothing() {
    let mut job = job(json!({"suspend": true}));
    let suspended = step(&job, "R", 10);
    assert_eq!((suspended.create.len(), suspended.delete.len()), (0, 1));
    assert_eq!(
        (conditions(&suspended), suspended.status.start_time.clone()),
        (vec![("Suspended", "JobSuspended")], None)
    );
    job.status = Some(suspended.status);
    job.spec.as_mut().expect("a spec").suspend = Some(false);
    let resumed = step(&job, "", 20);
    assert_eq!((resumed.create.len(), conditions(&resumed).len()), (1, 0));
}

#[test]
fn an_indexed_job_runs_every_index_once() {
    let job = job(json!({"completionMode": "Indexed", "completions": 4, "parallelism": 3}));
    assert_eq!(step(&job, "", 0).create, [Some(0), Some(1), Some(2)]);
    assert_eq!(step(&job, "S0 R1 F2", 200).create, [Some(2), Some(3)]);
    let done = step(&job, "S0 S1 S2 S3 S3", 0);
    assert_eq!((done.status.completed_indexes.as_deref(), done.status.succeeded), (Some("0-3"), Some(4)));
    assert_eq!(conditions(&done).len(), 2);
}

#[test]
fn what_has_ended_stays_counted_when_it_is_gone() {
    let job = job(json!({"completions": 5}));
    let mut ended = Ended::start(&job, &[]);
    ended.observe(&pods("S F R"));
    ended.observe(&pods("S F S"));
    ended.observe(&pods(""));
    assert_eq!((ended.succeeded, ended.failed), (2, 1));
    // A new process takes it from the status.
    let known = Job { status: Some(JobStatus { succeeded: Some(2), failed: Some(1), ..JobStatus::default() }), ..job };
    let mut restarted = Ended::start(&known, &pods("S"));
    restarted.observe(&pods("S"));
    assert_eq!((restarted.succeeded, restarted.failed), (2, 1));
    // A pod that is deleted while it runs has failed.
    restarted.observe(&pods("S R"));
    restarted.observe(&pods("S"));
    assert_eq!(restarted.failed, 2);
}

#[test]
fn what_the_controller_deletes_itself_has_not_failed() {
    let mut ended = Ended::start(&job(json!({})), &[]);
    let running = pods("R R");
    ended.observe(&running);
    ended.dismiss(&running[1]);
    ended.observe(&pods("R F"));
    ended.observe(&running[..1]);
    assert_eq!(ended.failed, 0);
}

#[test]
fn indexes_are_written_as_ranges() {
    for text in ["", "0", "0,1", "0-2", "0-2,5,7-9"] {
        assert_eq!(format_indexes(&parse_indexes(text)), text);
    }
}
