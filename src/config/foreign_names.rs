//! Names that other systems have for keys of this configuration.
//!
//! They come from Hystrix, resilience4j, Polly, gobreaker, Envoy, nginx and clients of HTTP.

use super::known_keys::folded;

/// Names in a dependency or in one of its sections, and the key that is meant, relative to the
/// dependency. A text with blanks is advice in words.
const OF_DEPENDENCY: &[(&str, &[&str])] = &[
    (
        "retry.max_attempts",
        &[
            "retries",
            "retry_count",
            "max_retries",
            "num_retries",
            "retry_attempts",
            "attempts",
            "max_retry_attempts",
            "retry_limit",
            "tries",
            "max_tries",
        ],
    ),
    (
        "retry.backoff.base",
        &[
            "retry_delay",
            "retry_interval",
            "retry_wait",
            "retry_backoff",
            "backoff_base",
            "wait_duration",
            "base_interval",
        ],
    ),
    (
        "retry.backoff.max",
        &["max_backoff", "max_interval", "max_delay"],
    ),
    (
        "retry.on",
        &[
            "retry_on",
            "retryable_status_codes",
            "retriable_status_codes",
        ],
    ),
    (
        "timeout.total",
        &[
            "request_timeout",
            "deadline",
            "call_timeout",
            "overall_timeout",
            "timeout_ms",
            "timeout_seconds",
            "timeout_duration",
            "time_limit",
            "execution_timeout",
        ],
    ),
    ("timeout.attempt", &["per_try_timeout", "attempt_timeout"]),
    (
        "timeout.first_byte",
        &["read_timeout", "response_timeout", "proxy_read_timeout"],
    ),
    (
        "timeout.connect",
        &[
            "connect_timeout",
            "connection_timeout",
            "proxy_connect_timeout",
        ],
    ),
    (
        "timeout.idle",
        &["idle_timeout", "socket_timeout", "stream_idle_timeout"],
    ),
    (
        "timeout.keep",
        &["keepalive_timeout", "keep_alive", "pool_idle_timeout"],
    ),
    (
        "breaker.failure_threshold",
        &[
            "threshold",
            "failures",
            "max_failures",
            "failure_count",
            "error_threshold",
            "max_fails",
            "error_count",
            "consecutive_errors",
            "consecutive_5xx",
            "trip_after",
            "failures_before_open",
        ],
    ),
    (
        "breaker.failure_rate",
        &[
            "failure_rate_threshold",
            "error_rate",
            "error_percentage",
            "error_threshold_percentage",
            "circuit_breaker_error_threshold_percentage",
            "failure_ratio",
            "error_ratio",
        ],
    ),
    (
        "breaker.slow_call",
        &["slow_call_duration_threshold", "slow_call_duration"],
    ),
    (
        "breaker.slow_rate",
        &["slow_call_rate_threshold", "slow_call_rate"],
    ),
    (
        "breaker.minimum_calls",
        &[
            "minimum_number_of_calls",
            "request_volume_threshold",
            "min_requests",
            "minimum_throughput",
            "min_calls",
            "minimum_requests",
            "volume_threshold",
            "circuit_breaker_request_volume_threshold",
        ],
    ),
    (
        "breaker.recovery_timeout",
        &[
            "wait_duration_in_open_state",
            "reset_timeout",
            "sleep_window",
            "open_timeout",
            "open_duration",
            "break_duration",
            "duration_of_break",
            "fail_timeout",
            "cooldown",
            "cool_down",
            "base_ejection_time",
            "recovery_time",
            "retry_timeout",
            "open_for",
            "half_open_after",
            "circuit_breaker_sleep_window",
        ],
    ),
    (
        "breaker.half_open_max_calls",
        &[
            "permitted_number_of_calls_in_half_open_state",
            "half_open_requests",
            "half_open_max_requests",
            "half_open_calls",
        ],
    ),
    (
        "breaker.half_open_attempt_limit",
        &["success_threshold", "successes"],
    ),
    (
        "breaker.window",
        &[
            "sliding_window_size",
            "sliding_window_type",
            "sliding_window",
            "window_size",
            "sampling_duration",
            "rolling_window",
            "bucket_period",
        ],
    ),
    (
        "breaker",
        &[
            "circuit_breaker",
            "circuit",
            "outlier_detection",
            "breakers",
        ],
    ),
    (
        "bulkhead.max_concurrent",
        &[
            "max_concurrency",
            "concurrency",
            "max_concurrent_calls",
            "max_concurrent_requests",
            "concurrency_limit",
            "max_requests",
            "max_in_flight",
            "max_connections",
            "pool_size",
            "max_parallel",
            "max_conns",
            "max_conn",
            "maxconn",
        ],
    ),
    (
        "bulkhead.max_queue",
        &[
            "queue",
            "queue_size",
            "max_pending_requests",
            "max_queue_size",
            "pending",
        ],
    ),
    ("bulkhead.max_wait", &["queue_timeout", "max_wait_duration"]),
    (
        "rate_limit.rate",
        &[
            "rate",
            "rps",
            "qps",
            "requests_per_second",
            "limit_for_period",
            "max_rate",
            "limit",
        ],
    ),
    ("rate_limit", &["ratelimit", "rate_limiter", "throttling"]),
    (
        "url",
        &[
            "endpoint",
            "address",
            "addr",
            "base_url",
            "api_base",
            "uri",
            "target",
            "upstream",
            "upstream_url",
            "href",
            "server",
            "origin",
            "backend",
            "destination",
            "host_port",
            "port",
        ],
    ),
    (
        "api",
        &[
            "dialect",
            "provider",
            "api_type",
            "model_provider",
            "vendor",
        ],
    ),
    (
        "token_limit",
        &["tpm", "tokens_per_minute", "max_tokens_per_minute"],
    ),
    ("kind", &["type", "protocol", "scheme", "driver"]),
    (
        "fallback",
        &[
            "fallbacks",
            "cache",
            "stale",
            "stale_cache",
            "stale_if_error",
            "on_failure",
            "backup",
        ],
    ),
    (
        "workers.count",
        &["instances", "replicas", "worker_count", "num_workers"],
    ),
    (
        "headers, such as headers = { authorization = \"Bearer …\" }, best in a variable; for kind = \"model\": key",
        &[
            "api_key",
            "apikey",
            "token",
            "authorization",
            "bearer",
            "bearer_token",
            "password",
        ],
    ),
    (
        "\"off\" in place of the section to leave it out",
        &["enabled", "disabled", "enable"],
    ),
    (
        "the name in the section's own title, [dependencies.NAME]",
        &["name", "id"],
    ),
    (
        "headers for what each request has to carry",
        &["header", "http_headers"],
    ),
];

