//! Addresses of mail.

use super::{kind::Kind, numbers, scan::Scan, text};

const fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'.' | b'_' | b'%' | b'+' | b'-' | b'\'' | b'!' | b'#' | b'$' | b'*' | b'/' | b'?' | b'^' | b'{' | b'|' | b'}' | b'~' | b'&'
        )
}

/// Signs that are more often something else than the start of an address.
const fn may_start(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Looks around an `@`. Goes on behind it.
pub(super) fn at(scan: &mut Scan<'_>, at: usize) -> usize {
    let next = at + 1;
    let Some(end) = domain_end(scan, next) else { return next };
    let before = scan.part(0, at);
    // Plain signs first; a longer local part is taken as a whole: in doubt too much is masked.
    let plain =
        before.iter().rev().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'%' | b'+' | b'-')).count();
    let mut start = at - plain;
    if plain == 0 {
        let any = before.iter().rev().take(64).take_while(|byte| is_local(**byte)).count();
        start = at - any;
    }
    while start < at && !may_start(scan.byte(start)) {
        start += 1;
    }
    // The letter of `\n` before it.
    start += usize::from(start + 1 < at && text::follows_break(scan.bytes, start + 1));
    let local = scan.part(start, at);
    // How git names the account that everybody uses.
    if local.is_empty()
        || local == b"git"
        || is_algorithm(local, scan.part(next, end))
        || is_message(scan, start)
        || numbers::is_allowed(scan, start)
    {
        return next;
    }
    scan.push(Kind::Email, start, end, "address of mail");
    end
}

/// `chacha20-poly1305@openssh.com`: how SSH names algorithms that no standard has.
fn is_algorithm(local: &[u8], domain: &[u8]) -> bool {
    let named = matches!(domain, b"openssh.com" | b"libssh.org" | b"lysator.liu.se" | b"ssh.com");
    named && local.contains(&b'-') && local.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}

/// `msgid=<20261124@example.com>`: the number of a letter, not where one goes.
fn is_message(scan: &Scan<'_>, start: usize) -> bool {
    let found = if scan.before(start) == b'<' { scan.context(start - 1) } else { None };
    !scan.rules.policy.strict && found.is_some_and(|found| matches!(scan.rules.keys.text(found.id), "msgid" | "messageid" | "mid"))
}

/// The end of a domain with a top level that is a word.
fn domain_end(scan: &Scan<'_>, from: usize) -> Option<usize> {
    let rest = scan.bytes.get(from..)?;
    let len = rest.iter().take(254).take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')).count();
    let mut domain = rest.get(..len)?;
    while let [head @ .., b'.' | b'-'] = domain {
        domain = head;
    }
    let dot = domain.iter().rposition(|byte| *byte == b'.')?;
    let top = domain.get(dot + 1..)?;
    let is_word = top.len() >= 2 && top.iter().all(u8::is_ascii_alphabetic) || top.starts_with(b"xn--");
    (is_word && dot > 0 && domain.first() != Some(&b'.')).then(|| from + domain.len())
}
