//! Whom agents trust: a long-lived certificate authority in a Secret all replicas share, and a short-lived certificate each process makes
//! for itself and renews without a restart.
//!
//! The authority renews itself in its last year under the same key, so that agents that know the old certificate go on trusting it. To change
//! the key, delete the Secret and restart the controller: pods made from then on trust the new one, running ones deliver by their manifests.

mod issue;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1 as corev1;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Error;
use super::write::REPORTS_MANAGER;
use crate::access::REPORTS_CA_SECRET;
use crate::api::names;

const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";
const DAY: SignedDuration = SignedDuration::from_hours(24);
const AUTHORITY_DAYS: i32 = 3650;
const AUTHORITY_RENEWED_DAYS: i32 = 365;
const LEAF_DAYS: i32 = 90;
/// Clocks that are behind ours must not refuse a certificate that is new.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// The certificate authority of the report server.
#[derive(Clone)]
pub struct Authority {
    /// Its certificate, as agents are given it.
    pub ca_pem: String,
    key_pem: String,
    not_after: Timestamp,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn generate(now: Timestamp) -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Self::signed(&key, now)
    }

    /// The same authority with a new end: name and key stay, and with them the trust of those who know the old certificate.
    fn renewed(&self, now: Timestamp) -> Result<Self, Error> {
        Self::signed(&KeyPair::from_pem(&self.key_pem)?, now)
    }

    fn signed(key: &KeyPair, now: Timestamp) -> Result<Self, Error> {
        let not_after = now + DAY * AUTHORITY_DAYS;
        let mut params = parameters("finetune-operator reports CA", now, not_after);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { ca_pem: params.self_signed(key)?.pem(), key_pem: key.serialize_pem(), not_after })
    }

    fn parse(ca_pem: String, key_pem: String) -> Result<Self, Error> {
        let certificate = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|_| Error::BrokenAuthority)?;
        let key = KeyPair::from_pem(&key_pem).map_err(|_| Error::BrokenAuthority)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|_| Error::BrokenAuthority)?;
        drop(issuer);
        let not_after = end_of(&certificate).ok_or(Error::BrokenAuthority)?;
        Ok(Self { ca_pem, key_pem, not_after })
    }

    /// A certificate for a server that goes by `hosts` (DNS names and IP addresses).
    fn leaf(&self, hosts: &[String], now: Timestamp) -> Result<Leaf, Error> {
        let issuer = Issuer::from_ca_cert_pem(&self.ca_pem, KeyPair::from_pem(&self.key_pem)?)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let not_after = (now + DAY * LEAF_DAYS).min(self.not_after);
        let mut params = parameters("finetune-operator reports", now, not_after);
        params.subject_alt_names = CertificateParams::new(hosts)?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer)?;
        let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&secret)?;
        let certified = Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signing));
        Ok(Leaf { certified, renew_at: now + (not_after.duration_since(now) / 3) * 2 })
    }
}

fn parameters(name: &str, now: Timestamp, not_after: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = std::time::SystemTime::from(now - BACKDATED).into();
    params.not_after = std::time::SystemTime::from(not_after).into();
    params
}

fn end_of(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()
}

#[derive(Clone, Debug)]
struct Leaf {
    certified: Arc<CertifiedKey>,
    renew_at: Timestamp,
}

/// The certificate of this process; renewed when two thirds of its life have passed, at the first handshake from then on.
#[derive(Debug)]
pub(super) struct Certificates {
    authority: Authority,
    hosts: Vec<String>,
    leaf: RwLock<Leaf>,
}

impl Certificates {
    pub(super) fn new(authority: Authority, hosts: Vec<String>, now: Timestamp) -> Result<Self, Error> {
        let leaf = RwLock::new(authority.leaf(&hosts, now)?);
        Ok(Self { authority, hosts, leaf })
    }

    fn current(&self, now: Timestamp) -> Arc<CertifiedKey> {
        let leaf = self.leaf.read().unwrap_or_else(PoisonError::into_inner).clone();
        if now < leaf.renew_at {
            return leaf.certified;
        }
        let mut place = self.leaf.write().unwrap_or_else(PoisonError::into_inner);
        if now >= place.renew_at {
            match self.authority.leaf(&self.hosts, now) {
                Ok(renewed) => *place = renewed,
                Err(error) => tracing::error!(%error, "the certificate of the report server cannot be renewed"),
            }
        }
        Arc::clone(&place.certified)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current(Timestamp::now()))
    }
}

