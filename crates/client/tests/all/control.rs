//! The control plane.

use std::time::Duration;

use sandhold_client::{Cap, Caps, CreateOptions, Error, ListQuery, Network, State};
use serde_json::json;

use crate::stub::{ID, Stub, reply, sandbox_json, with};

#[tokio::test]
async fn creates() {
    let stub = Stub::always(201, sandbox_json(ID).to_string());
    let options = CreateOptions {
        template: Some("py".into()),
        timeout: Some(Duration::from_millis(1500)),
        metadata: [("k 1".into(), "v&2".into())].into(),
        envs: [("A".into(), "1".into())].into(),
        pause_at_timeout: true,
        allow_internet_access: Some(false),
        network: Some(Network {
            allow_out: Some(vec!["1.1.1.1".into()]),
            ..Network::default()
        }),
        cpus: Some(2.0),
        memory_mb: Some(512),
        disk_mb: Some(1024),
        limits: Caps::default().with(Cap::OpenFiles, Some(99.0)),
    };
    let sandbox = stub.http().await.create(options).await.unwrap();
    assert_eq!((sandbox.id(), sandbox.template()), (ID, "base"));
    let seen = stub.last();
    assert_eq!(seen.line, "POST /v2/sandboxes");
    assert_eq!(seen.header("x-api-key"), Some("e2b_key"));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    let key = seen.header("idempotency-key").unwrap();
    assert!(
        key.len() == 32 && key.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()),
        "{key}"
    );
    assert!(seen.header("e2b-sandbox-id").is_none());
    assert_eq!(
        seen.json(),
        json!({"templateID": "py", "timeout": 2, "metadata": {"k 1": "v&2"}, "envVars": {"A": "1"},
            "autoPause": true, "autoResume": {"enabled": true}, "allow_internet_access": false, "network": {"allowOut": ["1.1.1.1"]}, "cpuCount": 2.0, "memoryMB": 512,
            "diskSizeMB": 1024, "limits": {"openFiles": 99.0}})
    );
}

