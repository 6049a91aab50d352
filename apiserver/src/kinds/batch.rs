//! Job and CronJob.

use super::cron;
use super::field::{immutable, invalid, not_negative, one_of};
use super::json::{child, equal, fill, flag, int, is_unset, list, present, put, text};
use super::table::{NONE, age, containers_and_images, human_duration, name, selector_text, since};
use super::{metadata, pod, selector};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Labels by which a Job knows its pods: the new names and the old ones.
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// A Job; its selector is made from its uid unless the user says that he makes his own.
pub(super) fn default_job(_: &ResourceKind, job: &mut Value) {
    let (uid, own) = (text(job, "/metadata/uid").to_owned(), text(job, "/metadata/name").to_owned());
    let Some(spec) = child(job, "spec") else { return };
    default_job_spec(spec);
    if !flag(spec, "/manualSelector") && !uid.is_empty() {
        if let Some(labels) = child(spec, "template")
            .and_then(|template| child(template, "metadata"))
            .and_then(|metadata| child(metadata, "labels"))
        {
            for (names, value) in [(UID_LABELS, &uid), (NAME_LABELS, &own)] {
                for label in names {
                    put(labels, label, Some(value.as_str().into()));
                }
            }
        }
        if is_unset(spec, "/selector") {
            put(spec, "selector", Some(json!({"matchLabels": {UID_LABELS[0]: uid}})));
        }
    }
    let labels = spec.pointer("/template/metadata/labels").cloned();
    if is_unset(job, "/metadata/labels")
        && let (Some(labels), Some(metadata)) = (labels, child(job, "metadata"))
    {
        put(metadata, "labels", Some(labels));
    }
    child(job, "status");
}

fn default_job_spec(spec: &mut Value) {
    let has = |spec: &Value, field: &str| present(spec, field).is_some();
    if !has(spec, "/completions") && !has(spec, "/parallelism") {
        fill(spec, "completions", 1);
    }
    fill(spec, "parallelism", 1);
    let per_index = has(spec, "/backoffLimitPerIndex");
    fill(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    fill(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    fill(spec, "manualSelector", false);
    let replacement = if has(spec, "/podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    fill(spec, "podReplacementPolicy", replacement);
    pod::defaults::template(spec);
}

/// A CronJob.
pub(super) fn default_cron_job(_: &ResourceKind, job: &mut Value) {
    let Some(spec) = child(job, "spec") else { return };
    fill(spec, "concurrencyPolicy", "Allow");
    fill(spec, "suspend", false);
    fill(spec, "successfulJobsHistoryLimit", 3);
    fill(spec, "failedJobsHistoryLimit", 1);
    if let Some(job_spec) = child(spec, "jobTemplate").and_then(|template| child(template, "spec")) {
        pod::defaults::template(job_spec);
    }
    child(job, "status");
}

/// Everything wrong with a Job.
pub(super) fn job(kind: &ResourceKind, job: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, job, old);
    if text(job, "/metadata/name").len() > 63 {
        let detail = "must be no more than 63 characters";
        errors.push(invalid("metadata.name", text(job, "/metadata/name"), detail));
    }
    job_spec(&job["spec"], "spec", &mut errors);
    match present(job, "/spec/selector") {
        None => errors.push(FieldError::required("spec.selector", "")),
        Some(found) => {
            selector::errors(found, "spec.selector", &mut errors);
            let uid = text(job, "/metadata/uid");
            let label =
                found.get("matchLabels").and_then(|labels| labels.get(UID_LABELS[0]).or(labels.get(UID_LABELS[1])));
            if !flag(job, "/spec/manualSelector") && label.and_then(Value::as_str) != Some(uid) {
                errors.push(FieldError::invalid("spec.selector", found, "`selector` not auto-generated"));
            }
            if !selector::selects(found, job, "/spec/template/metadata/labels") {
                let labels = job.pointer("/spec/template/metadata/labels").unwrap_or(&Value::Null);
                let detail = "`selector` does not match template `labels`";
                errors.push(FieldError::invalid("spec.template.metadata.labels", labels, detail));
            }
        }
    }
    if let Some(old) = old {
        for field in ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy"] {
            immutable(&mut errors, job, old, &format!("/spec/{field}"));
        }
        // An indexed Job may be made longer or shorter as long as as many run at once.
        let elastic = text(job, "/spec/completionMode") == "Indexed"
            && int(job, "/spec/completions") == int(job, "/spec/parallelism");
        if !elastic {
            immutable(&mut errors, job, old, "/spec/completions");
        }
        // While it has not begun, a suspended Job may still be told where to run.
        let unbegun = flag(old, "/spec/suspend") && is_unset(old, "/status/startTime");
        let mut template = job["spec"]["template"].clone();
        if unbegun {
            for pointer in
                ["/spec/nodeSelector", "/spec/affinity", "/spec/tolerations", "/spec/schedulingGates", "/metadata"]
            {
                super::json::carry_over(&mut template, &old["spec"]["template"], pointer);
            }
        }
        if !equal(&template, &old["spec"]["template"]) {
            errors.push(FieldError::invalid("spec.template", &job["spec"]["template"], super::field::IMMUTABLE));
        }
    }
    errors
}

fn job_spec(spec: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let at = |part: &str| format!("{field}.{part}");
    for number in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        not_negative(errors, at(number), int(spec, &format!("/{number}")));
    }
    let mode = text(spec, "/completionMode");
    if !mode.is_empty() {
        one_of(errors, at("completionMode"), mode, &["Indexed", "NonIndexed"]);
    }
    if mode == "Indexed" && int(spec, "/completions").is_none() {
        errors.push(FieldError::required(at("completions"), "when completion mode is Indexed"));
    }
    pod::validation::template(&spec["template"], &at("template"), errors);
    if text(spec, "/template/spec/restartPolicy") == "Always" {
        let detail = "valid values: \"OnFailure\", \"Never\"";
        errors.push(FieldError::required(at("template.spec.restartPolicy"), detail));
    }
}

