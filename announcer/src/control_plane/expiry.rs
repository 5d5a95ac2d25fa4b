//! Until when the certificate is good by which a kubeconfig is known. Pure, but for the file that it may be in.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use kube::Config;

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
    told(end(&certificate(&String::from_utf8(pem).ok()?)?)?, now)
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

/// The first certificate of a PEM file (RFC 7468), which is that of who goes by it.
fn certificate(pem: &str) -> Option<Vec<u8>> {
    let (_, begun) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
    let (base64, _) = begun.split_once("-----END CERTIFICATE-----")?;
    decoded(base64)
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notAfter` of a certificate (RFC 5280 §4.1).
fn end(certificate: &[u8]) -> Option<Timestamp> {
    let mut fields = within(within(certificate)?)?;
    if let (VERSION, _, rest) = element(fields)? {
        fields = rest;
    }
    // serialNumber, signature, issuer
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, _, rest) = element(within(fields)?)?;
    let (kind, text, _) = element(rest)?;
    let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii())?;
    let text = match kind {
        // RFC 5280 §4.1.2.5.1: from 50 on it is the century before.
        UTC_TIME if text.get(..2)? >= "50" => format!("19{text}"),
        UTC_TIME => format!("20{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let part = |range: std::ops::Range<usize>| text.get(range);
    let (date, time) = (
        [part(0..4)?, part(4..6)?, part(6..8)?].join("-"),
        [part(8..10)?, part(10..12)?, part(12..14)?].join(":"),
    );
    format!("{date}T{time}Z").parse().ok()
}

/// What is in the sequence that this begins with.
fn within(der: &[u8]) -> Option<&[u8]> {
    element(der).and_then(|(kind, content, _)| (kind == SEQUENCE).then_some(content))
}

/// The kind of the element that this begins with, what is in it, and what follows (X.690 §8.1).
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [kind, length, rest @ ..] = der else { return None };
    let (length, rest) = match *length {
        short if short < 0x80 => (usize::from(short), rest),
        long => {
            let (octets, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            let add =
                |sum: usize, octet: &u8| sum.checked_mul(256)?.checked_add(usize::from(*octet));
            (octets.iter().try_fold(0, add)?, rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*kind, content, rest))
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
            let found = end(&certificate(&ending(year).pem()).unwrap());
            assert_eq!(found.map(|end| end.to_string()), Some(expected));
        }
        assert_eq!(certificate("none"), None);
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
        let der = ending(2027).der().to_vec();
        berth_hostile::octets(&[der], |text| _ = end(text));
    }
}
