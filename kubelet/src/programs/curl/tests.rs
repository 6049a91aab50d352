//! curl against servers of the same network: output, messages, exit statuses.

use crate::programs::harness::{Machine, Ran, network, serving};
use netstack::PortTag;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::task::AbortOnDropHandle;

async fn against_netexec(args: &[&str]) -> Ran {
    let network = network();
    let server = Machine::at(&network, "10.0.0.2");
    let client = Machine::at(&network, "10.0.0.1");
    client.files.mount("/etc/hosts", "10.0.0.2 server\n10.0.0.9 silent\n", 0o644);
    let _silent = network.attach_raw(&["10.0.0.9".parse().expect("an address")], PortTag(9)).expect("attached");
    let _running = serving(&server, &["agnhost", "netexec"]);
    let command: Vec<&str> = ["curl"].iter().chain(args).copied().collect();
    client.run(&command, "from stdin").await
}

#[tokio::test(start_paused = true)]
async fn the_body_goes_to_standard_output_and_the_status_to_who_asks() {
    let ran =
        against_netexec(&["-s", "-w", " %{http_code} %{remote_ip} %{size_download}\\n", "server:8080/hostname"]).await;
    assert_eq!((ran.stdout.as_str(), ran.status), ("web-0 200 10.0.0.2 5\n", 0), "{}", ran.stderr);
    let ran = against_netexec(&["-s", "-o", "/dev/null", "-w", "%{http_code}", "server:8080/echo?code=503"]).await;
    assert_eq!((ran.stdout.as_str(), ran.status), ("503", 0));
}

#[tokio::test(start_paused = true)]
async fn failures_have_the_messages_and_statuses_of_curl() {
    for (args, status, message) in [
        (
            &["-sS", "server:81/"][..],
            7,
            "curl: (7) Failed to connect to server port 81 after 0 ms: Couldn't connect to server\n",
        ),
        (&["-sS", "nowhere"][..], 6, "curl: (6) Could not resolve host: nowhere\n"),
        (
            &["-sS", "--connect-timeout", "1", "silent"][..],
            28,
            "curl: (28) Connection timed out after 1000 milliseconds\n",
        ),
        (&["-sS", "-m", "2", "silent"][..], 28, "curl: (28) Connection timed out after 2000 milliseconds\n"),
        (&["-sSf", "server:8080/echo?code=404"][..], 22, "curl: (22) The requested URL returned error: 404\n"),
        (&["-sS", "ftp://server"][..], 1, "curl: (1) Protocol \"ftp\" not supported\n"),
        (&["-sS", "http://:80"][..], 3, "curl: (3) URL rejected: No host part in the URL\n"),
        (&["-s", "nowhere"][..], 6, ""),
    ] {
        let ran = against_netexec(args).await;
        assert_eq!((ran.status, ran.stderr.as_str()), (status, message), "{args:?}");
    }
    let bare = against_netexec(&[]).await;
    assert_eq!(bare.status, 2);
    assert!(bare.stderr.contains("try 'curl --help'"));
}

#[tokio::test(start_paused = true)]
async fn a_connection_closed_without_an_answer_is_an_empty_reply() {
    let network = network();
    let server = Machine::at(&network, "10.0.0.2");
    let client = Machine::at(&network, "10.0.0.1");
    let listener = server.host.tcp_listen(80).expect("port 80");
    let _closing = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.shutdown().await;
        }
    }));
    let ran = client.run(&["curl", "-sS", "10.0.0.2"], "").await;
    assert_eq!((ran.status, ran.stderr.as_str()), (52, "curl: (52) Empty reply from server\n"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_ends_at_the_time_limit() {
    let network = network();
    let server = Machine::at(&network, "10.0.0.2");
    let client = Machine::at(&network, "10.0.0.1");
    let listener = server.host.tcp_listen(80).expect("port 80");
    let _holding = AbortOnDropHandle::new(tokio::spawn(async move {
        let held = listener.accept().await;
        std::future::pending::<()>().await;
        drop(held);
    }));
    let ran = client.run(&["curl", "-sS", "-m", "3", "10.0.0.2"], "").await;
    assert_eq!(ran.stderr, "curl: (28) Operation timed out after 3000 milliseconds with 0 bytes received\n");
}

#[tokio::test(start_paused = true)]
async fn requests_carry_what_the_options_say() {
    let method = against_netexec(&["-s", "-d", "cmd=echo posted", "server:8080/shell"]).await;
    assert_eq!(method.stdout, "{\"output\":\"posted\\n\"}");
    let header = against_netexec(&["-s", "-H", "X-Test: yes", "server:8080/header?key=X-Test"]).await;
    assert_eq!(header.stdout, "yes");
    let user = against_netexec(&["-s", "-u", "a:b", "server:8080/header?key=Authorization"]).await;
    assert_eq!(user.stdout, "Basic YTpi");
    let agent = against_netexec(&["-s", "-A", "me", "server:8080/header?key=User-Agent"]).await;
    assert_eq!(agent.stdout, "me");
    let resolve = against_netexec(&["-s", "--resolve", "x.test:8080:10.0.0.2", "x.test:8080/header?key=Host"]).await;
    assert_eq!(resolve.stdout, "x.test:8080");
    let query = against_netexec(&["-s", "-G", "--data-urlencode", "msg=a b", "server:8080/echo"]).await;
    assert_eq!(query.stdout, "a b");
}

#[tokio::test(start_paused = true)]
async fn redirects_are_followed_when_asked() {
    let here = "server:8080/redirect?location=/hostname&code=301";
    let plain = against_netexec(&["-s", "-w", "%{http_code} %{redirect_url}", here]).await;
    assert_eq!(plain.stdout, "301 http://server:8080/hostname");
    let followed = against_netexec(&["-sL", "-w", " %{http_code} %{num_redirects}", here]).await;
    assert_eq!(followed.stdout, "web-0 200 1");
}

#[tokio::test(start_paused = true)]
async fn heads_are_shown_as_the_server_wrote_them() {
    let ran = against_netexec(&["-sI", "server:8080/hostname"]).await;
    let mut lines = ran.stdout.lines();
    assert_eq!(lines.next(), Some("HTTP/1.1 200 OK"));
    assert!(ran.stdout.contains("\r\nContent-Type: text/plain; charset=utf-8\r\n"), "{}", ran.stdout);
    let verbose = against_netexec(&["-sv", "server:8080/hostname"]).await;
    assert!(verbose.stderr.starts_with("*   Trying 10.0.0.2:8080...\n* Connected to server (10.0.0.2) port 8080\n> GET /hostname HTTP/1.1\n> Host: server:8080\n> User-Agent: curl/8.11.1\n> Accept: */*\n> \n"), "{}", verbose.stderr);
    assert!(verbose.stderr.contains("< HTTP/1.1 200 OK\n< Content-Type: "), "{}", verbose.stderr);
}

#[tokio::test(start_paused = true)]
async fn transient_failures_are_retried() {
    let network = network();
    let server = Machine::at(&network, "10.0.0.2");
    let client = Machine::at(&network, "10.0.0.1");
    let retrying = client.run(&["curl", "-s", "--retry", "5", "--retry-connrefused", "10.0.0.2:8080/hostname"], "");
    let late = async {
        tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
        server.run(&["agnhost", "netexec"], "").await
    };
    tokio::select! {
        ran = retrying => assert_eq!(ran.stdout, "web-0"),
        ended = late => panic!("the server ended: {ended:?}"),
    }
}
