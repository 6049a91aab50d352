//! The walk that a new user takes, step by step on one cluster with the real kubectl: `examples/lesson`.
//!
//! Written as questions to the cluster whose answers are compared with what other commands say, so that names and addresses may
//! be whatever they are.

use crate::support::{Bench, http, line_set, repository, rows};
use coracle::Cluster;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// How often a Service is asked before every endpoint must have answered: of 5 endpoints one is missed once in 2 million times.
const ASKED: u32 = 65;

#[tokio::test(flavor = "multi_thread")]
async fn the_lesson_works_from_the_first_node_to_the_last_policy() {
    let bench = Bench::with(Cluster::builder().host_ports(true)).await;
    nodes_are_ready(&bench).await;
    let node_port = the_manifests_become_ready(&bench).await;
    lists_show_what_runs(&bench, node_port).await;
    every_name_of_a_service_reaches_every_ready_replica(&bench).await;
    names_of_headless_and_external_services_resolve(&bench).await;
    node_ports_and_load_balancers_answer(&bench, node_port).await;
    endpoints_follow_the_pods(&bench).await;
    connections_go_to_ready_pods_only(&bench).await;
    the_rest_api_answers_on_the_unix_socket(&bench).await;
    policies_let_pass_what_they_allow_and_nothing_else(&bench).await;
    bench.stop().await;
}

async fn nodes_are_ready(bench: &Bench) {
    bench
        .transcript(
            "$ kubectl get nodes -o wide
             NAME     STATUS   ROLES    AGE   VERSION   INTERNAL-IP   EXTERNAL-IP   OS-IMAGE        KERNEL-VERSION   CONTAINER-RUNTIME
             node-1   Ready    <none>   …s    v1.36.0   172.18.0.2    <none>        Coracle …       …                coracle://…
             node-2   Ready    <none>   …s    v1.36.0   172.18.0.3    <none>        Coracle …       …                coracle://…",
        )
        .await;
}

/// Applies the manifests, with a node port that is free on this machine instead of 30080.
async fn the_manifests_become_ready(bench: &Bench) -> u16 {
    let node_port = free_node_port();
    for entry in std::fs::read_dir(repository("examples/lesson")).expect("the lesson") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let text = std::fs::read_to_string(&path).expect("a manifest");
            let name = path.file_name().expect("a name").to_str().expect("a plain name");
            bench.terminal.write(&format!("lesson/{name}"), &text.replace("30080", &node_port.to_string()));
        }
    }
    bench
        .transcript(
            "$ kubectl apply -f lesson/
             namespace/production created
             namespace/frontend created
             deployment.apps/api created
             service/api-service created
             deployment.apps/api created
             service/api-service created
             deployment.apps/web created
             service/web-service created
             service/public-web created
             service/external-db created
             service/db-headless created
             statefulset.apps/db created
             pod/client created
             pod/client created

             $ kubectl rollout status deployment/api deployment/web --timeout=60s
             …
             deployment \"api\" successfully rolled out
             …
             deployment \"web\" successfully rolled out

             $ kubectl rollout status deployment/api -n production --timeout=60s
             …
             deployment \"api\" successfully rolled out

             $ kubectl rollout status statefulset/db --timeout=60s
             …
             partitioned roll out complete: 3 new pods have been updated...

             $ kubectl wait pod/client --for=condition=Ready --timeout=60s
             pod/client condition met

             $ kubectl wait pod/client -n frontend --for=condition=Ready --timeout=60s
             pod/client condition met",
        )
        .await;
    node_port
}

/// A port of the static range for node ports that nobody on this machine listens on. Other runs of this test begin elsewhere.
fn free_node_port() -> u16 {
    let nodes = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 18, 0, 3)];
    let free = |port: &u16| nodes.iter().all(|node| TcpListener::bind((*node, *port)).is_ok());
    let begin = std::process::id() % 86;
    let mut ports = (0..86).map(|offset| 30_000 + u16::try_from((begin + offset) % 86).expect("less than 86"));
    ports.find(free).expect("one of 86 ports is free")
}

