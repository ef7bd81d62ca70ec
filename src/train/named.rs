//! Lists of named tensors, as states and checkpoints hold them.

use std::collections::BTreeMap;

use tch::{Tensor, no_grad};

/// A figure's name as the tasks have them; a process reads a dozen at most, once.
pub fn forever(name: &str) -> &'static str {
    name.to_owned().leak()
}

/// Tensors with a prefix to their names.
pub fn prefixed(
    prefix: &str,
    tensors: Vec<(String, Tensor)>,
) -> impl Iterator<Item = (String, Tensor)> {
    tensors.into_iter().map(move |(name, tensor)| (format!("{prefix}.{name}"), tensor))
}

/// Copies each tensor of `saved` into the one of the same name in `live`, on whatever devices they are.
///
/// # Errors
/// Lists what is missing, unknown, there twice, or of another shape or kind; nothing is changed then.
pub fn copy_all(saved: &[(String, Tensor)], live: &[(String, Tensor)]) -> Result<(), Vec<String>> {
    let (mut wrong, mut given) = (Vec::new(), BTreeMap::new());
    for (name, tensor) in saved {
        if given.insert(name.as_str(), tensor).is_some() {
            wrong.push(format!("{name}: there twice"));
        }
    }
    let mut copies = Vec::new();
    for (name, tensor) in live {
        match given.remove(name.as_str()) {
            None => wrong.push(format!("{name}: missing")),
            Some(new) if new.size() != tensor.size() || new.kind() != tensor.kind() => {
                wrong.push(format!(
                    "{name}: {:?} {:?}, expected {:?} {:?}",
                    new.kind(),
                    new.size(),
                    tensor.kind(),
                    tensor.size()
                ));
            }
            Some(new) => copies.push((tensor.shallow_clone(), new)),
        }
    }
    wrong.extend(given.keys().map(|name| format!("{name}: not part of this training")));
    match wrong.is_empty() {
        true => {
            no_grad(|| copies.into_iter().for_each(|(mut tensor, new)| tensor.copy_(new)));
            Ok(())
        }
        false => Err(wrong),
    }
}
