//! Caches the output of the frozen stages for each picture: computed on first use, then read.
//!
//! In memory where all of it fits (the device's own, or the host's where that is full), else in a file
//! without a name (the system deletes it with the run), else not at all.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};

use crate::data::augment::mirror;
use crate::data::store::{PictureStore, scaled};
use crate::models::{Backbone, Mode};
use crate::native::cuda;
use crate::{Error, Result};

/// Memory and disk limits of the cache.
#[derive(Debug, Clone)]
pub struct CacheLimits {
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of disk.
    pub disk: u64,
    /// The folder of the file.
    pub folder: PathBuf,
}

/// One picture to look up: its row in the [`PictureStore`], and whether it is flipped.
pub type View = (usize, bool);

/// The cached input of the first trainable stage.
#[derive(Debug)]
pub struct MapCache<'a> {
    backbone: &'a Backbone,
    faces: &'a PictureStore,
    /// Flipped pictures are cached, too.
    mirrors: bool,
    limits: CacheLimits,
    /// Stages below the maps; 0 where nothing is cached.
    end: usize,
    /// Frozen stages when [`refresh`](Self::refresh) last looked.
    frozen: usize,
    /// The shape of one picture's map.
    shape: Vec<i64>,
    filled: Vec<bool>,
    store: Store,
    waited: Duration,
}

#[derive(Debug)]
enum Store {
    Nothing,
    Memory(Tensor),
    Disk(File),
}

impl<'a> MapCache<'a> {
    /// An empty cache over `faces`, and their mirror images if `mirrors`;
    /// [`refresh`](Self::refresh) makes it useful.
    pub fn new(
        backbone: &'a Backbone,
        faces: &'a PictureStore,
        mirrors: bool,
        limits: CacheLimits,
    ) -> Self {
        let (end, frozen, shape, filled) = (0, 0, Vec::new(), Vec::new());
        let (store, waited) = (Store::Nothing, Duration::ZERO);
        Self { backbone, faces, mirrors, limits, end, frozen, shape, filled, store, waited }
    }

    /// The number of stages already applied to [`maps`](Self::maps); 0 if nothing is cached.
    pub fn end(&self) -> usize {
        self.end
    }

    /// Time spent waiting for pictures since the last call.
    pub fn take_wait(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    /// Updates the cache for the stages that are frozen now, and drops other entries. Returns a note if
    /// anything changed.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn refresh(&mut self) -> Result<Option<String>> {
        let frozen = self.backbone.frozen_stages();
        if frozen == self.frozen {
            return Ok(None);
        }
        (self.frozen, self.end, self.store) = (frozen, 0, Store::Nothing);
        if frozen == 0 || self.faces.is_empty() {
            return Ok(None);
        }
        let device = self.backbone.device();
        let side = i64::from(self.faces.side());
        let blank = Tensor::zeros([1, 3, side, side], (Kind::Float, device));
        self.shape = self.backbone.maps(&blank, frozen, Mode::EVAL).size();
        let rows = self.faces.len() * if self.mirrors { 2 } else { 1 };
        let bytes = 4 * rows as u64 * self.shape.iter().product::<i64>() as u64;
        let (mb, limits) = (bytes.div_ceil(1 << 20), &self.limits);
        let mut all = self.shape.clone();
        all[0] = rows as i64;
        let all = if bytes <= limits.memory { memory(&all, device)? } else { None };
        let place = if let Some(all) = all {
            let place = match all.device() {
                Device::Cuda(_) => "in the GPU's memory",
                _ => "in memory",
            };
            self.store = Store::Memory(all);
            place
        } else if bytes <= limits.disk {
            match tempfile::tempfile_in(&limits.folder) {
                Ok(file) => self.store = Store::Disk(file),
                Err(source) => return Err(Error::io(&limits.folder, source)),
            }
            "on disk"
        } else {
            return Ok(Some(format!(
                "the output of the {frozen} frozen stages, up to {mb} MB, is recomputed each time \
                 (--cache-memory and --cache-disk allow less)"
            )));
        };
        (self.end, self.filled) = (frozen, vec![false; rows]);
        Ok(Some(format!(
            "the output of the {frozen} frozen stages is computed once and kept {place}, up to {mb} MB"
        )))
    }

