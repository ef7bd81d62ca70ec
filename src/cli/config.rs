//! How `--config` and `--recipe` fill in the flags that are not given.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::builder::{
    OsStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser, ValueParser,
};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Cli, Command};
use crate::train::recipes;
use crate::train::run_folder::{self, RunFolder};
use crate::train::settings::{LrFindSettings, TripletSettings};
use crate::{Error, Result};

/// A subcommand whose flags can also come from a file.
#[derive(Debug, Clone, Args)]
pub struct Configured<S: Args> {
    /// Read settings from the config.toml of a run; flags override them
    #[arg(long, value_name = "FILE", conflicts_with = "recipe", help_heading = "Settings")]
    pub config: Option<PathBuf>,
    /// Use the settings of a published system; flags override them
    #[arg(long, value_name = "NAME", help_heading = "Settings",
        value_parser = PossibleValuesParser::new(recipes::names()))]
    pub recipe: Option<String>,
    /// Resume the interrupted run in this folder with its settings; the result is bit-identical.
    /// Without a folder: the newest interrupted run at the default --out
    #[arg(long, value_name = "RUN", conflicts_with_all = ["config", "recipe", "out"], help_heading = "Settings",
        num_args = 0..=1, default_missing_value = "", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub resume: Option<PathBuf>,
    /// With --resume: resume even if data, flags or machine have changed
    #[arg(long, requires = "resume", help_heading = "Settings")]
    pub resume_anyway: bool,
    /// The settings.
    #[command(flatten)]
    pub settings: S,
}

/// Flags of `train-triplet`.
#[derive(Debug, Args)]
pub struct TrainTriplet {
    /// What to train.
    #[command(flatten)]
    pub configured: Configured<TripletSettings>,
    /// Train with N processes on this machine, sharing every batch; loss and triplets are as with
    /// one. Not with --triplets, nor with --bn train on GPUs. torchrun and other launchers work,
    /// too
    #[arg(long, value_name = "N", help_heading = "Processes", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub processes: Option<u16>,
}

/// Flags of `lr-find`.
#[derive(Debug, Args)]
#[command(mut_arg("out", |out| out.default_value("runs/lr-find").help(
    "Folder for lr_find.csv, lr_find.png and TensorBoard's files, never taken from --config; if \
     it holds a run already, a number is appended")))]
#[command(after_help = "Give the flags or the config.toml of the training to come. Those about \
    epochs, validation and saved models (--epochs, --lr, --schedule, ...) are accepted, not listed here, and \
    have no effect; with --unfreeze-every, all stages train from the start.")]
pub struct LrFind {
    /// What to train, and the range.
    #[command(flatten)]
    pub configured: Configured<LrFindSettings>,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// Flags that a command takes, so that it runs on the flags and the config.toml of a training, but has no
/// use for. Its help does not list them.
const NOT_LISTED: [(&str, &[&str]); 2] = [
    (
        "lr-find",
        &[
            "triplets",
            "head",
            "batch_size",
            "val_limit",
            "epochs",
            "schedule",
            "warmup",
            "cycle",
            "patience",
            "monitor",
            "max_bad",
            "strict_numerics",
            "lr",
            "log_interval",
            "blend",
            "unfreeze_every",
            "model_ema",
        ],
    ),
    ("train-classifier", &["max_bad"]),
];

/// The command line.
pub fn command() -> clap::Command {
    let root = NOT_LISTED.into_iter().fold(Cli::command(), |root, (name, flags)| {
        root.mut_subcommand(name, |command| {
            flags.iter().fold(command, |command, flag| command.mut_arg(flag, |arg| arg.hide(true)))
        })
    });
    root.mut_subcommands(|command| {
        if !command.get_arguments().any(|argument| argument.get_id() == "recipe") {
            return command;
        }
        // A recipe is listed where it has something for the command; elsewhere its error says so.
        let has = |name| recipes::table(name, command.get_name()).is_ok();
        let values = recipes::names().map(|name| PossibleValue::new(name).hide(!has(name)));
        let is_idle = values.iter().all(PossibleValue::is_hide_set);
        command.mut_arg("recipe", |recipe| {
            recipe.value_parser(PossibleValuesParser::new(values)).hide(is_idle)
        })
    })
}

/// Parses the process's arguments and reads the `--config` file, if one is named.
///
/// Help, version and misuse end the process here, as clap does.
///
/// # Errors
/// A config file that cannot be read, has an unknown key or an impossible value, or whose settings
/// cannot be combined with each other or with the flags.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli> {
    let matches = command().get_matches_from(arguments);
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Some((name, flags)) = matches.subcommand() {
        match &mut cli.command {
            Command::TrainTriplet(command) => command.configured.fill(name, flags)?,
            Command::TrainPairs(command) => command.fill(name, flags)?,
            Command::TrainClassifier(command) => command.fill(name, flags)?,
            Command::Distil(command) => command.fill(name, flags)?,
            Command::LrFind(command) => {
                // The file's --out is the folder of the run that wrote it.
                let out = command.configured.settings.triplet.out.clone();
                command.configured.fill(name, flags)?;
                command.configured.settings.triplet.out = out;
            }
            _ => {}
        }
    }
    Ok(cli)
}

