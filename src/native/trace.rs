//! Traces a network with libtorch: a TorchScript module, and the list of its operations.

use std::any::Any;
use std::ffi::{CString, c_char, c_int, c_uchar, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;

use tch::Tensor;

use super::{Message, TensorPtr, finish, text};
use crate::{Error, Result};

type Network =
    unsafe extern "C" fn(data: *mut c_void, input: TensorPtr, outputs: *mut TensorPtr) -> c_int;
type Sink = unsafe extern "C" fn(data: *mut c_void, bytes: *const c_void, count: usize) -> c_int;

unsafe extern "C" {
    fn visage_trace_free(trace: *mut c_void);
    fn visage_trace_new(
        count: usize,
        names: *const *const c_char,
        tensors: *const TensorPtr,
        are_parameters: *const c_uchar,
        input: TensorPtr,
        outputs: usize,
        network: Network,
        data: *mut c_void,
        made: *mut *mut c_void,
    ) -> Message;
    fn visage_trace_describe(trace: *const c_void, text: *mut Message) -> Message;
    fn visage_trace_tensor(
        trace: *const c_void,
        key: *const c_char,
        found: *mut *mut c_void,
    ) -> Message;
    fn visage_trace_save(
        trace: *const c_void,
        extra_name: *const c_char,
        extra_text: *const c_char,
        sink: Sink,
        data: *mut c_void,
    ) -> Message;
}

/// A tensor that a network computes with.
#[derive(Debug)]
pub struct TracedState {
    /// Its state-dict key.
    pub name: String,
    /// The same tensor, not a copy: the tracer identifies tensors by their address.
    pub tensor: Tensor,
    /// A parameter, or a buffer.
    pub is_parameter: bool,
}

/// A traced network.
#[derive(Debug)]
pub struct Trace {
    /// Never null; freed once, on drop.
    module: *mut c_void,
}

type Closure<'a> = &'a mut dyn FnMut(&Tensor) -> Result<Vec<Tensor>>;

/// The closure passed through C++, and its results.
struct Call<'a> {
    network: Option<Closure<'a>>,
    wanted: usize,
    outputs: Vec<Tensor>,
    error: Option<Error>,
    panic: Option<Box<dyn Any + Send>>,
}

/// Calls the closure; neither errors nor panics unwind through C++.
unsafe extern "C" fn call(data: *mut c_void, input: TensorPtr, outputs: *mut TensorPtr) -> c_int {
    // SAFETY: `data` is the `Call` of `Trace::record`, not borrowed elsewhere.
    let call = unsafe { &mut *data.cast::<Call>() };
    let Some(network) = call.network.take() else { return 0 };
    let found = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: a live tensor; the copied handle has its own reference count.
        let input = unsafe { Tensor::clone_from_ptr(input.cast_mut().cast()) };
        network(&input)
    }));
    match found {
        Ok(Ok(found)) if found.len() == call.wanted && found.iter().all(Tensor::defined) => {
            for (at, tensor) in found.iter().enumerate() {
                // SAFETY: C++ allocated `wanted` pointers.
                unsafe { *outputs.add(at) = tensor.as_ptr().cast() };
            }
            call.outputs = found; // keeps them alive until C++ has read them
            return 1;
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => call.error = Some(error),
        Err(panic) => call.panic = Some(panic),
    }
    0
}

/// Appends bytes of an archive to the vector behind `data`.
unsafe extern "C" fn append(data: *mut c_void, bytes: *const c_void, count: usize) -> c_int {
    if count == 0 {
        return 1;
    }
    // SAFETY: `data` is the vector of `Trace::archive`; `bytes` holds `count` of them.
    let (archive, bytes) = unsafe {
        (&mut *data.cast::<Vec<u8>>(), std::slice::from_raw_parts(bytes.cast::<u8>(), count))
    };
    if archive.try_reserve(count).is_err() {
        return 0;
    }
    archive.extend_from_slice(bytes);
    1
}

/// A text for C++.
fn c_text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Config(format!("{text:?} has a zero byte in it")))
}

impl Trace {
    /// Runs `network` once on `input` (an example of the right shape) and records it as a module with
    /// `state` as its tensors. `outputs` is the number of tensors that the network returns: one is
    /// recorded as a tensor, several as a tuple.
    ///
    /// Sizes are recorded as constants of this input; no other value may depend on it.
    ///
    /// # Errors
    /// The network's own, and libtorch's.
    ///
    /// # Panics
    /// Where the network does.
    pub fn record(
        state: &[TracedState],
        input: &Tensor,
        outputs: usize,
        mut network: impl FnMut(&Tensor) -> Result<Vec<Tensor>>,
    ) -> Result<Self> {
        let texts = state.iter().map(|one| c_text(&one.name)).collect::<Result<Vec<_>>>()?;
        let names: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
        let tensors: Vec<TensorPtr> = state.iter().map(|one| one.tensor.as_ptr().cast()).collect();
        let are_parameters: Vec<_> = state.iter().map(|one| u8::from(one.is_parameter)).collect();
        let mut data = Call {
            network: Some(&mut network),
            wanted: outputs,
            outputs: Vec::new(),
            error: None,
            panic: None,
        };
        let mut module = ptr::null_mut();
        // SAFETY: three lists of one length with live texts and tensors; `call` matches `data`,
        // which outlives the call and is not accessed during it.
        let result = finish(unsafe {
            visage_trace_new(
                state.len(),
                names.as_ptr(),
                tensors.as_ptr(),
                are_parameters.as_ptr(),
                input.as_ptr().cast(),
                outputs,
                call,
                (&raw mut data).cast(),
                &raw mut module,
            )
        });
        if let Some(panic) = data.panic {
            resume_unwind(panic);
        }
        match data.error {
            Some(error) => Err(error),
            None => result.map(|()| Self { module }),
        }
    }

