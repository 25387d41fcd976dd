//! The signed state of a question that was asked by the answer to a call: the client hands it back with the user's answer.

use std::{collections::HashMap, sync::Mutex};

use rmcp::{
    ErrorData,
    model::{CallToolRequestParams, RequestStateCodec, RequestStateError, SealOptions},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{answer::ToolError, http::Principal, limits, lock};

/// Signs states and reads them.
pub(super) struct States {
    codec: RequestStateCodec,
    /// States that had their answer, until they expire.
    spent: Mutex<HashMap<String, Instant>>,
}

/// What is signed.
#[derive(Serialize, Deserialize)]
pub(super) struct Sealed {
    /// Makes it good for one answer.
    nonce: String,
    /// Of the question that was asked.
    question: String,
}

impl States {
    pub(super) fn new() -> Self {
        // 366 random bits.
        let key: Vec<u8> = (0..3).flat_map(|_| uuid::Uuid::new_v4().into_bytes()).collect();
        Self {
            // Longer than the least length that would be checked.
            codec: RequestStateCodec::new_unchecked(key),
            spent: Mutex::default(),
        }
    }

    /// A new state for this question about this call.
    pub(super) fn seal(&self, context: &[u8], question: &str) -> Result<String, ToolError> {
        let sealed = Sealed {
            nonce: uuid::Uuid::new_v4().simple().to_string(),
            question: digest(question),
        };
        let options = SealOptions::new().associated_data(context).ttl(limits::CONSENT_WAIT);
        let state = self.codec.seal_json_with(&sealed, &options);
        state.map_err(|e| ToolError::new("internal", format!("the question cannot be signed: {e}")))
    }

    /// Reads a state that came with this call; `None` if it has expired. An error if it is not one of ours for it.
    pub(super) fn open(&self, state: &str, context: &[u8]) -> Result<Option<Sealed>, ErrorData> {
        match self.codec.open_json_with(state, context) {
            Ok(sealed) => Ok(Some(sealed)),
            Err(RequestStateError::Expired) => Ok(None),
            Err(_) => Err(ErrorData::invalid_params(
                "requestState is not one that this server gave for this call",
                None,
            )),
        }
    }

    /// Whether the state is of this question and had no answer yet; from now on it has.
    pub(super) fn spend(&self, sealed: Sealed, question: &str) -> bool {
        if sealed.question != digest(question) {
            return false;
        }
        let mut spent = lock(&self.spent);
        spent.retain(|_, at| at.elapsed() < limits::CONSENT_WAIT);
        spent.len() < limits::CONSENTS_SPENT && spent.insert(sealed.nonce, Instant::now()).is_none()
    }
}

/// What a state is bound to: who calls which tool with which arguments.
pub(super) fn context(principal: &Principal, request: &CallToolRequestParams) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(principal.bytes());
    let arguments = request.arguments.clone().map_or(Value::Null, Value::Object);
    let call = Value::Array(vec![request.name.as_ref().into(), arguments]);
    canonical(&call, &mut hash);
    hash.finalize().to_vec()
}

/// Adds a value in a form that does not depend on the order of its fields.
fn canonical(value: &Value, hash: &mut Sha256) {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            hash.update(format!("{{{}", fields.len()));
            for (name, value) in fields {
                canonical(&Value::String(name.clone()), hash);
                canonical(value, hash);
            }
        }
        Value::Array(items) => {
            hash.update(format!("[{}", items.len()));
            items.iter().for_each(|item| canonical(item, hash));
        }
        other => {
            let text = other.to_string();
            hash.update(format!("{}:{text}", text.len()));
        }
    }
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn request(arguments: Value) -> CallToolRequestParams {
        CallToolRequestParams::new("remove_path").with_arguments(arguments.as_object().unwrap().clone())
    }

    #[test]
    fn the_context_is_the_call() {
        let of = |token: &str, arguments| context(&Principal::holding(token), &request(arguments));
        let one = of("a", json!({"path": "x", "recursive": true}));
        assert_eq!(one, of("a", json!({"recursive": true, "path": "x"})), "in any order");
        assert_ne!(one, of("b", json!({"path": "x", "recursive": true})));
        assert_ne!(one, of("a", json!({"path": "y", "recursive": true})));
        assert_ne!(one, of("a", json!({"path": "x", "recursive": "true"})));
        assert_ne!(
            of("a", json!({"a": ["b", "c"]})),
            of("a", json!({"a": ["b"], "c": null}))
        );
    }

    #[test]
    fn a_state_has_one_answer_and_one_question() {
        let states = States::new();
        let sealed = || {
            states
                .open(&states.seal(b"call", "Remove it?").unwrap(), b"call")
                .unwrap()
                .unwrap()
        };
        let first = sealed();
        let again = Sealed {
            nonce: first.nonce.clone(),
            question: first.question.clone(),
        };
        assert!(states.spend(first, "Remove it?"));
        assert!(!states.spend(again, "Remove it?"), "replayed");
        assert!(!states.spend(sealed(), "Remove all?"), "another question");
        assert!(states.spend(sealed(), "Remove it?"));
    }

    #[test]
    fn an_expired_or_foreign_state_does_not_open() {
        let states = States::new();
        let good = states.seal(b"call", "Remove it?").unwrap();
        assert!(states.open(&good, b"call").unwrap().is_some());
        assert!(states.open(&good, b"another").is_err());
        assert!(States::new().open(&good, b"call").is_err(), "another server's");
        let sealed = Sealed {
            nonce: "1".into(),
            question: digest("Remove it?"),
        };
        let options = SealOptions::new().associated_data(b"call").ttl(Duration::ZERO);
        let expired = states.codec.seal_json_with(&sealed, &options).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        assert!(states.open(&expired, b"call").unwrap().is_none(), "asked again");
    }
}