async fn lists_show_what_runs(bench: &Bench, node_port: u16) {
    let pods = rows(&bench.ok("kubectl get pods -o wide").await);
    assert_eq!(pods.len(), 10, "{pods:?}");
    for row in &pods {
        let [name, ready, status, restarts, _, ip, node, ..] = row.as_slice() else { panic!("{row:?}") };
        assert_eq!((ready.as_str(), status.as_str(), restarts.as_str()), ("1/1", "Running", "0"), "{name}");
        let network = if node == "node-1" { "10.244.1." } else { "10.244.2." };
        assert!(ip.starts_with(network), "{name} on {node} has the address {ip}");
    }
    for node in ["node-1", "node-2"] {
        let pods =
            bench.ok(&format!("kubectl get pods -l app=api -o name --field-selector spec.nodeName={node}")).await;
        assert!(!pods.is_empty(), "the scheduler spreads: {node} has none of the three api pods");
    }
    bench
        .transcript(&format!(
            "$ kubectl get services
             NAME           TYPE           CLUSTER-IP   EXTERNAL-IP      PORT(S)           AGE
             api-service    ClusterIP      10.…         <none>           80/TCP            …s
             db-headless    ClusterIP      None         <none>           5432/TCP          …s
             external-db    ExternalName   <none>       db.example.com   <none>            …s
             kubernetes     ClusterIP      10.96.0.1    <none>           443/TCP           …s
             public-web     LoadBalancer   10.…         172.18.255.1     80:3…/TCP         …s
             web-service    NodePort       10.…         <none>           80:{node_port}/TCP …s

             $ kubectl get networkpolicies
             No resources found in default namespace."
        ))
        .await;
    for (service, label, port) in
        [("api-service", "app=api", 8080), ("web-service", "app=web", 8080), ("db-headless", "app=database", 5432)]
    {
        assert_eq!(endpoints(bench, service).await, addresses(bench, label, port).await, "{service}");
        let slices = format!("kubectl get endpointslices -l kubernetes.io/service-name={service}");
        let ready = r#"{range .items[*].endpoints[?(@.conditions.ready==true)]}{.addresses[0]}{"\n"}{end}"#;
        let slices = line_set(&bench.ok(&format!("{slices} -o jsonpath='{ready}'")).await);
        let slices: BTreeSet<String> = slices.iter().map(|address| format!("{address}:{port}")).collect();
        assert_eq!(slices, addresses(bench, label, port).await, "{service}");
    }
    let all = bench.ok("kubectl get pods,svc,endpoints,endpointslices,networkpolicies -o wide").await;
    for shown in
        ["pod/client ", "service/external-db ", "endpoints/api-service ", "endpointslice.discovery.k8s.io/kubernetes "]
    {
        assert!(all.contains(shown), "{shown} is missing in\n{all}");
    }
}

/// Addresses with port in the Endpoints of a Service.
async fn endpoints(bench: &Bench, service: &str) -> BTreeSet<String> {
    let shown = bench.ok(&format!("kubectl get endpoints {service} -o json")).await;
    let endpoints: Value = serde_json::from_str(&shown).expect("JSON");
    let subsets = endpoints["subsets"].as_array().into_iter().flatten();
    let pairs = subsets.flat_map(|subset| {
        let addresses = subset["addresses"].as_array().into_iter().flatten();
        addresses
            .map(|address| format!("{}:{}", address["ip"].as_str().unwrap_or_default(), subset["ports"][0]["port"]))
    });
    pairs.collect()
}

/// Addresses of the ready pods with a label, with a port.
async fn addresses(bench: &Bench, label: &str, port: u16) -> BTreeSet<String> {
    let pods = pods(bench, "default", label).await;
    let ready = pods.iter().filter(|pod| {
        let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    });
    ready.map(|pod| format!("{}:{port}", pod["status"]["podIP"].as_str().expect("an address"))).collect()
}

