//! Values without keys: parameters of statements, literals of an INSERT.
//!
//! A text parameter is masked unless it is plainly none of a person's: a number, a date, a word in capitals (a state), a
//! UUID or hash. Its column is not known here, so in doubt it goes.

use super::{
    kind::Kind,
    scan::Scan,
    text,
    value::{self, Extent},
};

const DETECTOR: &str = "parameter of a statement";
/// How far before VALUES the list of columns may begin.
const MAX_COLUMNS_BYTES: usize = 8192;

/// Plainly no personal data, whatever its column.
pub(super) fn is_harmless(scan: &Scan<'_>, value: &[u8]) -> bool {
    if value.is_empty() || value.eq_ignore_ascii_case(b"null") {
        return true;
    }
    if scan.rules.policy.strict {
        return false;
    }
    let number =
        value.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b':' | b' ' | b'+' | b',' | b'T' | b'Z' | b'/'));
    let state = value.len() <= 40 && value.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'_');
    let hash = value.len() >= 16 && value.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
    let flag = matches!(value, b"true" | b"false");
    number || state || hash || flag
}

fn judge(scan: &mut Scan<'_>, start: usize, end: usize) {
    if !is_harmless(scan, scan.part(start, end)) {
        scan.push(Kind::SqlParam, start, end, DETECTOR);
    }
}

/// MyBatis: `==> Parameters: 张三(String), 1(Integer)`. PostgreSQL: `parameters: $1 = 'x', $2 = 'y'`.
pub(super) fn parameters(scan: &mut Scan<'_>, start: usize, behind: usize) -> Option<usize> {
    if scan.byte(behind) == b'$' {
        numbered(scan, behind);
        return None;
    }
    let mut from = behind;
    let mut at = behind;
    while let Some(open) = scan.bytes.get(at..).and_then(|rest| text::find(rest, b'(')).map(|offset| at + offset) {
        scan.spend(open - at + 1);
        let name = scan.bytes.get(open + 1..)?.iter().take(32).take_while(|byte| byte.is_ascii_alphanumeric()).count();
        let close = open + 1 + name;
        at = open + 1;
        let ends = close + 1 >= scan.bytes.len() || scan.byte(close + 1) == b',' || !scan.byte(close + 1).is_ascii_alphanumeric();
        if name == 0 || scan.byte(close) != b')' || !ends || !scan.byte(open + 1).is_ascii_uppercase() {
            continue;
        }
        while scan.part(from, open).starts_with(b"null, ") {
            from += 6;
        }
        if matches!(scan.part(open + 1, close), b"String" | b"NString" | b"Object" | b"Clob" | b"NClob") {
            judge(scan, from, open);
        }
        at = close + 1;
        from = if scan.byte(at) == b',' { value::skip_space(scan.bytes, at + 1) } else { at };
    }
    // Cut off before its type.
    if scan.part(start.saturating_sub(5), start) == b"==> P" && from < scan.bytes.len() {
        judge(scan, from, scan.bytes.len());
    }
    None
}

fn numbered(scan: &mut Scan<'_>, from: usize) -> Option<()> {
    let mut at = from;
    while scan.byte(at) == b'$' {
        let equals = at + text::find(scan.bytes.get(at..)?, b'=')?;
        let value = value::at(scan.bytes, equals + 1, Extent::Word);
        if value.quoted {
            judge(scan, value.start, value.end);
        }
        scan.spend(value.after - at);
        at = value::skip_space(scan.bytes, value.after + usize::from(scan.byte(value.after) == b','));
    }
    Some(())
}

/// TypeORM: `-- PARAMETERS: ["x",1]`.
pub(super) fn listed(scan: &mut Scan<'_>, _start: usize, behind: usize) -> Option<usize> {
    let mut at = behind;
    loop {
        let value = value::at(scan.bytes, at, Extent::Word);
        scan.spend(value.after.saturating_sub(at) + 1);
        if value.quoted {
            judge(scan, value.start, value.end);
        }
        at = value::skip_space(scan.bytes, value.after);
        if scan.byte(at) != b',' {
            return None;
        }
        at += 1;
    }
}

