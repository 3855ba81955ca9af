//! Requests to services. Neither the URL nor a secret header is ever shown.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;
use serde_json::Value;

use crate::agents::ServiceError;
use crate::config::Secret;

/// A request to a service. Its `Debug` shows neither the URL nor secret headers.
#[derive(Debug, Clone)]
pub struct ServiceRequest {
    method: Method,
    /// It may contain a key.
    url: Secret,
    headers: HeaderMap,
    body: Bytes,
}

impl ServiceRequest {
    fn without_body(method: Method, url: impl Into<String>) -> Self {
        Self {
            method,
            url: Secret::new(url),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    fn with_body(
        method: Method,
        url: impl Into<String>,
        media: &'static str,
        body: String,
    ) -> Self {
        let mut asked = Self::without_body(method, url);
        let media = HeaderValue::from_static(media);
        asked.headers.insert(CONTENT_TYPE, media);
        asked.body = Bytes::from(body);
        asked
    }

    /// Creates a GET request for this URL, which may contain a key.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self::without_body(Method::GET, url)
    }

    /// Creates a DELETE request without a body.
    #[must_use]
    pub fn delete(url: impl Into<String>) -> Self {
        Self::without_body(Method::DELETE, url)
    }

    /// Creates a POST request with this JSON body.
    #[must_use]
    pub fn post_json(url: impl Into<String>, body: &Value) -> Self {
        Self::with_body(Method::POST, url, "application/json", body.to_string())
    }

    /// Creates a PUT request with this JSON body.
    #[must_use]
    pub fn put_json(url: impl Into<String>, body: &Value) -> Self {
        Self::with_body(Method::PUT, url, "application/json", body.to_string())
    }

    /// Creates a POST request with a form of these names and values.
    #[must_use]
    pub fn post_form(url: impl Into<String>, fields: &[(&str, &str)]) -> Self {
        let fields = fields
            .iter()
            .map(|(name, value)| format!("{}={}", percent_encoded(name), percent_encoded(value)));
        let form: Vec<String> = fields.collect();
        let media = "application/x-www-form-urlencoded";
        Self::with_body(Method::POST, url, media, form.join("&"))
    }

    /// Adds a parameter to the query of the URL. Name and value are percent-encoded.
    #[must_use]
    pub fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        let url = self.url.expose();
        let mark = if url.contains('?') { '&' } else { '?' };
        let (name, value) = (percent_encoded(name), percent_encoded(value.as_ref()));
        self.url = Secret::new(format!("{url}{mark}{name}={value}"));
        self
    }

    /// Adds a header with a name and a value that were made at run time.
    ///
    /// # Errors  The name or the value is not valid for a header.
    pub fn try_header(mut self, name: &str, value: &str) -> Result<Self, ServiceError> {
        let name = header_name(name)?;
        let value = header_value(&name, value)?;
        self.headers.insert(name, value);
        Ok(self)
    }

    /// Adds a header that is never shown in logs.
    ///
    /// # Errors  The name or the value is not valid for a header.
    pub fn secret_header(
        mut self,
        name: impl TryInto<HeaderName>,
        value: &str,
    ) -> Result<Self, ServiceError> {
        let name = header_name(name)?;
        let mut value = header_value(&name, value)?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(self)
    }

    /// Adds a header.
    ///
    /// # Panics  The name or the value is not valid for a header; the name must be in lower case.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        let name = HeaderName::from_static(name);
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// Adds an access token.
    ///
    /// # Errors  As [`ServiceRequest::secret_header`].
    pub fn bearer(self, token: &Secret) -> Result<Self, ServiceError> {
        let token = format!("Bearer {}", token.expose());
        self.secret_header(AUTHORIZATION, &token)
    }

    pub(super) fn into_request(self) -> Result<Request<Full<Bytes>>, ServiceError> {
        let request = Request::builder()
            .method(self.method)
            .uri(self.url.expose());
        let request = request
            .body(Full::new(self.body))
            .map_err(|_| ServiceError::misconfigured("the address of the service is invalid"));
        request.map(|mut request| {
            request.headers_mut().extend(self.headers);
            request
        })
    }
}

fn header_name(name: impl TryInto<HeaderName>) -> Result<HeaderName, ServiceError> {
    let name = name.try_into();
    name.map_err(|_| ServiceError::misconfigured("the given name of a header is invalid"))
}

fn header_value(name: &HeaderName, value: &str) -> Result<HeaderValue, ServiceError> {
    HeaderValue::from_str(value).map_err(|_| {
        ServiceError::misconfigured(format!("the given value of the header {name} is invalid"))
    })
}

/// Percent-encodes a text for a path segment, a query or a form.
#[must_use]
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
