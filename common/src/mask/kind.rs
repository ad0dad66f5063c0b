//! What can be found and what is done with it.

/// What a finding is.
///
/// The order is the precedence where findings overlap: the smaller one names the whole.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    PrivateKey,
    Password,
    ApiKey,
    Token,
    Cookie,
    Code,
    Cvv,
    Card,
    Iban,
    BankAccount,
    NationalId,
    Passport,
    Phone,
    Email,
    Name,
    Address,
    BirthDate,
    UserId,
    Username,
    DeviceId,
    SqlParam,
    Geo,
    Mac,
    Ip,
    /// A rule of the configuration, by its position.
    Rule(u8),
}

impl Kind {
    /// All that are built in.
    pub(super) const ALL: [Self; 24] = [
        Self::PrivateKey,
        Self::Password,
        Self::ApiKey,
        Self::Token,
        Self::Cookie,
        Self::Code,
        Self::Cvv,
        Self::Card,
        Self::Iban,
        Self::BankAccount,
        Self::NationalId,
        Self::Passport,
        Self::Phone,
        Self::Email,
        Self::Name,
        Self::Address,
        Self::BirthDate,
        Self::UserId,
        Self::Username,
        Self::DeviceId,
        Self::SqlParam,
        Self::Geo,
        Self::Mac,
        Self::Ip,
    ];

    /// The name in the configuration and in what replaces a value. A rule's own name is known to its compiled form only.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::PrivateKey => "private_key",
            Self::Password => "password",
            Self::ApiKey => "api_key",
            Self::Token => "token",
            Self::Cookie => "cookie",
            Self::Code => "code",
            Self::Cvv => "cvv",
            Self::Card => "card",
            Self::Iban => "iban",
            Self::BankAccount => "bank_account",
            Self::NationalId => "national_id",
            Self::Passport => "passport",
            Self::Phone => "phone",
            Self::Email => "email",
            Self::Name => "name",
            Self::Address => "address",
            Self::BirthDate => "birth_date",
            Self::UserId => "user_id",
            Self::Username => "username",
            Self::DeviceId => "device_id",
            Self::SqlParam => "sql_param",
            Self::Geo => "geo",
            Self::Mac => "mac",
            Self::Ip => "ip",
            Self::Rule(_) => "rule",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Position in [`Kind::ALL`]; `None` for a rule.
    pub(super) const fn index(self) -> Option<usize> {
        Some(match self {
            Self::PrivateKey => 0,
            Self::Password => 1,
            Self::ApiKey => 2,
            Self::Token => 3,
            Self::Cookie => 4,
            Self::Code => 5,
            Self::Cvv => 6,
            Self::Card => 7,
            Self::Iban => 8,
            Self::BankAccount => 9,
            Self::NationalId => 10,
            Self::Passport => 11,
            Self::Phone => 12,
            Self::Email => 13,
            Self::Name => 14,
            Self::Address => 15,
            Self::BirthDate => 16,
            Self::UserId => 17,
            Self::Username => 18,
            Self::DeviceId => 19,
            Self::SqlParam => 20,
            Self::Geo => 21,
            Self::Mac => 22,
            Self::Ip => 23,
            Self::Rule(_) => return None,
        })
    }

    /// Opens something: never kept, never shown in part, not subject to `allow`.
    pub(super) const fn is_secret(self) -> bool {
        matches!(self, Self::PrivateKey | Self::Password | Self::ApiKey | Self::Token | Self::Cookie | Self::Code | Self::Cvv)
    }
}

/// What is done with a finding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    /// `[card]`
    Redact,
    /// `[card:****1111]`, `[email:***@example.com]`
    Partial,
    /// `[phone:ja-kdmbcaphgfdjeioa]`: the same for the same value under the same key.
    Pseudonym,
    /// `[ip:192.0.2.0/24]`; as `Redact` where there is no shorter form.
    Truncate,
    /// The whole line becomes `[dropped: card]`.
    Drop,
    /// Not looked for.
    Keep,
}

impl Mode {
    pub(super) const ALL: [Self; 6] = [Self::Redact, Self::Partial, Self::Pseudonym, Self::Truncate, Self::Drop, Self::Keep];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Redact => "redact",
            Self::Partial => "partial",
            Self::Pseudonym => "pseudonym",
            Self::Truncate => "truncate",
            Self::Drop => "drop",
            Self::Keep => "keep",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// Why `kind` may not be treated this way, if so.
    pub(super) fn refusal(self, kind: Kind) -> Option<&'static str> {
        match self {
            Self::Keep | Self::Partial | Self::Truncate if kind.is_secret() => {
                Some("would let a secret out; use redact, pseudonym or drop")
            }
            Self::Pseudonym if matches!(kind, Kind::Cvv | Kind::Code) => {
                Some("can be undone by trying the few possible values; use redact or drop")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found_again() {
        assert!(Kind::ALL.is_sorted());
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(Kind::named(kind.name()), Some(kind));
            assert_eq!(kind.index(), Some(at));
        }
        assert_eq!(Kind::Rule(0).index(), None);
    }

    #[test]
    fn secrets_are_never_kept_or_shown_in_part() {
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_secret()) {
            for mode in [Mode::Keep, Mode::Partial, Mode::Truncate] {
                assert!(mode.refusal(kind).is_some(), "{kind:?} {mode:?}");
            }
            assert!(Mode::Redact.refusal(kind).is_none());
        }
        assert!(Mode::Keep.refusal(Kind::Card).is_none());
    }
}
