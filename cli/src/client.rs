//! The server that a command talks to, and the settings that name it.

use hanshu_api::{Client, ClientError, FunctionPath};

use crate::error::Error;
use crate::settings::Settings;

/// A client of the native API with the settings that it was made from.
#[derive(Debug)]
pub(crate) struct ServerConnection {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
}

impl ServerConnection {
    /// Makes the client. Nothing is sent yet.
    pub(crate) fn new(settings: Settings) -> Result<Self, Error> {
        let client = Client::new(&settings.endpoint, settings.auth.clone())?;
        Ok(Self { client, settings })
    }

    /// A function of the settings' namespace.
    pub(crate) fn function<'a>(&'a self, name: &'a str) -> FunctionPath<'a> {
        FunctionPath { namespace: self.settings.namespace(), name }
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(problem) => Self::Refused(problem),
            ClientError::BadAnswer(text) => Self::Answer(text),
            ClientError::Unreachable(text) => Self::Unreachable(format!(
                "{text}\nhint: start one with `hanshu serve`, or name another with --endpoint"
            )),
            ClientError::Interrupted(text) => Self::Unreachable(text),
            ClientError::Setup(error) => {
                Self::Usage(format!("no HTTP client can be made: {error}"))
            }
        }
    }
}
