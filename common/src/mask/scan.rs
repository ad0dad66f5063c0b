//! One look over a text: anchors first, then every byte that may start, end or announce a value.
//!
//! Works on bytes that need not be UTF-8 (a decoded view may be anything). Adds spans; what they become is `render`'s matter.

use super::{
    Rules, anchors, email,
    keys::{Class, Found},
    kind::{Kind, Mode},
    net, numbers, placeholder, sql, text,
    triggers::Triggers,
    value::{self, Extent, Value},
};

/// A finding in the bytes that were scanned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) kind: Kind,
    pub(super) detector: &'static str,
    /// The key's phrase.
    pub(super) key: Option<u16>,
}

impl Span {
    pub(super) const fn of_rule(at: u8, start: usize, end: usize) -> Self {
        Self { start, end, kind: Kind::Rule(at), detector: "rule of the configuration", key: None }
    }
}

/// How often a byte may be looked at in search of values' ends, on average, and what a short text may take.
const WORK_PER_BYTE: usize = 32;
const MIN_WORK: usize = 1 << 16;

/// A scan under way.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) rules: &'a Rules,
    pub(super) spans: Vec<Span>,
    /// What stands behind a key cannot be what the key says; it may look otherwise once something in it is masked.
    pub(super) unfit: bool,
    /// A private key began and did not end.
    pub(super) open_key: bool,
    /// Bytes that may still be looked at in search of values' ends. A text made to be looked at again and again uses it up.
    left: usize,
}

impl<'a> Scan<'a> {
    pub(super) const fn new(bytes: &'a [u8], rules: &'a Rules) -> Self {
        Self { bytes, rules, spans: Vec::new(), unfit: false, open_key: false, left: MIN_WORK + bytes.len().saturating_mul(WORK_PER_BYTE) }
    }

