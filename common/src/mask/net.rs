//! Network and place: addresses of the internet protocol and of interfaces. Looked for only where the policy asks.

use super::{keys::Class, kind::Kind, placeholder, scan::Scan, text};
use std::net::{Ipv4Addr, Ipv6Addr};

fn token(scan: &Scan<'_>, from: usize, max: usize, belongs: impl Fn(u8) -> bool) -> usize {
    scan.part(from, (from + max).min(scan.bytes.len())).iter().take_while(|byte| belongs(**byte)).count()
}

fn parse<A: std::str::FromStr>(bytes: &[u8]) -> Option<A> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// Four numbers with dots that start at `start`.
pub(super) fn dotted(scan: &mut Scan<'_>, start: usize) {
    let before = scan.before(start);
    if (before.is_ascii_alphanumeric() || matches!(before, b'.' | b'_' | b'-')) && !text::follows_break(scan.bytes, start) {
        return;
    }
    let len = token(scan, start, 16, |byte| byte.is_ascii_digit() || byte == b'.');
    let len = len - usize::from(scan.before(start + len) == b'.');
    let Some(address) = parse::<Ipv4Addr>(scan.part(start, start + len)) else { return };
    let next = scan.byte(start + len);
    let is_version = matches!(next, b'-' | b'_') || next.is_ascii_alphabetic() || scan.is_thing(start);
    if !(address.is_loopback() || address.is_unspecified() || address.is_broadcast() || is_version) {
        push(scan, start, start + len, "IPv4 address");
    }
}

/// A truncated address within its placeholder is none.
fn push(scan: &mut Scan<'_>, start: usize, end: usize, detector: &'static str) {
    if !placeholder::holds(&scan.rules.user, scan.bytes, start, end) {
        scan.push(Kind::Ip, start, end, detector);
    }
}

/// Everything with colons between hexadecimal digits.
pub(super) fn colons(scan: &mut Scan<'_>) {
    let mut at = 0;
    while let Some(offset) = scan.bytes.get(at..).and_then(|rest| text::find(rest, b':')) {
        let colon = at + offset;
        let before = scan.part(colon.saturating_sub(4), colon).iter().rev().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let start = colon - before;
        let len = token(scan, start, 46, |byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
        let end = start + len;
        at = end.max(colon + 1);
        let previous = scan.before(start);
        let joined = (previous.is_ascii_alphanumeric() || previous == b'_') && !text::follows_break(scan.bytes, start);
        if joined || scan.byte(end).is_ascii_alphanumeric() {
            continue;
        }
        address(scan, start, end);
    }
}

fn address(scan: &mut Scan<'_>, start: usize, end: usize) {
    let mut part = scan.part(start, end);
    while let [head @ .., b':' | b'.'] = part {
        if head.ends_with(b":") {
            break;
        }
        part = head;
    }
    let end = start + part.len();
    let is_mac = part.len() == 17
        && part.chunks(3).all(|pair| matches!(pair, [a, b, b':'] | [a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()));
    if is_mac {
        scan.push(Kind::Mac, start, end, "address of an interface");
    } else if part.len() >= 4
        && part.iter().filter(|byte| **byte == b':').count() >= 2
        && let Some(address) = parse::<Ipv6Addr>(part)
        && !(address.is_loopback() || address.is_unspecified())
        && scan.context(start).map(|found| found.class) != Some(Class::Allowed)
    {
        push(scan, start, end, "IPv6 address");
    }
}
