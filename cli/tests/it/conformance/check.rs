//! Whether what came back is what was expected. Pure.

use serde_json::Value;

use super::data::{Expect, Status};

/// A call that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) request_id: String,
    /// Milliseconds from the call to its answer, as the caller sees it.
    pub(super) took_ms: u128,
    pub(super) end: End,
}

#[derive(Debug)]
pub(super) enum End {
    /// The answer's text.
    Returned(Vec<u8>),
    /// The failure's body.
    Failed(Value),
    /// HTTP status and problem document.
    Refused(u16, Value),
}

/// A line of a log.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) from_platform: bool,
    pub(super) text: String,
}

/// What is not as expected, in words.
#[derive(Debug, Default)]
pub(super) struct Faults(pub(super) Vec<String>);

impl Faults {
    pub(super) fn unless(&mut self, good: bool, fault: impl FnOnce() -> String) {
        if !good {
            self.0.push(fault());
        }
    }

    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: &T, wanted: &T) {
        self.unless(found == wanted, || format!("{what} is {found:?}, not {wanted:?}"));
    }
}

/// Checks how a call ended.
pub(super) fn answer(wanted: &Expect, ended: &Ended, faults: &mut Faults) {
    match (wanted.status, &ended.end) {
        (Status::Succeeded, End::Returned(text)) => returned(wanted, text, faults),
        (Status::Failed | Status::FailedOrRefusedAtDeploy, End::Failed(body)) => {
            failed(wanted, body, faults);
        }
        (Status::Refused, End::Refused(status, problem)) => {
            let code = problem["code"].as_str().unwrap_or_default().to_owned();
            faults.unless(!code.is_empty(), || format!("no problem document: {problem}"));
            faults.equal("the HTTP status", status, &wanted.http_status.unwrap_or(*status));
            faults.equal("the code", &code, wanted.code.as_ref().unwrap_or(&code));
        }
        (status, end) => faults.0.push(format!("expected {status:?}, found {}", shortened(end))),
    }
}

fn returned(wanted: &Expect, text: &[u8], faults: &mut Faults) {
    if let Some(bytes) = wanted.result_text_bytes {
        faults.equal("the answer's length", &text.len(), &bytes);
    }
    let shown = String::from_utf8_lossy(text);
    let Ok(result) = parsed(text, wanted.raw_result_any_blanks.is_some()) else {
        return faults.0.push(format!("the answer is no JSON: {}", cut(&shown)));
    };
    if let Some(raw) = &wanted.raw_result_any_blanks {
        let blank_free: String = shown.split_ascii_whitespace().collect();
        faults.equal("the answer's text", &blank_free, raw);
    }
    if let Some(value) = &wanted.result {
        faults.unless(result == *value, || format!("result {}, not {value}", cut(&shown)));
    }
    if let Some(trimmed) = &wanted.result_trimmed {
        let found = result.as_str().map(str::trim);
        faults.unless(found == Some(trimmed), || format!("result {result}, not {trimmed:?}"));
    }
    for (key, value) in &wanted.result_contains {
        let found = &result[key];
        faults.unless(found == value, || format!("`{key}` is {found}, not {value}"));
    }
    for (key, value) in &wanted.result_not {
        let found = &result[key];
        faults.unless(!found.is_null() && found != value, || format!("`{key}` is {found}"));
    }
    for (key, least) in &wanted.result_at_least {
        let found = result[key].as_f64();
        let enough = found.is_some_and(|found| *least <= found);
        faults.unless(enough, || format!("`{key}` is {found:?}, less than {least}"));
    }
    for key in &wanted.result_keys {
        faults.unless(result.get(key).is_some(), || format!("`{key}` is missing in {result}"));
    }
}

/// A lone surrogate is good syntax that this JSON library has no value for.
fn parsed(text: &[u8], syntax_alone: bool) -> Result<Value, serde_json::Error> {
    if syntax_alone {
        return serde_json::from_slice::<&serde_json::value::RawValue>(text).map(|_| Value::Null);
    }
    serde_json::from_slice(text)
}

fn failed(wanted: &Expect, body: &Value, faults: &mut Faults) {
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    if let Some(code) = wanted.status_code {
        let found = body["statusCode"].as_i64();
        faults.unless(found == Some(code), || format!("status code {found:?}, not {code}: {body}"));
    }
    let message = text("errorMessage");
    if let Some(part) = &wanted.message {
        faults.unless(message.contains(part), || format!("message {message:?} lacks {part:?}"));
    }
    if let Some(name) = &wanted.error_type {
        faults.equal("errorType", &text("errorType"), name);
    }
    let stack = text("stackTrace");
    for part in &wanted.stack {
        faults.unless(stack.contains(part), || format!("the stack lacks {part:?}: {stack:?}"));
    }
    for part in &wanted.stack_not {
        faults.unless(!stack.contains(part), || format!("the stack has {part:?}: {stack:?}"));
    }
}

/// The event's log.
pub(super) fn log(wanted: &Expect, lines: &[Line], faults: &mut Faults) {
    let own = || lines.iter().filter(|line| !line.from_platform);
    for part in &wanted.logs {
        let found = own().any(|line| line.text.contains(part));
        faults.unless(found, || format!("the log lacks {part:?}: {}", excerpt(lines)));
    }
    for part in &wanted.logs_not {
        let found = own().any(|line| line.text.contains(part));
        faults.unless(!found, || format!("the log has {part:?}: {}", excerpt(lines)));
    }
    let mut rest = lines.iter();
    for part in &wanted.logs_in_order {
        let found = rest.any(|line| line.text.contains(part));
        faults.unless(found, || format!("{part:?} is not in its place: {}", excerpt(lines)));
    }
    if wanted.log_cut {
        let cut = own().any(|line| line.text.contains(" bytes cut …]"));
        faults.unless(cut, || format!("the log has no mark of a cut: {}", excerpt(lines)));
    }
    let (start, init, report) =
        ("START RequestId: ", "Init Report RequestId: ", "Report RequestId: ");
    let count = |start: &str| {
        lines.iter().filter(|line| line.from_platform && line.text.starts_with(start)).count()
    };
    faults.unless(
        lines.first().is_some_and(|line| line.from_platform && line.text.starts_with(start))
            && lines.last().is_some_and(|line| line.from_platform && line.text.starts_with(report))
            && count(start) == 1
            && count(report) == 1
            && count(init) <= 1,
        || format!("the platform's lines are not around the log: {}", excerpt(lines)),
    );
}

fn excerpt(lines: &[Line]) -> String {
    let texts: Vec<_> = lines.iter().map(|line| cut(&line.text)).collect();
    if texts.len() <= 12 {
        return format!("{texts:?}");
    }
    format!("{} lines: {:?} … {:?}", texts.len(), &texts[..6], &texts[texts.len() - 6..])
}

pub(super) fn shortened(end: &End) -> String {
    match end {
        End::Returned(text) => format!("an answer, {}", cut(&String::from_utf8_lossy(text))),
        End::Failed(body) => format!("a failure, {}", cut(&body.to_string())),
        End::Refused(status, problem) => format!("a refusal, {status} {problem}"),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(300) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text.to_owned(),
    }
}
