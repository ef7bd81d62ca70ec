//! `visage classify`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::{Context, output, stream};
use crate::Result;
use crate::cli;
use crate::data::picture;
use crate::eval::Embeddings;
use crate::recognise::{Answer, Classifier, ModelKind, Recogniser, model_file};
use crate::train::settings::percentage;

pub fn run(context: &Context, flags: &cli::Classify) -> anyhow::Result<ExitCode> {
    let model = load(context, flags.model.as_deref(), flags.unknown)?;
    let classifier = model.classifier()?;
    let (files, mut failed) = collect(&flags.inputs, &context.say);
    let several = files.len() + failed > 1;
    let top = usize::from(flags.top);
    stream::embed_files(&model.backbone, &files, &context.say, |path, row| {
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                context.say.error(&error.to_string());
                failed += 1;
                return Ok(());
            }
        };
        let one = Embeddings::new(1, row.len(), row.to_vec())?;
        for answer in classifier.answer(&one)? {
            let reply = Reply { path, answer: &answer, classifier, names: &model.card.classes };
            for line in if flags.json { vec![reply.json(top)] } else { reply.text(top, several) } {
                context.say.suspend(|| output::line(&line))?;
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// Loads the classifier a command works with.
///
/// # Errors
/// No such model, or one without a head.
pub fn load(context: &Context, model: Option<&Path>, unknown: Option<f64>) -> Result<Recogniser> {
    if let Some(percent) = unknown {
        percentage("--unknown", percent)?;
    }
    let path = match model {
        Some(path) => path.to_owned(),
        None => model_file::newest(context.runs(), ModelKind::Classifier)?,
    };
    let mut model = Recogniser::load(&path, context.device()?)?;
    if let Some(percent) = unknown {
        model.demand_probability(percent / 100.0);
    }
    Ok(model)
}

/// All pictures that `inputs` name, in the order given; inputs that are not there are reported and
/// counted, the others go on.
pub fn collect(
    inputs: &[PathBuf],
    say: &crate::train::progress::Reporter,
) -> (Vec<PathBuf>, usize) {
    let (mut files, mut failed) = (Vec::new(), 0);
    for input in inputs {
        let (found, troubles) = picture::walk_on(input);
        if found.is_empty() && troubles.is_empty() {
            say.error(&format!("{}: holds no pictures", input.display()));
            failed += 1;
        }
        for trouble in &troubles {
            say.error(&trouble.to_string());
        }
        failed += troubles.len();
        files.extend(found);
    }
    (files, failed)
}

/// An answer with what it takes to word it.
struct Reply<'a> {
    path: &'a Path,
    answer: &'a Answer,
    classifier: &'a Classifier,
    names: &'a [String],
}

impl Reply<'_> {
    fn name(&self, label: usize) -> &str {
        self.names.get(label).map_or("?", String::as_str)
    }

    /// The original's sentence, then one line for each further candidate.
    fn text(&self, top: usize, several: bool) -> Vec<String> {
        let Some(&(label, probability)) = self.answer.ranking.first() else { return Vec::new() };
        let name = self.name(label);
        let probability = 100.0 * probability;
        let prefix = if several { format!("{}: ", self.path.display()) } else { String::new() };
        let mut lines = vec![if self.answer.is_known {
            format!("{prefix}{name} with {probability:.2}% probability")
        } else {
            format!(
                "{prefix}UNKNOWN FACE, but similar to {name} with {probability:.2}% probability"
            )
        }];
        for (rank, &(label, probability)) in
            self.answer.ranking.iter().enumerate().take(top).skip(1)
        {
            let name = self.name(label);
            lines.push(format!(
                "  {}. {name} with {:.2}% probability",
                rank + 1,
                100.0 * probability
            ));
        }
        lines
    }

    fn json(&self, top: usize) -> String {
        let best = self.answer.ranking.first();
        let nearest = best.map(|&(label, _)| self.name(label));
        let ranking: Vec<_> = self
            .answer
            .ranking
            .iter()
            .take(top)
            .map(|&(label, probability)| json!({"label": self.name(label), "probability": probability}))
            .collect();
        json!({
            "file": self.path.to_string_lossy(),
            "label": nearest.filter(|_| self.answer.is_known),
            "nearest": nearest,
            "probability": best.map(|(_, probability)| probability),
            "known_probability": self.answer.known,
            "distance": self.answer.distance,
            "nearest_path": self.classifier.gallery.faces.get(self.answer.neighbour).map(|f| &f.path),
            "top": ranking,
        })
        .to_string()
    }
}
