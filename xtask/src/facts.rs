//! Protections of which memory may say nothing, because without them something else is not as it was: a flag in smaps, a
//! fault that does not come, an errno, a core where none may be, a register, an account, a record or an answer.
//!
//! The library's tests ask for it, mostly the kernel. Here one protection is taken out, or what another store did is put in, and
//! the tests that ask for it must fail, and no other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::child;
use crate::failure::Failure;
use crate::workspace::{self, Workspace};

/// A program of the library's tests: what fails in any that is run for an ablation must be of that ablation.
struct Program {
    /// Its file in `secmem/tests/`, or [`UNITS`].
    name: &'static str,
    /// Features of the library beside the default ones, separated by spaces.
    features: &'static str,
    /// How the ablations begin that it is run for. With those of the memory's controls more of most programs fails than is told
    /// here, and some take long.
    prefixes: &'static [&'static str],
}

/// The tests within the library.
const UNITS: &str = "lib";

/// All that are run.
const PROGRAMS: [Program; 15] = [
    Program { name: "harden", features: "", prefixes: &[""] },
    Program { name: "kernel", features: "", prefixes: &[""] },
    Program { name: "lifetimes", features: "", prefixes: &[""] },
    Program { name: "terminal", features: "", prefixes: &[""] },
    Program { name: "types", features: "", prefixes: &[""] },
    // It looks at registers, and stops at each instruction.
    Program { name: "constant_time", features: "", prefixes: &["eq-"] },
    Program { name: "coffer", features: "", prefixes: &["coffer-"] },
    Program { name: "manager", features: "manager", prefixes: &["manager-"] },
    Program { name: UNITS, features: "manager", prefixes: &["manager-", "settings-"] },
    Program { name: "records", features: "records", prefixes: &["records-"] },
    Program { name: "pqc", features: "pqc", prefixes: &["pqc-"] },
    Program { name: "journal", features: "journal pqc", prefixes: &["journal-"] },
    Program { name: "http", features: "http", prefixes: &["http-"] },
    Program { name: "vault", features: "vault", prefixes: &["vault-"] },
    Program { name: "redact", features: "redact-log redact-tracing", prefixes: &["redact-"] },
];

