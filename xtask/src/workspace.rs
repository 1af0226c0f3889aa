//! The checkout: where it lies, how its programs are built and found.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use xshell::{Shell, cmd};

use crate::child;
use crate::failure::Failure;

/// The workspace that this program was built from.
pub(crate) struct Workspace {
    /// A shell that stands in [`root`](Self::root).
    pub(crate) sh: Shell,
    /// The directory of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Where cargo builds, `target` unless the user moved it.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Finds the workspace and asks cargo where it builds.
    pub(crate) fn open() -> Result<Self, Failure> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_path_buf();
        let sh = Shell::new()?;
        sh.change_dir(&root);
        let json = cmd!(sh, "cargo metadata --no-deps --offline --format-version 1").quiet().read()?;
        let metadata: Value = serde_json::from_str(&json)
            .map_err(|error| Failure::because("reading what cargo metadata printed", error))?;
        let target = metadata["target_directory"]
            .as_str()
            .ok_or_else(|| Failure::internal("cargo metadata named no target directory"))?;
        Ok(Self { sh, root, target: PathBuf::from(target) })
    }

    /// Refuses a profile that the workspace does not have.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] with the profiles that there are.
    pub(crate) fn require_profile(&self, name: &str) -> Result<(), Failure> {
        let manifest = self.sh.read_file("Cargo.toml")?;
        let known = profiles(&manifest);
        if known.iter().any(|profile| profile == name) {
            return Ok(());
        }
        Err(Failure::Usage(format!("no profile {name:?}; there are: {}", known.join(", "))))
    }

    /// `rustc --version` of the compiler that cargo uses here.
    pub(crate) fn rustc_version(&self) -> Result<String, Failure> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        Ok(cmd!(self.sh, "{rustc} --version").quiet().read()?)
    }

    /// Builds the one program of `package`, that package alone, and returns where cargo put it.
    ///
    /// Alone, because cargo unifies the features of everything that it builds at once: the subject of an audit
    /// must be what a user would get.
    pub(crate) fn build(&self, package: &str, profile: &str, wrapper: Option<&Path>) -> Result<PathBuf, Failure> {
        let mut build = self.building(package, profile);
        if let Some(wrapper) = wrapper {
            build.env("RUSTC_WORKSPACE_WRAPPER", wrapper);
        }
        program(build, package)
    }

    /// The same with features of the package, separated by spaces.
    pub(crate) fn build_with(&self, package: &str, profile: &str, features: &str) -> Result<PathBuf, Failure> {
        let mut build = self.building(package, profile);
        build.args(["--features", features]);
        program(build, package)
    }

    fn building(&self, package: &str, profile: &str) -> Command {
        cmd!(
            self.sh,
            "cargo build --locked --package {package} --profile {profile} --message-format=json-render-diagnostics"
        )
        .into()
    }
}

/// Builds what is the one program of a package.
fn program(build: Command, package: &str) -> Result<PathBuf, Failure> {
    let programs = executables(&messages(build)?)?;
    match programs.as_slice() {
        [(_, path)] => Ok(path.clone()),
        _ => Err(Failure::internal(format!("{package} builds {} programs, not one", programs.len()))),
    }
}

/// Runs cargo and returns the messages that it printed for machines; those for people went to our stderr.
pub(crate) fn messages(mut cargo: Command) -> Result<String, Failure> {
    let words: Vec<_> = cargo.get_args().map(OsStr::to_string_lossy).collect();
    let line = format!("{} {}", cargo.get_program().to_string_lossy(), words.join(" "));
    let output = cargo
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::because(format!("starting {line}"), error))?;
    if !output.status.success() {
        return Err(Failure::internal(format!("{line} {}", child::ended(output.status))));
    }
    String::from_utf8(output.stdout).map_err(|error| Failure::because(format!("reading what {line} printed"), error))
}

/// The programs among cargo's messages: name and path.
pub(crate) fn executables(messages: &str) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut programs = Vec::new();
    for line in messages.lines() {
        let message: Value =
            serde_json::from_str(line).map_err(|error| Failure::because("reading a message of cargo's", error))?;
        if let (Some("compiler-artifact"), Some(name), Some(path)) =
            (message["reason"].as_str(), message["target"]["name"].as_str(), message["executable"].as_str())
        {
            programs.push((name.to_owned(), PathBuf::from(path)));
        }
    }
    Ok(programs)
}

/// The profiles of a manifest: cargo's own that a program can be built with, then those it defines.
fn profiles(manifest: &str) -> Vec<String> {
    let mut names = vec!["dev".to_owned(), "release".to_owned()];
    for line in manifest.lines() {
        // `[profile.NAME]` or a table beneath it, `[profile.NAME.package."*"]`.
        let Some(rest) = line.trim().strip_prefix("[profile.") else { continue };
        let name = rest.split(['.', ']']).next().unwrap_or_default();
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_cargos_own_and_those_that_the_manifest_defines() {
        let manifest = "[package]\n[profile.audit]\ndebug = 1\n[profile.audit.package.\"*\"]\n[profile.release]\n";

        assert_eq!(profiles(manifest), ["dev", "release", "audit"]);
    }

    #[test]
    fn a_library_and_a_build_script_are_no_programs() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"secmem"},"executable":null}"#,
            "\n",
            r#"{"reason":"build-script-executed"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"scenarios"},"executable":"/t/audit/scenarios"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );

        let programs = executables(messages).unwrap();

        assert_eq!(programs, [("scenarios".to_owned(), PathBuf::from("/t/audit/scenarios"))]);
    }

    #[test]
    fn a_line_that_is_no_message_is_an_error() {
        assert!(executables("Compiling secmem").is_err());
    }
}
