//! Tests of reading messages.

use super::*;

fn read(text: &'static str) -> Result<RawMessage, MessageFault> {
    RawMessage::read(&Bytes::from_static(text.as_bytes()))
}

#[test]
fn mcp_2_m6_messages_are_told_apart() {
    let asked = read(r#"{"jsonrpc":"2.0","id":"a","method":"x","params":{"name":"n"}}"#);
    assert!(
        matches!(asked, Ok(RawMessage::Request { id, method, params: Some(params) })
            if id.as_json() == "\"a\"" && &*method == "x"
                && ParamsHead::read(&params).unwrap().name.as_deref() == Some("n"))
    );
    let said = read(r#"{"jsonrpc":"2.0","method":"x"}"#);
    assert!(matches!(
        said,
        Ok(RawMessage::Notification { params: None, .. })
    ));
    let answer = read(r#"{"id":7,"result":null,"jsonrpc":"2.0"}"#);
    assert!(
        matches!(answer, Ok(RawMessage::Answer { id: Some(id), outcome: Ok(_) }) if id.number() == Some(7))
    );
    let error = read(r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"m","data":[]}}"#);
    let Ok(RawMessage::Answer {
        id: None,
        outcome: Err(error),
    }) = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(error.data.unwrap().as_str(), "[]");
}

#[test]
fn mcp_3_an_error_with_an_odd_code_or_message_keeps_its_data() {
    for (members, code, message) in [
        (r#""code":-32042,"message":null"#, -32042, ""),
        (r#""code":-32042"#, -32042, ""),
        (r#""code":-32042.0,"message":"m""#, -32042, "m"),
        (r#""code":-3.2042e4,"message":["m"]"#, -32042, r#"["m"]"#),
        // JSON-RPC says nothing of 32 bits, and the codes of some systems need more.
        (r#""code":2147942402,"message":"m""#, 2_147_942_402, "m"),
        (r#""code":-2147483649,"message":"m""#, -2_147_483_649, "m"),
    ] {
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":7,"error":{{{members},"data":{{"url":"u"}}}}}}"#);
        let read = RawMessage::read(&Bytes::from(text));
        let Ok(RawMessage::Answer {
            outcome: Err(error),
            ..
        }) = read
        else {
            panic!("{members}: {read:?}");
        };
        assert_eq!((error.code, &*error.message), (code, message));
        assert_eq!(error.data.unwrap().as_str(), r#"{"url":"u"}"#);
    }
}

#[test]
fn mcp_3_an_id_is_a_number_in_each_form_of_it() {
    for text in ["7", "7.0", "7e0", "0.7e1", "\"7\""] {
        assert_eq!(MessageId::new(text).unwrap().number(), Some(7), "{text}");
    }
    for text in ["7.5", "-7", "1e300", "\"x\"", "\"NaN\"", "\"-inf\""] {
        assert_eq!(MessageId::new(text).unwrap().number(), None, "{text}");
    }
}

#[test]
fn mcp_3_m6_what_is_no_message_says_why() {
    assert_eq!(read("{").unwrap_err(), MessageFault::Syntax);
    assert_eq!(read("").unwrap_err(), MessageFault::Syntax);
    for text in ["[]", "7", "{}", r#"["2.0",7,"x"]"#] {
        assert_eq!(read(text).unwrap_err(), MessageFault::Shape(None), "{text}");
    }
    let unnamed = read(r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#);
    assert_eq!(unnamed.unwrap_err(), MessageFault::Request(None));
    let seven = || MessageId::new("7");
    for text in [
        r#"{"jsonrpc":"2.0","id":7}"#,
        r#"{"jsonrpc":"2.0","id":7,"error":3}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"x","result":{}}"#,
    ] {
        assert_eq!(
            read(text).unwrap_err(),
            MessageFault::Shape(seven()),
            "{text}"
        );
    }
    for text in [
        r#"{"jsonrpc":"1.0","id":7,"method":"x"}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":3}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"x","params":[]}"#,
    ] {
        assert_eq!(
            read(text).unwrap_err(),
            MessageFault::Request(seven()),
            "{text}"
        );
    }
}

#[test]
fn mcp_2_m6_no_depth_is_too_deep() {
    let deep = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{\"a\":{}{}}}}}",
        "[".repeat(300_000),
        "]".repeat(300_000)
    );
    let read = RawMessage::read(&Bytes::from(deep)).unwrap();
    assert!(matches!(read, RawMessage::Answer { outcome: Ok(_), .. }));
}

#[test]
fn mcp_3_m6_the_head_of_a_result_is_read_and_nothing_else() {
    let head = |text: &'static str| {
        ResultHead::read(&JsonText::checked(Bytes::from_static(text.as_bytes())))
    };
    let own = head(r#"{"isError":true,"content":[],"resultType":"complete"}"#);
    assert!(own.is_error && !own.has_odd_content && !own.asks_for_input());
    assert!(head(r#"{"content":"text"}"#).has_odd_content);
    assert!(head(r#"{"resultType":"input_required"}"#).asks_for_input());
    assert!(!head("[1]").is_error);
}
