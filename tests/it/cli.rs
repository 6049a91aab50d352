//! The binary as its users meet it: started in a terminal, signalled, killed, given wrong directories and taken ports.

use crate::support::{Ran, Terminal, http, line_set, repository, tools};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr};

/// The binary under test.
const CORACLE: &str = env!("CARGO_BIN_EXE_coracle");
/// No cluster takes longer to start or stop, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn terminal() -> Terminal {
    Terminal::new(&[Path::new(CORACLE)])
}

/// A terminal that has the real kubectl too.
async fn terminal_with_kubectl() -> Terminal {
    Terminal::new(&[Path::new(CORACLE), &tools::kubectl("1.36").await])
}

/// `coracle up` in the foreground of a terminal, ready.
struct Up {
    child: Child,
    said: Vec<String>,
    errors: Lines<BufReader<ChildStderr>>,
}

impl Up {
    /// Starts `coracle up` with these arguments and reads what it says until it is ready.
    async fn start(terminal: &Terminal, arguments: &[&str]) -> Up {
        let mut command = terminal.command(CORACLE);
        command.arg("up").args(arguments).process_group(0).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let errors = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let mut up = Up { child, said: Vec::new(), errors };
        let ready = async {
            while let Some(line) = up.errors.next_line().await.expect("readable") {
                up.said.push(line);
                if up.said.last().is_some_and(|line| line == "(Ctrl-C stops the cluster)") {
                    return true;
                }
            }
            false
        };
        let ready = tokio::time::timeout(PATIENCE, ready).await;
        let ready = ready.unwrap_or_else(|_| panic!("not ready after {PATIENCE:?}:\n{}", up.said.join("\n")));
        assert!(ready, "it ended instead of being ready:\n{}", up.said.join("\n"));
        up
    }

    fn signal(&self, order: Signal) {
        signal(&self.child, order);
    }

    /// Waits for its end; what it said after it was ready.
    async fn ended(mut self) -> (ExitStatus, Vec<String>) {
        let rest = async {
            let mut rest = Vec::new();
            while let Some(line) = self.errors.next_line().await.expect("readable") {
                rest.push(line);
            }
            (self.child.wait().await.expect("waited for"), rest)
        };
        tokio::time::timeout(PATIENCE, rest).await.expect("it ends in time")
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().expect("running")).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("signalled");
}

const QUIET: [&str; 3] = ["--api-port", "0", "--no-kubeconfig"];
const EPHEMERAL: [&str; 4] = ["--ephemeral", "--api-port", "0", "--no-kubeconfig"];

