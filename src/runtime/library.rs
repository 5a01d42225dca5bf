//! The ONNX Runtime of this machine: found, loaded once, and given our operator.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use libloading::Library;
use ort::AsPointer;
use ort::environment::Environment;
use ort::ep;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::sys;

use super::{Device, RuntimeError};
use crate::ops::RegisterCustomOps;

/// Names a library file, to the exclusion of all others.
pub(super) const VARIABLE: &str = "ORT_DYLIB_PATH";

/// Prints where Python's onnxruntime package is, without importing it.
const FIND_PACKAGE: &str =
    "import importlib.util as u; s = u.find_spec('onnxruntime'); s and print(*s.submodule_search_locations)";

/// The loaded runtime.
pub(super) struct OnnxRuntimeLibrary {
    base: BaseTable,
    environment: Environment,
    version: String,
    path: PathBuf,
}

/// The runtime's base table.
struct BaseTable(*const sys::OrtApiBase);

// SAFETY: the table is constant, and stays where it is until the process ends.
unsafe impl Send for BaseTable {}
// SAFETY: as above.
unsafe impl Sync for BaseTable {}

impl OnnxRuntimeLibrary {
    /// The runtime of this process; loads it when it is first asked for.
    ///
    /// # Errors
    /// No library is found, or the one that is found is no ONNX Runtime from 1.17 on.
    pub(super) fn get() -> Result<&'static Self, RuntimeError> {
        static RUNTIME: OnceLock<Result<Option<OnnxRuntimeLibrary>, String>> = OnceLock::new();
        match RUNTIME.get_or_init(Self::load) {
            Ok(found) => found.as_ref().ok_or(RuntimeError::NotFound),
            Err(what) => Err(RuntimeError::Unavailable(what.clone())),
        }
    }

    /// Its version, as it says.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Options of a session that has our operator, on this device.
    ///
    /// # Errors
    /// The runtime has no provider for the device, or none that can be used on this machine.
    pub(super) fn session(&self, device: Device) -> Result<SessionBuilder, RuntimeError> {
        let mut builder = Session::builder(&self.environment)?;
        // SAFETY: the options belong to the runtime of this base table.
        unsafe { ort::Error::result_from_status(RegisterCustomOps(builder.ptr_mut(), self.base.0))? };
        match device {
            Device::Cpu => Ok(builder),
            Device::Cuda => {
                let provider = ep::CUDA::default().build().error_on_failure();
                builder.with_execution_providers([provider]).map_err(|error| {
                    let Self { path, version, .. } = self;
                    RuntimeError::NoDevice(format!(
                        "cannot use CUDA with {}, which is ONNX Runtime {version}: {}; CUDA needs a runtime with its \
                         provider (`pip install onnxruntime-gpu`; {VARIABLE} names its library), and NVIDIA's libraries",
                        path.display(),
                        error.message().trim_end().trim_end_matches('.')
                    ))
                })
            }
        }
    }

    /// Loads what is found, if anything is.
    fn load() -> Result<Option<Self>, String> {
        let Some(path) = find() else { return Ok(None) };
        let unusable = |what: String| format!("cannot use {} as ONNX Runtime: {what}", path.display());
        // SAFETY: libraries of this name do nothing harmful when they are loaded, and this one stays loaded for good.
        let library: &'static Library =
            Box::leak(Box::new(unsafe { Library::new(&path) }.map_err(|error| unusable(with_cause(&error)))?));
        // SAFETY: ONNX Runtime exports this function with this signature; its tables live as long as the library.
        let (base, api, version) = unsafe {
            let get_base = library.get::<unsafe extern "C" fn() -> *const sys::OrtApiBase>(b"OrtGetApiBase");
            let base = get_base.map_err(|error| unusable(with_cause(&error)))?();
            let version = std::ffi::CStr::from_ptr(((*base).GetVersionString)()).to_string_lossy().into_owned();
            (base, ((*base).GetApi)(sys::ORT_API_VERSION).as_ref(), version)
        };
        let api =
            api.ok_or_else(|| unusable(format!("it is version {version}, and 1.17 is the oldest that will do")))?;
        ort::set_api(api.clone());
        let environment = ort::init().with_telemetry(false).build().map_err(|error| unusable(error.to_string()))?;
        environment.set_log_level(LogLevel::Error);
        Ok(Some(Self { base: BaseTable(base), environment, version, path }))
    }
}

/// What the loader says: the error names the call, and its cause the reason.
fn with_cause(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// The library to load: the one that the variable names, or that of an installed Python package, or the system's.
fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let of_package = ["python3", "python"].into_iter().find_map(|python| package_library(OsStr::new(python)));
    of_package.or_else(system_library)
}

/// The library in the onnxruntime package of this interpreter. Packages before 1.20 have none that can be loaded.
fn package_library(python: &OsStr) -> Option<PathBuf> {
    let output = Command::new(python).args(["-c", FIND_PACKAGE]).stderr(Stdio::null()).output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    // Without the package nothing is printed, which is not to mean the current folder.
    let folder = folder.trim_end();
    if folder.is_empty() { None } else { library_in(&Path::new(folder).join("capi")) }
}

/// The library in the folders where systems and installers put libraries.
fn system_library() -> Option<PathBuf> {
    let configured = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = [
        "/usr/local/lib",
        "/usr/local/lib64",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
    ];
    std::env::split_paths(&configured).chain(usual.map(PathBuf::from)).find_map(|folder| library_in(&folder))
}

fn library_in(folder: &Path) -> Option<PathBuf> {
    let is_library = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        name == "libonnxruntime.so" || name.starts_with("libonnxruntime.so.") || name == "libonnxruntime.dylib"
    };
    // The name without a version, where there is one, is the one to link with.
    folder.read_dir().ok()?.filter_map(|entry| Some(entry.ok()?.path())).filter(is_library).min()
}
