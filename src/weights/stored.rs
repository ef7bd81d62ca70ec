//! Tensors in a file: checked when it is opened, copied on demand.

use std::cell::Cell;
use std::ops::Range;

use tch::{Device, Kind, Tensor};

use crate::native::FileMap;

/// Bytes copied before the mapped pages are released.
const CHUNK: usize = 1 << 20;
/// Maximum number of elements of a view that repeats its storage (`expand`).
const MAX_REPEATED: i64 = 1 << 20;

/// The bytes of a file.
#[derive(Debug)]
pub(super) enum Bytes<'a> {
    Mapped(FileMap),
    Read(Vec<u8>),
    Borrowed(&'a [u8]),
}

impl Bytes<'_> {
    pub fn all(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map.bytes(),
            Self::Read(bytes) => bytes,
            Self::Borrowed(bytes) => bytes,
        }
    }

    fn release(&self, range: Range<usize>) {
        if let Self::Mapped(map) = self {
            map.release(range);
        }
    }
}

/// The bytes of one or more tensors.
#[derive(Debug)]
pub(super) struct Storage {
    pub name: String,
    pub data: Data,
    /// The checksum, verified on first use.
    pub crc: Cell<Option<u32>>,
}

#[derive(Debug)]
pub(super) enum Data {
    File(Range<usize>),
    Inflated(Vec<u8>),
}

impl Storage {
    pub fn len(&self) -> usize {
        match &self.data {
            Data::File(range) => range.len(),
            Data::Inflated(data) => data.len(),
        }
    }

    /// Passes `range` of the storage to `body` in chunks, with their offsets.
    fn walk(
        &self,
        bytes: &Bytes,
        range: Range<usize>,
        mut body: impl FnMut(usize, &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let gone = || format!("{}: its bytes are not in the file", self.name);
        let mut offset = 0;
        while offset < range.len() {
            let (start, end) = (range.start + offset, range.end.min(range.start + offset + CHUNK));
            match &self.data {
                Data::Inflated(data) => body(offset, data.get(start..end).ok_or_else(gone)?)?,
                Data::File(place) => {
                    let place = place.start + start..place.start + end;
                    body(offset, bytes.all().get(place.clone()).ok_or_else(gone)?)?;
                    bytes.release(place);
                }
            }
            offset += CHUNK;
        }
        Ok(())
    }

    /// Verifies the checksum, once.
    pub fn check(&self, bytes: &Bytes) -> Result<(), String> {
        let Some(expected) = self.crc.get() else { return Ok(()) };
        let mut sum = crc32fast::Hasher::new();
        self.walk(bytes, 0..self.len(), |_, chunk| {
            sum.update(chunk);
            Ok(())
        })?;
        if sum.finalize() != expected {
            let place = match &self.data {
                Data::File(range) => format!("bytes {} to {}", range.start, range.end),
                Data::Inflated(_) => "packed".into(),
            };
            return Err(format!("{} ({place}) is damaged: its checksum differs", self.name));
        }
        self.crc.set(None);
        Ok(())
    }
}

/// A named tensor of a file, whose values are read on demand.
#[derive(Debug, Clone)]
pub struct Entry {
    /// PyTorch's state-dict key.
    pub name: String,
    /// Sizes of the dimensions.
    pub shape: Vec<i64>,
    /// The dtype in the file.
    pub kind: Kind,
    pub(super) storage: usize,
    /// Byte offset in the storage.
    offset: usize,
    stride: Vec<i64>,
    /// Bytes from the first to the last element, inclusive.
    span: usize,
}

/// The layout of a tensor in its storage, in elements.
pub(super) struct Layout {
    pub kind: Kind,
    pub offset: i64,
    pub shape: Vec<i64>,
    /// `None` for contiguous.
    pub stride: Option<Vec<i64>>,
}

fn contiguous(shape: &[i64]) -> Vec<i64> {
    let mut stride = vec![1i64; shape.len()];
    for dim in (1..shape.len()).rev() {
        stride[dim - 1] = stride[dim].saturating_mul(shape[dim].max(1));
    }
    stride
}

impl Entry {
    /// Checks a tensor's layout against the size of its storage.
    pub(super) fn new(
        name: String,
        storage: usize,
        available: usize,
        layout: Layout,
    ) -> Result<Self, String> {
        let Layout { kind, offset, shape, stride } = layout;
        let stride = stride.unwrap_or_else(|| contiguous(&shape));
        let refuse = |why: &str| {
            Err(format!("{name}: {why} (shape {shape:?}, strides {stride:?}, offset {offset})"))
        };
        if shape.len() != stride.len() {
            return refuse("has not as many strides as dimensions");
        }
        if stride.iter().any(|&step| step < 0) {
            return refuse("has a negative stride, which no tensor has");
        }
        if offset < 0 || shape.iter().any(|&side| side < 0) {
            return refuse("has a negative size or offset");
        }
        let count = shape.iter().try_fold(1i64, |count, &side| count.checked_mul(side));
        let Some(count) = count else { return refuse("has an absurd shape") };
        // Index of the last element, relative to the first.
        let reach = shape.iter().zip(&stride).try_fold(0i64, |reach, (&side, &step)| {
            (side - 1).max(0).checked_mul(step).and_then(|far| reach.checked_add(far))
        });
        let size = kind.elt_size_in_bytes();
        let elements = i64::try_from(available / size).unwrap_or(i64::MAX);
        let span = if count == 0 { Some(0) } else { reach.and_then(|reach| reach.checked_add(1)) };
        let end = span.and_then(|span| span.checked_add(offset)).filter(|&end| end <= elements);
        let (Some(span), Some(_)) = (span, end) else {
            return refuse(&format!("reaches beyond the {available} bytes of its storage"));
        };
        if count > elements.max(MAX_REPEATED) {
            return refuse(&format!("repeats the {available} bytes of its storage too often"));
        }
        // At most `available`, so the products do not overflow.
        let (offset, span) = (offset as usize * size, span as usize * size);
        Ok(Self { name, shape, kind, storage, offset, stride, span })
    }

