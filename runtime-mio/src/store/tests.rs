use super::*;

#[test]
fn base32_is_rfc_4648() {
    for (plain, text) in [
        ("", ""),
        ("f", "my"),
        ("fo", "mzxq"),
        ("foo", "mzxw6"),
        ("foob", "mzxw6yq"),
        ("fooba", "mzxw6ytb"),
        ("foobar", "mzxw6ytboi"),
    ] {
        assert_eq!(base32(plain.as_bytes()), text);
    }
    assert_eq!(base32(&[0xff; 32]).len(), 52);
}
