//! HTTP client for the admin side of a running Breakerbox.

use std::fmt;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use breakerbox::config::{AdminConfig, Secret};
use breakerbox::serve;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder, Response, Url};
use serde_json::Value;

use super::AdminTarget;
use super::table::plain;
use crate::cli::ExitReason;

/// Time limit for connecting.
const CONNECT: Duration = Duration::from_secs(3);
/// Time limit for a response.
const ANSWER: Duration = Duration::from_secs(10);
/// Maximum size of an answer, in bytes; the status of a thousand dependencies has some two million.
const MAX_BODY: usize = 64 * 1024 * 1024;
/// Maximum size of a file with a token, in bytes.
const MAX_TOKEN: u64 = 64 * 1024;
const TOKEN: &str = "BREAKERBOX__ADMIN__TOKEN";

/// Reason why a command was not carried out.
#[derive(Debug)]
pub(super) enum ClientError {
    /// Wrong arguments, or an unusable configuration.
    Wrong(String),
    /// The server is not reachable.
    Away(String),
    /// The server refused, or its response was unexpected.
    Refused(String),
}

impl ClientError {
    pub(super) fn end(&self) -> ExitReason {
        match self {
            Self::Wrong(_) => ExitReason::WrongUse,
            Self::Away(_) | Self::Refused(_) => ExitReason::Failed,
        }
    }

    pub(super) fn is_away(&self) -> bool {
        matches!(self, Self::Away(_))
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Wrong(text) | Self::Away(text) | Self::Refused(text)) = self;
        out.write_str(text)
    }
}

/// A running Breakerbox.
pub(super) struct RemoteAdmin {
    url: Url,
    token: Option<Secret>,
    client: Client,
}

impl RemoteAdmin {
    /// Determines the address, and the token if one is needed.
    pub(super) fn new(place: &AdminTarget, changes: bool) -> Result<Self, ClientError> {
        let tell = |text: &str| {
            // A closed standard error is no reason to give up.
            let _ = std::io::stderr().write_all(text.as_bytes());
        };
        Self::telling(place, changes, &tell)
    }

    /// Determines the address without a word on a configuration that cannot be used.
    pub(super) fn silent(place: &AdminTarget) -> Result<Self, ClientError> {
        Self::telling(place, false, &|_| {})
    }

    fn telling(
        place: &AdminTarget,
        changes: bool,
        tell: &dyn Fn(&str),
    ) -> Result<Self, ClientError> {
        let (url, token) = match &place.admin {
            Some(url) => (parse(url)?, variable()),
            None => configured(place, tell)?,
        };
        let token = match &place.token_file {
            Some(path) => Some(read_token(path)?),
            None => token,
        };
        if changes && token.as_ref().is_some_and(|token| !can_be_sent(token)) {
            let from = match &place.token_file {
                Some(path) => shown(path),
                None => TOKEN.to_owned(),
            };
            return Err(ClientError::Wrong(format!(
                "the admin token of {from} cannot be sent: it has a line end or a letter outside of \
                 ASCII within, allowed: a text of one line, in ASCII"
            )));
        }
        if changes && token.is_none() {
            return Err(ClientError::Wrong(format!(
                "a change needs the admin token, allowed: to set {TOKEN}, or --token-file FILE"
            )));
        }
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .build()
            .map_err(|error| {
                ClientError::Wrong(format!("the HTTP client cannot be created: {error}"))
            })?;
        Ok(Self { url, token, client })
    }

    /// Reads a list of objects that have this field.
    ///
    /// # Errors  [`ClientError`]; also for anything else, which is no answer of an admin side: it would
    /// read as an empty list, and so as good news.
    pub(super) async fn list(&self, path: &[&str], field: &str) -> Result<Vec<Value>, ClientError> {
        match self.get(path).await? {
            Value::Array(all) if all.iter().all(|one| one.get(field).is_some()) => Ok(all),
            _ => Err(self.stranger()),
        }
    }

    /// Reads an object that has this field.
    ///
    /// # Errors  As those of [`RemoteAdmin::list`].
    pub(super) async fn object(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        field: &str,
    ) -> Result<Value, ClientError> {
        self.with_field(self.get_with(path, query).await?, field)
    }

    /// Returns an answer that has this field.
    pub(super) fn with_field(&self, answer: Value, field: &str) -> Result<Value, ClientError> {
        match answer.get(field) {
            Some(_) => Ok(answer),
            None => Err(self.stranger()),
        }
    }