/// An ablation, and all the tests that must fail without the protection.
pub(crate) const FACTS: &[(&str, &[&str])] = &[
    ("coffer-extract", &[WRONG_BIT]),
    (
        // One of zeros is extracted to zeros, whatever the first of its bytes are.
        "coffer-pre-key",
        &[WRONG_BIT, "what_one_coffer_stored_is_nothing_to_another", OLD_PRE_KEY],
    ),
    ("coffer-rekey", &[OLD_PRE_KEY]),
    ("coffer-salt", &["equal_contents_have_neither_salt_nor_ciphertext_in_common"]),
    ("damage-dump", &["damage_beside_a_secret_ends_the_process_without_a_core"]),
    ("descriptor-close", &["no_descriptor_to_secret_memory_stays_open"]),
    ("dont-dump", &["the_kernel_confirms_every_arena", SEALED, UNCLOSED]),
    (
        "dont-fork",
        &[
            "the_kernel_confirms_every_arena",
            "the_parent_keeps_its_secret_while_the_child_cannot_load_it",
            SEALED,
            UNCLOSED,
        ],
    ),
    ("eq-clear", &["no_register_follows_what_is_compared"]),
    ("guard-after", &["a_read_past_the_arena_ends_the_process", MAPPINGS, SEALED, UNCLOSED]),
    ("guard-before", &["a_read_before_the_arena_ends_the_process", MAPPINGS, SEALED, UNCLOSED]),
    ("harden-dumpable", &["a_process_of_the_same_user_reads_before_and_not_after"]),
    ("harden-filter", &["the_kernel_says_what_was_set"]),
    ("harden-limit", &["the_kernel_says_what_was_set"]),
    (
        "lock",
        &[
            "a_long_secret_gives_its_lock_budget_back",
            "a_used_up_lock_budget_is_an_error_and_frees_with_the_secrets",
            "the_kernel_confirms_every_arena",
            "without_a_lock_budget_there_is_an_error_that_names_the_call",
            SEALED,
            UNCLOSED,
        ],
    ),
    (
        "http-list",
        &[
            "a_header_of_somebody_who_is_no_proxy_changes_nothing",
            "a_network_lets_in_what_lies_in_it",
            "an_address_of_ipv4_that_comes_as_ipv6_is_the_same_address",
            "an_address_off_the_list_gets_403_whatever_it_asks_for",
            "behind_a_proxy_the_address_that_it_names_counts",
            "each_request_is_counted_once_whatever_comes_of_it",
            "without_a_list_the_machine_itself_is_let_in_and_an_empty_list_lets_nobody_in",
        ],
    ),
    ("http-proxy", &["a_header_of_somebody_who_is_no_proxy_changes_nothing"]),
    (
        "http-status",
        &[
            "the_status_follows_what_the_kernel_says",
            "what_was_asked_for_and_is_not_there_is_a_warning",
            "where_there_is_nothing_to_be_seen_nothing_is_called_secure",
        ],
    ),
    ("journal-chain", &["lines_that_are_removed_repeated_or_moved_are_told", "the_chain_is_what_the_format_says"]),
    (
        "journal-sign",
        &["every_changed_byte_is_told_at_its_line", "who_writes_all_anew_is_found_out_by_a_signature_or_a_head"],
    ),
    (
        "manager-capacity",
        &[
            "a_comparison_goes_by_the_data_and_not_by_the_capacity",
            "a_hash_is_that_of_the_data_and_not_of_the_capacity",
        ],
    ),
    ("manager-length", &["manager::compare::tests::as_many_bytes_are_read_whatever_they_are_and_however_many_count"]),
    (
        "manager-limit",
        &["manager::settings::tests::what_does_not_parse_is_an_error_that_names_the_variable_and_not_its_value"],
    ),
    ("manager-owner", &["another_token_reaches_nothing_and_is_counted"]),
    ("manager-revive", &["manager::buffer::tests::an_access_ahead_of_the_thread_of_the_deadlines_revives_nothing"]),
    (
        "manager-sweep",
        &[
            "a_buffer_that_rests_is_wiped_exactly_at_its_time_and_not_revived",
            "a_drawn_name_is_given_again_when_it_is_free_and_not_before_it_is_drawn",
            "a_name_whose_buffer_has_expired_can_be_given_again",
            "manager::buffer::tests::an_access_ahead_of_the_thread_of_the_deadlines_revives_nothing",
            "of_two_that_are_compared_the_one_that_is_over_ends_and_not_the_other",
            "ten_thousand_buffers_that_are_due_at_once_all_end",
            "use_puts_the_time_out_off_and_looking_at_metadata_does_not",
        ],
    ),
    ("pqc-ratchet", &["a_base_secret_is_in_arenas_alone_and_gone_after_the_ratchet"]),
    // What was kept was made by a build that had not published it.
    ("pqc-secret", &["no_record_holds_what_opens_it", "records_that_were_kept_are_read"]),
    ("quota", &["an_owner_holds_what_it_may_and_no_more"]),
    (
        "reseal",
        &[
            "a_batch_opens_and_closes_once_for_all_its_reads",
            "a_panic_within_closes_the_memory",
            "a_refused_access_closes_the_memory_too",
            "a_stray_read_between_accesses_and_a_stray_write_in_a_read_end_the_process",
            "of_two_readers_the_first_to_end_does_not_close_on_the_other",
            SEALED,
            UNCLOSED,
        ],
    ),
    ("records-replay", &["a_record_is_decrypted_once_and_what_cannot_be_remembered_is_refused"]),
    (
        "records-retire",
        &[
            "a_key_encrypts_a_day_then_decrypts_a_week_and_then_is_wiped",
            "a_key_that_was_revoked_or_is_over_is_wiped_while_its_keyring_goes_on",
        ],
    ),
    ("records-revoke", &["a_key_that_was_revoked_or_is_over_is_wiped_while_its_keyring_goes_on"]),
    (
        "records-window",
        &[
            "a_wrapped_key_opens_elsewhere_what_it_has_encrypted",
            "every_changed_bit_is_refused_and_says_nothing_of_the_content",
            "records_of_an_independent_implementation_are_read",
            "the_window_goes_by_the_authenticated_time",
        ],
    ),
    (
        "redact-hold",
        &[
            "a_question_comes_out_whole_at_a_flush",
            "a_secret_that_flushes_cut_anywhere_does_not_come_out",
            "any_text_with_any_secret_at_any_split",
            "every_form_of_a_secret_is_redacted_between_other_text",
            "every_split_of_every_form_is_as_one_piece",
            "names_and_long_words_are_rules_for_whoever_asks",
            "writers_for_a_layer_of_others_redact",
        ],
    ),
    (
        "redact-off",
        &[
            "a_label_and_a_secret_in_two_arguments",
            "a_layer_writes_events_and_spans_without_the_secrets",
            "a_logger_gets_messages_targets_and_pairs_without_the_secrets",
            "a_question_comes_out_whole_at_a_flush",
            "a_reading_that_was_plain_for_long_goes_on_with_the_next_escape",
            "a_second_panic_is_told_by_what_is_registered_then",
            "a_secret_that_flushes_cut_anywhere_does_not_come_out",
            "a_secret_that_is_not_registered_or_no_longer_is_comes_through",
            "after_a_purge_nothing_comes_through",
            "any_text_with_any_secret_at_any_split",
            "arrays_as_a_console_prints_them",
            "errors_and_their_causes",
            "every_form_of_a_secret_is_redacted_between_other_text",
            "every_split_of_every_form_is_as_one_piece",
            "fragments_of_twelve_bytes_are_redacted_and_shorter_ones_are_not",
            "many_secrets_are_known_and_a_table_that_grows_forgets_none",
            "matches_are_counted_with_their_forms",
            "neither_english_nor_noise_is_taken_for_a_secret",
            "nested_objects_and_debug_prints",
            "the_message_of_a_panic_is_redacted_and_secrets_are_purged_in_either_order",
            "the_switch_is_for_development_counted_and_ends_with_its_scope",
            "what_cannot_be_told_from_chance_is_refused",
            "what_the_other_writer_refuses_is_kept_and_told_and_comes_once",
            "writers_for_a_layer_of_others_redact",
            "zeros_within_a_secret_are_no_secret_by_themselves",
        ],
    ),
    (
        "redact-panic",
        &[
            "a_second_panic_is_told_by_what_is_registered_then",
            "the_message_of_a_panic_is_redacted_and_secrets_are_purged_in_either_order",
        ],
    ),
    (
        "redact-remove",
        &[
            "a_secret_that_is_not_registered_or_no_longer_is_comes_through",
            "many_secrets_are_known_and_a_table_that_grows_forgets_none",
        ],
    ),
    ("settings-fallback", &["manager::settings::tests::production_needs_both_secrets_and_development_none"]),
    (
        "terminal-restore",
        &[
            "a_fault_of_another_thread_leaves_the_terminal_as_before",
            "a_handler_of_the_application_finds_the_terminal_as_before",
            "a_handler_that_returns_ends_the_question_or_lets_it_go_on",
            "a_purge_that_is_installed_during_a_question_and_the_next_question_do_not_call_each_other_for_ever",
            "a_stop_gives_the_terminal_back_and_the_question_is_asked_again",
            "an_abort_of_another_thread_leaves_the_terminal_as_before",
            "the_key_that_quits_ends_the_process_and_the_terminal_is_as_before",
            "the_terminal_is_as_before_after_an_answer",
            "the_terminal_is_as_before_after_each_key_that_ends",
            "the_terminal_is_as_before_when_a_signal_ends_the_process",
            "what_is_too_long_is_an_error_and_nothing_of_it_is_left_to_read",
        ],
    ),
    (
        "unmap",
        &["a_long_secret_gives_its_lock_budget_back", "a_used_up_lock_budget_is_an_error_and_frees_with_the_secrets"],
    ),
    (
        "vault-deadline",
        &["a_callback_that_does_not_return_has_zeros_at_its_deadline", "a_waker_that_panics_keeps_nobody_waiting"],
    ),
    ("vault-display", &["nothing_turns_it_into_text_or_a_copy"]),
    ("vault-filter", &["the_worker_is_closed_up"]),
    ("vault-lent", &["a_callback_that_panics_leaves_nothing_and_the_vault_goes_on"]),
    (
        "vault-password",
        &[
            "a_callback_can_fail_return_a_secret_and_be_text",
            "a_callback_on_a_protected_stack",
            "a_callback_that_does_not_return_has_zeros_at_its_deadline",
            "a_callback_that_panics_leaves_nothing_and_the_vault_goes_on",
            "a_dead_worker_fails_every_call_at_once_and_is_restarted",
            "a_forked_child_has_no_vault",
            "a_future_is_over_at_its_deadline_though_it_never_wakes",
            "a_line_a_pipe_and_a_file_go_to_the_worker",
            "a_password_is_lent_and_wiped_on_both_sides",
            "a_secret_that_has_ended_is_one_call_s_own_error",
            "a_terminal_asks_in_the_worker",
            "a_waker_that_panics_keeps_nobody_waiting",
            "an_answer_that_comes_too_late_ends_nothing_else",
            "every_algorithm_works_that_this_build_has",
            "futures_wait_without_a_runtime_and_are_given_up",
            "it_works_on_mlock",
            "keys_derive_unwrap_and_sign",
            "many_calls_at_once_have_slots_of_their_own",
            "nothing_is_shown",
            "nothing_turns_it_into_text_or_a_copy",
            "passwords_of_all_lengths_and_too_long",
            "text_stays_as_it_is_until_its_callback_returns",
            "the_arena_can_be_full",
            "without_keys_or_password_there_is_an_error",
        ],
    ),
    (
        "vault-read",
        &[
            "a_line_a_pipe_and_a_file_go_to_the_worker",
            "a_terminal_asks_in_the_worker",
            "a_worker_that_asks_ends_with_its_caller",
            "a_worker_that_is_killed_while_it_asks_leaves_the_terminal_as_it_was",
            "stop_fails_what_waits_and_what_comes",
        ],
    ),
    (
        "vault-throws",
        &[
            "a_callback_can_fail_return_a_secret_and_be_text",
            "a_callback_on_a_protected_stack",
            "a_callback_that_does_not_return_has_zeros_at_its_deadline",
            "a_callback_that_panics_leaves_nothing_and_the_vault_goes_on",
            "a_dead_worker_fails_every_call_at_once_and_is_restarted",
            "a_forked_child_has_no_vault",
            "a_future_is_over_at_its_deadline_though_it_never_wakes",
            "a_line_a_pipe_and_a_file_go_to_the_worker",
            "a_password_is_lent_and_wiped_on_both_sides",
            "a_secret_that_has_ended_is_one_call_s_own_error",
            "a_stopped_worker_costs_a_deadline_and_is_killed",
            "a_terminal_asks_in_the_worker",
            "a_waker_that_panics_keeps_nobody_waiting",
            "an_answer_that_comes_too_late_ends_nothing_else",
            "every_algorithm_works_that_this_build_has",
            "futures_wait_without_a_runtime_and_are_given_up",
            "it_works_on_mlock",
            "keys_derive_unwrap_and_sign",
            "many_calls_at_once_have_slots_of_their_own",
            "nothing_is_shown",
            "nothing_turns_it_into_text_or_a_copy",
            "passwords_of_all_lengths_and_too_long",
            "the_arena_can_be_full",
            "without_keys_or_password_there_is_an_error",
        ],
    ),
    (
        "wipe-on-fork",
        &[
            "a_forked_child_gets_an_error_and_ends_normally",
            "a_forked_child_is_refused_sealed_memory_and_ends_normally",
            "a_forked_child_that_a_signal_ends_leaves_its_parents_question_alone",
            SEALED,
            UNCLOSED,
        ],
    ),
];