/// The run directories of clusters that are there.
fn run_directories(terminal: &Terminal) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(terminal.dir().join("run/coracle")).into_iter().flatten();
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// Runs a line over and over until it does what is wanted, for things that only time and other processes bring about.
async fn eventually(terminal: &Terminal, line: &str, wanted: impl Fn(&Ran) -> bool) -> Ran {
    let mut last = None;
    let attempts = async {
        loop {
            let ran = terminal.sh(line).await;
            if wanted(&ran) {
                return ran;
            }
            last = Some(ran);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, attempts).await;
    done.unwrap_or_else(|_| panic!("never as wanted:\n{}", last.map(|ran| ran.to_string()).unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn up_shows_its_steps_and_where_to_go_next_and_down_leaves_nothing() {
    let terminal = terminal_with_kubectl().await;
    let up = Up::start(&terminal, &EPHEMERAL).await;
    for component in ["store", "apiserver", "network", "dns", "controllers", "nodes"] {
        let tick = format!("✓ {component}");
        let found = up.said.iter().any(|line| line.starts_with(&tick) && line.ends_with(" ms"));
        assert!(found, "no tick for {component} in {:?}", up.said);
    }
    assert!(up.said.iter().any(|line| line.starts_with("ready in ") && line.ends_with(" ms")), "{:?}", up.said);
    let next = up.said.iter().find_map(|line| line.strip_prefix("next: ")).expect("the next command");
    let nodes = terminal.sh(next).await.ok();
    assert_eq!(nodes.matches(" Ready ").count(), 2, "{nodes}");

    let pid = up.child.id().expect("running");
    terminal
        .transcript(&format!(
            "$ coracle status
             NAME      PID     API                  STATE       DNS      SOCKET
             coracle   {pid}   https://127.0.0.1:…  in memory   <none>   …/run/coracle/coracle/api.sock
             $ coracle kubeconfig > own && kubectl --kubeconfig own get namespaces -o name
             namespace/default
             namespace/kube-node-lease
             namespace/kube-public
             namespace/kube-system
             $ server=$(kubectl --kubeconfig own config view --minify -o jsonpath='{{.clusters[0].cluster.server}}')
             > kubectl --kubeconfig /dev/null --server $server --token $(coracle token) --insecure-skip-tls-verify auth whoami
             ATTRIBUTE   VALUE
             Username    system:admin
             Groups      [system:masters system:authenticated]
             $ coracle up --ephemeral
             error: a cluster named \"coracle\" is running already (process {pid}, API https://127.0.0.1:…)
             hint: stop it with `coracle down --name coracle`, or start another with `--name`
             [exit 1]
             $ coracle down
             stopped coracle"
        ))
        .await;
    assert!(up.ended().await.0.success());
    assert_eq!(run_directories(&terminal), Vec::<PathBuf>::new());
    assert!(!terminal.dir().join("data/coracle").exists(), "--ephemeral keeps nothing");
    assert!(!terminal.dir().join("home/.kube/config").exists(), "--no-kubeconfig means so");
    terminal
        .transcript(
            "$ coracle down
             error: no cluster named \"coracle\" is running
             hint: start it with `coracle up`
             [exit 1]
             $ coracle get pods --name other
             error: no cluster named \"other\" is running
             hint: start it with `coracle up --name other`
             [exit 1]",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lesson_needs_no_kubectl() {
    let terminal = terminal();
    for entry in std::fs::read_dir(repository("examples/lesson")).expect("the lesson") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let text = std::fs::read_to_string(&path).expect("a manifest");
            let name = path.file_name().expect("a name").to_str().expect("a plain name");
            // Which port of the machine is free is another test's question.
            terminal.write(&format!("lesson/{name}"), &text.replace("      nodePort: 30080\n", ""));
        }
    }
    let up = Up::start(&terminal, &EPHEMERAL).await;
    let policies = repository("examples/lesson/policies");
    terminal
        .transcript(
            "$ coracle apply -f lesson
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
             $ coracle apply -f lesson/60-client.yaml
             pod/client unchanged
             pod/client unchanged",
        )
        .await;
    let ready = |ran: &Ran| ran.stdout.matches(" 1/1 ").count() == 10 && ran.stdout.matches(" Running ").count() == 10;
    eventually(&terminal, "coracle get pods -o wide", ready).await;
    let three = |ran: &Ran| ran.stdout.matches(":8080").count() == 3;
    eventually(&terminal, "coracle get endpoints api-service", three).await;
    let names = terminal.sh("coracle get pods -l app=api -o name").await.ok();
    let ask = "for i in $(seq 65); do curl -sS -m 5 http://api-service/hostname || exit 1; echo; done";
    let answered = line_set(&terminal.sh(&format!("coracle exec client -- sh -c '{ask}'")).await.ok());
    assert_eq!(line_set(&names.replace("pod/", "")), answered);
    terminal
        .transcript(&format!(
            "$ coracle get svc api-service
             NAME          TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)   AGE
             api-service   ClusterIP   10.…         <none>        80/TCP    …s
             $ coracle exec client -- sh -c 'echo out; echo err >&2; exit 3' 2>/dev/null
             out
             [exit 3]
             $ coracle exec client -- sh -c 'echo out; echo err >&2' 2>&1 >/dev/null
             err
             $ echo hello | coracle exec -i client -- cat
             hello
             $ coracle exec nobody -- true
             error: …pods \"nobody\" not found…
             [exit 1]
             $ coracle logs db-0 --tail 1
             …
             $ coracle get pod client -o json | grep '\"phase\"'
             \"phase\": \"Running\",…
             $ coracle get nothing
             error: the server doesn't have a resource type \"nothing\"
             hint: `coracle get --help` shows the form; resource types are those of `kubectl api-resources`
             [exit 1]
             $ echo '{{apiVersion: v1, kind: Service, metadata: {{name: bad}}, spec: {{ports: [{{port: 70000}}]}}}}' | coracle apply -f -
             error: standard input (document 1): Error from server (Invalid): Service \"bad\" is invalid: …must be between 1 and 65535, inclusive…
             error: 1 of 1 objects were not applied
             [exit 1]
             $ coracle apply -f {}
             networkpolicy.networking.k8s.io/api-allow created
             networkpolicy.networking.k8s.io/default-deny-ingress created",
            policies.display()
        ))
        .await;
    // Nobody waits for the policies here: the flow closes when they are in force.
    let denied = |ran: &Ran| ran.code == 28;
    eventually(&terminal, "coracle exec client -- curl -sS -m 1 http://api-service", denied).await;
    terminal.sh("coracle exec client -n frontend -- curl -sS -m 5 http://api-service.default").await.ok();
    terminal
        .transcript(
            "$ coracle delete pod client
             pod \"client\" deleted
             $ coracle get pod client
             error: Error from server (NotFound): pods \"client\" not found
             [exit 1]
             $ coracle delete -f lesson/50-headless.yaml
             service \"db-headless\" deleted
             statefulset.apps \"db\" deleted
             $ coracle delete netpol --all
             networkpolicy.networking.k8s.io \"api-allow\" deleted
             networkpolicy.networking.k8s.io \"default-deny-ingress\" deleted",
        )
        .await;
    up.signal(Signal::INT);
    assert!(up.ended().await.0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn run_passes_the_exit_status_on_and_leaves_nothing() {
    let mut terminal = terminal_with_kubectl().await;
    let temporary = terminal.dir().join("tmp");
    std::fs::create_dir(&temporary).expect("a directory");
    terminal.set("TMPDIR", &temporary);
    terminal
        .transcript(
            "$ coracle run -- kubectl get nodes
             NAME     STATUS   ROLES    AGE   VERSION
             node-1   Ready    <none>   …s    v1.36.0
             node-2   Ready    <none>   …s    v1.36.0
             $ coracle run --nodes 1 -- sh -c 'coracle get nodes -o name; ls $(dirname $KUBECONFIG); exit 7'
             node/node-1
             api.sock
             kubeconfig
             [exit 7]
             $ coracle run -- sh -c 'kill -9 $$'
             [exit 137]
             $ coracle run -- no-such-program
             error: cannot run no-such-program
             caused by: No such file or directory (os error 2)
             [exit 1]",
        )
        .await;
    assert_eq!(std::fs::read_dir(&temporary).expect("readable").count(), 0, "nothing is left");
    for left in ["run/coracle", "data/coracle", "home/.kube/config"] {
        assert!(!terminal.dir().join(left).exists(), "{left} is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn run_passes_a_signal_on_to_its_command() {
    let mut terminal = terminal();
    let temporary = terminal.dir().join("tmp");
    std::fs::create_dir(&temporary).expect("a directory");
    terminal.set("TMPDIR", &temporary);
    let mut command = terminal.command(CORACLE);
    command.args(["run", "--", "sh", "-c", "echo $$; exec sleep 9999"]).process_group(0).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let inner = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("readable");
    let inner = inner.and_then(|line| line.parse().ok()).and_then(Pid::from_raw).expect("a process id");
    signal(&child, Signal::TERM);
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.expect("it ends in time").expect("waited for");
    assert_eq!(status.code(), Some(128 + 15), "as its command ended");
    assert!(test_kill_process(inner).is_err(), "the command is gone");
    assert_eq!(std::fs::read_dir(&temporary).expect("readable").count(), 0, "nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_signal_stops_the_cluster_and_its_run_directory_goes() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let terminal = terminal();
        let up = Up::start(&terminal, &EPHEMERAL).await;
        assert_eq!(run_directories(&terminal).len(), 1);
        up.signal(signal);
        let (status, said) = up.ended().await;
        assert!(status.success(), "{signal:?}: {status}, {said:?}");
        assert_eq!(run_directories(&terminal), Vec::<PathBuf>::new(), "{signal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_kubeconfig_gets_the_context_and_is_as_before_afterwards() {
    let terminal = terminal_with_kubectl().await;
    let others = "apiVersion: v1\nkind: Config\nclusters:\n- name: prod\n  cluster: {server: 'https://prod.test'}\nusers:\n\
        - name: me\n  user: {token: t}\ncontexts:\n- name: prod\n  context: {cluster: prod, user: me}\ncurrent-context: prod\n";
    terminal.write("home/.kube/config", others);
    let up = Up::start(&terminal, &["--ephemeral", "--api-port", "0", "--name", "second"]).await;
    terminal
        .transcript(
            "$ kubectl config get-contexts
             CURRENT   NAME             CLUSTER          AUTHINFO         NAMESPACE
             *         coracle-second   coracle-second   coracle-second
                       prod             prod             me
             $ kubectl get nodes -o name
             node/node-1
             node/node-2",
        )
        .await;
    up.signal(Signal::TERM);
    up.ended().await;
    terminal
        .transcript(
            "$ kubectl config get-contexts
             CURRENT   NAME   CLUSTER   AUTHINFO   NAMESPACE
             *         prod   prod      me",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_the_cluster_starts_leaves_nothing_either() {
    let terminal = terminal();
    let mut command = terminal.command(CORACLE);
    command.arg("up").args(EPHEMERAL).process_group(0).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let mut errors = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let first = tokio::time::timeout(PATIENCE, errors.next_line()).await.expect("in time").expect("readable");
    assert!(first.as_ref().is_some_and(|line| line.starts_with("✓ store")), "{first:?}");
    signal(&child, Signal::TERM);
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.expect("it ends in time").expect("waited for");
    assert!(status.success(), "{status}");
    assert_eq!(run_directories(&terminal), Vec::<PathBuf>::new());
}

/// Stops a detached cluster, whatever becomes of the test.
struct Detached<'a>(&'a Terminal);

impl Drop for Detached<'_> {
    fn drop(&mut self) {
        let mut down = self.0.command(CORACLE);
        let _ = down.as_std_mut().arg("down").stderr(Stdio::null()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_cluster_outlives_the_command_that_started_it() {
    let terminal = terminal();
    let _stopped = Detached(&terminal);
    let shown = terminal.sh("coracle up --detach --ephemeral --api-port 0 --no-kubeconfig").await;
    assert!(shown.code == 0 && shown.stderr.starts_with("ready: https://127.0.0.1:"), "{shown}");
    terminal
        .transcript(
            "$ coracle get nodes -o name
             node/node-1
             node/node-2
             $ coracle down
             stopped coracle
             $ coracle up --detach --data-dir /proc/nowhere --api-port 0 --no-kubeconfig
             error: the cluster's process ended (exit status: 1):
             error: …/proc/nowhere…
             …
             [exit 1]",
        )
        .await;
    assert_eq!(run_directories(&terminal), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_and_without_a_wish_the_next_one_is_taken() {
    let terminal = terminal();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    terminal
        .transcript(&format!(
            "$ coracle up --ephemeral --no-kubeconfig --api-port {port}
             error: cannot listen on 127.0.0.1:{port}: Address already in use (os error 98)
             hint: another cluster may be running; choose a port with `--api-port`, 0 takes a free one
             [exit 1]"
        ))
        .await;
    assert_eq!(run_directories(&terminal), Vec::<PathBuf>::new());
    // If this fails, somebody else has the usual port, which does as well.
    let _usual = TcpListener::bind("127.0.0.1:6443");
    let up = Up::start(&terminal, &["--ephemeral", "--no-kubeconfig"]).await;
    assert!(up.said.contains(&"port 6443 is taken, trying the next".to_owned()), "{:?}", up.said);
    let status = terminal.sh("coracle status").await.ok();
    assert!(status.contains("https://127.0.0.1:") && !status.contains(":6443 "), "{status}");
    up.signal(Signal::INT);
    up.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_cannot_be_used_is_named_with_the_reason() {
    let terminal = terminal();
    terminal.write("file", "");
    let up = Up::start(&terminal, &[&["--data-dir", "state"], &QUIET[..]].concat()).await;
    let pid = up.child.id().expect("running");
    terminal
        .transcript(&format!(
            "$ coracle up --data-dir file/below --api-port 0 --no-kubeconfig --name a
             error: the store in file/below/store cannot be opened
             caused by: cannot create file/below/store
             caused by: Not a directory (os error 20)
             [exit 1]
             $ coracle up --data-dir /proc/nowhere --api-port 0 --no-kubeconfig --name a
             error: the store in /proc/nowhere/store cannot be opened
             caused by: cannot create /proc/nowhere/store
             caused by: No such file or directory (os error 2)
             [exit 1]
             $ coracle up --data-dir state --api-port 0 --no-kubeconfig --name a
             error: the store in state/store cannot be opened
             caused by: state/store is in use by process {pid}
             …
             [exit 1]"
        ))
        .await;
    assert_eq!(run_directories(&terminal).len(), 1, "only the running cluster's");
    up.signal(Signal::INT);
    up.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_use_ends_with_2_and_wrong_values_are_named() {
    terminal()
        .transcript(
            "$ coracle up --nope
             error: unexpected argument '--nope' found
             …
             [exit 2]
             $ coracle up --nodes many
             error: invalid value 'many' for '--nodes <NODES>': invalid digit found in string
             …
             [exit 2]
             $ coracle up --nodes 0 --ephemeral --api-port 0 --no-kubeconfig
             error: nodes: invalid value 0: must be between 1 and 200
             [exit 1]
             $ coracle up --ephemeral --name 'A b'
             error: --name: invalid value \"A b\": must be lower-case letters, digits and '-', at most 63 characters
             [exit 1]
             $ coracle --version
             coracle 0.1.0",
        )
        .await;
}

/// What a writer was told: the object's data and the revision of its write, by name.
type Acknowledged = BTreeMap<String, (String, u64)>;

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse().ok()).expect("a resourceVersion")
}

/// Writes ConfigMaps, and each of them again, until the server is gone.
async fn write_until_the_server_dies(
    socket: PathBuf,
    writer: u32,
    told: tokio::sync::mpsc::Sender<(String, String, u64)>,
) {
    let path = "/api/v1/namespaces/default/configmaps";
    for count in 0.. {
        let name = format!("w{writer}-{count}");
        let mut object = json!({"metadata": {"name": name}, "data": {"value": "first"}});
        for (method, path, value) in [("POST", path.to_owned(), "first"), ("PUT", format!("{path}/{name}"), "second")] {
            object["data"]["value"] = value.into();
            let Ok((status, answer)) = http::send_unix(&socket, method, &path, &object.to_string()).await else {
                return;
            };
            assert!(status == 200 || status == 201, "{status} {answer}");
            let answer: Value = serde_json::from_str(&answer).expect("JSON");
            if told.send((name.clone(), value.to_owned(), revision(&answer))).await.is_err() {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_kill_is_there_after_a_restart() {
    let terminal = terminal();
    let socket = terminal.dir().join("run/coracle/coracle/api.sock");
    let mut acknowledged = Acknowledged::new();
    for round in 0..3 {
        let mut up = Up::start(&terminal, &QUIET).await;
        check_acknowledged(&socket, &acknowledged).await;
        let (told, mut heard) = tokio::sync::mpsc::channel(1);
        let writers: Vec<_> = (0..4)
            .map(|writer| tokio::spawn(write_until_the_server_dies(socket.clone(), round * 10 + writer, told.clone())))
            .collect();
        drop(told);
        let mut count = 0;
        while let Some((name, value, revision)) = heard.recv().await {
            acknowledged.insert(name, (value, revision));
            count += 1;
            if count == 100 {
                up.child.start_kill().expect("killed in the middle of writes");
            }
        }
        for writer in writers {
            writer.await.expect("no answer but success");
        }
        up.ended().await;
    }
    let up = Up::start(&terminal, &QUIET).await;
    check_acknowledged(&socket, &acknowledged).await;
    up.signal(Signal::TERM);
    assert!(up.ended().await.0.success());
}

/// A write that was not acknowledged may have happened; one that was acknowledged must have.
async fn check_acknowledged(socket: &Path, acknowledged: &Acknowledged) {
    let (status, list) = http::get_unix(socket, "/api/v1/namespaces/default/configmaps").await.expect("an answer");
    assert_eq!(status, 200, "{list}");
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let found: BTreeMap<&str, &Value> = list["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter_map(|object| Some((object["metadata"]["name"].as_str()?, object)))
        .collect();
    for (name, (value, acknowledged)) in acknowledged {
        let object = found.get(name.as_str()).unwrap_or_else(|| panic!("{name} is lost"));
        let newer = revision(object) > *acknowledged && value == "first";
        assert!(
            revision(object) == *acknowledged || newer,
            "{name}: {acknowledged} was acknowledged, {object} is there"
        );
        assert!(newer || object["data"]["value"] == value.as_str(), "{name}: {object}");
    }
    let newest = acknowledged.values().map(|(_, revision)| *revision).max().unwrap_or(0);
    assert!(revision(&list) >= newest, "revisions go on where they were");
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_on_the_machine_is_told_and_a_taken_port_or_a_wrong_address_is_named() {
    let terminal = terminal();
    let up = Up::start(&terminal, &[&EPHEMERAL[..], &["--dns-port", "0", "--dns-upstream", "none"]].concat()).await;
    let said = up.said.iter().find_map(|line| line.strip_prefix("  DNS      ")).expect("where DNS answers").to_owned();
    let (address, next) = said.split_once(": ").expect("an address and the next command");
    let port = address.strip_prefix("127.0.0.1:").expect("loopback");
    assert_eq!(next, format!("dig @127.0.0.1 -p {port} kubernetes.default.svc.cluster.local"));
    let status = terminal.sh("coracle status").await.ok();
    assert!(status.contains(&format!(" {address} ")), "{status}");
    terminal
        .transcript(&format!(
            "$ coracle up --name other --ephemeral --api-port 0 --no-kubeconfig --dns-port {port}
             error: cannot listen on 127.0.0.1:{port} for DNS: Address already in use (os error 98)
             hint: another server may be running; choose another port with `--dns-port`, 0 takes a free one
             [exit 1]
             $ coracle up --dns-upstream dns.example
             error: invalid value 'dns.example' for '--dns-upstream <ADDR|none>': \"dns.example\" is not the address of a \
             server: write an IP address, or IP:PORT ([IPv6]:PORT)
             …
             [exit 2]
             $ coracle up --dns-stub corp.example
             error: invalid value 'corp.example' for '--dns-stub <DOMAIN=ADDR[,ADDR]>': \"corp.example\" is not \
             DOMAIN=SERVER[,SERVER…]
             …
             [exit 2]
             $ coracle run --dns-port 0 -- sh -c 'echo $CORACLE_DNS'
             127.0.0.1:…"
        ))
        .await;
    up.signal(Signal::INT);
    up.ended().await;
}
