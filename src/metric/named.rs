//! Losses, miners, distances and other choices by name, for flags and configuration files.

/// A choice by name, for command lines, configuration files and help texts.
pub trait Named: Copy + Send + Sync + 'static {
    /// All choices, in the order of the help text.
    const ALL: &'static [Self];

    /// Its name, in kebab case.
    fn name(&self) -> &'static str;

    /// One line of help.
    fn help(&self) -> &'static str;

    /// The choice of this name.
    fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|choice| choice.name() == name).copied()
    }
}

/// Implements Display and serde for a [`Named`] type by its name.
macro_rules! serde_by_name {
    ($kind:ty) => {
        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad($crate::metric::named::Named::name(self))
            }
        }

        impl serde::Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str($crate::metric::named::Named::name(self))
            }
        }

        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                use $crate::metric::named::Named;
                let name = String::deserialize(from)?;
                Self::by_name(&name).ok_or_else(|| {
                    let known: Vec<&str> = Self::ALL.iter().map(Named::name).collect();
                    serde::de::Error::custom(format!(
                        "unknown variant `{name}`, expected one of {}",
                        known.join(", ")
                    ))
                })
            }
        }
    };
}

/// An enum whose variants have names; their documentation is the help text. The first variant is the
/// default.
macro_rules! named_enum {
    (
        $(#[$about:meta])* pub enum $kind:ident {
            $($(#[doc = $help:literal])+ $variant:ident = $name:literal,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $kind {
            $($(#[doc = $help])+ $variant,)+
        }

        impl $crate::metric::named::Named for $kind {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn name(&self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            fn help(&self) -> &'static str {
                match self { $(Self::$variant => concat!($($help),+).trim_ascii(),)+ }
            }
        }

        impl Default for $kind {
            fn default() -> Self {
                <Self as $crate::metric::named::Named>::ALL[0]
            }
        }

        $crate::metric::named::serde_by_name!($kind);
    };
}

/// The table of a folder: a row `file::ENTRY` declares the module, publishes what it has, and adds the
/// entry to `ALL`. Entries have the fields `name` and `help`. `cargo fmt` does not look for modules in
/// macros; `make format` names their files.
macro_rules! registry {
    ($kind:ty: $($file:ident::$entry:ident,)+) => {
        $(mod $file;
        pub use $file::*;)+

        impl $crate::metric::named::Named for $kind {
            const ALL: &'static [Self] = &[$($file::$entry),+];

            fn name(&self) -> &'static str {
                self.name
            }

            fn help(&self) -> &'static str {
                self.help
            }
        }

        impl PartialEq for $kind {
            fn eq(&self, other: &Self) -> bool {
                self.name == other.name
            }
        }

        $crate::metric::named::serde_by_name!($kind);
    };
}

pub(crate) use {named_enum, registry, serde_by_name};
