//! Literals that announce a secret or a place: formats of keys, schemes, addresses, statements.
//!
//! All are looked for in one pass. An anchor that turns out to announce nothing costs its look and no more: the search goes
//! on one byte behind its start.

use super::{
    command,
    keys::Class,
    kind::Kind,
    place, placeholder,
    scan::Scan,
    sql,
    value::{self, Extent},
};
use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};
use base64::Engine as _;

/// The detector of `user:password@host`, which an address of mail must not overlap.
pub(super) const URL: &str = "password in an address";

/// A key whose first letters tell what it is.
struct Format {
    literal: &'static str,
    kind: Kind,
    /// Fewest characters behind the literal.
    min: usize,
    /// Also belong to it, besides letters and digits.
    signs: &'static [u8],
    /// Short literals count at the start of a word only.
    word: bool,
    detector: &'static str,
}

const fn format(literal: &'static str, min: usize, signs: &'static [u8], detector: &'static str) -> Format {
    Format { literal, kind: Kind::ApiKey, min, signs, word: false, detector }
}

const fn token(literal: &'static str, min: usize, signs: &'static [u8], detector: &'static str) -> Format {
    Format { literal, kind: Kind::Token, min, signs, word: false, detector }
}

const fn at_word(format: Format) -> Format {
    Format { word: true, ..format }
}

const FORMATS: &[Format] = &[
    at_word(format("AKIA", 16, b"", "AWS access key")),
    at_word(format("ASIA", 16, b"", "AWS access key")),
    at_word(format("ABIA", 16, b"", "AWS access key")),
    at_word(format("ACCA", 16, b"", "AWS access key")),
    at_word(format("A3T", 17, b"", "AWS access key")),
    at_word(format("LTAI", 12, b"", "Alibaba Cloud access key")),
    at_word(format("AKID", 13, b"", "Tencent Cloud secret id")),
    format("ghp_", 30, b"_", "GitHub token"),
    format("gho_", 30, b"_", "GitHub token"),
    format("ghu_", 30, b"_", "GitHub token"),
    format("ghs_", 30, b"_", "GitHub token"),
    format("ghr_", 30, b"_", "GitHub token"),
    format("github_pat_", 30, b"_", "GitHub token"),
    format("glpat-", 20, b"_-.", "GitLab token"),
    format("sk_live_", 10, b"_", "Stripe key"),
    format("sk_test_", 10, b"_", "Stripe key"),
    format("rk_live_", 10, b"_", "Stripe key"),
    format("rk_test_", 10, b"_", "Stripe key"),
    token("access_token$production$", 20, b"$", "PayPal access token"),
    at_word(format("AQE", 40, b"+/=.-", "Adyen key")),
    format("sq0", 22, b"-_", "Square key"),
    at_word(format("hf_", 30, b"", "Hugging Face token")),
    format("glsa_", 32, b"_", "Grafana token"),
    format("AGE-SECRET-KEY-1", 40, b"", "age key"),
    format("whsec_", 16, b"_+/=", "webhook secret"),
    at_word(format("xox", 12, b"-", "Slack token")),
    format("xapp-", 20, b"-", "Slack token"),
    at_word(format("AIza", 30, b"_-", "Google API key")),
    at_word(token("ya29.", 20, b"_-.", "Google access token")),
    format("GOCSPX-", 20, b"_-", "Google client secret"),
    at_word(format("shp", 28, b"_", "Shopify token")),
    token("Atza", 16, b"|_-=+/%", "Amazon access token"),
    token("Atzr", 16, b"|_-=+/%", "Amazon refresh token"),
    format("amzn", 24, b".-_", "Amazon seller credential"),
    at_word(format("npm_", 30, b"", "npm token")),
    format("pypi-AgE", 30, b"_-", "PyPI token"),
    format("dop_v1_", 40, b"", "DigitalOcean token"),
    format("sk-ant-", 20, b"_-", "API key"),
    format("sk-proj-", 20, b"_-", "API key"),
    at_word(format("SG.", 40, b"_-.", "SendGrid key")),
    at_word(format("hvs.", 20, b"_-", "Vault token")),
    format("dckr_pat_", 20, b"_-", "Docker token"),
    at_word(token("EAA", 60, b"", "Meta access token")),
];

