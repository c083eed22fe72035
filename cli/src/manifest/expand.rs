//! `${VAR}` in a value, from the deployer's environment. `$${` is a literal `${`.

/// Where variables come from.
pub(crate) trait VariableLookup {
    /// The value of one, if it is set.
    fn get(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> VariableLookup for F {
    fn get(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// Replaces every `${VAR}`.
pub(super) fn expand(text: &str, variables: &dyn VariableLookup) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        let inner = from.get(2..).unwrap_or_default();
        if let Some(literal) = before.strip_suffix('$') {
            out.push_str(literal);
            out.push_str("${");
            rest = inner;
            continue;
        }
        out.push_str(before);
        let Some((name, after)) = inner.split_once('}') else {
            return Err("`${` without its `}`; write `$${` for the characters themselves".into());
        };
        let value = variables
            .get(name)
            .ok_or_else(|| format!("`{name}` is not set in the environment of this command"))?;
        out.push_str(&value);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}
