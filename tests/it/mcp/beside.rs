//! A sidecar with two servers: one that is well, and one that is sick.

use crate::gateway::serve::{Sidecar, command, configured, http};

use super::*;

pub(super) const TOKEN: &str = "the-token-of-an-operator";

/// The running sidecar, with the servers `good` and `sick`.
pub(super) struct Beside {
    pub(super) sidecar: Sidecar,
    pub(super) folder: tempfile::TempDir,
}

/// The table of a server named `name`, with its files in a folder of this name. It starts only
/// while there is no file `down` in it. `before`: a shell command before its start. `None` if Node
/// is not installed.
pub(super) fn guarded(folder: &Path, name: &str, before: &str, more: &str) -> Option<String> {
    let own = folder.join(name);
    std::fs::create_dir_all(&own).unwrap();
    scripted::server(&own)?;
    let program = own.join("server.mjs");
    let (own, program) = (own.display(), program.display());
    let script = format!(
        "if test -e {own}/down; then echo no licence >&2; exit 7; fi; {before} exec node {program}"
    );
    Some(format!(
        "[dependencies.{name}]\nkind = \"mcp_stdio\"\ncommand = \"sh\"\nargs = [\"-c\", {script:?}]\n\
         env = {{ FOLDER = \"{own}\" }}\n{more}\n"
    ))
}

impl Beside {
    /// Starts the sidecar. `sick`: makes the table of the server, with all files in this folder.
    pub(super) fn start(sick: impl FnOnce(&Path) -> Option<String>) -> Option<Self> {
        let folder = folder();
        let sick = sick(folder.path())?;
        let good = guarded(folder.path(), "good", "", "")?;
        configured(folder.path(), &(good + &sick));
        let mut command = command(folder.path());
        command.env("BREAKERBOX__ADMIN__TOKEN", TOKEN);
        let sidecar = Sidecar::start(command, 1);
        Some(Self { sidecar, folder })
    }

    pub(super) fn own(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Takes the cause away that keeps a guarded server from starting, or brings it back.
    pub(super) fn allow(&self, name: &str, starts: bool) {
        let file = self.own(name).join("down");
        if starts {
            std::fs::remove_file(file).unwrap();
        } else {
            std::fs::write(file, "").unwrap();
        }
    }

    pub(super) async fn rpc(
        &self,
        name: &str,
        method: &str,
        params: Value,
        headers: &[(&str, &str)],
    ) -> Value {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let url = self.sidecar.url(&format!("/{name}/mcp"));
        let asked = http().post(url).json(&message);
        let asked = asked.header("accept", "application/json, text/event-stream");
        let asked = headers
            .iter()
            .fold(asked, |asked, (name, value)| asked.header(*name, *value));
        let text = asked.send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    pub(super) async fn call(&self, name: &str, tool: &str, arguments: Value) -> Value {
        let params = json!({ "name": tool, "arguments": arguments });
        self.rpc(name, "tools/call", params, &[]).await
    }

    /// The text with which `echo` answers; `None` if the call fails.
    pub(super) async fn echo(&self, name: &str) -> Option<String> {
        let answer = self.call(name, "echo", json!({ "text": "hi" })).await;
        let text = answer["result"]["content"][0]["text"].as_str();
        text.map(str::to_owned)
    }

    pub(super) async fn admin(&self, path: &str) -> Value {
        let answer = http().get(self.sidecar.admin(path)).send().await.unwrap();
        answer.json().await.unwrap()
    }

    pub(super) async fn dependency(&self, name: &str) -> Value {
        self.admin(&format!("/api/dependencies/{name}")).await
    }

    /// Carries out an operator's order over the API.
    pub(super) async fn order(&self, name: &str, operation: &str) -> Value {
        let url = self
            .sidecar
            .admin(&format!("/api/dependencies/{name}/{operation}"));
        let asked = http().post(url).bearer_auth(TOKEN);
        let answer = asked
            .json(&json!({ "reason": "a test" }))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    /// Waits until the server answers, without any order.
    pub(super) async fn until_well(&self, name: &str) {
        let well = async {
            while self.echo(name).await.is_none() {
                tokio::time::sleep(MOMENT).await;
            }
        };
        let seen = tokio::time::timeout(PATIENCE, well).await;
        assert!(seen.is_ok(), "{:#}", self.dependency(name).await);
    }

    /// Waits until the admin side shows the dependency so.
    pub(super) async fn until(&self, name: &str, is_so: impl Fn(&Value) -> bool) {
        let shown = async {
            while !is_so(&self.dependency(name).await) {
                tokio::time::sleep(MOMENT).await;
            }
        };
        let seen = tokio::time::timeout(PATIENCE, shown).await;
        assert!(seen.is_ok(), "{:#}", self.dependency(name).await);
    }

    /// Checks that the other server answers, and was started once.
    pub(super) async fn good_is_untouched(&self) {
        assert_eq!(self.echo("good").await.as_deref(), Some("hi"));
        let notes = scripted::notes(&self.own("good"));
        let starts = notes.iter().filter(|note| note.starts_with("start"));
        assert_eq!(starts.count(), 1, "{notes:?}");
    }

    /// Ends the sidecar, and checks that nothing is left of its servers.
    pub(super) async fn end(self) {
        self.sidecar.signal("TERM");
        let ended = self.sidecar.ended().await;
        assert_eq!(ended.code(), Some(0));
        gone(&processes(self.folder.path()));
    }
}
