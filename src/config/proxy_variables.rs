//! The proxy that the environment's variables name for a dependency: `HTTPS_PROXY`, `HTTP_PROXY`,
//! `ALL_PROXY` and `NO_PROXY`, in lower and in upper case.
//!
//! They are meant for every program on the machine, so one that cannot be used is a warning, and no
//! problem of ours.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

use super::Settings;
use super::kind::DependencyKind;
use super::problem::Warning;
use super::secret::Secret;
use super::upstream::{ProxyChoice, is_proxy_url};
use super::url::unix_socket;

/// The variables for one scheme, in the order in which they count.
type VariableNames = &'static [&'static str];

const HTTP: VariableNames = &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
const HTTPS: VariableNames = &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
const NO: VariableNames = &["no_proxy", "NO_PROXY"];

/// Sets the proxy of each HTTP dependency that leaves the choice to the environment, and warns of it.
pub(super) fn apply(mut settings: Settings, variables: &[(String, String)]) -> Settings {
    let variables: BTreeMap<&str, &str> = variables
        .iter()
        .map(|(name, value)| (&**name, value.trim()))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let first = |names: VariableNames| names.iter().find_map(|name| variables.get_key_value(name));
    // `*.a.test` is as common as `.a.test`, and means the same.
    let spared = first(NO).map_or("", |(_, value)| value).replace("*.", ".");
    // A caller of a CGI program sets `HTTP_PROXY` by a header `Proxy`.
    let is_cgi = variables.contains_key("REQUEST_METHOD");
    let mut warnings = Vec::new();
    for (name, one) in &mut settings.dependencies {
        let is_asked = one.upstream.proxy == ProxyChoice::Environment;
        let url = one.url.as_deref().filter(|url| unix_socket(url).is_none());
        let Some(uri) = url.and_then(|url| url.parse::<Uri>().ok()) else {
            continue;
        };
        if !one.kind.is_some_and(DependencyKind::is_http) || !is_asked || is_loopback(&uri) {
            continue;
        }
        let names = if uri.scheme_str() == Some("https") {
            HTTPS
        } else if is_cgi {
            &["http_proxy", "all_proxy", "ALL_PROXY"]
        } else {
            HTTP
        };
        let Some((variable, value)) = first(names) else {
            continue;
        };
        let proxy = match value.contains("://") {
            true => (*value).to_owned(),
            false => format!("http://{value}"),
        };
        let is_spared = Matcher::builder()
            .all("http://a")
            .no(spared.as_str())
            .build();
        if is_spared.intercept(&uri).is_none() {
            continue;
        }
        let text = if is_proxy_url(&proxy) {
            let (_, shown) = proxy.rsplit_once('@').unwrap_or(("", &proxy));
            let shown = shown.trim_start_matches("http://").trim_end_matches('/');
            let text = format!(
                "its requests go through the proxy {shown}, which the variable {variable} names; \
                 proxy = \"off\" sends them directly"
            );
            one.upstream.proxy = ProxyChoice::Through(Secret::new(proxy));
            text
        } else {
            format!(
                "its requests go out directly: the variable {variable} names no HTTP proxy, such \
                 as http://proxy:3128; proxy = \"off\" silences this"
            )
        };
        warnings.push(Warning {
            key: format!("dependencies.{name}.proxy"),
            text,
            origin: format!("environment variable {variable}"),
        });
    }
    settings.warnings.extend(warnings);
    settings
}

/// Returns true if the address is on this machine, which no proxy can reach.
fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let host = host.trim_end_matches('.');
    let address = host.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        Ok(address) => {
            let address = address.to_canonical();
            address.is_loopback() || address.is_unspecified()
        }
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}
