//! Streams to pods with real clients: kubectl of every version over both of its protocols and on a terminal, and kube-rs.

use crate::support::{Bench, pty};
use coracle::{Cluster, Container, FunctionPod};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;

/// What makes kubectl speak SPDY, as older programs on client-go do.
const SPDY: &str = "KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false KUBECTL_PORT_FORWARD_WEBSOCKETS=false";

async fn bench(minor: &str) -> Bench {
    let bench = Bench::with_kubectl(Cluster::builder(), minor).await;
    bench.ok("kubectl run tools --image=busybox --command -- sleep 99999").await;
    bench.ok("kubectl wait pod/tools --for=condition=Ready --timeout=60s").await;
    bench
}

/// kube-rs over TLS, as a program outside has it.
async fn client(bench: &Bench) -> kube::Client {
    let text = bench.cluster.kubeconfig("it").expect("the API has an address");
    let config = serde_saphyr::from_str::<kube::config::Kubeconfig>(&text).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.expect("a configuration");
    kube::Client::try_from(config).expect("a client")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_go_in_and_come_out_unchanged_over_both_protocols() {
    let bench = bench("1.36").await;
    bench.ok("head -c 100000000 /dev/urandom > big").await;
    for protocol in ["", SPDY] {
        bench.ok(&format!("{protocol} kubectl cp big tools:/tmp/big")).await;
        let inside = bench.ok("kubectl exec tools -- sha256sum /tmp/big").await;
        let outside = bench.ok("sha256sum big").await;
        assert_eq!(inside.split(' ').next(), outside.split(' ').next(), "{protocol}");
        bench.ok(&format!("{protocol} kubectl cp tools:/tmp/big back && cmp big back && rm back")).await;
        bench.ok("kubectl exec tools -- rm /tmp/big").await;
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cp_carries_trees_odd_names_and_modes_and_says_what_it_leaves_out() {
    let bench = bench("1.36").await;
    bench
        .transcript(
            r#"$ mkdir -p 'tree/with space/deep'; echo 1 > 'tree/with space/deep/a b'; echo 2 > tree/ünï; : > tree/empty; echo 3 > tree/run; chmod 755 tree/run
            $ ln -s run tree/link; mkdir tree/nothing
            $ kubectl cp --retries=3 tree tools:/tmp/tree
            tar: tree/link: links are not supported, skipped
            $ kubectl exec tools -- sh -c 'cd /tmp/tree; find . | sort; test -x run && cat "with space/deep/a b" ünï run; wc -c < empty'
            .
            ./empty
            ./nothing
            ./run
            ./with space
            ./with space/deep
            ./with space/deep/a b
            ./ünï
            1
            2
            3
            0
            $ kubectl cp --retries=3 tools:/tmp/tree copy >/dev/null 2>&1; rm tree/link; diff -r tree copy && echo equal
            equal
            $ kubectl cp tools:/tmp/none copy 2>&1
            tar: /tmp/none: No such file or directory
            …
            [exit 1]"#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kubectl_runs_commands_over_both_protocols() {
    for minor in ["1.35", "1.36", "1.37"] {
        let bench = bench(minor).await;
        for protocol in ["", SPDY] {
            let ran =
                bench.sh(&format!("{protocol} kubectl exec tools -- sh -c 'echo out; echo err >&2; exit 7'")).await;
            assert!(ran.stderr.starts_with("err\n") && ran.stderr.ends_with("terminated with exit code 7\n"), "{ran}");
            assert_eq!((ran.stdout.as_str(), ran.code), ("out\n", 7), "{ran}");
            let ran =
                bench.sh(&format!("echo hello | {protocol} kubectl exec -i tools -- sh -c 'cat; echo after'")).await;
            assert_eq!(ran.ok(), "hello\nafter\n");
            let ran =
                bench.sh(&format!("head -c 3000000 /dev/zero | {protocol} kubectl exec -i tools -- head -c 3")).await;
            assert_eq!(ran.ok(), "\0\0\0", "a command that ends before its input");
            for (command, code) in [("nope", 127), ("/tmp/nope", 127), ("/etc/hosts", 126)] {
                let ran = bench.sh(&format!("{protocol} kubectl exec tools -- {command}")).await;
                assert_eq!(ran.code, code, "{ran}");
            }
        }
        bench.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_keys_are_echoed_signals_sent_and_sizes_told() {
    let bench = bench("1.36").await;
    let (rows, columns) = pty::ROWS_COLUMNS;
    let size = format!("{rows} {columns}");
    for protocol in ["", SPDY] {
        let line = format!("env {protocol} kubectl exec -it tools -- sh");
        let steps = [
            ("# ", "until stty size | grep -v '^0 0'; do sleep 0.1; done\r"),
            (size.as_str(), "resize:24,80"),
            ("# ", "until stty size | grep '^24 80'; do sleep 0.1; done; echo re'sized'\r"),
            ("resized", "sleep 1000\r"),
            ("sleep 1000", "\x03"),
            ("# ", "echo $?; echo ag'ain'\r"),
            ("again", "exit 5\r"),
        ];
        let ran = pty::run(&bench.terminal, &line, &steps).await;
        assert_eq!(ran.code, 5, "{ran}");
        assert!(ran.stdout.contains("^C\r\n") && ran.stdout.contains("\r\n130\r\n"), "{ran}");
        let ran = pty::run(&bench.terminal, &line, &[("# ", "false\r"), ("# ", "\x04")]).await;
        assert_eq!(ran.code, 1, "Ctrl-D ends the shell with its last status: {ran}");
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kubectl_runs_attaches_and_debugs_on_a_terminal() {
    for minor in ["1.35", "1.36", "1.37"] {
        let bench = bench(minor).await;
        let line = "kubectl run -it --rm shell --image=busybox --restart=Never -- sh";
        let ran = pty::run(&bench.terminal, line, &[("# ", "hostname\r"), ("shell\r\n", "exit 3\r")]).await;
        assert!(ran.code == 3 && ran.stdout.contains("pod \"shell\" deleted"), "{ran}");
        assert_eq!(bench.ok("kubectl get pods -o name").await, "pod/tools\n");

        // Whoever leaves takes nothing along: without `stdinOnce` the next one finds the shell as it was.
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: stay}, spec: {containers: [{name: c, image: busybox, stdin: true, \
                   tty: true, command: [sh]}]}}";
        bench.terminal.write("stay.yaml", pod);
        bench.ok("kubectl apply -f stay.yaml && kubectl wait pod/stay --for=condition=Ready --timeout=60s").await;
        let attach = "kubectl attach -it stay";
        let mut first = bench.terminal.command("script");
        // Not behind `timeout`: under a shell that forks, that puts kubectl into the background, where a terminal stops it.
        first.args(["-qec", attach, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped()).env("SHELL", "/bin/sh");
        let mut first = first.spawn().expect("script runs");
        let (mut keys, screen) = (first.stdin.take().expect("a pipe"), first.stdout.take().expect("a pipe"));
        let mut screen = BufReader::new(screen).lines();
        let mut shown = Vec::new();
        // Keys typed before kubectl has put its terminal into raw mode may be lost on a slow machine: typed until they are answered.
        let mut typing = tokio::time::interval(Duration::from_secs(5));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while !shown.last().is_some_and(|line: &String| line.contains("there")) {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => panic!("nobody answers: {shown:?}"),
                _ = typing.tick() => keys.write_all(b"x=kept; echo th'ere'\r").await.expect("typed"),
                line = screen.next_line() => shown.push(line.expect("readable").unwrap_or_else(|| panic!("{shown:?}"))),
            }
        }
        first.kill().await.expect("gone");
        let ran = pty::run(&bench.terminal, attach, &[("", "\recho $x-again\r"), ("kept-again", "exit\r")]).await;
        assert!(ran.stdout.contains("kept-again"), "{ran}");

        let line = "kubectl debug -it tools --image=busybox -- sh";
        let ran = pty::run(&bench.terminal, line, &[("# ", "hostname\r"), ("tools\r\n", "exit\r")]).await;
        assert_eq!(ran.code, 0, "{ran}");
        let line = "kubectl debug -it tools --image=busybox --copy-to=copied --container=look -- sh";
        let ran = pty::run(&bench.terminal, line, &[("# ", "hostname\r"), ("copied\r\n", "exit\r")]).await;
        assert_eq!(ran.code, 0, "{ran}");
        bench.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_says_to_one_attached_is_not_lost_however_much_it_is() {
    let bench = bench("1.36").await;
    let line = "kubectl run -i --rm many --image=busybox --restart=Never -- sh -c 'read go; seq 200000' | cksum";
    let expected = bench.ok("seq 200000 | cksum").await;
    let ran = bench
        .sh(&format!("echo go | {} 2>/dev/null", line.replace(" | cksum", " 2>/dev/null | grep -v deleted | cksum")))
        .await;
    assert_eq!(ran.ok(), expected);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_commands_run_at_once() {
    let bench = bench("1.36").await;
    let pods: Api<Pod> = Api::default_namespaced(client(&bench).await);
    let commands = (0..300).map(|number| {
        let pods = pods.clone();
        async move {
            let params = AttachParams::default().stdin(true).stderr(false);
            let mut process = pods.exec("tools", ["head", "-n", "1"], &params).await.expect("a command");
            let (mut stdin, mut stdout) = (process.stdin().expect("stdin"), process.stdout().expect("stdout"));
            let status = process.take_status().expect("a status");
            stdin.write_all(format!("{number}\n").as_bytes()).await.expect("written");
            let mut text = String::new();
            stdout.read_to_string(&mut text).await.expect("read");
            assert_eq!(text, format!("{number}\n"));
            assert_eq!(status.await.and_then(|status| status.status).as_deref(), Some("Success"));
        }
    });
    // All of them are there before the first one has its input, since each takes a round trip.
    futures::future::join_all(commands).await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_after_the_end_of_the_input_arrives_whole_at_kube_rs() {
    let bench = bench("1.36").await;
    let pods: Api<Pod> = Api::default_namespaced(client(&bench).await);
    let script = "wc -c; seq 500000; exit 4";
    let waits = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: waits}}, spec: {{restartPolicy: Never, containers: [{{name: c, image: busybox, \
         stdin: true, stdinOnce: true, command: [sh, -c, '{script}']}}]}}}}"
    );
    bench.terminal.write("waits.yaml", &waits);
    bench.ok("kubectl apply -f waits.yaml && kubectl wait pod/waits --for=condition=Ready --timeout=60s").await;
    let numbers: String = (1..=500_000).map(|number| format!("{number}\n")).collect();
    let params = AttachParams::default().stdin(true).stderr(false);
    let executed = pods.exec("tools", ["sh", "-c", script], &params).await.expect("a command");
    let attached = pods.attach("waits", &params).await.expect("attached");
    for (what, mut process, failed) in [("exec", executed, Some("NonZeroExitCode")), ("attach", attached, None)] {
        let status = process.take_status().expect("a status");
        let (mut stdin, mut stdout) = (process.stdin().expect("stdin"), process.stdout().expect("stdout"));
        stdin.write_all(&[b'x'; 3_000_000]).await.expect("written");
        stdin.shutdown().await.expect("the end of the input");
        let mut said = String::new();
        stdout.read_to_string(&mut said).await.expect("read");
        assert!(said == format!("3000000\n{numbers}"), "{what}: {} bytes, {:?}…", said.len(), said.get(..20));
        let status = status.await.expect("how it ended");
        assert_eq!(status.reason.as_deref().filter(|reason| !reason.is_empty()), failed, "{what}: {status:?}");
        process.join().await.expect("the connection has ended as it should");
    }
    bench.stop().await;
}

/// A kubectl that forwards, and the port on which it listens.
struct Forward {
    child: Child,
    port: u16,
}

impl Forward {
    async fn start(bench: &Bench, line: &str) -> Forward {
        let mut command = bench.terminal.command("sh");
        command.args(["-c", &format!("exec env {line}")]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a shell");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await.expect("a line in time");
        let line = line.expect("readable").expect("a line");
        let port =
            line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next()?.parse().ok());
        let port = port.unwrap_or_else(|| panic!("{line}"));
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Forward { child, port }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port))).await.expect("kubectl listens")
    }
}

/// Sends back what it hears, and its end.
async fn echo(container: Container) -> i32 {
    let Ok(listener) = container.host.tcp_listen(7) else { return 1 };
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
            let _ = writer.shutdown().await;
        });
    }
    0
}