/// The authority all replicas share: read from its Secret in `namespace`, made when there is none, renewed in its last year.
///
/// # Errors
/// The Secret cannot be read or written, or holds something else.
pub async fn ensure_authority(client: &Client, namespace: &str) -> Result<Authority, Error> {
    let secrets: Api<corev1::Secret> = Api::namespaced(client.clone(), namespace);
    let now = Timestamp::now();
    let failed = |error| Error::Secret { namespace: namespace.into(), source: Box::new(error) };
    let stored = match secrets.get_opt(REPORTS_CA_SECRET).await.map_err(failed)? {
        Some(stored) => stored,
        None => match secrets.create(&PostParams::default(), &secret(&Authority::generate(now)?)).await {
            Err(kube::Error::Api(said)) if said.is_already_exists() => secrets.get(REPORTS_CA_SECRET).await.map_err(failed)?,
            made => made.map_err(failed)?,
        },
    };
    let authority = parsed(&stored)?;
    if authority.not_after.duration_since(now) > DAY * AUTHORITY_RENEWED_DAYS {
        return Ok(authority);
    }
    let renewed = authority.renewed(now)?;
    let version = stored.metadata.resource_version;
    let body = serde_json::json!({"metadata": {"resourceVersion": version}, "data": secret(&renewed).data});
    let params = PatchParams { field_manager: Some(REPORTS_MANAGER.into()), ..PatchParams::default() };
    match secrets.patch(REPORTS_CA_SECRET, &params, &Patch::Merge(body)).await {
        Err(kube::Error::Api(said)) if said.is_conflict() => parsed(&secrets.get(REPORTS_CA_SECRET).await.map_err(failed)?),
        written => parsed(&written.map_err(failed)?),
    }
}

fn secret(authority: &Authority) -> corev1::Secret {
    let data = [(CERTIFICATE, &authority.ca_pem), (KEY, &authority.key_pem)];
    corev1::Secret {
        metadata: ObjectMeta {
            name: Some(REPORTS_CA_SECRET.into()),
            labels: Some(BTreeMap::from([(names::MANAGED_BY.into(), names::MANAGER.into())])),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".into()),
        data: Some(data.into_iter().map(|(key, pem)| (key.into(), ByteString(pem.clone().into_bytes()))).collect()),
        ..corev1::Secret::default()
    }
}

fn parsed(secret: &corev1::Secret) -> Result<Authority, Error> {
    let text = |key| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key)).ok_or(Error::BrokenAuthority)?;
        String::from_utf8(bytes.0.clone()).map_err(|_| Error::BrokenAuthority)
    };
    Authority::parse(text(CERTIFICATE)?, text(KEY)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn an_authority_survives_its_secret() {
        let authority = Authority::generate(Timestamp::now()).expect("an authority");
        let read = parsed(&secret(&authority)).expect("the same");
        assert_eq!((read.ca_pem, read.key_pem), (authority.ca_pem, authority.key_pem));
        assert_eq!(read.not_after.as_second(), authority.not_after.as_second());
    }

    #[test]
    fn a_broken_secret_is_said_so() {
        let mut broken = secret(&Authority::generate(Timestamp::now()).expect("an authority"));
        broken.data.get_or_insert_default().insert(KEY.into(), ByteString(b"x".to_vec()));
        assert!(matches!(parsed(&broken), Err(Error::BrokenAuthority)));
        assert!(matches!(parsed(&corev1::Secret::default()), Err(Error::BrokenAuthority)));
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
        let authority = Authority::generate(at(0)).expect("an authority");
        let certificates = Certificates::new(authority, vec!["reports.ns.svc".into()], at(0)).expect("certificates");
        let first = certificates.current(at(0));
        let day = 24 * 3600;
        assert!(Arc::ptr_eq(&first, &certificates.current(at(59 * day))));
        let second = certificates.current(at(60 * day));
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &certificates.current(at(61 * day))));
    }

    #[test]
    fn a_renewed_authority_keeps_its_key() {
        let old = Authority::generate(at(0)).expect("an authority");
        let new = old.renewed(at(1_000_000)).expect("the same authority");
        assert_eq!(
            KeyPair::from_pem(&old.key_pem).expect("a key").public_key_raw(),
            KeyPair::from_pem(&new.key_pem).expect("a key").public_key_raw()
        );
        assert!(new.not_after > old.not_after);
    }
}
