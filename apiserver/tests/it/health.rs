//! Health: every check by its name, what is left out, and what a stopping server says.

use crate::support::Server;
use crate::support::complete;
use serde_json::json;

/// A server that has all that comes with one, but for the priority classes.
async fn whole() -> Server {
    let mut server = complete().await;
    server.router = server.api.router_as(apiserver::authn::UserInfo::admin());
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "kube-system"}})).await.created();
    let role = json!({"metadata": {"name": "cluster-admin"}});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await.created();
    server
}

#[tokio::test(start_paused = true)]
async fn a_health_endpoint_says_which_checks_hold_and_leaves_out_what_it_is_told_to() {
    let server = whole().await;
    let asked = async |uri: &str| {
        let answer = server.get(uri).await;
        (answer.code.as_u16(), answer.body.as_str().unwrap_or_default().to_owned())
    };
    let missing = "poststarthook/scheduling/bootstrap-system-priority-classes";
    let failed = "[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]poststarthook/start-system-namespaces-controller ok\n\
        [+]poststarthook/rbac/bootstrap-roles ok\n[-]poststarthook/scheduling/bootstrap-system-priority-classes failed: reason withheld\n\
        livez check failed\n";
    assert_eq!(asked("/livez").await, (500, failed.to_owned()), "what fails is always shown");
    let why =
        "internal server error: /registry/priorityclasses.scheduling.k8s.io/system-cluster-critical is not there\n";
    assert_eq!(asked(&format!("/livez/{missing}")).await, (500, why.to_owned()));
    assert_eq!(asked(&format!("/livez?exclude={missing}")).await, (200, "ok".to_owned()));

    let class = json!({"metadata": {"name": "system-cluster-critical"}, "value": 2_000_000_000});
    server.post("/apis/scheduling.k8s.io/v1/priorityclasses", class).await.created();
    assert_eq!(asked("/healthz").await, (200, "ok".to_owned()));
    assert_eq!(asked("/readyz/etcd").await, (200, "ok".to_owned()));
    assert_eq!(asked("/livez/shutdown").await.0, 404, "that is not asked of the living");
    let passed = "[+]ping ok\n[+]log excluded: ok\n[+]etcd ok\n[+]etcd-readiness ok\n[+]informer-sync ok\n\
        [+]poststarthook/start-system-namespaces-controller ok\n[+]poststarthook/rbac/bootstrap-roles ok\n\
        [+]poststarthook/scheduling/bootstrap-system-priority-classes ok\n[+]shutdown ok\n\
        warn: some health checks cannot be excluded: no matches for \"a\",\"b\"\nreadyz check passed\n";
    assert_eq!(asked("/readyz?verbose&exclude=log&exclude=b&exclude=a").await, (200, passed.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_is_alive_but_not_ready() {
    let server = whole().await;
    let class = json!({"metadata": {"name": "system-cluster-critical"}, "value": 2_000_000_000});
    server.post("/apis/scheduling.k8s.io/v1/priorityclasses", class).await.created();
    server.get("/readyz").await.ok();
    server.api.stop();
    let answer = server.get("/readyz").await.expect(500);
    assert!(answer.as_str().is_some_and(|text| text.contains("[-]shutdown failed: reason withheld\n")), "{answer}");
    server.get("/livez").await.ok();
}
