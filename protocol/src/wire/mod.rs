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
    use super::method::{Access, Method};

    const REFERENCE: &str = include_str!("../../WIRE.md");

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
}
