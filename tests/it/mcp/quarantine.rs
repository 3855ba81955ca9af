//! A call that crashes its server again and again (rule SUP-6).

use super::beside::{Beside, guarded};
use super::*;

#[tokio::test]
async fn sup_6_m16_a_call_that_crashes_its_server_twice_is_refused_and_no_other() {
    let Some(bed) = Beside::start(|folder| guarded(folder, "sick", "", "")) else {
        return;
    };
    bed.until_well("sick").await;
    // Equal but for the order of the members, the key and the metadata.
    let poison = |number: u32, arguments: &str| {
        let text =
            format!("{{\"name\":\"exit\",\"arguments\":{arguments},\"_meta\":{{\"n\":{number}}}}}");
        let params: Value = serde_json::from_str(&text).unwrap();
        let (bed, key) = (&bed, number.to_string());
        async move {
            let headers = [("breakerbox-key", &*key)];
            bed.rpc("sick", "tools/call", params, &headers).await
        }
    };
    for (number, arguments) in [(1, r#"{"status":3,"x":1}"#), (2, r#"{"x":1,"status":3}"#)] {
        let crashed = poison(number, arguments).await;
        let message = crashed["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("exit status: 3"), "{crashed}");
        bed.until_well("sick").await;
    }
    let before = scripted::notes(&bed.own("sick")).len();
    let refused = poison(3, r#"{"status":3,"x":1}"#).await;
    assert_eq!(
        refused["error"]["data"]["type"], "urn:breakerbox:quarantined",
        "{refused}"
    );
    assert_eq!(refused["error"]["data"]["executed"], "no", "{refused}");
    assert_eq!(
        scripted::notes(&bed.own("sick")).len(),
        before,
        "nothing was sent"
    );
    assert_eq!(bed.echo("sick").await.as_deref(), Some("hi"));
    let other = poison(4, r#"{"status":4}"#).await;
    let message = other["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("exit status: 4"), "{other}");
    bed.until_well("sick").await;
    bed.good_is_untouched().await;
    bed.end().await;
}