    /// Returns the maps of `views` in their order, on the backbone's device. Shape: f32 `[B, ...]`.
    ///
    /// # Errors
    /// The disk is full, nothing is cached, or an error from libtorch.
    pub fn maps(&mut self, views: &[View]) -> Result<Tensor> {
        let count = self.faces.len();
        let row = |&(picture, mirrored): &View| picture + if mirrored { count } else { 0 };
        let is_filled = |view: &View| self.filled.get(row(view)).copied();
        if views.iter().any(|view| is_filled(view).is_none()) {
            return Err(Error::Config("a picture that the map cache has no row for".into()));
        }
        let mut missing: Vec<View> =
            views.iter().filter(|view| is_filled(view) == Some(false)).copied().collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            let pictures: Vec<usize> = missing.iter().map(|(picture, _)| *picture).collect();
            let since = Instant::now();
            let bytes = self.faces.upload(&pictures, self.backbone.device())?;
            self.waited += since.elapsed();
            let upright = scaled(bytes)?;
            let mirrored: Vec<bool> = missing.iter().map(|(_, mirrored)| *mirrored).collect();
            let made = self.backbone.maps(&mirror(&upright, &mirrored)?, self.end, Mode::EVAL);
            let rows: Vec<usize> = missing.iter().map(row).collect();
            self.put(&rows, &made.to_kind(Kind::Float))?;
            rows.into_iter().for_each(|row| self.filled[row] = true);
        }
        self.get(&views.iter().map(row).collect::<Vec<_>>())
    }

    fn put(&mut self, rows: &[usize], maps: &Tensor) -> Result<()> {
        match &mut self.store {
            Store::Nothing => {}
            Store::Memory(all) => {
                let (rows, maps) = (indices(rows, all.device())?, maps.f_to_device(all.device())?);
                let _ = tch::no_grad(|| all.f_index_copy_(0, &rows, &maps))?;
            }
            Store::Disk(file) => {
                let maps = maps.to_device(Device::Cpu).contiguous();
                let each = maps.numel() / rows.len().max(1);
                let mut values = vec![0f32; each];
                for (at, &row) in rows.iter().enumerate() {
                    maps.get(at as i64).f_copy_data(&mut values, each)?;
                    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                    file.seek(SeekFrom::Start((row * each * 4) as u64))
                        .and_then(|_| file.write_all(&bytes))
                        .map_err(|source| Error::io(&self.limits.folder, source))?;
                }
            }
        }
        Ok(())
    }

    fn get(&mut self, rows: &[usize]) -> Result<Tensor> {
        let mut shape = self.shape.clone();
        shape[0] = rows.len() as i64;
        match &mut self.store {
            Store::Nothing => Err(Error::Config("no frozen stage is cached".into())),
            Store::Memory(all) => {
                let maps = all.f_index_select(0, &indices(rows, all.device())?)?;
                cuda::upload(&maps, self.backbone.device())
            }
            Store::Disk(file) => {
                let each = self.shape.iter().product::<i64>() as usize;
                let mut bytes = vec![0u8; each * 4];
                let mut values = Vec::with_capacity(rows.len() * each);
                for &row in rows {
                    file.seek(SeekFrom::Start((row * each * 4) as u64))
                        .and_then(|_| file.read_exact(&mut bytes))
                        .map_err(|source| Error::io(&self.limits.folder, source))?;
                    let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                    values.extend(bytes.chunks_exact(4).map(number));
                }
                let maps = Tensor::f_from_slice(&values)?.f_view(shape.as_slice())?;
                cuda::upload(&maps, self.backbone.device())
            }
        }
    }
}

fn indices(rows: &[usize], device: Device) -> Result<Tensor> {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    cuda::upload_slice(&rows, device)
}

