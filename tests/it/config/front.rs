//! The keys of the gateway's front: tools, credentials of callers, forwarded headers, groups.

use std::time::Duration;

use breakerbox::Settings;
use breakerbox::config::{AuthChoice, ConfigError, DependencyKind, KeySource};

fn load(text: &str) -> Result<Settings, ConfigError> {
    Settings::loader().bare().toml(text).load()
}

const SERVER: &str = "[dependencies.kg]\nkind = \"mcp_http\"\nurl = \"http://127.0.0.1:9/mcp\"\n";

fn problems(text: &str) -> String {
    let error = load(&format!("{SERVER}{text}")).expect_err(text);
    error.to_string()
}

fn warnings(text: &str) -> String {
    let settings = load(&format!("{SERVER}{text}"));
    let settings = settings.unwrap_or_else(|error| panic!("{error}"));
    let warnings = settings.warnings().iter().map(ToString::to_string);
    warnings.collect::<Vec<_>>().join("\n")
}

#[test]
fn mcp_6_the_table_of_tools_is_read_with_its_default() {
    let text = format!(
        "{SERVER}[dependencies.kg.tools]\n\"*\" = {{ allow = false, write = false }}\n\
         \"admin.read\" = {{ allow = true, rename = \"read\", idempotent = true, timeout = \"30s\" }}\n"
    );
    let settings = load(&text).unwrap();
    let tools = &settings.dependencies["kg"].tools;
    let rule = tools.of("admin.read");
    assert_eq!((rule.allow, rule.write), (Some(true), Some(false)));
    assert_eq!(rule.rename.as_deref(), Some("read"));
    assert_eq!(rule.idempotent, Some(true));
    assert_eq!(rule.timeout, Some(Duration::from_secs(30)));
    assert_eq!(tools.of("other").allow, Some(false));
    let shown = settings
        .effective()
        .iter()
        .find(|one| one.key.ends_with("admin.read.timeout"));
    assert_eq!(shown.unwrap().value, "\"30s\"");
}

#[test]
fn mcp_6_mistakes_in_the_table_of_tools_are_told() {
    for (text, said) in [
        (
            "tools = { \"*\" = { rename = \"x\" } }",
            "all tools would have one name",
        ),
        ("tools = { a = { rename = \"b c\" } }", "the name of a tool"),
        (
            "tools = { a = { rename = \"x\" }, b = { rename = \"x\" } }",
            "has the name already",
        ),
        (
            "tools = { a = { rename = \"b\" }, b = {} }",
            "has the name already",
        ),
        ("tools = { a = { alow = false } }", "did you mean allow?"),
        ("tools = { a = true }", "a table of keys"),
    ] {
        let told = problems(text);
        assert!(told.contains(said), "{text}: {told}");
    }
    let alien =
        load("[dependencies.web]\nkind = \"http\"\nurl = \"http://a\"\ntools = { a = {} }\n");
    assert!(
        alien
            .unwrap_err()
            .to_string()
            .contains("it applies to kind = \"mcp_stdio\"")
    );
    for (text, said) in [
        (
            "tools = { a = { allow = false, timeout = \"1s\" } }",
            "no effect on a tool that is not allowed",
        ),
        (
            "tools = { \"*\" = { allow = false }, a = { write = false } }",
            "does not say allow = true",
        ),
        (
            "tools = { a = { timeout = \"2h\" } }",
            "longer than timeout.total",
        ),
    ] {
        let told = warnings(text);
        assert!(told.contains(said), "{text}: {told}");
    }
}

#[test]
fn mcp_6_credentials_of_callers_are_read_and_never_shown() {
    let text = format!(
        "[gateway.auth]\ntokens = [\"s3cr3t-of-the-callers\"]\n{SERVER}[dependencies.kg.auth.jwt]\n\
         issuer = \"https://idp.example\"\naudience = \"kg\"\njwks_url = \"https://idp.example/keys\"\n\
         scopes = [\"a\", \"b\"]\n[dependencies.open]\nkind = \"simulated\"\nauth = \"off\"\n"
    );
    let settings = load(&text).unwrap();
    let every = settings.gateway.auth.as_ref().unwrap();
    assert_eq!(every.tokens[0].expose(), "s3cr3t-of-the-callers");
    let AuthChoice::Own(own) = &settings.dependencies["kg"].auth else {
        panic!("{:?}", settings.dependencies["kg"].auth);
    };
    let jwt = own.jwt.as_ref().unwrap();
    assert_eq!(jwt.issuers, ["https://idp.example"]);
    assert_eq!(jwt.audience, ["kg"]);
    assert_eq!(jwt.scopes, ["a", "b"]);
    assert_eq!(
        jwt.keys,
        KeySource::Url("https://idp.example/keys".to_owned())
    );
    assert_eq!(settings.dependencies["open"].auth, AuthChoice::Off);
    let shown = format!("{settings:?}");
    assert!(!shown.contains("s3cr3t"), "{shown}");
}

