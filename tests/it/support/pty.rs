//! A terminal with somebody at it: a command on a pseudo-terminal, and keys that are typed when something has appeared.

use super::{Ran, Terminal};

/// The size of the terminal at first.
pub(crate) const ROWS_COLUMNS: (u16, u16) = (33, 111);

/// Runs a line of shell on a terminal. Each step waits until its text has appeared after what the step before waited for, and then types
/// its keys; `resize:ROWS,COLUMNS` changes the terminal's size instead. What the screen showed is standard output.
pub(crate) async fn run(terminal: &Terminal, line: &str, steps: &[(&str, &str)]) -> Ran {
    let mut command = terminal.command("python3");
    let (rows, columns) = ROWS_COLUMNS;
    command.args(["-c", DRIVER, line, &rows.to_string(), &columns.to_string()]);
    command.args(steps.iter().flat_map(|(wait, keys)| [*wait, *keys]));
    super::run(command, line).await
}

/// Arguments: the line, rows, columns, and pairs of what to wait for and what to type.
const DRIVER: &str = r#"
import fcntl, os, pty, select, signal, struct, sys, termios, time
line, rows, columns, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
def resize(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
child, fd = pty.fork()
if child == 0:
    resize(0, rows, columns)
    os.execvp("sh", ["sh", "-c", "exec " + line])
screen, at, deadline = b"", 0, time.monotonic() + 60
def read():
    global screen
    ready, _, _ = select.select([fd], [], [], max(0, deadline - time.monotonic()))
    if not ready:
        os.kill(child, signal.SIGKILL)
        sys.stdout.write(screen.decode(errors="replace"))
        sys.exit("nothing more has appeared")
    try:
        data = os.read(fd, 65536)
    except OSError:
        return False
    screen += data
    return bool(data)
for wait, keys in zip(steps[::2], steps[1::2]):
    while screen.find(wait.encode(), at) < 0:
        if not read():
            sys.stdout.write(screen.decode(errors="replace"))
            sys.exit("the end instead of " + repr(wait))
    at = screen.find(wait.encode(), at) + len(wait.encode())
    if keys.startswith("resize:"):
        resize(fd, *map(int, keys[7:].split(",")))
        os.kill(child, signal.SIGWINCH)
    else:
        os.write(fd, keys.encode())
while read():
    pass
_, status = os.waitpid(child, 0)
sys.stdout.write(screen.decode(errors="replace"))
sys.exit(os.waitstatus_to_exitcode(status))
"#;
