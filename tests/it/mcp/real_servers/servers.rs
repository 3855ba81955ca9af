//! Eight servers, what they serve, and what a caller gets from each.

use std::process::Stdio;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::process::Command;

use super::super::*;
use crate::tools;

/// A server behind the gateway, and one call of it that changes nothing.
pub(super) struct RealServer {
    pub(super) name: &'static str,
    program: String,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// The names of its tools, sorted.
    pub(super) tools: &'static [&'static str],
    pub(super) call: (&'static str, Value),
    /// A part of the text that the call returns.
    pub(super) returned: &'static str,
}

const MEMORY_TOOLS: &[&str] = &[
    "add_observations",
    "create_entities",
    "create_relations",
    "delete_entities",
    "delete_observations",
    "delete_relations",
    "open_nodes",
    "read_graph",
    "search_nodes",
];
const EVERYTHING_TOOLS: &[&str] = &[
    "echo",
    "get-annotated-message",
    "get-env",
    "get-resource-links",
    "get-resource-reference",
    "get-roots-list",
    "get-structured-content",
    "get-sum",
    "get-tiny-image",
    "gzip-file-as-resource",
    "simulate-research-query",
    "toggle-simulated-logging",
    "toggle-subscriber-updates",
    "trigger-elicitation-request",
    "trigger-long-running-operation",
    "trigger-sampling-request",
    "trigger-url-elicitation",
];
const FILESYSTEM_TOOLS: &[&str] = &[
    "create_directory",
    "directory_tree",
    "edit_file",
    "get_file_info",
    "list_allowed_directories",
    "list_directory",
    "list_directory_with_sizes",
    "move_file",
    "read_file",
    "read_media_file",
    "read_multiple_files",
    "read_text_file",
    "search_files",
    "write_file",
];
const GIT_TOOLS: &[&str] = &[
    "git_add",
    "git_branch",
    "git_checkout",
    "git_commit",
    "git_create_branch",
    "git_diff",
    "git_diff_staged",
    "git_diff_unstaged",
    "git_log",
    "git_reset",
    "git_show",
    "git_status",
];
const SQLITE_TOOLS: &[&str] = &[
    "append_insight",
    "create_table",
    "describe_table",
    "list_tables",
    "read_query",
    "write_query",
];

/// Starts a server with one page for the fetching server. Returns the page's URL.
async fn page() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/page", get(async || "the page of the test"));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    format!("http://{address}/page")
}

async fn succeed(command: &mut Command) {
    let ended = command.stdin(Stdio::null()).output().await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
}

/// Makes what the servers serve: a graph, a file, a repository and a database.
async fn make_files(folder: &Path, git: &Path, python: &Path) {
    let ada = r#"{"type":"entity","name":"Ada","entityType":"person","observations":["wrote"]}"#;
    std::fs::write(memory_file(folder), ada).unwrap();
    std::fs::create_dir_all(folder.join("files")).unwrap();
    std::fs::write(folder.join("files/note"), "the file of the test").unwrap();
    let repository = folder.join("repository");
    let mut init = Command::new(git);
    succeed(init.arg("init").arg(&repository)).await;
    let mut commit = Command::new(git);
    commit.args(["-c", "user.name=test", "-c", "user.email=test@example.com"]);
    commit.args(["commit", "--allow-empty", "--message", "a first commit"]);
    // This machine's configuration may ask for a signature.
    commit.env("GIT_CONFIG_GLOBAL", "/dev/null");
    succeed(commit.current_dir(repository)).await;
    let script = "import sqlite3, sys; base = sqlite3.connect(sys.argv[1]); \
                  base.execute('CREATE TABLE people (name TEXT)'); \
                  base.execute('INSERT INTO people VALUES (\"Ada\")'); base.commit()";
    let mut rows = Command::new(python);
    succeed(rows.args(["-c", script]).arg(folder.join("rows.db"))).await;
}

