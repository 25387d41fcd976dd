//! What happens around a tool at every call: its arguments, the user's consent, the time it may take, its answer.

use std::{future::Future, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use rmcp::model::{CallToolResponse, JsonObject};

use super::{Spec, Tool};
use crate::{
    answer::{self, ToolError},
    args,
    call::Call,
    consent::show,
    limits,
};

/// Calls `T`.
pub(super) fn invoke<T: Tool>(
    call: Call,
    schema: &JsonObject,
    args: JsonObject,
) -> BoxFuture<'static, CallToolResponse> {
    let question = (call.consent.is_always() && T::SPEC.hints.destructive).then(|| question(&T::SPEC, &args));
    let params = match args::parse::<T::Params>(T::SPEC.name, schema, args) {
        Ok(params) => params,
        Err(error) => return std::future::ready(answer::finish::<()>(Err(error), call.links).into()).boxed(),
    };
    let (consent, links) = (Arc::clone(&call.consent), call.links);
    let notes = Arc::clone(&call.notes);
    async move {
        let (asked, began) = (Arc::clone(&consent), call.started);
        let work = async move {
            if let Some(question) = question {
                // The time this takes is the user's: `Call::answer_at` and `in_time` add it.
                call.consent(question).await?;
            }
            T::run(call, params).await
        };
        let work = async {
            if T::SPEC.limited {
                in_time(work, began.into(), || consent.waited())
                    .await
                    .unwrap_or_else(|| Err(too_slow(T::SPEC.name)))
            } else {
                work.await
            }
        };
        tokio::select! {
            biased;
            question = asked.question() => question.into(),
            result = work => notes.add_to(answer::finish(result, links)).into(),
        }
    }
    .boxed()
}

/// Does `work` within the time of an answer after `began`, not counting what `waited` says. `None`: it took longer.
async fn in_time<R>(
    work: impl Future<Output = R>,
    began: tokio::time::Instant,
    waited: impl Fn() -> Duration,
) -> Option<R> {
    tokio::pin!(work);
    loop {
        let until = began + limits::ANSWER_WITHIN + waited();
        match tokio::time::timeout_at(until, &mut work).await {
            Ok(result) => return Some(result),
            Err(_) if began + limits::ANSWER_WITHIN + waited() > tokio::time::Instant::now() => {}
            Err(_) => return None,
        }
    }
}

/// What the user is asked before a tool that does not ask by itself.
fn question(spec: &Spec, args: &JsonObject) -> String {
    format!("{}? {} {}", spec.title, spec.name, show::arguments(args))
}

fn too_slow(tool: &str) -> ToolError {
    let seconds = limits::ANSWER_WITHIN.as_secs();
    ToolError::new(
        "timeout",
        format!("{tool} did not finish within {seconds} s and was given up"),
    )
    .hint("Part of it may have happened. Look first, then call it again with less to do.")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use sandhold_client::{Client, HttpConfig};
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};
    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        answer::Reply,
        consent::Consent,
        host_files::Host,
        keeping::Keeping,
        registry::{Hints, Toolset},
        server::Provider,
        tenant::Tenant,
    };

    /// Says how long after it came in its call has to be answered.
    struct Due;

    #[derive(Deserialize, JsonSchema)]
    struct Params {}

    #[derive(Serialize, JsonSchema)]
    struct Output {
        seconds: u64,
    }

    thread_local! {
        static CAME_IN: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
    }

    impl Tool for Due {
        type Params = Params;
        type Output = Output;
        const SPEC: Spec = Spec {
            name: "due",
            title: "Due",
            description: "",
            toolset: Toolset::Sandbox,
            hints: Hints::CHANGES,
            limited: false,
        };

        async fn run(call: Call, _: Params) -> Result<Reply<Output>, ToolError> {
            let came_in = CAME_IN.get().expect("the test set it");
            let seconds = (call.answer_at() - came_in).as_secs();
            Ok(Reply::new(Output { seconds }, String::new()))
        }
    }

    #[tokio::test]
    async fn the_users_time_counts_once() {
        let waited = Duration::from_secs(15);
        let came_in = Instant::now().checked_sub(waited).expect("a clock that began before");
        CAME_IN.set(Some(came_in));
        let call = Call {
            tenant: Arc::new(Tenant::new(
                Client::http(HttpConfig::new("k")).unwrap(),
                Keeping::default(),
            )),
            provider: Arc::new(Provider::default()),
            dockerfiles: None,
            door: None,
            host: Host::OverHttp,
            closing: CancellationToken::new(),
            started: came_in,
            links: false,
            progress: None,
            consent: Arc::new(Consent::given_after(waited)),
            undo: None,
            notes: Arc::default(),
        };
        let CallToolResponse::Complete(answer) = invoke::<Due>(call, &JsonObject::new(), JsonObject::new()).await
        else {
            panic!("it was asked again")
        };
        let due = (limits::ANSWER_WITHIN + waited).as_secs();
        assert_eq!(answer.structured_content.unwrap()["seconds"], json!(due));
    }

    #[tokio::test(start_paused = true)]
    async fn the_users_time_is_not_the_tools() {
        let began = tokio::time::Instant::now();
        let work = || tokio::time::sleep(Duration::from_secs(100));
        assert_eq!(
            in_time(work(), began, || began.elapsed().min(Duration::from_secs(60))).await,
            Some(())
        );
        let began = tokio::time::Instant::now();
        assert_eq!(in_time(work(), began, || Duration::from_secs(20)).await, None);
        assert_eq!(began.elapsed(), limits::ANSWER_WITHIN + Duration::from_secs(20));
    }
}
