//! Connections: data, ends, limits.

use crate::*;
use std::io::ErrorKind;

/// A connection from host 10.0.0.1 to host 10.0.0.2.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    _hosts: [Host; 2],
}

async fn pair(network: &Network) -> Pair {
    let (a, b) = (host(network, "10.0.0.1"), host(network, "10.0.0.2"));
    let listener = b.tcp_listen(80).unwrap();
    let (client, server) = tokio::join!(a.tcp_connect(at("10.0.0.2:80")), listener.accept());
    Pair { client: client.unwrap(), server: server.unwrap().0, _hosts: [a, b] }
}

fn pattern(from: u64, length: usize) -> Vec<u8> {
    (from..from + length as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

async fn send(mut stream: impl tokio::io::AsyncWrite + Unpin, total: usize) {
    let mut sent = 0;
    while sent < total {
        let chunk = pattern(sent as u64, (total - sent).min(100_000));
        stream.write_all(&chunk).await.unwrap();
        sent += chunk.len();
    }
    stream.shutdown().await.unwrap();
}

async fn check(mut stream: impl tokio::io::AsyncRead + Unpin, total: usize) {
    let mut received = 0;
    let mut buffer = vec![0; 70_000];
    loop {
        let length = stream.read(&mut buffer).await.unwrap();
        if length == 0 {
            break;
        }
        assert!(buffer[..length] == pattern(received as u64, length)[..], "garbled after {received} bytes");
        received += length;
    }
    assert_eq!(received, total);
}

#[tokio::test(start_paused = true)]
async fn bulk_data_arrives_intact_both_ways_at_once() {
    const TOTAL: usize = 32 << 20;
    let network = network();
    let Pair { client, server, .. } = pair(&network).await;
    let (client_read, client_write) = tokio::io::split(client);
    let (server_read, server_write) = tokio::io::split(server);
    tokio::join!(
        send(client_write, TOTAL),
        check(server_read, TOTAL),
        send(server_write, TOTAL),
        check(client_read, TOTAL)
    );
}

#[tokio::test(start_paused = true)]
async fn bulk_data_arrives_intact_over_ipv6() {
    const TOTAL: usize = 4 << 20;
    let network = network();
    let (a, b) = (host(&network, "fd00::1"), host(&network, "fd00::2"));
    let listener = b.tcp_listen(80).unwrap();
    let (client, server) = tokio::join!(a.tcp_connect(at("[fd00::2]:80")), listener.accept());
    tokio::join!(send(client.unwrap(), TOTAL), check(server.unwrap().0, TOTAL));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_its_writer_back_and_loses_nothing() {
    let network = network();
    let Pair { mut client, mut server, .. } = pair(&network).await;
    let writer = tokio::spawn(async move { send(&mut client, 3 << 20).await });
    let mut received = Vec::new();
    let mut buffer = [0; 777];
    loop {
        tokio::time::sleep(Duration::from_millis(1)).await;
        match server.read(&mut buffer).await.unwrap() {
            0 => break,
            length => received.extend_from_slice(&buffer[..length]),
        }
    }
    writer.await.unwrap();
    assert!(received == pattern(0, 3 << 20));
}

#[tokio::test(start_paused = true)]
async fn a_closed_port_refuses_at_once() {
    let network = network();
    let (a, _b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let start = Instant::now();
    let error = a.tcp_connect(at("10.0.0.2:81")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_silent_destination_times_out_after_the_syn_s_retries() {
    let network = network();
    let a = host(&network, "10.0.0.1");
    let start = Instant::now();
    let error = a.tcp_connect(at("10.0.0.2:80")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(start.elapsed().as_secs(), 31);
    assert!(network.drops().iter().any(|(reason, count)| reason.0 == "NO_ROUTE" && *count >= 5));
}

#[tokio::test(start_paused = true)]
async fn a_caller_may_lose_patience_earlier() {
    let network = network();
    let a = host(&network, "10.0.0.1");
    let wall = std::time::Instant::now();
    tokio::time::timeout(SOON, a.tcp_connect(at("10.0.0.2:80"))).await.unwrap_err();
    assert!(wall.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn the_client_may_close_its_half_and_still_read() {
    let network = network();
    let Pair { mut client, mut server, .. } = pair(&network).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = String::new();
    server.read_to_string(&mut question).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    server.write_all(b"answer").await.unwrap();
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
}

#[tokio::test(start_paused = true)]
async fn what_was_written_before_the_drop_is_delivered() {
    let network = network();
    let Pair { mut client, server, .. } = pair(&network).await;
    let writer = tokio::spawn(async move {
        let mut server = server;
        // More than both buffers hold: the end of it is written while the client reads.
        server.write_all(&pattern(0, 600_000)).await.unwrap();
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    writer.await.unwrap();
    assert!(received == pattern(0, 600_000));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_server_leaves_its_answer_behind_even_with_its_host() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let listener = b.tcp_listen(80).unwrap();
    let (client, server) = tokio::join!(a.tcp_connect(at("10.0.0.2:80")), listener.accept());
    let (mut client, (mut server, _)) = (client.unwrap(), server.unwrap());
    server.write_all(&pattern(0, 200_000)).await.unwrap();
    drop((server, listener, b));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert!(received == pattern(0, 200_000));
}

#[tokio::test(start_paused = true)]
async fn writing_to_a_peer_that_has_gone_fails() {
    let network = network();
    let Pair { mut client, server, .. } = pair(&network).await;
    drop(server);
    let error = loop {
        if let Err(error) = client.write_all(&[0; 1000]).await {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0, "it had said good-bye before");
}

#[tokio::test(start_paused = true)]
async fn after_its_own_shutdown_a_writer_meets_a_broken_pipe() {
    let network = network();
    let Pair { mut client, server: _server, .. } = pair(&network).await;
    client.shutdown().await.unwrap();
    assert_eq!(client.write_all(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test(start_paused = true)]
async fn connections_that_nobody_accepted_are_reset_with_their_listener() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let listener = b.tcp_listen(80).unwrap();
    let mut client = a.tcp_connect(at("10.0.0.2:80")).await.unwrap();
    drop(listener);
    assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(a.tcp_connect(at("10.0.0.2:80")).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_stays_open_for_days() {
    let network = network();
    let Pair { mut client, mut server, .. } = pair(&network).await;
    tokio::time::sleep(Duration::from_secs(23 * 3600)).await;
    client.write_all(b"still here").await.unwrap();
    let mut buffer = [0; 10];
    server.read_exact(&mut buffer).await.unwrap();
    tokio::time::sleep(Duration::from_secs(23 * 3600)).await;
    server.write_all(&buffer).await.unwrap();
    client.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"still here");
}

#[tokio::test(start_paused = true)]
async fn one_host_holds_a_thousand_connections() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    serve(&b, 80);
    let mut streams = Vec::new();
    for _ in 0..1000 {
        streams.push(a.tcp_connect(at("10.0.0.2:80")).await.unwrap());
    }
    for (index, stream) in streams.iter_mut().enumerate() {
        let own = stream.local_addr();
        assert_eq!(greeting(stream).await, own.to_string());
        stream.write_all(format!("{index:04}").as_bytes()).await.unwrap();
    }
    for (index, stream) in streams.iter_mut().enumerate() {
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, *format!("{index:04}").as_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn ports_are_used_again_although_their_connections_are_in_time_wait() {
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    serve(&b, 80);
    // More than there are ephemeral ports.
    for _ in 0..30_000 {
        a.tcp_connect(at("10.0.0.2:80")).await.unwrap().shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_written_before_the_drop_is_delivered_to_a_very_slow_reader() {
    let network = network();
    let Pair { mut client, mut server, .. } = pair(&network).await;
    let writer = tokio::spawn(async move { server.write_all(&pattern(0, 500_000)).await.unwrap() });
    let mut received = Vec::new();
    let mut buffer = [0; 50_000];
    loop {
        tokio::time::sleep(Duration::from_secs(50)).await;
        match client.read(&mut buffer).await.unwrap() {
            0 => break,
            length => received.extend_from_slice(&buffer[..length]),
        }
    }
    writer.await.unwrap();
    assert!(received == pattern(0, 500_000));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_does_not_keep_a_dropped_connection_for_ever() {
    let network = network();
    let Pair { mut client, mut server, _hosts, .. } = pair(&network).await;
    server.write_all(&pattern(0, 500_000)).await.unwrap();
    drop(server);
    tokio::time::sleep(Duration::from_secs(400)).await;
    let error = client.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_full_backlog_makes_clients_wait_and_not_fail() {
    const BACKLOG: usize = 4096;
    let network = network();
    let (a, b) = (host(&network, "10.0.0.1"), host(&network, "10.0.0.2"));
    let listener = b.tcp_listen(80).unwrap();
    let mut clients = Vec::new();
    for _ in 0..BACKLOG {
        clients.push(a.tcp_connect(at("10.0.0.2:80")).await.unwrap());
    }
    let late = tokio::spawn(async move { a.tcp_connect(at("10.0.0.2:80")).await.map(|_| ()) });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!late.is_finished());
    drop(listener.accept().await.unwrap());
    late.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_short_segment_is_acknowledged_with_the_answer_to_it() {
    let network = network();
    let Pair { mut client, mut server, .. } = pair(&network).await;
    let packets = |network: &Network| network.flows().iter().map(|flow| flow.packets[0] + flow.packets[1]).sum::<u64>();
    let before = packets(&network);
    let server = tokio::spawn(async move {
        for _ in 0..100 {
            let byte = server.read_u8().await.unwrap();
            server.write_u8(byte).await.unwrap();
        }
        server
    });
    for _ in 0..100 {
        client.write_u8(1).await.unwrap();
        client.read_u8().await.unwrap();
    }
    drop(server.await.unwrap());
    assert!(packets(&network) - before < 210, "{}", packets(&network) - before);
}

#[tokio::test(start_paused = true)]
async fn a_segment_without_an_answer_is_acknowledged_too() {
    let network = network();
    let Pair { mut client, mut server, .. } = pair(&network).await;
    let reader = tokio::spawn(async move {
        assert_eq!(server.read_u8().await.unwrap(), 1);
        // Neither reads again nor answers.
        tokio::time::sleep(Duration::from_secs(60)).await;
        server
    });
    tokio::task::yield_now().await;
    client.write_u8(1).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let sent = network.flows()[0].packets;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let flow = &network.flows()[0];
    assert_eq!(flow.packets, [sent[0], sent[1] + 1], "one ACK, no retransmission");
    drop(reader.await.unwrap());
}
