//! Headers that are for one connection and not passed on (RFC 9110, 7.6.1).

use http::header::{CONNECTION, HeaderMap, HeaderName};

const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The hop-by-hop headers of a message: the known ones, and those that its `Connection` names.
pub(crate) fn hop_by_hop_headers(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named = values.flat_map(|value| value.split(','));
    let named = named.filter_map(|name| name.trim().parse().ok());
    named.chain(HOP_BY_HOP.map(HeaderName::from_static)).collect()
}
