//! Names of images, Dockerfiles and `.dockerignore`s. The first byte says which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandhold_fuzz::within;
use sandhold_images::{dockerfile::StepKind, fuzz, limits};

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match first % 4 {
        0 => names(text),
        1 | 2 => within(64 << 20, || dockerfile(text, first % 4 == 1)),
        _ => {
            let (path, rules) = text.split_once('\n').unwrap_or_default();
            let _ = fuzz::ignored(rules, path);
        }
    }
});

/// What is written again means the same, and leads nowhere else.
fn names(text: &str) {
    if let Some((reference, written)) = fuzz::reference(text) {
        let (again, same) = fuzz::reference(&written).expect("what was written is a name");
        assert_eq!((&again, &same), (&reference, &written), "{text:?}");
        assert!(reference.tag().is_some() || reference.digest().is_some());
        // It becomes part of a URL's path.
        for part in reference.repository().split('/') {
            assert!(!part.is_empty() && part != "." && part != "..", "{text:?}");
            assert!(
                part.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
            );
        }
        assert!(
            !reference.registry().contains(['/', '@', '?', '#', '\\', ' ']),
            "{text:?}"
        );
    }
    if let Some((source, written)) = fuzz::source(text) {
        let again = fuzz::source(&written).expect("what was written is a source");
        assert_eq!(again, (source, written), "{text:?}");
    }
}

fn dockerfile(text: &str, known: bool) {
    match fuzz::plan(text, known) {
        Err(error) => assert!(error.line >= 1 && error.line <= text.lines().count().max(1), "{error}"),
        Ok(plan) => {
            assert!(!plan.from.image.is_empty());
            for step in &plan.steps {
                match step.kind {
                    StepKind::Run => assert!((1..=2).contains(&step.args.len())),
                    StepKind::Copy => {
                        let source = &step.args[0];
                        assert!(step.args.len() == 4 && !source.starts_with('/'), "{step:?}");
                        assert!(source.split('/').all(|part| part != ".."), "{step:?}");
                    }
                    StepKind::Env | StepKind::Arg => {
                        assert!(!step.args.is_empty() && step.args.len().is_multiple_of(2), "{step:?}");
                    }
                    StepKind::Workdir | StepKind::User => assert_eq!(step.args.len(), 1),
                }
                assert!(step.args.iter().all(|arg| arg.len() <= limits::PLAN_BYTES));
            }
        }
    }
}
