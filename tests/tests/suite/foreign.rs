//! Other people's clients and agent stacks, each as its own users use it: `tests/python/foreign.py` says what is checked.

use std::time::Duration;

use sandhold_tests::scenario;

/// `client` of `foreign.py` with the packages of `venv`.
fn foreign(venv: &str, client: &str) {
    if let Err(error) = scenario::python(venv, "foreign.py", &[client], Duration::from_secs(300)) {
        panic!("{error:?}");
    }
}

#[test]
fn mcp_2_for_python() {
    foreign("venv-agents", "mcp2");
}

#[test]
fn mcp_1_for_python() {
    foreign("venv-v1", "mcp1");
}

#[test]
fn mcp_1_and_2_for_typescript() {
    foreign("venv", "typescript");
}

#[test]
fn fastmcp() {
    foreign("venv-agents", "fastmcp");
}

#[test]
fn openai_agents_in_strict_mode() {
    foreign("venv-agents", "openai");
}

#[test]
fn pydantic_ai() {
    foreign("venv-agents", "pydantic");
}

#[test]
fn langchain() {
    foreign("venv-v1", "langchain");
}

#[test]
fn google_genai() {
    foreign("venv-agents", "gemini");
}

#[test]
fn claude_code_connects() {
    foreign("venv", "claude");
}
