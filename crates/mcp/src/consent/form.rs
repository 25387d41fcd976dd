//! The form of a question: one box to tick.

use rmcp::model::{BooleanSchema, ElicitRequestParams, ElicitResult, ElicitationSchema, PrimitiveSchemaDefinition};
use serde_json::Value;

/// The name of the box.
const FIELD: &str = "confirm";

/// A form with one box to tick.
pub(super) fn make(question: &str) -> ElicitRequestParams {
    let tick = BooleanSchema::new()
        .title("Yes, do it")
        .description("Without it nothing is done")
        .with_default(false);
    let field = (FIELD.to_owned(), PrimitiveSchemaDefinition::Boolean(tick));
    ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: question.to_owned(),
        requested_schema: ElicitationSchema::new([field].into()).with_required(vec![FIELD.into()]),
    }
}

/// Whether the box came back ticked.
pub(super) fn is_ticked(answer: &ElicitResult) -> bool {
    answer.content.as_ref().and_then(|c| c.get(FIELD)) == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_form_is_what_the_protocol_allows() {
        let form = serde_json::to_value(make("Remove it?")).unwrap();
        assert_eq!(
            (&form["mode"], &form["message"]),
            (&json!("form"), &json!("Remove it?"))
        );
        let schema = &form["requestedSchema"];
        assert_eq!(
            (&schema["type"], &schema["required"]),
            (&json!("object"), &json!(["confirm"]))
        );
        assert_eq!(schema["properties"]["confirm"]["type"], "boolean");
    }
}
