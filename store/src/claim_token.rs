//! What a receipt of this crate's queues holds.

use hanshu_core::RequestId;
use hanshu_core::ports::{QueueError, Receipt};

/// One claim of one event. Private to this crate, so that only this crate can make a receipt of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClaimToken {
    pub(crate) request_id: RequestId,
    /// Which claim of the event it is, from 1.
    pub(crate) claim: u32,
}

impl ClaimToken {
    pub(crate) fn into_receipt(self) -> Receipt {
        Receipt::new(self)
    }

    pub(crate) fn of(receipt: &Receipt) -> Result<Self, QueueError> {
        let token = receipt.token::<Self>().copied();
        token.ok_or_else(|| QueueError::Internal("the receipt is another queue's".into()))
    }
}
