//! TLS between a connection's bytes on the wire and what they mean, with rustls.
//!
//! Knows: certificates to trust, records in and out. Must not know: rings, frames, HTTP.
//!
//! Every handshake is a full one, as those of that many clients would be: sessions are not resumed.

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use thiserror::Error;

/// What the connections of a group share: whom to trust, and whom to expect.
#[derive(Clone, Debug)]
pub(crate) struct TlsTarget {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

/// Why nobody can be trusted.
#[derive(Debug, Error)]
pub(crate) enum TrustError {
    /// A file that was to be read, or one that is no PEM.
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    /// There are none in the file.
    #[error("{}: no certificate in it; PEM is expected", path.display())]
    Empty { path: PathBuf },
    /// rustls does not like its own protocol versions.
    #[error("setting up TLS: {0}")]
    Setup(#[from] rustls::Error),
    /// The system has no certificates of its own.
    #[error("the system's certificates: {0}; give one to trust with --ca")]
    System(String),
}

/// Whose certificates are believed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trust<'a> {
    /// Everybody's.
    Anyone,
    /// Those that certificates in this file have signed, or are.
    File(&'a Path),
    /// Those that the system trusts.
    System,
}

/// The configuration that all connections share.
///
/// # Errors
/// [`TrustError`].
pub(crate) fn config(trust: Trust<'_>) -> Result<Arc<ClientConfig>, TrustError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match trust {
        Trust::Anyone => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone { provider }))
        }
        Trust::File(path) => {
            let known = Known::read(path, provider)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(known))
        }
        Trust::System => builder.with_root_certificates(roots_of_the_system()?),
    };
    let mut config = builder.with_no_client_auth();
    config.resumption = Resumption::disabled();
    // Servers that know HTTP/2 would else be free to speak it.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn roots_of_the_system() -> Result<RootCertStore, TrustError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    match (added, found.errors.first()) {
        (0, Some(error)) => Err(TrustError::System(error.to_string())),
        (0, None) => Err(TrustError::System("there are none".to_owned())),
        _ => Ok(roots),
    }
}

/// One connection's.
#[derive(Debug)]
pub(crate) struct Tls {
    connection: ClientConnection,
}

impl Tls {
    /// # Errors
    /// What rustls says.
    pub(crate) fn new(target: &TlsTarget) -> Result<Self, rustls::Error> {
        let config = Arc::clone(&target.config);
        let mut connection = ClientConnection::new(config, target.name.clone())?;
        // What is sent before the handshake is over waits inside; it is bounded by who sends.
        connection.set_buffer_limit(None);
        Ok(Self { connection })
    }

    /// Records that carry `plain`, behind whatever else is to be sent. While the handshake is not over
    /// `plain` stays inside and comes with a later call.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut records = Vec::with_capacity(plain.len() + plain.len() / 128 + RECORD_BYTES_SPARE);
        self.connection.writer().write_all(plain).expect("there is no limit to what it takes");
        while self.connection.wants_write() {
            self.connection.write_tls(&mut records).expect("writing to memory");
        }
        records
    }

    /// Something is to be sent: see [`Self::seal`].
    pub(crate) fn wants_seal(&self) -> bool {
        self.connection.wants_write()
    }

    /// Takes all of `records`, and appends to `plain` what was in them; whether the peer has said that
    /// nothing will follow. It may wait for our end then.
    ///
    /// # Errors
    /// What the peer does wrong, or why it is not trusted.
    pub(crate) fn open(
        &mut self,
        mut records: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<bool, rustls::Error> {
        loop {
            let more = !records.is_empty();
            if more && self.connection.read_tls(&mut records).is_err() {
                return Err(rustls::Error::General("records beyond every bound".to_owned()));
            }
            let has_closed = self.connection.process_new_packets()?.peer_has_closed();
            let mut reader = self.connection.reader();
            // An error means that there is nothing now, or that the peer's end came too early, which
            // its FIN will tell.
            while let Ok(part @ [_, ..]) = reader.fill_buf() {
                plain.extend_from_slice(part);
                let bytes = part.len();
                reader.consume(bytes);
            }
            if !more || has_closed {
                return Ok(has_closed);
            }
        }
    }

    /// The handshake is not over.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }
}

/// Believes whom the certificates of a file vouch for, and those who bear one of them: a server that
/// signed its own has nobody else, and by what openssl writes unasked it may sign others' too, which is
/// why the usual rules refuse it.
#[derive(Debug)]
struct Known {
    own: Vec<CertificateDer<'static>>,
    others: Arc<WebPkiServerVerifier>,
}

impl Known {
    fn read(path: &Path, provider: Arc<CryptoProvider>) -> Result<Self, TrustError> {
        let failure = |reason: String| TrustError::File { path: path.to_owned(), reason };
        let own: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(path).and_then(|certificates| certificates.collect());
        let own = own.map_err(|error| failure(error.to_string()))?;
        if own.is_empty() {
            return Err(TrustError::Empty { path: path.to_owned() });
        }
        let mut roots = RootCertStore::empty();
        for certificate in &own {
            roots.add(certificate.clone()).map_err(|error| failure(error.to_string()))?;
        }
        let others = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| failure(error.to_string()))?;
        Ok(Self { own, others })
    }
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.own.contains(end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        self.others.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.others.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.others.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.others.supported_verify_schemes()
    }
}

/// Believes everyone; what is signed must still be signed right.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Of a handshake's messages, bytes: what is known to be small need not grow often.
const RECORD_BYTES_SPARE: usize = 512;
