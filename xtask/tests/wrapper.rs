//! An ablated build differs from the plain one, and leaves it as it was.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Builds the crate in `dir`, with the wrapper if there is one, and returns what its program prints.
fn build_and_run(dir: &Path, wrapper: Option<&Path>) -> String {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--offline", "--target-dir"]).arg(dir.join("target")).current_dir(dir);
    cargo.env_remove("RUSTC_WORKSPACE_WRAPPER");
    if let Some(wrapper) = wrapper {
        cargo.env("RUSTC_WORKSPACE_WRAPPER", wrapper);
    }
    assert!(cargo.status().unwrap().success());
    let output = Command::new(dir.join("target/debug/subject")).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_wrapper_builds_its_own_ablation_and_none_marks_the_plain_build() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("src")).unwrap();
    fs::write(
        dir.join("Cargo.toml"),
        "[package]\nname = \"subject\"\nedition = \"2024\"\n[lints.rust]\nunexpected_cfgs = \"allow\"\n[workspace]\n",
    )
    .unwrap();
    fs::write(
        dir.join("src/main.rs"),
        r#"fn main() { print!("{} {}", cfg!(secmem_ablate = "wipe"), cfg!(secmem_ablate = "deadline")) }"#,
    )
    .unwrap();
    let [wipe, deadline] = ["wipe", "deadline"].map(|ablation| {
        let wrapper = dir.join(format!("rustc-without-{ablation}"));
        fs::copy(env!("CARGO_BIN_EXE_xtask"), &wrapper).unwrap();
        wrapper
    });

    // The plain build comes again last: cargo must bring it back, although nothing has to be compiled for it.
    let printed = [None, Some(&*wipe), Some(&*deadline), None].map(|wrapper| build_and_run(dir, wrapper));

    assert_eq!(printed, ["false false", "true false", "false true", "false false"]);
}