/// Asks whether all of the pre-key is used.
const WRONG_BIT: &str = "a_wrong_bit_anywhere_in_the_pre_key_opens_nothing";

/// Asks what a new pre-key is for.
const OLD_PRE_KEY: &str = "what_was_stored_under_an_old_pre_key_is_nothing_to_the_new_one";

/// Counts mappings, of which a guard that is none makes one more.
const MAPPINGS: &str = "ten_thousand_secrets_take_few_mappings";

/// Asks the kernel to confirm sealed memory.
const SEALED: &str = "sealed_memory_is_open_while_it_is_accessed_and_for_no_more_than_that";

/// Asks it for what sealed memory lacks, which is one thing and no other.
const UNCLOSED: &str = "memory_that_cannot_be_opened_or_closed_is_an_error_and_is_counted";

/// The tests that ask for what an ablation takes out.
pub(crate) fn of(ablation: &str) -> Option<&'static [&'static str]> {
    FACTS.iter().find(|(name, _)| *name == ablation).map(|(_, tests)| *tests)
}

/// The programs of tests that are run for any of these ablations.
fn programs(ablations: &[&str]) -> Vec<&'static Program> {
    let is_of = |prefix: &&str| ablations.iter().any(|ablation| ablation.starts_with(prefix));
    PROGRAMS.iter().filter(|program| program.prefixes.iter().any(is_of)).collect()
}

