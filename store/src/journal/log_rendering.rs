//! Entries as people read them: the function's lines between the platform's (scf.md §7.1). Pure.
//!
//! `Response RequestId:` is left out: what a function returned is not kept here.

use hanshu_core::ports::{LogCursor, LogPage};
use hanshu_core::{
    ColdStart, InvocationRecord, LogBatch, LogLine, LogSource, RequestId, Timestamp,
};

use super::entry::{JournalEntry, ended_at};

/// A page of those entries, in their order.
pub(crate) fn render_page<'a>(
    entries: impl Iterator<Item = &'a JournalEntry>,
    next: LogCursor,
) -> LogPage {
    let mut lines = Vec::new();
    for entry in entries {
        render(entry, &mut lines);
    }
    LogPage { lines, next }
}

/// Adds an entry's lines.
fn render(entry: &JournalEntry, lines: &mut Vec<LogLine>) {
    match entry {
        JournalEntry::Log(batch) => output(batch, lines),
        JournalEntry::Record(record) => end(record, lines),
    }
}

fn output(batch: &LogBatch, lines: &mut Vec<LogLine>) {
    if let (true, Some(id)) = (batch.first, batch.request_id) {
        lines.push(platform(id, batch.time, format!("START RequestId: {id}")));
        lines.extend(batch.cold_start.map(|cold| init_report(id, batch.time, &cold)));
    }
    lines.extend(batch.lines.iter().map(|text| LogLine {
        time: batch.time,
        request_id: batch.request_id,
        from: LogSource::Function,
        text: text.clone(),
    }));
}

fn end(record: &InvocationRecord, lines: &mut Vec<LogLine>) {
    let (id, at, memory) = (record.request_id, ended_at(record), record.memory_mb);
    if record.first {
        lines.push(platform(id, record.started_at, format!("START RequestId: {id}")));
        lines.extend(record.cold_start.map(|cold| init_report(id, record.started_at, &cold)));
    }
    if let Some(failure) = &record.error {
        let text = format!("ERROR RequestId:{id} Result:{}", failure.body(id));
        lines.push(platform(id, at, text));
    }
    lines.push(platform(id, at, format!("END RequestId: {id}")));
    let (ms, used) = (record.duration.as_millis(), megabytes(record.memory_bytes));
    let text =
        format!("Report RequestId: {id} Duration:{ms}ms Memory:{memory}MB MemUsage:{used}MB");
    lines.push(platform(id, at, text));
}

/// It stands right after START, in whichever entry comes first.
fn init_report(id: RequestId, time: Timestamp, cold: &ColdStart) -> LogLine {
    let mut text = format!("Init Report RequestId: {id} Coldstart: {}ms", cold.total.as_millis());
    if let Some(parts) = &cold.parts {
        let [code, runtime, function] =
            [parts.code, parts.runtime, parts.function].map(|part| part.as_millis());
        text +=
            &format!(" (PullCode: {code}ms InitRuntime: {runtime}ms InitFunction: {function}ms)");
    }
    text += &format!(" Memory: {}MB", cold.memory_mb);
    if 0 < cold.memory_bytes {
        text += &format!(" MemUsage: {}MB", megabytes(cold.memory_bytes));
    }
    if cold.from_prewarmed {
        text += " Sandbox: prewarmed";
    }
    platform(id, time, text)
}

fn platform(id: RequestId, time: Timestamp, text: String) -> LogLine {
    LogLine { time, request_id: Some(id), from: LogSource::Platform, text }
}

