//! What is stored: a type of its own for every JSON value, row and hash, apart from the inner types
//! of `hanshu_core`, with the conversion both ways in one file each.
//!
//! Every format that was ever stored can be read. A field that is added has a default, which is what
//! older values lack; see [`version::FormatVersion`] for changes that older programs would misread.

mod attempt;
mod cold_start;
mod event;
mod event_state;
mod failure;
mod function_config;
mod invocation_record;
mod log_batch;
mod origin;
mod times;
mod trigger_spec;
mod unreadable;
mod version;

pub(crate) use attempt::{begun_line, finished_line};
pub(crate) use event::{StoredClaim, StoredNewEvent};
pub(crate) use event_state::{StoredEventEnd, StoredEventState, read_state};
pub(crate) use failure::failure_json;
pub(crate) use function_config::StoredFunctionConfig;
pub(crate) use invocation_record::StoredInvocationRecord;
pub(crate) use log_batch::StoredLogBatch;
pub(crate) use origin::{origin_json, read_origin};
pub(crate) use times::{hold_end, time};
pub(crate) use trigger_spec::StoredTriggerSpec;
pub(crate) use unreadable::unreadable;
