//! The ways to the server: its pipes, and a sidecar that has the server as its only dependency.
//!
//! The callers speak just enough of the protocol and of HTTP to stay cheap.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// The argument with which this program is the server.
pub(crate) const ECHO: &str = "echo-server";
/// Time limit for a response, and for the start of the sidecar's server.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process that is killed on drop.
struct OwnChild(Child);

impl Drop for OwnChild {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pipe<T>(end: Option<T>) -> io::Result<T> {
    end.ok_or_else(|| io::Error::other("the process has no pipe"))
}

/// The server without a gateway.
pub(crate) struct Direct {
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    _server: OwnChild,
}

impl Direct {
    pub(crate) fn start() -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let piped = command
            .arg(ECHO)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut server = piped.spawn()?;
        let (to, from) = (pipe(server.stdin.take())?, pipe(server.stdout.take())?);
        let mut direct = Self {
            to,
            from: BufReader::new(from),
            _server: OwnChild(server),
        };
        direct.call(
            r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#,
        )?;
        Ok(direct)
    }

    /// Sends a request, and waits for its answer.
    pub(crate) fn call(&mut self, request: &str) -> io::Result<String> {
        self.to.write_all(format!("{request}\n").as_bytes())?;
        let mut answer = String::new();
        self.from.read_line(&mut answer)?;
        Ok(answer)
    }
}

/// A sidecar with the server.
pub(crate) struct Sidecar {
    child: OwnChild,
    address: String,
    _folder: tempfile::TempDir,
}

impl Sidecar {
    /// Starts it, and waits for its address.
    pub(crate) fn start(program: &str) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let text = format!(
            "[gateway]\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n\
             [dependencies.echo]\nkind = \"mcp_stdio\"\ncommand = {:?}\nargs = [{ECHO:?}]\n",
            std::env::current_exe()?
        );
        fs::write(folder.path().join("default.toml"), text)?;
        let mut command = Command::new(program);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("BREAKERBOX_") {
                command.env_remove(variable);
            }
        }
        command.arg("serve").arg("--config").arg(folder.path());
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let out = pipe(child.stdout.take())?;
        let child = OwnChild(child);
        // The addresses of the gateway and of the admin side.
        let lines = BufReader::new(out).lines().take(2);
        let lines: Vec<String> = lines.collect::<Result<_, _>>()?;
        let mut addresses = lines.iter();
        let address = addresses.find_map(|line| line.strip_prefix("gateway http://"));
        let address = address.ok_or_else(|| io::Error::other("the sidecar did not start"))?;
        Ok(Self {
            child,
            address: address.to_owned(),
            _folder: folder,
        })
    }

    /// Connects a caller, and waits until its first request has a result.
    pub(crate) fn connect(&self, request: &str) -> io::Result<Caller> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut caller = Caller {
            stream: BufReader::new(stream),
            address: self.address.clone(),
        };
        let begun = quanta::Instant::now();
        loop {
            let answer = caller.call(request)?;
            if answer.contains("\"result\"") {
                return Ok(caller);
            }
            if begun.elapsed() > PATIENCE {
                return Err(io::Error::other(answer));
            }
        }
    }

    /// The resident memory of the sidecar, without its server's.
    pub(crate) fn memory(&self) -> SidecarMemory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.0.id()));
        let status = status.unwrap_or_default();
        SidecarMemory {
            all: mebibytes(&status, "VmRSS:"),
            without_code: mebibytes(&status, "RssAnon:"),
        }
    }
}

/// Resident memory of a process.
///
/// # Units   MiB.
pub(crate) struct SidecarMemory {
    pub(crate) all: f64,
    /// Without the pages of its program, which the system may share and drop.
    pub(crate) without_code: f64,
}

fn mebibytes(status: &str, name: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}

/// A caller of the sidecar, with one connection.
pub(crate) struct Caller {
    stream: BufReader<TcpStream>,
    address: String,
}

impl Caller {
    /// Sends a request, and waits for its answer.
    ///
    /// # Errors  A response without a length, or a connection that ended.
    pub(crate) fn call(&mut self, request: &str) -> io::Result<String> {
        let (address, length) = (&self.address, request.len());
        let whole = format!(
            "POST /echo/mcp HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\ncontent-length: {length}\r\n\r\n{request}"
        );
        self.stream.get_mut().write_all(whole.as_bytes())?;
        let mut length = None;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().ok();
            }
        }
        let length = length.ok_or_else(|| io::Error::other("a response without a length"))?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        String::from_utf8(body).map_err(io::Error::other)
    }
}
