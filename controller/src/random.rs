//! Random texts for keys, which cannot be guessed.

use rand::RngExt as _;
use rand::distr::Alphanumeric;

/// `length` letters and digits (5.95 bits each) from the thread's cryptographic generator.
pub(crate) fn alphanumerics(length: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(length).map(char::from).collect()
}
