//! What scripts print and exit with.

use crate::programs::harness::Machine;

/// Runs each script and compares its output and status.
async fn check(cases: &[(&str, &str, i32)]) {
    let machine = Machine::new();
    for (script, stdout, status) in cases {
        let ran = machine.sh(script).await;
        assert_eq!((ran.stdout.as_str(), ran.status), (*stdout, *status), "{script}\nstderr: {}", ran.stderr);
    }
}

#[tokio::test(start_paused = true)]
async fn lists_run_by_the_status_of_what_was_before() {
    check(&[
        ("echo a; echo b", "a\nb\n", 0),
        ("true && echo yes || echo no", "yes\n", 0),
        ("false && echo yes || echo no", "no\n", 0),
        ("! true", "", 1),
        ("false", "", 1),
        ("exit 7", "", 7),
        ("nonsense", "", 127),
        ("echo $?; false; echo $?", "0\n1\n", 0),
        (":", "", 0),
        ("", "", 0),
        ("# just a comment", "", 0),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn words_are_quoted_split_and_substituted() {
    check(&[
        ("x='a  b'; echo $x; echo \"$x\"", "a b\na  b\n", 0),
        ("echo 'single $x' \"double $((1+2))\"", "single $x double 3\n", 0),
        ("echo $(echo nested $(echo deep))", "nested deep\n", 0),
        ("echo \"`echo back`\"", "back\n", 0),
        ("printf '[%s]' a '' \"b c\"; echo", "[a][][b c]\n", 0),
        ("set -- a 'b c'; printf '[%s]' \"$@\"; echo; printf '[%s]' $@; echo", "[a][b c]\n[a][b][c]\n", 0),
        ("set -- ; printf '[%s]' \"$@\"", "[]", 0),
        ("set -- a b; echo \"$*\" $#", "a b 2\n", 0),
        ("echo a\\ b c\\\"d", "a b c\"d\n", 0),
        ("echo ~ ~/x", "/root /root/x\n", 0),
        ("echo {a,b}c {1..3}", "ac bc 1 2 3\n", 0),
        ("x=; echo a${x}b\"\" ''", "ab \n", 0),
        ("echo $'tab\\there'", "tab\there\n", 0),
        ("IFS=:; x=a:b:c; set -- $x; echo $#", "3\n", 0),
        ("x='*'; echo \"$x\"", "*\n", 0),
        ("echo \"a'b\" 'c\"d'", "a'b c\"d\n", 0),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn parameters_are_expanded_as_posix_says() {
    check(&[
        ("echo ${x:-d} ${x-d} ${x:+s}; x=v; echo ${x:-d} ${x:+s}", "d d\nv s\n", 0),
        ("echo ${x:=set} $x", "set set\n", 0),
        (
            "p=/usr/lib/a.tar.gz; echo ${p##*/} ${p%/*} ${p%.*} ${p%%.*} ${p#/}",
            "a.tar.gz /usr/lib /usr/lib/a.tar /usr/lib/a usr/lib/a.tar.gz\n",
            0,
        ),
        ("x=hello; echo ${#x} ${x:1:3} ${x/l/L} ${x//l/L} ${x^^}", "5 ell heLlo heLLo HELLO\n", 0),
        ("x=1; y=x; echo ${!y}", "1\n", 0),
        ("a=(one two three); echo ${a[1]} ${#a[@]} ${a[@]}", "two 3 one two three\n", 0),
        ("echo ${x:?no x}; echo not here", "", 2),
        ("set -u; echo $nothing; echo not here", "", 2),
        ("x=a; x+=b; echo $x", "ab\n", 0),
        ("echo \"${x:-a b}\"; for w in ${x:-a b}; do echo $w; done", "a b\na\nb\n", 0),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn arithmetic_follows_c() {
    check(&[
        ("echo $((2 + 3 * 4)) $(( (2+3)*4 )) $((7/2)) $((7%3)) $((-7/2))", "14 20 3 1 -3\n", 0),
        ("i=1; i=$((i+1)); echo $i $((i++)) $i $((++i))", "2 2 3 4\n", 0),
        ("echo $((1 << 4)) $((0x10)) $((010)) $((5 > 3 && 2 > 3)) $((1 ? 2 : 3))", "16 16 8 0 2\n", 0),
        ("echo $((1/0)); echo not here", "", 2),
        ("((3 > 2)) && echo yes; let x=4*2; echo $x", "yes\n8\n", 0),
        ("for ((i=0; i<3; i++)); do printf $i; done; echo", "012\n", 0),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn compound_commands_branch_and_loop() {
    check(&[
        ("if false; then echo a; elif true; then echo b; else echo c; fi", "b\n", 0),
        ("for i in 1 2 3; do [ $i = 2 ] && continue; echo $i; done", "1\n3\n", 0),
        ("i=0; while [ $i -lt 3 ]; do i=$((i+1)); [ $i = 2 ] && break; done; echo $i", "2\n", 0),
        ("until false; do echo once; break; done", "once\n", 0),
        ("for i in 1 2; do for j in a b; do [ $j = b ] && continue 2; echo $i$j; done; done", "1a\n2a\n", 0),
        ("case abc in a) echo a;; a*|b*) echo glob;; *) echo other;; esac", "glob\n", 0),
        ("case x in y) echo y;; esac; echo $?", "0\n", 0),
        ("(cd /tmp; x=1; pwd); echo ${x:-unset}; pwd", "/tmp\nunset\n/\n", 0),
        ("{ echo a; echo b; } | wc -l", "2\n", 0),
        ("[[ abc == a* && 3 -gt 2 ]] && echo yes; [[ a =~ ^[b-z]$ ]] || echo no", "yes\nno\n", 0),
        ("[ -z '' ] && [ -n x ] && [ a != b ] && [ 1 -le 2 -a 2 -ge 2 ] && echo all", "all\n", 0),
        ("test 1 = 1 -o x = y; echo $?", "0\n", 0),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn functions_have_parameters_locals_and_a_status() {
    check(&[
        ("f() { echo \"$1-$#\"; return 3; }; f a b; echo $?", "a-2\n3\n", 0),
        ("x=global; f() { local x=local; echo $x; }; f; echo $x", "local\nglobal\n", 0),
        ("f() { x=changed; }; x=1; f; echo $x", "changed\n", 0),
        (
            "fact() { if [ $1 -le 1 ]; then echo 1; else echo $(( $1 * $(fact $(($1-1))) )); fi; }; fact 10",
            "3628800\n",
            0,
        ),
        ("f() { cat; }; echo piped | f", "piped\n", 0),
        ("f() { f; }; f; echo $?", "", 2),
        ("f() { exit 4; }; f; echo not here", "", 4),
        ("function g { echo bash; }; g", "bash\n", 0),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn redirections_go_to_files_and_descriptors() {
    check(&[
        ("echo a > /tmp/f; echo b >> /tmp/f; cat /tmp/f; cat < /tmp/f | wc -l", "a\nb\n2\n", 0),
        ("echo err >&2", "", 0),
        ("{ echo out; echo err >&2; } 2>&1 | sort", "err\nout\n", 0),
        ("ls /nowhere > /tmp/log 2>&1; grep -c nowhere /tmp/log", "1\n", 0),
        ("cat <<EOF\nx=$((1+1))\n  two\nEOF", "x=2\n  two\n", 0),
        ("cat <<'EOF'\n$x\nEOF", "$x\n", 0),
        ("cat <<-EOF\n\ttabs\n\tEOF", "tabs\n", 0),
        ("cat <<< string", "string\n", 0),
        ("echo gone > /dev/null; echo seen > /dev/stdout", "seen\n", 0),
        ("exec 3>/tmp/three; echo x >&3; exec 3>&-; cat /tmp/three", "x\n", 0),
        ("cat < /no/such", "", 1),
        ("echo x > /no/such/dir/f; echo $?", "1\n", 0),
        ("while read a b; do echo \"$b $a\"; done <<EOF\n1 2\n3 4 5\nEOF", "2 1\n4 5 3\n", 0),
        ("echo both &> /tmp/both; cat /tmp/both", "both\n", 0),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn pipelines_run_side_by_side_and_end_when_nobody_reads() {
    check(&[
        ("yes | head -n 2", "y\ny\n", 0),
        ("while true; do echo x; done | head -n 1", "x\n", 0),
        ("seq 1 100000 | tail -n 1", "100000\n", 0),
        ("false | true; echo $?; set -o pipefail; false | true; echo $?", "0\n1\n", 0),
        ("echo a | cat | cat | cat", "a\n", 0),
        ("echo 5 | { read n; echo $((n*2)); }", "10\n", 0),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn background_jobs_are_waited_for_and_killed() {
    check(&[
        ("sleep 1 & wait $!; echo $?", "0\n", 0),
        ("(sleep 1; echo late) & echo first; wait", "first\nlate\n", 0),
        ("(exit 3) & wait $!; echo $?", "3\n", 0),
        ("sleep 1000 & kill $!; wait $!; echo $?", "143\n", 0),
        ("sleep 1000 & kill -9 %1; wait $!; echo $?", "137\n", 0),
        ("sleep 1000 & kill -0 $! && echo alive", "alive\n", 0),
        ("for i in 1 2 3; do (sleep $i; echo $i) & done; wait", "1\n2\n3\n", 0),
        ("kill 4242; echo $?", "1\n", 0),
        ("timeout 2 sleep 10; echo $?", "143\n", 0),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn set_e_ends_the_script_but_not_in_conditions() {
    check(&[
        ("set -e; false; echo not here", "", 1),
        ("set -e; if false; then :; fi; false || true; ! true; echo here", "here\n", 0),
        ("set -e; f() { false; echo not here; }; f", "", 1),
        ("set -e; (exit 5); echo not here", "", 5),
        ("set -e; x=$(false); echo not here", "", 1),
        ("set -e; while false; do :; done; echo here", "here\n", 0),
        ("sh -ec 'false; echo no'; echo $?", "1\n", 0),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn builtins_do_what_they_are_for() {
    check(&[
        ("export A=1; sh -c 'echo $A'; unset A; echo ${A:-none}", "1\nnone\n", 0),
        ("A=1 sh -c 'echo $A'; echo ${A:-none}", "1\nnone\n", 0),
        ("eval 'x=1; echo $x'", "1\n", 0),
        ("echo 'y=2; return 3' > /tmp/lib; . /tmp/lib; echo $y $?", "2 3\n", 0),
        ("set -- a b c; shift; echo $1 $#; shift 2; echo $#", "b 2\n0\n", 0),
        ("type cd; command -v cat; command -v nothing; echo $?", "cd is a shell builtin\n/bin/cat\n127\n", 0),
        ("cd /tmp && pwd; cd -; cd /nowhere", "/tmp\n/\n", 1),
        ("readonly r=1; r=2; echo not here", "", 2),
        ("while getopts ab:c o -a -b val -c rest; do echo $o $OPTARG; done", "a\nb val\nc\n", 0),
        ("trap 'echo bye $?' EXIT; exit 3", "bye 3\n", 3),
        ("exec echo replaced; echo not here", "replaced\n", 0),
        ("sh -c 'echo $0 $1' name arg", "name arg\n", 0),
        ("echo -n a; echo -e 'b\\tc'", "ab\tc\n", 0),
        ("printf '%s\\n' '#!/bin/sh' 'echo script $1' > /tmp/s; sh /tmp/s x", "script x\n", 0),
        ("read x <<< 'one two'; echo $x; read -r y; echo $?", "one two\n1\n", 0),
        ("set -x; echo traced", "traced\n", 0),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn mistakes_are_told_and_nothing_panics() {
    let machine = Machine::new();
    for script in [
        "if true; then",
        "echo )",
        "echo 'open",
        "echo ~99999999999999999999999999",
        "echo x 99999999999999999999>f",
        "echo {1..99999999999999999999999}",
        "echo $((99999999999999999999999999))",
        "echo ${}",
        "for",
        "case",
    ] {
        let ran = machine.sh(script).await;
        assert!(ran.status != 134, "{script}: {ran:?}");
    }
    let missing = machine.sh("nonsense").await;
    assert_eq!(missing.stderr, "sh: nonsense: not found\n");
    let deep = format!("{}echo{}", "(".repeat(2000), ")".repeat(2000));
    assert_eq!(machine.sh(&deep).await.status, 2);
    let long = format!("echo $(({}1))", "1+".repeat(50_000));
    assert_eq!(machine.sh(&long).await.status, 2);
}

#[tokio::test(start_paused = true)]
async fn a_script_can_come_from_standard_input_command_by_command() {
    let machine = Machine::new();
    let ran = machine.run(&["sh"], "read x\nvalue\necho got $x\nif true\nthen echo multi; fi\n").await;
    assert_eq!((ran.stdout.as_str(), ran.status), ("got value\nmulti\n", 0), "{}", ran.stderr);
    let ran = machine.run(&["sh", "-s", "arg"], "echo $1").await;
    assert_eq!(ran.stdout, "arg\n");
}

#[tokio::test(start_paused = true)]
async fn a_busy_loop_leaves_room_for_others_and_can_be_killed() {
    let machine = Machine::new();
    let busy = machine.sh("while true; do :; done");
    tokio::select! {
        ran = busy => panic!("an endless loop ended: {ran:?}"),
        () = async { for _ in 0..1000 { tokio::task::yield_now().await } } => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_signal_ends_a_script_unless_it_is_trapped() {
    let machine = Machine::new();
    let (signal, signals) = tokio::sync::watch::channel(0);
    let plain = machine.run_with(&["sh", "-c", "sleep 100; echo not here"], "", signals);
    let (ran, ()) = tokio::join!(plain, async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        signal.send_replace(15);
    });
    assert_eq!((ran.status, ran.stdout.as_str()), (143, ""));

    let (signal, signals) = tokio::sync::watch::channel(0);
    let script = "trap 'echo stopping; exit 5' TERM; while true; do sleep 1 & wait $!; done";
    let command = ["sh", "-c", script];
    let trapped = machine.run_with(&command, "", signals);
    let (ran, ()) = tokio::join!(trapped, async {
        tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
        signal.send_replace(15);
    });
    assert_eq!((ran.status, ran.stdout.as_str()), (5, "stopping\n"));
}

#[tokio::test(start_paused = true)]
async fn pathological_nesting_is_parsed_or_refused_quickly() {
    let machine = Machine::new();
    let repeated = |open: &str, middle: &str, close: &str, depth: usize| {
        format!("{}{middle}{}", open.repeat(depth), close.repeat(depth))
    };
    for depth in [7, 12, 23] {
        for script in [
            repeated("(", "echo", ")", depth),
            repeated("echo \"$(", "echo", ")\"", depth),
            repeated("$((", "1", "))", depth),
            format!("echo {}", repeated("$((", "1", "))", depth)),
            format!("echo {}", repeated("$(( (", "1", ") ))", depth)),
            repeated("{ ", "echo;", " };", depth),
            format!("echo {}", repeated("${a:-", "x", "}", depth)),
            format!("echo \"{}\"", repeated("${a:-", "x", "}", depth)),
            repeated("if true; then ", "echo;", " fi;", depth),
            repeated("case x in x) ", "echo", " esac", depth),
            repeated("case x in x) ", "echo;;", " esac;;", depth),
            repeated("while false; do ", "break;", " done;", depth),
            repeated("`", "echo", "`", depth),
            repeated("f() { ", "echo;", " };", depth),
            format!("echo $(({}))", repeated("(", "1", ")", depth)),
            format!("echo $(({}1))", "-".repeat(depth)),
            format!("echo $(({}1))", "1?".repeat(depth)),
            format!("echo $(({}1))", "a=".repeat(depth * 10)),
            format!("echo $(({}1))", "1+".repeat(depth * 10)),
            format!("echo $(({}1))", "1**".repeat(depth * 10)),
            format!("echo $(({}1))", "!".repeat(depth * 10)),
            format!("echo {}", repeated("{a,", "b", "}", depth)),
            format!("[ {} ]", repeated("! ", "x", "", depth * 8)),
            format!("[[ {} ]]", repeated("( ", "x", " )", depth)),
            format!("[[ {} x ]]", "! ".repeat(depth * 10)),
            repeated("{ ", &format!("echo $(({}1));", "a=".repeat(40)), " };", depth),
        ] {
            // That this ends at all is the test: the parser's time and stack grow with the depth.
            let ran = machine.sh(&script).await;
            assert!((0..128).contains(&ran.status), "{script}: {ran:?}");
        }
    }
}
