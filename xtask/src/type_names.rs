//! One type name, one type: a reader who searches for a name finds one definition.

use std::collections::BTreeMap;

use crate::rust_source::{code_of_line, identifiers, is_test_file, production_code};

/// Names that several types may have, and why.
const SHARED_NAMES: [(&str, &str); 2] = [
    ("Error", "the error of a crate's boundary, written with its crate in front"),
    ("InvokeRequest", "the API's, and the name that Go's Lambda library gives its message"),
];

/// Where a type is defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TypeDefinition {
    pub(crate) name: String,
    /// `path:line`, counted from 1.
    pub(crate) place: String,
}

/// Types that a Rust file defines outside of tests. Associated types are none: their name belongs
/// to their trait.
pub(crate) fn definitions(path: &str, text: &str) -> Vec<TypeDefinition> {
    if is_test_file(path) {
        return Vec::new();
    }
    let lines = production_code(text).lines().enumerate();
    let definition = |(number, line)| {
        let name = defined_type(line)?;
        Some(TypeDefinition { name, place: format!("{path}:{}", number + 1) })
    };
    lines.filter_map(definition).collect()
}

fn defined_type(line: &str) -> Option<String> {
    let code = code_of_line(line);
    let indented = code.starts_with(' ');
    let mut names =
        identifiers(&code).skip_while(|name| matches!(*name, "pub" | "crate" | "super"));
    if code.contains('$') {
        // The name is an argument of a macro.
        return None;
    }
    let is_definition = match names.next()? {
        "struct" | "enum" | "trait" | "union" => true,
        "type" => !indented,
        _ => false,
    };
    if is_definition { names.next().map(Into::into) } else { None }
}

/// What is wrong with the names of all these types.
pub(crate) fn reused(definitions: &[TypeDefinition]) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for definition in definitions {
        places.entry(&definition.name).or_default().push(&definition.place);
    }
    let is_shared = |name: &str| SHARED_NAMES.iter().any(|(shared, _)| *shared == name);
    let mut wrong: Vec<_> = places
        .iter()
        .filter(|(name, places)| 1 < places.len() && !is_shared(name))
        .map(|(name, places)| {
            format!("type `{name}` is defined {} times: {}", places.len(), places.join(", "))
        })
        .collect();
    let unneeded =
        SHARED_NAMES.iter().filter(|(name, _)| places.get(name).is_none_or(|all| all.len() < 2));
    wrong.extend(unneeded.map(|(name, _)| {
        format!("xtask/src/type_names.rs: `{name}` is no longer shared; take it off SHARED_NAMES")
    }));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every exception is in use, or it would be reported.
    const SHARED: [(&str, &str); 2] = [
        ("a/src/shared.rs", "pub enum Error {}\npub struct InvokeRequest;"),
        ("b/src/shared.rs", "pub enum Error {}\npub struct InvokeRequest;"),
    ];

    fn check(files: &[(&str, &str)]) -> Vec<String> {
        let files = SHARED.iter().chain(files);
        reused(&files.flat_map(|(path, text)| definitions(path, text)).collect::<Vec<_>>())
    }

    #[test]
    fn a_name_that_two_types_have_is_found() {
        let files = [
            ("store/src/a.rs", "//! A.\npub(crate) struct LogState<'a> {"),
            ("soak/src/b.rs", "//! B.\n\nenum LogState {"),
        ];
        let message = "type `LogState` is defined 2 times: store/src/a.rs:2, soak/src/b.rs:3";
        assert_eq!(check(&files), [message]);
        let alias = [("a/src/c.rs", "pub type Row = u8;"), ("a/src/d.rs", "    struct Row;")];
        assert_eq!(check(&alias).len(), 1);
    }

    #[test]
    fn tests_associated_types_and_comments_may_repeat_a_name() {
        let files = [
            ("store/src/a.rs", "struct World;\nimpl FromStr for A {\n    type Err = B;\n"),
            ("store/src/b.rs", "// struct World\n    type Err = B;\n"),
            ("store/src/c.rs", "#[cfg(test)]\nmod tests {\n    struct World;\n}\n"),
            ("store/tests/it/d.rs", "struct World;"),
        ];
        assert_eq!(check(&files), [""; 0]);
    }

    #[test]
    fn an_exception_that_is_not_needed_is_found() {
        assert!(reused(&[])[0].contains("`Error` is no longer shared"));
    }
}
