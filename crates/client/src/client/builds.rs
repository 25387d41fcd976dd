//! Builds under way, as their caller ends them.

use http::Method;

use super::{Client, call::Call, segment, templates::TemplateBuilding};
use crate::Error;

impl Client {
    /// Has a build given up: it fails soon after. False where it has gone meanwhile, or the server (E2B's) has no such call:
    /// there builds go on to their end.
    ///
    /// # Errors
    /// Those of the connection and of the server.
    pub async fn cancel_template_build(&self, template: &str, build: &str) -> Result<bool, Error> {
        let (template, build) = (segment(template), segment(build));
        let path = format!("/templates/{template}/builds/{build}/cancel");
        match self.done(Call::new(Method::POST, path, None)).await {
            Ok(()) => Ok(true),
            Err(Error::NotFound(_) | Error::Unsupported(_) | Error::Server { status: 405, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl TemplateBuilding {
    /// Has it given up, as [`Client::cancel_template_build`].
    ///
    /// # Errors
    /// Those of the connection and of the server.
    pub async fn cancel(&self) -> Result<bool, Error> {
        let asked = &self.requested;
        self.client
            .cancel_template_build(&asked.template_id, &asked.build_id)
            .await
    }
}