/// Hibernate: `binding parameter [1] as [VARCHAR] - [x]`, `binding parameter (1:VARCHAR) <- [x]`.
pub(super) fn binding(scan: &mut Scan<'_>, _start: usize, behind: usize) -> Option<usize> {
    let rest = scan.bytes.get(behind..)?;
    let open = [&b"- ["[..], b"-["].iter().find_map(|sign| text::find_text(rest, sign).map(|at| behind + at + sign.len()))?;
    let end = scan.bytes.get(open..)?.iter().rposition(|byte| *byte == b']').map_or(scan.bytes.len(), |at| open + at);
    scan.spend(end - behind);
    judge(scan, open, end);
    None
}

/// `INSERT INTO t (a, b) VALUES ('x', 'y'), (…)`: by the columns' names; without names as parameters are.
pub(super) fn insert(scan: &mut Scan<'_>, start: usize, behind: usize) -> Option<usize> {
    let mut at = value::skip_space(scan.bytes, behind);
    if scan.byte(at) != b'(' {
        return None;
    }
    let columns = columns_before(scan, start);
    while scan.byte(at) == b'(' {
        at += 1;
        let mut column = 0;
        loop {
            let value = value::at(scan.bytes, at, Extent::Word);
            scan.spend(value.after.saturating_sub(at) + 1);
            literal(scan, columns.get(column).copied(), value);
            column += 1;
            // A number or a function: on to the next sign that separates.
            let rest = scan.bytes.get(value.after.max(at)..)?;
            let sign = rest.iter().position(|byte| matches!(byte, b',' | b')'));
            scan.spend(sign.unwrap_or(rest.len()));
            at = value.after.max(at) + sign?;
            if scan.byte(at) == b')' {
                break;
            }
            at += 1;
        }
        at = value::skip_space(scan.bytes, at + 1);
        if scan.byte(at) != b',' {
            break;
        }
        at = value::skip_space(scan.bytes, at + 1);
    }
    None
}

fn literal(scan: &mut Scan<'_>, column: Option<usize>, value: value::Value) {
    match column {
        Some(column) => scan.column(column, value.start, value.end),
        None if value.quoted => judge(scan, value.start, value.end),
        None => {}
    }
}

/// Where the names of the columns end, from the list in brackets before `at`.
fn columns_before(scan: &Scan<'_>, at: usize) -> Vec<usize> {
    let first = at.saturating_sub(MAX_COLUMNS_BYTES);
    let before = scan.part(first, at);
    let Some(close) = before.iter().rposition(|byte| !byte.is_ascii_whitespace()).filter(|close| before.get(*close) == Some(&b')')) else {
        return Vec::new();
    };
    let Some(open) = before.get(..close).and_then(|part| part.iter().rposition(|byte| *byte == b'(')) else { return Vec::new() };
    let mut ends = Vec::new();
    let mut from = first + open + 1;
    for name in before.get(open + 1..close).unwrap_or_default().split(|byte| *byte == b',') {
        let end = from + name.len();
        let trimmed = name.iter().rev().take_while(|byte| matches!(byte, b' ' | b'`' | b'"' | b'\\' | b']' | b'\'')).count();
        ends.push(end - trimmed);
        from = end + 1;
    }
    ends
}

/// `IDENTIFIED BY 'x'`.
pub(super) fn identified_by(scan: &mut Scan<'_>, start: usize, behind: usize) -> Option<usize> {
    let before = scan.part(start.saturating_sub(64), start).to_ascii_uppercase();
    text::find_text(&before, b"IDENTIFIED")?;
    password_literal(scan, start, behind)
}

/// `PASSWORD 'x'`, `setPassword("x")`.
pub(super) fn password_literal(scan: &mut Scan<'_>, _start: usize, behind: usize) -> Option<usize> {
    let from = behind - usize::from(scan.before(behind) == b'\'');
    let value = value::at(scan.bytes, from, Extent::Word);
    if !value.quoted || value.start == value.end {
        return None;
    }
    scan.spend(value.end - value.start);
    scan.push(Kind::Password, value.start, value.end, "literal of a statement");
    None
}
