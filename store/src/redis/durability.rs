//! Whether Redis is set up such that accepted events are safe in it.

use std::collections::BTreeMap;

use hanshu_core::ports::QueueError;

use super::connection::RedisConnection;

/// The oldest Redis whose commands the scripts use.
const MAJOR_MIN: u32 = 7;

/// Refuses a Redis that is too old.
///
/// # Errors
/// [`QueueError::Unavailable`].
pub(super) async fn check_version(connection: &RedisConnection) -> Result<(), QueueError> {
    let info: String = connection.query(redis::cmd("INFO").arg("server")).await?;
    let version =
        info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("unknown");
    let major: Option<u32> = version.split('.').next().and_then(|text| text.parse().ok());
    match major {
        Some(major) if major < MAJOR_MIN => Err(QueueError::Unavailable(
            format!("Redis {MAJOR_MIN} or newer is needed, this one is {version}").into(),
        )),
        Some(_) | None => Ok(()),
    }
}

/// Why accepted events would not be safe there: a sentence for each reason.
pub(super) async fn durability_warnings(connection: &RedisConnection) -> Vec<String> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg("appendonly").arg("maxmemory").arg("maxmemory-policy");
    match connection.query::<BTreeMap<String, String>>(&command).await {
        Ok(settings) => judge(&settings),
        Err(QueueError::Unavailable(reason)) => {
            vec![format!("It is not known whether accepted events are safe: {reason}.")]
        }
        Err(error) => vec![format!(
            "It is not known whether accepted events are safe, since Redis does not permit \
             `CONFIG GET` ({error}): allow it, or make sure of `appendonly yes` and \
             `maxmemory-policy noeviction`."
        )],
    }
}

fn judge(settings: &BTreeMap<String, String>) -> Vec<String> {
    let value = |name: &str| settings.get(name).map_or("", String::as_str);
    let mut durability_warnings = Vec::new();
    if value("appendonly") != "yes" {
        durability_warnings.push(
            "Redis keeps no append-only file, so that accepted events are lost when it ends: \
             set `appendonly yes`."
                .to_owned(),
        );
    }
    let (policy, limit) = (value("maxmemory-policy"), value("maxmemory"));
    if policy != "noeviction" && limit != "0" {
        durability_warnings.push(format!(
            "Redis drops keys when it reaches its `maxmemory` of {limit} bytes (policy \
             `{policy}`), accepted events too: set `maxmemory-policy noeviction`."
        ));
    }
    durability_warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(appendonly: &str, maxmemory: &str, policy: &str) -> Vec<String> {
        judge(&BTreeMap::from([
            ("appendonly".into(), appendonly.into()),
            ("maxmemory".into(), maxmemory.into()),
            ("maxmemory-policy".into(), policy.into()),
        ]))
    }

    #[test]
    fn only_a_redis_that_persists_and_evicts_nothing_gives_no_durability_warning() {
        assert!(of("yes", "0", "noeviction").is_empty());
        assert!(of("yes", "1000000", "noeviction").is_empty());
        assert!(of("yes", "0", "allkeys-lru").is_empty(), "no limit, no eviction");
        assert_eq!(of("no", "0", "noeviction").len(), 1);
        assert_eq!(of("yes", "1000000", "allkeys-lru").len(), 1);
        assert_eq!(of("no", "1000000", "volatile-ttl").len(), 2);
        assert_eq!(judge(&BTreeMap::new()).len(), 2, "settings that are missing count as unsafe");
    }
}