#[tokio::test]
async fn a_handle_leaves_a_sandbox_as_it_is() {
    let detail = |token: Option<&str>| {
        json!({"templateID": "t", "sandboxID": ID, "alias": "base", "startedAt": "2026-01-01T00:00:00Z",
            "endAt": "2026-01-01T00:05:00Z", "cpuCount": 2, "memoryMB": 512, "envdVersion": "0.6.13", "state": "running",
            "envdAccessToken": token})
        .to_string()
    };
    let told = Stub::new(move |_, _| reply(200, detail(Some("ed_token"))));
    let sandbox = told.http().await.handle(ID).await.unwrap();
    assert_eq!((sandbox.id(), sandbox.template()), (ID, "base"));
    assert_eq!(told.lines(), [format!("GET /sandboxes/{ID}")], "nothing else was asked");

    let silent = Stub::new(move |seen, _| match seen.line.starts_with("GET") {
        true => reply(200, detail(None)),
        false => reply(200, sandbox_json(ID).to_string()),
    });
    silent.http().await.handle(ID).await.unwrap();
    assert_eq!(silent.last().line, format!("POST /v2/sandboxes/{ID}/connect"));
    assert_eq!(silent.last().json(), json!({"timeout": 1}), "which shortens no life");
    let gone = Stub::always(404, r#"{"code":404,"message":"no"}"#);
    assert!(matches!(
        gone.http().await.handle(ID).await,
        Err(Error::SandboxNotFound { .. })
    ));
}

#[tokio::test]
async fn which_limits_were_met_is_asked_only_where_it_is_known() {
    let minute = Duration::from_secs(60);
    let knows = Stub::always(200, r#"{"limits":{"pids":64,"newer":1},"met":{"pids":2}}"#);
    let report = knows.http().await.limits(ID, minute).await.unwrap().unwrap();
    assert_eq!(knows.last().line, format!("GET /sandboxes/{ID}/limits?withinMs=60000"));
    assert_eq!(
        (report.met["pids"], Caps::of_rest(&report.limits).whole(Cap::Pids)),
        (2, Some(64))
    );
    let other = Stub::always(404, r#"{"code":404,"message":"no"}"#);
    let client = other.http().await;
    for _ in 0..2 {
        assert_eq!(client.limits(ID, minute).await.unwrap(), None);
    }
    assert_eq!(other.lines().len(), 1, "it is kept in mind");
}

#[test]
fn certificates_that_are_none_are_refused() {
    for pem in [
        "",
        "nothing",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let config = sandhold_client::HttpConfig {
            authorities: Some(pem.into()),
            ..sandhold_client::HttpConfig::new("k")
        };
        let told = sandhold_client::Client::http(config)
            .err()
            .map(|error| error.to_string());
        assert!(told.is_some_and(|told| !told.is_empty()), "{pem:?}");
    }
}

#[tokio::test]
async fn says_nothing_that_was_not_asked_for() {
    let stub = Stub::always(201, sandbox_json(ID).to_string());
    stub.in_process().create(CreateOptions::default()).await.unwrap();
    let seen = stub.last();
    assert_eq!(seen.json(), json!({"templateID": "base"}));
    assert_eq!(seen.header("x-api-key"), None);
}

#[tokio::test]
async fn falls_back_to_v1_and_remembers() {
    for (status, page) in [(404, "404 page not found"), (405, "")] {
        let stub = Stub::new(move |seen, _| match seen.line.starts_with("POST /v2/") {
            true => reply(status, page),
            false => reply(200, sandbox_json(ID).to_string()),
        });
        let client = stub.in_process();
        client.create(CreateOptions::default()).await.unwrap();
        client.connect(ID, None).await.unwrap();
        let seen = stub.seen();
        assert_eq!(
            stub.lines(),
            [
                "POST /v2/sandboxes",
                "POST /sandboxes",
                &format!("POST /sandboxes/{ID}/connect")
            ]
        );
        // v1 has a default of 15 seconds and of no token.
        assert_eq!(
            seen[1].json(),
            json!({"templateID": "base", "secure": true, "timeout": 300})
        );
        assert_eq!(seen[0].header("idempotency-key"), seen[1].header("idempotency-key"));
        assert_eq!(seen[2].json(), json!({"timeout": 300}));
    }
}

#[tokio::test]
async fn a_missing_template_is_no_missing_endpoint() {
    let stub = Stub::always(404, r#"{"code":404,"message":"template 'x' not found"}"#);
    let error = stub.in_process().create(CreateOptions::default()).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotFound(text) if text == "template 'x' not found"),
        "{error:?}"
    );
    assert_eq!(stub.lines().len(), 1);
}

#[tokio::test]
async fn connects() {
    let stub = Stub::always(200, sandbox_json(ID).to_string());
    let client = stub.http().await;
    client.connect(ID, Some(Duration::from_secs(60))).await.unwrap();
    assert_eq!(stub.last().line, format!("POST /v2/sandboxes/{ID}/connect"));
    assert_eq!(stub.last().json(), json!({"timeout": 60}));
    client.connect(ID, None).await.unwrap();
    assert_eq!(stub.last().json(), json!({}));
}

#[tokio::test]
async fn ids_cannot_leave_their_place_in_the_path() {
    let stub = Stub::always(404, r#"{"code":404,"message":"no"}"#);
    let client = stub.http().await;
    assert!(matches!(client.info("../teams?x#").await, Err(Error::SandboxNotFound { id, .. }) if id == "../teams?x#"));
    assert_eq!(stub.last().line, "GET /sandboxes/..%2Fteams%3Fx%23");
}

#[tokio::test]
async fn lists_pages() {
    let row = json!({"templateID": "t", "sandboxID": ID, "clientID": "c", "startedAt": "2026-01-01T00:00:00Z",
        "endAt": "2026-01-01T00:05:00Z", "cpuCount": 2, "memoryMB": 512, "diskSizeMB": 1024, "state": "paused",
        "envdVersion": "0.6.13", "metadata": {"a": "b"}});
    let stub = Stub::new(move |seen, _| {
        let page = reply(200, json!([row]).to_string());
        if seen.line.contains("nextToken") {
            page
        } else {
            with(page, "x-next-token", "n/2=")
        }
    });
    for client in [stub.in_process(), stub.http().await] {
        let query = ListQuery {
            states: vec![State::Running, State::Paused],
            metadata: [("k 1".into(), "v&2".into())].into(),
            limit: Some(1),
            cursor: None,
        };
        let page = client.list(query.clone()).await.unwrap();
        assert_eq!(
            stub.last().line,
            "GET /v2/sandboxes?metadata=k%2525201%3Dv%2525262&state=running%2Cpaused&limit=1"
        );
        assert_eq!(
            (page.sandboxes[0].state, page.sandboxes[0].cpu_count),
            (State::Paused, 2.0)
        );
        assert_eq!(page.next_cursor.as_deref(), Some("n/2="));
        let page = client
            .list(ListQuery {
                cursor: page.next_cursor,
                ..ListQuery::default()
            })
            .await
            .unwrap();
        assert_eq!(stub.last().line, "GET /v2/sandboxes?nextToken=n%2F2%3D");
        assert_eq!(page.next_cursor, None);
    }
}

#[tokio::test]
async fn ends_pauses_and_prolongs() {
    let stub = Stub::always(204, "");
    for client in [stub.in_process(), stub.http().await] {
        assert!(client.kill(ID).await.unwrap());
        assert_eq!(stub.last().line, format!("DELETE /sandboxes/{ID}"));
        client.set_timeout(ID, Duration::from_secs(7)).await.unwrap();
        assert_eq!(
            (stub.last().line, stub.last().json()),
            (format!("POST /sandboxes/{ID}/timeout"), json!({"timeout": 7}))
        );
        assert!(client.pause(ID).await.unwrap());
        assert_eq!(
            (stub.last().line, stub.last().json()),
            (format!("POST /sandboxes/{ID}/pause"), json!({}))
        );
    }
    assert!(
        !Stub::always(404, r#"{"code":404,"message":"x"}"#)
            .in_process()
            .kill(ID)
            .await
            .unwrap()
    );
    assert!(
        !Stub::always(409, r#"{"code":409,"message":"x"}"#)
            .in_process()
            .pause(ID)
            .await
            .unwrap()
    );
}

#[tokio::test(start_paused = true)]
async fn tries_again() {
    let started = tokio::time::Instant::now();
    let stub = Stub::new(|_, before| match before {
        0 => with(reply(429, ""), "retry-after", "7"),
        1 => reply(503, ""),
        2 => with(reply(500, ""), "should-retry", "true"),
        _ => reply(201, sandbox_json(ID).to_string()),
    });
    stub.in_process().create(CreateOptions::default()).await.unwrap();
    let waited = started.elapsed();
    assert!(
        waited >= Duration::from_millis(7300) && waited <= Duration::from_millis(7601),
        "{waited:?}"
    );
    let keys: Vec<_> = stub
        .seen()
        .iter()
        .map(|seen| seen.header("idempotency-key").unwrap().to_owned())
        .collect();
    assert_eq!(keys.len(), 4);
    assert!(keys.iter().all(|key| *key == keys[0]));
}

#[tokio::test(start_paused = true)]
async fn gives_up_after_three() {
    let stub = Stub::always(503, r#"{"code":503,"message":"busy"}"#);
    let error = stub.in_process().info(ID).await.unwrap_err();
    assert!(
        matches!(&error, Error::Server { status: 503, message } if message == "busy"),
        "{error:?}"
    );
    assert_eq!(stub.lines().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn does_not_wait_beyond_its_deadline_or_against_the_servers_word() {
    let stub = Stub::new(|_, _| with(reply(429, ""), "retry-after", "61"));
    assert!(matches!(stub.in_process().info(ID).await, Err(Error::RateLimited(_))));
    assert_eq!(stub.lines().len(), 1);
    let stub = Stub::new(|_, _| with(reply(503, ""), "should-retry", "false"));
    assert!(matches!(
        stub.in_process().info(ID).await,
        Err(Error::Server { status: 503, .. })
    ));
    assert_eq!(stub.lines().len(), 1);
}

#[tokio::test]
async fn names_its_provider_and_addresses() {
    let domain = json!({"templateID": "t", "sandboxID": ID, "envdVersion": "0.6.13", "domain": "sbx.example.org"});
    let stub = Stub::always(200, domain.to_string());
    let local = stub.in_process();
    assert_eq!(local.provider(), "local");
    let sandbox = local.connect(ID, None).await.unwrap();
    assert_eq!(sandbox.url(80).unwrap(), format!("http://80-{ID}.sbx.example.org"));
    assert_eq!(sandbox.template(), "t");
    let silent = Stub::always(200, sandbox_json(ID).to_string()).in_process();
    assert_eq!(silent.connect(ID, None).await.unwrap().url(80), None);
    let remote = stub.http().await;
    assert_eq!(remote.provider(), "e2b");
    // This stub is reached over plain HTTP, and so are its ports.
    assert_eq!(
        remote.connect(ID, None).await.unwrap().url(80).unwrap(),
        format!("http://80-{ID}.sbx.example.org")
    );
}

#[tokio::test]
async fn refuses_ids_that_would_change_the_host() {
    let stub = Stub::always(200, sandbox_json("x.evil.example/").to_string());
    assert!(matches!(
        stub.in_process().connect(ID, None).await,
        Err(Error::Protocol(_))
    ));
}

#[tokio::test]
async fn nobody_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let config = sandhold_client::HttpConfig {
        api_url: Some(url),
        ..sandhold_client::HttpConfig::new("k")
    };
    let client = sandhold_client::Client::http(config).unwrap();
    let error = client.info(ID).await.unwrap_err();
    assert!(matches!(&error, Error::Transport { what, .. } if what == &format!("GET /sandboxes/{ID} got no answer")));
}
