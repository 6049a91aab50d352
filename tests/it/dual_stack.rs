//! A dual-stack cluster (`Builder::dual_stack`, `coracle up --dual-stack`): kubectl beside real packets over IPv6.

use crate::support::Bench;
use coracle::{Cluster, Output};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::Api;
use kube::api::ListParams;
use std::net::Ipv6Addr;

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: registry.k8s.io/e2e-test-images/agnhost:2.53
        args: [netexec, --http-port=8080]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: 8080}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  clusterIP: 10.96.0.80
  clusterIPs: [10.96.0.80, 'fd00:10:96::80']
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: six}
spec:
  ipFamilies: [IPv6]
  clusterIP: 'fd00:10:96::6'
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: heads}
spec: {clusterIP: None, ipFamilyPolicy: PreferDualStack, selector: {app: web}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec: {type: LoadBalancer, ipFamilyPolicy: PreferDualStack, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: node-2
  hostname: client
  containers:
  - name: client
    image: busybox
    command: [sleep, infinity]
    env:
    - {name: PODIPS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}
    - {name: HOSTIPS, valueFrom: {fieldRef: {fieldPath: status.hostIPs}}}
";

async fn cluster() -> Cluster {
    let cluster = Cluster::builder().seed(46).dual_stack(true).start().await.expect("a cluster");
    // The client starts last, so that every Service is in its environment.
    let (services, client) = WEB.split_once("---\napiVersion: v1\nkind: Pod").expect("a pod at the end");
    cluster.apply(services).await.expect("applied");
    cluster.settled().await;
    cluster.apply(&format!("apiVersion: v1\nkind: Pod{client}")).await.expect("applied");
    let mut last = String::new();
    let ready = async {
        loop {
            match exec(&cluster, "nslookup heads").await {
                Ok(found) if found.code == 0 => break,
                other => last = format!("{other:?}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let ready = tokio::time::timeout(std::time::Duration::from_secs(60), ready).await;
    assert!(ready.is_ok(), "the web server's pods are not ready: {last}");
    cluster
}

async fn exec(cluster: &Cluster, line: &str) -> anyhow::Result<Output> {
    cluster.exec("default", "client", &["sh", "-c", line]).await
}

/// What the command prints in the client's pod.
async fn said(cluster: &Cluster, line: &str) -> String {
    let output = exec(cluster, line).await.expect("the pod runs");
    assert_eq!(output.code, 0, "{line}: {output:?}");
    output.stdout.trim().to_owned()
}

#[tokio::test]
async fn packets_over_ipv6_find_their_way_to_services_nodes_and_pods() {
    let cluster = cluster().await;
    let answered = async |url: &str| said(&cluster, &format!("curl -sgf -m 20 {url}")).await;
    let is_web = |name: String| assert!(name.starts_with("web-"), "{name}");

    is_web(answered("'http://[fd00:10:96::80]/hostname'").await);
    is_web(answered("http://10.96.0.80/hostname").await);
    is_web(answered("http://six/hostname").await);
    is_web(answered("-6 http://web/hostname").await);
    is_web(answered("-6 http://heads:8080/hostname").await);
    // The client's own address is seen, in the family that was dialled.
    let own = said(&cluster, "echo $PODIPS").await;
    let (v4, v6) = own.split_once(',').expect("two addresses");
    assert!(v6.parse::<Ipv6Addr>().is_ok() && v6.starts_with("fd00:10:244:2::"), "{own}");
    assert!(answered("-6 http://web/clientip").await.starts_with(&format!("[{v6}]:")));
    assert!(answered("-4 http://web/clientip").await.starts_with(&format!("{v4}:")));

    let services: Api<Service> = Api::default_namespaced(cluster.client());
    let web = services.get("web").await.expect("the Service");
    let node_port = web.spec.and_then(|spec| spec.ports?[0].node_port).expect("a node port");
    for node in ["[fd00:172:18::2]", "[fd00:172:18::3]", "172.18.0.2"] {
        is_web(answered(&format!("http://{node}:{node_port}/hostname")).await);
    }
    // A masqueraded client has the node's address of that family (6.1).
    let seen = answered(&format!("http://[fd00:172:18::2]:{node_port}/clientip")).await;
    assert!(seen.starts_with("[fd00:172:18::"), "{seen}");

    let balanced = services.get("balanced").await.expect("the Service");
    let ingress = balanced.status.and_then(|status| status.load_balancer?.ingress).expect("addresses");
    let ips: Vec<&str> = ingress.iter().filter_map(|ingress| ingress.ip.as_deref()).collect();
    assert_eq!(ips, ["172.18.255.1", "fd00:172:18:255::1"]);
    is_web(answered(&format!("http://[{}]/hostname", ips[1])).await);

    let refused = exec(&cluster, "curl -sg -m 20 'http://[fd00:10:96::80]:81/'").await.expect("the pod runs");
    assert_eq!(refused.code, 7, "a port that the Service lacks is refused over IPv6 too: {refused:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn names_environment_and_files_know_both_families() {
    let cluster = cluster().await;
    let aaaa = said(&cluster, "dig +short AAAA heads.default.svc.cluster.local").await;
    assert_eq!(aaaa.lines().count(), 2, "{aaaa}");
    assert!(aaaa.lines().all(|line| line.starts_with("fd00:10:244:")), "{aaaa}");
    assert_eq!(said(&cluster, "dig +short AAAA web.default.svc.cluster.local").await, "fd00:10:96::80");
    assert_eq!(said(&cluster, "dig +short A six.default.svc.cluster.local").await, "");
    assert_eq!(said(&cluster, "dig +short -x fd00:10:96::80").await, "web.default.svc.cluster.local.");
    assert_eq!(said(&cluster, "dig +short A web.default @fd00:10:96::a +search").await, "10.96.0.80");

    let environment = said(&cluster, "env | grep -e ^SIX -e ^WEB_SERVICE -e IPS | sort").await;
    let expected = [
        "HOSTIPS=172.18.0.3,fd00:172:18::3",
        "SIX_PORT=tcp://[fd00:10:96::6]:80",
        "SIX_PORT_80_TCP=tcp://[fd00:10:96::6]:80",
        "SIX_PORT_80_TCP_ADDR=fd00:10:96::6",
        "SIX_SERVICE_HOST=fd00:10:96::6",
        "WEB_SERVICE_HOST=10.96.0.80",
    ];
    for line in expected {
        assert!(environment.lines().any(|known| known == line), "{line} is not in\n{environment}");
    }
    let own = said(&cluster, "echo $PODIPS").await;
    let hosts = said(&cluster, "grep client /etc/hosts").await;
    let expected: Vec<String> = own.split(',').map(|ip| format!("{ip}\tclient")).collect();
    assert_eq!(hosts.lines().collect::<Vec<_>>(), expected);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_shows_a_dual_stack_cluster() {
    let bench = Bench::with(Cluster::builder().dual_stack(true)).await;
    bench
        .transcript(
            r#"
        $ kubectl get nodes -o custom-columns='NAME:.metadata.name,CIDRS:.spec.podCIDRs,ADDRESSES:.status.addresses[*].address'
        NAME     CIDRS                                ADDRESSES
        node-1   [10.244.1.0/24 fd00:10:244:1::/64]   172.18.0.2,fd00:172:18::2,node-1
        node-2   [10.244.2.0/24 fd00:10:244:2::/64]   172.18.0.3,fd00:172:18::3,node-2
        $ kubectl get servicecidrs
        NAME         CIDRS                           AGE
        kubernetes   10.96.0.0/12,fd00:10:96::/112   …
        $ kubectl get ipaddresses
        NAME             PARENTREF
        10.96.0.1        services/default/kubernetes
        10.96.0.10       services/kube-system/kube-dns
        fd00:10:96::a    services/kube-system/kube-dns
        $ kubectl get service kubernetes -o jsonpath='{.spec.ipFamilyPolicy} {.spec.clusterIPs}'
        SingleStack ["10.96.0.1"]
        $ kubectl create service clusterip web --tcp=80:8080
        service/web created
        $ kubectl patch service web -p '{"spec":{"ipFamilyPolicy":"RequireDualStack"}}'
        service/web patched
        $ kubectl get service web -o jsonpath='{.spec.ipFamilies} {.spec.clusterIPs[1]}'
        ["IPv4","IPv6"] fd00:10:96::…
        $ kubectl patch service web -p '{"spec":{"ipFamilyPolicy":"SingleStack"}}'
        service/web patched
        $ kubectl describe service web | grep IP
        Type: ClusterIP
        IP Family Policy: SingleStack
        IP Families: IPv4
        IP: 10.…
        IPs: 10.…
        $ kubectl get ipaddresses -o name | grep -c fd00
        1
        "#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test]
async fn a_cluster_may_become_dual_stack_and_single_stack_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let start = async |dual: bool| {
        let builder = Cluster::builder().seed(46).data_dir(dir.path()).dual_stack(dual);
        builder.start().await.expect("a cluster")
    };
    // The DNS server's pod has been there from the first start on.
    let pod_ips = async |cluster: &Cluster| {
        cluster.settled().await;
        let pods: Api<Pod> = Api::namespaced(cluster.client(), "kube-system");
        let pods = pods.list(&ListParams::default()).await.expect("a list").items;
        let ips = pods.into_iter().filter_map(|pod| pod.status?.pod_ips).flatten();
        ips.map(|ip| ip.ip).collect::<Vec<_>>()
    };
    let plan = async |cluster: &Cluster| {
        let nodes: Api<Node> = Api::all(cluster.client());
        let services: Api<Service> = Api::namespaced(cluster.client(), "kube-system");
        let node = nodes.get("node-1").await.expect("the node");
        let dns = services.get("kube-dns").await.expect("the Service").spec.expect("a spec");
        (node.spec.and_then(|spec| spec.pod_cidrs).unwrap_or_default(), dns.cluster_ips.unwrap_or_default())
    };
    let cluster = start(false).await;
    assert_eq!(plan(&cluster).await, (vec!["10.244.1.0/24".to_owned()], vec!["10.96.0.10".to_owned()]));
    let first = pod_ips(&cluster).await;
    assert_eq!(first.len(), 1, "{first:?}");
    cluster.stop().await;

    let cluster = start(true).await;
    let (cidrs, ips) = plan(&cluster).await;
    assert_eq!(cidrs, ["10.244.1.0/24", "fd00:10:244:1::/64"]);
    assert!(ips.len() == 2 && ips[0] == "10.96.0.10" && ips[1].starts_with("fd00:10:96::"), "{ips:?}");
    let both = pod_ips(&cluster).await;
    assert!(both.len() == 2 && both[0] == first[0] && both[1].starts_with("fd00:10:244:"), "{both:?}");
    cluster.stop().await;

    let cluster = start(false).await;
    let (cidrs, single) = plan(&cluster).await;
    assert_eq!(
        (cidrs, single),
        (vec!["10.244.1.0/24".to_owned()], ips),
        "what prefers two families is left alone (3.7)"
    );
    assert_eq!(pod_ips(&cluster).await, first, "an address of a family that is gone does not stay");
    cluster.stop().await;
}
