//! Runs of digits: cards, identity numbers, phones, account numbers.
//!
//! A run is looked at where it starts. Its neighbours decide whether it is a number at all (digits within a hash, a decimal
//! or an identifier are none), its length and check digits what it can be, and the word before it whether it numbers a
//! thing after all.

use super::{checks, keys::Class, kind::Kind, net, scan::Scan, text};

/// Most digits that a number written in groups may have.
const MAX_DIGITS: usize = 24;

/// The digits of a number that is written in groups.
#[derive(Debug, Default)]
struct Digits {
    bytes: [u8; MAX_DIGITS],
    len: usize,
}

impl Digits {
    fn add(&mut self, digits: &[u8]) {
        let taken = digits.len().min(MAX_DIGITS - self.len);
        if let (Some(slots), Some(digits)) = (self.bytes.get_mut(self.len..self.len + taken), digits.get(..taken)) {
            slots.copy_from_slice(digits);
            self.len += taken;
        }
    }

    fn all(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

#[inline]
fn digits_at(scan: &Scan<'_>, at: usize) -> usize {
    scan.bytes.get(at..).map_or(0, |rest| rest.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

/// Looks at the run of digits that starts at `start`. Goes on behind it.
pub(super) fn run(scan: &mut Scan<'_>, start: usize) -> usize {
    let len = digits_at(scan, start);
    let end = start + len;
    let next = scan.byte(end);
    if scan.before(start).is_ascii_alphabetic() {
        letters_before(scan, start, end);
    }
    if len >= 11 {
        long(scan, start, end);
    } else if matches!(next, b' ' | b'-' | b'.') && scan.byte(end + 1).is_ascii_digit() {
        grouped(scan, start, end);
        if next == b'.' && scan.rules.policy.on(Kind::Ip) {
            net::dotted(scan, start);
        }
    } else if next == b')' && scan.before(start) == b'(' && (3..=4).contains(&len) {
        bracketed(scan, start, end);
    }
    end
}

/// A word starts at `at`, or an escape such as `\n` ends before it.
#[inline]
fn is_open(scan: &Scan<'_>, at: usize) -> bool {
    let before = scan.before(at);
    if text::follows_break(scan.bytes, at) {
        return true;
    }
    if before == b'.' && at >= 2 && scan.byte(at - 2).is_ascii_digit() {
        return false;
    }
    !(before.is_ascii_alphanumeric() || before == b'_')
}

/// A word ends at `at`.
fn is_closed(scan: &Scan<'_>, at: usize) -> bool {
    let next = scan.byte(at);
    !(next.is_ascii_alphanumeric() || next == b'.' && scan.byte(at + 1).is_ascii_digit())
}

/// Five groups of hexadecimal digits around `start..end`.
fn in_uuid(scan: &Scan<'_>, start: usize, end: usize) -> bool {
    if scan.before(start) != b'-' && scan.byte(end) != b'-' {
        return false;
    }
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b'-';
    let before = scan.part(start.saturating_sub(37), start).iter().rev().take_while(|byte| is_part(byte)).count();
    let behind = scan.part(end, end + 37).iter().take_while(|byte| is_part(byte)).count();
    let token = scan.part(start - before, end + behind);
    token.len() == 36 && [8, 13, 18, 23].iter().all(|at| token.get(*at) == Some(&b'-'))
}

fn is_card(scan: &Scan<'_>, digits: &[u8]) -> bool {
    (12..=19).contains(&digits.len())
        && checks::luhn(digits)
        && (checks::issued(digits) || scan.rules.policy.any_luhn && digits.len() >= 13)
}

/// A run of eleven digits or more.
fn long(scan: &mut Scan<'_>, start: usize, end: usize) {
    let mut len = end - start;
    if len > 19 {
        return;
    }
    let mut end = end;
    if len == 17 && matches!(scan.byte(end), b'X' | b'x') {
        (len, end) = (18, end + 1);
    }
    let digits = scan.part(start, end);
    let open = is_open(scan, start) && !in_uuid(scan, start, end);
    // Letters before it: a key that is written together with its value (`card4111…`), or no number.
    let keyed = || match scan.rules.keys.find(scan.bytes, start - usize::from(scan.before(start) == b'_')).map(|found| found.class) {
        Some(Class::Value(kind)) if start > 0 => Some(kind),
        _ => None,
    };
    let kind = if open { None } else { keyed() };
    if !open && kind.is_none() || scan.byte(end) == b'.' && scan.byte(end + 1).is_ascii_digit() {
        return;
    }
    let next = scan.byte(end);
    let closed = !next.is_ascii_alphanumeric();
    // Behind a card may stand a unit or a currency; hexadecimal digits are part of a hash.
    let card_closed = closed || next.is_ascii_alphabetic() && !next.is_ascii_hexdigit();
    let found = if len == 18 && closed && checks::resident_id(digits) {
        Some((Kind::NationalId, "resident identity number with check digit"))
    } else if card_closed && is_card(scan, digits) && is_certain_card(scan, start, len) {
        Some((Kind::Card, "card number with check digit and issuer"))
    } else if closed && mobile_part(digits).is_some() && !is_thing(scan, start) {
        Some((Kind::Phone, "mobile number of China"))
    } else if len == 15 && closed && scan.rules.policy.strict && checks::old_resident_id(digits) {
        Some((Kind::NationalId, "resident identity number of 15 digits"))
    } else {
        None
    };
    if let Some((kind, detector)) = found {
        scan.push(kind, start, end, detector);
    }
}

/// Numbers of parcels and goods have twelve to fourteen digits, too, and a tenth of them passes the check.
fn is_certain_card(scan: &Scan<'_>, start: usize, len: usize) -> bool {
    if scan.rules.policy.any_luhn {
        return true;
    }
    match scan.context(start).map(|found| found.class) {
        Some(Class::Thing | Class::Allowed) => false,
        Some(Class::Value(Kind::Card)) => true,
        _ => len >= 14,
    }
}

fn is_thing(scan: &Scan<'_>, start: usize) -> bool {
    scan.is_thing(start) || is_connection(scan, start)
}

/// `12#12: *16670560058 limiting requests`: how nginx numbers connections.
fn is_connection(scan: &Scan<'_>, start: usize) -> bool {
    matches!(scan.part(start.saturating_sub(4), start), [digit, b':', b' ', b'*'] if digit.is_ascii_digit())
}

/// The national number of a mobile phone with or without the country's code.
fn mobile_part(digits: &[u8]) -> Option<&[u8]> {
    let national = match digits.len() {
        11 => digits,
        12 => digits.strip_prefix(b"0")?,
        13 => digits.strip_prefix(b"86")?,
        15 => digits.strip_prefix(b"0086")?,
        _ => return None,
    };
    checks::cn_mobile(national).then_some(national)
}

/// Digits in groups with one and the same sign between them.
fn grouped(scan: &mut Scan<'_>, start: usize, first_end: usize) {
    let first = first_end - start;
    let sign = scan.byte(first_end);
    // The commonest, dates and decimals, go no further: no shape begins with such lengths.
    let second = digits_at(scan, first_end + 1);
    let may_be = match first {
        1 => second == 3,
        2 => matches!(second, 3 | 11),
        3 => matches!(second, 2..=4 | 7 | 8),
        4 => matches!(second, 3 | 4 | 6..=8 | 11),
        5 => matches!(second, 3 | 6),
        6 => matches!(second, 7 | 8 | 10 | 13),
        _ => false,
    };
    if !may_be || !is_open(scan, start) {
        return;
    }
    let mut digits = Digits::default();
    let mut lens = [0_usize; 6];
    let mut ends = [0_usize; 6];
    let (mut groups, mut at) = (0, start);
    for (slot, end) in lens.iter_mut().zip(&mut ends) {
        let len = digits_at(scan, at);
        if len == 0 {
            break;
        }
        digits.add(scan.part(at, at + len));
        (*slot, *end) = (len, at + len);
        groups += 1;
        if scan.byte(at + len) != sign {
            break;
        }
        at += len + 1;
    }
    for count in (2..=groups).rev() {
        let (Some(lens), Some(end)) = (lens.get(..count), ends.get(count - 1).copied()) else { continue };
        let sum: usize = lens.iter().sum();
        let Some(all) = digits.all().get(..sum) else { continue };
        if let Some((kind, end, detector)) = shape(scan, sign, lens, all, start, end) {
            scan.push(kind, start, end, detector);
            return;
        }
    }
}

/// What groups of these lengths are, and where they end.
fn shape(scan: &Scan<'_>, sign: u8, lens: &[usize], all: &[u8], start: usize, end: usize) -> Option<(Kind, usize, &'static str)> {
    let closed = is_closed(scan, end);
    let alone = closed && !(sign == b'-' && (continues(scan, end) || starts_within(scan, start)));
    let phone = |found: bool| {
        (found && alone && !is_thing(scan, start) && !in_uuid(scan, start, end)).then_some((Kind::Phone, end, "phone number in groups"))
    };
    match (sign, lens) {
        (b' ' | b'-', [4, 4, 4, 4] | [4, 4, 4, 4, 1..=3] | [4, 6, 4 | 5] | [6, 10 | 13] | [4, 4, 4, 4, 4]) => {
            let card = closed && is_card(scan, all) && !in_uuid(scan, start, end) && (scan.rules.policy.any_luhn || !is_thing(scan, start));
            card.then_some((Kind::Card, end, "card number in groups"))
        }
        (b' ' | b'-', [6, 8, 3] | [6, 8, 4] | [3, 3, 8, 4] | [3, 3, 8, 3]) => {
            let with_x = matches!(scan.byte(end), b'X' | b'x') && all.len() == 17;
            let end = end + usize::from(with_x);
            let mut id = Digits::default();
            id.add(all);
            if with_x {
                id.add(b"X");
            }
            (checks::resident_id(id.all()) && is_closed(scan, end)).then_some((Kind::NationalId, end, "resident identity number in groups"))
        }
        (b' ' | b'-', [3, 4, 4]) => phone(checks::cn_mobile(all) || all.starts_with(b"0")),
        (b' ' | b'-', [2 | 4, 11] | [2 | 4, 3, 4, 4]) => phone(mobile_part(all).is_some()),
        (b'-', [3, 2, 4]) => (alone && checks::us_ssn(all)).then_some((Kind::NationalId, end, "social security number")),
        (b'-' | b'.', [3, 3, 4]) => phone(checks::nanp(all)),
        (b'-', [1, 3, 3, 4]) => phone(all.strip_prefix(b"1").is_some_and(checks::nanp)),
        (b'-', [3 | 4, 7 | 8] | [4, 3 | 4, 4]) => phone(matches!(all, [b'0', b'1'..=b'9', _, _, b'2'..=b'9' | b'0'..=b'1', ..])),
        (b' ' | b'-', [5, 6] | [5, 3, 3]) => phone(all.starts_with(b"07")),
        (b'-', [6, 7]) => (alone && checks::korean_id(all)).then_some((Kind::NationalId, end, "resident registration number")),
        (b'.', [3, 3, 3]) => cpf(scan, all, end),
        _ => None,
    }
}

/// `529.982.247-25`.
fn cpf(scan: &Scan<'_>, all: &[u8], end: usize) -> Option<(Kind, usize, &'static str)> {
    let tail = scan.part(end, end + 3).strip_prefix(b"-")?;
    let mut digits = Digits::default();
    digits.add(all);
    digits.add(tail);
    (checks::cpf(digits.all()) && tail.iter().all(u8::is_ascii_digit) && is_closed(scan, end + 3)).then_some((
        Kind::NationalId,
        end + 3,
        "CPF with check digits",
    ))
}

/// `-12` follows: a longer number than the one that was found.
fn continues(scan: &Scan<'_>, end: usize) -> bool {
    scan.byte(end) == b'-' && scan.byte(end + 1).is_ascii_digit() && digits_at(scan, end + 1) > 6
}

fn starts_within(scan: &Scan<'_>, start: usize) -> bool {
    scan.before(start) == b'-' && start >= 2 && scan.byte(start - 2).is_ascii_digit()
}

/// `(010) 12345678`, `(555) 123-4567`.
fn bracketed(scan: &mut Scan<'_>, start: usize, end: usize) {
    let mut at = end + 1;
    at += usize::from(matches!(scan.byte(at), b' ' | b'-'));
    let mut digits = Digits::default();
    digits.add(scan.part(start, end));
    let first = digits_at(scan, at);
    digits.add(scan.part(at, at + first));
    at += first;
    if (3..=4).contains(&first) && matches!(scan.byte(at), b' ' | b'-' | b'.') && digits_at(scan, at + 1) == 4 {
        digits.add(scan.part(at + 1, at + 5));
        at += 5;
    }
    let all = digits.all();
    let landline = all.first() == Some(&b'0') && (10..=12).contains(&all.len());
    if is_closed(scan, at) && (landline || checks::nanp(all)) {
        scan.push(Kind::Phone, start - 1, at, "phone number with its area in brackets");
    }
}

/// `+` and digits in groups. Goes on behind the sign.
pub(super) fn plus(scan: &mut Scan<'_>, at: usize) -> usize {
    let before = scan.before(at);
    if !scan.byte(at + 1).is_ascii_digit() || before.is_ascii_alphanumeric() && !is_open(scan, at) || matches!(before, b'/' | b'+') {
        return at + 1;
    }
    let mut digits = Digits::default();
    let (mut end, mut best) = (at + 1, None);
    loop {
        let len = digits_at(scan, end);
        if len == 0 || digits.len + len > 15 {
            break;
        }
        digits.add(scan.part(end, end + len));
        end += len;
        if checks::e164(digits.all()) && is_closed(scan, end) {
            best = Some(end);
        }
        let mut signs = 0;
        while signs < 2 && matches!(scan.byte(end + signs), b' ' | b'-' | b'.' | b'(' | b')') {
            signs += 1;
        }
        if signs == 0 {
            break;
        }
        end += signs;
    }
    if let Some(end) = best
        && !is_allowed(scan, at)
    {
        scan.push(Kind::Phone, at, end, "international phone number");
    }
    at + 1
}

/// Whether the configuration allows what stands behind this key.
pub(super) fn is_allowed(scan: &Scan<'_>, at: usize) -> bool {
    !scan.rules.policy.strict && scan.context(at).map(|found| found.class) == Some(Class::Allowed)
}

/// Two letters before the digits: an account number may have started, `DE89…`.
fn letters_before(scan: &mut Scan<'_>, start: usize, run_end: usize) {
    let Some(from) = start.checked_sub(2) else { return };
    if run_end - start < 2 || !is_open(scan, from) {
        return;
    }
    let Some(len) = scan.part(from, start).first_chunk().and_then(|country| checks::iban_len(*country)) else { return };
    let mut account = [0_u8; 34];
    let (mut at, mut filled) = (from, 0);
    while filled < len {
        let byte = scan.byte(at);
        match account.get_mut(filled) {
            Some(slot) if byte.is_ascii_alphanumeric() => {
                *slot = byte;
                filled += 1;
            }
            _ if matches!(byte, b' ' | b'-') && at > start && scan.byte(at + 1).is_ascii_alphanumeric() => {}
            _ => return,
        }
        at += 1;
    }
    if is_closed(scan, at) && account.get(..len).is_some_and(checks::iban) {
        scan.push(Kind::Iban, from, at, "account number with check digits");
    }
}
