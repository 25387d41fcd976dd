//! Templates: builds as jobs, what they are built from, and the names that there are.

use std::{sync::Arc, time::Duration};

use sandhold_client::BuildStep;
use sandhold_mcp::{Confirm, Dockerfiles, Planned};
use serde_json::{Value, json};

use crate::stub::{Session, Setup, World, text};

/// One that knows a single instruction.
struct Reader;

impl Dockerfiles for Reader {
    fn plan(&self, text: &str) -> Result<Planned, String> {
        if text.contains("COPY") {
            return Err("line 2: there are no files here".into());
        }
        Ok(Planned {
            image: text.strip_prefix("FROM ").unwrap_or_default().trim().to_owned(),
            steps: vec![BuildStep::User("root".into())],
            start_cmd: Some("from the file".into()),
            notes: vec!["line 3: EXPOSE was left out".into()],
        })
    }
}

async fn session(additions: bool) -> Session {
    Session::set_up(Setup {
        dockerfiles: Some(Arc::new(Reader)),
        world: World {
            additions,
            ..World::default()
        },
        ..Setup::default()
    })
    .await
}

fn ends(session: &Session, state: &'static str) {
    for template in &mut session.world.lock().unwrap().templates {
        template.1 = state;
    }
}

async fn ended(session: &Session, job: &Value) -> Value {
    session
        .good("get_job_status", json!({"job_id": job["job_id"], "wait_s": 20}))
        .await
}

#[tokio::test]
async fn a_build_is_a_job_with_a_log() {
    let session = session(true).await;
    let job = session
        .good(
            "build_template",
            json!({"name": "web", "from_image": "debian:12", "start_cmd": "serve"}),
        )
        .await;
    assert_eq!(
        (&job["template_id"], &job["build_id"]),
        (&json!("t-web"), &json!("b-web"))
    );
    assert!(job.get("sandbox_id").is_none(), "it is in no sandbox: {job}");
    let jobs = session.good("list_jobs", json!({})).await;
    assert_eq!(jobs["jobs"][0]["status"], "running", "{jobs}");
    assert!(jobs["jobs"][0].get("sandbox_id").is_none() && session.world.lock().unwrap().made == 0);
    let told = session
        .bad("send_stdin", json!({"job_id": job["job_id"], "data": "x"}))
        .await;
    assert_eq!(told["error"]["code"], "no_stdin");
    ends(&session, "ready");
    let status = ended(&session, &job).await;
    assert_eq!((&status["status"], &status["exit_code"]), (&json!("done"), &json!(0)));
    assert_eq!(status["stdout"], "FROM x\n[1/1] RUN y\ntemplate web is ready\n");
    let asked = session.world.lock().unwrap().builds[0].clone();
    assert_eq!(
        (&asked["fromImage"], &asked["startCmd"]),
        (&json!("debian:12"), &json!("serve"))
    );
    assert!(
        session.world.lock().unwrap().given_up.is_empty(),
        "one that is ready is not ended"
    );
    session.good("create_sandbox", json!({"template": "web"})).await;
    session.close().await;
}

#[tokio::test]
async fn a_build_that_fails_says_why() {
    let session = session(true).await;
    let job = session
        .good("build_template", json!({"name": "web", "from_template": "base"}))
        .await;
    ends(&session, "error");
    let status = ended(&session, &job).await;
    assert_eq!((&status["status"], &status["exit_code"]), (&json!("done"), &json!(1)));
    let told = status["stderr"].as_str().unwrap();
    assert!(
        told.contains("failed at step 1: exit status 3") && told.contains("build_template again"),
        "{told}"
    );
    assert!(
        session.world.lock().unwrap().given_up.is_empty(),
        "nor is one that failed"
    );
    session.close().await;
}

#[tokio::test]
async fn kill_job_gives_a_build_up() {
    for additions in [true, false] {
        let session = session(additions).await;
        let job = session
            .good("build_template", json!({"name": "web", "from_image": "debian:12"}))
            .await;
        let killed = session.good("kill_job", json!({"job_id": job["job_id"]})).await;
        assert_eq!(
            (&killed["cancelled"], &killed["status"]),
            (&json!(true), &json!("cancelled"))
        );
        if additions {
            let world = session.world.clone();
            let told = async move {
                while world.lock().unwrap().given_up != ["b-web"] {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), told)
                .await
                .expect("the server is told");
        }
        session.close().await;
    }
}

