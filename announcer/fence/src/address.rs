//! Owns the form in which the kernel's program looks an address up: 16 bytes, IPv4 mapped (RFC 4291 section 2.5.5.2).

use std::net::IpAddr;

/// The third word of an IPv4-mapped key, as a 32-bit store writes it.
pub(crate) const V4_MAPPED_WORD: i32 = 0x0000_ffff_u32.to_be() as i32;

/// The key of `address`. An IPv4-mapped IPv6 address is the IPv4 address.
pub(crate) fn key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapped_word_is_what_a_key_of_ipv4_has() {
        let key = key("192.0.2.7".parse().unwrap());
        assert_eq!(key[..8], [0; 8]);
        assert_eq!(key[8..12], V4_MAPPED_WORD.to_ne_bytes());
        assert_eq!(key[12..], [192, 0, 2, 7]);
    }
}
