//! Rules by call number, assembled to the instructions that the kernel runs.

use std::collections::BTreeMap;

use libc::sock_filter;

use super::{Action, Condition, OFFSET_ARGS, Rule};

/// Neighbouring numbers with the same rule as one range, by its first number; the ranges cover all numbers.
pub(super) fn ranges(rules: &BTreeMap<u32, Rule>, default: &Rule) -> Vec<(u32, Rule)> {
    let mut list: Vec<(u32, Rule)> = vec![(0, default.clone())];
    let mut put = |from: u32, rule: &Rule| match list.last_mut() {
        Some((start, last)) if *start == from => *last = rule.clone(),
        Some((_, last)) if last == rule => {}
        _ => list.push((from, rule.clone())),
    };
    for (number, rule) in rules {
        put(*number, rule);
        if !rules.contains_key(&(number + 1)) {
            put(number + 1, default);
        }
    }
    list
}

/// A search tree over the ranges; the call number is in the accumulator.
pub(super) fn search(ranges: &[(u32, Rule)]) -> Vec<sock_filter> {
    match ranges {
        [] => vec![answer(Action::NotThere.code())],
        [(_, rule)] => decide(rule),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let below = search(low);
            let mut code = match u8::try_from(below.len()) {
                Ok(distance) => vec![jump(libc::BPF_JGE, high[0].0, distance, 0)],
                // Conditional jumps reach 255 instructions, unconditional ones any distance.
                Err(_) => vec![jump(libc::BPF_JGE, high[0].0, 0, 1), skip(below.len() as u32)],
            };
            code.extend(below);
            code.extend(search(high));
            code
        }
    }
}

/// The answer of one rule; ends in a return on every path.
fn decide(rule: &Rule) -> Vec<sock_filter> {
    let mut code = Vec::new();
    for condition in &rule.when {
        // Each condition: its tests, each jumping over the rest when it fails, then the answer.
        let mut tests: Vec<Vec<sock_filter>> = Vec::new();
        let mut next = Some(condition);
        while let Some(condition) = next {
            tests.push(test(condition));
            next = condition.and.as_deref();
        }
        let mut block = vec![answer(rule.action.code())];
        for test in tests.into_iter().rev() {
            // `test` ends in "go on if true"; a failed one falls into a jump over what follows.
            let mut joined = test;
            joined.push(skip(block.len() as u32));
            joined.extend(block);
            block = joined;
        }
        code.extend(block);
    }
    code.push(answer(rule.otherwise.code()));
    code
}

/// Loads the argument and jumps one instruction ahead of the end if the condition holds, else falls to the end.
fn test(condition: &Condition) -> Vec<sock_filter> {
    let mut code = vec![load(OFFSET_ARGS + 8 * u32::from(condition.arg))];
    if condition.mask != u32::MAX {
        code.push(op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, condition.mask));
    }
    // After the comparisons comes the caller's skip (condition failed); true means to jump over it.
    let equals = condition.equals.len();
    for (index, value) in condition.equals.iter().enumerate() {
        code.push(jump(libc::BPF_JEQ, *value, (equals - index) as u8, 0));
    }
    if equals == 0 {
        let forbidden = condition.none_of.len();
        for (index, value) in condition.none_of.iter().enumerate() {
            // A match goes to the skip that stands behind one "jump over it".
            code.push(jump(libc::BPF_JEQ, *value, (forbidden - index) as u8, 0));
        }
        code.push(skip(1));
    }
    code
}

fn op(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

pub(super) fn load(offset: u32) -> sock_filter {
    op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

pub(super) fn answer(code: u32) -> sock_filter {
    op(libc::BPF_RET | libc::BPF_K, code)
}

fn skip(count: u32) -> sock_filter {
    op(libc::BPF_JMP | libc::BPF_JA, count)
}

pub(super) fn jump(kind: u32, value: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        code: (libc::BPF_JMP | kind | libc::BPF_K) as u16,
        jt,
        jf,
        k: value,
    }
}
