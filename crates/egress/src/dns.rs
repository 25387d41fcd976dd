//! Name queries of a sandbox: held against its rules, asked of this host's resolver, and freed of forbidden addresses.

use std::{net::IpAddr, sync::Arc};

use hickory_resolver::proto::{
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata::svcb::SvcParamValue},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    blocked::Refusal,
    door::Door,
    limits, name,
    policy::Policy,
    resolve::{Unfound, address},
    sandbox::Sandbox,
};

/// Serves the door for datagrams.
pub(crate) async fn serve_udp(sandbox: Arc<Sandbox>, door: Arc<Door>) {
    let mut buffer = vec![0; limits::QUERY + 1];
    loop {
        let Ok((count, client)) = door.receive(&mut buffer).await else {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&sandbox.queries).try_acquire_owned() else {
            continue;
        };
        if count > limits::QUERY {
            continue;
        }
        let (query, door, own) = (buffer[..count].to_vec(), Arc::clone(&door), Arc::clone(&sandbox));
        sandbox.spawn(async move {
            if let Some(answer) = answer(&own, &query, true).await
                && let Err(error) = door.send(&answer, client).await
            {
                tracing::debug!(%error, "the answer to a name query cannot be sent");
            }
            drop(permit);
        });
    }
}

/// Serves queries over a connection that was meant for a name server.
pub(crate) async fn serve_tcp(sandbox: &Sandbox, mut client: TcpStream) {
    for _ in 0..limits::QUERIES_PER_CONNECTION {
        let Ok(Ok(count)) = timeout(limits::DNS_IDLE, client.read_u16()).await else {
            return;
        };
        let mut query = vec![0; usize::from(count)];
        if query.len() > limits::QUERY {
            return;
        }
        let Ok(Ok(_)) = timeout(limits::DNS_IDLE, client.read_exact(&mut query)).await else {
            return;
        };
        let Ok(permit) = sandbox.queries.acquire().await else {
            return;
        };
        let Some(answer) = answer(sandbox, &query, false).await else {
            return;
        };
        drop(permit);
        let Ok(count) = u16::try_from(answer.len()) else { return };
        let framed = [&count.to_be_bytes()[..], &answer].concat();
        let Ok(Ok(())) = timeout(limits::DNS_IDLE, client.write_all(&framed)).await else {
            return;
        };
    }
}

/// A query that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    message: Message,
    /// In its one form.
    name: String,
    kind: RecordType,
}

/// Reads a query. The error is the answer to one that is not understood; none to what is not worth one.
pub(crate) fn parse(bytes: &[u8]) -> Result<Question, Option<Box<Message>>> {
    let [high, low, flags, ..] = bytes else {
        return Err(None);
    };
    // An answer is never answered: two servers could do so for ever.
    if bytes.len() < 12 || flags & 0x80 != 0 {
        return Err(None);
    }
    let id = u16::from_be_bytes([*high, *low]);
    let error = |code| Err(Some(Box::new(Message::error_msg(id, OpCode::Query, code))));
    let Ok(message) = Message::from_vec(bytes) else {
        return error(ResponseCode::FormErr);
    };
    if message.metadata.message_type != MessageType::Query || message.metadata.op_code != OpCode::Query {
        return error(ResponseCode::NotImp);
    }
    let [query] = message.queries.as_slice() else {
        return error(ResponseCode::FormErr);
    };
    let refuse = |code| {
        let mut answer = begin(&message);
        answer.metadata.response_code = code;
        Err(Some(Box::new(answer)))
    };
    if query.query_class != DNSClass::IN {
        return refuse(ResponseCode::Refused);
    }
    let Some(name) = text(&query.name) else {
        return refuse(ResponseCode::Refused);
    };
    Ok(Question {
        name,
        kind: query.query_type,
        message,
    })
}

/// For fuzzing: the name that a query asks for, or the answer to one that is not understood.
#[cfg(fuzzing)]
pub(crate) fn asked(bytes: &[u8]) -> Result<(String, Vec<u8>), Option<Vec<u8>>> {
    match parse(bytes) {
        Ok(question) => {
            let answer = begin(&question.message).to_vec().unwrap_or_default();
            Ok((question.name, answer))
        }
        Err(answer) => Err(answer.map(|answer| answer.to_vec().unwrap_or_default())),
    }
}

/// A name as rules are held against it; `None` if it has characters that could be mistaken.
fn text(name: &Name) -> Option<String> {
    let labels: Option<Vec<&str>> = name.iter().map(|label| std::str::from_utf8(label).ok()).collect();
    let text = labels
        .filter(|labels| labels.iter().all(|label| label.is_ascii() && !label.contains('.')))?
        .join(".");
    name::name(&text).ok()
}