async fn pods(bench: &Bench, namespace: &str, label: &str) -> Vec<Value> {
    let list = bench.ok(&format!("kubectl get pods -n {namespace} -l {label} -o json")).await;
    let mut list: Value = serde_json::from_str(&list).expect("JSON");
    serde_json::from_value(list["items"].take()).expect("a list")
}

async fn names(bench: &Bench, namespace: &str, label: &str) -> BTreeSet<String> {
    let pods = pods(bench, namespace, label).await;
    pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).map(str::to_owned).collect()
}

/// Who answers when a Service is asked many times, from a pod. Every request must succeed.
async fn answers(bench: &Bench, from: &str, url: &str) -> BTreeSet<String> {
    let ask = format!("for i in $(seq {ASKED}); do curl -sS -m 5 {url}/hostname || exit 1; echo; done");
    line_set(&bench.ok(&format!("kubectl exec {from} -- sh -c '{ask}'")).await)
}

async fn every_name_of_a_service_reaches_every_ready_replica(bench: &Bench) {
    let answer = bench.ok("kubectl exec client -- curl -s http://api-service").await;
    assert!(answer.starts_with("NOW: "), "{answer:?}");
    let here = names(bench, "default", "app=api").await;
    let production = names(bench, "production", "app=api").await;
    assert_eq!((here.len(), production.len()), (3, 2));
    for name in
        ["api-service", "api-service.default", "api-service.default.svc", "api-service.default.svc.cluster.local"]
    {
        assert_eq!(answers(bench, "client", &format!("http://{name}")).await, here, "{name}");
    }
    for name in ["api-service.production", "api-service.production.svc.cluster.local."] {
        assert_eq!(answers(bench, "client", &format!("http://{name}")).await, production, "{name}");
    }
    bench
        .transcript(
            "$ kubectl exec client -- curl -s -o /dev/null -w '%{http_code}' http://api-service/healthz
             200
             $ kubectl exec client -- curl -s http://api-service.frontend
             command terminated with exit code 6
             [exit 6]
             $ kubectl exec client -- curl -s http://api-service:81
             command terminated with exit code 7
             [exit 7]",
        )
        .await;
}

async fn names_of_headless_and_external_services_resolve(bench: &Bench) {
    let found = |text: &str| -> BTreeSet<String> {
        let (_, answers) = text.split_once("\n\n").expect("the server, an empty line, the answers");
        answers.lines().filter_map(|line| line.strip_prefix("Address: ")).map(|ip| format!("{ip}:5432")).collect()
    };
    let all = bench.ok("kubectl exec client -- nslookup db-headless").await;
    assert!(all.starts_with("Server:\t\t10.96.0.10\nAddress:\t10.96.0.10#53\n"), "{all}");
    assert!(all.contains("Name:\tdb-headless.default.svc.cluster.local\n"), "{all}");
    assert_eq!(found(&all), addresses(bench, "app=database", 5432).await);
    for pod in ["db-0", "db-1", "db-2"] {
        let one = bench.ok(&format!("kubectl exec client -- nslookup {pod}.db-headless")).await;
        assert!(one.contains(&format!("Name:\t{pod}.db-headless.default.svc.cluster.local\n")), "{one}");
        let own = addresses(bench, &format!("statefulset.kubernetes.io/pod-name={pod}"), 5432).await;
        assert_eq!((found(&one), own.len()), (own, 1), "{pod}");
    }
    // Nobody outside is asked in a test, so the CNAME is all there is.
    let external = bench.sh("kubectl exec client -- nslookup external-db").await;
    let cname = "external-db.default.svc.cluster.local\tcanonical name = db.example.com.\n";
    assert!(external.stdout.contains(cname), "{external}");
}

