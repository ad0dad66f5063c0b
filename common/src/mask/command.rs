//! Secrets in command lines: `--password x`, `mysql -px`, `curl -u user:x`, `redis-cli -a x`.

use super::{
    keys::Class,
    kind::Kind,
    scan::Scan,
    text,
    value::{self, Extent},
};

/// `--db-password x`; with `=` between them they are a key and a value as anywhere.
pub(super) fn long_flag(scan: &mut Scan<'_>, _start: usize, behind: usize) -> Option<usize> {
    let name = scan
        .bytes
        .get(behind..)?
        .iter()
        .take(48)
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        .count();
    let end = behind + name;
    if scan.byte(end) != b' ' || scan.byte(end + 1) == b'-' {
        return None;
    }
    let found = scan.rules.keys.find(scan.bytes, end)?;
    let (Class::Value(kind) | Class::Long(kind, _)) = found.class else { return None };
    if !kind.is_secret() {
        return None;
    }
    let value = value::at(scan.bytes, end, Extent::Secret);
    if value::fits(kind, scan.part(value.start, value.end)) {
        scan.push_keyed(kind, value.start, value.end, "option of a command", Some(found.id));
    }
    scan.spend(value.end - value.start);
    None
}

/// Options of one letter of programs that take a password this way.
pub(super) fn short_flag(scan: &mut Scan<'_>, start: usize, behind: usize) -> Option<usize> {
    let called =
        |names: &[&str]| names.iter().any(|name| text::find_text(scan.part(start.saturating_sub(256), start), name.as_bytes()).is_some());
    let spaced = scan.byte(behind) == b' ';
    let from = match scan.byte(start + 2) {
        b'p' if !spaced && called(&["mysql", "mariadb"]) && scan.byte(behind).is_ascii_graphic() => behind,
        b'p' if called(&["sshpass", "docker login"]) => behind + usize::from(spaced),
        b'a' if spaced && called(&["redis-cli"]) => behind + 1,
        b'u' if spaced && called(&["curl", "wget", "http"]) => {
            let value = value::at(scan.bytes, behind + 1, Extent::Secret);
            let colon = text::find(scan.part(value.start, value.end), b':')?;
            scan.push(Kind::Password, value.start + colon + 1, value.end, "option of a command");
            scan.spend(value.end - value.start);
            return None;
        }
        _ => return None,
    };
    let value = value::at(scan.bytes, from, Extent::Secret);
    if value::fits(Kind::Password, scan.part(value.start, value.end)) {
        scan.push(Kind::Password, value.start, value.end, "option of a command");
    }
    scan.spend(value.end - value.start);
    None
}
