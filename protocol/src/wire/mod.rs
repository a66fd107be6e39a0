//! What bytes mean. Leniency towards clients lives here and nowhere else.

pub(crate) mod event;
pub(crate) mod http;
pub(crate) mod json;
pub(crate) mod method;
pub(crate) mod params;
pub(crate) mod rpc;
pub(crate) mod view;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::method::{Access, Method};

    const REFERENCE: &str = include_str!("../../WIRE.md");

    fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else {
                found.push(path);
            }
        }
    }

    #[test]
    fn the_reference_has_every_method_and_its_role() {
        for method in Method::ALL {
            let name = format!("| `{}` |", method.name());
            let row = REFERENCE.lines().find(|line| line.starts_with(&name));
            let role = row.and_then(|row| row.rsplit('|').nth(1)).unwrap_or_default().trim();
            let expected = match method.access() {
                Access::Anybody => "–".to_owned(),
                Access::From(role) => role.as_str().to_owned(),
                Access::Device => "a device".to_owned(),
                Access::SelfOr(role) => format!("{}, self", role.as_str()),
            };
            assert_eq!(role, expected, "{}", method.name());
        }
    }

    #[test]
    fn the_reference_has_every_event() {
        let names = include_str!("event.rs").split("=> \"").skip(1);
        let names: Vec<_> = names.filter_map(|rest| rest.split('"').next()).collect();
        assert!(names.len() > 10, "{names:?}");
        for name in names {
            assert!(REFERENCE.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn the_reference_has_every_kind_of_error() {
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
        let mut kinds = 0;
        for file in files.iter().filter(|file| !file.ends_with("client.rs")) {
            let text = fs::read_to_string(file).unwrap();
            // This test's own text has no code behind the words.
            let calls = ["RpcError::new(", "Self::new("].map(|call| [call, "-32"].concat());
            for rest in calls.iter().flat_map(|call| text.split(call).skip(1)) {
                let kind = rest.split('"').nth(1).unwrap();
                let code: String = rest.chars().take(3).collect();
                let is_there = |line: &&str| line.contains(&code) && line.contains(kind);
                assert!(REFERENCE.lines().any(|line| is_there(&line)), "-32{code} {kind}");
                kinds += 1;
            }
        }
        assert!(kinds > 15);
    }
}
