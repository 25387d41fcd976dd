//! A request by `curl`, for sandboxes without `python3`.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use sandhold_wire::services::{FailureKind, Probe, ProbeAnswer, ProbeFailure};

use super::ABSENT;
use crate::{Error, commands::Helper, limits, services::Services};

/// Arguments: length of the body, bytes wanted of the answer, then those of curl. What it writes at the end, the times,
/// goes to standard error, behind what it may have to complain of.
const CURL: &str = r#"command -v curl >/dev/null || exit 44
n=$1 max=$2
shift 2
if [ "$n" = 0 ]; then curl "$@" </dev/null | head -c "$max"; exit 0; fi
head -c "$n" | curl --data-binary @- "$@" | head -c "$max""#;
/// Before the times.
const MARK: &str = "\u{1}sandhold ";
/// Bytes of the answer's head.
const HEAD: usize = 64 << 10;

impl Services {
    pub(super) async fn http_by_curl(&self, probe: &Probe) -> Result<Result<ProbeAnswer, ProbeFailure>, Error> {
        let Ok(body) = STANDARD.decode(&probe.body) else {
            return Err(Error::InvalidArgument("the body is not base64".into()));
        };
        let seconds = Duration::from_millis(probe.timeout_ms).as_secs_f64();
        let times = format!(
            "%{{stderr}}{MARK}%{{exitcode}} %{{http_code}} %{{time_connect}} %{{time_starttransfer}} %{{time_total}}"
        );
        let mut args: Vec<String> = vec![body.len().to_string(), (HEAD + probe.max_body).to_string()];
        args.extend(
            [
                "-sS",
                "-i",
                "--http1.1",
                "--globoff",
                "--path-as-is",
                "--proto",
                "=http,https",
            ]
            .map(Into::into),
        );
        args.extend(["--max-time".into(), format!("{seconds:.3}"), "-w".into(), times]);
        match probe.method.as_str() {
            "HEAD" => args.push("--head".into()),
            method => args.extend(["-X".into(), method.into()]),
        }
        for (name, value) in &probe.headers {
            args.extend(["-H".into(), format!("{name}: {value}")]);
        }
        // curl would name one of its own for a body.
        if !probe
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        {
            args.extend(["-H".into(), "Content-Type:".into()]);
        }
        args.extend(["--url".into(), probe.url.clone()]);
        let helper = Helper {
            script: CURL,
            args,
            user: None,
            input: body.into(),
            timeout: limits::SERVICE_TIME + limits::HEALTH_TIMEOUT,
            max_stdout: HEAD + probe.max_body + 1,
        };
        let printed = self.run(helper).await?;
        if printed.exit_code == ABSENT {
            let message = "the sandbox has neither python3 nor curl to make this request with";
            return Ok(Err(failure(FailureKind::Unable, message)));
        }
        Ok(outcome(&printed.stdout, &printed.stderr, probe.max_body))
    }
}

fn failure(kind: FailureKind, message: &str) -> ProbeFailure {
    ProbeFailure {
        kind,
        message: message.to_owned(),
    }
}

/// Reads what curl printed.
fn outcome(stdout: &[u8], stderr: &str, max_body: usize) -> Result<ProbeAnswer, ProbeFailure> {
    // A pipe that was closed once enough had come is what curl complains of with 23.
    const WRITE: i32 = 23;
    let (said, times) = stderr.rsplit_once(MARK).unwrap_or((stderr, ""));
    let words: Vec<&str> = times.split_whitespace().collect();
    let code = words.first().and_then(|word| word.parse::<i32>().ok());
    let status = words.get(1).and_then(|word| word.parse::<u16>().ok());
    let said = said.trim();
    let (Some(code @ (0 | WRITE)), Some(status @ 100..)) = (code, status) else {
        let kind = match code {
            Some(3 | 1) => FailureKind::Invalid,
            Some(6) => FailureKind::Name,
            Some(7) => FailureKind::Refused,
            Some(28) => FailureKind::Timeout,
            _ => FailureKind::Connection,
        };
        return Err(failure(kind, said));
    };
    let (head, body) = split(stdout);
    let ms = |at: usize| {
        words
            .get(at)
            .and_then(|word| word.parse::<f64>().ok())
            .unwrap_or_default()
            * 1000.0
    };
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    };
    Ok(ProbeAnswer {
        status,
        headers: head.lines().skip(1).filter_map(header).collect(),
        body: STANDARD.encode(&body[..body.len().min(max_body)]),
        truncated: body.len() > max_body || code == WRITE,
        connect_ms: ms(2),
        first_byte_ms: ms(3),
        total_ms: ms(4),
    })
}

/// The head of the answer proper, behind those that only announce one, and the body.
fn split(printed: &[u8]) -> (String, &[u8]) {
    let mut rest = printed;
    loop {
        let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") else {
            return (String::from_utf8_lossy(rest).into_owned(), b"");
        };
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 4..];
        let announces = head.split(' ').nth(1).is_some_and(|status| status.starts_with('1'));
        if !announces {
            return (head, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_curl_prints_is_read() {
        let printed = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nX-A: b: c\r\nServer: x\r\n\r\nhello";
        let answer = outcome(printed, "\u{1}sandhold 0 201 0.001 0.002 0.0035", 4).unwrap();
        assert_eq!((answer.status, answer.truncated), (201, true));
        assert_eq!(answer.body, STANDARD.encode("hell"));
        assert_eq!(answer.headers[0], ("x-a".into(), "b: c".into()));
        assert!((answer.total_ms - 3.5).abs() < 0.01);
        for (said, kind) in [
            ("curl: (7) refused\n\u{1}sandhold 7 000 0 0 0", FailureKind::Refused),
            ("curl: (28) late\n\u{1}sandhold 28 000 0 0 0", FailureKind::Timeout),
            ("curl: (6) name\n\u{1}sandhold 6 000 0 0 0", FailureKind::Name),
            (
                "curl: (60) certificate\n\u{1}sandhold 60 000 0 0 0",
                FailureKind::Connection,
            ),
            ("", FailureKind::Connection),
        ] {
            let failure = outcome(b"", said, 4).unwrap_err();
            assert_eq!(failure.kind, kind, "{said}");
            assert!(!failure.message.contains("sandhold"), "{}", failure.message);
        }
    }
}
