//! One sandbox from its start to its end: its room on the node, its start-up, its connections, its
//! output, its deadlines. Nothing here knows of pools.

pub(crate) mod capacity;
pub(crate) mod control;
pub(crate) mod deadlines;
pub(crate) mod exchange;
pub(crate) mod function_calls;
pub(crate) mod instance;
pub(crate) mod launch;
pub(crate) mod logs;
pub(crate) mod run_dir;
pub(crate) mod shape;
pub(crate) mod start_message;
pub(crate) mod user_ids;
