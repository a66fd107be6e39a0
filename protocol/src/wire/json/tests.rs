use super::*;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;
use serde_json::Value;

#[test]
fn b6_what_is_not_one_value_is_refused() {
    for text in [
        "null",
        "-0.5e3",
        r#""a\u00e9\ud83d\ude00""#,
        " [ ] ",
        r#"{"a":{"a":[{"a":1},{"a":2}]},"b":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"daemon.ping"}"#,
    ] {
        assert_eq!(check(text, 64), Ok(()), "{text}");
    }
    for text in [
        "",
        " ",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "'a'",
        "01",
        "+1",
        "1.",
        "1e999",
        "NaN",
        "tru",
        "\"\n\"",
        r#""\x""#,
        r#""\ud800""#,
        r#"{"\ud800":1}"#,
        "// comment\n1",
        "\u{feff}1",
    ] {
        assert_eq!(check(text, 64), Err(JsonFault::Syntax), "{text}");
    }
    for text in ["1 2", "{}{}", "null x", "[]]", "\"\"\""] {
        assert_eq!(check(text, 64), Err(JsonFault::TrailingData), "{text}");
    }
}

#[test]
fn b6_duplicate_keys_are_found_at_every_level_and_however_written() {
    let many = |extra: &str| {
        let keys: Vec<String> = (0..1000).map(|number| format!("\"k{number}\":0,")).collect();
        format!("{{{}{extra}}}", keys.concat())
    };
    assert_eq!(check(&many(r#""last":0"#), 64), Ok(()));
    for text in [
        r#"{"a":1,"a":1}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"{"\u0061":1,"a":2}"#,
        r#"{"\u0061":1,"\u0061":2}"#,
        r#"{"":1,"":2}"#,
        r#"[1,{"x":[{"b":1,"c":{},"b":2}]}]"#,
        r#"{"1":0,"2":0,"3":0,"4":0,"5":0,"6":0,"7":0,"8":0,"9":0,"9":0}"#,
        r#"{"1":0,"2":0,"3":0,"4":0,"5":0,"6":0,"7":0,"8":0,"9":0,"1":0}"#,
        r#"{"1":0,"\u0032":0,"3":0,"4":0,"5":0,"6":0,"7":0,"8":0,"9":0,"2":0}"#,
        &many(r#""k0":0"#),
        &many(r#""k999":0"#),
        &many(r#""\u006b500":0"#),
    ] {
        assert_eq!(check(text, 64), Err(JsonFault::DuplicateKey), "{text}");
    }
}

#[test]
fn b6_nesting_has_a_limit() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}0{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    for depth_max in [1, 8, 64, 126] {
        assert_eq!(check(&nested(depth_max), depth_max), Ok(()));
        assert_eq!(check(&objects(depth_max), depth_max), Ok(()));
        assert_eq!(check(&nested(depth_max + 1), depth_max), Err(JsonFault::TooDeep));
        assert_eq!(check(&objects(depth_max + 1), depth_max), Err(JsonFault::TooDeep));
    }
    assert_eq!(check("0", 0), Ok(()));
    assert_eq!(check("[]", 0), Err(JsonFault::TooDeep));
    assert_eq!(check(&nested(128), usize::MAX), Err(JsonFault::TooDeep));
    assert_eq!(check(&"[".repeat(4_000_000), 64), Err(JsonFault::TooDeep));
    assert_eq!(check(&format!("[{}0]", "[],".repeat(1000)), 2), Ok(()), "wide is not deep");
}

#[test]
fn b6_no_second_document_hides_in_a_text() {
    let hidden = r#"{"$serde_json::private::RawValue":"{\"a\":1,\"a\":2}"}"#;
    let read: Value = serde_json::from_str(hidden).unwrap();
    assert_eq!(read, serde_json::json!({"a": 2}), "if this fails, the check can go");
    assert_eq!(check(hidden, 64), Err(JsonFault::Syntax));
    let escaped = hidden.replace('$', "\\u0024");
    assert_eq!(check(&escaped, 64), Err(JsonFault::Syntax));
}

/// Value trees with keys from a small alphabet, some of them escaped, so that duplicates are common.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(String::from("null")),
        Just(String::from("true")),
        any::<i64>().prop_map(|number| format!("{number}")),
        any::<f64>().prop_map(|number| format!("{number:e}")),
        "\\PC{0,6}".prop_map(|text| Value::from(text).to_string()),
    ];
    let key = prop::sample::select(vec!["a", "b", "c", "\\u0061", "\\u0062", "\\n"]);
    leaf.prop_recursive(6, 40, 12, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((key.clone(), inner), 0..4).prop_map(|entries| {
                let entries: Vec<String> =
                    entries.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", entries.join(","))
            }),
        ]
    })
}

/// What serde makes of a text when told to keep every entry: the reference for duplicates and depth.
enum Tree {
    Leaf,
    List(Vec<Self>),
    Entries(Vec<(String, Self)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Build;
        impl<'de> Visitor<'de> for Build {
            type Value = Tree;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
                Ok(Tree::Leaf)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
                Ok(Tree::Leaf)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
                Ok(Tree::Leaf)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
                Ok(Tree::Leaf)
            }
            fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
                Ok(Tree::Leaf)
            }
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Leaf)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Tree::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
                let mut list = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    list.push(entry);
                }
                Ok(Tree::Entries(list))
            }
        }
        from.deserialize_any(Build)
    }
}

impl Tree {
    fn depth(&self) -> usize {
        match self {
            Self::Leaf => 0,
            Self::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Entries(all) => 1 + all.iter().map(|(_, it)| it.depth()).max().unwrap_or(0),
        }
    }

    fn has_duplicates(&self) -> bool {
        match self {
            Self::Leaf => false,
            Self::List(items) => items.iter().any(Self::has_duplicates),
            Self::Entries(all) => {
                let keys: BTreeSet<&str> = all.iter().map(|(key, _)| key.as_str()).collect();
                keys.len() < all.len() || all.iter().any(|(_, it)| it.has_duplicates())
            }
        }
    }
}

fn agrees(text: &str, depth_max: usize) -> Result<(), TestCaseError> {
    let verdict = check(text, depth_max);
    let is_value = serde_json::from_str::<Value>(text).is_ok();
    let tree = serde_json::from_str::<Tree>(text);
    prop_assert_eq!(is_value, tree.is_ok());
    let is_clean = tree.is_ok_and(|tree| tree.depth() <= depth_max && !tree.has_duplicates());
    prop_assert_eq!(verdict.is_ok(), is_clean, "{} {:?}", text, verdict);
    if matches!(verdict, Err(JsonFault::Syntax | JsonFault::TrailingData)) {
        prop_assert!(!is_value, "{}", text);
    }
    Ok(())
}

proptest! {
    #[test]
    fn b6_json_is_judged_as_serde_reads_it(text in any_json(), depth_max in 0_usize..8) {
        agrees(&text, depth_max)?;
    }

    #[test]
    fn b6_near_json_is_judged_as_serde_reads_it(
        text in any_json(),
        at in any::<prop::sample::Index>(),
        other in prop::sample::select(vec!["", " ", ",", ":", "\"", "{", "}", "]", "0", "\\"]),
    ) {
        let chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len());
        let mut cut: String = chars[..at].iter().collect();
        cut.push_str(other);
        cut.extend(&chars[at + 1..]);
        agrees(&cut, 64)?;
    }

    #[test]
    fn b6_any_text_is_judged_as_serde_reads_it(text in r#"[\[\]{}:,"a\\u0-9e. -]{0,24}"#) {
        agrees(&text, 64)?;
    }
}
