//! EDGE-7: `serve` refuses what `check` refuses, and keeps its secrets from its children.

use super::serve::{Sidecar, command, configured, folder, http};
use super::*;

#[test]
fn edge_7_e8a_serve_never_simulates_in_place_of_a_named_folder() {
    let folder = folder();
    let ended = |arguments: &[&str]| {
        let output = command(folder.path()).args(arguments).output();
        let output = output.expect("it starts");
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            (output.status.code(), &*output.stdout),
            (Some(2), &b""[..]),
            "{err}"
        );
        err
    };
    std::fs::create_dir(folder.path().join("named")).unwrap();
    assert!(ended(&["--config", "named"]).contains("default.toml"));
    assert!(ended(&["--env", "production"]).contains("there is no configuration"));
    let text = "[recorder]\npath = \"named\"\n";
    configured(folder.path(), text);
    assert!(ended(&[]).contains("recorder.path: given \"named\""));
    assert!(folder.path().join("named").is_dir());
}

#[tokio::test]
async fn edge_8_e9b_a_get_is_tried_again_by_default_and_a_post_is_not() {
    let upstream = Upstream::of(async |_| answer(500, "no")).await;
    let text = format!(
        "[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n\
         retry = {{ max_attempts = 3, backoff = {{ base = \"1ms\" }} }}\n",
        upstream.url()
    );
    let folder = folder();
    configured(folder.path(), &text);
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let response = http().get(sidecar.url("/web/")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), upstream.hits()), (500, 3));
    let response = http().post(sidecar.url("/web/")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), upstream.hits()), (500, 4));
}

/// The files of a process that may not be inspected belong to the superuser.
#[cfg(target_os = "linux")]
#[test]
fn edge_7_e8e_no_child_can_read_the_secrets_of_the_process() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::process::CommandExt as _;
    let folder = folder();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    configured(folder.path(), "[reload]\nallow_empty = true\n");
    let mut command = command(folder.path());
    command.env("BREAKERBOX__ADMIN__TOKEN", "a-token-of-many-letters");
    let own = std::fs::metadata(folder.path()).unwrap().uid();
    if own == 0 {
        command.uid(65534);
        // A folder of the superuser may be closed to others.
        let probe = std::process::Command::new(env!("CARGO_BIN_EXE_breakerbox"))
            .arg("--version")
            .uid(65534)
            .output();
        if probe.is_err() {
            return;
        }
    }
    let sidecar = Sidecar::start(command, 1);
    let environ = format!("/proc/{}/environ", sidecar.process());
    assert_eq!(std::fs::metadata(environ).unwrap().uid(), 0);
}
