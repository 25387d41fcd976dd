//! The report: a table or JSON.

use std::fmt::Write as _;

use anyhow::Result;
use sandhold_prove::{GROUPS, Judged, Verdict};
use serde::Serialize;

use super::sandboxes::Told;

/// One vector.
#[derive(Serialize)]
pub(super) struct Row {
    group: usize,
    id: String,
    /// What was tried.
    vector: String,
    /// What must come of it.
    expected: &'static str,
    /// By what it is shown that the try is sound.
    control: &'static str,
    #[serde(flatten)]
    judged: Judged,
}

impl Row {
    pub(super) fn new(
        group: usize,
        id: &str,
        vector: &str,
        expected: &'static str,
        control: &'static str,
        judged: Judged,
    ) -> Self {
        Self {
            group,
            id: id.to_owned(),
            vector: vector.to_owned(),
            expected,
            control,
            judged,
        }
    }
}

#[derive(Serialize)]
pub(super) struct Report {
    version: &'static str,
    isolation: Told,
    /// How many vectors.
    tried: usize,
    pub(super) held: usize,
    pub(super) not_held: usize,
    untestable: usize,
    groups: [&'static str; 12],
    vectors: Vec<Row>,
}

impl Report {
    pub(super) fn new(isolation: Told, mut vectors: Vec<Row>) -> Self {
        vectors.sort_by_key(|row| row.group);
        let count = |verdict| vectors.iter().filter(|row| row.judged.verdict == verdict).count();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            isolation,
            tried: vectors.len(),
            held: count(Verdict::Held),
            not_held: count(Verdict::NotHeld),
            untestable: count(Verdict::Untestable),
            groups: GROUPS,
            vectors,
        }
    }

    #[expect(clippy::print_stdout, reason = "the command's output")]
    pub(super) fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string_pretty(self)?);
        } else {
            print!("{}", self.text());
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "sandhold {}, isolation: {} ({})\ntried as {}",
            self.version,
            self.isolation.level,
            self.isolation.detail,
            self.isolation.users.join(" and as ")
        );
        for warning in &self.isolation.warnings {
            let _ = writeln!(text, "on this machine: {warning}");
        }
        for (index, name) in GROUPS.iter().enumerate() {
            let _ = writeln!(text, "\n{}. {name}", index + 1);
            for row in self.vectors.iter().filter(|row| row.group == index + 1) {
                let mark = match row.judged.verdict {
                    Verdict::Held => "held",
                    Verdict::NotHeld => "NOT HELD",
                    Verdict::Untestable => "cannot be tested here",
                };
                let _ = writeln!(text, "  {mark:<21}  {}: {}", row.vector, row.judged.why);
            }
        }
        let _ = writeln!(
            text,
            "\n{} ways tried: {} held, {} not held, {} cannot be tested here.",
            self.tried, self.held, self.not_held, self.untestable
        );
        let verdict = match (self.not_held, self.held) {
            (0, 0) => "Nothing could be tested.",
            (0, _) => "All that can be tested here is held.",
            _ => "Something is not held: do not run what you do not trust here.",
        };
        let _ = writeln!(text, "{verdict}");
        text
    }
}
