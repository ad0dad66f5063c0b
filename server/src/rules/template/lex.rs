//! From template text to texts and actions, and from an action to words.

/// A part of a template.
#[derive(Debug, PartialEq)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Action(&'a str),
}

/// A word of an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Function or keyword.
    Word(String),
    /// `$name`.
    Variable(String),
    /// `.name`, directly behind what it belongs to (`true`) or alone.
    Field(String, bool),
    Dot,
    Text(String),
    Int(i64),
    Float(f64),
    Open,
    Close,
    Pipe,
    Declare,
    Assign,
    Comma,
}

/// Cuts at `{{ }}`, applies trim markers, drops comments.
pub(super) fn split(source: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = source;
    let mut trim_next = false;
    loop {
        let start = rest.find("{{");
        let mut text = &rest[..start.unwrap_or(rest.len())];
        if trim_next {
            text = text.trim_start();
        }
        let Some(start) = start else {
            parts.push(Part::Text(text));
            break;
        };
        let mut inside = &rest[start + 2..];
        if let Some(trimmed) = inside.strip_prefix('-').filter(|after| after.starts_with(char::is_whitespace)) {
            text = text.trim_end();
            inside = trimmed;
        }
        parts.push(Part::Text(text));
        let (action, after, trim) = action(inside)?;
        trim_next = trim;
        if !action.starts_with("/*") {
            parts.push(Part::Action(action));
        }
        rest = after;
    }
    parts.retain(|part| *part != Part::Text(""));
    Ok(parts)
}

/// The action's text, what is behind it, and whether the white space there goes.
fn action(inside: &str) -> Result<(&str, &str, bool), String> {
    let body = inside.trim_start();
    if body.starts_with("/*") {
        let end = body.find("*/").ok_or("unclosed comment")?;
        let behind = &body[end + 2..];
        if let Some(rest) = behind.strip_prefix("}}") {
            return Ok((body, rest, false));
        }
        let rest = behind.trim_start().strip_prefix("-}}").ok_or("a comment must end with `*/}}`")?;
        return Ok((body, rest, true));
    }
    let mut quote = None;
    let mut escaped = false;
    for (at, letter) in inside.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"' | '\'') if letter == '\\' => escaped = true,
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if matches!(letter, '"' | '`' | '\'') => quote = Some(letter),
            None if inside[at..].starts_with("}}") => {
                let text = &inside[..at];
                let trimmed = text.strip_suffix('-').filter(|before| before.ends_with(char::is_whitespace));
                return Ok((trimmed.unwrap_or(text).trim(), &inside[at + 2..], trimmed.is_some()));
            }
            None => {}
        }
    }
    Err("unclosed action: `{{` without `}}`".to_owned())
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Cuts an action into words.
pub(super) fn tokens(action: &str) -> Result<Vec<Token>, String> {
    let mut all = Vec::new();
    let mut rest = action;
    let mut after_space = true;
    while let Some(first) = rest.chars().next() {
        let before = rest;
        if first.is_whitespace() {
            rest = rest.trim_start();
            after_space = true;
            continue;
        }
        let word_len = |from: usize| rest[from..].find(|letter| !is_word(letter)).map_or(rest.len(), |at| from + at);
        let (token, len) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '|' => (Token::Pipe, 1),
            ',' => (Token::Comma, 1),
            '=' => (Token::Assign, 1),
            ':' if rest.starts_with(":=") => (Token::Declare, 2),
            '"' | '`' => quoted(rest, first)?,
            '$' => (Token::Variable(rest[1..word_len(1)].to_owned()), word_len(1)),
            '.' if rest[1..].starts_with(|next: char| next.is_alphabetic() || next == '_') => {
                (Token::Field(rest[1..word_len(1)].to_owned(), !after_space), word_len(1))
            }
            '.' if !rest[1..].starts_with(|next: char| next.is_ascii_digit()) => (Token::Dot, 1),
            _ if first.is_ascii_digit() || "+-.".contains(first) => number(rest)?,
            _ if is_word(first) => (Token::Word(rest[..word_len(0)].to_owned()), word_len(0)),
            other => return Err(format!("unexpected {other:?} in an action")),
        };
        all.push(token);
        rest = &before[len..];
        after_space = false;
    }
    Ok(all)
}

fn number(rest: &str) -> Result<(Token, usize), String> {
    let len = rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || "+-._".contains(letter))).unwrap_or(rest.len());
    let text = &rest[..len];
    if let Ok(number) = text.parse::<i64>() {
        return Ok((Token::Int(number), len));
    }
    let first = text.trim_start_matches(['+', '-']).chars().next();
    match text.parse::<f64>() {
        Ok(number) if first.is_some_and(|first| first.is_ascii_digit() || first == '.') => Ok((Token::Float(number), len)),
        _ => Err(format!("bad number syntax: {text:?}")),
    }
}

fn quoted(rest: &str, quote: char) -> Result<(Token, usize), String> {
    let mut text = String::new();
    let mut letters = rest.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            letter if letter == quote => return Ok((Token::Text(text), at + 1)),
            '\\' if quote == '"' => match letters.next().map(|(_, next)| next) {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('r') => text.push('\r'),
                Some(same @ ('"' | '\\' | '\'')) => text.push(same),
                other => return Err(format!("unknown escape sequence \\{}", other.map_or_else(String::new, String::from))),
            },
            letter => text.push(letter),
        }
    }
    Err("unterminated quoted string".to_owned())
}