/// Looks at what an anchor announces, given its start and what is behind it. Tells where the search may go on.
type Look = fn(&mut Scan<'_>, usize, usize) -> Option<usize>;

/// Anchors that need a look of their own.
const OTHERS: &[(&str, Look)] = &[
    ("://", url),
    ("@tcp(", data_source),
    ("eyJ", jwt),
    ("-----BEGIN", super::pem::block),
    ("earer ", bearer),
    ("EARER ", bearer),
    ("asic ", basic),
    ("ASIC ", basic),
    (":AA", telegram),
    ("send?key=", hook),
    ("/hook/", hook),
    ("/services/T", hook),
    (" --", command::long_flag),
    (" -p", command::short_flag),
    (" -u", command::short_flag),
    (" -a", command::short_flag),
    ("arameters: ", sql::parameters),
    ("inding parameter", sql::binding),
    ("VALUES", sql::insert),
    ("values", sql::insert),
    (" BY '", sql::identified_by),
    (" by '", sql::identified_by),
    ("ASSWORD '", sql::password_literal),
    ("assword '", sql::password_literal),
    ("assword(", sql::password_literal),
    ("密码", said),
    ("口令", said),
    ("验证码", said),
    ("-- PARAMETERS: [", sql::listed),
    ("自治区", place::around),
    ("省", place::around),
    ("市", place::around),
];

/// Compiles the anchors.
///
/// # Errors
/// The library's own words; the patterns are constant.
pub(super) fn compile() -> Result<AhoCorasick, String> {
    let literals = FORMATS.iter().map(|format| format.literal).chain(OTHERS.iter().map(|(literal, _)| *literal));
    AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostFirst)
        .kind(Some(AhoCorasickKind::DFA))
        .build(literals)
        .map_err(|error| error.to_string())
}

/// Looks behind every anchor.
pub(super) fn find(scan: &mut Scan<'_>) {
    let (bytes, rules) = (scan.bytes, scan.rules);
    let mut from = 0;
    while from < bytes.len() && !scan.is_exhausted() {
        let Some(found) = rules.anchors.find(Input::new(bytes).span(from..bytes.len())) else { return };
        let id = found.pattern().as_usize();
        let end = match FORMATS.get(id) {
            Some(format) => key(scan, format, found.start(), found.end()),
            None => OTHERS.get(id - FORMATS.len()).and_then(|(_, look)| look(scan, found.start(), found.end())),
        };
        from = end.unwrap_or(0).max(found.start() + 1);
    }
}

fn run(scan: &Scan<'_>, from: usize, signs: &[u8]) -> usize {
    scan.bytes.get(from..).map_or(0, |rest| rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || signs.contains(byte)).count())
}

fn key(scan: &mut Scan<'_>, format: &Format, start: usize, behind: usize) -> Option<usize> {
    let len = run(scan, behind, format.signs);
    scan.spend(len);
    let body = scan.part(behind, behind + len);
    let starts = !format.word || !scan.before(start).is_ascii_alphanumeric() || is_escape(scan, start);
    let digits = body.iter().filter(|byte| byte.is_ascii_digit()).count();
    let shaped = match format.literal {
        "AKIA" | "ASIA" | "ABIA" | "ACCA" | "A3T" => body.iter().take(16).all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()),
        "AKID" | "xapp-" | "AQE" => digits > 0,
        "sq0" => body.get(3..4) == Some(b"-") && digits > 0,
        "xox" => body.get(1) == Some(&b'-') || body.starts_with(b"e.xox"),
        "shp" => body.get(..8).is_some_and(|head| head.contains(&b'_')) && digits > 0,
        "Atza" | "Atzr" => body.starts_with(b"|") || body.starts_with(b"%7C") || body.starts_with(b"%7c"),
        "amzn" => (body.starts_with(b".mws.") || body.starts_with(b"1.")) && digits > 4,
        _ => true,
    };
    if !starts || len < format.min || !shaped {
        return None;
    }
    scan.push(format.kind, start, behind + len, format.detector);
    Some(behind + len)
}

fn is_escape(scan: &Scan<'_>, at: usize) -> bool {
    at >= 2 && scan.byte(at - 2) == b'\\'
}

/// A token in three parts, or what is left of one.
fn jwt(scan: &mut Scan<'_>, start: usize, behind: usize) -> Option<usize> {
    let len = run(scan, behind, b"_-.=");
    let end = behind + len;
    let trimmed = end - scan.part(start, end).iter().rev().take_while(|byte| **byte == b'.').count();
    if len < 17 {
        return None;
    }
    scan.push(Kind::Token, start, trimmed, "JSON web token");
    Some(end)
}

fn bearer(scan: &mut Scan<'_>, _start: usize, behind: usize) -> Option<usize> {
    let len = run(scan, behind, b"-._~+/=|%");
    let body = scan.part(behind, behind + len);
    let is_word = len < 24 && body.iter().all(|byte| byte.is_ascii_alphabetic() || *byte == b'.');
    if len < 8 || is_word {
        return None;
    }
    scan.push(Kind::Token, behind, behind + len, "bearer token");
    Some(behind + len)
}

/// `Basic dXNlcjpwYXNz`: only what decodes to a user and a password.
fn basic(scan: &mut Scan<'_>, _start: usize, behind: usize) -> Option<usize> {
    let len = run(scan, behind, b"+/=");
    let body = scan.part(behind, behind + len);
    let engine = base64::engine::general_purpose::STANDARD_NO_PAD;
    let whole = body.strip_suffix(b"==").or_else(|| body.strip_suffix(b"=")).unwrap_or(body);
    let credentials = engine.decode(whole).ok().filter(|decoded| decoded.contains(&b':'));
    if len < 4 || credentials.is_none() {
        return None;
    }
    scan.push(Kind::Password, behind, behind + len, "basic credentials");
    Some(behind + len)
}

