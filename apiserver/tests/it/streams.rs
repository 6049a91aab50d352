//! exec, attach and port-forward at the edge: every protocol, against pods in memory.

use crate::stream_client::{Client, Frame, Spdy, message};
use crate::support::{Server, complete};
use apiserver::pod_streams::{ContainerRef, Duplex, ExecStreams, LogOptions, LogStream, PodStreams};
use apiserver::status::Status;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::watch;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// What all pods have done.
#[derive(Default)]
struct Deeds {
    /// Bytes that endless commands have written.
    written: AtomicUsize,
    running: watch::Sender<usize>,
}

/// Pods that know a few commands.
#[derive(Clone, Default)]
struct Pods(Arc<Deeds>);

/// Counts a command that runs.
struct Running(Arc<Deeds>);

impl Running {
    fn begin(deeds: &Arc<Deeds>) -> Running {
        deeds.running.send_modify(|running| *running += 1);
        Running(deeds.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
    }
}

#[async_trait]
impl PodStreams for Pods {
    async fn check(&self, container: &ContainerRef, _: bool) -> Result<(), Status> {
        match container.container.as_str() {
            "dead" => Err(Status::failure(500, "InternalError", "container not found (\"dead\")")),
            _ => Ok(()),
        }
    }

    async fn exec(&self, at: &ContainerRef, command: Vec<String>, mut streams: ExecStreams) -> Result<i32, Status> {
        let _running = Running::begin(&self.0);
        if at.container == "dead" {
            return Err(Status::internal("unable to upgrade connection: container not found (\"dead\")"));
        }
        match command[0].as_str() {
            "cat" => {
                let (mut stdin, mut stdout) = (streams.stdin.expect("stdin"), streams.stdout.expect("stdout"));
                let _ = tokio::io::copy(&mut stdin, &mut stdout).await;
                Ok(0)
            }
            "both" => {
                streams.stdout.expect("stdout").write_all(b"out").await.expect("written");
                streams.stderr.expect("stderr").write_all(b"err").await.expect("written");
                Ok(3)
            }
            "size" => {
                let size = streams.resize.recv().await.expect("a size");
                let text = format!("{}x{}", size.width, size.height);
                streams.stdout.expect("stdout").write_all(text.as_bytes()).await.expect("written");
                Ok(0)
            }
            "yes" => {
                let mut stdout = streams.stdout.expect("stdout");
                while stdout.write_all(&[b'y'; 4096]).await.is_ok() {
                    self.0.written.fetch_add(4096, Ordering::Relaxed);
                }
                Ok(141)
            }
            "head" => Ok(0),
            "sleep" => std::future::pending().await,
            other => panic!("{other}?"),
        }
    }

    async fn attach(&self, _: &ContainerRef, streams: ExecStreams) -> Result<i32, Status> {
        streams.stdout.expect("stdout").write_all(b"attached").await.expect("written");
        Ok(0)
    }

    async fn logs(&self, _: &ContainerRef, options: LogOptions) -> Result<BoxStream<'static, Bytes>, Status> {
        Ok(futures::stream::iter([Bytes::from(format!("{:?}", options.stream))]).boxed())
    }

    /// Port 7 echoes, port 9 says where it is, port 11 takes everything and says how much; nobody listens elsewhere.
    async fn port_forward(&self, at: &ContainerRef, port: u16) -> Result<Box<dyn Duplex>, Status> {
        let (client, mut server) = duplex(4096);
        let (running, place) = (Running::begin(&self.0), format!("{} on {}", at.pod, at.node));
        match port {
            7 => tokio::spawn(async move {
                let _running = running;
                let (mut reader, mut writer) = tokio::io::split(server);
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
                let _ = writer.shutdown().await;
            }),
            9 => tokio::spawn(async move {
                let _running = running;
                let _ = server.write_all(place.as_bytes()).await;
            }),
            11 => tokio::spawn(async move {
                let _running = running;
                let mut taken = Vec::new();
                let _ = server.read_to_end(&mut taken).await;
                let _ = server.write_all(taken.len().to_string().as_bytes()).await;
            }),
            _ => return Err(Status::failure(500, "InternalError", "connect: connection refused")),
        };
        Ok(Box::new(client))
    }

    async fn dial(&self, _: SocketAddr) -> Result<Box<dyn Duplex>, Status> {
        Err(Status::internal("not here"))
    }
}

