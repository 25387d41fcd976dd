//! What the program says, and what follows from it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The groups of vectors; the first is group 1.
pub const GROUPS: [&str; 12] = [
    "proc and sys",
    "cgroups",
    "devices",
    "namespaces and mounts",
    "the runtime itself",
    "sockets into the kernel",
    "system calls",
    "terminals and IPC",
    "resources",
    "network",
    "privileges",
    "what the host reads",
];

/// What came of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was refused.
    Held,
    /// It got through.
    NotHeld,
    /// It could not be made.
    Untestable,
}

/// What came of something, and how it showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What came of it.
    pub outcome: Outcome,
    /// How it showed: an error, a number.
    pub detail: Cow<'static, str>,
}

/// One line of the program's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The vector.
    pub id: String,
    /// Its group, from 1.
    pub group: usize,
    /// What came of it.
    #[serde(flatten)]
    pub found: Found,
    /// What came of the control, where that is made in the same place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Found>,
}

/// The end of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Refused inside, and the control got through.
    Held,
    /// It got through inside.
    NotHeld,
    /// Nothing is proven.
    Untestable,
}

/// A verdict and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// What led to it.
    pub why: String,
}

/// Judges a vector by its attempts inside, each with the name of who made it, and the best of its controls.
///
/// One attempt that gets through is enough for [`Verdict::NotHeld`], whatever the controls say. Refusals count only where
/// a control got through.
#[must_use]
pub fn judge(inside: &[(&str, &Found)], controls: &[&Found]) -> Judged {
    let judged = |verdict, why| Judged { verdict, why };
    let of = |outcome| inside.iter().filter(move |(_, found)| found.outcome == outcome);
    if let Some((who, found)) = of(Outcome::NotHeld).next() {
        return judged(Verdict::NotHeld, format!("as {who}: {}", found.detail));
    }
    let mut refusals: Vec<(&str, &str)> = of(Outcome::Held).map(|(who, found)| (*who, &*found.detail)).collect();
    let Some((_, first)) = refusals.first().copied() else {
        let why = match inside.first() {
            Some((who, found)) => format!("as {who}: {}", found.detail),
            None => "nothing was tried".to_owned(),
        };
        return judged(Verdict::Untestable, why);
    };
    if controls.iter().any(|control| control.outcome == Outcome::NotHeld) {
        refusals.retain(|(_, detail)| *detail != first);
        let others: String = refusals
            .iter()
            .map(|(who, detail)| format!("; as {who}: {detail}"))
            .collect();
        return judged(Verdict::Held, format!("{first}{others}"));
    }
    let why = match controls.first() {
        Some(control) => format!("the control fails here too: {}", control.detail),
        None => "there is no control".to_owned(),
    };
    judged(Verdict::Untestable, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(outcome: Outcome) -> Found {
        Found {
            outcome,
            detail: "x".into(),
        }
    }

    #[test]
    fn a_refusal_counts_only_with_its_control() {
        let (held, got, none) = (
            found(Outcome::Held),
            found(Outcome::NotHeld),
            found(Outcome::Untestable),
        );
        let verdict = |inside: &[&Found], controls: &[&Found]| {
            let inside: Vec<_> = inside.iter().map(|found| ("user", *found)).collect();
            judge(&inside, controls).verdict
        };
        assert_eq!(verdict(&[&held], &[&got]), Verdict::Held);
        let other = Found {
            outcome: Outcome::Held,
            detail: "y".into(),
        };
        let inside = [("user", &held), ("root", &other)];
        assert_eq!(judge(&inside, &[&got]).why, "x; as root: y");
        assert_eq!(verdict(&[&held, &none], &[&held, &got]), Verdict::Held);
        assert_eq!(verdict(&[&held], &[&held]), Verdict::Untestable);
        assert_eq!(verdict(&[&held], &[&none]), Verdict::Untestable);
        assert_eq!(verdict(&[&held], &[]), Verdict::Untestable);
        assert_eq!(verdict(&[&none], &[&got]), Verdict::Untestable);
        assert_eq!(verdict(&[], &[&got]), Verdict::Untestable);
    }

    #[test]
    fn what_gets_through_once_is_not_held() {
        let (held, got) = (found(Outcome::Held), found(Outcome::NotHeld));
        for controls in [&[][..], &[&held][..], &[&got][..]] {
            let judged = judge(&[("user", &held), ("root", &got)], controls);
            assert_eq!((judged.verdict, judged.why.as_str()), (Verdict::NotHeld, "as root: x"));
        }
    }
}
