//! Templates: asked for, built, used, tagged, deleted.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{Method, Request, StatusCode};
use sandhold_gateway::Owner;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{
    call, create,
    fake::{FakeLayers, FakeRuntime, gateway_at},
};

struct Place {
    home: tempfile::TempDir,
    layers: Arc<FakeLayers>,
    gateway: sandhold_gateway::Gateway,
    router: Router,
}

fn place() -> Place {
    let home = tempfile::tempdir().unwrap();
    let layers = Arc::new(FakeLayers::default());
    let gateway = gateway_at(home.path(), FakeRuntime::layered(&layers), false);
    let router = gateway.router(Owner::LOCAL);
    Place {
        home,
        layers,
        gateway,
        router,
    }
}

async fn get(router: &Router, path: &str) -> (u16, Value) {
    let answer = call(router, Method::GET, path, &[], None).await;
    (answer.status.as_u16(), answer.body)
}

async fn request(router: &Router, body: Value) -> (String, String) {
    let asked = call(router, Method::POST, "/v3/templates", &[], Some(body)).await;
    assert_eq!(asked.status, StatusCode::ACCEPTED, "{}", asked.body);
    let id = |name: &str| asked.body[name].as_str().unwrap().to_owned();
    (id("templateID"), id("buildID"))
}

