//! What a program takes from its environment, or sets by hand: limits, secrets, and who may ask.
//!
//! A value that does not parse is an error, and so is a missing secret in production: nothing falls back to a default that
//! nobody chose. Errors name the variable and never its value.

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use super::config::{Config, MOST_BUFFERS};
use super::network::AllowList;
use crate::bytes::Bytes;
use crate::ct;
use crate::error::Error as MemoryError;
use crate::input::InputError;
use crate::policy::Policy;
use crate::secret::Secret;

/// `production`, which counts if it is not set, or `development`.
pub const MODE: &str = "SECMEM_ENV";
/// How many buffers may live; 100 if it is not set.
pub const MAX_BUFFERS: &str = "MAX_SECURE_BUFFERS";
/// Milliseconds after which a buffer that nobody uses is wiped; 300000 if it is not set.
pub const TIMEOUT: &str = "SECURE_BUFFER_TIMEOUT";
/// What keys are derived from: at least [`SHORTEST_SECRET`] bytes.
pub const BASE_SECRET: &str = "PQC_BASE_SECRET";
/// The salt of that: at least [`SHORTEST_SALT`] bytes.
pub const KEY_SALT: &str = "PQC_KEY_SALT";
/// Who may ask how things stand; the machine itself if it is not set.
pub const ADMINS: &str = "ADMIN_IP_WHITELIST";
/// Whose word counts for who asks; nobody's if it is not set.
pub const PROXIES: &str = "TRUSTED_PROXIES";

/// Bytes that a base secret has at least.
pub const SHORTEST_SECRET: usize = 32;
/// Bytes that a salt has at least.
pub const SHORTEST_SALT: usize = 16;
/// Bytes that either has at most.
pub const LONGEST_SECRET: usize = 65536;

/// Whether a program serves, or is being worked on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It serves.
    #[default]
    Production,
    /// It is being worked on: secrets may be missing, and there is more to try out.
    Development,
}

/// What the two secrets are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    /// Keys are derived from them.
    Derived,
    /// Nothing: the program derives no keys.
    None,
}

/// All of it. The secrets are in arenas.
#[derive(Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Whether the program serves.
    pub mode: Mode,
    /// For [`Manager::new`](super::Manager::new).
    pub config: Config,
    /// What keys are derived from; there always is one in production.
    pub base_secret: Option<Secret>,
    /// The salt of that; there always is one in production.
    pub key_salt: Option<Secret>,
    /// Who may ask how things stand.
    pub admins: AllowList,
    /// Whose word counts for who asks.
    pub proxies: AllowList,
}

/// Why there are no settings. Names a variable, and never its value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// Production needs it, and it is not set.
    #[error("{name} must be set in production")]
    Missing {
        /// The variable.
        name: &'static str,
    },
    /// It is set to something that it cannot be.
    #[error("{name} must be {rule}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// It could not be moved to an arena, and is in the environment still.
    ///
    /// [`InputError::Threads`]: the process has several threads.
    #[error("{name} could not be taken out of the environment")]
    Environment {
        /// The variable.
        name: &'static str,
        /// Why.
        source: MemoryError,
    },
}

impl Settings {
    /// For a program that serves, with both secrets; everything else as where nothing is set.
    ///
    /// # Errors
    ///
    /// [`SettingsError::Invalid`] if one of them is too short.
    pub fn production(base_secret: Secret, key_salt: Secret) -> Result<Self, SettingsError> {
        let base_secret = Some(long_enough(base_secret, BASE_SECRET, SHORTEST_SECRET, SECRET_RULE)?);
        let key_salt = Some(long_enough(key_salt, KEY_SALT, SHORTEST_SALT, SALT_RULE)?);
        Ok(Self { mode: Mode::Production, base_secret, key_salt, ..Self::development() })
    }

    /// For a program that is being worked on, without secrets; everything else as where nothing is set.
    #[must_use]
    pub fn development() -> Self {
        Self {
            mode: Mode::Development,
            config: Config::default(),
            base_secret: None,
            key_salt: None,
            admins: AllowList::loopback(),
            proxies: AllowList::default(),
        }
    }

    /// Reads the variables. The two secrets are moved to an arena, overwritten in the process's own block of variables, and
    /// removed from it, also if another variable turns out to be wrong.
    ///
    /// To be called first in `main`: the block is every thread's to read, so with several threads the secrets cannot be taken.
    /// What the parent process, a shell's history or a service manager's file knows of them is not reached from here.
    ///
    /// # Errors
    ///
    /// [`SettingsError`], at the first variable that is wrong.
    pub fn from_env() -> Result<Self, SettingsError> {
        Self::from_env_with(Policy::default())
    }

