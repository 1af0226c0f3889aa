//! Unsafe code lives in the rooms that ARCHITECTURE.md lists, and nowhere else.

mod architecture;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Whether an attribute in this text switches `unsafe_code` off for a module or an item.
fn allows_unsafe(text: &str) -> bool {
    // An attribute starts a line and ends with the first closing bracket, here or some lines on.
    let attributes = text.split('\n').scan(0, |start, line| {
        let from = *start;
        *start += line.len() + 1;
        Some((from, line.trim_start()))
    });
    attributes.filter(|(_, line)| line.starts_with("#[") || line.starts_with("#![")).any(|(from, _)| {
        let attribute = text[from..].split(']').next().unwrap_or_default();
        attribute.contains("unsafe_code") && (attribute.contains("allow") || attribute.contains("expect"))
    })
}

/// Every file of ours that allows unsafe code, from the root.
fn files_that_allow() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let root = architecture::root();
    let mut dirs = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && allows_unsafe(&fs::read_to_string(&path).unwrap())
            {
                found.insert(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// The rooms on the page: a file, or a directory with a slash at its end.
fn rooms() -> BTreeSet<String> {
    let rows = architecture::table("| room | why nothing safe would do |");
    rows.iter().flat_map(|[room, _]| architecture::names(room)).map(str::to_owned).collect()
}

fn holds(room: &str, file: &str) -> bool {
    if room.ends_with('/') { file.starts_with(room) } else { file == room }
}

#[test]
fn unsafe_code_is_allowed_in_the_listed_rooms_alone() {
    let rooms = rooms();

    let elsewhere: Vec<_> =
        files_that_allow().into_iter().filter(|file| !rooms.iter().any(|room| holds(room, file))).collect();

    assert!(elsewhere.is_empty(), "not listed in ARCHITECTURE.md: {elsewhere:?}");
}

#[test]
fn every_listed_room_exists_and_needs_its_place() {
    let files = files_that_allow();

    for room in rooms() {
        assert!(Path::new(&architecture::root()).join(&room).exists(), "{room} does not exist");
        assert!(files.iter().any(|file| holds(&room, file)), "{room} allows no unsafe code");
    }
}

#[test]
fn an_attribute_is_seen_in_each_of_its_forms_and_a_mention_is_not() {
    for text in [
        "#![allow(unsafe_code)]",
        "//! Text.\n#![allow(unsafe_code)] // why",
        "    #[allow(unsafe_code)]\n    mod sys;",
        "#[expect(\n    dead_code,\n    unsafe_code,\n)]\nmod sys;",
        "#![cfg_attr(test, allow(unsafe_code))]",
    ] {
        assert!(allows_unsafe(text), "{text}");
    }
    for text in ["// #![allow(unsafe_code)]", "let x = \"#[allow(unsafe_code)]\";", "#![deny(unsafe_code)]", ""] {
        assert!(!allows_unsafe(text), "{text}");
    }
}
