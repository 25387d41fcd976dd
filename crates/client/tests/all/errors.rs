//! What each refusal becomes.

use sandhold_client::{Client, Error, ReadOptions};

use crate::stub::{ID, Stub, reply, sandbox};

/// The variant, with the status where it holds one.
fn kind(error: &Error) -> String {
    match error {
        Error::Server { status, .. } => format!("Server {status}"),
        other => {
            let text = format!("{other:?}");
            text.split(['(', ' ', '{']).next().unwrap().to_owned()
        }
    }
}

#[tokio::test(start_paused = true)]
async fn statuses_of_the_control_plane() {
    for (status, wanted) in [
        (400, "InvalidArgument"),
        (401, "Unauthenticated"),
        (403, "Server 403"),
        (404, "SandboxNotFound"),
        (409, "Conflict"),
        (422, "InvalidArgument"),
        (429, "RateLimited"),
        (500, "Server 500"),
        (501, "Unsupported"),
        (502, "Server 502"),
        (503, "Server 503"),
        (504, "Timeout"),
    ] {
        let body = format!(r#"{{"code":{status},"message":"said {status}"}}"#);
        let error = Stub::always(status, body).in_process().info(ID).await.unwrap_err();
        assert_eq!(kind(&error), wanted, "{status}");
        assert_eq!(error.to_string(), format!("said {status}"));
    }
}

#[tokio::test]
async fn pages_of_things_in_between_are_not_shown() {
    let error = Stub::always(500, "<html>secret</html>")
        .in_process()
        .info(ID)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server answered with status 500 and said no more"
    );
    let error = Stub::always(500, "upstream broke")
        .in_process()
        .info(ID)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "status 500: upstream broke");
    let error = Stub::always(200, "not json").in_process().info(ID).await.unwrap_err();
    assert_eq!(kind(&error), "Protocol");
}

/// A sandbox whose daemon answers everything but `/health` with this.
fn refusing(status: u16, body: &str, health: u16) -> Stub {
    let body = body.to_owned();
    Stub::with_sandbox(move |seen, _| match seen.line.as_str() {
        "GET /health" if health == 502 => reply(
            502,
            format!(r#"{{"sandboxId":"{ID}","message":"The sandbox was not found","code":502}}"#),
        ),
        "GET /health" => reply(health, ""),
        _ => reply(status, body.clone()),
    })
}

async fn stat(client: &Client) -> Error {
    sandbox(client).await.files().info("/x", None).await.unwrap_err()
}

#[tokio::test]
async fn codes_of_connect() {
    for (code, status, wanted) in [
        ("canceled", 499, "Timeout"),
        ("unknown", 500, "Server 500"),
        ("invalid_argument", 400, "InvalidArgument"),
        ("deadline_exceeded", 504, "Timeout"),
        ("not_found", 404, "NotFound"),
        ("already_exists", 409, "AlreadyExists"),
        ("permission_denied", 403, "Server 403"),
        ("resource_exhausted", 429, "RateLimited"),
        ("failed_precondition", 400, "Conflict"),
        ("aborted", 409, "Conflict"),
        ("out_of_range", 400, "InvalidArgument"),
        ("unimplemented", 501, "Unsupported"),
        ("internal", 500, "Server 500"),
        ("unavailable", 503, "Server 502"),
        ("data_loss", 500, "Server 500"),
        ("unauthenticated", 401, "Unauthenticated"),
    ] {
        let body = format!(r#"{{"code":"{code}","message":"said {code}"}}"#);
        let stub = refusing(status, &body, 204);
        for client in [stub.in_process(), stub.http().await] {
            let error = stat(&client).await;
            assert_eq!(kind(&error), wanted, "{code}");
            assert_eq!(error.to_string(), format!("said {code}"));
        }
    }
    let full = refusing(
        429,
        r#"{"code":"resource_exhausted","message":"mkdir: no space left on device"}"#,
        204,
    );
    assert_eq!(kind(&stat(&full.in_process()).await), "NoSpace");
}

#[tokio::test]
async fn statuses_without_a_code_on_an_rpc() {
    for (status, wanted) in [
        (400, "InvalidArgument"),
        (401, "Unauthenticated"),
        (403, "Server 403"),
        (404, "NotFound"),
        (409, "AlreadyExists"),
        (413, "RateLimited"),
        (429, "RateLimited"),
        (500, "Server 500"),
        (501, "Unsupported"),
        (502, "Server 502"),
        (504, "Timeout"),
    ] {
        let error = stat(&refusing(status, "", 204).in_process()).await;
        assert_eq!(kind(&error), wanted, "{status}");
    }
    // A number in the body goes before the status.
    let error = stat(&refusing(500, r#"{"code":429,"message":"slow down"}"#, 204).in_process()).await;
    assert_eq!(
        (kind(&error), error.to_string()),
        ("RateLimited".into(), "slow down".into())
    );
}

#[tokio::test]
async fn statuses_of_files() {
    for (status, wanted) in [
        (400, "InvalidArgument"),
        (401, "Unauthenticated"),
        (403, "Server 403"),
        (404, "NotFound"),
        (429, "RateLimited"),
        (500, "Server 500"),
        (502, "Server 502"),
        (507, "NoSpace"),
    ] {
        let body = format!(r#"{{"code":{status},"message":"said {status}"}}"#);
        let stub = refusing(status, &body, 204);
        let files = sandbox(&stub.in_process()).await.files();
        let error = files.read("/x", ReadOptions::default(), 10).await.unwrap_err();
        assert_eq!(
            (kind(&error), error.to_string()),
            (wanted.into(), format!("said {status}"))
        );
        let error = files.write("/x", "x".into(), Default::default()).await.unwrap_err();
        assert_eq!(kind(&error), wanted);
    }
}

#[tokio::test]
async fn a_sandbox_that_is_gone() {
    let said = r#"{"sandboxId":"x","message":"The sandbox was not found","code":502}"#;
    let direct = refusing(502, said, 204);
    let error = stat(&direct.in_process()).await;
    assert!(
        matches!(&error, Error::SandboxNotFound { id, .. } if id == ID),
        "{error:?}"
    );
    assert_eq!(
        error.to_string(),
        format!("sandbox {ID} does not run: it has ended or never was")
    );
    assert!(
        !direct.lines().contains(&"GET /health".to_owned()),
        "the answer was clear"
    );

    // The daemon itself does not say whether the sandbox is gone; then it is asked.
    let unclear = r#"{"code":"unavailable","message":"the connection ended before the stream completed"}"#;
    let probed = refusing(503, unclear, 502);
    assert_eq!(kind(&stat(&probed.in_process()).await), "SandboxNotFound");
    assert_eq!(probed.last().line, "GET /health");

    let paused = refusing(
        502,
        r#"{"message":"The sandbox was not found: it is paused, connect to it first","code":502}"#,
        204,
    );
    assert!(
        stat(&paused.in_process())
            .await
            .to_string()
            .contains("it is paused, connect to it first")
    );

    let closed = refusing(
        502,
        r#"{"message":"The sandbox is running but port is not open","port":49983,"code":502}"#,
        502,
    );
    assert_eq!(kind(&stat(&closed.in_process()).await), "Server 502");
}

#[tokio::test]
async fn health() {
    for (status, wanted) in [(204, true), (502, false)] {
        let sandbox = sandbox(&refusing(500, "", status).in_process()).await;
        assert_eq!(sandbox.is_running().await.unwrap(), wanted);
    }
    let sandbox = sandbox(&refusing(500, "", 500).in_process()).await;
    assert!(sandbox.is_running().await.is_err());
}
