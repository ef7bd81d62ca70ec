//! Processes that train together: libtorch's process group over gloo.

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::rc::Rc;
use std::time::Duration;

use tch::{Device, TchError, Tensor};

use super::{Message, TensorMut, TensorPtr, finish, pointers, raw};
use crate::{Error, Result};

unsafe extern "C" {
    fn visage_group_new(
        host: *const c_char,
        port: u16,
        rank: c_int,
        size: c_int,
        serves: c_int,
        prefix: *const c_char,
        interface: *const c_char,
        own: *const c_char,
        milliseconds: u64,
        out: *mut *mut c_void,
    ) -> Message;
    fn visage_group_free(group: *mut c_void);
    fn visage_group_sum(group: *mut c_void, tensor: TensorMut) -> Message;
    fn visage_group_sum_with_gradient(
        group: *mut c_void,
        tensor: TensorMut,
        out: *mut TensorMut,
    ) -> Message;
    fn visage_group_gather(group: *mut c_void, tensor: TensorMut, all: TensorMut) -> Message;
    fn visage_group_broadcast(group: *mut c_void, tensor: TensorMut) -> Message;
    fn visage_group_gradients(
        group: *mut c_void,
        parameters: *const TensorPtr,
        count: usize,
        most: i64,
        out: *mut *mut c_void,
    ) -> Message;
    fn visage_group_gradients_finish(sum: *mut c_void) -> Message;
    fn visage_group_gradients_free(sum: *mut c_void);
}

/// Values that are summed at once: small enough that the first are under way early in the backward pass.
const BUCKET: i64 = 1 << 20;

/// How the processes of a group find each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meeting {
    /// Where the store is that they meet at.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The number of this process, from 0.
    pub rank: usize,
    /// How many they are.
    pub size: usize,
    /// Whether this process keeps the store.
    pub serves: bool,
    /// What the store's keys begin with.
    pub prefix: String,
    /// The network interface; empty: the one of this machine's name.
    pub interface: String,
    /// How long to wait for another process.
    pub timeout: Duration,
}

thread_local! {
    static STATISTICS: RefCell<Option<Rc<SharedSums>>> = const { RefCell::new(None) };
}

/// Sums of batch statistics over a group.
#[derive(Debug)]
pub struct SharedSums {
    group: Rc<ProcessGroup>,
    failure: RefCell<Option<Error>>,
}

impl SharedSums {
    /// Those of this thread, while it [shares](SharedStatistics) its statistics.
    pub fn here() -> Option<Rc<Self>> {
        STATISTICS.with_borrow(Clone::clone)
    }

    /// The sum over all processes, with gradient. After a failure, which [`SharedStatistics::end`] returns,
    /// `own` itself.
    pub fn sum(&self, own: &Tensor) -> Tensor {
        let mut failure = self.failure.borrow_mut();
        if failure.is_none() {
            // By way of the host, where gloo sums.
            let host = own.to_device(Device::Cpu).contiguous();
            match self.group.sum_with_gradient(&host) {
                Ok(sum) => return sum.to_device(own.device()),
                Err(error) => *failure = Some(error),
            }
        }
        own.shallow_clone()
    }
}

/// While it lives, batch statistics on this thread are those of all processes of a group.
#[derive(Debug)]
pub struct SharedStatistics(Rc<SharedSums>);

impl SharedStatistics {
    /// Those of `group`.
    pub fn of(group: &Rc<ProcessGroup>) -> Self {
        let sums = Rc::new(SharedSums { group: group.clone(), failure: RefCell::default() });
        STATISTICS.set(Some(sums.clone()));
        Self(sums)
    }

    /// Ends the sharing.
    ///
    /// # Errors
    /// Another process has gone in the meantime.
    pub fn end(self) -> Result<()> {
        self.0.failure.take().map_or(Ok(()), Err)
    }
}

impl Drop for SharedStatistics {
    fn drop(&mut self) {
        STATISTICS.set(None);
    }
}

/// A group of processes; each must call the same functions in the same order.
#[derive(Debug)]
pub struct ProcessGroup {
    group: *mut c_void,
    size: usize,
}

