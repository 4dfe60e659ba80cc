//! The certificate authorities that plugins' HTTPS requests trust: those that browsers trust, and the operator's own.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use wharf_core::bounds;

/// Returns the configuration of TLS connections. `extra` is a PEM file of further authorities to trust.
///
/// # Errors
/// A reason and what to do, if the file cannot be read, or if anything in it is not a certificate.
pub(crate) fn client_config(extra: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
    if let Some(file) = extra {
        add(&mut roots, file).map_err(|why| format!("`http.extra-ca`: {}: {why}", file.display()))?;
    }
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

fn add(roots: &mut RootCertStore, file: &Path) -> Result<(), String> {
    let max = bounds::EXTRA_CA_BYTES_MAX;
    let mut pem = Vec::new();
    let read = File::open(file).and_then(|file| file.take(max + 1).read_to_end(&mut pem));
    read.map_err(|error| format!("could not read the file: {error}"))?;
    if pem.len() as u64 > max {
        return Err(format!("the file is too large; the limit is {}", bytesize::ByteSize(max).display().iec()));
    }
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        found += 1;
        let certificate = certificate.map_err(|error| format!("certificate {found} is damaged: {error}"))?;
        roots.add(certificate).map_err(|error| format!("certificate {found} is damaged: {error}"))?;
    }
    if found == 0 {
        return Err(
            "no certificate is in the file; expected PEM, which has lines `-----BEGIN CERTIFICATE-----`".to_owned()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_certificate_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let why = |text: &[u8]| {
            let file = folder.path().join("ca.pem");
            std::fs::write(&file, text).unwrap();
            client_config(Some(&file)).unwrap_err().split_once("ca.pem: ").unwrap().1.to_owned()
        };
        assert!(why(b"").starts_with("no certificate is in the file; expected PEM"));
        assert!(why(b"\x30\x82\x01\x00binary").starts_with("no certificate is in the file"));
        let key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(why(key).starts_with("no certificate is in the file"));
        let odd = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(why(odd).starts_with("certificate 1 is damaged: "), "{}", why(odd));
        let cut = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(why(cut).starts_with("certificate 1 is damaged: "), "{}", why(cut));
        assert!(why(&vec![b'x'; 5 << 20]).starts_with("the file is too large; the limit is 4.0 MiB"));
        let missing = client_config(Some(Path::new("/no/such.pem"))).unwrap_err();
        assert!(missing.contains("/no/such.pem: could not read the file: No such file"), "{missing}");
    }
}
