//! The library's entry point, and the table of callbacks for each provider and element type.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use half::{bf16, f16};
use ort::sys::{self, OrtCustomOpInputOutputCharacteristic as Characteristic, OrtStatusPtr};

use super::api::Api;
use super::call::{INPUTS, is_matrix, is_optional};
use super::context::Context;
use super::cuda::CudaKernel;
use super::element::Element;
use super::info::KernelInfo;
use super::kernel::CpuKernel;
use super::{DOMAIN, Error, OPERATOR, VERSION, infer};

/// Registers `ai.isaac::IsaacGemm` with a session.
///
/// ONNX Runtime finds this function by its name in `libisaac.so`, when the library's path was given to
/// `RegisterCustomOpsLibrary` (`register_custom_ops_library` in Python).
///
/// Returns null, or a status that says what went wrong.
///
/// # Safety
/// `options` must be valid session options of the runtime that `base` belongs to.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub unsafe extern "system" fn RegisterCustomOps(
    options: *mut sys::OrtSessionOptions,
    base: *const sys::OrtApiBase,
) -> OrtStatusPtr {
    // SAFETY: the caller vouches for `base`.
    let Some(api) = (unsafe { Api::from_base(base) }) else {
        // SAFETY: as above.
        return unsafe { refuse(base) };
    };
    api.guard(
        || format!("registering {DOMAIN}::{OPERATOR}"),
        || {
            let domain = domain(api)?;
            // SAFETY: the caller vouches for `options`; the domain is never freed.
            api.check(unsafe { (api.functions().AddCustomOpDomain)(options, domain) })
        },
    )
}

/// A status that says that the host is too old; null if it can't even make a status.
///
/// # Safety
/// `base` must be null or valid.
unsafe fn refuse(base: *const sys::OrtApiBase) -> OrtStatusPtr {
    // SAFETY: the caller vouches for `base`. Version 1 of the table is shorter than the type says, but `CreateStatus`,
    // all that is read of it, has been its first member from the start.
    unsafe {
        let Some(base) = base.as_ref() else {
            return OrtStatusPtr::default();
        };
        let table = (base.GetApi)(1);
        if table.is_null() {
            return OrtStatusPtr::default();
        }
        let create_status = (&raw const (*table).CreateStatus).read();
        create_status(sys::OrtErrorCode::ORT_NOT_IMPLEMENTED, c"libisaac.so needs ONNX Runtime 1.17 or newer".as_ptr())
    }
}

/// The operator's domain in the runtime of `api`; made once per runtime, because sessions keep pointers into it.
fn domain(api: Api) -> Result<*mut sys::OrtCustomOpDomain, Error> {
    /// Addresses of the runtimes' tables and of their domains.
    static DOMAINS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());
    let mut domains = DOMAINS.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = ptr::from_ref(api.functions()).addr();
    if let Some((_, domain)) = domains.iter().find(|(address, _)| *address == runtime) {
        return Ok(ptr::with_exposed_provenance_mut(*domain));
    }
    let functions = api.functions();
    let name = CString::new(DOMAIN).unwrap_or_default();
    let domain = api.create("domain", |out| {
        // SAFETY: the name is terminated, and copied by the call.
        unsafe { (functions.CreateCustomOpDomain)(name.as_ptr(), out) }
    })?;
    let operators = [
        Operator::<CpuKernel<f32>>::leak(api),
        Operator::<CpuKernel<f64>>::leak(api),
        Operator::<CpuKernel<f16>>::leak(api),
        Operator::<CpuKernel<bf16>>::leak(api),
        Operator::<CudaKernel<f32>>::leak(api),
        Operator::<CudaKernel<f16>>::leak(api),
        Operator::<CudaKernel<bf16>>::leak(api),
    ];
    for operator in operators {
        // SAFETY: domain and operator are valid, and neither is ever freed.
        api.check(unsafe { (functions.CustomOpDomain_Add)(domain, operator) })?;
    }
    domains.push((runtime, domain.expose_provenance()));
    Ok(domain)
}

