//! The settings of published workflows, from `recipes/NAME.toml`: one table per command, with every
//! setting of the original, and comments where ours differ.

use crate::{Error, Result};

/// Name and content of every recipe.
pub const ALL: [(&str, &str); 5] = [
    ("avengers-openface", include_str!("../../recipes/avengers-openface.toml")),
    ("celeba-siamese-densenet", include_str!("../../recipes/celeba-siamese-densenet.toml")),
    ("celeba-contrastive-densenet", include_str!("../../recipes/celeba-contrastive-densenet.toml")),
    ("passport-vgg16", include_str!("../../recipes/passport-vgg16.toml")),
    ("passport-inception-bce", include_str!("../../recipes/passport-inception-bce.toml")),
];

/// The names `--recipe` takes.
pub fn names() -> [&'static str; ALL.len()] {
    ALL.map(|(name, _)| name)
}

/// The file a recipe is read from, for messages.
pub fn file(name: &str) -> String {
    format!("recipes/{name}.toml")
}

/// The settings that a recipe has for a command.
///
/// # Errors
/// There is no such recipe, or it is not one of this command: says of which it is.
pub fn table(name: &str, command: &str) -> Result<toml::Table> {
    let file = file(name);
    let text = ALL.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text);
    let commands: toml::Table =
        toml::from_str(text).map_err(|error| Error::Config(format!("{file}: {error}")))?;
    match commands.get(command) {
        Some(toml::Value::Table(settings)) => Ok(settings.clone()),
        _ => {
            let known: Vec<String> =
                commands.keys().map(|command| format!("`visage {command}`")).collect();
            let known = known.join(" and ");
            Err(Error::Config(format!("--recipe {name}: a recipe of {known}, not of {command}")))
        }
    }
}
