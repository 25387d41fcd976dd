//! What happens around a tool at every call: its arguments, the user's consent, the time it may take, its answer.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use rmcp::model::{CallToolResponse, JsonObject};

use super::{Spec, Tool};
use crate::{
    answer::{self, ToolError},
    args, budget,
    call::Call,
    limits,
};

/// Calls `T`.
pub(super) fn invoke<T: Tool>(
    mut call: Call,
    schema: &JsonObject,
    args: JsonObject,
) -> BoxFuture<'static, CallToolResponse> {
    let question = (call.consent.is_always() && T::SPEC.hints.destructive).then(|| question(&T::SPEC, &args));
    let params = match args::parse::<T::Params>(T::SPEC.name, schema, args) {
        Ok(params) => params,
        Err(error) => return std::future::ready(answer::finish::<()>(Err(error), call.links).into()).boxed(),
    };
    let (consent, links) = (Arc::clone(&call.consent), call.links);
    async move {
        let (asked, began) = (Arc::clone(&consent), call.started);
        let work = async move {
            if let Some(question) = question {
                call.consent(question).await?;
                // The user's time is not the tool's.
                call.started = Instant::now();
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
            result = work => answer::finish(result, links).into(),
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
    let args = serde_json::to_string(args).unwrap_or_default();
    format!(
        "{}? {} {}",
        spec.title,
        spec.name,
        budget::line(&args, limits::QUESTION)
    )
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
    use super::*;

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
