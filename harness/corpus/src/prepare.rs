//! From a source to something that can be run: compilers are called, interpreters found. What is not installed is a
//! reason to skip; a source that does not compile is an error.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::table::Victim;

/// What to run.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) program: Vec<OsString>,
    pub(crate) feed: String,
}

/// Why there is nothing to run.
#[derive(Debug)]
pub(crate) enum Unprepared {
    /// It cannot be had on this machine.
    Skip(String),
    /// Something of ours is wrong.
    Failed(String),
}

/// Interpreters that were looked for already: their paths, or why there are none.
#[derive(Default)]
pub(crate) struct Tools(Mutex<BTreeMap<String, Result<PathBuf, String>>>);

impl Tools {
    /// The real program behind a name. A wrapper that only starts an interpreter would be the first process of the tree.
    fn find(&self, name: &str) -> Result<PathBuf, Unprepared> {
        let mut known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
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
    let mut program = match victim.language.as_str() {
        "c" => compiled("cc", "victim.c", &["-O2", "-std=gnu11"])?,
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
    Ok(Prepared { program, feed: own(&victim.feed) })
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
