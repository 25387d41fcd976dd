//! Asking the person behind a client before something is destroyed.
//!
//! A tool says `call.consent("Remove …?").await?` before it changes anything, and goes on once that returns. Where the
//! question goes depends on the client: in a session it is a request of the server (`elicitation/create`); in the
//! stateless revision (2026-07-28) the call is answered with the question, and the client calls again with the answer and
//! a state that is signed here. That state is bound to the caller, the tool, its arguments and the question, expires, and
//! is good for one answer.

mod form;
pub(crate) mod show;
mod state;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rmcp::{
    ErrorData, RoleServer,
    model::{
        CallToolRequestParams, ClientCapabilities, ElicitRequest, ElicitResult, ElicitationAction, InputRequest,
        InputRequests, InputRequiredResult,
    },
    service::{Peer, RequestContext, ServiceError},
};
use serde_json::Value;
use tokio::{sync::Notify, time::Instant};

use self::state::{Sealed, States};
use crate::{answer::ToolError, call::Progress, http::Principal, limits, lock, server::is_modern};

/// When the user is asked before a tool destroys something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Confirm {
    /// Never.
    Never,
    /// Before what cannot be undone, where the client can ask; where it cannot, the tool goes on.
    #[default]
    Destructive,
    /// Before every tool that may destroy something; where the client cannot ask, the tool is refused.
    Always,
}

impl Confirm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Never, Self::Destructive, Self::Always];

    /// Its name in `--confirm`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Destructive => "destructive",
            Self::Always => "always",
        }
    }
}

/// The name of the one question of a call.
const QUESTION: &str = "consent";

/// What a server asks with.
pub(crate) struct Desk {
    policy: Confirm,
    states: States,
}

impl Desk {
    pub(crate) fn new(policy: Confirm) -> Self {
        Self {
            policy,
            states: States::new(),
        }
    }

    /// What a call is asked with. An error if it brings a state that was not made for it.
    pub(crate) fn consent(
        self: &Arc<Self>,
        cx: &RequestContext<RoleServer>,
        request: &CallToolRequestParams,
    ) -> Result<Consent, ErrorData> {
        let mut answered = None;
        let context = state::context(&Principal::of(cx), request);
        if let Some(state) = &request.request_state {
            let sealed = self.states.open(state, &context)?;
            let answer = request.input_responses.as_ref().and_then(|a| a.get(QUESTION)).cloned();
            answered = sealed.zip(answer);
        }
        let means = match can_ask(cx.client_capabilities().as_ref()) {
            false => Means::None,
            true if is_modern(cx) => Means::Rounds {
                context,
                answered: Mutex::new(answered),
            },
            true => Means::Session(cx.peer.clone()),
        };
        Ok(Consent {
            desk: Arc::clone(self),
            means,
            stand: Mutex::default(),
            asked: Notify::new(),
        })
    }
}

/// Whether the client can show a form.
fn can_ask(capabilities: Option<&ClientCapabilities>) -> bool {
    let declared = capabilities.and_then(|c| c.elicitation.as_ref());
    // Before URLs were possible, forms were all there was and had no name.
    declared.is_some_and(|e| e.form.is_some() || e.url.is_none())
}

/// How a client can be asked.
enum Means {
    None,
    /// By a request in its session.
    Session(Peer<RoleServer>),
    /// By an answer that the call is made again after.
    Rounds {
        context: Vec<u8>,
        /// The answer that this call brought.
        answered: Mutex<Option<(Sealed, Value)>>,
    },
}

/// How it stands with the consent to one call.
#[derive(Default)]
struct Stand {
    granted: bool,
    /// The user is being asked since then.
    since: Option<Instant>,
    /// How long the user was asked before that.
    waited: Duration,
    /// What the call is to be answered with instead.
    question: Option<InputRequiredResult>,
}

/// The consent to one call.
pub(crate) struct Consent {
    desk: Arc<Desk>,
    means: Means,
    stand: Mutex<Stand>,
    asked: Notify,
}

impl Consent {
    /// One under `Confirm::Always` that the user gave after this time.
    #[cfg(test)]
    pub(crate) fn given_after(waited: Duration) -> Self {
        Self {
            desk: Arc::new(Desk::new(Confirm::Always)),
            means: Means::None,
            stand: Mutex::new(Stand {
                granted: true,
                waited,
                ..Stand::default()
            }),
            asked: Notify::new(),
        }
    }

    /// Whether every tool that may destroy something must ask.
    pub(crate) fn is_always(&self) -> bool {
        self.desk.policy == Confirm::Always
    }

    /// Whether a question would reach somebody: what is looked up for its text alone need not be looked up otherwise.
    pub(crate) fn would_ask(&self) -> bool {
        self.desk.policy != Confirm::Never && !matches!(self.means, Means::None) && !lock(&self.stand).granted
    }

