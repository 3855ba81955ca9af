//! The lines that `serve` prints once it listens: addresses for programs, then answers to the
//! first questions of a person.
//!
//! The lines for programs are a word and an address each, and come first. It shows no secret.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use breakerbox_actors::printable;
use breakerbox_policy::CountedNoun;

use crate::config::{DependencyConfig, DependencyKind, Settings};

/// Maximum number of dependencies with a line of their own: with the other lines, a screenful.
const MAX_LINES: usize = 16;

/// The addresses on which the sidecar listens.
pub(super) struct ListenAddresses {
    pub(super) gateway: SocketAddr,
    pub(super) admin: SocketAddr,
    /// Those of the simulated dependencies, by name.
    pub(super) simulated: Vec<(String, SocketAddr)>,
    /// The file of `admin.state`, and the number of orders that were restored from it.
    pub(super) orders: Option<(PathBuf, usize)>,
}

/// Returns all lines.
pub(super) fn text(settings: &Settings, listens: &ListenAddresses) -> String {
    let scheme = settings.gateway.tls.as_ref().map_or("http", |_| "https");
    let gateway = format!("{scheme}://{}", listens.gateway);
    let admin = format!("http://{}", listens.admin);
    let mut text = format!("gateway {gateway}\nadmin {admin}\n");
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    for (name, address) in &listens.simulated {
        line(format!("simulated {name} http://{address}"));
    }
    line(format!("dashboard {admin}/"));
    let version = env!("CARGO_PKG_VERSION");
    let environment = printable(&settings.environment);
    line(format!("breakerbox {version}, environment {environment}"));
    if settings.files().is_empty() {
        line(no_file(settings).to_owned());
    }
    for file in settings.files() {
        let file = file.display().to_string();
        line(format!("read {}", printable(&file)));
    }
    line(match settings.admin.token {
        Some(_) => "orders from outside need the admin token, which is set".to_owned(),
        None => "orders from outside are refused: admin.token is not set".to_owned(),
    });
    if let Some((path, restored)) = &listens.orders {
        // HLT-3: a relative path may be another file today than it was yesterday.
        let orders = CountedNoun(*restored as u64, "order");
        let path = path.display().to_string();
        line(format!(
            "orders are kept in {}: {orders} restored",
            printable(&path)
        ));
    }
    text.push_str(&dependencies(settings, &gateway));
    text
}

fn no_file(settings: &Settings) -> &'static str {
    let mut all = settings.dependencies.values();
    match all.any(|one| one.kind == Some(DependencyKind::Simulated)) {
        true => {
            "no file read: the services are simulated; breakerbox init makes a configuration of \
             your own"
        }
        false => "no file read",
    }
}

/// Returns a line for each dependency, with the address to call it at.
fn dependencies(settings: &Settings, gateway: &str) -> String {
    let all = &settings.dependencies;
    let count = CountedNoun(all.len() as u64, "dependency");
    let mut text = format!("{count}\n");
    let width = all.keys().take(MAX_LINES).map(String::len).max();
    let width = width.unwrap_or(0);
    for (name, one) in all.iter().take(MAX_LINES) {
        let url = format!("{gateway}/{name}/{}", if is_mcp(one) { "mcp" } else { "" });
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:width$}  {url}{}", destination(one));
    }
    if all.len() > MAX_LINES {
        let more = all.len() - MAX_LINES;
        let _ = writeln!(text, "  and {more} more: {gateway}/ lists them");
    }
    text
}

fn is_mcp(one: &DependencyConfig) -> bool {
    one.mcp.is_some() || one.members.is_some()
}

/// Returns the destination of the calls.
fn destination(one: &DependencyConfig) -> String {
    match (&one.url, one.kind) {
        // Its address has neither user nor query: the configuration accepts none.
        (
            Some(url),
            Some(DependencyKind::Http | DependencyKind::Model | DependencyKind::McpHttp),
        ) => {
            format!(" -> {}", printable(url))
        }
        (_, Some(DependencyKind::McpStdio)) => " -> a process".to_owned(),
        (_, Some(DependencyKind::McpGroup)) => {
            let members = one.members.iter().flatten().map(|member| &*member.name);
            let members = members.collect::<Vec<_>>().join(", ");
            format!(" -> {}", printable(&members))
        }
        (_, Some(DependencyKind::Pool)) => {
            let members = one.pool.iter().map(|pool| pool.members.join(", "));
            format!(" -> {}", printable(&members.collect::<String>()))
        }
        (_, Some(DependencyKind::Simulated)) => " -> simulated".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        let settings = Settings::loader().bare().toml(text).load().unwrap();
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let listens = ListenAddresses {
            gateway: at(7070),
            admin: at(7071),
            simulated: Vec::new(),
            orders: Some((PathBuf::from("/srv/state.json"), 1)),
        };
        super::text(&settings, &listens)
    }

    #[test]
    fn ops_1_the_start_tells_what_is_asked_first() {
        let token = "a-token-of-many-letters";
        let said = told(&format!(
            "[admin]\ntoken = \"{token}\"\n[dependencies.web]\nkind = \"http\"\nurl = \"http://127.0.0.1:9/base\"\n"
        ));
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[0], "gateway http://127.0.0.1:7070");
        assert_eq!(lines[1], "admin http://127.0.0.1:7071");
        assert_eq!(lines[2], "dashboard http://127.0.0.1:7071/");
        assert!(lines[3].starts_with("breakerbox 0."), "{said}");
        assert!(lines[3].ends_with("environment development"), "{said}");
        assert!(said.contains("admin token, which is set") && !said.contains(token));
        assert!(
            said.contains("  web  http://127.0.0.1:7070/web/ -> http://127.0.0.1:9/base\n"),
            "{said}"
        );
        assert!(
            said.contains("\norders are kept in /srv/state.json: 1 order restored\n"),
            "{said}"
        );
        assert!(lines.len() <= 12, "{said}");
    }

    #[test]
    fn ops_1_a_hundred_dependencies_are_a_screenful() {
        let one = |number: u32| {
            format!("[dependencies.d{number}]\nkind = \"http\"\nurl = \"http://127.0.0.1:9\"\n")
        };
        let said = told(&(0..100).map(one).collect::<String>());
        assert!(said.contains("\n100 dependencies\n"), "{said}");
        assert!(
            said.ends_with("  and 84 more: http://127.0.0.1:7070/ lists them\n"),
            "{said}"
        );
        assert!(said.lines().count() <= 25, "{said}");
        assert!(said.contains("admin.token is not set"));
    }
}