impl ProcessGroup {
    /// Joins the group, once all are there.
    ///
    /// # Errors
    /// The store cannot be reached, or not all processes came in time.
    pub fn join(meeting: &Meeting) -> Result<Self> {
        let text = |text: &str| {
            let wrong = |_| Error::Config("a host or interface with a zero byte".into());
            CString::new(text).map_err(wrong)
        };
        let (host, prefix) = (text(&meeting.host)?, text(&meeting.prefix)?);
        let is_here = matches!(meeting.host.as_str(), "localhost" | "127.0.0.1" | "::1");
        let (interface, own) =
            (text(&meeting.interface)?, text(if is_here { &meeting.host } else { "" })?);
        let mut group = null_mut();
        // SAFETY: the strings live through the call, and `group` is written by it.
        finish(unsafe {
            visage_group_new(
                host.as_ptr(),
                meeting.port,
                meeting.rank as c_int,
                meeting.size as c_int,
                c_int::from(meeting.serves),
                prefix.as_ptr(),
                interface.as_ptr(),
                own.as_ptr(),
                meeting.timeout.as_millis() as u64,
                &mut group,
            )
        })?;
        Ok(Self { group, size: meeting.size })
    }

    /// Replaces a tensor by the sum of those of all processes, which have its shape.
    ///
    /// # Errors
    /// The tensor is not contiguous on the CPU, or another process has gone.
    pub fn sum(&self, tensor: &Tensor) -> Result<()> {
        check(tensor)?;
        // SAFETY: both are alive, and the tensor is what gloo takes.
        finish(unsafe { visage_group_sum(self.group, raw(tensor).cast_mut()) })
    }

    /// The sum of the tensors of all processes, which have one shape. Where each process computes a part of
    /// one loss from it, the gradient of its tensor is that of all parts; all must back-propagate.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    pub fn sum_with_gradient(&self, tensor: &Tensor) -> Result<Tensor> {
        check(tensor)?;
        let mut out = null_mut();
        // SAFETY: both are alive, and `out` is written with a tensor that is ours.
        finish(unsafe {
            visage_group_sum_with_gradient(self.group, raw(tensor).cast_mut(), &mut out)
        })?;
        // SAFETY: as above.
        Ok(unsafe { Tensor::from_ptr(out.cast()) })
    }

    /// The tensors of all processes, which have one shape, in the order of ranks: `[R, ...]`.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    pub fn gather(&self, tensor: &Tensor) -> Result<Tensor> {
        check(tensor)?;
        let size = self.size as i64;
        let length = size * tensor.numel() as i64;
        let all = Tensor::f_empty([length], (tensor.kind(), Device::Cpu))?;
        let flat = tensor.f_view([-1])?;
        // SAFETY: all are alive, and `all` has room for one tensor of each process.
        finish(unsafe {
            visage_group_gather(self.group, raw(&flat).cast_mut(), raw(&all).cast_mut())
        })?;
        let shape: Vec<i64> = std::iter::once(size).chain(tensor.size()).collect();
        Ok(all.f_view(shape.as_slice())?)
    }

    /// Replaces a tensor by that of rank 0.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    pub fn broadcast(&self, tensor: &Tensor) -> Result<()> {
        check(tensor)?;
        // SAFETY: as for `sum`.
        finish(unsafe { visage_group_broadcast(self.group, raw(tensor).cast_mut()) })
    }
}

/// The sum of gradients over a group. While it lives, a backward pass sends every gradient that it has finished; all
/// processes must have the same parameters and run the same passes.
#[derive(Debug)]
pub struct GradientSum(*mut c_void);

impl GradientSum {
    /// That of these parameters, which are leaves. Before [`finish`](Self::finish) there may be one backward pass, or
    /// none.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn of(group: &ProcessGroup, parameters: &[&Tensor]) -> Result<Self> {
        let all = pointers(parameters);
        let mut sum = null_mut();
        // SAFETY: all are alive, and `sum` is written by the call.
        finish(unsafe {
            visage_group_gradients(group.group, all.as_ptr(), all.len(), BUCKET, &mut sum)
        })?;
        Ok(Self(sum))
    }

    /// Replaces the gradients by their sums; a parameter that has none stays without.
    ///
    /// # Errors
    /// Another process has gone.
    pub fn finish(self) -> Result<()> {
        // SAFETY: it is alive until dropped.
        finish(unsafe { visage_group_gradients_finish(self.0) })
    }
}

impl Drop for GradientSum {
    fn drop(&mut self) {
        // SAFETY: it is freed once, between backward passes.
        unsafe { visage_group_gradients_free(self.0) };
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // SAFETY: it is freed once, and no collective is under way.
        unsafe { visage_group_free(self.group) };
    }
}

fn check(tensor: &Tensor) -> Result<()> {
    let is_fit = tensor.defined() && tensor.device() == Device::Cpu && tensor.is_contiguous();
    match is_fit {
        true => Ok(()),
        false => Err(Error::Torch(TchError::Shape(
            "a group of processes exchanges contiguous tensors on the CPU".into(),
        ))),
    }
}
