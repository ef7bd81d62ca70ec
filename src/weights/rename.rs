//! The table of keys that changed between versions of PyTorch's model files. A rule applies only if it
//! turns an unexpected key into a missing one, and the report lists it.

/// A rule for renamed keys.
pub struct Rule {
    /// Where the old key is from.
    pub about: &'static str,
    /// The net's key, if the rule applies.
    pub apply: fn(&str) -> Option<String>,
}

/// All rules, tried in this order.
pub const RULES: [Rule; 2] = [
    Rule {
        about: "torchvision's DenseNet files of 2017: denselayer1.norm.1 is now denselayer1.norm1",
        apply: old_densenet,
    },
    Rule {
        about: "a part of the net was wrapped in DataParallel: features.module.0 is features.0",
        apply: inner_data_parallel,
    },
];

/// `...denselayerN.{norm,relu,conv}.{1,2}.x` to `...denselayerN.norm1.x`.
fn old_densenet(key: &str) -> Option<String> {
    let parts: Vec<&str> = key.split('.').collect();
    let at = parts.iter().position(|part| part.starts_with("denselayer"))?;
    let [kind @ ("norm" | "relu" | "conv"), number @ ("1" | "2"), _, ..] = parts[at + 1..] else {
        return None;
    };
    let joined = format!("{kind}{number}");
    let mut parts = parts;
    parts.splice(at + 1..at + 3, [joined.as_str()]);
    Some(parts.join("."))
}

/// `a.module.b` to `a.b`.
fn inner_data_parallel(key: &str) -> Option<String> {
    key.contains(".module.").then(|| key.replacen(".module.", ".", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_change_the_keys_they_are_for_and_no_others() {
        for (rule, from, to) in [
            (
                0,
                "features.denseblock1.denselayer2.norm.1.running_mean",
                Some("features.denseblock1.denselayer2.norm1.running_mean"),
            ),
            (0, "denselayer1.conv.2.weight", Some("denselayer1.conv2.weight")),
            (0, "features.denseblock1.denselayer2.norm1.weight", None),
            (0, "features.denseblock1.denselayer2.conv.3.weight", None),
            (0, "features.transition1.norm.1.weight", None),
            (0, "denselayer1.conv.2", None),
            (1, "features.module.0.weight", Some("features.0.weight")),
            (1, "features.modules.0.weight", None),
        ] {
            assert_eq!((RULES[rule].apply)(from).as_deref(), to, "{from}");
        }
    }
}
