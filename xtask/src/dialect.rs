//! Words that this project once used for things which have a standard name. They are found in code,
//! comments, documents and messages, with the word to use instead.

use crate::rust_source::{code_of_line, identifiers, is_test_file, production_code, words};

/// Where a word is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// In all text, also as a part of a name: `stem cell` is in `StemCell` and `stem_cells_min`.
    Text,
    /// As a whole name in Rust code.
    Name,
    /// As a whole name in Rust code that is no test.
    ProductionName,
}

/// A word not to use.
struct Term {
    scope: Scope,
    word: &'static str,
    instead: &'static str,
}

const fn text(word: &'static str, instead: &'static str) -> Term {
    Term { scope: Scope::Text, word, instead }
}

const fn name(word: &'static str, instead: &'static str) -> Term {
    Term { scope: Scope::Name, word, instead }
}

const fn production(word: &'static str, instead: &'static str) -> Term {
    Term { scope: Scope::ProductionName, word, instead }
}

/// The plural and other forms of a [`Scope::Text`] word are listed with it, separated by `|`.
const TERMS: [Term; 38] = [
    text("stem cell|stem cells", "prewarmed sandbox"),
    text("line wait|line full", "wait_timeout_ms, WaitQueueFull"),
    text("standing line", "backlog"),
    text("trouble|troubles", "health problem"),
    text("doubt|doubts", "durability warning"),
    text("bury|buried|buries|burying", "dead-letter"),
    text("leash", "SandboxHandle"),
    text("hitch", "StartupError"),
    text("frost", "freeze_state"),
    text("belongings", "resources"),
    text("vitals", "stats"),
    text("desk", "Rendezvous"),
    text("sister|sisters", "peer"),
    text("the one door|same door", "entry point"),
    text("walls", "isolation"),
    text("befall|befalls|befell", "inject"),
    text("chronicle", "EventLog"),
    text("climb|climbs", "scale up"),
    text("unfit", "what is wrong with it"),
    text("is away|are away|was away|be away|server away", "unavailable"),
    name("Whose", "Owner"),
    name("doubles", "test_support"),
    name("NotSo", "BulkOutcome::Fallback"),
    name("Turned", "AcquireError"),
    name("Blow", "Fault"),
    name("Held", "ClaimedEvent"),
    name("Facts", "HostCapabilities, NextEventMetadata"),
    name("Subject", "InvocationTarget"),
    name("Link", "RuntimeConnection, RedisConnection"),
    name("Decisions", "PoolDecisionBench"),
    name("RowOf", "RowContext"),
    name("groups_of", "cgroup_of_pid"),
    name("of_state", "view_from_queue_state"),
    name("may_hold", "might_contain"),
    name("reveal_first", "any_key"),
    production("said", "`to_error`, `message` or what it is"),
    production("told", "`format_…` or what it is"),
    production("away", "unavailable"),
];

/// Where a word may stay: the beginning of a path, the word (`*` for all), and why.
const EXCEPTIONS: [(&str, &str, &str); 9] = [
    ("xtask/src/", "*", "the list itself, and its samples"),
    ("Cargo.lock", "*", "names of other projects"),
    ("fuzz/corpus/", "*", "bytes for parsers, not text"),
    ("store/tests/golden/", "*", "formats as they were written, and the program of that time"),
    ("store/migrations/", "*", "databases keep the checksum of a migration's text"),
    ("store/tests/it/golden/", "bury", "fields of the golden files"),
    ("store/src/redis/", "bury", "a stored key's name"),
    ("server/tests/hostile/", "walls", "a test function's name"),
    ("CHANGELOG.md", "*", "says what a name was"),
];

/// What is wrong with the words of a file.
pub(crate) fn check(path: &str, file: &str) -> Vec<String> {
    let is_rust = path.ends_with(".rs");
    let production_end = match is_test_file(path) {
        true => 0,
        false => production_code(file).lines().count(),
    };
    let mut wrong = Vec::new();
    for (number, line) in file.lines().enumerate() {
        let words = words(line);
        let code = if is_rust { code_of_line(line) } else { String::new() };
        let is_production = number < production_end;
        let found = TERMS.iter().filter(|term| match term.scope {
            Scope::Text => term.word.split('|').any(|phrase| contains(&words, phrase)),
            Scope::Name => identifiers(&code).any(|name| name == term.word),
            Scope::ProductionName => {
                is_production && identifiers(&code).any(|name| name == term.word)
            }
        });
        for term in found.filter(|term| !is_excepted(path, term)) {
            let word = term.word.split('|').next().unwrap_or(term.word);
            wrong.push(format!("{path}:{}: `{word}`: say {}", number + 1, term.instead));
        }
    }
    wrong
}

fn is_excepted(path: &str, term: &Term) -> bool {
    EXCEPTIONS.iter().any(|(prefix, word, _)| {
        path.starts_with(prefix) && (*word == "*" || term.word.split('|').any(|each| each == *word))
    })
}

/// Whether the words of `phrase` follow each other in `words`.
fn contains(words: &[String], phrase: &str) -> bool {
    let phrase: Vec<_> = phrase.split(' ').collect();
    words.windows(phrase.len()).any(|window| window == phrase.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_in_texts_and_in_names() {
        let found = |path, text| check(path, text).join("\n");
        let fault = "docs/a.md:2: `stem cell`: say prewarmed sandbox";
        assert_eq!(found("docs/a.md", "# A\nStem cells wait."), fault);
        assert_eq!(found("core/src/a.rs", "pub stem_cells_min: u32,").lines().count(), 1);
        assert_eq!(found("core/src/a.rs", "// Redis is away.").lines().count(), 1);
    }

    #[test]
    fn a_name_is_found_in_code_only() {
        let found = |path, text| check(path, text).len();
        assert_eq!(found("core/src/a.rs", "let owner = Whose::Nobody;"), 1);
        assert_eq!(found("core/src/a.rs", "// Whose fault it is."), 0);
        assert_eq!(found("core/src/a.rs", "fn said(error: &Error) {}"), 1);
        assert_eq!(found("core/tests/it/a.rs", "let said = 1;"), 0);
        assert_eq!(found("core/tests/it/a.rs", "mod doubles;"), 1);
    }

    #[test]
    fn an_exception_is_of_a_path_and_a_word() {
        assert_eq!(check("store/src/redis/end.lua", "-- KEYS buried"), [""; 0]);
        assert_eq!(check("store/src/sql/row.rs", "// buried").len(), 1);
        assert_eq!(check("store/src/redis/end.lua", "-- trouble").len(), 1);
    }
}
