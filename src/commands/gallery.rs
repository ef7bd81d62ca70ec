//! `visage gallery`: people in a file.

use std::process::ExitCode;

use serde_json::json;

use super::context::Context;
use super::gallery_trunk::{self, Embedding};
use super::inputs::{self, embed};
use super::output::{count, line};
use super::replies::Printer;
use super::{gallery_enroll, gallery_transfer};
use crate::cli::{
    GalleryAction, GalleryForget, GalleryIdentify, GalleryList, GalleryReject, GalleryShow,
};
use crate::files;
use crate::gallery::Gallery;
use crate::recognise::reply::{AnswerFormat, Reply, answer};
use crate::words::{enumerate, people};

pub fn run(context: &Context, action: &GalleryAction) -> anyhow::Result<ExitCode> {
    let say = |text: String| -> anyhow::Result<ExitCode> {
        line(&text)?;
        Ok(ExitCode::SUCCESS)
    };
    match action {
        GalleryAction::Enroll(flags) => gallery_enroll::run(context, flags),
        GalleryAction::Identify(flags) => identify(context, flags),
        GalleryAction::List(flags) => list(flags),
        GalleryAction::Show(flags) => show(flags),
        GalleryAction::Rename(flags) => {
            Gallery::open_existing(&flags.db.db)?.rename(&flags.name, &flags.new)?;
            say(format!("renamed {} to {}", flags.name, flags.new))
        }
        GalleryAction::Merge(flags) => {
            let faces = Gallery::open_existing(&flags.db.db)?.merge(&flags.from, &flags.into)?;
            say(format!("{} of {} now belong to {}", count(faces, "face"), flags.from, flags.into))
        }
        GalleryAction::Forget(flags) => forget(context, flags),
        GalleryAction::Reject(flags) => reject(context, flags),
        GalleryAction::Cluster(flags) => {
            let (before, after) = Gallery::open_existing(&flags.db)?.cluster()?;
            say(format!("unknown people: {after}, before {before}"))
        }
        GalleryAction::Promote(flags) => {
            let mut gallery = Gallery::open_existing(&flags.db.db)?;
            let faces = gallery.promote(flags.group, &flags.name)?.added;
            say(format!(
                "unknown {} is now {}: {} enrolled",
                flags.group,
                flags.name,
                count(faces, "face")
            ))
        }
        GalleryAction::Export(flags) => gallery_transfer::export(flags),
        GalleryAction::Import(flags) => gallery_transfer::import(context, flags),
        GalleryAction::Check(flags) => {
            let gallery = Gallery::open_existing(&flags.db)?;
            let problems = gallery.check()?;
            for problem in &problems {
                context.say.error(&format!("{}: {problem}", flags.db.display()));
            }
            if problems.is_empty() {
                let faces = count(gallery.faces(), "face");
                line(&format!("sound: {faces} of {}", people(gallery.people())))?;
            }
            Ok(ExitCode::from(u8::from(!problems.is_empty())))
        }
    }
}

fn identify(context: &Context, flags: &GalleryIdentify) -> anyhow::Result<ExitCode> {
    let (mut gallery, Embedding { backbone, mut viewer, .. }) =
        gallery_trunk::open(context, &flags.faces)?;
    viewer.keeps_pictures = flags.draw.is_some();
    let (files, failed) = inputs::collect(&flags.inputs, &context.say);
    let (draw, inputs) = (flags.draw.as_deref(), &flags.inputs);
    let mut printer = Printer::new(context, flags.json, draw, inputs, &files, failed)?;
    embed(&backbone, &viewer, &files, &context.say, |path, seen| {
        let (view, rows) = match seen {
            Ok(seen) => seen,
            Err(error) => {
                printer.fail(&error);
                return Ok(());
            }
        };
        let mut faces = answer(&gallery, &view, &rows)?;
        if flags.remember_strangers {
            let sha256 = || gallery_trunk::sha256(path);
            gallery.remember_strangers(path, sha256, &view, &rows, &mut faces)?;
        }
        let (top, model) = (usize::from(flags.top), flags.faces.db.db.as_path());
        let format =
            AnswerFormat { identifier: &gallery, top, model, shows_reasons: flags.reasons };
        let reply = Reply { path, size: view.size, is_crop: view.is_crop, faces };
        printer.print(&format, &reply, view.picture.as_ref())
    })?;
    Ok(ExitCode::from(u8::from(printer.failed > 0)))
}

