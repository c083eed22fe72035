//! The queues' figures.

use axum::Json;
use axum::extract::State;
use hanshu_api::wire::QueueList;
use hanshu_core::PermissionTarget;

use crate::function_view;
use crate::middleware::Caller;
use crate::problem::Problem;
use crate::state::Gateway;

/// All queues that hold anything, by name.
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
) -> Result<Json<QueueList>, Problem> {
    caller.check(PermissionTarget::Server)?;
    let mut stats = gateway.queue.stats().await?;
    stats.sort_by(|a, b| a.queue.cmp(&b.queue));
    let now = gateway.clock.now();
    Ok(Json(QueueList {
        queues: stats.into_iter().map(|each| function_view::queue(each, now)).collect(),
    }))
}
