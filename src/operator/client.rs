//! The way to the admin side of a running Breakerbox.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use breakerbox::Settings;
use breakerbox::config::{AdminConfig, Secret};
use reqwest::{Client, RequestBuilder, Response, Url};
use serde_json::Value;

use super::Where;
use crate::End;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
const TOKEN: &str = "BREAKERBOX__ADMIN__TOKEN";

/// Why a command was not carried out.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was called in a way that cannot work, or the configuration cannot be used.
    Wrong(String),
    /// Nobody answers there.
    Away(String),
    /// It was answered, but not as was hoped.
    Refused(String),
}

impl Failure {
    pub(super) fn end(&self) -> End {
        match self {
            Self::Wrong(_) => End::WrongUse,
            Self::Away(_) | Self::Refused(_) => End::Failed,
        }
    }

    pub(super) fn is_away(&self) -> bool {
        matches!(self, Self::Away(_))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Wrong(text) | Self::Away(text) | Self::Refused(text)) = self;
        out.write_str(text)
    }
}

/// A running Breakerbox.
pub(super) struct Remote {
    url: Url,
    token: Option<Secret>,
    client: Client,
}

impl Remote {
    /// Finds the address, and the token where one is needed.
    pub(super) fn new(place: &Where, changes: bool) -> Result<Self, Failure> {
        let (url, token) = match &place.admin {
            Some(url) => (parse(url)?, variable()),
            None => configured(place)?,
        };
        let token = match &place.token_file {
            Some(path) => Some(read_token(path)?),
            None => token,
        };
        if changes && token.is_none() {
            return Err(Failure::Wrong(format!(
                "a change needs the admin token, allowed: to set {TOKEN}, or --token-file FILE"
            )));
        }
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .build()
            .map_err(|error| Failure::Wrong(format!("no client can be made: {error}")))?;
        Ok(Self { url, token, client })
    }

    pub(super) async fn get(&self, path: &[&str]) -> Result<Value, Failure> {
        self.get_with(path, &[]).await
    }

    pub(super) async fn get_with(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Value, Failure> {
        let mut url = self.at(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.json(self.client.get(url).timeout(ANSWER)).await
    }

    pub(super) async fn post(&self, path: &[&str], body: &Value) -> Result<Value, Failure> {
        let request = self.client.post(self.at(path)).timeout(ANSWER).json(body);
        self.json(self.signed(request)).await
    }

    /// The stream of events, from after this one on.
    pub(super) async fn stream(&self, after: Option<u64>) -> Result<Response, Failure> {
        let mut request = self.client.get(self.at(&["api", "events", "stream"]));
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        self.send(request).await
    }

    fn signed(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    /// The address of a resource; each part is one, whatever letters it has.
    fn at(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(path);
        }
        url
    }

    async fn json(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let response = self.send(request).await?;
        let body = response.bytes().await.map_err(|error| self.away(&error))?;
        serde_json::from_slice(&body).map_err(|_| self.stranger())
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.away(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        let problem: Value = serde_json::from_slice(&body).map_err(|_| self.stranger())?;
        let text = |field: &str| problem[field].as_str().map(str::to_owned);
        let mut told = text("detail").unwrap_or_else(|| status.to_string());
        if let Some(given) = text("given") {
            told = format!("{told}: given {given}");
        }
        if let Some(allowed) = text("allowed") {
            told = format!("{told}, allowed: {allowed}");
        }
        Err(Failure::Refused(told))
    }

    fn away(&self, error: &reqwest::Error) -> Failure {
        let why = if error.is_timeout() {
            "does not answer in time"
        } else if error.is_connect() {
            "cannot be reached"
        } else {
            "broke off"
        };
        let url = &self.url;
        Failure::Away(format!(
            "the admin side at {url} {why}; is Breakerbox running there? See --admin and admin.bind"
        ))
    }

    fn stranger(&self) -> Failure {
        let url = &self.url;
        Failure::Refused(format!(
            "what answers at {url} is not the admin side of Breakerbox"
        ))
    }
}

fn parse(given: &str) -> Result<Url, Failure> {
    let text = if given.contains("://") {
        given.to_owned()
    } else {
        format!("http://{given}")
    };
    let url = Url::parse(&text).ok();
    let good = |url: &Url| url.scheme() == "http" && url.has_host() && url.query().is_none();
    url.filter(good).ok_or_else(|| {
        let given = breakerbox::redact(given);
        Failure::Wrong(format!(
            "--admin: given {given}, allowed: an address such as http://127.0.0.1:7071"
        ))
    })
}

/// What the configuration says, its variables among it.
fn configured(place: &Where) -> Result<(Url, Option<Secret>), Failure> {
    let mut loader = Settings::loader();
    if let Some(dir) = &place.config {
        loader = loader.dir(dir);
    }
    if let Some(environment) = &place.env {
        loader = loader.environment(environment);
    }
    let settings = loader
        .load()
        .map_err(|error| Failure::Wrong(error.to_string()))?;
    let AdminConfig { bind, token, .. } = settings.admin;
    if bind.port() == 0 {
        return Err(Failure::Wrong(
            "admin.bind has port 0, so only the running one knows it, allowed: to give --admin URL"
                .to_owned(),
        ));
    }
    Ok((parse(&reachable(bind).to_string())?, token))
}

/// An address to connect to, where one is given to listen on.
fn reachable(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bind.port())
}

fn variable() -> Option<Secret> {
    let token = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
    token.map(Secret::new)
}

fn read_token(path: &Path) -> Result<Secret, Failure> {
    let wrong = |why: &dyn fmt::Display| {
        let path = path.display();
        Failure::Wrong(format!("the token of {path} cannot be used: {why}"))
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(wrong(&"the file is empty"));
    }
    Ok(Secret::new(token))
}
