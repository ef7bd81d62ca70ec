//! `visage gallery enroll`.

use std::path::Path;
use std::process::ExitCode;

use super::context::Context;
use super::gallery_trunk::{of_flags, set_up, single_faces};
use super::inputs::{self};
use super::output::{count, line};
use crate::cli::GalleryEnroll;
use crate::data::picture;
use crate::gallery::{Doubt, Enrolled, Gallery, NewFace};
use crate::words::people;
use crate::{Error, Result};

/// Doubtful faces that are warned of one by one.
const SHOWN: usize = 20;

/// What became of all pictures.
#[derive(Default)]
pub struct Summary {
    pub people: usize,
    pub enrolled: Enrolled,
    /// Pictures without one clear face, or that cannot be read.
    pub left_out: Vec<(String, String)>,
}

pub fn run(context: &Context, flags: &GalleryEnroll) -> anyhow::Result<ExitCode> {
    let inputs = match &flags.tree {
        Some(tree) => std::slice::from_ref(tree),
        None => &flags.inputs[..],
    };
    let (files, failed) = inputs::collect(inputs, &context.say);
    if files.is_empty() {
        return Err(Error::Data("no pictures; nobody was enrolled".into()).into());
    }
    let mut gallery = Gallery::open(&flags.faces.db.db)?;
    let parts = of_flags(context, &gallery, &flags.faces)?;
    set_up(context, &mut gallery, &flags.threshold, &parts)?;
    let owner = |path: &Path| match (&flags.name, &flags.tree) {
        (Some(name), _) => Ok(name.clone()),
        (None, Some(tree)) if path.parent() == Some(tree) => Err(Error::Data(format!(
            "{}: is not in a person's folder below {}",
            path.display(),
            tree.display()
        ))),
        (None, tree) => Ok(picture::owner(tree.as_deref().unwrap_or(Path::new("")), path)),
    };
    let (mut summary, mut waiting) = (Summary::default(), Waiting::default());
    single_faces(context, parts, &files, flags.thumbnails, |path, face| {
        let found = owner(path).and_then(|name| Ok((name, face?)));
        match found {
            Ok((name, face)) => {
                if waiting.name != name {
                    waiting.enrol(&mut gallery, &mut summary)?;
                    waiting.name = name;
                }
                waiting.faces.push(face);
            }
            Err(error) => {
                context.say.error(&error.to_string());
                let file = path.to_string_lossy().into_owned();
                summary.left_out.push((file, error.to_string()));
            }
        }
        Ok(())
    })?;
    waiting.enrol(&mut gallery, &mut summary)?;
    summary.report(context, &gallery, flags.json)?;
    Ok(ExitCode::from(u8::from(failed > 0 || !summary.left_out.is_empty())))
}

/// Faces of one person; enrolled in one step.
#[derive(Default)]
struct Waiting {
    name: String,
    faces: Vec<NewFace>,
}

impl Waiting {
    fn enrol(&mut self, gallery: &mut Gallery, summary: &mut Summary) -> Result<()> {
        if self.faces.is_empty() {
            return Ok(());
        }
        let Enrolled { added, again, doubts } = gallery.enrol(&self.name, &self.faces)?;
        self.faces.clear();
        summary.people += 1;
        summary.enrolled.added += added;
        summary.enrolled.again.extend(again);
        summary.enrolled.doubts.extend(doubts);
        Ok(())
    }
}

impl Summary {
    /// Prints what was enrolled, and warns of what is doubtful.
    pub fn report(&self, context: &Context, gallery: &Gallery, json: bool) -> anyhow::Result<()> {
        let Enrolled { added, again, doubts } = &self.enrolled;
        for Doubt { path, person, distance, is_same_picture } in doubts.iter().take(SHOWN) {
            context.say.warn(&match is_same_picture {
                true => format!("{path}: the same face is enrolled as {person}, too"),
                false => format!("{path}: looks like {person} (distance {distance:.3})"),
            });
        }
        if doubts.len() > SHOWN {
            context.say.warn(&format!(
                "{} more look like somebody else, too; --json lists them all",
                count(doubts.len() - SHOWN, "face")
            ));
        }
        if let Some(first) = again.first() {
            let more = if again.len() > 1 { ", ..." } else { "" };
            let faces = count(again.len(), "face");
            context.say.line(&format!("note: enrolled before: {faces} ({first}{more})"));
        }
        if json {
            let object = gallery.enrolled_json(self.people, &self.enrolled, &self.left_out);
            return Ok(line(&object.to_string())?);
        }
        line(&format!(
            "enrolled {} of {}; {} now holds {} of {}",
            count(*added, "face"),
            people(self.people),
            gallery.path().display(),
            count(gallery.faces(), "face"),
            people(gallery.people())
        ))?;
        if let Some(threshold) = gallery.threshold() {
            line(&threshold.to_string())?;
        }
        Ok(())
    }
}