/// MiB with two digits.
fn megabytes(bytes: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    format!("{}.{:02}", bytes / MIB, bytes % MIB * 100 / MIB)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hanshu_core::{ColdStartParts, Failure, FunctionId, Namespace, Qualifier, StatusCode};

    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn function() -> FunctionId {
        FunctionId { namespace: Namespace::default(), name: "hello".parse().unwrap() }
    }

    fn batch(lines: &[&str], first: bool) -> JournalEntry {
        JournalEntry::Log(LogBatch {
            request_id: Some(ID.parse().unwrap()),
            function: function(),
            version: Qualifier::Latest,
            time: Timestamp::UNIX_EPOCH,
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            first,
            cold_start: None,
        })
    }

    fn record() -> InvocationRecord {
        InvocationRecord {
            request_id: ID.parse().unwrap(),
            function: function(),
            version: Qualifier::Latest,
            trigger: None,
            called_by: None,
            attempt: 1,
            started_at: Timestamp::UNIX_EPOCH,
            duration: Duration::from_micros(1999),
            status: StatusCode::Success,
            error: None,
            cold: false,
            init: None,
            cold_start: None,
            memory_mb: 128,
            memory_bytes: 31_178_752,
            node: None,
            first: false,
        }
    }

    fn check(entries: &[JournalEntry], expected: &[&str]) {
        let shown = render_page(entries.iter(), LogCursor("1:0".into()));
        let texts: Vec<_> = shown.lines.iter().map(|line| line.text.replace(ID, "ID")).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn output_stands_between_start_and_report() {
        check(
            &[
                batch(&["one", "two"], true),
                batch(&["three"], false),
                JournalEntry::Record(record()),
            ],
            &[
                "START RequestId: ID",
                "one",
                "two",
                "three",
                "END RequestId: ID",
                "Report RequestId: ID Duration:1ms Memory:128MB MemUsage:29.73MB",
            ],
        );
    }

    #[test]
    fn a_silent_cold_failure_has_all_of_the_platforms_lines() {
        let record = InvocationRecord {
            first: true,
            cold: true,
            init: Some(Duration::from_millis(120)),
            cold_start: Some(ColdStart {
                total: Duration::from_millis(120),
                memory_mb: 128,
                ..ColdStart::default()
            }),
            error: Some(Failure::seen(StatusCode::TimeLimitReached, "timed out after 3 s")),
            memory_bytes: 0,
            ..record()
        };
        check(
            &[JournalEntry::Record(record)],
            &[
                "START RequestId: ID",
                "Init Report RequestId: ID Coldstart: 120ms Memory: 128MB",
                "ERROR RequestId:ID Result:{\"errorCode\":-1,\"errorMessage\":\"timed out after \
                 3 s\",\"requestId\":\"ID\",\"statusCode\":433}",
                "END RequestId: ID",
                "Report RequestId: ID Duration:1ms Memory:128MB MemUsage:0.00MB",
            ],
        );
    }

    #[test]
    fn what_loading_printed_comes_after_the_init_report_and_that_comes_once() {
        let ms = Duration::from_millis;
        let cold_start = Some(ColdStart {
            total: ms(120),
            parts: Some(ColdStartParts { code: ms(0), runtime: ms(80), function: ms(40) }),
            memory_mb: 128,
            memory_bytes: 21_076_378,
            from_prewarmed: false,
        });
        let JournalEntry::Log(mut loading) = batch(&["loaded"], true) else { unreachable!() };
        loading.cold_start = cold_start;
        let ended = InvocationRecord { cold: true, init: Some(ms(120)), cold_start, ..record() };
        check(
            &[JournalEntry::Log(loading), batch(&["more"], false), JournalEntry::Record(ended)],
            &[
                "START RequestId: ID",
                "Init Report RequestId: ID Coldstart: 120ms (PullCode: 0ms InitRuntime: 80ms \
                 InitFunction: 40ms) Memory: 128MB MemUsage: 20.10MB",
                "loaded",
                "more",
                "END RequestId: ID",
                "Report RequestId: ID Duration:1ms Memory:128MB MemUsage:29.73MB",
            ],
        );
    }

    #[test]
    fn late_output_belongs_to_no_invocation() {
        let JournalEntry::Log(mut late) = batch(&["from a thread"], true) else { unreachable!() };
        late.request_id = None;
        let shown = render_page([JournalEntry::Log(late)].iter(), LogCursor(String::new()));
        assert_eq!(shown.lines.len(), 1);
        assert_eq!((shown.lines[0].request_id, shown.lines[0].from), (None, LogSource::Function));
    }
}
