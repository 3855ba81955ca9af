//! `status` on a real terminal: a pseudo-terminal of the test.

use std::fs::File;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use nix::pty::{Winsize, openpty};

use super::{LONG, Rig};
use crate::demo::breakerbox;
use crate::scripted::{Do, ms, opens_after};

/// A command with a terminal of its own.
struct Session {
    child: Child,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Session {
    fn start(mut command: Command, (columns, rows): (u16, u16)) -> Self {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end());
        command.env_remove("NO_COLOR").env("TERM", "xterm-256color");
        let child = command.spawn().unwrap();
        // The command has the only other ends, so that reading ends with it.
        drop(command);
        drop(pty.slave);
        let mut master = File::from(pty.master);
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal that was closed reads as an error.
            while let Ok(read @ 1..) = master.read(&mut buffer) {
                if sender.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            output,
            seen: String::new(),
        }
    }

    /// Reads until a text has come.
    fn until(&mut self, text: &str) {
        while !self.seen.contains(text) {
            match self.output.recv_timeout(LONG) {
                Ok(piece) => self.seen.push_str(&String::from_utf8_lossy(&piece)),
                Err(_) => panic!("{text:?} did not come: {:?}", self.seen),
            }
        }
    }

    /// Reads to the end, and returns the exit code.
    fn end(&mut self) -> Option<i32> {
        while let Ok(piece) = self.output.recv_timeout(LONG) {
            self.seen.push_str(&String::from_utf8_lossy(&piece));
        }
        self.child.wait().unwrap().code()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Removes the codes of the terminal.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' {
            // `ESC [ … letter`: the only kind of code that the command writes.
            assert_eq!(letters.next(), Some('['), "{text:?}");
            let _ = letters.find(char::is_ascii_alphabetic);
        } else {
            plain.push(letter);
        }
    }
    plain
}

async fn sick() -> Rig {
    let rig = Rig::start(opens_after(2, ms(60_000))).await;
    rig.bench.ask(Do::Answer(1)).await.unwrap();
    rig.bench.fail_until_open().await;
    rig
}

fn status(rig: &Rig, arguments: &[&str]) -> Command {
    let mut command = breakerbox(&["status"]);
    command.args(["--admin", &rig.url("")]).args(arguments);
    command
}

async fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let working = tokio::task::spawn_blocking(work);
    tokio::time::timeout(LONG * 2, working)
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn ops_l_status_fits_the_terminal_and_has_colours() {
    let rig = sick().await;
    for columns in [40, 80, 120] {
        let command = status(&rig, &[]);
        let seen = in_background(move || {
            let mut session = Session::start(command, (columns, 24));
            assert_eq!(session.end(), Some(0));
            session.seen.clone()
        })
        .await;
        assert!(seen.contains("\u{1b}[31mdown\u{1b}[0m"), "{seen:?}");
        let shown = plain(&seen);
        assert!(shown.starts_with("1 dependency: 1 down"), "{shown}");
        for line in shown.lines() {
            assert!(
                line.chars().count() <= usize::from(columns),
                "{columns}: {line}"
            );
        }
    }
    rig.finish().await;
}

#[tokio::test]
async fn ops_l_no_color_is_obeyed_on_a_terminal() {
    let rig = sick().await;
    let mut inner = status(&rig, &[]);
    let program = inner.get_program().to_owned();
    let arguments: Vec<_> = inner.get_args().map(ToOwned::to_owned).collect();
    inner = Command::new("env");
    inner.arg("NO_COLOR=1").arg(program).args(arguments);
    let seen = in_background(move || {
        let mut session = Session::start(inner, (80, 24));
        assert_eq!(session.end(), Some(0));
        session.seen.clone()
    })
    .await;
    assert!(!seen.contains('\u{1b}'), "{seen:?}");
    rig.finish().await;
}

#[tokio::test]
async fn ops_l_watch_has_a_screen_of_its_own_and_gives_the_terminal_back() {
    let rig = sick().await;
    let command = status(&rig, &["--watch"]);
    let seen = in_background(move || {
        let mut session = Session::start(command, (60, 10));
        // Two frames.
        session.until("\u{1b}[J");
        let first = session.seen.len();
        while session.seen[first..].matches("\u{1b}[J").count() == 0 {
            let piece = session.output.recv_timeout(LONG).unwrap();
            session.seen.push_str(&String::from_utf8_lossy(&piece));
        }
        let id = nix::unistd::Pid::from_raw(i32::try_from(session.child.id()).unwrap());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).unwrap();
        assert_eq!(session.end(), Some(130));
        session.seen.clone()
    })
    .await;
    assert!(seen.starts_with("\u{1b}[?1049h\u{1b}[?25l"), "{seen:?}");
    assert!(seen.ends_with("\u{1b}[?25h\u{1b}[?1049l"), "{seen:?}");
    let frames: Vec<&str> = seen.split("\u{1b}[H").skip(1).collect();
    assert!(frames.len() >= 2, "{seen:?}");
    for frame in frames {
        let shown = frame.split("\u{1b}[J").next().unwrap();
        let shown = plain(shown);
        assert!(shown.contains("1 dependency: 1 down"), "{shown}");
        assert!(shown.lines().count() <= 10, "{shown}");
        for line in shown.lines() {
            assert!(line.trim_end_matches('\r').chars().count() <= 60, "{line}");
        }
    }
    rig.finish().await;
}