/// What runs a node on one provider, for one element type.
///
/// A kernel is never changed by a call, so that runs of a session can share it.
pub(super) trait NodeKernel: Sized + 'static {
    /// The element type of the matrices.
    type Element: Element;
    /// What all kernels of the operator share.
    type Shared: Default;

    /// The execution provider, as the runtime calls it.
    const PROVIDER: &'static CStr;

    fn new(info: &KernelInfo<'_>, shared: Arc<Self::Shared>) -> Result<Self, Error>;

    /// The node, for messages.
    fn describe(&self) -> String;

    /// Reads the inputs of a call and writes its output.
    fn compute(&self, context: Context<'_>) -> Result<(), Error>;
}

/// The operator for one kind of kernel: the runtime's table of callbacks, and behind it what they need.
#[repr(C)]
struct Operator<K: NodeKernel> {
    /// First, so that the pointer that the callbacks get is also one to this type.
    table: sys::OrtCustomOp,
    api: Api,
    name: CString,
    /// Shared by all kernels, and freed with the last of them.
    shared: Mutex<Weak<K::Shared>>,
}

impl<K: NodeKernel> Operator<K> {
    /// Makes an operator that lives until the process ends.
    fn leak(api: Api) -> *const sys::OrtCustomOp {
        let table = sys::OrtCustomOp {
            version: sys::ORT_API_VERSION,
            CreateKernel: None,
            GetName: Some(Self::name),
            GetExecutionProviderType: Some(Self::execution_provider),
            GetInputType: Some(Self::input_type),
            GetInputTypeCount: Some(Self::input_count),
            GetOutputType: Some(Self::output_type),
            GetOutputTypeCount: Some(Self::output_count),
            KernelCompute: None,
            KernelDestroy: Some(Self::destroy_kernel),
            GetInputCharacteristic: Some(Self::input_characteristic),
            GetOutputCharacteristic: Some(Self::output_characteristic),
            GetInputMemoryType: Some(Self::input_memory),
            GetVariadicInputMinArity: Some(Self::no_variadic),
            GetVariadicInputHomogeneity: Some(Self::no_variadic),
            GetVariadicOutputMinArity: Some(Self::no_variadic),
            GetVariadicOutputHomogeneity: Some(Self::no_variadic),
            CreateKernelV2: Some(Self::create_kernel),
            KernelComputeV2: Some(Self::compute),
            InferOutputShapeFn: if api.infers_around_gaps() { Some(Self::infer_shape) } else { None },
            GetStartVersion: Some(Self::version),
            GetEndVersion: Some(Self::version),
        };
        let name = CString::new(OPERATOR).unwrap_or_default();
        let operator = Box::leak(Box::new(Self { table, api, name, shared: Mutex::default() }));
        ptr::from_ref(operator).cast()
    }

    /// # Safety
    /// `table` must come from [`Self::leak`].
    unsafe fn of<'a>(table: *const sys::OrtCustomOp) -> &'a Self {
        // SAFETY: the table is the first field of an operator that is never freed.
        unsafe { &*table.cast::<Self>() }
    }

    fn shared(&self) -> Arc<K::Shared> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let new = Arc::default();
            *shared = Arc::downgrade(&new);
            new
        })
    }

    unsafe extern "system" fn create_kernel(
        table: *const sys::OrtCustomOp,
        _: *const sys::OrtApi,
        info: *const sys::OrtKernelInfo,
        kernel: *mut *mut c_void,
    ) -> OrtStatusPtr {
        // SAFETY: the runtime passes the table that it was given, and a node's description for the time of this call.
        let (operator, info) = unsafe {
            let operator = Self::of(table);
            (operator, KernelInfo::new(operator.api, info))
        };
        operator.api.guard(
            || info.describe(),
            || {
                let created = Box::new(CreatedKernel { api: operator.api, kernel: K::new(&info, operator.shared())? });
                // SAFETY: the runtime passes a place for the pointer.
                unsafe { *kernel = Box::into_raw(created).cast() };
                Ok(())
            },
        )
    }

    unsafe extern "system" fn compute(kernel: *mut c_void, context: *mut sys::OrtKernelContext) -> OrtStatusPtr {
        // SAFETY: the runtime passes a kernel that `create_kernel` made, perhaps to several threads at once, which
        // share it; and a context for the time of this call.
        let (CreatedKernel { api, kernel }, context) = unsafe {
            let created = &*kernel.cast::<CreatedKernel<K>>();
            (created, Context::new(created.api, context))
        };
        api.guard(|| kernel.describe(), || kernel.compute(context))
    }

    unsafe extern "system" fn destroy_kernel(kernel: *mut c_void) {
        // SAFETY: the runtime passes each kernel that `create_kernel` made once, when no call of it is left. Dropping it
        // frees memory and calls release functions, none of which panics.
        drop(unsafe { Box::from_raw(kernel.cast::<CreatedKernel<K>>()) });
    }

    unsafe extern "system" fn infer_shape(
        table: *const sys::OrtCustomOp,
        context: *mut sys::OrtShapeInferContext,
    ) -> OrtStatusPtr {
        // SAFETY: the runtime passes the table that it was given.
        let api = unsafe { Self::of(table) }.api;
        // SAFETY: the runtime passes a context for the time of this call.
        let status = api.guard(|| OPERATOR.to_owned(), || unsafe { infer::infer_output_shape(api, context) });
        // The runtime ignores what this callback returns, and would leak it; what is wrong with the node is reported
        // when its kernel is created or run.
        let _ = api.check(status);
        OrtStatusPtr::default()
    }

    unsafe extern "system" fn name(table: *const sys::OrtCustomOp) -> *const c_char {
        // SAFETY: the runtime passes the table that it was given.
        unsafe { Self::of(table) }.name.as_ptr()
    }

    unsafe extern "system" fn execution_provider(_: *const sys::OrtCustomOp) -> *const c_char {
        K::PROVIDER.as_ptr()
    }

    unsafe extern "system" fn version(_: *const sys::OrtCustomOp) -> c_int {
        VERSION
    }

    unsafe extern "system" fn input_count(_: *const sys::OrtCustomOp) -> usize {
        INPUTS
    }

    unsafe extern "system" fn output_count(_: *const sys::OrtCustomOp) -> usize {
        1
    }

    unsafe extern "system" fn input_type(_: *const sys::OrtCustomOp, index: usize) -> sys::ONNXTensorElementDataType {
        if is_matrix(index) {
            K::Element::TYPE
        } else {
            sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED
        }
    }

    unsafe extern "system" fn output_type(_: *const sys::OrtCustomOp, _: usize) -> sys::ONNXTensorElementDataType {
        K::Element::TYPE
    }

    unsafe extern "system" fn input_characteristic(_: *const sys::OrtCustomOp, index: usize) -> Characteristic {
        if is_optional(index) { Characteristic::INPUT_OUTPUT_OPTIONAL } else { Characteristic::INPUT_OUTPUT_REQUIRED }
    }

    unsafe extern "system" fn output_characteristic(_: *const sys::OrtCustomOp, _: usize) -> Characteristic {
        Characteristic::INPUT_OUTPUT_REQUIRED
    }

    /// Dampings are read by the host.
    unsafe extern "system" fn input_memory(_: *const sys::OrtCustomOp, index: usize) -> sys::OrtMemType {
        if is_matrix(index) { sys::OrtMemType::OrtMemTypeDefault } else { sys::OrtMemType::OrtMemTypeCPUInput }
    }

    unsafe extern "system" fn no_variadic(_: *const sys::OrtCustomOp) -> c_int {
        0
    }
}