    /// How long the user was asked so far: time that is not the tool's.
    pub(crate) fn waited(&self) -> Duration {
        let stand = lock(&self.stand);
        stand.waited + stand.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Waits for a question that the call has to be answered with.
    pub(crate) async fn question(&self) -> InputRequiredResult {
        loop {
            self.asked.notified().await;
            if let Some(question) = lock(&self.stand).question.take() {
                return question;
            }
        }
    }

    /// Returns once the call may go on. One yes is for the whole call.
    pub(crate) async fn ask(&self, question: &str, progress: Option<&Progress>) -> Result<(), ToolError> {
        if self.desk.policy == Confirm::Never || lock(&self.stand).granted {
            return Ok(());
        }
        let question = &show::question(question);
        let answer = match &self.means {
            Means::None if self.is_always() => return Err(cannot_ask()),
            Means::None => return Ok(()),
            Means::Session(peer) => self.in_session(peer, question, progress).await?,
            Means::Rounds { context, answered } => {
                let brought = lock(answered).take();
                match brought.and_then(|(sealed, answer)| self.brought(sealed, answer, question)) {
                    Some(answer) => answer,
                    None => {
                        self.answer_with(self.round(context, question)?);
                        // The call ends here: it is answered with the question.
                        std::future::pending().await
                    }
                }
            }
        };
        granted(&answer, question)?;
        lock(&self.stand).granted = true;
        Ok(())
    }

    /// The answer that a call brought, if it is one to this question and was not used before.
    fn brought(&self, sealed: Sealed, answer: Value, question: &str) -> Option<ElicitResult> {
        let answer = serde_json::from_value(answer).ok()?;
        self.desk.states.spend(sealed, question).then_some(answer)
    }

    fn round(&self, context: &[u8], question: &str) -> Result<InputRequiredResult, ToolError> {
        let state = self.desk.states.seal(context, question)?;
        let mut asks = InputRequests::new();
        asks.insert(
            QUESTION.into(),
            InputRequest::Elicitation(ElicitRequest::new(form::make(question))),
        );
        Ok(InputRequiredResult::new(Some(asks), Some(state)))
    }

    fn answer_with(&self, question: InputRequiredResult) {
        lock(&self.stand).question = Some(question);
        self.asked.notify_one();
    }

    async fn in_session(
        &self,
        peer: &Peer<RoleServer>,
        question: &str,
        progress: Option<&Progress>,
    ) -> Result<ElicitResult, ToolError> {
        let began = Instant::now();
        lock(&self.stand).since = Some(began);
        let _asking = Asking(self);
        let asked = peer.create_elicitation_with_timeout(form::make(question), Some(limits::CONSENT_WAIT));
        tokio::pin!(asked);
        loop {
            match tokio::time::timeout(limits::CONSENT_PROGRESS, &mut asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(ServiceError::Timeout { .. })) => return Err(no_answer(question)),
                Ok(Err(error)) => {
                    return Err(ToolError::new("not_asked", format!("the user could not be asked \"{question}\": {error}"))
                        .hint("Nothing was done. Ask the user yourself, and have them change --confirm if that is what they want."));
                }
                Err(_) => {
                    if let Some(progress) = progress {
                        progress
                            .tell(began.elapsed().as_secs_f64(), "waiting for the user's answer")
                            .await;
                    }
                }
            }
        }
    }
}

/// Stops the clock of a question, also when its call is dropped.
struct Asking<'a>(&'a Consent);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut stand = lock(&self.0.stand);
        if let Some(since) = stand.since.take() {
            stand.waited += since.elapsed();
        }
    }
}

fn granted(answer: &ElicitResult, question: &str) -> Result<(), ToolError> {
    let ticked = form::is_ticked(answer);
    let how = match answer.action {
        ElicitationAction::Accept if ticked => return Ok(()),
        ElicitationAction::Cancel => "dismissed the question",
        _ => "said no to",
    };
    Err(
        ToolError::new("declined", format!("the user {how} \"{question}\"; nothing was done"))
            .hint("Do not try it again, nor in another way, without asking the user first."),
    )
}

fn no_answer(question: &str) -> ToolError {
    let seconds = limits::CONSENT_WAIT.as_secs();
    ToolError::new(
        "no_answer",
        format!("the user did not answer \"{question}\" within {seconds} s; nothing was done"),
    )
    .hint("Ask the user whether they want it before you try again.")
}

fn cannot_ask() -> ToolError {
    ToolError::new(
        "consent_needed",
        "this tool needs the user's consent, and their client cannot ask for it; nothing was done",
    )
    .hint(
        "The server runs with --confirm always. The user can start it with --confirm destructive (or SANDHOLD_CONFIRM), or \
         use a client with elicitation.",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn forms_are_declared_in_two_ways() {
        let capabilities = |value: Value| serde_json::from_value::<ClientCapabilities>(value).unwrap();
        assert!(can_ask(Some(&capabilities(json!({"elicitation": {}})))));
        assert!(can_ask(Some(&capabilities(
            json!({"elicitation": {"form": {}, "url": {}}})
        ))));
        assert!(!can_ask(Some(&capabilities(json!({"elicitation": {"url": {}}})))));
        assert!(!can_ask(Some(&capabilities(json!({})))));
        assert!(!can_ask(None));
    }
}
