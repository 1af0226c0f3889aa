//! A question at a terminal: what is typed is not shown, arrives whole, and the terminal is put back at every ending.
//!
//! Each test runs a child at a terminal of its own, types as a person would, and looks at what the terminal is set to.

mod common;

use common::terminal::{Session, at_terminal};
use secmem::input::{InputError, Prompt};
use secmem::{Error, Secret, Text, purge};

const QUESTION: &str = "Password: ";

fn ask(prompt: Prompt<'_>) -> Result<Text, Error> {
    prompt.ask(Secret::options())
}

/// Prints what came of the question.
fn tell(answer: Result<Text, Error>) {
    match answer {
        Ok(text) => println!("<{}>", text.expose_to_string().unwrap()),
        Err(error) => println!("<{error}>"),
    }
}

fn question() -> Prompt<'static> {
    Prompt::new(QUESTION)
}

/// Waits for the question, sees that nothing typed is shown from here on, and types.
fn answer(session: &mut Session, text: impl AsRef<[u8]>) {
    session.shows(QUESTION);
    assert!(!session.modes().0.shows_what_is_typed());
    session.types(text);
}

/// The child ends by itself; gives back what it printed between the brackets.
fn told(session: &mut Session) -> String {
    let status = session.status();
    let printed = session.printed();
    assert_eq!(status, 0, "{printed}");
    printed.split_once('<').unwrap().1.rsplit_once('>').unwrap().0.to_owned()
}

#[test]
fn the_terminal_is_as_before_after_an_answer() {
    let mut session = at_terminal(0, |_| tell(ask(question())));
    answer(&mut session, "sésamß€\x7F\x7F!\n");

    assert_eq!(told(&mut session), "sésam!");
    session.assert_as_before("after an answer");
    assert_eq!(session.shows("\n"), "\r\n", "something of it was shown");
}

#[test]
fn a_child_that_is_killed_leaves_another_terminal() {
    // What the other tests look at can be otherwise.
    let mut session = at_terminal(0, |_| tell(ask(question())));
    session.shows(QUESTION);
    session.signal(libc::SIGKILL);
    session.status();

    let (now, before) = session.modes();
    assert_ne!(now, before);
}

#[test]
fn the_terminal_is_as_before_after_each_key_that_ends() {
    for (typed, expected) in [
        ("abc\x03", InputError::Interrupted.to_string()),
        ("\x04", InputError::Nothing.to_string()),
        ("abc\x04", "abc".to_owned()),
        ("abc\x15xyz\n", "xyz".to_owned()),
        ("\n", String::new()),
    ] {
        let mut session = at_terminal(0, |_| tell(ask(question())));
        answer(&mut session, typed);

        assert_eq!(told(&mut session), expected, "{typed:?}");
        session.assert_as_before("after a key");
    }
}

#[test]
fn what_is_too_long_is_an_error_and_nothing_of_it_is_left_to_read() {
    let mut session = at_terminal(0, |_| tell(ask(question().limit(5))));
    answer(&mut session, format!("{}\nrm -r all\n", "x".repeat(3000)));

    assert_eq!(told(&mut session), InputError::TooLong { limit: 5 }.to_string());
    assert_eq!(session.left_to_read(), 0);
    session.assert_as_before("after too much");
}

#[test]
fn a_paste_of_several_lines_gives_the_first() {
    let mut session = at_terminal(0, |_| tell(ask(question())));
    answer(&mut session, "first\nsecond\nthird");

    assert_eq!(told(&mut session), "first");
    assert_eq!(session.left_to_read(), 0);
}

#[test]
fn masks_are_shown_for_characters_and_taken_away() {
    let mut session = at_terminal(0, |_| tell(ask(question().mask('*'))));
    answer(&mut session, "aß€\x7F\n");

    assert_eq!(told(&mut session), "aß");
    assert_eq!(session.shows("\n"), "***\u{8} \u{8}\r\n");
}

#[test]
fn the_terminal_is_as_before_when_a_signal_ends_the_process() {
    let signals =
        [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGALRM, libc::SIGUSR1, libc::SIGABRT];
    for signal in signals {
        for purges in [0, 1] {
            let mut session = at_terminal(purges, |purges| {
                if purges == 1 {
                    purge::install(&purge::Plan::default()).unwrap();
                }
                tell(ask(question().mask('*')));
            });
            answer(&mut session, "half of i");
            session.shows("*********"); // whoever is at work when the purge comes gets an error, and may end the process with it
            session.signal(signal);

            let status = session.status();
            assert!(libc::WIFSIGNALED(status), "signal {signal}: {status:#x}");
            assert_eq!(libc::WTERMSIG(status), signal);
            session.assert_as_before(&format!("after signal {signal}"));
            assert_eq!(session.left_to_read(), 0);
        }
    }
}

#[test]
fn the_key_that_quits_ends_the_process_and_the_terminal_is_as_before() {
    let mut session = at_terminal(0, |_| tell(ask(question())));
    answer(&mut session, "abc\x1C");

    let status = session.status();
    assert_eq!((libc::WIFSIGNALED(status), libc::WTERMSIG(status)), (true, libc::SIGQUIT));
    session.assert_as_before("after Ctrl-\\");
}

#[test]
fn an_abort_of_another_thread_leaves_the_terminal_as_before() {
    let mut session = at_terminal(0, |_| {
        common::set_handler(libc::SIGUSR2, abort as *const () as usize, 0);
        tell(ask(question()));
    });
    extern "C" fn abort(_: i32) {
        std::process::abort();
    }
    answer(&mut session, "abc");
    session.signal(libc::SIGUSR2);

    let status = session.status();
    assert_eq!((libc::WIFSIGNALED(status), libc::WTERMSIG(status)), (true, libc::SIGABRT));
    session.assert_as_before("after an abort");
}