    /// [`from_env`](Self::from_env), and the secrets are kept in memory as `policy` says.
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env).
    pub fn from_env_with(policy: Policy) -> Result<Self, SettingsError> {
        Self::from_block(Keys::Derived, policy)
    }

    /// [`from_env`](Self::from_env) for a program that derives no keys: production does not need the two secrets either. Those
    /// that are set are taken all the same.
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env).
    pub fn from_env_without_keys() -> Result<Self, SettingsError> {
        Self::from_block(Keys::None, Policy::default())
    }

    fn from_block(keys: Keys, policy: Policy) -> Result<Self, SettingsError> {
        // What one part of a program takes for the first and another for the last is neither.
        let twice = |name: &&&str| std::env::vars_os().filter(|(it, _)| it == **name).count() > 1;
        let twice = [MODE, MAX_BUFFERS, TIMEOUT, ADMINS, PROXIES].iter().find(twice).copied();
        // Both, before anything can fail.
        let taken = (secret(BASE_SECRET, policy), secret(KEY_SALT, policy));
        let (base_secret, key_salt) = (taken.0?, taken.1?);
        if let Some(name) = twice {
            return Err(SettingsError::Invalid { name, rule: ONCE_RULE });
        }
        Self::read(keys, base_secret, key_salt, std::env::var_os)
    }

    fn read(
        keys: Keys,
        base_secret: Option<Secret>,
        key_salt: Option<Secret>,
        variable: impl Fn(&'static str) -> Option<OsString>,
    ) -> Result<Self, SettingsError> {
        let text = |name: &'static str, rule: &'static str| match variable(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(_)) => Err(SettingsError::Invalid { name, rule }),
        };
        let mode = match text(MODE, MODE_RULE)?.as_deref() {
            None | Some("production") => Mode::Production,
            Some("development") => Mode::Development,
            Some(_) => return Err(SettingsError::Invalid { name: MODE, rule: MODE_RULE }),
        };
        let number = |name: &'static str, rule: &'static str, most: u64| {
            let read = |text: String| {
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                let number = digits.then(|| text.parse().ok()).flatten();
                let number = number.filter(|number| (1..=most).contains(number));
                number
                    .or(cfg!(secmem_ablate = "manager-limit").then_some(most))
                    .ok_or(SettingsError::Invalid { name, rule })
            };
            text(name, rule)?.map(read).transpose()
        };
        let list = |name: &'static str, rule: &'static str| {
            let read = |text: String| AllowList::from_str(&text).map_err(|_| SettingsError::Invalid { name, rule });
            text(name, rule)?.map(read).transpose()
        };

        let mut config = Config::default();
        if let Some(most) = number(MAX_BUFFERS, BUFFERS_RULE, MOST_BUFFERS as u64)? {
            config = config.max_buffers(most as usize);
        }
        if let Some(millis) = number(TIMEOUT, TIMEOUT_RULE, u64::MAX)? {
            config = config.timeout(Duration::from_millis(millis));
        }
        let admins = list(ADMINS, LIST_RULE)?.unwrap_or_else(AllowList::loopback);
        let proxies = list(PROXIES, LIST_RULE)?.unwrap_or_default();
        let needed = |secret: Option<Secret>, name| match (secret, mode) {
            (None, Mode::Production) if keys == Keys::Derived && !cfg!(secmem_ablate = "settings-fallback") => {
                Err(SettingsError::Missing { name })
            }
            (secret, _) => Ok(secret),
        };
        let base_secret = needed(base_secret, BASE_SECRET)?;
        let key_salt = needed(key_salt, KEY_SALT)?;
        let base_secret =
            base_secret.map(|it| long_enough(it, BASE_SECRET, SHORTEST_SECRET, SECRET_RULE)).transpose()?;
        let key_salt = key_salt.map(|it| long_enough(it, KEY_SALT, SHORTEST_SALT, SALT_RULE)).transpose()?;
        Ok(Self { mode, config, base_secret, key_salt, admins, proxies })
    }
}

const MODE_RULE: &str = "production or development";
const BUFFERS_RULE: &str = "a whole number from 1 to 1048576";
const TIMEOUT_RULE: &str = "a whole number of milliseconds, 1 or more";
const ONCE_RULE: &str = "set once";
const LENGTH_RULE: &str = "at most 65536 bytes long";
const LIST_RULE: &str = "addresses and networks, separated by commas";
const SECRET_RULE: &str = "at least 32 bytes long";
const SALT_RULE: &str = "at least 16 bytes long";
const DRAWN_RULE: &str = "drawn at random, and not one byte over and over";

fn long_enough(
    secret: Secret,
    name: &'static str,
    shortest: usize,
    rule: &'static str,
) -> Result<Secret, SettingsError> {
    if secret.len() < shortest {
        return Err(SettingsError::Invalid { name, rule });
    }
    let alike = secret.with(|bytes| ct::eq(&bytes[1..], &bytes[..bytes.len() - 1]));
    match alike {
        Ok(true) => Err(SettingsError::Invalid { name, rule: DRAWN_RULE }),
        Ok(false) => Ok(secret),
        Err(source) => Err(SettingsError::Environment { name, source }),
    }
}

