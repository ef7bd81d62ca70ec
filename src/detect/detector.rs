//! The cascade: P-Net proposes boxes on every pyramid level, R-Net refines them, O-Net decides and
//! finds landmarks.

use image::RgbImage;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::boxes::{Candidate, Overlap, Region, region, square, suppress};
use super::nets::{Nets, ONet, PNet, RNet};
use super::options::DetectOptions;
use super::pyramid::{Level, Strip, batches, levels};
use super::resample::area;
use crate::Result;
use crate::weights::manifest;

/// Batch size of R-Net and O-Net.
const BATCH: usize = 128;
/// Rows that a thread resamples at a time.
const BAND: usize = 16;
/// NMS thresholds: within a pyramid level, within a picture after P-Net and R-Net, and of the smaller
/// box after O-Net.
const WITHIN_LEVEL: f32 = 0.5;
const WITHIN_PICTURE: f32 = 0.7;
const AT_LAST: f32 = 0.7;

/// A detected face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Face {
    /// Left, top, right and bottom edge in pixels; may lie slightly outside the picture.
    pub bounds: [f32; 4],
    /// Face probability of O-Net, in [0, 1].
    pub probability: f32,
    /// Left eye, right eye, nose, left and right mouth corner, as seen on the picture: (x, y) in
    /// pixels.
    pub landmarks: [[f32; 2]; 5],
}

impl Face {
    /// Distance of its centre from the centre of a picture of that width and height, in pixels.
    pub fn off_centre(&self, (width, height): (u32, u32)) -> f32 {
        let [x1, y1, x2, y2] = self.bounds;
        let middle = [width, height].map(|side| side as f32 / 2.0);
        ((x1 + x2) / 2.0 - middle[0]).hypot((y1 + y2) / 2.0 - middle[1])
    }

    /// How likely it is the one that a picture of that width and height was taken of: the area of its
    /// box less twice the squared distance from the centre, facenet-pytorch's `center_weighted_size`.
    pub fn prominence(&self, size: (u32, u32)) -> f32 {
        let (wide, high) = self.size();
        let off = self.off_centre(size);
        wide * high - 2.0 * off * off
    }

    /// Width and height of the box in pixels.
    pub fn size(&self) -> (f32, f32) {
        let [x1, y1, x2, y2] = self.bounds;
        (x2 - x1, y2 - y1)
    }

    fn area(&self) -> f32 {
        let (width, height) = self.size();
        width * height
    }
}

/// Minimum ratio of a box's longer side to that of the largest face for [`similar_faces`].
const RIVAL: f32 = 0.7;

/// The number of faces of about the size of the largest, including it.
pub fn similar_faces(faces: &[Face]) -> usize {
    let side = |face: &Face| face.size().0.max(face.size().1);
    let largest = faces.iter().map(side).fold(0.0, f32::max);
    faces.iter().filter(|face| side(face) >= RIVAL * largest).count()
}

/// The MTCNN detector.
#[derive(Debug)]
pub struct Detector {
    nets: Nets,
    device: Device,
    options: DetectOptions,
}

impl Detector {
    /// A detector with the embedded weights, on `device`.
    ///
    /// # Errors
    /// The options are invalid, or the embedded weights do not fit.
    pub fn new(device: Device, options: DetectOptions) -> Result<Self> {
        options.validate()?;
        let nets = Nets::load(device, manifest::tool("mtcnn")?)?;
        Ok(Self { nets, device, options })
    }

    /// The faces of every picture, largest first. Pictures may differ in size.
    ///
    /// The result for a picture does not depend on the others in the batch. Takes about 100 MB besides
    /// the pictures, whatever their size.
    ///
    /// # Errors
    /// An error from libtorch, such as lack of memory.
    pub fn detect(&self, pictures: &[&RgbImage]) -> Result<Vec<Vec<Face>>> {
        tch::no_grad(|| {
            let proposed = self.propose(pictures)?;
            let refined = self.refine(pictures, proposed)?;
            self.decide(pictures, refined)
        })
    }

