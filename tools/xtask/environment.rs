//! The Python environments: one ONNX Runtime each, from a pinned list of packages.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{command, paths};

/// The Python versions for which every pinned wheel exists.
const PYTHONS: [&str; 2] = ["3.11", "3.12"];

/// One ONNX Runtime to run in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Environment {
    /// The oldest stock runtime that libisaac.so supports.
    StockOldest,
    /// The last runtime with the training API.
    Training,
    /// The newest stock runtime.
    StockNewest,
    /// A stock runtime with the CUDA provider.
    Cuda,
    /// PyTorch, with the authors' layers and BackPACK: for benchmarks only.
    Pytorch,
}

impl Environment {
    /// Those with the CPU provider alone.
    pub(crate) const CPU: [Environment; 3] = [Self::StockOldest, Self::Training, Self::StockNewest];
    /// Those that the demo and the tests need.
    const ALL: [Environment; 4] = [Self::StockOldest, Self::Training, Self::StockNewest, Self::Cuda];

    /// The name of its folder and of its requirements file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::StockOldest => "stock-oldest",
            Self::Training => "training",
            Self::StockNewest => "stock-newest",
            Self::Cuda => "cuda",
            Self::Pytorch => "pytorch",
        }
    }

    /// Its interpreter.
    pub(crate) fn python(self) -> PathBuf {
        self.folder().join("bin/python")
    }

    /// A command that runs its interpreter from the repository's root, with our own modules at hand.
    pub(crate) fn command(self) -> Command {
        let mut command = Command::new(self.python());
        command
            .current_dir(paths::root())
            .env("PYTHONPATH", paths::root().join("tools/python"))
            .env("PYTHONPYCACHEPREFIX", paths::target().join("python/bytecode"));
        command
    }

    /// Where a package's module lies in this environment.
    pub(crate) fn module_folder(self, module: &str) -> Result<PathBuf, String> {
        let script = format!("import {module} as m, os; print(os.path.dirname(m.__file__))");
        let output = command::run_quietly(self.command().args(["-c", &script]))?;
        Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
    }

    fn folder(self) -> PathBuf {
        paths::target().join("python").join(self.name())
    }

    fn requirements(self) -> PathBuf {
        paths::root().join(format!("tools/python/requirements/{}.txt", self.name()))
    }

    /// Makes the environment, unless it is there and its requirements have not changed since.
    ///
    /// The stamp, a copy of the requirements, is written last: without it the folder is half made, and made anew.
    fn make(self) -> Result<(), String> {
        let folder = self.folder();
        let stamp = folder.join("requirements.txt");
        let wanted = read(&self.requirements())?;
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(());
        }
        eprintln!("setting up the Python environment {} in {}", self.name(), folder.display());
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        command::run_quietly(Command::new(system_python()?).args(["-m", "venv"]).arg(&folder))?;
        let pip = ["-m", "pip", "--disable-pip-version-check"];
        command::run_quietly(
            self.command()
                .args(pip)
                .args(["install", "--no-deps", "--no-compile", "--only-binary=:all:", "--requirement"])
                .arg(self.requirements()),
        )?;
        command::run_quietly(self.command().args(pip).arg("check"))?;
        fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))
    }
}

/// Makes the environments that are missing or out of date. Of two runs at once, the second waits for the first.
pub(crate) fn make(environments: &[Environment]) -> Result<(), String> {
    let folder = paths::target().join("python");
    let lock = folder.join("lock");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let guard = File::create(&lock).map_err(|error| format!("{}: {error}", lock.display()))?;
    guard.lock().map_err(|error| format!("{}: {error}", lock.display()))?;
    environments.iter().try_for_each(|environment| environment.make())
}

/// `cargo xtask setup`.
pub(crate) fn make_all() -> Result<(), String> {
    make(&Environment::ALL)?;
    for environment in Environment::ALL {
        println!("{:<14}{}", environment.name(), environment.python().display());
    }
    Ok(())
}

/// The interpreter to make environments with: the one in `ISAAC_PYTHON`, or the first on the PATH that fits.
fn system_python() -> Result<String, String> {
    if let Some(python) = env::var_os("ISAAC_PYTHON") {
        return Ok(python.to_string_lossy().into_owned());
    }
    let candidates = ["python3".to_owned()].into_iter().chain(PYTHONS.map(|version| format!("python{version}")));
    let mut found = Vec::new();
    for python in candidates {
        let script = "import sys; print('%d.%d' % sys.version_info[:2])";
        let Ok(output) = Command::new(&python).args(["-c", script]).output() else {
            continue;
        };
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if PYTHONS.contains(&version.as_str()) {
            return Ok(python);
        }
        found.push(format!("{python} is {version}"));
    }
    let found = if found.is_empty() { "there is none on the PATH".to_owned() } else { found.join(", ") };
    Err(format!(
        "Python {} is needed, for which all the pinned wheels exist ({found}); ISAAC_PYTHON can name one",
        PYTHONS.join(" or ")
    ))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
