//! Creates that are sent twice make one sandbox: the second gets the answer of the first.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use http::StatusCode;
use sandhold_wire::rest::Sandbox;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    error::Refusal,
    limits::{IDEMPOTENCY_KEPT, IDEMPOTENCY_KEY_LEN, IDEMPOTENCY_KEYS},
    owner::Owner,
};

struct Known {
    at: Instant,
    request: [u8; 32],
    /// Absent while the create is under way.
    answer: Option<Sandbox>,
}

type Table = Mutex<HashMap<Owner, HashMap<String, Known>>>;

/// The keys of all owners.
#[derive(Default)]
pub(crate) struct Idempotency(Arc<Table>);

/// What a key means.
pub(crate) enum Claim {
    /// It is new: make the sandbox and [`Slot::fill`] it.
    New(Slot),
    /// It was used for the same request.
    Done(Box<Sandbox>),
}

/// The place of an answer to come. Dropped unfilled, the key is free again.
pub(crate) struct Slot {
    table: Arc<Table>,
    owner: Owner,
    key: String,
    filled: bool,
}

impl Idempotency {
    /// Claims a key for a request, of which `request` is everything that must be the same.
    pub(crate) fn claim(&self, owner: Owner, key: &str, request: &[&[u8]]) -> Result<Claim, Refusal> {
        if key.is_empty() || key.len() > IDEMPOTENCY_KEY_LEN || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Refusal::bad_request(format!(
                "Idempotency-Key has 1 to {IDEMPOTENCY_KEY_LEN} visible characters"
            )));
        }
        let mut digest = Sha256::new();
        for part in request {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        let request = digest.finalize().into();
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = table.entry(owner).or_default();
        if let Some(known) = keys.get(key).filter(|k| k.at.elapsed() < IDEMPOTENCY_KEPT) {
            return match &known.answer {
                _ if known.request != request => Err(Refusal::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "this Idempotency-Key was used for another request",
                )),
                None => Err(Refusal::new(
                    StatusCode::CONFLICT,
                    "the request with this Idempotency-Key is still under way",
                )),
                Some(answer) => Ok(Claim::Done(Box::new(answer.clone()))),
            };
        }
        if keys.len() >= IDEMPOTENCY_KEYS {
            keys.retain(|_, known| known.at.elapsed() < IDEMPOTENCY_KEPT);
        }
        if keys.len() >= IDEMPOTENCY_KEYS {
            let oldest = keys
                .iter()
                .filter(|(_, k)| k.answer.is_some())
                .min_by_key(|(_, k)| k.at);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                return Err(Refusal::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    format!("{IDEMPOTENCY_KEYS} creates with an Idempotency-Key are under way already"),
                ));
            };
            keys.remove(&oldest);
        }
        let known = Known {
            at: Instant::now(),
            request,
            answer: None,
        };
        keys.insert(key.to_owned(), known);
        Ok(Claim::New(Slot {
            table: self.0.clone(),
            owner,
            key: key.to_owned(),
            filled: false,
        }))
    }
}

impl Slot {
    pub(crate) fn fill(mut self, answer: Sandbox) {
        self.filled = true;
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = table.get_mut(&self.owner).and_then(|keys| keys.get_mut(&self.key)) {
            known.answer = Some(answer);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.filled {
            let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(keys) = table.get_mut(&self.owner) {
                keys.remove(&self.key);
            }
        }
    }
}