    /// The number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().map(|&side| side as usize).product()
    }

    /// Its size in memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.count() * self.kind.elt_size_in_bytes()
    }

    /// Whether it is contiguous in the file.
    fn is_contiguous(&self) -> bool {
        let plain = contiguous(&self.shape);
        let sides = self.shape.iter().zip(self.stride.iter().zip(&plain));
        self.count() == 0 || sides.into_iter().all(|(&side, (a, b))| side == 1 || a == b)
    }

    /// Passes the elements from the first to the last to `body`, in parts and with their place.
    pub(super) fn parts(
        &self,
        bytes: &Bytes,
        storage: &Storage,
        mut body: impl FnMut(i64, Tensor) -> Result<(), tch::TchError>,
    ) -> Result<(), String> {
        storage.check(bytes)?;
        let size = self.kind.elt_size_in_bytes();
        // CHUNK is a multiple of every element's size.
        storage.walk(bytes, self.offset..self.offset + self.span, |offset, chunk| {
            let part = elements(chunk, (chunk.len() / size) as i64, self.kind);
            let done = part.and_then(|part| body((offset / size) as i64, part));
            done.map_err(|error| format!("{}: {error}", self.name))
        })
    }

    /// Copies the bytes from the first to the last element into `flat`, converting its dtype.
    fn copy_span(&self, bytes: &Bytes, storage: &Storage, flat: &Tensor) -> Result<(), String> {
        self.parts(bytes, storage, |place, part| {
            flat.f_narrow(0, place, part.numel() as i64)?.f_copy_(&part)
        })
    }

    /// A contiguous copy of the tensor.
    pub(super) fn read(&self, bytes: &Bytes, storage: &Storage) -> Result<Tensor, String> {
        let fail = |error: tch::TchError| format!("{}: {error}", self.name);
        let count = (self.span / self.kind.elt_size_in_bytes()) as i64;
        let flat = Tensor::f_empty([count], (self.kind, Device::Cpu)).map_err(fail)?;
        self.copy_span(bytes, storage, &flat)?;
        if self.is_contiguous() {
            return flat.f_view(self.shape.as_slice()).map_err(fail);
        }
        let view = flat.f_as_strided(self.shape.as_slice(), self.stride.as_slice(), 0);
        view.and_then(|view| view.f_contiguous()).map_err(fail)
    }

    /// Copies the values into `to`, which has the same shape, without a second copy in memory.
    pub(super) fn copy_into(
        &self,
        bytes: &Bytes,
        storage: &Storage,
        to: &Tensor,
    ) -> Result<(), String> {
        if to.size() != self.shape {
            return Err(format!("{}: {:?} does not fit into {to:?}", self.name, self.shape));
        }
        tch::no_grad(|| {
            let to = to.detach();
            if self.is_contiguous() && to.is_contiguous() {
                self.copy_span(bytes, storage, &to.view([-1]))
            } else {
                let copied = to.shallow_clone().f_copy_(&self.read(bytes, storage)?);
                copied.map_err(|error| format!("{}: {error}", self.name))
            }
        })
    }
}

/// A contiguous copy of a tensor's bytes.
pub(crate) fn bytes_of(tensor: &Tensor) -> Result<Vec<u8>, tch::TchError> {
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let mut data = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut data, tensor.numel())?;
    Ok(data)
}

/// A tensor from raw bytes; a boolean is true for any byte but zero.
fn elements(bytes: &[u8], count: i64, kind: Kind) -> Result<Tensor, tch::TchError> {
    match kind {
        Kind::Bool => Tensor::f_from_data_size(bytes, &[count], Kind::Uint8)?.f_ne(0),
        kind => Tensor::f_from_data_size(bytes, &[count], kind),
    }
}
