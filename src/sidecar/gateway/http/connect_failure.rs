//! Causes of a connection that could not be made, in words that hold no address and no text of
//! others.

use std::error::Error;
use std::fmt;
use std::io;

use http::StatusCode;
use rustls::{AlertDescription, CertificateError};

use crate::TimeLimit;

/// The cause of a connection that could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectFailure {
    /// The name has no address.
    NameNotFound,
    /// The port is closed.
    Refused,
    /// There is no way to the address.
    Unreachable,
    /// `timeout.connect` has passed.
    TimedOut,
    /// Another limit has passed before.
    Late(TimeLimit),
    /// The server closed the connection at once.
    Closed,
    /// The certificate is signed by an unknown authority.
    UnknownIssuer,
    /// The certificate is that of an authority, as self-signed ones usually are.
    SelfSigned,
    /// The certificate is for another name.
    OtherName,
    /// The certificate has expired.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// The certificate is not accepted for another reason.
    BadCertificate,
    /// The server does not speak TLS.
    NotTls,
    /// The TLS handshake failed.
    Handshake,
    /// The server demands a certificate of ours.
    CertificateDemanded,
    /// The server does not accept our certificate.
    CertificateRefused,
    /// The path of a Unix domain socket leads nowhere.
    NoSocket,
    /// This process may not connect there.
    Denied,
    /// The answer is not HTTP.
    NotHttp,
    /// The proxy cannot be reached; the text says why.
    Proxy(&'static str),
    /// The proxy makes no connection to the dependency; the text says its status.
    ProxyRefused(&'static str),
    /// This process or this host has no descriptor, port or memory left; the text says which.
    NoResources(&'static str),
    /// Anything else.
    Other,
}

/// Error of a name lookup, apart from those of the connection itself.
#[derive(Debug, thiserror::Error)]
#[error("the name lookup failed")]
pub(crate) struct LookupError(#[source] pub(crate) io::Error);

/// Error of a connection to a proxy, apart from those of the dependency behind it.
#[derive(Debug, thiserror::Error)]
#[error("the connection to the proxy failed")]
pub(crate) struct ProxyError(#[source] pub(crate) io::Error);

/// Refusal of a proxy to make a connection.
#[derive(Debug, thiserror::Error)]
#[error("the proxy refused: {0}")]
pub(crate) struct ProxyRefusal(pub(crate) StatusCode);

impl ConnectFailure {
    /// Reads the cause from an error and its sources.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut found = Self::Other;
        let mut is_lookup = false;
        let mut next = Some(error);
        while let Some(error) = next {
            is_lookup |= error.is::<LookupError>();
            if let Some(proxy) = error.downcast_ref::<ProxyError>() {
                let answer = Self::of_answer(&proxy.0);
                return answer.unwrap_or_else(|| Self::of(&proxy.0)).at_proxy();
            }
            if let Some(refusal) = error.downcast_ref::<ProxyRefusal>() {
                return Self::of_refusal(refusal.0);
            }
            if let Some(tls) = error.downcast_ref::<rustls::Error>() {
                return Self::of_tls(tls);
            }
            let io = error.downcast_ref::<io::Error>();
            if let Some(io) = io {
                found = Self::of_io(io, is_lookup).unwrap_or(found);
                // Its own source is not told by `source`, if it was made of another error.
                if let Some(inner) = io.get_ref() {
                    next = Some(inner);
                    continue;
                }
            }
            next = error.source();
        }
        if found == Self::Other && is_lookup {
            return Self::NameNotFound;
        }
        found
    }

    fn of_io(error: &io::Error, is_lookup: bool) -> Option<Self> {
        if let Some(lack) = own_lack(error) {
            return Some(Self::NoResources(lack));
        }
        if is_lookup {
            return Some(Self::NameNotFound);
        }
        Some(match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown => Self::Unreachable,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::NotFound => Self::NoSocket,
            io::ErrorKind::PermissionDenied => Self::Denied,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => return None,
        })
    }

    /// Returns the mistake in the answer of a proxy, if that has failed.
    fn of_answer(error: &io::Error) -> Option<Self> {
        let answer = error.get_ref()?.downcast_ref::<hyper::Error>()?;
        if answer.is_parse() {
            return Some(Self::NotHttp);
        }
        let has_ended = answer.is_incomplete_message() || answer.is_closed();
        has_ended.then_some(Self::Closed)
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(why) => match why {
                CertificateError::UnknownIssuer => Self::UnknownIssuer,
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => Self::OtherName,
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Self::Expired
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Self::NotYetValid
                }
                // rustls has no variant of its own for it.
                CertificateError::Other(other)
                    if other.to_string().contains("CaUsedAsEndEntity") =>
                {
                    Self::SelfSigned
                }
                _ => Self::BadCertificate,
            },
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            rustls::Error::AlertReceived(alert) => match alert {
                AlertDescription::CertificateRequired => Self::CertificateDemanded,
                AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied => Self::CertificateRefused,
                _ => Self::Handshake,
            },
            _ => Self::Handshake,
        }
    }

    /// Returns the refusal of a server that has read our certificate, or found none, after its own end
    /// of the handshake.
    ///
    /// # Source  RFC 8446, section 4.4.2.4.
    pub(super) fn of_late_refusal(error: &io::Error) -> Option<Self> {
        let tls = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        let refusal = Self::of_tls(tls);
        let is_of_certificate = matches!(
            refusal,
            Self::CertificateDemanded | Self::CertificateRefused
        );
        is_of_certificate.then_some(refusal)
    }

    /// Returns the failure to reach a proxy for this reason.
    fn at_proxy(self) -> Self {
        Self::Proxy(match self {
            // Our own lack has nothing to do with the proxy.
            Self::NoResources(_) => return self,
            Self::NameNotFound => "the proxy: name not found",
            Self::Refused => "the proxy: connection refused",
            Self::Unreachable => "the proxy: address unreachable",
            Self::TimedOut => "the proxy: connecting timed out",
            Self::Denied => "the proxy: permission denied",
            Self::Closed => "the proxy: connection closed at once",
            Self::UnknownIssuer => "the proxy: certificate not trusted: unknown issuer",
            Self::SelfSigned => "the proxy: certificate not trusted: it is self-signed",
            Self::OtherName => "the proxy: certificate not for this name",
            Self::Expired => "the proxy: certificate expired",
            Self::NotYetValid => "the proxy: certificate not valid yet",
            Self::BadCertificate => "the proxy: certificate not accepted",
            Self::NotTls => "the proxy: not TLS",
            Self::NotHttp => "the proxy: not HTTP",
            Self::Handshake => "the proxy: TLS handshake failed",
            Self::CertificateDemanded => "the proxy: it demands a certificate",
            Self::CertificateRefused => "the proxy: it does not accept our certificate",
            _ => "the proxy: no connection",
        })
    }

    /// Returns the refusal of a proxy, by its status.
    pub(super) fn of_refusal(status: StatusCode) -> Self {
        Self::ProxyRefused(match status.as_u16() {
            400 => "the proxy refused: 400",
            401 => "the proxy refused: 401",
            403 => "the proxy refused: 403",
            404 => "the proxy refused: 404",
            405 => "the proxy refused: 405",
            407 => "the proxy refused: 407, it needs a user and a password",
            429 => "the proxy refused: 429",
            500 => "the proxy refused: 500",
            502 => "the proxy refused: 502",
            503 => "the proxy refused: 503",
            504 => "the proxy refused: 504",
            _ => "the proxy refused",
        })
    }

    /// The cause in words.
    pub(crate) fn words(self) -> &'static str {
        // EDGE-8: a failed connection says what it failed of.
        match self {
            Self::NameNotFound => "name not found",
            Self::Refused => "connection refused",
            Self::Unreachable => "address unreachable",
            Self::TimedOut => "connecting timed out, see timeout.connect",
            Self::Late(limit) => limit.name(),
            Self::Closed => "connection closed at once",
            Self::UnknownIssuer => "certificate not trusted: unknown issuer",
            Self::SelfSigned => "certificate not trusted: it is self-signed",
            Self::OtherName => "certificate not for this name",
            Self::Expired => "certificate expired",
            Self::NotYetValid => "certificate not valid yet",
            Self::BadCertificate => "certificate not accepted",
            Self::NotTls => "not TLS",
            Self::NotHttp => "not HTTP",
            Self::Handshake => "TLS handshake failed",
            Self::CertificateDemanded => "the server demands a certificate, see tls.cert",
            Self::CertificateRefused => "the server does not accept our certificate, see tls.cert",
            Self::NoSocket => "socket not found",
            Self::Denied => "permission denied",
            Self::Proxy(words) | Self::ProxyRefused(words) | Self::NoResources(words) => words,
            Self::Other => "no connection",
        }
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.words())
    }
}

