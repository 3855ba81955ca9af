//! The keys of MCP servers.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox::Settings;
use breakerbox::config::{CallerSessions, ConfigError, DependencyKind};

const SECRET: &str = "s3cr3t-of-the-server";

fn load(text: &str) -> Result<Settings, ConfigError> {
    Settings::loader().bare().toml(text).load()
}

#[test]
fn a_process_has_its_program_and_writes_one_at_a_time() {
    let text = "[dependencies.kg]\nkind = \"mcp_stdio\"\ncommand = \"node\"\nargs = [\"a.js\", \"b, c\"]\n\
                env = { MEMORY_FILE_PATH = \"m\" }\ncwd = \"there\"\nstart_timeout = \"3s\"\n\
                hang_limit = \"off\"\nstderr_lines = 7\nmax_line = \"1MiB\"\n\
                question_timeout = \"30s\"\nidempotent = [\"search_nodes\"]\n";
    let settings = load(text).unwrap();
    let kg = &settings.dependencies["kg"];
    assert_eq!(kg.kind, Some(DependencyKind::McpStdio));
    let own = kg.mcp.as_ref().unwrap();
    assert_eq!(own.command, "node");
    assert_eq!(own.args, ["a.js", "b, c"]);
    assert_eq!(own.env["MEMORY_FILE_PATH"].expose(), "m");
    assert_eq!(own.cwd.as_ref().unwrap().to_str(), Some("there"));
    assert_eq!(own.start_timeout, Duration::from_secs(3));
    assert_eq!(
        (own.hang_limit, own.stderr_lines, own.max_line),
        (None, 7, 1 << 20)
    );
    assert_eq!(own.question_timeout, Duration::from_secs(30));
    let writes = kg.settings.bulkhead.max_concurrent_writes;
    assert_eq!(writes, Some(NonZeroU32::MIN));
    let more = format!("{text}[dependencies.kg.bulkhead]\nmax_concurrent_writes = 0\n");
    let more = load(&more).unwrap();
    let writes = more.dependencies["kg"]
        .settings
        .bulkhead
        .max_concurrent_writes;
    assert_eq!(writes, None, "the operator's word");
}

#[test]
fn a_server_elsewhere_has_an_address_and_headers() {
    let text = "[dependencies.kg]\nkind = \"mcp_http\"\nurl = \"http://127.0.0.1:9/mcp\"\n\
                headers = { x-api-key = \"k\" }\n";
    let settings = load(text).unwrap();
    let kg = &settings.dependencies["kg"];
    let own = kg.mcp.as_ref().unwrap();
    assert_eq!(own.headers["x-api-key"].expose(), "k");
    assert_eq!(own.hang_limit, Some(NonZeroU32::MIN));
    assert_eq!(own.question_timeout, Duration::from_secs(300));
    assert_eq!(kg.settings.bulkhead.max_concurrent_writes, None);
}

#[test]
fn cfg_1_all_that_is_wrong_is_told_at_once() {
    let text = "[dependencies.a]\nkind = \"mcp_stdio\"\nheaders = { x = \"1\" }\nhang_limit = 0\n\
                env = { A = 1 }\nargs = 3\n\
                [dependencies.b]\nkind = \"mcp_http\"\ncommand = \"node\"\n\
                [dependencies.c]\nkind = \"http\"\nurl = \"http://127.0.0.1:9\"\nmax_line = \"1MiB\"\n\
                env = \"nothing\"\n";
    let error = load(text).unwrap_err().to_string();
    for key in [
        "dependencies.a.command",
        "dependencies.a.headers",
        "dependencies.a.hang_limit",
        "dependencies.a.env.A",
        "dependencies.a.args",
        "dependencies.b.url",
        "dependencies.b.command",
        "dependencies.c.max_line",
        "dependencies.c.env",
    ] {
        assert!(error.contains(key), "{key}: {error}");
    }
}

