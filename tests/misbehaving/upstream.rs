//! The dependency behind the gateway: a real HTTP server.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// Starts the server, which runs to the end of the runtime.
pub(crate) async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let serving = builder.serve_connection(TokioIo::new(stream), service_fn(answer));
                // A client that leaves is part of the test.
                let _ = serving.await;
            });
        }
    });
    address
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let (status, body, wait) = match path.as_str() {
        "/big" => (200, Bytes::from(vec![b'x'; 8 << 20]), 0),
        "/slow" => (200, Bytes::from_static(b"late"), 300),
        "/denied" => (401, Bytes::from_static(b"whose key is this?"), 1),
        _ => (200, Bytes::from_static(b"ok"), 2),
    };
    if path != "/big" {
        // A body that its caller does not send whole ends the connection.
        let _ = request.into_body().collect().await;
    }
    tokio::time::sleep(Duration::from_millis(wait)).await;
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
    Ok(response)
}
