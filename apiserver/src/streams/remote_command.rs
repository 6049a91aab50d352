//! exec and attach, whatever protocol carries them: what is wanted, the pipes to the container, and how an end is told.

use super::Streams;
use crate::pod_streams::{ContainerRef, ExecStreams, TerminalSize};
use crate::request::Query;
use crate::status::Status;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// Bytes in flight per stream before a writer waits for a slow reader.
const WINDOW: usize = 64 << 10;

/// Which streams the client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

impl Wanted {
    /// # Errors
    /// Nothing is wanted.
    pub(super) fn new(query: &Query) -> Result<Self, Status> {
        let tty = query.flag("tty");
        let wanted = Wanted {
            stdin: query.flag("stdin"),
            stdout: query.flag("stdout"),
            // With a terminal both outputs are one.
            stderr: query.flag("stderr") && !tty,
            tty,
        };
        match wanted {
            Wanted { stdin: false, stdout: false, stderr: false, .. } => {
                Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"))
            }
            wanted => Ok(wanted),
        }
    }
}

/// A command to run in a container, or (without one) the container's own program to join.
pub(super) struct RemoteCommand {
    pub(super) streams: Streams,
    pub(super) container: ContainerRef,
    pub(super) command: Option<Vec<String>>,
    pub(super) wanted: Wanted,
}

/// The client's ends of the pipes. A stream that is not wanted has none.
pub(super) struct Ends {
    pub(super) stdin: Option<DuplexStream>,
    pub(super) stdout: Option<DuplexStream>,
    pub(super) stderr: Option<DuplexStream>,
    pub(super) resized: mpsc::Sender<TerminalSize>,
}

impl RemoteCommand {
    /// The pipes, and the command's run between them; dropping it ends the command.
    pub(super) fn start(self) -> (Ends, impl Future<Output = Result<i32, Status>> + Send) {
        let pipe = |is_wanted: bool| is_wanted.then(|| tokio::io::duplex(WINDOW)).unzip();
        let (stdin_end, stdin) = pipe(self.wanted.stdin);
        let (stdout_end, stdout) = pipe(self.wanted.stdout);
        let (stderr_end, stderr) = pipe(self.wanted.stderr);
        let (resized, resize) = mpsc::channel(8);
        let exec = ExecStreams {
            stdin: stdin.map(|stdin| Box::new(stdin) as _),
            stdout: stdout.map(|stdout| Box::new(stdout) as _),
            stderr: stderr.map(|stderr| Box::new(stderr) as _),
            tty: self.wanted.tty,
            resize,
        };
        let running = async move {
            match self.command {
                Some(command) => self.streams.exec(&self.container, command, exec).await,
                None => self.streams.attach(&self.container, exec).await,
            }
        };
        (Ends { stdin: stdin_end, stdout: stdout_end, stderr: stderr_end, resized }, running)
    }
}

/// How an end is told: since `v4.channel.k8s.io` as a Status, before as a text, and success by silence.
pub(super) fn outcome(result: Result<i32, Status>, as_status: bool) -> Vec<u8> {
    let ended = |code: i32| format!("command terminated with non-zero exit code: exit status {code}");
    if !as_status {
        return match result {
            Ok(0) => Vec::new(),
            Ok(code) => ended(code).into(),
            Err(status) => status.message.into(),
        };
    }
    let status = match result {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({"metadata": {}, "status": "Failure", "message": ended(code), "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}}),
        Err(status) => status.to_json(),
    };
    status.to_string().into()
}

/// `{"Width":80,"Height":24}`; what is no size is none.
pub(super) fn terminal_size(text: &[u8]) -> Option<TerminalSize> {
    let size: Value = serde_json::from_slice(text).ok()?;
    let number = |field: &str| u16::try_from(size[field].as_u64()?).ok();
    Some(TerminalSize { width: number("Width")?, height: number("Height")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_status_to_newer_clients_and_a_text_to_older_ones() {
        let text = |result, as_status| String::from_utf8(outcome(result, as_status)).expect("text");
        assert_eq!(text(Ok(0), true), r#"{"metadata":{},"status":"Success"}"#);
        assert!(text(Ok(3), true).contains(r#""causes":[{"message":"3","reason":"ExitCode"}]"#));
        assert_eq!(text(Ok(0), false), "");
        assert_eq!(text(Ok(3), false), "command terminated with non-zero exit code: exit status 3");
        assert_eq!(text(Err(Status::bad_request("no")), false), "no");
    }

    #[test]
    fn a_terminal_size_is_two_numbers() {
        assert_eq!(terminal_size(br#"{"Width":80,"Height":24}"#), Some(TerminalSize { width: 80, height: 24 }));
        for wrong in ["", "80", r#"{"Width":80}"#, r#"{"Width":80,"Height":70000}"#, r#"{"Width":-1,"Height":1}"#] {
            assert_eq!(terminal_size(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
