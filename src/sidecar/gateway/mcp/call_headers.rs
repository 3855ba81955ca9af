//! Headers of ours in a request, read in one way for every kind of dependency.

use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::Priority;
use http::{HeaderMap, HeaderName};

use crate::CallOptions;
use crate::sidecar::gateway::headers::{DEADLINE, KEY, PRIORITY, has_own};

/// Maximum length of a caller's key.
const MAX_KEY: usize = 256;

/// Reads the options of a call.
///
/// # Errors  A value is not allowed; the text names the header and what is.
pub(in crate::sidecar::gateway) fn call_options(
    headers: &HeaderMap,
) -> Result<CallOptions, &'static str> {
    if !has_own(headers) {
        return Ok(CallOptions::default());
    }
    let text = |name: HeaderName| {
        let value = headers.get(name);
        value.map(|value| value.to_str().unwrap_or_default().trim())
    };
    let timeout = text(DEADLINE).map(|text| text.parse().map(Duration::from_millis));
    let timeout = timeout.transpose();
    let timeout = timeout.map_err(|_| "breakerbox-deadline-ms is not a number of milliseconds")?;
    let priority = match text(PRIORITY) {
        None | Some("normal") => Priority::Normal,
        Some("low") => Priority::Low,
        Some("high") => Priority::High,
        Some(_) => return Err("breakerbox-priority is not low, normal or high"),
    };
    let key = text(KEY);
    if key.is_some_and(|key| key.is_empty() || key.len() > MAX_KEY) {
        return Err("breakerbox-key does not have 1 to 256 characters");
    }
    Ok(CallOptions {
        timeout,
        priority,
        key: key.map(Arc::from),
        ..CallOptions::default()
    })
}