/// `123456789:AA…`, a bot's token.
fn telegram(scan: &mut Scan<'_>, start: usize, behind: usize) -> Option<usize> {
    let digits = scan.part(start.saturating_sub(12), start).iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let len = run(scan, behind, b"_-");
    if digits < 6 || len < 30 {
        return None;
    }
    scan.push(Kind::Token, start - digits, behind + len, "Telegram bot token");
    Some(behind + len)
}

/// The key in the address of a chat group's robot.
fn hook(scan: &mut Scan<'_>, _start: usize, behind: usize) -> Option<usize> {
    let slack = scan.byte(behind - 1) == b'T';
    let from = behind - usize::from(slack);
    let len = run(scan, from, if slack { b"/" } else { b"-_" });
    if len < 16 || !scan.part(from, from + len).iter().any(u8::is_ascii_digit) {
        return None;
    }
    scan.push(Kind::ApiKey, from, from + len, "key of a webhook");
    Some(from + len)
}

/// Ends an address: white space, a quote, an angle bracket.
const fn ends_address(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte < 0x20 || matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'`')
}

/// `scheme://user:password@host`: the password, or a user that can only be a token.
fn url(scan: &mut Scan<'_>, _start: usize, behind: usize) -> Option<usize> {
    let rest = scan.bytes.get(behind..)?;
    let authority_len = rest.iter().take_while(|byte| !(ends_address(**byte) || matches!(byte, b'/' | b'?' | b'#'))).count();
    scan.spend(authority_len);
    let authority = rest.get(..authority_len)?;
    let sign = authority.iter().rposition(|byte| *byte == b'@').or_else(|| {
        // A password with a slash in it: what looks like a port is none. Nobody writes `:8080#part`.
        let colon = authority.iter().position(|byte| *byte == b':')?;
        let port = authority.get(colon + 1..)?;
        let cut = rest.get(authority_len) == Some(&b'#');
        let is_port = !cut && !port.is_empty() && port.iter().all(u8::is_ascii_digit);
        if is_port || authority.first() == Some(&b'[') {
            return None;
        }
        let len = rest.iter().take_while(|byte| !ends_address(**byte)).count();
        scan.spend(len);
        let sign = rest.get(..len)?.iter().rposition(|byte| *byte == b'@');
        // Cut off before its host: no port has letters.
        sign.or_else(|| (len == rest.len() && (cut || !port.is_empty())).then_some(len))
    })?;
    user_info(scan, behind, behind + sign, URL);
    // The user may be a key of its own.
    None
}

/// `user:password@tcp(host)/db`, as Go writes it.
fn data_source(scan: &mut Scan<'_>, start: usize, _behind: usize) -> Option<usize> {
    let before = scan.part(start.saturating_sub(256), start);
    let len = before.iter().rev().take_while(|byte| !ends_address(**byte) && **byte != b'=').count();
    user_info(scan, start - len, start, URL);
    None
}

fn user_info(scan: &mut Scan<'_>, start: usize, end: usize, detector: &'static str) {
    let info = scan.part(start, end);
    match info.iter().position(|byte| *byte == b':') {
        Some(colon) if placeholder::holds(&scan.rules.user, scan.bytes, start + colon, start + colon + 1) => {}
        Some(colon) => scan.push(Kind::Password, start + colon + 1, end, detector),
        None if info.len() >= 16 && info.iter().any(u8::is_ascii_digit) && !info.contains(&b'.') && !info.contains(&b'[') => {
            scan.push(Kind::Token, start, end, detector);
        }
        None => {}
    }
}

/// `密码是123456`, `验证码 1234`: no sign between the word and the value.
fn said(scan: &mut Scan<'_>, _start: usize, behind: usize) -> Option<usize> {
    let mut from = value::skip_space(scan.bytes, behind);
    for word in ["是", "为", "：", ":"] {
        if scan.bytes.get(from..)?.starts_with(word.as_bytes()) {
            from = value::skip_space(scan.bytes, from + word.len());
        }
    }
    let found = scan.rules.keys.find(scan.bytes, behind)?;
    // With `=` between them they are a key and a value as anywhere.
    let starts = scan.byte(from).is_ascii_graphic() && scan.byte(from) != b'=';
    let (Class::Value(kind), true) = (found.class, starts) else { return None };
    let value = value::at(scan.bytes, from, Extent::Word);
    scan.spend(value.end - value.start);
    let part = scan.part(value.start, value.end);
    let is_value = part.len() >= 4 && part.iter().any(|byte| byte.is_ascii_digit()) && value::fits(kind, part);
    if !is_value {
        return None;
    }
    scan.push_keyed(kind, value.start, value.end, "key", Some(found.id));
    None
}