    /// Accounts for bytes that were looked at for one value.
    #[inline]
    pub(super) const fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }

    /// Whether the scan gave up: nothing is known of what it did not look at.
    #[inline]
    pub(super) const fn is_exhausted(&self) -> bool {
        self.left == 0
    }

    /// Finds everything.
    pub(super) fn run(&mut self) {
        anchors::find(self);
        let mut triggers = Triggers::new(self.bytes, self.rules.policy.on(Kind::Ip));
        let mut at = 0;
        while let Some(here) = triggers.next(at)
            && !self.is_exhausted()
        {
            at = self.look(here, at).max(here + 1);
        }
        if self.rules.policy.on(Kind::Ip) || self.rules.policy.on(Kind::Mac) {
            net::colons(self);
        }
        super::rules::find_all(&self.rules.user, self.bytes, &mut self.spans);
    }

    /// Looks at one place; everything before `from` is done with. Goes on behind what was found there.
    #[inline]
    fn look(&mut self, here: usize, from: usize) -> usize {
        match self.byte(here) {
            b':' | b'=' | b'>' => self.separator(here),
            b';' => self.semicolon(here),
            b'@' => email::at(self, here),
            b'+' => numbers::plus(self, here),
            0xEF => self.wide(here),
            b'0'..=b'9' => numbers::run(self, here),
            // Behind the last of a run of digits.
            _ => {
                let len = self.part(from, here).iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
                if len > 0 && !self.before(here - len).is_ascii_digit() {
                    numbers::run(self, here - len);
                }
                // The sign itself may mean something.
                here
            }
        }
    }

    #[inline]
    pub(super) fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    /// The byte before `at`; 0 at the start.
    #[inline]
    pub(super) fn before(&self, at: usize) -> u8 {
        at.checked_sub(1).map_or(0, |before| self.byte(before))
    }

    /// The bytes of a range, as far as there are any.
    #[inline]
    pub(super) fn part(&self, start: usize, end: usize) -> &'a [u8] {
        self.bytes.get(start..end.min(self.bytes.len())).unwrap_or_default()
    }

    /// Adds a finding unless its kind is kept.
    pub(super) fn push(&mut self, kind: Kind, start: usize, end: usize, detector: &'static str) {
        self.push_keyed(kind, start, end, detector, None);
    }

    /// As [`Scan::push`], found by a key. Tells whether it was added.
    pub(super) fn push_keyed(&mut self, kind: Kind, start: usize, end: usize, detector: &'static str, key: Option<u16>) -> bool {
        // What starts with a placeholder was judged when that was written.
        let masked = placeholder::len_at(&self.rules.user, self.bytes, start).is_some();
        let wanted = start < end && !masked && self.rules.policy.mode(kind) != Mode::Keep;
        if wanted {
            if self.spans.capacity() == 0 {
                self.spans.reserve(8);
            }
            self.spans.push(Span { start, end, kind, detector, key });
        }
        wanted
    }

    /// `key=`, `"key":`, `<key>`, `[key] =>`, `key：`. Goes on behind it.
    #[inline]
    fn separator(&mut self, at: usize) -> usize {
        let next = at + 1;
        let before = self.before(at);
        // The commonest: a time of day, a scheme, a path of modules.
        if self.byte(at) == b':' && (before == b':' || self.byte(next) == b':' || self.is_time(at)) {
            return next;
        }
        match self.key_before(at) {
            Some(found) => self.keyed(found, at, next),
            None => next,
        }
    }

    /// `08:00`: digits on both sides of the colon, and no letter before them.
    #[inline]
    fn is_time(&self, colon: usize) -> bool {
        let digits = self.part(colon.saturating_sub(3), colon).iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        digits > 0 && self.byte(colon + 1).is_ascii_digit() && (digits == 3 || !self.before(colon - digits).is_ascii_alphabetic())
    }

    /// PHP writes `s:8:"password";s:7:"hunter2";`.
    #[inline]
    fn semicolon(&mut self, at: usize) -> usize {
        if self.before(at) == b'"'
            && self.byte(at + 1) == b's'
            && self.byte(at + 2) == b':'
            && let Some(found) = self.key_before(at)
        {
            let digits = self.part(at + 3, at + 12).iter().take_while(|byte| byte.is_ascii_digit()).count();
            return self.keyed(found, at, at + 4 + digits);
        }
        at + 1
    }

    /// The key that ends before a separator at `at`, behind quotes and brackets.
    #[inline]
    fn key_before(&self, at: usize) -> Option<Found> {
        let mut end = at;
        for _ in 0..2 {
            end -= usize::from(end > 0 && self.before(end) == b' ');
        }
        let mut slack = 0;
        while slack < 16 && matches!(self.before(end), b'"' | b'\'' | b'`' | b']' | b'\\' | b'[') {
            end -= 1;
            slack += 1;
        }
        self.rules.keys.find(self.bytes, end).or_else(|| {
            let digits = self.part(end.saturating_sub(3), end).iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 { None } else { self.rules.keys.find(self.bytes, end - digits) }
        })
    }

    /// Looks at what stands behind a key's separator at `separator`; the value starts at or behind `from`. Goes on behind the value if
    /// that is masked as a whole: what is in it is gone anyway.
    fn keyed(&mut self, found: Found, separator: usize, from: usize) -> usize {
        let first = self.before(found.start);
        let in_tag = self.byte(separator) == b'>' && self.before(separator) != b'=';
        if in_tag && (first == b'/' || !self.opens_tag(found.start)) {
            return from;
        }
        // What a masker wrote, `[email:***@example.com]`; but PHP writes `[email] => x`.
        if first == b'['
            && placeholder::len_at(&self.rules.user, self.bytes, found.start - 1).is_some()
            && self.part(separator.saturating_sub(2), from + 1) != b"] =>"
        {
            return from;
        }
        // `=>`, `:=`, `==`.
        let mut from = from;
        while matches!(self.byte(from), b'=' | b'>') && from < separator + 3 {
            from += 1;
        }
        let Some(mut target) = Target::of(found.class) else { return from };
        if in_tag {
            target.extent = Extent::Markup;
        }
        target.of_logger = self.is_logger(found.start, separator);
        if target.of_logger && target.kind == Kind::Name {
            target.extent = Extent::Word;
        }
        let start = value::skip_space(self.bytes, from);
        if self.byte(start) == b'[' && placeholder::len_at(&self.rules.user, self.bytes, start).is_none() {
            self.list(found, target, start + 1);
            return from;
        }
        let (value, masked) = self.value(found, target, from);
        if masked { value.end.max(from) } else { from }
    }

    /// `c.shop.user.RealName : verified`: the name of a class that logs, in front of its message.
    fn is_logger(&self, start: usize, separator: usize) -> bool {
        self.byte(separator) == b':'
            && self.before(separator) == b' '
            && self.byte(start).is_ascii_uppercase()
            && self.before(start) == b'.'
            && start.checked_sub(2).is_some_and(|at| self.byte(at).is_ascii_lowercase())
    }

    /// Whether `<` stands before the name that holds `at`, with a prefix at most: `<ns:phone>`.
    fn opens_tag(&self, at: usize) -> bool {
        let name = self.part(at.saturating_sub(40), at);
        let sign = name.iter().rev().find(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b':' | b'.')));
        sign == Some(&b'<')
    }

    fn list(&mut self, found: Found, target: Target, from: usize) {
        let mut at = from;
        loop {
            let item = value::skip_space(self.bytes, at);
            if self.byte(item) == b',' {
                at = item + 1;
                continue;
            }
            if self.byte(item) == b']' {
                return;
            }
            let (value, masked) = self.value(found, target, at);
            // Behind an object's first field come its others.
            if !masked && value::is_object(self.part(value.start, value.end)) {
                return;
            }
            let next = value::skip_space(self.bytes, value.after);
            if self.byte(next) != b',' || value.after < at {
                return;
            }
            at = next + 1;
        }
    }

    /// Masks one value if it can be what its key says. Tells whether it did.
    fn value(&mut self, found: Found, target: Target, from: usize) -> (Value, bool) {
        let value = value::at(self.bytes, from, target.extent);
        let content = self.part(value.start, value.end);
        self.spend(value.after.saturating_sub(from));
        let said = target.kind == Kind::Address && !value.quoted && value::is_prose(content);
        // `"pass":2128` counts what passed.
        let counted = target.kind == Kind::Password
            && !value.quoted
            && content.iter().all(u8::is_ascii_digit)
            && self.part(found.start, found.start + 5) == b"pass\"";
        let fits = !said && !counted && target.fits(found, self, content);
        self.unfit |= !fits && value.start < value.end;
        (value, fits && self.push_keyed(target.kind, value.start, value.end, "key", Some(found.id)))
    }

    /// Masks the value of a column.
    pub(super) fn column(&mut self, name_end: usize, start: usize, end: usize) {
        if let Some(found) = self.rules.keys.find(self.bytes, name_end)
            && let Some(target) = Target::of(found.class)
            && target.fits(found, self, self.part(start, end))
        {
            self.push_keyed(target.kind, start, end, "column of a statement", Some(found.id));
        }
    }

    /// `key：`
    fn wide(&mut self, at: usize) -> usize {
        if !text::is_wide_colon(self.bytes, at) {
            return at + 1;
        }
        match self.key_before(at) {
            Some(found) => self.keyed(found, at, at + 3),
            None => at + 3,
        }
    }

    /// What the word before a number says about it: `order 4111…`, `"order_id":"4111…"`, `/orders/4111…`.
    pub(super) fn context(&self, at: usize) -> Option<Found> {
        let mut end = at;
        let mut slack = 0;
        while slack < 12
            && matches!(self.before(end), b' ' | b':' | b'=' | b'"' | b'\'' | b'\\' | b'#' | b'/' | b'[' | b'(' | b'_' | b'-' | b'>' | b'`')
        {
            end -= 1;
            slack += 1;
        }
        if end >= 3 && text::is_wide_colon(self.bytes, end - 3) {
            end -= 3;
        }
        self.rules.keys.find(self.bytes, end)
    }

    /// Whether the word before a number says that it numbers a thing.
    pub(super) fn is_thing(&self, at: usize) -> bool {
        !self.rules.policy.strict && matches!(self.context(at).map(|found| found.class), Some(Class::Thing | Class::Allowed))
    }
}