async fn node_ports_and_load_balancers_answer(bench: &Bench, node_port: u16) {
    let web = names(bench, "default", "app=web").await;
    for node in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 18, 0, 3)] {
        let mut answered = BTreeSet::new();
        for _ in 0..ASKED {
            let (status, page) = http::get(SocketAddr::from((node, node_port)), "/").await.expect("an answer");
            assert_eq!(status, 200, "{page}");
            answered.extend(page.lines().find_map(|line| line.strip_prefix("Pod: ")).map(str::to_owned));
        }
        assert_eq!(answered, web, "{node}");
    }
    for url in
        [format!("http://172.18.0.3:{node_port}"), "http://172.18.255.1".to_owned(), "http://public-web".to_owned()]
    {
        let page = bench.ok(&format!("kubectl exec client -- curl -s {url}")).await;
        assert!(page.starts_with("Stand-in for: nginx:1.27\nPod: web-"), "{url}: {page}");
    }
}

async fn endpoints_follow_the_pods(bench: &Bench) {
    bench
        .transcript(
            "$ kubectl scale deployment api --replicas=5
             deployment.apps/api scaled
             $ kubectl rollout status deployment/api --timeout=60s
             …
             deployment \"api\" successfully rolled out",
        )
        .await;
    bench.cluster.settled().await;
    let five = names(bench, "default", "app=api").await;
    assert_eq!(five.len(), 5);
    assert_eq!(endpoints(bench, "api-service").await, addresses(bench, "app=api", 8080).await);
    assert_eq!(answers(bench, "client", "http://api-service").await, five);

    // Requests all the while: the pod that ends may refuse one or cut it off before its endpoint is gone (7, 52, 56), as anywhere;
    // but none times out, and none fails in another way.
    let victim = five.first().expect("a pod");
    let ask = "curl -s -m 5 http://api-service/hostname; case $? in 0|7|52|56) echo;; *) exit 1;; esac";
    let ask = format!("for i in $(seq {ASKED}); do {ask}; done");
    let ask = format!("kubectl exec client -- sh -c '{ask}'");
    let (answered, deleted) = tokio::join!(bench.ok(&ask), bench.ok(&format!("kubectl delete pod {victim}")));
    let answered = line_set(&answered);
    assert_eq!(deleted, format!("pod \"{victim}\" deleted from default namespace\n"));
    assert!(answered.len() >= 4, "{answered:?}");
    bench.ok("kubectl rollout status deployment/api --timeout=60s").await;
    bench.cluster.settled().await;
    let now = names(bench, "default", "app=api").await;
    assert!(now.len() == 5 && !now.contains(victim), "{now:?}");
    assert_eq!(endpoints(bench, "api-service").await, addresses(bench, "app=api", 8080).await);
    assert_eq!(answers(bench, "client", "http://api-service").await, now);
}

async fn connections_go_to_ready_pods_only(bench: &Bench) {
    let before = names(bench, "default", "app=api").await;
    bench.terminal.write(
        "hesitant.yaml",
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hesitant", "labels": {"app": "api"}}, "spec":
            {"terminationGracePeriodSeconds": 1, "containers": [{"name": "api",
             "image": "registry.k8s.io/e2e-test-images/agnhost:2.53", "args": ["netexec", "--http-port=8080"],
             "readinessProbe": {"exec": {"command": ["cat", "/tmp/ready"]}, "periodSeconds": 1}}]}}"#,
    );
    bench
        .transcript(
            "$ kubectl apply -f hesitant.yaml
             pod/hesitant created
             $ kubectl wait pod/hesitant --for=jsonpath='{.status.phase}'=Running --timeout=60s
             pod/hesitant condition met
             $ kubectl get pod hesitant
             NAME       READY   STATUS    RESTARTS   AGE
             hesitant   0/1     Running   0          …s",
        )
        .await;
    bench.cluster.settled().await;
    let unready = r#"{.items[*].endpoints[?(@.targetRef.name=="hesitant")].conditions.ready}"#;
    let slices = "kubectl get endpointslices -l kubernetes.io/service-name=api-service";
    assert_eq!(bench.ok(&format!("{slices} -o jsonpath='{unready}'")).await, "false");
    assert_eq!(answers(bench, "client", "http://api-service").await, before, "the pod listens, but is not ready");
    bench
        .transcript(
            "$ kubectl exec hesitant -- touch /tmp/ready
             $ kubectl wait pod/hesitant --for=condition=Ready --timeout=60s
             pod/hesitant condition met",
        )
        .await;
    bench.cluster.settled().await;
    assert!(answers(bench, "client", "http://api-service").await.contains("hesitant"));
    bench.ok("kubectl delete pod hesitant").await;
}