/// Runs the tests of the library, those for any of `ablations`, as `wrapper` builds it; the names of those that fail.
///
/// # Errors
///
/// They cannot be built or run, or a program of theirs says nothing that can be read.
pub(crate) fn failing(
    workspace: &Workspace,
    wrapper: Option<&Path>,
    ablations: &[&str],
) -> Result<BTreeSet<String>, Failure> {
    let mut failed = BTreeSet::new();
    let wanted = programs(ablations);
    if wanted.is_empty() {
        return Ok(failed); // without a name cargo would build all of them
    }
    for program in build(workspace, wrapper, &wanted)? {
        let doing = || format!("running {}", program.display());
        let mut tests = Command::new(&program);
        // Where cargo would run it. What the failing tests print is wanted to fail.
        tests.current_dir(workspace.root.join("secmem")).stderr(Stdio::null());
        let output = tests.output().map_err(|error| Failure::because(doing(), error))?;
        if !matches!(output.status.code(), Some(0 | 101)) {
            return Err(Failure::internal(format!("{} {}", doing(), child::ended(output.status))));
        }
        failed.extend(read(&String::from_utf8_lossy(&output.stdout)).map_err(|why| Failure::because(doing(), why))?);
    }
    Ok(failed)
}

fn build(workspace: &Workspace, wrapper: Option<&Path>, wanted: &[&Program]) -> Result<Vec<PathBuf>, Failure> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&workspace.root);
    cargo.args(["test", "--locked", "--package", "secmem", "--no-run", "--message-format=json-render-diagnostics"]);
    for program in wanted {
        match program.name {
            UNITS => cargo.arg("--lib"),
            name => cargo.args(["--test", name]),
        };
        cargo.args(["--features", program.features]);
    }
    if let Some(wrapper) = wrapper {
        cargo.env("RUSTC_WORKSPACE_WRAPPER", wrapper);
    }
    let programs = workspace::executables(&workspace::messages(cargo)?)?;
    if programs.len() == wanted.len() {
        Ok(programs.into_iter().map(|(_, path)| path).collect())
    } else {
        Err(Failure::internal(format!("the tests of secmem are {} programs", programs.len())))
    }
}

