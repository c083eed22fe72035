//! Who calls the API: `Authorization: Basic` with secret id and key, checked from memory.
//!
//! The response has no challenge: a browser never asks for a password, and so never has one to send
//! along with somebody else's request.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::future::Either;
use hanshu_controller::AccessKeys;
use hanshu_core::Actor;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use tower::{Layer, Service};

use super::request_context::request_id;
use crate::http_server::Body;
use crate::problem::Problem;
use crate::routes;
use crate::state::Gateway;

/// Longest `id:secret`, bytes: both are known to be short.
const CREDENTIALS_BYTES_MAX: usize = 256;

/// Finds out who asks, and hands the request on with its [`Actor`]; without a valid key, only to
/// routes that need no permission.
#[derive(Clone, Debug)]
pub(crate) struct AuthenticateLayer(pub(crate) Gateway);

/// The service that [`AuthenticateLayer`] makes.
#[derive(Debug)]
pub(crate) struct Authenticate<S> {
    inner: S,
    gateway: Gateway,
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Authenticate<S> {
        Authenticate { inner, gateway: self.0.clone() }
    }
}

impl<'a, S, B> Service<Request<B>> for &'a Authenticate<S>
where
    &'a S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future =
        Either<<&'a S as Service<Request<B>>>::Future, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        (&self.inner).poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let address = request.extensions().get().map(SocketAddr::ip);
        match authenticate(self.gateway.controller.access(), request.headers(), address) {
            Some(actor) => {
                request.extensions_mut().insert(actor);
            }
            None if routes::is_open(request.uri().path()) => {}
            None => {
                let problem = Problem::unauthenticated();
                return Either::Right(ready(Ok(problem.answer(request_id(request.extensions())))));
            }
        }
        Either::Left((&self.inner).call(request))
    }
}

/// The owner of the key that the header names, if the secret is right.
fn authenticate(
    access: &AccessKeys,
    headers: &HeaderMap,
    address: Option<IpAddr>,
) -> Option<Actor> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut buffer = [0; CREDENTIALS_BYTES_MAX];
    let length = BASE64.decode_slice(encoded.trim_ascii(), &mut buffer).ok()?;
    let text = std::str::from_utf8(buffer.get(..length)?).ok()?;
    let (id, secret) = text.split_once(':')?;
    access.authenticate(id, secret, address)
}
