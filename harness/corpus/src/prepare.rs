//! From a source to something that can be run: compilers are called, interpreters found. What is not installed is a
//! reason to skip; a source that does not compile is an error.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use crate::table::{Allocator, Victim};

/// Longer than a tick of the kernel's, by which the stamp of a file may lag behind the clock.
const YOUNG: Duration = Duration::from_millis(50);

/// What to run.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) program: Vec<OsString>,
    pub(crate) feed: String,
    /// The file that holds the secret, where it is not any random one.
    pub(crate) secret: Option<PathBuf>,
}

/// Why there is nothing to run.
#[derive(Clone, Debug)]
pub(crate) enum Unprepared {
    /// It cannot be had on this machine.
    Skip(String),
    /// Something of ours is wrong.
    Failed(String),
}

/// Interpreters that were looked for already, and the programs with real crates that were built already: their paths, or
/// why there are none.
pub(crate) struct Tools {
    found: Mutex<BTreeMap<String, Result<PathBuf, String>>>,
    built: Mutex<BTreeMap<Option<Allocator>, Result<PathBuf, Unprepared>>>,
    /// Where cargo builds the latter.
    place: PathBuf,
}

impl Tools {
    pub(crate) fn new(place: PathBuf) -> Self {
        Self { found: Mutex::default(), built: Mutex::default(), place }
    }

    /// The program with real crates, built with that allocator. Whoever needs it while it is built waits.
    fn crates(&self, allocator: Option<Allocator>) -> Result<PathBuf, Unprepared> {
        let mut built = self.built.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        built.entry(allocator).or_insert_with(|| self.build(allocator)).clone()
    }

    /// Builds it. What it takes (a C compiler for the allocators that are written in C, musl's standard library, crates from
    /// the registry) is a reason to skip where it is not there.
    fn build(&self, allocator: Option<Allocator>) -> Result<PathBuf, Unprepared> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/Cargo.toml");
        let cargo = |verb: &str| -> Result<Command, Unprepared> {
            let mut command = Command::new(self.find("cargo")?);
            command.args([verb, "--locked", "--quiet", "--manifest-path"]).arg(&manifest);
            Ok(command)
        };
        let said = |mut command: Command| match command.output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(format!("start cargo: {error}")),
        };
        let mut build = cargo("build")?;
        build.args(["--release", "--offline", "--target-dir"]);
        let mut program = self.place.join(allocator.map_or("glibc", Allocator::name));
        build.arg(&program);
        match allocator {
            Some(Allocator::Jemalloc | Allocator::Mimalloc) => {
                self.find("cc")?;
                if allocator == Some(Allocator::Jemalloc) {
                    self.find("make")?;
                }
                build.args(["--features", allocator.map_or("", Allocator::name)]);
            }
            Some(Allocator::Musl) => {
                let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
                if !self.has_target(&target) {
                    return Err(Unprepared::Skip(format!("rustc's target {target} is not installed")));
                }
                build.args(["--target", &target]);
                program.push(target);
            }
            Some(Allocator::Glibc) | None => {}
        }
        said(cargo("fetch")?).map_err(|why| {
            let last = why.lines().next_back().unwrap_or_default().trim().to_owned();
            Unprepared::Skip(format!("its crates cannot be fetched: {last}"))
        })?;
        said(build).map_err(Unprepared::Failed)?;
        Ok(program.join("release/corpus-crates"))
    }

    fn has_target(&self, target: &str) -> bool {
        let Ok(compiler) = self.find("rustc") else { return false };
        let asked = Command::new(compiler).args(["--print", "target-libdir", "--target", target]).output();
        let answer = asked.ok().filter(|output| output.status.success()).map(|output| output.stdout);
        answer.and_then(|text| String::from_utf8(text).ok()).is_some_and(|text| Path::new(text.trim()).is_dir())
    }

    /// The real program behind a name. A wrapper that only starts an interpreter would be the first process of the tree.
    fn find(&self, name: &str) -> Result<PathBuf, Unprepared> {
        let mut known = self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.entry(name.to_owned()).or_insert_with(|| find(name)).clone().map_err(Unprepared::Skip)
    }
}

fn find(name: &str) -> Result<PathBuf, String> {
    if name == "python3" {
        let asked = Command::new(name).args(["-c", "import sys; print(sys.executable)"]).output();
        let answer = asked.ok().filter(|output| output.status.success()).map(|output| output.stdout);
        let path = answer.and_then(|text| String::from_utf8(text).ok());
        return path.map(|text| PathBuf::from(text.trim())).ok_or_else(|| "python3 is not installed".to_owned());
    }
    let on_path = || std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let path = on_path().unwrap_or_default().into_iter().map(|dir| dir.join(name)).find(|path| path.is_file());
    path.ok_or_else(|| format!("{name} is not installed"))
}