#[tokio::test]
async fn dockerfiles_are_read_by_whoever_composes() {
    let session = session(true).await;
    let job = session
        .call(
            "build_template",
            json!({"name": "web", "dockerfile": "FROM debian:12\n", "ready_cmd": "true"}),
        )
        .await;
    assert!(text(&job).contains("EXPOSE was left out"), "{}", text(&job));
    let asked = session.world.lock().unwrap().builds[0].clone();
    assert_eq!(
        (
            &asked["fromImage"],
            &asked["startCmd"],
            &asked["readyCmd"],
            &asked["steps"][0]["type"]
        ),
        (
            &json!("debian:12"),
            &json!("from the file"),
            &json!("true"),
            &json!("USER")
        )
    );
    let told = session
        .bad("build_template", json!({"name": "x", "dockerfile": "FROM a\nCOPY b c"}))
        .await;
    assert!(told["error"]["message"].as_str().unwrap().contains("line 2"), "{told}");
    session.close().await;
    let without = Session::open().await;
    let told = without
        .bad("build_template", json!({"name": "x", "dockerfile": "FROM a"}))
        .await;
    assert_eq!(told["error"]["code"], "unsupported");
    without.close().await;
}

#[tokio::test]
async fn no_build_begins_with_a_file_of_the_machine() {
    let session = session(true).await;
    for image in [
        "/etc/shadow",
        "./x",
        "oci:/x",
        "oci:x:1",
        "oci-archive:x.tar",
        "docker-archive:/x.tar",
        "a b",
        "file:///x",
        "",
    ] {
        for asked in [
            json!({"name": "x", "from_image": image}),
            json!({"name": "x", "dockerfile": format!("FROM {image}")}),
        ] {
            let told = session.bad("build_template", asked).await;
            assert_eq!(told["error"]["code"], "invalid_argument", "{image}: {told}");
        }
    }
    for bad in [
        json!({"name": "x"}),
        json!({"name": "x", "from_image": "a", "from_template": "b"}),
        json!({"name": "a b", "from_image": "a"}),
        json!({"name": "x", "from_template": "../x y"}),
    ] {
        let told = session.bad("build_template", bad).await;
        assert_eq!(told["error"]["code"], "invalid_argument", "{told}");
    }
    assert!(session.world.lock().unwrap().builds.is_empty());
    let good = session
        .good(
            "build_template",
            json!({"name": "x", "from_image": "ghcr.io/a/b:1@sha256:00"}),
        )
        .await;
    assert!(good["job_id"].is_string(), "the control: {good}");
    session.close().await;
}

#[tokio::test]
async fn a_name_that_is_not_there_is_told_with_near_ones() {
    let session = session(true).await;
    for name in ["python-data", "web"] {
        session.world.lock().unwrap().templates.push((name.into(), "ready"));
    }
    let told = session.bad("create_sandbox", json!({"template": "pyton-data"})).await;
    assert_eq!(told["error"]["code"], "template_not_found");
    let hint = told["error"]["hint"].as_str().unwrap();
    assert!(
        hint.contains("are: python-data, ") && hint.contains("list_templates"),
        "{hint}"
    );
    session.good("create_sandbox", json!({"template": "python-data"})).await;
    session.close().await;
}

#[tokio::test]
async fn templates_are_listed_and_deleted_with_consent() {
    let session = session(true).await;
    let list = session.call("list_templates", json!({})).await;
    assert_eq!(text(&list), "no templates but base");
    session.world.lock().unwrap().templates.push(("web".into(), "ready"));
    let list = session.good("list_templates", json!({})).await;
    assert_eq!(
        (&list["templates"][0]["names"], &list["templates"][0]["state"]),
        (&json!(["web"]), &json!("ready"))
    );
    let told = session.bad("delete_template", json!({"template": "web:v1"})).await;
    assert_eq!(told["error"]["code"], "invalid_argument");
    assert_eq!(
        session.good("delete_template", json!({"template": "web"})).await["deleted"],
        true
    );
    assert_eq!(
        session.good("delete_template", json!({"template": "web"})).await["deleted"],
        false
    );
    session.close().await;
    let asking = Session::set_up(Setup {
        confirm: Confirm::Always,
        ..Setup::default()
    })
    .await;
    asking.world.lock().unwrap().templates.push(("web".into(), "ready"));
    let told = asking.bad("delete_template", json!({"template": "web"})).await;
    assert_eq!(told["error"]["code"], "consent_needed");
    assert_eq!(asking.world.lock().unwrap().templates.len(), 1);
    asking.close().await;
}