/// Names outside of dependencies.
const OF_PROCESS: &[(&str, &[&str])] = &[
    (
        "gateway.bind",
        &[
            "port",
            "listen",
            "listen_address",
            "bind_address",
            "host",
            "address",
            "addr",
            "http_port",
            "bind_addr",
        ],
    ),
    (
        "gateway",
        &["server", "proxy", "http", "listener", "sidecar"],
    ),
    (
        "dependencies",
        &[
            "services",
            "service",
            "upstreams",
            "upstream",
            "backends",
            "backend",
            "clusters",
            "routes",
            "dependency",
            "deps",
            "targets",
        ],
    ),
    (
        "admin",
        &["dashboard", "management", "api", "metrics", "prometheus"],
    ),
    (
        "admin.token",
        &["admin_token", "api_token", "secret", "password"],
    ),
    (
        "admin.bind",
        &["admin_port", "admin_bind", "dashboard_port", "metrics_port"],
    ),
    (
        "otel",
        &["tracing", "opentelemetry", "telemetry", "traces", "otlp"],
    ),
    (
        "gateway.access_log",
        &["access_log", "request_log", "access_logs"],
    ),
    (
        "gateway.shutdown",
        &["graceful_shutdown", "shutdown_timeout", "drain_timeout"],
    ),
    ("gateway.threads", &["worker_threads", "threads", "workers"]),
    (
        "header_timeout for the head of a request, body_timeout for its body",
        &["read_timeout", "client_timeout"],
    ),
    (
        "gateway.header_timeout",
        &["read_header_timeout", "client_header_timeout"],
    ),
    ("gateway.body_timeout", &["client_body_timeout"]),
    ("gateway.send_timeout", &["write_timeout"]),
    (
        "gateway.idle_timeout",
        &["keepalive_timeout", "keep_alive_timeout", "keep_alive"],
    ),
    (
        "gateway.max_body",
        &[
            "client_max_body_size",
            "max_body_size",
            "body_limit",
            "max_request_size",
        ],
    ),
    ("gateway.tls", &["ssl", "https", "certificate", "cert"]),
    (
        "the variable RUST_LOG, such as RUST_LOG=debug",
        &[
            "log",
            "logging",
            "log_level",
            "loglevel",
            "level",
            "verbosity",
            "verbose",
            "debug",
        ],
    ),
    (
        "the variable BREAKERBOX_ENV, or --env",
        &["env", "environment", "profile"],
    ),
    (
        "a section [dependencies.NAME] for each: dependencies share no settings",
        &["defaults", "default", "global", "globals", "common"],
    ),
];

/// Returns the key that another system's name stands for, or advice in words.
pub(super) fn meant(key: &str, is_in_dependency: bool) -> Option<&'static str> {
    let names = match is_in_dependency {
        true => OF_DEPENDENCY,
        false => OF_PROCESS,
    };
    let key = folded(key);
    let same = |name: &&str| folded(name) == key;
    let found = names.iter().find(|(_, names)| names.iter().any(same));
    found.map(|(meant, _)| *meant)
}

/// Returns the key that is meant by a name with a letter wrong; short names are near to many.
pub(super) fn nearly(key: &str, of_dependency: bool) -> Option<&'static str> {
    if !of_dependency || key.len() < 6 {
        return None;
    }
    let names = OF_DEPENDENCY
        .iter()
        .flat_map(|(_, names)| names.iter().copied());
    let near = breakerbox_actors::nearest_word(key, names)?;
    let one_off = near.len().abs_diff(key.len()) <= 1;
    meant(near, true).filter(|meant| one_off && !meant.contains(' '))
}

#[cfg(test)]
mod tests {
    use super::super::known_keys::KnownKeys;
    use super::*;

    #[test]
    fn cfg_1_each_name_of_another_system_leads_to_a_key() {
        let known = KnownKeys::new();
        for (meant, _) in OF_DEPENDENCY
            .iter()
            .filter(|(meant, _)| !meant.contains(' '))
        {
            let mut all = known.of_dependency();
            assert!(
                all.any(|key| key.trim_end_matches("[0]") == *meant),
                "{meant}"
            );
        }
        for (meant, _) in OF_PROCESS.iter().filter(|(meant, _)| !meant.contains(' ')) {
            let is_known = known.of_process().any(|key| key == *meant) || *meant == "dependencies";
            assert!(is_known, "{meant}");
        }
    }
}