    /// First stage: candidate boxes, squares.
    fn propose(&self, pictures: &[&RgbImage]) -> Result<Vec<Vec<[f32; 4]>>> {
        let pyramid = |picture: &&RgbImage| {
            let (width, height) = picture.dimensions();
            let min_face = self.options.min_face.pixels(width, height);
            levels(width, height, min_face, self.options.factor)
        };
        let pyramids: Vec<Vec<Level>> = pictures.iter().map(pyramid).collect();
        let mut found: Vec<Vec<Vec<Candidate>>> =
            pyramids.iter().map(|levels| vec![Vec::new(); levels.len()]).collect();
        for batch in batches(&pyramids) {
            self.scan(pictures, &pyramids, &batch, &mut found)?;
        }
        let reduce = |levels: Vec<Vec<Candidate>>| {
            let mut all = Vec::new();
            for mut level in levels {
                // Strips come in any order; equally probable candidates are sorted by row.
                level.sort_by(|a, b| a.edges[1].total_cmp(&b.edges[1]));
                let kept = suppress(&level, WITHIN_LEVEL, Overlap::Union);
                all.extend(kept.into_iter().map(|index| level[index]));
            }
            let kept = suppress(&all, WITHIN_PICTURE, Overlap::Union);
            kept.into_iter().map(|index| square(all[index].regressed(0.0))).collect()
        };
        Ok(found.into_par_iter().map(reduce).collect())
    }

    /// Runs P-Net on strips of one size and adds its candidates to `found`, by picture and level.
    fn scan(
        &self,
        pictures: &[&RgbImage],
        pyramids: &[Vec<Level>],
        batch: &[Strip],
        found: &mut [Vec<Vec<Candidate>>],
    ) -> Result<()> {
        let Some(first) = batch.first() else { return Ok(()) };
        let (width, height) = (pyramids[first.picture][first.level].width, first.rows.len());
        let mut pixels = vec![0.0; batch.len() * width * height * 3];
        let bands = pixels.chunks_mut(height * width * 3).zip(batch).flat_map(|(pixels, strip)| {
            pixels.chunks_mut(BAND * width * 3).enumerate().map(move |(band, out)| {
                let start = strip.rows.start + band * BAND;
                (strip, start..start + out.len() / (width * 3), out)
            })
        });
        bands.collect::<Vec<_>>().into_par_iter().for_each(|(strip, rows, out)| {
            let picture = pictures[strip.picture];
            let level = pyramids[strip.picture][strip.level];
            area(picture, whole(picture), (level.width, level.height), rows, out);
        });
        let input = self.input(&pixels, [batch.len(), height, width])?;
        let (faces, shifts) = self.nets.pnet.forward(&input);
        let [_, rows, columns] = faces.size()[..] else { return Ok(()) };
        let (rows, columns) = (rows as usize, columns as usize);
        let (faces, shifts) = (values(&faces)?, values(&shifts)?);
        let places = rows * columns;
        for (index, strip) in batch.iter().enumerate() {
            let scale = pyramids[strip.picture][strip.level].scale as f32;
            let scores = &faces[index * places..(index + 1) * places];
            let shifts = &shifts[index * 4 * places..(index + 1) * 4 * places];
            for (place, &score) in scores.iter().enumerate() {
                if score < self.options.thresholds[0] {
                    continue;
                }
                let (x, y) = (place % columns, place / columns + strip.first);
                let near = |at: usize| ((at * PNet::STRIDE + 1) as f32 / scale).floor();
                let far = |at: usize| ((at * PNet::STRIDE + PNet::WINDOW) as f32 / scale).floor();
                found[strip.picture][strip.level].push(Candidate {
                    edges: [near(x), near(y), far(x), far(y)],
                    score,
                    shift: [0, 1, 2, 3].map(|edge| shifts[edge * places + place]),
                });
            }
        }
        Ok(())
    }

    /// Second stage.
    fn refine(
        &self,
        pictures: &[&RgbImage],
        proposed: Vec<Vec<[f32; 4]>>,
    ) -> Result<Vec<Vec<[f32; 4]>>> {
        let crops = Crops::of(pictures, proposed);
        let mut found = vec![Vec::new(); pictures.len()];
        for batch in crops.0.chunks(BATCH) {
            let input = self.crops(pictures, batch, RNet::SIDE)?;
            let (faces, shifts) = self.nets.rnet.forward(&input);
            let (faces, shifts) = (values(&faces)?, values(&shifts)?);
            for ((crop, &score), shift) in batch.iter().zip(&faces).zip(shifts.as_chunks::<4>().0) {
                if score > self.options.thresholds[1] {
                    found[crop.picture].push(Candidate { edges: crop.edges, score, shift: *shift });
                }
            }
        }
        let reduce = |found: Vec<Candidate>| {
            let kept = suppress(&found, WITHIN_PICTURE, Overlap::Union);
            kept.into_iter().map(|index| square(found[index].regressed(1.0))).collect()
        };
        Ok(found.into_iter().map(reduce).collect())
    }

