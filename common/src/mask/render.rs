//! From findings to text.

use super::{
    Masker, anchors,
    kind::{Kind, Mode},
    placeholder,
    scan::Span,
    view::{MAX_LAYERS, View, starts_escape},
};

/// Joins findings that overlap. The whole has the name of the kind that goes first; `pure` tells that it was one finding.
pub(super) fn merge(spans: &mut Vec<Span>) -> Vec<(Span, bool)> {
    drop_hosts(spans);
    spans.sort_unstable_by_key(|span| (span.start, std::cmp::Reverse(span.end), span.kind));
    let mut merged: Vec<(Span, bool)> = Vec::with_capacity(spans.len());
    for span in spans.drain(..) {
        match merged.last_mut() {
            Some((last, pure)) if span.start < last.end => {
                let stronger = span.kind < last.kind && (!within(&span, last) || span.kind.is_secret());
                *pure &= span.end <= last.end && !stronger;
                if stronger {
                    (last.kind, last.detector, last.key) = (span.kind, span.detector, span.key);
                }
                last.end = last.end.max(span.end);
            }
            _ => merged.push((span, true)),
        }
    }
    merged
}

/// The end of `user:password@host` is no address of mail.
fn drop_hosts(spans: &mut Vec<Span>) {
    let mut urls: Vec<(usize, usize)> =
        spans.iter().filter(|span| span.detector == anchors::URL).map(|span| (span.start, span.end)).collect();
    if urls.is_empty() {
        return;
    }
    urls.sort_unstable();
    let overlaps = |span: &Span| {
        let next = urls.partition_point(|(_, end)| *end <= span.start);
        urls.get(next).is_some_and(|(start, _)| *start < span.end)
    };
    spans.retain(|span| span.kind != Kind::Email || !overlaps(span));
}

/// Whether a finding was part of a longer word, whose rest may be something once the finding is gone.
pub(super) fn touches(bytes: &[u8], merged: &[(Span, bool)]) -> bool {
    let joins = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'+' | b'@' | b'%' | b'&' | b'/');
    merged.iter().any(|(span, _)| {
        let last = span.start.checked_sub(1).and_then(|at| bytes.get(at)).copied().unwrap_or(b' ');
        let folded = |len| span.start.checked_sub(len).is_some_and(|at| last >= 0x80 && starts_escape(bytes, at));
        let before = joins(last) || last == b';' || folded(2) || folded(3);
        let behind = match bytes.get(span.end..) {
            Some([b'\\', next, ..]) => !matches!(next, b'"' | b'\'' | b'\\'),
            Some([b'.', next, ..]) => next.is_ascii_alphanumeric(),
            Some([b'&', rest @ ..]) => rest.first().is_none_or(|next| !next.is_ascii_alphabetic()),
            Some([next, ..]) => joins(*next) || *next == b':',
            _ => false,
        };
        before || behind || starts_escape(bytes, span.end)
    })
}

/// A smaller finding within a larger one adds nothing.
const fn within(span: &Span, last: &Span) -> bool {
    span.end <= last.end && (span.start > last.start || span.end < last.end)
}