/// What the runtime holds for a node.
struct CreatedKernel<K> {
    api: Api,
    kernel: K,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What registering with this host says.
    fn refusal(base: *const sys::OrtApiBase) -> Option<String> {
        // SAFETY: the bases below are null or complete, and none of these hosts gets as far as the options.
        let status = unsafe { RegisterCustomOps(ptr::null_mut(), base) };
        // SAFETY: the status was made by `ort`'s stand-in for a runtime.
        (!status.0.is_null()).then(|| unsafe { sys::stub::Error::consume_sys(status.0) }.message().to_owned())
    }

    extern "system" fn version() -> *const c_char {
        c"0".as_ptr()
    }

    extern "system" fn stub() -> *const sys::OrtApi {
        Box::leak(Box::new(sys::stub::api()))
    }

    #[test]
    fn hosts_that_lack_something_get_a_reason() {
        extern "system" fn nothing(_: u32) -> *const sys::OrtApi {
            ptr::null()
        }
        extern "system" fn old(version: u32) -> *const sys::OrtApi {
            if version < 17 { stub() } else { ptr::null() }
        }
        extern "system" fn without_custom_operators(_: u32) -> *const sys::OrtApi {
            stub()
        }
        let base = |get_api| sys::OrtApiBase { GetApi: get_api, GetVersionString: version };
        assert_eq!(refusal(ptr::null()), None);
        assert_eq!(refusal(&base(nothing)), None);
        assert_eq!(refusal(&base(old)).unwrap(), "libisaac.so needs ONNX Runtime 1.17 or newer");
        let unimplemented = refusal(&base(without_custom_operators)).unwrap();
        assert!(unimplemented.starts_with("registering ai.isaac::IsaacGemm: "), "{unimplemented}");
    }
}
