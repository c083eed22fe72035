//! A set of small numbers in one machine word.

/// A set of numbers below 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NumberSet(pub(super) u64);

impl NumberSet {
    pub(super) fn has(self, number: i8) -> bool {
        (0..64).contains(&number) && self.0 >> number & 1 == 1
    }

    pub(super) fn add(&mut self, number: i8) {
        if (0..64).contains(&number) {
            self.0 |= 1 << number;
        }
    }

    /// The smallest number that is not below `from`.
    pub(super) fn at_or_after(self, from: i8) -> Option<i8> {
        let left = if from < 64 { self.0 >> from << from } else { 0 };
        (left != 0).then(|| i8::try_from(left.trailing_zeros()).unwrap_or(i8::MAX))
    }
}
