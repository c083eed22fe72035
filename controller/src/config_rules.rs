//! What a function's configuration may be. Limits of SCF (scf.md §8).

use std::time::Duration;

use hanshu_core as core;
use hanshu_core::FunctionConfig;

use crate::error::ControllerError;

/// Longest handler text, in characters.
const HANDLER_BYTES_MAX: usize = 256;
/// Variables that belong to the platform: a function's own may not replace them.
const RESERVED: [&str; 4] =
    ["HANSHU_SOCKET", "SCF_RUNTIME_API", "SCF_RUNTIME_API_PORT", "_LAMBDA_SERVER_PORT"];

/// Checks a configuration against the limits.
///
/// # Errors
/// [`ControllerError::Invalid`] with the field, its value and the rule.
pub fn check_config(config: &FunctionConfig) -> Result<(), ControllerError> {
    check_handler(&config.handler)?;
    check_memory(config.memory_mb)?;
    within("timeoutS", config.timeout, core::TIMEOUT_MIN, core::TIMEOUT_MAX)?;
    within("initTimeoutS", config.init_timeout, core::INIT_TIMEOUT_MIN, core::INIT_TIMEOUT_MAX)?;
    if let Some(concurrency) = config.concurrency
        && !(1..=100_000).contains(&concurrency)
    {
        return Err(ControllerError::invalid(
            "concurrency",
            concurrency,
            "1 to 100000, or nothing at all",
        ));
    }
    check_async(config)?;
    check_env(config)
}

fn check_handler(handler: &str) -> Result<(), ControllerError> {
    let rule = "1 to 256 printable characters without `..`, such as `index.main_handler`";
    let fine = (1..=HANDLER_BYTES_MAX).contains(&handler.len())
        && !handler.chars().any(char::is_control)
        && !handler.starts_with('/')
        && !handler.split('/').any(|part| part == "..");
    if fine { Ok(()) } else { Err(ControllerError::invalid("handler", handler, rule)) }
}

fn check_memory(memory_mb: u32) -> Result<(), ControllerError> {
    let fine = memory_mb == core::MEMORY_MIN_MB
        || (memory_mb.is_multiple_of(core::MEMORY_STEP_MB)
            && (core::MEMORY_STEP_MB..=core::MEMORY_MAX_MB).contains(&memory_mb));
    if fine {
        return Ok(());
    }
    Err(ControllerError::invalid(
        "memoryMb",
        memory_mb,
        "64, or a multiple of 128 up to 122880 (MiB)",
    ))
}

fn within(
    field: &str,
    value: Duration,
    min: Duration,
    max: Duration,
) -> Result<(), ControllerError> {
    if min <= value && value <= max {
        return Ok(());
    }
    let rule = format!("{} to {} seconds", min.as_secs(), max.as_secs());
    Err(ControllerError::invalid(field, value.as_secs_f64(), rule))
}

fn check_async(config: &FunctionConfig) -> Result<(), ControllerError> {
    let policy = &config.async_policy;
    if !(1..=100).contains(&policy.max_attempts) {
        return Err(ControllerError::invalid("async.maxAttempts", policy.max_attempts, "1 to 100"));
    }
    let day = Duration::from_secs(86_400);
    within("async.retryDelayS", policy.retry_delay, Duration::ZERO, day)?;
    within("async.maxAgeS", policy.max_age, Duration::from_secs(1), core::ASYNC_AGE_MAX)?;
    if !(1..=core::ASYNC_WAITING_MAX).contains(&policy.max_waiting) {
        return Err(ControllerError::invalid(
            "async.maxWaiting",
            policy.max_waiting,
            "1 to 100000",
        ));
    }
    Ok(())
}

fn check_env(config: &FunctionConfig) -> Result<(), ControllerError> {
    let mut bytes = 0;
    for (name, value) in &config.env {
        let fine = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !RESERVED.contains(&name.as_str());
        if !fine {
            let rule = "a variable's name: letters, digits and `_`, none of the platform's own";
            return Err(ControllerError::invalid("env", name, rule));
        }
        if value.contains('\0') {
            return Err(ControllerError::invalid(format!("env.{name}"), "…", "text without NUL"));
        }
        bytes += name.len() + value.len();
    }
    if core::ENV_BYTES_MAX < bytes {
        let rule = format!("at most {} bytes of names and values together", core::ENV_BYTES_MAX);
        return Err(ControllerError::invalid("env", format!("{bytes} bytes"), rule));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hanshu_core::AsyncPolicy;

    fn config() -> FunctionConfig {
        FunctionConfig {
            runtime: "python".parse().unwrap(),
            handler: "index.main_handler".into(),
            memory_mb: 128,
            timeout: Duration::from_secs(3),
            init_timeout: Duration::from_secs(65),
            concurrency: None,
            network: None,
            async_policy: AsyncPolicy::default(),
            env: [("GREETING".to_owned(), "hi".to_owned())].into(),
        }
    }

    /// The field that is refused after `change`; empty if none.
    fn check(change: impl FnOnce(&mut FunctionConfig)) -> String {
        let mut config = config();
        change(&mut config);
        match check_config(&config) {
            Ok(()) => String::new(),
            Err(ControllerError::Invalid { field, .. }) => field,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn what_is_in_range_is_taken() {
        assert_eq!(check(|_| {}), "");
        assert_eq!(check(|c| c.memory_mb = 64), "");
        assert_eq!(check(|c| c.memory_mb = 3072), "");
        assert_eq!(check(|c| c.timeout = Duration::from_secs(900)), "");
        assert_eq!(check(|c| c.concurrency = Some(1)), "");
        assert_eq!(check(|c| c.handler = "src/index.main_handler".into()), "");
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        assert_eq!(check(|c| c.memory_mb = 100), "memoryMb");
        assert_eq!(check(|c| c.memory_mb = 0), "memoryMb");
        assert_eq!(check(|c| c.timeout = Duration::ZERO), "timeoutS");
        assert_eq!(check(|c| c.timeout = Duration::from_secs(901)), "timeoutS");
        assert_eq!(check(|c| c.init_timeout = Duration::from_secs(2)), "initTimeoutS");
        assert_eq!(check(|c| c.concurrency = Some(0)), "concurrency");
        assert_eq!(check(|c| c.handler = "../x.main".into()), "handler");
        assert_eq!(check(|c| c.handler = String::new()), "handler");
        assert_eq!(check(|c| c.async_policy.max_attempts = 0), "async.maxAttempts");
        assert_eq!(check(|c| c.async_policy.max_waiting = 0), "async.maxWaiting");
        assert_eq!(
            check(|c| c.async_policy.max_age = Duration::from_secs(90_000)),
            "async.maxAgeS"
        );
        assert_eq!(check(|c| drop(c.env.insert("A-B".into(), "x".into()))), "env");
        assert_eq!(check(|c| drop(c.env.insert("HANSHU_SOCKET".into(), "x".into()))), "env");
        assert_eq!(check(|c| drop(c.env.insert("BIG".into(), "x".repeat(4096)))), "env");
        assert_eq!(check(|c| drop(c.env.insert("NUL".into(), "\0".into()))), "env.NUL");
    }
}
