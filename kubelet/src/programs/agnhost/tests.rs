//! agnhost as a server and as a client, over a network.

use crate::programs::harness::{Machine, network, serving};

#[tokio::test(start_paused = true)]
async fn netexec_answers_who_it_is_and_who_asks() {
    let network = network();
    let server = Machine::at(&network, "10.0.0.2");
    let client = Machine::at(&network, "10.0.0.1");
    let _running = serving(&server, &["agnhost", "netexec", "--http-port=8080"]);
    let get = async |path: &str| client.run(&["curl", "-s", &format!("10.0.0.2:8080{path}")], "").await.stdout;
    assert_eq!(get("/hostname").await, "web-0");
    assert!(get("/clientip").await.starts_with("10.0.0.1:"));
    assert_eq!(get("/echo?msg=hello+there").await, "hello there");
    assert_eq!(get("/shell?cmd=echo%20ran").await, "{\"output\":\"ran\\n\"}");
    assert_eq!(get("/shell?shellCommand=exit%203").await, "{\"error\":\"exit status 3\"}");
    assert_eq!(get("/header?key=User-Agent").await, "curl/8.11.1");
    assert_eq!(get("/nothing").await, "404 page not found\n");
}

#[tokio::test(start_paused = true)]
async fn netexec_answers_over_udp_and_dials_others() {
    let network = network();
    let server = Machine::at(&network, "10.0.0.2");
    let client = Machine::at(&network, "10.0.0.1");
    let _running = serving(&server, &["agnhost", "netexec"]);
    let dialled = client
        .run(
            &["curl", "-s", "http://10.0.0.2:8080/dial?host=10.0.0.2&port=8081&protocol=udp&request=echo+hi&tries=2"],
            "",
        )
        .await;
    assert_eq!(dialled.stdout, "{\"responses\":[\"hi\",\"hi\"]}");
    let dialled =
        client.run(&["curl", "-s", "http://10.0.0.2:8080/dial?host=10.0.0.2&port=8080&request=hostname"], "").await;
    assert_eq!(dialled.stdout, "{\"responses\":[\"web-0\"]}");
    let closed = client.run(&["curl", "-s", "http://10.0.0.2:8080/dial?host=10.0.0.2&port=1&request=x"], "").await;
    assert!(closed.stdout.contains("connection refused"), "{closed:?}");
}

#[tokio::test(start_paused = true)]
async fn netexec_exits_when_asked() {
    let network = network();
    let server = Machine::at(&network, "10.0.0.2");
    let client = Machine::at(&network, "10.0.0.1");
    let command = ["agnhost", "netexec"];
    let running = server.run(&command, "");
    let asking = client.run(&["curl", "-s", "-m", "5", "10.0.0.2:8080/exit?code=3"], "");
    let (ran, _) = tokio::join!(running, asking);
    assert_eq!(ran.status, 3);
}

#[tokio::test(start_paused = true)]
async fn connect_says_why_not() {
    let network = network();
    let server = Machine::at(&network, "10.0.0.2");
    let client = Machine::at(&network, "10.0.0.1");
    let _running = serving(&server, &["agnhost", "serve-hostname"]);
    let connect = async |to: &str, timeout: &str| {
        let ran = client.run(&["agnhost", "connect", to, timeout], "").await;
        (ran.status, ran.stderr)
    };
    assert_eq!(connect("10.0.0.2:9376", "--timeout=2s").await, (0, String::new()));
    assert_eq!(connect("10.0.0.2:81", "--timeout=2s").await, (1, "REFUSED\n".to_owned()));
    // An attached port whose owner never answers.
    let _silent =
        network.attach_raw(&["10.0.0.9".parse().expect("an address")], netstack::PortTag(9)).expect("attached");
    assert_eq!(connect("10.0.0.9:80", "--timeout=2s").await, (1, "TIMEOUT\n".to_owned()));
    let (status, message) = connect("nowhere:80", "--timeout=2s").await;
    assert!(status == 1 && message.starts_with("DNS: "), "{message}");
}

#[tokio::test(start_paused = true)]
async fn liveness_fails_after_ten_seconds() {
    let network = network();
    let server = Machine::at(&network, "10.0.0.2");
    let client = Machine::at(&network, "10.0.0.1");
    let _running = serving(&server, &["agnhost", "liveness"]);
    let health = async || {
        client.run(&["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "10.0.0.2:8080/healthz"], "").await
    };
    assert_eq!(health().await.stdout, "200");
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    assert_eq!(health().await.stdout, "500");
}

#[tokio::test(start_paused = true)]
async fn pause_waits_for_a_signal() {
    let machine = Machine::new();
    let (signal, signals) = tokio::sync::watch::channel(0);
    let command = ["agnhost", "pause"];
    let (ran, ()) = tokio::join!(machine.run_with(&command, "", signals), async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        signal.send_replace(15);
    });
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "Paused\n"));
}

#[tokio::test(start_paused = true)]
async fn the_printing_subcommands_print() {
    let machine = Machine::new();
    machine.files.mount("/etc/resolv.conf", "search a.b c.d\nnameserver 10.96.0.10\n", 0o644);
    assert_eq!(machine.run(&["agnhost", "dns-suffix"], "").await.stdout, "a.b,c.d");
    assert_eq!(machine.run(&["agnhost", "dns-server-list"], "").await.stdout, "10.96.0.10");
    assert_eq!(machine.run(&["agnhost", "entrypoint-tester", "x"], "").await.stdout, "[agnhost entrypoint-tester x]\n");
    let unknown = machine.run(&["agnhost", "nothing"], "").await;
    assert_eq!(
        (unknown.status, unknown.stderr.lines().next()),
        (1, Some("Error: unknown command \"nothing\" for \"app\""))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_of_one_script_are_served_at_once() {
    let network = network();
    let server = Machine::at(&network, "10.0.0.2");
    let client = Machine::at(&network, "10.0.0.1");
    let _running = serving(&server, &["agnhost", "netexec"]);
    let script = "for i in $(seq 50); do (curl -s 10.0.0.2:8080/hostname; echo) & done; wait";
    let ran = client.sh(script).await;
    assert_eq!(ran.stdout.matches("web-0").count(), 50, "{ran:?}");
    let big = client.sh("dd if=/dev/zero of=/tmp/big bs=1M count=20 status=none; nc -l -p 9000 | wc -c & until nc 10.0.0.1 9000 < /tmp/big 2>/dev/null; do :; done; wait").await;
    assert_eq!(big.stdout, "20971520\n", "{big:?}");
}