fn list(flags: &GalleryList) -> anyhow::Result<ExitCode> {
    let gallery = Gallery::open_existing(&flags.db.db)?;
    if flags.unknown {
        let groups = gallery.unknown()?;
        if flags.json {
            line(&json!({ "unknown": groups }).to_string())?;
            return Ok(ExitCode::SUCCESS);
        }
        for group in &groups {
            let (pictures, paths) = (count(group.faces, "picture"), &group.paths);
            let paths = enumerate(&paths.iter().map(String::as_str).collect::<Vec<_>>());
            let (id, first, last) = (group.id, &group.first_seen, &group.last_seen);
            line(&format!("unknown {id}: {pictures}, first seen {first}, last {last}: {paths}"))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if flags.json {
        line(&gallery.list_json()?.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let list = gallery.list()?;
    let (trunk, threshold) = (gallery.trunk(), gallery.threshold());
    let width = list.iter().map(|person| person.name.chars().count()).max().unwrap_or(0);
    for person in &list {
        let mut text = format!(
            "{:width$}  {}, enrolled {}",
            person.name,
            count(person.faces, "face"),
            person.added
        );
        if person.rejected > 0 {
            text += &format!(", {} rejected", person.rejected);
        }
        if !person.look_alikes.is_empty() {
            let names: Vec<&str> = person.look_alikes.keys().map(String::as_str).collect();
            text += &format!(", looks like {}", enumerate(&names));
        }
        line(&text)?;
    }
    let (faces, all) = (count(gallery.faces(), "face"), people(gallery.people()));
    line(&match trunk {
        Some(trunk) => format!("{all}, {faces}, embedded by {}", trunk.describe()),
        None => "nobody is enrolled".into(),
    })?;
    if let Some(threshold) = threshold {
        line(&threshold.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(flags: &GalleryShow) -> anyhow::Result<ExitCode> {
    let mut gallery = Gallery::open_existing(&flags.db.db)?;
    let (person, faces) = gallery.show(&flags.name)?;
    if let Some(folder) = &flags.thumbnails {
        for face in faces.iter().filter(|face| face.has_thumbnail) {
            if let Some(png) = gallery.thumbnail(face.id)? {
                let file = folder.join(format!("{}.png", face.id));
                files::write_atomically(&file, |out| std::io::Write::write_all(out, &png))?;
            }
        }
    }
    if flags.json {
        line(&json!({ "person": person, "faces": faces }).to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    line(&format!("{}: {}, enrolled {}", person.name, count(faces.len(), "face"), person.added))?;
    for (other, distance) in &person.look_alikes {
        line(&format!("looks like {other}: distance {distance:.3}"))?;
    }
    for face in &faces {
        let near = face.to_others.map(|distance| format!(", {distance:.3} from the nearest other"));
        let sharpness = face.sharpness.map(|value| format!(", sharpness {value:.0}"));
        let [x1, y1, x2, y2] = face.bounds;
        line(&format!(
            "{}: {:.0} x {:.0} pixels at {x1:.0},{y1:.0}{}{}",
            face.path,
            x2 - x1,
            y2 - y1,
            sharpness.unwrap_or_default(),
            near.unwrap_or_default()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn forget(context: &Context, flags: &GalleryForget) -> anyhow::Result<ExitCode> {
    let mut gallery = Gallery::open_existing(&flags.db.db)?;
    let mut failed = false;
    for name in &flags.names {
        match gallery.forget(name) {
            Ok(faces) => line(&format!("forgot {name}: {} deleted", count(faces, "face")))?,
            Err(error) => {
                context.say.error(&error.to_string());
                failed = true;
            }
        }
    }
    for &group in &flags.unknown {
        match gallery.forget_unknown(Some(group))? {
            0 => {
                context.say.error(&format!("--unknown {group}: no unknown person of that number"));
                failed = true;
            }
            _ => line(&format!("forgot unknown {group}"))?,
        }
    }
    if flags.all_unknown {
        let gone = gallery.forget_unknown(None)?;
        line(&format!("forgot {} unknown", people(gone)))?;
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn reject(context: &Context, flags: &GalleryReject) -> anyhow::Result<ExitCode> {
    let (mut gallery, parts) = gallery_trunk::open(context, &flags.faces)?;
    // Before minutes of embedding.
    gallery.show(&flags.name)?;
    let (files, mut failed) = inputs::collect(&flags.inputs, &context.say);
    let mut faces = Vec::new();
    gallery_trunk::single_faces(context, parts, &files, false, |_, found| {
        match found {
            Ok(face) => faces.push(face),
            Err(error) => {
                context.say.error(&error.to_string());
                failed += 1;
            }
        }
        Ok(())
    })?;
    gallery.reject(&flags.name, &faces)?;
    line(&format!("{}: {} rejected", flags.name, count(faces.len(), "face")))?;
    Ok(ExitCode::from(u8::from(failed > 0)))
}
