//! Prewarmed sandboxes: started ahead without a function, taken by the next cold start.

pub(crate) mod demand;
pub(crate) mod keeper;
pub(crate) mod pool;
