//! Channels and servers of tonic on loopback: statuses as verdicts, and the layer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use axum::http;
use axum::http::uri::PathAndQuery;
use breakerbox::CallError;
use breakerbox::integrations::tonic::{call_status, verdict};
use breakerbox::integrations::tower::{BreakerLayer, GrpcRules};
use breakerbox::policy::{State, Symptom};
use breakerbox::prelude::*;
use bytes::{Buf as _, BufMut as _};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tower::{Layer as _, Service, ServiceBuilder};

use super::{dependency, nowhere, opens_after};

/// Messages of four bytes.
#[derive(Default)]
struct Numbers;

impl Codec for Numbers {
    type Encode = u32;
    type Decode = u32;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Numbers {
    type Item = u32;
    type Error = Status;

    fn encode(&mut self, number: u32, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_u32(number);
        Ok(())
    }
}

impl Decoder for Numbers {
    type Item = u32;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<u32>, Status> {
        Ok((from.remaining() >= 4).then(|| from.get_u32()))
    }
}

/// Answers a number with itself, or with the status of that code plus 100. From 200 on, the answer
/// begins before the status ends it.
async fn answer(request: Request<u32>) -> Result<Response<Replies>, Status> {
    let number = request.into_inner();
    let code = i32::try_from(number).unwrap() % 100;
    let status = Status::new(Code::from_i32(code), "as it was asked for");
    match number {
        100..200 => Err(status),
        200.. => Ok(Response::new(futures_util::stream::iter(vec![
            Ok(1),
            Err(status),
        ]))),
        _ => Ok(Response::new(futures_util::stream::iter(vec![Ok(number)]))),
    }
}

type Replies = futures_util::stream::Iter<std::vec::IntoIter<Result<u32, Status>>>;

#[derive(Clone)]
struct NumberServer;

impl tonic::server::NamedService for NumberServer {
    const NAME: &'static str = "numbers";
}

impl Service<http::Request<Body>> for NumberServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = tower::service_fn(answer);
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Numbers);
            Ok(grpc.server_streaming(answer, request).await)
        })
    }
}

async fn numbers() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder().add_service(NumberServer);
    tokio::spawn(server.serve_with_incoming(incoming));
    address
}

fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.timeout(Duration::from_secs(5)).connect_lazy()
}

/// Asks for a number, and reads the whole answer.
async fn ask<C>(channel: C, number: u32) -> Result<Vec<u32>, Status>
where
    C: GrpcService<Body>,
    C::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <C::ResponseBody as http_body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut grpc = Grpc::new(channel);
    let ready = grpc.ready().await;
    ready.map_err(|error| Status::from_error(error.into()))?;
    let path = PathAndQuery::from_static("/numbers/ask");
    let answer = grpc
        .server_streaming(Request::new(number), path, Numbers)
        .await?;
    let mut stream = answer.into_inner();
    let mut all = Vec::new();
    while let Some(number) = stream.message().await? {
        all.push(number);
    }
    Ok(all)
}

#[actix::test]
async fn call_2_statuses_of_tonic_say_what_is_known() {
    let server = channel(numbers().await);
    let of = async |code: Code| {
        let number = 100 + u32::try_from(i32::from(code)).unwrap();
        let verdict = verdict(ask(server.clone(), number).await.as_ref());
        (verdict.symptom, verdict.executed)
    };
    let status = |status| Some(Symptom::Status(status));
    assert_eq!(of(Code::Unavailable).await, (status(503), Executed::Maybe));
    assert_eq!(
        of(Code::ResourceExhausted).await,
        (status(429), Executed::Yes)
    );
    assert_eq!(
        of(Code::Unauthenticated).await,
        (status(401), Executed::Yes)
    );
    assert_eq!(of(Code::NotFound).await, (None, Executed::Yes));
    let late = (Some(Symptom::Timeout), Executed::Maybe);
    assert_eq!(of(Code::DeadlineExceeded).await, late);
    assert_eq!(verdict(ask(server, 5).await.as_ref()).class, Class::Success);
    let refused = ask(channel(nowhere().await), 5).await;
    let verdict = verdict(refused.as_ref());
    assert_eq!(
        (verdict.symptom, verdict.executed),
        (Some(Symptom::Connect), Executed::No)
    );
}

#[actix::test]
async fn call_8_a_channel_of_tonic_gets_a_breaker() {
    let (runtime, client) = dependency(opens_after(3)).await;
    let layer = BreakerLayer::with_rules(client.clone(), GrpcRules).whole_bodies();
    let guarded = ServiceBuilder::new()
        .map_err(call_status)
        .layer(layer)
        .service(channel(numbers().await));
    assert_eq!(ask(guarded.clone(), 7).await.unwrap(), [7]);
    let status = ask(guarded.clone(), 103).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(client.status().totals.primary, 1);
    for number in [114, 214, 213] {
        let status = ask(guarded.clone(), number).await.unwrap_err();
        assert_eq!(
            status.code(),
            Code::from_i32(i32::try_from(number % 100).unwrap())
        );
    }
    assert_eq!(
        client.status().state,
        State::Open,
        "trailers count as heads do"
    );
    let status = ask(guarded.clone(), 7).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "api is not available at present");
    assert!(status.metadata().contains_key("grpc-retry-pushback-ms"));
    runtime.finish().await;
}

#[actix::test]
async fn call_2_a_channel_without_a_server_has_executed_nothing() {
    let (runtime, client) = dependency(opens_after(1)).await;
    let mut guarded = BreakerLayer::with_rules(client, GrpcRules).layer(channel(nowhere().await));
    let request = http::Request::post("http://numbers/ask")
        .body(Body::empty())
        .unwrap();
    let error = Service::call(&mut guarded, request).await.unwrap_err();
    assert!(matches!(error, CallError::Failed { .. }), "{error}");
    assert_eq!(error.executed(), Executed::No);
    runtime.finish().await;
}
