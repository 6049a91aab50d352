//! Tables: an object of a kind that extends the API, and everything that is said of it.

use super::super::tests::said;
use super::*;

const ADMISSION: &str = "admissionregistration.k8s.io";

fn hook() -> Value {
    json!({"name": "a.b.c", "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": {"url": "https://a/b"},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]})
}

#[test]
fn a_webhook_says_where_it_is_and_what_it_is_asked() {
    let configuration = |hooks: Value| json!({"metadata": {"name": "w"}, "webhooks": hooks});
    for kind in ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"] {
        assert_eq!(said(ADMISSION, kind, configuration(json!([hook()])), None), Vec::<String>::new());
    }
    let odd = json!({"name": "a.b.c", "failurePolicy": "Cry", "timeoutSeconds": 31, "admissionReviewVersions": ["v9"],
        "clientConfig": {"service": {"name": "s", "port": 0}}, "rules": [{"operations": ["*", "LOOK"], "apiVersions": ["v1"],
            "apiGroups": [""], "resources": []}]});
    assert_eq!(
        said(ADMISSION, "ValidatingWebhookConfiguration", configuration(json!([{"name": "a"}, hook(), odd])), None),
        [
            "webhooks[0].name: Invalid value: \"a\": should be a domain with at least three segments separated by dots",
            "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
            "webhooks[2].rules[0].operations: Invalid value: [\"*\",\"LOOK\"]: if '*' is present, must not specify other operations",
            "webhooks[2].rules[0].resources: Required value",
            "webhooks[2].rules[0].operations[1]: Unsupported value: \"LOOK\": supported values: \"*\", \"CONNECT\", \"CREATE\", \
             \"DELETE\", \"UPDATE\"",
            "webhooks[2].failurePolicy: Unsupported value: \"Cry\": supported values: \"Fail\", \"Ignore\"",
            "webhooks[2].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            "webhooks[2].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            "webhooks[2].clientConfig.service.namespace: Required value: service namespace is required",
            "webhooks[2].clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
            "webhooks[2].admissionReviewVersions: Invalid value: [\"v9\"]: must include at least one of v1, v1beta1",
            "webhooks[2].name: Duplicate value: \"a.b.c\"",
        ]
    );
    let mut plain = hook();
    plain["clientConfig"]["url"] = json!("http://u@/x?q#f");
    assert_eq!(
        said(ADMISSION, "MutatingWebhookConfiguration", configuration(json!([plain])), None),
        [
            "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            "webhooks[0].clientConfig.url: Invalid value: \"\": host must be specified; desired format: https://host[/path]",
            "webhooks[0].clientConfig.url: Invalid value: \"u\": user information is not permitted in the URL",
            "webhooks[0].clientConfig.url: Invalid value: \"f\": fragments are not permitted in the URL",
            "webhooks[0].clientConfig.url: Invalid value: \"q\": query parameters are not permitted in the URL",
        ]
    );
}

#[test]
fn a_policy_has_something_to_say_about_something() {
    let policy = |spec: Value| json!({"metadata": {"name": "p"}, "spec": spec});
    let constraints = json!({"resourceRules": hook()["rules"]});
    let good = json!({"matchConstraints": constraints, "validations": [{"expression": "true"}]});
    assert_eq!(said(ADMISSION, "ValidatingAdmissionPolicy", policy(good), None), Vec::<String>::new());
    assert_eq!(
        said(ADMISSION, "ValidatingAdmissionPolicy", policy(json!({"paramKind": {"kind": "A"}})), None),
        [
            "spec.paramKind.apiVersion: Required value",
            "spec.matchConstraints: Required value",
            "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
            "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
        ]
    );
    let binding = policy(json!({"policyName": "p", "validationActions": ["Deny", "Warn", "Deny"]}));
    assert_eq!(
        said(ADMISSION, "ValidatingAdmissionPolicyBinding", binding, None),
        [
            "spec.validationActions[2]: Duplicate value: \"Deny\"",
            "spec.validationActions: Invalid value: [\"Deny\",\"Warn\",\"Deny\"]: must not contain both Deny and Warn (repeating the same \
             validation failure information in the API response and headers serves no purpose)",
        ]
    );
}

#[test]
fn an_api_service_is_called_after_what_it_serves() {
    let service = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let good = json!({"group": "g.io", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10});
    assert_eq!(said("apiregistration.k8s.io", "APIService", service("v1.g.io", good), None), Vec::<String>::new());
    let odd = json!({"group": "g.io", "version": "v1", "versionPriority": 1001, "groupPriorityMinimum": 1, "service": {"name": "s"}});
    assert_eq!(
        said("apiregistration.k8s.io", "APIService", service("x", odd), None),
        [
            "metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v1.g.io\"",
            "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
            "spec.service.namespace: Required value",
        ]
    );
}

#[test]
fn what_is_not_served_does_not_look_served() {
    let kind = ResourceKind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
        .with_status();
    let mut definition = json!({"metadata": {"name": "a.b.c"}, "spec": {"names": {"kind": "Crontab"}, "versions": [{"name": "v1", "storage": true}]}});
    prepare_definition(&kind, &mut definition, None, "");
    default_definition(&kind, &mut definition);
    let condition = &definition["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"], &condition["reason"]),
        (&json!("Established"), &json!("False"), &json!("NotServed"))
    );
    assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(
        definition["spec"]["names"],
        json!({"kind": "Crontab", "singular": "crontab", "listKind": "CrontabList"})
    );
    let mut service = json!({"metadata": {}, "spec": {"service": {"name": "s", "namespace": "n"}}});
    prepare_api_service(&kind, &mut service, None, "");
    assert_eq!(service["status"]["conditions"][0]["status"], "False");
}
