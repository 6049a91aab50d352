//! Who waits for whom.

use super::*;
use std::time::Duration;
use tokio::time::{Instant, sleep};

fn info(verb: &str, path: &str) -> RequestInfo {
    let method = http::Method::from_bytes(verb.as_bytes()).expect("a method");
    let uri: http::Uri = path.parse().expect("a URI");
    RequestInfo::new(&method, &uri)
}

/// The defaults, with these objects beside or instead of them, sharing `total` seats.
fn compiled(total: usize, more: &[Value]) -> Objects {
    let mut all = Objects::new(total);
    for object in objects().iter().chain(more) {
        let prefix = if object["kind"] == "FlowSchema" { SCHEMAS } else { LEVELS };
        all.put(&format!("{prefix}{}", defaults::name(object)), Some(object.to_string().as_bytes()));
    }
    all
}

fn control(total: usize, more: &[Value]) -> Arc<FlowControl> {
    let mandatory = Arc::new(compiled(total, more).view());
    Arc::new(FlowControl { mandatory, followed: OnceLock::new(), total })
}

#[test]
fn the_first_schema_by_precedence_whose_rules_match_decides() {
    let compiled = compiled(600, &[]).view();
    let account = |name: &str| UserInfo::new(name, &["system:serviceaccounts"]);
    let node = UserInfo::new("system:node:n", &["system:nodes"]);
    let anonymous = UserInfo {
        name: "system:anonymous".into(),
        groups: vec!["system:unauthenticated".into()],
        ..UserInfo::default()
    };
    let nobody = UserInfo { name: "nobody".into(), ..UserInfo::default() };
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/l";
    let cases = [
        (UserInfo::admin(), "GET", "/api/v1/pods", "exempt", "exempt"),
        (anonymous.clone(), "GET", "/healthz", "probes", "exempt"),
        (anonymous, "GET", "/version", "global-default", "global-default"),
        (account("system:serviceaccount:kube-system:x"), "GET", lease, "system-leader-election", "leader-election"),
        (
            account("system:serviceaccount:kube-system:x"),
            "GET",
            "/api/v1/pods",
            "kube-system-service-accounts",
            "workload-high",
        ),
        (account("system:serviceaccount:default:x"), "GET", "/api/v1/pods", "service-accounts", "workload-low"),
        (node.clone(), "PATCH", "/api/v1/nodes/n/status", "system-node-high", "node-high"),
        (node, "GET", "/api/v1/namespaces/a/secrets/s", "system-nodes", "system"),
        (UserInfo::new("jane", &[]), "GET", "/apis/apps/v1", "global-default", "global-default"),
        (nobody, "GET", "/api", "catch-all", "catch-all"),
    ];
    for (user, verb, path, schema, level) in cases {
        let route = compiled.route(&user, &info(verb, path));
        assert_eq!((route.schema.name.as_str(), route.level.name()), (schema, level), "{} {verb} {path}", user.name);
    }
}

#[test]
fn seats_are_shared_out_by_shares_rounded_up() {
    let compiled = compiled(600, &[]).view();
    let seats: Vec<String> =
        compiled.levels.iter().map(|level| format!("{} {}", level.name(), level.seats())).collect();
    assert_eq!(
        seats,
        [
            "catch-all 13",
            "exempt 0",
            "global-default 49",
            "leader-election 25",
            "node-high 98",
            "system 74",
            "workload-high 98",
            "workload-low 245"
        ]
    );
}

#[test]
fn a_schema_without_its_level_goes_to_catch_all_and_the_mandatory_ones_cannot_be_changed() {
    let everything = objects().pop().expect("catch-all")["spec"]["rules"].clone();
    let schema = |name: &str, level: &str, precedence: i64| {
        json!({"kind": "FlowSchema", "metadata": {"name": name, "uid": format!("uid-{name}")}, "spec": {
            "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": everything}})
    };
    let compiled = compiled(600, &[schema("mine", "nowhere", 10), schema("exempt", "catch-all", 9000)]).view();
    let route = compiled.route(&UserInfo::new("jane", &[]), &info("GET", "/api"));
    assert_eq!((route.schema.name.as_str(), route.level.name()), ("mine", "catch-all"));
    assert_eq!(route.uids.0, "uid-mine");
    let route = compiled.route(&UserInfo::admin(), &info("GET", "/api"));
    assert_eq!(route.level.name(), "exempt");
    assert_eq!(route.uids.0, "uid-exempt");
}