async fn status(router: &Router, (template, build): &(String, String), offset: usize) -> Value {
    let path = format!("/templates/{template}/builds/{build}/status?logsOffset={offset}");
    let (status, body) = get(router, &path).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// Starts a build and waits for its end.
async fn build(router: &Router, ids: &(String, String), start: Value) -> Value {
    let path = format!("/v2/templates/{}/builds/{}", ids.0, ids.1);
    let started = call(router, Method::POST, &path, &[], Some(start)).await;
    assert_eq!(started.status, StatusCode::ACCEPTED, "{}", started.body);
    loop {
        let body = status(router, ids, 0).await;
        if !matches!(body["status"].as_str(), Some("waiting" | "building")) {
            return body;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn run(script: &str) -> Value {
    json!({"type": "RUN", "args": [script], "force": false})
}

fn messages(body: &Value) -> Vec<&str> {
    let lines = body["logEntries"].as_array().unwrap();
    lines.iter().map(|line| line["message"].as_str().unwrap()).collect()
}

/// What a sandbox's files hold.
async fn files(router: &Router, id: &str) -> String {
    let headers = [("e2b-sandbox-id", id)];
    let answer = call(router, Method::GET, "/sandhold/archive", &headers, None).await;
    answer.body.as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_template_is_built_from_an_image_and_used() {
    let place = place();
    let router = &place.router;
    let ids = request(
        router,
        json!({"name": "My-App:v1", "tags": ["new"], "cpuCount": 0.5, "memoryMB": 512}),
    )
    .await;
    assert_eq!(ids.0.len(), 20);
    assert_eq!(status(router, &ids, 0).await["status"], "waiting");
    let early = call(
        router,
        Method::POST,
        "/v2/sandboxes",
        &[],
        Some(json!({"templateID": "my-app:v1"})),
    )
    .await;
    assert_eq!(early.status, StatusCode::NOT_FOUND);

    let steps = json!([
        run("write one\nsay hello"),
        {"type": "ENV", "args": ["A", "1"]},
        {"type": "WORKDIR", "args": ["app"]},
        {"type": "USER", "args": ["root"]},
        run("who"),
    ]);
    let built = build(
        router,
        &ids,
        json!({"fromImage": "lower.upper", "steps": steps, "startCmd": "write started\nhang", "readyCmd": "say yes"}),
    )
    .await;
    assert_eq!(built["status"], "ready", "{built}");
    let log = messages(&built);
    for line in ["FROM lower.upper", "hello", "Template is ready"] {
        assert!(log.contains(&line), "{line}: {log:?}");
    }
    assert!(
        log.iter().any(|line| line.starts_with("[1/5] RUN write one")),
        "{log:?}"
    );
    let step = built["logEntries"]
        .as_array()
        .unwrap()
        .iter()
        .find(|line| line["message"] == "hello")
        .unwrap();
    assert_eq!((&step["step"], &step["level"]), (&json!("1"), &json!("info")));
    let rest = status(router, &ids, log.len() - 2).await;
    assert_eq!(messages(&rest), log[log.len() - 2..]);

    let made = call(
        router,
        Method::POST,
        "/v2/sandboxes",
        &[],
        Some(json!({"templateID": "my-app:new"})),
    )
    .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    assert_eq!(made.body["templateID"], json!(ids.0));
    assert_eq!(made.body["alias"], "my-app");
    let id = made.body["sandboxID"].as_str().unwrap();
    let holds = files(router, id).await;
    let lines: Vec<_> = holds.lines().collect();
    assert_eq!(
        lines[..5],
        ["lower", "upper", "prepared", "one", "folder /app"],
        "{holds}"
    );
    assert!(
        lines[5].starts_with("true \"/app\"") && lines[5].contains("\"A\":\"1\""),
        "{holds}"
    );
    assert_eq!(
        lines[6..],
        ["started"],
        "the start command runs in each sandbox, and left nothing before: {holds}"
    );
    let detail = get(router, &format!("/sandboxes/{id}")).await.1;
    assert_eq!((&detail["cpuCount"], &detail["memoryMB"]), (&json!(0.5), &json!(512)));

    let default = call(
        router,
        Method::POST,
        "/v2/sandboxes",
        &[],
        Some(json!({"templateID": "my-app"})),
    )
    .await;
    assert_eq!(default.status, StatusCode::NOT_FOUND);
    let message = default.body["message"].as_str().unwrap();
    assert!(message.contains("v1") && message.contains("new"), "{message}");
}

#[tokio::test]
async fn steps_are_found_again_until_one_is_forced() {
    let place = place();
    let router = &place.router;
    let build = async |force: [bool; 2]| {
        let ids = request(router, json!({"name": "cached"})).await;
        let steps = json!([
            {"type": "RUN", "args": ["write one"], "force": force[0]},
            {"type": "RUN", "args": ["write two"], "force": force[1]},
        ]);
        let built = build(router, &ids, json!({"fromImage": "a.b", "steps": steps})).await;
        assert_eq!(built["status"], "ready", "{built}");
        let cached = messages(&built)
            .iter()
            .filter(|line| line.starts_with("CACHED ["))
            .count();
        (cached, place.layers.unpacked.load(std::sync::atomic::Ordering::SeqCst))
    };
    assert_eq!(build([false; 2]).await, (0, 2));
    assert_eq!(build([false; 2]).await, (2, 2));
    assert_eq!(build([false, true]).await, (1, 2));
    assert_eq!(
        build([true, false]).await,
        (0, 2),
        "those after a forced one are forced"
    );
}

#[tokio::test]
async fn what_fails_says_where_and_leaves_the_build_before() {
    let place = place();
    let router = &place.router;
    let first = request(router, json!({"name": "app"})).await;
    assert_eq!(
        build(
            router,
            &first,
            json!({"fromTemplate": "base", "steps": [run("write v1")]})
        )
        .await["status"],
        "ready"
    );
    for (start, step, text) in [
        (
            json!({"fromTemplate": "base", "steps": [run("write x"), run("say why\nfail")]}),
            "2",
            "exit status 3",
        ),
        (json!({"fromImage": "nowhere"}), "base", "no such image"),
        (json!({"fromImage": "private"}), "base", "password"),
        (json!({"fromImage": "ok.broken"}), "base", "layer 2"),
        (
            json!({"fromTemplate": "base", "startCmd": "fail", "readyCmd": "hang"}),
            "finalize",
            "start command failed: exit status 3",
        ),
    ] {
        let ids = request(router, json!({"name": "app"})).await;
        assert_eq!(ids.0, first.0);
        let built = build(router, &ids, start.clone()).await;
        assert_eq!(
            (&built["status"], &built["reason"]["step"]),
            (&json!("error"), &json!(step)),
            "{start} {built}"
        );
        let message = built["reason"]["message"].as_str().unwrap();
        assert!(message.contains(text), "{start}: {message}");
        assert!(
            messages(&built).last().unwrap().starts_with("Build failed: "),
            "{built}"
        );
    }
    let right = json!({"type": "registry", "username": "u", "password": "right"});
    let ids = request(router, json!({"name": "other"})).await;
    let built = build(
        router,
        &ids,
        json!({"fromImage": "private", "fromImageRegistry": right}),
    )
    .await;
    assert_eq!(built["status"], "ready", "{built}");
    let id = create(router, json!({"templateID": "app"})).await;
    assert_eq!(files(router, &id).await, "v1\n");
    let (_, whole) = get(router, "/templates/app").await;
    assert_eq!(
        (&whole["buildID"], &whole["buildStatus"]),
        (&json!(first.1), &json!("error"))
    );
    assert_eq!(whole["builds"].as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn what_cannot_be_built_is_refused_before() {
    let place = place();
    let router = &place.router;
    for (body, text) in [
        (json!({}), "name is missing"),
        (json!({"name": "a b"}), "no name of a template"),
        (json!({"name": "base"}), "base"),
        (json!({"name": "a", "tags": ["x y"]}), "no tag"),
        (json!({"name": "a", "cpuCount": -1}), "cpu"),
    ] {
        let answer = call(router, Method::POST, "/v3/templates", &[], Some(body.clone())).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        let message = answer.body["message"].as_str().unwrap();
        assert!(message.contains(text), "{body}: {message}");
    }
    let ids = request(router, json!({"alias": "old"})).await;
    let path = format!("/v2/templates/{}/builds/{}", ids.0, ids.1);
    let aws = json!({"type": "aws", "awsAccessKeyId": "a", "awsSecretAccessKey": "b", "awsRegion": "c"});
    let copy = json!({"type": "COPY", "args": ["a", "/b"], "filesHash": "0".repeat(64)});
    for (body, status, text) in [
        (json!({}), 400, "fromImage or fromTemplate"),
        (
            json!({"fromImage": "a", "fromTemplate": "b"}),
            400,
            "fromImage or fromTemplate",
        ),
        (json!({"fromImage": "a", "fromImageRegistry": aws}), 400, "AWS"),
        (
            json!({"fromImage": "a", "steps": [{"type": "VOLUME", "args": ["/x"]}]}),
            400,
            "step 1",
        ),
        (json!({"fromImage": "a", "steps": [copy]}), 400, "were not uploaded"),
        (json!({"fromTemplate": "nothing"}), 404, "nothing"),
    ] {
        let answer = call(router, Method::POST, &path, &[], Some(body.clone())).await;
        assert_eq!(answer.status.as_u16(), status, "{body} {}", answer.body);
        let message = answer.body["message"].as_str().unwrap();
        assert!(message.contains(text), "{body}: {message}");
    }
    assert_eq!(
        build(router, &ids, json!({"fromTemplate": "base"})).await["status"],
        "ready"
    );
    let again = call(router, Method::POST, &path, &[], Some(json!({"fromTemplate": "base"}))).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn files_come_by_a_url_of_their_own() {
    let place = place();
    let router = &place.router;
    let ids = request(router, json!({"name": "copy"})).await;
    let hash = "5".repeat(64);
    let path = format!("/templates/{}/files/{hash}", ids.0);
    let link = call(router, Method::GET, &path, &[("host", "127.0.0.1:3000")], None).await;
    assert_eq!(
        (link.status, &link.body["present"]),
        (StatusCode::CREATED, &json!(false))
    );
    let url = link.body["url"].as_str().unwrap();
    let local = url.strip_prefix("http://127.0.0.1:3000").unwrap().to_owned();
    let put = async |path: &str, body: &'static str| {
        let request = Request::put(path).body(Body::from(body)).unwrap();
        router.clone().oneshot(request).await.unwrap().status()
    };
    assert_eq!(
        put(&local.replace("signature=", "signature=x"), "tar").await,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        put(&local.replace(&hash, &"6".repeat(64)), "tar").await,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        put(&local.replace("owner=0", "owner=1"), "tar").await,
        StatusCode::FORBIDDEN
    );
    assert_eq!(get(router, &path).await.1["present"], false);
    assert_eq!(put(&local, "tar").await, StatusCode::CREATED);
    let (_, there) = get(router, &path).await;
    assert_eq!(there["present"], true);
    assert!(there["url"].as_str().unwrap().starts_with('/'), "in process: {there}");

    let copy = json!({"type": "COPY", "args": ["src/*.py", "/app/", "", ""], "filesHash": hash});
    let built = build(router, &ids, json!({"fromTemplate": "base", "steps": [copy]})).await;
    assert_eq!(built["status"], "ready", "{built}");
    let id = create(router, json!({"templateID": "copy"})).await;
    assert_eq!(files(router, &id).await, "copied src to /app/\n");
}

#[tokio::test]
async fn our_client_builds_in_process() {
    use sandhold_client::{BuildEvent, BuildStep, Client, StepFiles, TemplateSource, TemplateSpec};

    let place = place();
    let client = Client::in_process(place.router.clone());
    let mut archive = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut archive, &[7; 700_000]).unwrap();
    let files = StepFiles {
        hash: "c".repeat(64),
        archive: Arc::new(archive),
    };
    let spec = TemplateSpec {
        name: "ours:one".into(),
        tags: vec!["two".into()],
        from: TemplateSource::Image {
            reference: "private".into(),
            credentials: Some(("u".into(), "right".into())),
        },
        steps: vec![
            BuildStep::Run {
                cmd: "say hello\nwrite ran".into(),
                user: None,
            },
            BuildStep::Copy {
                src: "a".into(),
                dest: "/b".into(),
                user: None,
                mode: None,
                files,
            },
            BuildStep::Env(vec![("A".into(), "1".into())]),
            BuildStep::User("root".into()),
        ],
        start_cmd: None,
        ready_cmd: None,
        cpus: None,
        memory_mb: None,
        force: false,
    };
    let mut building = client.build_template(&spec).await.unwrap();
    let mut said = Vec::new();
    loop {
        match building.next().await.unwrap() {
            BuildEvent::Log(line) => said.push(line.message),
            BuildEvent::Ready => break,
            BuildEvent::Failed(reason) => panic!("{reason:?} {said:?}"),
        }
    }
    assert!(said.contains(&"hello".to_owned()), "{said:?}");
    assert_eq!(building.next().await.unwrap(), BuildEvent::Ready, "it stays so");
    let upload = place
        .home
        .path()
        .join("uploads")
        .join(format!("0-{}.tar", "c".repeat(64)));
    assert_eq!(upload.metadata().unwrap().len(), 700_000);

    let id = &building.requested.template_id;
    assert_eq!(client.template_named("ours").await.unwrap().unwrap().template_id, *id);
    assert_eq!(client.template_named("theirs").await.unwrap(), None);
    assert_eq!(client.templates(10).await.unwrap()[0].names, ["ours"]);
    let whole = client.template("ours").await.unwrap();
    let setup = whole.builds[0].setup.as_ref().unwrap();
    assert_eq!((setup.base.as_str(), setup.user.as_deref()), ("empty", Some("root")));
    assert_eq!(setup.envs["A"], "1");
    let assigned = client
        .assign_template_tags("ours:two", vec!["three".into()])
        .await
        .unwrap();
    assert_eq!(assigned.build_id, building.requested.build_id);
    client.remove_template_tags("ours", vec!["two".into()]).await.unwrap();
    let tags = client.template_tags(id).await.unwrap();
    let mut tags: Vec<_> = tags.into_iter().map(|tag| tag.tag).collect();
    tags.sort();
    assert_eq!(tags, ["one", "three"]);
    assert_eq!(client.set_template_public(id, true).await.unwrap(), ["ours"]);

    let wrong = TemplateSpec {
        steps: vec![BuildStep::Run {
            cmd: "fail".into(),
            user: None,
        }],
        ..spec
    };
    let failed = client
        .build_template(&wrong)
        .await
        .unwrap()
        .finished()
        .await
        .unwrap_err();
    assert!(failed.to_string().contains("exit status 3"), "{failed}");
    assert!(client.delete_template("ours").await.unwrap());
    assert!(!client.delete_template("ours").await.unwrap());
}

#[tokio::test]
async fn layers_stay_while_something_names_them() {
    let place = place();
    let router = &place.router;
    let ids = request(router, json!({"name": "app"})).await;
    build(router, &ids, json!({"fromImage": "a.b", "steps": [run("write one")]})).await;
    let kept = place.layers.count();
    assert!(kept >= 3, "{kept}");
    // Whatever removes what nothing names is told when a build has ended.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(place.layers.count(), kept);
    let id = create(router, json!({"templateID": "app"})).await;
    call(router, Method::DELETE, "/templates/app", &[], None).await;
    // The next build would find its steps again.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(place.layers.count(), kept);
    let raw = rusqlite::Connection::open(place.home.path().join("templates.db")).unwrap();
    raw.execute("DELETE FROM cached", []).unwrap();
    let other = async |name: &str| {
        let ids = request(router, json!({"name": name})).await;
        build(router, &ids, json!({"fromTemplate": "base"})).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    other("one").await;
    assert_eq!(place.layers.count(), kept, "a sandbox stands on them");
    call(router, Method::DELETE, &format!("/sandboxes/{id}"), &[], None).await;
    other("two").await;
    for _ in 0..500 {
        if place.layers.count() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(place.layers.count(), 0, "nothing names them any more");
}

#[tokio::test]
async fn tags_and_names_lead_to_builds() {
    let place = place();
    let router = &place.router;
    let first = request(router, json!({"name": "app"})).await;
    build(
        router,
        &first,
        json!({"fromTemplate": "base", "steps": [run("write v1")]}),
    )
    .await;
    let tag = async |method: Method, body: Value| {
        let answer = call(router, method, "/templates/tags", &[], Some(body)).await;
        (answer.status.as_u16(), answer.body)
    };
    let (status, body) = tag(Method::POST, json!({"target": "app", "tags": ["stable", "Stable"]})).await;
    assert_eq!((status, &body), (201, &json!({"tags": ["stable"], "buildID": first.1})));
    let second = request(router, json!({"name": "app"})).await;
    build(
        router,
        &second,
        json!({"fromTemplate": "base", "steps": [run("write v2")]}),
    )
    .await;
    for (name, wanted) in [
        ("app", "v2\n"),
        ("app:default", "v2\n"),
        ("app:stable", "v1\n"),
        (&first.0, "v2\n"),
    ] {
        let id = create(router, json!({"templateID": name})).await;
        assert_eq!(files(router, &id).await, wanted, "{name}");
    }
    let (_, tags) = get(router, "/templates/app/tags").await;
    let tags: Vec<_> = tags
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (t["tag"].as_str().unwrap().to_owned(), t["buildID"].clone()))
        .collect();
    assert_eq!(
        tags,
        [
            ("default".to_owned(), json!(second.1)),
            ("stable".to_owned(), json!(first.1))
        ]
    );
    assert_eq!(
        tag(Method::DELETE, json!({"name": "app", "tags": ["stable"]})).await.0,
        204
    );
    assert_eq!(
        tag(Method::DELETE, json!({"name": "app", "tags": ["stable"]})).await.0,
        404
    );
    assert_eq!(
        tag(Method::POST, json!({"target": "app:gone", "tags": ["x"]})).await.0,
        404
    );
    assert_eq!(
        get(router, "/templates/aliases/app").await,
        (200, json!({"templateID": first.0, "public": false}))
    );
    assert_eq!(get(router, "/templates/aliases/ap").await.0, 404);
    assert_eq!(get(router, "/templates/aliases/base").await.0, 200);
    let near = call(
        router,
        Method::POST,
        "/v2/sandboxes",
        &[],
        Some(json!({"templateID": "appp"})),
    )
    .await;
    assert!(
        near.body["message"].as_str().unwrap().contains("did you mean \"app\"?"),
        "{}",
        near.body
    );

    let (_, list) = get(router, "/v2/templates").await;
    assert_eq!(
        (&list[0]["templateID"], &list[0]["names"], &list[0]["buildCount"]),
        (&json!(first.0), &json!(["app"]), &json!(2))
    );
    let gone = call(router, Method::DELETE, "/templates/app", &[], None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let gone = call(router, Method::DELETE, "/templates/app", &[], None).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    assert_eq!(get(router, "/templates").await.1, json!([]));
}

#[tokio::test]
async fn others_see_what_is_public() {
    let place = place();
    let keys = Arc::new(sandhold_gateway::Keys::open(place.home.path()).unwrap());
    let (mine, other) = (keys.create("mine").unwrap(), keys.create("other").unwrap());
    let router = place.gateway.router_with_keys(keys, Router::new());
    let asked = call(
        &router,
        Method::POST,
        "/v3/templates",
        &[("x-api-key", &mine)],
        Some(json!({"name": "app"})),
    )
    .await;
    let (template, id) = (
        asked.body["templateID"].as_str().unwrap(),
        asked.body["buildID"].as_str().unwrap(),
    );
    let path = format!("/v2/templates/{template}/builds/{id}");
    let denied = call(
        &router,
        Method::POST,
        &path,
        &[("x-api-key", &other)],
        Some(json!({"fromTemplate": "base"})),
    )
    .await;
    assert_eq!(denied.status, StatusCode::NOT_FOUND);
    let file = call(
        &router,
        Method::POST,
        &path,
        &[("x-api-key", &mine)],
        Some(json!({"fromImage": "file"})),
    )
    .await;
    assert_eq!(file.status, StatusCode::ACCEPTED);
    let path = format!("/templates/{template}/builds/{id}/status");
    let ended = loop {
        let answer = call(&router, Method::GET, &path, &[("x-api-key", &mine)], None).await;
        if answer.body["status"] == "error" {
            break answer.body;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(
        ended["reason"]["message"]
            .as_str()
            .unwrap()
            .contains("not for strangers"),
        "{ended}"
    );
    let body = json!({"public": true});
    for (key, status) in [(&other, 404), (&mine, 200), (&other, 403)] {
        let answer = call(
            &router,
            Method::PATCH,
            "/templates/app",
            &[("x-api-key", key)],
            Some(body.clone()),
        )
        .await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
    }
    let seen = call(&router, Method::GET, "/templates/app", &[("x-api-key", &other)], None).await;
    assert_eq!(
        (seen.status, &seen.body["builds"]),
        (StatusCode::OK, &json!([])),
        "a build that failed is its owner's"
    );
    let list = call(&router, Method::GET, "/templates", &[("x-api-key", &other)], None).await;
    assert_eq!(list.body, json!([]));
}

#[tokio::test]
async fn builds_of_a_server_that_is_gone_failed() {
    let place = place();
    let ids = request(&place.router, json!({"name": "app"})).await;
    let path = format!("/v2/templates/{}/builds/{}", ids.0, ids.1);
    let body = json!({"fromTemplate": "base", "steps": [run("hang")]});
    call(&place.router, Method::POST, &path, &[], Some(body)).await;
    while status(&place.router, &ids, 0).await["status"] != "building" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A server that ends says so itself.
    place.gateway.shutdown().await;
    let ended = status(&place.router, &ids, 0).await;
    assert_eq!(ended["status"], "error", "{ended}");
    assert!(
        ended["reason"]["message"].as_str().unwrap().contains("given up"),
        "{ended}"
    );

    // One that was killed cannot: no process 4194305 can exist.
    let raw = rusqlite::Connection::open(place.home.path().join("templates.db")).unwrap();
    for (server, wanted) in [("4194305:1", "error"), (&alive(), "building")] {
        raw.execute("UPDATE builds SET status = 'building', server = ?1", [server])
            .unwrap();
        let next = gateway_at(place.home.path(), FakeRuntime::layered(&place.layers), false);
        let ended = status(&next.router(Owner::LOCAL), &ids, 0).await;
        assert_eq!(ended["status"], wanted, "{server}: {ended}");
    }
}

/// The name of a server that lives and is another one: this process's parent.
fn alive() -> String {
    let pid = std::os::unix::process::parent_id();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(19)
        .unwrap()
        .to_owned();
    format!("{pid}:{start}")
}

#[tokio::test]
async fn without_layers_nothing_is_built() {
    let (_home, gateway) = crate::fake::gateway(FakeRuntime::default());
    let router = gateway.router(Owner::LOCAL);
    let answer = call(&router, Method::POST, "/v3/templates", &[], Some(json!({"name": "a"}))).await;
    assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED);
    assert!(
        answer.body["message"].as_str().unwrap().contains("a fake"),
        "{}",
        answer.body
    );
}
