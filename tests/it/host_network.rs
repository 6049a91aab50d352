//! `--host-network tun`: this machine as a client on the cluster's network. The machine is a network namespace that the test makes.

use crate::support::Terminal;
use std::io::Write;
use std::path::Path;

const CORACLE: &str = env!("CARGO_BIN_EXE_coracle");

const MANIFEST: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: c, image: registry.k8s.io/e2e-test-images/agnhost, args: [netexec], ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30001}]}
---
apiVersion: v1
kind: Pod
metadata: {name: locked, labels: {app: locked}}
spec: {containers: [{name: c, image: registry.k8s.io/e2e-test-images/agnhost, args: [netexec], ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: bulk}
spec: {restartPolicy: Never, containers: [{name: c, image: busybox, command: [sh, -c, seq 400000 | nc -l -p 9000 | sha256sum]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: locked}
spec: {podSelector: {matchLabels: {app: locked}}, policyTypes: [Ingress]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
";

/// What the machine's programs see, a line each.
const CLIENT: &str = r#"
import hashlib, json, socket, struct, subprocess, threading, time, urllib.request

def get(*what):
    return json.loads(subprocess.check_output(["coracle", "get", *what, "-o", "json"]))

deadline = time.monotonic() + 60
while True:
    pods = {pod["metadata"]["name"]: pod for pod in get("pods")["items"]}
    services = {service["metadata"]["name"]: service for service in get("services")["items"]}
    ready = all(any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", [])) for pod in pods.values())
    ingress = services["web"]["status"].get("loadBalancer", {}).get("ingress")
    if ready and len(ingress or []) == 2 or time.monotonic() > deadline:
        break
    time.sleep(0.02)

def show(what, address, port, path="/hostname", timeout=30):
    try:
        text = urllib.request.urlopen(f"http://{address}:{port}{path}", timeout=timeout).read().decode()
    except OSError as error:
        reason = getattr(error, "reason", error)
        text = type(reason).__name__
    print(what, text.strip())

cluster_ip = services["web"]["spec"]["clusterIP"]
show("pod", pods["web"]["status"]["podIP"], 8080)
show("pod sees", pods["web"]["status"]["podIP"], 8080, "/clientip")
show("service", cluster_ip, 80)
show("load balancer", ingress[0]["ip"], 80)
show("node port", "172.18.0.3", 30001)
show("pod by IPv6", "[" + pods["web"]["status"]["podIPs"][1]["ip"] + "]", 8080)
show("service by IPv6", "[" + services["web"]["spec"]["clusterIPs"][1] + "]", 80)
show("load balancer by IPv6", "[" + ingress[1]["ip"] + "]", 80)
show("node port by IPv6", "[fd00:172:18::3]", 30001)
show("unknown port", cluster_ip, 81)
show("no endpoint", services["nobody"]["spec"]["clusterIP"], 80)
show("denied", pods["locked"]["status"]["podIP"], 8080, timeout=2)

def name(text):
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"
question = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + name("web.default.svc.cluster.local") + struct.pack(">HH", 1, 1)
dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
dns.settimeout(30)
dns.sendto(question, ("10.96.0.10", 53))
answer = dns.recv(512)
print("name", socket.inet_ntoa(answer[-4:]) == cluster_ip)

kernel = socket.create_server(("172.18.0.253", 0))
def serve():
    client, _ = kernel.accept()
    client.sendall(b"from the machine\n")
    client.close()
threading.Thread(target=serve, daemon=True).start()
heard = subprocess.run(["coracle", "exec", "web", "--", "nc", "-w", "30", "172.18.0.253", str(kernel.getsockname()[1])], capture_output=True, text=True, stdin=subprocess.DEVNULL)
print("a pod hears", heard.stdout.strip(), heard.stderr.strip())

# Much, both ways at once: segments longer than a packet on the wire.
while True:
    try:
        bulk = socket.create_connection((pods["bulk"]["status"]["podIP"], 9000), 30)
        break
    except ConnectionRefusedError:
        time.sleep(0.02)
sent = b"".join(b"%d\n" % number for number in range(1, 400001))
sender = threading.Thread(target=bulk.sendall, args=(sent,), daemon=True)
sender.start()
heard = b""
# nc goes when it hears the end, whatever it still has to say: so it is told the end after that.
while len(heard) < len(sent):
    heard += bulk.recv(1 << 20) or bytes(len(sent))
sender.join()
bulk.shutdown(socket.SHUT_WR)
print("much", heard == sent)
while not (logged := subprocess.check_output(["coracle", "logs", "bulk"], text=True)) and time.monotonic() < deadline:
    time.sleep(0.02)
print("much", logged.split()[0] == hashlib.sha256(sent).hexdigest())
"#;

/// Why this machine cannot have a network namespace with a TUN device, if it cannot.
async fn unavailable(terminal: &Terminal) -> Option<String> {
    let tried =
        terminal.sh("unshare --user --map-root-user --net sh -c 'exec 3<>/dev/net/tun && ip link set lo up'").await;
    (tried.code != 0).then(|| format!("user namespaces, /dev/net/tun and iproute2's ip are needed: {tried}"))
}

/// Says, past the test harness's capture, what this kernel does not let us test.
fn not_tested(why: &str) {
    let _ = writeln!(std::io::stderr(), "NOT TESTED: {why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_tun_device_this_machine_reaches_pods_services_and_names_and_pods_reach_it() {
    let terminal = Terminal::new(&[Path::new(CORACLE)]);
    terminal.write("manifest.yaml", MANIFEST);
    terminal.write("client.py", CLIENT);
    if let Some(why) = unavailable(&terminal).await {
        return not_tested(&why);
    }
    terminal.write("inside.sh", "coracle apply -f manifest.yaml >/dev/null && exec python3 client.py\n");
    let line = "unshare --user --map-root-user --net sh -c 'ip link set lo up; coracle run --dual-stack --host-network tun -- sh inside.sh; \
                code=$?; ip -o link show | grep -c coracle; exit $code'";
    let seen = terminal.sh(line).await.ok();
    let expected = "pod web\npod sees 172.18.0.253:…\nservice web\nload balancer web\nnode port web\npod by IPv6 web\nservice by IPv6 web\nload balancer by IPv6 web\nnode port by IPv6 web\nunknown port ConnectionRefusedError\n\
                    no endpoint ConnectionRefusedError\ndenied TimeoutError\nname True\na pod hears from the machine\nmuch True\nmuch True\n0\n";
    let port = |line: &str| match line.strip_prefix("pod sees 172.18.0.253:") {
        Some(_) => "pod sees 172.18.0.253:…".to_owned(),
        None => line.trim_end().to_owned(),
    };
    let seen: String = seen.lines().map(|line| port(line) + "\n").collect();
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_make_a_device_the_error_says_what_is_missing() {
    let terminal = Terminal::new(&[Path::new(CORACLE)]);
    // In a user namespace that owns no network nobody may make one.
    let ran = terminal.sh("unshare --user coracle run --host-network tun -- true").await;
    if ran.stderr.contains("unshare:") {
        return not_tested(&format!("user namespaces are needed: {ran}"));
    }
    assert_eq!(ran.code, 1, "{ran}");
    assert!(ran.stderr.contains("host network: tun: cannot make a TUN device: "), "{ran}");
    assert!(ran.stderr.contains("CAP_NET_ADMIN") || ran.stderr.contains("/dev/net/tun"), "{ran}");
}