#[tokio::test(start_paused = true)]
async fn a_user_who_floods_the_server_does_not_delay_another() {
    // 245 seats: 20 of them for users.
    let control = control(245, &[]);
    let list = info("GET", "/api/v1/pods");
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let (control, list) = (control.clone(), list.clone());
        flood.spawn(async move {
            match control.enter(&UserInfo::new("flood", &[]), &list).await {
                Ok(_place) => {
                    sleep(Duration::from_millis(500)).await;
                    200
                }
                Err(overload) => overload.status.code,
            }
        });
    }
    tokio::task::yield_now().await;
    sleep(Duration::from_millis(1)).await;
    for _ in 0..3 {
        let before = Instant::now();
        let place = control.enter(&UserInfo::new("jane", &[]), &list).await.ok().expect("a seat");
        // The next seat that any request of the flood gives back.
        assert!(before.elapsed() <= Duration::from_millis(500), "{:?}", before.elapsed());
        drop(place);
    }
    let codes = flood.join_all().await;
    // 20 seats and the six queues of one hand, each of 50.
    assert_eq!(codes.iter().filter(|code| **code == 200).count(), 20 + 6 * 50);
    assert!(codes.iter().all(|code| matches!(code, 200 | 429)));
    assert_eq!(control.executing(), 0);
}

#[tokio::test(start_paused = true)]
async fn of_two_users_who_both_want_everything_each_gets_half() {
    let control = control(245, &[]);
    let list = info("GET", "/api/v1/pods");
    let mut all = tokio::task::JoinSet::new();
    for (user, count) in [("greedy", 250), ("modest", 50)] {
        for _ in 0..count {
            let (control, list) = (control.clone(), list.clone());
            all.spawn(async move {
                let _place = control.enter(&UserInfo::new(user, &[]), &list).await.ok().expect("a seat");
                sleep(Duration::from_millis(100)).await;
                user
            });
        }
    }
    let mut done = Vec::new();
    while let Some(user) = all.join_next().await {
        done.push(user.expect("no panic"));
    }
    // The first 20 seats went to whoever came first; from then on the modest one has had its turn every time.
    let last = done.iter().rposition(|user| *user == "modest").expect("done");
    assert!(last < 200, "the modest user's last of 50 requests was served as number {last} of 300");
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_or_goes_away_leaves_the_line() {
    let control = control(245, &[]);
    let list = info("GET", "/api/v1/pods");
    let user = UserInfo::new("jane", &[]);
    let mut places = Vec::new();
    for _ in 0..20 {
        places.push(control.enter(&user, &list).await.ok().expect("a seat"));
    }
    let before = Instant::now();
    let refused = control.enter(&user, &list).await.err().expect("no seat");
    assert_eq!((refused.status.code, before.elapsed()), (429, Duration::from_secs(15)));
    assert_eq!(refused.status.details, Some(json!({"retryAfterSeconds": 1})));
    // Whoever gives up while waiting takes nobody's seat.
    assert!(tokio::time::timeout(Duration::from_secs(1), control.enter(&user, &list)).await.is_err());
    drop(places);
    assert_eq!(control.executing(), 0);
    let mut text = String::new();
    control.metrics(&mut text);
    let expected = "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"global-default\",priority_level=\"global-default\",reason=\"time-out\"} 1";
    assert!(text.contains(expected), "{text}");
    assert!(
        text.contains("apiserver_flowcontrol_current_inqueue_requests{priority_level=\"global-default\"} 0"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_level_that_rejects_lets_nobody_wait_and_an_exempt_one_everybody_in() {
    let control = control(245, &[]);
    let nobody = UserInfo { name: "nobody".into(), ..UserInfo::default() };
    let list = info("GET", "/api/v1/pods");
    let mut places = Vec::new();
    for _ in 0..5 {
        places.push(control.enter(&nobody, &list).await.ok().expect("a seat"));
    }
    let before = Instant::now();
    assert_eq!(control.enter(&nobody, &list).await.err().expect("no seat").status.code, 429);
    assert_eq!(before.elapsed(), Duration::ZERO);
    for _ in 0..1000 {
        places.push(control.enter(&UserInfo::admin(), &list).await.ok().expect("a seat"));
    }
    assert_eq!(control.executing(), 1005);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_objects_holds_for_those_who_wait_already() {
    let mut objects = compiled(245, &[]);
    let first = Arc::new(objects.view());
    let list = info("GET", "/api/v1/pods");
    let (jane, level) = (UserInfo::new("jane", &[]), first.route(&UserInfo::new("jane", &[]), &list).level.clone());
    let mut seats: Vec<Seat> = (0..20).map(|_| level.try_sit().expect("a seat")).collect();
    let flow = first.route(&jane, &list).schema.flow(&jane, &list);
    let waiting = tokio::spawn({
        let level = level.clone();
        async move { level.sit(flow).await.is_ok() }
    });
    sleep(Duration::from_millis(1)).await;
    assert_eq!(level.waiting(), 1);
    let mut more = super::objects()
        .into_iter()
        .find(|object| object["kind"] == "PriorityLevelConfiguration" && defaults::name(object) == "global-default");
    let more = more.as_mut().expect("the level");
    more["spec"]["limited"]["nominalConcurrencyShares"] = 40.into();
    objects.put(&format!("{LEVELS}global-default"), Some(more.to_string().as_bytes()));
    drop(objects.view());
    assert!(waiting.await.expect("no panic"), "there are more seats now");
    seats.clear();
    assert_eq!(level.executing(), 0);
}
