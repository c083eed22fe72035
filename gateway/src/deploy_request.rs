//! A deploy's JSON into what the controller takes.

use std::time::Duration;

use hanshu_api::wire::{AsyncSettings, DeployFunction, TriggerSettings};
use hanshu_controller::{DeployRequest, TriggerRequest};
use hanshu_core::{
    AsyncPolicy, Digest, FunctionConfig, FunctionId, INIT_TIMEOUT_DEFAULT, MEMORY_DEFAULT_MB,
    NameError, Runtime, TIMEOUT_DEFAULT,
};
use hanshu_triggers::check_trigger;

use crate::problem::Problem;

/// Checks names, numbers' types and every trigger; the controller checks the configuration.
pub(crate) fn deploy_request(
    function: FunctionId,
    wanted: DeployFunction,
) -> Result<DeployRequest, Problem> {
    let runtime: Runtime = wanted.runtime.parse().map_err(named("runtime"))?;
    let code: Digest = wanted.code.parse().map_err(named("code"))?;
    let timeout = |given: Option<u32>, default: Duration| {
        given.map_or(default, |seconds| Duration::from_secs(seconds.into()))
    };
    let config = FunctionConfig {
        runtime,
        handler: wanted.handler,
        memory_mb: wanted.memory_mb.unwrap_or(MEMORY_DEFAULT_MB),
        timeout: timeout(wanted.timeout_s, TIMEOUT_DEFAULT),
        init_timeout: timeout(wanted.init_timeout_s, INIT_TIMEOUT_DEFAULT),
        concurrency: wanted.concurrency,
        network: wanted.network,
        async_policy: policy(wanted.async_settings.unwrap_or_default()),
        env: wanted.env,
    };
    let all = wanted.triggers.into_iter().enumerate();
    let triggers = all.map(|(index, settings)| trigger(index, settings));
    Ok(DeployRequest { function, config, code, triggers: triggers.collect::<Result<_, _>>()? })
}

fn policy(settings: AsyncSettings) -> AsyncPolicy {
    let default = AsyncPolicy::default();
    let seconds = |given: Option<u32>, default: Duration| {
        given.map_or(default, |seconds| Duration::from_secs(seconds.into()))
    };
    AsyncPolicy {
        max_attempts: settings.max_attempts.unwrap_or(default.max_attempts),
        retry_delay: seconds(settings.retry_delay_s, default.retry_delay),
        max_age: seconds(settings.max_age_s, default.max_age),
        max_waiting: settings.max_waiting.unwrap_or(default.max_waiting),
    }
}

fn trigger(index: usize, settings: TriggerSettings) -> Result<TriggerRequest, Problem> {
    let TriggerSettings { kind, name, enabled, fields } = settings;
    let place = format!("triggers[{index}]");
    let spec = kind.read(fields).map_err(|error| {
        let field = error.field().map(|field| format!("{place}.{field}"));
        Problem::field(field.unwrap_or_else(|| place.clone()), error.to_string())
    })?;
    check_trigger(&spec).map_err(|error| Problem::from(error).within(&place))?;
    let name = name.map(|name| name.parse()).transpose();
    let name = name.map_err(|error: NameError| Problem::from(error).within(&place))?;
    Ok(TriggerRequest { name, spec, enabled: enabled.unwrap_or(true) })
}

fn named(field: &'static str) -> impl Fn(NameError) -> Problem {
    move |error| Problem::value(field, error.value(), error.rule())
}
