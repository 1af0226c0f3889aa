//! From places in the code to names: function, file, line, inlined functions, and whose code it is.

use std::path::Path;

use findings::{Frame, Origin};

use super::image::{Image, Images};
use super::unwind::{Site, Walk};

/// Names the functions of a walk, inlined ones included, innermost first.
///
/// What lies below the program's outermost function is left out. `home` is cut off the front of source paths that begin with it.
pub(super) fn frames(walk: &Walk, images: &Images, home: Option<&Path>) -> Vec<Frame> {
    let mut frames: Vec<_> = walk.sites.iter().flat_map(|site| frames_of(site, images, home)).collect();
    // Below the program's outermost function lies what started it: the same runtime in every stack.
    if walk.cut.is_none()
        && let Some(outermost) = frames.iter().rposition(|frame| frame.origin == Origin::Own)
    {
        frames.truncate(outermost + 1);
    }
    frames
}

fn frames_of(site: &Site, images: &Images, home: Option<&Path>) -> Vec<Frame> {
    let module = site.module.rsplit('/').next().unwrap_or_default();
    let Some(image) = site.in_file.then(|| images.at(Path::new(&site.module))).flatten() else {
        let function = match module {
            "" => format!("{:#x}", site.address),
            module => format!("{module}+{:#x}", site.address),
        };
        return vec![Frame { module: Some(module.to_owned()).filter(|name| !name.is_empty()), ..bare(function) }];
    };
    let symbol = image.symbol(site.address).map(demangled);
    let mut frames = Vec::new();
    for lines in image.lines() {
        let Ok(mut found) = lines.find_frames(site.address) else { continue };
        while let Ok(Some(frame)) = found.next() {
            let name = frame.function.as_ref().and_then(|name| name.demangle().ok()).map(|name| without_hash(&name));
            let location = frame.location.as_ref();
            let file = location.and_then(|location| location.file).map(|file| shorter(file, home));
            frames.push(Frame {
                function: name.unwrap_or_default(),
                line: location.and_then(|location| location.line).filter(|line| *line != 0 && file.is_some()),
                file,
                inlined: true,
                ..bare(String::new())
            });
        }
        if !frames.is_empty() {
            break;
        }
    }
    if frames.is_empty() {
        frames.push(bare(String::new()));
    }
    let last = frames.len() - 1;
    frames[last].inlined = false;
    // The symbol has the function's whole path; line tables alone may have its last part only.
    if let Some(symbol) = &symbol
        && symbol.ends_with(&frames[last].function)
    {
        frames[last].function.clone_from(symbol);
    }
    for frame in &mut frames {
        if frame.function.is_empty() {
            frame.function = format!("{module}+{:#x}", site.address);
        }
        frame.module = Some(module.to_owned());
        frame.origin = origin(frame, &image);
    }
    frames
}

fn bare(function: String) -> Frame {
    Frame { function, file: None, line: None, inlined: false, module: None, origin: Origin::Unknown }
}

/// Whose code a function is, as far as paths tell.
fn origin(frame: &Frame, image: &Image) -> Origin {
    const C_LIBRARY: [&str; 7] = ["libc.", "libc-", "ld-", "libm.", "libpthread", "libgcc_s", "libdl."];
    let module = frame.module.as_deref().unwrap_or_default();
    if C_LIBRARY.iter().any(|start| module.starts_with(start)) {
        return Origin::Libc;
    }
    match &frame.file {
        Some(file) if file.starts_with("rust/library/") => Origin::Std,
        Some(file) if file.starts_with("crates/") => Origin::Dependency,
        Some(_) => Origin::Own,
        // Without a line table: what lies in a system directory is nobody's own.
        None if image.path().starts_with("/usr") || image.path().starts_with("/lib") => Origin::Dependency,
        None => Origin::Unknown,
    }
}

/// A source path without what differs between machines: `rust/library/…` for the standard library's, `crates/…` for a
/// package from a registry, and without `home` in front.
fn shorter(file: &str, home: Option<&Path>) -> String {
    if let Some(rest) = file.strip_prefix("/rustc/").and_then(|rest| rest.split_once('/')).map(|(_, rest)| rest) {
        return match rest.strip_prefix("/").unwrap_or(rest) {
            rest if rest.starts_with("library/") => format!("rust/{rest}"),
            // The standard library's own dependencies are part of it here.
            rest => format!("rust/library/{rest}"),
        };
    }
    if let Some((_, rest)) = file.split_once("/lib/rustlib/src/rust/") {
        return format!("rust/{rest}");
    }
    // Dependencies of the standard library are built with this prefix.
    if let Some((_, rest)) = file.split_once("/rust/deps/") {
        return format!("rust/library/{rest}");
    }
    for start in ["/registry/src/", "/git/checkouts/"] {
        if let Some(rest) = file.split_once(start).and_then(|(_, rest)| rest.split_once('/')).map(|(_, rest)| rest) {
            return format!("crates/{rest}");
        }
    }
    let relative = home.and_then(|home| Path::new(file).strip_prefix(home).ok());
    relative.map_or_else(|| file.to_owned(), |path| path.display().to_string())
}

fn demangled(name: &str) -> String {
    without_hash(&addr2line::demangle_auto(name.into(), None))
}

/// A Rust name without the hash that ends it (`::h0123456789abcdef`), which differs between builds.
fn without_hash(name: &str) -> String {
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => path.to_owned(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_paths_lose_what_differs_between_machines() {
        let short = |file| shorter(file, Some(Path::new("/home/me/project")));

        assert_eq!(short("/rustc/0123abc/library/alloc/src/vec/mod.rs"), "rust/library/alloc/src/vec/mod.rs");
        assert_eq!(
            short("/root/.cargo/registry/src/index.crates.io-1/serde-1.0/src/lib.rs"),
            "crates/serde-1.0/src/lib.rs"
        );
        assert_eq!(short("/home/me/project/src/main.rs"), "src/main.rs");
        assert_eq!(short("/home/me/project-two/main.c"), "/home/me/project-two/main.c");
    }

    #[test]
    fn a_name_loses_its_hash_and_nothing_else() {
        assert_eq!(without_hash("core::ptr::write::h0123456789abcdef"), "core::ptr::write");
        assert_eq!(without_hash("my::h0123"), "my::h0123");
    }
}