#[test]
fn mcp_6_credentials_that_check_nothing_are_told() {
    for (text, said) in [
        ("auth = {}", "no caller could present anything"),
        ("auth = { tokens = [\"short\"] }", "at least 16 characters"),
        (
            "auth = { jwt = { issuer = \"i\", jwks_url = \"https://a/k\" } }",
            "audience",
        ),
        (
            "auth = { jwt = { audience = \"i\", jwks_url = \"https://a/k\" } }",
            "issuer",
        ),
        (
            "auth = { jwt = { audience = \"i\", issuer = [], jwks_url = \"https://a/k\" } }",
            "jwt needs it",
        ),
        (
            "auth = { jwt = { audience = \"\", issuer = [\"a\"], jwks_url = \"https://a/k\" } }",
            "jwt needs it",
        ),
        (
            "auth = { jwt = { audience = \"i\", issuer = \"a\" } }",
            "jwt needs the keys",
        ),
        (
            "auth = { jwt = { audience = \"i\", issuer = \"a\", jwks_url = \"https://a/k\", jwks_file = \"k\" } }",
            "one of the two",
        ),
    ] {
        let told = problems(text);
        assert!(told.contains(said), "{text}: {told}");
        assert!(!told.contains("short"), "{told}");
    }
    let plain = "auth = { jwt = { audience = \"i\", issuer = \"a\", jwks_url = \"http://idp.example/k\" } }";
    assert!(warnings(plain).contains("without TLS"));
}

#[test]
fn mcp_6_headers_that_pass_are_named() {
    let text =
        format!("{SERVER}forward_headers = [\"X-Tenant\", \"authorization\", \"x-tenant\"]\n");
    let settings = load(&text).unwrap();
    let names = &settings.dependencies["kg"].forward_headers;
    assert_eq!(names, &["authorization", "x-tenant"]);
    for name in ["host", "content-length", "mcp-session-id", "accept", "a b"] {
        let told = problems(&format!("forward_headers = [\"{name}\"]"));
        assert!(
            told.contains("neither the connection nor the protocol"),
            "{told}"
        );
    }
    let twice = "forward_headers = [\"x-key\"]\nheaders = { X-Key = \"k\" }";
    assert!(warnings(twice).contains("headers sets it"));
    let process =
        "[dependencies.p]\nkind = \"mcp_stdio\"\ncommand = \"x\"\nforward_headers = [\"a\"]\n";
    assert!(problems(process).contains("it applies to kind = \"mcp_http\""));
}

#[test]
fn mcp_6_a_group_names_its_members() {
    let group = |members: &str| {
        format!(
            "{SERVER}[dependencies.web]\nkind = \"mcp_stdio\"\ncommand = \"x\"\n\
             [dependencies.plain]\nkind = \"simulated\"\n\
             [dependencies.all]\nkind = \"mcp_group\"\nmembers = {members}\n"
        )
    };
    let read = |members: &str| {
        let settings = load(&group(members)).unwrap_or_else(|error| panic!("{error}"));
        let all = &settings.dependencies["all"];
        assert_eq!(all.kind, Some(DependencyKind::McpGroup));
        let members = all.members.as_ref().unwrap().iter();
        members
            .map(|one| (one.prefix.clone(), one.name.clone()))
            .collect::<Vec<_>>()
    };
    let pair = |prefix: &str, name: &str| (prefix.to_owned(), name.to_owned());
    assert_eq!(
        read("[\"kg\", \"web\"]"),
        [pair("kg", "kg"), pair("web", "web")]
    );
    assert_eq!(
        read("{ a = \"kg\", b = \"web\" }"),
        [pair("a", "kg"), pair("b", "web")]
    );
    for (members, said) in [
        ("[]", "a table of prefixes"),
        ("[\"none\"]", "there is no dependency \"none\""),
        ("[\"plain\"]", "plain is no MCP server"),
        ("[\"all\"]", "all is no MCP server"),
        ("[\"kg\", \"kg\"]", "ambiguous"),
        ("{ a = \"kg\", a_b = \"web\" }", "ambiguous"),
        ("{ \"a b\" = \"kg\" }", "a table of prefixes"),
    ] {
        let told = load(&group(members)).expect_err(members).to_string();
        assert!(told.contains(said), "{members}: {told}");
    }
    let closed = group("[\"kg\"]").replace(
        "/mcp\"\n",
        "/mcp\"\nauth = { tokens = [\"0123456789abcdef\"] }\n",
    );
    let told = load(&closed).unwrap_err().to_string();
    assert!(
        told.contains("would reach kg without its credentials"),
        "{told}"
    );
    let open = "[dependencies.open]\nkind = \"http\"\nurl = \"http://127.0.0.1:9\"\n\
                [[dependencies.open.fallback]]\nkind = \"dependency\"\nname = \"own\"\n\
                [dependencies.own]\nkind = \"http\"\nurl = \"http://127.0.0.1:8\"\n\
                auth = { tokens = [\"0123456789abcdef\"] }\n";
    let told = load(open).unwrap_err().to_string();
    assert!(
        told.contains("callers of the dependency would reach own without its credentials"),
        "{told}"
    );
    let falls =
        group("[\"kg\"]") + "[[dependencies.kg.fallback]]\nkind = \"dependency\"\nname = \"all\"\n";
    let told = load(&falls).unwrap_err().to_string();
    assert!(told.contains("a group answers no calls itself"), "{told}");
    let none = load("[dependencies.all]\nkind = \"mcp_group\"\n")
        .unwrap_err()
        .to_string();
    assert!(none.contains("kind = \"mcp_group\" needs it"), "{none}");
    let more = group("[\"kg\"]") + "[dependencies.all.breaker]\nfailure_threshold = 3\n";
    let settings = load(&more).unwrap();
    let warnings = settings.warnings().iter().map(ToString::to_string);
    let warnings = warnings.collect::<Vec<_>>().join("\n");
    assert!(warnings.contains("members have their own"), "{warnings}");
}
