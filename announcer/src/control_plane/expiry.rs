//! Until when the certificate is good by which a kubeconfig is known. Pure, but for the file that it may be in.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use kube::Config;
use x509_parser::pem::Pem;

/// How long before its end it is told: kubeadm gives a year, and who renews by a timer does so within the last month.
const AHEAD: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What is to be said of the certificate of this configuration, if anything.
pub(super) fn remark(config: &Config, now: Timestamp) -> Option<String> {
    let own = &config.auth_info;
    let pem = match (&own.client_certificate_data, &own.client_certificate) {
        (Some(data), _) => decoded(data)?,
        (None, Some(file)) => std::fs::read(file).ok()?,
        (None, None) => return None,
    };
    told(end(&pem)?, now)
}

fn told(end: Timestamp, now: Timestamp) -> Option<String> {
    let has = match end.duration_since(now) {
        left if left > AHEAD => return None,
        left if left.is_positive() => "is good until",
        _ => "has run out, it was good until",
    };
    Some(format!(
        "the client certificate of the kubeconfig {has} {end}: a renewed one is gone by without a restart, by kubeadm: kubeadm \
         certs renew admin.conf"
    ))
}

fn decoded(base64: &str) -> Option<Vec<u8>> {
    let base64: String = base64.split_whitespace().collect();
    serde_json::from_value::<ByteString>(base64.into()).ok().map(|octets| octets.0)
}

/// `notAfter` of the first certificate of a PEM file (RFC 7468), which is that of who goes by it.
fn end(pem: &[u8]) -> Option<Timestamp> {
    let is_one = |pem: &Pem| pem.label == "CERTIFICATE";
    let first = Pem::iter_from_buffer(pem).map_while(Result::ok).find(is_one)?;
    let certificate = first.parse_x509().ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// A certificate that ends with this year.
    fn ending(year: i32) -> rcgen::Certificate {
        let mut asked = CertificateParams::new(vec!["kubernetes-admin".to_owned()]).unwrap();
        asked.not_after = date_time_ymd(year, 12, 31);
        asked.self_signed(&KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn the_end_of_a_certificate_is_read_of_this_century_and_of_the_next() {
        for year in [2027, 2049, 2050, 2101] {
            let expected = format!("{year}-12-31T00:00:00Z");
            let found = end(ending(year).pem().as_bytes());
            assert_eq!(found.map(|end| end.to_string()), Some(expected));
        }
        assert_eq!(end(b"none"), None);
    }

    #[test]
    fn it_is_told_from_a_month_before_the_end() {
        let end: Timestamp = "2027-12-31T00:00:00Z".parse().unwrap();
        let at = |now: &str| told(end, now.parse().unwrap()).unwrap_or_default();
        assert_eq!(at("2027-11-30T00:00:00Z"), "");
        assert!(at("2027-12-02T00:00:00Z").contains("is good until 2027-12-31T00:00:00Z"));
        assert!(at("2027-12-31T00:00:01Z").contains("has run out"));
    }

    #[test]
    fn a_kubeconfig_has_it_in_itself_or_in_a_file() {
        let pem = ending(2027).pem();
        let now = "2028-01-01T00:00:00Z".parse().unwrap();
        let mut config = Config::new("https://127.0.0.1:6443".parse().unwrap());
        assert_eq!(remark(&config, now), None, "it goes by a token");
        let text = serde_json::to_value(ByteString(pem.clone().into_bytes())).unwrap();
        config.auth_info.client_certificate_data = text.as_str().map(str::to_owned);
        let told = remark(&config, now);
        assert!(told.is_some());
        let file = std::env::temp_dir().join(format!("berth-expiry-{}.pem", std::process::id()));
        std::fs::write(&file, pem).unwrap();
        config.auth_info.client_certificate_data = None;
        config.auth_info.client_certificate = Some(file.display().to_string());
        assert_eq!(remark(&config, now), told);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(remark(&config, now), None);
    }

    #[test]
    fn whatever_stands_there_is_read_or_passed_over() {
        let pem = ending(2027).pem().into_bytes();
        berth_hostile::octets(&[pem], |text| _ = end(text));
    }
}
