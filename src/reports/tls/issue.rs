//! What the authority signs beside the server's own certificate: the proof of an exporter, and the capability of who reads from it.

use jiff::{SignedDuration, Timestamp};
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType};

use super::super::Error;
use super::{Authority, parameters};
use crate::protocol::sharing::{CAPABILITY_SECONDS, Capability, EXPORTER_SECONDS, ExporterCertificate, Grant};

impl Authority {
    /// A certificate for the exporter that is reached as `host`. It is good for servers alone.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn exporter(&self, host: &str, now: Timestamp) -> Result<ExporterCertificate, Error> {
        let mut params = self.short_lived("finetune-operator exporter", EXPORTER_SECONDS, now);
        params.subject_alt_names = CertificateParams::new([host.to_owned()])?.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (certificate, key) = self.certify(&params)?;
        Ok(ExporterCertificate { certificate, key, seconds: EXPORTER_SECONDS })
    }

    /// A capability for the exporter at `url`. It is good for clients alone, and for what `grant` says.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn capability(&self, url: String, grant: &Grant, now: Timestamp) -> Result<Capability, Error> {
        let mut params = self.short_lived("finetune-operator capability", CAPABILITY_SECONDS, now);
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(grant.uri())?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate, key) = self.certify(&params)?;
        Ok(Capability { url, certificate, key })
    }

    fn short_lived(&self, name: &str, seconds: u32, now: Timestamp) -> CertificateParams {
        let end = (now + SignedDuration::from_secs(seconds.into())).min(self.not_after);
        let mut params = parameters(name, now, end);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params
    }

    /// A certificate and a new key for it, as PEM.
    fn certify(&self, params: &CertificateParams) -> Result<(String, String), Error> {
        let issuer = Issuer::from_ca_cert_pem(&self.ca_pem, KeyPair::from_pem(&self.key_pem)?)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
    }
}
