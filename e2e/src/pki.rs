//! The lab's certificate authority: every certificate and kubeconfig comes from here.
//!
//! Keys are ECDSA P-256, made anew for each lab, kept in its state folder and gone with it.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

use crate::disk::{replace, write_private};

/// The authority, with its files under one folder.
#[derive(Debug)]
pub struct Pki {
    folder: PathBuf,
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key as files.
#[derive(Clone, Debug)]
pub struct CertFiles {
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// The key, PKCS#8 PEM.
    pub key: PathBuf,
}

impl Pki {
    /// Makes a new authority with `ca.crt` and `ca.key` in `folder`, and `sa.{key,pub}` for ServiceAccount tokens.
    pub fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let key = KeyPair::generate()?;
        let ca_pem = ca_params().self_signed(&key)?.pem();
        replace(&folder.join("ca.crt"), &ca_pem)?;
        write_private(&folder.join("ca.key"), &key.serialize_pem())?;
        let tokens = KeyPair::generate()?;
        replace(&folder.join("sa.pub"), tokens.public_key_pem())?;
        write_private(&folder.join("sa.key"), &tokens.serialize_pem())?;
        Ok(Self { folder: folder.to_owned(), ca_pem, issuer: Issuer::new(ca_params(), key) })
    }

    /// Opens the authority that [`Pki::create`] left in `folder`.
    pub fn open(folder: &Path) -> Result<Self> {
        let read = |name| {
            fs::read_to_string(folder.join(name))
                .with_context(|| format!("{name} in {}", folder.display()))
        };
        let key = KeyPair::from_pem(&read("ca.key")?)?;
        Ok(Self {
            folder: folder.to_owned(),
            ca_pem: read("ca.crt")?,
            issuer: Issuer::new(ca_params(), key),
        })
    }

    /// The file `name` in the authority's folder: `ca.crt`, `ca.key`, `sa.key`, `sa.pub`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes `<name>.crt` and `<name>.key`: a serving certificate for the given names and addresses.
    pub fn server(&self, name: &str, dns: &[&str], addresses: &[IpAddr]) -> Result<CertFiles> {
        let mut params =
            CertificateParams::new(dns.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.distinguished_name = subject(name, &[]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.write(name, params)
    }

    /// Writes `<file>.crt` and `<file>.key`: a client certificate for `user` in `groups`.
    pub fn client(&self, file: &str, user: &str, groups: &[&str]) -> Result<CertFiles> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(user, groups);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.write(file, params)
    }

    /// Writes `<file>.kubeconfig`, complete in itself, for `user` in `groups` at the API server `server`.
    pub fn kubeconfig(
        &self,
        file: &str,
        server: &str,
        user: &str,
        groups: &[&str],
    ) -> Result<PathBuf> {
        let files = self.client(file, user, groups)?;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {
                "server": server,
                "certificate-authority-data": ByteString(self.ca_pem.clone().into_bytes()),
            }}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
            "users": [{"name": user, "user": {
                "client-certificate-data": ByteString(fs::read(&files.cert)?),
                "client-key-data": ByteString(fs::read(&files.key)?),
            }}],
        });
        let path = self.folder.join(format!("{file}.kubeconfig"));
        write_private(&path, &serde_json::to_string_pretty(&config)?)?;
        Ok(path)
    }

    fn write(&self, name: &str, params: CertificateParams) -> Result<CertFiles> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let files = CertFiles {
            cert: self.folder.join(format!("{name}.crt")),
            key: self.folder.join(format!("{name}.key")),
        };
        replace(&files.cert, certificate.pem())?;
        write_private(&files.key, &key.serialize_pem())?;
        Ok(files)
    }
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject("berth-lab-ca", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

/// Kubernetes takes the common name as the user and each organization as a group.
fn subject(user: &str, groups: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, user);
    for group in groups {
        name.push(DnType::OrganizationName, *group);
    }
    name
}
