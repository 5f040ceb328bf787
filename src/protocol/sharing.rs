//! What exporter, `fetch` and report server agree on about checkpoints of another namespace. Pure data.

use serde::{Deserialize, Serialize};

/// Port an exporter listens on (TLS, for bearers of a capability).
pub const EXPORT_PORT: u16 = 8443;
/// Path of the report server at which an exporter gets its certificate.
pub const CERTIFICATE_PATH: &str = "/v1/exporter-certificate";
/// Path of the report server at which a serving pod gets a capability.
pub const CAPABILITY_PATH: &str = "/v1/capability";
/// Path of an exporter's manifest.
pub const MANIFEST_PATH: &str = "/v1/manifest";
/// Path below which an exporter has its files.
pub const FILES_PATH: &str = "/v1/files";
/// How long a capability is good for, and a connection to an exporter lives.
pub const CAPABILITY_SECONDS: u32 = 900;
/// How long the certificate of an exporter is good for; it asks for the next when two thirds have passed.
pub const EXPORTER_SECONDS: u32 = 24 * 3600;
/// What a manifest beside a checkpoint is called, after the name of the checkpoint's directory.
pub const MANIFEST_SUFFIX: &str = ".finetune.json";

const SCHEME: &str = "finetune://";

/// Name of exporter and Service of a Checkpoint.
#[must_use]
pub fn exporter_name(checkpoint_uid: &str) -> String {
    format!("ckpt-export-{checkpoint_uid}")
}

/// Host name of the exporter of a Checkpoint.
#[must_use]
pub fn exporter_host(checkpoint_uid: &str, namespace: &str) -> String {
    format!("{}.{namespace}.svc", exporter_name(checkpoint_uid))
}

/// What a capability is good for: it stands in the certificate of its bearer, as a URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Uid of the Checkpoint that may be read.
    pub checkpoint: String,
    /// Namespace of who reads it.
    pub namespace: String,
    /// Uid of the Deployment that serves it there.
    pub deployment: String,
}

impl Grant {
    /// The grant as a URI.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("{SCHEME}{}/{}/{}", self.checkpoint, self.namespace, self.deployment)
    }

    /// The grant a URI says; nothing of any other form.
    #[must_use]
    pub fn parse(uri: &str) -> Option<Self> {
        let parts: Vec<_> = uri.strip_prefix(SCHEME)?.split('/').collect();
        match parts[..] {
            [checkpoint, namespace, deployment] if parts.iter().all(|part| !part.is_empty()) => {
                Some(Self { checkpoint: checkpoint.into(), namespace: namespace.into(), deployment: deployment.into() })
            }
            _ => None,
        }
    }
}

/// Which Checkpoint a serving pod was made for.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CapabilityRequest {
    /// Uid of the Checkpoint.
    pub checkpoint: String,
}

/// The way to a checkpoint, for as long as it is good.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Capability {
    /// URL of the exporter, without path.
    pub url: String,
    /// The certificate that carries the [`Grant`], PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: String,
}

/// What an exporter proves itself with.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExporterCertificate {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: String,
    /// Seconds it is good for.
    pub seconds: u32,
}

/// The files an exporter hands out.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExportManifest {
    /// Digest over all of them.
    pub digest: String,
    /// The files, by path.
    pub files: Vec<ExportedFile>,
}

/// One file of a checkpoint.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExportedFile {
    /// Path relative to the checkpoint's directory.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the content, in lower-case hexadecimal.
    pub sha256: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_survives_its_uri_and_no_other_uri_is_one() {
        let grant = Grant { checkpoint: "c-1".into(), namespace: "team".into(), deployment: "d-1".into() };
        assert_eq!(Grant::parse(&grant.uri()), Some(grant));
        for other in
            ["", "finetune://", "finetune://c/n", "finetune://c/n/", "finetune://c/n/d/e", "https://c/n/d", "finetune:///n/d"]
        {
            assert_eq!(Grant::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_name_of_an_exporter_fits_a_dns_label() {
        assert!(exporter_name("0b9f6a1e-1111-2222-3333-444455556666").len() <= 63);
    }
}
