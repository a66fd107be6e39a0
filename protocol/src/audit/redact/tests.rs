use super::*;
use crate::access::token::mint_local;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use proptest::prelude::*;

/// One secret of each form, and its type.
fn secrets() -> Vec<(String, &'static str)> {
    let long = "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5";
    let fixed = [
        (mint_local([3; 32]).expose().to_string(), "clawd"),
        (format!("clawd_d_AbCdEfGh_{long}"), "clawd"),
        (format!("github_pat_{long}"), "github_pat"),
        (format!("glpat-{long}"), "glpat"),
        (format!("sk-ant-api03-{long}"), "sk"),
        (format!("sk-proj-{long}_-x"), "sk"),
        ("sk_live_4eC39HqLyjWDarjtT1".to_string(), "sk"),
        ("AKIAIOSFODNN7EXAMPLE".to_string(), "aws"),
        (format!("AIzaSy{long}"), "google"),
        (format!("npm_{long}"), "npm"),
        (format!("hf_{long}"), "hf"),
        (format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{long}"), "jwt"),
        (
            format!("-----BEGIN RSA PRIVATE KEY-----\n{long}\n-----END RSA PRIVATE KEY-----"),
            "private key",
        ),
        (format!("-----BEGIN PRIVATE KEY-----\\n{long}"), "private key"),
    ];
    let mut all = Vec::from(fixed);
    all.extend(["p", "o", "u", "s", "r"].map(|kind| {
        let tag = match kind {
            "p" => "ghp",
            "o" => "gho",
            "u" => "ghu",
            "s" => "ghs",
            _ => "ghr",
        };
        (format!("gh{kind}_{long}"), tag)
    }));
    all.extend(
        ["xoxb", "xoxp", "xoxs", "xapp"].map(|kind| (format!("{kind}-1234567890-{long}"), "xox")),
    );
    all
}

/// Ways to write a secret value down that has no form of its own.
fn pairs(value: &str) -> Vec<String> {
    [
        "password=V",
        "DB_PASSWORD=V",
        "export API_KEY=V",
        "token: V",
        "\"secret\":\"V\"",
        "{\"apiToken\": \"V\"}",
        "{\"command\":\"login --password V\"}",
        "{\"command\":\"login --token=V now\"}",
        "{\"command\":\"curl -d '{\\\"password\\\":\\\"V\\\"}' x\"}",
        "{\"command\":\"echo\\npassword=V\\nls\"}",
        "Authorization: Bearer V",
        "authorization: basic V",
        "x-api-key: V",
        "AWS_SECRET_ACCESS_KEY='V'",
        "Cookie: V",
        "https://user:V@example.org/x",
        "git clone https://x:V@example.org/a.git",
        "params['token'] = 'V'",
        "Bearer V",
        "secret => \"V\"",
    ]
    .map(|form| form.replace('V', value))
    .into()
}

#[test]
fn h8_each_form_of_secret_is_found_and_named() {
    for (secret, tag) in secrets() {
        assert_eq!(redact(&secret), format!("[redacted {tag}]"), "{secret}");
        let inside = format!("{{\"command\":\"echo {secret} | sh\\n{secret}\"}}");
        let redacted = redact(&inside);
        assert!(!redacted.contains(&secret), "{redacted}");
        assert!(redacted.contains(&format!("[redacted {tag}]")), "{redacted}");
    }
}

#[test]
fn h8_values_of_names_that_say_it_are_found() {
    for text in pairs("Hunter-2_longer") {
        let redacted = redact(&text);
        assert!(!redacted.contains("unter"), "{text} -> {redacted}");
        assert!(redacted.contains("[redacted "), "{text} -> {redacted}");
    }
    assert_eq!(redact("password=\"a \\\"b\\\" c\" d"), "password=\"[redacted value]\" d");
    assert_eq!(redact("password=a\\\\nb c"), "password=[redacted value] c");
}

#[test]
fn what_is_no_secret_stays() {
    for text in [
        "",
        "{\"file_path\":\"/home/dev/task-list-of-everything-to-do.md\"}",
        "git commit -m 'tokenise the input'",
        "cargo test --package basics long-name",
        "the bearer of news",
        "https://example.org/a:b@c",
        "-----BEGIN CERTIFICATE-----",
        "sk-short",
        "漢字 ghp_ and eyJ",
    ] {
        assert_eq!(redact(text), text);
    }
}

#[test]
fn h8_a_summary_is_short_and_never_shows_half_a_secret() {
    let secret = format!("ghp_{}", "a1B2".repeat(9));
    assert_eq!(summary("{\"file_path\":\"/x\"}"), "{\"file_path\":\"/x\"}");
    for fill in [0, 200, 255, 4000, 4050, 4080, 4090] {
        let text = format!("{} {secret} {}", "x".repeat(fill), "y ".repeat(5000));
        let summary = summary(&text);
        assert!(summary.chars().count() <= 257, "{summary}");
        assert!(summary.ends_with('…') && !summary.contains("a1B2"), "{fill}: {summary}");
    }
    // So many that what is left of the window is short, up to where it was cut.
    let many = format!("{secret} ").repeat(300);
    assert!(!summary(&many).contains("a1B2"));
}

fn noise() -> impl Strategy<Value = String> {
    let chars = prop_oneof![
        any::<char>(),
        proptest::char::range(' ', '~'),
        Just('"'),
        Just('\\'),
        Just('='),
        Just('-'),
        Just('\n'),
    ];
    proptest::collection::vec(chars, 0..40).prop_map(|chars| chars.into_iter().collect())
}

proptest! {
    #[test]
    fn h8_no_planted_secret_survives(
        before in noise(), after in noise(),
        which in any::<prop::sample::Index>(),
        gap in prop::sample::select(Vec::from([" ", "\n", "\"", "'", "=", ":", "\\n", "/", "("])),
        end in prop::sample::select(Vec::from([" ", "\n", "\"", "'", "\\n", ")", ";"])),
    ) {
        let secrets = secrets();
        let (secret, _) = which.get(&secrets);
        let text = format!("{before}{gap}{secret}{end}{after}");
        let redacted = redact(&text);
        prop_assert!(!redacted.contains(secret.as_str()), "{redacted}");
        prop_assert!(!redacted.contains("aB3dE5gH7jK9"), "{redacted}");
    }

    #[test]
    fn h8_redacting_twice_is_redacting_once(
        before in noise(), after in noise(), which in any::<prop::sample::Index>(),
    ) {
        let pairs = pairs("Hunter-2_longer");
        let text = format!("{before} {} {after}", which.get(&pairs));
        let once = redact(&text).into_owned();
        prop_assert_eq!(redact(&once), once.as_str());
    }

    #[test]
    fn any_text_is_redacted_without_harm(text in ".*") {
        let _ = (redact(&text), summary(&text));
    }
}