/// Memory for all maps on `device`, or on the host where the device has not enough of it; none where
/// there is none in either place.
fn memory(shape: &[i64], device: Device) -> Result<Option<Tensor>> {
    let places = [Some(device), device.is_cuda().then_some(Device::Cpu)];
    for place in places.into_iter().flatten() {
        match Tensor::f_empty(shape, (Kind::Float, place)) {
            Ok(all) => return Ok(Some(all)),
            Err(error) if cuda::is_out_of_memory(&error.to_string()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::folder::FaceFolder;
    use crate::models::Architecture;

    /// Six grey ramps, each turned another way.
    fn faces(root: &std::path::Path) -> PictureStore {
        for number in 0..6u32 {
            let folder = root.join(if number < 3 { "ann" } else { "bob" });
            std::fs::create_dir_all(&folder).unwrap();
            let pixel =
                |x: u32, y: u32| image::Rgb([(x * (number + 1) * 2 + y) as u8, 90, y as u8]);
            let picture = image::RgbImage::from_fn(40, 40, pixel);
            picture.save(folder.join(format!("{number}.png"))).unwrap();
        }
        FaceFolder::open(root, true, 32, &|_, _| {}).unwrap().fitted
    }

    fn apart(a: &Tensor, b: &Tensor) -> f64 {
        f64::try_from((a - b).abs().max()).unwrap()
    }

    #[test]
    fn kept_maps_are_the_computed_ones_in_memory_and_on_disk() {
        let root = tempfile::tempdir().unwrap();
        let faces = faces(root.path());
        tch::manual_seed(3);
        let trunk = Backbone::new(Architecture::Vgg11, Device::Cpu);
        trunk.params.freeze(&["features.0".into(), "features.3".into()]).unwrap();
        for (memory, disk, word) in
            [(1 << 20, 0, "in memory"), (0, 1 << 20, "on disk"), (0, 0, "recomputed")]
        {
            let limits = CacheLimits { memory, disk, folder: root.path().to_owned() };
            let mut cache = MapCache::new(&trunk, &faces, true, limits);
            assert!(cache.refresh().unwrap().unwrap().contains(word));
            assert_eq!(cache.refresh().unwrap(), None, "{word}: said once");
            if word == "recomputed" {
                assert_eq!(cache.end(), 0);
                assert!(cache.maps(&[(0, false)]).is_err());
                continue;
            }
            assert_eq!(cache.end(), 2);
            let views = [(4, false), (1, true), (4, false), (1, false)];
            let first = cache.maps(&views).unwrap();
            let again = cache.maps(&views).unwrap();
            assert!(again.equal(&first), "{word}");
            assert_eq!(cache.filled.iter().filter(|filled| **filled).count(), 3, "{word}");
            let upright = faces.batch(&[4, 1, 4, 1], Device::Cpu).unwrap();
            let shown = mirror(&upright, &[false, true, false, false]).unwrap();
            let whole = trunk.embed(&shown, Mode::EVAL);
            let from_maps = trunk.embed_from(2, &first, Mode::EVAL);
            assert!(apart(&whole, &from_maps) < 1e-6, "{word}");
            assert!(apart(&first.get(1), &first.get(3)) > 1e-3, "{word}: mirrored like upright");
            assert!(cache.maps(&[(6, true)]).is_err());
        }
    }

    #[test]
    fn other_frozen_stages_start_afresh() {
        let root = tempfile::tempdir().unwrap();
        let faces = faces(root.path());
        let trunk = Backbone::new(Architecture::Vgg11, Device::Cpu);
        let limits = CacheLimits { memory: 1 << 20, disk: 0, folder: root.path().to_owned() };
        let mut cache = MapCache::new(&trunk, &faces, false, limits);
        assert_eq!((cache.refresh().unwrap(), cache.end()), (None, 0));
        trunk.params.freeze(&["features.0".into()]).unwrap();
        assert!(cache.refresh().unwrap().is_some());
        let narrow = cache.maps(&[(0, false)]).unwrap().size();
        trunk.params.freeze(&["features.3".into(), "features.6".into()]).unwrap();
        assert!(cache.refresh().unwrap().is_some());
        assert_eq!(cache.end(), 3);
        assert_ne!(cache.maps(&[(0, false)]).unwrap().size(), narrow);
        assert!(cache.maps(&[(0, true)]).is_err(), "a mirror image nobody announced");
    }
}
