//! An HTTP client that keeps no connection after a request, and the first cause of its errors. It never
//! retries.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::tcp_connector::TcpConnector;

/// A client over HTTP and HTTPS that keeps no idle connection. Cheap to clone.
pub(crate) type UnpooledClient<B> = Client<HttpsConnector<TcpConnector>, B>;

/// Creates a client. `connect`: limit for connecting.
///
/// No idle connection is kept: one that the server has closed meanwhile would look like a server
/// that went away, and requests may come from any thread.
///
/// # Errors  TLS cannot be set up.
pub(crate) fn unpooled_client<B>(connect: Duration) -> Result<UnpooledClient<B>, String>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    let tcp = TcpConnector::new(Some(connect));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(crate::tls::client()?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(connector);
    Ok(client)
}

/// Returns the text of an error's first cause: the outer errors only say that sending failed.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
