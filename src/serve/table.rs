//! What can be asked for, and who may.

use super::keys::Role;

/// Methods and routes, with the role that each needs; `None` needs no key. openapi.json says what each does.
pub const ROUTES: [(&str, &str, Option<Role>); 17] = [
    ("GET", "/", None),
    ("GET", "/openapi.json", None),
    ("GET", "/health", None),
    ("GET", "/ready", None),
    ("GET", "/metrics", Some(Role::Identify)),
    ("POST", "/identify", Some(Role::Identify)),
    ("POST", "/verify", Some(Role::Identify)),
    ("POST", "/detect", Some(Role::Identify)),
    ("POST", "/embed", Some(Role::Identify)),
    ("GET", "/people", Some(Role::Identify)),
    ("POST", "/people/{name}", Some(Role::Enrol)),
    ("DELETE", "/people/{name}", Some(Role::Admin)),
    ("POST", "/people/{name}/reject", Some(Role::Enrol)),
    ("GET", "/unknown", Some(Role::Identify)),
    ("POST", "/unknown/{id}", Some(Role::Enrol)),
    ("DELETE", "/unknown/{id}", Some(Role::Admin)),
    ("POST", "/reload", Some(Role::Admin)),
];

/// The row of a method and a matched route; a HEAD is a GET.
pub fn find(
    method: &str,
    route: &str,
) -> Option<&'static (&'static str, &'static str, Option<Role>)> {
    let method = if method == "HEAD" { "GET" } else { method };
    ROUTES.iter().find(|(own, path, _)| *own == method && *path == route)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_has_the_same_routes() {
        let text = include_str!("openapi.json");
        let description: serde_json::Value = serde_json::from_str(text).unwrap();
        let mut described = Vec::new();
        for (path, operations) in description["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let is_open = operation["security"].as_array().unwrap().is_empty();
                described.push((method.to_uppercase(), path.clone(), is_open));
            }
        }
        let mut own: Vec<_> = ROUTES
            .iter()
            .map(|(method, path, role)| (method.to_string(), path.to_string(), role.is_none()))
            .collect();
        own.sort();
        described.sort();
        assert_eq!(own, described);
    }

    #[test]
    fn links_of_the_description_lead_to_operations() {
        let text = include_str!("openapi.json");
        let description: serde_json::Value = serde_json::from_str(text).unwrap();
        let paths = description["paths"].as_object().unwrap();
        let operations: Vec<_> =
            paths.values().flat_map(|path| path.as_object().unwrap().values()).collect();
        let is_there = |id: &serde_json::Value| {
            operations.iter().any(|operation| operation["operationId"] == *id)
        };
        let links = operations
            .iter()
            .filter_map(|operation| operation["responses"]["200"]["links"].as_object());
        let targets: Vec<_> =
            links.flat_map(|links| links.values()).map(|link| &link["operationId"]).collect();
        assert_eq!(targets.len(), 2);
        assert!(targets.into_iter().all(is_there));
    }
}
