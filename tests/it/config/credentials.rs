//! Item 95: each defect of a service-account key has its own message.

use std::path::Path;

use breakerbox::config::Settings;
use breakerbox::config::credentials::{CredentialsError, check};

use super::{folder_with, of_text};

/// A secret that must never be displayed.
pub(super) const SECRET: &str = "hunter2";

/// A key with every field; `change` replaces some of them.
pub(super) fn key(change: &[(&str, &str)]) -> String {
    // Assembled here, so that secret scanners do not report it.
    let pem = format!("-----BEGIN {} KEY-----\n{SECRET}\n", "PRIVATE");
    let mut fields = serde_json::json!({
        "type": "service_account",
        "project_id": "search",
        "private_key_id": SECRET,
        "private_key": pem,
        "client_email": "search@search.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "https://oauth2.googleapis.com/token",
    });
    for (name, value) in change {
        fields[*name] = (*value).into();
    }
    fields.to_string()
}

fn owner_only(path: &Path) {
    set_mode(path, 0o600);
}

#[cfg(unix)]
pub(super) fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).expect("the test owns the file");
}

#[cfg(not(unix))]
pub(super) fn set_mode(_: &Path, _: u32) {}

#[test]
fn item_95_each_thing_wrong_with_a_key_has_its_own_words() {
    let without = |name: &str| {
        let mut fields: serde_json::Value = serde_json::from_str(&key(&[])).unwrap();
        fields.as_object_mut().unwrap().remove(name);
        fields.to_string()
    };
    let user = [("type", "authorized_user"), ("refresh_token", SECRET)];
    let cases = [
        (String::new(), "it is not JSON (line 1, column 0)"),
        (
            format!("{{\"private_key\": {SECRET}"),
            "it is not JSON (line 1, column 17)",
        ),
        (
            format!("[\"{SECRET}\"]"),
            "it is not the key of a service account",
        ),
        (
            key(&[("type", SECRET)]),
            "it is not the key of a service account",
        ),
        (
            key(&user),
            "it is not the key of a service account but the login of a user",
        ),
        (
            "{}".to_owned(),
            "it lacks type, project_id, private_key_id, private_key, client_email, token_uri",
        ),
        (without("type"), "it lacks type"),
        (without("client_email"), "it lacks client_email"),
        (key(&[("project_id", " ")]), "it lacks project_id"),
        (
            key(&[("private_key", SECRET)]),
            "its private_key is not in the format PEM",
        ),
        (
            format!("{}{}", key(&[]), " ".repeat(65536)),
            "it is longer than 65536 bytes",
        ),
    ];
    for (text, expected) in cases {
        let folder = folder_with(&[("key.json", &text)]);
        let error = check(&folder.path().join("key.json")).expect_err(expected);
        assert_eq!(error.to_string(), expected);
        assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
    }
    let folder = folder_with(&[("good.json", &key(&[]))]);
    let at = |name: &str| folder.path().join(name);
    assert_eq!(check(&at("none.json")), Err(CredentialsError::Missing));
    assert_eq!(check(folder.path()), Err(CredentialsError::NotAFile));
    std::fs::write(at("binary.p12"), [0x30, 0x82, 0xff]).unwrap();
    assert_eq!(check(&at("binary.p12")), Err(CredentialsError::NotText));
    owner_only(&at("good.json"));
    assert_eq!(check(&at("good.json")), Ok(None));
}

#[cfg(unix)]
#[test]
fn item_95_a_key_that_others_may_read_only_warns() {
    let folder = folder_with(&[("key.json", &key(&[]))]);
    let path = folder.path().join("key.json");
    for (mode, is_exposed) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
        set_mode(&path, mode);
        let exposed = check(&path).expect("it can be used");
        assert_eq!(
            exposed.map(|exposed| exposed.mode),
            is_exposed.then_some(mode)
        );
    }
    let text = format!("[dependencies.web]\ncredentials = {path:?}");
    let settings = of_text(&text).load().expect("it is only a warning");
    assert_eq!(
        settings.dependencies["web"].credentials.as_deref(),
        Some(path.as_path())
    );
    let [warning] = settings.warnings() else {
        panic!("{:?}", settings.warnings());
    };
    assert_eq!(
        warning.to_string(),
        "dependencies.web.credentials: others than its owner may read it, its mode is 604 where 600 is enough (the given text:2)"
    );
    owner_only(&path);
    assert_eq!(of_text(&text).load().unwrap().warnings(), []);
}

#[test]
fn item_95_a_bad_key_is_a_problem_beside_the_others() {
    let folder = folder_with(&[("key.json", &key(&[("private_key", SECRET)]))]);
    let path = folder.path().join("key.json");
    let text = format!(
        "[dependencies.a]\ncredentials = {path:?}\nkind = \"odd\"\n[dependencies.b]\ncredentials = \"no/key.json\""
    );
    let error = of_text(&text).load().expect_err("two keys are bad");
    let keys: Vec<&str> = error
        .problems()
        .iter()
        .map(|one| one.key.as_str())
        .collect();
    let expected = [
        "dependencies.a.credentials",
        "dependencies.a.kind",
        "dependencies.b.credentials",
    ];
    assert_eq!(keys, expected, "{error}");
    assert_eq!(
        error.problems()[2].to_string(),
        "dependencies.b.credentials: given \"no/key.json\", there is no such file, allowed: the JSON key file of a service account (the given text:5)"
    );
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
    assert!(Settings::keys().contains(&"dependencies.*.credentials".to_owned()));
}
