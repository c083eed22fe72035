//! The event of a batch of stream entries: pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// One entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamEntry {
    pub(crate) id: String,
    pub(crate) fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The event of as many of the first entries as fit into `bytes_max`, and how many those are; 0 if
/// not even the first one fits.
pub(crate) fn batch_event(
    stream: &str,
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
        record(&mut json, stream, entry);
        if bytes_max < json.len() + END.len() {
            json.truncate(before);
            break;
        }
        taken += 1;
    }
    json.extend_from_slice(END);
    (json.into(), taken)
}

fn record(json: &mut Vec<u8>, stream: &str, entry: &StreamEntry) {
    json.extend_from_slice(b"{\"Redis\":{\"stream\":");
    text(json, stream);
    json.extend_from_slice(b",\"id\":");
    text(json, &entry.id);
    json.extend_from_slice(b",\"fields\":{");
    for (index, (name, value)) in entry.fields.iter().enumerate() {
        if 0 < index {
            json.push(b',');
        }
        text(json, &String::from_utf8_lossy(name));
        json.push(b':');
        match std::str::from_utf8(value) {
            Ok(value) => text(json, value),
            Err(_) => {
                json.extend_from_slice(b"{\"base64\":\"");
                json.extend_from_slice(STANDARD.encode(value).as_bytes());
                json.extend_from_slice(b"\"}");
            }
        }
    }
    json.extend_from_slice(b"}}}");
}

fn text(json: &mut Vec<u8>, text: &str) {
    // Writing a text into a vector cannot fail.
    let _ = serde_json::to_writer(json, text);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entry(id: &str, value: &[u8]) -> StreamEntry {
        StreamEntry { id: id.into(), fields: vec![(b"k".to_vec(), value.to_vec())] }
    }

    #[test]
    fn entries_become_records_in_their_order() {
        let entries = [entry("1-0", "v\"你".as_bytes()), entry("2-0", b"\xff\x00")];
        let (event, taken) = batch_event("orders", &entries, 1_000);
        let expected = json!({"Records": [
            {"Redis": {"stream": "orders", "id": "1-0", "fields": {"k": "v\"你"}}},
            {"Redis": {"stream": "orders", "id": "2-0", "fields": {"k": {"base64": "/wA="}}}},
        ]});
        assert_eq!((serde_json::from_slice::<Value>(&event).unwrap(), taken), (expected, 2));
    }

    #[test]
    fn only_as_many_entries_are_taken_as_fit() {
        let entries = [entry("1-0", b"abc"), entry("2-0", b"abc"), entry("3-0", b"abc")];
        let whole = batch_event("s", &entries, usize::MAX).0.len();
        for (bytes_max, expected) in [(whole, 3), (whole - 1, 2), (80, 1), (10, 0)] {
            let (event, taken) = batch_event("s", &entries, bytes_max);
            assert_eq!(taken, expected, "{bytes_max}");
            assert!(taken == 0 || event.len() <= bytes_max);
            let event: Value = serde_json::from_slice(&event).unwrap();
            assert_eq!(event["Records"].as_array().unwrap().len(), taken);
        }
    }
}
