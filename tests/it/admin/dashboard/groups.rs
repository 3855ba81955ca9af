//! Groups of MCP servers, in the API, on the command line and on the page.

use std::process::Command;

use serde_json::{Value, json};

use super::Page;
use crate::demo::breakerbox;
use crate::gateway::serve::{Sidecar, command, configured};
use crate::tools;

/// A sidecar with a group of a server that runs and one that does not start.
fn half_well() -> Option<(Sidecar, tempfile::TempDir)> {
    tools::find(&["python3"])?;
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mcp_server.py");
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[dependencies.runs]\nkind = \"mcp_stdio\"\ncommand = \"python3\"\n\
         args = [\"-u\", {program:?}, \"older\"]\n\
         [dependencies.absent]\nkind = \"mcp_stdio\"\ncommand = \"a-program-that-is-not-there\"\n\
         [dependencies.all]\nkind = \"mcp_group\"\nmembers = {{ r = \"runs\", x = \"absent\" }}\n"
    );
    configured(folder.path(), &text);
    Some((Sidecar::start(command(folder.path()), 1), folder))
}

async fn ran(mut command: Command) -> String {
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap());
    let ran = tokio::time::timeout(super::super::LONG, ran)
        .await
        .unwrap()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    String::from_utf8(ran.stdout).unwrap()
}

#[tokio::test]
async fn mcp_6_a_group_is_told_with_its_sick_members() {
    let Some((sidecar, _folder)) = half_well() else {
        return;
    };
    let url = sidecar.admin("/api/groups");
    let told = async {
        loop {
            let told: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
            if told[0]["sick"] == json!(["absent"]) {
                return told;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let told = tokio::time::timeout(super::super::LONG, told)
        .await
        .unwrap();
    let group = &told[0];
    assert_eq!(
        (&group["name"], &group["health"]),
        (&json!("all"), &json!("degraded"))
    );
    assert_eq!(group["health_reason"], "1 of 2 members is not well: absent");
    let members = group["members"].as_array().unwrap();
    assert_eq!(
        (&members[0]["prefix"], &members[0]["health"]),
        (&json!("r"), &json!("ok"))
    );
    assert_eq!(
        (&members[1]["prefix"], &members[1]["health"]),
        (&json!("x"), &json!("down"))
    );
    let status = |more: &[&str]| {
        let mut arguments = vec!["status"];
        arguments.extend(more);
        let mut command = breakerbox(&arguments);
        command.args(["--admin", &sidecar.admin("")]);
        command
    };
    let table = ran(status(&[])).await;
    let (all, groups) = table.split_once("\n\n").unwrap();
    assert!(all.contains("| runs") && all.contains("| absent"), "{all}");
    for words in ["| all", "1 of 2 members is not well: absent", "| x "] {
        assert!(groups.contains(words), "{words}: {groups}");
    }
    let one = ran(status(&["all"])).await;
    assert!(one.contains("| runs") && one.contains("degraded"), "{one}");
    let one: Value = serde_json::from_str(&ran(status(&["all", "--json"])).await).unwrap();
    assert_eq!(one["sick"], json!(["absent"]), "{one}");
    let Some(page) = Page::start().await else {
        return;
    };
    page.visit(&sidecar.admin("/")).await;
    let text = "document.querySelector('#groups').innerText";
    page.until(&format!(
        "!document.querySelector('#groups').hidden && {text}.includes('1 group has sick members')"
    ))
    .await;
    let seen = page.text(text).await;
    for words in ["all", "degraded", "runs", "well", "absent", "down"] {
        assert!(seen.contains(words), "{words}: {seen}");
    }
    let complaints = page.complaints().await;
    assert!(complaints.is_empty(), "{complaints:?}");
    page.close().await;
}
