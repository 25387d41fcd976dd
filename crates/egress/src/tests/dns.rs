use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query};
use tokio::net::UdpSocket;

use super::*;

/// Asks the door for names; the code and the answers.
pub(super) async fn ask(net: &Net, name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(&query(name, kind), net.dns).await.unwrap();
    let mut buffer = [0; 2048];
    let (count, _) = timeout(WAIT, client.recv_from(&mut buffer)).await.unwrap().unwrap();
    read(&buffer[..count])
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn read(bytes: &[u8]) -> (ResponseCode, Vec<String>) {
    let answer = Message::from_vec(bytes).unwrap();
    assert_eq!(
        (answer.metadata.id, answer.metadata.message_type),
        (7, MessageType::Response)
    );
    (
        answer.metadata.response_code,
        answer.answers.iter().map(|record| record.data.to_string()).collect(),
    )
}

#[tokio::test]
async fn public_names_without_forbidden_addresses() {
    let net = Net::new(None, &[], &["b.test"]).await;
    let good = |addresses: &[&str]| {
        (
            ResponseCode::NoError,
            addresses.iter().map(|a| (*a).to_owned()).collect(),
        )
    };
    assert_eq!(ask(&net, "A.test.", RecordType::A).await, good(&["127.0.0.2"]));
    assert_eq!(ask(&net, "a.test.", RecordType::TXT).await, good(&["text"]));
    assert_eq!(
        ask(&net, "both.test.", RecordType::A).await,
        good(&["127.0.0.2"]),
        "rebinding"
    );
    assert_eq!(ask(&net, "none.test.", RecordType::A).await.0, ResponseCode::NXDomain);
    assert_eq!(net.blocked(), []);
    for name in ["b.test.", "inside.test.", "own.test."] {
        assert_eq!(
            ask(&net, name, RecordType::A).await,
            (ResponseCode::Refused, vec![]),
            "{name}"
        );
    }
    let blocked = net.blocked();
    let seen: Vec<_> = blocked.iter().map(|e| (e.host.as_str(), e.port, e.protocol)).collect();
    assert_eq!(
        seen,
        [("b.test", 0, "dns"), ("inside.test", 0, "dns"), ("own.test", 0, "dns")]
    );
}

#[tokio::test]
async fn an_allowlist_asks_for_nothing_else() {
    let net = Net::new(Some(false), &["a.test"], &[]).await;
    assert_eq!(ask(&net, "b.test.", RecordType::A).await.0, ResponseCode::Refused);
    assert_eq!(
        ask(&net, "secret.a.test.", RecordType::A).await.0,
        ResponseCode::Refused
    );
    assert_eq!(
        ask(&net, "a.test.", RecordType::TXT).await,
        (ResponseCode::NoError, vec![])
    );
    assert_eq!(net.asked.load(Ordering::Relaxed), 0, "nothing was asked outside");
    assert_eq!(ask(&net, "a.test.", RecordType::A).await.1, ["127.0.0.2"]);
    assert_eq!(net.asked.load(Ordering::Relaxed), 1);
    assert_eq!(net.refused().len(), 2);
}

#[tokio::test]
async fn no_network_has_no_names() {
    let net = Net::new(Some(false), &[], &[]).await;
    assert_eq!(ask(&net, "a.test.", RecordType::A).await.0, ResponseCode::Refused);
    assert_eq!(net.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn over_tcp_too() {
    let net = Net::new(None, &[], &[]).await;
    *net.original.lock().unwrap() = "9.9.9.9:53".parse().unwrap();
    let mut client = TcpStream::connect(net.tcp).await.unwrap();
    for _ in 0..2 {
        let query = query("a.test.", RecordType::A);
        client.write_u16(u16::try_from(query.len()).unwrap()).await.unwrap();
        client.write_all(&query).await.unwrap();
        let count = timeout(WAIT, client.read_u16()).await.unwrap().unwrap();
        let mut answer = vec![0; usize::from(count)];
        timeout(WAIT, client.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(read(&answer).1, ["127.0.0.2"]);
    }
}
