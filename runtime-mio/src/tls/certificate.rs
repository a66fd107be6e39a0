//! The one certificate that is ever made here: self-signed around a P-256 key, because TLS wants one.
//!
//! Owns its DER (RFC 5280, X.690), byte for byte; refuses to know keys: it is given the public one and something that
//! signs. It says nothing that anybody relies on: a fixed name, no end (RFC 5280, section 4.1.2.5), no extensions.

use rustls::pki_types::CertificateDer;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;

/// `ecdsa-with-SHA256` (RFC 5758, section 3.2).
const SIGNED_HOW: &[u8] = &[SEQUENCE, 10, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// A `commonName` (RFC 5280, appendix A.1).
const COMMON_NAME: &[u8] = b"\x06\x03\x55\x04\x03\x0c\x05clawd";
/// From a date before any clock's to the one that stands for no end.
const VALID_WHEN: &[u8] = b"\x17\x0d700101000000Z\x18\x0f99991231235959Z";

/// The certificate around `public_key`, which is DER of a `SubjectPublicKeyInfo`.
pub(super) fn self_signed<E>(
    public_key: &[u8],
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<CertificateDer<'static>, E> {
    let name = der(SEQUENCE, &[&der(SET, &[&der(SEQUENCE, &[COMMON_NAME])])]);
    let content = der(
        SEQUENCE,
        &[
            &der(VERSION, &[&der(INTEGER, &[&[2]])]), // v3
            &der(INTEGER, &[&[1]]),                   // the serial number
            SIGNED_HOW,
            &name,
            &der(SEQUENCE, &[VALID_WHEN]),
            &name,
            public_key,
        ],
    );
    let signature = sign(&content)?;
    let no_unused_bits = [0];
    let signature = der(BIT_STRING, &[&no_unused_bits, &signature]);
    Ok(der(SEQUENCE, &[&content, SIGNED_HOW, &signature]).into())
}

/// A tag, the length and the content, which is the parts one after another.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    let digits: Vec<u8> = length.into_iter().skip_while(|&byte| byte == 0).collect();
    match &*digits {
        [] => out.push(0),
        [short @ ..=0x7f] => out.push(*short),
        long => {
            out.push(0x80 | long.len() as u8);
            out.extend(long);
        }
    }
    out.extend(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_as_short_as_they_can_be() {
        let head = |length: usize| {
            let mut out = der(SEQUENCE, &[&vec![7; length]]);
            out.truncate(out.len() - length);
            out
        };
        assert_eq!(head(0), [SEQUENCE, 0]);
        assert_eq!(head(127), [SEQUENCE, 127]);
        assert_eq!(head(128), [SEQUENCE, 0x81, 128]);
        assert_eq!(head(255), [SEQUENCE, 0x81, 255]);
        assert_eq!(head(256), [SEQUENCE, 0x82, 1, 0]);
    }
}
