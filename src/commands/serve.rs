//! `visage serve`.

use std::process::ExitCode;
use std::time::Duration;

use super::context::Context;
use super::gallery_trunk::{load_trunk, set_up};
use super::output::line;
use super::verify::Rule;
use super::{detection, gallery_trunk};
use crate::cli;
use crate::detect::Detector;
use crate::gallery::{Gallery, GalleryTrunk};
use crate::recognise::Viewer;
use crate::serve::keys::KeyFile;
use crate::serve::{self, LogOutput, Model, Options};

pub fn run(context: &Context, flags: &cli::Serve) -> anyhow::Result<ExitCode> {
    if let (Some(role), Some(path)) = (flags.new_key, &flags.key_file) {
        line(&KeyFile::add(path, role)?)?;
        context
            .say
            .line(&format!("added to {} as {role}; the key is not shown again", path.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options {
        host: flags.host,
        port: flags.port,
        key_file: flags.key_file.clone(),
        tls: flags.tls_cert.clone().zip(flags.tls_key.clone()),
        queue: flags.queue.into(),
        batch: flags.batch.into(),
        deadline: Duration::from_secs(flags.deadline.into()),
        max_upload: usize::from(flags.max_upload) * 1_000_000,
        thumbnails: flags.thumbnails,
    };
    let log = LogOutput { format: flags.log, out: Box::new(std::io::stdout()) };
    serve::run(options, Some(log), &context.say, || load(context, flags))?;
    Ok(ExitCode::SUCCESS)
}

/// The gallery with its trunk, and what finds the faces for it.
fn load(context: &Context, flags: &cli::Serve) -> anyhow::Result<Model> {
    let mut gallery = Gallery::open(&flags.faces.db.db)?;
    let (device, detect) = (context.device()?, flags.faces.face.detect);
    let options = detection::options(&flags.faces.detector)?;
    let (loaded, source) = load_trunk(context, &gallery, &flags.faces.trunk)?;
    let Rule { threshold, probability } = Rule::of(&loaded)?;
    let name = loaded.name();
    let viewer = Viewer::new(&loaded.card(), detect, options, device)?;
    let main = loaded.viewer(context, detect, None)?;
    let detector = Detector::new(device, options)?;
    let backbone = loaded.into_trunk()?.backbone;
    let trunk = GalleryTrunk::of(&backbone, source)?;
    let parts = gallery_trunk::Embedding { backbone, viewer, trunk };
    set_up(context, &mut gallery, &flags.threshold, &parts)?;
    let gallery_trunk::Embedding { backbone, viewer, trunk } = parts;
    let model =
        Model { gallery, backbone, trunk, viewer, main, detector, threshold, probability, name };
    Ok(model)
}
