//! The event of a batch of stream entries: pure.

use bytes::Bytes;

use super::consumer::{StreamEntry, StreamSource};

/// The event of as many of the first entries as fit into `bytes_max`, and how many those are; 0 if
/// not even the first one fits.
pub(crate) fn batch_event(
    source: &dyn StreamSource,
    entries: &[StreamEntry],
    bytes_max: usize,
) -> (Bytes, usize) {
    const END: &[u8] = b"]}";
    let mut json = b"{\"Records\":[".to_vec();
    let mut taken = 0;
    for entry in entries {
        let before = json.len();
        if 0 < taken {
            json.push(b',');
        }
        source.write_record(entry, &mut json);
        if bytes_max < json.len() + END.len() {
            json.truncate(before);
            break;
        }
        taken += 1;
    }
    json.extend_from_slice(END);
    (json.into(), taken)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::sources::memory::MemoryTrigger;

    #[test]
    fn only_as_many_entries_are_taken_as_fit() {
        let source = MemoryTrigger::default();
        let entry = |id: &str| StreamEntry { id: id.into(), fields: vec![] };
        let entries = [entry("100"), entry("200"), entry("300")];
        let whole = batch_event(&source, &entries, usize::MAX).0.len();
        for (bytes_max, expected) in [(whole, 3), (whole - 1, 2), (17, 1), (16, 0)] {
            let (event, taken) = batch_event(&source, &entries, bytes_max);
            assert_eq!(taken, expected, "{bytes_max}");
            assert!(taken == 0 || event.len() <= bytes_max);
            let event: Value = serde_json::from_slice(&event).unwrap();
            assert_eq!(event["Records"].as_array().unwrap().len(), taken);
        }
    }
}
