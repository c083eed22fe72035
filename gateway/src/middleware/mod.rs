//! Layers around everything that the API's listener answers, from the outermost inwards:
//! [`RequestContextLayer`], [`AuthenticateLayer`]; and on each route [`authorize_route`].
//!
//! The services are called by reference: a call clones nothing that all requests share.

mod authenticate;
mod authorize;
mod request_context;

pub(crate) use authenticate::{Authenticate, AuthenticateLayer};
pub(crate) use authorize::{Caller, authorize_route};
pub(crate) use request_context::{RequestContext, RequestContextLayer, request_id};