#[test]
fn sec_1_variables_and_headers_are_never_shown() {
    let text = format!(
        "[dependencies.kg]\nkind = \"mcp_stdio\"\ncommand = \"node\"\nenv = {{ API_KEY = \"{SECRET}\" }}\n\
         [dependencies.web]\nkind = \"mcp_http\"\nurl = \"http://127.0.0.1:9\"\n\
         headers = {{ x-api-key = \"{SECRET}\" }}\n"
    );
    let settings = load(&text).unwrap();
    let shown: Vec<_> = settings.effective().iter().collect();
    let all = format!("{settings:?} {shown:?}");
    assert!(!all.contains(SECRET), "{all}");
    let key = "dependencies.kg.env.API_KEY";
    let one = shown.iter().find(|one| one.key == key).unwrap();
    assert_eq!(one.value, "***");
    let kind = "[dependencies.kg]\nkind = \"mcp_stdio\"\ncommand = \"node\"\n";
    for wrong in [
        format!("{kind}env = {{ API_KEY = [\"{SECRET}\"] }}\n"),
        format!("{kind}env = \"{SECRET}\"\n"),
        format!("{kind}headers = {{ x-api-key = \"{SECRET}\" }}\n"),
    ] {
        let error = load(&wrong).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
    }
}

#[test]
fn a_variable_of_ours_gives_a_server_its_secret() {
    let text =
        "[dependencies.kg]\nkind = \"mcp_stdio\"\ncommand = \"node\"\nenv = { lower = \"l\" }\n";
    let loader =
        Settings::loader().env_vars([("BREAKERBOX__DEPENDENCIES__KG__ENV__API_KEY", SECRET)]);
    let settings = loader.toml(text).load().unwrap();
    let env = &settings.dependencies["kg"].mcp.as_ref().unwrap().env;
    let names: Vec<&str> = env.keys().map(String::as_str).collect();
    assert_eq!(names, ["API_KEY", "lower"]);
    assert_eq!(env["API_KEY"].expose(), SECRET);
}

#[test]
fn mcp_5_sessions_are_shared_unless_the_configuration_says_otherwise() {
    let server = |more: &str| {
        let text = format!("[dependencies.kg]\nkind = \"mcp_stdio\"\ncommand = \"node\"\n{more}");
        load(&text).map(|settings| settings.dependencies["kg"].clone())
    };
    let shared = server("").unwrap();
    assert_eq!(shared.mcp.unwrap().sessions, CallerSessions::Shared);
    let own =
        server("sessions = \"per_caller\"\nmax_sessions = 3\nsession_idle = \"5m\"\n").unwrap();
    let CallerSessions::PerCaller { max, idle, .. } = own.mcp.unwrap().sessions else {
        panic!("it was asked for");
    };
    assert_eq!((max.get(), idle), (3, Duration::from_secs(300)));
    let writes = own.settings.bulkhead.max_concurrent_writes;
    assert_eq!(writes, None, "the processes have no state in common");
    for (more, key) in [
        ("sessions = \"each\"", "sessions"),
        ("max_sessions = 3", "max_sessions"),
        (
            "sessions = \"shared\"\nsession_idle = \"5m\"",
            "session_idle",
        ),
        (
            "sessions = \"per_caller\"\nmax_sessions = 0",
            "max_sessions",
        ),
        (
            "sessions = \"per_caller\"\nworkers = { count = 2 }",
            "workers.count",
        ),
    ] {
        let error = server(more).unwrap_err();
        let keys: Vec<_> = error
            .problems()
            .iter()
            .map(|one| one.key.as_str())
            .collect();
        assert_eq!(keys, [format!("dependencies.kg.{key}")], "{more}: {error}");
    }
    let text = "[dependencies.web]\nkind = \"http\"\nurl = \"http://127.0.0.1:9\"\n\
                sessions = \"per_caller\"\nmax_sessions = 3\n";
    let error = load(text).unwrap_err().to_string();
    for key in ["dependencies.web.sessions", "dependencies.web.max_sessions"] {
        assert!(error.contains(key), "{key}: {error}");
    }
}