    /// The recorded operations as JSON: `input` and `outputs` are value numbers, `nodes` have a
    /// `kind` (`aten::relu`), `inputs` and `outputs`, in the order in which they run.
    ///
    /// # Errors
    /// Out of memory.
    pub fn describe(&self) -> Result<String> {
        // SAFETY: the module is alive; the shim sets the text, which is ours to free.
        text(|text| unsafe { visage_trace_describe(self.module, text) })
    }

    /// A tensor of the module, by its key.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn tensor(&self, key: &str) -> Result<Tensor> {
        let key = c_text(key)?;
        let mut found = ptr::null_mut();
        // SAFETY: the module is alive, and `found` is set where there is no message.
        finish(unsafe { visage_trace_tensor(self.module, key.as_ptr(), &raw mut found) })?;
        // SAFETY: a new handle, owned by the tensor from here on.
        Ok(unsafe { Tensor::from_ptr(found.cast()) })
    }

    /// The module as a TorchScript archive, with one extra file in it.
    ///
    /// # Errors
    /// An error from libtorch's writer.
    pub fn archive(&self, extra_name: &str, extra_text: &str) -> Result<Vec<u8>> {
        let (name, text) = (c_text(extra_name)?, c_text(extra_text)?);
        let mut archive = Vec::<u8>::new();
        let data = (&raw mut archive).cast();
        // SAFETY: the module and both texts are alive; `append` matches `data`.
        finish(unsafe {
            visage_trace_save(self.module, name.as_ptr(), text.as_ptr(), append, data)
        })?;
        Ok(archive)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once.
        unsafe { visage_trace_free(self.module) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{CModule, Device, Kind};

    fn ones(shape: &[i64]) -> Tensor {
        Tensor::ones(shape, (Kind::Float, Device::Cpu))
    }

    fn record(network: impl FnMut(&Tensor) -> Result<Vec<Tensor>>) -> Result<Trace> {
        Trace::record(&[], &ones(&[2, 3]), 1, network)
    }

    #[test]
    fn state_keeps_its_keys_and_constants_become_buffers() {
        let weight = ones(&[4, 3]) * 2.0;
        let name = "layer.0.1_linear.weight".to_owned();
        let state = [TracedState { name, tensor: weight.shallow_clone(), is_parameter: true }];
        let window = ones(&[4]) * 3.0;
        let network = |xs: &Tensor| Ok(vec![xs.linear(&weight, None::<Tensor>) * &window]);
        let trace = Trace::record(&state, &ones(&[2, 3]), 1, network).unwrap();
        assert!(trace.tensor("layer.0.1_linear.weight").unwrap().equal(&weight));
        assert!(trace.tensor("constant_0").unwrap().equal(&window));
        assert!(trace.tensor("layer.0.2").is_err());
        let archive = trace.archive("note.txt", "hello").unwrap();
        assert!(archive.windows(14).any(|bytes| bytes == b"extra/note.txt"));
        let module = CModule::load_data(&mut archive.as_slice()).unwrap();
        let answer = module.forward_ts(&[ones(&[5, 3])]).unwrap();
        assert!(answer.equal(&(ones(&[5, 4]) * 18.0)));
        assert_eq!(module.named_parameters().unwrap()[0].0, state[0].name);
    }

    #[test]
    fn errors_and_panics_of_the_network_come_through_and_end_the_recording() {
        let error = record(|_| Err(Error::Config("on purpose".into()))).unwrap_err().to_string();
        assert_eq!(error, "on purpose");
        assert!(record(|_| Ok(vec![])).is_err());
        assert!(record(|_| Ok(vec![Tensor::new()])).is_err());
        let panics = || record(|_| panic!("on purpose"));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert!(record(|xs| Ok(vec![xs.relu()])).is_ok());
    }

    #[test]
    fn values_that_the_tracer_cannot_see_are_refused() {
        let network = |xs: &Tensor| Ok(vec![xs * Tensor::from_slice(&[1f32, 2., 3.])]);
        let error = record(network).unwrap_err().to_string();
        assert!(error.contains("filled from outside"), "{error}");
    }
}