#[test]
fn a_fault_of_another_thread_leaves_the_terminal_as_before() {
    let mut session = at_terminal(0, |_| {
        std::thread::spawn(|| {
            while common::terminal_shows(0) {
                std::thread::yield_now();
            }
            common::touch(std::ptr::without_provenance(8)); // nothing is ever mapped there
        });
        tell(ask(question()));
    });

    let status = session.status();
    assert_eq!((libc::WIFSIGNALED(status), libc::WTERMSIG(status)), (true, libc::SIGSEGV));
    session.assert_as_before("after a fault");
}

#[test]
fn a_handler_of_the_application_finds_the_terminal_as_before() {
    extern "C" fn look(_: i32) {
        common::exit_now(if common::terminal_shows(0) { 40 } else { 41 });
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGTSTP] {
        let mut session = at_terminal(signal, |signal| {
            common::set_handler(signal, look as *const () as usize, 0);
            tell(ask(question()));
        });
        answer(&mut session, "abc");
        session.signal(signal);

        assert_eq!(libc::WEXITSTATUS(session.status()), 40, "signal {signal}");
        session.assert_as_before("after a handler");
    }
}

#[test]
fn a_handler_that_returns_ends_the_question_or_lets_it_go_on() {
    extern "C" fn nothing(_: i32) {}
    let ended = [(libc::SIGTERM, InputError::Interrupted.to_string())];
    for (signal, expected) in [libc::SIGUSR1, libc::SIGIO, libc::SIGRTMIN()]
        .map(|signal| (signal, "abcdef".to_owned()))
        .into_iter()
        .chain(ended)
    {
        let mut session = at_terminal(signal, |signal| {
            common::set_handler(signal, nothing as *const () as usize, 0);
            let before = common::handler_of(signal);
            tell(ask(question().mask('*')));
            assert_eq!(common::handler_of(signal), before);
        });
        answer(&mut session, "abc");
        session.shows("***");
        session.signal(signal);
        if signal != libc::SIGTERM {
            session.types("def\n");
        }

        assert_eq!(told(&mut session), expected, "signal {signal}");
        session.assert_as_before("after a handler that returns");
    }
}

#[test]
fn a_purge_that_is_installed_during_a_question_and_the_next_question_do_not_call_each_other_for_ever() {
    let mut session = at_terminal(0, |_| {
        let asked = std::thread::spawn(|| ask(question().mask('*')));
        while common::handler_of(libc::SIGTERM) == libc::SIG_DFL {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        secmem::purge::install(&secmem::purge::Plan::default()).unwrap();
        std::fs::write("/dev/tty", "installed").unwrap();
        assert!(asked.join().unwrap().is_ok());
        tell(ask(question().mask('+')));
    });
    if !session.shows("installed").contains(QUESTION) {
        session.shows(QUESTION); // it is asked after its handlers stand
    }
    session.types("abc\n");
    answer(&mut session, "def");
    session.shows("+++");

    session.signal(libc::SIGTERM);

    let status = session.status();
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGTERM, "{status:#x}");
    session.assert_as_before("of a process that was ended in its second question");
}

#[test]
fn a_forked_child_that_a_signal_ends_leaves_its_parents_question_alone() {
    for purges in [0, 1] {
        let mut session = at_terminal(purges, |purges| {
            if purges == 1 {
                purge::install(&purge::Plan::default()).unwrap();
            }
            std::thread::spawn(|| {
                while common::terminal_shows(0) {
                    std::thread::yield_now();
                }
                let status = common::fork(|| {
                    common::raise(libc::SIGTERM);
                    0
                });
                assert_eq!((libc::WIFSIGNALED(status), libc::WTERMSIG(status)), (true, libc::SIGTERM));
                std::fs::write("/dev/tty", "forked").unwrap();
            });
            tell(ask(question()));
        });
        if !session.shows("forked").contains(QUESTION) {
            session.shows(QUESTION);
        }
        assert!(!session.modes().0.shows_what_is_typed());
        session.types("abc\n");

        assert_eq!(told(&mut session), "abc");
    }
}

#[test]
fn a_stop_gives_the_terminal_back_and_the_question_is_asked_again() {
    for by_key in [true, false] {
        let mut session = at_terminal(0, |_| tell(ask(question().mask('*'))));
        answer(&mut session, "abc");
        session.shows("***");
        if by_key {
            session.types("\x1A");
        } else {
            session.signal(libc::SIGTSTP);
        }

        let status = session.status();
        assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTSTP, "{status:#x}");
        session.assert_as_before("of a stopped process");

        session.signal(libc::SIGCONT);
        session.shows(&format!("{QUESTION}***"));
        assert!(!session.modes().0.shows_what_is_typed());
        session.types("def\n");
        assert_eq!(told(&mut session), "abcdef");
        session.assert_as_before("after an answer that was interrupted");
    }
}

#[test]
fn without_a_terminal_there_is_an_error_that_says_how_to_feed_it() {
    let ended = common::in_child(|| {
        common::leave_session();
        let error = ask(question()).unwrap_err();
        assert!(matches!(error, Error::Input(InputError::NoTerminal { .. })), "{error:?}");
        assert!(error.to_string().contains("standard input"));
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn what_is_no_terminal_is_refused() {
    let null = std::fs::File::open("/dev/null").unwrap();
    let error = question().ask_at(Secret::options(), std::os::fd::AsFd::as_fd(&null)).unwrap_err();

    assert!(matches!(error, Error::Input(InputError::Terminal { call: "tcgetattr", .. })), "{error:?}");
}