/// Writes the source into `dir`, which is this victim's alone, and compiles it.
///
/// # Errors
///
/// [`Unprepared`].
pub(crate) fn prepare(victim: &Victim, dir: &Path, tools: &Tools) -> Result<Prepared, Unprepared> {
    let file = |name: &str| -> Result<PathBuf, Unprepared> {
        let path = dir.join(name);
        std::fs::write(&path, &victim.source)
            .map_err(|error| Unprepared::Failed(format!("write {}: {error}", path.display())))?;
        Ok(path)
    };
    let compiled = |compiler: &str, source: &str, before: &[&str]| -> Result<Vec<OsString>, Unprepared> {
        let compiler = tools.find(compiler)?;
        let (source, program) = (file(source)?, dir.join("victim"));
        let mut command = Command::new(&compiler);
        command.args(before).arg("-o").arg(&program).arg(&source).args(&victim.flags).current_dir(dir);
        compile(command)?;
        Ok(vec![program.into()])
    };
    let script = |interpreter: &str, source: &str, before: &[&str]| -> Result<Vec<OsString>, Unprepared> {
        let mut line = vec![OsString::from(tools.find(interpreter)?)];
        line.extend(before.iter().map(OsString::from));
        line.push(file(source)?.into());
        Ok(line)
    };
    if victim.allocator.is_some() && !matches!(victim.language.as_str(), "c" | "crates") {
        return Err(Unprepared::Failed("only c and crates run under an allocator".to_owned()));
    }
    let mut program = match victim.language.as_str() {
        // The C library's functions give way to those of a library that is linked before it.
        "c" => {
            let (compiler, words) = match victim.allocator {
                Some(Allocator::Musl) => ("musl-gcc", "-static"),
                Some(Allocator::Jemalloc) => ("cc", "-Wl,--no-as-needed,-l:libjemalloc.so.2"),
                Some(Allocator::Mimalloc) => ("cc", "-Wl,--no-as-needed,-l:libmimalloc.so.2"),
                Some(Allocator::Glibc) | None => ("cc", "-O2"),
            };
            compiled(compiler, "victim.c", &["-O2", "-std=gnu11", words])?
        }
        "crates" => vec![tools.crates(victim.allocator)?.into()],
        "c++" => compiled("c++", "victim.cc", &["-O2", "-std=c++17"])?,
        "rust" => compiled("rustc", "victim.rs", &["-O", "--edition=2024"])?,
        "go" => compiled("go", "victim.go", &["build"])?,
        "java" => {
            let (compiler, java) = (tools.find("javac")?, tools.find("java")?);
            let mut command = Command::new(compiler);
            command.arg("-d").arg(dir).arg(file("Victim.java")?);
            compile(command)?;
            let java = java.canonicalize().unwrap_or(java);
            let words = ["-Xshare:auto", "-XX:+UseSerialGC", "-Xmx16m", "-XX:TieredStopAtLevel=1", "-cp"];
            let mut line = vec![OsString::from(java)];
            line.extend(words.iter().map(OsString::from));
            line.extend([dir.into(), OsString::from("Victim")]);
            line
        }
        "python" => script("python3", "victim.py", &["-I"])?,
        "perl" => script("perl", "victim.pl", &[])?,
        "bash" => script("bash", "victim.sh", &[])?,
        "sh" => script("dash", "victim.sh", &[])?,
        "awk" => script("mawk", "victim.awk", &["-f"])?,
        "node" => script("node", "victim.js", &[])?,
        "tcl" => script("tclsh", "victim.tcl", &[])?,
        "program" => match victim.args.first() {
            Some(name) => vec![tools.find(name)?.into()],
            None => return Err(Unprepared::Failed("a program needs args, its name first".to_owned())),
        },
        other => return Err(Unprepared::Failed(format!("no such language: {other}"))),
    };
    let own = |text: &String| text.replace("DIR", &dir.to_string_lossy());
    let first = usize::from(victim.language == "program");
    program.extend(victim.args[first..].iter().map(own).map(OsString::from));
    let secret = if victim.prefix.is_empty() { None } else { Some(beginning_with(victim, dir)?) };
    Ok(Prepared { program, feed: own(&victim.feed), secret })
}

/// A file with a secret that begins with what anybody knows, and goes on with random letters and digits.
fn beginning_with(victim: &Victim, dir: &Path) -> Result<PathBuf, Unprepared> {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let failed = |error: io::Error| Unprepared::Failed(format!("draw a secret: {error}"));
    let mut random = vec![0; usize::from(victim.length).saturating_sub(victim.prefix.len())];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).map_err(failed)?;
    let letters = random.iter().map(|byte| LETTERS[usize::from(*byte) % LETTERS.len()]);
    let secret: Vec<u8> = victim.prefix.bytes().chain(letters).collect();
    let path = dir.join("secret");
    // A program whose file is as young as its run is not believed to hold anything from before.
    std::thread::sleep(YOUNG);
    std::fs::write(&path, secret).map_err(failed)?;
    Ok(path)
}

fn compile(mut command: Command) -> Result<(), Unprepared> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| Unprepared::Failed(format!("start {name}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let missing = said.contains("cannot find -l") || said.contains("No such file or directory");
    match said.lines().find(|line| line.contains("cannot find -l") || line.contains("fatal error")) {
        Some(line) if missing => Err(Unprepared::Skip(line.to_owned())),
        _ => Err(Unprepared::Failed(said.into_owned())),
    }
}
