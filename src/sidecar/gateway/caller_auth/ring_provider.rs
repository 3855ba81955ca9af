//! The cryptography of signed tokens, on the provider that TLS has too.
//!
//! It verifies only, and only signatures by private keys: there is no HMAC, so that no public key
//! is ever taken for a shared secret.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result, new_error};
use jsonwebtoken::signature::{Error as Mismatch, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes it the process's provider for tokens, unless the program has installed another one.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if PROVIDER.install_default().is_err() {
            tracing::debug!("tokens are checked with the provider that the program has installed");
        }
    });
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    let key = match (kind_of(*algorithm), key.kind()) {
        (Some(SignatureKind::Rsa(parameters)), DecodingKeyKind::RsaModulusExponent { n, e }) => {
            // The leading zero that some issuers write is no part of a number.
            let plain = |number: &[u8]| {
                let zeros = number.iter().take_while(|byte| **byte == 0).count();
                number[zeros..].to_vec()
            };
            PublicKey::Rsa(
                parameters,
                RsaPublicKeyComponents {
                    n: plain(n),
                    e: plain(e),
                },
            )
        }
        (Some(SignatureKind::Curve(parameters)), DecodingKeyKind::SecretOrDer(bytes)) => {
            PublicKey::Curve(UnparsedPublicKey::new(parameters, bytes.clone()))
        }
        _ => return Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    };
    let algorithm = *algorithm;
    Ok(Box::new(RingVerifier { algorithm, key }))
}

enum SignatureKind {
    Rsa(&'static RsaParameters),
    Curve(&'static dyn VerificationAlgorithm),
}

fn kind_of(algorithm: Algorithm) -> Option<SignatureKind> {
    Some(match algorithm {
        Algorithm::RS256 => SignatureKind::Rsa(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => SignatureKind::Rsa(&RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => SignatureKind::Rsa(&RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => SignatureKind::Rsa(&RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => SignatureKind::Rsa(&RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => SignatureKind::Rsa(&RSA_PSS_2048_8192_SHA512),
        Algorithm::ES256 => SignatureKind::Curve(&ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => SignatureKind::Curve(&ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => SignatureKind::Curve(&ED25519),
        _ => return None,
    })
}

enum PublicKey {
    Rsa(&'static RsaParameters, RsaPublicKeyComponents<Vec<u8>>),
    Curve(UnparsedPublicKey<Vec<u8>>),
}

struct RingVerifier {
    algorithm: Algorithm,
    key: PublicKey,
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Mismatch> {
        let verified = match &self.key {
            PublicKey::Rsa(parameters, key) => key.verify(parameters, message, signature),
            PublicKey::Curve(key) => key.verify(message, signature),
        };
        verified.map_err(|_| Mismatch::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