fn node_servers(modules: &Path, folder: &Path) -> [RealServer; 4] {
    let of = |name, package: &str, tools, call, returned| RealServer {
        name,
        program: "node".to_owned(),
        arguments: vec![text(&modules.join(format!(
            "@modelcontextprotocol/server-{package}/dist/index.js"
        )))],
        environment: Vec::new(),
        tools,
        call,
        returned,
    };
    let call = ("read_graph", json!({}));
    let mut memory = of("memory", "memory", MEMORY_TOOLS, call, "\"Ada\"");
    memory.environment = vec![("MEMORY_FILE_PATH", text(&memory_file(folder)))];
    let call = ("echo", json!({ "message": "grüße, 世界" }));
    let said = "Echo: grüße, 世界";
    let everything = of("everything", "everything", EVERYTHING_TOOLS, call, said);
    let files = folder.join("files");
    let call = ("read_text_file", json!({ "path": files.join("note") }));
    let said = "the file of the test";
    let mut filesystem = of("filesystem", "filesystem", FILESYSTEM_TOOLS, call, said);
    filesystem.arguments.push(text(&files));
    let thought = json!({ "thought": "one", "nextThoughtNeeded": false, "thoughtNumber": 1,
        "totalThoughts": 1 });
    let name = "sequentialthinking";
    let said = "\"thoughtNumber\": 1";
    let package = "sequential-thinking";
    let thinking = of(
        "thinking",
        package,
        &["sequentialthinking"],
        (name, thought),
        said,
    );
    [memory, everything, filesystem, thinking]
}

fn python_servers(
    python: &Path,
    older_python: &Path,
    folder: &Path,
    page: &str,
) -> [RealServer; 4] {
    let of = |name, arguments: &[&str], tools, call, returned| RealServer {
        name,
        program: text(python),
        arguments: arguments.iter().map(|one| (*one).to_owned()).collect(),
        environment: Vec::new(),
        tools,
        call,
        returned,
    };
    let repository = text(&folder.join("repository"));
    let noon =
        json!({ "source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo" });
    let rows = ("read_query", json!({ "query": "SELECT name FROM people" }));
    let program = text(&older_python.with_file_name("mcp-server-sqlite"));
    let file = text(&folder.join("rows.db"));
    let sqlite = [&*program, "--db-path", &file];
    [
        of(
            "time",
            &["-m", "mcp_server_time", "--local-timezone", "UTC"],
            &["convert_time", "get_current_time"],
            ("convert_time", noon),
            "T21:00:00+09:00",
        ),
        of(
            "fetch",
            &["-m", "mcp_server_fetch", "--allow-private-ips"],
            &["fetch"],
            ("fetch", json!({ "url": page })),
            "the page of the test",
        ),
        of(
            "git",
            &["-m", "mcp_server_git", "--repository", &repository],
            GIT_TOOLS,
            ("git_log", json!({ "repo_path": repository })),
            "a first commit",
        ),
        RealServer {
            program: text(older_python),
            ..of("sqlite", &sqlite, SQLITE_TOOLS, rows, "[{'name': 'Ada'}]")
        },
    ]
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl RealServer {
    pub(super) fn table(&self) -> String {
        let environment = self.environment.iter();
        let environment: Vec<_> = environment
            .map(|(name, value)| format!("{name} = {value:?}"))
            .collect();
        format!(
            "[dependencies.{}]\nkind = \"mcp_stdio\"\ncommand = {:?}\nargs = {:?}\n\
             env = {{ {} }}\n",
            self.name,
            self.program,
            self.arguments,
            environment.join(", ")
        )
    }
}

/// The programs that the test needs.
pub(super) struct Installed {
    git: PathBuf,
    pub(super) python: PathBuf,
    older_python: PathBuf,
    pub(super) modules: PathBuf,
}

impl Installed {
    pub(super) fn find() -> Option<Self> {
        Some(Self {
            git: tools::find(&["git"])?,
            modules: install::node_modules()?,
            python: install::python()?,
            older_python: install::older_python()?,
        })
    }

    pub(super) async fn servers(&self, folder: &Path) -> Vec<RealServer> {
        make_files(folder, &self.git, &self.python).await;
        let page = page().await;
        let python = python_servers(&self.python, &self.older_python, folder, &page);
        node_servers(&self.modules, folder)
            .into_iter()
            .chain(python)
            .collect()
    }
}