/// Sends bytes through an echo and compares what comes back.
async fn echoed(mut stream: TcpStream, seed: u8, length: usize) {
    let sent: Vec<u8> =
        (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8) ^ seed).collect();
    let (mut reader, mut writer) = stream.split();
    let mut heard = Vec::new();
    let (wrote, read) = tokio::join!(writer.write_all(&sent), async {
        heard.resize(length, 0);
        reader.read_exact(&mut heard).await
    });
    wrote.expect("written");
    read.expect("read");
    assert!(heard == sent, "what comes back differs");
}

#[tokio::test(flavor = "multi_thread")]
async fn port_forward_carries_much_and_many_over_both_protocols() {
    let bench = Bench::start().await;
    bench.cluster.run_pod(FunctionPod::new("echo").port(7), echo).await.expect("a pod");
    for protocol in ["", SPDY] {
        let forward = Forward::start(&bench, &format!("{protocol} kubectl port-forward pod/echo :7")).await;
        echoed(forward.connect().await, 0, 20_000_000).await;
        let streams = futures::future::join_all((0..300).map(|_| forward.connect())).await;
        futures::future::join_all(streams.into_iter().zip(0..).map(|(stream, at)| echoed(stream, at as u8, 20_000)))
            .await;
    }
    // kube-rs speaks the protocol of channels.
    let pods: Api<Pod> = Api::default_namespaced(client(&bench).await);
    let mut forwarder = pods.portforward("echo", &[7]).await.expect("a session");
    let mut stream = forwarder.take_stream(7).expect("the port's stream");
    let sent = vec![9; 1_000_000];
    let mut heard = vec![0; sent.len()];
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let (wrote, read) = tokio::join!(
        async {
            writer.write_all(&sent).await?;
            writer.flush().await
        },
        reader.read_exact(&mut heard)
    );
    wrote.expect("written");
    read.expect("read");
    assert!(heard == sent);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_port_is_told_as_a_kubelet_tells_it() {
    let bench = bench("1.36").await;
    let mut forward = Forward::start(&bench, "kubectl port-forward pod/tools :81 2>errors").await;
    let mut stream = forward.connect().await;
    let mut nothing = Vec::new();
    let _ = stream.read_to_end(&mut nothing).await;
    // kubectl gives up after an error of any connection.
    tokio::time::timeout(Duration::from_secs(60), forward.child.wait()).await.expect("it ends").expect("a status");
    let errors = std::fs::read_to_string(bench.terminal.dir().join("errors")).expect("written");
    assert!(errors.contains("error forwarding port 81 to pod tools, uid "), "{errors}");
    assert!(errors.contains(": failed to connect to localhost:81 inside namespace of pod default/tools, IPv4: dial tcp4 127.0.0.1:81: connect: connection refused"), "{errors}");
    bench.stop().await;
}

async fn page(forward: &Forward) -> String {
    let mut stream = forward.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").await.expect("sent");
    let mut page = String::new();
    stream.read_to_string(&mut page).await.expect("an answer");
    let pod = page.lines().find_map(|line| line.strip_prefix("Pod: "));
    pod.unwrap_or_else(|| panic!("{page}")).split(['/', ' ']).next_back().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn port_forward_to_a_service_survives_the_replacement_of_its_pod() {
    let bench = Bench::start().await;
    bench
        .ok("kubectl create deployment web --image=nginx:1.27 --port=80 && kubectl expose deployment web --port=80")
        .await;
    let set = "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db}, spec: {serviceName: db, selector: {matchLabels: {app: \
               db}}, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: 'nginx:1.27', ports: \
               [{containerPort: 80}]}]}}}}";
    bench.terminal.write("set.yaml", set);
    bench.ok("kubectl apply -f set.yaml && kubectl create service clusterip db --tcp=80:80").await;
    bench.ok("kubectl rollout status deployment/web --timeout=60s && kubectl rollout status statefulset/db --timeout=60s").await;
    let mut web = Forward::start(&bench, "kubectl port-forward svc/web :80").await;
    let mut db = Forward::start(&bench, "kubectl port-forward svc/db :80").await;
    let first = page(&web).await;
    assert_eq!(page(&db).await, "db-0");
    bench.ok("kubectl delete pod db-0 --wait=false && kubectl rollout restart deployment/web").await;
    bench.ok("kubectl rollout status deployment/web --timeout=60s").await;
    bench.ok(&format!("kubectl wait --for=delete pod/{first} --timeout=60s")).await;
    let second = page(&web).await;
    assert_ne!(first, second);
    assert_eq!(page(&db).await, "db-0", "the one that came back");
    bench.ok(&format!("kubectl delete pod {second} --grace-period=0 --force")).await;
    assert_ne!(page(&web).await, second);
    assert!(web.child.try_wait().expect("known").is_none() && db.child.try_wait().expect("known").is_none());
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_takes_the_right_to_create_as_upstream_does() {
    let bench = bench("1.36").await;
    bench
        .transcript(
            r#"$ kubectl create role reader --verb=get --resource=pods,pods/exec && kubectl create rolebinding reader --role=reader --user=reader
            role.rbac.authorization.k8s.io/reader created
            rolebinding.rbac.authorization.k8s.io/reader created
            $ kubectl create role creator --verb=create --resource=pods/exec && kubectl create rolebinding creator --role=creator --user=creator
            role.rbac.authorization.k8s.io/creator created
            rolebinding.rbac.authorization.k8s.io/creator created
            $ kubectl create rolebinding looker --role=reader --user=creator
            rolebinding.rbac.authorization.k8s.io/looker created
            $ kubectl exec --as=reader tools -- true
            error: unable to upgrade connection: pods "tools" is forbidden: User "reader" cannot create resource "pods/exec" in API group "" in the namespace "default"
            [exit 1]
            $ kubectl exec --as=creator tools -- echo yes
            yes"#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_follow_restarts_and_tell_outputs_apart() {
    let bench = bench("1.36").await;
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: loud}, spec: {restartPolicy: Never, initContainers: [{name: first, image: \
               busybox, command: [sh, -c, 'echo init']}], containers: [{name: c, image: busybox, command: [sh, -c, 'echo out; echo err \
               >&2; head -c 40000 /dev/zero | tr \"\\\\0\" x; echo; printf end']}]}}";
    bench.terminal.write("loud.yaml", pod);
    bench
        .transcript(
            r#"$ kubectl apply -f loud.yaml
            pod/loud created
            $ kubectl wait pod/loud --for=jsonpath='{.status.phase}'=Succeeded --timeout=60s
            pod/loud condition met
            $ kubectl logs loud -c first
            init
            $ kubectl logs loud -c c --tail=1; echo
            end
            $ kubectl logs loud -c c | wc -c
            40012
            $ kubectl logs loud -c c --timestamps | grep -c '^20..-..-..T..:..:..\.[0-9]*Z '
            4
            $ kubectl logs loud -c first --prefix --limit-bytes=3; echo
            [pod/loud/first] ini
            $ kubectl get --raw '/api/v1/namespaces/default/pods/loud/log?container=c&stream=Stderr'
            err
            $ kubectl logs loud -c c --since=1h | head -1
            out
            $ kubectl logs loud -c c --since-time=2999-01-01T00:00:00Z
            $ kubectl run stuck --image=busybox --overrides='{"spec":{"nodeSelector":{"no":"node"}}}'
            pod/stuck created
            $ kubectl logs stuck
            $ kubectl run unready --image=busybox --overrides='{"spec":{"containers":[{"name":"unready","image":"busybox","envFrom":[{"configMapRef":{"name":"none"}}]}]}}'
            pod/unready created
            $ kubectl wait pod/unready --for=jsonpath='{.status.containerStatuses[0].state.waiting.reason}'=CreateContainerConfigError --timeout=60s
            pod/unready condition met
            $ kubectl logs unready
            Error from server (BadRequest): container "unready" in pod "unready" is waiting to start: CreateContainerConfigError
            [exit 1]
            $ kubectl exec unready -- true
            error: Internal error occurred: unable to upgrade connection: container not found ("unready")
            [exit 1]
            $ KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false kubectl exec unready -- true
            error: unable to upgrade connection: container not found ("unready")
            [exit 1]"#,
        )
        .await;
    bench.stop().await;
}