    /// Reads anything.
    pub(super) async fn get(&self, path: &[&str]) -> Result<Value, ClientError> {
        self.get_with(path, &[]).await
    }

    async fn get_with(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, ClientError> {
        let mut url = self.at(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.json(self.client.get(url).timeout(ANSWER)).await
    }

    /// Makes a change. The answer is an object that has this field.
    pub(super) async fn post(
        &self,
        path: &[&str],
        body: &Value,
        field: &str,
    ) -> Result<Value, ClientError> {
        let request = self.client.post(self.at(path)).timeout(ANSWER).json(body);
        let answer = self.json(self.signed(request)).await?;
        self.with_field(answer, field)
    }

    /// Opens the event stream after this event.
    pub(super) async fn stream(&self, after: Option<u64>) -> Result<Response, ClientError> {
        let mut request = self.client.get(self.at(&["api", "events", "stream"]));
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = self.send(request).await?;
        let media = response.headers().get(CONTENT_TYPE);
        let media = media.and_then(|media| media.to_str().ok());
        match media.is_some_and(|media| media.starts_with("text/event-stream")) {
            true => Ok(response),
            false => Err(self.stranger()),
        }
    }

    fn signed(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    /// Returns the URL of a resource; each part becomes one path segment, with any characters
    /// escaped.
    fn at(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(path);
        }
        url
    }

    async fn json(&self, request: RequestBuilder) -> Result<Value, ClientError> {
        let response = self.send(request).await?;
        let body = self.read(response).await?;
        serde_json::from_slice(&body).map_err(|_| self.stranger())
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| self.away(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = self.read(response).await?;
        let problem: Value = serde_json::from_slice(&body).map_err(|_| self.stranger())?;
        if is_of_gateway(&problem) {
            return Err(self.gateway());
        }
        let text = |field: &str| problem[field].as_str().map(plain);
        let mut told = text("detail").unwrap_or_else(|| status.to_string());
        if let Some(given) = text("given") {
            told = format!("{told}: given {given}");
        }
        if let Some(allowed) = text("allowed") {
            told = format!("{told}, allowed: {allowed}");
        }
        Err(ClientError::Refused(told))
    }

    /// Reads a body of bounded size.
    async fn read(&self, mut response: Response) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        loop {
            let chunk = response.chunk().await;
            let Some(chunk) = chunk.map_err(|error| self.away(&error))? else {
                return Ok(body);
            };
            // EDGE-7: a size from outside is bounded before memory is taken by it.
            if body.len() + chunk.len() > MAX_BODY {
                let text = format!("the answer is longer than {MAX_BODY} bytes");
                return Err(ClientError::Refused(text));
            }
            body.extend_from_slice(&chunk);
        }
    }

    fn away(&self, error: &reqwest::Error) -> ClientError {
        let why = if error.is_timeout() {
            "does not answer in time"
        } else if error.is_connect() {
            "cannot be reached"
        } else {
            "broke off"
        };
        let url = &self.url;
        ClientError::Away(format!(
            "the admin side at {url} {why}; is Breakerbox running? See --admin and admin.bind"
        ))
    }

    fn gateway(&self) -> ClientError {
        let url = &self.url;
        ClientError::Refused(format!(
            "{url} is the gateway of a Breakerbox, for calls; its admin side has an address of its own: \
             see --admin and admin.bind"
        ))
    }

    fn stranger(&self) -> ClientError {
        let url = &self.url;
        ClientError::Refused(format!("{url} is not the admin side of a Breakerbox"))
    }
}

/// Returns true if a problem is the gateway's: only it tells whether a call was executed.
fn is_of_gateway(problem: &Value) -> bool {
    let kind = problem["type"].as_str();
    let is_own = kind.is_some_and(|kind| kind.starts_with("urn:breakerbox:"));
    is_own && problem["executed"].is_string()
}

/// Returns true for a token that a header can carry.
fn can_be_sent(token: &Secret) -> bool {
    let mut bytes = token.expose().bytes();
    bytes.all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

fn shown(path: &Path) -> String {
    plain(&path.display().to_string())
}

fn parse(given: &str) -> Result<Url, ClientError> {
    let port = given.trim_start_matches(':');
    if port.parse::<u16>().is_ok() {
        // As a host it would be an address of version 4 in one number.
        return Err(ClientError::Wrong(format!(
            "--admin: given {}, a port without a host, did you mean 127.0.0.1:{port}?, allowed: an \
             address such as http://127.0.0.1:7071",
            plain(given)
        )));
    }
    let text = if given.contains("://") {
        given.to_owned()
    } else {
        format!("http://{given}")
    };
    let url = Url::parse(&text).ok();
    let good = |url: &Url| url.scheme() == "http" && url.has_host() && url.query().is_none();
    url.filter(good).ok_or_else(|| {
        let given = plain(given);
        ClientError::Wrong(format!(
            "--admin: given {given}, allowed: an address such as http://127.0.0.1:7071"
        ))
    })
}

/// Reads the address and the token from the configuration, including its environment variables.
fn configured(
    place: &AdminTarget,
    tell: &dyn Fn(&str),
) -> Result<(Url, Option<Secret>), ClientError> {
    let loader = serve::loader(place.config.clone(), place.env.clone());
    let admin = match loader.load() {
        Ok(settings) => settings.admin,
        Err(error) => {
            // The process that runs goes on with the former files, and an operator needs it now.
            let admin = serve::readable_admin(&loader);
            let Some(admin) = admin.filter(|admin| admin.bind.port() != 0) else {
                return Err(ClientError::Wrong(error.to_string()));
            };
            let folder = match loader.sources().found().next() {
                Some(_) => "",
                None => ", and --config DIR the folder of its configuration: no file was read",
            };
            tell(&format!(
                "breakerbox: the configuration cannot be used:\n{error}\nbreakerbox: the admin side is \
                 taken to be at {}; --admin URL names another{folder}\n",
                admin.bind
            ));
            admin
        }
    };
    let AdminConfig { bind, token, .. } = admin;
    if bind.port() == 0 {
        return Err(ClientError::Wrong(
            "admin.bind has port 0, so the port is not known, allowed: --admin URL".to_owned(),
        ));
    }
    Ok((parse(&reachable(bind).to_string())?, token))
}

/// Converts a listening address to one for connecting.
fn reachable(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bind.port())
}

fn variable() -> Option<Secret> {
    let token = std::env::var(TOKEN).ok()?;
    // As the configuration reads it: a line end of a shell belongs to no token.
    let token = token.trim();
    (!token.is_empty()).then(|| Secret::new(token))
}

fn read_token(path: &Path) -> Result<Secret, ClientError> {
    // SEC-1: the token itself may stand here in place of the path of its file.
    let wrong = |why: &dyn fmt::Display| {
        ClientError::Wrong(format!("the file of --token-file cannot be used: {why}"))
    };
    let file = File::open(path).map_err(|error| wrong(&error))?;
    let mut text = String::new();
    let read = file.take(MAX_TOKEN).read_to_string(&mut text);
    read.map_err(|error| wrong(&error))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(wrong(&"the file is empty"));
    }
    Ok(Secret::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_1_a_port_alone_is_no_address_of_the_admin_side() {
        for given in ["7071", ":7071"] {
            let error = parse(given).unwrap_err().to_string();
            assert!(error.contains("did you mean 127.0.0.1:7071?"), "{error}");
        }
        for good in [
            "127.0.0.1:7071",
            "localhost:7071",
            "http://[::1]:7071/breakers",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        let error = parse("https://\u{1b}[2J").unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error}");
    }

    #[test]
    fn ops_1_a_token_that_no_header_can_carry_is_told_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (text, is_good) in [
            ("a token of the tests\n", true),
            ("one-token\nanother-token\n", false),
            ("schl\u{fc}ssel-der-tests", false),
        ] {
            std::fs::write(&path, text).unwrap();
            let place = AdminTarget {
                admin: Some("127.0.0.1:1".to_owned()),
                token_file: Some(path.clone()),
                ..AdminTarget::default()
            };
            assert!(RemoteAdmin::new(&place, false).is_ok(), "nothing is sent");
            let made = RemoteAdmin::new(&place, true);
            let error = made.err().map(|error| error.to_string());
            assert_eq!(error.is_none(), is_good, "{error:?}");
            let error = error.unwrap_or_default();
            assert!(is_good || error.contains("cannot be sent"), "{error}");
            assert!(!error.contains(text.trim()), "{error}");
        }
    }

    #[test]
    fn sec_1_a_token_in_place_of_its_file_is_not_shown() {
        let error = read_token(Path::new("hunter2-is-no-file")).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("--token-file") && !said.contains("hunter2"),
            "{said}"
        );
    }
}
