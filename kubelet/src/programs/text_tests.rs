//! Tools over lines, bytes and files, as scripts use them.

use super::harness::Machine;

async fn check(cases: &[(&str, &str, i32)]) {
    let machine = Machine::new();
    for (script, stdout, status) in cases {
        let ran = machine.sh(script).await;
        assert_eq!((ran.stdout.as_str(), ran.status), (*stdout, *status), "{script}\nstderr: {}", ran.stderr);
    }
}

#[tokio::test(start_paused = true)]
async fn line_tools_select_and_order() {
    check(&[
        ("seq 1 20 | head -3; seq 1 20 | tail -n 2; seq 5 | tail -n +4", "1\n2\n3\n19\n20\n4\n5\n", 0),
        (
            "printf 'b\\na\\nc\\n' | sort; printf '10\\n9\\n' | sort -n; printf '1\\n2\\n' | sort -r",
            "a\nb\nc\n9\n10\n2\n1\n",
            0,
        ),
        ("printf 'x 2\\ny 1\\n' | sort -k2 -n; printf 'a:2\\nb:1\\n' | sort -t: -k2", "y 1\nx 2\nb:1\na:2\n", 0),
        ("printf 'a\\na\\nb\\n' | uniq -c; printf 'a\\na\\nb\\n' | sort -u", "      2 a\n      1 b\na\nb\n", 0),
        ("echo a:b:c | cut -d: -f2; echo abcdef | cut -c2-4; echo a b | cut -d' ' -f2", "b\nbcd\nb\n", 0),
        ("echo hello | tr a-z A-Z; echo a1b2 | tr -d 0-9; echo aabb | tr -s ab", "HELLO\nab\nab\n", 0),
        ("printf 'a b\\nc\\n' | wc; printf 'a\\n' | wc -l", "        2         3         6\n1\n", 0),
        ("printf 'x\\ny\\nx\\n' | grep -n x; echo abc | grep -o b; echo abc | grep -q z", "1:x\n3:x\nb\n", 1),
        (
            "printf 'one\\ntwo\\n' | grep -v one; printf 'a.b\\naxb\\n' | grep -F a.b; echo AbC | grep -ic abc",
            "two\na.b\n1\n",
            0,
        ),
        ("printf '1\\n2\\n3\\n4\\n' | grep -A1 2; printf '1\\n2\\n3\\n' | grep -B1 3", "2\n3\n2\n3\n", 0),
        ("echo aGk= | base64 -d; echo; printf hi | base64", "hi\naGk=\n", 0),
        (
            "printf abc | sha256sum | cut -c1-8; printf abc | md5sum",
            "ba7816bf\n900150983cd24fb0d6963f7d28e17f72  -\n",
            0,
        ),
        ("echo log | tee /tmp/t; cat /tmp/t", "log\nlog\n", 0),
        ("printf 'a b\\nc\\n' | xargs echo; printf '1 2 3' | xargs -n1 echo n", "a b c\nn 1\nn 2\nn 3\n", 0),
        ("echo x | xargs -I{} echo '<{}>'; echo abc | rev; printf '1\\n2\\n' | tac", "<x>\ncba\n2\n1\n", 0),
        ("yes no | head -2; seq -s, 3; seq 2 2 6; seq 3 -1 1", "no\nno\n1,2,3\n2\n4\n6\n3\n2\n1\n", 0),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn file_tools_change_the_tree() {
    check(&[
        ("mkdir -p /d/e; touch /d/f; ls /d; ls -d /d", "e\nf\n/d\n", 0),
        ("mkdir /d; ls -a /d/e", ".\n..\n", 0),
        ("echo x > /d/f; cp /d/f /d/g; mv /d/g /d/h; cat /d/h; ls /d", "x\ne\nf\nh\n", 0),
        ("cp -r /d /copy; find /copy | sort", "/copy\n/copy/e\n/copy/f\n/copy/h\n", 0),
        ("find /copy -name 'f*' -type f; find /copy -maxdepth 1 -type d", "/copy/f\n/copy\n/copy/e\n", 0),
        ("find /copy -type f -exec cat {} \\;", "x\nx\n", 0),
        ("rm /copy/f; rm -r /copy; ls /copy", "", 1),
        ("rm /nothing", "", 1),
        ("rm -f /nothing", "", 0),
        ("printf '#!/bin/sh\\necho ran $1\\n' > /s; chmod +x /s; /s arg; stat -c %a /s", "ran arg\n755\n", 0),
        ("echo x > /t; /t", "", 126),
        ("dd if=/dev/zero of=/z bs=1k count=3 2>/dev/null; wc -c < /z; du -s /z", "3072\n3\t/z\n", 0),
        ("f=$(mktemp); [ -f $f ] && echo made; basename /a/b.c .c; dirname /a/b/c", "made\nb\n/a/b\n", 0),
        ("ls -l /z | cut -c1-10", "-rw-r--r--\n", 0),
        ("which curl sh; which nothing", "/bin/curl\n/bin/sh\n", 1),
        ("echo x > /etc/hosts", "", 1),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn system_tools_tell_who_and_when() {
    check(&[
        ("hostname; hostname -f; hostname -i", "web-0\nweb-0.web.default.svc.cluster.local\n10.0.0.1\n", 0),
        ("whoami; id -u; uname; nproc", "root\n0\nLinux\n1\n", 0),
        ("env -i A=1 env; A=2 printenv A", "A=1\n2\n", 0),
        (
            "date -u -d @0; date -d @86400 +%Y-%m-%dT%H:%M:%S; date -I -d @0",
            "Thu Jan  1 00:00:00 UTC 1970\n1970-01-02T00:00:00\n1970-01-01\n",
            0,
        ),
        ("expr 2 + 3; expr abc : 'a\\(.*\\)'; expr 1 = 2", "5\nbc\n0\n", 1),
        ("timeout 1 sleep 5; echo $?; timeout 5 echo in time", "143\nin time\n", 0),
        ("busybox echo box; busybox nothing", "box\n", 127),
        ("sleep x", "", 1),
    ])
    .await;
}
