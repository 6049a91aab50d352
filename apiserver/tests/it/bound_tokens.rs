//! Service-account tokens: for whom, for what, and how long.

use crate::access::{ACCOUNTS, House, PODS, SECRETS, pod};
use apiserver::tokens::BoundObject;
use serde_json::{Value, json};
use std::time::Duration;

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

#[tokio::test(start_paused = true)]
async fn a_token_dies_with_what_it_is_bound_to() {
    let house = House::new().await;
    house.admin.post("/api/v1/nodes", json!({"metadata": {"name": "node-1"}})).await.created();
    house.admin.post(ACCOUNTS, json!({"metadata": {"name": "default"}})).await.created();
    house.admin.post(ACCOUNTS, json!({"metadata": {"name": "robot"}})).await.created();
    house.admin.post(PODS, pod("web", "node-1", "s")).await.created();
    let request = |account: &str, spec: Value| {
        let (admin, path) = (&house.admin, format!("{ACCOUNTS}/{account}/token"));
        async move { admin.post(&path, json!({"spec": spec})).await }
    };
    let token = |answer: Value| answer["status"]["token"].as_str().expect("a token").to_owned();
    let to_pod =
        json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "web"}, "expirationSeconds": 600});
    let bound = token(request("default", to_pod.clone()).await.created());
    let who = house.whoami(&bound).await.created();
    let info = &who["status"]["userInfo"];
    assert_eq!(info["username"], "system:serviceaccount:default:default");
    let extra = |key: &str| {
        info["extra"][format!("authentication.kubernetes.io/{key}")][0].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!((extra("pod-name").as_str(), extra("node-name").as_str()), ("web", "node-1"));
    assert!(extra("credential-id").starts_with("JTI="));
    assert!(!extra("node-uid").is_empty());

    // The pod goes, and one of the same name comes: another pod.
    house.admin.delete(&format!("{PODS}/web"), json!({"gracePeriodSeconds": 0})).await.ok();
    assert_eq!(house.whoami(&bound).await.headers["www-authenticate"], "Bearer");
    house.whoami(&bound).await.expect(401);
    house.admin.post(PODS, pod("web", "node-1", "s")).await.created();
    house.whoami(&bound).await.expect(401);

    let again = token(request("default", to_pod).await.created());
    house.whoami(&again).await.created();
    tokio::time::advance(Duration::from_secs(599)).await;
    house.whoami(&again).await.created();
    tokio::time::advance(Duration::from_secs(2)).await;
    house.whoami(&again).await.expect(401);

    // The account goes and comes back: another account.
    let robot = token(request("robot", json!({})).await.created());
    house.whoami(&robot).await.created();
    house.admin.delete(&format!("{ACCOUNTS}/robot"), Value::Null).await.ok();
    house.admin.post(ACCOUNTS, json!({"metadata": {"name": "robot"}})).await.created();
    house.whoami(&robot).await.expect(401);

    let to_node = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Node", "name": "node-1"}});
    let on_node = token(request("robot", to_node).await.created());
    house.whoami(&on_node).await.created();
    house.admin.delete("/api/v1/nodes/node-1", Value::Null).await.ok();
    house.whoami(&on_node).await.expect(401);
}

#[tokio::test(start_paused = true)]
async fn a_token_request_says_what_is_wrong_with_it() {
    let house = House::new().await;
    for name in ["default", "robot"] {
        house.admin.post(ACCOUNTS, json!({"metadata": {"name": name}})).await.created();
    }
    house.admin.post(PODS, pod("web", "node-1", "s")).await.created();
    let said = |account: &str, spec: Value| {
        let (admin, path) = (&house.admin, format!("{ACCOUNTS}/{account}/token"));
        async move {
            let answer = admin.post(&path, json!({"spec": spec})).await;
            format!("{} {}", answer.code.as_u16(), answer.body["message"].as_str().unwrap_or_default())
        }
    };
    assert_eq!(
        said("default", json!({"expirationSeconds": 599})).await,
        "422 TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"
    );
    assert_eq!(said("nobody", json!({})).await, "404 serviceaccounts \"nobody\" not found");
    let to = |kind: &str, name: &str, uid: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}});
    assert_eq!(said("default", to("Pod", "gone", "")).await, "404 pods \"gone\" not found");
    assert!(said("default", to("Pod", "web", "other")).await.starts_with(
        "409 Operation cannot be fulfilled on pods \"web\": the UID in the bound object reference (other)"
    ));
    assert_eq!(
        said("robot", to("Pod", "web", "")).await,
        "400 cannot bind token for serviceaccount \"robot\" to pod running with different serviceaccount name."
    );
    assert!(
        said("default", to("Deployment", "web", ""))
            .await
            .starts_with("400 cannot bind token to object of kind v1, Kind=Deployment")
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_is_for_its_audience() {
    let house = House::new().await;
    house.admin.post(ACCOUNTS, json!({"metadata": {"name": "default"}})).await.created();
    let request = json!({"spec": {"audiences": ["vault", "mail"]}});
    let answer = house.admin.post(&format!("{ACCOUNTS}/default/token"), request).await.created();
    let token = answer["status"]["token"].as_str().expect("a token").to_owned();
    house.whoami(&token).await.expect(401);
    let review = |audiences: Value| {
        let (admin, body) = (&house.admin, json!({"spec": {"token": token, "audiences": audiences}}));
        async move { admin.post(REVIEWS, body).await.created()["status"].clone() }
    };
    let good = review(json!(["mail", "other"])).await;
    assert_eq!((&good["authenticated"], &good["audiences"]), (&json!(true), &json!(["mail"])));
    let bad = review(json!([])).await;
    assert_eq!(bad["authenticated"], Value::Null);
    assert_eq!(
        bad["error"],
        "[invalid bearer token, token audiences [\"vault\" \"mail\"] is invalid for the target audiences [\"https://kubernetes.default.svc.cluster.local\"]]"
    );
    let nonsense = house.admin.post(REVIEWS, json!({"spec": {"token": "nonsense"}})).await.created();
    assert_eq!(nonsense["status"], json!({"user": {}, "error": "invalid bearer token"}));
    house.admin.post(REVIEWS, json!({"spec": {}})).await.expect(400);
}

#[tokio::test(start_paused = true)]
async fn a_token_in_a_secret_is_good_as_long_as_it_stands_there() {
    use base64::Engine;
    let house = House::new().await;
    let account = house.admin.post(ACCOUNTS, json!({"metadata": {"name": "default"}})).await.created();
    let bound = BoundObject { name: "default".into(), uid: account["metadata"]["uid"].as_str().expect("a uid").into() };
    let token = house.signer.sign_for_secret("default", &bound, "kept").expect("signed");
    house.whoami(&token).await.expect(401);
    let data = json!({"token": base64::engine::general_purpose::STANDARD.encode(&token)});
    let secret = json!({"metadata": {"name": "kept", "annotations": {"kubernetes.io/service-account.name": "default"}},
        "type": "kubernetes.io/service-account-token", "data": data});
    house.admin.post(SECRETS, secret).await.created();
    let who = house.whoami(&token).await.created();
    assert_eq!(who["status"]["userInfo"]["username"], "system:serviceaccount:default:default");
    house.admin.delete(&format!("{SECRETS}/kept"), Value::Null).await.ok();
    house.whoami(&token).await.expect(401);
}