/// An answer without records.
fn begin(query: &Message) -> Message {
    let mut answer = Message::response(query.metadata.id, OpCode::Query);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.add_queries(query.queries.iter().cloned());
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(u16::try_from(limits::ANSWER_UDP).unwrap_or(512));
        answer.set_edns(edns);
    }
    answer
}

/// Answers a query, if it deserves that.
pub(crate) async fn answer(sandbox: &Sandbox, bytes: &[u8], datagram: bool) -> Option<Vec<u8>> {
    let (answer, room) = match parse(bytes) {
        Ok(question) => {
            let theirs = usize::from(question.message.max_payload());
            (resolve(sandbox, &question).await, theirs.clamp(512, limits::ANSWER_UDP))
        }
        Err(answer) => (*answer?, 512),
    };
    let whole = answer.to_vec().ok()?;
    if datagram && whole.len() > room || whole.len() > usize::from(u16::MAX) {
        // The client asks again over TCP.
        return answer.truncate().to_vec().ok();
    }
    Some(whole)
}

async fn resolve(sandbox: &Sandbox, question: &Question) -> Message {
    let mut answer = begin(&question.message);
    let policy = sandbox.policy();
    if let Err(refusal) = sandbox.judge(Some(&question.name), None, None, "dns") {
        sandbox.block(refusal);
        answer.metadata.response_code = ResponseCode::Refused;
        return answer;
    }
    if !forwarded(&policy, question.kind) {
        // The name is there, but has no such record.
        return answer;
    }
    match sandbox.world.resolver.lookup(&question.name, question.kind).await {
        Ok(records) => {
            let some = !records.is_empty();
            let (left, refused) = filter(sandbox, question, records);
            if let Some(refusal) = refused
                && some
                && left.is_empty()
            {
                sandbox.block(refusal);
                answer.metadata.response_code = ResponseCode::Refused;
            }
            answer.add_answers(left);
        }
        Err(Unfound { code, soa }) => {
            answer.metadata.response_code = match code {
                ResponseCode::NoError | ResponseCode::NXDomain | ResponseCode::Refused => code,
                _ => ResponseCode::ServFail,
            };
            answer.add_authorities(soa);
        }
    }
    answer
}

/// Which kinds of record are asked for at all. Where only some names are allowed, only their addresses are: other records
/// carry data of anybody's choice.
fn forwarded(policy: &Policy, kind: RecordType) -> bool {
    use RecordType as R;
    match kind {
        R::A | R::AAAA => true,
        R::CNAME | R::MX | R::TXT | R::SRV | R::PTR | R::NS | R::SOA | R::CAA => policy.open_names(),
        // They hold keys that hide the name which a client asks for within TLS.
        R::HTTPS | R::SVCB => policy.open_names() && !policy.denies_names(),
        _ => false,
    }
}

/// Takes forbidden addresses out, and remembers those that are given for a name which a rule allows. If no record that
/// was asked for is left, nothing is.
fn filter(sandbox: &Sandbox, question: &Question, records: Vec<Record>) -> (Vec<Record>, Option<Refusal>) {
    let mut refused = None;
    let mut allowed = |ip: IpAddr| match sandbox.judge(Some(&question.name), Some(ip), None, "dns") {
        Ok(_) => true,
        Err(refusal) => {
            refused = Some(refusal);
            false
        }
    };
    let mut left: Vec<Record> = records
        .into_iter()
        .filter(|record| addresses(&record.data).into_iter().all(&mut allowed))
        .collect();
    if !left.iter().any(|record| record.record_type() == question.kind) && refused.is_some() {
        left.clear();
    }
    if sandbox.policy().is_named(Some(&question.name), None, None) {
        let name: Arc<str> = question.name.as_str().into();
        for ip in left.iter().filter_map(address) {
            sandbox.hand_out(ip, &name);
        }
    }
    (left, refused)
}

/// The addresses that a record tells.
fn addresses(data: &RData) -> Vec<IpAddr> {
    let hints = |params: &[(_, SvcParamValue)]| {
        let mut all = Vec::new();
        for (_, value) in params {
            match value {
                SvcParamValue::Ipv4Hint(hint) => all.extend(hint.0.iter().map(|ip| IpAddr::V4(ip.0))),
                SvcParamValue::Ipv6Hint(hint) => all.extend(hint.0.iter().map(|ip| IpAddr::V6(ip.0))),
                _ => {}
            }
        }
        all
    };
    match data {
        RData::A(ip) => vec![IpAddr::V4(ip.0)],
        RData::AAAA(ip) => vec![name::canonical(IpAddr::V6(ip.0))],
        RData::HTTPS(https) => hints(&https.0.svc_params),
        RData::SVCB(svcb) => hints(&svcb.svc_params),
        _ => Vec::new(),
    }
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