/// A server with the pod `web` of two containers, on a node, and the pod `new` on none.
async fn cluster() -> (Server, Pods) {
    let server = complete().await;
    let pods = Pods::default();
    server.api.set_pod_streams(Arc::new(pods.clone()));
    let containers = json!([{"name": "main", "image": "i:1"}, {"name": "dead", "image": "i:1"}]);
    server.post(PODS, json!({"metadata": {"name": "new"}, "spec": {"containers": containers}})).await.created();
    pod(&server, "web", json!({"annotations": {"kubectl.kubernetes.io/default-container": "main"}}), containers).await;
    (server, pods)
}

/// A running, ready pod on node `n1`.
async fn pod(server: &Server, name: &str, mut metadata: Value, containers: Value) {
    metadata["name"] = name.into();
    let spec = json!({"nodeName": "n1", "containers": containers});
    server.post(PODS, json!({"metadata": metadata, "spec": spec})).await.created();
    let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    server.patch(&format!("{PODS}/{name}/status"), "merge-patch+json", json!({"status": status})).await.ok();
}

fn exec(command: &str, streams: &str) -> String {
    let command = command.split(' ').map(|word| format!("command={word}")).collect::<Vec<_>>().join("&");
    format!("{PODS}/web/exec?{command}&{streams}")
}

impl Pods {
    /// Waits until so many commands and connections run.
    async fn until_running(&self, count: usize) {
        let mut running = self.0.running.subscribe();
        running.wait_for(|running| *running == count).await.expect("the sender lives");
    }
}

const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