/// Everything wrong with a CronJob.
pub(super) fn cron_job(kind: &ResourceKind, job: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, job, old);
    let own = text(job, "/metadata/name");
    if own.len() > 52 {
        errors.push(invalid("metadata.name", own, "must be no more than 52 characters"));
    }
    let schedule = text(job, "/spec/schedule");
    if schedule.is_empty() {
        errors.push(FieldError::required("spec.schedule", ""));
    } else if schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(invalid("spec.schedule", schedule, detail));
    } else if let Err(why) = cron::check(schedule) {
        errors.push(invalid("spec.schedule", schedule, why));
    }
    if let Some(zone) = present(job, "/spec/timeZone").and_then(Value::as_str) {
        if zone.is_empty() {
            errors.push(invalid("spec.timeZone", zone, "timeZone must be nil or non-empty string"));
        } else if zone.eq_ignore_ascii_case("local") {
            errors.push(invalid(
                "spec.timeZone",
                zone,
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            ));
        }
    }
    let policy = text(job, "/spec/concurrencyPolicy");
    one_of(&mut errors, "spec.concurrencyPolicy", policy, &["Allow", "Forbid", "Replace"]);
    for number in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(&mut errors, format!("spec.{number}"), int(job, &format!("/spec/{number}")));
    }
    job_spec(&job["spec"]["jobTemplate"]["spec"], "spec.jobTemplate.spec", &mut errors);
    errors
}

