//! Whether the caller may use a route: the permission of its row in the table.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use hanshu_core::{Actor, Permission, PermissionTarget, authorize};
use http::request::Parts;

use super::request_context::request_id;
use crate::api_handler::FromHead;
use crate::problem::Problem;
use crate::state::Gateway;

/// Who asks, and for what by the route's row in the table.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) actor: Actor,
    permission: Permission,
}

impl Caller {
    /// Whether the caller may do to this target what the route is for. The use-cases of the
    /// controller and of the intake ask by themselves.
    pub(crate) fn check(&self, target: PermissionTarget<'_>) -> Result<(), Problem> {
        Ok(authorize(&self.actor, self.permission, target)?)
    }
}

impl FromHead for Caller {
    async fn from_head(head: &mut Parts, _gateway: &Gateway) -> Result<Self, Problem> {
        head.extensions.get().cloned().ok_or_else(Problem::unauthenticated)
    }
}

/// Refuses whoever may not use the route for any target, before the body is read.
pub(crate) async fn authorize_route(
    State(permission): State<Permission>,
    mut request: Request,
    next: Next,
) -> Response {
    match caller(&request, permission) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.answer(request_id(request.extensions())).map(axum::body::Body::new),
    }
}

fn caller(request: &Request, permission: Permission) -> Result<Caller, Problem> {
    let actor = request.extensions().get::<Actor>().cloned();
    let caller = Caller { actor: actor.ok_or_else(Problem::unauthenticated)?, permission };
    caller.check(PermissionTarget::Any)?;
    Ok(caller)
}
