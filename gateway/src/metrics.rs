//! The gateway's metrics, looked up once: counting costs one atomic addition.

use std::time::Duration;

use hanshu_core::Verdict;
use http::StatusCode;
use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

const REQUESTS: &str = "hanshu_gateway_requests_total";
const INVOCATIONS: &str = "hanshu_gateway_invocations_total";
const DURATION: &str = "hanshu_gateway_invocation_seconds";

/// By which way an invocation came.
#[derive(Clone, Copy, Debug)]
pub(crate) enum InvocationChannel {
    /// A synchronous call of the API.
    Sync,
    /// An event that the API queued.
    Async,
    /// A request to an HTTP trigger.
    Http,
}

/// Which listener a request came to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ListenerKind {
    /// The listener of the API (`--listen`).
    Api,
    /// The listener of HTTP triggers (`--http-listen`).
    Http,
}

/// All counters and histograms of the gateway.
pub(crate) struct GatewayMetrics {
    api: [Counter; 5],
    http: [Counter; 5],
    sync: ChannelMetrics,
    r#async: ChannelMetrics,
    trigger: ChannelMetrics,
}

struct ChannelMetrics {
    none: Counter,
    function: Counter,
    platform: Counter,
    duration: Histogram,
}

impl GatewayMetrics {
    pub(crate) fn new() -> Self {
        describe_counter!(REQUESTS, "Requests, by listener and class of status");
        describe_counter!(INVOCATIONS, "Invocations, by way in and whose fault their end was");
        describe_histogram!(DURATION, Unit::Seconds, "From the request's head to its answer");
        let requests = |listener: &'static str| {
            ["1xx", "2xx", "3xx", "4xx", "5xx"]
                .map(|class| counter!(REQUESTS, "listener" => listener, "status" => class))
        };
        Self {
            api: requests("api"),
            http: requests("http"),
            sync: ChannelMetrics::new("sync"),
            r#async: ChannelMetrics::new("async"),
            trigger: ChannelMetrics::new("http"),
        }
    }

    /// A request was answered.
    pub(crate) fn answered(&self, listener: ListenerKind, status: StatusCode) {
        let counters = match listener {
            ListenerKind::Api => &self.api,
            ListenerKind::Http => &self.http,
        };
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = counters.get(class) {
            counter.increment(1);
        }
    }

    /// An invocation ended; `None` if it was refused before it began.
    pub(crate) fn invoked(
        &self,
        way: InvocationChannel,
        verdict: Option<&Verdict>,
        took: Duration,
    ) {
        let way = match way {
            InvocationChannel::Sync => &self.sync,
            InvocationChannel::Async => &self.r#async,
            InvocationChannel::Http => &self.trigger,
        };
        match verdict {
            Some(Verdict::Returned(_)) => way.none.increment(1),
            Some(Verdict::Failed(_)) => way.function.increment(1),
            Some(Verdict::Refused(_)) | None => way.platform.increment(1),
        }
        way.duration.record(took.as_secs_f64());
    }

    /// An event was queued.
    pub(crate) fn queued(&self, took: Duration) {
        self.r#async.none.increment(1);
        self.r#async.duration.record(took.as_secs_f64());
    }
}

impl ChannelMetrics {
    fn new(way: &'static str) -> Self {
        let fault = |fault: &'static str| counter!(INVOCATIONS, "way" => way, "fault" => fault);
        Self {
            none: fault("none"),
            function: fault("function"),
            platform: fault("platform"),
            duration: histogram!(DURATION, "way" => way),
        }
    }
}

#[cfg(test)]
mod tests {
    use hanshu_core::Refusal;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn prometheus_reads_what_was_counted() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let metrics = GatewayMetrics::new();
            metrics.answered(ListenerKind::Api, StatusCode::OK);
            metrics.answered(ListenerKind::Http, StatusCode::NOT_FOUND);
            let refused = Verdict::Refused(Refusal::WaitQueueFull { waiting: 1 });
            metrics.invoked(InvocationChannel::Sync, Some(&refused), Duration::from_millis(2));
            metrics.invoked(
                InvocationChannel::Http,
                Some(&Verdict::Returned("1".into())),
                Duration::ZERO,
            );
            metrics.queued(Duration::ZERO);
        });
        let text = recorder.handle().render();
        for line in [
            "hanshu_gateway_requests_total{listener=\"api\",status=\"2xx\"} 1",
            "hanshu_gateway_requests_total{listener=\"http\",status=\"4xx\"} 1",
            "hanshu_gateway_invocations_total{way=\"sync\",fault=\"platform\"} 1",
            "hanshu_gateway_invocations_total{way=\"http\",fault=\"none\"} 1",
            "hanshu_gateway_invocations_total{way=\"async\",fault=\"none\"} 1",
            "# TYPE hanshu_gateway_invocation_seconds",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