impl<S: Args + Clone + Serialize + DeserializeOwned> Configured<S> {
    /// Replaces every setting that was not given as a flag by the config file's.
    fn fill(&mut self, command: &str, flags: &ArgMatches) -> Result<()> {
        if self.resume.as_ref().is_some_and(|run| run.as_os_str().is_empty()) {
            self.resume = Some(self.newest(command)?);
        }
        let config = self.resume.as_ref().map(|run| run.join("config.toml"));
        let (path, file) = match (config.as_ref().or(self.config.as_ref()), &self.recipe) {
            (Some(path), _) => {
                let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
                if let Some(run) = &self.resume {
                    run_folder::check_command(run, command, &text)?;
                }
                let file: toml::Table = toml::from_str(&text)
                    .map_err(|error| Error::Config(format!("{}: {error}", path.display())))?;
                (path.clone(), file)
            }
            (None, Some(name)) => {
                (PathBuf::from(recipes::file(name)), recipes::table(name, command)?)
            }
            (None, None) => return Ok(()),
        };
        let path = &path;
        let before = file.clone();
        self.settings = overlay(&self.settings, file, flags, path, command)?;
        if self.resume.is_some() && !self.resume_anyway {
            refuse_changes(&before, &self.settings, path)?;
        }
        Ok(())
    }

    /// The newest run of the command at its default --out, if it was interrupted.
    fn newest(&self, command: &str) -> Result<PathBuf> {
        let settings = toml::Table::try_from(&self.settings).unwrap_or_default();
        let out = Path::new(settings.get("out").and_then(toml::Value::as_str).unwrap_or_default());
        RunFolder::newest_interrupted(out, command).ok_or_else(|| {
            let out = out.display();
            Error::Config(format!("--resume: no interrupted run at {out}; name one: --resume RUN"))
        })
    }

    /// The interrupted run to go on with.
    pub fn resume(&self) -> Option<Resume> {
        let run = self.resume.clone()?;
        Some(Resume { run, anyway: self.resume_anyway })
    }
}

/// An interrupted run to go on with.
#[derive(Debug, Clone)]
pub struct Resume {
    /// Its folder.
    pub run: PathBuf,
    /// Whether to go on where it will not end as it would have.
    pub anyway: bool,
}

/// Settings that may be others when a run goes on.
const FREE: [&str; 2] = ["checkpoint-every", "log-interval"];

/// A resumed run has the settings it began with.
fn refuse_changes<S: Serialize>(before: &toml::Table, now: &S, path: &Path) -> Result<()> {
    let fail = |reason: String| Error::Config(format!("{}: {reason}", path.display()));
    let now = toml::Table::try_from(now).map_err(|error| fail(error.to_string()))?;
    let keys = before.keys().chain(now.keys().filter(|key| !before.contains_key(*key)));
    let changed: Vec<_> = keys
        .filter(|key| !FREE.contains(&key.as_str()) && before.get(*key) != now.get(*key))
        .map(|key| format!("--{key}"))
        .collect();
    match changed.is_empty() {
        true => Ok(()),
        false => Err(fail(format!(
            "the run began with another {}; leave it out, or give --resume-anyway to go on with a run \
             that does not end as it would have",
            changed.join(", ")
        ))),
    }
}

/// Settings of the file that make no sense with another value of a flag: they are left out if the
/// flag is given, so that its own defaults count.
const DEPENDENT: [(&str, &[&str]); 4] = [
    ("backbone", &["weights", "input-size", "allow-missing"]),
    ("loss", &["margin"]),
    ("schedule", &["cycle", "warmup"]),
    ("head", &["loss", "embedding-dim", "allow-missing"]),
];

