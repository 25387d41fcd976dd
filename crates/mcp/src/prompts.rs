//! The prompts: tasks that people begin from a menu of their client.

use rmcp::{ErrorData, model::*};

/// An argument of a prompt: its name, what it is, whether it must be given.
type Argument = (&'static str, &'static str, bool);

/// What is said of a prompt, and what it says.
struct Template {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    arguments: &'static [Argument],
    /// Makes the text from the values, in the order of the arguments.
    text: fn(&[Option<&str>]) -> String,
}

const ALL: [Template; 2] = [
    Template {
        name: "start_web_project",
        title: "Start a web project",
        description: "Set up a web application in a sandbox, run it and show it in the browser",
        arguments: &[
            ("what", "What to build, in a sentence or more", true),
            ("stack", "Language and framework; left out, the agent chooses", false),
        ],
        text: web_project,
    },
    Template {
        name: "analyse_data_file",
        title: "Analyse a data file",
        description: "Look into a data file in a sandbox and answer a question about it",
        arguments: &[
            ("path", "The file, in the sandbox or on your machine", true),
            (
                "question",
                "What you want to know; left out, an overview is made",
                false,
            ),
        ],
        text: data_file,
    },
];

fn web_project(values: &[Option<&str>]) -> String {
    let (what, stack) = (values[0].unwrap_or_default(), values[1]);
    let stack = stack.map_or_else(
        || "Choose a stack that needs nothing that is not in the sandbox: see what is there first.".to_owned(),
        |stack| format!("Use {stack}; see first whether the sandbox has it."),
    );
    format!(
        "Build this web application in a sandbox, with Sandhold's tools: {what}\n\n{stack}\n\n\
         1. Put the project into one folder below the home, written with write_files.\n\
         2. Start its server with start_service, which answers once the port does; if it fails, read what it printed and \
         mend that.\n\
         3. Try every page and endpoint with http_probe.\n\
         4. Give me the link of get_public_url and tell me what you built, how you tried it, and what is missing.\n\
         5. Offer me the project as a zip (prepare_project_download)."
    )
}

fn data_file(values: &[Option<&str>]) -> String {
    let (path, question) = (values[0].unwrap_or_default(), values[1]);
    let question = question.map_or_else(
        || "Give an overview: what is in it, its size and shape, gaps and oddities, and what stands out.".to_owned(),
        |question| format!("The question is: {question}"),
    );
    format!(
        "Analyse the data file {path} in a sandbox, with Sandhold's tools. {question}\n\n\
         1. If the file is not in the sandbox yet, bring it there with upload_file, or give me the link of \
         presigned_upload_url.\n\
         2. Look at its first lines and its size before anything reads it whole.\n\
         3. Compute with a script that is kept beside the file, so that every number can be made again; check the numbers \
         that matter in a second way.\n\
         4. Answer with the numbers, how sure they are, and where the script and its results are."
    )
}

/// The prompts that are offered.
pub(crate) fn all() -> Vec<Prompt> {
    let prompt = |template: &Template| {
        let argument = |(name, description, required): &Argument| {
            PromptArgument::new(*name)
                .with_description(*description)
                .with_required(*required)
        };
        let arguments = template.arguments.iter().map(argument).collect();
        Prompt::new(template.name, Some(template.description), Some(arguments)).with_title(template.title)
    };
    ALL.iter().map(prompt).collect()
}

/// A prompt, filled in.
pub(crate) fn get(request: &GetPromptRequestParams) -> Result<GetPromptResult, ErrorData> {
    let refused = |message: String| Err(ErrorData::invalid_params(message, None));
    let Some(template) = ALL.iter().find(|template| template.name == request.name) else {
        return refused(format!("Unknown prompt: {}", request.name));
    };
    let mut values = Vec::new();
    for (name, _, required) in template.arguments {
        let given = request.arguments.as_ref().and_then(|all| all.get(*name));
        let value = given
            .and_then(|value| value.as_str())
            .map(str::trim)
            .filter(|v| !v.is_empty());
        if *required && value.is_none() {
            return refused(format!("argument {name} of {} is missing", template.name));
        }
        values.push(value);
    }
    let text = (template.text)(&values);
    Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)]).with_description(template.description))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_name_tools_that_exist() {
        let tools: Vec<&str> = crate::tools::specs().iter().map(|s| s.name).collect();
        for template in ALL {
            let text = (template.text)(&vec![Some("x"); template.arguments.len()]);
            for word in text
                .split(|c: char| !(c.is_ascii_lowercase() || c == '_'))
                .filter(|w| w.contains('_'))
            {
                assert!(tools.contains(&word), "{} names {word}", template.name);
            }
        }
    }
}
