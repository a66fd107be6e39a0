//! How a key is spelled for programs other than ours: `sha256/BASE64`, as in RFC 7469 and on the command line of curl.

use clawd_protocol::Fingerprint;
use data_encoding::BASE64;

/// The spelling of a pin.
pub(crate) fn write(key: Fingerprint) -> String {
    format!("sha256/{}", BASE64.encode(&key.to_bytes()))
}

/// Reads one, also with the two slashes that curl wants.
pub(crate) fn read(text: &str) -> Result<Fingerprint, &'static str> {
    let wrong = "a pin is sha256/ and 44 characters of base64: the SHA-256 of the key";
    let base64 = text.strip_prefix("sha256/").ok_or(wrong)?;
    let base64 = base64.strip_prefix('/').filter(|rest| rest.len() == 44).unwrap_or(base64);
    let bytes = BASE64.decode(base64.as_bytes()).map_err(|_| wrong)?;
    bytes.try_into().map(Fingerprint::from_bytes).map_err(|_| wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_reads_back() {
        for bytes in [[0; 32], [255; 32], *b"a key of which this is the hash!"] {
            let key = Fingerprint::from_bytes(bytes);
            let pin = write(key);
            assert_eq!(read(&pin), Ok(key));
            assert_eq!(read(&pin.replacen('/', "//", 1)), Ok(key));
        }
        assert_eq!(
            write(Fingerprint::from_bytes([255; 32])),
            format!("sha256/{}8=", "/".repeat(42))
        );
    }

    #[test]
    fn g7_what_is_no_pin_is_refused() {
        let short = BASE64.encode(&[7; 31]);
        for text in ["", "sha256/", "sha1/AAAA", &short, &format!("sha256/{short}"), "sha256/*"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
