//! Dependencies behind TLS: HTTP/2 if they offer it, else HTTP/1.1, and no connection if the
//! certificate is not trusted.

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::serve::{Sidecar, command, configured, folder, http};
use super::*;

pub(super) type Issuer = CertifiedIssuer<'static, KeyPair>;

pub(super) fn issuer() -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    CertifiedIssuer::self_signed(params, key).unwrap()
}

/// A server that answers with the HTTP version of the request, its path, and its `te`.
pub(super) async fn upstream(issuer: &Issuer, speaks: &[&str]) -> Upstream {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let names = speaks.iter().map(|name| name.as_bytes().to_vec());
    config.alpn_protocols = names.collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Upstream::raw(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = hyper::service::service_fn(async |request: http::Request<Incoming>| {
                let te = request.headers().get("te").map(|te| format!(" {te:?}"));
                let te = te.unwrap_or_default();
                let text = format!("{:?} {}{te}", request.version(), request.uri().path());
                Ok::<_, std::convert::Infallible>(http::Response::new(text))
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            // It ends with its caller.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await
}

#[tokio::test]
async fn tls_and_the_version_of_http_are_agreed_on() {
    let (trusted, stranger) = (issuer(), issuer());
    let second = upstream(&trusted, &["h2", "http/1.1"]).await;
    let first = upstream(&trusted, &["http/1.1"]).await;
    let unknown = upstream(&stranger, &["h2", "http/1.1"]).await;
    let table = |name: &str, upstream: &Upstream| {
        let port = upstream.address.port();
        format!("[dependencies.{name}]\nkind = \"http\"\nurl = \"https://localhost:{port}\"\n")
    };
    let folder = folder();
    let text = [
        table("second", &second),
        table("first", &first),
        table("unknown", &unknown),
    ];
    configured(folder.path(), &text.concat());
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, trusted.pem()).unwrap();
    let mut command = command(folder.path());
    command
        .env("SSL_CERT_FILE", &roots)
        .env_remove("SSL_CERT_DIR");
    let sidecar = Sidecar::start(command, 1);
    for (path, told) in [("/second/a", "HTTP/2.0 /a"), ("/first/a", "HTTP/1.1 /a")] {
        for _ in 0..2 {
            let response = http().get(sidecar.url(path)).send().await.unwrap();
            assert_eq!(header(&response, "breakerbox-source"), "primary");
            assert_eq!(response.text().await.unwrap(), told);
        }
    }
    for (path, media, told) in [
        ("/first/a", "text/plain", "HTTP/1.1 /a \"trailers\""),
        ("/second/a", "text/plain", "HTTP/2.0 /a \"trailers\""),
        ("/second/a", "application/grpc", "HTTP/2.0 /a \"trailers\""),
    ] {
        let request = http().get(sidecar.url(path)).header("content-type", media);
        let response = request.header("te", "trailers").send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), told, "edge_3: {media}");
    }
    let refused = http().get(sidecar.url("/unknown/a")).send().await.unwrap();
    let refused = problem(refused, 502, "upstream-failed").await;
    assert_eq!(refused["executed"], "no");
}