/// NAME STATUS COMPLETIONS DURATION AGE CONTAINERS IMAGES SELECTOR.
pub(super) fn job_row(_: &ResourceKind, job: &Value, now: Timestamp) -> Vec<Value> {
    let succeeded = int(job, "/status/succeeded").unwrap_or_default();
    let parallelism = int(job, "/spec/parallelism").unwrap_or_default();
    let completions = match int(job, "/spec/completions") {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let started = text(job, "/status/startTime").parse::<Timestamp>().ok();
    let completed = text(job, "/status/completionTime").parse::<Timestamp>().ok();
    let duration = started
        .map_or_else(String::new, |started| human_duration(completed.unwrap_or(now).as_second() - started.as_second()));
    let mut row = vec![name(job), job_status(job).into(), completions.into(), duration.into(), age(job, now)];
    row.extend(containers_and_images(job, "/spec/template/spec"));
    row.push(selector_text(job, "/spec/selector").into());
    row
}

fn job_status(job: &Value) -> &'static str {
    let is = |kind: &str| {
        list(job, "/status/conditions")
            .iter()
            .any(|condition| text(condition, "/type") == kind && text(condition, "/status") == "True")
    };
    if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if !text(job, "/metadata/deletionTimestamp").is_empty() {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else if is("FailureTarget") {
        "FailureTarget"
    } else if is("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

/// NAME SCHEDULE TIMEZONE SUSPEND ACTIVE LAST-SCHEDULE AGE CONTAINERS IMAGES SELECTOR.
pub(super) fn cron_job_row(_: &ResourceKind, job: &Value, now: Timestamp) -> Vec<Value> {
    let last = match text(job, "/status/lastScheduleTime") {
        "" => NONE.to_owned(),
        time => since(time, now),
    };
    let mut row = vec![
        name(job),
        text(job, "/spec/schedule").into(),
        super::table::or_none(text(job, "/spec/timeZone")),
        if flag(job, "/spec/suspend") { "True" } else { "False" }.into(),
        list(job, "/status/active").len().into(),
        last.into(),
        age(job, now),
    ];
    row.extend(containers_and_images(job, "/spec/jobTemplate/spec/template/spec"));
    row.push(selector_text(job, "/spec/jobTemplate/spec/selector").into());
    row
}

#[cfg(test)]
mod tests {
    use super::super::tests::{row_of, said};
    use super::*;

    fn job_with(fields: Value) -> Value {
        let mut job = json!({"metadata": {"name": "pi", "namespace": "default", "uid": "u-1", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "i:1"}]}}}});
        for (key, value) in fields.as_object().unwrap() {
            job["spec"][key] = value.clone();
        }
        job
    }

    fn cron_with(fields: Value) -> Value {
        let mut job = json!({"metadata": {"name": "tick", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": job_with(json!({}))["spec"].clone()}}});
        for (key, value) in fields.as_object().unwrap() {
            job["spec"][key] = value.clone();
        }
        job
    }

    #[test]
    fn a_job_makes_its_selector_from_its_uid() {
        let mut job = job_with(json!({}));
        default_job(&ResourceKind::new("batch", "v1", "Job", "jobs"), &mut job);
        assert_eq!(job["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}));
        let labels = json!({"batch.kubernetes.io/controller-uid": "u-1", "controller-uid": "u-1", "batch.kubernetes.io/job-name": "pi", "job-name": "pi"});
        assert_eq!(job["spec"]["template"]["metadata"]["labels"], labels);
        assert_eq!((&job["spec"]["completions"], &job["spec"]["backoffLimit"]), (&json!(1), &json!(6)));
        assert_eq!(said("batch", "Job", job_with(json!({})), None), Vec::<String>::new());
        assert_eq!(
            said("batch", "Job", job_with(json!({"selector": {"matchLabels": {"a": "b"}}})), None)[0],
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` not auto-generated"
        );
    }

    #[test]
    fn the_pods_of_a_job_end() {
        let template = json!({"spec": {"containers": [{"name": "a", "image": "i"}]}});
        assert_eq!(
            said("batch", "Job", job_with(json!({"template": template, "parallelism": -1})), None),
            [
                "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
                "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
            ]
        );
    }

    #[test]
    fn a_job_keeps_its_template_and_number() {
        let mut template = job_with(json!({}))["spec"]["template"].clone();
        template["spec"]["containers"][0]["image"] = json!("j:1");
        let changed = said(
            "batch",
            "Job",
            job_with(json!({"template": template, "completions": 3})),
            Some(job_with(json!({"completions": 2}))),
        );
        assert_eq!(changed[0], "spec.completions: Invalid value: 3: field is immutable");
        assert!(
            changed[1].starts_with("spec.template: Invalid value: ") && changed[1].ends_with(": field is immutable")
        );
        assert_eq!(
            said(
                "batch",
                "Job",
                job_with(json!({"parallelism": 4, "completions": 9})),
                Some(job_with(json!({"completions": 9})))
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_cron_job_has_a_schedule() {
        assert_eq!(said("batch", "CronJob", cron_with(json!({})), None), Vec::<String>::new());
        assert_eq!(
            said(
                "batch",
                "CronJob",
                cron_with(json!({"schedule": "often", "concurrencyPolicy": "Maybe", "timeZone": ""})),
                None
            ),
            [
                "spec.schedule: Invalid value: \"often\": expected exactly 5 fields, found 1: [often]",
                "spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string",
                "spec.concurrencyPolicy: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ]
        );
    }

    #[test]
    fn jobs_are_shown_as_kubectl_users_know_them() {
        let mut job = job_with(json!({"completions": 3}));
        job["status"] = json!({"succeeded": 2, "startTime": "2026-01-01T03:00:00Z"});
        assert_eq!(row_of("batch", "Job", &job), "pi | Running | 2/3 | 5m | 3h5m | a | i:1 | <none>");
        job["status"] = json!({"succeeded": 3, "startTime": "2026-01-01T03:00:00Z", "completionTime": "2026-01-01T03:00:09Z",
            "conditions": [{"type": "Complete", "status": "True"}]});
        assert_eq!(row_of("batch", "Job", &job), "pi | Complete | 3/3 | 9s | 3h5m | a | i:1 | <none>");
        let mut cron = cron_with(json!({}));
        assert_eq!(
            row_of("batch", "CronJob", &cron),
            "tick | */5 * * * * | <none> | False | 0 | <none> | 3h5m | a | i:1 | <none>"
        );
        cron["status"] = json!({"lastScheduleTime": "2026-01-01T03:00:00Z", "active": [{}]});
        assert_eq!(
            row_of("batch", "CronJob", &cron),
            "tick | */5 * * * * | <none> | False | 1 | 5m | 3h5m | a | i:1 | <none>"
        );
    }
}
