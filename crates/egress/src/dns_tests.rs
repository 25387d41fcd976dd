use hickory_resolver::proto::op::Query;

use super::*;

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

#[test]
fn queries_are_read() {
    let question = parse(&query("Example.COM.", RecordType::A).to_vec().unwrap()).unwrap();
    assert_eq!((question.name.as_str(), question.kind), ("example.com", RecordType::A));
    let answer = begin(&question.message);
    assert_eq!(answer.metadata.id, 7);
    assert_eq!(
        answer.queries[0].name.to_ascii(),
        "Example.COM.",
        "a client compares it with what it asked"
    );
}

#[test]
fn what_is_no_query() {
    let whole = query("example.com.", RecordType::A).to_vec().unwrap();
    for end in 0..12 {
        assert_eq!(parse(&whole[..end]), Err(None), "{end}");
    }
    let code = |bytes: &[u8]| parse(bytes).unwrap_err().map(|answer| answer.metadata.response_code);
    for end in 12..whole.len() {
        assert_eq!(code(&whole[..end]), Some(ResponseCode::FormErr), "{end}");
    }
    let mut response = whole.clone();
    response[2] |= 0x80;
    assert_eq!(parse(&response), Err(None));
    let mut two = query("a.com.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(code(&two.to_vec().unwrap()), Some(ResponseCode::FormErr));
    let mut update = query("a.com.", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(code(&update.to_vec().unwrap()), Some(ResponseCode::NotImp));
    let mut chaos = query("a.com.", RecordType::A);
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(code(&chaos.to_vec().unwrap()), Some(ResponseCode::Refused));
    assert_eq!(
        code(&query(".", RecordType::NS).to_vec().unwrap()),
        Some(ResponseCode::Refused)
    );
    for label in [&b"a.b"[..], b"a\0b", b"a b", b"a/b", b"\xff", b"a\\b"] {
        let name = Name::from_labels([label, b"com"]).unwrap();
        let mut message = query("a.com.", RecordType::A);
        message.queries[0].name = name;
        assert_eq!(
            code(&message.to_vec().unwrap()),
            Some(ResponseCode::Refused),
            "{label:?}"
        );
    }
    for at in 0..whole.len() {
        for value in [0, 0x3f, 0xc0, 0xff] {
            let mut garbage = whole.clone();
            garbage[at] = value;
            let _ = parse(&garbage);
        }
    }
}