async fn the_rest_api_answers_on_the_unix_socket(bench: &Bench) {
    let socket = bench.cluster.unix_socket().expect("a socket");
    let (status, body) = http::get_unix(socket, "/api/v1/namespaces/default/pods").await.expect("an answer");
    let list: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &list["kind"], &list["apiVersion"]), (200, &"PodList".into(), &"v1".into()));
    let listed: BTreeSet<&str> =
        list["items"].as_array().expect("items").iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
    assert!(listed.is_superset(&BTreeSet::from(["client", "db-0", "db-1", "db-2"])), "{listed:?}");
    let (status, body) = http::get_unix(socket, "/api/v1/namespaces/default/pods/none").await.expect("an answer");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &answer["message"]), (404, &r#"pods "none" not found"#.into()));
}

async fn policies_let_pass_what_they_allow_and_nothing_else(bench: &Bench) {
    let policies = repository("examples/lesson/policies");
    bench
        .transcript(&format!(
            "$ kubectl apply -f {}
             networkpolicy.networking.k8s.io/api-allow created
             networkpolicy.networking.k8s.io/default-deny-ingress created
             $ kubectl get networkpolicies
             NAME                   POD-SELECTOR   AGE
             api-allow              app=api        …s
             default-deny-ingress   <none>         …s",
            policies.display()
        ))
        .await;
    bench.cluster.settled().await;
    // Exit status 0 is an answer; 28 is curl's word for a connection that timed out.
    let flows = [
        (0, "deploy/web", "api-service/hostname"), // allowed by api-allow
        (0, "client -n frontend", "api-service.default/hostname"), // its namespace is labelled name=frontend
        (0, "client", "api-service.production/hostname"), // no policy over there
        (28, "client", "api-service/hostname"),    // not a web pod
        (28, "client", "web-service"),             // denied by default
        (28, "deploy/web", "db-headless:5432"),    // denied by default
        (28, "deploy/api", "web-service"),         // api may only go to the database
        (28, "deploy/api", "db-headless:5432"),    // and the database accepts nobody
        (28, "deploy/api -n production", "web-service.default"),
    ];
    let checks = flows.map(|(code, from, to)| async move {
        let ran = bench.sh(&format!("kubectl exec {from} -- curl -sS -m 2 -o /dev/null http://{to}")).await;
        assert_eq!(ran.code, code, "{ran}");
    });
    futures::future::join_all(checks).await;
    let address = bench.ok("kubectl exec deploy/api -- nslookup api-service").await;
    assert!(address.contains("Name:\tapi-service.default.svc.cluster.local\n"), "DNS is allowed: {address}");

    // The database accepts the api pods, once somebody says so; and all is open when the policies are gone.
    bench.terminal.write(
        "db-allow.yaml",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: db-allow}, spec: {podSelector: {matchLabels: \
         {app: database}}, ingress: [{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: postgres}]}]}}",
    );
    bench.ok("kubectl apply -f db-allow.yaml").await;
    bench.cluster.settled().await;
    let page = bench.ok("kubectl exec deploy/api -- curl -sS -m 5 http://db-headless:5432").await;
    assert!(page.starts_with("Stand-in for: postgres:17\n"), "{page}");
    bench.ok("kubectl delete networkpolicy --all").await;
    bench.cluster.settled().await;
    bench.ok("kubectl exec client -- curl -sS -m 5 http://api-service").await;
    bench.ok("kubectl exec client -- curl -sS -m 5 http://web-service").await;
}
