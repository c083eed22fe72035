//! Requests into checked values; what breaks a rule becomes a problem that says which.

use std::str::FromStr;

use axum::extract::{FromRequestParts as _, RawPathParams, Request};
use hanshu_api::wire::NamespaceParams;
use hanshu_core::{ErrorKind, FunctionId, NameError, TriggerId};
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::api_handler::{FromHead, FromWholeRequest, ViaBody};
use crate::http_server::read_payload;
use crate::problem::Problem;
use crate::state::Gateway;

/// Largest JSON body of the API's own requests. A function's 110 triggers with 4 KB each fit.
const JSON_BYTES_MAX: usize = 1024 * 1024;

/// The path's first parameter.
#[derive(Debug)]
pub(crate) struct PathParam<T>(pub(crate) T);

/// The function that the path names, in the namespace of the query.
#[derive(Debug)]
pub(crate) struct FunctionParam(pub(crate) FunctionId);

/// The trigger that the path names, of a function in the namespace of the query.
#[derive(Debug)]
pub(crate) struct TriggerParam(pub(crate) TriggerId);

/// The query, read strictly: an unknown parameter is an error.
#[derive(Debug)]
pub(crate) struct QueryParams<T>(pub(crate) T);

/// A JSON body, read strictly: an unknown field is an error.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T> FromHead for PathParam<T>
where
    T: FromStr<Err = NameError> + Send,
{
    async fn from_head(head: &mut Parts, _gateway: &Gateway) -> Result<Self, Problem> {
        let params = path_params(head).await?;
        Ok(Self(param(&params, 0)?))
    }
}

impl FromHead for FunctionParam {
    async fn from_head(head: &mut Parts, gateway: &Gateway) -> Result<Self, Problem> {
        let params = path_params(head).await?;
        let name = param(&params, 0)?;
        let QueryParams(NamespaceParams { namespace }) =
            QueryParams::from_head(head, gateway).await?;
        Ok(Self(FunctionId { namespace, name }))
    }
}

impl FromHead for TriggerParam {
    async fn from_head(head: &mut Parts, gateway: &Gateway) -> Result<Self, Problem> {
        let FunctionParam(function) = FunctionParam::from_head(head, gateway).await?;
        let params = path_params(head).await?;
        Ok(Self(TriggerId { function, name: param(&params, 1)? }))
    }
}

impl<T> FromHead for QueryParams<T>
where
    T: DeserializeOwned + Send,
{
    async fn from_head(head: &mut Parts, _gateway: &Gateway) -> Result<Self, Problem> {
        let query = axum::extract::Query::<T>::try_from_uri(&head.uri);
        let axum::extract::Query(read) = query.map_err(|rejection| {
            let text = rejection.body_text();
            let what = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            Problem::new(ErrorKind::Invalid, format!("the query: {what}"))
                .hint("see /openapi.json for the parameters of this path")
        })?;
        Ok(Self(read))
    }
}

impl<T> FromWholeRequest<ViaBody> for JsonBody<T>
where
    T: DeserializeOwned + Send,
{
    async fn from_whole_request(request: Request, _gateway: &Gateway) -> Result<Self, Problem> {
        let read = read_payload(request.into_body(), JSON_BYTES_MAX).await;
        let text =
            read.map_err(|error| Problem::payload(error, "body_too_large", JSON_BYTES_MAX))?;
        parse(&text).map(Self)
    }
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = serde_path_to_error::deserialize(&mut reader);
    let read = read.map_err(|error| {
        let path = error.path().to_string();
        let reason = error.into_inner();
        match reason.classify() {
            Category::Data => Problem::field(path, reason.to_string()),
            Category::Io | Category::Syntax | Category::Eof => {
                Problem::invalid_json(format!("the body is not valid JSON: {reason}"))
                    .hint("send one JSON object in UTF-8 as the body; /openapi.json says which")
            }
        }
    })?;
    reader.end().map_err(|error| {
        Problem::invalid_json(format!("the body goes on after its JSON: {error}"))
    })?;
    Ok(read)
}

async fn path_params(head: &mut Parts) -> Result<RawPathParams, Problem> {
    RawPathParams::from_request_parts(head, &()).await.map_err(|rejection| {
        Problem::new(ErrorKind::Invalid, format!("the path: {}", rejection.body_text()))
    })
}

fn param<T: FromStr<Err = NameError>>(params: &RawPathParams, index: usize) -> Result<T, Problem> {
    let text = params.iter().nth(index).map_or("", |(_, value)| value);
    Ok(text.parse()?)
}