fn overlay<S: Args + Serialize + DeserializeOwned>(
    settings: &S,
    mut file: toml::Table,
    flags: &ArgMatches,
    path: &Path,
    command: &str,
) -> Result<S> {
    let fail = |reason: String| Error::Config(format!("{}: {reason}", path.display()));
    let known: Vec<String> = S::augment_args(clap::Command::new("settings"))
        .get_arguments()
        .map(|argument| argument.get_id().as_str().replace('_', "-"))
        .collect();
    if let Some(key) = file.keys().find(|key| !known.contains(key)) {
        let near = known
            .iter()
            .filter(|name| strsim::jaro_winkler(name, key) > 0.8)
            .max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)))
            .map(|name| format!("; did you mean `{name}`?"));
        let near = near.unwrap_or_default();
        return Err(fail(format!("`{key}` is not a setting of {command}{near}")));
    }
    for (flag, dependent) in DEPENDENT {
        let given = flags.get_raw(flag).filter(|_| is_given(flags, flag));
        let is_same =
            |given: &OsStr| file.get(flag).and_then(|value| value.as_str()) == given.to_str();
        if given.is_some_and(|mut given| !given.all(is_same)) {
            dependent.iter().for_each(|key| _ = file.remove(*key));
        }
    }
    check_combination::<S>(&file, flags).map_err(fail)?;
    let mut table = toml::Table::try_from(settings).map_err(|error| fail(error.to_string()))?;
    table.extend(file.into_iter().filter(|(key, _)| !is_given(flags, &key.replace('-', "_"))));
    table.try_into().map_err(|error| fail(error.to_string()))
}

fn is_given(flags: &ArgMatches, id: &str) -> bool {
    flags.value_source(id) == Some(ValueSource::CommandLine)
}