/// What a key asks for.
#[derive(Clone, Copy, Debug)]
struct Target {
    kind: Kind,
    extent: Extent,
    /// Fewest letters and digits.
    min: u8,
    /// The key may be a class that logs and the value its message.
    of_logger: bool,
}

/// A value of so many lower-case letters and nothing else is taken for a word.
const LONGEST_WORD: usize = 16;

impl Target {
    fn of(class: Class) -> Option<Self> {
        let (kind, min, extent) = match class {
            Class::Value(kind) | Class::Soft(kind) => (kind, 0, Extent::of(kind)),
            Class::Long(kind, min) => (kind, min, Extent::of(kind)),
            Class::PlainName => (Kind::Name, 0, Extent::Word),
            Class::Authorization => (Kind::Token, 0, Extent::Authorization),
            Class::CookieHeader => (Kind::Cookie, 0, Extent::Pairs),
            Class::Thing | Class::Allowed | Class::Neutral => return None,
        };
        Some(Self { kind, extent, min, of_logger: false })
    }

    fn fits(self, found: Found, scan: &Scan<'_>, value: &[u8]) -> bool {
        if !value::fits(self.kind, value) {
            return false;
        }
        let strict = scan.rules.policy.strict;
        match found.class {
            Class::Value(Kind::Name) | Class::Soft(_) if self.of_logger && !strict => super::names::is_person(value),
            Class::Soft(_) => value::is_plain_name(value),
            Class::PlainName => {
                let alone =
                    !matches!(scan.before(found.start), b'_' | b'-' | b'.' | b'$') && !scan.before(found.start).is_ascii_alphanumeric();
                alone && (super::names::is_person(value) || strict && value::is_plain_name(value))
            }
            Class::Value(Kind::Token) | Class::Long(Kind::Token, _) if !strict && value::is_pointer(value) => false,
            Class::Value(Kind::SqlParam) => !sql::is_harmless(scan, value),
            Class::Value(Kind::Username) if !scan.rules.policy.on(Kind::Username) => false,
            // The shell's working directory.
            Class::Value(Kind::Password) => !(value.starts_with(b"/") && scan.part(found.start, found.start + 3) == b"PWD"),
            Class::Long(..) => {
                // `uplink::session: connected` tells what happened; what a machine made up is no word.
                let word = value.len() <= LONGEST_WORD && value.iter().all(u8::is_ascii_lowercase);
                let long = value.iter().filter(|byte| byte.is_ascii_alphanumeric()).count() >= usize::from(self.min);
                let sentence = self.kind == Kind::ApiKey && value.contains(&b' ');
                long && (strict || !(word || sentence || value::is_object(value)))
            }
            _ => true,
        }
    }
}
