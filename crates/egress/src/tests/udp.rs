use super::*;
use crate::udp::allowed;

fn rule(net: &Net, to: &str) -> Result<Option<String>, String> {
    allowed(&net.attached.sandbox, to.parse().unwrap()).map_err(|refusal| refusal.rule)
}

#[tokio::test]
async fn datagrams_go_by_address_or_by_a_name_that_was_asked_for() {
    let net = Net::new(Some(false), &["a.test", "127.0.0.3"], &[]).await;
    assert_eq!(rule(&net, "127.0.0.3:443"), Ok(None));
    assert_eq!(rule(&net, "127.0.0.2:123"), Err("not in allow_out".into()));
    super::dns::ask(&net, "a.test.", RecordType::A).await;
    assert_eq!(rule(&net, "127.0.0.2:123"), Ok(Some("a.test".into())));
    assert!(rule(&net, "127.0.0.2:443").unwrap_err().starts_with("QUIC"));
    assert!(rule(&net, "127.0.0.1:123").is_err());
}

#[tokio::test]
async fn public_has_quic_unless_names_are_denied() {
    let open = Net::new(None, &[], &["127.0.0.4"]).await;
    assert_eq!(rule(&open, "127.0.0.2:443"), Ok(None));
    assert_eq!(rule(&open, "127.0.0.4:443"), Err("deny_out 127.0.0.4".into()));
    assert!(rule(&open, "127.0.1.1:443").unwrap_err().starts_with("private address"));
    let denying = Net::new(None, &[], &["b.test"]).await;
    assert_eq!(rule(&denying, "127.0.0.2:123"), Ok(None));
    assert!(rule(&denying, "127.0.0.2:443").unwrap_err().starts_with("QUIC"));
}
