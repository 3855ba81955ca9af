//! `gateway.max_buffered` and `gateway.per_caller`.

use super::*;

#[test]
fn edge_4_e6f_a_share_of_connections_holds_where_other_machines_connect() {
    let gateway = |text: &str| {
        of_text(&format!("[gateway]\n{text}"))
            .load()
            .unwrap()
            .gateway
    };
    for local in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
        let shares = gateway(&format!("bind = \"{local}\"")).per_caller;
        assert_eq!(
            (shares.places, shares.keys, shares.connections),
            (None, None, None)
        );
    }
    let shares = gateway("bind = \"0.0.0.0:0\"\nmax_connections = 400").per_caller;
    assert_eq!((shares.places, shares.keys), (None, None));
    assert_eq!(shares.connections, Some(nonzero(100)));
    for off in ["\"off\"", "{ connections = \"off\" }"] {
        let text = format!("bind = \"0.0.0.0:0\"\nper_caller = {off}");
        assert_eq!(gateway(&text).per_caller.connections, None, "{off}");
    }
    let shares = gateway("per_caller = { places = 5, keys = 6, connections = 7 }").per_caller;
    assert_eq!(
        (shares.places, shares.keys),
        (Some(nonzero(5)), Some(nonzero(6)))
    );
    assert_eq!(shares.connections, Some(nonzero(7)));
}

#[test]
fn edge_4_e6c_bounds_are_checked_and_dead_ones_are_told() {
    let text = "[gateway]\nmax_buffered = \"1KB\"\nper_caller = { places = 0, plaices = 1 }";
    let found = problems(of_text(text));
    assert_eq!(found.len(), 3, "{found:?}");
    for key in ["gateway.max_buffered", "gateway.per_caller.places"] {
        assert!(found.iter().any(|line| line.contains(key)), "{found:?}");
    }
    assert!(
        found
            .iter()
            .any(|line| line.contains("did you mean places?")),
        "{found:?}"
    );
    let text = "[gateway]\nbind = \"0.0.0.0:0\"\nmax_connections = 10\nmax_buffered = \"2MB\"\n\
                max_replay_body = \"3MB\"\nper_caller = { keys = 1, connections = 20 }";
    let settings = of_text(text).load().unwrap();
    let mut warned: Vec<_> = settings
        .warnings()
        .iter()
        .map(|one| one.key.clone())
        .collect();
    warned.sort_unstable();
    let expected = [
        "gateway.max_replay_body",
        "gateway.per_caller.connections",
        "gateway.per_caller.keys",
    ];
    assert_eq!(warned, expected);
}