/// Moves a variable to an arena; `None` where it is not set.
fn secret(name: &'static str, policy: Policy) -> Result<Option<Secret>, SettingsError> {
    if std::env::var_os(name).is_none() {
        return Ok(None); // also where there are threads, which matter to what has to be taken out
    }
    match Secret::options().policy(policy).take_variable(name, usize::MAX) {
        Err(MemoryError::Input(InputError::NoVariable)) => Ok(None),
        // Too long, and out of the environment all the same.
        Ok(taken) if taken.len() > LONGEST_SECRET => Err(SettingsError::Invalid { name, rule: LENGTH_RULE }),
        taken => {
            taken.and_then(Bytes::into_secret).map(Some).map_err(|source| SettingsError::Environment { name, source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&'static str, &str)]) -> Result<Settings, SettingsError> {
        let secret = |len: u8| Secret::try_from((0..len).collect::<Vec<u8>>()).ok();
        let of = |name| variables.iter().find(|(it, _)| *it == name).map(|(_, value)| OsString::from(value));
        Settings::read(Keys::Derived, secret(32), secret(16), of)
    }

    #[test]
    fn without_variables_the_limits_are_those_of_the_document() {
        let settings = read(&[]).unwrap();

        assert_eq!(settings.mode, Mode::Production);
        assert_eq!((settings.config.most, settings.config.timeout), (100, Some(Duration::from_secs(300))));
        assert_eq!(settings.admins, AllowList::loopback());
        assert!(settings.proxies.is_empty());
    }

    #[test]
    fn variables_are_taken_as_they_are() {
        let settings = read(&[
            (MODE, "development"),
            (MAX_BUFFERS, "7"),
            (TIMEOUT, "1500"),
            (ADMINS, "192.0.2.0/24"),
            (PROXIES, "10.0.0.1"),
        ])
        .unwrap();

        assert_eq!((settings.mode, settings.config.most), (Mode::Development, 7));
        assert_eq!(settings.config.timeout, Some(Duration::from_millis(1500)));
        assert!(settings.admins.contains("192.0.2.9".parse().unwrap()));
        assert!(!settings.admins.contains("127.0.0.1".parse().unwrap()));
        assert_eq!(settings.proxies.to_string(), "10.0.0.1/32");
    }

    #[test]
    fn what_does_not_parse_is_an_error_that_names_the_variable_and_not_its_value() {
        let wrong = [
            (MODE, "developmnt"),
            (MODE, ""),
            (MAX_BUFFERS, "abc"),
            (MAX_BUFFERS, "0"),
            (MAX_BUFFERS, "-1"),
            (MAX_BUFFERS, "+7"),
            (MAX_BUFFERS, "1.5"),
            (MAX_BUFFERS, "1048577"),
            (MAX_BUFFERS, "99999999999999999999999"),
            (MAX_BUFFERS, ""),
            (TIMEOUT, "abc"),
            (TIMEOUT, "0"),
            (ADMINS, "everybody"),
            (ADMINS, ""),
            (PROXIES, "10.0.0.0/99"),
        ];
        for (name, value) in wrong {
            let error = read(&[(name, value)]).unwrap_err();

            assert!(matches!(error, SettingsError::Invalid { name: it, .. } if it == name), "{name} {value:?}");
            let said = format!("{error} {error:?}");
            assert!(said.contains(name) && (value.len() < 3 || !said.contains(value)), "{said}");
        }
    }

    #[test]
    fn production_needs_both_secrets_and_development_none() {
        let none = |_: &'static str| None;
        let secret = |len: u8| Secret::try_from((0..len).collect::<Vec<u8>>()).ok();
        let refused = |base, salt| Settings::read(Keys::Derived, base, salt, none).unwrap_err().to_string();

        assert_eq!(refused(None, secret(16)), "PQC_BASE_SECRET must be set in production");
        assert_eq!(refused(secret(32), None), "PQC_KEY_SALT must be set in production");
        assert_eq!(refused(secret(31), secret(16)), "PQC_BASE_SECRET must be at least 32 bytes long");
        let alike = "PQC_KEY_SALT must be drawn at random, and not one byte over and over";
        assert_eq!(refused(secret(32), Secret::new(16).ok()), alike);
        assert_eq!(refused(secret(32), secret(15)), "PQC_KEY_SALT must be at least 16 bytes long");
        let developing = |name| (name == MODE).then(|| "development".into());
        let development = Settings::read(Keys::Derived, None, None, developing).unwrap();
        assert!(development.base_secret.is_none() && development.key_salt.is_none());
        let keyless = Settings::read(Keys::None, None, None, none).unwrap();
        assert!(keyless.mode == Mode::Production && keyless.base_secret.is_none());
        assert!(Settings::read(Keys::None, secret(31), None, none).is_err(), "what is set must be right all the same");
    }
}