    /// Third stage.
    fn decide(
        &self,
        pictures: &[&RgbImage],
        refined: Vec<Vec<[f32; 4]>>,
    ) -> Result<Vec<Vec<Face>>> {
        let crops = Crops::of(pictures, refined);
        let mut found = vec![Vec::new(); pictures.len()];
        for batch in crops.0.chunks(BATCH) {
            let input = self.crops(pictures, batch, ONet::SIDE)?;
            let (faces, shifts, points) = self.nets.onet.forward(&input);
            let (faces, shifts, points) = (values(&faces)?, values(&shifts)?, values(&points)?);
            let places = shifts.as_chunks::<4>().0.iter().zip(points.as_chunks::<10>().0);
            for ((crop, &score), (shift, points)) in batch.iter().zip(&faces).zip(places) {
                if score > self.options.thresholds[2] {
                    let candidate = Candidate { edges: crop.edges, score, shift: *shift };
                    found[crop.picture].push((candidate, *points));
                }
            }
        }
        Ok(found.into_iter().map(finish).collect())
    }

    /// Crops resampled to `side` x `side`, as a batch.
    fn crops(&self, pictures: &[&RgbImage], batch: &[Cut], side: usize) -> Result<Tensor> {
        let mut pixels = vec![0.0; batch.len() * side * side * 3];
        pixels.par_chunks_mut(side * side * 3).zip(batch).for_each(|(out, cut)| {
            area(pictures[cut.picture], cut.region, (side, side), 0..side, out);
        });
        self.input(&pixels, [batch.len(), side, side])
    }

    /// `[N, H, W, 3]` to `[N, 3, H, W]` in the channels_last format.
    fn input(&self, pixels: &[f32], [count, height, width]: [usize; 3]) -> Result<Tensor> {
        let shape = [count as i64, height as i64, width as i64, 3];
        let tensor = Tensor::f_from_slice(pixels)?.f_view(shape)?.f_to_device(self.device)?;
        Ok(tensor.f_permute([0, 3, 1, 2])?)
    }
}

/// The pixels of a candidate.
struct Cut {
    picture: usize,
    edges: [f32; 4],
    region: Region,
}

/// The candidates of all pictures, without those outside their picture.
struct Crops(Vec<Cut>);

impl Crops {
    fn of(pictures: &[&RgbImage], boxes: Vec<Vec<[f32; 4]>>) -> Self {
        let mut cuts = Vec::new();
        for (index, (picture, boxes)) in pictures.iter().zip(boxes).enumerate() {
            let (width, height) = (picture.width() as usize, picture.height() as usize);
            cuts.extend(boxes.into_iter().filter_map(|edges| {
                let region = region(edges, width, height)?;
                Some(Cut { picture: index, edges, region })
            }));
        }
        Self(cuts)
    }
}

fn whole(picture: &RgbImage) -> Region {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    Region { left: 0, top: 0, width, height }
}

/// The values of a tensor in row-major order.
fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    let flat = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    Ok(Vec::try_from(flat.f_view([-1])?)?)
}

/// The last suppression; faces with landmarks, largest first.
fn finish(found: Vec<(Candidate, [f32; 10])>) -> Vec<Face> {
    let moved = |(candidate, _): &(Candidate, _)| Candidate {
        edges: candidate.regressed(1.0),
        ..*candidate
    };
    let boxes: Vec<Candidate> = found.iter().map(moved).collect();
    let face = |index: usize| {
        let (Candidate { edges: [x1, y1, x2, y2], .. }, points) = found[index];
        let (width, height) = (x2 - x1 + 1.0, y2 - y1 + 1.0);
        let place = |k: usize| [width * points[k] + x1 - 1.0, height * points[k + 5] + y1 - 1.0];
        Face {
            bounds: boxes[index].edges,
            probability: boxes[index].score,
            landmarks: [0, 1, 2, 3, 4].map(place),
        }
    };
    let mut faces: Vec<Face> =
        suppress(&boxes, AT_LAST, Overlap::Smaller).into_iter().map(face).collect();
    faces.sort_by(|a, b| b.area().total_cmp(&a.area()));
    faces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rivals_are_of_like_size() {
        let face = |side: f32| Face {
            bounds: [10.0, 10.0, 10.0 + side, 10.0 + side],
            probability: 1.0,
            landmarks: [[0.0; 2]; 5],
        };
        assert_eq!(similar_faces(&[face(62.0), face(60.0), face(20.0)]), 2);
        assert_eq!(similar_faces(&[face(60.0), face(20.0)]), 1);
        assert_eq!(similar_faces(&[]), 0);
    }
}