#[tokio::test(start_paused = true)]
async fn each_websocket_protocol_carries_outputs_and_tells_the_end_in_its_way() {
    let (server, _) = cluster().await;
    let exited = "command terminated with non-zero exit code: exit status 3";
    for protocol in ["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io", ""] {
        let mut client = Client::new(&server.router);
        let head = client.websocket(&exec("both", "stdout=1&stderr=true"), protocol).await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert_eq!(head.contains(&format!("sec-websocket-protocol: {protocol}\r\n")), !protocol.is_empty());
        assert_eq!(client.frame().await, Some((2, vec![1])), "the streams are there");
        let (heard, code) = client.channels().await;
        assert_eq!((heard[1].as_str(), heard[2].as_str(), code), ("out", "err", 1000));
        if protocol.starts_with('v') {
            let status: Value = serde_json::from_str(&heard[3]).expect("a Status");
            assert_eq!((&status["message"], &status["reason"]), (&json!(exited), &json!("NonZeroExitCode")));
            assert_eq!(status["details"]["causes"], json!([{"reason": "ExitCode", "message": "3"}]));
        } else {
            assert_eq!(heard[3], exited);
        }
    }
    let mut client = Client::new(&server.router);
    client.websocket(&exec("both", "stdout=1&stderr=1"), "v9.channel.k8s.io, base64.channel.k8s.io").await;
    assert_eq!(client.frame().await, Some((1, b"1".to_vec())));
    let mut texts = vec![client.frame().await, client.frame().await];
    texts.sort();
    assert_eq!(texts, [Some((1, b"1b3V0".to_vec())), Some((1, b"2ZXJy".to_vec()))]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_input_is_said_with_channel_255_in_v5_only() {
    let (server, _) = cluster().await;
    let mut client = Client::new(&server.router);
    client.websocket(&exec("cat", "stdin=1&stdout=1"), "v5.channel.k8s.io").await;
    // In pieces, with an empty message, a ping, and messages on channels that are none between them.
    client.send(&[0x02, 0x80 | 3, 0, 0, 0, 0, 0, b'h', b'e', 0x80, 0x80 | 1, 0, 0, 0, 0, b'l']).await;
    client.say(9, b"?").await;
    client.send(&message(2, b"")).await;
    client.send(&message(9, b"ping")).await;
    client.say(255, &[7]).await;
    client.send(&message(1, b"\0lo")).await;
    client.say(255, &[0]).await;
    let (heard, code) = client.channels().await;
    assert_eq!((heard[1].as_str(), heard[3].as_str(), code), ("hello", SUCCESS, 1000));

    let mut client = Client::new(&server.router);
    client.websocket(&exec("cat", "stdin=1&stdout=1"), "v4.channel.k8s.io").await;
    client.frame().await;
    client.say(255, &[0]).await;
    client.say(0, b"still open").await;
    assert_eq!(client.frame().await, Some((2, b"\x01still open".to_vec())));
}

#[tokio::test(start_paused = true)]
async fn spdy_carries_a_command_with_a_stream_for_each_output() {
    let (server, _) = cluster().await;
    for protocol in ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"] {
        let mut client = Client::new(&server.router);
        let head = client.spdy(&exec("both", "stdout=1&stderr=1"), &format!("v9.k8s.io, {protocol}")).await;
        assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: spdy/3.1"), "{head}");
        assert!(head.contains(&format!("x-stream-protocol-version: {protocol}\r\n")), "{head}");
        let mut spdy = Spdy::new(client);
        let error = spdy.open(&[("streamtype", "error")]).await;
        spdy.data(error, b"", true).await;
        let stdout = spdy.open(&[("streamType", "stdout")]).await;
        let stderr = spdy.open(&[("streamtype", "stderr")]).await;
        let (mut out, mut err, mut end) = (Vec::new(), Vec::new(), Vec::new());
        let mut open = 3;
        while open > 0 {
            let Some(Frame::Data(stream, data, fin)) = spdy.news().await else { panic!("no end") };
            let streams = [(stdout, &mut out), (stderr, &mut err), (error, &mut end)];
            streams.into_iter().find(|(known, _)| *known == stream).expect("a stream").1.extend(data);
            open -= i32::from(fin);
        }
        assert_eq!((out.as_slice(), err.as_slice()), (&b"out"[..], &b"err"[..]));
        let text = String::from_utf8(end).expect("text");
        assert!(text.contains("command terminated with non-zero exit code: exit status 3"), "{text}");
        assert_eq!(text.starts_with('{'), protocol.starts_with("v4"), "{text}");
        assert_eq!(spdy.news().await, Some(Frame::GoAway(5)));
    }
}

#[tokio::test(start_paused = true)]
async fn spdy_carries_input_to_its_end_and_the_terminals_size() {
    let (server, _) = cluster().await;
    let mut client = Client::new(&server.router);
    client.spdy(&exec("cat", "stdin=1&stdout=1"), "v4.channel.k8s.io").await;
    let mut spdy = Spdy::new(client);
    spdy.open(&[("streamtype", "error")]).await;
    let stdin = spdy.open(&[("streamtype", "stdin")]).await;
    let stdout = spdy.open(&[("streamtype", "stdout")]).await;
    spdy.data(stdin, b"hello", false).await;
    spdy.control(6, &[0, 0, 0, 9]).await;
    spdy.data(stdin, b" there", true).await;
    let (mut read, mut ponged) = (Vec::new(), false);
    while !read.ends_with(b"there") {
        match spdy.news().await {
            Some(Frame::Data(stream, data, _)) if stream == stdout => read.extend(data),
            Some(Frame::Ping(9)) => ponged = true,
            other => panic!("{other:?}"),
        }
    }
    assert!(ponged && read == b"hello there");

    let mut client = Client::new(&server.router);
    client.spdy(&exec("size", "stdin=1&stdout=1&stderr=1&tty=1"), "v4.channel.k8s.io").await;
    let mut spdy = Spdy::new(client);
    let mut streams = Vec::new();
    for kind in ["error", "stdin", "stdout", "resize"] {
        streams.push(spdy.open(&[("streamtype", kind)]).await);
    }
    spdy.data(streams[3], b"{\"Width\":132,\"Height\":43}\n", false).await;
    assert_eq!(spdy.read(streams[2]).await, b"132x43");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_begin_is_refused_before_the_upgrade_in_upstreams_words() {
    let (server, _) = cluster().await;
    let cases = [
        (exec("cat", ""), 400, "you must specify at least 1 of stdin, stdout, stderr"),
        (format!("{PODS}/web/exec?stdout=1"), 400, "you must specify at least 1 command for the container"),
        (format!("{PODS}/web/exec?stdout=1&command=cat&container=no"), 400, "container no is not valid for pod web"),
        (
            format!("{PODS}/new/exec?stdout=1&command=cat"),
            400,
            "a container name must be specified for pod new, choose one of: [main dead]",
        ),
        (format!("{PODS}/new/exec?stdout=1&command=cat&container=main"), 400, "pod new does not have a host assigned"),
        (format!("{PODS}/none/attach?stdout=1"), 404, "pods \"none\" not found"),
        (format!("{PODS}/web/portforward?ports=http"), 400, "Upgrade request required"),
        (exec("cat", "stdout=1"), 400, "Upgrade request required"),
        (format!("{PODS}/web/log?container=main&tailLines=-1"), 422, ""),
        (format!("{PODS}/web/log?container=main&stream=Both"), 422, ""),
        (format!("{PODS}/web/log?container=main&stream=Stdout&tailLines=1"), 422, ""),
    ];
    for (uri, code, message) in cases {
        let body = server.get(&uri).await.expect(code);
        assert!(message.is_empty() || body["message"] == message, "{uri}: {body}");
    }
    for (protocol, accepted) in [("v9.channel.k8s.io", "v5.channel.k8s.io"), ("chat", "base64.channel.k8s.io")] {
        let mut client = Client::new(&server.router);
        let head = client.websocket(&exec("cat", "stdout=1"), protocol).await;
        assert!(head.starts_with("http/1.1 403 "), "{head}");
        assert!(head.contains(&format!("x-accepted-stream-protocol-versions: {accepted}\r\n")), "{head}");
    }
    let mut client = Client::new(&server.router);
    assert!(client.spdy(&exec("cat", "stdout=1"), "v9").await.starts_with("http/1.1 403 "));
    // Over SPDY the node's answer comes as it is; a WebSocket is there already, and tells it as a Status.
    let mut client = Client::new(&server.router);
    let dead = exec("cat", "stdout=1&container=dead");
    let head = client.spdy(&dead, "v4.channel.k8s.io").await;
    assert!(head.starts_with("http/1.1 500 ") && head.contains("text/plain"), "{head}");
    let mut client = Client::new(&server.router);
    client.websocket(&dead, "v5.channel.k8s.io").await;
    let (heard, _) = client.channels().await;
    let status: Value = serde_json::from_str(&heard[3]).expect("a Status");
    let text = "Internal error occurred: unable to upgrade connection: container not found (\"dead\")";
    assert_eq!(status["message"], text);
}

#[tokio::test(start_paused = true)]
async fn a_log_of_a_pod_on_no_node_is_empty_and_one_output_can_be_asked_for() {
    let (server, _) = cluster().await;
    let none = server.get(&format!("{PODS}/new/log?container=main")).await;
    assert_eq!((none.code.as_u16(), none.body), (204, json!("")));
    let log = |stream| format!("{PODS}/web/log?container=main&stream={stream}");
    assert_eq!(server.get(&log("Stderr")).await.ok(), format!("{:?}", Some(LogStream::Stderr)));
    assert_eq!(server.get(&log("All")).await.ok(), "None");
}

#[tokio::test(start_paused = true)]
async fn a_command_ends_with_its_client_even_if_its_input_is_full() {
    let (server, pods) = cluster().await;
    for protocol in ["v5.channel.k8s.io", "spdy"] {
        let mut client = Client::new(&server.router);
        let uri = exec("sleep", "stdin=1&stdout=1");
        if protocol == "spdy" {
            client.spdy(&uri, "v4.channel.k8s.io").await;
            let mut spdy = Spdy::new(client);
            for kind in ["error", "stdin", "stdout"] {
                spdy.open(&[("streamtype", kind)]).await;
            }
            pods.until_running(1).await;
            let flood = async {
                loop {
                    spdy.data(3, &[0; 32 << 10], false).await;
                }
            };
            assert!(tokio::time::timeout(std::time::Duration::from_secs(1), flood).await.is_err(), "it is held up");
        } else {
            client.websocket(&uri, protocol).await;
            pods.until_running(1).await;
            let flood = async {
                loop {
                    client.say(0, &[0; 32 << 10]).await;
                }
            };
            assert!(tokio::time::timeout(std::time::Duration::from_secs(1), flood).await.is_err(), "it is held up");
            drop(client);
        }
        pods.until_running(0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_holds_the_command_up_instead_of_filling_memory() {
    let (server, pods) = cluster().await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = Client::new(&server.router);
        client.websocket(&exec("yes", "stdout=1"), "v5.channel.k8s.io").await;
        clients.push(client);
    }
    // As long as anything moves, the paused clock stands still.
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    let written = pods.0.written.load(Ordering::Relaxed);
    assert!(written > 0 && written / clients.len() < 1 << 20, "{written} bytes for {} clients", clients.len());
    drop(clients);
    pods.until_running(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_in_silence_hears_that_the_server_lives() {
    let (server, _) = cluster().await;
    let mut client = Client::new(&server.router);
    client.websocket(&exec("sleep", "stdout=1"), "v5.channel.k8s.io").await;
    assert_eq!(client.frame().await, Some((2, vec![1])));
    let hour = std::time::Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, client.frame()).await.is_err(), "pongs, but no end");
    server.api.stop();
    assert_eq!(client.frame().await, None, "the server's end is the session's");
}

/// Opens the two streams of a forwarded connection: error and data.
async fn connect(spdy: &mut Spdy, id: &str, port: &str) -> (u32, u32) {
    let error = spdy.open(&[("streamtype", "error"), ("port", port), ("requestid", id)]).await;
    spdy.data(error, b"", true).await;
    (error, spdy.open(&[("streamtype", "data"), ("port", port), ("requestid", id)]).await)
}

async fn forward(server: &Server) -> Spdy {
    let mut client = Client::new(&server.router);
    let head = client.spdy(&format!("{PODS}/web/portforward"), "portforward.k8s.io").await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    Spdy::new(client)
}

#[tokio::test(start_paused = true)]
async fn a_forwarded_connection_ends_by_halves_and_its_error_stream_last() {
    let (server, pods) = cluster().await;
    let mut spdy = forward(&server).await;
    let (error, data) = connect(&mut spdy, "0", "11").await;
    spdy.data(data, &[1; 5000], false).await;
    spdy.data(data, &[1; 1000], true).await;
    assert_eq!(spdy.read(data).await, b"6000", "the pod answers after the client's end");
    assert_eq!(spdy.news().await, Some(Frame::Data(error, Vec::new(), true)));
    // Reset by the client: the connection goes, and the error stream still ends.
    let (error, data) = connect(&mut spdy, "1", "11").await;
    pods.until_running(1).await;
    spdy.control(3, &[&data.to_be_bytes()[..], &[0, 0, 0, 5]].concat()).await;
    assert_eq!(spdy.news().await, Some(Frame::Data(error, Vec::new(), true)));
    pods.until_running(0).await;
    // Refused by the pod: said in the kubelet's words, while the session goes on.
    let (error, data) = connect(&mut spdy, "2", "1").await;
    assert_eq!(spdy.news().await, Some(Frame::Data(data, Vec::new(), true)));
    let uid = server.get(&format!("{PODS}/web")).await.ok()["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let text = format!("error forwarding port 1 to pod web, uid {uid}: connect: connection refused");
    assert_eq!(spdy.read(error).await, text.as_bytes());
    // Not a stream of this protocol.
    let stream = spdy.open(&[("streamtype", "data"), ("port", "0")]).await;
    assert_eq!(spdy.news().await, Some(Frame::Reset(stream)));
    // The client's end.
    connect(&mut spdy, "3", "7").await;
    pods.until_running(1).await;
    spdy.control(7, &[0; 8]).await;
    pods.until_running(0).await;
}

#[tokio::test(start_paused = true)]
async fn three_hundred_connections_share_one_session() {
    let (server, pods) = cluster().await;
    let mut spdy = forward(&server).await;
    let mut streams = Vec::new();
    for id in 0..300 {
        streams.push(connect(&mut spdy, &id.to_string(), "7").await.1);
    }
    pods.until_running(300).await;
    let mut echoed: std::collections::BTreeMap<u32, Vec<u8>> = std::collections::BTreeMap::new();
    for stream in &streams {
        spdy.data(*stream, &[*stream as u8; 1000], true).await;
    }
    let mut open = 600;
    while open > 0 {
        match spdy.news().await {
            Some(Frame::Data(stream, data, fin)) => {
                echoed.entry(stream).or_default().extend(data);
                open -= i32::from(fin);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(streams.iter().all(|stream| echoed[stream] == [*stream as u8; 1000]));
    pods.until_running(0).await;
}

#[tokio::test(start_paused = true)]
async fn channels_forward_one_connection_per_port() {
    let (server, _) = cluster().await;
    let mut client = Client::new(&server.router);
    client.websocket(&format!("{PODS}/web/portforward?ports=9,1&ports=7"), "v4.channel.k8s.io").await;
    let mut ports = Vec::new();
    for _ in 0..6 {
        ports.push(client.frame().await.expect("a frame").1);
    }
    assert_eq!(ports, [[0, 9, 0], [1, 9, 0], [2, 1, 0], [3, 1, 0], [4, 7, 0], [5, 7, 0]]);
    client.say(4, b"hello").await;
    let mut heard = Vec::new();
    for _ in 0..3 {
        let (_, payload) = client.frame().await.expect("a frame");
        heard.push((payload[0], String::from_utf8_lossy(&payload[1..]).into_owned()));
    }
    heard.sort();
    assert_eq!((heard[0].0, heard[0].1.as_str()), (0, "web on n1"));
    assert!(heard[1].0 == 3 && heard[1].1.ends_with(": connect: connection refused"), "{heard:?}");
    assert_eq!((heard[2].0, heard[2].1.as_str()), (4, "hello"));
    let mut client = Client::new(&server.router);
    let head = client.websocket(&format!("{PODS}/web/portforward"), "v4.channel.k8s.io").await;
    assert!(head.starts_with("http/1.1 400 "), "{head}");
}

#[tokio::test(start_paused = true)]
async fn a_forwarding_goes_on_to_the_pod_that_takes_the_place_of_one_that_is_gone() {
    let (server, _) = cluster().await;
    let owner = |kind: &str, uid: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": uid, "controller": true}]);
    let containers = json!([{"name": "main", "image": "i:1"}]);
    let of_set = json!({"ownerReferences": owner("ReplicaSet", "r1")});
    pod(&server, "a", of_set.clone(), containers.clone()).await;
    pod(&server, "b", json!({"ownerReferences": owner("ReplicaSet", "r2")}), containers.clone()).await;
    pod(&server, "s-0", json!({"ownerReferences": owner("StatefulSet", "s")}), containers.clone()).await;
    let session = async |name: &str| {
        let mut client = Client::new(&server.router);
        client.spdy(&format!("{PODS}/{name}/portforward"), "portforward.k8s.io").await;
        Spdy::new(client)
    };
    let delete = async |name: &str| {
        server.delete(&format!("{PODS}/{name}"), json!({"gracePeriodSeconds": 0})).await.ok();
    };
    // A ReplicaSet's pod: another of the same set, once it is there; not one of another set.
    let mut spdy = session("a").await;
    delete("a").await;
    let (_, data) = connect(&mut spdy, "0", "9").await;
    let waiting = tokio::time::timeout(std::time::Duration::from_secs(10), spdy.read(data)).await;
    assert!(waiting.is_err(), "there is no other yet");
    pod(&server, "c", of_set, containers.clone()).await;
    assert_eq!(spdy.read(data).await, b"c on n1");
    // A StatefulSet's: the one of the same name.
    let mut spdy = session("s-0").await;
    delete("s-0").await;
    let (_, data) = connect(&mut spdy, "0", "9").await;
    pod(&server, "s-1", json!({"ownerReferences": owner("StatefulSet", "s")}), containers.clone()).await;
    pod(&server, "s-0", json!({"ownerReferences": owner("StatefulSet", "s")}), containers).await;
    assert_eq!(spdy.read(data).await, b"s-0 on n1");
}

#[tokio::test(start_paused = true)]
async fn frames_that_break_the_protocol_end_their_session_and_nothing_else() {
    let (server, pods) = cluster().await;
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut cases = 0;
    for (folder, uri) in [("spdy", format!("{PODS}/web/portforward")), ("websocket", exec("cat", "stdin=1&stdout=1"))] {
        let mut files: Vec<_> = std::fs::read_dir(corpus.join(folder)).expect("a corpus").flatten().collect();
        files.sort_by_key(|file| file.file_name());
        for file in files {
            let text = std::fs::read_to_string(file.path()).expect("readable");
            let digits: Vec<u8> = text.lines().filter(|line| !line.starts_with('#')).flat_map(str::bytes).collect();
            let digits: Vec<u8> = digits.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
            let bytes = digits.chunks(2).map(|pair| {
                u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hexadecimal digits")
            });
            let bytes: Vec<u8> = bytes.collect();
            let mut client = Client::new(&server.router);
            let head = match folder {
                "spdy" => client.spdy(&uri, "portforward.k8s.io").await,
                _ => client.websocket(&uri, "v5.channel.k8s.io").await,
            };
            assert!(head.starts_with("http/1.1 101 "), "{head}");
            client.send(&bytes).await;
            let ended = tokio::time::timeout(std::time::Duration::from_secs(120), client.rest()).await;
            assert!(ended.is_ok(), "{:?} leaves the session open", file.path());
            cases += 1;
        }
    }
    assert!(cases >= 20, "{cases} cases");
    pods.until_running(0).await;
    let mut client = Client::new(&server.router);
    client.websocket(&exec("both", "stdout=1&stderr=1"), "v5.channel.k8s.io").await;
    assert_eq!(client.channels().await.0[1], "out");
}
