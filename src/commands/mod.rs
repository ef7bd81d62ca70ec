//! One file per subcommand: validate, build, run, report.

mod audit;
mod bench;
mod classify;
mod context;
mod detect;
mod detection;
mod distil;
mod doctor;
mod embed;
mod evaluate;
mod evaluate_pairs;
mod evaluate_strangers;
mod export;
mod fetch;
mod framing;
mod gallery;
mod gallery_enroll;
mod gallery_transfer;
mod gallery_trunk;
mod given_triplets;
mod info;
mod inputs;
mod lr_find;
mod models;
mod numpy;
mod out_of_memory;
mod output;
mod pair_training;
mod prepare;
mod prepare_faces;
mod prepare_pack;
mod processes;
mod replies;
mod runs;
#[cfg(feature = "serve")]
mod serve;
mod strangers;
mod train_classifier;
mod train_pairs;
mod train_triplet;
mod training;
mod trunk;
mod tsne;
mod use_run;
mod verify;
mod weights;
mod weights_verify;

use std::io::Write;
use std::process::ExitCode;

use crate::Error;
use crate::cli::{Cli, Command};
use crate::words::printable;
use context::Context;

/// Runs the command.
///
/// # Errors
/// Whatever ends it early; [`report`] prints it.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let context = Context::new(cli.common, &cli.command)?;
    if context.place.is_some() && !matches!(cli.command, Command::TrainTriplet(_)) {
        let text =
            "only train-triplet trains in several processes; start this without the launcher";
        return Err(Error::Config(text.into()).into());
    }
    let advice = out_of_memory::Advice::of(&cli.command, &context.run);
    out_of_memory::guard(&advice, || dispatch(&context, cli.command))
}

fn dispatch(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::TrainTriplet(command) => train_triplet::run(context, *command),
        Command::TrainPairs(command) => train_pairs::run(context, command.settings),
        Command::TrainClassifier(command) => train_classifier::run(context, command.settings),
        Command::Distil(command) => distil::run(context, command.settings),
        Command::LrFind(flags) => lr_find::run(context, *flags),
        Command::Classify(flags) => classify::run(context, &flags),
        Command::Gallery(flags) => gallery::run(context, &flags.action),
        #[cfg(feature = "serve")]
        Command::Serve(flags) => serve::run(context, &flags),
        Command::Detect(flags) => detect::run(context, &flags),
        Command::Evaluate(flags) => evaluate::run(context, &flags),
        Command::Verify(flags) => verify::run(context, &flags),
        Command::Audit(flags) => audit::run(context, &flags),
        Command::Tsne(flags) => tsne::run(context, &flags),
        Command::Embed(flags) => embed::run(context, &flags),
        Command::Weights(flags) => weights::run(context, &flags.action),
        Command::Export(flags) => export::run(context, &flags),
        Command::Info(flags) => info::run(context, &flags),
        Command::Runs(flags) => runs::run(context, &flags),
        Command::Use(flags) => use_run::run(context, &flags),
        Command::Models(flags) => models::run(&flags),
        Command::Prepare(flags) => prepare::run(context, &flags.action),
        Command::Fetch(flags) => fetch::run(context, &flags),
        Command::Bench(flags) => bench::run(context, &flags),
        Command::Doctor(flags) => doctor::run(context, &flags),
    }
}

/// Prints an error once, with the causes its own text does not already hold.
///
/// A reader that closed our standard output early (`| head`) is no error; any other broken pipe is.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(output::is_closed)
    };
    if error.chain().any(closed) {
        return ExitCode::SUCCESS;
    }
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            text += if text.is_empty() { "" } else { ": " };
            text += &cause;
        }
    }
    // If standard error is closed, too, there is no one left to tell.
    let text = printable(&text);
    if let Some(Error::Interrupted { signal, .. }) = error.downcast_ref() {
        let _ = writeln!(std::io::stderr(), "{text}");
        return ExitCode::from(128 + signal);
    }
    let _ = writeln!(std::io::stderr(), "error: {text}");
    let is_training_gone_wrong = matches!(error.downcast_ref(), Some(Error::Stopped { .. }));
    ExitCode::from(if is_training_gone_wrong { 3 } else { 2 })
}
