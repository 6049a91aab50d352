//! The cluster as a fixture: inside a test's process, on its runtime, many side by side.

use coracle::{Cluster, Container, FunctionPod};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Accepts connections on a port and says its name to each.
async fn greeter(container: Container) -> i32 {
    let Ok(listener) = container.host.tcp_listen(80) else { return 1 };
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = stream.write_all(container.hostname.as_bytes()).await;
    }
    0
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: greeter}
spec: {selector: {app: greeter}, ports: [{port: 8080, targetPort: 80}]}
";

#[tokio::test(start_paused = true)]
async fn functions_are_pods_behind_a_service_on_one_thread_under_a_paused_clock() {
    let cluster = Cluster::builder().seed(1).start().await.expect("a cluster");
    for name in ["one", "two"] {
        let pod = FunctionPod::new(name).label("app", "greeter").port(80);
        cluster.run_pod(pod, greeter).await.expect("a pod");
    }
    cluster.apply(SERVICE).await.expect("a Service");
    cluster.settled().await;
    let services: kube::Api<k8s_openapi::api::core::v1::Service> = kube::Api::default_namespaced(cluster.client());
    let service = services.get("greeter").await.expect("the Service");
    let ip = service.spec.and_then(|spec| spec.cluster_ip).expect("an address");
    let address: SocketAddr = format!("{ip}:8080").parse().expect("an address");
    let mut heard = std::collections::BTreeSet::new();
    while heard.len() < 2 {
        let mut stream = cluster.outside().tcp_connect(address).await.expect("a connection");
        let mut name = String::new();
        stream.read_to_string(&mut name).await.expect("a greeting");
        assert!(name == "one" || name == "two", "{name:?} is no endpoint");
        heard.insert(name);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn many_clusters_live_side_by_side_in_one_process() {
    let clusters = (0..8).map(|seed| async move {
        let cluster = Cluster::builder().seed(seed).nodes(1).start().await.expect("a cluster");
        cluster.run_pod(FunctionPod::new("lone").port(80), greeter).await.expect("a pod");
        cluster.settled().await;
        let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::default_namespaced(cluster.client());
        let pod = pods.get("lone").await.expect("the pod");
        let status = pod.status.expect("a status");
        assert_eq!(status.phase.as_deref(), Some("Running"));
        // Every cluster has the same addresses and none sees another's.
        assert_eq!(pods.list(&Default::default()).await.expect("a list").items.len(), 1);
        cluster.stop().await;
    });
    futures::future::join_all(clusters).await;
}