/// Returns what is used up, if this host and not the dependency is the reason.
fn own_lack(error: &io::Error) -> Option<&'static str> {
    #[cfg(unix)]
    {
        use nix::errno::Errno;
        // EDGE-8: each lack has a cure of its own.
        Some(match Errno::from_raw(error.raw_os_error()?) {
            Errno::EMFILE | Errno::ENFILE => "no descriptors left",
            Errno::EADDRNOTAVAIL => "no local port left",
            Errno::ENOBUFS | Errno::ENOMEM => "no memory left for connections",
            Errno::EAGAIN => "no room left for connections",
            _ => return None,
        })
    }
    #[cfg(not(unix))]
    {
        let is_memory = error.kind() == io::ErrorKind::OutOfMemory;
        is_memory.then_some("no memory left for connections")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_8_e9a_each_cause_is_found_below_other_errors() {
        let of = |error: io::Error| ConnectFailure::of(&io::Error::other(error));
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(of(refused), ConnectFailure::Refused);
        let late = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(of(late), ConnectFailure::TimedOut);
        let name = io::Error::other("Name or service not known");
        assert_eq!(
            of(io::Error::other(LookupError(name))),
            ConnectFailure::NameNotFound
        );
        let tls = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let tls = io::Error::new(io::ErrorKind::InvalidData, tls);
        assert_eq!(of(tls), ConnectFailure::UnknownIssuer);
        let plain = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert_eq!(of(io::Error::other(plain)), ConnectFailure::NotTls);
        assert_eq!(of(io::Error::other("odd")), ConnectFailure::Other);
    }

    #[cfg(unix)]
    #[test]
    fn edge_1_e1e_our_own_lack_is_told_apart() {
        for (code, words) in [
            (nix::libc::EMFILE, "no descriptors left"),
            (nix::libc::ENFILE, "no descriptors left"),
            (nix::libc::EADDRNOTAVAIL, "no local port left"),
            (nix::libc::ENOMEM, "no memory left for connections"),
        ] {
            let error = io::Error::other(io::Error::from_raw_os_error(code));
            let failure = ConnectFailure::of(&error);
            assert_eq!(failure, ConnectFailure::NoResources(words));
            assert_eq!(failure.words(), words, "edge_8");
        }
    }
}
