//! What the tidiness rules need to know of Rust's text: which of it is a test, what is a comment,
//! which words a name is made of. It reads line by line and knows no macros; that is enough for
//! rules whose exceptions are listed by hand.

/// Whether the whole file is test code, by its path.
pub(crate) fn is_test_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    path.split('/').any(|part| part == "tests" || part == "test_support" || part == "examples")
        || path.starts_with("fuzz/")
        || name.ends_with("tests.rs")
        || matches!(name, "test_support.rs" | "properties.rs")
}

/// The file without its `#[cfg(test)] mod … { … }`, which by convention is the last item.
pub(crate) fn production_code(text: &str) -> &str {
    let mut end = 0;
    let mut test_from = None;
    for line in text.split_inclusive('\n') {
        match (test_from, line.trim()) {
            (_, "#[cfg(test)]") => test_from = Some(end),
            (Some(from), item) if is_inline_module(item) => return &text[..from],
            (Some(_), item) if item.starts_with("#[") => {}
            _ => test_from = None,
        }
        end += line.len();
    }
    text
}

fn is_inline_module(line: &str) -> bool {
    let line = line.strip_prefix("pub(crate) ").unwrap_or(line);
    line.starts_with("mod ") && line.ends_with('{')
}

/// The line without its comment and without what is between quotes, if both end on this line.
pub(crate) fn code_of_line(line: &str) -> String {
    let mut code = String::with_capacity(line.len());
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if quoted => {
                characters.next();
            }
            '"' => {
                quoted = !quoted;
                code.push('"');
            }
            '/' if !quoted && characters.peek() == Some(&'/') => break,
            _ if quoted => {}
            other => code.push(other),
        }
    }
    code
}

/// Names in a piece of code, as they are written.
pub(crate) fn identifiers(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty())
}

/// Words of a text or name in lower case: `RunDir`, `run_dir` and `run dir` are `["run", "dir"]`.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut last_is_lower = false;
    for character in text.chars() {
        let starts_word = last_is_lower && character.is_uppercase();
        if (starts_word || !character.is_alphanumeric()) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if character.is_alphanumeric() {
            word.extend(character.to_lowercase());
        }
        last_is_lower = character.is_lowercase() || character.is_numeric();
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The name of the item that a line of code begins: a type, function, constant, field or variant.
pub(crate) fn item_name(line: &str) -> Option<&str> {
    const BEFORE_NAME: [&str; 15] = [
        "pub", "crate", "super", "in", "const", "async", "unsafe", "extern", "fn", "struct",
        "enum", "trait", "type", "static", "mod",
    ];
    let mut names = identifiers(line);
    let name = names.find(|name| !BEFORE_NAME.contains(name))?;
    name.starts_with(|c: char| c.is_alphabetic() || c == '_').then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_told_from_production_code() {
        for path in ["store/tests/it/main.rs", "a/src/state/tests.rs", "a/src/http/properties.rs"] {
            assert!(is_test_file(path), "{path}");
        }
        assert!(!is_test_file("store/src/latest.rs"));
        let text = "struct A;\n\n#[cfg(test)]\nmod tests {\n    struct B;\n}\n";
        assert_eq!(production_code(text), "struct A;\n\n");
        let own_file = "#[cfg(test)]\nmod tests;\nstruct A;\n";
        assert_eq!(production_code(own_file), own_file);
        let lint = "#[cfg(test)]\n#[allow(dead_code)]\nmod tests {}\n mod b {\n";
        assert_eq!(production_code(lint), lint);
    }

    #[test]
    fn comments_and_quoted_texts_are_no_code() {
        assert_eq!(code_of_line("let a = 1; // said"), "let a = 1; ");
        assert_eq!(code_of_line(r#"let a = "x // \" y"; b()"#), r#"let a = ""; b()"#);
    }

    #[test]
    fn names_are_split_into_words() {
        assert_eq!(words("StemCell stem_cells_min"), ["stem", "cell", "stem", "cells", "min"]);
        assert_eq!(words("`v2`: it's"), ["v2", "it", "s"]);
    }

    #[test]
    fn an_item_has_a_name() {
        let name = |line| item_name(line).unwrap_or_default();
        assert_eq!(name("pub(crate) async fn run(self) {"), "run");
        assert_eq!(name("pub(super) const LINES_MAX: usize = 500;"), "LINES_MAX");
        assert_eq!(name("    pub memory_mb: u32,"), "memory_mb");
        assert_eq!(name("    }"), "");
    }
}