/// Holds the file's settings and the flags together against what clap knows of flags that require
/// or exclude each other. Values are checked elsewhere.
fn check_combination<S: Args>(file: &toml::Table, flags: &ArgMatches) -> Result<(), String> {
    let takes_value = |argument: &clap::Arg| !matches!(argument.get_action(), ArgAction::SetTrue);
    let all = S::augment_args(clap::Command::new("settings"));
    let mut line = vec![String::from("settings")];
    for argument in all.get_arguments() {
        let (id, Some(long)) = (argument.get_id().as_str(), argument.get_long()) else { continue };
        let is_set = match file.get(&id.replace('_', "-")) {
            Some(toml::Value::Boolean(value)) => *value || takes_value(argument),
            Some(toml::Value::Array(values)) => !values.is_empty(),
            value => value.is_some(),
        };
        match (is_set || is_given(flags, id), takes_value(argument)) {
            (true, true) => line.push(format!("--{long}=x")),
            (true, false) => line.push(format!("--{long}")),
            (false, _) => {}
        }
    }
    let any_value = |argument: clap::Arg| match takes_value(&argument) {
        true => argument.value_parser(ValueParser::string()),
        false => argument,
    };
    let Err(error) = all.mut_args(any_value).try_get_matches_from(line) else { return Ok(()) };
    let text = error.to_string();
    let text = text.split("\n\n").next().unwrap_or_default();
    let text = text.trim_start_matches("error: ").replace("=x", "");
    Err(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::settings::TripletSettings;

    fn triplet(arguments: &[&str]) -> Result<TripletSettings> {
        let all = ["visage", "train-triplet"].iter().chain(arguments).map(OsString::from);
        match parse(all)?.command {
            Command::TrainTriplet(command) => Ok(command.configured.settings),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "margin = 0.5\nepochs = 3\nflip = false\noptimizer = \"sgd\"\n")
            .unwrap();
        let path = path.to_str().unwrap();
        let settings = triplet(&["--config", path, "--epochs", "7"]).unwrap();
        assert_eq!(
            (settings.margin, settings.epochs, settings.tuning.augmentation.flip),
            (Some(0.5), 7, false)
        );
        assert_eq!(settings.pictures_per_identity, 4);
        assert_eq!(settings.lr(), 6e-3);
    }

    #[test]
    fn a_written_config_is_read_back_to_the_same_settings() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let settings =
            triplet(&["--freeze", "layer1,layer2", "--weights", "none", "-p", "3"]).unwrap();
        let text = run_folder::config_text("train-triplet", &settings).unwrap();
        std::fs::write(&path, text).unwrap();
        assert_eq!(triplet(&["--config", path.to_str().unwrap()]).unwrap(), settings);
    }

    #[test]
    fn resolved_settings_are_read_back_and_make_way_for_the_flags_they_depend_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let mut settings = triplet(&["--optimizer", "adamw"]).unwrap();
        settings.fill_in(&crate::weights::Source::Named("openface-nn4-distilled".into()), 96);
        let text = run_folder::config_text("train-triplet", &settings).unwrap();
        for line in ["lr = 0.00006", "margin = 0.2", "weight-decay = 0.01", "input-size = 96"] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
        assert!(text.contains("weights = \"openface-nn4-distilled\""), "{text}");
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let read = triplet(&["--config", path]).unwrap();
        read.check().unwrap();
        assert_eq!(read, settings);
        let other =
            triplet(&["--config", path, "--loss", "supcon", "--backbone", "vgg11"]).unwrap();
        other.check().unwrap();
        assert_eq!((other.margin, other.trunk.weights, other.trunk.input_size), (None, None, None));
        assert_eq!(other.lr, Some(6e-5));
    }

    #[test]
    fn every_recipe_is_read_whole_and_flags_win_over_it() {
        for (name, text) in recipes::ALL {
            let commands: toml::Table = toml::from_str(text).unwrap();
            for (command, recipe) in &commands {
                let mut arguments = vec!["visage", command, "--recipe", name];
                if recipe.get("head").is_some() && command == "train-triplet" {
                    arguments.extend(["--triplets", "strips"]);
                }
                let arguments = arguments.into_iter().map(OsString::from);
                let settings = match parse(arguments).unwrap().command {
                    Command::TrainTriplet(mut command) => {
                        if recipe.as_table().is_some_and(|recipe| recipe.contains_key("head")) {
                            // A pair network: the folder of triplets is the user's.
                            command.configured.settings.triplets = Some("strips".into());
                        }
                        command.configured.settings.check().unwrap();
                        toml::Table::try_from(command.configured.settings)
                    }
                    Command::TrainPairs(command) => {
                        command.settings.check().unwrap();
                        toml::Table::try_from(command.settings)
                    }
                    Command::TrainClassifier(command) => toml::Table::try_from(command.settings),
                    other => panic!("{other:?}"),
                };
                let settings = settings.unwrap();
                for (key, value) in recipe.as_table().unwrap() {
                    assert_eq!(settings.get(key), Some(value), "{name}, {command}: {key}");
                }
            }
        }
        let settings =
            triplet(&["--recipe", "passport-vgg16", "--triplets", "strips", "--epochs", "2"]);
        let settings = settings.unwrap();
        assert_eq!((settings.epochs, settings.margin), (2, Some(0.3)));
        let wrong = triplet(&["--recipe", "celeba-siamese-densenet"]).unwrap_err().to_string();
        assert!(wrong.contains("`visage train-pairs`"), "{wrong}");
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_neighbour() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "margn = 0.5\n").unwrap();
        let error = triplet(&["--config", path.to_str().unwrap()]).unwrap_err().to_string();
        assert!(error.contains("`margn`") && error.contains("`margin`"), "{error}");
    }

    #[test]
    fn the_file_cannot_go_past_what_flags_require_and_exclude() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let with = |text: &str, flags: &[&str]| {
            std::fs::write(&path, text).unwrap();
            triplet(&[&["--config", path.to_str().unwrap()], flags].concat())
        };
        let wrong = with("head = \"projection\"\n", &[]).unwrap_err().to_string();
        assert!(wrong.contains("config.toml") && wrong.contains("--triplets"), "{wrong}");
        for (text, flags) in [
            ("triplets = \"strips\"\ndata = \"faces\"\n", &[][..]),
            ("triplets = \"strips\"\n", &["--data", "faces"]),
            ("data = \"faces\"\n", &["--triplets", "strips"]),
        ] {
            let wrong = with(text, flags).unwrap_err().to_string();
            assert!(wrong.contains("--data") && wrong.contains("--triplets"), "{wrong}");
        }
        let text = "head = \"projection\"\nstrict = false\nflip = false\nfreeze = []\n";
        assert!(with(text, &["--triplets", "strips"]).is_ok());
    }
}