/// The tests that failed, in what a program of tests prints.
fn read(text: &str) -> Result<BTreeSet<String>, &'static str> {
    if !text.lines().any(|line| line.starts_with("test result: ")) {
        return Err("it did not get to its end");
    }
    let failed = |line: &str| Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.trim_end().to_owned());
    Ok(text.lines().filter_map(failed).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_tests_are_read_and_half_a_run_is_an_error() {
        let text = "running 2 tests\ntest one ... ok\ntest two ... FAILED\n\ntest result: FAILED. 1 passed\n";

        assert_eq!(read(text).unwrap(), ["two".to_owned()].into());
        assert!(read("test two ... FAILED\n").is_err());
    }

    /// The texts in quotation marks, up to a bracket that ends them.
    fn quoted(text: &str, up_to: char) -> BTreeSet<String> {
        let (list, _) = text.split_once(up_to).expect("an end");
        list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    }

    /// Everything that the sources below `dir` have a compiler leave out.
    fn used(dir: &Path) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for entry in std::fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                names.extend(used(&path));
            } else {
                let text = std::fs::read_to_string(path).expect("a source");
                let after = text.split("secmem_ablate = \"").skip(1);
                names.extend(after.map(|rest| rest.split('"').next().unwrap_or_default().to_owned()));
            }
        }
        names
    }

    #[test]
    fn what_the_manifest_declares_the_library_leaves_out_and_a_row_or_a_fact_notices() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let read = |path| std::fs::read_to_string(root.join(path)).expect("a file");
        let (manifest, catalogue) = (read("Cargo.toml"), read("scenarios/src/catalog.rs"));
        let (_, values) = manifest.split_once("cfg(secmem_ablate, values(").expect("what may be left out");
        let declared = quoted(values, ')');
        // A test of the catalogue holds this list against what its rows name.
        let (_, list) = catalogue.split_once("const ABLATIONS: ").expect("what rows name");
        let (_, list) = list.split_once("= [").expect("a list");
        let mut noticed = quoted(list, ']');
        noticed.extend(FACTS.iter().map(|(ablation, _)| (*ablation).to_owned()));
        noticed.insert(crate::schedules::STEPS.to_owned()); // takes nothing out

        assert!(declared.len() > 30, "{declared:?}");
        assert_eq!(declared, noticed);
        assert_eq!(declared, used(&root.join("secmem/src")));
    }

    /// All sources below `dir`.
    fn sources(dir: &Path) -> String {
        let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
        let text = |path: PathBuf| match path.is_dir() {
            true => sources(&path),
            false => std::fs::read_to_string(path).expect("a source"),
        };
        entries.map(text).collect()
    }

    #[test]
    fn every_fact_is_a_test_of_the_library() {
        let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../secmem");
        let source = |program: &Program| match program.name {
            UNITS => sources(&library.join("src")),
            name => {
                let program = library.join("tests").join(name);
                // A program of several files is a directory.
                if program.is_dir() {
                    sources(&program)
                } else {
                    std::fs::read_to_string(program.with_extension("rs")).expect("a source")
                }
            }
        };

        for (ablation, tests) in FACTS {
            assert!(!tests.is_empty(), "{ablation}");
            let text: String = programs(&[ablation]).into_iter().map(source).collect();
            for test in *tests {
                let name = test.rsplit("::").next().unwrap_or_default(); // those within the library have a path
                assert!(text.contains(&format!("fn {name}(")), "{ablation}: {test}");
            }
        }
    }

    #[test]
    fn every_program_is_run_for_an_ablation() {
        for program in &PROGRAMS {
            let is_run = |(ablation, _): &(&str, _)| programs(&[ablation]).iter().any(|it| it.name == program.name);
            assert!(FACTS.iter().any(is_run), "{}", program.name);
        }
    }
}