/// Writes the text with every finding replaced. `None` if the places do not fit the text.
pub(super) fn write(masker: &Masker, text: &str, merged: &[(Span, bool)]) -> Option<String> {
    if let Some((span, _)) = merged.iter().find(|(span, _)| masker.mode(span.kind) == Mode::Drop) {
        return Some(format!("[dropped: {}]", masker.name(span.kind)));
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut at = 0;
    // What quotes a number in a list: only a line that is JSON has one.
    let list_quote = if text.trim_start().starts_with('{') { text.find('"') } else { None };
    for (span, pure) in merged {
        out.push_str(text.get(at..span.start)?);
        let value = text.get(span.start..span.end)?;
        let quote = json_quote(text.as_bytes(), span, list_quote);
        if let Some(quote) = quote {
            out.push_str(text.get(quote.0..quote.1)?);
        }
        replace(masker, &mut out, *span, *pure, value);
        if let Some(quote) = quote {
            out.push_str(text.get(quote.0..quote.1)?);
        }
        at = span.end;
    }
    out.push_str(text.get(at..)?);
    Some(out)
}

/// The quote of the key before a bare value, so that JSON stays JSON: `"phone":138…` becomes `"phone":"[phone]"`.
fn json_quote(bytes: &[u8], span: &Span, list_quote: Option<usize>) -> Option<(usize, usize)> {
    let before = bytes.get(..span.start)?.trim_ascii_end();
    let behind = bytes.get(span.end..)?.trim_ascii_start();
    if !matches!(behind.first(), Some(b',' | b'}' | b']')) {
        return None;
    }
    if let Some(key) = before.strip_suffix(b":").map(<[u8]>::trim_ascii_end)
        && let Some(inner) = key.strip_suffix(b"\"")
    {
        let slashes = inner.iter().rev().take_while(|byte| **byte == b'\\').count();
        return Some((inner.len() - slashes, key.len()));
    }
    // In a list of numbers: the first quote of the line serves.
    let quote = list_quote.filter(|quote| matches!(before.last(), Some(b',' | b'[')) && *quote < span.start)?;
    Some((quote, quote + 1))
}

fn replace(masker: &Masker, out: &mut String, span: Span, pure: bool, value: &str) {
    let name = masker.name(span.kind);
    let shown = match masker.mode(span.kind) {
        Mode::Partial if pure => partial(span.kind, &canonical(span.kind, value)),
        Mode::Truncate if pure => truncated(span.kind, &canonical(span.kind, value)),
        Mode::Pseudonym => masker.key.as_ref().map(|key| key.letters(name, canonical(span.kind, value).as_bytes())),
        _ => None,
    };
    out.push('[');
    out.push_str(name);
    if let Some(shown) = shown.filter(|shown| shown.bytes().all(placeholder::is_shown) || span.kind == Kind::Ip) {
        out.push(':');
        out.push_str(&shown);
    }
    out.push(']');
}

/// The value without its writing: decoded, without separators, in one case.
fn canonical(kind: Kind, value: &str) -> String {
    let mut bytes = value.as_bytes().to_vec();
    for _ in 0..MAX_LAYERS {
        if !(0..bytes.len()).any(|at| starts_escape(&bytes, at)) {
            break;
        }
        bytes = View::of(&bytes).bytes;
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match kind {
        Kind::Phone => {
            let digits: String = text.chars().filter(char::is_ascii_digit).collect();
            let national = digits.strip_prefix("0086").or_else(|| digits.strip_prefix("86")).filter(|rest| rest.len() == 11);
            national.map_or(digits.clone(), str::to_owned)
        }
        Kind::Card | Kind::BankAccount => text.chars().filter(char::is_ascii_digit).collect(),
        Kind::NationalId | Kind::Iban | Kind::Passport => {
            text.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_uppercase()).collect()
        }
        Kind::Email => text.trim().to_lowercase(),
        _ => text.trim().to_owned(),
    }
}

/// What may be shown of a value.
fn partial(kind: Kind, value: &str) -> Option<String> {
    match kind {
        Kind::Email => value.rsplit_once('@').filter(|(_, domain)| is_domain(domain)).map(|(_, domain)| format!("***@{domain}")),
        Kind::Card | Kind::Phone | Kind::Iban | Kind::BankAccount | Kind::NationalId | Kind::Passport => {
            let from = value.len().checked_sub(4).filter(|from| *from >= 4)?;
            Some(format!("****{}", value.get(from..)?))
        }
        Kind::Name => value.chars().next().filter(|_| value.chars().count() > 1).map(|first| format!("{first}*")),
        Kind::Address => {
            let start: String = value.chars().take(3).collect();
            (value.chars().count() >= 8).then(|| format!("{start}***"))
        }
        Kind::Ip | Kind::Geo => truncated(kind, value),
        _ => None,
    }
}

/// Only a domain may be shown, not what else stood behind a key for mail; digits in a row could be somebody's number.
fn is_domain(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    plain && text.len() <= 253 && !text.split(|letter: char| !letter.is_ascii_digit()).any(|digits| digits.len() > 6)
}

/// A coarser form.
fn truncated(kind: Kind, value: &str) -> Option<String> {
    match kind {
        Kind::Ip => match value.parse().ok()? {
            std::net::IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Some(format!("{a}.{b}.{c}.0/24"))
            }
            std::net::IpAddr::V6(address) => {
                let [a, b, c, ..] = address.segments();
                Some(format!("{a:x}:{b:x}:{c:x}::/48"))
            }
        },
        Kind::Geo => {
            let (whole, decimals) = value.split_once('.').filter(|(whole, _)| whole.len() <= 4)?;
            Some(format!("{whole}.{}", decimals.get(..decimals.len().min(2))?))
        }
        _ => None,
    }
}
